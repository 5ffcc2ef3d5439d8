"""Responses compared with Mixpanel's own OpenAPI files, which are test data.

Known slips of those files, each put right here: `$distinct_id` of a profile is text, not an
integer; sums of numbers are numbers, not integers; the first step of a funnel has no times;
a single data dictionary entry has been seen inside `results`; annotations have been seen with
`project_id`, which the file forbids.
"""

import json
import re
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml

from mixpanel_assets.emulator import Emulator

from .conftest import START
from .rows import export

OPENAPI = Path(__file__).parents[1] / "data" / "openapi"
DAY = str(START + timedelta(days=4))
RANGE = {"from_date": str(START), "to_date": DAY}
ORDERS = {**RANGE, "event": "Order Completed"}
AMOUNT = {**ORDERS, "on": 'properties["amount"]'}
COUNTS = {"type": "general", "unit": "day"}


@cache
def document(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((OPENAPI / f"{name}.openapi.yaml").read_text())
    return loaded


def schema(name: str, path: str, method: str, status: str = "200") -> dict[str, Any]:
    """Return a response's schema, able to resolve its references."""
    whole = document(name)
    answer = whole["paths"][path][method]["responses"][status]
    (content,) = answer["content"].values()
    return {**content["schema"], "components": whole["components"]}


def corrected(found: dict[str, Any], *steps: str, to: Any) -> dict[str, Any]:
    """Return a copy of a schema with one part put right."""
    copy: dict[str, Any] = json.loads(json.dumps(found))
    part = copy
    for step in steps[:-1]:
        part = part[step]
    part[steps[-1]] = to
    return copy


CASES = [
    ("/insights", "get", {"bookmark_id": 100}),
    ("/insights", "get", {"bookmark_id": 101}),
    ("/funnels/list", "get", {}),
    ("/retention", "get", {**RANGE, "born_event": "Sign Up", "interval_count": 3}),
    ("/retention/addiction", "get", {**RANGE, "unit": "day", "addiction_unit": "hour"}),
    ("/segmentation", "get", ORDERS),
    ("/segmentation", "get", {**ORDERS, "on": 'properties["country"]'}),
    ("/segmentation/numeric", "get", AMOUNT),
    ("/segmentation/average", "get", AMOUNT),
    ("/stream/query", "get", {**RANGE, "distinct_ids": '["user-9005"]'}),
    ("/events", "get", {**RANGE, **COUNTS, "event": '["Sign Up"]'}),
    ("/events/top", "get", {"type": "general"}),
    ("/events/names", "get", {"type": "general"}),
    ("/events/properties", "get", {**RANGE, **COUNTS, "event": "Sign Up", "name": "plan"}),
    ("/events/properties/top", "get", {"event": "Sign Up"}),
    ("/events/properties/values", "get", {"event": "Sign Up", "name": "plan"}),
]


@pytest.mark.parametrize(("path", "method", "params"), CASES)
def test_queries_have_the_official_shape(
    http: httpx.Client, path: str, method: str, params: dict[str, Any]
) -> None:
    """A response of the Query API matches the official schema, and has the keys of its example."""
    answer = http.request(method, f"/api/query{path}", params={**http.params, **params})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/json")
    official = schema("query", path, method)
    jsonschema.validate(answer.json(), official)
    if official["type"] == "object" and "properties" in official:
        assert official["properties"].keys() <= answer.json().keys()


def test_cohorts_have_the_official_shape(http: httpx.Client) -> None:
    """The list of cohorts is a bare array whose entries have every official key."""
    official = schema("query", "/cohorts/list", "post")
    for answer in (http.post("/api/query/cohorts/list"), http.get("/api/2.0/cohorts/list")):
        jsonschema.validate(answer.json(), official)
        for cohort in answer.json():
            assert official["items"]["properties"].keys() <= cohort.keys()


def test_profiles_have_the_official_shape(http: httpx.Client) -> None:
    """A page of profiles fits, once ids are allowed to be text."""
    official = schema("query", "/engage", "post")
    profile = ("properties", "results", "items", "properties")
    official = corrected(official, *profile, "$distinct_id", to={"type": "string"})
    answer = http.post("/api/query/engage", data={"page_size": 60}).json()
    jsonschema.validate(answer, official)
    assert official["properties"].keys() <= answer.keys()


def test_sums_have_the_official_shape(http: httpx.Client) -> None:
    """Sums fit, once they are allowed to be fractions."""
    official = schema("query", "/segmentation/sum", "get")
    sums = ("properties", "results", "additionalProperties")
    official = corrected(official, *sums, to={"type": "number"})
    answer = http.get("/api/query/segmentation/sum", params={**http.params, **AMOUNT})
    jsonschema.validate(answer.json(), official)


def test_funnels_have_the_official_shape(http: httpx.Client) -> None:
    """A funnel matches if numbers may be null and ratios integers, and has every official key."""
    official = schema("query", "/funnels", "get")
    answer = http.get(
        "/api/query/funnels", params={**http.params, **RANGE, "funnel_id": 7509}
    ).json()
    text = json.dumps(official)
    steps = json.loads(text)["properties"]["data"]["additionalProperties"]["properties"]["steps"]
    optional = {"custom_event", "custom_event_id"}
    for entry in answer["data"].values():
        for step in entry["steps"]:
            named = steps["items"]["properties"].keys() - optional
            assert named <= step.keys()
            timed = {**step, "avg_time": step["avg_time"] or 0}
            timed["avg_time_from_start"] = step["avg_time_from_start"] or 0
            jsonschema.validate(timed, steps["items"])
    assert answer["meta"]["dates"] == list(answer["data"])


def test_scripts_answer_a_bare_array(http: httpx.Client) -> None:
    """The response to a script matches the official schema."""
    script = 'function main(){return Events({from_date:"2024-01-01",to_date:"2024-01-02"})'
    script += '.groupBy(["name"], mixpanel.reducer.count())}'
    answer = http.post("/api/query/jql", data={"script": script})
    jsonschema.validate(answer.json(), schema("query", "/jql", "post"))


def test_the_export_fits_its_example(http: httpx.Client) -> None:
    """Each line has the two keys of the official example, and the body ends like it."""
    official = schema("export", "/export", "get")
    example = [json.loads(line) for line in official["example"].splitlines() if line]
    answer = export(http, DAY)
    jsonschema.validate(answer.text, official)
    assert answer.content.endswith(b"\n")
    for line in answer.content.split(b"\n")[:-1]:
        record = json.loads(line)
        assert record.keys() == example[0].keys()
        assert type(record["properties"]["time"]) is type(example[0]["properties"]["time"])


def test_official_paths_are_known(emulator: Emulator) -> None:
    """The emulator has every path of the official query file."""
    with httpx.Client(base_url=emulator.base_url, trust_env=False) as client:
        client.auth = (emulator.username, emulator.secret)
        for path in document("query")["paths"]:
            answer = client.get(f"/api/query{path}", params={"project_id": emulator.project_id})
            assert "Invalid API endpoint" not in answer.text, path


# Questions that use as many documented parameters as go together.
ASKED: dict[str, dict[str, object]] = {
    "/insights": {"bookmark_id": 100},
    "/funnels": {**RANGE, "funnel_id": 7509, "on": 'properties["page"]', "length": 1},
    "/funnels/list": {},
    "/retention": {**RANGE, "born_event": "Sign Up", "event": "Page View"},
    "/retention/addiction": {**RANGE, "unit": "day", "addiction_unit": "hour"},
    "/segmentation": {**ORDERS, "on": 'properties["country"]'},
    "/segmentation/numeric": AMOUNT,
    "/segmentation/sum": AMOUNT,
    "/segmentation/average": AMOUNT,
    "/stream/query": {**RANGE, "distinct_ids": '["user-9005"]'},
    "/cohorts/list": {},
    "/engage": {"filter_by_cohort": '{"id": 1000}', "where": "true"},
    "/events": {**RANGE, **COUNTS, "event": '["Sign Up"]'},
    "/events/top": {"type": "general"},
    "/events/names": {"type": "general"},
    "/events/properties": {**RANGE, **COUNTS, "event": "Sign Up", "name": "plan"},
    "/events/properties/top": {"event": "Sign Up"},
    "/events/properties/values": {"event": "Sign Up", "name": "plan"},
    "/jql": {"script": "main()"},
}
# Documented to have no effect without another parameter, which is refused or not sent here.
NEEDS_ANOTHER = {
    ("/retention", "limit"): "on",
    ("/retention/addiction", "limit"): "on",
    ("/engage", "as_of_timestamp"): "behaviors",
    ("/jql", "params"): "script",
}


def documented_parameters(path: str) -> set[str]:
    """Return the names of a path's parameters in the official query file."""
    whole = document("query")
    item = whole["paths"][path]
    found = set()
    for operation in [one for one in item.values() if isinstance(one, dict)]:
        for named in (*operation.get("parameters", ()), *item.get("parameters", ())):
            reference = named.get("$ref", "").rsplit("/", 1)[-1]
            known = whole["components"]["parameters"][reference] if reference else named
            found.add(known["name"])
        for content in operation.get("requestBody", {}).get("content", {}).values():
            found |= content["schema"]["properties"].keys()
    return {name for name in found if (path, name) not in NEEDS_ANOTHER}


@pytest.mark.parametrize("path", ASKED)
def test_every_documented_parameter_matters(http: httpx.Client, path: str) -> None:
    """An invalid value of any parameter is refused or changes the response, so none is ignored."""
    assert ASKED.keys() == document("query")["paths"].keys()

    def answer(**changes: object) -> tuple[int, str]:
        params = {**http.params, **ASKED[path], **changes}
        method = "POST" if path in ("/engage", "/jql") else "GET"
        got = http.request(method, f"/api/query{path}", params=params)  # type: ignore[arg-type]
        # Each question without a session opens one.
        return got.status_code, re.sub(r'"session_id":"[^"]*"', "", got.text)

    before = answer()
    assert before[0] == (412 if path == "/jql" else 200)
    names = documented_parameters(path)
    assert names >= {"project_id", "workspace_id"}
    for name in names:
        after = answer(**{name: "((nonsense"})
        assert after[0] != 200 or after != before, name


def test_the_data_dictionary_has_the_official_shape(http: httpx.Client, emulator: Emulator) -> None:
    """Lists fit as they are, one entry fits inside `results`; strangers get official errors."""
    root = f"/api/app/projects/{emulator.project_id}/schemas"
    listed = "/projects/{projectId}/schemas"
    jsonschema.validate(http.get(root).json(), schema("lexicon-schemas", listed, "get"))
    events = http.get(f"{root}/event").json()
    jsonschema.validate(events, schema("lexicon-schemas", f"{listed}/{{entityType}}", "get"))
    assert {entry["entityType"] for entry in events["results"]} == {"event"}
    one = http.get(f"{root}/event/Order%20Completed").json()["results"]
    path = f"{listed}/{{entityType}}/{{name}}"
    jsonschema.validate(one, schema("lexicon-schemas", path, "get"))
    stranger = http.get(root, auth=("someone", "else"))
    assert stranger.status_code == 401
    jsonschema.validate(stranger.json(), schema("lexicon-schemas", listed, "get", "401"))
    assert http.get(f"{root}/event/Nope").status_code == 404
    assert http.get(f"{root}/nonsense").status_code == 400


def test_annotations_have_the_official_shape(http: httpx.Client, emulator: Emulator) -> None:
    """Notes fit; both dates of a range are included; tags are known."""
    root = f"/api/app/projects/{emulator.project_id}/annotations"
    listed = "/projects/{projectId}/annotations"
    for path in (root, f"{root}/"):
        answer = http.get(path).json()
        assert {note.pop("project_id") for note in answer["results"]} == {emulator.project_id}
        jsonschema.validate(answer, schema("annotations", listed, "get"))
    one = http.get(root, params={"fromDate": "2024-01-10", "toDate": "2024-01-10"}).json()[
        "results"
    ]
    assert [note["id"] for note in one] == [641000]
    single = http.get(f"{root}/641000").json()
    assert single["results"].pop("project_id") == emulator.project_id
    jsonschema.validate(single, schema("annotations", f"{listed}/{{annotationId}}", "get"))
    assert http.get(f"{root}/tags").json()["results"][0]["name"] == "release"
    assert http.get(f"{root}/1").status_code == 404
