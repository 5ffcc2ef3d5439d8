"""Stored events counted by the days of the project's calendar, as Mixpanel's reports count them.

The days of the export are days of UTC, or of the project's zone in the legacy regime; the days of
reports are always days of the project's zone.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.rules.days import days_between
from mixpanel_assets.rules.zones import same_clocks, span_of, wall_clock_sql
from mixpanel_assets.warehouse.ledger import OF_TABLE
from mixpanel_assets.warehouse.schema import EVENT_COUNTS, EVENTS, QUARANTINE, VANISHED
from mixpanel_assets.warehouse.tables import table_exists
from mixpanel_assets.warehouse.vanished import IS_MADE

_DAY = timedelta(days=1)
_NAMES = {"schema": EVENTS.schema, "table": EVENTS.name}
SLOT_MINUTES = 15  # the offsets of all zones since 2009 are multiples of it
# A line that cannot be stored may be no JSON, so its name and time are looked for in the bytes.
_EVENT_OF_LINE = re.compile(rb'"event"\s*:\s*("(?:[^"\\]|\\.)*")')
_TIME_OF_LINE = re.compile(rb'"time"\s*:\s*(\d{9,14})\b')
_MILLISECONDS_FROM = 100_000_000_000

Cell = tuple[date, str]
Counts = Mapping[Cell, int]


@dataclass(frozen=True)
class Calendar:
    """The days of a project's reports.

    Attributes:
        regime: See `ProjectIdentity`.
        zone: The project's IANA time zone.
    """

    regime: str
    zone: str

    @property
    def is_export_calendar(self) -> bool:
        """Whether the days of reports are those of the export."""
        return self.regime == "legacy" or same_clocks(self.zone, "UTC")

    def last_ended(self, now: datetime) -> date:
        """Return the last day that has ended at a time, which is aware."""
        return now.astimezone(ZoneInfo(self.zone)).date() - _DAY

    def export_days(self, day: date) -> tuple[date, ...]:
        """Return the days of the export that hold events of a day."""
        if self.is_export_calendar:
            return (day,)
        begins, ends = span_of(day, day, self.zone)
        return tuple(days_between(begins.date(), (ends - timedelta(microseconds=1)).date()))

    def wall_clock(self, first: date, last: date, *, of_time_raw: bool = False) -> str:
        """Return the SQL of the project's wall clock of a row, around some days.

        `of_time_raw`: for rows that have the column `time_raw` alone.
        """
        if self.regime == "legacy":
            return "make_timestamp_ms(time_raw)"
        moment = "make_timestamp_ms(time_raw)" if of_time_raw else "event_time"
        if self.is_export_calendar:
            return moment
        return wall_clock_sql(moment, self.zone, first - _DAY, last + _DAY)


def _around(first: date, last: date) -> dict[str, date]:
    # Rows of the legacy regime may lie a day beside their date, after a change of zone.
    return {"first": first, "last": last, "from": first - 2 * _DAY, "to": last + 2 * _DAY}


def count_by_day(
    connection: Connection, calendar: Calendar, first: date, last: date
) -> dict[Cell, int]:
    """Return the rows of `mixpanel.events` by day of the calendar and name, both ends included."""
    found = connection.execute(
        f"""
        SELECT {calendar.wall_clock(first, last)}::DATE AS day, event_name, count(*)
        FROM {EVENTS.quoted} WHERE event_date BETWEEN $from AND $to
        GROUP BY 1, 2 HAVING day BETWEEN $first AND $last
        """,
        _around(first, last),
    )
    return {(day, event): count for day, event, count in found.fetchall()}


def stored_names(connection: Connection) -> set[str]:
    """Return the name of every event in `mixpanel.events`, of whatever day."""
    found = connection.execute(
        f"SELECT DISTINCT event_name FROM {EVENT_COUNTS.quoted} WHERE {OF_TABLE}", _NAMES
    )
    return {name for (name,) in found.fetchall()}


def quarantined_names(connection: Connection, first: date, last: date) -> set[str]:
    """Return the names in lines of the quarantine, which may not be stored at all."""
    return {event for event, _ in _named_lines(connection, first, last)}


@dataclass(frozen=True)
class Evidence:
    """What may explain that stored and reported counts differ; each by day and event name.

    Attributes:
        vanished: Stored rows that the export does not send any more.
        forwarded: Rows that Mixpanel forwarded from another region.
        repeats: Rows that share user, `$insert_id` and day with another row, but not the time.
        quarantined: Lines of the quarantine.
    """

    vanished: Counter[Cell] = field(default_factory=Counter)
    forwarded: Counter[Cell] = field(default_factory=Counter)
    repeats: Counter[Cell] = field(default_factory=Counter)
    quarantined: Counter[Cell] = field(default_factory=Counter)


def evidence_for(connection: Connection, calendar: Calendar, cells: Collection[Cell]) -> Evidence:
    """Return what may explain the differences of some days and event names."""
    evidence = Evidence()
    if not cells:
        return evidence
    first, last = min(cells)[0], max(cells)[0]
    names = sorted({event for _, event in cells})
    found = connection.execute(
        f"""
        SELECT {calendar.wall_clock(first, last)}::DATE AS day, event_name,
               count_if(properties::VARCHAR LIKE '%"$mp_is_forwarded"%'
                        AND json_extract_string(properties, '/$mp_is_forwarded') = 'true'),
               count_if(NOT {IS_MADE})
               - count(DISTINCT row(distinct_id, insert_id)) FILTER (NOT {IS_MADE})
        FROM {EVENTS.quoted} WHERE event_date BETWEEN $from AND $to
            AND event_name IN (SELECT unnest($names::VARCHAR[]))
        GROUP BY 1, 2 HAVING day BETWEEN $first AND $last
        """,
        _around(first, last) | {"names": names},
    )
    for day, event, forwarded, repeats in found.fetchall():
        evidence.forwarded[day, event] = forwarded
        evidence.repeats[day, event] = repeats
    evidence.vanished.update(_vanished(connection, calendar, first, last))
    evidence.quarantined.update(_quarantined(connection, calendar, first, last))
    return evidence


def _vanished(
    connection: Connection, calendar: Calendar, first: date, last: date
) -> dict[Cell, int]:
    if not table_exists(connection, VANISHED.name):  # in a file of schema version 1
        return {}
    clock = calendar.wall_clock(first, last, of_time_raw=True)
    found = connection.execute(
        f"SELECT {clock}::DATE AS on_day, event_name, count(*) FROM {VANISHED.quoted} "
        f"WHERE {OF_TABLE} AND day BETWEEN $from AND $to "
        "GROUP BY 1, 2 HAVING on_day BETWEEN $first AND $last",
        _around(first, last) | _NAMES,
    )
    return {(day, event): count for day, event, count in found.fetchall()}


def _quarantined(
    connection: Connection, calendar: Calendar, first: date, last: date
) -> Counter[Cell]:
    """Return the lines of the quarantine that have a name and a time."""
    named = _named_lines(connection, first, last)
    if not named:
        return Counter()
    clock = calendar.wall_clock(first, last, of_time_raw=True)
    days = connection.execute(
        f"SELECT {clock}::DATE FROM (SELECT unnest($times::BIGINT[]) AS time_raw)",
        {"times": [time_raw for _, time_raw in named]},
    ).fetchall()
    return Counter((day, event) for (event, _), (day,) in zip(named, days, strict=True))


def _named_lines(connection: Connection, first: date, last: date) -> list[tuple[str, int]]:
    # A line has the first day of its request, which may be some weeks before its own.
    lines = connection.execute(
        f"SELECT line FROM {QUARANTINE.quoted} WHERE {OF_TABLE} AND day BETWEEN $from AND $to",
        _NAMES | {"from": first - 32 * _DAY, "to": last + 2 * _DAY},
    ).fetchall()
    return [found for (line,) in lines if (found := _name_and_time(line))]


def _name_and_time(line: bytes) -> tuple[str, int] | None:
    event, time = _EVENT_OF_LINE.search(line), _TIME_OF_LINE.search(line)
    if not (event and time):
        return None
    number = int(time[1])
    if number < _MILLISECONDS_FROM:
        number *= 1000
    try:
        return json.loads(event[1]), number
    except ValueError:
        return None


def slots(
    connection: Connection, calendar: Calendar, days: Sequence[date]
) -> dict[str, list[tuple[Any, int]]]:
    """Return by event name the quarters of an hour with rows, in order, and their row counts.

    They are those of the calendar's wall clock, from a day before the days to a day after.
    """
    first, last = min(days) - _DAY, max(days) + _DAY
    clock = calendar.wall_clock(first, last)
    found = connection.execute(
        f"""
        SELECT event_name,
               time_bucket(INTERVAL {SLOT_MINUTES} MINUTE, {clock}) AS slot, count(*)
        FROM {EVENTS.quoted} WHERE event_date BETWEEN $from AND $to
        GROUP BY 1, 2 HAVING slot::DATE BETWEEN $first AND $last ORDER BY event_name, slot
        """,
        _around(first, last),
    )
    by_event: dict[str, list[tuple[Any, int]]] = {}
    for event, slot, count in found.fetchall():
        by_event.setdefault(event, []).append((slot, count))
    return by_event
