"""Tables: which exist, which names are allowed, what the ledger says of them; dropping them.

An asset table has a fixed name in schema `mixpanel`, a named table any name in `main`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from types import NoneType
from typing import Any, Literal
from zoneinfo import ZoneInfo

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import (
    ConfigError,
    EventNotFoundError,
    StorageError,
    TableExistsError,
    TableNotFoundError,
    similar_names,
)
from mixpanel_assets.results import CoveredDay, TableMetadata
from mixpanel_assets.rules.days import as_day, describe_range
from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.faults import first_row, number
from mixpanel_assets.warehouse.ledger import OF_TABLE, DayReport, Receipt, Target
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.quarantine import forget_quarantine
from mixpanel_assets.warehouse.schema import (
    BY_NAME,
    DAYS,
    EVENT_COUNTS,
    EVENTS,
    FIRST_AND_LAST,
    PROFILES,
    QUARANTINE,
    SCHEMA,
    VIEWS,
    Table,
    coverage_sql,
    create,
    qualified,
)

logger = logging.getLogger(__name__)

_LEDGER_FILTERS = ("events", "where", "cohort_id", "output_properties", "group_id", "behaviors")


def days_between(from_date: date | str, to_date: date | str) -> list[date]:
    """Return the days of a range, both ends included.

    Raises:
        ConfigError: An end is no day, or they are in the wrong order.
    """
    first, last = as_day(from_date), as_day(to_date)
    if first > last:
        raise ConfigError(f"The range ends on {last}, before it begins on {first}.")
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def days_of(metadata: TableMetadata) -> set[date]:
    """Return the days that a table of events covers by its metadata; none without dates.

    Raises:
        ConfigError: Only one end is given, or they are in the wrong order.
    """
    table_days = (metadata.from_date, metadata.to_date)
    if table_days == (None, None):
        return set()
    if metadata.from_date is None or metadata.to_date is None:
        raise ConfigError("The metadata gives one end of its days. Give both, or none.")
    return set(days_between(metadata.from_date, metadata.to_date))


def warn_of_unknown_events(connection: Connection, target: Target, events: Collection[str]) -> None:
    """Warn of events that a table has on no day, unless it is empty."""
    rows = connection.execute(
        f"SELECT DISTINCT event_name FROM {target.quoted} WHERE event_name IS NOT NULL ORDER BY 1"
    ).fetchall()
    stored_events = [name for (name,) in rows]
    for event in events if stored_events else ():
        if event not in stored_events:
            similar = similar_names(event, stored_events)
            logger.warning("%s", EventNotFoundError(event, similar, table=target.table))


def moment_of(metadata: TableMetadata) -> datetime:
    """Return when a table was fetched, aware; a naive moment is UTC."""
    moment = metadata.fetched_at
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def day_of(metadata: TableMetadata, project: ProjectIdentity) -> date:
    """Return the export day on which a table was fetched."""
    return moment_of(metadata).astimezone(ZoneInfo(project.day_zone)).date()


def refuse_outside(stored_days: Collection[date], table_days: Collection[date]) -> None:
    """Raise `StorageError` for events outside the days of their table."""
    outside = sorted(day for day in stored_days if not min(table_days) <= day <= max(table_days))
    if outside:
        raise StorageError(
            f"There are events of {', '.join(map(str, outside[:5]))}, but the metadata says "
            f"{describe_range(min(table_days), max(table_days))}. Nothing was changed.",
            {"outside": [str(day) for day in outside]},
        )


def filters_of(metadata: TableMetadata) -> dict[str, Any]:
    """Return the filters as the ledger stores them."""
    filters = {name: getattr(metadata, f"filter_{name}") for name in _LEDGER_FILTERS}
    return {name: value for name, value in filters.items() if value is not None}


def metadata_of(table: KnownTable) -> TableMetadata:
    """Return the metadata of a table by the ledger."""
    is_events = table.type == "events"
    filters = {name: table.filters.get(name) for name in _LEDGER_FILTERS}
    if type(behaviors := filters["behaviors"]) not in (str, NoneType):
        filters["behaviors"] = json.dumps(behaviors, ensure_ascii=False)
    return TableMetadata(
        type=table.type,
        fetched_at=table.fetched_at,
        from_date=table.from_date.isoformat() if is_events else None,
        to_date=table.to_date.isoformat() if is_events else None,
        **{f"filter_{name}": value for name, value in filters.items()},
    )


@dataclass(frozen=True)
class EventSizes:
    """The size of finished days of events, empty ones included.

    `shifted` says whether a day of any asset has rows of another date (legacy regime).
    """

    rows: dict[date, int]
    received_bytes: dict[date, int]
    shifted: bool = False


def table_exists(connection: Connection, table: str, schema: str = SCHEMA) -> bool:
    """Return whether a table or view of that name exists; DuckDB ignores case."""
    return stored_name(connection, table, schema) is not None


def stored_name(connection: Connection, table: str, schema: str = SCHEMA) -> str | None:
    """Return the name of a table in the case in which it was created; None without one."""
    row = first_row(
        connection,
        "SELECT table_name FROM information_schema.tables WHERE table_catalog = current_database() "
        "AND table_schema = ? AND lower(table_name) = lower(?)",
        [schema, table],
    )
    return row[0] if row else None


def day_rows(
    connection: Connection, table: str, from_date: date, to_date: date, *, schema: str = SCHEMA
) -> dict[date, dict[str, Any]]:
    """Return the ledger rows of a table by day, both ends included; none for other days."""
    if not table_exists(connection, DAYS.name):
        return {}
    ledger_rows = connection.execute(
        f"SELECT * FROM {DAYS.as_of_now} "
        "WHERE schema_name = ? AND table_name = ? AND day BETWEEN ? AND ? ORDER BY day",
        [schema, table, from_date, to_date],
    )
    names = [column[0] for column in ledger_rows.description]
    rows = (dict(zip(names, row, strict=True)) for row in ledger_rows.fetchall())
    return {row["day"]: row for row in rows}


def only_here(
    connection: Connection,
    horizon: date | None,
    from_date: date = date.min,
    to_date: date = date.max,
) -> list[date]:
    """Return the stored days of `mixpanel.events` that Mixpanel has no events of any more.

    Both ends are included. `horizon` is the first day that is requested; None: every day is.
    """
    return [
        day
        for day, row in day_rows(connection, EVENTS.name, from_date, to_date).items()
        if row["row_count"]
        and ((horizon and day < horizon) or row["rows_vanished"] == row["row_count"])
    ]


def covered_days(
    connection: Connection | None,
    *,
    first: date | None,
    last: date,
    horizon: date | None,
    settle_days: int,
) -> list[CoveredDay]:
    """Return each day of each asset table, from the first to the last one wanted, in order.

    The view `mixpanel.coverage` has the same days, as far as they are known without settings.

    Args:
        connection: Any connection of the database, tables of earlier versions will do; None: it
            does not exist.
        first: The first day of events that is wanted; None: the first one in the ledger.
        last: The last day that is wanted; the ledger may have later ones.
        horizon: The first day that is requested from Mixpanel; None: every day is.
        settle_days: How long after a day's end Mixpanel takes events for it.
    """
    query = coverage_sql(
        days=DAYS.as_of_now,
        first="$first::DATE",
        last="$last::DATE",
        horizon="$horizon::DATE",
        settle_days="$settle_days::INTEGER",
    )
    values = {"first": first, "last": last, "settle_days": settle_days}
    days = []
    if connection and table_exists(connection, DAYS.name):
        found = connection.execute(query, values | {"horizon": horizon or date.min})
        days = [
            CoveredDay(table, day, status, rows, fetched_at and fetched_at.replace(tzinfo=UTC))
            for table, day, status, rows, fetched_at in found.fetchall()
        ]
    if first and first <= last and not any(day.table == EVENTS.name for day in days):
        unloaded = [
            CoveredDay(
                EVENTS.name,
                day,
                "expired" if horizon and day < horizon else "never loaded",
                0,
                None,
            )
            for day in days_between(first, last)
        ]
        days = sorted([*unloaded, *days], key=lambda day: (day.table, day.day))
    return days


def event_sizes(connection: Connection, table: str = EVENTS.name) -> EventSizes:
    """Return the size of the finished days of an asset table of events."""
    ledger = day_rows(connection, table, date.min, date.max)
    known = {day: row for day, row in ledger.items() if row["status"] in ("complete", "empty")}
    return EventSizes(
        rows={day: row["row_count"] for day, row in known.items()},
        received_bytes={day: row["bytes"] for day, row in known.items()},
        shifted=_has_shifted_rows(connection),
    )


def _has_shifted_rows(connection: Connection) -> bool:
    if not table_exists(connection, DAYS.name):
        return False
    shifted = f"SELECT count(*) FROM {DAYS.quoted} WHERE schema_name = ? AND shifted_rows > 0"
    return number(connection, shifted, [SCHEMA]) > 0


def event_counts(
    connection: Connection,
    from_date: date,
    to_date: date,
    *,
    table: str = "events",
    schema: str = SCHEMA,
) -> dict[date, dict[str, int]]:
    """Return stored rows by day and event name, both ends included."""
    if not table_exists(connection, EVENT_COUNTS.name):
        return {}
    stored_counts = connection.execute(
        f"SELECT day, event_name, row_count FROM {EVENT_COUNTS.quoted} "
        "WHERE schema_name = ? AND table_name = ? AND day BETWEEN ? AND ? ORDER BY ALL",
        [schema, table, from_date, to_date],
    )
    counts: dict[date, dict[str, int]] = {}
    for day, event, count in stored_counts.fetchall():
        counts.setdefault(day, {})[event] = count
    return counts


def day_reports(
    connection: Connection, from_date: date, to_date: date, *, table: str = EVENTS.name
) -> dict[date, DayReport]:
    """Return the stored days of an asset table of events, both ends included.

    The ledger does not store `rows_before`, `time_warning` and `hour_counts`.
    """
    counts = event_counts(connection, from_date, to_date, table=table)
    return {
        day: DayReport(
            day=day,
            status=row["status"],
            row_count=row["row_count"],
            rows_vanished=row.get("rows_vanished") or 0,  # older files have no such column
            duplicates_removed=row["duplicates_removed"] or 0,
            quarantined=row["quarantined"] or 0,
            shifted_rows=row["shifted_rows"] or 0,
            requests=row["requests"] or 0,
            bytes=row["bytes"] or 0,
            event_counts=counts.get(day, {}),
            receipt=Receipt.of_json(row.get("certificate")),
        )
        for day, row in day_rows(connection, table, from_date, to_date).items()
    }


@dataclass(frozen=True)
class KnownTable:
    """A table with ledger rows; its newest day was received at `fetched_at`, aware, UTC."""

    target: Target
    type: Literal["events", "profiles"]
    fetched_at: datetime
    from_date: date
    to_date: date
    filters: dict[str, Any]

    @property
    def is_asset(self) -> bool:
        """Whether assets fill it by days: then it is emptied, not dropped."""
        return self.target.schema == SCHEMA


def find_table(connection: Connection, name: str) -> Target:
    """Return the schema and the name of a table or view, as they are written.

    Raises:
        TableNotFoundError: It does not exist; the error names the tables that do.
    """
    tables = connection.execute(
        "SELECT table_schema, table_name FROM information_schema.tables "
        "WHERE table_catalog = current_database()"
    ).fetchall()
    tables_by_name = {(schema.lower(), table.lower()): (schema, table) for schema, table in tables}
    schema, _, table = name.lower().partition(".")
    searched_names = ((NAMED_SCHEMA, name.lower()), (SCHEMA, name.lower()), (schema, table))
    for searched_name in searched_names:
        if searched_name in tables_by_name:
            schema, table = tables_by_name[searched_name]
            return Target(table, schema)
    table_labels = [_table_label(*found) for found in tables if not found[1].startswith("_")]
    raise TableNotFoundError(name, sorted(table_labels))


def known_tables(connection: Connection) -> list[KnownTable]:
    """Return the existing tables with ledger rows, by name."""
    if not table_exists(connection, DAYS.name):
        return []
    ledger_rows = connection.execute(
        "SELECT schema_name, table_name, any_value(type), max(fetched_at), "
        f"{', '.join(FIRST_AND_LAST)}, arg_max(filters, fetched_at) FROM {DAYS.quoted} "
        "WHERE status <> 'failed' GROUP BY ALL ORDER BY 2, 1"
    ).fetchall()
    return [
        KnownTable(
            Target(table, schema),
            kind,
            fetched_at.replace(tzinfo=UTC),
            from_date,
            to_date,
            json.loads(filters or "{}"),
        )
        for schema, table, kind, fetched_at, from_date, to_date, filters in ledger_rows
        if table_exists(connection, table, schema)
    ]


def drop_tables(connection: Connection, targets: Sequence[Target]) -> list[str]:
    """Drop tables with their ledger and quarantine rows; return their names, each once.

    An asset's table (schema `mixpanel`) is emptied, not dropped.
    """
    targets = list(dict.fromkeys(targets))
    for target in targets:
        _refuse_ours(connection, target)
    for target in targets:
        remove = "DELETE FROM" if target.schema == SCHEMA else "DROP TABLE"
        connection.execute(f"{remove} {target.quoted}")
        if table_exists(connection, DAYS.name):
            forget_table(connection, target)
    return [target.table for target in targets]


def drop_day(connection: Connection, target: Target, day: date) -> tuple[int, int]:
    """Delete a day of an asset's table of events, with its ledger and quarantine rows.

    Returns:
        The numbers of deleted rows and of deleted quarantined lines.
    """
    rows = number(connection, f"DELETE FROM {target.quoted} WHERE event_date = ?", [day])
    ledger.forget_days(connection, target, [day])
    return rows, forget_quarantine(connection, target, day, day)


def _refuse_ours(connection: Connection, target: Target) -> None:
    ours = target.schema in (SCHEMA, NAMED_SCHEMA)
    if ours and (target.table.startswith("_") or target.table in VIEWS):
        raise ConfigError(
            f"{target.table!r} is a table of this package and cannot be dropped. Drop the tables "
            "that it describes.",
            {"table": target.table},
        )
    views = number(
        connection,
        "SELECT count(*) FROM duckdb_views() WHERE database_name = current_database() "
        "AND schema_name = ? AND view_name = ?",
        [target.schema, target.table],
    )
    if views:
        raise ConfigError(
            f"{target.table!r} is a view. Drop it with `DROP VIEW`.", {"table": target.table}
        )


def _table_label(schema: str, table: str) -> str:
    return table if schema in (SCHEMA, NAMED_SCHEMA) else f"{schema}.{table}"


NAMED_SCHEMA = "main"
_TABLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")
_ASSETS = {table.name: table for table in (EVENTS, PROFILES)}
# Named tables have exactly the columns of the documented library.
_DOCUMENTED = ("event_name", "event_time", "distinct_id", "insert_id", "properties")


def target_of(table: str, asset: Table) -> Target:
    """Return the target of a table name: the asset table itself, or a named table."""
    if table == asset.name:
        return Target(table)
    refuse_our_names(NAMED_SCHEMA, table)
    return Target(table, NAMED_SCHEMA)


def refuse_our_names(schema: str, table: str) -> None:
    """Refuse the name of a table of this package, or one that begins with an underscore."""
    # Queries search both schemas, and DuckDB takes `Events` and `events` for the same name.
    schemas, name = (SCHEMA, NAMED_SCHEMA), table.lower()
    if schema.lower() in schemas and (name.startswith("_") or name in {*BY_NAME, *VIEWS}):
        raise ConfigError(
            f"The name {table!r} in schema {schema!r} is taken by a table of this package. "
            "Choose another name or another schema.",
            {"schema": schema, "table": table},
        )


def make_table(connection: Connection, definition: Table) -> None:
    """Create a table if it does not exist; raise as `check_table` does."""
    check_table(connection, definition)
    if stored_name(connection, definition.name, definition.schema) is None:
        forget_table(connection, Target(definition.name, definition.schema))
        create(connection, definition)


def check_table(connection: Connection, definition: Table) -> None:
    """Check that rows of a definition fit the table of that name, if it exists.

    Raises:
        ConfigError: It has other columns or its name is in another case, or the other schema has
            a table of that name, so that queries would find only one of them.
    """
    _refuse_twins(connection, definition.schema, definition.name)
    name = stored_name(connection, definition.name, definition.schema)
    if name is None:
        return
    if name != definition.name:
        raise ConfigError(
            f"There is a table {name!r}, which DuckDB takes for {definition.name!r}. Write its "
            "name as it is, or choose another one.",
            {"table": name},
        )
    described = connection.execute(f"DESCRIBE {definition.quoted}").fetchall()
    if {name for name, *_ in described} != set(definition.column_names):
        raise ConfigError(
            f"The table {definition.name!r} has other columns than these rows. Choose another "
            "name, or replace it (`replace=True`, `--replace`).",
            {"table": definition.name, "columns": [name for name, *_ in described]},
        )


def forget_table(connection: Connection, target: Target) -> None:
    """Delete the ledger and quarantine rows of a table."""
    ledger.forget_days(connection, target, ledger.known_days(connection, target))
    connection.execute(f"DELETE FROM {QUARANTINE.quoted} WHERE {OF_TABLE}", target.names)


def _refuse_twins(connection: Connection, schema: str, table: str) -> None:
    other = NAMED_SCHEMA if schema == SCHEMA else SCHEMA
    if table_exists(connection, table, other):
        raise ConfigError(
            f"The name {table!r} is taken by a table in schema {other!r}. Choose another name.",
            {"schema": other, "table": table},
        )


def check_name(table: str, asset: Table = EVENTS) -> None:
    """Refuse a name that neither a named table nor the asset table of its kind may have.

    Raises:
        ConfigError: It has other characters than letters, digits and underscores, or is the name
            of another table of this package.
    """
    if not _TABLE_NAME.fullmatch(table):
        raise ConfigError(
            f"{table!r} is not a name for a table: use letters, digits and underscores, and begin "
            "with a letter or digit.",
            {"table": table},
        )
    target_of(table, asset)


def free_table_name(connection: Connection, table: str, *, replace: bool) -> None:
    """Check that a load may create its table; drop the old one if it is to be replaced.

    Raises:
        TableExistsError: The table exists and may not be replaced. The asset tables `events` and
            `profiles` exist in this sense once a day is stored in them.
        ConfigError: It is an asset table, which is never replaced.
    """
    target = target_of(table, _ASSETS.get(table, EVENTS))
    is_asset = target.schema == SCHEMA
    if not is_asset:
        _refuse_twins(connection, target.schema, table)
    name = stored_name(connection, table, target.schema)
    if name is None or (is_asset and not _is_loaded(connection, target)):
        return
    if not replace:
        raise TableExistsError(table, is_asset=is_asset)
    if is_asset:
        raise ConfigError(
            f"{table!r} is the asset's own table and has days already. Choose another name, or "
            f"load days into it as the asset does (`sync_{table}`, `mp sync`).",
            {"table": table},
        )
    connection.execute(f"DROP TABLE {qualified(target.schema, name)}")
    forget_table(connection, Target(name, target.schema))


def _is_loaded(connection: Connection, target: Target) -> bool:
    return any(status != "failed" for status in ledger.day_statuses(connection, target).values())


def named_events(table: str) -> Table:
    """Return the definition of a named table of events."""
    columns = tuple(column for column in EVENTS.columns if column.name in _DOCUMENTED)
    return Table(table, EVENTS.grain, columns, NAMED_SCHEMA)
