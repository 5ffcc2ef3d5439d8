"""Whose data a file holds: the project row, the schema version and its migrations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import duckdb

from mixpanel_assets.errors import ConfigError, StorageError
from mixpanel_assets.warehouse import schema
from mixpanel_assets.warehouse.answers import first_row, number
from mixpanel_assets.warehouse.schema import Table, quoted

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
    _add_columns(connection, schema.DAYS, "rows_vanished", "vanished_at", "last_error", "failed_at")
    _add_columns(connection, schema.QUARANTINE, "line_bytes", "sha256")


def _add_columns(connection: duckdb.DuckDBPyConnection, table: Table, *names: str) -> None:
    types = {column.name: column.type for column in table.columns}
    for name in names:
        connection.execute(f"ALTER TABLE {table.quoted} ADD COLUMN {quoted(name)} {types[name]}")


# Entry n brings a file of version n + 1 to n + 2; `create_all` runs after the last one. Add at the
# end, never change one.
MIGRATIONS: tuple[Migration, ...] = (_to_version_2,)


def schema_version() -> int:
    """Return the version of the tables that this code writes."""
    return len(MIGRATIONS) + 1


def prepare(connection: duckdb.DuckDBPyConnection, project: ProjectIdentity) -> None:
    """Make the tables when absent, bring older ones up to date, and guard the project.

    Runs in the caller's transaction; when it raises, nothing has changed.

    Raises:
        ConfigError: The file holds another project, or the same read in another time regime.
        StorageError: The file was written by a newer version of this package.
    """
    stored = stored_project(connection)
    if stored is None:
        _check_zone(connection, project)
        schema.create_all(connection)
        _write_project(connection, project)
        return
    version = stored_version(connection)
    _refuse_newer(version)
    must_match(stored, project)
    # What makes a file a snapshot; a database that was restored from one is none.
    connection.execute(f"DROP TABLE IF EXISTS {schema.STAMP}")
    _migrate(connection, version)


def stored_project(connection: duckdb.DuckDBPyConnection) -> ProjectIdentity | None:
    """Return the project whose data the file holds, None when it holds none yet."""
    if not _has_project_table(connection):
        return None
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


def stored_version(connection: duckdb.DuckDBPyConnection) -> int:
    """Return the schema version of a file that holds a project."""
    return number(connection, f"SELECT schema_version FROM {schema.PROJECT.quoted}")


def must_match(stored: ProjectIdentity, asked: ProjectIdentity) -> None:
    """Compare the file's project with the one asked for.

    Raises:
        ConfigError: They differ; the message names both.
    """
    if _means(stored) == _means(asked):
        return
    if (stored.project_id, stored.region) != (asked.project_id, asked.region):
        raise ConfigError(
            f"This database holds project {stored.project_id} ({stored.region}), but project "
            f"{asked.project_id} ({asked.region}) was asked for. Set MP_DATABASE to another file, "
            "or MP_PROJECT_ID and MP_REGION to the stored project.",
            {"stored": vars(stored), "asked": vars(asked)},
        )
    raise ConfigError(
        f"This database was loaded with time regime {stored.regime} and zone {stored.zone}, but "
        f"{asked.regime} and {asked.zone} were asked for. Set MP_TIME_REGIME and MP_TIME_ZONE to "
        "the stored ones, or load into a new file with MP_DATABASE.",
        {"stored": vars(stored), "asked": vars(asked)},
    )


def _means(project: ProjectIdentity) -> tuple[str, ...]:
    # The zone converts nothing in the utc regime, so there it may be set freely.
    zone = project.zone if project.regime == "legacy" else ""
    return project.project_id, project.region, project.regime, zone


def _check_zone(connection: duckdb.DuckDBPyConnection, project: ProjectIdentity) -> None:
    try:
        number(connection, "SELECT TIMESTAMP '2026-01-01' AT TIME ZONE ? IS NULL", [project.zone])
    except duckdb.Error as error:
        raise ConfigError(
            f"There is no time zone {project.zone!r}. Set MP_TIME_ZONE to an IANA name such as "
            "Europe/Paris.",
            {"zone": project.zone},
        ) from error


def _has_project_table(connection: duckdb.DuckDBPyConnection) -> bool:
    found = number(
        connection,
        "SELECT count(*) FROM duckdb_tables() WHERE database_name = current_database() "
        "AND schema_name = ? AND table_name = ?",
        [schema.SCHEMA, schema.PROJECT.name],
    )
    return bool(found)


def _write_project(connection: duckdb.DuckDBPyConnection, project: ProjectIdentity) -> None:
    connection.execute(
        f"INSERT INTO {schema.PROJECT.quoted} BY NAME SELECT ? AS project_id, ? AS region, "
        "? AS regime, ? AS zone, ? AS schema_version, now() AT TIME ZONE 'UTC' AS created_at",
        [project.project_id, project.region, project.regime, project.zone, schema_version()],
    )


def _refuse_newer(version: int) -> None:
    if version > schema_version():
        raise StorageError(
            f"This database has schema version {version}, made by a newer mixpanel-assets; this "
            f"one knows versions up to {schema_version()}. Upgrade mixpanel-assets.",
            {"stored": version, "known": schema_version()},
        )


def _migrate(connection: duckdb.DuckDBPyConnection, version: int) -> None:
    if version == schema_version():
        return
    for migration in MIGRATIONS[version - 1 :]:
        migration(connection)
    schema.create_all(connection)
    connection.execute(f"UPDATE {schema.PROJECT.quoted} SET schema_version = ?", [schema_version()])
