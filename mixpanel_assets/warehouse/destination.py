"""Where a load's rows go: an asset table, or a named table of a workspace.

Named tables live in schema `main` and have exactly the documented columns.
"""

from __future__ import annotations

import re

import duckdb

from mixpanel_assets.errors import ConfigError, TableExistsError
from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.ledger import Target
from mixpanel_assets.warehouse.schema import (
    BY_NAME,
    EVENTS,
    PROFILES,
    QUARANTINE,
    SCHEMA,
    VIEWS,
    Table,
    create,
    qualified,
)
from mixpanel_assets.warehouse.tables import stored_name, table_exists

NAMED_SCHEMA = "main"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")
_ASSETS = {table.name: table for table in (EVENTS, PROFILES)}
_DOCUMENTED = ("event_name", "event_time", "distinct_id", "insert_id", "properties")


def target_of(table: str, asset: Table) -> Target:
    """Return the target that a table name means: the asset table itself, or a named one.

    Raises:
        ConfigError: The name belongs to another table of ours.
    """
    if table == asset.name:
        return Target(table)
    refuse_our_names(NAMED_SCHEMA, table)
    return Target(table, NAMED_SCHEMA)


def refuse_our_names(schema: str, table: str) -> None:
    """See that a table is none of ours and hides none: queries look into both schemas.

    Raises:
        ConfigError: The name is taken, or begins with an underscore as our own do.
    """
    # DuckDB takes `Events` and `events` for the same name.
    schemas, name = (SCHEMA, NAMED_SCHEMA), table.lower()
    if schema.lower() in schemas and (name.startswith("_") or name in {*BY_NAME, *VIEWS}):
        raise ConfigError(
            f"The name {table!r} in schema {schema!r} is taken by a table of this package. "
            "Choose another name or another schema.",
            {"schema": schema, "table": table},
        )


def make_table(connection: duckdb.DuckDBPyConnection, definition: Table) -> None:
    """Make a table if it is not there.

    Raises:
        ConfigError: As `check_table` says.
    """
    check_table(connection, definition)
    if stored_name(connection, definition.name, definition.schema) is None:
        forget_table(connection, Target(definition.name, definition.schema))
        create(connection, definition)


def check_table(connection: duckdb.DuckDBPyConnection, definition: Table) -> None:
    """See that rows of a kind belong into the table of that name, if there is one.

    Raises:
        ConfigError: It has other columns or its name is written differently, or the other schema
            has a table of that name, so that queries would find only one of them.
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
            f"The table {definition.name!r} holds something else than these rows. Choose another "
            "name, or load it anew (`replace=True`, `--replace`).",
            {"table": definition.name, "columns": [name for name, *_ in described]},
        )


def forget_table(connection: duckdb.DuckDBPyConnection, target: Target) -> None:
    """Delete what ledger and quarantine tell of a table."""
    ledger.forget_days(connection, target, ledger.known_days(connection, target))
    connection.execute(
        f"DELETE FROM {QUARANTINE.quoted} WHERE schema_name = ? AND table_name = ?",
        [target.schema, target.table],
    )


def _refuse_twins(connection: duckdb.DuckDBPyConnection, schema: str, table: str) -> None:
    other = NAMED_SCHEMA if schema == SCHEMA else SCHEMA
    if table_exists(connection, table, other):
        raise ConfigError(
            f"The name {table!r} is taken by a table in schema {other!r}. Choose another name.",
            {"schema": other, "table": table},
        )


def check_name(table: str, asset: Table = EVENTS) -> None:
    """Refuse a name that no named table may have, nor the asset table of the same kind.

    Raises:
        ConfigError: It is not letters, digits and underscores, or a table of ours has it.
    """
    if not _NAME.fullmatch(table):
        raise ConfigError(
            f"{table!r} is no name for a table: use letters, digits and underscores, and begin "
            "with a letter or digit.",
            {"table": table},
        )
    target_of(table, asset)


def make_way(connection: duckdb.DuckDBPyConnection, table: str, *, replace: bool) -> None:
    """See that a load makes its table anew; undone with the caller's transaction.

    Raises:
        TableExistsError: A table of that name is there and may not be replaced. The asset
            tables `events` and `profiles` count as there once a day is stored in them.
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
            f"{table!r} is the asset's own table and holds days already. Choose another name, or "
            f"load days into it as the asset does (`sync_{table}`, `mp sync`).",
            {"table": table},
        )
    connection.execute(f"DROP TABLE {qualified(target.schema, name)}")
    forget_table(connection, Target(name, target.schema))


def _is_loaded(connection: duckdb.DuckDBPyConnection, target: Target) -> bool:
    return any(status != "failed" for status in ledger.day_statuses(connection, target).values())


def named_events(table: str) -> Table:
    """Return the definition of a named table of events."""
    columns = tuple(column for column in EVENTS.columns if column.name in _DOCUMENTED)
    return Table(table, EVENTS.grain, columns, NAMED_SCHEMA)
