"""Errors of DuckDB and the operating system in plain words, and functions for short results.

`storage_errors` handles faults of the file, the disk and the machine. A wrong SQL statement of this
package is a programming error and passes unchanged. `user_sql` is for the caller's statements.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import DatabaseLockedError, QueryError, StorageError
from mixpanel_assets.warehouse.schema import spelling_for

Values = Sequence[Any] | Mapping[str, Any]


def first_row(connection: Connection, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
    """Return the first row of the result, None when it is empty."""
    rows: list[tuple[Any, ...]] = connection.execute(sql, values).fetchall()
    return rows[0] if rows else None


def number(connection: Connection, sql: str, values: Values = ()) -> int:
    """Return a count, or the number of rows that a statement changed."""
    row = first_row(connection, sql, values)
    return int(row[0]) if row else 0


_LOCK_CONFLICT = re.compile(r"Conflicting lock is held.*?(?:\(PID (\d+)\)|PID (\d+))", re.DOTALL)
_INTERRUPTED = "Query interrupted"
_DATABASE_OPEN_HERE = "Unique file handle conflict"
_NOT_DATABASE_FILE = re.compile(r"No files found that match|disabled (by|through) configuration")
_QUERY_ADVICE = (
    (
        re.compile(r"attached in read-only mode"),
        "Queries change nothing here: `mp drop` and `Workspace.drop` drop tables, "
        "`StorageEngine.execute` changes them.",
    ),
    (
        re.compile(r"disabled (by|through) configuration"),
        "In `mp`, a query can read only the database. Save the result with `--format csv`, "
        "or use the duckdb command or package.",
    ),
)

_NO_PERMISSION = r"Permission denied|Read-only file system|Operation not permitted"
_DISK = re.compile(
    rf"No space left|File too large|disk quota|IO Error|while replaying WAL|{_NO_PERMISSION}",
    re.IGNORECASE,
)
_DISK_FULL = {errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG}
_OF_STORAGE = (
    duckdb.IOException,
    duckdb.OutOfMemoryException,
    duckdb.PermissionException,
    duckdb.SerializationException,
    duckdb.FatalException,
)
_STORAGE_ADVICE: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"No space left|File too large|disk quota|max_temp_directory_size", re.IGNORECASE
        ),
        "The disk is full: {path} could not be written. Nothing of this load was kept; make room "
        "and run it again.",
    ),
    (
        re.compile(_NO_PERMISSION, re.IGNORECASE),
        "There is no permission to use {path}. Give this user access to the file and its folder, "
        "or set MP_DATABASE to another place.",
    ),
    (
        re.compile(r"not a valid DuckDB database", re.IGNORECASE),
        "{path} is not a DuckDB database. Move it away, or set MP_DATABASE to another place.",
    ),
    (
        re.compile(r"Corrupt database file|Could not read enough bytes|while replaying WAL"),
        "{path} is damaged, or is an incomplete copy: {said} Move it and its .wal file away. "
        "Then copy a backup or its snapshot to its place, or load everything again.",
    ),
    (
        re.compile(r"newer (DuckDB )?version|version number", re.IGNORECASE),
        "{path} was written by a newer DuckDB than this one. Upgrade the duckdb package.",
    ),
    (
        re.compile(r"Out of Memory|could not allocate|failed to (pin|allocate)", re.IGNORECASE),
        "The memory allowed to DuckDB was not enough for {path}. Raise MP_MEMORY_LIMIT. If "
        "several days were loaded at once, MP_DAYS_PER_REQUEST=1 takes less.",
    ),
)


def holding_pid(error: Exception) -> int | None:
    """Return the process that holds the file, 0 if it is not named, None for another error."""
    if lock_conflict := _LOCK_CONFLICT.search(str(error)):
        return int(lock_conflict.group(1) or lock_conflict.group(2))
    return 0 if "Could not set lock" in str(error) else None


@contextmanager
def storage_errors(path: Path | str) -> Iterator[None]:
    """Raise errors of this package for faults of the file, the disk or memory inside the block.

    Raises:
        StorageError: The database at `path` cannot be written or read.
        DatabaseLockedError: This process has it open elsewhere, so waiting does not help.
        KeyboardInterrupt: Ctrl-C ended a statement; DuckDB raises a RuntimeError for it.
    """
    try:
        yield
    except duckdb.Error as error:
        if _DATABASE_OPEN_HERE in str(error):
            said = (
                f"This process already has {path} open through a connection of its own, perhaps a "
                "notebook's. Close that connection and try again."
            )
            raise DatabaseLockedError(str(path), os.getpid(), said) from error
        if not _is_of_storage(error):
            raise
        raise _storage_error(error, path) from error
    except RuntimeError as error:
        # Since DuckDB 2, the error does not name its cause.
        if isinstance(error.__cause__, KeyboardInterrupt) or str(error) == _INTERRUPTED:
            raise KeyboardInterrupt from error
        raise
    except (PermissionError, sqlite3.OperationalError) as error:
        raise _storage_error(error, path) from error
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        raise _storage_error(error, path) from error


@contextmanager
def user_sql() -> Iterator[None]:
    """Raise `QueryError`, in DuckDB's words, for a statement inside the block that it refuses.

    Faults of the file, the disk and the machine pass, as does an interruption.
    """
    try:
        yield
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        if _is_of_storage(error) and not _NOT_DATABASE_FILE.search(str(error)):
            raise
        said = str(error).strip()
        advice = next((way for pattern, way in _QUERY_ADVICE if pattern.search(said)), "")
        advice = advice or spelling_for(said)
        raise QueryError.of_sql(said, advice) from error


def user_rows(connection: Connection, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
    """Return the rows of a query that names the caller's tables, columns or properties."""
    with user_sql():
        return connection.execute(sql, values).fetchall()


def must_be_writable(path: Path) -> None:
    """Raise `StorageError` without permission to write the database, or its log in its folder."""
    for place in (path, path.parent):
        if place.exists() and not os.access(place, os.W_OK):
            raise _storage_error(PermissionError(f"Permission denied: {place}"), path)


def _is_of_storage(error: duckdb.Error) -> bool:
    return isinstance(error, _OF_STORAGE) or bool(_DISK.search(str(error)))


def _storage_error(error: Exception, path: Path | str) -> StorageError:
    said = _duckdb_message(error)
    details = {"db_path": str(path), "said": said}
    for pattern, advice in _STORAGE_ADVICE:
        if pattern.search(str(error)):
            return StorageError(advice.format(path=path, said=said), details)
    return StorageError(
        f"The database {path} could not be used: {said} Check the disk and the file, then run "
        "this again; nothing of the interrupted load was kept.",
        details,
    )


def _duckdb_message(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    return line if line.endswith((".", "!")) else f"{line}."
