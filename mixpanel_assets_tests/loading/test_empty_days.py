"""Days without events: an empty response is believed only when a second one says the same."""

from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.client import SecondLooks
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import AuthenticationError, IncompleteExportError
from mixpanel_assets.loading.events import EventLoad
from mixpanel_assets.loading.plan import Keeping, Refetch
from mixpanel_assets.warehouse import Database
from mixpanel_assets_tests.laws import siblings

EXPORT = "/api/2.0/export"
FIRST, SECOND, THIRD = date(2024, 1, 1), date(2024, 1, 2), date(2024, 1, 3)
BEFORE = date(2023, 5, 1)


@pytest.fixture
def asked(emulator):
    """Return the days of each export request since the test began."""
    before = len(emulator.requests)
    return lambda: spans(emulator.requests[before:])


@pytest.fixture
def workspace_with(credentials, settings):
    """Open a workspace with other settings; it is closed at the end."""
    opened = []

    def open_one(**changes):
        changed = settings.model_copy(update={"max_retries": 0, **changes})
        opened.append(Workspace(credentials=credentials, settings=changed))
        return opened[-1]

    yield open_one
    for workspace in opened:
        workspace.close()


@pytest.fixture
def workspace(workspace_with):
    return workspace_with(days_per_request=3)


def emulator_of(**changes):
    return Emulator(EmulatorSettings(**changes))


def spans(requests):
    return [(one.days[0], one.days[-1]) for one in requests if one.path == EXPORT]


def statuses(workspace):
    return dict(workspace.sql_rows("SELECT day, status FROM mixpanel._days ORDER BY day"))


def counts(workspace):
    found = workspace.sql_rows("SELECT event_date, count(*) FROM events GROUP BY ALL ORDER BY ALL")
    return dict(found)


def true_counts(emulator, first, last):
    days = (first + timedelta(days=number) for number in range((last - first).days + 1))
    truth = emulator.truth
    held = {day: truth.count(day) - len(truth.unstorable(day)) for day in days}
    return {day: rows for day, rows in held.items() if rows}


def cut_after_the_first_day(emulator):
    """Let one response for three days stop between two lines, after those of one day."""
    emulator.faults.add(Fault("missing-days", path=EXPORT, day=SECOND))


def test_an_empty_first_response_is_not_believed(workspace, emulator, asked):
    """One empty 200 for three days that were never loaded: all their events are stored."""
    emulator.faults.add(Fault("empty-200", path=EXPORT))
    reports = workspace.sync_events(FIRST, THIRD)
    assert counts(workspace) == true_counts(emulator, FIRST, THIRD)
    assert [report.day for report in reports] == [FIRST, SECOND, THIRD]
    assert len(asked()) == 3


def test_a_response_cut_between_two_days_is_not_believed(workspace, emulator, asked):
    """A clean cut after day 1 of 3: day 1 is stored, days 2 and 3 are requested again."""
    cut_after_the_first_day(emulator)
    reports = workspace.sync_events(FIRST, THIRD)
    assert counts(workspace) == true_counts(emulator, FIRST, THIRD)
    assert [report.status for report in reports] == ["complete"] * 3
    assert asked()[:2] == [(FIRST, THIRD), (SECOND, THIRD)]


def test_a_day_without_events_is_empty_after_two_responses(workspace, asked):
    """The ledger counts both requests."""
    [report] = workspace.sync_events(BEFORE, BEFORE)
    assert (report.status, report.rows_before, report.requests) == ("empty", None, 2)
    assert statuses(workspace) == {BEFORE: "empty"}
    assert asked() == [(BEFORE, BEFORE)] * 2


def test_an_empty_day_that_is_empty_again_is_requested_once(workspace, asked):
    """It was confirmed when it was stored."""
    workspace.sync_events(BEFORE, BEFORE)
    [report] = workspace.sync_events(BEFORE, BEFORE)
    assert (report.status, len(asked())) == ("empty", 3)


def test_today_is_requested_once_while_it_has_no_events(workspace, asked):
    """It stays `open`, so every later load requests it again anyway."""
    today = datetime.now(UTC).date()
    [report] = workspace.sync_events(today, today)
    assert (report.status, report.row_count, len(asked())) == ("open", 0, 1)


@pytest.mark.parametrize(("year", "most"), siblings([(2022, 15), (2020, 39)], keep=1))
def test_years_before_a_project_cost_one_request_more(workspace_with, asked, year, most):
    """A year without an event: 14 requests for the days, one that confirms them all."""
    first, last = date(year, 12, 31), date(2023, 12, 31)
    workspace = workspace_with()
    workspace.sync_events(first, last)
    assert set(statuses(workspace).values()) == {"empty"}
    assert len(statuses(workspace)) == (last - first).days + 1
    assert len(asked()) <= most
    assert asked()[-1] == (first, last)


def test_empty_days_among_others_share_one_request(workspace_with):
    """Five quiet days in a month of a small project: one request confirms all of them."""
    quiet = [date(2024, 1, day) for day in (6, 7, 13, 20, 21)]
    rows = {date(2024, 1, day): 0 if date(2024, 1, day) in quiet else 20 for day in range(1, 32)}
    with emulator_of(start=FIRST, days=31, exact_events=rows, odd_content=False) as emulator:
        workspace = workspace_with(api_base_url=emulator.base_url)
        workspace.sync_events(FIRST, date(2024, 1, 31))
        known = statuses(workspace)
        assert {day for day, status in known.items() if status == "empty"} == set(quiet)
        assert len(known) == 31
        assert spans(emulator.requests)[-1] == (quiet[0], quiet[-1])
        assert len(spans(emulator.requests)) == 4


@pytest.mark.slow
def test_only_days_that_turn_out_to_have_events_are_loaded_again(workspace_with, emulator, asked):
    """Weeks before the project and a false empty week share the look; the false one is loaded."""
    emulator.faults.add(Fault("empty-200", path=EXPORT, day=FIRST))
    workspace = workspace_with(days_per_request=7)
    workspace.sync_events(FIRST - timedelta(days=14), date(2024, 1, 14))
    assert counts(workspace) == true_counts(emulator, FIRST, date(2024, 1, 14))
    assert len(statuses(workspace)) == 28
    assert asked()[4:] == [
        (FIRST - timedelta(days=14), date(2024, 1, 7)),
        (FIRST, date(2024, 1, 7)),
    ]


def test_nothing_is_empty_before_it_is_confirmed(workspace, emulator):
    """The second request is refused: the days failed, and the next load gets them."""
    cut_after_the_first_day(emulator)
    emulator.faults.add(Fault("401-json", path=EXPORT, times=None))
    with pytest.raises(AuthenticationError):
        workspace.sync_events(FIRST, THIRD)
    assert statuses(workspace) == {FIRST: "complete", SECOND: "failed", THIRD: "failed"}
    emulator.faults.clear()
    workspace.sync_events(FIRST, THIRD)
    assert counts(workspace) == true_counts(emulator, FIRST, THIRD)


@pytest.mark.slow
def test_a_confirmed_day_stays_when_a_later_one_fails(workspace_with, emulator):
    """Days that are too far from later ones are confirmed before the load goes on."""
    week = [date(2024, 1, day) for day in range(3, 8)]
    workspace_with().sync_events(week[0], week[-1])
    workspace = workspace_with(days_per_request=1)
    with workspace._database.write() as connection:
        connection.execute("UPDATE mixpanel._days SET bytes = 10000000")
    emulator.faults.add(Fault("401-json", path=EXPORT, day=date(2024, 1, 9), times=None))
    with pytest.raises(AuthenticationError):
        EventLoad(
            workspace.api,
            workspace.settings,
            from_date=date(2023, 12, 30),
            to_date=date(2024, 1, 9),
            keeping=Keeping(Refetch.stale),
        ).store(workspace._database)
    known = statuses(workspace)
    assert [known.get(date(2023, 12, day)) for day in (30, 31)] == ["empty", "empty"]
    assert known[date(2024, 1, 9)] == "failed"


@pytest.mark.slow
def test_a_filtered_table_pays_one_request_for_all_its_empty_days(client, settings, asked):
    """However many lie between them: here, the whole fortnight has no such event."""
    load = EventLoad(
        client,
        settings.model_copy(update={"days_per_request": 2}),
        from_date=FIRST,
        to_date=date(2024, 1, 14),
        table="nothing",
        events=["Nothing Like It"],
    )
    load.store(Database(settings.database))
    assert len(asked()) == 8
    assert asked()[-1] == (FIRST, date(2024, 1, 14))


@pytest.mark.slow
def test_a_limit_on_the_range_of_a_request_is_respected(workspace_with):
    """A server that refuses years receives requests for months."""
    with emulator_of(start=FIRST, days=2, export_max_days=31) as emulator:
        workspace = workspace_with(api_base_url=emulator.base_url)
        workspace.sync_events(FIRST - timedelta(days=100), FIRST)
        assert len(statuses(workspace)) == 101
        looks = [one for one in emulator.requests if one.status == 400]
        assert len(looks) == 1


def test_a_broken_second_response_is_requested_again(workspace, emulator):
    """The days are loaded like any others then: whole, in halves, or set aside with a reason."""
    cut_after_the_first_day(emulator)
    emulator.faults.add(Fault("truncate-own-line", path=EXPORT, day=THIRD, times=2))
    workspace.sync_events(FIRST, THIRD)
    assert counts(workspace) == true_counts(emulator, FIRST, THIRD)


def test_a_day_that_stays_broken_in_every_further_response_is_set_aside(workspace, emulator):
    """It is not called empty because its first response was."""
    cut_after_the_first_day(emulator)
    emulator.faults.add(Fault("truncate-own-line", path=EXPORT, day=THIRD, times=None))
    with pytest.raises(IncompleteExportError, match=r"1 of 3 days stayed incomplete.*2024-01-03"):
        workspace.sync_events(FIRST, THIRD)
    assert statuses(workspace) == {FIRST: "complete", SECOND: "complete", THIRD: "failed"}


def test_events_without_a_time_leave_no_day_unlooked_at(workspace, emulator, asked):
    """They have no day, so each day that may have them is loaded again."""
    emulator.faults.add(Fault("timeless-rows", day=SECOND, count=1))
    emulator.faults.add(Fault("empty-200", path=EXPORT))
    workspace.sync_events(FIRST, THIRD)
    assert counts(workspace) == true_counts(emulator, FIRST, THIRD)
    assert workspace.sql_rows("SELECT count(*) FROM mixpanel._quarantine") == [(1,)]


@pytest.mark.slow
def test_a_project_that_is_read_day_by_day_confirms_neighbours_together(workspace_with):
    """Rows of other dates prove nothing about a day, so any row makes the neighbours doubtful."""
    zone = "US/Pacific"
    with emulator_of(
        start=FIRST, days=3, regime="legacy", zone=zone, shifted_rows=4, events_per_day=40
    ) as emulator:
        workspace = workspace_with(
            api_base_url=emulator.base_url, time_regime="legacy", time_zone=zone
        )
        workspace.sync_events(FIRST, THIRD)
        before = len(emulator.requests)
        emulator.faults.add(Fault("empty-200", path=EXPORT, day=date(2023, 12, 31)))
        workspace.sync_events(FIRST - timedelta(days=3), FIRST - timedelta(days=1))
        assert spans(emulator.requests[before:])[-1] == (date(2023, 12, 29), date(2023, 12, 31))
        assert len(spans(emulator.requests[before:])) == 4


def test_a_look_stops_reading_when_more_comes_than_a_request_may_weigh():
    """The days are loaded again then, in requests of the usual size."""
    days = [FIRST, SECOND, date(2024, 1, 10)]
    asked = []

    def find(first, last, most_bytes):
        asked.append((first, last, most_bytes))

    looks = SecondLooks(find, weigh=lambda day: 30_000_000)
    assert [answer.doubtful for answer in looks.confirm(days)] == [days[:2], days[2:]]
    assert asked == [(FIRST, SECOND, 260_000_000), (days[2], days[2], 230_000_000)]


NAMED_WAYS = siblings(
    [
        {},
        {"parallel": True, "chunk_days": 3, "replace": True},
        {"parallel": True, "chunk_days": 3},
    ],
    keep=2,
)


def named(workspace):
    found = workspace.sql_rows("SELECT event_time::DATE, count(*) FROM named GROUP BY ALL")
    return dict(found)


def ledger_of(workspace, table):
    return dict(
        workspace.sql_rows(
            f"SELECT day, status FROM mixpanel._days WHERE table_name = '{table}' ORDER BY day"
        )
    )


@pytest.mark.parametrize("way", NAMED_WAYS)
@pytest.mark.parametrize("kind", siblings(["empty-200", "missing-days"], keep=1))
def test_a_named_table_believes_no_empty_day_either(kind, way, workspace, emulator, asked):
    """However it is fetched, one wrong response costs requests and no events."""
    if "replace" in way:
        workspace.fetch_events("named", from_date=BEFORE, to_date=BEFORE)
    before = len(asked())
    emulator.faults.add(Fault(kind, path=EXPORT, day=SECOND))
    result = workspace.fetch_events("named", from_date=FIRST, to_date=THIRD, **way)
    true = true_counts(emulator, FIRST, THIRD)
    assert named(workspace) == true
    rows = result.total_rows if "parallel" in way else result.rows
    assert rows == sum(true.values())
    assert ledger_of(workspace, "named") == dict.fromkeys(true, "complete")
    assert len(asked()) - before == 3


@pytest.mark.slow
@pytest.mark.parametrize("way", NAMED_WAYS)
def test_a_named_table_pays_one_request_for_all_its_empty_days(way, workspace, asked):
    """A fortnight of a rare event, in five requests."""
    if "replace" in way:
        workspace.fetch_events("named", from_date=BEFORE, to_date=BEFORE)
    before = len(asked())
    days = {"from_date": FIRST, "to_date": date(2024, 1, 14)}
    workspace.fetch_events("named", **days, events=["Nothing Like It"], **{"chunk_days": 3, **way})
    assert len(asked()) - before == 6
    assert list(ledger_of(workspace, "named").values()) == ["empty"] * 14
    assert named(workspace) == {}


def test_a_named_table_is_not_made_before_its_empty_days_are_confirmed(workspace, emulator):
    """Everything or nothing: the refused second request leaves no table."""
    cut_after_the_first_day(emulator)
    emulator.faults.add(Fault("401-json", path=EXPORT, times=None))
    with pytest.raises(AuthenticationError):
        workspace.fetch_events("named", from_date=FIRST, to_date=THIRD)
    assert workspace.sql_rows("FROM duckdb_tables() WHERE table_name = 'named'") == []


def test_days_that_fail_when_they_are_fetched_again_are_named(workspace, emulator):
    """In parallel, the result lists them, and the others are stored."""
    emulator.faults.add(Fault("empty-200", path=EXPORT))
    emulator.faults.add(Fault("truncate-own-line", path=EXPORT, day=SECOND, times=None))
    result = workspace.fetch_events(
        "named", from_date=FIRST, to_date=THIRD, parallel=True, chunk_days=3
    )
    assert result.failed_date_ranges == (("2024-01-02", "2024-01-02"),)
    assert (result.successful_batches, result.failed_batches) == (0, 1)
    assert sorted(named(workspace)) == [FIRST, THIRD]


def test_rows_of_a_named_table_do_not_become_an_empty_day(workspace, emulator):
    """A day with rows that is appended again without any is still no empty day."""
    workspace.fetch_events("named", from_date=FIRST, to_date=FIRST)
    before = named(workspace)
    emulator.faults.add(Fault("empty-200", path=EXPORT, times=None))
    workspace.fetch_events("named", from_date=FIRST, to_date=FIRST, append=True)
    assert named(workspace) == before
    assert ledger_of(workspace, "named") == {FIRST: "complete"}


STREAMS = [{"raw": True}, {"raw": True, "staged": True}, {}, {"staged": True}]


def streamed(workspace, first, last, **how):
    with workspace.stream_events(from_date=first, to_date=last, **how) as events:
        return Counter(event.get("event") or event["event_name"] for event in events)


@pytest.mark.parametrize("how", STREAMS)
def test_a_stream_repeats_requests_that_brought_nothing(how, workspace, emulator, asked):
    """One of three responses is empty: its events come last, at the cost of two requests."""
    expected = streamed(workspace, FIRST, date(2024, 1, 9), **how)
    assert len(asked()) == 3
    emulator.faults.add(Fault("empty-200", path=EXPORT, skip=1))
    assert streamed(workspace, FIRST, date(2024, 1, 9), **how) == expected
    middle = (date(2024, 1, 4), date(2024, 1, 6))
    assert asked()[6:] == [middle, middle]


def test_a_stream_pays_one_request_for_all_that_brought_nothing(workspace, asked):
    """The fortnight before the project in one more, a rare event of a fortnight in one more."""
    assert not streamed(workspace, FIRST - timedelta(days=15), FIRST - timedelta(days=1))
    assert len(asked()) == 6
    last = date(2024, 1, 14)
    with workspace.stream_events(from_date=FIRST, to_date=last, events=["Nothing Like It"]) as few:
        assert list(few) == []
    assert len(asked()) == 6 + 6


def test_a_stream_of_today_is_requested_once(workspace, asked):
    """Its events are still to come."""
    today = datetime.now(UTC).date()
    assert not streamed(workspace, today, today)
    assert asked() == [(today, today)]


def test_a_stream_that_reached_its_limit_requests_nothing_more(workspace, emulator, asked):
    """Empty days before it are of no interest then."""
    with workspace.stream_events(
        from_date=FIRST - timedelta(days=3), to_date=THIRD, limit=5
    ) as few:
        assert len(list(few)) == 5
    assert len(asked()) == 2


def test_a_stream_whose_repeated_request_is_refused_says_so(workspace, emulator):
    """What had been delivered is not called complete."""
    emulator.faults.add(Fault("empty-200", path=EXPORT, day=date(2024, 1, 4)))
    emulator.faults.add(Fault("500-json", path=EXPORT, day=date(2024, 1, 4), times=None))
    with pytest.raises(IncompleteExportError, match="records had been delivered"):
        streamed(workspace, FIRST, date(2024, 1, 6))
