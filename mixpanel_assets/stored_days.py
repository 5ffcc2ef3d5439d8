"""Which days a table of events can answer for, in any zone, by what the ledger says of them.

The ledger knows days of the export. A day of another zone lies on two of them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import duckdb

from mixpanel_assets.errors import ConfigError, MissingDaysError, TableNotFoundError
from mixpanel_assets.rules.days import how_to_load, ranges_of, shown
from mixpanel_assets.rules.zones import is_zone, same_clocks, span_of, wall_clock_sql
from mixpanel_assets.table_metadata import days_between, tell_of_unknown_events
from mixpanel_assets.warehouse import (
    EVENTS,
    SCHEMA,
    KnownTable,
    ProjectIdentity,
    Target,
    day_rows,
    find_table,
    known_tables,
    qualified,
    stored_project,
)

logger = logging.getLogger(__name__)

_GONE = {
    "not available": "the project's plan did not reach back that far. Ask about later days.",
    "expired": "Mixpanel had deleted these days by MP_RETENTION_DAYS. Ask about later days.",
}


@dataclass(frozen=True)
class StoredDays:
    """Days of a table that are there.

    Attributes:
        table: The qualified name, ready for SQL.
        day: The SQL of a row's day.
        condition: The SQL that is true for the rows of these days.
        from_date: The first day.
        to_date: The last day.
    """

    table: str
    day: str
    condition: str
    from_date: date
    to_date: date


def stored_days(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    from_date: date | str,
    to_date: date | str,
    events: Collection[str] = (),
    *,
    zone: str | None = None,
    project_zone: str | None = None,
) -> StoredDays:
    """Return the days of a table once it is sure that each of them was loaded.

    A warning names the events that the table does not hold, with similar ones that it does.

    Args:
        connection: Any connection of the database.
        table: `events`, or a named table of events.
        from_date: First day, included.
        to_date: Last day, included.
        events: What is asked about; a table of some events answers for no others.
        zone: Whose days these are; None: the project's.
        project_zone: The project's zone; None: the one that loads of the database had.

    Raises:
        MissingDaysError: Days were never loaded, or the table is not there.
        ConfigError: A day is no day, there is no such zone, or the table is none of these events.
    """
    days = days_between(from_date, to_date)
    project = stored_project(connection) or ProjectIdentity("", "")
    zone = _zone(zone, project, project_zone)
    try:
        target = find_table(connection, table)
    except TableNotFoundError:
        if table != EVENTS.name:
            raise
        target = Target(EVENTS.name)
    known = next((one for one in known_tables(connection) if one.target == target), None)
    if known is not None:
        _check_kind(known, events)
    needed = _Needed.of(days, zone, _export_zone(project))
    _refuse_missing(connection, target, needed, known)
    day, condition = _sql(days, zone, project, target)
    found = StoredDays(qualified(target.schema, target.table), day, condition, days[0], days[-1])
    if events and (absent := _absent(connection, found, events)):
        tell_of_unknown_events(connection, target, absent)
    return found


def _absent(
    connection: duckdb.DuckDBPyConnection, days: StoredDays, events: Collection[str]
) -> list[str]:
    rows = connection.execute(
        f"SELECT DISTINCT event_name FROM {days.table} "
        f"WHERE {days.condition} AND event_name IN $events",
        {"events": list(events)},
    ).fetchall()
    return [event for event in events if (event,) not in rows]


@dataclass(frozen=True)
class _Needed:
    """The export days that days of a zone lie on.

    Attributes:
        days: Those that have the same dates.
        before: The export day before them, if the first day of the zone begins on it.
        after: The one after them, if the last day of the zone ends on it.
        until: When the last day of the zone ends, naive UTC.
        zone: The zone.
    """

    days: Sequence[date]
    before: date | None
    after: date | None
    until: datetime
    zone: str

    @classmethod
    def of(cls, days: Sequence[date], zone: str, export_zone: str) -> _Needed:
        begins, ends = span_of(days[0], days[-1], zone)
        first = begins.astimezone(ZoneInfo(export_zone)).date()
        last = (ends - timedelta(milliseconds=1)).astimezone(ZoneInfo(export_zone)).date()
        is_other = not same_clocks(zone, export_zone)
        return cls(
            days,
            first if is_other and first < days[0] else None,
            last if is_other and last > days[-1] else None,
            ends.replace(tzinfo=None),
            zone,
        )

    @property
    def edges(self) -> dict[date, str]:
        """What is lost without the days at the edges, in words."""
        hours = {
            self.before: f"the first hours of {self.days[0]}",
            self.after: f"the last hours of {self.days[-1]}",
        }
        return {day: text for day, text in hours.items() if day is not None}


def _zone(asked: str | None, project: ProjectIdentity, project_zone: str | None) -> str:
    # In the legacy regime, stored times were read by the zone of the loads, so no other holds.
    own = project.zone if project.regime == "legacy" else project_zone or project.zone
    if asked is not None and not is_zone(asked):
        raise ConfigError(
            f"There is no time zone {asked!r}. Use an IANA name such as Europe/Paris.",
            {"zone": asked},
        )
    return own if asked is None else asked


def _export_zone(project: ProjectIdentity) -> str:
    return project.zone if project.regime == "legacy" else "UTC"


def _sql(
    days: Sequence[date], zone: str, project: ProjectIdentity, target: Target
) -> tuple[str, str]:
    """Return the SQL of a row's day, and the condition for rows of the days."""
    within = f"BETWEEN DATE '{days[0]}' AND DATE '{days[-1]}'"
    if target.schema == SCHEMA and same_clocks(zone, _export_zone(project)):
        return "event_date", f"event_date {within}"
    day = f"{wall_clock_sql('event_time', zone, days[0], days[-1])}::DATE"
    # The plain bounds let DuckDB skip the days that are far off.
    near = (
        f"event_time >= TIMESTAMP '{days[0]}' - INTERVAL 2 DAY "
        f"AND event_time < TIMESTAMP '{days[-1]}' + INTERVAL 3 DAY"
    )
    return day, f"{near} AND {day} {within}"


def _check_kind(known: KnownTable, events: Collection[str]) -> None:
    name = known.target.table
    if known.type != "events":
        raise ConfigError(f"{name!r} holds {known.type}, not events.", {"table": name})
    only: list[str] = known.filters.get("events") or []
    others = sorted(set(events) - set(only))
    if only and others:
        raise ConfigError(
            f"{name!r} was loaded with {', '.join(map(repr, only))} alone, so it does not tell of "
            f"{', '.join(map(repr, others))}. Ask another table.",
            {"table": name, "events": others},
        )
    unsaid = {key: value for key, value in known.filters.items() if key != "events" or not events}
    if unsaid:
        logger.warning("%r holds only what its filters let through: %s.", name, unsaid)


def _refuse_missing(
    connection: duckdb.DuckDBPyConnection,
    target: Target,
    needed: _Needed,
    known: KnownTable | None,
) -> None:
    days = needed.days
    every = sorted([*days, *needed.edges])
    ledger = day_rows(connection, target.table, every[0], every[-1], schema=target.schema)
    statuses = {day: row["status"] for day, row in ledger.items()}
    there = {day for day, status in statuses.items() if status in ("complete", "empty", "open")}
    lost = [day for day in days if day not in there]
    if lost:
        raise MissingDaysError(
            " ".join(_said(target, lost, statuses, known)),
            table=target.table,
            ranges=ranges_of(lost),
        )
    for day, hours in needed.edges.items():
        if day not in there:
            logger.warning(
                "Events of %s in %s are missing. %s",
                hours,
                needed.zone,
                " ".join(_said(target, [day], statuses, known)),
            )
    still_open = [
        day
        for day in every
        if statuses.get(day) == "open" and ledger[day]["fetched_at"] < needed.until
    ]
    if still_open:
        logger.warning(
            "%s of %r were not over when they were loaded, so events of them are missing.",
            shown(ranges_of(still_open)),
            target.table,
        )


def _said(
    target: Target,
    lost: Sequence[date],
    statuses: Mapping[date, str],
    known: KnownTable | None,
) -> list[str]:
    said = []
    missing = [day for day in lost if statuses.get(day) not in _GONE]
    if missing:
        said.append(f"{target.table!r} lacks {shown(ranges_of(missing))}, which was never loaded.")
        said.append(f"Load it with {_commands(target, missing, known)}.")
    for why, text in _GONE.items():
        days = [day for day in lost if statuses.get(day) == why]
        if days:
            said.append(f"{target.table!r} has nothing for {shown(ranges_of(days))}: {text}")
    return said


def _commands(target: Target, days: Sequence[date], known: KnownTable | None) -> str:
    if target.schema == SCHEMA:
        return how_to_load(days, target.table)
    first, last = days[0], days[-1]
    if known is not None:
        first, last = min(first, known.from_date), max(last, known.to_date)
    return f"`mp fetch events {target.table} --from {first} --to {last} --replace`"
