"""What stored events say: distributions, summaries, coverage."""

from __future__ import annotations

from dataclasses import astuple, dataclass, field, fields
from datetime import datetime
from typing import Any

from mixpanel_assets.results.base import Result, ResultWithDataFrame
from mixpanel_assets.results.table import Table


def _rows_of(kind: type[Any], rows: Any) -> Table:
    return Table([field.name for field in fields(kind)], [astuple(row) for row in rows])


@dataclass(frozen=True, repr=False)
class PropertyValueCount(Result):
    """How often a property had one value.

    Attributes:
        value: The value; None when the property is null or absent; a list or dict as it is.
        count: Events with it.
        percentage: Of all events counted, 0 to 100.
        kind: What JSON calls it: `string`, `number`, `boolean`, `array`, `object` or `null`;
            `missing` when it is absent. The frame leaves it out.
    """

    value: str | int | float | bool | list[Any] | dict[str, Any] | None
    count: int
    percentage: float
    kind: str | None = None


@dataclass(frozen=True, repr=False)
class PropertyDistributionResult(ResultWithDataFrame):
    """The most common values of a property of an event.

    Attributes:
        event: The event.
        property_name: The property.
        from_date: First day, included, as text.
        to_date: Last day, included.
        total_count: Events in all, also those whose values are not listed.
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
    """A numeric property of an event in a few numbers.

    Attributes:
        event: The event.
        property_name: The property.
        from_date: First day, included, as text.
        to_date: Last day, included.
        count: Events where it is a number.
        min: The smallest; None when it never is a number, as all others but `sum`.
        max: The largest.
        sum: All together.
        avg: The mean.
        stddev: The standard deviation.
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
    """How often an event happened on a day (`date`, as text)."""

    date: str
    event: str
    count: int


@dataclass(frozen=True, repr=False)
class DailyCountsResult(ResultWithDataFrame):
    """How often events happened on each day.

    Attributes:
        from_date: First day, included, as text.
        to_date: Last day, included.
        events: The events asked for; None: all.
        counts: In order of date and name.
    """

    from_date: str
    to_date: str
    events: tuple[str, ...] | None
    counts: tuple[DailyCount, ...]

    def _table(self) -> Table:
        return _rows_of(DailyCount, self.counts)


@dataclass(frozen=True, repr=False)
class EngagementBucket(Result):
    """The users with a certain number of events.

    Attributes:
        bucket_min: The smallest number of events.
        bucket_label: The range in words, such as `2-5` or `101+`.
        user_count: Users in it.
        percentage: Of all users, 0 to 100.
    """

    bucket_min: int
    bucket_label: str
    user_count: int
    percentage: float


@dataclass(frozen=True, repr=False)
class EngagementDistributionResult(ResultWithDataFrame):
    """How many users had how many events.

    Attributes:
        from_date: First day, included, as text.
        to_date: Last day, included.
        events: The events asked for; None: all.
        total_users: Users in all.
        buckets: The smallest numbers of events first.
    """

    from_date: str
    to_date: str
    events: tuple[str, ...] | None
    total_users: int
    buckets: tuple[EngagementBucket, ...]

    def _table(self) -> Table:
        return _rows_of(EngagementBucket, self.buckets)


@dataclass(frozen=True, repr=False)
class PropertyCoverage(Result):
    """How often a property is there.

    Attributes:
        property: Its name.
        defined_count: Events that have it with a value.
        null_count: Events where it is null or absent.
        coverage_percentage: The first of both, 0 to 100.
    """

    property: str
    defined_count: int
    null_count: int
    coverage_percentage: float


@dataclass(frozen=True, repr=False)
class PropertyCoverageResult(ResultWithDataFrame):
    """How often properties of an event are there.

    Attributes:
        event: The event.
        from_date: First day, included, as text.
        to_date: Last day, included.
        total_events: Events in all.
        coverage: In the order asked for.
    """

    event: str
    from_date: str
    to_date: str
    total_events: int
    coverage: tuple[PropertyCoverage, ...]

    def _table(self) -> Table:
        return _rows_of(PropertyCoverage, self.coverage)


@dataclass(frozen=True, repr=False)
class EventStats(Result):
    """One event of a table.

    Attributes:
        event_name: The event.
        count: Rows.
        unique_users: Different `distinct_id`.
        first_seen: Its earliest time; UTC.
        last_seen: Its latest time; UTC.
        pct_of_total: Of all rows, 0 to 100.
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
        table: The table.
        total_events: Rows.
        total_users: Different `distinct_id`.
        date_range: Earliest and latest time; UTC; None of an empty table.
        events: The most common first.
    """

    table: str
    total_events: int
    total_users: int
    date_range: tuple[datetime, datetime] | None
    events: list[EventStats] = field(default_factory=list)

    def _table(self) -> Table:
        return _rows_of(EventStats, self.events)
