"""The definition of every table, view and SQL macro.

The database is created from them and Dagster shows them, so a column is described in one place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.rules.days import SETTLE_DAYS

_OURS = "mixpanel_assets: "  # how the comment on a macro of ours begins
_POINTER = "'/' || replace(replace(name, '~', '~0'), '/', '~1')"
_JSON = f"json_extract(properties, {_POINTER})"
_TEXT = f"json_extract_string(properties, {_POINTER})"
_IS_NUMBER = f"json_type({_JSON}) IN ('BIGINT', 'UBIGINT', 'HUGEINT', 'UHUGEINT', 'DOUBLE')"

# Seconds up to the year 5138 are smaller than this, milliseconds from 1973 on larger.
_MILLISECONDS_FROM = 100_000_000_000
LAST_MS = 253_402_300_799_999  # the end of the year 9999
_CLOCK = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?"
_LOCAL = rf"\d{{4}}-\d{{2}}-\d{{2}}|{_CLOCK}"
_WITH_OFFSET = rf"({_CLOCK}) ?(Z|[+-]\d{{2}}(:?\d{{2}})?)"


def _epoch(number: str) -> str:
    """Return the SQL that reads seconds or milliseconds since 1970 as a timestamp."""
    ms = f"CASE WHEN abs({number}) < {_MILLISECONDS_FROM} THEN {number} * 1000 ELSE {number} END"
    return (
        f"CASE WHEN abs({number}) <= {LAST_MS} THEN make_timestamp(round(({ms}) * 1000)::BIGINT) "
        "END"
    )


def _offset_with_colon(text: str) -> str:
    text = rf"regexp_replace({text}, '([+-]\d{{2}})(\d{{2}})$', '\1:\2')"
    return rf"regexp_replace({text}, ' (Z|[+-][^ ]*)$', '\1')"


# Through the epoch, so that neither the session's time zone nor an extension matters.
_TIME = f"""
    CASE WHEN {_IS_NUMBER} OR regexp_full_match({_TEXT}, '\\d{{10}}|\\d{{13}}')
         THEN {_epoch(f"try_cast({_TEXT} AS DOUBLE)")}
         WHEN regexp_full_match({_TEXT}, '{_LOCAL}')
         THEN try_cast(replace({_TEXT}, ',', '.') AS TIMESTAMP)
         WHEN regexp_full_match({_TEXT}, '{_WITH_OFFSET}')
         THEN make_timestamp(epoch_us(try_cast(
             {_offset_with_colon(f"replace({_TEXT}, ',', '.')")} AS TIMESTAMPTZ
         ))) END
"""

MACROS = {
    "prop": (_TEXT, "A property as text; NULL when absent or null."),
    "prop_number": (
        f"CASE WHEN isfinite(try_cast({_TEXT} AS DOUBLE)) AND {_TEXT} NOT IN ('true', 'false') "
        f"THEN try_cast({_TEXT} AS DOUBLE) END",
        "A property as a double, also one sent as text; NULL when it is not a number.",
    ),
    "prop_time": (
        _TIME,
        "A property as a timestamp in UTC: ISO text (UTC unless it has an offset), or seconds or "
        "milliseconds since 1970; NULL when it is not a time.",
    ),
    "prop_json": (_JSON, "A property as JSON, as a list or an object; NULL when absent."),
}


def create_macros(connection: Connection) -> None:
    """Make the macros in schema `mixpanel`; one of the same name that is not ours is kept."""
    in_lake = is_lake(connection)
    # A lake keeps no comments on macros, so there each one of such a name is ours.
    others = set() if in_lake else _macros_of_others(connection)
    for name, (body, meaning) in MACROS.items():
        if name not in others:
            macro = f"mixpanel.{name}"
            connection.execute(f"CREATE OR REPLACE MACRO {macro}(properties, name) AS {body}")
            if not in_lake:
                connection.execute(f"COMMENT ON MACRO {macro} IS '{_OURS}{meaning}'")


def _macros_of_others(connection: Connection) -> set[str]:
    """Return the names of macros in the schema that this package did not make."""
    found = connection.execute(
        "SELECT function_name, comment FROM duckdb_functions() "
        "WHERE database_name = current_database() AND schema_name = 'mixpanel' "
        "AND function_type IN ('macro', 'table_macro')"
    ).fetchall()
    return {name for name, comment in found if not (comment or "").startswith(_OURS)}


def spelling(name: str) -> str:
    """Return the SQL that reads a property as text."""
    return f"mixpanel.prop(properties, {literal(name)})"


def spelling_for(said: str) -> str:
    """Return what to write if DuckDB refused a property's name as a JSON path; else ''."""
    near = re.search(r"JSON path error near '([^\[.*\s].*)'", said, re.DOTALL)
    if not near:
        return ""
    name = f"${near[1]}"
    path = '$."' + name.replace('"', '\\"') + '"'
    return (
        "DuckDB reads a name that begins with $ as a JSON path. Write "
        f"`{spelling(name)}` or `properties->>{literal(path)}`."
    )


SCHEMA = "mixpanel"


@dataclass(frozen=True)
class Column:
    """One column: its name, DuckDB type and what a value means, unit and zone included.

    `since` is the schema version that added it.
    """

    name: str
    type: str
    description: str
    storage: str = ""
    since: int = 1


@dataclass(frozen=True)
class Table:
    """One table: its name, what one row is (the grain), and its columns in order.

    `since` is the schema version that added it.
    """

    name: str
    grain: str
    columns: tuple[Column, ...]
    schema: str = SCHEMA
    since: int = 1

    @property
    def quoted(self) -> str:
        """The qualified name, ready for SQL."""
        return qualified(self.schema, self.name)

    @property
    def as_of_now(self) -> str:
        """A relation for SQL with every column, also where an earlier version made the table.

        Columns that a migration adds are NULL there.
        """
        added = [column for column in self.columns if column.since > 1]
        nulls = ", ".join(f"NULL::{column.type} AS {quoted(column.name)}" for column in added)
        if not added:
            return self.quoted
        return f"(FROM {self.quoted} UNION ALL BY NAME SELECT {nulls} WHERE false)"

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(column.name for column in self.columns)


def quoted(identifier: str) -> str:
    """Return a name as an SQL identifier, whatever characters it holds."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return a text as an SQL literal, for the places where DuckDB binds no value."""
    return "'" + text.replace("'", "''") + "'"


def qualified(schema: str, table: str) -> str:
    """Return schema and table as one SQL name."""
    return f"{quoted(schema)}.{quoted(table)}"


_ZSTD = "USING COMPRESSION zstd"

EVENTS = Table(
    "events",
    "One row per event that Mixpanel holds; its duplicates are removed.",
    (
        Column("event_name", "VARCHAR", "Name of the event as sent."),
        Column("event_time", "TIMESTAMP", "When it happened; UTC, milliseconds kept."),
        Column(
            "distinct_id",
            "VARCHAR",
            "Who did it, as Mixpanel resolved it when exported; text also when sent as a number; "
            "NULL when absent.",
        ),
        Column(
            "insert_id",
            "VARCHAR",
            "`$insert_id` as sent; a made UUID of version 8 when absent or empty.",
        ),
        Column(
            "properties",
            "JSON",
            "Everything else the event carries, except `time`, `distinct_id` and `$insert_id`. "
            "`mixpanel.prop(properties, '$browser')` reads one property as text, `prop_number`, "
            "`prop_time` and `prop_json` as that.",
            _ZSTD,
        ),
        Column(
            "event_date",
            "DATE",
            "The export day the event belongs to (UTC, or the project's day in the legacy "
            "regime); the partition column.",
        ),
        Column(
            "processed_at",
            "TIMESTAMP",
            "When Mixpanel processed it, from `mp_processing_time_ms`; UTC; NULL when absent.",
        ),
        Column(
            "time_raw",
            "BIGINT",
            "`time` as sent, in milliseconds: since 1970 UTC, or the project's wall clock dressed "
            "as that in the legacy regime.",
        ),
    ),
)

PROFILES = Table(
    "profiles",
    "One row per user profile and snapshot day; counting people over several days counts twice.",
    (
        Column("distinct_id", "VARCHAR", "Whose profile it is; text also when sent as a number."),
        Column(
            "properties",
            "JSON",
            "Everything the profile holds, except a `$last_seen` that is a time. "
            "`mixpanel.prop(properties, '$email')` reads one property as text, `prop_number`, "
            "`prop_time` and `prop_json` as that.",
            _ZSTD,
        ),
        Column("last_seen", "TIMESTAMP", "`$last_seen`; UTC; NULL when absent or no time."),
        Column("snapshot_date", "DATE", "The day the row is kept under; the partition column."),
        Column("fetched_at", "TIMESTAMP", "When the page with this profile was read; UTC."),
    ),
)

DAYS = Table(
    "_days",
    "One row per table and day loaded, and per filter in named tables of events: the ledger of "
    "what is stored and how it was received.",
    (
        Column("schema_name", "VARCHAR", "Schema of the described table."),
        Column("table_name", "VARCHAR", "The described table."),
        Column("day", "DATE", "Export day of events, snapshot day of profiles."),
        Column("type", "VARCHAR", "`events` or `profiles`."),
        Column(
            "status",
            "VARCHAR",
            "`complete`, `partial`, `empty`, `open` (not over yet), `not available` (before the "
            "horizon of the project's plan), `expired` (Mixpanel has deleted it), or `failed` "
            "(never stored: see `last_error`).",
        ),
        Column("fetched_at", "TIMESTAMP", "When the day was loaded; UTC; NULL if it never was."),
        Column(
            "row_count",
            "BIGINT",
            "Rows stored for the day; of a named table those that no other ledger row counts.",
        ),
        Column(
            "duplicates_removed", "BIGINT", "Duplicates that Mixpanel sent and the load removed."
        ),
        Column("quarantined", "BIGINT", "Lines kept in `_quarantine` instead."),
        Column("shifted_rows", "BIGINT", "Legacy rows whose own date is not the requested day."),
        Column("expected_total", "BIGINT", "Profiles announced for the response; NULL for events."),
        Column("scope", "VARCHAR", "Profiles: `all` or `seen_on_day`; NULL for events."),
        Column("requests", "INTEGER", "Requests made; a request of several days is on its first."),
        Column("bytes", "BIGINT", "Compressed bytes received, shared out by rows."),
        Column("failed_pages", "INTEGER[]", "Missing profile pages; NULL for events."),
        Column(
            "complete_at",
            "TIMESTAMP",
            "When the day's last complete snapshot of all profiles began; UTC; merges keep it.",
        ),
        Column("filters", "VARCHAR", "Filters of the request as JSON; NULL for everything."),
        Column("run_id", "VARCHAR", "The run that loaded it, if known."),
        Column(
            "rows_vanished",
            "BIGINT",
            "Rows of the day that the last response lacked; they are kept and part of `row_count`. "
            "NULL for profiles.",
            since=2,
        ),
        Column(
            "vanished_at",
            "TIMESTAMP",
            "When a response lacked rows for the last time; UTC; NULL without vanished rows.",
            since=2,
        ),
        Column(
            "last_error",
            "VARCHAR",
            "Why the last attempt to load the day failed; NULL when it succeeded.",
            since=2,
        ),
        Column(
            "failed_at",
            "TIMESTAMP",
            "When the last attempt failed; UTC; NULL like the error.",
            since=2,
        ),
        Column(
            "certificate",
            "JSON",
            "What the response had for the day: `lines`, which are `rows` + `duplicates` + "
            "`quarantined`, and the request, the verdict and the digest; `mp certificate` explains "
            "it. NULL for profiles, named tables and days loaded before schema version 4.",
            since=4,
        ),
    ),
)

EVENT_COUNTS = Table(
    "_event_counts",
    "One row per table, day and event name.",
    (
        Column("schema_name", "VARCHAR", "Schema of the described table."),
        Column("table_name", "VARCHAR", "The described table."),
        Column("day", "DATE", "The export day."),
        Column("event_name", "VARCHAR", "Name of the event."),
        Column("row_count", "BIGINT", "Rows stored."),
        Column(
            "digest",
            "VARCHAR",
            "Hash of the rows that the last response had, without duplicates and in any order: 32 "
            "hexadecimal digits; NULL for named tables and days loaded before schema version 3.",
            since=3,
        ),
    ),
)

VANISHED = Table(
    "_vanished",
    "One row per stored event that the last response for its day lacked. The event is kept.",
    (
        Column("schema_name", "VARCHAR", "Schema of the table that holds the event."),
        Column("table_name", "VARCHAR", "The table that holds the event."),
        Column("day", "DATE", "The export day."),
        Column("event_name", "VARCHAR", "Name of the event as stored."),
        Column("time_raw", "BIGINT", "`time` as stored, in milliseconds."),
        Column("insert_id", "VARCHAR", "`insert_id` as stored."),
        Column("vanished_at", "TIMESTAMP", "When a response lacked it for the first time; UTC."),
    ),
    since=2,
)

RECONCILED = Table(
    "_reconciled",
    "One row per table, day of the project's calendar and event name: the stored number of events "
    "beside the number that Mixpanel reported when it was last asked, and why they differ.",
    (
        Column("schema_name", "VARCHAR", "Schema of the compared table."),
        Column("table_name", "VARCHAR", "The compared table."),
        Column(
            "day",
            "DATE",
            "The day in the project's time zone, as Mixpanel's reports count; the export day if "
            "the regime is `legacy` or the zone is UTC.",
        ),
        Column("event_name", "VARCHAR", "Name of the event."),
        Column("stored", "BIGINT", "Rows stored when Mixpanel was asked."),
        Column("live", "BIGINT", "Events that Mixpanel reported."),
        Column(
            "class",
            "VARCHAR",
            "`equal`, `repeats`, `pending`, `hidden`, `forwarded`, `deleted`, `expired`, "
            "`quarantined`, `name limit`, `zone edge`, `not loaded` or `unexplained`.",
        ),
        Column("reason", "VARCHAR", "The evidence for the class, in words; NULL if equal."),
        Column("asked_at", "TIMESTAMP", "When Mixpanel was last asked; UTC."),
        Column(
            "live_since",
            "TIMESTAMP",
            "When Mixpanel reported this number for the first time, without another one since; "
            "UTC. A load after it has brought what the export had for this number.",
        ),
        Column(
            "live_before",
            "BIGINT",
            "The number that Mixpanel reported before; NULL if it reported no other one.",
        ),
    ),
    since=4,
)

QUARANTINE = Table(
    "_quarantine",
    "One row per complete line that cannot be stored.",
    (
        Column("schema_name", "VARCHAR", "Schema of the table it was meant for."),
        Column("table_name", "VARCHAR", "The table it was meant for."),
        Column("day", "DATE", "The requested day; the first one of a request for several."),
        Column("line", "BLOB", "The line's bytes as received; of a long line the first 64 kB."),
        Column("reason", "VARCHAR", "Why it cannot be stored."),
        Column("quarantined_at", "TIMESTAMP", "When; UTC."),
        Column("run_id", "VARCHAR", "The run that received it, if known."),
        Column("line_bytes", "BIGINT", "Length of the whole line, in bytes.", since=2),
        Column("sha256", "VARCHAR", "SHA-256 of the whole line, in hexadecimal digits.", since=2),
        Column(
            "vanished_at",
            "TIMESTAMP",
            "When a response lacked the line for the first time; UTC; NULL while it is sent.",
            since=2,
        ),
    ),
)

PROJECT = Table(
    "_project",
    "One row: the project of this file and how its times are read.",
    (
        Column("project_id", "VARCHAR", "Mixpanel's project id."),
        Column("region", "VARCHAR", "Where Mixpanel keeps it: us, eu or in."),
        Column("regime", "VARCHAR", "`utc`, or `legacy` when `time` is local wall clock."),
        Column("zone", "VARCHAR", "The project's time zone; converts times in `legacy` only."),
        Column("schema_version", "INTEGER", "Version of these tables."),
        Column("created_at", "TIMESTAMP", "When the tables were made; UTC."),
    ),
)

TABLES: tuple[Table, ...] = (
    EVENTS,
    PROFILES,
    DAYS,
    EVENT_COUNTS,
    VANISHED,
    RECONCILED,
    QUARANTINE,
    PROJECT,
)
BY_NAME: dict[str, Table] = {table.name: table for table in TABLES}

STAMP = f'"{SCHEMA}"._snapshot'  # the table that only snapshots have

METADATA = "_metadata"
COVERAGE = Table(
    "coverage",
    "One row per asset table and day, from the first to the last day wanted.",
    (
        Column("table_name", "VARCHAR", "The table in schema `mixpanel`."),
        Column("day", "DATE", "Export day of events, snapshot day of profiles."),
        Column(
            "status",
            "VARCHAR",
            "`complete`, `empty` (Mixpanel sent nothing, which a second response confirmed), "
            "`stale` (stored before Mixpanel stopped taking late events), `open` (stored before "
            "its end), `partial`, `only ours` (stored, and Mixpanel has none of it any more), "
            "`failed`, `never loaded`, `not available` (before the horizon of the project's plan) "
            "or `expired` (Mixpanel has deleted it).",
        ),
        Column("row_count", "BIGINT", "Rows stored for the day."),
        Column("fetched_at", "TIMESTAMP", "When the day was loaded; UTC; NULL if it never was."),
    ),
)
VIEWS = (METADATA, COVERAGE.name, "missing_days", "profiles_current")

# Days with these statuses have no rows but those of earlier loads.
NEVER_STORED = "('failed', 'not available', 'expired')"
# The first and the last stored day of a table; without stored days, of the requested ones.
FIRST_AND_LAST = tuple(
    f"coalesce({end}(day) FILTER (row_count > 0 OR status NOT IN {NEVER_STORED}), {end}(day))"
    for end in ("min", "max")
)

METADATA_VIEW = f"""
    CREATE OR REPLACE VIEW main.{METADATA} AS
    SELECT table_name, any_value(type) AS type, max(fetched_at) AS fetched_at,
           {FIRST_AND_LAST[0]} AS from_date, {FIRST_AND_LAST[1]} AS to_date,
           sum(row_count)::BIGINT AS row_count
    FROM {DAYS.quoted} WHERE status <> 'failed' GROUP BY table_name
"""

# The zone of the export days.
_DAY_ZONE = f"(SELECT any_value(if(regime = 'legacy', zone, 'UTC')) FROM {PROJECT.quoted})"


def coverage_sql(
    *,
    days: str = DAYS.quoted,
    first: str = "NULL::DATE",
    last: str = f"(now() AT TIME ZONE {_DAY_ZONE})::DATE - 1",
    horizon: str = "NULL::DATE",
    settle_days: str = f"{SETTLE_DAYS}",
) -> str:
    """Return the query of one row per asset table and day, from the first to the last day wanted.

    All arguments are SQL. By default they are what the view `coverage` knows without settings.

    Args:
        days: The ledger.
        first: The first day of events that is wanted; NULL: the first one in the ledger.
        last: The last day that is wanted, unless the ledger has a later one.
        horizon: The first day that is requested from Mixpanel; NULL: only the ledger says which
            days have expired.
        settle_days: How long after a day's end Mixpanel takes events for it.
    """
    return f"""
    WITH ledger AS (
        SELECT table_name, type, day, status, row_count, rows_vanished, fetched_at,
               ((day + 1)::TIMESTAMP AT TIME ZONE {_DAY_ZONE} AT TIME ZONE 'UTC')
                   + {settle_days} * INTERVAL 1 DAY AS settled_at
        FROM {days} WHERE schema_name = '{SCHEMA}'
    ), ends AS (
        SELECT table_name, any_value(type) AS type,
               least(min(day), CASE WHEN any_value(type) = 'events' THEN {first} END) AS first_day,
               greatest(max(day), {last}) AS last_day
        FROM ledger GROUP BY table_name
    ), wanted AS (
        SELECT table_name, type,
               unnest(generate_series(first_day, last_day, INTERVAL 1 DAY))::DATE AS day
        FROM ends
    )
    SELECT table_name, day, CASE
            WHEN type = 'events' AND row_count > 0 AND (
                day < {horizon} OR rows_vanished = row_count OR status IN {NEVER_STORED}
            ) THEN 'only ours'
            WHEN status = 'not available' THEN status
            WHEN type = 'events' AND day < {horizon}
                AND coalesce(status, '') NOT IN ('complete', 'empty') THEN 'expired'
            WHEN status = 'expired' AND {horizon} IS NULL THEN status
            WHEN coalesce(status, 'expired') = 'expired' THEN 'never loaded'
            WHEN type = 'events' AND status IN ('complete', 'empty') AND fetched_at < settled_at
                AND day >= coalesce({horizon}, day) THEN 'stale'
            ELSE status
        END AS status, coalesce(row_count, 0) AS row_count, fetched_at
    FROM wanted LEFT JOIN ledger USING (table_name, type, day)
    ORDER BY table_name, day
    """


# Days that the plan does not reach or that Mixpanel has deleted cannot be loaded, so they are not
# missing.
MISSING_DAYS_VIEW = f"""
    CREATE OR REPLACE VIEW {SCHEMA}.missing_days AS
    WITH ledger AS (
        SELECT day, status, last_error, failed_at FROM {DAYS.quoted}
        WHERE schema_name = '{SCHEMA}' AND table_name = '{EVENTS.name}'
    ), zones AS (
        SELECT if(regime = 'legacy', zone, 'UTC') AS zone FROM {PROJECT.quoted}
    ), ends AS (
        SELECT min(day) FILTER (status IN ('complete', 'partial', 'empty', 'open')) AS first_stored,
               (now() AT TIME ZONE (SELECT any_value(zone) FROM zones))::DATE - 1 AS last_over
        FROM ledger
    ), days AS (
        SELECT unnest(generate_series(first_stored, last_over, INTERVAL 1 DAY))::DATE AS day
        FROM ends
        UNION
        SELECT day FROM ledger, ends WHERE status = 'failed' AND day <= last_over
    )
    SELECT day, coalesce(status, 'never loaded') AS why, last_error, failed_at
    FROM days LEFT JOIN ledger USING (day)
    WHERE why IN ('never loaded', 'failed', 'open', 'partial')
    ORDER BY day
"""

# Mixpanel has deleted a profile that was not read since the newest complete snapshot began.
CURRENT_PROFILES_VIEW = f"""
    CREATE OR REPLACE VIEW {SCHEMA}.profiles_current AS
    SELECT profiles.* FROM {PROFILES.quoted} AS profiles
    WHERE profiles.fetched_at >= coalesce((
        SELECT max(complete_at) FROM {DAYS.quoted}
        WHERE schema_name = '{SCHEMA}' AND table_name = '{PROFILES.name}'
    ), TIMESTAMP '-infinity')
    QUALIFY row_number() OVER (
        PARTITION BY distinct_id ORDER BY profiles.fetched_at DESC, profiles.snapshot_date DESC
    ) = 1
"""


def is_lake(connection: Connection) -> bool:
    """Return whether the current database is a DuckLake, whose SQL lacks some of a file's."""
    found = connection.execute(
        "SELECT type FROM duckdb_databases() WHERE database_name = current_database()"
    ).fetchone()
    return found == ("ducklake",)


def create(connection: Connection, table: Table) -> None:
    """Create a table with its comments, unless it exists."""
    in_lake = is_lake(connection)
    columns = ", ".join(
        f"{quoted(column.name)} {column.type} {'' if in_lake else column.storage}".rstrip()
        for column in table.columns
    )
    is_new = in_lake and not _is_there(connection, table)
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table.quoted} ({columns})")
    if is_new and (day := next((name for name in _DAYS if name in table.column_names), None)):
        # By identity: `day(...)` of DuckLake 1.0 is the day of the month.
        connection.execute(f"ALTER TABLE {table.quoted} SET PARTITIONED BY ({quoted(day)})")
    connection.execute(f"COMMENT ON TABLE {table.quoted} IS {literal(table.grain)}")
    for column in table.columns:
        target = f"{table.quoted}.{quoted(column.name)}"
        connection.execute(f"COMMENT ON COLUMN {target} IS {literal(column.description)}")


_DAYS = ("event_date", "snapshot_date")  # columns by which a lake divides its files


def create_empty(connection: Connection, schema: str, table: str, query: str) -> None:
    """Create a table with the columns of a query and without rows, unless it exists."""
    name = qualified(schema, table)
    if _is_there(connection, Table(table, "", (), schema)):
        return
    connection.execute(f"CREATE TABLE {name} AS {query} LIMIT 0")
    if is_lake(connection):
        described = {column for column, *_ in connection.execute(f"DESCRIBE {name}").fetchall()}
        if day := next((column for column in _DAYS if column in described), None):
            connection.execute(f"ALTER TABLE {name} SET PARTITIONED BY ({quoted(day)})")


def _is_there(connection: Connection, table: Table) -> bool:
    found = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() "
        "AND schema_name = ? AND table_name = ?",
        [table.schema, table.name],
    ).fetchall()
    return bool(found)


def create_all(connection: Connection) -> None:
    """Make the schema, its tables, views and macros."""
    connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(SCHEMA)}")
    for table in TABLES:
        create(connection, table)
    if not _is_metadata_taken(connection):
        connection.execute(METADATA_VIEW)
    connection.execute(MISSING_DAYS_VIEW)
    connection.execute(CURRENT_PROFILES_VIEW)
    _create_coverage(connection)
    create_macros(connection)


def _create_coverage(connection: Connection) -> None:
    """Create the view of coverage, unless a table has its name, which was free before version 4."""
    taken = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = current_database() "
        f"AND schema_name = '{SCHEMA}' AND lower(table_name) = '{COVERAGE.name}'"
    ).fetchall()
    if not taken:
        connection.execute(f"CREATE OR REPLACE VIEW {COVERAGE.quoted} AS {coverage_sql()}")


def _is_metadata_taken(connection: Connection) -> bool:
    """Return whether another table or view has the view's name; `mixpanel_data` creates one."""
    place = "database_name = current_database() AND schema_name = 'main'"
    found = connection.execute(
        f"SELECT sql FROM duckdb_views() WHERE {place} AND view_name = $view UNION ALL "
        f"SELECT NULL FROM duckdb_tables() WHERE {place} AND table_name = $view",
        {"view": METADATA},
    ).fetchall()
    return not all(is_metadata_view(sql) for (sql,) in found)


def is_metadata_view(sql: str | None) -> bool:
    """Return whether a definition is that of our view; None stands for a table."""
    return sql is not None and DAYS.name in sql
