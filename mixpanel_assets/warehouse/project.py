"""Whose data a file holds: the project row, the schema version and its migrations."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import duckdb

from mixpanel_assets.errors import ConfigError, StorageError
from mixpanel_assets.rules.zones import is_zone
from mixpanel_assets.warehouse import schema
from mixpanel_assets.warehouse.answers import first_row, number
from mixpanel_assets.warehouse.schema import quoted
from mixpanel_assets.warehouse.shape import (
    Columns,
    Tables,
    changes_by_hand,
    columns_of,
    hidden_by_others,
    is_ours,
    must_be_unchanged,
    tables_of,
)

logger = logging.getLogger(__name__)

Regime = Literal["utc", "legacy"]


@dataclass(frozen=True)
class ProjectIdentity:
    """A Mixpanel project and how its times are read.

    Attributes:
        project_id: Mixpanel's project id.
        region: us, eu or in.
        regime: `utc`, or `legacy` when `time` is the project's wall clock dressed as an epoch.
        zone: The project's IANA time zone; converts `event_time` only in `legacy`.
    """

    project_id: str
    region: str
    regime: Regime = "utc"
    zone: str = "UTC"


Migration = Callable[[duckdb.DuckDBPyConnection], None]


def _to_version_2(connection: duckdb.DuckDBPyConnection) -> None:
    _add_columns(connection, 2)


def _add_columns(connection: duckdb.DuckDBPyConnection, version: int) -> None:
    for table in schema.TABLES:
        for column in table.columns:
            if table.since < column.since == version:
                connection.execute(
                    f"ALTER TABLE {table.quoted} ADD COLUMN {quoted(column.name)} {column.type}"
                )


# Entry n brings a file of version n + 1 to n + 2; `create_all` runs after the last one. Add at the
# end, never change one. A column or table that it adds says so in the schema (`since`).
MIGRATIONS: tuple[Migration, ...] = (_to_version_2,)


def schema_version() -> int:
    """Return the version of the tables that this code writes."""
    return len(MIGRATIONS) + 1


def prepare(connection: duckdb.DuckDBPyConnection, project: ProjectIdentity | None) -> None:
    """Make the tables when absent, bring older ones up to date, and guard the project.

    Runs in the caller's transaction; when it raises, nothing has changed.

    Args:
        connection: Inside a transaction.
        project: Whose data it is to hold; None: whatever it holds.

    Raises:
        ConfigError: The file holds another project, or the same read in another time regime.
        StorageError: See `check_loadable`.
    """
    version, stored = _loadable(connection, project)
    if project and not stored:
        _check_zone(connection, project)
    if version is None:
        hidden = hidden_by_others(connection)  # before there is more to look through
        schema.create_all(connection)
        for sentence in hidden:
            logger.warning("%s", sentence)
    else:
        # What makes a file a snapshot; a database that was restored from one is none.
        connection.execute(f"DROP TABLE IF EXISTS {schema.STAMP}")
        _migrate(connection, version)
    if project and not stored:
        _write_project(connection, project)
    elif project and stored and project.zone not in (stored.zone, ProjectIdentity.zone):
        # Readers without settings count stored days by it. UTC is what is not set, mostly.
        _check_zone(connection, project)
        connection.execute(f"UPDATE {schema.PROJECT.quoted} SET zone = ?", [project.zone])


def check_loadable(
    connection: duckdb.DuckDBPyConnection, project: ProjectIdentity | None
) -> int | None:
    """See that a load could be stored; return the version of the tables, None without any.

    Raises:
        ConfigError: The file holds another project, or the same read in another time regime.
        StorageError: Its schema version is newer, or none; or its tables were changed by hand, or
            are another program's.
    """
    return _loadable(connection, project)[0]


def _loadable(
    connection: duckdb.DuckDBPyConnection, project: ProjectIdentity | None
) -> tuple[int | None, ProjectIdentity | None]:
    """Return the version as `check_loadable` does, and whose data the file holds if one asks."""
    there = tables_of(connection)
    if not is_ours(there):
        return None, None
    version = check_version(connection, there)
    # A version is known of files with a project table alone; looking for it takes 5 ms.
    stored = read_project(connection) if project and version else None
    if project and stored:
        must_match(stored, project)
    version = version or schema_version()
    must_be_unchanged(there, version)
    return version, stored


def check_version(connection: duckdb.DuckDBPyConnection, there: Tables) -> int | None:
    """Return the schema version of a file with these tables; None when it holds no project.

    Raises:
        StorageError: It is newer, or none that any version of this package writes.
    """
    if not _is_project_table(there.get(schema.PROJECT.name, {})):
        return None
    found = connection.execute(
        f"SELECT project_id, region, schema_version FROM {schema.PROJECT.quoted}"
    ).fetchall()
    if not found and not _holds_assets(connection, there):
        return _version_by_columns(there)
    if len(found) != 1 or not _is_whole(*found[0]):
        rows = "; ".join(
            "project {}, region {}, schema version {}".format(*row) for row in found[:3]
        )
        raise StorageError(
            f"{schema.PROJECT.schema}.{schema.PROJECT.name} was changed by hand: it has "
            f"{len(found)} rows ({rows or 'no project'}). "
            "Move the database and its .wal file away, and copy a backup or the snapshot to its "
            "place.",
            {"stored": found, "known": schema_version()},
        )
    version: int = found[0][2]
    if version > schema_version():
        raise StorageError(
            f"This database has schema version {version}, made by a newer mixpanel-assets; this "
            f"one knows versions up to {schema_version()}. Upgrade mixpanel-assets.",
            {"stored": version, "known": schema_version()},
        )
    return version


def _is_whole(project_id: object, region: object, version: object) -> bool:
    is_named = isinstance(project_id, str) and isinstance(region, str)
    return is_named and type(version) is int and version >= 1


def _holds_assets(connection: duckdb.DuckDBPyConnection, there: Tables) -> bool:
    """Return whether days of an asset are stored, which needs a project."""
    if schema.DAYS.name not in there:
        return False
    asset = f"schema_name = {schema.literal(schema.SCHEMA)}"
    return number(connection, f"SELECT count(*) FROM {schema.DAYS.quoted} WHERE {asset}") > 0


def _version_by_columns(there: Tables) -> int:
    """Return the version of tables that were made without a project."""
    known = range(schema_version(), 0, -1)
    fitting = (version for version in known if not changes_by_hand(there, version))
    return next(fitting, schema_version())


def stored_project(connection: duckdb.DuckDBPyConnection) -> ProjectIdentity | None:
    """Return the project whose data the file holds, None when it holds none yet."""
    return read_project(connection) if _has_project_table(connection) else None


def read_project(connection: duckdb.DuckDBPyConnection) -> ProjectIdentity | None:
    """Return what `stored_project` does, of a file that is known to have a project table."""
    row = first_row(
        connection, f"SELECT project_id, region, regime, zone FROM {schema.PROJECT.quoted}"
    )
    return ProjectIdentity(*row) if row else None


def made_at(connection: duckdb.DuckDBPyConnection) -> datetime | None:
    """Return when the tables of a project were made, naive UTC; None while there is none."""
    if not _has_project_table(connection):
        return None
    row = first_row(connection, f"SELECT created_at FROM {schema.PROJECT.quoted}")
    return row[0] if row else None


def must_match(stored: ProjectIdentity, asked: ProjectIdentity) -> None:
    """Compare the file's project with the one asked for, and how its times are read.

    Raises:
        ConfigError: They differ; the message names both.
    """
    must_be_of(stored, asked.project_id, asked.region)
    if _times_of(stored) != _times_of(asked):
        raise ConfigError(
            f"This database was loaded with time regime {stored.regime} and zone {stored.zone}, "
            f"but {asked.regime} and {asked.zone} were asked for. Set MP_TIME_REGIME and "
            "MP_TIME_ZONE to the stored ones, or load into a new file with MP_DATABASE.",
            {"stored": vars(stored), "asked": vars(asked)},
        )


def must_be_of(stored: ProjectIdentity, project_id: str, region: str) -> None:
    """Compare the file's project with the one asked for; an empty text stands for any.

    Raises:
        ConfigError: They differ; the message names both.
    """
    asked = project_id or stored.project_id, region or stored.region
    if _number_and_region(*asked) != _number_and_region(stored.project_id, stored.region):
        raise ConfigError(
            f"This database holds project {stored.project_id} ({stored.region}), but project "
            f"{asked[0]} ({asked[1]}) was asked for. Set MP_DATABASE to another file, "
            "or MP_PROJECT_ID and MP_REGION to the stored project.",
            {"stored": vars(stored), "asked": {"project_id": asked[0], "region": asked[1]}},
        )


def _number_and_region(project_id: str, region: str) -> tuple[str, str]:
    return project_id.strip().lstrip("0"), region.strip().lower()


def _times_of(project: ProjectIdentity) -> tuple[str, str]:
    # The zone converts nothing in the utc regime, so there it may be set freely.
    return project.regime, project.zone if project.regime == "legacy" else ""


def _check_zone(connection: duckdb.DuckDBPyConnection, project: ProjectIdentity) -> None:
    if is_zone(project.zone):
        try:
            # The view of missing days asks DuckDB, which knows other names than Python.
            connection.execute("SELECT TIMESTAMP '2026-01-01' AT TIME ZONE ?", [project.zone])
            return
        except duckdb.Error:
            pass
    raise ConfigError(
        f"There is no time zone {project.zone!r}. Set MP_TIME_ZONE to an IANA name such as "
        "Europe/Paris.",
        {"zone": project.zone},
    )


def _has_project_table(connection: duckdb.DuckDBPyConnection) -> bool:
    return _is_project_table(columns_of(connection, schema.PROJECT))


def _is_project_table(columns: Columns) -> bool:
    return columns.keys() >= set(schema.PROJECT.column_names)


def _write_project(connection: duckdb.DuckDBPyConnection, project: ProjectIdentity) -> None:
    connection.execute(
        f"INSERT INTO {schema.PROJECT.quoted} BY NAME SELECT ? AS project_id, ? AS region, "
        "? AS regime, ? AS zone, ? AS schema_version, now() AT TIME ZONE 'UTC' AS created_at",
        [project.project_id, project.region, project.regime, project.zone, schema_version()],
    )


def _migrate(connection: duckdb.DuckDBPyConnection, version: int) -> None:
    if version == schema_version():
        return
    for migration in MIGRATIONS[version - 1 :]:
        migration(connection)
    schema.create_all(connection)
    connection.execute(f"UPDATE {schema.PROJECT.quoted} SET schema_version = ?", [schema_version()])
