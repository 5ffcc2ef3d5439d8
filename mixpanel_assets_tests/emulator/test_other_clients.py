"""Undocumented requests of clients in production, each on the wire as they send it."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from mixpanel_assets.emulator import Emulator, Limits

from .conftest import NOW, START, Opened, http_client
from .rows import export, records, texts
from .test_queries import DAYS, RANGE, ask


def with_slash(http: httpx.Client, path: str, **params: object) -> httpx.Response:
    return http.get(path + "/", params={**http.params, **params})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/api/2.0/export", {"from_date": "2024-01-03", "to_date": "2024-01-03"}),
        ("/region/us/api/2.0/export", {"from_date": "2024-01-03", "to_date": "2024-01-03"}),
        ("/api/query/engage", {"distinct_id": "user-40200000"}),
        ("/api/2.0/engage", {"distinct_id": "user-40200000"}),
        ("/api/query/funnels/list", {}),
        ("/api/query/cohorts/list", {}),
        ("/api/query/events", {**RANGE, "event": '["Sign Up"]'}),
        ("/api/2.0/annotations", {}),
        ("/api/app/me", {}),
        ("/api/app/projects/12345/annotations", {}),
        ("/api/app/projects/12345/schemas/event", {}),
        ("/api/app/projects/12345/bookmarks", {"v": "2"}),
    ],
)
def test_one_trailing_slash_makes_no_difference(
    http: httpx.Client, path: str, params: dict[str, str]
) -> None:
    """Every API path has the same response with a slash at its end; two slashes are an error."""
    plain = http.get(path, params={**http.params, **params})
    slashed = with_slash(http, path, **params)
    assert plain.status_code == slashed.status_code == 200
    if path.endswith("export"):
        assert texts(records(plain)) == texts(records(slashed))
    else:
        moving = {"session_id", "computed_at"}
        one, other = plain.json(), slashed.json()
        if isinstance(one, dict):
            one, other = ({k: v for k, v in x.items() if k not in moving} for x in (one, other))
        assert one == other
    assert with_slash(http, path + "/", **params).status_code in (400, 404)


def test_the_log_and_faults_know_a_path_with_a_slash(
    emulator: Emulator, http: httpx.Client
) -> None:
    """The log has the path as sent; a fault of the path also affects the one with a slash."""
    answer = http.post("/api/query/engage/", data={"page": "0"})
    assert answer.json()["total"] == 250
    assert emulator.requests[-1].path == "/api/query/engage/"
    refused = with_slash(http, "/api/query/funnels", **RANGE, funnel_id=1)
    assert refused.json()["request"].startswith("/api/query/funnels/?")


def test_a_name_that_ends_in_a_slash_keeps_it(http: httpx.Client) -> None:
    """An escaped slash at the end of a path belongs to the name that the path ends with."""
    refused = http.get("/api/app/projects/12345/schemas/event/in%2Fout%2F")
    assert refused.status_code == 404
    assert "'in/out/'" in refused.json()["error"]


def test_properties_of_all_events(
    emulator: Emulator, http: httpx.Client, opened: Callable[..., Opened]
) -> None:
    """Without `event`, names and values are those of all events together, or a refusal."""
    names: Counter[str] = Counter()
    browsers = set()
    for day in DAYS:
        for row in emulator.truth.events(day):
            names.update(list(row["properties"]))
            if "$browser" in row["properties"]:
                browsers.add(row["properties"]["$browser"])
    top = ask(http, "events/properties/top", limit=2000)
    for name in ("$browser", "amount", "method", "rows"):
        assert top[name] == {"count": names[name]}
    assert set(ask(http, "events/properties/values", name="$browser")) == browsers
    _, http = opened(properties_without_event="400")
    for path in ("events/properties/top", "events/properties/values"):
        refused = http.get(f"/api/query/{path}", params={**http.params, "name": "$browser"})
        assert refused.status_code == 400
        assert refused.json()["error"] == "event is a required parameter"


@pytest.mark.parametrize("cohort", [1000, "1000"])
def test_a_cohort_by_number_or_text(http: httpx.Client, cohort: int | str) -> None:
    """The id of a cohort is taken as a number and as text."""
    listed = {one["id"]: one["count"] for one in ask(http, "cohorts/list")}
    asked = {"filter_by_cohort": json.dumps({"id": cohort})}
    answer = http.post("/api/query/engage", data=asked).json()
    assert answer["total"] == listed[1000]
    stats = http.post("/api/query/engage/stats", data={**asked, "action": "count()"}).json()
    assert stats["results"] == listed[1000]


def test_a_profile_without_properties(opened: Callable[..., Opened]) -> None:
    """Clients expect an object in every profile; a setting sends null, which no source has."""
    for null, nothing in ((False, {}), (True, None)):
        _, http = opened(null_properties=null)
        found = http.post("/api/query/engage/", json={"page": 0}).json()["results"]
        empty = [one["$properties"] for one in found if not one["$properties"]]
        assert empty == [nothing]


def test_a_limit_of_profiles_leaves_the_total(http: httpx.Client) -> None:
    """`limit` restricts the profiles; `total` is still the number of all matching ones."""
    answer = http.post("/api/query/engage", data={"limit": "7"}).json()
    assert (len(answer["results"]), answer["total"]) == (7, 250)


def test_annotations_name_their_project(opened: Callable[..., Opened]) -> None:
    """`project_id` is in annotations, as observed; without it they are as documented."""
    for present in (True, False):
        emulator, http = opened(annotation_project_id=present)
        root = f"/api/app/projects/{emulator.project_id}/annotations"
        notes = [*http.get(root).json()["results"], http.get(f"{root}/640999").json()["results"]]
        assert {note.get("project_id") for note in notes} == {
            emulator.project_id if present else None
        }


def test_annotations_by_tag_and_under_their_old_path(http: httpx.Client) -> None:
    """Tags filter; the old path has its own parameters and its own key, and is not counted."""
    tagged = http.get("/api/app/projects/12345/annotations", params={"tags": "3,9"}).json()
    assert [note["id"] for note in tagged["results"]] == [640999]
    old = http.get(
        "/api/2.0/annotations",
        params={**http.params, "from_date": "2024-01-10", "to_date": "2024-01-31"},
    )
    assert [note["id"] for note in old.json()["annotations"]] == [641000]
    wrong = http.get("/api/2.0/annotations", params={**http.params, "from_date": "soon"})
    assert wrong.status_code == 400


def test_the_old_annotations_cost_no_query(opened: Callable[..., Opened]) -> None:
    """The limit of the Query API does not count annotations."""
    _, http = opened(rate_limits=Limits(query_per_hour=1))
    for _ in range(3):
        assert http.get("/api/2.0/annotations").status_code == 200
    assert http.get("/api/query/funnels/list").status_code == 200


def test_one_schema_by_name(opened: Callable[..., Opened]) -> None:
    """`entity_name` returns the definition alone, as clients read it, or a list of one entry."""
    _, http = opened()
    path = "/api/app/projects/12345/schemas/event"
    named = {"entity_name": "Order Completed"}
    found = http.get(path, params=named).json()["results"]
    assert found["description"] == "A customer paid for the cart."
    assert http.get(path, params={"entity_name": "Nope"}).status_code == 404
    _, http = opened(schema_by_name="list")
    (entry,) = http.get(path, params=named).json()["results"]
    assert entry["schemaJson"] == found
    assert http.get(path, params={"entity_name": "Nope"}).json()["results"] == []


# Keys that a client in production reads without a default.
BOOKMARK = {"id", "name", "type", "project_id", "created", "modified"}


def test_saved_reports_are_listed(http: httpx.Client) -> None:
    """The list has every report that can be requested; `v=2` adds an envelope."""
    path = "/api/app/projects/12345/bookmarks"
    old: list[dict[str, Any]] = http.get(path).json()["results"]
    assert old == http.get(path, params={"v": "2"}).json()["results"]["results"]
    assert all(entry.keys() >= BOOKMARK for entry in old)
    for entry in old:
        params = {"bookmark_id": entry["id"]}
        if entry["type"] == "funnels":
            params = {"funnel_id": entry["id"], **RANGE}
        assert ask(http, entry["type"], **params)
        assert http.get(f"{path}/{entry['id']}").json()["results"] == entry
    funnels = http.get(path, params={"v": "2", "type": "funnels"}).json()["results"]["results"]
    listed = {one["funnel_id"]: one["name"] for one in ask(http, "funnels/list")}
    assert {entry["id"]: entry["name"] for entry in funnels} == listed
    some = http.get(path, params={"ids": "101,7509,3"}).json()["results"]
    assert [entry["id"] for entry in some] == [101, 7509]
    assert http.get(f"{path}/3").status_code == 404


def test_what_is_not_pretended_is_404(http: httpx.Client) -> None:
    """The App API sends 404 for unknown paths and for writes."""
    project = "/api/app/projects/12345"
    for path in (f"{project}/dashboards/", f"{project}/feature-flags", "/api/app/nothing"):
        answer = http.get(path)
        assert (answer.status_code, answer.json()["status"]) == (404, "error")
    assert http.post(f"{project}/annotations", json={"date": "2024-01-01"}).status_code == 404
    assert http.delete(f"{project}/schemas").status_code == 404


def test_weeks_of_segmentation(opened: Callable[..., Opened]) -> None:
    """`unit=week` is accepted, as clients expect, or refused, because it is not documented."""
    for accepted in (True, False):
        _, http = opened(segmentation_weeks=accepted)
        params = {**http.params, **RANGE, "event": "Sign Up", "unit": "week"}
        answer = http.get("/api/query/segmentation", params=params)
        assert answer.status_code == (200 if accepted else 400)


def test_a_data_view_filters(opened: Callable[..., Opened]) -> None:
    """`workspace_id` filters reports and profiles when it names a data view, else nothing."""
    emulator, http = opened(data_views={8: 'properties["$browser"] == "Firefox"'})
    params = {**RANGE, "event": "Page View"}
    whole = ask(http, "segmentation", **params)["data"]["values"]
    assert ask(http, "segmentation", **params, workspace_id=3001)["data"]["values"] == whole
    rows = [row for day in DAYS for row in emulator.truth.events(day)]
    views = [row for row in rows if row["event"] == "Page View"]
    firefox = [row for row in views if row["properties"].get("$browser") == "Firefox"]
    part = ask(http, "segmentation", **params, workspace_id=8)["data"]["values"]
    assert 0 < sum(part["Page View"].values()) == len(firefox) < len(views)
    profiles = http.post("/api/query/engage", data={"workspace_id": "8"}).json()["results"]
    assert {one["$properties"]["$browser"] for one in profiles} == {"Firefox"}
    everything = export(http, START, workspace_id=8)
    assert len(records(everything)) == len(list(emulator.truth.lines(START)))
    wrong = http.get("/api/query/funnels/list", params={**http.params, "workspace_id": "all"})
    assert wrong.status_code == 400
    assert http.get("/api/app/me").json()["results"]["workspaces"].keys() == {"3001", "8"}


def test_expressions_see_the_profile_of_an_event(emulator: Emulator, http: httpx.Client) -> None:
    """`user[...]` is a property of the profile of the person whose event it is."""
    plans = {
        profile["$distinct_id"]: (profile["$properties"] or {}).get("plan")
        for profile in emulator.truth.profiles()
    }
    where = 'user["plan"] == "team"'
    counts = ask(http, "segmentation", **RANGE, event="Page View", where=where)["data"]["values"]
    owners = [
        plans.get(row["properties"].get("distinct_id"))
        for day in DAYS
        for row in emulator.truth.events(day)
        if row["event"] == "Page View"
    ]
    assert sum(counts["Page View"].values()) == owners.count("team") > 0
    lines = records(export(http, DAYS[0], DAYS[-1], where=where))
    assert {plans[line["properties"]["distinct_id"]] for line in lines} == {"team"}


def test_names_by_people(emulator: Emulator, http: httpx.Client) -> None:
    """`type` decides by what the names are ranked."""
    people: dict[str, set[str]] = {}
    for day in DAYS:
        for row in emulator.truth.events(day):
            identity = row["properties"].get("distinct_id")
            people.setdefault(row["event"], set())
            if identity is not None:
                people[row["event"]].add(str(identity))
    names = ask(http, "events/names", type="unique")
    sizes = [len(people[name]) for name in names]
    assert sizes == sorted(sizes, reverse=True)
    assert names != ask(http, "events/names", type="average")


@pytest.mark.parametrize(
    ("path", "params", "named"),
    [
        ("segmentation", {"event": "Sign Up", "interval": "2"}, "interval"),
        ("segmentation", {"event": "Sign Up", "interval": "2", "type": "unique"}, "interval"),
        ("segmentation", {"event": "Sign Up", "format": "xml"}, "format"),
        ("segmentation", {"event": "Sign Up", "type": "unique", "unit": "hour"}, "hour"),
        ("events", {"event": '["Sign Up"]', "interval": "2"}, "interval"),
        ("events", {"event": '["Sign Up"]', "type": "unique", "unit": "minute"}, "minute"),
        ("events/names", {"type": "most"}, "type"),
        ("retention", {"born_event": "Sign Up", "on": 'properties["plan"]'}, "on"),
        ("retention", {"born_event": "Sign Up", "interval": "91"}, "interval"),
        ("retention", {"born_event": "Sign Up", "interval": "0"}, "interval"),
        ("retention", {"retention_type": "compounded", "born_where": "true"}, "born_where"),
        (
            "retention/addiction",
            {"unit": "day", "addiction_unit": "hour", "on": 'properties["plan"]'},
            "on",
        ),
        ("funnels", {"funnel_id": "7509", "unit": "day", "interval": "2"}, "interval"),
        ("funnels", {"funnel_id": "7509", "length_unit": "hour"}, "length_unit"),
        ("engage", {"search": "Ada"}, "search"),
        ("engage", {"behaviors": '[{"window":"3d","name":"b","event_selectors":[]}]'}, "behaviors"),
        ("engage/stats", {"segment_by_cohorts": '{"1000": true}'}, "segment_by_cohorts"),
        ("funnels/list", {"workspace_id": "all"}, "workspace_id"),
    ],
)
def test_what_is_not_honoured_is_refused(
    http: httpx.Client, path: str, params: dict[str, str], named: str
) -> None:
    """A parameter that would change the response is supported or refused, never ignored."""
    asked = {**http.params, **RANGE, **params}
    answer = http.get(f"/api/query/{path}", params=asked)
    assert answer.status_code == 400
    assert named in answer.json()["error"]


def test_behaviors_look_back_from_the_moment_named(emulator: Emulator, http: httpx.Client) -> None:
    """The window of a behavior ends at `as_of_timestamp`, or now."""
    window = [{"window": "2d", "name": "b", "event_selectors": [{"event": "Order Completed"}]}]
    asked = {"behaviors": json.dumps(window), "where": '(behaviors["b"] > 0)'}

    profiles = {profile["$distinct_id"] for profile in emulator.truth.profiles()}

    def buyers(first: int, last: int) -> set[str]:
        rows = [row for day in DAYS[first : last + 1] for row in emulator.truth.events(day)]
        ids = {
            row["properties"]["distinct_id"] for row in rows if row["event"] == "Order Completed"
        }
        return ids & profiles

    moment = int(NOW.timestamp()) - 5 * 86_400 + 43_199  # the end of the 10th
    for as_of, expected in ((None, buyers(13, 13)), (moment, buyers(8, 9))):
        data = asked if as_of is None else {**asked, "as_of_timestamp": str(as_of)}
        answer = http.post("/api/query/engage", data=data).json()
        assert {one["$distinct_id"] for one in answer["results"]} == expected != set()


def test_a_client_without_project_in_the_body(emulator: Emulator) -> None:
    """A JSON body can name the project, and its lists need not be text."""
    with http_client(emulator, params={}) as client:
        body = {"project_id": emulator.project_id, "page": 0, "output_properties": ["plan"]}
        answer = client.post("/api/query/engage/", json=body).json()
        assert answer["total"] == 250
        assert answer["results"][0]["$properties"].keys() == {"plan"}
