"""Vanished rows and lines: stored ones that the response for their day lacks; a reload keeps them.

Between two exports, Mixpanel rewrites `distinct_id`, properties, and the name of an event on a hot
shard. A comparison of rows must not leave a second copy then:

- A row with a sent `$insert_id` is in the response if its event, time and `$insert_id` are.
- Rows with a made id are compared by event, time and number, as a rewritten property changes the
  id. Of n stored rows and m in the response, n - m are lacking.
- In the legacy regime, a change of zone moves events to a neighbouring day. A row that the
  response for that day has is moved there.
- Lines in quarantine are compared in the same way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, NamedTuple

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.rules.json_text import members, parse
from mixpanel_assets.rules.lines import BOM, HEAD_BYTES
from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.faults import number
from mixpanel_assets.warehouse.ledger import OF_TABLE, LedgerKey
from mixpanel_assets.warehouse.lines import Window
from mixpanel_assets.warehouse.quarantine import DIGEST, Refusals, replace_quarantine
from mixpanel_assets.warehouse.schema import QUARANTINE, VANISHED, Table

_EVENT_IN_LINE = re.compile(r'"event"\s*:\s*("(?:[^"\\]|\\.)*")')
_TIME_IN_LINE = re.compile(r'"time"\s*:\s*([^\s,}]+)')
_INSERT_ID_IN_LINE = re.compile(r'"\$insert_id"\s*:\s*("(?:[^"\\]|\\.)+")')

# A line without a usable time counts for the first day of its request, which has 31 days at most.
_NEAR_DAYS = timedelta(days=31)

_LineMark = tuple[str | None, str | None, str | None]


class _Line(NamedTuple):
    """A stored line: row id, day, hash, and event, time and `$insert_id` as sent."""

    rowid: int
    day: date
    sha256: str
    mark: _LineMark


def lacking_lines(
    connection: Connection,
    key: LedgerKey,
    window: Window,
    refusals: Refusals,
    *,
    table: str,
    staged: str,
) -> dict[int, date]:
    """Return the quarantined lines of the days that the response lacks: row id and day.

    Called before the load replaces the rows of `table`. `refusals` are the response's own lines
    for the quarantine, `staged` has its rows.
    """
    found = connection.execute(
        f"SELECT rowid, day, {DIGEST}, line[:{HEAD_BYTES}] FROM {QUARANTINE.quoted} "
        f"WHERE {OF_TABLE} AND day BETWEEN $from_date AND $to_date ORDER BY quarantined_at, rowid",
        key.target.names | window.ends,
    ).fetchall()
    stored_lines = [
        _Line(rowid, day, sha256, _line_mark(head)) for rowid, day, sha256, head in found
    ]
    lacking = _without_marks(stored_lines, refusals)
    if lacking:
        lacking = _without_rows(connection, lacking, window, table, staged)
    if lacking:
        elsewhere = _elsewhere(connection, key, window, (line.sha256 for line in lacking))
        lacking = [line for line in lacking if line.sha256 not in elsewhere]
    return {line.rowid: line.day for line in lacking}


def store_lines(
    connection: Connection, key: LedgerKey, window: Window, refusals: Refusals, kept: Sequence[int]
) -> set[date]:
    """Replace stored lines by those of the response, except the `kept` row ids.

    Returns the other days from which a line moved.
    """
    days = _move_lines(connection, key, window, refusals)
    connection.execute(
        f"UPDATE {QUARANTINE.quoted} SET vanished_at = coalesce(vanished_at, $now) "
        "WHERE rowid IN (SELECT unnest($kept::BIGINT[]))",
        {"now": key.moment, "kept": list(kept)},
    )
    replace_quarantine(connection, key, window.from_date, window.to_date, refusals, kept=kept)
    return days


def _move_lines(
    connection: Connection, key: LedgerKey, window: Window, refusals: Refusals
) -> set[date]:
    """Delete copies, kept for other days, of lines that the response has for these days."""
    copies = _elsewhere(connection, key, window, (line.sha256 for line in refusals), vanished=True)
    days = {day for _, day in copies.values()}
    if not days:
        return days
    gone = [rowid for rowid, _ in copies.values()]
    connection.execute(
        f"DELETE FROM {QUARANTINE.quoted} WHERE rowid IN (SELECT unnest(?::BIGINT[]))", [gone]
    )
    ledger.recount(connection, key.target, days)
    return days


def _without_marks(stored: Sequence[_Line], refusals: Refusals) -> list[_Line]:
    """Leave out lines that the response has, also if Mixpanel has rewritten them."""
    received_hashes = {line.sha256 for line in refusals}
    marks = Counter(_line_mark(line.head) for line in refusals)
    lacking = []
    # Unchanged lines are counted first, so that the rewritten ones are left.
    for line in sorted(stored, key=lambda line: line.sha256 not in received_hashes):
        if not marks[line.mark]:
            lacking.append(line)
        elif _row_insert_id(line.mark) is None:
            marks[line.mark] -= 1
    return lacking


def _without_rows(
    connection: Connection, lines: Sequence[_Line], window: Window, table: str, staged: str
) -> list[_Line]:
    """Leave out lines that are rows of the response, because they can be stored now."""
    times = {
        "times": sorted({time for line in lines if (time := _time_raw(line.mark)) is not None})
    }
    at_times = "time_raw IN (SELECT unnest($times::BIGINT[]))"
    staged_ids = set(
        connection.execute(
            f"SELECT time_raw, insert_id FROM {staged} WHERE {at_times}", times
        ).fetchall()
    )
    new_rows = Counter[int | None](
        dict(
            connection.execute(
                f"""
                SELECT time_raw, count(*) FROM {staged} AS arrived
                WHERE {at_times} AND is_made AND NOT EXISTS (
                    FROM {table} AS stored WHERE event_date BETWEEN $from_date AND $to_date
                    AND stored.time_raw = arrived.time_raw AND stored.insert_id = arrived.insert_id
                ) GROUP BY ALL
                """,
                times | window.ends,
            ).fetchall()
        )
    )
    lacking = []
    for line in lines:
        time, insert_id = _time_raw(line.mark), _row_insert_id(line.mark)
        if insert_id is None and new_rows[time]:
            new_rows[time] -= 1
        elif (time, insert_id) not in staged_ids:
            lacking.append(line)
    return lacking


def _elsewhere(
    connection: Connection,
    key: LedgerKey,
    window: Window,
    hashes: Iterable[str],
    *,
    vanished: bool = False,
) -> dict[str, tuple[int, date]]:
    """Return row id and day of the same lines under other days near the requested ones."""
    copies = connection.execute(
        f"SELECT {DIGEST}, rowid, day FROM {QUARANTINE.quoted} WHERE {OF_TABLE} "
        "AND day BETWEEN $first AND $last AND day NOT BETWEEN $from_date AND $to_date "
        f"AND {DIGEST} IN (SELECT unnest($hashes::VARCHAR[])) "
        "AND (vanished_at IS NOT NULL OR NOT $vanished)",
        key.target.names
        | window.ends
        | {"first": window.from_date - _NEAR_DAYS, "last": window.to_date + _NEAR_DAYS}
        | {"hashes": list(hashes), "vanished": vanished},
    )
    return {sha256: (rowid, day) for sha256, rowid, day in copies.fetchall()}


def _line_mark(head: bytes) -> _LineMark:
    """Return event, time and `$insert_id` as a line has them, given its first bytes."""
    line_text = head.removeprefix(BOM).decode("utf-8", "surrogateescape")
    try:
        fields = dict(members(line_text))
        properties = dict(members(fields["properties"]))
    except (KeyError, ValueError):  # of a long line, which is cut here
        event, time, insert_id = (
            in_line.group(1) if (in_line := pattern.search(line_text)) else None
            for pattern in (_EVENT_IN_LINE, _TIME_IN_LINE, _INSERT_ID_IN_LINE)
        )
        return event, time, insert_id
    return fields.get("event"), properties.get("time"), properties.get("$insert_id")


def _time_raw(mark: _LineMark) -> int | None:
    time_text = mark[1]
    return int(time_text) if time_text and time_text.isdecimal() and len(time_text) < 16 else None


def _row_insert_id(mark: _LineMark) -> str | None:
    """Return the `$insert_id` as a row would have it."""
    id_text = mark[2]
    if id_text is None or id_text == "null":
        return None
    return (str(parse(id_text)) if id_text.startswith('"') else id_text) or None


@dataclass(frozen=True)
class Reload:
    """What a load may do to stored rows.

    Attributes:
        accept_smaller: Remove the rows that the response lacks, instead of keeping them.
        deleted_before: Days before this one may be deleted in Mixpanel because of their age. If the
            response has nothing for them, they keep their rows in spite of `accept_smaller`.
        read: Other days that the same load has stored, for moves in the legacy regime.
        to_read: Other days that the same load will store.
    """

    accept_smaller: bool = False
    deleted_before: date = date.min
    read: Collection[date] = ()
    to_read: Collection[date] = ()

    def keeps(self, day: date, *, is_empty: bool) -> bool:
        """Return whether rows that a response lacks are kept; `is_empty`: it lacks all of a day."""
        return not self.accept_smaller or (is_empty and day < self.deleted_before)


KEEP_ALL = Reload()


@dataclass
class Vanished:
    """The rows and quarantined lines that a response lacked, counted by day.

    Attributes:
        kept: Rows that are kept.
        new: Those of them that the previous response still had.
        removed: Rows that `accept_smaller` removes.
        shifted: Kept rows of another date (legacy regime).
        events: Kept rows by day and event name.
        hours: Kept rows by day and hour of `event_time`.
        moved: Other days for which rows were stored that arrived with these days.
        lines_kept: Lines that are kept.
        lines_removed: Lines that `accept_smaller` removes.
    """

    kept: Counter[date] = field(default_factory=Counter)
    new: Counter[date] = field(default_factory=Counter)
    removed: Counter[date] = field(default_factory=Counter)
    shifted: Counter[date] = field(default_factory=Counter)
    events: Counter[tuple[date, str]] = field(default_factory=Counter)
    hours: Counter[tuple[date, int]] = field(default_factory=Counter)
    moved: set[date] = field(default_factory=set)
    lines_kept: Counter[date] = field(default_factory=Counter)
    lines_removed: Counter[date] = field(default_factory=Counter)


# A sent `$insert_id` of this form is taken for a made one; no Mixpanel library sends it.
_IS_MADE = (
    "regexp_full_match(insert_id, "
    "'[0-9a-f]{{8}}-[0-9a-f]{{4}}-8[0-9a-f]{{3}}-[89ab][0-9a-f]{{3}}-[0-9a-f]{{12}}')"
)
IS_MADE = _IS_MADE.format()
_KEY = "event_name, time_raw, insert_id"
_IN_WINDOW = "event_date BETWEEN $from_date AND $to_date"

_ORIGINAL = "coalesce(properties ->> '$.mp_original_event_name', event_name)"
_HOT = "event_name = '$hotshard_events'"

# First the cheap columns find the few rows that differ; only those are compared closely.
_LACKING = f"""
    CREATE TEMP TABLE _lacking AS
    SELECT stored.rowid AS row, event_date AS day, event_name, event_name AS name, time_raw,
           insert_id, event_time, {_IS_MADE} AS is_made
    FROM {{table}} AS stored ANTI JOIN {{staged}} USING ({_KEY})
    WHERE {_IN_WINDOW}
"""

_UNDO_RENAMING = f"""
    UPDATE _lacking SET name = original.name FROM (
        SELECT stored.rowid AS row, {_ORIGINAL} AS name FROM {{table}} AS stored
        WHERE {_HOT} AND {_IN_WINDOW}
    ) AS original WHERE original.row = _lacking.row
"""

# A change of zone moves an event by two days at most, and leaves its `time`.
_NEARBY = f"""
    CREATE TEMP TABLE _nearby AS
    WITH times AS (SELECT time_raw FROM {{staged}} UNION ALL SELECT time_raw FROM _lacking)
    SELECT stored.rowid AS row, event_date AS day, event_name AS name, time_raw, insert_id,
           {_IS_MADE} AS is_made
    FROM {{table}} AS stored
    WHERE event_date BETWEEN $from_date::DATE - 2 AND $to_date::DATE + 2 AND NOT ({_IN_WINDOW})
        AND time_raw >= (SELECT min(time_raw) FROM times)
        AND time_raw <= (SELECT max(time_raw) FROM times)
        AND {{is_legacy}}
"""

_BROUGHT = f"""
    CREATE TEMP TABLE _brought AS
    SELECT CASE WHEN {_HOT} THEN {_ORIGINAL} ELSE event_name END AS name, time_raw, insert_id,
           is_made IS NOT NULL AS is_made
    FROM (
        FROM {{staged}} SEMI JOIN (
            SELECT time_raw FROM _lacking UNION ALL SELECT time_raw FROM _nearby
        ) USING (time_raw)
    ) ANTI JOIN (SELECT {_KEY} FROM {{table}} WHERE {_IN_WINDOW}) USING ({_KEY})
"""

# Of rows with a made id, those that were kept before are kept first: the others may be in the
# response under another id.
_KEPT = f"""
    CREATE TEMP TABLE _kept AS
    WITH lacking AS (
        FROM _lacking ANTI JOIN _brought USING (name, time_raw, insert_id)
    ), brought AS (
        SELECT name, time_raw, count(*) AS copies
        FROM _brought ANTI JOIN _lacking USING (name, time_raw, insert_id)
        WHERE is_made GROUP BY ALL
    ), listed AS (
        SELECT day, {_KEY}, min(vanished_at) AS vanished_at FROM {VANISHED.quoted}
        WHERE {OF_TABLE} AND day BETWEEN $from_date AND $to_date GROUP BY ALL
    )
    SELECT lacking.*, listed.vanished_at
    FROM lacking LEFT JOIN listed USING (day, {_KEY}) LEFT JOIN brought USING (name, time_raw)
    WHERE is_made OR NOT EXISTS (
        FROM _nearby WHERE (_nearby.name, _nearby.time_raw, _nearby.insert_id)
            = (lacking.name, lacking.time_raw, lacking.insert_id)
    )
    QUALIFY NOT is_made OR row_number() OVER (
        PARTITION BY is_made, name, time_raw ORDER BY listed.vanished_at, insert_id
    ) <= count(*) OVER (PARTITION BY is_made, name, time_raw) - coalesce(copies, 0)
"""

_MOVED = f"""
    CREATE TEMP TABLE _moved AS
    WITH arrived AS (
        FROM _brought ANTI JOIN _lacking USING (name, time_raw, insert_id)
    ), numbers AS (
        SELECT name, time_raw, sum(rows) AS copies FROM (
            SELECT name, time_raw, 1 AS rows FROM arrived WHERE is_made
            UNION ALL SELECT name, time_raw, -1 FROM _lacking
            ANTI JOIN _brought USING (name, time_raw, insert_id) WHERE is_made
        ) GROUP BY ALL
    ), listed AS (
        SELECT day, event_name AS name, time_raw, insert_id, true AS is_listed
        FROM {VANISHED.quoted} WHERE {OF_TABLE}
            AND day BETWEEN $from_date::DATE - 2 AND $to_date::DATE + 2
    ), free AS (
        FROM _nearby LEFT JOIN listed USING (day, name, time_raw, insert_id)
        WHERE is_listed OR day IN (SELECT unnest($to_read::DATE[]))
            OR (NOT is_made AND day NOT IN (SELECT unnest($read::DATE[])))
    )
    SELECT row, day, name, time_raw, insert_id
    FROM free SEMI JOIN arrived USING (name, time_raw, insert_id)
    WHERE NOT free.is_made
    UNION ALL (
        SELECT row, day, name, time_raw, insert_id
        FROM free JOIN numbers USING (name, time_raw) WHERE is_made
        QUALIFY row_number() OVER (
            PARTITION BY name, time_raw ORDER BY is_listed NULLS LAST, day, insert_id
        ) <= copies
    )
"""


class Replacement:
    """Replaces stored rows of a table by staged ones, and keeps those that the response lacks.

    The staged rows have no duplicates and their ids.
    """

    def __init__(
        self,
        connection: Connection,
        key: LedgerKey,
        table: Table,
        staged: str,
        window: Window,
        reload: Reload,
    ) -> None:
        self._connection = connection
        self._key = key
        self._table = table
        self._window = window
        self._reload = reload
        is_legacy = window.project.regime == "legacy"
        self._tables = {"table": table.quoted, "staged": staged, "is_legacy": is_legacy}
        self._window_ends = window.ends
        self._target = key.target.names

    def make(self, empty: Collection[date]) -> Vanished:
        """Replace the rows of the requested days, of which some are `empty` in the response."""
        vanished = self._find_vanished(empty) if self._may_lack_rows() else Vanished()
        others = " AND rowid NOT IN (SELECT row FROM _kept)" if vanished.kept else ""
        self._execute(f"DELETE FROM {{table}} WHERE {_IN_WINDOW}{others}", self._window_ends)
        if vanished.moved:
            self._execute("DELETE FROM {table} WHERE rowid IN (SELECT row FROM _moved)")
        columns = ", ".join(self._table.column_names)
        self._execute(f"INSERT INTO {{table}} BY NAME SELECT {columns} FROM {{staged}}")
        self._write_vanished(vanished)
        return vanished

    def _may_lack_rows(self) -> bool:
        # The first load of a day, the usual case, skips five statements.
        stored = f"SELECT count(*) FROM {self._table.quoted} WHERE {_IN_WINDOW}"
        return bool(
            self._tables["is_legacy"] or number(self._connection, stored, self._window_ends)
        )

    def _find_vanished(self, empty: Collection[date]) -> Vanished:
        """Fill the tables `_kept` and `_moved` with the rows that are lacking or moved."""
        self._execute(_LACKING, self._window_ends)
        self._execute(_NEARBY, self._window_ends)
        if not self._count_rows("_lacking") + self._count_rows("_nearby"):
            return Vanished()
        if self._count_rows(f"_lacking WHERE {_HOT}"):
            self._execute(_UNDO_RENAMING, self._window_ends)
        self._execute(_BROUGHT, self._window_ends)
        self._execute(_KEPT, self._target | self._window_ends)
        days_read = {"read": list(self._reload.read), "to_read": list(self._reload.to_read)}
        self._execute(_MOVED, self._target | self._window_ends | days_read)
        removed = self._remove_lacking(empty) if self._reload.accept_smaller else Counter[date]()
        return self._count_vanished(removed)

    def _remove_lacking(self, empty: Collection[date]) -> Counter[date]:
        """Remove rows from `_kept` that `accept_smaller` does not keep."""
        values = {"kept": [day for day in empty if self._reload.keeps(day, is_empty=True)]}
        condition = "day NOT IN (SELECT unnest($kept::DATE[]))"
        removed = self._execute(
            f"SELECT day, count(*) FROM _kept WHERE {condition} GROUP BY 1", values
        )
        count = Counter[date](dict(removed.fetchall()))
        self._execute(f"DELETE FROM _kept WHERE {condition}", values)
        return count

    def _count_vanished(self, removed: Counter[date]) -> Vanished:
        vanished = Vanished(removed=removed)
        kept = self._execute(
            "SELECT day, event_name, hour(event_time), count(*), count_if(vanished_at IS NULL), "
            "count_if(make_timestamp_ms(time_raw)::DATE <> day) FROM _kept GROUP BY ALL"
        )
        for day, event, hour, rows, new, shifted in kept.fetchall():
            vanished.kept[day] += rows
            vanished.new[day] += new
            vanished.shifted[day] += shifted
            vanished.events[day, event] += rows
            vanished.hours[day, hour] += rows
        moved = self._execute("SELECT DISTINCT day FROM _moved")
        vanished.moved.update(day for (day,) in moved.fetchall())
        return vanished

    def _write_vanished(self, vanished: Vanished) -> None:
        """Store which rows are kept, and correct the ledger of days from which rows moved."""
        listed = f"{VANISHED.quoted} WHERE {OF_TABLE}"
        self._execute(
            f"DELETE FROM {listed} AND day BETWEEN $from_date AND $to_date",
            self._target | self._window_ends,
        )
        if vanished.kept:
            self._execute(
                f"INSERT INTO {VANISHED.quoted} BY NAME SELECT $schema AS schema_name, "
                f"$table AS table_name, day, {_KEY}, coalesce(vanished_at, $now) AS vanished_at "
                "FROM _kept",
                self._target | {"now": self._key.moment},
            )
        if vanished.moved:
            self._execute(
                f"DELETE FROM {listed} AND (day, {_KEY}) IN "
                "(SELECT (day, name, time_raw, insert_id) FROM _moved)",
                self._target,
            )
            ledger.recount(self._connection, self._key.target, vanished.moved)
        for table in ("_lacking", "_nearby", "_brought", "_kept", "_moved"):
            self._execute(f"DROP TABLE IF EXISTS temp.{table}")

    def _count_rows(self, what: str) -> int:
        return number(self._connection, f"SELECT count(*) FROM {what}")

    def _execute(self, sql: str, values: Mapping[str, Any] | None = None) -> Connection:
        return self._connection.execute(sql.format(**self._tables), values or {})
