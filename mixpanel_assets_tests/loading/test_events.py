"""Loads of many days: requests are packed, and no bad answer ever replaces a good day."""

import os
import time
from datetime import UTC, date, datetime, timedelta

import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import ConfigError, IncompleteExportError, StorageError
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.laws import siblings

FIRST, LAST, DAY = date(2024, 1, 1), date(2024, 1, 7), date(2024, 1, 3)
EXPORT = "/api/2.0/export"
ROWS = "SELECT * FROM events ORDER BY ALL"


@pytest.fixture
def workspace(credentials, settings):
    impatient = settings.model_copy(update={"max_retries": 0})
    with Workspace(credentials=credentials, settings=impatient) as workspace:
        yield workspace


@pytest.fixture
def weekly(credentials, settings):
    """A workspace that packs a week into a request."""
    changes = {"max_retries": 0, "days_per_request": 7}
    with Workspace(
        credentials=credentials, settings=settings.model_copy(update=changes)
    ) as workspace:
        yield workspace


def stored_days(workspace):
    days = "SELECT day FROM mixpanel._days WHERE status <> 'failed' ORDER BY day"
    return [day.day for (day,) in workspace.sql_rows(days)]


def spooled(workspace):
    return list((workspace.db_path.parent / "spool").glob("*"))


def test_an_unknown_project_begins_with_one_day_and_goes_on_with_many(workspace, asked):
    """A fortnight is three requests the first time and one the second."""
    workspace.sync_events(FIRST, date(2024, 1, 14))
    assert [len(days) for days in asked()] == [1, 6, 7]
    workspace.sync_events(FIRST, date(2024, 1, 14))
    assert [len(days) for days in asked()[3:]] == [14]


def test_a_fixed_number_of_days_is_asked(weekly, asked):
    """MP_DAYS_PER_REQUEST=7 requests a week at once, known or not."""
    weekly.sync_events(FIRST, LAST)
    assert [len(days) for days in asked()] == [7]


def test_one_bad_day_does_not_stop_the_others(weekly, emulator):
    """Six days of seven are stored; the error comes last and lists the seventh."""
    emulator.faults.add(Fault("truncate-own-line", path=EXPORT, day=DAY, times=None))
    with pytest.raises(
        IncompleteExportError, match=r"1 of 7 days stayed incomplete.*2024-01-03"
    ) as e:
        weekly.sync_events(FIRST, LAST)
    assert e.value.partial
    assert stored_days(weekly) == [1, 2, 4, 5, 6, 7]


@pytest.mark.parametrize("kind", siblings(["foreign-rows", "truncate-own-line"], keep=1))
def test_a_bad_answer_is_handled_alike_wherever_it_shows(kind, weekly, emulator):
    """Cut on the way or full of rows of other days: the day is set aside, the others go on."""
    emulator.faults.add(Fault(kind, path=EXPORT, day=FIRST, times=None))
    with pytest.raises(IncompleteExportError, match=r"1 of 7 days stayed incomplete.*2024-01-01"):
        weekly.sync_events(FIRST, LAST)
    assert stored_days(weekly) == [2, 3, 4, 5, 6, 7]


def test_a_bad_answer_found_at_the_load_is_asked_for_again(weekly, emulator, asked):
    """A line that is no event is met twice at most; the second answer is whole and is stored."""
    emulator.faults.add(Fault("junk-line", path=EXPORT, day=DAY))
    weekly.sync_events(FIRST, LAST)
    assert len(stored_days(weekly)) == 7
    assert len(asked()) > 1


def test_every_request_is_in_the_ledger(weekly, emulator, asked):
    """Failed and repeated requests count too: the ledger adds up to what was sent."""
    emulator.faults.add(Fault("truncate-own-line", path=EXPORT, day=DAY, times=2))
    weekly.sync_events(FIRST, LAST)
    assert weekly.sql_rows("SELECT sum(requests) FROM mixpanel._days") == [(len(asked()),)]
    assert len(asked()) > 1


@pytest.mark.parametrize("kind", siblings(["empty-200", "missing-rows"], keep=1))
def test_a_day_that_once_comes_back_smaller_is_asked_for_again(kind, workspace, emulator, asked):
    """One answer with fewer rows, even none, changes nothing: the second one is stored."""
    workspace.sync_events(DAY, DAY)
    before = workspace.sql_rows(ROWS)
    emulator.faults.add(Fault(kind, path=EXPORT, day=DAY, count=9))
    [report] = workspace.sync_events(DAY, DAY)
    assert workspace.sql_rows(ROWS) == before
    assert report.row_count == report.rows_before == len(before)
    assert report.requests == 2
    assert len(asked()) == 3


@pytest.mark.parametrize("kind", siblings(["empty-200", "delete-rows"], keep=1))
def test_rows_that_two_responses_lack_are_kept(kind, workspace, emulator, asked, caplog):
    """What Mixpanel deleted stays here; report, ledger and log say so, at no further request."""
    [first] = workspace.sync_events(DAY, DAY)
    before = workspace.sql_rows(ROWS)
    emulator.faults.add(Fault(kind, path=None, day=DAY, times=None, count=9))
    [report] = workspace.sync_events(DAY, DAY)
    gone = first.row_count if kind == "empty-200" else 9
    assert (report.row_count, report.rows_vanished) == (first.row_count, gone)
    assert report.status == "complete"
    assert workspace.sql_rows(ROWS) == before
    assert workspace.sql_rows("SELECT rows_vanished FROM mixpanel._days") == [(gone,)]
    assert (
        f"responses lack {gone:,} rows that are stored: 2024-01-03 ({gone:,} rows)" in caplog.text
    )
    assert len(asked()) == 3
    [again] = workspace.sync_events(DAY, DAY)
    assert (again.rows_vanished, again.newly_vanished) == (gone, 0)
    assert len(asked()) == 4


@pytest.mark.slow
def test_rows_that_vanish_later_are_looked_for_twice_again(workspace, emulator, asked):
    """What vanished before costs no second request, what vanishes now does."""
    workspace.sync_events(DAY, DAY)
    for count, requests in ((9, 3), (20, 5), (20, 6)):
        emulator.faults.clear()
        emulator.faults.add(Fault("delete-rows", day=DAY, times=None, count=count))
        [report] = workspace.sync_events(DAY, DAY)
        assert report.rows_vanished == count
        assert len(asked()) == requests


def test_two_smaller_answers_that_differ_are_refused(workspace, emulator):
    """The error names the day and all counts; the stored rows are kept."""
    [first] = workspace.sync_events(DAY, DAY)
    before = workspace.sql_rows(ROWS)
    emulator.faults.add(Fault("empty-200", path=EXPORT, day=DAY))
    emulator.faults.add(Fault("missing-rows", path=EXPORT, day=DAY, count=200))
    stored = f"{first.row_count:,}"
    with pytest.raises(
        IncompleteExportError,
        match=rf"2024-01-03 holds {stored} rows, first received 0 without {stored} of the stored "
        r"ones, then \d+ without \d+ of the stored ones\.",
    ) as caught:
        workspace.sync_events(DAY, DAY)
    assert not caught.value.partial
    assert workspace.sql_rows(ROWS) == before
    assert workspace.sql_rows("SELECT row_count FROM mixpanel._days") == [(first.row_count,)]


def test_a_refused_smaller_day_does_not_hold_up_the_rest_of_its_request(weekly, emulator):
    """The six other days of the week are stored; the seventh keeps its rows."""
    weekly.sync_events(FIRST, LAST)
    emulator.faults.add(
        Fault("late-events", day=date(2024, 1, 5), count=3),
        Fault("delete-rows", day=DAY, count=9),
        Fault("delete-rows", day=DAY, count=20, skip=1),
    )
    with pytest.raises(IncompleteExportError, match="1 of 7 days"):
        weekly.sync_events(FIRST, LAST)
    counts = dict(weekly.sql_rows("SELECT event_date, count(*) FROM events GROUP BY ALL"))
    truth = emulator.truth
    fifth = date(2024, 1, 5)
    assert counts[fifth] == truth.count(fifth) - len(truth.unstorable(fifth))
    assert counts[DAY] > truth.count(DAY)


def test_an_open_day_does_not_shrink_silently(credentials, tmp_path):
    """Today is requested again too when it has fewer rows than before."""
    today = datetime.now(UTC).date()
    with Emulator(EmulatorSettings(start=today - timedelta(days=1), exact_events=3000)) as emulator:
        settings = Settings(api_base_url=emulator.base_url, database=tmp_path / "w.duckdb")
        with Workspace(credentials=credentials, settings=settings) as workspace:
            [first] = workspace.sync_events(today, today)
            emulator.faults.add(Fault("empty-200", path=EXPORT))
            [second] = workspace.sync_events(today, today)
    assert first.status == second.status == "open"
    assert second.row_count >= first.row_count


@pytest.fixture
def limited(tmp_path):
    """A project whose plan reaches 20 days back, with data on the last 60, and a workspace."""
    today = datetime.now(UTC).date()
    with Emulator(
        EmulatorSettings(start=today - timedelta(days=60), events_per_day=40, history_days=20)
    ) as emulator:
        settings = Settings(api_base_url=emulator.base_url, database=tmp_path / "w.duckdb")
        credentials = make_credentials(
            username=emulator.username, secret=emulator.secret, project_id="12345"
        )
        with Workspace(credentials=credentials, settings=settings) as workspace:
            yield workspace, emulator, today


def test_days_before_the_plans_horizon_are_not_available_and_the_others_go_on(limited):
    """60 days back at a plan of 20: 40 days are noted, 20 are stored, few requests refused."""
    workspace, emulator, today = limited
    reports = workspace.sync_events(today - timedelta(days=60), today - timedelta(days=1))
    status = {report.day: report.status for report in reports}
    horizon = today - timedelta(days=20)
    assert len(reports) == len(status) == 60
    assert {day for day in status if status[day] == "not available"} == {
        day for day in status if day < horizon
    }
    assert all(report.row_count for report in reports if report.day >= horizon)
    ledger = workspace.sql_rows(
        "SELECT row_count, count(*) FROM mixpanel._days WHERE status = 'not available' GROUP BY ALL"
    )
    assert ledger == [(0, 40)]
    refused = [entry for entry in emulator.requests if entry.status == 403]
    assert len(refused) == 3  # one of them was on its way already


def test_days_that_are_stored_outlive_the_plans_horizon(limited, tmp_path):
    """A day that was loaded while the plan reached it keeps its rows and its ledger row."""
    workspace, emulator, today = limited
    day = today - timedelta(days=20)
    workspace.sync_events(day, day)
    before = workspace.sql_rows(ROWS)
    emulator.faults.add(Fault("403-history", path=EXPORT, times=None))
    [report] = workspace.sync_events(day, day)
    assert (report.status, report.row_count) == ("not available", len(before))
    assert workspace.sql_rows(ROWS) == before
    assert workspace.sql_rows("SELECT status FROM mixpanel._days") == [("complete",)]


def test_a_horizon_that_is_not_where_mixpanel_says_is_found(weekly, emulator, asked):
    """A refusal of one day only: the others of its request come, found by halves."""
    text = "Date range exceeds 1 days into the past"
    emulator.faults.add(Fault("403-history", path=EXPORT, day=FIRST, times=None, text=text))
    reports = weekly.sync_events(FIRST, LAST)
    assert [report.status for report in reports] == ["not available", *["complete"] * 6]


def test_room_is_looked_for_before_a_request_is_spent(workspace, asked):
    """A day known to be larger than the disk is not requested; the message has the figures."""
    workspace.sync_events(DAY, DAY)
    with workspace._database.write() as connection:
        connection.execute("UPDATE mixpanel._days SET bytes = 1000000000000000")
    with pytest.raises(StorageError, match=r"needs about 7,500,000,050 MB, but .* free.*MP_SPOOL"):
        workspace.sync_events(DAY, DAY)
    assert len(asked()) == 1


@pytest.mark.on_file
def test_the_answer_of_a_failed_day_is_kept_and_cleaned_later(workspace, emulator):
    """It stays for a look at it, is left alone while young, and goes when `clean` may."""
    emulator.faults.add(Fault("foreign-rows", day=DAY, count=5))
    with pytest.raises(IncompleteExportError):
        workspace.sync_events(DAY, DAY)
    [kept] = spooled(workspace)
    assert workspace.clean(timedelta(0)).kept == 1
    stranger = kept.with_name("notes.jsonl")
    stranger.write_text("mine")
    for path in (kept, stranger):
        os.utime(path, (time.time() - 8 * 86_400,) * 2)
    assert workspace.clean(timedelta(days=9)).deleted == 0
    cleaned = workspace.clean()
    assert (cleaned.deleted, cleaned.kept) == (1, 0)
    assert cleaned.deleted_bytes > 0
    assert spooled(workspace) == [stranger]


@pytest.mark.on_file
def test_a_plan_says_what_a_load_would_take_and_moves_nothing(workspace, asked):
    """Requests, time, rows, bytes and free disk; no request, no file."""
    plan = workspace.plan(FIRST, LAST)
    assert (plan.days, plan.requests, plan.estimated_rows, plan.estimated_bytes) == (
        7,
        2,
        None,
        None,
    )
    assert plan.free_disk_bytes > 0
    assert not workspace.db_path.exists()
    assert asked() == []


def test_a_plan_of_known_days_is_what_they_weigh(workspace):
    """Stored days are counted as they are, others like their neighbours."""
    reports = workspace.sync_events(FIRST, LAST)
    plan = workspace.plan(FIRST, LAST)
    assert plan.requests == 1
    assert plan.estimated_rows == sum(report.row_count for report in reports)
    assert plan.estimated_bytes == sum(report.bytes for report in reports)
    longer = workspace.plan(FIRST, date(2024, 1, 31))
    assert longer.requests == 1
    assert longer.estimated_rows > 3 * plan.estimated_rows
    assert longer.to_dict()["to_date"] == "2024-01-31"


@pytest.mark.slow
def test_a_plan_counts_the_hours_of_a_long_load(credentials, settings):
    """A year of weeks fits into the first hour, three years do not; what is spent counts."""
    budget = {"budget_export_per_hour": 58, "days_per_request": 7}
    with Workspace(
        credentials=credentials, settings=settings.model_copy(update=budget)
    ) as workspace:
        year, three_years = date(2024, 12, 31), date(2026, 12, 31)
        assert workspace.plan(FIRST, year).seconds == 0
        assert workspace.plan(FIRST, three_years).seconds == 2 * 3605
        for _ in range(6):
            workspace.sync_events(DAY, DAY)
        assert workspace.plan(FIRST, year).seconds == 3605


def test_a_plan_refuses_days_in_the_wrong_order(workspace):
    """A range that ends before it begins is a mistake."""
    with pytest.raises(ConfigError, match="is after to_date"):
        workspace.plan(LAST, FIRST)
