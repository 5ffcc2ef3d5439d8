"""Counts over time: of one event, of several, of the values of a property."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mixpanel_assets.literals import CountType, HourDayUnit, SegmentUnit, TimeUnit
from mixpanel_assets.results.base import ResultWithDataFrame
from mixpanel_assets.results.table import Table

Number = int | float
Series = dict[str, dict[str, Number]]


@dataclass(frozen=True, repr=False)
class SegmentationResult(ResultWithDataFrame):
    """How often an event happened, over time.

    Attributes:
        event: Its name.
        from_date: First day, included, as text; in the project's time zone, as all days here.
        to_date: Last day, included.
        unit: The length of a step in time.
        segment_property: The expression that it was split by, None when it was not.
        total: The sum over all segments and dates; events whose property is a list count in
            each of their segments.
        series: Count by segment (the event's name when it was not split) and date, in order
            of date. A date without events is 0.
        type: What was counted.
    """

    event: str
    from_date: str
    to_date: str
    unit: SegmentUnit
    segment_property: str | None
    total: Number
    series: Series = field(default_factory=dict)
    type: CountType = "general"

    def _table(self) -> Table:
        return by_date("segment", self.series)


@dataclass(frozen=True, repr=False)
class EventCountsResult(ResultWithDataFrame):
    """How often several events happened, over time.

    Attributes:
        events: The names asked for.
        from_date: First day, included, as text.
        to_date: Last day, included.
        unit: The length of a step in time.
        type: `general` counts events, `unique` people, `average` events per person.
        series: Count by event and date, in order of date, with a row for each name asked for.
            A date without events is 0, or absent from an average.
    """

    events: list[str]
    from_date: str
    to_date: str
    unit: TimeUnit
    type: CountType
    series: Series

    def _table(self) -> Table:
        return by_date("event", self.series)


@dataclass(frozen=True, repr=False)
class PropertyCountsResult(ResultWithDataFrame):
    """How often an event happened with each value of a property, over time.

    Attributes:
        event: Its name.
        property_name: The property.
        from_date: First day, included, as text.
        to_date: Last day, included.
        unit: The length of a step in time.
        type: `general` counts events, `unique` people, `average` events per person.
        series: Count by value (as text) and date, in order of date. A date without events is
            0, or absent from an average.
    """

    event: str
    property_name: str
    from_date: str
    to_date: str
    unit: TimeUnit
    type: CountType
    series: Series

    def _table(self) -> Table:
        return by_date("value", self.series)


@dataclass(frozen=True, repr=False)
class NumericBucketResult(ResultWithDataFrame):
    """How often an event happened with a number in each of some ranges, over time.

    Attributes:
        event: Its name.
        from_date: First day, included, as text.
        to_date: Last day, included.
        property_expr: The expression whose number is meant.
        unit: The length of a step in time.
        series: Count by range, such as `2,000 - 2,100`, smallest first, and date, in order of
            date. A date without events in a range is 0, or absent from an average.
    """

    event: str
    from_date: str
    to_date: str
    property_expr: str
    unit: HourDayUnit
    series: Series = field(default_factory=dict)

    def _table(self) -> Table:
        return by_date("bucket", self.series)


@dataclass(frozen=True, repr=False)
class NumericSumResult(ResultWithDataFrame):
    """The sum of a number over an event's occurrences, over time.

    Attributes:
        event: Its name.
        from_date: First day, included, as text.
        to_date: Last day, included.
        property_expr: The expression that is summed.
        unit: The length of a step in time.
        results: Sum by date, in order of date.
        computed_at: When Mixpanel computed it, as it says; None when it does not.
    """

    event: str
    from_date: str
    to_date: str
    property_expr: str
    unit: HourDayUnit
    results: dict[str, float] = field(default_factory=dict)
    computed_at: str | None = None

    def _table(self) -> Table:
        return Table(("date", "sum"), list(self.results.items()))


@dataclass(frozen=True, repr=False)
class NumericAverageResult(ResultWithDataFrame):
    """The average of a number over an event's occurrences, over time.

    Attributes:
        event: Its name.
        from_date: First day, included, as text.
        to_date: Last day, included.
        property_expr: The expression that is averaged; what is no number counts as 0.
        unit: The length of a step in time.
        results: Average by date, in order of date.
    """

    event: str
    from_date: str
    to_date: str
    property_expr: str
    unit: HourDayUnit
    results: dict[str, float] = field(default_factory=dict)

    def _table(self) -> Table:
        return Table(("date", "average"), list(self.results.items()))


def by_date(column: str, series: Mapping[str, Mapping[str, Number]]) -> Table:
    """Return one row per date and name, in order of date."""
    rows = [(when, name, count) for name, row in series.items() for when, count in row.items()]
    return Table(("date", column, "count"), sorted(rows, key=lambda row: row[0]))
