"""The rows of a load before they are stored: duplicates removed, ids made, clocks checked.

They are staged in a database in memory with a connection of its own; what does not fit into
DuckDB's memory goes to its temporary folder.
"""
# Why another database: DuckDB 1.5 copies rows of the same transaction with one thread, committed
# rows with all threads.

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
from duckdb import DuckDBPyConnection as Connection
from duckdb.func import FunctionNullHandling

from mixpanel_assets.rules.json_text import parse
from mixpanel_assets.rules.lines import SHORT_LINE_BYTES, ReceivedDays
from mixpanel_assets.rules.made_ids import made_id, twin_id
from mixpanel_assets.warehouse.database import closing_connection, set_up_session, undo
from mixpanel_assets.warehouse.faults import number
from mixpanel_assets.warehouse.lines import OddLines, ShiftedRowsError, Window, rows
from mixpanel_assets.warehouse.memory import make_room
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.quarantine import Refusals
from mixpanel_assets.warehouse.schema import EVENTS, Column, quoted

# First the cheap columns find the few rows that share a key; only those are read completely.
_FIND_DUPLICATES = """
    CREATE TEMP TABLE _duplicates AS
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


def remove_duplicates(connection: Connection, table: str) -> dict[date, int]:
    """Keep one copy of each event in a table; return the number of removed rows by day.

    Duplicates share event, time as sent, `$insert_id` and `$distinct_id_before_identity` (or
    `distinct_id`; NULL equals NULL). The copy that Mixpanel processed last is kept; its content
    breaks ties, so the order of arrival never matters. Rows whose `insert_id` is still NULL are
    never duplicates.
    """
    connection.execute(_FIND_DUPLICATES.format(table=table))
    removed = connection.execute("SELECT event_date, count(*) FROM _duplicates GROUP BY ALL")
    by_day = dict(removed.fetchall())
    if by_day:
        connection.execute(f"DELETE FROM {table} WHERE rowid IN (SELECT row FROM _duplicates)")
    connection.execute("DROP TABLE _duplicates")
    return by_day


_MADE, _TWIN = "mixpanel_assets_made_id", "mixpanel_assets_twin_id"

_FIRST_IDS = f"""
    CREATE TEMP TABLE _made AS
    SELECT rowid AS row, event_date,
           {_MADE}(event_name, time_raw, distinct_id, properties::VARCHAR) AS id
    FROM {{table}} WHERE insert_id IS NULL
"""

# Equal events are numbered in the order of their content, so the order of arrival never matters.
_NUMBER_EQUALS = f"""
    UPDATE _made SET id = {_TWIN}(id, numbered.number)
    FROM (
        SELECT _made.row, row_number() OVER (
            PARTITION BY _made.event_date, _made.id
            ORDER BY events.processed_at NULLS LAST, md5(events.properties), events.distinct_id
        ) - 1 AS number
        FROM _made SEMI JOIN (
            SELECT event_date, id FROM _made GROUP BY ALL HAVING count(*) > 1
        ) USING (event_date, id)
        JOIN {{table}} AS events ON events.rowid = _made.row
    ) AS numbered
    WHERE numbered.row = _made.row AND numbered.number > 0
"""


def fill_insert_ids(connection: Connection, table: str) -> None:
    """Make an id for each row of a table without one.

    Only these rows pass through Python, in the batches in which DuckDB reads them.
    """
    if not number(connection, f"SELECT count(*) FROM {table} WHERE insert_id IS NULL"):
        return
    with _id_functions(connection):
        connection.execute(_FIRST_IDS.format(table=table))
        connection.execute(_NUMBER_EQUALS.format(table=table))
        connection.execute(
            f"UPDATE {table} AS rows SET insert_id = id, is_made = true FROM _made "
            "WHERE rows.rowid = _made.row"
        )
        connection.execute("DROP TABLE _made")


@contextmanager
def _id_functions(connection: Connection) -> Iterator[None]:
    types: list[Any] = ["VARCHAR", "BIGINT", "VARCHAR", "VARCHAR"]
    connection.create_function(
        _MADE, _made_id_of_row, types, "VARCHAR", null_handling=FunctionNullHandling.SPECIAL
    )
    connection.create_function(_TWIN, twin_id, ["VARCHAR", "BIGINT"], "VARCHAR")
    try:
        yield
    finally:
        connection.remove_function(_MADE)
        connection.remove_function(_TWIN)


def _made_id_of_row(event: str, time_ms: int, distinct_id: str | None, properties: str) -> str:
    return made_id(event, time_ms, distinct_id, parse(properties))


_ROWS_A_DAY = 500  # size of the sample, of which most must agree
_FEWEST_ROWS = 20  # fewer events may agree by chance
_MOST_BYTES = 1 << 16  # of properties; DuckDB takes 30 times the memory to read a value of them

_MEASURE = """
    WITH sample AS (
        SELECT event_date, time_raw,
               CASE WHEN strlen(properties) <= {most} THEN properties END AS properties
        FROM {table} WHERE rowid % ? = 0
    ), live AS (
        SELECT event_date,
               time_raw - try_cast(properties ->> '$."$mp_api_timestamp_ms"' AS BIGINT) AS ahead
        FROM sample WHERE (properties ->> '$."$import"') IS DISTINCT FROM 'true'
    ), middle AS (
        SELECT event_date, round(median(ahead) / 900000)::BIGINT * 15 AS minutes
        FROM live GROUP BY ALL
    )
    SELECT event_date, minutes FROM live JOIN middle USING (event_date)
    WHERE ahead IS NOT NULL GROUP BY ALL
    HAVING count(*) >= ? AND count_if(abs(ahead - minutes * 60000) <= 120000) > count(*) / 2
"""


def measure_offsets(
    connection: Connection, table: str, row_count: int, window: Window
) -> dict[date, int]:
    """Return the minutes by which `time` runs ahead of UTC, for days whose events agree on it.

    A sample of the `row_count` staged rows is read.
    """
    step = max(1, row_count // (_ROWS_A_DAY * len(window.days)))
    measure = _MEASURE.format(table=table, most=_MOST_BYTES)
    return dict(connection.execute(measure, [step, _FEWEST_ROWS]).fetchall())


def refuse_zone_change(window: Window, offsets: Mapping[date, int]) -> None:
    """Raise `ShiftedRowsError` if a legacy project's zone changed between the requested days."""
    # Rows around the change may have the date of another requested day. Only a response for one
    # day shows to which day they belong.
    if window.project.regime != "legacy":
        return
    zone = ZoneInfo(window.project.zone)
    shifts = {day: _clock_shift(day, minutes, zone) for day, minutes in offsets.items()}
    if len(set(shifts.values())) > 1:
        days = ", ".join(f"{day} ({minutes:+} min)" for day, minutes in sorted(shifts.items())[:5])
        said = (
            "cannot be stored: the project's zone changed on the way; `time` differs from "
            f"{window.project.zone} by: {days}. Nothing was changed."
        )
        raise window.incomplete(said, "zone change", ShiftedRowsError)


def contradiction(project: ProjectIdentity, day: date, minutes: int | None) -> str | None:
    """Return what the settings should be if a day's events contradict them, else None."""
    if minutes is None:
        return None
    if not _clock_shift(day, minutes, ZoneInfo(project.day_zone)):
        return None
    if project.regime == "utc":
        return (
            f"`time` of {day} runs {minutes:+} minutes ahead of UTC, so this project seems to be "
            "one from before 2023: set MP_TIME_REGIME=legacy and MP_TIME_ZONE to its zone."
        )
    if minutes == 0:
        return (
            f"`time` of {day} is true UTC, not the wall clock of {project.zone}: set "
            "MP_TIME_REGIME=utc, or MP_TIME_ZONE to the project's zone."
        )
    return (
        f"`time` of {day} runs {minutes:+} minutes ahead of UTC, which is not {project.zone}: set "
        "MP_TIME_ZONE to the project's zone, unless it was another one on that day."
    )


def _clock_shift(day: date, minutes: int, zone: ZoneInfo) -> int:
    """Return the minutes between a measured offset and the zone's nearest one on that day."""
    ends = (datetime.combine(day, time(), zone), datetime.combine(day, time(23, 59), zone))
    offsets = [(end.utcoffset() or timedelta()) // timedelta(minutes=1) for end in ends]
    return min((minutes - offset for offset in offsets), key=abs)


_FETCH_AGAIN = "Nothing was changed; fetch these days again."
_STAGED = (
    *EVENTS.columns,
    Column("is_made", "BOOLEAN", "Whether the id was made here; else NULL."),
    Column("is_odd", "BOOLEAN", "Whether the line is not a row as it is; such rows are removed."),
    Column("odd_line", "VARCHAR", "An odd line as received; NULL if DuckDB did not read it."),
)


@dataclass(frozen=True)
class Staging:
    """A filled staging table.

    Attributes:
        table: Its qualified name.
        connection: The connection that may change the table; the load's own may only read it.
        quarantined: Lines that cannot be stored.
    """

    table: str
    connection: Connection
    quarantined: Refusals


@contextmanager
def stage_events(
    connection: Connection, received: ReceivedDays, window: Window
) -> Iterator[Staging]:
    """Fill a staging table for the length of the block; each line is then a row or quarantined."""
    with staging_table(connection, _STAGED) as (staging, table, refusals):
        try:
            staged_lines = _fill_staging(staging, table, received, window, refusals)
        except FileNotFoundError as error:
            said = f"is gone: {received.path} was deleted. {_FETCH_AGAIN}"
            raise window.incomplete(said, "file is gone") from error
        if staged_lines != received.lines:
            said = (
                f"was received with {received.lines} lines, but {received.path.name} holds "
                f"{staged_lines}. {_FETCH_AGAIN}"
            )
            raise window.incomplete(said, "line count differs")
        yield Staging(table, staging, refusals)


@contextmanager
def staging_table(
    connection: Connection, columns: Sequence[Column]
) -> Iterator[tuple[Connection, str, Refusals]]:
    """Create an empty table for the length of the block.

    Yields the connection that may change it, its name, and the place for lines that are not rows.
    """
    # A new database each time: the load's transaction would only see the first staging table.
    database = f"mixpanel_assets_staging_{uuid.uuid4().hex}"
    table = f"{database}.main.staged"
    typed = ", ".join(f"{quoted(column.name)} {column.type}" for column in columns)
    with closing_connection(connection.cursor()) as staging:
        set_up_session(staging)
        staging.execute(f"ATTACH ':memory:' AS {database}")
        try:
            staging.execute(f"CREATE TABLE {table} ({typed})")
            refusals = Refusals(staging, f"{database}.main.refused")
            yield staging, table, refusals
        finally:
            undo(staging)
            with suppress(duckdb.Error):  # after some faults, DuckDB refuses every statement
                staging.execute(f"DETACH {database}")


def _fill_staging(
    connection: Connection, table: str, received: ReceivedDays, window: Window, refusals: Refusals
) -> int:
    """Turn the lines into rows or refusals; return how many there were."""
    most = None
    if not received.path.stat().st_size:  # DuckDB refuses a gzip file of zero bytes
        return 0
    inserted = 0
    if received.names_once:  # of a name that an object holds twice, DuckDB reads the first value
        inserted, most = _insert_staged_rows(connection, table, received, window)
    if inserted < received.lines:
        left = OddLines(connection, received, window, into=table, refusals=refusals)
        left.sort(most)
        make_room(connection, sum(left.largest))
        inserted += left.rescued + len(refusals)
    connection.execute(f"DELETE FROM {table} WHERE is_odd")  # also blank lines, if they have a BOM
    return inserted


def _insert_staged_rows(
    connection: Connection, table: str, received: ReceivedDays, window: Window
) -> tuple[int, int | None]:
    """Let DuckDB insert the lines, each as a row or an odd row.

    Returns:
        The number of rows that are not odd, and how long the lines were at most; None if DuckDB has
        read no line, as one is so long that it refuses them all, or its memory does not do.
    """
    spool = received.path
    lengths = received.unusual.number_lengths if received.unusual else None
    for most in (SHORT_LINE_BYTES, SHORT_LINE_BYTES // 8):
        try:
            lines = rows(spool, window, most, lengths)
            connection.execute(f"INSERT INTO {table} BY NAME {lines}")
        except duckdb.OutOfMemoryException:
            connection.execute("SET threads = 1")
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            if str(spool) not in str(error):
                raise
            if "maximum_object_size" in str(error):
                break
            said = f"cannot be read from {spool.name}. {_FETCH_AGAIN}"
            raise window.incomplete(said, "unreadable file") from error
        else:
            return number(connection, f"SELECT count(*) FROM {table} WHERE NOT is_odd"), most
    return 0, None
