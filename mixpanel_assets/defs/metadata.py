"""What Dagster's UI shows of a stored day and of a report: numbers, tables, charts."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import singledispatch
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import dagster as dg

from mixpanel_assets.errors import visible
from mixpanel_assets.loading.plan import LoadProgress
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
from mixpanel_assets.warehouse import Column, DayReport, ProfileReport, Target

_STEP = 10
_FLOOR = 48
_TOP = 12


def hour_chart(hour_counts: Sequence[int]) -> str:
    """Return a bar per hour of the day as Markdown; the largest hour is also in words."""
    # Dagster hides Markdown of 1,000 characters or more behind a link. The asset's page has room
    # for 330 pixels on a screen of 1,440.
    most = max(hour_counts, default=0)
    if not most:
        return "No events."
    largest = f"{most:,} at {list(hour_counts).index(most):02d}:00"
    bars = "".join(
        f"M{_STEP * hour + 5} {_FLOOR}V{_FLOOR - (_FLOOR - _TOP) * count / most:.0f}"
        for hour, count in enumerate(hour_counts)
        if count
    )
    hours = "".join(
        f'<text x="{_STEP * hour}" y="58">{hour:02d}</text>' for hour in range(0, 24, 6)
    )
    image = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="320" height="80" viewBox="0 0 240 60">'
        f'<path stroke="#4f43dd" stroke-width="8" d="{bars}"/>'
        f'<g style="font:9px sans-serif" fill="gray"><text y="8">{largest}</text>{hours}</g></svg>'
    )
    encoded = base64.b64encode(image.encode()).decode()
    return f"![Most events: {largest} UTC](data:image/svg+xml;base64,{encoded})"


_BLOCKS = " ▏▎▍▌▋▊▉█"
_BAR_WIDTH = 30
_LABEL_WIDTH = 40
_MOST_EVENTS = 100


def column_schema(columns: Sequence[Column]) -> dg.TableSchema:
    """Return a table's columns with their types and descriptions."""
    return dg.TableSchema(
        columns=[dg.TableColumn(c.name, c.type, c.description) for c in columns],
    )


MetadataKind: TypeAlias = Literal["row_count", "column_metadata", "cost", "content"]
# By kind, for hosts that show less. What says whether a day is complete has no kind.
METADATA: Mapping[MetadataKind, tuple[str, ...]] = {
    "row_count": ("rows", "rows_before"),
    "column_metadata": ("dagster/column_schema",),
    "cost": ("megabytes", "requests", "request_days", "seconds", "budget_left", "pages"),
    "content": ("events", "events_per_hour", "certificate"),
}

# Where the IO manager finds the table of an asset whose key ends with another name.
TABLE = "mixpanel_assets/table"


def stored_table(
    key: dg.AssetKey, target: Target, partition_expr: str, columns: dg.TableSchema
) -> dict[str, Any]:
    """Return an asset's metadata on its table: the partition's column, the columns, the place."""
    renamed = {} if key.path[-1] == target.table else {TABLE: target.table}
    return {
        "partition_expr": partition_expr,
        "dagster/column_schema": columns,
        # Without the path of the database, which Dagster's UI would show to all its users.
        "dagster/table_name": f"{target.schema}.{target.table}",
        "schema": target.schema,  # Dagster's IO managers read it; else the key's prefix
        **renamed,
    }


def table(
    rows: Iterable[Mapping[str, Any]], types: Mapping[str, str], /, **descriptions: str
) -> dg.TableMetadataValue:
    """Return rows as a table.

    Args:
        rows: With a value for each column.
        types: Of the columns, by name, in order.
        descriptions: Of columns, by name.
    """
    columns = [dg.TableColumn(name, kind, descriptions.get(name)) for name, kind in types.items()]
    return dg.TableMetadataValue(
        [dg.TableRecord(dict(row)) for row in rows], dg.TableSchema(columns)
    )


def day_metadata(
    report: DayReport, seconds: float, progress: LoadProgress | None = None
) -> dict[str, Any]:
    """Return the metadata of one materialized day of events.

    Args:
        report: What was stored.
        seconds: The day's share of the time from the request to the commit.
        progress: Of the load, after the response with this day; None: there was no request.
    """
    warning = {"time_warning": report.time_warning} if report.time_warning else {}
    days = progress.request_days if progress else 1
    budget = progress.budget if progress else None
    return {
        **warning,
        **_ledger_numbers(report),
        **_without_none(
            request_days=days if days > 1 else None,
            rows_before=report.rows_before,
            budget_left=budget.left if budget else None,
        ),
        "seconds": round(seconds, 3),
        **_certificate(report),
        "events_per_hour": dg.MarkdownMetadataValue(hour_chart(report.hour_counts)),
        "events": _event_table(report),
    }


def kept_day_metadata(report: DayReport) -> dict[str, Any]:
    """Return the metadata of a day of events, by its row in the ledger."""
    return {**_ledger_numbers(report), **_certificate(report), "events": _event_table(report)}


def vanished_metadata(vanished: Mapping[date, int]) -> dict[str, Any]:
    """Return a row for each day with rows that are kept though Mixpanel does not send them."""
    if not vanished:
        return {}
    rows = ({"day": str(day), "rows_vanished": rows} for day, rows in sorted(vanished.items()))
    return {"vanished": table(rows, {"day": "string", "rows_vanished": "int"})}


def megabytes(size: int) -> float:
    """Return a number of bytes in millions, to be plotted."""
    return round(size / 1e6, 3)


def _without_none(**values: int | None) -> dict[str, int]:
    return {name: value for name, value in values.items() if value is not None}


def _without_zeros(**values: int) -> dict[str, int]:
    return {name: value for name, value in values.items() if value}


def _ledger_numbers(report: DayReport) -> dict[str, Any]:
    return {
        "status": report.status,
        "rows": report.row_count,
        **_without_zeros(rows_vanished=report.rows_vanished, rows_removed=report.rows_removed),
        "repeats_removed": report.duplicates_removed,
        "quarantined": report.quarantined,
        "megabytes": megabytes(report.bytes),
        **_without_zeros(requests=report.requests),
    }


def _certificate(report: DayReport) -> dict[str, Any]:
    """Return what the response had, and what is stored of it, as JSON."""
    if report.receipt is None:
        return {}
    stored = {"rows_kept": report.rows_vanished, "rows_stored": report.row_count}
    return {"certificate": dg.JsonMetadataValue({**report.receipt.to_dict(), **stored})}


def _event_table(report: DayReport) -> dg.TableMetadataValue:
    counts = sorted(report.event_counts.items(), key=lambda item: (-item[1], item[0]))
    if others := counts[_MOST_EVENTS:]:
        rows = sum(rows for _, rows in others)
        counts[_MOST_EVENTS:] = [(f"({len(others):,} other events)", rows)]
    return table(
        ({"event": visible(name), "rows": rows} for name, rows in counts),
        {"event": "string", "rows": "int"},
    )


def profile_metadata(
    report: ProfileReport, pages: int, seconds: float, *, budget_left: int | None = None
) -> dict[str, Any]:
    """Return the metadata of one materialized day of profiles.

    Args:
        report: What was stored.
        pages: The number of its pages; those of several days count on the first.
        seconds: Since the day before was stored; for the first day, since the first request.
        budget_left: Query requests that are left this hour.
    """
    failed = {"failed_pages": _failed_pages([report])} if report.failed_pages else {}
    return {
        "status": report.status,
        "rows": report.row_count,
        **_without_none(rows_before=report.rows_before),
        "repeats_removed": report.duplicates_removed,
        "expected_total": report.expected_total,
        "missing_rows": report.missing_rows,
        "quarantined": report.quarantined,
        "pages": pages,
        "seconds": round(seconds, 3),
        **_without_none(budget_left=budget_left),
        "scope": report.scope,
        "kept": report.kept,
        **failed,
    }


def completeness_metadata(reports: Sequence[ProfileReport]) -> dict[str, Any]:
    """Return the metadata of the check on profiles: counts, and a row per missing page."""
    partial = [report for report in reports if report.status == "partial"]
    failed = {"failed_pages": _failed_pages(partial)} if partial else {}
    return {"days": len(reports), "partial_days": len(partial), **failed}


def _failed_pages(reports: Sequence[ProfileReport]) -> dg.TableMetadataValue:
    # The days of one snapshot lack the same pages, which are listed once.
    snapshots = [
        report
        for before, report in pairwise([None, *reports])
        if report and not (before and before.failed_pages == report.failed_pages)
    ]
    return table(
        (
            {"day": str(report.snapshot_date), "page": page, "reason": reason}
            for report in snapshots
            for page, reason in sorted(report.failed_pages.items())
        ),
        {"day": "string", "page": "int", "reason": "string"},
        day="First day that lacks the page.",
    )


def bar_chart(bars: Sequence[tuple[str, float]]) -> str:
    """Return a bar per label and number, as a block of code; numbers below zero have no bar."""
    most = max((number for _, number in bars if number > 0), default=1)
    labels = [_plain(label) for label, _ in bars]
    width = max(map(len, labels), default=0)
    lines = [
        f"{label:<{width}} {_bar(number / most):<{_BAR_WIDTH}} {_short(number):>9,}"
        for label, (_, number) in zip(labels, bars, strict=True)
    ]
    return "```text\n" + "\n".join(lines) + "\n```"


def _short(number: float) -> float:
    return round(number, 3) if isinstance(number, float) else number


def _plain(label: str) -> str:
    """Return a label that cannot end the block or its line."""
    text = "".join(letter if letter.isprintable() else " " for letter in label)
    return text.replace("`", "'")[:_LABEL_WIDTH]


def _bar(share: float) -> str:
    eighths = round(max(share, 0) * _BAR_WIDTH * 8)
    return "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()


# Dagster keeps metadata with each event of its log and shows it on one page.
MOST_ROWS = 50
MOST_BARS = 40

Bars = list[tuple[str, float]]


def summary_metadata(result: ResultWithDataFrame) -> dict[str, Any]:
    """Return the metadata of a result: `rows`, its numbers, a chart, and the first rows."""
    rows = result.to_table_dict()
    shown = bars(result)[:MOST_BARS]
    chart = {"chart": dg.MarkdownMetadataValue(bar_chart(shown))} if shown else {}
    # The page of a run cuts long metadata off: the rows come last.
    return {"rows": len(rows), **numbers(result), **chart, "first_rows": first_rows(rows)}


def first_rows(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Return the first rows as a table; lists and objects in it are JSON text."""
    shown = [
        {visible(name): _cell(value) for name, value in row.items()} for row in rows[:MOST_ROWS]
    ]
    names = list(shown[0]) if shown else []
    return table(shown, {name: _kind(row[name] for row in shown) for name in names})


@singledispatch
def numbers(result: ResultWithDataFrame) -> dict[str, int | float]:
    """Return the main numbers; totals only of numbers that can be added up."""
    return {}


@numbers.register
def _(result: SegmentationResult) -> dict[str, int | float]:
    return {"total": result.total, "segments": len(result.series)}


@numbers.register(EventCountsResult)
@numbers.register(PropertyCountsResult)
def _(result: EventCountsResult | PropertyCountsResult) -> dict[str, int | float]:
    # People counted on several days cannot be added up, nor can averages.
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
    """Return labels and numbers for a chart; none if a chart would mislead."""
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
    # Bars of the last date, because counts of people cannot be added up over dates.
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
    """Percentage of people who returned, over cohorts for which the period has ended."""
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
    """Return the last column by the others, if it holds numbers."""
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
