"""Workspace: the assets' own code and ledger, without Dagster."""

import subprocess
import sys
from datetime import date, timedelta

import duckdb
import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import (
    AuthenticationError,
    ConfigError,
    DatabaseNotFoundError,
    IncompleteExportError,
)
from mixpanel_assets.warehouse import copy_path

ENGAGE = "/api/query/engage"

FIRST, LAST, DAY = date(2024, 1, 1), date(2024, 1, 7), date(2024, 1, 3)


@pytest.fixture
def workspace(credentials, settings):
    impatient = settings.model_copy(update={"max_retries": 0})
    with Workspace(credentials=credentials, settings=impatient) as workspace:
        yield workspace


def test_a_week_is_loaded_and_reported_day_by_day(workspace, emulator):
    """One report per day, in order, with the day's true numbers."""
    heard = []
    reports = workspace.sync_events(FIRST, LAST, on_day=heard.append)
    assert heard == reports
    assert [report.day.day for report in reports] == [1, 2, 3, 4, 5, 6, 7]
    for report in reports:
        stored = emulator.truth.count(report.day) - len(emulator.truth.unstorable(report.day))
        assert report.row_count == stored


def test_readers_are_served_while_another_process_writes(workspace, settings):
    """They get the rows of the last closed load, and the age of the snapshot."""
    workspace.sync_events(DAY, DAY)
    workspace.close()
    told = []
    with Workspace.open(settings.database, on_wait=told.append) as readers:
        count = readers.sql_scalar("SELECT count(*) FROM events")
        assert readers.snapshot_age is None
        hold = f"import duckdb; c = duckdb.connect({str(settings.database)!r}); "
        hold += "c.execute('CREATE TABLE more AS SELECT 1'); print('held', flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout.readline() == b"held\n"
            assert readers.sql_scalar("SELECT count(*) FROM events") == count
            assert readers.snapshot_age >= 0
            assert readers.info().snapshot_age >= 0
            assert "snapshot of" in told[0]
            holder.communicate(b"\n")
        assert "more" in [name for (name,) in readers.sql_rows("SHOW TABLES")]
        assert readers.info().snapshot_age is None


def test_one_load_after_another_takes_no_copy_each(workspace, settings):
    """Those that follow within the minute are in the snapshot once the workspace is closed."""
    workspace.sync_events(FIRST, FIRST)
    taken = copy_path(settings.database).stat().st_ino
    workspace.sync_events(DAY, DAY)
    assert copy_path(settings.database).stat().st_ino == taken
    workspace.close()
    with duckdb.connect(copy_path(settings.database), read_only=True) as connection:
        assert connection.execute(
            "SELECT DISTINCT event_date FROM mixpanel.events ORDER BY 1"
        ).fetchall() == [(FIRST,), (DAY,)]


def test_a_connection_of_one_who_reads_keeps_no_writer_waiting(workspace, settings):
    """A notebook may stay open over night."""
    workspace.sync_events(FIRST, FIRST)
    with Workspace.open(settings.database) as readers:
        before = readers.connection.execute("SELECT count(*) FROM events").fetchall()
        workspace.sync_events(DAY, DAY)
        assert readers.connection.execute("SELECT count(*) FROM events").fetchall() == before


def test_without_snapshots_readers_use_the_file(workspace, settings, monkeypatch):
    """`off` applies to writers and to readers."""
    monkeypatch.setenv("MP_SNAPSHOT", "off")
    off = settings.model_copy(update={"snapshot": "off"})
    with Workspace(credentials=workspace.credentials, settings=off) as writer:
        writer.sync_events(DAY, DAY)
    assert not copy_path(settings.database).exists()
    with Workspace.open(settings.database) as readers:
        assert readers.sql_scalar("SELECT count(*) FROM events") > 0


def test_queries_see_both_schemas(workspace):
    """`FROM events` and `FROM mixpanel.events` mean the same table."""
    workspace.sync_events(DAY, DAY)
    short = workspace.sql("SELECT count(*) AS n FROM events")
    assert short["n"][0] == workspace.sql_rows("SELECT count(*) FROM mixpanel.events")[0][0] > 0


def test_profiles_are_a_snapshot_of_today(workspace, emulator):
    """Every profile, labelled with today."""
    report = workspace.sync_profiles()
    assert report.row_count == len(emulator.truth.profiles())
    assert report.scope == "all"


def test_a_broken_day_is_told_and_the_others_are_stored(workspace, emulator):
    """The error says that the rest is there."""
    emulator.faults.add(Fault("truncate-whole-body", day=DAY, times=None))
    with pytest.raises(IncompleteExportError) as caught:
        workspace.sync_events(FIRST, LAST)
    assert caught.value.partial
    days = workspace.sql_rows("SELECT day(day), status FROM mixpanel._days ORDER BY day")
    assert days == [(day, "failed" if day == 3 else "complete") for day in range(1, 8)]


def test_a_page_that_fails_leaves_the_snapshot_as_it_was(workspace, emulator):
    """Nothing of a snapshot with a missing page is stored."""
    workspace.sync_profiles()
    before = workspace.sql_rows("SELECT * FROM profiles ORDER BY ALL")
    emulator.faults.add(Fault("html-200", path="/api/query/engage", times=None))
    with pytest.raises(IncompleteExportError):
        workspace.sync_profiles()
    assert workspace.sql_rows("SELECT * FROM profiles ORDER BY ALL") == before


@pytest.fixture
def pages_of_ten(settings):
    """A workspace of an emulator that sends ten profiles a page, one with null for properties."""
    shop = EmulatorSettings(days=3, profiles=95, page_size=10, null_properties=True)
    with Emulator(shop) as emulator:
        credentials = make_credentials(
            username=emulator.username, secret=emulator.secret, project_id=str(emulator.project_id)
        )
        changes = {"max_retries": 0, "api_base_url": emulator.base_url}
        with Workspace(
            credentials=credentials, settings=settings.model_copy(update=changes)
        ) as workspace:
            yield workspace, emulator


def test_refused_credentials_change_nothing(pages_of_ten):
    """The error is raised although only later pages are refused, and no database is created."""
    workspace, emulator = pages_of_ten
    emulator.faults.add(Fault("401-json", path=ENGAGE, skip=3, times=None))
    with pytest.raises(AuthenticationError):
        workspace.sync_profiles()
    assert not workspace.db_path.exists()


def test_nobody_at_all_is_said_twice_before_it_is_believed(pages_of_ten):
    """An empty response would delete every profile, so it is requested twice."""
    workspace, _ = pages_of_ten
    everybody = workspace.sync_profiles().row_count
    with Emulator(EmulatorSettings(days=3, profiles=0)) as nobody:
        asked = len(nobody.requests)
        settings = workspace.settings.model_copy(update={"api_base_url": nobody.base_url})
        with Workspace(credentials=workspace.credentials, settings=settings) as emptied:
            report = emptied.sync_profiles()
        assert len(nobody.requests) - asked == 2
    assert (report.row_count, report.rows_before, report.status) == (0, everybody, "empty")


def test_no_profile_of_a_day_is_believed_only_twice(pages_of_ten):
    """The profiles last seen on an older day, too."""
    workspace, emulator = pages_of_ten
    days = [
        (profile["$properties"] or {}).get("$last_seen") for profile in emulator.truth.profiles()
    ]
    day = max(text for text in days if text)[:10]
    expected = workspace.sync_profiles(day).row_count
    before = len(emulator.requests)
    emulator.faults.add(Fault("no-profiles"))
    report = workspace.sync_profiles(day)
    assert (report.scope, report.row_count) == ("seen_on_day", expected)
    assert expected > 0
    assert len(emulator.requests) - before >= 2


def test_a_page_that_stays_broken_is_named_and_the_others_are_stored(pages_of_ten):
    """`partial` says that other pages are stored; the next call requests only the failed page."""
    workspace, emulator = pages_of_ten
    emulator.faults.add(Fault("500-json", path=ENGAGE, page=3, times=None))
    with pytest.raises(IncompleteExportError, match="1 page could not be fetched: 3") as raised:
        workspace.sync_profiles()
    assert raised.value.partial
    everybody = len(emulator.truth.profiles())
    assert workspace.sql_rows("SELECT count(*) FROM profiles") == [(everybody - 10,)]
    emulator.faults.clear()
    asked = len(emulator.requests)
    assert workspace.sync_profiles().row_count == everybody
    assert len(emulator.requests) - asked == 1


def test_a_snapshot_whose_session_ends_is_taken_anew(pages_of_ten):
    """It is taken once more, from page 0 on."""
    workspace, emulator = pages_of_ten
    emulator.faults.add(Fault("session-expired", skip=3))
    assert workspace.sync_profiles().row_count == len(emulator.truth.profiles())


def test_a_full_snapshot_of_an_older_day_is_kept(workspace, emulator):
    """No request is sent for a day whose snapshot cannot be taken again."""
    workspace.sync_profiles()
    yesterday = workspace.settings.today() - timedelta(days=1)
    with workspace._database.write() as connection:
        connection.execute("UPDATE mixpanel._days SET day = ?", [yesterday])
    asked = len(emulator.requests)
    report = workspace.sync_profiles(yesterday)
    assert (report.kept, report.scope) == (True, "all")
    assert len(emulator.requests) == asked


def test_no_spool_file_stays_behind(workspace):
    """The temporary file is deleted after its rows are stored."""
    workspace.sync_events(FIRST, LAST)
    workspace.sync_profiles()
    assert not list((workspace.db_path.parent / "spool").iterdir())


def test_another_project_is_refused(workspace, credentials, settings):
    """A file belongs to one project."""
    workspace.sync_events(DAY, DAY)
    other = credentials.model_copy(update={"project_id": "777"})
    with (
        Workspace(credentials=other, settings=settings) as stranger,
        pytest.raises(ConfigError, match="777"),
    ):
        stranger.sync_events(DAY, DAY)


def test_a_query_without_a_database_says_what_to_do(workspace):
    """Nothing was loaded yet."""
    with pytest.raises(DatabaseNotFoundError, match="Load something first"):
        workspace.sql("SELECT 1")


def test_an_explicit_path_wins(credentials, settings, tmp_path):
    """`path=` says where the file is."""
    with Workspace(
        credentials=credentials, path=tmp_path / "other.duckdb", settings=settings
    ) as workspace:
        assert workspace.db_path == tmp_path / "other.duckdb"
