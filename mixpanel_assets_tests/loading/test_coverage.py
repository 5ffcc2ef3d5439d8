"""Which days are stored: by the ledger and the settings, and what the view says without them.

With `WRITE_DOCS=1`, the picture of the documentation is drawn again.
"""

import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import (
    ConfigError,
    DatabaseNotFoundError,
    IncompleteExportError,
    TableNotFoundError,
)
from mixpanel_assets.loading.coverage import coverage
from mixpanel_assets.loading.days_behind import days_due_in
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import ProjectIdentity, prepare
from mixpanel_assets.warehouse.schema import create_all
from mixpanel_assets_tests.laws import examples

DAY = timedelta(days=1)
NOW = datetime(2026, 5, 20, 12, tzinfo=UTC)
VIEW = "SELECT table_name, day, status, row_count FROM mixpanel.coverage ORDER BY ALL"
NEVER = ("failed", "not available", "expired")


def ledger(project=("1", "us")):
    """Return a connection to a database in memory with an empty ledger."""
    connection = duckdb.connect()
    prepare(connection, ProjectIdentity(*project))
    return connection


@pytest.fixture
def connection():
    with ledger() as connection:
        yield connection


def write(
    connection, day, status, rows=0, *, later=None, vanished=0, table="events", type="events"
):
    """Write a row of the ledger: the day was read a number of days after its beginning."""
    fetched_at = datetime.combine(day, datetime.min.time()) + (later or 10 * DAY)
    connection.execute(
        "INSERT INTO mixpanel._days BY NAME SELECT 'mixpanel' AS schema_name, ? AS table_name, "
        "? AS type, ?::DATE AS day, ? AS status, ?::BIGINT AS row_count, "
        "?::BIGINT AS rows_vanished, ?::TIMESTAMP AS fetched_at",
        [table, type, day, status, rows, vanished, None if status in NEVER else fetched_at],
    )


def found(connection, settings=None, **arguments):
    """Return the statuses by day."""
    result = coverage(connection, settings or Settings(), now=NOW, **arguments)
    return {day.day: day.status for day in result.days}


def test_each_status_follows_from_the_ledger(connection):
    """The days between are `never loaded`, up to the last one that is due."""
    first = NOW.date() - 12 * DAY
    rows = [
        ("complete", 5, {}),
        ("complete", 5, {"later": 5 * DAY}),  # read four days after its end
        ("complete", 5, {"vanished": 2}),
        ("complete", 5, {"vanished": 5}),
        ("empty", 0, {}),
        ("empty", 0, {"later": 2 * DAY}),
        ("open", 3, {"later": DAY / 2}),
        ("partial", 3, {}),
        ("failed", 0, {}),
        ("not available", 0, {}),
        ("not available", 4, {}),
    ]
    for number, (status, count, more) in enumerate(rows):
        write(connection, first + number * DAY, status, count, **more)
    statuses = found(connection)
    assert list(statuses) == [first + number * DAY for number in range(12)]
    assert list(statuses.values()) == [
        *("complete", "stale", "complete", "only ours", "empty", "stale", "open", "partial"),
        *("failed", "not available", "only ours", "never loaded"),
    ]
    shift = (datetime.now(UTC).date() - NOW.date()).days
    connection.execute(
        f"UPDATE mixpanel._days SET day = day + {shift}, "
        f"fetched_at = fetched_at + INTERVAL '{shift} days'"
    )
    seen = [row[2] for row in connection.execute(VIEW).fetchall()]
    assert seen == list(statuses.values())


def test_the_horizon_decides_what_has_expired(connection):
    """Stored days before it are the last copy; `expired` days after it can be loaded."""
    today = Settings().today()
    for ago, status, rows in [
        (9, "complete", 5),
        (8, "expired", 0),
        (7, "empty", 0),
        (6, "failed", 0),
        (4, "expired", 0),
    ]:
        write(connection, today - ago * DAY, status, rows, later=0.5 * DAY)
    now = datetime.now(UTC)

    def statuses(**settings):
        result = coverage(connection, Settings(**settings), now=now, to_date=today - 3 * DAY)
        return [day.status for day in result.days]

    assert statuses(retention_days=5) == [
        *("only ours", "expired", "empty", "expired"),
        *("never loaded", "never loaded", "never loaded"),
    ]
    assert statuses() == [
        *("stale", "never loaded", "stale", "failed", "never loaded", "never loaded"),
        "never loaded",
    ]
    seen = [row[2] for row in connection.execute(VIEW).fetchall()]
    assert seen[:6] == ["stale", "expired", "stale", "failed", "never loaded", "expired"]


def test_settings_say_where_the_days_begin_and_end(connection):
    """MP_START_DATE if it is set, and yesterday from MP_CLOSE_HOUR on."""
    assert found(connection) == {}
    started = Settings(start_date="2026-05-17")
    assert list(found(connection, started)) == [date(2026, 5, day) for day in (17, 18, 19)]
    late = Settings(start_date="2026-05-17", close_hour=13)
    assert list(found(connection, late)) == [date(2026, 5, 17), date(2026, 5, 18)]
    assert found(connection, Settings(start_date="2026-05-20")) == {}
    assert found(None, started) == found(connection, started)
    write(connection, date(2026, 5, 15), "complete", 1)
    write(connection, date(2026, 5, 20), "open", 1, later=DAY / 2)
    assert list(found(connection, late)) == [date(2026, 5, day) for day in range(15, 21)]
    some = found(connection, late, from_date="2026-05-12", to_date="2026-05-16")
    assert list(some) == [date(2026, 5, day) for day in range(12, 17)]
    assert list(some.values()) == [*["never loaded"] * 3, "complete", "never loaded"]


def test_profiles_begin_with_the_first_snapshot_and_do_not_age(connection):
    """No earlier snapshot can be taken, and a snapshot of a day does not change."""
    write(
        connection, date(2026, 5, 17), "complete", 3, later=DAY / 2, table="people", type="profiles"
    )
    settings = Settings(start_date="2026-05-10", retention_days=1)
    result = coverage(connection, settings, now=NOW)
    assert [day.status for day in result.days if day.table == "people"] == [
        *("complete", "never loaded", "never loaded"),
    ]
    assert {day.status for day in result.days if day.table == "events"} == {"expired"}
    assert {day.table for day in coverage(connection, settings, table="people").days} == {"people"}
    with pytest.raises(TableNotFoundError, match="people"):
        coverage(connection, settings, table="visits")


def test_a_day_settles_by_the_clock_of_its_project():
    """Five days after midnight in Los Angeles, for a project from before 2023."""
    with ledger(("1", "us", "legacy", "America/Los_Angeles")) as connection:
        for number, hours in enumerate((6, 8)):
            write(
                connection,
                date(2026, 5, 1 + number),
                "complete",
                1,
                later=6 * DAY + timedelta(hours=hours),
            )
        settings = Settings(time_regime="legacy", time_zone="America/Los_Angeles")
        statuses = list(found(connection, settings, to_date="2026-05-02").values())
        assert statuses == ["stale", "complete"]


PICTURE = Path(__file__).parents[2] / "docs" / "images" / "coverage.svg"


def test_the_picture_of_the_documentation_is_what_is_drawn(connection):
    """A year of a project with every status, from the ledger to the image."""
    first = NOW.date() - 364 * DAY
    parts = [
        (0, 18, "expired", {}),
        (18, 34, "complete", {"vanished": 1}),
        (34, 44, "not available", {}),
        (44, 58, "complete", {}),
        (58, 72, "empty", {}),
        (72, 120, "complete", {}),
        (127, 200, "complete", {}),
        (200, 202, "failed", {}),
        (202, 260, "complete", {}),
        (260, 261, "partial", {}),
        (261, 359, "complete", {}),
        (359, 364, "complete", {"later": DAY}),
        (364, 365, "open", {"later": DAY / 2}),
    ]
    for start, end, status, more in parts:
        rows = int(status in ("complete", "partial", "open"))
        write(connection, first + start * DAY, status, rows, **more)
        connection.execute(
            "INSERT INTO mixpanel._days SELECT _days.* REPLACE (day + n::INTEGER AS day, "
            "fetched_at + n * INTERVAL 1 DAY AS fetched_at) "
            f"FROM mixpanel._days, range(1, {end - start}) AS following(n) "
            f"WHERE day = DATE '{first}' + {start}"
        )
    settings = Settings(retention_days=(Settings().today() - first).days - 18)
    result = coverage(connection, settings, now=NOW)
    assert len(result.counts["events"]) == 10
    image = result.svg(details=False)
    if os.environ.get("WRITE_DOCS"):
        PICTURE.write_text(image)
    assert PICTURE.read_text() == image


@pytest.fixture(scope="module")
def shared_ledger():
    with ledger() as connection:
        yield connection


@examples(20)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["complete", "empty", "partial", "failed", "open", "not available"]),
            st.integers(0, 9),
        ),
        max_size=12,
    )
)
def test_what_is_loaded_next_is_what_coverage_says(shared_ledger, days):
    """Days that are missing or stale are those that `mp sync` takes, but for the current one."""
    settings = Settings()
    today = settings.today()
    shared_ledger.execute("DELETE FROM mixpanel._days")
    for ago, (status, later) in enumerate([*days, ("complete", 9)], start=1):
        rows = int(status == "complete")
        write(shared_ledger, today - ago * DAY, status, rows, later=(later + 0.5) * DAY)
    due = days_due_in(shared_ledger, settings)
    result = coverage(shared_ledger, settings, to_date=today - DAY)
    lacking = ("never loaded", "failed", "partial", "open", "stale")
    covered = {day.day for day in result.days if day.status in lacking}
    assert {*due.days, *due.left} - {today} == covered - {today}


def test_a_table_of_that_name_is_left_alone():
    """It was allowed before the view was added; the same days are found without the view."""
    with ledger() as connection:
        connection.execute("DROP VIEW mixpanel.coverage")
        connection.execute("CREATE TABLE mixpanel.coverage AS SELECT 42 AS answer")
        write(connection, date(2026, 5, 18), "complete", 1)
        create_all(connection)
        assert connection.execute("FROM mixpanel.coverage").fetchall() == [(42,)]
        assert list(found(connection).values()) == ["complete", "never loaded"]


@pytest.fixture(scope="module")
def shop():
    """A project with few events on each of the last twelve days but one."""
    first = datetime.now(UTC).date() - 12 * DAY
    with Emulator(EmulatorSettings(start=first, exact_events=3)) as emulator:
        yield emulator


def test_loads_lead_to_each_status(shop, tmp_path):
    """With a real project: a day that fails, one without events, one that Mixpanel deletes."""
    credentials = make_credentials(
        username=shop.username, secret=shop.secret, project_id=str(shop.project_id)
    )
    settings = Settings(
        api_base_url=shop.base_url,
        database=tmp_path / "warehouse.duckdb",
        max_retries=0,
        snapshot="off",
    )
    today = settings.today()
    ago = [today - n * DAY for n in range(13)]
    with Workspace(credentials=credentials, settings=settings) as workspace:
        with pytest.raises(DatabaseNotFoundError):
            workspace.coverage()
        shop.faults.add(Fault("truncate-whole-body", day=ago[11], times=None))
        shop.faults.add(Fault("empty-200", day=ago[10], times=None))
        with pytest.raises(IncompleteExportError):
            workspace.sync_events(ago[12], ago[8])
        workspace.sync_events(today, today)
        shop.faults.clear()
        shop.faults.add(Fault("empty-200", day=ago[9], times=None))
        workspace.sync_events(ago[9], ago[9])
        shop.faults.clear()
        result = workspace.coverage(to_date=ago[7])
        assert [day.status for day in result.days] == [
            *("complete", "failed", "empty", "only ours", "complete", "never loaded"),
        ]
        [*_, now] = workspace.coverage().days
        assert (now.day, now.status) == (today, "open")
        assert now.fetched_at.tzinfo is UTC
        assert workspace.sql_rows(VIEW).rows[:5] == [
            (day.table, day.day, day.status, day.row_count) for day in result.days[:5]
        ]
        with pytest.raises(ConfigError, match="both are included"):
            workspace.coverage(ago[0], ago[1])
