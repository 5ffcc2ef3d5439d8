"""Vanished lines: lines in quarantine that the response for their day lacks, which a reload keeps.

A line is there if the response has one of its event, time and `$insert_id` (without `$insert_id`:
as many of its event and time), in quarantine or, once it can be stored, as a row. What marks a
line is cut out of its bytes, as it may be no JSON that can be read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, timedelta

import duckdb

from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.ledger import Load
from mixpanel_assets.warehouse.quarantine import Quarantined, replace_quarantine
from mixpanel_assets.warehouse.schema import QUARANTINE
from mixpanel_assets.warehouse.spool import Window

_EVENT = re.compile(rb'"event"\s*:\s*("(?:[^"\\]|\\.)*")')
_TIME = re.compile(rb'"time"\s*:\s*([^\s,}]+)')
_INSERT_ID = re.compile(rb'"\$insert_id"\s*:\s*("(?:[^"\\]|\\.)+")')

# A line whose time says nothing counts for the first asked day, and most days share a request.
_NEAR = timedelta(days=31)
_OURS = "schema_name = $schema AND table_name = $table"

_Line = tuple[int, date, bytes]


def lacking_lines(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    window: Window,
    came: Sequence[Quarantined],
    *,
    table: str,
    staged: str,
) -> dict[int, date]:
    """Return the quarantined lines of the asked days that the response lacks: row id and day.

    Args:
        connection: Inside the transaction of the load, before it replaces rows.
        load: Of which table.
        window: The asked days.
        came: The response's own lines for the quarantine.
        table: The table; the qualified name.
        staged: The response's rows; the qualified name.
    """
    found = connection.execute(
        f"SELECT rowid, day, line FROM {QUARANTINE.quoted} "
        f"WHERE {_OURS} AND day BETWEEN $from_date AND $to_date ORDER BY quarantined_at, rowid",
        _names(load) | {"from_date": window.from_date, "to_date": window.to_date},
    ).fetchall()
    left = _without_marks(found, [line.line for line in came])
    if left:
        left = _without_rows(connection, left, window, table, staged)
    if left:
        elsewhere = _elsewhere(connection, load, window, (line for *_, line in left))
        left = [line for line in left if line[2] not in elsewhere]
    return {rowid: day for rowid, day, _ in left}


def store_lines(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    window: Window,
    came: Sequence[Quarantined],
    kept: Sequence[int],
) -> set[date]:
    """Put the response's lines in the place of the stored ones, except the kept row ids.

    Returns:
        Other days that a line moved from.
    """
    days = _move_lines(connection, load, window, came)
    connection.execute(
        f"UPDATE {QUARANTINE.quoted} SET vanished_at = coalesce(vanished_at, $now) "
        "WHERE rowid IN (SELECT unnest($kept::BIGINT[]))",
        {"now": load.moment, "kept": list(kept)},
    )
    replace_quarantine(connection, load, window.from_date, window.to_date, came, kept=kept)
    return days


def _move_lines(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    window: Window,
    came: Sequence[Quarantined],
) -> set[date]:
    """Delete the kept copies of lines that came for these days and were kept for others."""
    copies = _elsewhere(connection, load, window, (line.line for line in came), vanished=True)
    days = {day for _, day in copies.values()}
    if not days:
        return days
    gone = [rowid for rowid, _ in copies.values()]
    connection.execute(
        f"DELETE FROM {QUARANTINE.quoted} WHERE rowid IN (SELECT unnest(?::BIGINT[]))", [gone]
    )
    ledger.recount(connection, load.target, days)
    return days


def _without_marks(stored: Sequence[_Line], came: Sequence[bytes]) -> list[_Line]:
    """Leave out lines that came, also if Mixpanel has rewritten them."""
    same = set(came)
    marks = Counter(map(_mark, came))
    left = []
    # Lines that came as they are take their number first, so that the rewritten ones are left.
    for line in sorted(stored, key=lambda line: line[2] not in same):
        mark = _mark(line[2])
        if not marks[mark]:
            left.append(line)
        elif mark[2] is None:
            marks[mark] -= 1
    return left


def _without_rows(
    connection: duckdb.DuckDBPyConnection,
    lines: Sequence[_Line],
    window: Window,
    table: str,
    staged: str,
) -> list[_Line]:
    """Leave out lines that the response brings as rows, because they can be stored now."""
    values = {
        "times": sorted({time for *_, line in lines if (time := _time(line)) is not None}),
        "from_date": window.from_date,
        "to_date": window.to_date,
    }
    at_times = "time_raw IN (SELECT unnest($times::BIGINT[]))"
    ids = set(
        connection.execute(
            f"SELECT time_raw, insert_id FROM {staged} WHERE {at_times}",
            {"times": values["times"]},
        ).fetchall()
    )
    new = Counter[int | None](
        dict(
            connection.execute(
                f"""
                SELECT time_raw, count(*) FROM {staged} AS came
                WHERE {at_times} AND is_made AND NOT EXISTS (
                    FROM {table} AS stored WHERE event_date BETWEEN $from_date AND $to_date
                    AND stored.time_raw = came.time_raw AND stored.insert_id = came.insert_id
                ) GROUP BY ALL
                """,
                values,
            ).fetchall()
        )
    )
    left = []
    for line in lines:
        time, insert_id = _time(line[2]), _insert_id(line[2])
        if insert_id is None and new[time]:
            new[time] -= 1
        elif (time, insert_id) not in ids:
            left.append(line)
    return left


def _elsewhere(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    window: Window,
    lines: Iterable[bytes],
    *,
    vanished: bool = False,
) -> dict[bytes, tuple[int, date]]:
    """Return where the same lines lie under other days near the asked ones."""
    found = connection.execute(
        f"SELECT line, rowid, day FROM {QUARANTINE.quoted} WHERE {_OURS} "
        "AND day BETWEEN $first AND $last AND day NOT BETWEEN $from_date AND $to_date "
        "AND line IN (SELECT unnest($lines::BLOB[])) "
        "AND (vanished_at IS NOT NULL OR NOT $vanished)",
        _names(load)
        | {
            "first": window.from_date - _NEAR,
            "last": window.to_date + _NEAR,
            "from_date": window.from_date,
            "to_date": window.to_date,
            "lines": list(lines),
            "vanished": vanished,
        },
    )
    return {line: (rowid, day) for line, rowid, day in found.fetchall()}


def _names(load: Load) -> dict[str, object]:
    return {"schema": load.target.schema, "table": load.target.table}


def _mark(line: bytes) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Return event, time and `$insert_id` as they stand in a line."""
    event, time, insert_id = (
        found.group(1) if (found := pattern.search(line)) else None
        for pattern in (_EVENT, _TIME, _INSERT_ID)
    )
    return event, time, insert_id


def _time(line: bytes) -> int | None:
    _, time, _ = _mark(line)
    return int(time) if time and time.isdigit() and len(time) < 16 else None


def _insert_id(line: bytes) -> str | None:
    *_, insert_id = _mark(line)
    if insert_id is None:
        return None
    try:
        return str(json.loads(insert_id.decode("utf-8", "replace"), strict=False))
    except ValueError:
        return None
