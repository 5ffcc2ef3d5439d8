"""Days that could not be loaded: the ledger says why, and nothing takes them for loaded."""

from datetime import UTC, date, datetime, timedelta

import duckdb
import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.defs.io_managers import find_gaps
from mixpanel_assets.emulator import Fault
from mixpanel_assets.errors import (
    ConfigError,
    IncompleteExportError,
    MissingDaysError,
    MixpanelDataError,
)
from mixpanel_assets.loading.doctor import doctor
from mixpanel_assets.loading.events import EventLoad
from mixpanel_assets.loading.verification import verify_days
from mixpanel_assets.warehouse import Database, Target, mark_days, mark_failed, prepare
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets_tests.laws import siblings

FIRST, HOLE, LAST = date(2024, 1, 1), date(2024, 1, 3), date(2024, 1, 5)
BROKEN = Fault("truncate-whole-body", day=HOLE, times=None)
LEDGER = "SELECT status, fetched_at, row_count, run_id, last_error, failed_at FROM mixpanel._days"


@pytest.fixture
def hasty(settings):
    """Settings that send one request per day, without retries."""
    return settings.model_copy(update={"max_retries": 0, "days_per_request": 1})


@pytest.fixture
def workspace(credentials, hasty):
    with Workspace(credentials=credentials, settings=hasty) as workspace:
        yield workspace


@pytest.fixture
def with_hole(workspace, emulator):
    """A workspace with five days, of which the third never came."""
    emulator.faults.add(BROKEN)
    with pytest.raises(IncompleteExportError):
        workspace.sync_events(FIRST, LAST)
    emulator.faults.clear()
    return workspace


def row_of(workspace, day):
    [row] = workspace.sql_rows(f"{LEDGER} WHERE day = ?", [day])
    return row


def test_a_day_that_never_came_is_failed_until_it_comes(with_hole):
    """Its ledger row has the error, its time and no rows; a success clears the error."""
    status, fetched_at, rows, _, error, failed_at = row_of(with_hole, HOLE)
    assert (status, fetched_at, rows) == ("failed", None, 0)
    assert error.startswith("export 2024-01-03 is not complete")
    assert timedelta() <= datetime.now(UTC).replace(tzinfo=None) - failed_at < timedelta(minutes=5)
    assert with_hole.sql_rows("FROM mixpanel.missing_days LIMIT 1") == [
        (HOLE, "failed", error, failed_at)
    ]
    [report] = with_hole.sync_events(days=[HOLE])
    assert report.rows_before is None
    status, fetched_at, rows, _, error, failed_at = row_of(with_hole, HOLE)
    assert (status, error, failed_at) == ("complete", None, None)
    assert fetched_at
    assert rows


@pytest.mark.parametrize(
    ("kind", "days"),
    siblings(
        [
            ("402-json", (HOLE, HOLE)),
            ("truncate-whole-body", (HOLE, LAST)),
            ("reset", (HOLE, LAST)),
            ("500-json", (HOLE, HOLE)),
            ("401-json", (HOLE, LAST)),
        ],
        keep=1,
    ),
)
def test_a_failure_changes_nothing_else_of_a_stored_day(kind, days, workspace, emulator):
    """Status, time of the load and rows stay, whatever the error and however many days."""
    workspace.sync_events(FIRST, LAST)
    rows = workspace.sql_rows("FROM events ORDER BY ALL")
    before = row_of(workspace, HOLE)
    emulator.faults.add(Fault(kind, path="/api/2.0/export", day=HOLE, times=None))
    with pytest.raises(MixpanelDataError) as caught:
        workspace.sync_events(*days)
    after = row_of(workspace, HOLE)
    assert after[:4] == before[:4]
    assert after[4] in caught.value.message
    assert after[5]
    assert workspace.sql_rows("FROM events ORDER BY ALL") == rows
    assert HOLE not in workspace.days_due().missing
    emulator.faults.clear()
    workspace.sync_events(HOLE, HOLE)
    assert row_of(workspace, HOLE)[4:] == (None, None)


def test_an_error_that_stops_a_load_is_that_of_its_days(workspace, emulator):
    """The days that were stored before it succeed; the days after it were never requested."""
    emulator.faults.add(Fault("500-json", day=HOLE, times=None))
    with pytest.raises(MixpanelDataError):
        workspace.sync_events(FIRST, LAST)
    statuses = workspace.sql_rows("SELECT day, status FROM mixpanel._days ORDER BY day")
    assert statuses == [(FIRST, "complete"), (date(2024, 1, 2), "complete"), (HOLE, "failed")]


def test_a_day_that_came_empty_and_is_refused_afterwards_says_why(workspace, emulator):
    """The second look finds its events; the request that is to load them then is refused."""
    export = "/api/2.0/export"
    emulator.faults.add(
        Fault("empty-200", path=export, day=HOLE, times=1),
        Fault("402-json", path=export, times=None, skip=1),
    )
    with pytest.raises(MixpanelDataError, match="answered 402") as caught:
        workspace.sync_events(HOLE, HOLE)
    status, _, rows, _, error, _ = row_of(workspace, HOLE)
    assert (status, rows) == ("failed", 0)
    assert error in caught.value.message


def test_an_interrupt_is_no_failure(workspace):
    """An interrupt records no failed day."""

    def interrupt(report):
        if report.day == HOLE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.sync_events(FIRST, LAST, on_day=interrupt)
    assert workspace.sql_rows(
        "SELECT count(*) FROM mixpanel._days WHERE failed_at IS NOT NULL"
    ) == [(0,)]


def test_a_database_that_cannot_be_written_is_no_failure_of_a_day(credentials, hasty):
    """The error is about the database, and nothing is written about the day."""
    impatient = hasty.model_copy(update={"lock_timeout": 0.1})
    held = []

    def hold(report):
        held.append(duckdb.connect(hasty.database))

    with Workspace(credentials=credentials, settings=impatient) as workspace:
        with pytest.raises(MixpanelDataError) as caught:
            workspace.sync_events(FIRST, LAST, on_day=hold)
        held[0].close()
        assert caught.value.code != "INCOMPLETE_EXPORT"
        assert workspace.sql_rows("SELECT day, last_error FROM mixpanel._days") == [(FIRST, None)]


def test_the_error_says_what_is_stored_what_is_missing_and_what_to_run(workspace, emulator):
    """For one day of several, for one alone, and for days that hold rows already."""
    emulator.faults.add(BROKEN)
    command = "`mp sync --from 2024-01-03 --to 2024-01-03"
    with pytest.raises(IncompleteExportError) as several:
        workspace.sync_events(FIRST, LAST)
    assert "1 of 5 days stayed incomplete and were not stored: 2024-01-03." in several.value.message
    assert "The other 4 are stored." in several.value.message
    assert f"Try again with {command}`, or materialize" in several.value.message
    with pytest.raises(IncompleteExportError, match=f"Nothing of it was stored. Try.*{command}`"):
        workspace.sync_events(HOLE, HOLE)
    emulator.faults.clear()
    workspace.sync_events(HOLE, HOLE)
    emulator.faults.add(BROKEN)
    with pytest.raises(
        IncompleteExportError, match=f"earlier loads are kept.*{command} --refetch all`"
    ):
        workspace.sync_events(HOLE, HOLE)


def test_no_secret_and_no_escape_sequence_reaches_the_ledger(workspace, emulator):
    """Also when the server repeats them; a long text is cut."""
    text = f"no access for {emulator.secret}, {emulator.username} \x1b[31m\u202e" + "x" * 5000
    emulator.faults.add(Fault("500-text", day=HOLE, times=None, text=text))
    with pytest.raises(MixpanelDataError):
        workspace.sync_events(HOLE, HOLE)
    error = row_of(workspace, HOLE)[4]
    assert emulator.secret not in error
    assert error.isprintable()
    assert len(error) < 1_100


def test_every_text_is_bounded_and_on_one_line(tmp_path):
    """A text of any exception is cut and has one line."""
    database = Database(tmp_path / "w.duckdb")
    with database.write() as connection:
        prepare(connection, ProjectIdentity("1", "us"))
        assert mark_failed(connection, [HOLE], "a\nb\x1b\u202e" + "y" * 5000) == []
        [(error,)] = connection.execute("SELECT last_error FROM mixpanel._days").fetchall()
    assert error.startswith(r"a\nb\x1b\u202ey")
    assert len(error) == 1_001


def test_a_failed_day_is_no_stored_day_to_any_reader(with_hole, hasty, client):
    """Coverage, tables, metadata, gaps, comparisons and the doctor."""
    with pytest.raises(MissingDaysError, match="2024-01-03, which was never loaded"):
        with_hole.daily_counts(from_date=FIRST, to_date=LAST)
    with with_hole.storage.write() as connection:
        mark_failed(connection, [date(2023, 12, 9), date(2024, 1, 9)], "they did not come")
        mark_days(connection, [date(2023, 12, 8), date(2024, 1, 8)], "not available")
        mark_days(connection, [date(2023, 12, 7), date(2024, 1, 7)], "expired")
    [table] = [table for table in with_hole.tables() if table.name == "events"]
    assert table.row_count == with_hole.sql_scalar("SELECT count(*) FROM events")
    metadata = with_hole.storage.get_metadata("events")
    assert (metadata.from_date, metadata.to_date) == (str(FIRST), str(LAST))
    assert with_hole.sql_rows("SELECT from_date, to_date FROM _metadata") == [(FIRST, LAST)]
    with with_hole.storage.read() as connection:
        gaps = find_gaps(connection, Target("events"), [FIRST, HOLE])
    assert "2024-01-03 not loaded because the last attempt failed" in gaps.message
    database = with_hole.storage.database
    [difference] = verify_days(client, hasty, database, from_date=str(HOLE), to_date=HOLE)
    assert (difference.status, difference.differs) == (None, True)
    assert with_hole.plan(HOLE, HOLE, refetch="missing").days == 1


def test_a_table_with_failed_days_only_is_empty(workspace, emulator):
    """It may be filled as if nothing had been tried, also by another filter."""
    emulator.faults.add(BROKEN)
    with pytest.raises(IncompleteExportError):
        workspace.sync_events(HOLE, HOLE)
    assert workspace.tables() == []
    emulator.faults.clear()
    assert workspace.fetch_events(from_date=HOLE, to_date=HOLE).rows > 0


def test_a_filtered_table_has_failed_days_of_its_own(client, hasty, workspace, emulator):
    """They do not decide which filter the table holds; they go when it is emptied."""
    emulator.faults.add(BROKEN)

    def load(names):
        asked = {"from_date": HOLE, "to_date": HOLE, "table": "some", "events": names}
        EventLoad(client, hasty, **asked).store(workspace.storage.database)

    with pytest.raises(
        IncompleteExportError, match="materialize these partitions of `mixpanel/some`"
    ):
        load(["Sign Up"])
    assert workspace.sql_rows("SELECT table_name, status FROM mixpanel._days") == [
        ("some", "failed")
    ]
    assert workspace.sql_rows("FROM mixpanel.missing_days") == []
    emulator.faults.clear()
    load(["Page View"])
    with pytest.raises(ConfigError, match="another filter"):
        load(["Sign Up"])
    workspace.drop("some")
    assert workspace.sql_rows("FROM mixpanel._days") == []


def test_days_that_become_available_can_fail(workspace, emulator):
    """A larger plan reaches them now, so they are missing until they are loaded."""
    text = "Date range exceeds 1 days into the past"
    workspace.sync_events(FIRST, FIRST)
    emulator.faults.add(Fault("403-history", day=HOLE, times=None, text=text))
    workspace.sync_events(HOLE, HOLE)
    assert HOLE not in workspace.days_due().missing
    emulator.faults.clear()
    emulator.faults.add(BROKEN)
    with pytest.raises(IncompleteExportError):
        workspace.sync_events(HOLE, HOLE)
    assert row_of(workspace, HOLE)[0] == "failed"
    assert HOLE in workspace.days_due().missing


def test_the_doctor_names_missing_days_and_what_loads_them(with_hole, credentials, hasty):
    """And counts only what is stored."""
    findings = {one.what: one for one in doctor(credentials=credentials, settings=hasty)}
    assert "has 4 of 5 days of events, 2024-01-01 to 2024-01-05" in findings["database"].detail
    days = findings["days"]
    assert days.status == "warn"
    assert days.detail.startswith("2024-01-03, 2024-01-06..")
    assert "`mp sync --from 2024-01-03 --to 2024-01-03`" in days.remedy


def test_the_doctor_finds_no_fault_with_what_is_whole(credentials, hasty, workspace):
    """Since the first stored day."""
    yesterday = hasty.today() - timedelta(days=1)
    workspace.sync_events(yesterday - timedelta(days=3), yesterday)
    findings = {one.what: one for one in doctor(credentials=credentials, settings=hasty)}
    assert findings["days"].status == "ok"
    assert "has 4 days of events" in findings["database"].detail
    assert "late" not in findings


@pytest.mark.slow
def test_the_doctor_names_days_that_were_read_too_early(credentials, hasty, workspace):
    """More than a month ago; the newer ones are read by the next `mp sync`."""
    today = hasty.today()
    first = today - timedelta(days=40)
    workspace.sync_events(first, today)
    with workspace.storage.write() as connection:
        connection.execute("UPDATE mixpanel._days SET fetched_at = day + INTERVAL 2 DAY")
    late = {one.what: one for one in doctor(credentials=credentials, settings=hasty)}["late"]
    assert late.status == "warn"
    assert late.detail.startswith("10 days were read less than 5 days after their end")
    assert f"`mp sync --from {first} --to {first + timedelta(days=9)}`" in late.remedy
