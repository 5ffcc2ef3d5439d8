"""DuckDB's memory: its limits for large rows, and folders for rows that do not fit.

Each connection has a spill folder of its own beside the file, so that two processes never delete
each other's.
"""

from __future__ import annotations

import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import StorageError
from mixpanel_assets.rules.locks import MARK, PRIVATE_FOLDER, hold, is_alive
from mixpanel_assets.warehouse.faults import first_row

ROWS_AT_ONCE = 2048  # DuckDB reads, copies and compresses that many, whatever their size
_SPREAD_BYTES = 2 << 20
_OVERHEAD = 1.12  # what DuckDB needs, as a multiple of the rows (measured)
_ABOVE_LIMIT = 120e6  # bytes that it may briefly use above its limit
LARGE_BYTES = 32 << 20  # of rows that it handles at once
_SHARE = 7 / 8  # of its limit that remains, because reading such rows takes more than it counts

_MEMORY_SIZE = re.compile(r"([\d.]+)\s*([kmgt]?)(i?)(?:b|bytes?)", re.IGNORECASE)
_SIZE_PREFIXES = "kmgt"


@contextmanager
def at_most(connection: Connection, limit: str) -> Iterator[None]:
    """Let DuckDB use no more than `limit` inside the block, and never more than before.

    What does not fit goes to its temporary directory.
    """
    before = _memory_limit(connection)
    if before <= in_bytes(limit):
        yield
        return
    with suppress(duckdb.OutOfMemoryException):  # more is in use already
        connection.execute("SET memory_limit = ?", [limit])
    try:
        yield
    finally:
        _set_memory_limit(connection, before)


@contextmanager
def restore_settings(connection: Connection) -> Iterator[None]:
    """Restore DuckDB's memory limit and threads after the block."""
    before = _memory_settings(connection)
    try:
        yield
    finally:
        with suppress(duckdb.Error):  # the connection cannot be used any more
            if _memory_settings(connection) != before:
                limit, threads = before
                _set_memory_limit(connection, in_bytes(limit))
                connection.execute(f"SET threads = {threads}")


class Spread:
    """Spreads large rows over a table in memory while it is filled.

    DuckDB reads `ROWS_AT_ONCE` rows of a table. Rows of NULL after each few megabytes, deleted in
    the end, leave gaps, so that it reads fewer large rows at once. `column` is NULL in no real row.
    """

    def __init__(self, connection: Connection, table: str, column: str) -> None:
        self._connection = connection
        self._table = table
        self._column = column
        self._bytes = 0
        self._has_gaps = False

    def add(self, size: int) -> None:
        """Count the bytes of rows that were added."""
        self._bytes += size
        if self._bytes < _SPREAD_BYTES:
            return
        self._connection.execute(
            f"INSERT INTO {self._table} ({self._column}) SELECT NULL FROM range({ROWS_AT_ONCE})"
        )
        self._bytes = 0
        self._has_gaps = True

    def finish(self) -> None:
        """Delete the rows of NULL, after the last row was added."""
        if self._has_gaps:
            self._connection.execute(f"DELETE FROM {self._table} WHERE {self._column} IS NULL")


def make_room(connection: Connection, largest: int) -> None:
    """Set DuckDB's memory and threads for rows of which the largest 2,048 have `largest` bytes.

    For large rows, it gets one thread, and a limit with room for what it uses beside that; a
    slightly higher one if they would not fit. `restore_settings` restores both. If they do not
    fit at all, a `StorageError` names a sufficient limit.
    """
    if largest < LARGE_BYTES:
        return
    limit, needed = _memory_limit(connection), largest * _OVERHEAD
    if needed > limit + _ABOVE_LIMIT:
        raise StorageError(
            f"DuckDB handles {ROWS_AT_ONCE:,} rows at once, and those of this day hold up to "
            f"{largest / 1e6:,.0f} MB. Set MP_MEMORY_LIMIT to {needed / 1e6:.0f}MB or more. "
            "Nothing was changed.",
            {"needed_bytes": int(needed)},
        )
    connection.execute("SET threads = 1")
    with suppress(duckdb.OutOfMemoryException):  # more is in use already
        connection.execute("SET memory_limit = ?", [f"{int(max(needed, limit * _SHARE))}B"])


def _memory_settings(connection: Connection) -> tuple[str, int]:
    settings = first_row(
        connection, "SELECT current_setting('memory_limit'), current_setting('threads')"
    )
    return settings or ("", 0)


def _set_memory_limit(connection: Connection, size: float) -> None:
    """Set a limit that DuckDB printed, rounded down to a digit: add what that may have lost."""
    connection.execute("SET memory_limit = ?", [f"{int(size) + 1024}B"])


def _memory_limit(connection: Connection) -> float:
    setting = first_row(connection, "SELECT current_setting('memory_limit')")
    return in_bytes(setting[0]) if setting else 0


def in_bytes(size: str) -> float:
    """Return a size such as `953.6 MiB` in bytes. Raises `ValueError` if it is not a size."""
    # Not `pydantic.ByteSize`: it does not know "bytes", which DuckDB prints for small limits.
    memory_size = _MEMORY_SIZE.fullmatch(size.strip())
    if memory_size is None:
        raise ValueError(f"{size!r} is not a size")
    number, prefix, binary = memory_size.groups()
    power = _SIZE_PREFIXES.index(prefix.lower()) + 1 if prefix else 0
    base = 1024.0 if binary else 1000.0
    return float(number) * float(base**power)


_SPILL_NAME = r"(\d+)-[0-9a-f]{32}"
_SPILLED_FILE = re.compile(rf"duckdb_temp_[\w.-]+|{re.escape(MARK)}")


@contextmanager
def spill_folder(database: Path) -> Iterator[Path]:
    """Create a folder for the spilled rows of one connection.

    If it cannot be created, its path is yielded all the same: most queries do not spill.
    """
    lock = None
    while lock is None:  # another process may sweep the folder before it is locked
        place, prefix, suffix = _spill_place(database)
        folder = place / f"{prefix}{os.getpid()}-{uuid.uuid4().hex}{suffix}"
        try:
            folder.mkdir(PRIVATE_FOLDER)
            lock = hold(folder / MARK)
        except OSError:
            break
    try:
        yield folder
    finally:
        _remove_spilled(folder)
        if lock:
            lock.release(force=True)


def sweep_spill_folders(database: Path) -> None:
    """Delete the folders of processes that have ended."""
    place, prefix, suffix = _spill_place(database)
    spill_name = re.compile(f"{re.escape(prefix)}{_SPILL_NAME}{re.escape(suffix)}")
    with suppress(OSError):
        for folder in place.iterdir():
            if (spilled := spill_name.fullmatch(folder.name)) and _is_spill_folder(folder):
                _remove_unused_spill(folder, int(spilled[1]))


def _spill_place(database: Path) -> tuple[Path, str, str]:
    """Return where folders are created, and what their names begin and end with."""
    spilled = database.with_name(f"{database.name}.tmp")
    return (spilled, "", "") if spilled.is_dir() else (database.parent, f"{database.name}.", ".tmp")


def _is_spill_folder(folder: Path) -> bool:
    try:
        return stat.S_ISDIR(folder.lstat().st_mode) and all(map(_is_spilled, folder.iterdir()))
    except OSError:
        return False


def _is_spilled(file: Path) -> bool:
    return bool(_SPILLED_FILE.fullmatch(file.name)) and stat.S_ISREG(file.lstat().st_mode)


def _remove_unused_spill(folder: Path, pid: int) -> None:
    mark = folder / MARK
    if not mark.exists():  # of an earlier version, or on a file system without locks
        if not is_alive(pid):
            _remove_spilled(folder)
        return
    with suppress(OSError):
        if lock := hold(mark):
            _remove_spilled(folder)
            lock.release(force=True)


def _remove_spilled(folder: Path) -> None:
    with suppress(OSError):
        for file in filter(_is_spilled, folder.iterdir()):
            file.unlink()
        folder.rmdir()
