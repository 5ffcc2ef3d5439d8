"""Freshly staged events meet those of a named table: which are the same, and which copy stays.

A named table has the documented columns only, so what the rule for repeats needs beyond them
is read out of `properties`.
"""

from __future__ import annotations

import duckdb

from mixpanel_assets.errors import ConfigError
from mixpanel_assets.rules.zones import wall_clock_sql
from mixpanel_assets.warehouse.answers import number
from mixpanel_assets.warehouse.destination import named_events
from mixpanel_assets.warehouse.ledger import Added, Target
from mixpanel_assets.warehouse.spool import Window, processed_ms

# A wall clock that is set back passes some hours twice, so equal times can be that far apart. No
# clock was ever set back by more than seven hours.
_AROUND = "INTERVAL 1 DAY"

# First the cheap columns find the few pairs that may be one event; only those are read whole.
_FIND = """
    CREATE TEMP TABLE _met AS
    WITH near AS MATERIALIZED (
        SELECT came.rowid AS came, held.rowid AS held
        FROM {staged} AS came JOIN (
            SELECT rowid, event_time, insert_id FROM {table} WHERE event_time BETWEEN
                (SELECT min(event_time) - {around} FROM {staged})
                AND (SELECT max(event_time) + {around} FROM {staged})
        ) AS held ON {came_at} = {held_at} AND came.insert_id = held.insert_id
    )
    SELECT near.came, near.held, came.event_date, held.event_name, {came_rank} < {held_rank} AS wins
    FROM near JOIN {staged} AS came ON came.rowid = near.came
        JOIN {table} AS held ON held.rowid = near.held
    WHERE {came_name} = {held_name} AND {came_who} IS NOT DISTINCT FROM {held_who}
"""

_ADDED = """
    SELECT event_date, event_name, sum(rows)::BIGINT FROM (
        SELECT event_date, event_name, 1 AS rows FROM {staged} WHERE {is_new}
        UNION ALL SELECT event_date, event_name, -1 FROM _met WHERE wins
    ) GROUP BY ALL HAVING sum(rows) <> 0
"""


def merge(
    connection: duckdb.DuckDBPyConnection,
    staged: str,
    target: Target,
    window: Window,
    *,
    meets: bool = True,
) -> Added:
    """Put staged rows into a named table, one copy of each event.

    Args:
        connection: Inside the transaction of the load.
        staged: Rows without repeats, ids filled; the qualified name.
        target: The table.
        window: How times are read.
        meets: Whether its rows may be events that come again; otherwise every row is new.

    Returns:
        By how many rows each day and event name has grown.

    Raises:
        ConfigError: One row is the copy of two.
    """
    definition = named_events(target.table)
    table = definition.quoted
    if meets:
        connection.execute(_FIND.format(staged=staged, table=table, **_sides(window)))
    else:
        connection.execute(
            "CREATE TEMP TABLE _met (came BIGINT, held BIGINT, wins BOOLEAN, "
            "event_date DATE, event_name VARCHAR)"
        )
    _refuse_ambiguity(connection, target)
    is_new = "rowid NOT IN (SELECT came FROM _met WHERE NOT wins)"
    found = connection.execute(_ADDED.format(staged=staged, is_new=is_new)).fetchall()
    connection.execute(f"DELETE FROM {table} WHERE rowid IN (SELECT held FROM _met WHERE wins)")
    columns = ", ".join(definition.column_names)
    connection.execute(f"INSERT INTO {table} BY NAME SELECT {columns} FROM {staged} WHERE {is_new}")
    connection.execute("DROP TABLE _met")
    return {(day, name): count for day, name, count in found}


def _sides(window: Window) -> dict[str, str]:
    sides = {"around": _AROUND}
    for side in ("came", "held"):
        sides[f"{side}_at"] = _time_as_sent(side, window)
        sides[f"{side}_rank"] = _rank(side)
        sides[f"{side}_name"] = _event(side)
        sides[f"{side}_who"] = _who(side)
    return sides


def _time_as_sent(side: str, window: Window) -> str:
    if window.project.regime == "utc":
        return f"{side}.event_time"
    return wall_clock_sql(f"{side}.event_time", window.project.zone, *window.days_around)


def _rank(side: str) -> str:
    """Order copies as `repeats` does; the first one stays."""
    processed = processed_ms(f"{side}.properties -> '$.mp_processing_time_ms'")
    return (
        f"row(-coalesce({processed}, -1), md5({side}.properties), "
        f"{side}.distinct_id IS NULL, coalesce({side}.distinct_id, ''))"
    )


# An event that Mixpanel moved to a hot shard got another name and no distinct_id; its made id
# was made of what it was before.
def _is_moved(side: str) -> str:
    return (
        f"({side}.event_name = '$hotshard_events' AND "
        f"regexp_matches({side}.insert_id, '^[0-9a-f]{{8}}-[0-9a-f]{{4}}-8[0-9a-f]{{3}}-'))"
    )


def _event(side: str) -> str:
    original = f"coalesce({side}.properties ->> '$.mp_original_event_name', {side}.event_name)"
    return f"CASE WHEN {_is_moved(side)} THEN {original} ELSE {side}.event_name END"


def _who(side: str) -> str:
    before = f"{side}.properties ->> '$.\"$distinct_id_before_identity\"'"
    original = f"{side}.properties ->> '$.mp_original_distinct_id'"
    return (
        f"coalesce({before}, CASE WHEN {_is_moved(side)} THEN {original} "
        f"ELSE {side}.distinct_id END)"
    )


def _refuse_ambiguity(connection: duckdb.DuckDBPyConnection, target: Target) -> None:
    # Only in hours that a wall clock skips: two times as sent are then one `event_time`.
    if number(
        connection,
        "SELECT count(*) - least(count(DISTINCT came), count(DISTINCT held)) FROM _met",
    ):
        raise ConfigError(
            f"{target.table!r} holds events in an hour that the project's clock skipped, and "
            "nobody can tell which of them come again. Load the table anew as a whole "
            "(`replace=True`, `--replace`).",
            {"table": target.table},
        )
