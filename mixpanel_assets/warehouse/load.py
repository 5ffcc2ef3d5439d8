"""Days of events from a spool file into a table, in the caller's transaction."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from pathlib import Path

import duckdb

from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.insert_ids import fill_insert_ids
from mixpanel_assets.warehouse.ledger import Load, Target
from mixpanel_assets.warehouse.leftovers import Leftovers
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.quarantine import Quarantined, check_limits, replace_quarantine
from mixpanel_assets.warehouse.repeats import remove_repeats
from mixpanel_assets.warehouse.reports import DayReport, Status
from mixpanel_assets.warehouse.schema import EVENTS
from mixpanel_assets.warehouse.spool import Window, is_empty, rows


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
    run_id: str | None = None,
    open_days: Collection[date] = (),
) -> list[DayReport]:
    """Replace the events of the asked days by those in a spool file; tell what each day got.

    Everything happens in the caller's transaction, ledger and quarantine included. When this
    raises, roll back: nothing of the old days has changed then.

    Args:
        connection: A prepared database inside a transaction.
        spool: What Mixpanel sent when asked with `time_in_ms=true`; gzip or plain, may be empty.
        from_date: First asked day, included.
        to_date: Last asked day, included.
        lines: How many lines were counted while the file was received.
        project: Whose events they are and how their times are read.
        received_bytes: Bytes received; shared out over the days by their rows.
        requests: Requests made for the file; they count on the first day.
        run_id: Kept in the ledger.
        open_days: Days that are not over yet; their status is `open`.

    Returns:
        One report for each asked day, in order, days without events included.

    Raises:
        IncompleteExportError: The file is not the asked days: lines are missing or are no
            events, rows belong to other days, or too many lines cannot be stored.
        ShiftedRowsError: Rows belong to other days, several days were asked and the project
            is a legacy one: ask day by day.
    """
    window = Window(from_date, to_date, project)
    load = Load(Target(EVENTS.name), "events", run_id)
    before = ledger.rows_before(connection, load.target, from_date, to_date)
    _delete_days(connection, window)
    quarantined = _insert(connection, spool, window, lines)
    replace_quarantine(connection, load, from_date, to_date, quarantined)
    removed = remove_repeats(connection, EVENTS.quoted, from_date, to_date)
    fill_insert_ids(connection, EVENTS.quoted, from_date, to_date)
    tallies = _tally(connection, window)
    received = _shares(received_bytes, [tallies[day].row_count for day in window.days])
    reports = [
        DayReport(
            day=day,
            status=_status(tallies[day].row_count, is_open=day in open_days),
            row_count=tallies[day].row_count,
            rows_before=before.get(day),
            duplicates_removed=removed.get(day, 0),
            quarantined=sum(line.day == day for line in quarantined),
            shifted_rows=tallies[day].shifted,
            requests=requests if day == from_date else 0,
            bytes=share,
            event_counts=dict(tallies[day].events),
            hour_counts=tuple(tallies[day].hours[hour] for hour in range(24)),
        )
        for day, share in zip(window.days, received, strict=True)
    ]
    check_limits(reports, quarantined)
    ledger.write_event_days(connection, load, reports)
    return reports


@dataclass
class _Tally:
    """What is stored for a day, counted once by event and hour."""

    row_count: int = 0
    shifted: int = 0
    events: Counter[str] = field(default_factory=Counter)
    hours: Counter[int] = field(default_factory=Counter)


def _delete_days(connection: duckdb.DuckDBPyConnection, window: Window) -> None:
    connection.execute(
        f"DELETE FROM {EVENTS.quoted} WHERE event_date BETWEEN ? AND ?",
        [window.from_date, window.to_date],
    )


def _insert(
    connection: duckdb.DuckDBPyConnection, spool: Path, window: Window, lines: int
) -> list[Quarantined]:
    """Insert the spool's rows; every line is then a row or in quarantine, or this raises."""
    found, quarantined = 0, list[Quarantined]()
    if not is_empty(spool):
        found = _insert_rows(connection, spool, window)
        if found < lines:
            left = Leftovers(connection, spool, window)
            left.sort()
            quarantined = left.quarantined
            found += left.rescued + len(quarantined)
    if found != lines:
        raise IncompleteExportError(
            f"The export {window.from_date}..{window.to_date} was received with {lines} lines, "
            f"but {spool.name} holds {found}. Nothing was changed; fetch these days again.",
            from_date=window.from_date,
            to_date=window.to_date,
            reason="line count differs",
            lines=found,
        )
    return quarantined


def _insert_rows(connection: duckdb.DuckDBPyConnection, spool: Path, window: Window) -> int:
    try:
        inserted = connection.execute(
            f"INSERT INTO {EVENTS.quoted} BY NAME "
            f"SELECT * EXCLUDE (json, stored) FROM ({rows(spool, window)}) WHERE stored"
        ).fetchone()
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        if str(spool) not in str(error):
            raise
        raise IncompleteExportError(
            f"The export {window.from_date}..{window.to_date} cannot be read from {spool.name}. "
            "Nothing was changed; fetch these days again.",
            from_date=window.from_date,
            to_date=window.to_date,
            reason="unreadable file",
        ) from error
    return int(inserted[0]) if inserted else 0


def _tally(connection: duckdb.DuckDBPyConnection, window: Window) -> Mapping[date, _Tally]:
    counted = connection.execute(
        f"""
        SELECT event_date, event_name, hour(event_time) AS hour, count(*),
               count_if(make_timestamp_ms(time_raw)::DATE <> event_date)
        FROM {EVENTS.quoted} WHERE event_date BETWEEN ? AND ? GROUP BY ALL ORDER BY ALL
        """,
        [window.from_date, window.to_date],
    )
    tallies: dict[date, _Tally] = defaultdict(_Tally)
    for day, event, hour, count, shifted in counted.fetchall():
        tally = tallies[day]
        tally.row_count += count
        tally.shifted += shifted
        tally.events[event] += count
        tally.hours[hour] += count
    return tallies


def _status(row_count: int, *, is_open: bool) -> Status:
    if is_open:
        return "open"
    return "complete" if row_count else "empty"


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
