"""Profiles: pages, sessions and filters."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from mixpanel_assets.emulator import Emulator, Fault
from mixpanel_assets.emulator.profiles import GROUP_KEY

from .conftest import Opened

ENGAGE = "/api/query/engage"


def page(http: httpx.Client, **fields: object) -> httpx.Response:
    return http.post(ENGAGE, data=fields)  # type: ignore[arg-type]


def all_pages(http: httpx.Client, **fields: object) -> list[dict[str, Any]]:
    """Read pages by the documented rule: go on while a page is full."""
    answers = [page(http, **fields).json()]
    while len(answers[-1]["results"]) >= answers[-1]["page_size"]:
        more = {"session_id": answers[0]["session_id"], "page": len(answers)}
        answers.append(page(http, **fields, **more).json())
    return answers


def profiles(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [profile for answer in answers for profile in answer["results"]]


def test_all_pages_together_are_the_profiles(emulator: Emulator, http: httpx.Client) -> None:
    """Every profile is sent once, in pages of the requested size."""
    answers = all_pages(http, page_size=70)
    assert profiles(answers) == emulator.truth.profiles()
    assert [len(answer["results"]) for answer in answers] == [70, 70, 70, 40]
    assert [answer["page"] for answer in answers] == [0, 1, 2, 3]


def test_only_the_first_page_has_the_total(http: httpx.Client) -> None:
    """Later pages have no `total`."""
    answers = all_pages(http, page_size=70)
    assert [answer.get("total") for answer in answers] == [250, None, None, None]


def test_the_total_has_its_other_readings(opened: Callable[..., Opened]) -> None:
    """It can be on every page, and it can count the page, as the documentation has it."""
    _, http = opened(total_on_later_pages=True, total_is_payload=True)
    assert [answer["total"] for answer in all_pages(http, page_size=100)] == [100, 100, 50]


def test_numbers_can_be_text(opened: Callable[..., Opened]) -> None:
    """The emulator can send the numbers of a page as text, as a proxy may."""
    _, http = opened(numbers_as_text=True)
    answer = page(http, page_size=100).json()
    assert [answer[name] for name in ("page", "page_size", "total")] == ["0", "100", "250"]


def test_an_exact_multiple_ends_with_an_empty_page(opened: Callable[..., Opened]) -> None:
    """2000 profiles in pages of 1000 are three pages, the last one empty."""
    _, http = opened(profiles=2000)
    answers = all_pages(http)
    assert [len(answer["results"]) for answer in answers] == [1000, 1000, 0]


def test_the_page_size_has_a_ceiling(opened: Callable[..., Opened]) -> None:
    """A larger size is cut, and the response has the real one."""
    _, low = opened(profiles=1500)
    _, high = opened(profiles=1500, max_page_size=40_000)
    assert page(low, page_size=40_000).json()["page_size"] == 1000
    assert len(page(high, page_size=40_000).json()["results"]) == 1500


def test_a_later_page_needs_the_session(http: httpx.Client) -> None:
    """`page` above 0 without `session_id`, or with an unknown one, is 400."""
    assert page(http, page=1).status_code == 400
    assert page(http, page=1, session_id="1-nope").status_code == 400


def test_a_session_pins_the_result(emulator: Emulator, http: httpx.Client) -> None:
    """Pages of an old session are the old result, though profiles have changed since."""
    before = page(http, page_size=200).json()
    emulator.clock.advance(-3 * 86_400)
    fields = {"session_id": before["session_id"], "page": 1}
    pinned = before["results"] + page(http, **fields).json()["results"]
    assert profiles(all_pages(http)) != pinned
    emulator.clock.reset()
    assert pinned == emulator.truth.profiles()


def test_sessions_expire_by_the_clock(opened: Callable[..., Opened]) -> None:
    """After its lifetime a session gets 400; without a lifetime it never does."""
    for life, status in ((60.0, 400), (None, 200)):
        emulator, http = opened(session_seconds=life)
        session_id = page(http).json()["session_id"]
        emulator.clock.advance(61)
        assert page(http, page=1, session_id=session_id).status_code == status


def test_every_way_of_sending_fields_works(http: httpx.Client) -> None:
    """Form, query string, JSON body and GET, on the path and its old alias, are one."""
    fields = {"page_size": 3}
    answers = [
        http.post(ENGAGE, data=fields),
        http.post(ENGAGE, params={**http.params, **fields}),
        http.post(ENGAGE, json=fields),
        http.get(ENGAGE, params={**http.params, **fields}),
        http.get("/api/2.0/engage", params={**http.params, **fields}),
    ]
    assert [len(answer.json()["results"]) for answer in answers] == [3] * 5


def test_where_and_ids_filter(emulator: Emulator, http: httpx.Client) -> None:
    """`where`, `distinct_id` and `distinct_ids` keep what they name."""
    known = [own for own in emulator.truth.profiles() if own["$properties"]]
    after = "2024-01-12T00:00:00"
    expected = [own for own in known if own["$properties"].get("$last_seen", "") >= after]
    found = profiles(all_pages(http, where=f'properties["$last_seen"] >= "{after}"'))
    assert found == expected
    assert 0 < len(found) < 250
    ids = [known[3]["$distinct_id"], known[9]["$distinct_id"]]
    assert profiles(all_pages(http, distinct_id=ids[0])) == [known[3]]
    assert profiles(all_pages(http, distinct_ids=json.dumps(ids))) == [known[3], known[9]]


def test_a_broken_filter_is_refused(http: httpx.Client) -> None:
    """A syntax error in `where` or broken JSON in `distinct_ids` is 400."""
    assert page(http, where="plan ==").status_code == 400
    assert page(http, distinct_ids="user-1").status_code == 400


def test_output_properties_narrow_the_answer(http: httpx.Client) -> None:
    """Only the named properties are sent, if a profile has them."""
    for profile in page(http, output_properties='["$email","plan"]').json()["results"]:
        assert profile["$properties"].keys() <= {"$email", "plan"}


def test_cohort_members_with_and_without_profiles(http: httpx.Client) -> None:
    """`include_all_users` is true unless said otherwise, and then lists ids without a profile."""
    counts = {
        cohort["id"]: cohort["count"] for cohort in http.post("/api/query/cohorts/list").json()
    }
    chosen = json.dumps({"id": 1000})
    everyone = profiles(all_pages(http, filter_by_cohort=chosen))
    known = profiles(all_pages(http, filter_by_cohort=chosen, include_all_users="false"))
    assert len(everyone) == counts[1000] == len(known) + 2
    assert all(profile["$properties"]["plan"] in ("pro", "team") for profile in known)
    assert page(http, filter_by_cohort='{"id":1}').status_code == 400


def test_group_profiles_come_by_their_key(http: httpx.Client) -> None:
    """A negative 64-bit group key selects companies; an unknown one nothing."""
    assert len(profiles(all_pages(http, data_group_id=GROUP_KEY))) == 12
    assert profiles(all_pages(http, data_group_id="5")) == []


def test_behaviors_select_by_what_people_did(http: httpx.Client) -> None:
    """A count of orders in the last days can be used in `where`."""
    behaviors = [{"window": "14d", "name": "b1", "event_selectors": [{"event": "Order Completed"}]}]
    fields = {"behaviors": json.dumps(behaviors), "where": '(behaviors["b1"] > 0)'}
    found = profiles(all_pages(http, **fields))
    assert 0 < len(found) < 250
    assert page(http, **fields, filter_by_cohort='{"id":1000}').status_code == 400


def test_many_profiles_by_behavior_need_a_moment(opened: Callable[..., Opened]) -> None:
    """Above 1000 profiles, `behaviors` without `as_of_timestamp` is the documented error."""
    _, http = opened(profiles=1001)
    behaviors = [{"window": "1d", "name": "b1", "event_selectors": [{"event": "Page View"}]}]
    fields = {"behaviors": json.dumps(behaviors), "where": 'behaviors["b1"] >= 0'}
    refused = page(http, **fields)
    assert refused.status_code == 400
    assert refused.json()["error"] == "request for page in uncached query for params"
    assert page(http, **fields, as_of_timestamp=1_705_320_000).status_code == 200


def test_numeric_ids_can_come_as_numbers(opened: Callable[..., Opened]) -> None:
    """Ids that look like numbers are text, or numbers as the official example has them."""
    (_, texts), (_, numbers) = opened(), opened(numeric_ids_as_numbers=True)
    assert {type(own["$distinct_id"]) for own in page(texts).json()["results"]} == {str}
    assert {type(own["$distinct_id"]) for own in page(numbers).json()["results"]} == {str, int}


def test_property_statistics_count_profiles(emulator: Emulator, http: httpx.Client) -> None:
    """`engage/properties` counts and types each property, `engage/stats` counts profiles."""
    found = http.get("/api/query/engage/properties").json()["results"]
    assert found["plan"] == {"count": 249, "type": "string"}
    types = {name: entry["type"] for name, entry in found.items()}
    assert types | {
        "logins": "number", "beta": "boolean", "tags": "list", "address": "object",
        "$last_seen": "datetime",
    } == types  # fmt: skip
    stats = http.post("/api/query/engage/stats", data={"selector": 'properties["plan"] == "pro"'})
    expected = [
        own for own in emulator.truth.profiles() if (own["$properties"] or {}).get("plan") == "pro"
    ]
    assert stats.json()["results"] == len(expected)


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        ("short-page", lambda answer: len(answer["results"]) == 50),
        ("missing-page", lambda answer: answer["results"] == []),
        ("total-changes", lambda answer: answer["total"] == 255),
        ("other-page", lambda answer: answer["results"][0] == answer["of_page_0"]),
    ],
)
def test_pages_can_be_wrong(
    emulator: Emulator, http: httpx.Client, kind: Any, broken: Callable[[dict[str, Any]], bool]
) -> None:
    """A fault hits the page it names, once."""
    first = page(http, page_size=100).json()
    emulator.faults.add(Fault(kind, path=ENGAGE, page=1))
    fields = {"page_size": 100, "session_id": first["session_id"], "page": 1}
    answers = [page(http, **fields).json() for _ in range(2)]
    known = {"total": None, "of_page_0": first["results"][0]}
    assert [broken(known | answer) for answer in answers] == [True, False]


def test_a_session_can_expire_on_request(emulator: Emulator, http: httpx.Client) -> None:
    """The first page is not affected, the next one gets 400."""
    emulator.faults.add(Fault("session-expired"))
    first = page(http, page_size=100)
    assert first.status_code == 200
    second = page(http, page=1, session_id=first.json()["session_id"])
    assert second.status_code == 400
    assert second.json()["error"] == "invalid session_id"


def test_the_total_can_be_missing(emulator: Emulator, http: httpx.Client) -> None:
    """Even page 0 can be without `total`."""
    emulator.faults.add(Fault("no-total"))
    assert "total" not in page(http).json()


def test_a_page_can_end_in_the_middle_of_its_json(emulator: Emulator, http: httpx.Client) -> None:
    """The transport ends cleanly, the JSON does not."""
    emulator.faults.add(Fault("cut-json", path=ENGAGE, at=100))
    answer = page(http)
    assert answer.status_code == 200
    assert len(answer.content) == 100
