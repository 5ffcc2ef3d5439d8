"""Short answers from DuckDB, read to their end.

DuckDB 2 refuses the next statement on a connection while a result is not read to its end,
which `fetchone()` leaves it even when there is one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

Values = Sequence[Any] | Mapping[str, Any]


def first_row(
    connection: duckdb.DuckDBPyConnection, sql: str, values: Values = ()
) -> tuple[Any, ...] | None:
    """Return the first row of the result, None when it is empty."""
    rows: list[tuple[Any, ...]] = connection.execute(sql, values).fetchall()
    return rows[0] if rows else None


def number(connection: duckdb.DuckDBPyConnection, sql: str, values: Values = ()) -> int:
    """Return a count, or how many rows a statement changed."""
    row = first_row(connection, sql, values)
    return int(row[0]) if row else 0
