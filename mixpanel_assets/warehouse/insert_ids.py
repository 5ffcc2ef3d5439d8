"""Ids for the freshly loaded rows that came without `$insert_id`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
from duckdb.func import FunctionNullHandling

from mixpanel_assets.rules.json_text import parsed
from mixpanel_assets.rules.made_ids import made_id, twin_id
from mixpanel_assets.warehouse.answers import number

_MADE, _TWIN = "mixpanel_assets_made_id", "mixpanel_assets_twin_id"

_FIRST_IDS = f"""
    CREATE TEMP TABLE _made AS
    SELECT rowid AS row, event_date,
           {_MADE}(event_name, time_raw, distinct_id, properties::VARCHAR) AS id
    FROM {{table}} WHERE insert_id IS NULL
"""

# Twins are told apart by content, so that which one gets which number never depends on order.
_NUMBER_TWINS = f"""
    UPDATE _made SET id = {_TWIN}(id, twins.number)
    FROM (
        SELECT _made.row, row_number() OVER (
            PARTITION BY _made.event_date, _made.id
            ORDER BY events.processed_at NULLS LAST, md5(events.properties), events.distinct_id
        ) - 1 AS number
        FROM _made SEMI JOIN (
            SELECT event_date, id FROM _made GROUP BY ALL HAVING count(*) > 1
        ) USING (event_date, id)
        JOIN {{table}} AS events ON events.rowid = _made.row
    ) AS twins
    WHERE twins.row = _made.row AND twins.number > 0
"""


def fill_insert_ids(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    """Give each row of a table without an id its made one; return how many there were.

    Only these rows pass through Python, in the batches in which DuckDB reads them.
    """
    if not number(connection, f"SELECT count(*) FROM {table} WHERE insert_id IS NULL"):
        return 0
    with _functions(connection):
        connection.execute(_FIRST_IDS.format(table=table))
        connection.execute(_NUMBER_TWINS.format(table=table))
        filled = number(
            connection,
            f"UPDATE {table} AS rows SET insert_id = id, is_made = true FROM _made "
            "WHERE rows.rowid = _made.row",
        )
        connection.execute("DROP TABLE _made")
    return filled


@contextmanager
def _functions(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    types: list[Any] = ["VARCHAR", "BIGINT", "VARCHAR", "VARCHAR"]
    connection.create_function(
        _MADE, _from_row, types, "VARCHAR", null_handling=FunctionNullHandling.SPECIAL
    )
    connection.create_function(_TWIN, twin_id, ["VARCHAR", "BIGINT"], "VARCHAR")
    try:
        yield
    finally:
        connection.remove_function(_MADE)
        connection.remove_function(_TWIN)


def _from_row(event: str, time_ms: int, distinct_id: str | None, properties: str) -> str:
    return made_id(event, time_ms, distinct_id, parsed(properties))
