"""The request budget: shared, kept, never overspent, and honest about waiting."""

import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.client import BudgetSettings, MixpanelAPIClient, ProfileQuery, RetryPolicy
from mixpanel_assets.client.budget import Budget
from mixpanel_assets.client.ledger import LedgerFile, SlidingWindow
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault, Limits
from mixpanel_assets.errors import ConfigError, RateLimitError, StorageError
from mixpanel_assets_tests.laws import siblings

NAMES = "/api/query/events/names"
THREE = BudgetSettings(query_per_hour=3, export_per_hour=3, window_seconds=0.6)
# One request is left to go at once, the next would wait for an hour.
ONE_AN_HOUR = BudgetSettings(query_per_hour=1, export_per_hour=1)

ASKING = """
import sys
from concurrent.futures import ThreadPoolExecutor
from mixpanel_assets.client import BudgetSettings, MixpanelAPIClient, RetryPolicy, make_credentials

base_url, username, secret, project_id, requests, threads = sys.argv[1:]
budget = BudgetSettings(
    export_per_hour=100, export_per_second=5, query_per_hour=10, query_at_once=5,
    window_seconds=1.5,
)
with MixpanelAPIClient(
    make_credentials(username=username, secret=secret, project_id=project_id),
    api_base_url=base_url,
    budget=budget,
    retries=RetryPolicy(max_wait_seconds=None),
) as client:
    def ask(number):
        list(client.export_events("2024-01-01", "2024-01-01", limit=1))
        client.get("query", "/events/names")

    with ThreadPoolExecutor(int(threads)) as pool:
        list(pool.map(ask, range(int(requests))))
"""


def take(budget, api="query", **kind):
    """Take a permit, as one request that is answered at once."""
    with budget.permits(api, f"{api} something", **kind).permit():
        pass


def spend(budget, api, times):
    for _ in range(times):
        take(budget, api)


def impatient(settings, project="us-12345"):
    return Budget(settings, project, max_wait_seconds=1)


@contextmanager
def somebody_waiting(budget):
    """A thread waits for its permit until the block ends."""

    def wait():
        with suppress(RateLimitError):
            take(budget)

    thread = threading.Thread(target=wait)
    thread.start()
    queue = budget.permits("query", "something").queue
    while not queue.delay()[0]:
        time.sleep(0.001)
    yield
    budget.cancelled.set()
    thread.join(50)
    assert not thread.is_alive()


@pytest.mark.parametrize("processes", siblings([4, 2], keep=1))
def test_processes_together_never_exceed_the_limits(processes, tmp_path):
    """Against a server that counts strictly, several processes are never refused."""
    limits = Limits(
        export_per_hour=100,
        export_per_second=8,
        query_per_hour=10,
        query_concurrent=5,
        window_seconds=1.0,
    )
    with Emulator(EmulatorSettings(days=3, rate_limits=limits, latency_seconds=0.02)) as emulator:
        account = (emulator.username, emulator.secret, str(emulator.project_id))
        command = [sys.executable, "-c", ASKING, emulator.base_url, *account]
        running = [
            subprocess.Popen([*command, str(16 // processes), "4"]) for _ in range(processes)
        ]
        try:
            assert [process.wait(300) for process in running] == [0] * processes
        finally:
            for process in running:
                process.kill()
    assert Counter(request.status for request in emulator.requests) == {200: 32}


def test_what_was_spent_is_remembered():
    """A new process, here a new budget on the same file, finds nothing left."""
    spend(impatient(ONE_AN_HOUR), "query", 1)
    with pytest.raises(RateLimitError, match="all 1 query requests"):
        take(impatient(ONE_AN_HOUR))


def test_other_projects_and_hosts_have_budgets_of_their_own(credentials):
    """Neither another project nor the emulator spends the real project's requests."""
    projects = {
        MixpanelAPIClient(credentials, api_base_url=url).budget.project
        for url in (None, "http://127.0.0.1:1", "http://127.0.0.1:2")
    }
    assert len(projects) == 3
    for project in projects:
        spend(impatient(ONE_AN_HOUR, project), "query", 1)


def test_each_api_family_has_a_budget_of_its_own():
    """Spent queries leave the exports alone, and the App API has no limit."""
    budget = impatient(ONE_AN_HOUR)
    spend(budget, "query", 1)
    spend(budget, "export", 1)
    spend(budget, "app", 20)


def test_a_spent_window_is_waited_for():
    """The fourth of three requests per window comes a window after the first, not sooner."""
    budget = Budget(THREE, "us-12345")
    began = time.monotonic()
    spend(budget, "query", 4)
    assert time.monotonic() - began >= 0.59


def test_exports_are_spread_evenly():
    """Five exports at 20 a second need four pauses of 50 ms."""
    budget = Budget(BudgetSettings(export_per_second=20), "us-12345")
    began = time.monotonic()
    spend(budget, "export", 5)
    assert time.monotonic() - began >= 0.19


def test_the_reserve_is_left_for_colleagues():
    """With 3 requests and a reserve of 2 there is one."""
    reserved = replace(ONE_AN_HOUR, query_per_hour=3, export_per_hour=3, reserve=2)
    spend(impatient(reserved), "query", 1)
    with pytest.raises(RateLimitError):
        take(impatient(reserved))
    with pytest.raises(ConfigError, match="MP_BUDGET_RESERVE"):
        BudgetSettings(reserve=58)


def test_profile_pages_after_the_first_are_free(emulator, credentials, tmp_path):
    """A snapshot of many pages counts as one request, or as one per page with `count_pages`."""
    spent = []
    for count_pages in (False, True):
        budget = BudgetSettings(count_pages=count_pages, state_dir=tmp_path / str(count_pages))
        with MixpanelAPIClient(
            credentials, api_base_url=emulator.base_url, budget=budget
        ) as client:
            plan = client.plan_profiles(tmp_path / "pages", ProfileQuery())
            client.fetch_profile_pages(ProfileQuery(), plan, [0])
            client.export_profiles_page(1, plan.session_id)
            spent.append(client.quota()[1].used)
    assert spent == [2, 3]


def test_a_free_page_does_not_queue_behind_a_counted_request():
    """While one thread waits for the hour, pages of a session go on."""
    budget = Budget(ONE_AN_HOUR, "us-12345")
    spend(budget, "query", 1)
    with somebody_waiting(budget):
        take(budget, free=True)


def test_no_more_than_allowed_run_at_once():
    """With two places at work, a third request starts when one has ended."""
    budget = Budget(BudgetSettings(query_at_once=2), "us-12345")
    lock, running, most = threading.Lock(), 0, 0

    def ask(_):
        nonlocal running, most
        with budget.permits("query", "something").permit():
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.02)
            with lock:
                running -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(12)))
    assert most == 2


def test_a_folder_in_the_place_of_a_slots_lock_is_named(tmp_path):
    """It is left alone, and is no traceback."""
    store = LedgerFile(tmp_path / "us-1.sqlite")
    (tmp_path / "us-1.export-0.lock").mkdir()
    with pytest.raises(StorageError, match="MP_STATE_DIR"):
        store.slot("export-0")


def test_a_killed_process_leaves_no_slot_taken(tmp_path):
    """The kernel frees the place at work of a process that dies in the middle of a request."""
    settings = BudgetSettings(query_at_once=1, state_dir=tmp_path)
    holding = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\n"
            "from mixpanel_assets.client import BudgetSettings\n"
            "from mixpanel_assets.client.budget import Budget\n"
            "settings = BudgetSettings(query_at_once=1, state_dir=sys.argv[1])\n"
            "with Budget(settings, 'us-12345').permits('query', 'it').permit():\n"
            "    print('holding', flush=True)\n"
            "    time.sleep(60)\n",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with holding:
        assert holding.stdout.readline() == "holding\n"
        with pytest.raises(RateLimitError, match="1 query requests are running"):
            take(Budget(settings, "us-12345", max_wait_seconds=0.1))
        holding.kill()
    take(Budget(settings, "us-12345", max_wait_seconds=5))


def test_threads_are_served_in_the_order_they_came():
    """The request that waits longest is next."""
    budget = Budget(BudgetSettings(export_per_second=10), "us-12345")
    spend(budget, "export", 1)
    order = []

    def ask(number):
        take(budget, "export")
        order.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3]


def test_a_wait_that_would_be_too_long_is_not_begun():
    """An hour's wait against 60 s of patience raises at once, with the seconds it would take."""
    spend(impatient(ONE_AN_HOUR), "query", 1)
    began = time.monotonic()
    with pytest.raises(RateLimitError, match="longer than 60 s") as caught:
        take(Budget(ONE_AN_HOUR, "us-12345", max_wait_seconds=60))
    assert time.monotonic() - began < 50
    assert 3590 <= caught.value.retry_after <= 3605


def test_those_who_queue_give_up_as_early():
    """A thread behind one that waits for an hour does not sit out its patience first."""
    patient = Budget(ONE_AN_HOUR, "us-12345")
    spend(patient, "query", 1)
    with somebody_waiting(patient):
        patient.max_wait_seconds = 60
        began = time.monotonic()
        with pytest.raises(RateLimitError):
            take(patient)
        assert time.monotonic() - began < 50


def test_a_cancelled_wait_ends_at_once():
    """Cancelling ends the wait for the hour and the waits of the queued requests."""
    budget = Budget(ONE_AN_HOUR, "us-12345")
    spend(budget, "query", 1)
    errors = []

    def ask():
        try:
            take(budget)
        except RateLimitError as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    budget.cancelled.set()
    for thread in threads:
        thread.join(50)
    assert len(errors) == 3
    assert all("cancelled" in error.message for error in errors)


def test_an_interrupted_snapshot_does_not_sit_out_the_hour(emulator, credentials, tmp_path):
    """Ctrl-C while pages wait for their budget ends at once, and the client can be used again."""
    budget = BudgetSettings(query_per_hour=2, export_per_hour=2, count_pages=True)
    with MixpanelAPIClient(
        credentials,
        api_base_url=emulator.base_url,
        budget=budget,
        retries=RetryPolicy(max_wait_seconds=None),
    ) as client:
        plan = client.plan_profiles(tmp_path, ProfileQuery())

        def interrupt(outcome):
            raise KeyboardInterrupt

        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            client.fetch_profile_pages(ProfileQuery(), plan, [0] * 8, on_page=interrupt)
        assert time.monotonic() - began < 50
        assert not client.retries.cancelled.is_set()


def test_a_wait_says_what_it_waits_for_and_says_it_again(caplog):
    """A line at the beginning and one per interval, with the reason and the time it ends."""
    budget = Budget(replace(THREE, report_seconds=0.15), "us-12345")
    with caplog.at_level(logging.WARNING):
        spend(budget, "query", 4)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) >= 3
    assert all("query something waits: all 3 query requests" in line for line in lines)
    assert all("UTC" in line for line in lines)


def test_a_short_pause_is_not_worth_a_line(caplog):
    """Half a second between two exports is waited for in silence."""
    with caplog.at_level(logging.WARNING):
        spend(Budget(BudgetSettings(export_per_second=5), "us-12345"), "export", 3)
    assert not caplog.records


def test_waiting_holds_no_lock_and_no_connection():
    """While one request waits for the hour, another budget reads and writes the ledger."""
    budget = Budget(ONE_AN_HOUR, "us-12345")
    spend(budget, "query", 1)
    with somebody_waiting(budget):
        other = impatient(ONE_AN_HOUR)
        assert [usage.used for usage in other.usage()] == [0, 1]
        take(other, free=True)


def test_a_refusal_keeps_all_processes_from_asking(emulator, credentials):
    """After a 429 of an hour, another client on the same ledger is not even sent."""
    emulator.faults.add(Fault("429-window", path=NAMES))
    before = len(emulator.requests)
    for _ in range(2):
        with (
            MixpanelAPIClient(credentials, api_base_url=emulator.base_url) as client,
            pytest.raises(RateLimitError) as caught,
        ):
            client.get("query", "/events/names")
        assert 3590 <= caught.value.retry_after <= 3600
    assert len(emulator.requests) - before == 1


def test_a_refusal_is_waited_for_in_full_and_uses_up_no_retry(emulator, credentials):
    """A 429 of a second, no retries for faults: the answer comes after it."""
    emulator.faults.add(Fault("429-window", path=NAMES, times=1, seconds=1))
    began = time.monotonic()
    with MixpanelAPIClient(
        credentials, api_base_url=emulator.base_url, retries=RetryPolicy(max_retries=0)
    ) as client:
        client.get("query", "/events/names")
    assert time.monotonic() - began >= 1


def test_refusals_without_a_time_double_the_wait_until_an_answer_comes(emulator, credentials):
    """Waits of 0.1, 0.2 and 0.4 s; an answer later the first wait is short again."""
    budget = BudgetSettings(refusal_wait_seconds=0.1)
    waits = []
    for times in (3, 1):
        emulator.faults.add(Fault("429-bare", path=NAMES, times=times))
        began = time.monotonic()
        with MixpanelAPIClient(
            credentials, api_base_url=emulator.base_url, budget=budget
        ) as client:
            client.get("query", "/events/names")
        waits.append(time.monotonic() - began)
    assert waits[0] >= 0.7
    assert 0.1 <= waits[1] < waits[0]


def test_refusals_of_requests_under_way_count_once():
    """Five requests refused for the same reason do not make the wait 32 times as long."""
    budget = Budget(BudgetSettings(refusal_wait_seconds=60), "us-12345", max_wait_seconds=0)
    requests = [budget.permits("query", "it") for _ in range(5)]
    permits = []
    for request in requests:
        with request.permit() as permit:
            permits.append(permit)
    for request, permit in zip(requests, permits, strict=True):
        request.refused(permit, RateLimitError())
    with pytest.raises(RateLimitError) as caught:
        take(budget)
    assert 50 <= caught.value.retry_after <= 60


def test_no_refusal_stops_us_for_more_than_an_hour():
    """A Retry-After of a day is cut to an hour."""
    budget = impatient(BudgetSettings())
    request = budget.permits("export", "it")
    with request.permit() as permit:
        request.refused(permit, RateLimitError(retry_after=86_400))
    with pytest.raises(RateLimitError) as caught:
        take(budget, "export")
    assert caught.value.retry_after <= 3600


def test_failing_requests_are_counted(emulator, credentials):
    """Mixpanel counts a request when it arrives, whatever becomes of it."""
    emulator.faults.add(Fault("500-json", path=NAMES, times=2))
    with MixpanelAPIClient(
        credentials,
        api_base_url=emulator.base_url,
        retries=RetryPolicy(first_wait_seconds=0.001),
    ) as client:
        client.get("query", "/events/names")
        assert client.quota()[1].used == 3


def test_usage_tells_what_is_left_and_when_more_comes():
    """Spent, left, the next free request and the end of a 429, per API family."""
    budget = impatient(replace(THREE, export_per_second=1000, window_seconds=3605))
    spend(budget, "export", 3)
    request = budget.permits("query", "it")
    with request.permit() as permit:
        request.refused(permit, RateLimitError(retry_after=100))
    export, query = budget.usage()
    assert (export.api, export.limit, export.used, export.left) == ("export", 3, 3, 0)
    assert export.next_slot_at <= export.refills_at
    assert export.blocked_until is None
    assert (query.api, query.used, query.left) == ("query", 1, 2)
    assert query.next_slot_at == query.blocked_until


def test_the_ledger_is_private(tmp_path):
    """Folders are 0700 and files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        take(impatient(BudgetSettings(state_dir=tmp_path / "new" / "state")))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").rglob("*")}
    assert modes.pop("state") == 0o700
    assert set(modes.values()) == {0o600}
    assert "us-12345.sqlite" in modes


@pytest.mark.parametrize("obstacle", ["a file where the folder should be", "not a database"])
def test_without_a_usable_file_the_process_counts_alone_and_says_so_once(
    obstacle, tmp_path, caplog
):
    """One warning, then the budget works as before, for all clients of the process."""
    if obstacle == "not a database":
        state_dir = tmp_path
        (tmp_path / f"us-{tmp_path.name}.sqlite").write_text("hello " * 1000)
    else:
        state_dir = tmp_path / "file"
        state_dir.write_text("")
    settings = replace(ONE_AN_HOUR, state_dir=state_dir)
    with caplog.at_level(logging.WARNING):
        take(impatient(settings, f"us-{tmp_path.name}"))
        with pytest.raises(RateLimitError):
            take(impatient(settings, f"us-{tmp_path.name}"))
    assert [record.getMessage().count("MP_STATE_DIR") for record in caplog.records] == [1]


def test_memory_alone_can_be_asked_for(tmp_path, caplog):
    """`:memory:` writes no file and is no reason to warn."""
    settings = replace(ONE_AN_HOUR, state_dir=":memory:")
    take(impatient(settings, f"us-{tmp_path.name}"))
    with pytest.raises(RateLimitError):
        take(impatient(settings, f"us-{tmp_path.name}"))
    assert not (Path.home() / ".mp").exists()
    assert not caplog.records


def test_a_ledger_that_breaks_later_is_named(tmp_path):
    """A request that cannot be counted is not sent; the error names the file and a way out."""
    budget = impatient(BudgetSettings(state_dir=tmp_path))
    take(budget)
    (tmp_path / "us-12345.sqlite").write_text("hello " * 1000)
    with pytest.raises(StorageError, match="MP_STATE_DIR"):
        take(budget)


def test_a_clock_that_was_set_back_does_not_stop_us_for_longer_than_an_hour(tmp_path):
    """Requests and refusals dated tomorrow count as if they were of now."""
    settings = replace(ONE_AN_HOUR, state_dir=tmp_path)
    spend(impatient(settings), "query", 1)
    tomorrow = int((time.time() + 86_400) * 1000)
    connection = sqlite3.connect(tmp_path / "us-12345.sqlite")
    with connection:
        connection.execute("UPDATE query SET item_timestamp = ?", (tomorrow,))
        connection.execute("INSERT INTO refusals VALUES ('export', ?, 0)", (tomorrow,))
    connection.close()
    for api in ("query", "export"):
        with pytest.raises(RateLimitError) as caught:
            take(impatient(settings), api)
        assert caught.value.retry_after <= 3606


@pytest.mark.parametrize(
    ("per_hour", "reason"),
    [(100_000, "keep 600.0 s apart"), (1, "all 1 export requests"), (58, "keep 600.0 s apart")],
)
def test_raised_limits_of_a_project_can_be_set(per_hour, reason):
    """Where the pace alone is the tighter limit, or one request is all there is, it still holds."""
    settings = BudgetSettings(
        export_per_hour=per_hour, query_per_hour=per_hour, export_per_second=1 / 600
    )
    spend(impatient(settings), "export", 1)
    with pytest.raises(RateLimitError, match=reason):
        take(impatient(settings), "export")


@given(
    most=st.integers(1, 5),
    pauses=st.lists(st.integers(0, 400), max_size=40),
)
def test_no_window_holds_more_than_allowed_and_no_wait_is_too_long(most, pauses):
    """Wherever a window begins; and the request that had to wait fits when the wait is over."""
    window = SlidingWindow("query", most, 1000, "spent")
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE query (name VARCHAR, item_timestamp INTEGER)")
        now, sent = 0, []
        for pause in pauses:
            now += pause
            if wait := window.wait(connection, now):
                assert window.wait(connection, now + wait - 1) == 1
                now += wait
            assert window.wait(connection, now) == 0
            connection.execute("INSERT INTO query VALUES ('query', ?)", (now,))
            sent.append(now)
    assert all(later - first > 1000 for first, later in zip(sent, sent[most:], strict=False))


def test_requests_that_an_earlier_version_counted_still_count(tmp_path):
    """Its table is the one of pyrate-limiter: an upgrade forgets no request of the last hour."""
    with closing(sqlite3.connect(tmp_path / "us-12345.sqlite")) as connection, connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS 'query' (name VARCHAR, item_timestamp INTEGER)"
        )
        connection.execute("INSERT INTO 'query' VALUES ('query', ?)", (int(time.time() * 1000),))
    with pytest.raises(RateLimitError, match="all 1 query requests"):
        take(impatient(replace(ONE_AN_HOUR, state_dir=tmp_path)))
