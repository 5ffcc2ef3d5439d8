"""FetcherService: create, append, replace, in parallel or not; never doubled, never lost."""

import resource
import threading
import time
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta

import pytest

from mixpanel_assets.client import MixpanelAPIClient, RetryPolicy, make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import (
    AuthenticationError,
    ConfigError,
    IncompleteExportError,
    StorageError,
    TableExistsError,
)
from mixpanel_assets.loading.fetcher import FetcherService
from mixpanel_assets.loading.results import FetchResult, ParallelFetchResult
from mixpanel_assets.warehouse import Database
from mixpanel_assets_tests.conftest import PLENTY
from mixpanel_assets_tests.laws import siblings

FIRST, LAST = date(2024, 1, 1), date(2024, 1, 6)
DAY = date(2024, 1, 3)
ALL = {"from_date": FIRST, "to_date": LAST}
FORTNIGHT = {"from_date": FIRST, "to_date": date(2024, 1, 14)}
EXPORT = "/api/2.0/export"
IN_THREE = {"parallel": True, "chunk_days": 2}


@pytest.fixture(scope="module")
def shared_emulator():
    """Two weeks of a shop half as large as the usual one."""
    with Emulator(EmulatorSettings(start=FIRST, days=14, events_per_day=200)) as emulator:
        yield emulator


@pytest.fixture
def client(emulator, credentials):
    with MixpanelAPIClient(
        credentials,
        api_base_url=emulator.base_url,
        retries=RetryPolicy(max_retries=0, first_wait_seconds=0.001),
        budget=PLENTY,
    ) as client:
        yield client


@pytest.fixture
def database(settings):
    return settings.database_for("12345")


@pytest.fixture
def fetcher(client, database, settings):
    return FetcherService(client, database, settings)


@pytest.fixture
def query(database):
    def rows(sql, *values):
        with database.read() as connection:
            return connection.execute(sql, values).fetchall()

    return rows


@pytest.fixture
def table(query):
    """Return the rows of a named table, and hold the ledger to them."""

    def rows(name):
        found = query(f"SELECT * FROM main.{name} ORDER BY ALL")
        counted = query("SELECT row_count FROM main._metadata WHERE table_name = ?", name)
        assert counted == [(len(found),)]
        return found

    return rows


@contextmanager
def pretending(**options):
    """Yield an emulator and a client of it."""
    with Emulator(EmulatorSettings(**options)) as emulator:
        credentials = make_credentials(
            username=emulator.username, secret=emulator.secret, project_id="12345"
        )
        with MixpanelAPIClient(
            credentials,
            api_base_url=emulator.base_url,
            retries=RetryPolicy(first_wait_seconds=0.001),
            budget=PLENTY,
        ) as client:
            yield emulator, client


@pytest.fixture
def large():
    """Eight days of six thousand events."""
    with pretending(days=8, exact_events=6_000) as both:
        yield both


def exports(emulator, since=0):
    return [entry.days for entry in emulator.requests[since:] if entry.path == EXPORT]


def leftovers(settings):
    spool = settings.spool_path("12345")
    return list(spool.iterdir()) if spool.exists() else []


def stored(emulator, first, last):
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return sum(emulator.truth.count(day) - len(emulator.truth.unstorable(day)) for day in days)


def days_of(rows):
    return {row[1].date() for row in rows}


@pytest.mark.parametrize("parallel", [False, True])
def test_a_table_holds_what_mixpanel_holds(parallel, fetcher, emulator, table, settings):
    """Both ways make the same table, and leave nothing on the disk."""
    result = fetcher.fetch_events("mine", **ALL, parallel=parallel, chunk_days=3)
    rows = result.total_rows if parallel else result.rows
    assert isinstance(result, ParallelFetchResult if parallel else FetchResult)
    assert rows == stored(emulator, FIRST, LAST) == len(table("mine"))
    fetcher.fetch_events("other", **ALL)
    assert table("mine") == table("other")
    assert leftovers(settings) == []


def test_appending_equals_one_fetch(fetcher, table):
    """Days and filters in any order, some of them again, in parallel or not."""
    fetcher.fetch_events("whole", **ALL)
    sign_ups = {"events": ["Sign Up"]}
    fetcher.fetch_events("mine", from_date="2024-01-02", to_date="2024-01-04", append=True)
    fetcher.fetch_events("mine", **ALL, **sign_ups, append=True, parallel=True, chunk_days=4)
    part = table("mine")
    fetcher.fetch_events("mine", **ALL, **sign_ups, append=True)
    assert table("mine") == part
    fetcher.fetch_events("mine", **ALL, append=True, **IN_THREE)
    assert table("mine") == table("whole")


def test_the_ledger_tells_days_and_filters_apart(fetcher, query):
    """An append over a gap is no continuous coverage, and equal filters are one entry."""
    week = {"from_date": FIRST, "to_date": FIRST}
    fetcher.fetch_events("mine", **week, events=["Sign Up", "Page View"])
    fetcher.fetch_events("mine", **week, events=["Page View", "Sign Up"], append=True)
    fetcher.fetch_events("mine", from_date=LAST, to_date=LAST, append=True)
    found = query("SELECT day, filters, status FROM mixpanel._days ORDER BY ALL")
    assert found == [
        (FIRST, '{"events": ["Page View", "Sign Up"]}', "complete"),
        (LAST, None, "complete"),
    ]


@pytest.mark.parametrize("parallel", siblings([False, True], keep=1))
def test_days_without_events_make_an_empty_table(parallel, fetcher, query):
    """An empty answer is an answer."""
    days = {"from_date": "2023-01-01", "to_date": "2023-01-20"}
    fetcher.fetch_events("none", **days, parallel=parallel)
    assert query("SELECT count(*) FROM main.none") == [(0,)]
    assert query("SELECT DISTINCT status FROM mixpanel._days") == [("empty",)]


@pytest.mark.parametrize("parallel", siblings([False, True], keep=1))
def test_a_table_is_not_overwritten_unasked(parallel, fetcher, emulator):
    """The error is raised before any request is sent."""
    fetcher.fetch_events("mine", from_date=DAY, to_date=DAY)
    before = len(emulator.requests)
    with pytest.raises(TableExistsError):
        fetcher.fetch_events("mine", from_date=DAY, to_date=DAY, parallel=parallel)
    assert exports(emulator, before) == []


def test_a_table_of_something_else_takes_no_events(fetcher, database, emulator):
    """The error is raised before any request is sent."""
    with database.write() as connection:
        connection.execute("CREATE TABLE main.mine AS SELECT 1 AS n")
    before = len(emulator.requests)
    with pytest.raises(ConfigError, match="other columns"):
        fetcher.fetch_events("mine", from_date=DAY, to_date=DAY, append=True)
    assert exports(emulator, before) == []


@pytest.mark.parametrize("mode", siblings([{}, {"append": True}, {"replace": True}], keep=1))
def test_another_projects_file_is_refused_before_anything_is_asked(
    mode, client, database, settings, emulator
):
    """A file of another project is refused before any day is downloaded."""
    legacy = settings.model_copy(update={"time_regime": "legacy", "time_zone": "US/Pacific"})
    FetcherService(client, database, settings).fetch_events("mine", from_date=DAY, to_date=DAY)
    before = len(emulator.requests)
    with pytest.raises(ConfigError):
        FetcherService(client, database, legacy).fetch_events("other", **ALL, **mode)
    assert exports(emulator, before) == []


class TestBrokenDays:
    def test_sequentially_nothing_changes(self, fetcher, emulator, table, settings, query):
        """An append that is not whole leaves rows and ledger alone."""
        fetcher.fetch_events("mine", from_date=FIRST, to_date=DAY)
        before = table("mine"), query("FROM mixpanel._days ORDER BY ALL")
        emulator.faults.add(Fault("truncate-whole-body", day=LAST, times=None))
        with pytest.raises(IncompleteExportError, match="2024-01-06"):
            fetcher.fetch_events("mine", **ALL, append=True)
        assert (table("mine"), query("FROM mixpanel._days ORDER BY ALL")) == before
        assert leftovers(settings) == []

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("kind", "missing"),
        siblings(
            [
                ("500-json", ("2024-01-03", "2024-01-04")),
                ("foreign-rows", ("2024-01-03", "2024-01-03")),
                ("truncate-whole-body", ("2024-01-03", "2024-01-03")),
            ],
            keep=1,
        ),
    )
    def test_in_parallel_the_others_are_stored(
        self, kind, missing, fetcher, emulator, table, settings
    ):
        """Days that never come whole are named; fetched later, they complete the table."""
        fetcher.fetch_events("whole", **ALL)
        emulator.faults.add(Fault(kind, path=EXPORT, day=DAY, times=None))
        told = []
        result = fetcher.fetch_events("mine", **ALL, **IN_THREE, on_batch_complete=told.append)
        assert result.failed_date_ranges == (missing,)
        assert (result.successful_batches, result.failed_batches) == (2, 1)
        assert result.has_failures
        assert list(result.to_dict())[-3:] == ["has_failures", "duration_seconds", "fetched_at"]
        assert result.to_dict()["failed_date_ranges"] == [list(missing)]
        assert [(p.batch_index, p.total_batches, p.success) for p in told] == [
            (0, 3, True),
            (1, 3, False),
            (2, 3, True),
        ]
        assert told[1].error
        assert result.total_rows == len(table("mine"))
        assert DAY not in days_of(table("mine"))
        emulator.faults.clear()
        first, last = missing
        fetcher.fetch_events("mine", from_date=first, to_date=last, append=True)
        assert table("mine") == table("whole")
        assert leftovers(settings) == []

    def test_a_fault_that_passes_is_not_seen(self, fetcher, emulator, table):
        """A day that breaks a request comes with one of its halves."""
        emulator.faults.add(Fault("cut-body", day=DAY))
        result = fetcher.fetch_events("mine", **ALL, **IN_THREE)
        assert not result.has_failures
        assert len(table("mine")) == stored(emulator, FIRST, LAST)

    def test_a_replaced_table_loses_nothing_to_broken_days(self, fetcher, emulator, table):
        """What came is added to the old table, which keeps all of its rows."""
        fetcher.fetch_events("mine", from_date=FIRST, to_date=DAY)
        fetcher.fetch_events("whole", **ALL)
        emulator.faults.add(Fault("truncate-whole-body", day=DAY, times=None))
        result = fetcher.fetch_events("mine", **ALL, replace=True, **IN_THREE)
        assert result.failed_date_ranges == (("2024-01-03", "2024-01-03"),)
        assert table("mine") == table("whole")

    @pytest.mark.parametrize("unstorable", [False, True])
    def test_a_replaced_table_is_only_the_new_one(self, unstorable, fetcher, emulator, table):
        """Unless a day turns out to be unstorable when everything is there."""
        fetcher.fetch_events("mine", from_date=FIRST, to_date=FIRST)
        if unstorable:
            emulator.faults.add(Fault("foreign-rows", path=EXPORT, day=DAY, times=None))
        days = {"from_date": DAY, "to_date": LAST}
        result = fetcher.fetch_events("mine", **days, replace=True, parallel=True, chunk_days=1)
        assert result.has_failures == unstorable
        expected = {DAY + timedelta(days=number) for number in range(4)}
        if unstorable:
            expected = expected - {DAY} | {FIRST}
            assert result.failed_date_ranges == (("2024-01-03", "2024-01-03"),)
            assert result.failed_batches == 1
        assert days_of(table("mine")) == expected

    @pytest.mark.parametrize("parallel", siblings([False, True], keep=1))
    def test_refused_credentials_end_it(self, parallel, fetcher, emulator, settings):
        """The load ends with at most three of its six requests."""
        emulator.faults.add(Fault("401-json", path=EXPORT, times=None))
        before = len(emulator.requests)
        with pytest.raises(AuthenticationError):
            fetcher.fetch_events("mine", **ALL, parallel=parallel, chunk_days=1, max_workers=2)
        assert len(exports(emulator, before)) <= 3
        assert leftovers(settings) == []


@pytest.mark.parametrize(
    ("parallel", "mode"),
    siblings([(True, "append"), (False, "replace"), (True, "replace"), (False, "append")], keep=1),
)
def test_an_interrupt_leaves_the_old_rows(parallel, mode, fetcher, emulator, table, settings):
    """Ctrl-C in the middle: the old table is there, whole, and no answer is left behind."""
    fetcher.fetch_events("mine", from_date=FIRST, to_date=DAY)
    before = table("mine")

    def interrupt(progress):
        if progress.batch_index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetcher.fetch_events(
            "mine",
            **ALL,
            **{mode: True},
            parallel=parallel,
            chunk_days=2,
            on_batch_complete=interrupt,
        )
    after = table("mine")
    assert set(before) <= set(after)
    assert (parallel and mode == "append") or before == after
    assert leftovers(settings) == []
    fetcher.fetch_events("whole", **ALL)
    fetcher.fetch_events("mine", **ALL, append=True)
    assert table("mine") == table("whole")


class TestRequests:
    def test_chunk_days_cap_a_request(self, fetcher, emulator):
        """No request has more days than `chunk_days`."""
        before = len(emulator.requests)
        fetcher.fetch_events("mine", **FORTNIGHT, events=["Sign Up"], chunk_days=4)
        assert [len(days) for days in exports(emulator, before)] == [4, 4, 4, 2]
        before = len(emulator.requests)
        fetcher.fetch_events("seven", **FORTNIGHT, events=["Sign Up"], chunk_days=None)
        assert [len(days) for days in exports(emulator, before)] == [7, 7]

    @pytest.mark.slow
    def test_fewer_days_share_one_if_they_are_known_to_weigh_much(
        self, fetcher, database, emulator
    ):
        """What `events` holds of them says how much; not for a part of their events."""
        fetcher.fetch_events(from_date=FIRST, to_date=LAST)
        with database.write() as connection:
            connection.execute("UPDATE mixpanel._days SET bytes = 20_000_000")
        before = len(emulator.requests)
        fetcher.fetch_events("mine", **ALL)
        assert [len(days) for days in exports(emulator, before)] == [1] * 6
        before = len(emulator.requests)
        fetcher.fetch_events("part", **FORTNIGHT, events=["Sign Up"])
        assert [len(days) for days in exports(emulator, before)] == [7, 7]

    def test_no_more_than_max_workers_run_or_lie_on_disk(self, fetcher, settings):
        """A slow database does not fill the disk."""
        most = 0

        def lying():
            return len([one for one in leftovers(settings) if one.suffix == ".gz"])

        def look(progress):
            nonlocal most
            latest = time.monotonic() + 300
            while not most and not lying() and time.monotonic() < latest:
                time.sleep(0.01)
            threading.Event().wait(0.05)
            most = max(most, lying())

        fetcher.fetch_events(
            "mine", **ALL, parallel=True, chunk_days=1, max_workers=3, on_batch_complete=look
        )
        assert 1 <= most <= 3

    @pytest.mark.slow
    def test_several_are_on_their_way_at_once(self, fetcher, emulator):
        """While the first response is stored, the others are requested."""
        before = len(emulator.requests)
        asked = []

        def look(progress):
            latest = time.monotonic() + 300
            while len(exports(emulator, before)) < 5 and time.monotonic() < latest:
                time.sleep(0.01)
            asked.append(len(exports(emulator, before)))

        result = fetcher.fetch_events(
            "mine", **ALL, parallel=True, chunk_days=1, on_batch_complete=look
        )
        assert result.successful_batches == 6
        assert asked[0] >= 5

    def test_a_full_disk_is_told_before_a_request(self, fetcher, database, emulator):
        """No request is sent for days that have no room."""
        fetcher.fetch_events(from_date=FIRST, to_date=FIRST)
        with database.write() as connection:
            connection.execute("UPDATE mixpanel._days SET bytes = 10**17")
        before = len(emulator.requests)
        for parallel in (False, True):
            with pytest.raises(StorageError, match="No request was sent"):
                fetcher.fetch_events("mine", **ALL, parallel=parallel)
        assert exports(emulator, before) == []

    @pytest.mark.slow
    def test_memory_does_not_grow_with_the_answers(self, large, settings, tmp_path):
        """Answers wait on the disk: four times the events take hardly more memory."""
        _, client = large
        database = Database(tmp_path / "w.duckdb", memory_limit="200MB")
        fetcher = FetcherService(client, database, settings)
        options = {"parallel": True, "chunk_days": 1, "max_workers": 2}
        fetcher.fetch_events("few", from_date=FIRST, to_date="2024-01-02", **options)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        fetcher.fetch_events("more", from_date=FIRST, to_date="2024-01-08", **options)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000


class TestLimit:
    @pytest.mark.parametrize("chunk_days", siblings([1, 6], keep=1))
    def test_no_more_events_come_than_that(self, chunk_days, fetcher, query, table):
        """And the days that it cut are called partial."""
        result = fetcher.fetch_events("mine", **ALL, limit=400, chunk_days=chunk_days)
        assert result.rows == len(table("mine")) <= 400
        statuses = dict(
            query("SELECT filters, list(DISTINCT status) FROM mixpanel._days GROUP BY ALL")
        )
        assert statuses.pop('{"limit": 400}') == ["partial"]
        assert all(found == ["complete"] for found in statuses.values())
        fetcher.fetch_events("whole", **ALL)
        fetcher.fetch_events("mine", **ALL, append=True)
        assert table("mine") == table("whole")

    def test_a_limit_that_cuts_nothing_leaves_no_trace(self, fetcher, query):
        """The table is complete and is not marked as limited."""
        fetcher.fetch_events("mine", from_date=DAY, to_date=DAY, limit=100_000)
        assert query("SELECT status, filters FROM mixpanel._days") == [("complete", None)]


class TestProgress:
    @pytest.mark.slow
    def test_events_are_told_of_as_they_arrive(self, large, tmp_path, settings):
        """The reports come every `batch_size` or so, and their sum is exact, also after a retry."""
        emulator, client = large
        emulator.faults.add(Fault("cut-body", path=EXPORT, at=2_000_000))
        fetcher = FetcherService(client, Database(tmp_path / "w.duckdb"), settings)
        calls = {}
        for size in (100, 5_000):
            told = calls[size] = []
            fetcher.fetch_events(
                f"by_{size}",
                from_date=FIRST,
                to_date=date(2024, 1, 2),
                batch_size=size,
                on_batch_complete=told.append,
            )
        sent = [sum(1 for _ in emulator.truth.lines(FIRST + timedelta(days=n))) for n in (0, 1)]
        assert sum(p.rows for p in calls[100]) == sum(p.rows for p in calls[5_000]) == sum(sent)
        assert len(calls[100]) > len(calls[5_000]) > 1
        assert {p.total_batches for p in calls[100]} == {1}
        assert list(calls[100][0].to_dict())[:3] == ["from_date", "to_date", "batch_index"]


class TestAssetTable:
    def test_the_default_name_is_filled_as_the_asset_does(self, fetcher, emulator, query):
        """The empty table is filled; with `append` the days are loaded again without duplicates."""
        told = []
        days = {"from_date": FIRST, "to_date": DAY}
        result = fetcher.fetch_events(**days, on_batch_complete=told.append)
        assert result.rows == stored(emulator, FIRST, DAY)
        assert [(p.from_date, p.batch_index, p.total_batches) for p in told] == [
            ("2024-01-01", 0, 3),
            ("2024-01-02", 1, 3),
            ("2024-01-03", 2, 3),
        ]
        with pytest.raises(TableExistsError, match="or `mp sync`"):
            fetcher.fetch_events(**days)
        rows = query("FROM mixpanel.events ORDER BY ALL")
        again = fetcher.fetch_events(**days, append=True, parallel=True, chunk_days=1)
        assert (again.total_rows, again.successful_batches) == (result.rows, 3)
        assert query("FROM mixpanel.events ORDER BY ALL") == rows

    @pytest.mark.slow
    def test_in_parallel_broken_days_are_named(self, fetcher, emulator, query):
        """The result names the broken day, and the others are stored."""
        emulator.faults.add(Fault("truncate-whole-body", day=DAY, times=None))
        result = fetcher.fetch_events(**ALL, parallel=True, chunk_days=3, max_workers=4)
        assert result.failed_date_ranges == (("2024-01-03", "2024-01-03"),)
        assert (result.successful_batches, result.failed_batches) == (5, 1)
        expected = stored(emulator, FIRST, LAST) - stored(emulator, DAY, DAY)
        assert query("SELECT count(*) FROM mixpanel.events") == [(expected,)]

    @pytest.mark.slow
    def test_chunk_days_cap_its_requests_too(self, fetcher, emulator):
        """No request holds more days."""
        before = len(emulator.requests)
        fetcher.fetch_events(**ALL, chunk_days=2)
        assert max(len(days) for days in exports(emulator, before)) == 2

    @pytest.mark.parametrize("part", [{"events": ["A"]}, {"where": "true"}, {"limit": 5}])
    def test_it_takes_whole_days_only(self, part, fetcher):
        """A load of a part of the events needs another table name."""
        with pytest.raises(ConfigError, match="another name"):
            fetcher.fetch_events(**ALL, **part)

    def test_it_is_never_replaced(self, fetcher):
        """Its rows are kept."""
        fetcher.fetch_events(from_date=DAY, to_date=DAY)
        with pytest.raises(ConfigError, match="sync"):
            fetcher.fetch_events(from_date=DAY, to_date=DAY, replace=True)


class TestLegacy:
    @pytest.fixture
    def legacy(self, settings):
        old = settings.model_copy(update={"time_regime": "legacy", "time_zone": "US/Pacific"})
        with ExitStack() as opened:

            def fetcher(**options):
                _, client = opened.enter_context(
                    pretending(regime="legacy", zone="US/Pacific", days=4, **options)
                )
                return FetcherService(client, settings.database_for("12345"), old)

            yield fetcher

    @pytest.mark.slow
    def test_days_can_be_appended_again(self, legacy, table):
        """Where every row has the date of its day."""
        fetcher = legacy()
        fetcher.fetch_events("whole", from_date=FIRST, to_date="2024-01-04")
        fetcher.fetch_events("mine", from_date="2024-01-02", to_date="2024-01-03")
        fetcher.fetch_events("mine", from_date=FIRST, to_date="2024-01-04", append=True)
        assert table("mine") == table("whole")

    def test_what_cannot_be_told_is_loud(self, legacy, table):
        """Rows of other dates: new days are appended, stored ones are not guessed at."""
        fetcher = legacy(shifted_rows=5)
        fetcher.fetch_events("mine", from_date=FIRST, to_date="2024-01-02")
        before = table("mine")
        with pytest.raises(ConfigError, match="whole table again"):
            fetcher.fetch_events("mine", from_date=FIRST, to_date="2024-01-03", append=True)
        assert table("mine") == before
        fetcher.fetch_events("mine", from_date="2024-01-03", to_date="2024-01-04", append=True)
        fetcher.fetch_events("whole", from_date=FIRST, to_date="2024-01-04")
        assert table("mine") == table("whole")


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 99},
        {"batch_size": 100_001},
        {"limit": 0},
        {"limit": 100_001},
        {"limit": 5, "parallel": True},
        {"chunk_days": 0},
        {"chunk_days": 101},
        {"max_workers": 0},
        {"append": True, "replace": True},
        {"events": []},
        {"events": "Sign Up"},
        {"where": " "},
        {"name": "_mine"},
        {"from_date": "2024-02-01"},
        {"from_date": "today"},
    ],
)
def test_arguments_are_checked_before_anything_is_asked(wrong, fetcher, emulator):
    """The message names what is wrong; no database is made."""
    before = len(emulator.requests)
    with pytest.raises(ConfigError):
        fetcher.fetch_events(**{"name": "mine", **ALL, **wrong})
    assert exports(emulator, before) == []


@pytest.mark.parametrize("parallel", siblings([False, True], keep=1))
def test_a_long_range_is_packed(parallel, fetcher, emulator, query):
    """There is no most of days."""
    days = {"from_date": "2023-10-01", "to_date": "2024-01-09"}
    fetcher.fetch_events("mine", **days, parallel=parallel, chunk_days=100)
    [(rows,)] = query("SELECT count(*) FROM mine")
    assert rows == stored(emulator, FIRST, date(2024, 1, 9))


def test_more_workers_than_mixpanel_allows_are_capped_with_a_warning(fetcher, caplog):
    """A hundred exports run at once, no more."""
    fetcher.fetch_events("mine", from_date=DAY, to_date=DAY, parallel=True, max_workers=500)
    assert "capped at 100" in caplog.text


def test_profiles_and_streams_go_the_same_ways(fetcher, emulator, query):
    """The service is the one place to fetch from."""
    result = fetcher.fetch_profiles("people")
    assert result.rows == len(emulator.truth.profiles())
    assert fetcher.fetch_profiles("people", append=True, parallel=True).has_failures is False
    with fetcher.stream_profiles() as profiles:
        assert sum(1 for _ in profiles) == result.rows
    with fetcher.stream_events(from_date=DAY, to_date=DAY) as events:
        first = next(events)
    assert set(first) == {"event_name", "event_time", "distinct_id", "insert_id", "properties"}
