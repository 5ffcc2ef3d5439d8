"""What the checks of stored events find, each on a day that fails it, and in `mp doctor`."""

from datetime import UTC, date, datetime, timedelta

import pytest
from pydantic import ValidationError

from mixpanel_assets.loading.checks import events_complete, last_day_due
from mixpanel_assets.loading.day_checks import DAY_CHECKS, CheckThresholds, check_days
from mixpanel_assets.loading.doctor import doctor
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import Database, ProjectIdentity
from mixpanel_assets_tests.odd_days import DAY, FAILS, database_bytes, days, odd_day
from mixpanel_assets_tests.warehouse.conftest import Warehouse

NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The database of the odd days, only read."""
    path = tmp_path_factory.mktemp("odd") / "warehouse.duckdb"
    path.write_bytes(database_bytes())
    return Database(path, read_only=True)


@pytest.fixture(scope="module")
def outcomes(database):
    """The results of all checks, by check and day."""
    with database.read() as connection:
        found = check_days(connection, days(), table="events")
    return {(outcome.check, outcome.day): outcome for outcome in found}


SAID = {
    "rows_quarantined": ("1 line of {day} cannot be stored", "mixpanel._quarantine WHERE day"),
    "duplicate_share": ("25.0% of the events", "(50 of 200), more than 10%"),
    "null_ids": ("10.0% have no `distinct_id` (15 rows)", "0.0% have no `$insert_id`"),
    "event_times": ("30 rows of {day} have an `event_time`", "--refetch all"),
    "daily_volume": (
        "{day} has 40 events; usual for a {day:%A} are 150. `Visit` moved most: 40 instead of 120.",
        "load the day again",
    ),
    "rows_vanished": ("does not send 9 stored rows of {day}", "--accept-smaller"),
    "property_changes": ("properties of {day} differ from the 3 days before",),
}


@pytest.mark.parametrize("check", FAILS)
def test_each_check_fails_on_its_day_alone(check, outcomes):
    """It says what was found and what to do."""
    failed = [day for day in days() if not outcomes[check, day].passed]
    assert failed == [odd_day(check)]
    outcome = outcomes[check, odd_day(check)]
    for said in SAID[check]:
        assert said.format(day=odd_day(check)) in f"{outcome.detail} {outcome.remedy}"
    assert outcome.severity == ("error" if check == "event_times" else "warn")
    assert outcome.remedy


def test_new_vanished_and_retyped_properties_are_told_apart(outcomes):
    """By event, with how many rows had them."""
    rows = outcomes["property_changes", odd_day("property_changes")].rows
    changes = {(row["event"], row["property"], row["change"]) for row in rows}
    assert changes == {
        (event, name, change)
        for event in ("Order", "Visit")
        for name, change in (("plan", "vanished"), ("tier", "new"), ("amount", "retyped"))
    }
    [plan] = [row for row in rows if (row["event"], row["property"]) == ("Order", "plan")]
    assert (plan["before"], plan["now"]) == ("100% of the rows", "0%")


def test_the_event_that_moved_most_and_missing_events_are_named(outcomes):
    """By how many rows it differs from the median of the same weekdays."""
    rows = outcomes["daily_volume", odd_day("daily_volume")].rows
    assert [(row["event"], row["rows"], row["usual_rows"]) for row in rows] == [
        ("Visit", 40, 120),
        ("Order", 0, 30),
    ]


def test_too_little_history_passes_and_says_so(database):
    """The first day has no day before it."""
    with database.read() as connection:
        found = {one.check: one for one in check_days(connection, days()[:1], table="events")}
    for check in ("daily_volume", "property_changes"):
        assert found[check].passed
        assert found[check].detail.startswith("Too little to compare with:")


def test_days_and_tables_without_rows_pass(database):
    """A day that is missing is what `events_complete` is for."""
    with database.read() as connection:
        found = check_days(connection, [days()[-1] + 9 * DAY], table="events")
        assert check_days(connection, [], table="events") == []
    assert [one.check for one in found] == list(DAY_CHECKS)
    assert all(one.passed and "No event is stored" in one.detail for one in found)


@pytest.mark.parametrize(
    ("check", "limits"),
    [
        ("rows_quarantined", {"quarantined_rows": 1}),
        ("duplicate_share", {"duplicate_share": 0.25}),
        ("null_ids", {"null_id_share": 0.1}),
        ("daily_volume", {"volume_low": 0.25}),
        ("property_changes", {"property_rows": 500}),
    ],
)
def test_thresholds_decide(check, limits, database):
    """With other limits, the same day passes."""
    thresholds = CheckThresholds(**limits)
    with database.read() as connection:
        [outcome] = check_days(
            connection, [odd_day(check)], table="events", checks=[check], thresholds=thresholds
        )
    assert outcome.passed


def test_a_threshold_that_does_not_exist_is_refused():
    """A limit that makes no sense is refused too."""
    for wrong in ({"volume": 2}, {"volume_high": 0.5}, {"duplicate_share": 20}):
        with pytest.raises(ValidationError):
            CheckThresholds(**wrong)


def test_an_event_that_vanished_is_found_among_many_others(tmp_path):
    """The day's total moves by a tenth only."""
    warehouse = Warehouse(tmp_path)
    first = date(2026, 3, 1)
    start = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
    lines = [
        {"event": name, "properties": {"time": start + week * 7 * 86_400_000, "$insert_id": f"{n}"}}
        for week in range(4)
        for name, rows in (("Visit", 1000), ("Order", 100))
        for n in range(rows)
        if week < 3 or name == "Visit"
    ]
    warehouse.load(lines, from_date=first, to_date=first + timedelta(days=21))
    with warehouse.database.read() as connection:
        [outcome] = check_days(
            connection, [first + timedelta(days=21)], table="events", checks=["daily_volume"]
        )
    assert not outcome.passed
    assert "Not one event of: Order." in outcome.detail


@pytest.mark.parametrize(
    ("project", "ahead", "said"),
    [
        (ProjectIdentity("1", "us"), 120, "set MP_TIME_REGIME=legacy"),
        (ProjectIdentity("1", "us", "legacy", "Europe/Berlin"), 0, "MP_TIME_REGIME=utc"),
        (ProjectIdentity("1", "us", "legacy", "Europe/Berlin"), 60, None),
    ],
)
def test_events_that_contradict_the_time_settings_are_told(project, ahead, said, tmp_path):
    """By the moment at which Mixpanel received them."""
    warehouse = Warehouse(tmp_path, project)
    start = int(datetime(2026, 3, 1, 10, tzinfo=UTC).timestamp() * 1000)
    lines = [
        {
            "event": "Visit",
            "properties": {
                "time": start + n * 1000,
                "$insert_id": f"{n}",
                "$mp_api_timestamp_ms": start + n * 1000 - ahead * 60_000,
            },
        }
        for n in range(50)
    ]
    warehouse.load(lines)
    with warehouse.database.read() as connection:
        [outcome] = check_days(
            connection, [date(2026, 3, 1)], table="events", checks=["event_times"]
        )
    assert outcome.passed == (said is None)
    assert said is None or said in outcome.detail
    assert outcome.severity == "warn"


def test_rows_that_were_deleted_by_hand_are_missed(tmp_path):
    """The ledger knows how many were loaded."""
    (tmp_path / "mixpanel.duckdb").write_bytes(database_bytes())
    day = days()[0]
    with Database(tmp_path / "mixpanel.duckdb").write() as connection:
        connection.execute("DELETE FROM mixpanel.events WHERE event_date = ?", [day])
        [outcome] = check_days(connection, [day], table="events", checks=["event_times"])
    assert (outcome.passed, outcome.severity) == (False, "error")
    assert "has 0 rows, but 150 were loaded" in outcome.detail


def test_the_doctor_says_the_same_in_one_line_for_each_check(credentials, settings):
    """With what to run; days that are missing are among them."""
    settings.database.write_bytes(database_bytes())
    with Database(settings.database).write() as connection:
        connection.execute("DELETE FROM mixpanel._days WHERE day = ?", [days()[3]])
    findings = doctor(credentials=credentials, settings=settings)
    found = {finding.what: finding for finding in findings}
    assert len(found) == len(findings)
    for check in FAILS:
        assert found[check].status == "warn"
        assert str(odd_day(check)) in found[check].detail
        assert found[check].remedy
    assert found["days"].detail.startswith(f"{days()[3]} is missing: 1 of 42 days")
    assert f"`mp sync --from {days()[3]} --to {days()[3]}`" in found["days"].remedy


def test_the_doctor_calls_ordinary_days_ordinary(credentials, settings):
    """Each check has its line then, too."""
    settings.database.write_bytes(database_bytes())
    with Database(settings.database).write() as connection:
        connection.execute("DELETE FROM mixpanel._days WHERE day > ?", [days()[-8]])
        connection.execute("DELETE FROM mixpanel._event_counts WHERE day > ?", [days()[-8]])
    found = {one.what: one for one in doctor(credentials=credentials, settings=settings)}
    for check in DAY_CHECKS:
        assert found[check].status == "ok"
        assert found[check].detail == f"nothing unusual on {days()[-14]}..{days()[-8]}"


def row(status, **more):
    return {"status": status, **more}


@pytest.mark.parametrize(
    ("changes", "missing", "unavailable"),
    [
        ({}, [], []),
        ({3: None}, [3], []),
        ({3: "failed", 4: "open", 5: "partial"}, [3, 4, 5], []),
        ({3: "empty"}, [], []),
        ({1: "not available", 2: "expired"}, [2], [1]),
        ({18: None}, [18], []),
        ({19: None}, [19], []),
        ({20: None, 21: None}, [], []),
    ],
)
def test_days_are_complete_missing_or_unavailable(changes, missing, unavailable):
    """Those that cannot be loaded are named, and do not fail the check."""
    ledger = {date(2026, 3, number): row("complete") for number in range(1, 20)}
    for number, status in changes.items():
        ledger.pop(date(2026, 3, number), None)
        if status:
            ledger[date(2026, 3, number)] = row(status)
    outcome = events_complete(ledger, Settings(), first=date(2026, 3, 1), now=NOON, table="events")
    assert outcome.passed == (not missing)
    assert outcome.severity == "error"
    assert outcome.numbers["days"] == 19
    assert outcome.numbers["days_missing"] == len(missing)
    assert outcome.numbers["days_unavailable"] == len(unavailable)
    for number in (*missing, *unavailable):
        assert f"2026-03-{number:02d}" in str(outcome.rows)
    for number in unavailable:
        assert f"2026-03-{number:02d} cannot be loaded" in outcome.detail


def test_days_before_the_retention_do_not_count_as_missing():
    """They were deleted before they could be loaded."""
    settings = Settings(retention_days=10)
    first = settings.today() - timedelta(days=20)
    now = datetime.now(UTC)
    outcome = events_complete({}, settings, first=first, now=now, table="events")
    assert outcome.numbers["days_unavailable"] == 10
    assert f"{first}..{first + timedelta(days=9)} cannot be loaded" in outcome.detail
    assert not outcome.passed


@pytest.mark.parametrize(
    ("hour", "zone", "last"),
    [(5, "UTC", 18), (6, "UTC", 19), (12, "US/Pacific", 18), (14, "US/Pacific", 19)],
)
def test_yesterday_is_due_from_the_close_hour_on(hour, zone, last):
    """In the zone of the partitions, at six by default."""
    settings = Settings(time_regime="legacy", time_zone=zone)
    now = datetime(2026, 3, 20, hour, tzinfo=UTC)
    assert last_day_due(settings, now) == date(2026, 3, last)


def test_no_day_is_due_before_the_first_one():
    """A project of the future lacks nothing."""
    first = date(2026, 3, 20)
    outcome = events_complete({}, Settings(), first=first, now=NOON, table="events")
    assert outcome.passed
    assert outcome.detail == "No day since 2026-03-20 is due yet."
