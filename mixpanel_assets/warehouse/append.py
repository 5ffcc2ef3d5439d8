"""Days of events from a spool file into a named table, added to what is there already.

An event that is there and comes again is one event: Mixpanel's rule for repeats holds across
both, by the made id where `$insert_id` is absent. So nothing doubles, whatever filters the
answers had and in whatever order they came.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb

from mixpanel_assets.errors import ConfigError
from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.destination import make_table, named_events, target_of
from mixpanel_assets.warehouse.ledger import Load, Target
from mixpanel_assets.warehouse.load import is_first_look, settle
from mixpanel_assets.warehouse.meeting import merge
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.quarantine import merge_quarantine
from mixpanel_assets.warehouse.reports import DayReport
from mixpanel_assets.warehouse.schema import EVENTS
from mixpanel_assets.warehouse.spool import Window
from mixpanel_assets.warehouse.staging import staged


def append_events(
    connection: duckdb.DuckDBPyConnection,
    spool: Path,
    *,
    table: str,
    from_date: date,
    to_date: date,
    lines: int,
    project: ProjectIdentity,
    filters: Mapping[str, Any] | None = None,
    is_cut: bool = False,
    received_bytes: int = 0,
    requests: int = 1,
    run_id: str | None = None,
    open_days: Collection[date] = (),
    empty_before: Collection[date] | None = None,
) -> list[DayReport]:
    """Add the events in a spool file to a named table, which is made if it is not there.

    Of an event that is there and comes again, the copy that Mixpanel processed last stays.
    Everything happens in the caller's transaction, ledger and quarantine included. When this
    raises, roll back: nothing has changed then.

    Args:
        connection: A prepared database inside a transaction.
        spool: What Mixpanel sent when asked with `time_in_ms=true`; gzip or plain, may be empty.
        table: Its name in schema `main`; it has the documented columns.
        from_date: First asked day, included.
        to_date: Last asked day, included.
        lines: How many lines were counted while the file was received.
        project: Whose events they are and how their times are read.
        filters: What narrowed the request; the ledger has a row for each day and filter.
        is_cut: Whether a limit kept events back; the days' status is `partial` then.
        received_bytes: Bytes received; shared out over the days by their rows.
        requests: Requests made for the file; they count on the first day.
        run_id: Kept in the ledger.
        open_days: Days that are not over yet; their status is `open`.
        empty_before: Days that an earlier response had no line for. Other days without a line
            are not written and have no report, unless the table holds rows of them. None: one
            response is enough.

    Returns:
        One report for each asked day that was written, in order; `row_count` is what the answer
        holds for it, each event once, whether it was there before or not.

    Raises:
        IncompleteExportError: The file is not the asked days: lines are missing or are no
            events, rows belong to other days, or too many lines cannot be stored.
        ConfigError: The name is taken or the table holds something else; or a day of a legacy
            project is there already, and nobody can tell which rows came with it.
    """
    window = Window(from_date, to_date, project)
    load = Load(target_of(table, EVENTS), "events", run_id, filters)
    make_table(connection, named_events(table))
    with staged(connection, spool, window, lines) as staging:
        reports = settle(
            staging,
            window,
            before=ledger.rows_before(connection, load.target, from_date, to_date),
            received_bytes=received_bytes,
            requests=requests,
            open_days=open_days,
        )
        meets = _may_meet(connection, load.target, window, reports)
        added = merge(connection, staging.table, load.target, window, meets=meets)
        merge_quarantine(connection, load, from_date, to_date, staging.quarantined)
    if is_cut:
        reports = [replace(report, status="partial") for report in reports]
    if empty_before is not None:
        reports = [report for report in reports if not is_first_look(report, empty_before)]
    ledger.add_event_days(connection, load, reports, added)
    return reports


def mark_empty_days(
    connection: duckdb.DuckDBPyConnection,
    days: Collection[date],
    *,
    table: str,
    filters: Mapping[str, Any] | None = None,
    run_id: str | None = None,
) -> None:
    """Note of days of a named table that they have no events, in the caller's transaction."""
    load = Load(target_of(table, EVENTS), "events", run_id, filters)
    ledger.add_event_days(connection, load, [DayReport(day, "empty") for day in days], {})


def _may_meet(
    connection: duckdb.DuckDBPyConnection,
    target: Target,
    window: Window,
    reports: Collection[DayReport],
) -> bool:
    """Tell whether rows of the table may be events that come again.

    In a legacy project a row can have the date of another day than it came with, and equal rows
    of two days are two events.
    """
    if window.project.regime == "utc":
        return True
    shifted = ledger.shifted_rows(connection, target)
    again = [day for day in window.days if day in shifted]
    others = shifted.keys() - set(window.days)
    if again and others and any([*shifted.values(), *(r.shifted_rows for r in reports)]):
        raise ConfigError(
            f"{target.table!r} holds {again[0]} already, and rows that came with another day than "
            "their date's. Load the table anew as a whole (`replace=True`, `--replace`).",
            {"table": target.table, "day": again[0].isoformat()},
        )
    return bool(again)
