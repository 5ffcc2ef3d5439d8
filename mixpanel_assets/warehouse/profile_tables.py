"""Tables of profiles: the asset tables, which hold days, and named ones, which hold people.

Asset tables live in schema `mixpanel` and have the columns of `profiles`. Named tables live in
schema `main` with exactly the documented columns, and hold each `distinct_id` once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import duckdb

from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.answers import number
from mixpanel_assets.warehouse.destination import (
    NAMED_SCHEMA,
    check_name,
    make_table,
    refuse_our_names,
)
from mixpanel_assets.warehouse.ledger import Load, Target
from mixpanel_assets.warehouse.quarantine import forget_quarantine
from mixpanel_assets.warehouse.reports import Scope
from mixpanel_assets.warehouse.schema import DAYS, PROFILES, SCHEMA, Table
from mixpanel_assets.warehouse.tables import table_exists

_DOCUMENTED = ("distinct_id", "properties", "last_seen")


def is_partial(
    connection: duckdb.DuckDBPyConnection, target: Target, filters: Mapping[str, Any]
) -> bool:
    """Tell whether all that a named table holds is a part of what a question was to bring.

    The asset's table is never meant: what a day lacks is for the asset to fetch.
    """
    if target.schema != NAMED_SCHEMA or not table_exists(connection, DAYS.name):
        return False
    found = connection.execute(
        f"SELECT type, status, filters FROM {DAYS.quoted} WHERE schema_name = ? AND table_name = ?",
        [target.schema, target.table],
    ).fetchall()
    part = ("profiles", "partial", Load(target, "profiles", filters=filters).filters_text)
    return bool(found) and all(row == part for row in found)


def make_profile_table(connection: duckdb.DuckDBPyConnection, target: Target) -> Table:
    """Return the definition of a table of profiles, and make it if it is not there.

    Raises:
        ConfigError: The name is no name for a table, or taken.
    """
    check_name(target.table, PROFILES)
    if target == Target(PROFILES.name):
        return PROFILES
    if target.table != PROFILES.name:
        refuse_our_names(target.schema, target.table)
    definition = _definition(target)
    make_table(connection, definition)
    return definition


def is_full(scope: Scope, filters: Mapping[str, Any] | None, target: Target) -> bool:
    """Tell whether an answer, if complete, is a full snapshot of what the table is about.

    That is everybody in `profiles`; what another asset table is about is said by the filters.
    """
    if target.schema == NAMED_SCHEMA or scope != "all":
        return False
    return target.table != PROFILES.name or not filters


def move_profiles(
    connection: duckdb.DuckDBPyConnection,
    staged: str,
    table: Table,
    days: Sequence[date],
    *,
    merge: bool,
) -> None:
    """Replace the days by the staged rows, or only the profiles that are among these.

    A named table has no days: without `merge` it is replaced as a whole.
    """
    if table.schema == NAMED_SCHEMA:
        where = f"distinct_id IN (SELECT distinct_id FROM {staged})" if merge else "true"
        connection.execute(f"DELETE FROM {table.quoted} WHERE {where}")
    else:
        only = (
            f"AND (snapshot_date, distinct_id) IN (SELECT snapshot_date, distinct_id FROM {staged})"
        )
        connection.execute(
            f"DELETE FROM {table.quoted} WHERE snapshot_date IN (SELECT unnest(?::DATE[])) "
            f"{only if merge else ''}",
            [list(days)],
        )
    columns = ", ".join(table.column_names)
    connection.execute(
        f"INSERT INTO {table.quoted} BY NAME "
        f"SELECT {columns} FROM {staged} WHERE snapshot_date IS NOT NULL"
    )


def forget_other_days(
    connection: duckdb.DuckDBPyConnection, target: Target, days: Sequence[date]
) -> None:
    """Delete what is told of all days of a named table but these: it was replaced as a whole."""
    others = set(ledger.known_days(connection, target)) - set(days)
    ledger.forget_days(connection, target, others)
    for day in others:
        forget_quarantine(connection, target, day, day)


def count_day(connection: duckdb.DuckDBPyConnection, table: Table, day: date) -> int:
    """Return the rows of a day; of a named table those that no other day accounts for."""
    if table.schema != NAMED_SCHEMA:
        return number(
            connection, f"SELECT count(*) FROM {table.quoted} WHERE snapshot_date = ?", [day]
        )
    rows = ledger.rows_before(connection, Target(table.name, table.schema), date.min, date.max)
    others = sum(count for known, count in rows.items() if known != day)
    return number(connection, f"SELECT count(*) FROM {table.quoted}") - others


def _definition(target: Target) -> Table:
    if target.schema == SCHEMA:
        return Table(target.table, PROFILES.grain, PROFILES.columns)
    columns = tuple(column for column in PROFILES.columns if column.name in _DOCUMENTED)
    return Table(target.table, "One row per profile.", columns, NAMED_SCHEMA)
