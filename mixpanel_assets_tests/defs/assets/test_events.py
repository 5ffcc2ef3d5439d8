"""The asset `mixpanel/events` in real runs."""

import json
import time
from datetime import date
from decimal import Decimal

import dagster as dg
import pytest

from mixpanel_assets.defs.resources import MixpanelResource
from mixpanel_assets.emulator import Fault
from mixpanel_assets.warehouse import known_tables
from mixpanel_assets_tests.defs.assets.conftest import EVENTS
from mixpanel_assets_tests.laws import siblings

DAY = date(2024, 1, 3)
ODD_DAY = date(2024, 1, 4)  # one of its lines holds half a surrogate pair
ROWS = "SELECT * FROM mixpanel.events ORDER BY ALL"


def stored(database, query=ROWS):
    with database.read() as connection:
        return connection.execute(query).fetchall()


def has_events(database):
    with database.read() as connection:
        return bool(known_tables(connection))


def exact(text):
    return json.loads(text, parse_float=Decimal)


def comparable(value):
    return json.dumps(value, sort_keys=True, default=lambda d: f"decimal {d.normalize()}")


def rows_vanished(result):
    checks = result.get_asset_check_evaluations()
    return {check.partition: check for check in checks if check.check_name == "rows_vanished"}


def failure_of(result):
    [event] = [e for e in result.all_events if e.is_step_failure]
    return event.step_failure_data.error.message


def test_a_partition_holds_its_day_exactly(materialize, emulator, database):
    """Row count and counts per event equal the truth; what cannot be stored is in quarantine."""
    assert materialize(EVENTS, "2024-01-04").success
    held = emulator.truth.unstorable(ODD_DAY)
    expected = dict(emulator.truth.count_by_event(ODD_DAY))
    for line in held:
        expected[json.loads(line)["event"]] -= 1
    counts = stored(database, "SELECT event_name, count(*) FROM mixpanel.events GROUP BY ALL")
    assert dict(counts) == {name: count for name, count in expected.items() if count}
    assert set(stored(database, "SELECT event_date FROM mixpanel.events")) == {(ODD_DAY,)}
    assert len(stored(database, "SELECT * FROM mixpanel._quarantine")) == len(held) > 0


def test_properties_read_back_as_they_were_sent(materialize, emulator, database):
    """For every awkward value of the emulator, the stored JSON equals what Mixpanel sent."""
    assert materialize(EVENTS, "2024-01-03").success
    sent = []
    unstorable = set(emulator.truth.unstorable(DAY))
    unstorable_ids = {json.loads(line)["properties"].get("$insert_id") for line in unstorable}
    for record in emulator.truth.iter_events(DAY, time_in_ms=True):
        properties = dict(record["properties"])
        if properties.get("$insert_id") in unstorable_ids:
            continue
        for column in ("time", "distinct_id", "$insert_id"):
            properties.pop(column, None)
        sent.append(comparable([record["event"], exact(json.dumps(properties))]))
    rows = stored(database, "SELECT event_name, properties FROM mixpanel.events")
    assert sorted(comparable([name, exact(text)]) for name, text in rows) == sorted(sent)


def test_materializing_a_day_twice_leaves_one_copy(materialize, database):
    """The second run replaces what the first one stored."""
    materialize(EVENTS, "2024-01-03")
    before = stored(database)
    assert materialize(EVENTS, "2024-01-03").success
    assert stored(database) == before


def test_a_range_equals_its_days_one_by_one(materialize, database, tmp_path):
    """Three days in one run store the same rows as three runs."""
    assert materialize(EVENTS, "2024-01-02", "2024-01-04").success
    in_one = stored(database)
    for day in range(2, 5):
        assert materialize(EVENTS, f"2024-01-0{day}").success
    assert stored(database) == in_one


def test_each_partition_of_a_range_reports_its_own_numbers(materialize, instance, emulator):
    """Rows, repeats, bytes, requests and seconds stand on each day's own materialization."""
    begin = time.monotonic()
    materialize(EVENTS, "2024-01-01", "2024-01-03")
    most_seconds = time.monotonic() - begin
    records = instance.fetch_materializations(EVENTS, limit=10).records
    assert sorted(record.partition_key for record in records) == [
        "2024-01-01",
        "2024-01-02",
        "2024-01-03",
    ]
    for record in records:
        metadata = record.asset_materialization.metadata
        day = date.fromisoformat(record.partition_key)
        assert metadata["rows"].value == emulator.truth.count(day) - len(
            emulator.truth.unstorable(day)
        )
        assert metadata["repeats_removed"].value == emulator.truth.duplicates(day)
        assert {"megabytes", "seconds", "events", "events_per_hour"} <= metadata.keys()
        assert not {"rows_before", "dagster/partition_row_count"} & metadata.keys()
        assert "data:image/svg+xml" in metadata["events_per_hour"].value
        assert metadata["budget_left"].value < 1000, "requests that the hour has left"
    told = {r.partition_key: r.asset_materialization.metadata for r in records}
    shared = [day for day in told if "request_days" in told[day]]
    sent = {day: told[day]["requests"].value for day in told if "requests" in told[day]}
    assert sent == {"2024-01-01": 1, "2024-01-02": 1}, "on the day that begins a response"
    assert shared == ["2024-01-03", "2024-01-02"]
    assert all(told[day]["request_days"].value == 2 for day in shared)
    assert 0 < sum(metadata["seconds"].value for metadata in told.values()) < most_seconds


@pytest.mark.parametrize("fault", [None, Fault("402-json", path="*/export", times=None)])
def test_a_run_is_tagged_with_the_project_and_its_requests(fault, materialize, instance, emulator):
    """A run that fails too: its requests are spent as well."""
    if fault:
        emulator.faults.add(fault)
    sent = len(emulator.requests)
    result = materialize(EVENTS, "2024-01-03")
    assert result.success is (fault is None)
    requests = sum(request.path.endswith("/export") for request in emulator.requests[sent:])
    tags = instance.get_run_by_id(result.run_id).tags
    assert tags["mixpanel/project"] == str(emulator.project_id)
    assert tags["mixpanel/requests"] == str(requests)
    assert requests >= 1


def test_the_ledger_knows_the_run(materialize, database):
    """Each day's row says which run wrote it, when, and what it found."""
    result = materialize(EVENTS, "2024-01-03")
    [(run_id, status)] = stored(database, "SELECT run_id, status FROM mixpanel._days")
    assert (run_id, status) == (result.run_id, "complete")


def test_a_day_that_stays_broken_keeps_what_it_held(materialize, emulator, database):
    """The run fails, says why, and the rows of before are all there."""
    materialize(EVENTS, "2024-01-03")
    before = stored(database)
    emulator.faults.add(Fault("truncate-own-line", day=DAY, times=None))
    result = materialize(EVENTS, "2024-01-03")
    assert not result.success
    assert "2024-01-03" in failure_of(result)
    assert "terminated early" in failure_of(result)
    assert stored(database) == before


def test_good_days_of_a_failed_range_are_stored_and_recorded(
    materialize, emulator, database, instance
):
    """One bad day of five: four are in the table and have their materialization events."""
    emulator.faults.add(Fault("truncate-own-line", day=DAY, times=None))
    assert not materialize(EVENTS, "2024-01-01", "2024-01-05").success
    statuses = stored(database, "SELECT day::VARCHAR, status FROM mixpanel._days")
    days = {day for day, status in statuses if status != "failed"}
    expected = {"2024-01-01", "2024-01-02", "2024-01-04", "2024-01-05"}
    assert days == expected
    records = instance.fetch_materializations(EVENTS, limit=10).records
    assert {record.partition_key for record in records} == expected


@pytest.mark.parametrize(
    ("changes", "said"),
    siblings(
        [
            ({"username": "", "secret": ""}, "missing: MP_USERNAME, MP_SECRET"),
            ({"region": "mars"}, "region must be one of us, eu, in"),
            ({"project_id": "99999"}, "access to project 99999"),
            ({"secret": "wrong-4c1"}, "Check MP_USERNAME and MP_SECRET"),
            ({"api_base_url": "http://127.0.0.1:9"}, "cannot be reached"),
        ],
        keep=2,
    ),
)
def test_bad_input_ends_in_one_sentence(changes, said, materialize, resource, database):
    """The failure says what is wrong and what to do, never a secret, and nothing is stored."""
    wrong = MixpanelResource(**{**resource.model_dump(), "max_retries": 0, **changes})
    result = materialize(EVENTS, "2024-01-03", mixpanel=wrong)
    assert said in failure_of(result)
    assert "wrong-4c1" not in failure_of(result)
    assert database.is_missing or not has_events(database)


def test_another_projects_rows_are_never_mixed_in(materialize, resource, database):
    """A file of one project refuses another; nothing changes."""
    materialize(EVENTS, "2024-01-03")
    before = stored(database)
    with database.write() as connection:
        connection.execute("UPDATE mixpanel._project SET project_id = '777'")
    result = materialize(EVENTS, "2024-01-03")
    assert not result.success
    assert "777" in failure_of(result)
    assert stored(database) == before


def test_rows_that_vanished_are_kept_and_counted(materialize, emulator, instance, database):
    """Two responses lack them: the run succeeds, and the metadata says how many there are."""
    materialize(EVENTS, "2024-01-03")
    before = stored(database)
    emulator.faults.add(Fault("delete-rows", day=DAY, count=9, times=None))
    assert materialize(EVENTS, "2024-01-03").success
    [record] = instance.fetch_materializations(EVENTS, limit=1).records
    metadata = record.asset_materialization.metadata
    assert metadata["rows_vanished"].value == 9
    assert metadata["rows_before"].value == metadata["rows"].value
    assert stored(database) == before


@pytest.mark.slow
def test_a_check_names_vanished_rows_and_how_to_let_go_of_them(materialize, emulator, database):
    """It warns and holds nothing up; `accept_smaller` in the launchpad ends it."""
    first = materialize(EVENTS, "2024-01-03", checks=True)
    assert rows_vanished(first)["2024-01-03"].passed
    emulator.faults.add(Fault("delete-rows", day=DAY, count=9, times=None))
    checks = rows_vanished(materialize(EVENTS, "2024-01-02", "2024-01-04", checks=True))
    assert [day for day, check in sorted(checks.items()) if check.passed] == [
        "2024-01-02",
        "2024-01-04",
    ]
    check = checks["2024-01-03"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.metadata["rows_vanished"].value == 9
    for said in ("9 stored rows of 2024-01-03", "accept_smaller: true", "mp drop-day"):
        assert said in check.description
    before = len(stored(database))
    config = {"ops": {"mixpanel__events": {"config": {"accept_smaller": True}}}}
    result = materialize(EVENTS, "2024-01-02", "2024-01-04", config=config, checks=True)
    assert all(check.passed for check in rows_vanished(result).values())
    assert len(stored(database)) == before - 9


def test_a_day_before_the_plans_horizon_is_materialized_as_not_available(
    materialize, emulator, instance, database
):
    """The run succeeds, and the day's metadata and ledger row say that there is nothing."""
    text = "Date range exceeds 1 days into the past"
    emulator.faults.add(
        Fault("403-history", day=date(2024, 1, 1), times=None, text=text),
        Fault("403-history", day=date(2024, 1, 2), times=None, text=text),
    )
    assert materialize(EVENTS, "2024-01-01", "2024-01-04").success
    records = instance.fetch_materializations(EVENTS, limit=9).records
    status = {r.partition_key: r.asset_materialization.metadata["status"].value for r in records}
    assert [status[day] for day in sorted(status)] == ["not available"] * 2 + ["complete"] * 2
    assert stored(database, "SELECT status FROM mixpanel._days ORDER BY day")[1] == (
        "not available",
    )


def test_today_stays_open(materialize, settings, database):
    """A day that is not over is never called complete or empty."""
    today = settings.today().isoformat()
    assert materialize(EVENTS, today).success
    assert stored(database, "SELECT status FROM mixpanel._days") == [("open",)]


def test_an_empty_day_is_recorded_as_empty(materialize, database):
    """A day without events is a fact, not a failure."""
    assert materialize(EVENTS, "2024-02-20").success
    assert stored(database, "SELECT status, row_count FROM mixpanel._days") == [("empty", 0)]


def test_the_secret_is_in_no_event(materialize, instance, emulator):
    """Nothing that Dagster keeps of a run holds the secret."""
    result = materialize(EVENTS, "2024-01-03")
    logged = "".join(str(entry) for entry in instance.all_logs(result.run_id))
    assert emulator.secret not in logged
    assert emulator.secret not in repr(instance.get_run_by_id(result.run_id))


def test_downstream_assets_read_what_was_stored(materialize, settings, resource, instance):
    """An asset that depends on events gets its day as a DataFrame."""
    import pandas as pd

    from mixpanel_assets.defs.location import build_definitions

    @dg.asset(
        ins={"events": dg.AssetIn(EVENTS, metadata={"columns": ["event_name", "event_date"]})},
        partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_offset=1),
        key=["mixpanel", "daily"],
        io_manager_key="mixpanel_warehouse",
        metadata={"partition_expr": "event_date"},
    )
    def daily(events: pd.DataFrame) -> pd.DataFrame:
        return events.groupby(["event_date", "event_name"]).size().reset_index(name="events")

    materialize(EVENTS, "2024-01-03")
    base = build_definitions(settings=settings, resources={"mixpanel": resource})
    definitions = dg.Definitions.merge(base, dg.Definitions(assets=[daily]))
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        asset_selection=[daily.key], partition_key="2024-01-03", instance=instance
    )
    assert result.output_for_node("mixpanel__daily")["events"].sum() > 0
