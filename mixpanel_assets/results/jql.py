"""What a JQL script returned, and the table that can be made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixpanel_assets.results.base import ResultWithDataFrame
from mixpanel_assets.results.table import Table

_GROUP = {"key", "value"}
_PERCENTILE = {"percentile", "value"}


@dataclass(frozen=True, repr=False)
class JQLResult(ResultWithDataFrame):
    """The array that a script returned.

    The frame follows its shape. Groups (`groupBy`) become `key_0`, `key_1`, ... and `value`,
    or one column per reducer (`value_0`, ...), per field of an object, or per percentile
    (`p50`, ...). Other objects become a column per key; anything else stands in `value`.
    """

    _raw: list[Any] = field(default_factory=list)

    @property
    def raw(self) -> list[Any]:
        """The array as received."""
        return self._raw

    def to_dict(self) -> dict[str, Any]:
        """Return the array under `raw`."""
        return {"raw": self._raw}

    def _table(self) -> Table:
        rows = [_row(entry) for entry in self._raw]
        if len({frozenset(row) == {"value"} for row in rows}) > 1:
            rows = [{"value": entry} for entry in self._raw]  # no one shape
        columns = list(dict.fromkeys(name for row in rows for name in row)) or ["value"]
        return Table(columns, [[row.get(name) for name in columns] for row in rows])


def _row(entry: Any) -> dict[str, Any]:
    if isinstance(entry, Mapping) and entry.keys() == _GROUP and isinstance(entry["key"], list):
        keys = {f"key_{number}": part for number, part in enumerate(entry["key"])}
        return keys | _values(entry["value"])
    if isinstance(entry, Mapping):
        return dict(entry) or {"value": entry}
    return _values(entry) if _are_percentiles(entry) else {"value": entry}


def _values(value: Any) -> dict[str, Any]:
    """Return the columns of what was reduced; their names do not repeat those of keys."""
    if _are_percentiles(value):
        return {f"p{part['percentile']}": part["value"] for part in value}
    if isinstance(value, list):
        return {f"value_{number}": part for number, part in enumerate(value)} or {"value": value}
    if isinstance(value, Mapping) and value and not any(name.startswith("key_") for name in value):
        return dict(value)
    return {"value": value}


def _are_percentiles(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and bool(value)
        and not isinstance(value, str)
        and all(isinstance(part, Mapping) and part.keys() == _PERCENTILE for part in value)
    )
