"""MP_RETENTION_DAYS: days that Mixpanel has deleted are not requested, and stored ones are kept."""

from datetime import date, timedelta

import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.defs.io_managers import find_gaps
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import ConfigError, MissingDaysError
from mixpanel_assets.loading.doctor import doctor
from mixpanel_assets.loading.events import EventLoad
from mixpanel_assets.loading.verification import verify_days
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.warehouse import Database, Target
from mixpanel_assets_tests.laws import siblings

EXPORT = "/api/2.0/export"
FIRST, HORIZON, LAST = date(2024, 1, 1), date(2024, 1, 4), date(2024, 1, 6)
OLD = [date(2024, 1, day) for day in (1, 2, 3)]
KEPT = [date(2024, 1, day) for day in (4, 5, 6)]
ROWS = "SELECT * FROM events ORDER BY ALL"
LEDGER = "SELECT day, status, row_count FROM mixpanel._days ORDER BY day"


def reaching_back_to(settings, day):
    """Return settings in which Mixpanel holds the events from `day` on."""
    days = (settings.today() - day).days
    return settings.model_copy(update={"retention_days": days, "days_per_request": 3})


@pytest.fixture
def limited(settings):
    return reaching_back_to(settings, HORIZON)


@pytest.fixture
def workspace_with(credentials):
    """Open a workspace with the given settings; it is closed at the end."""
    opened = []

    def open_one(settings):
        opened.append(Workspace(credentials=credentials, settings=settings))
        return opened[-1]

    yield open_one
    for workspace in opened:
        workspace.close()


@pytest.fixture
def asked(emulator):
    """Return the days that were requested since the test began, each once for each request."""
    before = len(emulator.requests)
    return lambda: [
        day for one in emulator.requests[before:] if one.path == EXPORT for day in one.days
    ]


def statuses(workspace):
    return {day: status for day, status, _ in workspace.sql_rows(LEDGER)}


def test_days_before_the_horizon_are_expired_and_cost_no_request(limited, workspace_with, asked):
    """They are reported and noted with no rows; the others are loaded."""
    workspace = workspace_with(limited)
    reports = workspace.sync_events(FIRST, LAST)
    assert [report.status for report in reports] == ["expired"] * 3 + ["complete"] * 3
    assert workspace.sql_rows(LEDGER)[:3] == [(day, "expired", 0) for day in OLD]
    assert asked() == KEPT


@pytest.mark.parametrize("refetch", siblings(["all", "stale", "missing"], keep=1))
def test_stored_days_before_the_horizon_stay_as_they_are(
    refetch, settings, limited, workspace_with, asked
):
    """Whatever `refetch` is, no request is sent, no row is deleted, and the days are reported."""
    workspace_with(settings).sync_events(FIRST, OLD[1])
    workspace = workspace_with(limited)
    rows, ledger = workspace.sql_rows(ROWS), workspace.sql_rows(LEDGER)
    before = len(asked())
    kept = []
    reports = workspace.sync_events(FIRST, OLD[2], refetch=refetch, on_kept=kept.extend)
    assert [(report.day, report.status) for report in reports] == [(OLD[2], "expired")]
    assert [(report.day, report.status) for report in kept] == [
        (day, "complete") for day in OLD[:2]
    ]
    assert workspace.sql_rows(ROWS) == rows
    assert workspace.sql_rows(LEDGER) == [*ledger, (OLD[2], "expired", 0)]
    assert len(asked()) == before


@pytest.mark.slow
def test_expired_days_are_missing_once_the_setting_covers_them(
    settings, limited, workspace_with, asked
):
    """Without the setting, or with a longer one, they are loaded like days that never were."""
    workspace_with(settings).sync_events(FIRST, FIRST)
    short = workspace_with(limited)
    short.sync_events(FIRST, LAST)
    assert not set(OLD) & set(short.days_due().days)
    longer = workspace_with(reaching_back_to(settings, OLD[2]))
    assert longer.days_due().days[0] == OLD[2]
    longer.sync_events(KEPT[0], KEPT[0])
    assert statuses(longer) == {
        FIRST: "complete",
        OLD[1]: "expired",
        **dict.fromkeys(KEPT, "complete"),
    }
    without = workspace_with(settings)
    assert without.days_due().days[:2] == OLD[1:]
    without.sync_events(FIRST, LAST, refetch="missing")
    assert set(statuses(without).values()) == {"complete"}


def test_a_day_that_came_empty_is_not_called_expired(limited, settings, workspace_with):
    """It was loaded whole when Mixpanel still held it."""
    workspace_with(settings).sync_events(date(2023, 12, 31), date(2023, 12, 31))
    workspace = workspace_with(limited)
    workspace.sync_events(date(2023, 12, 31), FIRST)
    assert statuses(workspace) == {date(2023, 12, 31): "empty", FIRST: "expired"}


def test_filtered_tables_keep_the_same_days(client, limited, settings, asked):
    """Each table's own stored days are kept; the others are noted in its name."""
    for table, events in (("events", None), ("orders", ["Order Completed"])):
        EventLoad(client, limited, from_date=FIRST, to_date=LAST, table=table, events=events).store(
            Database(settings.database)
        )
    assert asked() == KEPT * 2
    with Database(settings.database).read() as connection:
        found = connection.execute(
            "SELECT table_name, count(*) FROM mixpanel._days WHERE status = 'expired' "
            "GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    assert found == [("events", 3), ("orders", 3)]


@pytest.mark.slow
def test_a_verification_calls_them_expired(client, settings, limited, workspace_with, asked):
    """They differ from nothing, and only the others are requested."""
    database = Database(settings.database)
    [report] = workspace_with(settings).sync_events(FIRST, FIRST)
    workspace_with(settings).sync_events(KEPT[0], LAST)
    before = len(asked())
    found = verify_days(client, limited, database, from_date=FIRST, to_date=LAST)
    assert [(one.day, one.status) for one in found] == [
        *((day, "expired") for day in OLD),
        *((day, "complete") for day in KEPT),
    ]
    assert not any(one.differs for one in found)
    assert (found[0].stored, found[0].fetched, found[1].stored) == (report.row_count, None, 0)
    assert asked()[before:] == KEPT
    only_old = verify_days(client, limited, database, from_date=FIRST, to_date=OLD[1])
    assert [one.status for one in only_old] == ["expired"] * 2
    assert asked()[before:] == KEPT


@pytest.mark.slow
def test_the_days_that_only_this_copy_holds_are_counted(
    credentials, settings, limited, workspace_with
):
    """By the setting; or because the last response had none of the stored rows."""
    workspace_with(settings).sync_events(FIRST, LAST)
    workspace = workspace_with(limited)
    plan = workspace.plan(OLD[1], LAST)
    assert (plan.days, plan.expired, plan.only_here) == (3, 2, 2)
    [finding] = [one for one in workspace.doctor() if one.what == "copy"]
    assert finding.status == "ok"
    assert finding.detail.startswith("3 days up to 2024-01-03 can no longer be loaded")
    with Database(settings.database).write() as connection:
        connection.execute(
            "UPDATE mixpanel._days SET rows_vanished = row_count WHERE day = '2024-01-05'"
        )
    assert workspace_with(settings).plan(FIRST, LAST).only_here == 1
    assert workspace.plan(FIRST, LAST).only_here == 4
    assert "copy" not in {one.what for one in doctor(settings=Settings(database="none.duckdb"))}


def test_questions_about_them_say_that_they_are_gone(limited, workspace_with):
    """Instead of a command that loads nothing."""
    workspace = workspace_with(limited)
    workspace.sync_events(OLD[1], LAST)
    with pytest.raises(MissingDaysError) as caught:
        workspace.property_distribution("Page View", "$os", from_date=FIRST, to_date=LAST)
    assert "2024-01-01, which was never loaded" in caught.value.message
    assert "has nothing for 2024-01-02..2024-01-03: Mixpanel had deleted" in caught.value.message
    with Database(limited.database).read() as connection:
        gaps = find_gaps(connection, Target("events"), [*OLD[1:], *KEPT])
    assert "2024-01-02..2024-01-03 further back than MP_RETENTION_DAYS" in gaps.message


@pytest.fixture
def deleting(emulator):
    """Let Mixpanel delete what is older than this number of days, until the test ends."""

    def delete(days):
        emulator.retention_days = days

    yield delete
    emulator.retention_days = None


def test_an_old_day_that_comes_empty_is_kept_and_the_setting_suggested(
    settings, limited, workspace_with, deleting, caplog, asked
):
    """Each time that requests are spent on it; once the setting is there, none are."""
    workspace = workspace_with(settings)
    workspace.sync_events(FIRST, LAST)
    rows = workspace.sql_rows(ROWS)
    deleting((settings.today() - HORIZON).days)
    for _ in range(2):
        caplog.clear()
        reports = workspace.sync_events(FIRST, LAST)
        assert workspace.sql_rows(ROWS) == rows
        assert [report.is_only_here for report in reports] == [True] * 3 + [False] * 3
        said = [one.message for one in caplog.records if "MP_RETENTION_DAYS" in one.message]
        assert len(said) == 1
        assert "no events of 2024-01-01..2024-01-03 any more; the stored ones are kept" in said[0]
    assert workspace.plan(FIRST, LAST).only_here == 3
    before = len(asked())
    caplog.clear()
    workspace_with(limited).sync_events(FIRST, LAST)
    assert workspace.sql_rows(ROWS) == rows
    assert asked()[before:] == KEPT
    assert "MP_RETENTION_DAYS" not in caplog.text


def test_a_young_day_that_comes_empty_suggests_nothing(credentials, tmp_path, caplog):
    """Mixpanel deletes no events of last week."""
    with Emulator(EmulatorSettings(start=Settings().today() - timedelta(days=3))) as emulator:
        settings = Settings(api_base_url=emulator.base_url, database=tmp_path / "w.duckdb")
        with Workspace(credentials=credentials, settings=settings) as workspace:
            day = settings.today() - timedelta(days=2)
            workspace.sync_events(day, day)
            emulator.faults.add(Fault("empty-200", path=EXPORT, times=None))
            [report] = workspace.sync_events(day, day)
    assert report.is_only_here
    assert "MP_RETENTION_DAYS" not in caplog.text


@pytest.mark.parametrize("text", ["0", "-1", "two years", "1.5"])
def test_a_setting_that_is_no_number_of_days_is_refused(text, monkeypatch):
    """The message names the variable."""
    monkeypatch.setenv("MP_RETENTION_DAYS", text)
    with pytest.raises(ConfigError, match="MP_RETENTION_DAYS"):
        load_settings()


def test_the_horizon_is_counted_in_export_days(monkeypatch):
    """Today is not one of the days; unset, nothing is too old."""
    assert Settings().horizon() is None
    assert Settings().deleted_before() == Settings().today() - timedelta(days=700)
    monkeypatch.setenv("MP_RETENTION_DAYS", "30")
    monkeypatch.setenv("MP_TIME_ZONE", "Pacific/Kiritimati")
    monkeypatch.setenv("MP_TIME_REGIME", "legacy")
    settings = load_settings()
    assert settings.horizon() == settings.today() - timedelta(days=30)
