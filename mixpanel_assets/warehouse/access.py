"""Whether a database may be read from, or loaded into, for a project."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import duckdb

from mixpanel_assets.errors import DatabaseLockedError, DatabaseNotFoundError
from mixpanel_assets.warehouse.database import Database
from mixpanel_assets.warehouse.project import (
    ProjectIdentity,
    check_loadable,
    check_version,
    must_be_of,
    read_project,
    schema_version,
)
from mixpanel_assets.warehouse.shape import has_marks, must_be_unchanged, tables_of

_BRIEFLY_SECONDS = 0.5  # most writes are over by then
_SAID: set[Path] = set()

logger = logging.getLogger(__name__)


def check_readable(
    connection: duckdb.DuckDBPyConnection, path: Path, asked: ProjectIdentity | None = None
) -> None:
    """See that a file may be read from; of an older version, say once what it lacks.

    How the file's times are read is written in it, so the settings have no say in that.

    Args:
        connection: Reads the file.
        path: The file.
        asked: Whose data are asked for, as far as it is known: an empty text stands for any.

    Raises:
        ConfigError: The file holds another project.
        StorageError: Its schema version is newer, or none; or what says so was changed by hand.
    """
    version = _checked_version(connection, asked)
    if version is None:
        return
    if version < schema_version() and path not in _SAID:
        _SAID.add(path)
        logger.warning(
            "%s was written by an earlier mixpanel-assets (schema version %s, now %s). It is read "
            "as it is; columns and views that were added since are made by the next load.",
            path,
            version,
            schema_version(),
        )


def check_before_load(database: Database, project: ProjectIdentity) -> None:
    """See that a load could be stored, before it spends a request.

    A database that another process holds is not waited for: the load looks again when it stores.

    Raises:
        ConfigError: The file holds another project, or the same read in another time regime.
        StorageError: The path cannot be a database's, the file is none or cannot be used, its
            tables were changed by hand, or the database is gone and something of it is left.
    """
    database.make_place()
    with suppress(DatabaseLockedError, DatabaseNotFoundError), _soon(database) as connection:
        check_loadable(connection, project)


def check_whose(database: Database, asked: ProjectIdentity | None) -> None:
    """See that a database is not another project's, before anything is made or deleted beside it.

    Raises:
        ConfigError: The file holds another project.
        DatabaseLockedError: Another process holds it for more than a moment.
        StorageError: It cannot be read.
    """
    with suppress(DatabaseNotFoundError), _soon(database) as connection:
        _checked_version(connection, asked)


def _checked_version(
    connection: duckdb.DuckDBPyConnection, asked: ProjectIdentity | None
) -> int | None:
    there = tables_of(connection)
    version = check_version(connection, there)
    if version is None:
        if has_marks(there):
            must_be_unchanged(there, schema_version())
        return None
    if asked and (stored := read_project(connection)):
        must_be_of(stored, asked.project_id, asked.region)
    return version


@contextmanager
def _soon(database: Database) -> Iterator[duckdb.DuckDBPyConnection]:
    """Read a database that is free, or is so in a moment."""
    hurried = copy.copy(database)
    hurried.lock_timeout = min(_BRIEFLY_SECONDS, database.lock_timeout or _BRIEFLY_SECONDS)
    with hurried.read() as connection:
        yield connection
