"""What a live result says of itself in Dagster's UI: numbers that plot, a table, a chart."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import singledispatch
from typing import Any

import dagster as dg

from mixpanel_assets.errors import visible
from mixpanel_assets.reports import bar_chart
from mixpanel_assets.results import (
    ActivityFeedResult,
    EventCountsResult,
    FrequencyResult,
    FunnelResult,
    JQLResult,
    NumericAverageResult,
    NumericBucketResult,
    NumericSumResult,
    PropertyCountsResult,
    ResultWithDataFrame,
    RetentionResult,
    SavedReportResult,
    SegmentationResult,
)

MOST_ROWS = 50
MOST_BARS = 40

Bars = list[tuple[str, float]]


def summary_metadata(result: ResultWithDataFrame) -> dict[str, Any]:
    """Return the metadata of a result: `rows`, its numbers, the first rows, and a chart."""
    rows = result.to_table_dict()
    shown = bars(result)[:MOST_BARS]
    chart = {"chart": dg.MarkdownMetadataValue(bar_chart(shown))} if shown else {}
    return {"rows": len(rows), **numbers(result), "first_rows": first_rows(rows), **chart}


def first_rows(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Return the first rows as a table; lists and objects in it are JSON text."""
    shown = [
        {visible(name): _cell(value) for name, value in row.items()} for row in rows[:MOST_ROWS]
    ]
    names = list(shown[0]) if shown else []
    return dg.TableMetadataValue(
        [dg.TableRecord(row) for row in shown],
        dg.TableSchema([dg.TableColumn(name, _kind(row[name] for row in shown)) for name in names]),
    )


@singledispatch
def numbers(result: ResultWithDataFrame) -> dict[str, int | float]:
    """Return the few numbers that say most; sums only of what can be added up."""
    return {}


@numbers.register
def _(result: SegmentationResult) -> dict[str, int | float]:
    return {"total": result.total, "segments": len(result.series)}


@numbers.register(EventCountsResult)
@numbers.register(PropertyCountsResult)
def _(result: EventCountsResult | PropertyCountsResult) -> dict[str, int | float]:
    # People of several days, or averages of them, are no sum of anything.
    total = {"total": _sum(result.series)} if result.type == "general" else {}
    return {**total, "series": len(result.series)}


@numbers.register
def _(result: NumericBucketResult) -> dict[str, int | float]:
    return {"ranges": len(result.series)}


@numbers.register
def _(result: NumericSumResult) -> dict[str, int | float]:
    return {"total": sum(result.results.values())}


@numbers.register
def _(result: NumericAverageResult) -> dict[str, int | float]:
    return {"latest": list(result.results.values())[-1]} if result.results else {}


@numbers.register
def _(result: FunnelResult) -> dict[str, int | float]:
    if not result.steps:
        return {}
    began, finished = result.steps[0].count, result.steps[-1].count
    return {"began": began, "finished": finished, "conversion_rate": result.conversion_rate}


@numbers.register
def _(result: RetentionResult) -> dict[str, int | float]:
    return {"people": sum(cohort.size for cohort in result.cohorts)}


@numbers.register
def _(result: ActivityFeedResult) -> dict[str, int | float]:
    return {"events": len(result.events), "users": len(result.distinct_ids)}


@singledispatch
def bars(result: ResultWithDataFrame) -> Bars:
    """Return labels and numbers for a chart; nothing where no chart would tell the truth."""
    return []


@bars.register(SegmentationResult)
@bars.register(EventCountsResult)
@bars.register(PropertyCountsResult)
@bars.register(NumericBucketResult)
def _(
    result: SegmentationResult | EventCountsResult | PropertyCountsResult | NumericBucketResult,
) -> Bars:
    if len(result.series) == 1:
        [row] = result.series.values()
        return _latest(row)
    # Bars of the last date: what is counted by people cannot be added up over dates.
    last = max((when for row in result.series.values() for when in row), default="")
    found = [(f"{last} {name}", row.get(last, 0)) for name, row in result.series.items()]
    if isinstance(result, NumericBucketResult):
        return found
    return sorted(found, key=lambda bar: -bar[1])


@bars.register(NumericSumResult)
@bars.register(NumericAverageResult)
def _(result: NumericSumResult | NumericAverageResult) -> Bars:
    return _latest(result.results)


@bars.register
def _(result: FunnelResult) -> Bars:
    return [
        (f"{number} {step.event}", step.count) for number, step in enumerate(result.steps, start=1)
    ]


@bars.register
def _(result: RetentionResult) -> Bars:
    """Of the people that a period has been over for, in percent, how many came back in it."""
    longest = max((len(cohort.retention) for cohort in result.cohorts), default=0)
    found: Bars = []
    for period in range(longest):
        known = [cohort for cohort in result.cohorts if len(cohort.retention) > period]
        people = sum(cohort.size for cohort in known)
        back = sum(cohort.size * cohort.retention[period] for cohort in known)
        found.append((f"{result.unit} {period}: %", round(100 * back / people, 1) if people else 0))
    return found


@bars.register
def _(result: FrequencyResult) -> Bars:
    if not result.data:
        return []
    when, counts = list(result.data.items())[-1]
    unit = result.addiction_unit
    return [(f"{when} {number}+ {unit}s", count) for number, count in enumerate(counts, start=1)]


@bars.register(JQLResult)
@bars.register(SavedReportResult)
def _(result: JQLResult | SavedReportResult) -> Bars:
    """The last column by the others, when it holds numbers."""
    found: Bars = []
    for row in result.to_table_dict()[:MOST_BARS]:
        *labels, number = row.values()
        if not labels or isinstance(number, bool) or not isinstance(number, int | float):
            return []
        found.append((" ".join(str(label) for label in labels), number))
    return found


def _latest(row: Mapping[str, float]) -> Bars:
    return list(row.items())[-MOST_BARS:]


def _sum(series: Mapping[str, Mapping[str, int | float]]) -> int | float:
    return sum(count for row in series.values() for count in row.values())


def _cell(value: Any) -> str | int | float | bool | None:
    if value is None or isinstance(value, int | float):
        return value
    return visible(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _kind(values: Iterable[Any]) -> str:
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return "int"
    return "float" if kinds and kinds <= {int, float} else "string"
