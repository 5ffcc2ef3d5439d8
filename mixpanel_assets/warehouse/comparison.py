"""Stored days of events compared with the same days requested again, row by row."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.rules.json_text import parse
from mixpanel_assets.rules.made_ids import NOT_CONTENT
from mixpanel_assets.warehouse.database import undo
from mixpanel_assets.warehouse.faults import number
from mixpanel_assets.warehouse.ledger import Status, Target, day_statuses
from mixpanel_assets.warehouse.schema import DAYS, EVENTS, VANISHED, literal
from mixpanel_assets.warehouse.tables import table_exists

_FETCHED = "mixpanel_assets_fetched"
_ROWS_AT_ONCE = 100  # rows, each of up to some megabytes
# Rows are compared by a hash, because properties of a whole day do not fit into memory twice.
_OF_EVENTS = "event_date = $day AND event_name IN (SELECT unnest($events::VARCHAR[]))"
_ROW = "json_array(event_name, time_raw, distinct_id, insert_id, properties)"

# Of the rows of each event in any order; the sums count equal rows as often as they occur.
_DIGESTS = f"""
    SELECT event_name, count(*), sum(md5_number_lower(row)), sum(md5_number_upper(row))
    FROM (SELECT event_name, {_ROW}::VARCHAR AS row FROM {{table}} WHERE event_date = $day)
    GROUP BY event_name
"""

# Rows that one side has more often than the other, each as often as it has more of them.
_SURPLUS = f"""
    WITH stored AS (
        SELECT md5_number({_ROW}::VARCHAR) AS mark, count(*) AS copies
        FROM {{ours}} WHERE {_OF_EVENTS} GROUP BY ALL
    ), others AS (
        SELECT md5_number({_ROW}::VARCHAR) AS mark, count(*) AS copies
        FROM {{theirs}} WHERE {_OF_EVENTS} GROUP BY ALL
    ), odd AS (
        SELECT mark, stored.copies - coalesce(others.copies, 0) AS surplus
        FROM stored LEFT JOIN others USING (mark)
        WHERE surplus > 0
    )
    SELECT event_name, time_raw, distinct_id, insert_id, properties::VARCHAR
    FROM {{ours}} JOIN odd ON mark = md5_number({_ROW}::VARCHAR)
    WHERE {_OF_EVENTS}
    QUALIFY row_number() OVER (PARTITION BY mark) <= surplus
"""

_EventKey = tuple[str, int, str | None]


@dataclass(frozen=True)
class DayDifference:
    """How a stored day differs from what Mixpanel holds now.

    Attributes:
        day: The export day.
        status: The status in the ledger; None if the day was never loaded; `expired` if it is too
            old to be requested.
        stored: Rows in the table.
        fetched: Rows of Mixpanel's response; None if the plan does not reach that far back or the
            day is `expired`, so that no comparison is possible.
        missing: Events in the response that the table lacks.
        gone: Events in the table that the response lacks, and that Mixpanel sent at the last load.
        kept: Events in the table that Mixpanel did not send at the last load either.
        changed: Events that both have, with different content.
        events: The names of the events that are missing, gone or changed.
    """

    day: date
    status: Status | None
    stored: int
    fetched: int | None
    missing: int = 0
    gone: int = 0
    kept: int = 0
    changed: int = 0
    events: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether the day should be loaded again."""
        return self.status is None or bool(self.missing or self.gone or self.changed)


def compare_events(
    connection: Connection, fetched: Path, days: Sequence[date]
) -> list[DayDifference]:
    """Compare days of `mixpanel.events` with those of a database that has them `fetched` again.

    Digests of the rows of each event are compared first, and then the rows of events whose digests
    differ.

    Name, time, ids, properties and the number of copies are compared. Properties that Mixpanel
    rewrites between two reads (`mp_processing_time_ms` and the like) are not, nor is any order.
    """
    with _attach(connection, fetched):
        statuses = day_statuses(connection, Target(EVENTS.name))
        stored = {day: status for day, status in statuses.items() if status != "failed"}
        known = dict(
            connection.execute(f"SELECT day, status FROM {_FETCHED}.{DAYS.quoted}").fetchall()
        )
        return [_compare_day(connection, day, stored.get(day), known[day]) for day in days]


def expired_days(connection: Connection, days: Sequence[date]) -> list[DayDifference]:
    """Return the number of stored rows of days that are not requested."""
    return [
        DayDifference(day, "expired", _count(connection, EVENTS.quoted, day), None) for day in days
    ]


def _compare_day(
    connection: Connection, day: date, status: Status | None, response: Status
) -> DayDifference:
    stored_table, fetched_table = EVENTS.quoted, f"{_FETCHED}.{EVENTS.quoted}"
    stored = _count(connection, stored_table, day)
    if response == "not available":
        return DayDifference(day, status or response, stored, None)
    digests = [_digests(connection, table, day) for table in (stored_table, fetched_table)]
    # The rows of the others are equal.
    odd = sorted({event for event, *_ in digests[0] ^ digests[1]})
    kept = Counter(_differing_rows(connection, stored_table, fetched_table, day, odd))
    fetched = Counter(_differing_rows(connection, fetched_table, stored_table, day, odd))
    only_stored, only_fetched = (_count_by_event(side) for side in (kept - fetched, fetched - kept))
    gone = only_stored - only_fetched
    vanished_rows = gone & _vanished_rows(connection, day)
    vanished = vanished_rows.total()
    found = (only_stored - vanished_rows) | only_fetched
    return DayDifference(
        day,
        status,
        stored,
        _count(connection, fetched_table, day),
        missing=(only_fetched - only_stored).total(),
        gone=gone.total() - vanished,
        kept=vanished,
        changed=(only_stored & only_fetched).total(),
        events=tuple(sorted({event for event, _, _ in found})),
    )


def _digests(connection: Connection, table: str, day: date) -> set[tuple[Any, ...]]:
    """Return the digest of each event of a day, with its name and row count."""
    return set(connection.execute(_DIGESTS.format(table=table), {"day": day}).fetchall())


def _vanished_rows(connection: Connection, day: date) -> Counter[_EventKey]:
    """Return the kept rows that Mixpanel does not send any more."""
    if not table_exists(connection, VANISHED.name):  # in an older file
        return Counter()
    listed_rows = connection.execute(
        f"SELECT event_name, time_raw, insert_id FROM {VANISHED.quoted} "
        "WHERE schema_name = ? AND table_name = ? AND day = ?",
        [EVENTS.schema, EVENTS.name, day],
    )
    return Counter(listed_rows.fetchall())


def _differing_rows(
    connection: Connection, ours: str, theirs: str, day: date, events: Sequence[str]
) -> Iterator[tuple[_EventKey, bytes]]:
    """Yield each row that one side has and the other lacks, as its event and its content."""
    rows_of_one_side = connection.execute(
        _SURPLUS.format(ours=ours, theirs=theirs), {"day": day, "events": list(events)}
    )
    while rows := rows_of_one_side.fetchmany(_ROWS_AT_ONCE):
        for event, time_raw, distinct_id, insert_id, properties in rows:
            yield (event, time_raw, insert_id), _row_digest(distinct_id, parse(properties))


def _row_digest(distinct_id: str | None, properties: dict[str, Any]) -> bytes:
    content = {name: value for name, value in properties.items() if name not in NOT_CONTENT}
    return hashlib.sha256(json.dumps([distinct_id, content], sort_keys=True).encode()).digest()


def _count_by_event(rows: Counter[tuple[_EventKey, bytes]]) -> Counter[_EventKey]:
    events: Counter[_EventKey] = Counter()
    for (event, _), copies in rows.items():
        events[event] += copies
    return events


def _count(connection: Connection, table: str, day: date) -> int:
    return number(connection, f"SELECT count(*) FROM {table} WHERE event_date = ?", [day])


@contextmanager
def _attach(connection: Connection, file: Path) -> Iterator[None]:
    connection.execute(f"ATTACH {literal(str(file))} AS {_FETCHED} (READ_ONLY, TYPE duckdb)")
    try:
        yield
    finally:
        undo(connection)  # a lake is read in a transaction
        connection.execute(f"DETACH {_FETCHED}")
