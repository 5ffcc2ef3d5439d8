"""The certificate of a day: each number by the emulator's truth, and whether they add up."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import (
    ConfigError,
    IncompleteExportError,
    MissingDaysError,
    TableNotFoundError,
)
from mixpanel_assets.results.certificate import MEANINGS
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import EVERY_EVENT, Reconciled, write_reconciled

DAY = timedelta(days=1)
ODD, LAST = date(2024, 1, 4), date(2024, 1, 6)  # the first has a line that cannot be stored


@pytest.fixture(scope="module")
def shop():
    """Days with duplicates, one of them with an odd line."""
    with Emulator(EmulatorSettings(start=date(2024, 1, 1), days=6, events_per_day=300)) as emulator:
        yield emulator


@pytest.fixture
def workspace(shop, place):
    shop.faults.clear()
    settings = Settings(
        api_base_url=shop.base_url,
        database=place,
        snapshot="off",
        max_retries=1,
    )
    credentials = make_credentials(
        username=shop.username, secret=shop.secret, project_id=str(shop.project_id)
    )
    with Workspace(credentials=credentials, settings=settings) as workspace:
        yield workspace
    shop.faults.clear()


def change(workspace, sql):
    with workspace.storage.write() as connection:
        connection.execute(sql)


def test_each_number_is_what_the_project_holds(shop, workspace):
    """Of lines, rows, duplicates and quarantine, day by day; requests and bytes of the response."""
    shop.faults.add(Fault("503-empty", path="*export*", count=1))
    before = len(shop.requests)
    workspace.sync_events(ODD, ODD)
    workspace.sync_events(ODD + DAY, LAST)
    exports = [one for one in shop.requests[before:] if one.path.endswith("export")]
    found = {day: workspace.certificate(day) for day in (ODD, ODD + DAY, LAST)}
    truth = shop.truth
    for day, one in found.items():
        unstorable = len(truth.unstorable(day))
        assert one.lines == len(list(truth.lines(day)))
        assert one.duplicates == truth.duplicates(day)
        assert one.quarantined == one.lines_stored == one.lines_counted == unstorable
        assert one.rows_received == truth.count(day) - unstorable
        assert one.rows_stored == one.rows_counted == one.rows_received
        assert (one.rows_kept, one.rows_moved) == (0, 0)
        assert [total.holds for total in one.sums] == [True] * 5
        assert (one.status, one.verdict, one.live_class) == ("complete", "complete", "not asked")
        assert one.unknown == ()
    assert found[ODD].quarantined == 1
    assert sum(one.duplicates for one in found.values()) > 0
    alone, last = found[ODD], found[LAST]
    assert (alone.requests, last.requests, len(exports)) == (2, 1, 3)
    assert (alone.request_from, alone.request_to) == (ODD, ODD)
    assert (last.request_from, last.request_to) == (ODD + DAY, LAST)
    assert alone.response_lines == alone.lines
    others = [one for one in found.values() if one is not alone]
    assert last.response_lines == sum(one.lines for one in others)
    days = workspace.sql_rows("SELECT day, bytes, run_id FROM mixpanel._days ORDER BY day").rows
    assert last.response_bytes == sum(size for day, size, _ in days if day > ODD)
    assert {one.run_id for one in others} == {days[-1][2]} != {alone.run_id}
    assert (last.project_id, last.region, last.table) == (str(shop.project_id), "us", "events")


def test_the_digest_is_that_of_the_content(workspace):
    """Whatever the packing; the other days of the response may be loaded again."""
    workspace.sync_events(ODD, LAST)
    before = workspace.certificate(LAST)
    workspace.sync_events(LAST, LAST)
    after = workspace.certificate(LAST)
    assert after.digest == before.digest != workspace.certificate(ODD).digest
    assert (before.request_from, after.request_from) == (ODD + DAY, LAST)
    other = workspace.certificate(ODD + DAY)
    [rest] = [one for one in other.sums if "of the response" in one.text]
    assert rest.holds is None
    assert rest.text.endswith("its other days were loaded again")


def test_rows_that_mixpanel_sends_no_more_are_named_apart(shop, workspace):
    """They are stored, and no part of the response."""
    workspace.sync_events(ODD, ODD)
    whole = workspace.certificate(ODD)
    shop.faults.add(Fault("empty-200", day=ODD, times=None))
    workspace.sync_events(ODD, ODD)
    kept = workspace.certificate(ODD)
    assert (kept.lines, kept.rows_received, kept.quarantined) == (0, 0, 0)
    assert (kept.rows_kept, kept.lines_stored) == (whole.rows_stored, 1)
    assert kept.rows_stored == whole.rows_stored
    assert kept.holds
    shop.faults.clear()
    shop.faults.add(Fault("truncate-whole-body", day=ODD, times=None))
    with pytest.raises(IncompleteExportError):
        workspace.sync_events(ODD, ODD)
    failed = workspace.certificate(ODD)
    assert "terminated early" in failed.last_error
    assert replace(failed, last_error=None) == kept


def test_an_empty_day_has_no_response_of_its_own(shop, workspace):
    """Two responses had no line; what a response would have is left out."""
    shop.faults.add(Fault("empty-200", day=ODD, times=None))
    workspace.sync_events(ODD, ODD)
    empty = workspace.certificate(ODD)
    assert (empty.status, empty.verdict) == ("empty", "complete, empty twice")
    assert (empty.lines, empty.rows_stored, empty.response_lines) == (0, 0, None)
    assert empty.digest == "0" * 32
    assert [total.holds for total in empty.sums] == [True] * 4


def test_a_day_that_was_never_loaded_has_no_certificate(shop, workspace):
    """The error says why, and how to load it; other tables than those of events have none."""
    workspace.sync_events(LAST, LAST)
    with pytest.raises(MissingDaysError, match=r"not requested.*mp sync --from 2024-01-02"):
        workspace.certificate("2024-01-02")
    shop.faults.add(Fault("truncate-whole-body", day=ODD, times=None))
    with pytest.raises(IncompleteExportError):
        workspace.sync_events(ODD, ODD)
    with pytest.raises(MissingDaysError, match=r"status is 'failed'.*terminated early"):
        workspace.certificate(ODD)
    workspace.fetch_profiles("people")
    for table, error in (
        ("people", ConfigError),
        ("profiles", ConfigError),
        ("x", TableNotFoundError),
    ):
        with pytest.raises(error):
            workspace.certificate(LAST, table=table)


def test_a_change_by_hand_breaks_a_sum(workspace):
    """Of rows, of the quarantine, and of the ledger."""
    workspace.sync_events(ODD, ODD)
    for number, sql in enumerate(
        [
            f"DELETE FROM mixpanel.events WHERE event_date = '{ODD}' AND hour(event_time) = 3",
            "DELETE FROM mixpanel._quarantine",
            "UPDATE mixpanel._days SET row_count = row_count + 1",
            "UPDATE mixpanel._days SET certificate = "
            "json_merge_patch(certificate, json_object('lines', 7))",
        ],
        start=1,
    ):
        change(workspace, sql)
        wrong = [one for one in workspace.certificate(ODD).sums if one.holds is False]
        assert len(wrong) >= number
        assert not workspace.certificate(ODD).holds


def test_what_an_earlier_version_did_not_store_is_not_known(workspace):
    """The ledger still says what is stored, and the digests of its events."""
    workspace.sync_events(ODD, ODD)
    now = workspace.certificate(ODD)
    change(workspace, "UPDATE mixpanel._days SET certificate = NULL")
    before = workspace.certificate(ODD)
    assert before.verdict == "not known"
    assert {"lines", "rows_received", "response_lines"} <= set(before.unknown)
    assert set(before.unknown) <= MEANINGS.keys()
    assert before.digest == now.digest
    assert (before.rows_stored, before.duplicates) == (now.rows_stored, now.duplicates)
    assert [total.holds for total in before.sums] == [None, None, True, True]


def test_mixpanels_own_count_is_that_since_the_load(workspace):
    """A count from before the load describes other rows."""
    workspace.sync_events(ODD, ODD)
    one = workspace.certificate(ODD)
    late = datetime.now(UTC)
    early = one.fetched_at - DAY
    asked = Reconciled(ODD, "Visit", 9, 10, "pending", "it rose", late, late)
    counts = [asked, replace(asked, event="Page View", live=9, cls="equal")]
    for moment, expected in ((early, (None, None, "not asked")), (late, (18, 19, "pending"))):
        with workspace.storage.write() as connection:
            asked_then = [replace(count, asked_at=moment) for count in counts]
            write_reconciled(connection, EVERY_EVENT, asked_then, ODD, ODD)
        found = workspace.certificate(ODD)
        assert (found.live_stored, found.live_count, found.live_class) == expected


def test_every_number_has_a_meaning(workspace):
    """And is ready for JSON; the ledger has the response's part as JSON too."""
    workspace.sync_events(ODD, ODD)
    told = workspace.certificate(ODD).to_dict()
    assert json.loads(json.dumps(told)) == told
    assert MEANINGS.keys() == told.keys() - {
        *("table", "day", "project_id", "region", "sums", "unknown"),
    }
    [(text,)] = workspace.sql_rows("SELECT certificate FROM mixpanel._days").rows
    assert json.loads(text)["lines"] == told["lines"]


def test_coverage_says_the_same_of_the_day(shop, workspace):
    """Its status and rows, and so does the view."""
    workspace.sync_events(ODD, ODD)
    shop.faults.add(Fault("empty-200", day=ODD, times=None))
    workspace.sync_events(ODD, ODD)
    [day] = workspace.coverage(to_date=ODD).days
    certificate = workspace.certificate(ODD)
    assert (day.status, day.row_count) == ("only ours", certificate.rows_kept)
    assert day.fetched_at == certificate.fetched_at
    view = f"SELECT status, row_count FROM mixpanel.coverage WHERE day = '{ODD}'"
    assert workspace.sql_rows(view).rows == [(day.status, day.row_count)]
