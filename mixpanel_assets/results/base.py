"""The base classes of results, and their forms: notebook, JSON, pandas and Arrow.

An import loads neither pandas nor pyarrow; a frame does.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import date
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

_SHOWN_ITEMS = 10
_NESTED_ITEMS = 5
_SHOWN_CHARACTERS = 200


def shorten(value: Any, *, most: int = _SHOWN_ITEMS) -> str:
    """Return a value as Python writes it, long texts and collections cut.

    Of a collection it shows `most` items, of collections inside it half as many:
    `[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … 990 more]`.
    """
    if type(value) is str and len(value) > _SHOWN_CHARACTERS:
        return f"{value[:_SHOWN_CHARACTERS]!r}… {len(value) - _SHOWN_CHARACTERS:,} more"
    if type(value) is dict:
        pairs = (f"{shorten(k)}: {shorten(v, most=_NESTED_ITEMS)}" for k, v in value.items())
        return f"{{{_shown_items(pairs, value, most)}}}"
    if type(value) is list:
        return f"[{_shown_items(_short_items(value), value, most)}]"
    if type(value) is tuple:
        return f"({_shown_items(_short_items(value), value, most)}{',' if len(value) == 1 else ''})"
    return repr(value)


def _short_items(values: Iterable[Any]) -> Iterable[str]:
    return (shorten(value, most=_NESTED_ITEMS) for value in values)


def _shown_items(
    texts: Iterable[str], collection: list[Any] | tuple[Any, ...] | Mapping[Any, Any], most: int
) -> str:
    shown_items = list(islice(texts, most))
    if len(collection) > most:
        shown_items.append(f"… {len(collection) - most:,} more")
    return ", ".join(shown_items)


if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_EXACT_IN_DOUBLE = 2**53  # larger integers lose digits when pandas mixes them with floats


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


def _fit(numbers: Sequence[int], largest: int) -> bool:
    return all(-largest <= number <= largest for number in numbers)


def arrow_table(table: Table) -> pa.Table:
    """Return an Arrow table; a column without one plain type is JSON text."""
    import pyarrow as pa

    arrays = [_column_array(table.column(number)) for number in range(len(table.columns))]
    return pa.Table.from_arrays(arrays, names=list(table.columns))


def _column_array(values: list[Any]) -> pa.Array:
    import pyarrow as pa

    if not any(isinstance(value, dict | list | tuple) for value in values):
        try:
            return pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            pass  # the values have no common type
    json_texts = [
        None if value is None else json.dumps(json_ready(value), ensure_ascii=False)
        for value in values
    ]
    return pa.array(json_texts, pa.string())


def json_ready(value: Any, leaf: Callable[[Any], Any] | None = None) -> Any:
    """Return a value in JSON's own types, collections included.

    `leaf` converts what is neither a collection, text, a whole number, true, false nor null. None:
    ISO 8601 for days and moments, and text for anything else without a JSON form, such as a number
    that is not finite.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return str(value)  # also of a subclass
    if isinstance(value, Mapping):
        return {str(key): json_ready(one, leaf) for key, one in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, bytes | bytearray):
        return [json_ready(one, leaf) for one in value]
    return (leaf or _json_leaf)(value)


def _json_leaf(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, date):
        return value.isoformat()
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return json_ready(value.tolist())
    if is_dataclass(value):
        return {field.name: json_ready(getattr(value, field.name)) for field in fields(value)}
    return str(value)


class Result:
    """Base of the values that calls return.

    `repr` shows the fields and cuts long ones, so that a notebook stays readable.
    """

    def __repr__(self) -> str:
        values = ", ".join(
            f"{field.name.lstrip('_')}={shorten(getattr(self, field.name))}"
            for field in fields(cast("Any", self))
        )
        return f"{type(self).__qualname__}({values})"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, ready for JSON.

        Moments become ISO text, tuples lists; what JSON cannot hold, such as an exact decimal
        or a number that is not finite, becomes text.
        """
        return {
            field.name: json_ready(getattr(self, field.name))
            for field in fields(cast("Any", self))
            if not field.name.startswith("_")
        }


class ResultWithDataFrame(Result, ABC):
    """A result that is a table too: rows in a fixed order, with the same columns when empty."""

    @cached_property
    def df(self) -> pd.DataFrame:
        """The result as a pandas frame, built on first use and kept.

        A column of whole numbers, of numbers, of text or of moments has that type. A column that
        would lose digits in it has type `object`.
        """
        return frame(self._table())

    def arrow(self) -> pa.Table:
        """Return the result as an Arrow table.

        Lists, objects, and columns whose values have no one type are JSON text.
        """
        return arrow_table(self._table())

    def column_names(self) -> list[str]:
        """Return the names of the columns of `df`, also if there are no rows."""
        return list(self._table().columns)

    def to_table_dict(self) -> list[dict[str, Any]]:
        """Return one dict per row, with the columns of `df` as keys, ready for JSON."""
        table = self._table()
        return [
            {name: json_ready(value) for name, value in zip(table.columns, row, strict=True)}
            for row in table.rows
        ]

    @abstractmethod
    def _table(self) -> Table:
        """Return columns and rows."""
