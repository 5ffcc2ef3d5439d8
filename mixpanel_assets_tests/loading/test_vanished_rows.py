"""What becomes of rows that Mixpanel does not send any more, and how users let go of them."""

import json
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Fault
from mixpanel_assets.errors import ConfigError, IncompleteExportError, MissingDaysError
from mixpanel_assets.loading.events import EventLoad
from mixpanel_assets.loading.verification import verify_days
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.laws import siblings

FIRST, DAY, LAST = date(2024, 1, 1), date(2024, 1, 3), date(2024, 1, 4)
ODD_DAY = LAST  # one of its lines is in quarantine
EXPORT = "/api/2.0/export"
ROWS = "SELECT * FROM events ORDER BY ALL"
LEDGER = "SELECT row_count, rows_vanished FROM mixpanel._days ORDER BY day"


@pytest.fixture
def workspace(credentials, settings):
    """A workspace that requests four days at once."""
    changes = {"max_retries": 0, "days_per_request": 4}
    with Workspace(
        credentials=credentials, settings=settings.model_copy(update=changes)
    ) as workspace:
        yield workspace


@pytest.fixture
def delete(emulator):
    """Let Mixpanel lose rows of a day; the same ones in every response from then on."""

    def lose(day, count):
        emulator.faults.clear()
        kind = {"kind": "delete-rows", "count": count} if count else {"kind": "empty-200"}
        emulator.faults.add(Fault(path=EXPORT, day=day, times=None, **kind))

    return lose


def test_kept_rows_and_late_ones_of_one_day_are_both_right(workspace, emulator, delete):
    """150 rows vanish while 50 come late: one load, and both numbers."""
    [first] = workspace.sync_events(DAY, DAY)
    delete(DAY, 150)
    emulator.faults.add(Fault("late-events", day=DAY, count=50, times=None))
    [report] = workspace.sync_events(DAY, DAY)
    assert (report.rows_vanished, report.row_count) == (150, first.row_count + 50)
    assert workspace.sql_rows(LEDGER) == [(first.row_count + 50, 150)]
    assert len(workspace.sql_rows(ROWS)) == first.row_count + 50
    assert workspace.sql_rows("SELECT count(*) FROM mixpanel._vanished") == [(150,)]


def test_identities_that_merge_between_two_reads_leave_no_second_row(workspace, emulator):
    """Nor does the second read count a row as vanished."""
    before = workspace.sync_events(FIRST, LAST)
    emulator.faults.add(Fault("restamp", day=DAY, count=100, times=None))
    after = workspace.sync_events(FIRST, LAST)
    assert [r.row_count for r in after] == [r.row_count for r in before]
    assert [r.rows_vanished for r in after] == [0] * 4
    merged = workspace.sql_scalar("SELECT count(*) FROM events WHERE distinct_id = 'user-merged'")
    assert merged == 100


def test_accept_smaller_removes_what_vanished_and_says_so(workspace, delete, asked, caplog):
    """The log names the days and rows before the request, and the removed rows after it."""
    before = workspace.sync_events(FIRST, LAST)
    delete(DAY, 9)
    workspace.sync_events(FIRST, LAST)
    caplog.clear()
    reports = workspace.sync_events(FIRST, LAST, accept_smaller=True)
    assert [r.rows_removed for r in reports] == [0, 0, 9, 0]
    assert [r.row_count for r in reports] == [
        r.row_count - (9 if r.day == DAY else 0) for r in before
    ]
    assert [rows for _, rows in workspace.sql_rows(LEDGER)] == [0] * 4
    first, *_, last = [record.getMessage() for record in caplog.records]
    assert first.startswith("Smaller days are accepted. 9 stored rows will be removed if")
    assert "2024-01-03 (9 rows)" in first
    assert last == "Removed 9 stored rows that Mixpanel's responses lack: 2024-01-03 (9 rows)."


def test_smaller_days_are_accepted_after_two_looks_only(workspace, emulator):
    """A response that is smaller once removes nothing."""
    before = workspace.sync_events(FIRST, LAST)
    emulator.faults.add(Fault("missing-rows", path=EXPORT, day=DAY, count=40))
    after = workspace.sync_events(FIRST, LAST, accept_smaller=True)
    assert [r.row_count for r in after] == [r.row_count for r in before]
    emulator.faults.add(
        Fault("delete-rows", day=DAY, count=9),
        Fault("delete-rows", day=DAY, count=20, skip=1),
    )
    rows = workspace.sql_rows(ROWS)
    with pytest.raises(IncompleteExportError, match="1 of 4 days"):
        workspace.sync_events(FIRST, LAST, accept_smaller=True)
    assert workspace.sql_rows(ROWS) == rows


def test_accept_smaller_never_empties_a_day_that_may_be_too_old(workspace, delete, caplog):
    """Mixpanel answers the same for a day that it has deleted for its age."""
    workspace.sync_events(FIRST, LAST)
    rows = workspace.sql_rows(ROWS)
    delete(DAY, None)
    for _ in range(2):
        caplog.clear()
        report = workspace.sync_events(DAY, DAY, accept_smaller=True)[0]
        assert report.rows_vanished == report.row_count > 0
        assert "Only `mp drop-day DAY` removes them" in caplog.text
    assert workspace.sql_rows(ROWS) == rows
    workspace.settings = workspace.settings.model_copy(update={"retention_days": 36_525})
    report = workspace.sync_events(DAY, DAY, accept_smaller=True)[0]
    assert (report.row_count, report.status) == (0, "empty")
    assert report.rows_removed == report.rows_before


def test_a_load_says_which_days_hold_vanished_rows(workspace, delete, client):
    """Days that the load kept and did not request are named too."""
    workspace.sync_events(FIRST, LAST)
    delete(DAY, 9)
    workspace.sync_events(DAY, DAY)
    load = EventLoad(client, workspace.settings, from_date=FIRST, to_date=LAST)
    load.store(workspace.storage.database)
    assert load.vanished == {DAY: 9}


@pytest.mark.slow
def test_verification_does_not_call_kept_rows_a_difference(workspace, client, delete):
    """They are counted by themselves; rows that vanished since the last load are a difference."""
    workspace.sync_events(FIRST, LAST)
    delete(DAY, 9)
    asked = {"from_date": DAY, "to_date": DAY}
    database = workspace.storage.database
    [found] = verify_days(client, workspace.settings, database, **asked)
    assert (found.gone, found.kept, found.differs) == (9, 0, True)
    workspace.sync_events(DAY, DAY)
    [found] = verify_days(client, workspace.settings, database, **asked)
    assert (found.gone, found.kept, found.differs) == (0, 9, False)
    delete(DAY, 20)
    [found] = verify_days(client, workspace.settings, database, **asked)
    assert (found.gone, found.kept, found.differs) == (11, 9, True)


def test_a_day_is_dropped_with_all_that_is_known_of_it(workspace, delete):
    """Rows, ledger, counts, quarantine and the list of vanished rows, of this day alone."""
    workspace.sync_events(FIRST, LAST)
    delete(ODD_DAY, 9)
    workspace.sync_events(ODD_DAY, ODD_DAY)
    rows = workspace.sql_scalar(f"SELECT count(*) FROM events WHERE event_date = '{ODD_DAY}'")
    others = workspace.sql_scalar(f"SELECT count(*) FROM events WHERE event_date <> '{ODD_DAY}'")
    would = workspace.drop_day(ODD_DAY, dry_run=True)
    done = workspace.drop_day(str(ODD_DAY))
    assert would == done
    assert done.to_dict() == {
        "table": "events",
        "day": "2024-01-04",
        "row_count": rows,
        "quarantined": 1,
        "is_loaded_again": True,
    }
    for table, column in {
        "events": "event_date",
        "_days": "day",
        "_event_counts": "day",
        "_quarantine": "day",
        "_vanished": "day",
    }.items():
        left = f"SELECT count(*) FROM mixpanel.{table} WHERE {column} = '{ODD_DAY}'"
        assert workspace.sql_scalar(left) == 0
    assert workspace.sql_scalar("SELECT count(*) FROM events") == others
    with pytest.raises(MissingDaysError, match="Nothing is stored for 2024-01-04"):
        workspace.drop_day(ODD_DAY)


def test_whether_sync_loads_a_dropped_day_again_is_told_truly(workspace):
    """It loads every day since the first stored one, except those before the horizon."""
    workspace.sync_events(FIRST, LAST)
    for day, again in ((FIRST, False), (DAY, True)):
        assert workspace.drop_day(day).is_loaded_again is again
        assert (day in workspace.days_due().days) is again
    days = (workspace.settings.today() - LAST).days - 1
    workspace.settings = workspace.settings.model_copy(update={"retention_days": days})
    workspace.drop_day(LAST)
    assert not workspace.drop_day(FIRST + timedelta(days=1)).is_loaded_again


@pytest.mark.slow
def test_only_days_of_an_assets_events_are_dropped(workspace, client):
    """Another asset's table of events has days too; named tables are dropped as a whole."""
    workspace.sync_events(FIRST, FIRST)
    load = EventLoad(
        client,
        workspace.settings,
        from_date=FIRST,
        to_date=FIRST,
        table="visits",
        events=["Page View"],
    )
    load.store(workspace.storage.database)
    workspace.fetch_events("mine", from_date=str(FIRST), to_date=str(FIRST))
    workspace.sync_profiles()
    dropped = workspace.drop_day(FIRST, table="visits")
    assert dropped.row_count > 0
    assert not dropped.is_loaded_again
    assert workspace.sql_scalar("SELECT count(*) FROM events") > 0
    for table in ("mine", "profiles", "_days"):
        with pytest.raises(ConfigError, match="not an asset's table of events"):
            workspace.drop_day(FIRST, table=table)


class OldProject:
    """A project from before 2023 whose export days hold what a test says."""

    def __init__(self):
        self.days = {}

    def at(self, day, *events):
        """Let the export of a day hold events: a name, the hour of its wall clock, an id."""
        start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
        self.days[day] = [
            {
                "event": name,
                "properties": {"time": start + round(hour * 3_600_000), "$insert_id": insert_id},
            }
            for name, hour, insert_id in events
        ]

    def export(self, first, last):
        asked = [day for day in self.days if first <= day <= last]
        return b"".join(json.dumps(one).encode() + b"\n" for day in asked for one in self.days[day])


@pytest.fixture
def old_project(tmp_path):
    """The project and a workspace of it."""
    project = OldProject()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked = parse_qs(urlsplit(self.path).query)
            days = (date.fromisoformat(asked[name][0]) for name in ("from_date", "to_date"))
            body = project.export(*days)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        settings = Settings(
            api_base_url=f"http://127.0.0.1:{server.server_port}",
            database=tmp_path / "old.duckdb",
            time_regime="legacy",
            time_zone="US/Pacific",
            days_per_request=1,
        )
        credentials = make_credentials(username="u", secret="long-secret", project_id="1")
        with Workspace(credentials=credentials, settings=settings) as workspace:
            yield project, workspace
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("way", siblings([1, -1], keep=1))
def test_a_zone_change_moves_rows_and_leaves_no_trace(old_project, way, caplog):
    """Reports, ledger and log speak of the day that the rows have now."""
    project, workspace = old_project
    here, there = [FIRST, FIRST + timedelta(days=1)][::way]
    hour = 23.5 if way == 1 else 0.5
    moving = [("A", hour, "a"), ("B", hour, ""), ("B", hour, "")]
    project.at(here, ("C", 12, "c"), *moving)
    project.at(there, ("D", 12, "d"))
    workspace.sync_events(FIRST, LAST)
    rows = workspace.sql_rows("SELECT event_name, time_raw FROM events ORDER BY ALL")
    project.at(here, ("C", 12, "c"))
    project.at(there, ("D", 12, "d"), *((name, hour - 24 * way, i) for name, _, i in moving))
    caplog.clear()
    reports = {report.day: report for report in workspace.sync_events(FIRST, LAST)}
    assert (reports[here].row_count, reports[there].row_count) == (1, 4)
    assert (reports[here].rows_vanished, reports[there].rows_vanished) == (0, 0)
    assert "They are kept" not in caplog.text
    assert workspace.sql_rows("SELECT event_name, time_raw FROM events ORDER BY ALL") == rows
    assert workspace.sql_scalar("SELECT count(*) FROM mixpanel._vanished") == 0
