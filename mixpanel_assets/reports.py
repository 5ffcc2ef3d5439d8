"""What a stored day says of itself in Dagster's UI: numbers that plot, a table, a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

import dagster as dg

from mixpanel_assets.charts import hour_chart
from mixpanel_assets.errors import visible
from mixpanel_assets.warehouse import Column, DayReport, ProfileReport

_BLOCKS = " ▏▎▍▌▋▊▉█"
_BAR_WIDTH = 30
_LABEL_WIDTH = 40
_MOST_EVENTS = 100


def column_schema(columns: Sequence[Column]) -> dg.TableSchema:
    """Return a table's columns with their types and descriptions."""
    return dg.TableSchema(
        columns=[dg.TableColumn(c.name, c.type, c.description) for c in columns],
    )


def table_of(key: dg.AssetKey) -> str:
    """Return the schema and the table of an asset; where the file lies is nobody's business."""
    return ".".join(key.path)


def day_metadata(
    report: DayReport, seconds: float, *, budget_left: int | None = None
) -> dict[str, Any]:
    """Return the metadata of one materialized day of events.

    Args:
        report: What was stored.
        seconds: From the request to the commit; shared by all days of that request.
        budget_left: Export requests that could still be sent this hour.
    """
    warning = {"time_warning": report.time_warning} if report.time_warning else {}
    return {
        **warning,
        **_stored(report),
        "rows_before": report.rows_before,
        "seconds": round(seconds, 3),
        **_known(budget_left=budget_left),
        "events_per_hour": dg.MarkdownMetadataValue(hour_chart(report.hour_counts)),
    }


def kept_day_metadata(report: DayReport) -> dict[str, Any]:
    """Return the metadata of a day of events as far as the ledger knows them."""
    return _stored(report)


def vanished_metadata(vanished: Mapping[date, int]) -> dict[str, Any]:
    """Return a row for each day with rows that are kept though Mixpanel does not send them."""
    if not vanished:
        return {}
    records = [
        dg.TableRecord({"day": str(day), "rows_vanished": rows})
        for day, rows in sorted(vanished.items())
    ]
    columns = [dg.TableColumn("day", "string"), dg.TableColumn("rows_vanished", "int")]
    return {"vanished": dg.TableMetadataValue(records, dg.TableSchema(columns))}


def _known(**values: int | None) -> dict[str, int]:
    return {name: value for name, value in values.items() if value is not None}


def _present(**values: int) -> dict[str, int]:
    return {name: value for name, value in values.items() if value}


def _stored(report: DayReport) -> dict[str, Any]:
    counts = sorted(report.event_counts.items(), key=lambda item: (-item[1], item[0]))
    if others := counts[_MOST_EVENTS:]:
        rows = sum(rows for _, rows in others)
        counts[_MOST_EVENTS:] = [(f"({len(others):,} other events)", rows)]
    return {
        "dagster/partition_row_count": report.row_count,
        "status": report.status,
        "rows": report.row_count,
        **_present(rows_vanished=report.rows_vanished, rows_removed=report.rows_removed),
        "repeats_removed": report.duplicates_removed,
        "quarantined": report.quarantined,
        "bytes": report.bytes,
        "requests": report.requests,
        "events": dg.TableMetadataValue(
            [dg.TableRecord({"event": visible(name), "rows": rows}) for name, rows in counts],
            dg.TableSchema([dg.TableColumn("event", "string"), dg.TableColumn("rows", "int")]),
        ),
    }


def profile_metadata(
    report: ProfileReport, pages: int, seconds: float, *, budget_left: int | None = None
) -> dict[str, Any]:
    """Return the metadata of one materialized day of profiles.

    Args:
        report: What was stored.
        pages: On how many pages it came; those of several days count on the first.
        seconds: From the first question of the run to the commit.
        budget_left: Query requests that could still be sent this hour.
    """
    failed = {"failed_pages": _failed_pages([report])} if report.failed_pages else {}
    return {
        "dagster/partition_row_count": report.row_count,
        "status": report.status,
        "rows": report.row_count,
        "rows_before": report.rows_before,
        "repeats_removed": report.duplicates_removed,
        "expected_total": report.expected_total,
        "missing_rows": report.missing_rows,
        "quarantined": report.quarantined,
        "pages": pages,
        "seconds": round(seconds, 3),
        **_known(budget_left=budget_left),
        "scope": report.scope,
        "kept": report.kept,
        **failed,
    }


def completeness_metadata(reports: Sequence[ProfileReport]) -> dict[str, Any]:
    """Return the metadata of the check that all profiles came: counts, and a row per lost page."""
    partial = [report for report in reports if report.status == "partial"]
    failed = {"failed_pages": _failed_pages(partial)} if partial else {}
    return {"days": len(reports), "partial_days": len(partial), **failed}


def _failed_pages(reports: Sequence[ProfileReport]) -> dg.TableMetadataValue:
    # The days of one answer lack the same pages, which are told once.
    answers = [
        report
        for before, report in pairwise([None, *reports])
        if report and not (before and before.failed_pages == report.failed_pages)
    ]
    return dg.TableMetadataValue(
        [
            dg.TableRecord({"day": str(report.snapshot_date), "page": page, "reason": reason})
            for report in answers
            for page, reason in sorted(report.failed_pages.items())
        ],
        dg.TableSchema(
            [
                dg.TableColumn("day", "string", description="First day that lacks the page."),
                dg.TableColumn("page", "int"),
                dg.TableColumn("reason", "string"),
            ]
        ),
    )


def bar_chart(bars: Sequence[tuple[str, float]]) -> str:
    """Return a bar per label and number, as a block of text that Markdown leaves alone.

    The longest bar is the greatest number; a number below zero has none.
    """
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
    """Return a label that can neither end the block nor break its line."""
    text = "".join(letter if letter.isprintable() else " " for letter in label)
    return text.replace("`", "'")[:_LABEL_WIDTH]


def _bar(share: float) -> str:
    eighths = round(max(share, 0) * _BAR_WIDTH * 8)
    return "█" * (eighths // 8) + _BLOCKS[eighths % 8].strip()
