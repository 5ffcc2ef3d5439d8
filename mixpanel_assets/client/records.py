"""Received bytes -> Python values, nothing added, dropped or converted."""

from __future__ import annotations

from typing import Any

import msgspec

from mixpanel_assets.rules.json_text import may_be_deep, parsed
from mixpanel_assets.rules.lines import BOM

_decode = msgspec.json.Decoder().decode


def parse_record(line: bytes) -> dict[str, Any]:
    """Return one event or profile as a dict; integers of any size stay exact.

    A byte that is not UTF-8 is half of a surrogate pair (Python's `surrogateescape`), and what is
    nested too deep for Python is its JSON text.

    Raises:
        ValueError: It is not JSON.
    """
    if not may_be_deep(line):
        try:
            record: dict[str, Any] = _decode(line)
            return record
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass  # a lone surrogate or a number beyond a double's range, which JSON allows
    odd: dict[str, Any] = parsed(line.removeprefix(BOM).decode("utf-8", "surrogateescape"))
    return odd
