"""The App API: what a credential may see, the data dictionary, annotations."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

from mixpanel_assets.emulator.call import Call, Response, json_response
from mixpanel_assets.emulator.journeys import FUNNELS


def me(call: Call) -> Response:
    """Return the projects that the credential can read."""
    project_id = str(call.settings.project_id)
    project = {
        "id": call.settings.project_id,
        "name": "Invented coffee shop",
        "timezone": call.settings.zone,
        "organization_id": 77,
        "domain": "mixpanel.com",
    }
    views = {WORKSPACE: "All project data"} | {
        number: f"Data view {number}" for number in call.settings.data_views
    }
    results = {
        "user_email": call.settings.username,
        "projects": {project_id: project},
        "workspaces": {
            str(number): {
                "id": number,
                "project_id": call.settings.project_id,
                "name": name,
                "is_global": number == WORKSPACE,
            }
            for number, name in views.items()
        },
        "organizations": {"77": {"id": 77, "name": "Invented coffee company"}},
    }
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


def schemas(call: Call) -> Response:
    """Return the entries of the data dictionary. Events without an entry are not listed."""
    kind = call.path_params.get("entity_type")
    name = call.params.get("entity_name")
    if kind is not None and kind not in ("event", "profile"):
        raise call.shape.refuse(400, f"unknown entity type: {kind}")
    results = [
        entry
        for entry in SCHEMAS
        if kind in (None, entry["entityType"]) and name in (None, "", entry["name"])
    ]
    if name and call.settings.schema_by_name == "definition":
        if not results:
            raise call.shape.refuse(404, f"no schema for {kind} {name!r}")
        return json_response({"results": results[0]["schemaJson"], "status": "ok"})
    return json_response({"results": results, "status": "ok"})


def schema(call: Call) -> Response:
    """Return one entry of the data dictionary."""
    wanted = (call.path_params["entity_type"], call.path_params["name"])
    for entry in SCHEMAS:
        if (entry["entityType"], entry["name"]) == wanted:
            if call.settings.schema_wrapped:
                return json_response({"results": entry["schemaJson"], "status": "ok"})
            return json_response(entry["schemaJson"])
    raise call.shape.refuse(404, f"no schema for {wanted[0]} {wanted[1]!r}")


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


def annotation_list(call: Call) -> Response:
    """Return annotations; both dates are included."""
    return json_response({"status": "ok", "results": _between(call, "fromDate", "toDate")})


def old_annotation_list(call: Call) -> Response:
    """Return annotations under the path and parameters that are older than the App API."""
    return json_response({"annotations": _between(call, "from_date", "to_date")})


def _between(call: Call, from_name: str, to_name: str) -> list[dict[str, Any]]:
    first, last = call.day(from_name, date.min), call.day(to_name, date.max)
    wanted = {int(tag) for tag in call.params.get("tags", "").split(",") if tag.isdecimal()}
    return [
        _annotation(call, note)
        for note in ANNOTATIONS
        if first <= date.fromisoformat(note["date"][:10]) <= last
        and (not wanted or wanted & {tag["id"] for tag in note["tags"]})
    ]


def _annotation(call: Call, note: dict[str, Any]) -> dict[str, Any]:
    extra = {"project_id": call.settings.project_id}
    return note | extra if call.settings.annotation_project_id else note


def annotation(call: Call) -> Response:
    """Return one annotation."""
    for note in ANNOTATIONS:
        if str(note["id"]) == call.path_params["annotation_id"]:
            return json_response({"status": "ok", "results": _annotation(call, note)})
    raise call.shape.refuse(404, "annotation not found")


def annotation_tags(call: Call) -> Response:
    """Return the tags under `results`, as the prose of the documentation says."""
    tag = {"id": 3, "name": "release", "project_id": call.settings.project_id}
    return json_response({"status": "ok", "results": [{**tag, "has_annotations": True}]})


REPORTS: list[dict[str, Any]] = [
    {"id": 100, "type": "insights", "name": "Views and orders", "description": "Two weeks."},
    {"id": 101, "type": "insights", "name": "Orders by country", "description": None},
    *(
        {"id": funnel.id, "type": "funnels", "name": funnel.name, "description": None}
        for funnel in FUNNELS
    ),
]


def bookmarks(call: Call) -> Response:
    """Return the saved reports in the form that clients read; it is not documented."""
    kind = call.params.get("type")
    ids = {int(text) for text in call.params.get("ids", "").split(",") if text.isdecimal()}
    matching = [
        _bookmark(call, report)
        for report in REPORTS
        if kind in (None, "", report["type"]) and (not ids or report["id"] in ids)
    ]
    results = {"results": matching} if call.params.get("v") == "2" else matching
    return json_response({"status": "ok", "results": results})


def bookmark(call: Call) -> Response:
    """Return one saved report."""
    for report in REPORTS:
        if str(report["id"]) == call.path_params["bookmark_id"]:
            return json_response({"status": "ok", "results": _bookmark(call, report)})
    raise call.shape.refuse(404, "bookmark not found")


def _bookmark(call: Call, report: dict[str, Any]) -> dict[str, Any]:
    return report | {
        "project_id": call.settings.project_id,
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

APP_HANDLERS: dict[str, Callable[[Call], Response]] = {
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
