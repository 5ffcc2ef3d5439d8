"""Reading of responses in a slow and obvious way."""

import json
from collections.abc import Iterable
from typing import Any

import httpx

Record = dict[str, Any]


def export(
    http: httpx.Client, first: object, last: object = None, **params: object
) -> httpx.Response:
    """Request the raw events of some days."""
    dates = {"from_date": str(first), "to_date": str(last or first)}
    return http.get("/api/2.0/export", params={**http.params, **dates, **params})  # type: ignore[dict-item]


def records(response: httpx.Response) -> list[Record]:
    """Return the records of a response, one per line."""
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.content.split(b"\n") if line]


def texts(found: Iterable[Record]) -> list[str]:
    """Return records as sorted canonical text, to compare them as a bag."""
    return sorted(json.dumps(record, sort_keys=True) for record in found)


def key(record: Record) -> tuple[object, ...] | None:
    """Return the values that duplicates have in common; None: never a duplicate."""
    own = record["properties"]
    if not own.get("$insert_id"):
        return None
    before = own.get("$distinct_id_before_identity")
    original = own.get("distinct_id") if before is None else before
    return record["event"], own.get("time"), own["$insert_id"], original


def settled(found: Iterable[Record]) -> list[Record]:
    """Return records without duplicates: for each key the one processed last."""
    newest: dict[object, Record] = {}
    for number, record in enumerate(found):
        name = key(record) or number
        known = newest.setdefault(name, record)
        if (
            record["properties"]["mp_processing_time_ms"]
            > known["properties"]["mp_processing_time_ms"]
        ):
            newest[name] = record
    return list(newest.values())
