"""Vanished lines: lines in quarantine that the response for their day lacks, which a reload keeps.

A line is there if the response has one of its event, time and `$insert_id` (without `$insert_id`:
as many of its event and time), in quarantine or, once it can be stored, as a row. What marks a
line is cut out of its first bytes, as it may be no JSON that can be read. Whether it is the same
line is told by its hash.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import NamedTuple

import duckdb

from mixpanel_assets.rules.json_text import members, parsed
from mixpanel_assets.rules.lines import BOM, HEAD_BYTES
from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.ledger import Load
from mixpanel_assets.warehouse.quarantine import DIGEST, Refusals, replace_quarantine
from mixpanel_assets.warehouse.schema import QUARANTINE
from mixpanel_assets.warehouse.spool import Window

_EVENT = re.compile(r'"event"\s*:\s*("(?:[^"\\]|\\.)*")')
_TIME = re.compile(r'"time"\s*:\s*([^\s,}]+)')
_INSERT_ID = re.compile(r'"\$insert_id"\s*:\s*("(?:[^"\\]|\\.)+")')

# A line whose time says nothing counts for the first asked day, and most days share a request.
_NEAR = timedelta(days=31)
_OURS = "schema_name = $schema AND table_name = $table"

_Mark = tuple[str | None, str | None, str | None]


class _Line(NamedTuple):
    """A stored line: its place, its hash, and event, time and `$insert_id` as sent."""

    rowid: int
    day: date
    sha256: str
    mark: _Mark


def lacking_lines(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    window: Window,
    came: Refusals,
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
        f"SELECT rowid, day, {DIGEST}, line[:{HEAD_BYTES}] FROM {QUARANTINE.quoted} "
        f"WHERE {_OURS} AND day BETWEEN $from_date AND $to_date ORDER BY quarantined_at, rowid",
        _names(load) | {"from_date": window.from_date, "to_date": window.to_date},
    ).fetchall()
    stored = [_Line(rowid, day, sha256, _mark(head)) for rowid, day, sha256, head in found]
    left = _without_marks(stored, came)
    if left:
        left = _without_rows(connection, left, window, table, staged)
    if left:
        elsewhere = _elsewhere(connection, load, window, (line.sha256 for line in left))
        left = [line for line in left if line.sha256 not in elsewhere]
    return {line.rowid: line.day for line in left}


def store_lines(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    window: Window,
    came: Refusals,
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
    came: Refusals,
) -> set[date]:
    """Delete the kept copies of lines that came for these days and were kept for others."""
    copies = _elsewhere(connection, load, window, (line.sha256 for line in came), vanished=True)
    days = {day for _, day in copies.values()}
    if not days:
        return days
    gone = [rowid for rowid, _ in copies.values()]
    connection.execute(
        f"DELETE FROM {QUARANTINE.quoted} WHERE rowid IN (SELECT unnest(?::BIGINT[]))", [gone]
    )
    ledger.recount(connection, load.target, days)
    return days


def _without_marks(stored: Sequence[_Line], came: Refusals) -> list[_Line]:
    """Leave out lines that came, also if Mixpanel has rewritten them."""
    same = {line.sha256 for line in came}
    marks = Counter(_mark(line.head) for line in came)
    left = []
    # Lines that came as they are take their number first, so that the rewritten ones are left.
    for line in sorted(stored, key=lambda line: line.sha256 not in same):
        if not marks[line.mark]:
            left.append(line)
        elif _insert_id(line.mark) is None:
            marks[line.mark] -= 1
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
        "times": sorted({time for line in lines if (time := _time(line.mark)) is not None}),
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
        time, insert_id = _time(line.mark), _insert_id(line.mark)
        if insert_id is None and new[time]:
            new[time] -= 1
        elif (time, insert_id) not in ids:
            left.append(line)
    return left


def _elsewhere(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    window: Window,
    hashes: Iterable[str],
    *,
    vanished: bool = False,
) -> dict[str, tuple[int, date]]:
    """Return where the same lines lie under other days near the asked ones."""
    found = connection.execute(
        f"SELECT {DIGEST}, rowid, day FROM {QUARANTINE.quoted} WHERE {_OURS} "
        "AND day BETWEEN $first AND $last AND day NOT BETWEEN $from_date AND $to_date "
        f"AND {DIGEST} IN (SELECT unnest($hashes::VARCHAR[])) "
        "AND (vanished_at IS NOT NULL OR NOT $vanished)",
        _names(load)
        | {
            "first": window.from_date - _NEAR,
            "last": window.to_date + _NEAR,
            "from_date": window.from_date,
            "to_date": window.to_date,
            "hashes": list(hashes),
            "vanished": vanished,
        },
    )
    return {sha256: (rowid, day) for sha256, rowid, day in found.fetchall()}


def _names(load: Load) -> dict[str, object]:
    return {"schema": load.target.schema, "table": load.target.table}


def _mark(head: bytes) -> _Mark:
    """Return event, time and `$insert_id` as they stand in a line, given its first bytes."""
    text = head.removeprefix(BOM).decode("utf-8", "surrogateescape")
    try:
        fields = dict(members(text))
        properties = dict(members(fields["properties"]))
    except (KeyError, ValueError):  # of a long line, which is cut here
        event, time, insert_id = (
            found.group(1) if (found := pattern.search(text)) else None
            for pattern in (_EVENT, _TIME, _INSERT_ID)
        )
        return event, time, insert_id
    return fields.get("event"), properties.get("time"), properties.get("$insert_id")


def _time(mark: _Mark) -> int | None:
    time = mark[1]
    return int(time) if time and time.isdecimal() and len(time) < 16 else None


def _insert_id(mark: _Mark) -> str | None:
    """Return the `$insert_id` as a row would have it."""
    sent = mark[2]
    if sent is None or sent == "null":
        return None
    return (str(parsed(sent)) if sent.startswith('"') else sent) or None
