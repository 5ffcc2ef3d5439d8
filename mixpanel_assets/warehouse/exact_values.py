"""Values of a query for people and JSON: what Python has no form for is the text DuckDB writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
from duckdb.sqltypes import DuckDBPyType

from mixpanel_assets.warehouse.schema import quoted

# DuckDB's Python module rounds, clips or counts these in other units.
_TEXTS = {
    *("interval", "blob", "bit", "timestamp_ns", "time", "time_ns", "time with time zone"),
    *("union", "variant"),
}
_MOMENTS = {
    *("date", "timestamp", "timestamp_s", "timestamp_ms", "timestamp with time zone"),
}
_NUMBERS = {"float", "double"}
_NESTED = {"list", "array", "struct", "map"}
# In the text of a list or an object; a text in it that reads like one is no harm.
_ODD = r"(^|\W)(inf|infinity|nan|\d{5,}-\d\d-\d\d|[\d-]+ \(BC\))($|\W)"


def exact_rows(relation: duckdb.DuckDBPyRelation) -> list[tuple[Any, ...]]:
    """Return the rows of a query; a value is DuckDB's text if it would not be itself in Python.

    That is one of a type that Python lacks, a moment that is infinite or not within the years 1
    to 9999, and a number that is not finite.
    """
    columns = []
    for number, kind in enumerate(relation.types, 1):
        value, text = f"#{number}", _text_of(f"#{number}", kind)
        columns += [f"CASE WHEN {text} IS NULL THEN {value} END AS {quoted(f'v{number}')}"]
        columns += [f"{text} AS {quoted(f't{number}')}"]
    rows = relation.project(", ".join(columns)).fetchall()
    return [
        tuple(
            value if text is None else text for value, text in zip(row[::2], row[1::2], strict=True)
        )
        for row in rows
    ]


def _text_of(value: str, kind: DuckDBPyType) -> str:
    """Return the SQL of a value's text, NULL where Python has the value itself."""
    text, leaves = f"{value}::VARCHAR", set(_leaves(kind))
    if leaves & _TEXTS:
        return text
    if kind.id in _NUMBERS:
        return f"CASE WHEN NOT isfinite({value}) THEN {text} END"
    if kind.id in _MOMENTS:
        fits = f"isfinite({value}) AND year({value}) BETWEEN 1 AND 9999"
        return f"CASE WHEN NOT ({fits}) THEN {text} END"
    if leaves & (_MOMENTS | _NUMBERS) and kind.id in _NESTED:
        return f"CASE WHEN regexp_matches({text}, '{_ODD}') THEN {text} END"
    return "NULL::VARCHAR"


def _leaves(kind: DuckDBPyType) -> Iterator[str]:
    if kind.id not in _NESTED:
        yield kind.id
        return
    for _, child in kind.children:
        if isinstance(child, DuckDBPyType):
            yield from _leaves(child)
