"""The rows of a load in memory, where they are checked before they count.

They sit in a database of their own, attached beside the file, on a connection of its own:
DuckDB 1.5 copies rows of the same transaction with one thread, committed ones with all.
What does not fit into DuckDB's memory goes to its temporary directory.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.warehouse.answers import number
from mixpanel_assets.warehouse.database import closed_for_good, set_up_session
from mixpanel_assets.warehouse.leftovers import Leftovers
from mixpanel_assets.warehouse.memory import make_room
from mixpanel_assets.warehouse.quarantine import Refusals
from mixpanel_assets.warehouse.schema import EVENTS, Column, quoted
from mixpanel_assets.warehouse.spool import SHORT_BYTES, Window, is_empty, rows

_IS_MADE = Column("is_made", "BOOLEAN", "Whether the id was made here; else NULL.")


@dataclass(frozen=True)
class Staging:
    """A filled staging table.

    Attributes:
        table: Its qualified name.
        connection: The connection that may change the table; the load's own may only read it.
        quarantined: Lines that are no rows of it because they cannot be stored.
    """

    table: str
    connection: duckdb.DuckDBPyConnection
    quarantined: Refusals


@contextmanager
def staged(
    connection: duckdb.DuckDBPyConnection, spool: Path, window: Window, lines: int
) -> Iterator[Staging]:
    """Fill a staging table from the spool for the length of the block.

    Every one of the `lines` is then a row or in quarantine.

    Raises:
        IncompleteExportError: The file is not the export of these days, or not whole.
    """
    with staging_table(connection, (*EVENTS.columns, _IS_MADE)) as (staging, table, refusals):
        try:
            found = _fill(staging, table, spool, window, lines, refusals)
        except FileNotFoundError as error:
            raise _incomplete(window, f"is gone: {spool} was deleted", "file is gone") from error
        if found != lines:
            raise _incomplete(
                window,
                f"was received with {lines} lines, but {spool.name} holds {found}",
                "line count differs",
            )
        yield Staging(table, staging, refusals)


@contextmanager
def staging_table(
    connection: duckdb.DuckDBPyConnection, columns: Sequence[Column]
) -> Iterator[tuple[duckdb.DuckDBPyConnection, str, Refusals]]:
    """Make an empty table for the length of the block.

    Yields:
        Who may change it, its name, and where lines go that are no rows of it.
    """
    # A database of its own each time: the load's transaction would go on seeing the first
    # staging table of several.
    database = f"mixpanel_assets_staging_{uuid.uuid4().hex}"
    table = f"{database}.main.staged"
    typed = ", ".join(f"{quoted(column.name)} {column.type}" for column in columns)
    with closed_for_good(connection.cursor()) as staging:
        set_up_session(staging)
        staging.execute(f"ATTACH ':memory:' AS {database}")
        staging.execute(f"CREATE TABLE {table} ({typed})")
        refusals = Refusals(staging, f"{database}.main.refused")
        yield staging, table, refusals
        for used in (table, refusals.table):
            staging.execute(f"DROP TABLE {used}")


def _fill(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    spool: Path,
    window: Window,
    lines: int,
    refusals: Refusals,
) -> int:
    """Turn the lines into rows or refusals; return how many there were."""
    if is_empty(spool):
        return 0
    inserted, most = _insert(connection, table, spool, window)
    if inserted >= lines:
        return inserted
    left = Leftovers(connection, spool, window, into=table, refusals=refusals)
    left.sort(most)
    refusals.finish()
    make_room(connection, sum(left.largest))
    return inserted + left.rescued + len(refusals)


def _insert(
    connection: duckdb.DuckDBPyConnection, table: str, spool: Path, window: Window
) -> tuple[int, int | None]:
    """Let DuckDB insert the lines that it can.

    Returns:
        How many they were, and how long at most; None if DuckDB has looked at none, as one is so
        long that it refuses them all, or its memory does not do.
    """
    for most in (SHORT_BYTES, SHORT_BYTES // 8):
        try:
            inserted = number(
                connection,
                f"INSERT INTO {table} BY NAME "
                f"SELECT * EXCLUDE (json, stored) FROM ({rows(spool, window, most)}) WHERE stored",
            )
        except duckdb.OutOfMemoryException:
            connection.execute("SET threads = 1")
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            if str(spool) not in str(error):
                raise
            if "maximum_object_size" in str(error):
                break
            said = f"cannot be read from {spool.name}"
            raise _incomplete(window, said, "unreadable file") from error
        else:
            return inserted, most
    return 0, None


def _incomplete(window: Window, said: str, reason: str) -> IncompleteExportError:
    return IncompleteExportError(
        f"The export {window.from_date}..{window.to_date} {said}. Nothing was changed; fetch "
        "these days again.",
        from_date=window.from_date,
        to_date=window.to_date,
        reason=reason,
    )
