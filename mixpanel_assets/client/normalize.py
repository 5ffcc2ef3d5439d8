"""Received bytes of an event or profile -> the raw and the normalized record of a stream."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from mixpanel_assets.rules.days import EARLIEST_MS, LATEST_MS
from mixpanel_assets.rules.json_text import last_values, may_be_deep, members, parse
from mixpanel_assets.rules.lines import BOM
from mixpanel_assets.rules.made_ids import made_id, twin_id
from mixpanel_assets.rules.zones import moment_of

_decode_record = msgspec.json.Decoder().decode


def parse_record(line: bytes) -> dict[str, Any]:
    """Return one event or profile as a dict; integers of any size stay exact.

    A byte that is not UTF-8 becomes half of a surrogate pair (Python's `surrogateescape`). A value
    that is nested too deep for Python becomes its JSON text. `ValueError`: it is not JSON.
    """
    if not may_be_deep(line):
        try:
            record: dict[str, Any] = _decode_record(line)
            return record
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass  # JSON allows lone surrogates and numbers beyond a double's range
    odd_record: dict[str, Any] = parse(line.removeprefix(BOM).decode("utf-8", "surrogateescape"))
    return odd_record


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = datetime(1970, 1, 1)
_MILLISECOND = timedelta(milliseconds=1)


class EventNormalizer:
    """Normalizes the events of one stream, request after request.

    It differs from the warehouse in two things, which need all events of a day at once: duplicates
    are not removed, and equal events without `$insert_id` are numbered in order of arrival. Lines
    that the warehouse puts into quarantine are yielded.

    Args:
        local_zone: The project's IANA zone if `time` is its wall clock (projects from before
            2023); None: `time` is UTC.

    Attributes:
        timeless: The number of events so far whose `time` is missing or not within 1971 to 9999.
    """

    def __init__(self, local_zone: str | None = None) -> None:
        self.timeless = 0
        self._zone = ZoneInfo(local_zone) if local_zone else None
        self._once: set[int] = set()
        self._twins: Counter[int] = Counter()

    def begin_days(self) -> None:
        """Number equal events from 0 again; called before the response for the next days."""
        self._once.clear()
        self._twins.clear()

    def __call__(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Return the five documented keys of an event with `time` in milliseconds."""
        return self._normalized(raw["event"], dict(raw["properties"]), None)

    def convert(self, raw: dict[str, Any], line: bytes) -> dict[str, Any]:
        """Return the same for an event that may be changed, and its line.

        An id of another type than text becomes its JSON text in the line.
        """
        return self._normalized(raw["event"], raw["properties"], line)

    def _normalized(
        self, event: str, properties: dict[str, Any], line: bytes | None
    ) -> dict[str, Any]:
        time = properties.pop("time", None)
        distinct_id = properties.pop("distinct_id", None)
        if type(distinct_id) is not str:
            distinct_id = _id_text(distinct_id, line, "properties", "distinct_id")
        insert_id = properties.pop("$insert_id", None)
        if type(insert_id) is not str:
            insert_id = _id_text(insert_id, line, "properties", "$insert_id")
        if type(time) is float and time.is_integer():
            time = int(time)
        return {
            "event_name": event,
            "event_time": self._event_time(time, properties.get("mp_processing_time_ms")),
            "distinct_id": distinct_id,
            "insert_id": insert_id or self._made_id(event, time, distinct_id, properties),
            "properties": properties,
        }

    def _event_time(self, time: Any, processed_ms: Any) -> datetime | None:
        if type(time) is not int or not EARLIEST_MS <= time <= LATEST_MS:
            self.timeless += 1
            return None
        since_epoch = _MILLISECOND * time  # a float of seconds would be rounded
        if self._zone is None:
            return _EPOCH + since_epoch
        return moment_of(_NAIVE_EPOCH + since_epoch, self._zone, processed_ms)

    def _made_id(
        self, event: str, time: Any, distinct_id: str | None, properties: dict[str, Any]
    ) -> str:
        insert_id = made_id(event, time, distinct_id, properties)
        # As a number an id takes a third of the memory, and there is one for each such event.
        key = int(insert_id.replace("-", ""), 16)
        if key not in self._once:
            self._once.add(key)
            return insert_id
        self._twins[key] += 1
        return twin_id(insert_id, self._twins[key])


def normalize_event(raw: Mapping[str, Any], *, local_zone: str | None = None) -> dict[str, Any]:
    """Return one event with the five documented keys; see `EventNormalizer` for whole days.

    Args:
        raw: The object of one line of an export.
        local_zone: Zone of `time` in projects from before 2023, such as `US/Pacific`; None: UTC.

    Returns:
        `event_name`; `event_time` (aware, UTC; None without a usable `time`); `distinct_id`
        (text, None when absent); `insert_id` (as sent, else made); `properties` (all others).

    Example:
        >>> raw = {"event": "Sign Up", "properties": {"time": 1704103200, "plan": "free"}}
        >>> normalize_event(raw)["properties"]
        {'plan': 'free'}
    """
    return EventNormalizer(local_zone)(raw)


def normalize_profile(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return `distinct_id` (text), `last_seen` (text as sent, None when absent), `properties`.

    Args:
        raw: The object of one profile, `$distinct_id` and `$properties`.

    Example:
        >>> normalize_profile({"$distinct_id": 7, "$properties": {"plan": "free"}})
        {'distinct_id': '7', 'last_seen': None, 'properties': {'plan': 'free'}}
    """
    return normalized_profile(raw, None)


def normalized_profile(raw: Mapping[str, Any], text: bytes | None) -> dict[str, Any]:
    """Return the same for a profile and its text.

    An id of another type than text becomes its JSON text as sent.
    """
    properties = dict(raw.get("$properties") or {})
    last_seen = _id_text(properties.pop("$last_seen", None), text, "$properties", "$last_seen")
    return {
        "distinct_id": _id_text(raw["$distinct_id"], text, "$distinct_id"),
        "last_seen": last_seen,
        "properties": properties,
    }


def _id_text(value: Any, line: bytes | None, *path: str) -> str | None:
    """Return a value as text; `path` is its path in the line, if there is a line."""
    if value is None or type(value) is str:
        return value
    if line is not None and not (type(value) is bool or (type(value) is int and value)):
        text = last_values(line.removeprefix(BOM)).decode("utf-8", "surrogateescape")
        for name in path:
            text = dict(members(text))[name]
        return text
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
