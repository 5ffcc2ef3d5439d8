"""Normalized records -> lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

# In JSON they may stand in a string as they are; many readers split lines there.
_LINE_ENDS = tuple((chr(code).encode(), b"\\u%04x" % code) for code in (0x0085, 0x2028, 0x2029))
_encode = msgspec.json.Encoder().encode


def as_json(record: Mapping[str, Any]) -> bytes:
    """Return a record as one line of JSON, without the newline; moments in ISO 8601 ending in Z.

    Whatever a reader takes for a line's end, only the end of a record looks like one.
    """
    try:
        line = _encode(record)
    except (OverflowError, UnicodeEncodeError, msgspec.MsgspecError):
        # An integer beyond 64 bits or half of a surrogate pair.
        return json.dumps(record, separators=(",", ":"), default=_moment).encode()
    if b"\xe2\x80" in line or b"\xc2\x85" in line:
        for character, escape in _LINE_ENDS:
            line = line.replace(character, escape)
    return line


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
