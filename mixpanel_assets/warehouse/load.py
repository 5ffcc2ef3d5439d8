"""Days of events from a spool file into the asset table, in the caller's transaction.

The rows are staged in memory first, and repeats leave there: DuckDB writes a table twice
when rows are deleted in the transaction that inserted them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb

from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.clocks import contradiction, measured_offsets, refuse_zone_change
from mixpanel_assets.warehouse.event_assets import EVERY_EVENT, events_asset_table
from mixpanel_assets.warehouse.insert_ids import fill_insert_ids
from mixpanel_assets.warehouse.ledger import Load, Target
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.quarantine import check_limits
from mixpanel_assets.warehouse.repeats import remove_repeats
from mixpanel_assets.warehouse.reports import DayReport, Status
from mixpanel_assets.warehouse.spool import Window
from mixpanel_assets.warehouse.staging import Staging, staged
from mixpanel_assets.warehouse.tables import day_reports
from mixpanel_assets.warehouse.vanished import KEEP_ALL, Reload, Replacement, Vanished
from mixpanel_assets.warehouse.vanished_lines import lacking_lines, store_lines

_MOST_CHARACTERS = 1_000  # of an error in the ledger


def replace_events(
    connection: duckdb.DuckDBPyConnection,
    spool: Path,
    *,
    from_date: date,
    to_date: date,
    lines: int,
    project: ProjectIdentity,
    received_bytes: int = 0,
    requests: int = 1,
    received_at: datetime | None = None,
    run_id: str | None = None,
    open_days: Collection[date] = (),
    empty_before: Collection[date] | None = None,
    filters: Mapping[str, Any] | None = None,
    target: Target = EVERY_EVENT,
    reload: Reload = KEEP_ALL,
) -> list[DayReport]:
    """Store a spool file as the asked days of a table; tell what each day got.

    Rows that the file brings are added or replace their older version. Stored rows that it
    lacks are kept and counted (see `vanished`). Everything happens in the caller's transaction,
    ledger and quarantine included. When this raises, roll back: nothing of the old days has
    changed then.

    Args:
        connection: A prepared database inside a transaction.
        spool: What Mixpanel sent when asked with `time_in_ms=true`; gzip or plain, may be empty.
        from_date: First asked day, included.
        to_date: Last asked day, included.
        lines: How many lines were counted while the file was received.
        project: Whose events they are and how their times are read.
        received_bytes: Bytes received; shared out over the days by their rows.
        requests: Requests made for the file; they count on the first day.
        received_at: When the file was received, kept in the ledger; None: now.
        run_id: Kept in the ledger.
        open_days: Days that are not over yet; their status is `open`.
        empty_before: Days that an earlier response of this load had no line for. Other days
            become `empty` only if they are stored as that; they are left as they are and have
            no report. None: one response is enough.
        filters: What narrowed the request, kept in the ledger; None for everything.
        target: `events`; or another table in schema `mixpanel` with the same columns, for the
            events of one filter; made when absent.
        reload: What may be removed of what is stored, and what else the same load reads.

    Returns:
        One report for each asked day that was written, in order.

    Raises:
        IncompleteExportError: The file is not the asked days: lines are missing or are no
            events, rows belong to other days, or too many lines cannot be stored.
        ShiftedRowsError: Rows belong to other days or the zone changed, several days were
            asked and the project is a legacy one: ask day by day.
        ConfigError: The name of the table is taken, or it holds what another filter finds.
    """
    window = Window(from_date, to_date, project)
    load = Load(target, "events", run_id, filters, received_at)
    table = events_asset_table(connection, target, filters)
    with staged(connection, spool, window, lines) as staging:
        reports = settle(
            staging,
            window,
            before=ledger.rows_before(connection, load.target, from_date, to_date),
            received_bytes=received_bytes,
            requests=requests,
            open_days=open_days,
        )
        empty = [report.day for report in reports if report.status == "empty"]
        lacking = lacking_lines(
            connection,
            load,
            window,
            staging.quarantined,
            table=table.quoted,
            staged=staging.table,
        )
        vanished = Replacement(connection, load, table, staging.table, window, reload).make(empty)
        kept = {
            row: day for row, day in lacking.items() if reload.keeps(day, is_empty=day in empty)
        }
        others = store_lines(connection, load, window, staging.quarantined, list(kept))
    vanished.lines_kept.update(kept.values())
    vanished.lines_removed.update(day for row, day in lacking.items() if row not in kept)
    reports = [_with_vanished(report, vanished) for report in reports]
    if empty_before is not None:
        believed = {*empty_before, *ledger.empty_days(connection, target, from_date, to_date)}
        reports = [report for report in reports if not is_first_look(report, believed)]
    ledger.write_event_days(connection, load, reports)
    others |= vanished.moved.keys()
    if others:
        known = day_reports(connection, min(others), max(others), table=target.table)
        corrected = tuple(known[day] for day in sorted(others))
        reports[0] = replace(reports[0], corrected=corrected)
    return reports


def settle(
    staging: Staging,
    window: Window,
    *,
    before: Mapping[date, int],
    received_bytes: int,
    requests: int,
    open_days: Collection[date],
) -> list[DayReport]:
    """Remove repeats from staged rows and fill their ids; tell what each asked day then holds.

    Raises:
        IncompleteExportError: Too many lines cannot be stored.
        ShiftedRowsError: The zone of a legacy project changed between the days.
    """
    removed = remove_repeats(staging.connection, staging.table)
    fill_insert_ids(staging.connection, staging.table)
    tallies = _tally(staging.connection, staging.table)
    row_count = sum(tally.row_count for tally in tallies.values())
    offsets = measured_offsets(staging.connection, staging.table, row_count, window)
    refuse_zone_change(window, offsets)
    shares = _shares(received_bytes, [tallies[day].row_count for day in window.days])
    refused = Counter(line.day for line in staging.quarantined)
    reports = [
        DayReport(
            day=day,
            status=_status(tallies[day].row_count + refused[day], is_open=day in open_days),
            row_count=tallies[day].row_count,
            rows_before=before.get(day),
            duplicates_removed=removed.get(day, 0),
            quarantined=refused[day],
            shifted_rows=tallies[day].shifted,
            time_warning=contradiction(window.project, day, offsets.get(day)),
            requests=requests if day == window.from_date else 0,
            bytes=share,
            event_counts=dict(tallies[day].events),
            hour_counts=tuple(tallies[day].hours[hour] for hour in range(24)),
        )
        for day, share in zip(window.days, shares, strict=True)
    ]
    check_limits(reports, staging.quarantined)
    return reports


def _with_vanished(report: DayReport, vanished: Vanished) -> DayReport:
    """Add to a day what is kept of it, though the response lacks it."""
    day, kept, lines = report.day, vanished.kept[report.day], vanished.lines_kept[report.day]
    events = Counter(report.event_counts)
    events.update({name: rows for (of, name), rows in vanished.events.items() if of == day})
    return replace(
        report,
        status="complete" if kept + lines and report.status == "empty" else report.status,
        row_count=report.row_count + kept,
        rows_vanished=kept,
        newly_vanished=vanished.new[day],
        rows_removed=vanished.removed[day],
        lines_removed=vanished.lines_removed[day],
        quarantined=report.quarantined + lines,
        shifted_rows=report.shifted_rows + vanished.shifted[day],
        event_counts=dict(events),
        hour_counts=tuple(
            rows + vanished.hours[day, hour] for hour, rows in enumerate(report.hour_counts)
        ),
    )


def mark_days(
    connection: duckdb.DuckDBPyConnection,
    days: Collection[date],
    status: Status,
    *,
    requests: int = 0,
    run_id: str | None = None,
    filters: Mapping[str, Any] | None = None,
    target: Target = EVERY_EVENT,
) -> list[DayReport]:
    """Write the status of days that no rows come for; what is stored of them is kept.

    Args:
        connection: A prepared database inside a transaction.
        days: In any order.
        status: `empty`, or why they were not loaded.
        requests: Requests made to find out; they count on the first day.
        run_id: Kept in the ledger.
        filters: What narrowed the request.
        target: The table.

    Returns:
        One report for each day, in order; `row_count` is what it holds from earlier on. The
        ledger row of a day that was loaded whole or holds rows is left as it is.
    """
    load = Load(target, "events", run_id, filters)
    events_asset_table(connection, target, filters)
    first, last = min(days), max(days)
    before = ledger.rows_before(connection, target, first, last)
    loaded = ledger.loaded_days(connection, target, first, last)
    reports = [
        DayReport(
            day,
            status,
            row_count=before.get(day, 0),
            rows_before=before.get(day),
            requests=0 if number else requests,
        )
        for number, day in enumerate(sorted(days))
    ]
    ledger.write_event_days(connection, load, [r for r in reports if r.day not in loaded])
    return reports


def mark_failed(
    connection: duckdb.DuckDBPyConnection,
    days: Collection[date],
    error: str,
    *,
    run_id: str | None = None,
    filters: Mapping[str, Any] | None = None,
    target: Target = EVERY_EVENT,
) -> list[date]:
    """Write why days could not be loaded; what is stored of them, and its status, is kept.

    Args:
        connection: A prepared database inside a transaction.
        days: In any order.
        error: The sentence for people, without secrets.
        run_id: Kept in the ledger, for days that are not stored.
        filters: What narrowed the request.
        target: The table.

    Returns:
        Those of the days that are stored.
    """
    load = Load(target, "events", run_id, filters)
    ledger.write_failure(connection, load, days, _bounded(error), datetime.now(UTC))
    stored = ledger.rows_before(connection, target, min(days), max(days))
    return [day for day in days if day in stored]


def _bounded(error: str) -> str:
    """Return the text on one line, with characters that steer a terminal spelled out."""
    shown = "".join(one if one.isprintable() else repr(one)[1:-1] for one in error)
    return shown if len(shown) <= _MOST_CHARACTERS else f"{shown[:_MOST_CHARACTERS]}…"


@dataclass
class _Tally:
    """What is stored for a day, counted once by event and hour."""

    row_count: int = 0
    shifted: int = 0
    events: Counter[str] = field(default_factory=Counter)
    hours: Counter[int] = field(default_factory=Counter)


def _tally(connection: duckdb.DuckDBPyConnection, table: str) -> Mapping[date, _Tally]:
    counted = connection.execute(
        f"""
        SELECT event_date, event_name, hour(event_time) AS hour, count(*),
               count_if(make_timestamp_ms(time_raw)::DATE <> event_date)
        FROM {table} GROUP BY ALL ORDER BY ALL
        """
    )
    tallies: dict[date, _Tally] = defaultdict(_Tally)
    for day, event, hour, count, shifted in counted.fetchall():
        tally = tallies[day]
        tally.row_count += count
        tally.shifted += shifted
        tally.events[event] += count
        tally.hours[hour] += count
    return tallies


def is_first_look(report: DayReport, believed: Collection[date]) -> bool:
    """Whether nothing but one response says that a day has no events."""
    return report.status == "empty" and not report.rows_before and report.day not in believed


def _status(come: int, *, is_open: bool) -> Status:
    if is_open:
        return "open"
    return "complete" if come else "empty"


def _shares(total: int, weights: list[int]) -> list[int]:
    """Share a total out by weight so that the shares add up to it; all on the first if none."""
    whole = sum(weights)
    if not whole:
        return [total, *[0] * (len(weights) - 1)]
    ends = [0]
    passed = 0
    for weight in weights:
        passed += weight
        ends.append(total * passed // whole)
    return [after - before for before, after in pairwise(ends)]
