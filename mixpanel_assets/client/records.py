"""Received bytes -> Python values, nothing added, dropped or converted."""

from __future__ import annotations

import json
from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode


def parse_record(line: bytes) -> dict[str, Any]:
    """Return one event or profile as a dict; integers of any size stay exact."""
    try:
        record: dict[str, Any] = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # A lone surrogate or a number beyond a double's range: valid JSON that msgspec refuses.
        record = json.loads(line)
    return record
