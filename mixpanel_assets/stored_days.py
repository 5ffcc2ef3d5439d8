"""Which days a table of events can answer for, by what the ledger says of them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import duckdb

from mixpanel_assets.days import how_to_load, ranges_of, shown
from mixpanel_assets.errors import ConfigError, MissingDaysError, TableNotFoundError
from mixpanel_assets.table_metadata import days_between
from mixpanel_assets.warehouse import (
    EVENTS,
    SCHEMA,
    KnownTable,
    Target,
    day_rows,
    find_table,
    known_tables,
    literal,
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
        from_date: The first day.
        to_date: The last day.
    """

    table: str
    day: str
    from_date: date
    to_date: date


def stored_days(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    from_date: date | str,
    to_date: date | str,
    events: Collection[str] = (),
) -> StoredDays:
    """Return the days of a table once it is sure that each of them was loaded.

    Args:
        connection: Any connection of the database.
        table: `events`, or a named table of events.
        from_date: First day, included.
        to_date: Last day, included.
        events: What is asked about; a table of some events answers for no others.

    Raises:
        MissingDaysError: Days were never loaded, or the table is not there.
        ConfigError: A day is no day, or the table is none of these events.
    """
    days = days_between(from_date, to_date)
    try:
        target = find_table(connection, table)
    except TableNotFoundError:
        if table != EVENTS.name:
            raise
        target = Target(EVENTS.name)
    known = next((one for one in known_tables(connection) if one.target == target), None)
    if known is not None:
        _check_kind(known, events)
    _refuse_missing(connection, target, days, known)
    return StoredDays(
        qualified(target.schema, target.table), _day_of_row(connection, target), days[0], days[-1]
    )


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
    days: Sequence[date],
    known: KnownTable | None,
) -> None:
    ledger = day_rows(connection, target.table, days[0], days[-1], schema=target.schema)
    statuses = {day: row["status"] for day, row in ledger.items()}
    there = {day for day, status in statuses.items() if status in ("complete", "empty", "open")}
    lost = [day for day in days if day not in there]
    if lost:
        by_status = {why: [day for day in lost if statuses.get(day) == why] for why in _GONE}
        missing = [day for day in lost if statuses.get(day) not in _GONE]
        raise MissingDaysError(
            " ".join(_said(target, missing, by_status, known)),
            table=target.table,
            ranges=ranges_of(lost),
        )
    still_open = [day for day in days if statuses[day] == "open"]
    if still_open:
        logger.warning(
            "%s of %r were not over when they were loaded, so events of them are missing.",
            shown(ranges_of(still_open)),
            target.table,
        )


def _said(
    target: Target,
    missing: Sequence[date],
    gone: Mapping[str, Sequence[date]],
    known: KnownTable | None,
) -> list[str]:
    said = []
    if missing:
        said.append(f"{target.table!r} lacks {shown(ranges_of(missing))}, which was never loaded.")
        said.append(f"Load it with {_commands(target, missing, known)}.")
    for why, days in gone.items():
        if days:
            said.append(f"{target.table!r} has nothing for {shown(ranges_of(days))}: {_GONE[why]}")
    return said


def _commands(target: Target, days: Sequence[date], known: KnownTable | None) -> str:
    if target.schema == SCHEMA:
        return how_to_load(days, target.table)
    first, last = days[0], days[-1]
    if known is not None:
        first, last = min(first, known.from_date), max(last, known.to_date)
    return f"`mp fetch events {target.table} --from {first} --to {last} --replace`"


def _day_of_row(connection: duckdb.DuckDBPyConnection, target: Target) -> str:
    if target.schema == SCHEMA:
        return "event_date"
    project = stored_project(connection)
    if project is None or project.regime == "utc":
        return "event_time::DATE"
    return f"((event_time AT TIME ZONE 'UTC') AT TIME ZONE {literal(project.zone)})::DATE"
