"""The answer of a query as a pandas DataFrame that changes no value and no type."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    import duckdb

_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_TEXT = ("VARCHAR", "JSON")
_FLOAT_DIGITS = 15  # a float64 gives back every decimal number of so many digits


def exact_frame(relation: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    """Return the rows of a relation; without rows, columns have the types that rows would give.

    Whole numbers stay whole: as int64, as pandas' Int64 where there are NULLs, as Python's own
    where 64 bits are too few. Decimal numbers that a float64 cannot hold are `Decimal`.
    """
    kinds = {name: str(kind) for name, kind in zip(relation.columns, relation.types, strict=True)}
    wide = {name: read for name, kind in kinds.items() if (read := _reader(kind))}
    columns = (f"{_quoted(n)}::VARCHAR AS {_quoted(n)}" if n in wide else _quoted(n) for n in kinds)
    frame: pd.DataFrame = (relation.project(", ".join(columns)) if wide else relation).df()
    for name, read in wide.items():
        values = [None if pd.isna(text) else read(text) for text in frame[name]]
        frame[name] = pd.Series(values, index=frame.index, dtype=object)
    if frame.empty:  # DuckDB leaves text without rows untyped
        frame = frame.astype({name: str for name, kind in kinds.items() if kind in _TEXT})
    return frame


def _reader(kind: str) -> Callable[[str], Any] | None:
    """Return what reads a number whose type is too wide for a column of pandas."""
    if kind in ("HUGEINT", "UHUGEINT"):
        return int
    match = _DECIMAL.fullmatch(kind)
    if match is None or int(match[1]) <= _FLOAT_DIGITS:
        return None
    return Decimal if int(match[2]) else int


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
