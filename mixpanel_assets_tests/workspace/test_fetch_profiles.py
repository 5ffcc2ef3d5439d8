"""`Workspace.fetch_profiles`: profiles into a table of one's own, page by page in parallel."""

import json
import logging
import threading

import pytest

from mixpanel_assets import (
    FetchResult,
    ParallelProfileFetcherService,
    ParallelProfileResult,
    ProfileProgress,
    Workspace,
)
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import ConfigError, IncompleteExportError, TableExistsError
from mixpanel_assets.loading.profiles import begin_snapshot, snapshot_requests
from mixpanel_assets.warehouse import Database
from mixpanel_assets_tests.laws import siblings

ENGAGE = "/api/query/engage"


@pytest.fixture
def emulator():
    with Emulator(EmulatorSettings(days=3, profiles=95, page_size=10)) as emulator:
        yield emulator


@pytest.fixture
def ws(settings, emulator):
    credentials = make_credentials(
        username=emulator.username, secret=emulator.secret, project_id=str(emulator.project_id)
    )
    changes = {"max_retries": 0, "api_base_url": emulator.base_url}
    with Workspace(
        credentials=credentials, settings=settings.model_copy(update=changes)
    ) as workspace:
        yield workspace


def names(emulator):
    return sorted(profile["$distinct_id"] for profile in emulator.truth.profiles())


def stored_names(ws, table):
    rows = ws.sql_rows(f"SELECT distinct_id FROM {table} ORDER BY ALL")
    return sorted(name for (name,) in rows)


def test_parallel_and_one_page_at_a_time_store_the_same(ws, emulator):
    """Result types differ, rows do not."""
    parallel = ws.fetch_profiles("fast", parallel=True, progress=False)
    single = ws.fetch_profiles("slow", progress=False)
    assert isinstance(parallel, ParallelProfileResult)
    assert isinstance(single, FetchResult)
    assert parallel.total_rows == single.rows == len(names(emulator))
    query = "SELECT * FROM {} ORDER BY ALL"
    assert ws.sql_rows(query.format("fast")) == ws.sql_rows(query.format("slow"))
    assert stored_names(ws, "fast") == names(emulator)


def test_the_table_has_the_documented_columns(ws):
    """It has no other column."""
    ws.fetch_profiles("people", progress=False)
    described = [name for name, *_ in ws.sql_rows("DESCRIBE people")]
    assert described == ["distinct_id", "properties", "last_seen"]


def test_each_page_is_told_once_it_is_settled(ws, emulator):
    """Page 0 first; rows add up; a lost page says why."""
    emulator.faults.add(Fault("500-json", path=ENGAGE, page=4, times=None))
    told: list[ProfileProgress] = []
    result = ws.fetch_profiles("people", parallel=True, on_page_complete=told.append)
    assert told[0].page_index == 0
    assert sorted(page.page_index for page in told) == list(range(10))
    assert {page.total_pages for page in told} == {10}
    assert max(page.cumulative_rows for page in told) == result.total_rows
    [lost] = [page for page in told if not page.success]
    assert (lost.page_index, lost.rows) == (4, 0)
    assert "500" in lost.error


def test_lost_pages_are_counted_and_named(ws, emulator):
    """Eight of ten pages are stored, and the result says which two are not."""
    for page in (2, 8):
        emulator.faults.add(Fault("500-json", path=ENGAGE, page=page, times=None))
    result = ws.fetch_profiles("people", parallel=True, progress=False)
    assert result.has_failures
    assert (result.successful_pages, result.failed_pages) == (8, 2)
    assert result.failed_page_indices == (2, 8)
    assert result.expected_total == len(names(emulator))
    assert result.missing_rows == result.expected_total - result.total_rows == 20
    assert len(stored_names(ws, "people")) == result.total_rows


def test_a_snapshot_that_is_not_whole_replaces_no_table(ws, emulator):
    """It is merged in; the next one is whole and takes the table's place."""
    ws.fetch_profiles("people", progress=False)
    with ws._database.write() as connection:
        connection.execute("INSERT INTO people VALUES ('gone', '{}', NULL)")
    emulator.faults.add(Fault("500-json", path=ENGAGE, page=2, times=None))
    partial = ws.fetch_profiles("people", parallel=True, replace=True, progress=False)
    assert partial.has_failures
    assert stored_names(ws, "people") == sorted([*names(emulator), "gone"])
    emulator.faults.clear()
    assert not ws.fetch_profiles("people", parallel=True, replace=True).has_failures
    assert stored_names(ws, "people") == names(emulator)


@pytest.mark.parametrize("how", siblings(["replace", None, "append"], keep=2))
def test_the_next_fetch_completes_a_partial_table(how, ws, emulator):
    """The next fetch requests only the lost pages."""
    emulator.faults.add(Fault("500-json", path=ENGAGE, page=2, times=None))
    assert ws.fetch_profiles("people", parallel=True, progress=False).has_failures
    emulator.faults.clear()
    asked = len(emulator.requests)
    again = ws.fetch_profiles(
        "people", parallel=True, progress=False, **({how: True} if how else {})
    )
    assert len(emulator.requests) - asked == 1
    assert again.total_rows == len(names(emulator))
    assert stored_names(ws, "people") == names(emulator)
    with pytest.raises(TableExistsError):
        ws.fetch_profiles("people", parallel=True, progress=False)


def test_another_question_does_not_complete_a_partial_table(ws, emulator):
    """Nor does one after the table was appended to: something else is in it."""
    emulator.faults.add(Fault("500-json", path=ENGAGE, page=2, times=None))
    ws.fetch_profiles("people", parallel=True, progress=False)
    with pytest.raises(TableExistsError):
        ws.fetch_profiles("people", distinct_ids=names(emulator)[:3], progress=False)
    with pytest.raises(TableExistsError):
        ws.fetch_events("people", from_date="2024-01-01", to_date="2024-01-01", progress=False)


def test_without_parallel_lost_pages_raise(ws, emulator):
    """There is no room for them in a `FetchResult`; what came is stored all the same."""
    emulator.faults.add(Fault("500-json", path=ENGAGE, page=2, times=None))
    with pytest.raises(IncompleteExportError, match="could not be fetched: 2") as raised:
        ws.fetch_profiles("people", progress=False)
    assert raised.value.partial
    assert len(stored_names(ws, "people")) == len(names(emulator)) - 10


def test_appended_profiles_take_the_place_of_older_ones(ws, emulator):
    """No profile is stored twice."""
    ws.fetch_profiles("people", progress=False)
    ws.fetch_profiles("people", append=True, progress=False)
    assert stored_names(ws, "people") == names(emulator)
    counted = ws.sql_rows("SELECT row_count FROM _metadata WHERE table_name = 'people'")
    assert counted == [(len(names(emulator)),)]


def test_a_table_that_is_there_costs_no_request(ws, emulator):
    """The error is raised unless the call chooses `replace` or `append`."""
    ws.fetch_profiles("people", progress=False)
    asked = len(emulator.requests)
    with pytest.raises(TableExistsError):
        ws.fetch_profiles("people", progress=False)
    assert len(emulator.requests) == asked


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "events"},
        {"name": "no name"},
        {"append": True, "replace": True},
        {"name": "profiles", "where": 'properties["plan"] == "pro"'},
        {"name": "profiles", "replace": True},
        {"parallel": True, "max_workers": 0},
        {"distinct_id": "a", "distinct_ids": ["b"]},
    ],
)
def test_wrong_arguments_cost_no_request(wrong, ws, emulator):
    """The error is raised before any request is sent."""
    with pytest.raises(ConfigError):
        ws.fetch_profiles(**{"name": "people", "progress": False} | wrong)
    assert not emulator.requests


def test_the_assets_table_takes_todays_snapshot(ws, emulator):
    """`profiles` is the table that the asset fills."""
    ws.fetch_profiles(progress=False)
    scope = ws.sql_rows("SELECT scope, status FROM mixpanel._days WHERE table_name = 'profiles'")
    assert scope == [("all", "complete")]
    with pytest.raises(TableExistsError):
        ws.fetch_profiles(progress=False)
    ws.fetch_profiles(append=True, progress=False)
    assert stored_names(ws, "profiles") == names(emulator)


def test_filters_narrow_the_table(ws, emulator):
    """The filters are in the ledger too."""
    some = names(emulator)[:3]
    ws.fetch_profiles("three", distinct_ids=some, progress=False)
    assert stored_names(ws, "three") == some
    [(filters,)] = ws.sql_rows("SELECT filters FROM mixpanel._days WHERE table_name = 'three'")
    assert json.loads(filters) == {"distinct_ids": some}


def test_more_than_five_workers_are_capped_and_said_so(ws, caplog):
    """Mixpanel answers five queries at once."""
    with caplog.at_level(logging.WARNING, logger="mixpanel_assets"):
        ws.fetch_profiles("people", parallel=True, max_workers=50, progress=False)
    assert "max_workers=50 is capped at 5" in caplog.text


@pytest.mark.parametrize(
    ("count_pages", "said"), [(False, "only the first counts"), (True, "each of them counts")]
)
def test_many_pages_are_told_with_what_they_cost(count_pages, said, settings, caplog):
    """From 49 pages on, whether later pages count or not."""
    with Emulator(EmulatorSettings(days=3, profiles=98, page_size=2)) as emulator:
        credentials = make_credentials(
            username=emulator.username, secret=emulator.secret, project_id=str(emulator.project_id)
        )
        changes = {"api_base_url": emulator.base_url, "budget_count_pages": count_pages}
        with (
            Workspace(credentials=credentials, settings=settings.model_copy(update=changes)) as ws,
            caplog.at_level(logging.WARNING, logger="mixpanel_assets"),
        ):
            ws.fetch_profiles("people", parallel=True, progress=False)
    assert "pages: " + said in caplog.text


def test_the_service_is_the_same_fetch(ws, emulator):
    """The service can also be called by its class name."""
    service = ParallelProfileFetcherService(ws.api, ws._database, ws.settings)
    result = service.fetch_profiles("people", max_workers=3)
    assert result.to_dict()["has_failures"] is False
    assert stored_names(ws, "people") == names(emulator)


@pytest.mark.slow
def test_pages_that_wait_for_the_database_are_not_taken_over(settings, emulator):
    """The same request in the meantime starts a snapshot with a folder of its own."""
    held, free, stayed = threading.Event(), threading.Event(), []

    def hold(path):
        with Database(path).write():
            held.set()
            free.wait()

    def ask_the_same(sentence):
        waiting = set(ws.spool_directory.iterdir())
        [request] = snapshot_requests([settings.today()], settings.today(), scope="all")
        begin_snapshot(ws.api, request, ws.spool_directory)
        stayed.append(waiting < set(ws.spool_directory.iterdir()))
        free.set()

    credentials = make_credentials(
        username=emulator.username, secret=emulator.secret, project_id=str(emulator.project_id)
    )
    changed = settings.model_copy(update={"api_base_url": emulator.base_url})
    with Workspace(credentials=credentials, settings=changed, on_wait=ask_the_same) as ws:
        threading.Thread(target=hold, args=[ws.db_path]).start()
        held.wait()
        fetched = ws.fetch_profiles("people", replace=True, progress=False)
    assert stayed == [True]
    assert fetched.rows == len(names(emulator))
