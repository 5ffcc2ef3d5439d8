"""What results have in common: they turn into JSON, and most of them into a table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from mixpanel_assets.results.shown import shown
from mixpanel_assets.results.table import Table, arrow_table, frame, json_ready

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Result:
    """Base of everything that a question to Mixpanel or to stored data returns.

    `repr` shows the fields, long ones cut, so that a notebook stays readable.
    """

    def __repr__(self) -> str:
        values = ", ".join(
            f"{field.name.lstrip('_')}={shown(getattr(self, field.name))}"
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

        A column of whole numbers, of numbers, of text or of moments has that type; whatever
        would lose digits in it has type `object`.
        """
        return frame(self._table())

    def arrow(self) -> pa.Table:
        """Return the result as an Arrow table.

        Lists, objects, and columns whose values have no one type are JSON text.
        """
        return arrow_table(self._table())

    def column_names(self) -> list[str]:
        """Return the names of the columns of `df`, which are there without rows too."""
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
