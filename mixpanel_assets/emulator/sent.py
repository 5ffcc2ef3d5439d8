"""An event as a client sent it: whether it is taken, and what of it is kept.

Source: Mixpanel reference, Import Events, Track Events and Event Deduplication; read 2026-11.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

EARLIEST_MS = 31_536_000_000  # 1971-01-01
HOUR_MS = 3_600_000
IDENTITY_EVENTS = frozenset(["$identify", "$create_alias", "$merge"])
MOST_EVENT_BYTES = 1_000_000
MOST_NAMES = 255
MOST_DEPTH = 3
LONGEST_TEXT = 255
INVALID_IDS = frozenset(
    [
        "00000000-0000-0000-0000-000000000000",
        *("anon", "anonymous", "nil", "none", "null", "n/a", "na", "undefined", "unknown"),
        *("<nil>", "0", "-1", "true", "false", "[]", "{}"),
    ]
)
# The token names the project and the address gives a place: neither is stored.
NOT_STORED = ("token", "ip", "time")

_INSERT_ID = re.compile(r"[A-Za-z0-9-]{1,36}")


class InvalidRecordError(ValueError):
    """A record that is not taken: the field at fault, and why."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"'{field}' is invalid: {reason}")
        self.field = field


@dataclass(frozen=True)
class SentEvent:
    """A valid event: `time_ms` is true UTC and never ahead of the clock."""

    name: str
    time_ms: int
    properties: Mapping[str, Any]
    size: int


def read_event(
    record: Any, *, now_ms: int, strict: bool, oldest_ms: int = EARLIEST_MS, needs_time: bool = True
) -> SentEvent:
    """Return the event in a record.

    Args:
        record: The parsed JSON.
        now_ms: The time of its arrival.
        strict: Whether ids, sizes and shapes are checked too, as `strict=1` asks for.
        oldest_ms: Events before this moment are not taken.
        needs_time: Whether an event without `time` is invalid; else it happened on arrival.

    Raises:
        InvalidRecordError: The event is not taken.
    """
    if not isinstance(record, dict):
        raise InvalidRecordError("event", "must be an object")
    name, properties = record.get("event"), record.get("properties")
    if not isinstance(name, str) or not name:
        raise InvalidRecordError("event", "must be a non-empty string")
    if not isinstance(properties, dict):
        raise InvalidRecordError("properties", "must be an object")
    size = _size(record)
    time_ms = now_ms
    # Events that join ids are documented without time and ids of their own.
    joins_ids = name in IDENTITY_EVENTS
    if (needs_time and not joins_ids) or properties.get("time") is not None:
        time_ms = _time(properties.get("time"), now_ms, oldest_ms)
    if strict and not joins_ids:
        _check_ids(properties)
    if strict:
        _check_shape(properties, size)
    kept = {name: _cut(name, value) for name, value in properties.items() if name not in NOT_STORED}
    return SentEvent(name, time_ms, kept, size)


def _size(record: Mapping[str, Any]) -> int:
    try:
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return len(text.encode())
    except UnicodeEncodeError:
        raise InvalidRecordError("properties", "string should be valid utf8") from None
    except ValueError:
        raise InvalidRecordError("properties", "numbers must be finite") from None


def _time(time: Any, now_ms: int, oldest_ms: int) -> int:
    field = "properties.time"
    if isinstance(time, bool) or not isinstance(time, int | float):
        raise InvalidRecordError(field, "must be specified as seconds since epoch")
    # A number of seconds that lies in the future is one of milliseconds.
    found = time * 1000
    if found > now_ms + HOUR_MS and time >= EARLIEST_MS:
        found = time
    if not found <= now_ms + HOUR_MS:
        raise InvalidRecordError(field, "must not be more than 1 hour in the future")
    if found < oldest_ms:
        raise InvalidRecordError(field, f"must not be before {_utc(oldest_ms)}")
    return min(round(found), now_ms)


def _utc(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _check_ids(properties: Mapping[str, Any]) -> None:
    insert_id = properties.get("$insert_id")
    if not isinstance(insert_id, str) or not insert_id:
        raise InvalidRecordError("$insert_id", "must not be missing or empty")
    if len(insert_id) > 36:
        raise InvalidRecordError("$insert_id", "must not be longer than 36 bytes")
    if not _INSERT_ID.fullmatch(insert_id):
        raise InvalidRecordError(
            "$insert_id", "must only contain alphanumeric or hyphen '-' characters"
        )
    for field in ("$insert_id", "distinct_id"):
        value = properties.get(field)
        if isinstance(value, str) and value.lower() in INVALID_IDS:
            raise InvalidRecordError(field, f"must not be {value!r}")


def _check_shape(properties: Mapping[str, Any], size: int) -> None:
    if size >= MOST_EVENT_BYTES:
        raise InvalidRecordError("event", "must be smaller than 1 MB")
    if len(properties) >= MOST_NAMES:
        raise InvalidRecordError("properties", f"must be fewer than {MOST_NAMES}")
    for name, value in properties.items():
        for part, depth in _parts(value, 0):
            if depth > MOST_DEPTH:
                raise InvalidRecordError(f"properties.{name}", "must be nested 3 levels at most")
            if len(part) >= MOST_NAMES:
                raise InvalidRecordError(
                    f"properties.{name}", f"must have fewer than {MOST_NAMES} elements"
                )


def _parts(value: Any, depth: int) -> Iterator[tuple[list[Any] | dict[str, Any], int]]:
    """Yield each list and object inside a value, and how many objects it lies in."""
    if isinstance(value, dict):
        yield value, depth + 1
        for inner in value.values():
            yield from _parts(inner, depth + 1)
    elif isinstance(value, list):
        yield value, depth
        for inner in value:
            yield from _parts(inner, depth)


def _cut(name: str, value: Any) -> Any:
    """Cut long text, as Mixpanel does; its own properties hold whole addresses."""
    own = name.startswith(("$", "mp_"))
    return value[:LONGEST_TEXT] if isinstance(value, str) and not own else value
