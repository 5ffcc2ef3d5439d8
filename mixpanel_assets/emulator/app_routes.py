"""The App API: what a credential may see, the data dictionary, annotations."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

from mixpanel_assets.emulator.inbound import Inbound, Response, json_response
from mixpanel_assets.emulator.journeys import FUNNELS


def me(inbound: Inbound) -> Response:
    """Return the projects that the credential can read."""
    project_id = inbound.settings.project_id
    project = {
        "id": project_id,
        "name": "Invented coffee shop",
        "timezone": inbound.settings.zone,
        "organization_id": 77,
        "domain": "mixpanel.com",
    }
    views = {WORKSPACE: "All project data"} | {
        number: f"Data view {number}" for number in inbound.settings.data_views
    }
    results = {
        "user_email": inbound.settings.username,
        "projects": {str(project_id): project},
        "workspaces": {
            str(number): {
                "id": number,
                "project_id": project_id,
                "name": name,
                "is_global": number == WORKSPACE,
            }
            for number, name in views.items()
        },
        "organizations": {"77": {"id": 77, "name": "Invented coffee company"}},
    }
    return _ok(results)


def _ok(results: object) -> Response:
    return json_response({"status": "ok", "results": results})


WORKSPACE = 3001  # the global data view, which every project has


def _schema(description: str, properties: dict[str, str], **metadata: Any) -> dict[str, Any]:
    return {
        "description": description,
        "properties": {
            name: {"type": kind, "description": "", "metadata": {"com.mixpanel": {}}}
            for name, kind in properties.items()
        },
        "metadata": {"com.mixpanel": {"$source": "api", **metadata}},
    }


SCHEMAS: list[dict[str, Any]] = [
    {
        "entityType": "event",
        "name": "Order Completed",
        "schemaJson": _schema(
            "A customer paid for the cart.",
            {
                "amount": "number",
                "currency": "string",
                "coupon": "null",
                "items": "array",
                "Ship To": "object",
                "First Order": "boolean",
            },
            displayName="Order",
            tags=["core"],
            hidden=False,
            dropped=False,
            contacts=["ada@example.com"],
            teamContacts=["growth"],
        ),
    },
    {
        "entityType": "event",
        "name": "Added To Cart",
        "schemaJson": _schema(
            "A product went into the cart.", {"quantity": "integer", "price": "number"}
        ),
    },
    {
        "entityType": "profile",
        "name": "$user",
        "schemaJson": _schema("People who signed up.", {"plan": "string", "logins": "integer"}),
    },
]


def _entries(inbound: Inbound) -> list[dict[str, Any]]:
    """Return the entries of the data dictionary; hidden events are marked, and have one."""
    hidden = inbound.reports.lies.hidden
    events = {entry["name"] for entry in SCHEMAS if entry["entityType"] == "event"}
    marked = [
        {"entityType": "event", "name": name, "schemaJson": _schema("", {}, hidden=True)}
        for name in sorted(hidden)
    ]
    others = [
        entry
        for entry in SCHEMAS
        if entry["entityType"] != "event" or entry["name"] not in hidden & events
    ]
    return [*others, *marked]


def schemas(inbound: Inbound) -> Response:
    """Return the entries of the data dictionary. Events without an entry are not listed."""
    kind = inbound.path_params.get("entity_type")
    name = inbound.params.get("entity_name")
    if kind is not None and kind not in ("event", "profile"):
        raise inbound.shape.refuse(400, f"unknown entity type: {kind}")
    results = [
        entry
        for entry in _entries(inbound)
        if kind in (None, entry["entityType"]) and name in (None, "", entry["name"])
    ]
    if name and inbound.settings.schema_by_name == "definition":
        if not results:
            raise inbound.shape.refuse(404, f"no schema for {kind} {name!r}")
        return _ok(results[0]["schemaJson"])
    return _ok(results)


def schema(inbound: Inbound) -> Response:
    """Return one entry of the data dictionary."""
    wanted = (inbound.path_params["entity_type"], inbound.path_params["name"])
    for entry in _entries(inbound):
        if (entry["entityType"], entry["name"]) == wanted:
            definition = entry["schemaJson"]
            return _ok(definition) if inbound.settings.schema_wrapped else json_response(definition)
    raise inbound.shape.refuse(404, f"no schema for {wanted[0]} {wanted[1]!r}")


ANNOTATIONS: list[dict[str, Any]] = [
    {
        "id": 640_999,
        "date": "2024-01-05 12:00:00",
        "description": "Release 4",
        "user": {"id": 2, "first_name": "Ada", "last_name": "Lo"},
        "tags": [{"id": 3, "name": "release"}],
    },
    {
        "id": 641_000,
        "date": "2024-01-10 09:30:00",
        "description": "Newsletter · „Früh & spät“",
        "user": {"id": 2, "first_name": "Ada", "last_name": "Lo"},
        "tags": [],
    },
]


def annotation_list(inbound: Inbound) -> Response:
    """Return annotations; both dates are included."""
    return _ok(_between(inbound, "fromDate", "toDate"))


def old_annotation_list(inbound: Inbound) -> Response:
    """Return annotations under the path and parameters that are older than the App API."""
    return json_response({"annotations": _between(inbound, "from_date", "to_date")})


def _between(inbound: Inbound, from_name: str, to_name: str) -> list[dict[str, Any]]:
    first, last = inbound.day(from_name, date.min), inbound.day(to_name, date.max)
    tag_ids = _ids(inbound, "tags")
    return [
        _annotation(inbound, note)
        for note in ANNOTATIONS
        if first <= date.fromisoformat(note["date"][:10]) <= last
        and (not tag_ids or tag_ids & {tag["id"] for tag in note["tags"]})
    ]


def _ids(inbound: Inbound, parameter: str) -> set[int]:
    return {
        int(number) for number in inbound.params.get(parameter, "").split(",") if number.isdecimal()
    }


def _by_id(inbound: Inbound, entries: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    for entry in entries:
        if str(entry["id"]) == inbound.path_params[f"{kind}_id"]:
            return entry
    raise inbound.shape.refuse(404, f"{kind} not found")


def _annotation(inbound: Inbound, note: dict[str, Any]) -> dict[str, Any]:
    extra = {"project_id": inbound.settings.project_id}
    return note | extra if inbound.settings.annotation_project_id else note


def annotation(inbound: Inbound) -> Response:
    """Return one annotation."""
    return _ok(_annotation(inbound, _by_id(inbound, ANNOTATIONS, "annotation")))


def annotation_tags(inbound: Inbound) -> Response:
    """Return the tags under `results`, as the prose of the documentation says."""
    tag = {"id": 3, "name": "release", "project_id": inbound.settings.project_id}
    return _ok([{**tag, "has_annotations": True}])


REPORTS: list[dict[str, Any]] = [
    {"id": 100, "type": "insights", "name": "Views and orders", "description": "Two weeks."},
    {"id": 101, "type": "insights", "name": "Orders by country", "description": None},
    *(
        {"id": funnel.id, "type": "funnels", "name": funnel.name, "description": None}
        for funnel in FUNNELS
    ),
]


def bookmarks(inbound: Inbound) -> Response:
    """Return the saved reports in the form that clients read; it is not documented."""
    kind = inbound.params.get("type")
    report_ids = _ids(inbound, "ids")
    reports = [
        _bookmark(inbound, report)
        for report in REPORTS
        if kind in (None, "", report["type"]) and (not report_ids or report["id"] in report_ids)
    ]
    return _ok({"results": reports} if inbound.params.get("v") == "2" else reports)


def bookmark(inbound: Inbound) -> Response:
    """Return one saved report."""
    return _ok(_bookmark(inbound, _by_id(inbound, REPORTS, "bookmark")))


def _bookmark(inbound: Inbound, report: dict[str, Any]) -> dict[str, Any]:
    return report | {
        "project_id": inbound.settings.project_id,
        "workspace_id": WORKSPACE,
        "dashboard_id": 4001,
        "created": "2024-01-03T09:15:00",
        "modified": "2024-01-09T16:40:12",
        "creator_id": 2,
        "creator_name": "Ada Lo",
        "creator_email": "ada@example.com",
        "params": {},
    }


_PROJECT = "/api/app/projects/{project_id}"

APP_HANDLERS: dict[str, Callable[[Inbound], Response]] = {
    "/api/app/me": me,
    f"{_PROJECT}/schemas": schemas,
    f"{_PROJECT}/schemas/{{entity_type}}": schemas,
    f"{_PROJECT}/schemas/{{entity_type}}/{{name:path}}": schema,
    f"{_PROJECT}/annotations": annotation_list,
    f"{_PROJECT}/annotations/tags": annotation_tags,
    f"{_PROJECT}/annotations/{{annotation_id}}": annotation,
    f"{_PROJECT}/bookmarks": bookmarks,
    f"{_PROJECT}/bookmarks/{{bookmark_id}}": bookmark,
}
