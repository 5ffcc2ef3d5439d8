"""Mixpanel's own repeats: which rows of the freshly loaded days are copies, and their removal."""

from __future__ import annotations

from datetime import date

import duckdb

# First the cheap columns find the few rows that share a key; only those are read whole.
_FIND = """
    CREATE TEMP TABLE _repeats AS
    WITH shared AS (
        SELECT event_date, event_name, time_raw, insert_id FROM {table}
        WHERE insert_id IS NOT NULL GROUP BY ALL HAVING count(*) > 1
    )
    SELECT rowid AS row, event_date
    FROM {table} SEMI JOIN shared USING (event_date, event_name, time_raw, insert_id)
    QUALIFY row_number() OVER (
        PARTITION BY event_date, event_name, time_raw, insert_id,
            coalesce(properties ->> '$."$distinct_id_before_identity"', distinct_id)
        ORDER BY processed_at DESC NULLS LAST, md5(properties), distinct_id
    ) > 1
"""


def remove_repeats(connection: duckdb.DuckDBPyConnection, table: str) -> dict[date, int]:
    """Keep one copy of each repeated event and return how many went, by day.

    Repeats share event, time as sent, `$insert_id` and `$distinct_id_before_identity` (or
    `distinct_id`; NULL equals NULL). The copy that Mixpanel processed last stays; its content
    breaks ties, so the order of arrival never matters. Rows whose `insert_id` is still
    NULL are never merged.

    Args:
        connection: Inside the transaction of the load.
        table: The freshly loaded rows; the qualified, quoted name.
    """
    connection.execute(_FIND.format(table=table))
    removed = connection.execute("SELECT event_date, count(*) FROM _repeats GROUP BY ALL")
    by_day = dict(removed.fetchall())
    if by_day:
        connection.execute(f"DELETE FROM {table} WHERE rowid IN (SELECT row FROM _repeats)")
    connection.execute("DROP TABLE _repeats")
    return by_day
