"""The App API: what a credential may see, the data dictionary, annotations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mixpanel_assets.emulator.answers import Answer, json_answer
from mixpanel_assets.emulator.call import Call


def me(call: Call) -> Answer:
    """Answer which projects the credential may see."""
    project_id = str(call.settings.project_id)
    project = {
        "id": call.settings.project_id,
        "name": "Invented coffee shop",
        "timezone": call.settings.zone,
        "organization_id": 77,
        "domain": "mixpanel.com",
    }
    results = {
        "user_email": call.settings.username,
        "projects": {project_id: project},
        "workspaces": {
            "3001": {
                "id": 3001,
                "project_id": call.settings.project_id,
                "name": "All project data",
                "is_global": True,
            }
        },
        "organizations": {"77": {"id": 77, "name": "Invented coffee company"}},
    }
    return json_answer({"status": "ok", "results": results})


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


def schemas(call: Call) -> Answer:
    """Answer the entries of the data dictionary; events without one are not listed."""
    kind = call.path_params.get("entity_type")
    name = call.params.get("entity_name")
    if kind is not None and kind not in ("event", "profile"):
        raise call.shape.refuse(400, f"unknown entity type: {kind}")
    results = [
        entry
        for entry in SCHEMAS
        if kind in (None, entry["entityType"]) and name in (None, "", entry["name"])
    ]
    return json_answer({"results": results, "status": "ok"})


def schema(call: Call) -> Answer:
    """Answer one entry of the data dictionary."""
    wanted = (call.path_params["entity_type"], call.path_params["name"])
    for entry in SCHEMAS:
        if (entry["entityType"], entry["name"]) == wanted:
            if call.settings.schema_wrapped:
                return json_answer({"results": entry["schemaJson"], "status": "ok"})
            return json_answer(entry["schemaJson"])
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


def annotation_list(call: Call) -> Answer:
    """Answer the notes on the time line; both dates are included."""
    first = call.params.get("fromDate") or "0000"
    last = call.params.get("toDate") or "9999"
    found = [note for note in ANNOTATIONS if first <= note["date"][:10] <= last]
    return json_answer({"status": "ok", "results": found})


def annotation(call: Call) -> Answer:
    """Answer one note."""
    for note in ANNOTATIONS:
        if str(note["id"]) == call.path_params["annotation_id"]:
            return json_answer({"status": "ok", "results": note})
    raise call.shape.refuse(404, "annotation not found")


def annotation_tags(call: Call) -> Answer:
    """Answer the tags: as the prose has it, under `results`."""
    tag = {"id": 3, "name": "release", "project_id": call.settings.project_id}
    return json_answer({"status": "ok", "results": [{**tag, "has_annotations": True}]})


_PROJECT = "/api/app/projects/{project_id}"

APP_HANDLERS: dict[str, Callable[[Call], Answer]] = {
    "/api/app/me": me,
    f"{_PROJECT}/schemas": schemas,
    f"{_PROJECT}/schemas/{{entity_type}}": schemas,
    f"{_PROJECT}/schemas/{{entity_type}}/{{name:path}}": schema,
    f"{_PROJECT}/annotations": annotation_list,
    f"{_PROJECT}/annotations/tags": annotation_tags,
    f"{_PROJECT}/annotations/{{annotation_id}}": annotation,
}
