"""Rows of named columns, and the forms they take: pandas, Arrow, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_EXACT_IN_DOUBLE = 2**53


@dataclass(frozen=True)
class Table:
    """Columns by name, and rows with a value for each of them."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def column(self, number: int) -> list[Any]:
        """Return the values of a column."""
        return [row[number] for row in self.rows]


def frame(table: Table) -> pd.DataFrame:
    """Return a pandas frame; no value loses digits to its column's type."""
    import pandas as pd

    columns = {name: _series(table.column(number)) for number, name in enumerate(table.columns)}
    return pd.DataFrame(columns, columns=pd.Index(list(table.columns), dtype=object))


def _series(values: list[Any]) -> pd.Series[Any]:
    import pandas as pd

    kinds = {type(value) for value in values}
    whole = [value for value in values if type(value) is int]
    if int in kinds and None.__class__ in kinds and len(kinds) == 2 and _fit(whole, 2**63 - 1):
        return pd.Series(values, dtype="Int64")
    if int in kinds and not _fit(whole, 2**63 - 1 if len(kinds) == 1 else _EXACT_IN_DOUBLE):
        return pd.Series(values, dtype=object)
    return pd.Series(values, dtype=object).infer_objects()


def _fit(numbers: Sequence[int], most: int) -> bool:
    return all(-most <= number <= most for number in numbers)


def arrow_table(table: Table) -> pa.Table:
    """Return an Arrow table; a column without one plain type is JSON text."""
    import pyarrow as pa

    arrays = [_array(table.column(number)) for number in range(len(table.columns))]
    return pa.Table.from_arrays(arrays, names=list(table.columns))


def _array(values: list[Any]) -> pa.Array:
    import pyarrow as pa

    if not any(isinstance(value, dict | list | tuple) for value in values):
        try:
            return pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            pass  # no one type holds them all
    texts = [
        None if value is None else json.dumps(json_ready(value), ensure_ascii=False)
        for value in values
    ]
    return pa.array(texts, pa.string())


def json_ready(value: Any) -> Any:
    """Return a value that `json.dumps` takes; what JSON has no form for becomes its text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_ready(item) for item in value]
    if isinstance(value, date | datetime):
        return value.isoformat()
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return json_ready(value.tolist())
    if is_dataclass(value):
        return {field.name: json_ready(getattr(value, field.name)) for field in fields(value)}
    return str(value)
