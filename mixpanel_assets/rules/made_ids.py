"""Ids for events that were sent without `$insert_id`: equal events always get equal ids."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Properties that Mixpanel changes in a stored event, and those that the id covers separately.
NOT_CONTENT = frozenset(
    {
        "time",
        "distinct_id",
        "$insert_id",
        "$distinct_id_before_identity",
        "$is_reshuffled",
        "$preshuffle_distinct_id",
        "$mp_api_timestamp_ms",
        "mp_processing_time_ms",
        "mp_original_event_name",
        "mp_original_distinct_id",
    }
)
_HOT_SHARD = "$hotshard_events"


def made_id(
    event: str,
    time_ms: int,
    distinct_id: str | None,
    properties: Mapping[str, Any],
    *,
    twin: int = 0,
) -> str:
    """Return the id of an event that was sent without one.

    Args:
        event: Its name.
        time_ms: `time` as sent, in milliseconds.
        distinct_id: As sent, as text; None if it is missing.
        properties: The parsed properties, with or without the keys of `NOT_CONTENT`.
        twin: The number of equal events of the same day before it. They are different events, so
            each has its own id.
    """
    if event == _HOT_SHARD and isinstance(properties.get("mp_original_event_name"), str):
        event = properties["mp_original_event_name"]
        distinct_id = _id_text(properties.get("mp_original_distinct_id"))
    who = _id_text(properties.get("$distinct_id_before_identity"))
    id_content = {name: value for name, value in properties.items() if name not in NOT_CONTENT}
    id_parts = [event, time_ms, distinct_id if who is None else who, id_content]
    first_id = _made_uuid(_canonical_json(id_parts))
    return twin_id(first_id, twin) if twin else first_id


def twin_id(first_id: str, twin: int) -> str:
    """Return the id of the equal event with that number, from the id of number 0."""
    return _made_uuid(f"{first_id} {twin}") if twin else first_id


def _canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _id_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else _canonical_json(value)


def _made_uuid(id_content: str) -> str:
    digest = hashlib.sha256(id_content.encode()).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
