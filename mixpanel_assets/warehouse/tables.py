"""Questions about what is stored: tables, columns, ledger rows, counts and windows of days.

Every function only reads and takes any connection of the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb

from mixpanel_assets.errors import TableNotFoundError
from mixpanel_assets.warehouse.answers import first_row, number
from mixpanel_assets.warehouse.reports import DayReport
from mixpanel_assets.warehouse.schema import (
    BY_NAME,
    DAYS,
    EVENT_COUNTS,
    EVENTS,
    SCHEMA,
    qualified,
    quoted,
)


@dataclass(frozen=True)
class EventSizes:
    """How much finished days of events weigh, empty ones included.

    Attributes:
        rows: Rows by day.
        received_bytes: Compressed bytes received, by day.
        shifted: Whether a day of any asset holds rows of another date (legacy regime).
    """

    rows: dict[date, int]
    received_bytes: dict[date, int]
    shifted: bool = False


@dataclass(frozen=True)
class StoredTable:
    """A table a user may query: its schema, name and number of rows."""

    schema: str
    name: str
    row_count: int


def table_exists(connection: duckdb.DuckDBPyConnection, table: str, schema: str = SCHEMA) -> bool:
    """Tell whether a table or view of that name is there, in whatever case it is written."""
    return stored_name(connection, table, schema) is not None


def stored_name(
    connection: duckdb.DuckDBPyConnection, table: str, schema: str = SCHEMA
) -> str | None:
    """Return how the name of a table is written where it was made; DuckDB ignores case."""
    row = first_row(
        connection,
        "SELECT table_name FROM information_schema.tables WHERE table_catalog = current_database() "
        "AND table_schema = ? AND lower(table_name) = lower(?)",
        [schema, table],
    )
    return row[0] if row else None


def require_table(connection: duckdb.DuckDBPyConnection, table: str, schema: str = SCHEMA) -> str:
    """Return the qualified name for SQL.

    Raises:
        TableNotFoundError: There is no such table.
    """
    if not table_exists(connection, table, schema):
        raise TableNotFoundError(table)
    return qualified(schema, table)


def list_tables(connection: duckdb.DuckDBPyConnection) -> list[StoredTable]:
    """Return the tables that hold data, ours with a leading underscore left out."""
    found = connection.execute(
        "SELECT schema_name, table_name FROM duckdb_tables() "
        "WHERE database_name = current_database() AND NOT internal AND NOT temporary "
        "AND NOT starts_with(table_name, '_') ORDER BY ALL"
    ).fetchall()
    return [
        StoredTable(schema, name, count_rows(connection, name, schema=schema))
        for schema, name in found
    ]


def count_rows(connection: duckdb.DuckDBPyConnection, table: str, *, schema: str = SCHEMA) -> int:
    """Return the number of rows of a table."""
    name = require_table(connection, table, schema)
    return number(connection, f"SELECT count(*) FROM {name}")


def day_rows(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    from_date: date,
    to_date: date,
    *,
    schema: str = SCHEMA,
) -> dict[date, dict[str, Any]]:
    """Return the ledger rows of a table by day, both ends included; only loaded days are there."""
    if not table_exists(connection, DAYS.name):
        return {}
    found = connection.execute(
        f"SELECT * FROM {DAYS.as_of_now} "
        "WHERE schema_name = ? AND table_name = ? AND day BETWEEN ? AND ? ORDER BY day",
        [schema, table, from_date, to_date],
    )
    names = [column[0] for column in found.description]
    rows = (dict(zip(names, row, strict=True)) for row in found.fetchall())
    return {row["day"]: row for row in rows}


def only_here(
    connection: duckdb.DuckDBPyConnection,
    horizon: date | None,
    from_date: date = date.min,
    to_date: date = date.max,
) -> list[date]:
    """Return the days of `mixpanel.events` of which Mixpanel holds nothing any more.

    Args:
        connection: Any connection of the database.
        horizon: The first day that Mixpanel is asked for; None: every day is.
        from_date: First day, included.
        to_date: Last day, included.
    """
    rows = day_rows(connection, EVENTS.name, from_date, to_date)
    return [day for day, row in rows.items() if _is_only_here(row, horizon)]


def _is_only_here(row: Mapping[str, Any], horizon: date | None) -> bool:
    if not row["row_count"]:
        return False
    is_expired = horizon is not None and row["day"] < horizon
    return bool(is_expired or row["rows_vanished"] == row["row_count"])


def event_sizes(connection: duckdb.DuckDBPyConnection, table: str = EVENTS.name) -> EventSizes:
    """Return what the days of an asset table of events weigh."""
    ledger = day_rows(connection, table, date.min, date.max)
    known = {day: row for day, row in ledger.items() if row["status"] in ("complete", "empty")}
    return EventSizes(
        rows={day: row["row_count"] for day, row in known.items()},
        received_bytes={day: row["bytes"] for day, row in known.items()},
        shifted=_are_shifted(connection),
    )


def _are_shifted(connection: duckdb.DuckDBPyConnection) -> bool:
    if not table_exists(connection, DAYS.name):
        return False
    shifted = f"SELECT count(*) FROM {DAYS.quoted} WHERE schema_name = ? AND shifted_rows > 0"
    return number(connection, shifted, [SCHEMA]) > 0


def event_counts(
    connection: duckdb.DuckDBPyConnection,
    from_date: date,
    to_date: date,
    *,
    table: str = "events",
    schema: str = SCHEMA,
) -> dict[date, dict[str, int]]:
    """Return stored rows by day and event name, both ends included."""
    if not table_exists(connection, EVENT_COUNTS.name):
        return {}
    found = connection.execute(
        f"SELECT day, event_name, row_count FROM {EVENT_COUNTS.quoted} "
        "WHERE schema_name = ? AND table_name = ? AND day BETWEEN ? AND ? ORDER BY ALL",
        [schema, table, from_date, to_date],
    )
    counts: dict[date, dict[str, int]] = {}
    for day, event, count in found.fetchall():
        counts.setdefault(day, {})[event] = count
    return counts


def day_reports(
    connection: duckdb.DuckDBPyConnection,
    from_date: date,
    to_date: date,
    *,
    table: str = EVENTS.name,
) -> dict[date, DayReport]:
    """Return what is known of stored days of an asset table of events, both ends included.

    The ledger does not keep `rows_before`, `time_warning` and `hour_counts`.
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
        )
        for day, row in day_rows(connection, table, from_date, to_date).items()
    }


def read_window(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    from_date: date,
    to_date: date,
    *,
    day_column: str | None = None,
    schema: str = SCHEMA,
) -> duckdb.DuckDBPyRelation:
    """Return the rows of some days as a relation, both ends included.

    Args:
        connection: Must stay open while the relation is read.
        table: Its name.
        from_date: First day, included.
        to_date: Last day, included.
        day_column: The partition column; for our own tables it is known.
        schema: Where the table is.

    Raises:
        TableNotFoundError: There is no such table.
    """
    name = require_table(connection, table, schema)
    column = quoted(day_column or partition_column(table))
    return connection.sql(
        f"SELECT * FROM {name} WHERE {column} BETWEEN $from_date AND $to_date",
        params={"from_date": from_date, "to_date": to_date},
    )


def partition_column(table: str) -> str:
    """Return the column that holds the day of a row of `events` or `profiles`."""
    days = {"event_date", "snapshot_date"}
    return next(name for name in BY_NAME[table].column_names if name in days)
