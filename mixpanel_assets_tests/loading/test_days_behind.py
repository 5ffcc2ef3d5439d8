"""Which days `mp sync` requests: those that are missing, and those that may have changed."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import ConfigError, IncompleteExportError
from mixpanel_assets.loading.days_behind import days_due
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import Database, ProjectIdentity, prepare
from mixpanel_assets.warehouse.schema import create_all
from mixpanel_assets_tests.laws import examples

DAY = timedelta(days=1)
STATUSES = ("complete", "empty", "open", "partial", "failed", "not available", "expired")


@pytest.fixture(scope="module")
def shop():
    """A project with few events on each of the last 60 days."""
    first = datetime.now(UTC).date() - 60 * DAY
    with Emulator(EmulatorSettings(start=first, exact_events=3)) as emulator:
        yield emulator


@pytest.fixture
def here(shop, tmp_path):
    """Settings for the shop and a database of this test's own."""
    shop.faults.clear()
    return Settings(
        api_base_url=shop.base_url, database=tmp_path / "warehouse.duckdb", max_retries=0
    )


@pytest.fixture
def workspace(shop, here):
    credentials = make_credentials(
        username=shop.username, secret=shop.secret, project_id=str(shop.project_id)
    )
    with Workspace(credentials=credentials, settings=here) as workspace:
        yield workspace


@pytest.fixture
def asked(shop):
    """Return the days of each export request since the test began."""
    before = len(shop.requests)
    return lambda: [entry.days for entry in shop.requests[before:]]


def change_ledger(workspace, change):
    with workspace.storage.write() as connection:
        connection.execute(f"UPDATE mixpanel._days SET {change}")


def test_only_days_that_lack_something_are_asked_for(workspace, asked):
    """A failed day, one that was open, one never loaded, the last five, and today; no others."""
    today = workspace.settings.today()
    ago = [today - n * DAY for n in range(41)]
    workspace.sync_events(ago[40], today)
    change_ledger(workspace, "fetched_at = day + INTERVAL 6 DAY WHERE day < current_date - 6")
    change_ledger(workspace, f"status = 'open' WHERE day = '{ago[20]}'")
    change_ledger(workspace, f"status = 'failed' WHERE day = '{ago[35]}'")
    with workspace.storage.write() as connection:
        connection.execute("DELETE FROM mixpanel._days WHERE day = ?", [ago[10]])
    before = len(asked())
    reports = workspace.sync_events()
    wanted = [ago[35], ago[20], ago[10], *ago[5::-1]]
    assert [report.day for report in reports] == wanted
    assert asked()[before:] == [(ago[35],), (ago[20],), (ago[10],), tuple(ago[5::-1])]
    assert workspace.days_due().days == ago[5::-1]  # until they settle


@pytest.mark.slow
def test_empty_days_are_confirmed_without_the_days_between(workspace, shop, asked):
    """The second look at them spans no day that is settled, either."""
    today = workspace.settings.today()
    ago = [today - n * DAY for n in range(41)]
    workspace.sync_events(ago[40], today)
    change_ledger(workspace, "fetched_at = day + INTERVAL 6 DAY WHERE day < current_date - 6")
    with workspace.storage.write() as connection:
        connection.execute("DELETE FROM mixpanel._days WHERE day IN (?, ?)", [ago[20], ago[10]])
        connection.execute("DELETE FROM mixpanel.events WHERE event_date IN (?, ?)", ago[20:9:-10])
    shop.faults.add(*(Fault("empty-200", day=day, times=None) for day in (ago[20], ago[10])))
    before = len(asked())
    workspace.sync_events()
    assert sorted(asked()[before:]) == [(ago[20],)] * 2 + [(ago[10],)] * 2 + [tuple(ago[5::-1])]


def test_days_before_the_first_stored_one_are_left_alone(workspace, asked):
    """However early MP_START_DATE is: that range was chosen."""
    today = workspace.settings.today()
    workspace.sync_events(today - 3 * DAY, today - 2 * DAY)
    before = len(asked())
    workspace.sync_events()
    assert {day for days in asked()[before:] for day in days} == {today - n * DAY for n in range(4)}


def test_a_first_day_that_failed_is_asked_for_again(workspace, shop):
    """It would be lost if the first stored day were the beginning."""
    today = workspace.settings.today()
    shop.faults.add(Fault("truncate-whole-body", day=today - 50 * DAY, times=None))
    with pytest.raises(IncompleteExportError):
        workspace.sync_events(today - 50 * DAY, today - 46 * DAY)
    assert workspace.days_due().days[:2] == [today - 50 * DAY, today - 45 * DAY]


@pytest.mark.slow
def test_a_day_that_fails_for_good_is_asked_for_once_a_run(workspace, shop, asked):
    """It is requested alone, and no day that was received after it is requested again."""
    today = workspace.settings.today()
    workspace.sync_events(today - 30 * DAY, today)
    hole = today - 20 * DAY
    change_ledger(workspace, "fetched_at = day + INTERVAL 6 DAY WHERE day < current_date - 6")
    with workspace.storage.write() as connection:
        connection.execute("DELETE FROM mixpanel._days WHERE day = ?", [hole])
    shop.faults.add(Fault("truncate-whole-body", day=hole, times=None))
    for _ in range(2):
        before = len(asked())
        with pytest.raises(IncompleteExportError, match=str(hole)):
            workspace.sync_events()
        assert [days for days in asked()[before:] if hole in days] == [(hole,)]
        assert len({day for days in asked()[before:] for day in days}) == 7


@pytest.fixture(scope="module")
def ledger_of(tmp_path_factory):
    """Return what is due by a ledger of days, their status and the days until they were read."""
    database = Database(tmp_path_factory.mktemp("ledger") / "w.duckdb")
    with database.write() as connection:
        create_all(connection)
        prepare(connection, ProjectIdentity("1", "us"))

    def due(rows, start, reach):
        with database.write() as connection:
            connection.execute("DELETE FROM mixpanel._days")
            for day, (status, lag) in rows.items():
                connection.execute(
                    "INSERT INTO mixpanel._days (schema_name, table_name, type, day, status, "
                    "fetched_at) VALUES ('mixpanel', 'events', 'events', $1, $2, "
                    "CASE WHEN $2 <> 'failed' THEN $1::DATE + to_days($3) END)",
                    [day, status, lag],
                )
        with database.read() as connection:
            view = connection.execute("SELECT day, why FROM mixpanel.missing_days").fetchall()
        return days_due(database, Settings(start_date=start, retention_days=reach)), view

    return due


@given(
    ledger=st.lists(
        st.tuples(st.integers(0, 45), st.sampled_from(STATUSES), st.integers(0, 9)),
        unique_by=lambda row: row[0],
        max_size=12,
    ),
    start=st.integers(0, 50),
    reach=st.none() | st.integers(1, 50),
)
@examples(8)
def test_what_is_due_is_what_the_ledger_says(ledger, start, reach, ledger_of):
    """Each day since the first stored one is due, left, settled, or not to be had; for a reason."""
    today = datetime.now(UTC).date()
    rows = {today - age * DAY: (status, lag) for age, status, lag in ledger}
    due, view = ledger_of(rows, today - start * DAY, reach)
    stored = [day for day, (status, _) in rows.items() if status in STATUSES[:4]]
    first = min(stored, default=today - start * DAY)
    wanted, left = set(), set()
    for age in range(60):
        day = today - age * DAY
        status, lag = rows.get(day, (None, 0))
        if status == "expired" and (reach is None or age <= reach):
            status = None  # it can be loaded by now
        is_new = day >= first and (status is None or day == today)
        if is_new or status in ("failed", "open", "partial"):
            wanted.add(day)
        elif status in ("complete", "empty") and lag < 6:
            (wanted if age < 31 else left).add(day)
    assert (due.days, due.left) == (sorted(wanted), sorted(left))
    assert not set(due.days) & set(due.left)
    horizon = date.min if reach is None else today - reach * DAY
    in_view = {day for day, _ in view if day >= horizon}
    assert in_view == {day for day in due.missing if rows.get(day, ("",))[0] != "expired"}
    assert all(why == rows.get(day, ("never loaded",))[0] for day, why in view)


@pytest.mark.parametrize("day", ["soon", "2024-02-30", "0001-01-01", datetime(2024, 1, 1), 5, None])
def test_what_is_not_a_day_is_refused_in_one_sentence(day, workspace, asked):
    """Every call that takes days raises, and no request is sent."""
    refused = [
        lambda: workspace.sync_events(days=[day]),
        lambda: workspace.sync_events("2024-01-01", day) if day is not None else 1 / 0,
        lambda: workspace.plan(day, "2024-01-01"),
    ]
    for call in refused:
        with pytest.raises((ConfigError, ZeroDivisionError)):
            call()
    assert asked() == []


def test_dates_can_be_text(workspace, asked):
    """Of the form 2024-01-31, alone or mixed with dates."""
    assert [str(report.day) for report in workspace.sync_events("2024-01-02", "2024-01-03")] == [
        "2024-01-02",
        "2024-01-03",
    ]
    workspace.sync_events(days=["2024-01-05", date(2024, 1, 4)])
    assert asked()[-1] == (date(2024, 1, 4), date(2024, 1, 5))
    assert workspace.plan("2024-01-01", date(2024, 1, 7), refetch="stale").days == 3
