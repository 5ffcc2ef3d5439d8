"""One event line kept to the letter, for the few whose numbers DuckDB would round.

DuckDB writes numbers anew as doubles, which loses digits beyond the sixteenth. Here the
text of each property is cut out of the line and joined again unread.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from mixpanel_assets.warehouse.spool import REMOVED_KEYS

_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"


def exact_row(line: str, time_ms: int) -> dict[str, Any]:
    """Return the row of a valid event line, every property text as sent.

    The keys are those of `ROW_TYPE`; a number sent as id keeps its digits.
    """
    fields = dict(reversed(list(members(line))))
    properties = list(members(fields["properties"]))
    values = dict(reversed(properties))
    kept = (pair for pair in properties if pair[0] not in REMOVED_KEYS)
    return {
        "event_name": text_of(fields["event"]),
        "distinct_id": text_of(values.get("distinct_id")),
        "insert_id": text_of(values.get("$insert_id")) or None,
        "properties": "{" + ",".join(f"{json.dumps(key)}:{text}" for key, text in kept) + "}",
        "processed_ms": whole_number(json.loads(values.get("mp_processing_time_ms", "null"))),
        "time_raw": time_ms,
    }


ROW_TYPE = (
    "STRUCT(event_name VARCHAR, distinct_id VARCHAR, insert_id VARCHAR, properties VARCHAR, "
    "processed_ms BIGINT, time_raw BIGINT)"
)


def members(text: str) -> Iterator[tuple[str, str]]:
    """Yield each name of a valid JSON object with the text of its value, in order."""
    position = _skip(text, text.index("{") + 1)
    while text[position] != "}":
        name, position = _DECODER.raw_decode(text, position)
        start = _skip(text, _skip(text, position) + 1)
        _, position = _DECODER.raw_decode(text, start)
        yield name, text[start:position]
        position = _skip(text, position)
        if text[position] == ",":
            position = _skip(text, position + 1)


def whole_number(value: Any) -> int | None:
    """Return a JSON number that is whole and not negative, of 15 digits at most."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 10**15 else None


def text_of(value: str | None) -> str | None:
    """Return a JSON value as plain text: a string unquoted, null as None, a number's digits."""
    if value is None or value == "null":
        return None
    return str(json.loads(value)) if value.startswith('"') else value


def _skip(text: str, position: int) -> int:
    while text[position] in _SPACE:
        position += 1
    return position
