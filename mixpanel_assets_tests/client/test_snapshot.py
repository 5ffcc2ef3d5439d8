"""Profile pages over real HTTP: durable files next to a stored plan."""

import json
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import httpx
import pytest

from mixpanel_assets.client import (
    MixpanelAPIClient,
    ProfileQuery,
    RetryPolicy,
    make_credentials,
)
from mixpanel_assets.client.profiles import checked_workers
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import (
    ConfigError,
    IncompleteExportError,
    RateLimitError,
    ServerError,
    StorageError,
)
from mixpanel_assets_tests.conftest import IMPATIENT, PLENTY

ENGAGE = "/api/query/engage"
EVERYONE = ProfileQuery()


@pytest.fixture
def emulator():
    with Emulator(EmulatorSettings(days=3, profiles=95, page_size=10)) as emulator:
        yield emulator


@pytest.fixture
def client(emulator):
    with client_of(emulator) as client:
        yield client


def client_of(emulator, retries=IMPATIENT):
    credentials = make_credentials(
        username=emulator.username, secret=emulator.secret, project_id=str(emulator.project_id)
    )
    return MixpanelAPIClient(
        credentials, api_base_url=emulator.base_url, retries=retries, budget=PLENTY
    )


@contextmanager
def client_with(answer, credentials, retries=IMPATIENT):
    """A client whose requests are answered by a function of their fields, and the requests."""
    requests = []

    def send(request):
        requests.append(request)
        body = answer(dict(parse_qsl(request.content.decode())))
        return body if isinstance(body, httpx.Response) else httpx.Response(200, json=body)

    transport = httpx.MockTransport(send)
    with MixpanelAPIClient(
        credentials, retries=retries, budget=PLENTY, transport=transport
    ) as client:
        yield client, requests


def page_of(first, rows, **fields):
    """A page of ten profiles at most, of which the first has a number."""
    results = [{"$distinct_id": f"user-{first + n}"} for n in range(rows)]
    return {"page": first // 10, "session_id": "s", "page_size": 10, "results": results, **fields}


def fetched_ids(plan):
    return [
        json.loads(line)["$distinct_id"]
        for page in range(plan.num_pages)
        for line in plan.path(page).read_bytes().splitlines()
    ]


def true_ids(emulator):
    return sorted(profile["$distinct_id"] for profile in emulator.truth.profiles())


def test_a_snapshot_holds_every_profile_once(client, emulator, tmp_path):
    """Plan, pages in parallel, and the files hold exactly the profiles there are."""
    plan = client.plan_profiles(tmp_path / "p", EVERYONE)
    assert plan.missing() == list(range(1, plan.num_pages))
    outcomes = client.fetch_profile_pages(EVERYONE, plan, plan.missing())
    assert not plan.missing()
    assert [outcome.error for outcome in outcomes] == [None] * len(outcomes)
    assert sorted(fetched_ids(plan)) == true_ids(emulator)


def test_pages_share_the_session_of_page_0(client, emulator, tmp_path):
    """Every later page names the session, so that the result is pinned."""
    plan = client.plan_profiles(tmp_path / "p", EVERYONE)
    client.fetch_profile_pages(EVERYONE, plan, plan.missing())
    sessions = {r.params.get("session_id") for r in emulator.requests if r.params.get("page")}
    assert sessions == {plan.session_id}


def test_a_page_that_fails_is_named_and_the_others_are_kept(client, emulator, tmp_path):
    """One failing page is one outcome with a reason, and the only file that is missing."""
    emulator.faults.add(Fault("500-json", path=ENGAGE, page=3, times=None))
    plan = client.plan_profiles(tmp_path / "p", EVERYONE)
    outcomes = client.fetch_profile_pages(EVERYONE, plan, plan.missing())
    assert [outcome.page for outcome in outcomes if outcome.error] == [3]
    assert not any(outcome.unannounced or outcome.session_ended for outcome in outcomes)
    assert [outcome.rows for outcome in outcomes] == [10, 10, 0, 10, 10, 10, 10, 10, 5]
    assert plan.missing() == [3]


def test_what_is_missing_is_fetched_later(client, emulator, tmp_path):
    """The second fetch of a plan requests only the pages that are not on disk."""
    emulator.faults.add(Fault("500-json", path=ENGAGE, page=3, times=3))
    plan = client.plan_profiles(tmp_path / "p", EVERYONE)
    client.fetch_profile_pages(EVERYONE, plan, plan.missing())
    before = len(emulator.requests)
    client.fetch_profile_pages(EVERYONE, plan, plan.missing())
    assert len(emulator.requests) - before == 1
    assert sorted(fetched_ids(plan)) == true_ids(emulator)


@pytest.mark.parametrize("kind", ["401-json", "400-auth-text", "402-json", "403-json", "404-json"])
def test_any_refusal_of_a_later_page_ends_the_session(kind, client, emulator, tmp_path):
    """The session has ended, and the pages after the refused one are not requested."""
    plan = client.plan_profiles(tmp_path / "p", EVERYONE)
    emulator.faults.add(Fault(kind, path=ENGAGE, page=1, times=None))
    outcomes = client.fetch_profile_pages(EVERYONE, plan, plan.missing(), max_workers=1)
    assert len(outcomes) == plan.num_pages - 1
    assert all(outcome.session_ended and outcome.rows == 0 for outcome in outcomes)
    assert {r.params.get("page") for r in emulator.requests} <= {None, "1"}


def test_five_pages_at_most_are_requested_at_once(caplog):
    """Mixpanel takes no more queries of a project at the same time."""
    assert [checked_workers(number) for number in (None, 1, 5, 6)] == [5, 1, 5, 5]
    assert "Mixpanel runs no more queries at the same time" in caplog.text
    with pytest.raises(ConfigError):
        checked_workers(0)


def test_an_interrupt_waits_for_no_page(client, emulator, tmp_path):
    """Pages on their way are given up; the client can be used again."""
    plan = client.plan_profiles(tmp_path / "p", EVERYONE)
    emulator.faults.add(Fault("slow-first-byte", path=ENGAGE, skip=1, seconds=600))

    def interrupt(outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.fetch_profile_pages(EVERYONE, plan, plan.missing(), on_page=interrupt)
    assert plan.missing()
    emulator.faults.clear()
    client.fetch_profile_pages(EVERYONE, plan, plan.missing())
    assert sorted(fetched_ids(plan)) == true_ids(emulator)


def test_an_error_of_the_caller_ends_the_pages(credentials, tmp_path):
    """Waits end and no other page is requested; afterwards the client can wait again."""
    waits_ended, page_2_is_sent = [], threading.Event()

    def answer(fields):
        page = int(fields.get("page", 0))
        if page == 2:
            page_2_is_sent.set()
            waits_ended.append(client.retries.cancelled.wait(60))
        return page_of(10 * page, 10, total=205)

    def stop(outcome):
        page_2_is_sent.wait(60)
        raise LookupError

    with client_with(answer, credentials) as (client, requests):
        plan = client.plan_profiles(tmp_path / "p", EVERYONE)
        with pytest.raises(LookupError):
            client.fetch_profile_pages(EVERYONE, plan, plan.missing(), max_workers=1, on_page=stop)
        assert waits_ended == [True]
        assert len(requests) == 3
        assert not client.retries.cancelled.is_set()


def test_a_page_on_its_way_is_received_after_an_error(client, emulator, tmp_path):
    """Mixpanel has counted it, and it need not be requested again."""
    plan = client.plan_profiles(tmp_path / "p", EVERYONE)
    emulator.faults.add(Fault("slow-first-byte", path=ENGAGE, page=2, seconds=0.2))

    def stop(outcome):
        while not {"1", "2"} <= {entry.params.get("page") for entry in emulator.requests}:
            time.sleep(0.01)
        raise LookupError

    with pytest.raises(LookupError):
        client.fetch_profile_pages(EVERYONE, plan, [1, 2], on_page=stop)
    assert not {1, 2} & set(plan.missing())


def test_a_disk_that_takes_no_page_ends_the_pages(client, emulator, tmp_path):
    """No other page would fare better."""
    plan = client.plan_profiles(tmp_path / "p", EVERYONE)
    plan.discard()
    plan.directory.touch()
    with pytest.raises(StorageError):
        client.fetch_profile_pages(EVERYONE, plan, [1, 2, 3])


def test_a_budget_that_stays_spent_ends_the_pages(emulator, tmp_path):
    """The answer to 429 is to come back later, not to name pages."""
    impatient = RetryPolicy(max_retries=0, max_wait_seconds=0.01)
    with client_of(emulator, retries=impatient) as client:
        plan = client.plan_profiles(tmp_path / "p", EVERYONE)
        emulator.faults.add(Fault("429-window", path=ENGAGE, page=1, times=None))
        with pytest.raises(RateLimitError):
            client.fetch_profile_pages(EVERYONE, plan, plan.missing())


def test_a_session_that_ended_is_told(client, emulator, tmp_path):
    """The outcome says that the session ended, so that the caller can start a new snapshot."""
    plan = client.plan_profiles(tmp_path / "p", EVERYONE)
    emulator.faults.add(Fault("session-expired", path=ENGAGE, times=None))
    [outcome] = client.fetch_profile_pages(EVERYONE, plan, [4])
    assert outcome.session_ended
    assert "invalid session_id" in outcome.error


@pytest.mark.parametrize("kind", ["short-page", "cut-json", "html-200", "503-json"])
def test_a_broken_page_is_asked_for_again(kind, client, emulator, tmp_path):
    """Short, cut, not JSON or refused once: the page is whole in the end."""
    emulator.faults.add(Fault(kind, path=ENGAGE, page=2))
    plan = client.plan_profiles(tmp_path / "p", EVERYONE)
    client.fetch_profile_pages(EVERYONE, plan, plan.missing())
    assert sorted(fetched_ids(plan)) == true_ids(emulator)


def test_each_request_has_the_filters_and_the_data_view_beside_the_project(credentials, tmp_path):
    """The first one has no session yet; later ones name it and their page."""
    query = ProfileQuery(where="a", workspace_id=5)
    with client_with(
        lambda fields: page_of(10 * int(fields.get("page", 0)), 10, total=25), credentials
    ) as (client, requests):
        plan = client.plan_profiles(tmp_path / "p", query)
        client.fetch_profile_pages(query, plan, [1])
    sent = [dict(parse_qsl(request.content.decode())) for request in requests]
    assert sent[0] == {"where": "a"}
    assert sent[-1] == {"where": "a", "page": "1", "session_id": "s"}
    project = {"project_id": credentials.project_id, "workspace_id": "5"}
    for request in requests:
        assert (request.method, request.url.path) == ("POST", ENGAGE)
        assert dict(request.url.params) == project


def test_a_later_page_without_a_session_counts(credentials):
    """It opens a session of its own, which Mixpanel counts; a page of a session does not."""
    with client_with(
        lambda fields: page_of(10 * int(fields.get("page", 0)), 10, session_id=None), credentials
    ) as (client, _):
        used = []
        for page, session_id in [(0, None), (1, "s"), (1, None)]:
            client.export_profiles_page(page, session_id)
            used.append(client.quota()[1].used)
    assert used == [1, 1, 2]


@pytest.mark.parametrize(
    ("said", "complaint"),
    [({"page": 0}, "says it is page 0"), ({"session_id": "another"}, "names another session")],
)
def test_another_page_than_the_asked_one_is_no_answer(said, complaint, client, monkeypatch):
    """A page that names another number or session is a fault, which is repeated."""
    body = {"page": 1, "session_id": "s", "page_size": 10, "results": [], **said}
    asked = []

    @contextmanager
    def answer(*_, **__):
        asked.append(1)
        yield httpx.Response(200, json=body)

    monkeypatch.setattr(client._transport, "open", answer)
    with pytest.raises(IncompleteExportError, match=complaint):
        client.export_profiles_page(1, "s")
    assert len(asked) == 1 + IMPATIENT.max_retries


def test_without_a_total_there_is_no_snapshot(client, emulator, tmp_path):
    """Without `total` the client cannot know when the snapshot is complete."""
    emulator.faults.add(Fault("no-total", path=ENGAGE, times=None))
    with pytest.raises(IncompleteExportError, match="total"):
        client.plan_profiles(tmp_path / "p", EVERYONE)


def test_a_total_that_is_missing_once_is_asked_for_again(client, emulator, tmp_path):
    """Like anything else that came with 200 and is not whole."""
    emulator.faults.add(Fault("no-total", path=ENGAGE))
    assert client.plan_profiles(tmp_path / "p", EVERYONE).total == 95


@pytest.mark.parametrize(
    ("profiles", "by_payload", "asked_pages"),
    [(250, True, 3), (200, True, 3), (200, False, 3), (250, False, 3), (0, True, 2)],
)
def test_behind_a_full_page_there_may_be_another(profiles, by_payload, asked_pages, tmp_path):
    """`total` may count one page's profiles alone, so a full last page is not the end."""
    settings = EmulatorSettings(
        days=3, profiles=profiles, page_size=100, total_is_payload=by_payload
    )
    with Emulator(settings) as emulator, client_of(emulator) as client:
        plan = client.plan_profiles(tmp_path / "p", EVERYONE)
        client.fetch_profile_pages(EVERYONE, plan, plan.missing())
        assert sorted(fetched_ids(plan)) == true_ids(emulator)
        assert plan.total == len(true_ids(emulator))
        assert len([r for r in emulator.requests if r.path == ENGAGE]) == asked_pages


@pytest.mark.parametrize(("rows", "requests"), [(0, 2), (1, 1)])
def test_only_a_page_without_profiles_is_confirmed(rows, requests, credentials, tmp_path):
    """A profile is no fault of a response, even if its total says that there is none."""
    with client_with(lambda _: page_of(0, rows, total=0), credentials) as (client, sent):
        assert client.plan_profiles(tmp_path / "p", EVERYONE).total == rows
    assert len(sent) == requests


def test_no_page_of_a_session_that_ended_is_in_the_snapshot_after_it(credentials, tmp_path):
    """The second session has more pages, which the first one's must not stand for."""

    def answer(fields):
        page = int(fields.get("page", 0))
        if len(requests) == 3:
            return httpx.Response(400, text="invalid session_id")
        if len(requests) < 3:
            return page_of(10 * page, 10, total=10, session_id="first")
        return page_of(10 * page, 10, total=25, session_id="second")

    with client_with(answer, credentials) as (client, requests):
        plan = client.plan_profiles(tmp_path / "p", EVERYONE)
    assert (plan.session_id, plan.total, plan.missing()) == ("second", 25, [1, 2])


@pytest.mark.parametrize(("status", "error"), [(429, RateLimitError), (503, ServerError)])
def test_a_fault_behind_a_full_page_ends_no_session(status, error, credentials, tmp_path):
    """Whether another page follows is not known, so there is no snapshot."""
    impatient = RetryPolicy(max_retries=0, max_wait_seconds=0.01)

    def answer(fields):
        return httpx.Response(status) if fields.get("page") else page_of(0, 10, total=10)

    with client_with(answer, credentials, impatient) as (client, requests):
        with pytest.raises(error):
            client.plan_profiles(tmp_path / "p", EVERYONE)
        assert sum(b"page" not in request.content for request in requests) == 1


def test_a_full_page_that_comes_again_as_the_next_one_is_a_fault(credentials, tmp_path):
    """A server that ignores `page` ends in an error, not in an endless loop of requests."""
    with (
        client_with(
            lambda fields: page_of(0, 10, total=10, page=fields.get("page", 0)), credentials
        ) as (client, requests),
        pytest.raises(IncompleteExportError, match="page 1 repeats the page before it"),
    ):
        client.plan_profiles(tmp_path / "p", EVERYONE)
    assert len(requests) == 2


@pytest.mark.parametrize(("times", "planned"), [(1, True), (None, False)])
def test_a_session_that_ends_while_planning_is_begun_anew_once(times, planned, tmp_path):
    """The page behind a full last one may meet it, too."""
    with (
        Emulator(EmulatorSettings(days=3, profiles=20, page_size=10)) as emulator,
        client_of(emulator) as client,
    ):
        emulator.faults.add(Fault("session-expired", times=times))
        expected = nullcontext() if planned else pytest.raises(IncompleteExportError, match="ended")
        with expected:
            client.plan_profiles(tmp_path / "p", EVERYONE)
        assert len([r for r in emulator.requests if not r.params.get("page")]) == 2


def test_only_pages_are_deleted_from_a_folder(client, emulator, tmp_path):
    """Files of the user in a snapshot's folder are kept when the snapshot is discarded."""
    mine = [tmp_path / "thesis.txt", tmp_path / "page-1.jsonl", tmp_path / "below" / "tried"]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    client.plan_profiles(tmp_path, EVERYONE).discard()
    assert [file.read_text() for file in mine] == ["mine"] * 3
    assert not list(tmp_path.glob("p*-*[0-9][0-9]*")) + list(tmp_path.glob("plan*"))


def test_a_last_page_that_is_full_against_the_announcement_fails(client, emulator, tmp_path):
    """The error says that more profiles may follow, because the plan requests no further page."""
    plan = client.plan_profiles(tmp_path / "p", EVERYONE)
    shorter = replace(plan, total=plan.total - 12)
    [outcome] = client.fetch_profile_pages(EVERYONE, shorter, [8])
    assert "more may follow" in outcome.error


def test_a_page_knows_when_it_was_read(client, tmp_path):
    """The file's age is the profile's age, in UTC."""
    plan = client.plan_profiles(tmp_path / "p", EVERYONE)
    age = datetime.now(UTC) - plan.fetched_at(0)
    assert abs(age.total_seconds()) < 60


def test_profiles_stream_page_after_page(client, emulator):
    """`export_profiles` yields every profile of one session."""
    heard: list[int] = []
    ids = sorted(p["$distinct_id"] for p in client.export_profiles(on_batch=heard.append))
    assert ids == true_ids(emulator)
    assert heard[-1] == len(ids)


def test_profiles_that_do_not_add_up_raise(client, emulator):
    """Fewer profiles than page 0 announced are a failed read."""
    emulator.faults.add(Fault("short-page", path=ENGAGE, page=9, times=None))
    with pytest.raises(IncompleteExportError, match="announced"):
        list(client.export_profiles())


def test_a_page_says_whether_more_follow(client):
    """Users page by hand with the fields they know."""
    page = client.export_profiles_page(0)
    assert (page.page, page.has_more, page.page_size, page.num_pages) == (0, True, 10, 10)
    assert page.total == 95
    assert "$distinct_id" not in repr(page)
    last = client.export_profiles_page(9, page.session_id)
    assert not last.has_more
    assert len(last.profiles) == 5
