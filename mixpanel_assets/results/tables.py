"""What is stored: the workspace, its tables, their columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, overload

from mixpanel_assets.literals import TableType
from mixpanel_assets.results.base import Result, ResultWithDataFrame
from mixpanel_assets.results.table import Table


@dataclass(frozen=True, eq=False, repr=False)
class SQLResult(ResultWithDataFrame, Sequence[tuple[Any, ...]]):
    """The rows of an SQL query: a sequence of tuples that knows their columns.

    Equal to any sequence of the same rows.

    Attributes:
        columns: Their names, in order.
        rows: The rows, in order.
    """

    columns: list[str]
    rows: list[tuple[Any, ...]]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> tuple[Any, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Any, ...]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self.rows[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SQLResult):
            return (self.columns, self.rows) == (other.columns, other.rows)
        return isinstance(other, Sequence) and self.rows == list(other)

    __hash__ = None  # type: ignore[assignment]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dict per row, values as DuckDB gave them."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def _table(self) -> Table:
        return Table(self.columns, self.rows)


@dataclass(frozen=True, repr=False)
class TableMetadata(Result):
    """How a table was fetched.

    Attributes:
        type: What a row is.
        fetched_at: When; UTC.
        from_date: First day, included, as text; None for profiles, as the next.
        to_date: Last day, included.
        filter_events: Only these events.
        filter_where: Only rows that fit this expression.
        filter_cohort_id: Only members of this cohort.
        filter_output_properties: Only these properties.
        filter_group_id: Profiles of this group.
        filter_behaviors: Behaviours, as JSON text.
    """

    type: TableType
    fetched_at: datetime
    from_date: str | None = None
    to_date: str | None = None
    filter_events: list[str] | None = None
    filter_where: str | None = None
    filter_cohort_id: str | None = None
    filter_output_properties: list[str] | None = None
    filter_group_id: str | None = None
    filter_behaviors: str | None = None


@dataclass(frozen=True, repr=False)
class TableInfo(Result):
    """A stored table; `fetched_at` is UTC."""

    name: str
    type: TableType
    row_count: int
    fetched_at: datetime


@dataclass(frozen=True, repr=False)
class ColumnInfo(Result):
    """A column; `type` is DuckDB's name of it."""

    name: str
    type: str
    nullable: bool
    primary_key: bool = False


@dataclass(frozen=True, repr=False)
class TableSchema(Result):
    """The columns of a table, in order."""

    table_name: str
    columns: list[ColumnInfo]


@dataclass(frozen=True, repr=False)
class WorkspaceInfo(Result):
    """A workspace in a few words.

    Attributes:
        path: The database file; None in memory.
        project_id: The project.
        region: Where it lives.
        account: The named account in use; None without one.
        tables: Their names.
        size_mb: Of the file, in units of 1,000,000 bytes.
        created_at: When its tables were made; UTC; None while there are none.
        snapshot_age: Seconds since the snapshot was taken that the rest was read from; None when
            it was read as the file holds it.
    """

    path: Path | None
    project_id: str
    region: str
    account: str | None
    tables: list[str]
    size_mb: float
    created_at: datetime | None
    snapshot_age: float | None = None


@dataclass(frozen=True, repr=False)
class ColumnSummary(Result):
    """A column in a few numbers, as DuckDB's SUMMARIZE gives them.

    Attributes:
        column_name: The column.
        column_type: DuckDB's name of its type.
        min: The smallest value.
        max: The largest.
        approx_unique: About how many different values.
        avg: The mean; None for what is no number, as the next.
        std: The standard deviation.
        q25: A quarter of the values are smaller.
        q50: Half of them are.
        q75: Three quarters are.
        count: Rows.
        null_percentage: Rows without a value, 0 to 100.
    """

    column_name: str
    column_type: str
    min: Any
    max: Any
    approx_unique: int
    avg: float | None
    std: float | None
    q25: Any
    q50: Any
    q75: Any
    count: int
    null_percentage: float


@dataclass(frozen=True, repr=False)
class SummaryResult(ResultWithDataFrame):
    """Every column of a table in a few numbers; `columns` in the table's order."""

    table: str
    row_count: int
    columns: list[ColumnSummary] = field(default_factory=list)

    def _table(self) -> Table:
        names = [field.name for field in fields(ColumnSummary)]
        return Table(names, [astuple(column) for column in self.columns])


@dataclass(frozen=True, repr=False)
class ColumnStatsResult(ResultWithDataFrame):
    """One column of a table in detail. The frame holds its most common values.

    Attributes:
        table: The table.
        column: The column, or the expression that was asked for.
        dtype: DuckDB's name of its type.
        count: Rows with a value.
        null_count: Rows without.
        null_pct: Of all rows, 0 to 100.
        unique_count: Different values.
        unique_pct: Of the rows with a value, 0 to 100.
        top_values: The most common values and their counts.
        min: The smallest number; None for what is no number, as the next.
        max: The largest.
        mean: The mean.
        std: The standard deviation.
    """

    table: str
    column: str
    dtype: str
    count: int
    null_count: int
    null_pct: float
    unique_count: int
    unique_pct: float
    top_values: list[tuple[Any, int]] = field(default_factory=list)
    min: float | None = None
    max: float | None = None
    mean: float | None = None
    std: float | None = None

    def _table(self) -> Table:
        return Table(("value", "count"), self.top_values)
