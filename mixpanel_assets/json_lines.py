"""Normalized records -> lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from mixpanel_assets.errors import escaped_json

_encode = msgspec.json.Encoder().encode


def as_json(record: Mapping[str, Any]) -> bytes:
    """Return a record as one line of JSON, without the newline; moments in ISO 8601 ending in Z.

    Whatever a reader takes for a line's end, only the end of a record looks like one, and no
    character steers a terminal.
    """
    try:
        line = _encode(record)
    except (OverflowError, UnicodeEncodeError, msgspec.MsgspecError):
        # An integer beyond 64 bits or half of a surrogate pair.
        line = json.dumps(record, separators=(",", ":"), default=_moment).encode()
    if line.isascii() and b"\x7f" not in line:
        return line
    return escaped_json(line.decode()).encode()


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
