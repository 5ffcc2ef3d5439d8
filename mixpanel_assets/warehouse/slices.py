"""Any slice of rows into a table that the first slice made: nothing dropped, nothing changed."""

from __future__ import annotations

import duckdb

from mixpanel_assets.errors import StorageError
from mixpanel_assets.warehouse.answers import number
from mixpanel_assets.warehouse.schema import literal, qualified, quoted
from mixpanel_assets.warehouse.tables import table_exists

_FAMILIES = (
    frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL"})
    | {"UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"},
    frozenset({"DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"}),
    frozenset({"VARCHAR", "ENUM"}),
)


def insert_slice(
    connection: duckdb.DuckDBPyConnection, source: str, *, table: str, schema: str
) -> int:
    """Insert a relation by the names of its columns; make the table if it is not there.

    Types may differ as far as every value survives the table's: whole numbers fit any wide
    enough type, dates fit timestamps, and nothing but NULLs fits everything.

    Args:
        connection: In a transaction that the caller undoes when this raises.
        source: A registered relation; it is read once.
        table: The table's name.
        schema: Where it is.

    Returns:
        The number of rows.

    Raises:
        StorageError: Columns are missing or too many, or a value would be changed.
    """
    target = qualified(schema, table)
    if not table_exists(connection, table, schema):
        connection.execute(f"CREATE TABLE {target} AS SELECT * FROM {source} LIMIT 0")
    offered, stored = _types(connection, source), _types(connection, target)
    _require_same_columns(target, offered, stored)
    columns = ", ".join(
        f"{_exact(name, kind, stored[name])} AS {quoted(name)}" for name, kind in offered.items()
    )
    try:
        return number(connection, f"INSERT INTO {target} BY NAME SELECT {columns} FROM {source}")
    except (duckdb.InvalidInputException, duckdb.ConversionException) as error:
        said = str(error).removeprefix("Invalid Input Error: ")
        raise _misfit(target, said) from error


def _types(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """Return the type of each column; names in lower case, as DuckDB tells none apart by it."""
    described = connection.execute(f"DESCRIBE {relation}").fetchall()
    return {name.lower(): kind for name, kind, *_ in described}


def _require_same_columns(target: str, offered: dict[str, str], stored: dict[str, str]) -> None:
    said = [f"it lacks {name!r} ({stored[name]})." for name in stored if name not in offered]
    said += [
        f"the table has no {name!r} ({offered[name]})." for name in offered if name not in stored
    ]
    if said:
        raise _misfit(target, " ".join(said))


def _exact(name: str, offered: str, stored: str) -> str:
    """Return the SQL that casts a column and fails on the first value that would be changed."""
    column = quoted(name)
    if offered == stored:
        return column
    cast = f"try_cast({column} AS {stored})"
    fits = f"{column} IS NULL"
    if _family(offered) and _family(offered) == _family(stored):
        fits = f"try_cast({cast} AS {offered}) IS NOT DISTINCT FROM {column}"
    said = literal(f"{name!r} is {stored} there and {offered} here, which changes a value.")
    return f"CASE WHEN {fits} THEN {cast} ELSE error({said}) END"


def _family(kind: str) -> frozenset[str] | None:
    plain = kind.partition("(")[0]
    return next((family for family in _FAMILIES if plain in family), None)


def _misfit(target: str, said: str) -> StorageError:
    return StorageError(
        f"The slice does not fit the table {target}, which stays as it was: {said} "
        "Give it the table's columns and types, or drop the table to start it anew."
    )
