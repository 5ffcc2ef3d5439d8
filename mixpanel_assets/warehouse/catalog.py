"""Which tables there are by name, what the ledger says of them, and how they go.

A name is looked for in schema `main` and then in `mixpanel`, as queries do; `schema.table`
names one elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal

import duckdb

from mixpanel_assets.errors import ConfigError, TableNotFoundError
from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.answers import number
from mixpanel_assets.warehouse.destination import NAMED_SCHEMA, forget_table
from mixpanel_assets.warehouse.ledger import Target
from mixpanel_assets.warehouse.quarantine import forget_quarantine
from mixpanel_assets.warehouse.schema import DAYS, FIRST_AND_LAST, SCHEMA, VIEWS, qualified
from mixpanel_assets.warehouse.tables import table_exists


@dataclass(frozen=True)
class KnownTable:
    """A table that the ledger speaks of.

    Attributes:
        target: Its schema and name.
        type: What a row is.
        fetched_at: When the last of it came; aware, UTC.
        from_date: First day.
        to_date: Last day.
        filters: What narrowed it.
    """

    target: Target
    type: Literal["events", "profiles"]
    fetched_at: datetime
    from_date: date
    to_date: date
    filters: dict[str, Any]

    @property
    def is_asset(self) -> bool:
        """Whether assets fill it day by day, so that its definition stays when it is emptied."""
        return self.target.schema == SCHEMA

    @property
    def quoted(self) -> str:
        """The qualified name, ready for SQL."""
        return qualified(self.target.schema, self.target.table)


def find_table(connection: duckdb.DuckDBPyConnection, name: str) -> Target:
    """Return where a table or view is and how its name is written.

    Raises:
        TableNotFoundError: There is none; the error names those that there are.
    """
    found = connection.execute(
        "SELECT table_schema, table_name FROM information_schema.tables "
        "WHERE table_catalog = current_database()"
    ).fetchall()
    places = {(schema.lower(), table.lower()): (schema, table) for schema, table in found}
    schema, _, table = name.lower().partition(".")
    asked = ((NAMED_SCHEMA, name.lower()), (SCHEMA, name.lower()), (schema, table))
    for place in asked:
        if place in places:
            schema, table = places[place]
            return Target(table, schema)
    shown = sorted(_shown(*place) for place in found if not place[1].startswith("_"))
    raise TableNotFoundError(name, shown)


def known_tables(connection: duckdb.DuckDBPyConnection) -> list[KnownTable]:
    """Return the tables that the ledger speaks of and that are there, by name."""
    if not table_exists(connection, DAYS.name):
        return []
    found = connection.execute(
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
        for schema, table, kind, fetched_at, from_date, to_date, filters in found
        if table_exists(connection, table, schema)
    ]


def drop_tables(connection: duckdb.DuckDBPyConnection, targets: Sequence[Target]) -> list[str]:
    """Drop tables with what ledger and quarantine say of them, in the caller's transaction.

    An asset's table (schema `mixpanel`) stays as it was made: its rows go.

    Returns:
        The names as they were written, each once.

    Raises:
        ConfigError: One is a view or a table of ours that holds no data.
    """
    targets = list(dict.fromkeys(targets))
    for target in targets:
        _refuse_ours(connection, target)
    for target in targets:
        name = qualified(target.schema, target.table)
        is_asset = target.schema == SCHEMA
        connection.execute(f"DELETE FROM {name}" if is_asset else f"DROP TABLE {name}")
        if table_exists(connection, DAYS.name):
            forget_table(connection, target)
    return [target.table for target in targets]


def drop_day(connection: duckdb.DuckDBPyConnection, target: Target, day: date) -> tuple[int, int]:
    """Delete a day of an asset's table of events with all that is known of it.

    Returns:
        How many rows and how many quarantined lines went.
    """
    rows = number(
        connection,
        f"DELETE FROM {qualified(target.schema, target.table)} WHERE event_date = ?",
        [day],
    )
    ledger.forget_days(connection, target, [day])
    return rows, forget_quarantine(connection, target, day, day)


def _refuse_ours(connection: duckdb.DuckDBPyConnection, target: Target) -> None:
    ours = target.schema in (SCHEMA, NAMED_SCHEMA)
    if ours and (target.table.startswith("_") or target.table in VIEWS):
        raise ConfigError(
            f"{target.table!r} is a table of this package and cannot be dropped. Drop the tables "
            "that it speaks of.",
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


def _shown(schema: str, table: str) -> str:
    return table if schema in (SCHEMA, NAMED_SCHEMA) else f"{schema}.{table}"
