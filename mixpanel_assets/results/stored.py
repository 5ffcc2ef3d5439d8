"""Results of queries of stored data: tables, columns, distributions, summaries, coverage.

`from_date` and `to_date` of a result are the first and last day as text, both included.
Percentages are 0 to 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any, overload

from mixpanel_assets.results.base import Result, ResultWithDataFrame, Table
from mixpanel_assets.results.choices import TableType


@dataclass(frozen=True, eq=False, repr=False)
class SQLResult(ResultWithDataFrame, Sequence[tuple[Any, ...]]):
    """The rows of an SQL query: a sequence of tuples, with the names of their columns.

    Equal to any sequence of the same rows.
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
        """Return one dict per row, with DuckDB's values."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def _table(self) -> Table:
        return Table(self.columns, self.rows)


@dataclass(frozen=True, repr=False)
class TableMetadata(Result):
    """The origin of a table.

    Attributes:
        type: The kind of its rows.
        fetched_at: The time of the fetch; UTC.
        from_date: First day, as text; None for profiles.
        to_date: Last day, included; None for profiles.
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
    """A summary of a workspace.

    Attributes:
        path: The database file; the location of a lake, without its password; None in memory.
        account: The named account in use; None without one.
        tables: The names of its tables.
        size_mb: Size of the file, or of a lake's current files, in units of 1,000,000 bytes.
        created_at: Creation of its tables, UTC; None without tables.
        snapshot_age: Age in seconds of the copy for readers that was read; None: the file itself
            was read.
    """

    path: Path | str | None
    project_id: str
    region: str
    account: str | None
    tables: list[str]
    size_mb: float
    created_at: datetime | None
    snapshot_age: float | None = None


@dataclass(frozen=True, repr=False)
class ColumnSummary(Result):
    """Statistics of a column, from DuckDB's SUMMARIZE.

    Attributes:
        column_type: DuckDB's name of the type.
        approx_unique: The approximate number of different values.
        avg: The mean; it and `std`, the standard deviation, are None without numbers.
        q25: A quarter of the values are smaller; half are smaller than `q50`, and so on.
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
    """Statistics of every column of a table, in the table's order."""

    table: str
    row_count: int
    columns: list[ColumnSummary] = field(default_factory=list)

    def _table(self) -> Table:
        column_names = [field.name for field in fields(ColumnSummary)]
        return Table(column_names, [astuple(column) for column in self.columns])


@dataclass(frozen=True, repr=False)
class ColumnStatsResult(ResultWithDataFrame):
    """One column of a table in detail. The frame holds its most common values.

    Attributes:
        column: The requested column or expression.
        dtype: DuckDB's name of its type.
        count: Rows with a value.
        null_pct: The share of rows without a value.
        unique_count: Different values.
        unique_pct: Their share of the rows with a value.
        top_values: The most common values and their counts.
        min: The smallest number; it and the next three are None for other types.
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


def _table_of(row_type: type[Any], rows: Any) -> Table:
    return Table([field.name for field in fields(row_type)], [astuple(row) for row in rows])


@dataclass(frozen=True, repr=False)
class PropertyValueCount(Result):
    """The count of one value of a property.

    Attributes:
        value: None: the property is null or missing.
        percentage: The share of all counted events.
        kind: Its JSON type: `string`, `number`, `boolean`, `array`, `object` or `null`; or
            `missing`. The frame leaves it out.
    """

    value: str | int | float | bool | list[Any] | dict[str, Any] | None
    count: int
    percentage: float
    kind: str | None = None


@dataclass(frozen=True, repr=False)
class PropertyDistributionResult(ResultWithDataFrame):
    """The most common values of a property of an event.

    Attributes:
        total_count: All events, also those whose values are not listed.
        values: The most common first.
    """

    event: str
    property_name: str
    from_date: str
    to_date: str
    total_count: int
    values: tuple[PropertyValueCount, ...]

    def _table(self) -> Table:
        rows = [(one.value, one.count, one.percentage) for one in self.values]
        return Table(["value", "count", "percentage"], rows)


@dataclass(frozen=True, repr=False)
class NumericPropertySummaryResult(Result):
    """Statistics of a numeric property of an event.

    Attributes:
        count: Events where it is a number. Without any, all others but `sum` are None.
        percentiles: The value at each percentile, such as 50.
    """

    event: str
    property_name: str
    from_date: str
    to_date: str
    count: int
    min: float | None
    max: float | None
    sum: float
    avg: float | None
    stddev: float | None
    percentiles: dict[int, float | None]


@dataclass(frozen=True, repr=False)
class DailyCount(Result):
    """The count of an event on a day (`date`, as text)."""

    date: str
    event: str
    count: int


@dataclass(frozen=True, repr=False)
class DailyCountsResult(ResultWithDataFrame):
    """The counts of events on each day.

    Attributes:
        events: The requested events; None: all.
        counts: In order of date and name.
    """

    from_date: str
    to_date: str
    events: tuple[str, ...] | None
    counts: tuple[DailyCount, ...]

    def _table(self) -> Table:
        return _table_of(DailyCount, self.counts)


@dataclass(frozen=True, repr=False)
class LatenessStep(Result):
    """The events that had been processed by a time after they happened.

    Attributes:
        days: Days after the event.
        count: Events that Mixpanel processed within this time.
        share: Of all events whose time of processing is known; 1.0 is all of them.
    """

    days: int
    count: int
    share: float


@dataclass(frozen=True, repr=False)
class LatenessResult(ResultWithDataFrame):
    """How late events arrive, as a curve that ends at all of them.

    Attributes:
        total: Events whose time of processing is known.
        unknown: Events without one; they are not in the curve.
        steps: After one day, two days and so on.
    """

    from_date: str
    to_date: str
    total: int
    unknown: int
    steps: tuple[LatenessStep, ...]

    def _table(self) -> Table:
        return _table_of(LatenessStep, self.steps)


@dataclass(frozen=True, repr=False)
class EngagementBucket(Result):
    """The users with a certain number of events.

    Attributes:
        bucket_min: The smallest number of events.
        bucket_label: The range in words, such as `2-5` or `101+`.
        percentage: The share of all users.
    """

    bucket_min: int
    bucket_label: str
    user_count: int
    percentage: float


@dataclass(frozen=True, repr=False)
class EngagementDistributionResult(ResultWithDataFrame):
    """The numbers of users by their number of events.

    Attributes:
        events: The requested events; None: all.
        buckets: The smallest numbers of events first.
    """

    from_date: str
    to_date: str
    events: tuple[str, ...] | None
    total_users: int
    buckets: tuple[EngagementBucket, ...]

    def _table(self) -> Table:
        return _table_of(EngagementBucket, self.buckets)


@dataclass(frozen=True, repr=False)
class PropertyCoverage(Result):
    """The number of events with a property.

    Attributes:
        defined_count: Events with a value.
        null_count: Events where it is null or missing.
        coverage_percentage: The share of events with a value.
    """

    property: str
    defined_count: int
    null_count: int
    coverage_percentage: float


@dataclass(frozen=True, repr=False)
class PropertyCoverageResult(ResultWithDataFrame):
    """The numbers of events with some properties, in the requested order."""

    event: str
    from_date: str
    to_date: str
    total_events: int
    coverage: tuple[PropertyCoverage, ...]

    def _table(self) -> Table:
        return _table_of(PropertyCoverage, self.coverage)


@dataclass(frozen=True, repr=False)
class EventStats(Result):
    """One event of a table.

    Attributes:
        unique_users: Different `distinct_id`.
        first_seen: Its earliest time; UTC, as `last_seen`.
        pct_of_total: The share of all rows.
    """

    event_name: str
    count: int
    unique_users: int
    first_seen: datetime
    last_seen: datetime
    pct_of_total: float


@dataclass(frozen=True, repr=False)
class EventBreakdownResult(ResultWithDataFrame):
    """The events of a table.

    Attributes:
        total_users: Different `distinct_id`.
        date_range: Earliest and latest time, UTC; None for an empty table.
        events: The most common first.
    """

    table: str
    total_events: int
    total_users: int
    date_range: tuple[datetime, datetime] | None
    events: list[EventStats] = field(default_factory=list)

    def _table(self) -> Table:
        return _table_of(EventStats, self.events)
