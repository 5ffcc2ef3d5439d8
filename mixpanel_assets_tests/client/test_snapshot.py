"""Profile pages over real HTTP: durable files next to a stored plan."""

import json
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime

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
    IncompleteExportError,
    RateLimitError,
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
    assert plan.missing() == [3]


def test_what_is_missing_is_fetched_later(client, emulator, tmp_path):
    """Coming back to a plan asks only for the pages that are not on disk."""
    emulator.faults.add(Fault("500-json", path=ENGAGE, page=3, times=3))
    plan = client.plan_profiles(tmp_path / "p", EVERYONE)
    client.fetch_profile_pages(EVERYONE, plan, plan.missing())
    before = len(emulator.requests)
    client.fetch_profile_pages(EVERYONE, plan, plan.missing())
    assert len(emulator.requests) - before == 1
    assert sorted(fetched_ids(plan)) == true_ids(emulator)


@pytest.mark.parametrize("kind", ["401-json", "400-auth-text", "402-json", "403-json", "404-json"])
def test_any_refusal_of_a_later_page_ends_the_session(kind, client, emulator, tmp_path):
    """Page 0 was answered, so only the session is new; the pages that wait are not asked for."""
    plan = client.plan_profiles(tmp_path / "p", EVERYONE)
    emulator.faults.add(Fault(kind, path=ENGAGE, page=1, times=None))
    outcomes = client.fetch_profile_pages(EVERYONE, plan, plan.missing(), max_workers=1)
    assert len(outcomes) == plan.num_pages - 1
    assert all(outcome.session_ended and outcome.rows == 0 for outcome in outcomes)
    assert {r.params.get("page") for r in emulator.requests} <= {None, "1"}


def test_five_pages_at_most_are_requested_at_once():
    """Mixpanel takes no more queries of a project at the same time."""
    assert [checked_workers(number) for number in (None, 1, 5, 6)] == [5, 1, 5, 5]


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
    """Whoever planned the snapshot can take it anew."""
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
    """Nobody could tell when it is whole."""
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
    """A folder that somebody chose may hold files of others, also when its session has ended."""
    mine = [tmp_path / "thesis.txt", tmp_path / "page-1.jsonl", tmp_path / "below" / "tried"]
    for file in mine:
        file.parent.mkdir(exist_ok=True)
        file.write_text("mine")
    client.plan_profiles(tmp_path, EVERYONE).discard()
    assert [file.read_text() for file in mine] == ["mine"] * 3
    assert not list(tmp_path.glob("p*-*[0-9][0-9]*")) + list(tmp_path.glob("plan*"))


def test_a_last_page_that_is_full_against_the_announcement_fails(client, emulator, tmp_path):
    """More profiles may follow, and nobody asked for them."""
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
