"""Rate limits: rolling windows, requests at once, and what a 429 looks like."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx

from mixpanel_assets.emulator import Fault, Limits

from .conftest import START, Opened
from .rows import export

FEW = Limits(export_per_hour=4, export_per_second=2, query_per_hour=3, query_concurrent=2)
COHORTS = "/api/query/cohorts/list"


def test_exports_are_limited_per_hour(opened: Callable[..., Opened]) -> None:
    """The window rolls: a request is possible again an hour after the first."""
    emulator, http = opened(rate_limits=FEW)
    for _ in range(4):
        assert export(http, START).status_code == 200
        emulator.clock.advance(10)
    refused = export(http, START)
    assert refused.status_code == 429
    assert refused.json() == {"error": "too many export requests in progress for this project"}
    assert "retry-after" not in refused.headers
    emulator.clock.advance(3560)
    assert export(http, START).status_code == 200


def test_exports_are_limited_per_second(opened: Callable[..., Opened]) -> None:
    """A third request within a second is refused, and fine a second later."""
    emulator, http = opened(rate_limits=FEW)
    assert [export(http, START).status_code for _ in range(3)] == [200, 200, 429]
    emulator.clock.advance(1)
    assert export(http, START).status_code == 200


def test_queries_are_limited_per_hour_with_headers(opened: Callable[..., Opened]) -> None:
    """The 429 has the observed headers and text; after `Retry-After` a request is accepted."""
    emulator, http = opened(rate_limits=FEW)
    for _ in range(3):
        assert http.post(COHORTS).status_code == 200
    emulator.clock.advance(600)
    refused = http.post(COHORTS)
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "3000"
    assert refused.headers["ratelimit"] == '"project";r=0;t=3000, "project-concurrency";r=3'
    assert refused.headers["ratelimit-policy"].startswith('"project";q=3;w=3600')
    assert "(4/3 queries running in the last hour)" in refused.json()["error"]
    assert "ratelimit" not in export(http, START).headers


def test_refused_requests_do_not_count(opened: Callable[..., Opened]) -> None:
    """Neither a 429 nor wrong credentials use up the budget."""
    emulator, http = opened(rate_limits=FEW)
    for _ in range(5):
        http.post(COHORTS, auth=("someone", "else"))
    for _ in range(10):
        http.post(COHORTS)
    assert emulator.state.budgets.used("query", 3600) == 3


def test_headers_can_be_absent(opened: Callable[..., Opened]) -> None:
    """Some captures of a 429 have no headers at all."""
    _, http = opened(rate_limits=replace(FEW, query_per_hour=0, headers=False))
    refused = http.post(COHORTS)
    assert refused.status_code == 429
    assert not {"retry-after", "ratelimit", "ratelimit-policy"} & set(refused.headers)


def test_the_export_can_have_headers_and_the_other_text(opened: Callable[..., Opened]) -> None:
    """The current response of the export is unknown, so both forms exist."""
    limits = replace(FEW, export_per_hour=0)
    _, http = opened(rate_limits=limits, export_429_headers=True)
    assert int(export(http, START).headers["retry-after"]) == 3600
    _, http = opened(rate_limits=limits, export_429_text=True)
    assert export(http, START).json()["error"].startswith("Query rate limit exceeded")


def test_pages_of_a_session_are_free_or_not(opened: Callable[..., Opened]) -> None:
    """Only the first page counts, unless `count_engage_pages` is set."""
    for counted, statuses in ((False, [200] * 4), (True, [200, 200, 429, 429])):
        _, http = opened(rate_limits=replace(FEW, count_engage_pages=counted))
        session_id = http.post("/api/query/engage").json()["session_id"]
        fields = {"session_id": session_id, "page": "1"}
        answers = [http.post("/api/query/engage", data=fields) for _ in range(4)]
        assert [answer.status_code for answer in answers] == statuses


def test_queries_at_once_are_limited(opened: Callable[..., Opened]) -> None:
    """While two queries hang, a third is refused with the concurrency text."""
    emulator, http = opened(rate_limits=replace(FEW, query_per_hour=60))
    emulator.faults.add(Fault("timeout", times=2))
    with ThreadPoolExecutor(2) as pool:
        hanging = [pool.submit(http.post, COHORTS) for _ in range(2)]
        while emulator.state.budgets.used("query", 3600) < 2:
            time.sleep(0.005)
        refused = http.post(COHORTS)
        emulator.stop()
    assert [type(future.exception()) for future in hanging] == [httpx.RemoteProtocolError] * 2
    assert refused.status_code == 429
    assert "concurrency limit (3/2 queries running concurrently)" in refused.json()["error"]
    assert refused.headers["ratelimit"] == '"project";r=58, "project-concurrency";r=0;t=10'


def test_an_answered_query_makes_room(opened: Callable[..., Opened]) -> None:
    """Successive queries never exceed the concurrency limit, also after errors."""
    emulator, http = opened(rate_limits=replace(FEW, query_per_hour=60, query_concurrent=1))
    emulator.faults.add(Fault("500-empty"), Fault("cut-gzip", at=3), Fault("404-json"))
    answers = [http.post(COHORTS) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [500, 200, 404, 200, 200]


def test_the_app_api_costs_nothing(opened: Callable[..., Opened]) -> None:
    """`me` is free; the data dictionary has a limit of its own per minute."""
    emulator, http = opened(rate_limits=replace(FEW, query_per_hour=1, schemas_per_minute=2))
    assert {http.get("/api/app/me").status_code for _ in range(9)} == {200}
    path = f"/api/app/projects/{emulator.project_id}/schemas"
    assert [http.get(path).status_code for _ in range(3)] == [200, 200, 429]
    emulator.clock.advance(60)
    assert http.get(path).status_code == 200


def test_a_429_on_request_has_every_form(opened: Callable[..., Opened]) -> None:
    """Faults bring the window, the concurrency, the bare and the export form."""
    emulator, http = opened()
    emulator.faults.add(
        Fault("429-window"),
        Fault("429-concurrency"),
        Fault("429-bare"),
        Fault("429-export-text"),
        Fault("429-window", seconds=2),
    )
    answers = [http.post(COHORTS) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [429] * 5 + [200]
    waits = [answer.headers.get("retry-after") for answer in answers]
    assert waits == ["3600", "10", None, None, "2", None]
    assert answers[3].json()["error"].startswith("too many export requests")
