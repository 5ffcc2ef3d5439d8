"""Results of live reports: counts, funnels, retention, activity, JQL, saved reports, lexicon.

`from_date` and `to_date` of a result are the first and last day as text, both included, days of
the project's time zone. `unit` is the length of a step in time. `type` is the way of counting:
`general` counts events, `unique` people, `average` events per person. A date without events
counts 0; an average leaves it out. Series are in order of date.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mixpanel_assets.results.base import Result, ResultWithDataFrame, Table
from mixpanel_assets.results.choices import (
    CountType,
    HourDayUnit,
    SavedReportType,
    SegmentUnit,
    TimeUnit,
)

HEADS = ("event", "time", "distinct_id")
_IN_HEAD_COLUMNS = ("time", "distinct_id", "$distinct_id")


@dataclass(frozen=True, repr=False)
class UserEvent(Result):
    """One event of a user.

    Attributes:
        event: Its name.
        time: Its time; Mixpanel's seconds read as UTC. Projects from before 2023 send the wall
            clock of their zone.
        properties: All its properties, as received.
    """

    event: str
    time: datetime
    properties: dict[str, Any] = field(default_factory=dict)

    @property
    def distinct_id(self) -> str | None:
        """The id of the user; Mixpanel spells the property in two ways."""
        user_id = self.properties.get("distinct_id", self.properties.get("$distinct_id"))
        return None if user_id is None else str(user_id)


@dataclass(frozen=True, repr=False)
class ActivityFeedResult(ResultWithDataFrame):
    """The events of some users, in order of time.

    The frame has a column per property after `event`, `time` and `distinct_id`; a property
    with one of these names is called `properties.event`.
    """

    distinct_ids: list[str]
    from_date: str | None
    to_date: str | None
    events: list[UserEvent] = field(default_factory=list)

    def _table(self) -> Table:
        property_columns = list(
            dict.fromkeys(
                name
                for event in self.events
                for name in event.properties
                if name not in _IN_HEAD_COLUMNS
            )
        )
        columns = [f"properties.{name}" if name in HEADS else name for name in property_columns]
        return Table(
            [*HEADS, *columns],
            [
                [
                    *(event.event, event.time, event.distinct_id),
                    *(event.properties.get(name) for name in property_columns),
                ]
                for event in self.events
            ],
        )


Number = int | float
Series = dict[str, dict[str, Number]]


@dataclass(frozen=True, repr=False)
class SegmentationResult(ResultWithDataFrame):
    """How often an event happened, over time.

    Attributes:
        segment_property: The expression that it was split by; None: it was not split.
        total: The sum over all segments and dates; events whose property is a list count in
            each of their segments.
        series: Count by segment (the event's name without a split) and date.
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
        events: The requested names.
        series: Count by event and date, with a row for each requested name.
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
        series: Count by value (as text) and date.
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
        property_expr: The expression with the number.
        series: Count by range, such as `2,000 - 2,100`, smallest first, and date.
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
        property_expr: The expression that is summed.
        results: Sum by date.
        computed_at: The time of the computation, as Mixpanel writes it; None: it is not sent.
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
        property_expr: The expression that is averaged; other values than numbers count as 0.
        results: Average by date.
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


@dataclass(frozen=True, repr=False)
class FunnelStep(Result):
    """One step of a funnel.

    Attributes:
        count: The number of people that reached it, all dates together.
        conversion_rate: Their share of the people at the step before, 0 to 1; 1 at the first.
    """

    event: str
    count: int
    conversion_rate: float


@dataclass(frozen=True, repr=False)
class FunnelResult(ResultWithDataFrame):
    """The number of people that reached each step of a saved funnel. The frame holds `steps`.

    Attributes:
        funnel_name: Empty if Mixpanel does not list it.
        to_date: Last day of the first step. Later steps count too, so late days keep growing.
        conversion_rate: The share of the people at the first step that reached the last, 0 to 1.
        steps: The steps, in order, for all people.
        segments: The steps of each segment of a split funnel, the largest first step first. A
            person may be in several segments.
    """

    funnel_id: int
    funnel_name: str
    from_date: str
    to_date: str
    conversion_rate: float
    steps: list[FunnelStep] = field(default_factory=list)
    segments: dict[str, list[FunnelStep]] = field(default_factory=dict)

    def _table(self) -> Table:
        return Table(
            ("step", "event", "count", "conversion_rate"),
            [
                (number, step.event, step.count, step.conversion_rate)
                for number, step in enumerate(self.steps, start=1)
            ],
        )


@dataclass(frozen=True, repr=False)
class CohortInfo(Result):
    """The people with their first event in one period.

    Attributes:
        date: First day of the period, as text.
        retention: The share of them, 0 to 1, that came back in the period itself, in the next
            one, and so on; it may rise again.
    """

    date: str
    size: int
    retention: list[float] = field(default_factory=list)


@dataclass(frozen=True, repr=False)
class RetentionResult(ResultWithDataFrame):
    """The share of people that came back.

    Attributes:
        born_event: The event that makes people part of a cohort.
        return_event: The event that counts as coming back.
    """

    born_event: str
    return_event: str
    from_date: str
    to_date: str
    unit: TimeUnit
    cohorts: list[CohortInfo] = field(default_factory=list)

    def _table(self) -> Table:
        rows = {(cohort.date, cohort.size): cohort.retention for cohort in self.cohorts}
        return _by_period(("cohort_date", "cohort_size"), rows, first=0)


@dataclass(frozen=True, repr=False)
class FrequencyResult(ResultWithDataFrame):
    """The number of hours or days of a period in which people were active.

    Attributes:
        event: The event that counts as activity; None: any event.
        addiction_unit: The unit that is counted in it.
        data: For each first day of a period, the number of people that were active in at least 1,
            2, 3 ... hours or days of it.
    """

    event: str | None
    from_date: str
    to_date: str
    unit: TimeUnit
    addiction_unit: HourDayUnit
    data: dict[str, list[int]] = field(default_factory=dict)

    def _table(self) -> Table:
        rows = {(when,): counts for when, counts in self.data.items()}
        return _by_period(("date",), rows, first=1)


def _by_period(
    heads: tuple[str, ...], rows: Mapping[tuple[Any, ...], Sequence[float]], *, first: int
) -> Table:
    """Return a column per period after the heads; a missing period of a row is None."""
    periods = max(map(len, rows.values()), default=0)
    return Table(
        (*heads, *(f"period_{first + number}" for number in range(periods))),
        [(*head, *values, *([None] * (periods - len(values)))) for head, values in rows.items()],
    )


_JQL_GROUP = {"key", "value"}
_JQL_PERCENTILE = {"percentile", "value"}


@dataclass(frozen=True, repr=False)
class JQLResult(ResultWithDataFrame):
    """The array that a script returned.

    The frame follows its shape. Groups (`groupBy`) become `key_0`, `key_1`, ... and `value`,
    or one column per reducer (`value_0`, ...), per field of an object, or per percentile
    (`p50`, ...). Other objects become a column per key; any other item is in `value`.
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
        result_rows = [_jql_row(result) for result in self._raw]
        if len({frozenset(row) == {"value"} for row in result_rows}) > 1:
            result_rows = [{"value": result} for result in self._raw]  # no one shape
        columns = list(dict.fromkeys(name for row in result_rows for name in row)) or ["value"]
        return Table(columns, [[row.get(name) for name in columns] for row in result_rows])


def _jql_row(entry: Any) -> dict[str, Any]:
    is_group = isinstance(entry, Mapping) and entry.keys() == _JQL_GROUP
    if is_group and isinstance(entry["key"], list):
        key_columns = {f"key_{number}": part for number, part in enumerate(entry["key"])}
        return key_columns | _jql_values(entry["value"])
    if isinstance(entry, Mapping):
        return dict(entry) or {"value": entry}
    return _jql_values(entry) if _are_jql_percentiles(entry) else {"value": entry}


def _jql_values(value: Any) -> dict[str, Any]:
    """Return the columns of a reduced value; their names differ from those of keys."""
    if _are_jql_percentiles(value):
        return {f"p{part['percentile']}": part["value"] for part in value}
    if isinstance(value, list):
        return {f"value_{number}": part for number, part in enumerate(value)} or {"value": value}
    if isinstance(value, Mapping) and value and not any(name.startswith("key_") for name in value):
        return dict(value)
    return {"value": value}


def _are_jql_percentiles(result: Any) -> bool:
    return (
        isinstance(result, Sequence)
        and bool(result)
        and not isinstance(result, str)
        and all(isinstance(part, Mapping) and part.keys() == _JQL_PERCENTILE for part in result)
    )


@dataclass(frozen=True, repr=False)
class LexiconMetadata(Result):
    """Mixpanel's metadata of a definition.

    Attributes:
        source: Its origin, such as `api`.
        display_name: The name shown in reports.
        hidden: Whether reports leave it out; the export contains it.
        dropped: Whether it is discarded on arrival.
        contacts: Owners, by address.
        team_contacts: Teams that own it.
    """

    source: str | None
    display_name: str | None
    tags: list[str]
    hidden: bool
    dropped: bool
    contacts: list[str]
    team_contacts: list[str]


@dataclass(frozen=True, repr=False)
class LexiconProperty(Result):
    """A property in a definition.

    Attributes:
        type: array, boolean, integer, null, number, object or string.
    """

    type: str
    description: str | None
    metadata: LexiconMetadata | None


@dataclass(frozen=True, repr=False)
class LexiconDefinition(Result):
    """What is said about one event, or about profiles; `properties` are by name."""

    description: str | None
    properties: dict[str, LexiconProperty]
    metadata: LexiconMetadata | None


@dataclass(frozen=True, repr=False)
class LexiconSchema(Result):
    """One entry of the data dictionary.

    Attributes:
        entity_type: `event` or `profile`.
        name: Of the event, or `$user`.
    """

    entity_type: str
    name: str
    schema_json: LexiconDefinition


OVERALL = "$overall"


@dataclass(frozen=True, repr=False)
class SavedReportResult(ResultWithDataFrame):
    """The numbers of a saved report.

    The frame of an insights report has one row per date and event (`date`, `event`, `count`),
    and before `count` a column for each property that it is split by, where `$overall` is the
    sum of a split; do not add both. Any other report stands in one cell, `series`.

    Attributes:
        computed_at: When Mixpanel computed it, as it says; empty when it does not.
        from_date: Begin, included, as Mixpanel says: a day, or a moment with its offset.
        to_date: End, included.
        headers: What the levels of `series` are.
        series: The numbers as received.
    """

    bookmark_id: int
    computed_at: str
    from_date: str
    to_date: str
    headers: list[str] = field(default_factory=list)
    series: dict[str, Any] = field(default_factory=dict)

    @property
    def report_type(self) -> SavedReportType:
        """The kind of the report, according to its headers."""
        headers = " ".join(self.headers).lower()
        kinds: tuple[SavedReportType, ...] = ("retention", "funnel", "flows")
        return next((kind for kind in kinds if f"${kind}" in headers), "insights")

    def _table(self) -> Table:
        if self.report_type != "insights":
            return Table(("series",), [(self.series,)])
        cells = sorted(_series_cells(self.series, ()), key=lambda leaf: leaf[1])
        depth = max((len(path) for path, _, _ in cells), default=1)
        split_columns = [
            self.headers[level] if level < len(self.headers) else f"segment_{level}"
            for level in range(1, depth)
        ]
        return Table(
            ("date", "event", *split_columns, "count"),
            [(when, *path, *[OVERALL] * (depth - len(path)), count) for path, when, count in cells],
        )


def _series_cells(series: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[Any, str, Any]]:
    for name, nested_series in series.items():
        if isinstance(nested_series, dict):
            yield from _series_cells(nested_series, (*path, name))
        else:
            yield path or (OVERALL,), name, nested_series


@dataclass(frozen=True, repr=False)
class FunnelInfo(Result):
    """A saved funnel; `funnel_id` is the argument of `funnel`."""

    funnel_id: int
    name: str


@dataclass(frozen=True, repr=False)
class SavedCohort(Result):
    """A saved cohort.

    Attributes:
        count: The number of its users.
        description: May be empty.
        created: Its creation, as Mixpanel writes it: `2024-01-31 12:00:00`.
    """

    id: int
    name: str
    count: int
    description: str
    created: str
    is_visible: bool


@dataclass(frozen=True, repr=False)
class BookmarkInfo(Result):
    """A saved report.

    Attributes:
        id: The argument of `query_saved_report`.
        type: `insights`, `funnels`, `retention` or `flows`, or a newer word of Mixpanel.
        project_id: The project; 0: Mixpanel does not send it.
        created: Its creation, as Mixpanel writes it; empty: Mixpanel does not send it.
        modified: Its last change, in the same form.
        workspace_id: Its data view.
        dashboard_id: Its board.
    """

    id: int
    name: str
    type: str
    project_id: int
    created: str
    modified: str
    workspace_id: int | None = None
    dashboard_id: int | None = None
    description: str | None = None
    creator_id: int | None = None
    creator_name: str | None = None


@dataclass(frozen=True, repr=False)
class TopEvent(Result):
    """An event of today.

    Attributes:
        count: Its count today, in the requested way of counting.
        percent_change: Change since yesterday: 0.5 is half as much again, -0.5 is half.
    """

    event: str
    count: int | float
    percent_change: float
