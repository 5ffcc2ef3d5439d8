"""The identity of a file: its project, schema version and migrations, and the stamp of a copy.

Here a file is checked for tables that were changed by hand or belong to another program.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import duckdb
from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import ConfigError, StorageError
from mixpanel_assets.rules.zones import day_zone, is_zone
from mixpanel_assets.warehouse import schema
from mixpanel_assets.warehouse.faults import first_row, number
from mixpanel_assets.warehouse.schema import (
    BY_NAME,
    DAYS,
    METADATA,
    PROJECT,
    SCHEMA,
    STAMP,
    TABLES,
    VIEWS,
    Table,
    is_metadata_view,
    literal,
    quoted,
)

logger = logging.getLogger(__name__)


_SHOWN = 3
# Columns by which our ledger is recognized: another program's `_days` will not have all of them.
_MARKS = {"schema_name", "table_name", "day", "status", "duplicates_removed", "shifted_rows"}

# The types of columns by name, and these of tables by name.
Columns = dict[str, str]
Tables = dict[str, Columns]

_OUR_TABLES = " UNION ALL ".join(
    f"SELECT {literal(table.name)}, name, type FROM pragma_table_info({literal(table.quoted)})"
    for table in TABLES
)
_NAMES = (
    "SELECT table_name FROM duckdb_tables() "
    f"WHERE database_name = current_database() AND schema_name = {literal(SCHEMA)}"
)
_ALL_TABLES = (
    "SELECT table_name, column_name, data_type FROM duckdb_columns() "
    f"WHERE database_name = current_database() AND schema_name = {literal(SCHEMA)}"
)


def tables_of(connection: Connection) -> Tables:
    """Return the columns of our tables in a file; if one is missing, of all in our schema."""
    # Reading all columns takes 7 ms more on a new connection, too long for a small load. A table
    # that is missing must not be named: since DuckDB 2, an error ends the transaction.
    is_complete = {table.name for table in TABLES} <= set(_names_of(connection))
    columns = connection.execute(_OUR_TABLES if is_complete else _ALL_TABLES).fetchall()
    tables: Tables = {}
    for table, column, column_type in columns:
        tables.setdefault(table, {})[column] = column_type
    return tables


def columns_of(connection: Connection, table: Table) -> Columns:
    """Return the columns that a table of ours has in a file, with their types."""
    if table.name not in _names_of(connection):
        return {}
    return dict(
        connection.execute(
            f"SELECT name, type FROM pragma_table_info({literal(table.quoted)})"
        ).fetchall()
    )


def _names_of(connection: Connection) -> list[str]:
    """Return the names of the tables in our schema."""
    return [name for (name,) in connection.execute(_NAMES).fetchall()]


def is_ours(tables: Tables) -> bool:
    """Return whether a file has our tables; refuse those of another program with their names."""
    if has_marks(tables):
        return True
    if taken_tables := sorted({*BY_NAME, *VIEWS} & tables.keys()):
        names = ", ".join(f"{SCHEMA}.{name}" for name in taken_tables)
        raise StorageError(
            "This database has tables under names that mixpanel-assets uses, but it did not make "
            f"them: {names}. Set MP_DATABASE to another file, or rename them: "
            f"`ALTER TABLE {SCHEMA}.{quoted(taken_tables[0])} RENAME TO ...`",
            {"tables": taken_tables},
        )
    return False


def has_marks(tables: Tables) -> bool:
    """Return whether a file has our project table or our ledger; others may be missing."""
    return PROJECT.name in tables or tables.get(DAYS.name, {}).keys() >= _MARKS


def must_be_unchanged(tables: Tables, version: int) -> None:
    """Raise `StorageError` if our tables differ from those of a schema version."""
    if changes := changes_by_hand(tables, version):
        more = f" ({len(changes) - _SHOWN} more)" if len(changes) > _SHOWN else ""
        raise StorageError(
            "Tables of mixpanel-assets were changed by hand, and a load would lose or garble rows: "
            f"{'; '.join(changes[:_SHOWN])}{more}. Undo that. Or move the database and its .wal "
            "file away, and copy a backup or the snapshot to its place.",
            {"changes": changes},
        )


def changes_by_hand(tables: Tables, version: int) -> list[str]:
    """Return, in words, how our tables differ from those of a schema version."""
    return [
        change
        for table in TABLES
        if table.since <= version
        for change in _table_changes(table, tables.get(table.name), version)
    ]


def _table_changes(table: Table, stored: Columns | None, version: int) -> Iterator[str]:
    name = f"{table.schema}.{table.name}"
    if stored is None:
        yield f"{name} is missing, or was renamed"
        return
    ours = {column.name: column.type for column in table.columns if column.since <= version}
    added = {column: kind for column, kind in stored.items() if column not in ours}
    for column, kind in ours.items():
        if column in stored:
            if stored[column] != kind:
                sql = f"ALTER TABLE {name} ALTER {quoted(column)} TYPE {kind}"
                yield f"{name}.{column} is {stored[column]}, not {kind} (`{sql}`)"
            continue
        alike = [other for other in added if added[other] == kind]
        if len(alike) == 1:
            sql = f"ALTER TABLE {name} RENAME COLUMN {quoted(alike[0])} TO {quoted(column)}"
            yield f"{name} has {alike[0]} instead of {column} (`{sql}`)"
            added.pop(alike[0])
        else:
            yield f"{name} has no column {column} ({kind})"
    for column in added:
        sql = f"ALTER TABLE {name} DROP COLUMN {quoted(column)}"
        yield f"{name} has one more column, {column} (`{sql}`, once its values are elsewhere)"


def rules_by_hand(connection: Connection, error: duckdb.ConstraintException) -> list[str]:
    """Return the indexes and constraints that may have refused rows; this package has none."""
    kind = next(kind for kind in ("NOT NULL", "CHECK", "FOREIGN KEY", "") if kind in str(error))
    kinds = [kind] if kind else ["PRIMARY KEY", "UNIQUE"]
    rules = connection.execute(
        "SELECT format('{} on {}.{}', constraint_text, schema_name, table_name) "
        "FROM duckdb_constraints() WHERE database_name = current_database() "
        "AND constraint_type IN (SELECT unnest($kinds)) UNION ALL "
        "SELECT format('unique index {1} on {0}.{2} (`DROP INDEX {0}.{1}`)', schema_name, "
        "index_name, table_name) FROM duckdb_indexes() "
        "WHERE database_name = current_database() AND is_unique AND 'UNIQUE' IN "
        "(SELECT unnest($kinds)) ORDER BY ALL",
        {"kinds": kinds},
    ).fetchall()
    return list(dict.fromkeys(text for (text,) in rules))


def hidden_by_others(connection: Connection) -> list[str]:
    """Return, in sentences, which other tables hide ours in queries."""
    main_tables = connection.execute(
        "SELECT table_name, NULL AS sql FROM duckdb_tables() "
        "WHERE database_name = current_database() AND schema_name = 'main' UNION "
        "SELECT view_name, sql FROM duckdb_views() "
        "WHERE database_name = current_database() AND schema_name = 'main' ORDER BY ALL"
    ).fetchall()
    sentences = [
        f"main.{name} hides {SCHEMA}.{name} in queries that name no schema: "
        f"write {SCHEMA}.{name}, or rename the other table."
        for name, _ in main_tables
        if name.lower() in {*BY_NAME, *VIEWS} - {METADATA}
    ]
    if any(name == METADATA and not is_metadata_view(sql) for name, sql in main_tables):
        sentences.append(
            f"main.{METADATA} was there before, so the view of that name is not made: "
            f"{DAYS.schema}.{DAYS.name} says what is stored."
        )
    return sentences


Regime = Literal["utc", "legacy"]


@dataclass(frozen=True)
class ProjectIdentity:
    """A Mixpanel project and how its times are read.

    Attributes:
        project_id: Mixpanel's project id.
        region: us, eu or in.
        regime: `utc`, or `legacy` when `time` is the project's local time, counted as
            if it were UTC.
        zone: The project's IANA time zone; converts `event_time` only in `legacy`.
    """

    project_id: str
    region: str
    regime: Regime = "utc"
    zone: str = "UTC"

    @property
    def day_zone(self) -> str:
        """The zone of its export days."""
        return day_zone(self.regime, self.zone)


Migration = Callable[[Connection], None]


def _add_columns(connection: Connection, version: int) -> None:
    for table in schema.TABLES:
        for column in table.columns:
            if table.since < column.since == version:
                connection.execute(
                    f"ALTER TABLE {table.quoted} ADD COLUMN {quoted(column.name)} {column.type}"
                )


# Entry n migrates a file of version n + 1 to n + 2; `create_all` runs after the last one. Append
# new ones, never change one. In the schema, `since` marks the columns and tables that one adds.
MIGRATIONS: tuple[Migration, ...] = (
    partial(_add_columns, version=2),
    partial(_add_columns, version=3),
    partial(_add_columns, version=4),
)


MOVING = 0  # the schema version of a database into which another one is being copied


def schema_version() -> int:
    """Return the version of the tables that this code writes."""
    return len(MIGRATIONS) + 1


def prepare(connection: Connection, project: ProjectIdentity | None) -> None:
    """Create or migrate the tables in the caller's transaction, after `check_loadable`.

    A file without a project gets this one; None leaves it without.
    """
    version, stored = check_loadable(connection, project)
    if project and not stored:
        _check_zone(connection, project)
    if version is None:
        hidden = hidden_by_others(connection)  # before there are more tables to search
        schema.create_all(connection)
        for sentence in hidden:
            logger.warning("%s", sentence)
    else:
        # The stamp marks a copy; a database that was restored from a copy is none.
        connection.execute(f"DROP TABLE IF EXISTS {schema.STAMP}")
        _migrate(connection, version)
    if project and not stored:
        _write_project(connection, project)
    elif project and stored and project.zone not in (stored.zone, ProjectIdentity.zone):
        # Readers without settings use the stored zone. UTC mostly means that none is set.
        _check_zone(connection, project)
        connection.execute(f"UPDATE {schema.PROJECT.quoted} SET zone = ?", [project.zone])


def check_loadable(
    connection: Connection, project: ProjectIdentity | None
) -> tuple[int | None, ProjectIdentity | None]:
    """Check that a load can be stored; return the tables' version, and the project if one is given.

    Raises:
        ConfigError: The file holds another project, or the same read in another time regime.
        StorageError: Its schema version is newer or unknown; or its tables were changed by hand, or
            are another program's.
    """
    tables = tables_of(connection)
    if not is_ours(tables):
        return None, None
    version = check_version(connection, tables)
    # Only a file with a project table has a version; the query would take 5 ms.
    stored = read_project(connection) if project and version else None
    if project and stored:
        must_match(connection, stored, project)
    version = version or schema_version()
    must_be_unchanged(tables, version)
    return version, stored


def check_version(connection: Connection, tables: Tables) -> int | None:
    """Return the schema version of a file with these tables; None without a project table.

    Raises:
        StorageError: It is newer, or not one that this package writes.
    """
    if not _is_project_table(tables.get(schema.PROJECT.name, {})):
        return None
    project_rows = connection.execute(
        f"SELECT project_id, region, schema_version FROM {schema.PROJECT.quoted}"
    ).fetchall()
    if not project_rows and not _stores_assets(connection, tables):
        return _version_by_columns(tables)
    if [version for *_, version in project_rows] == [MOVING]:
        raise StorageError(
            "This database is the target of a copy that has not ended. Run `mp migrate` again with "
            "the same source; it continues where it stopped.",
            {"stored": MOVING, "known": schema_version()},
        )
    if len(project_rows) != 1 or not _is_project_row(*project_rows[0]):
        rows = "; ".join(
            "project {}, region {}, schema version {}".format(*row) for row in project_rows[:3]
        )
        raise StorageError(
            f"{schema.PROJECT.schema}.{schema.PROJECT.name} was changed by hand: it has "
            f"{len(project_rows)} rows ({rows or 'no project'}). "
            "Move the database and its .wal file away, and copy a backup or the snapshot to its "
            "place.",
            {"stored": project_rows, "known": schema_version()},
        )
    version: int = project_rows[0][2]
    if version > schema_version():
        raise StorageError(
            f"This database has schema version {version}, made by a newer mixpanel-assets; this "
            f"one knows versions up to {schema_version()}. Upgrade mixpanel-assets.",
            {"stored": version, "known": schema_version()},
        )
    return version


def _is_project_row(project_id: object, region: object, version: object) -> bool:
    is_named = isinstance(project_id, str) and isinstance(region, str)
    return is_named and type(version) is int and version >= 1


def _stores_assets(connection: Connection, tables: Tables) -> bool:
    """Return whether days of an asset are stored, which needs a project."""
    if schema.DAYS.name not in tables:
        return False
    asset = f"schema_name = {schema.literal(schema.SCHEMA)}"
    return number(connection, f"SELECT count(*) FROM {schema.DAYS.quoted} WHERE {asset}") > 0


def _version_by_columns(tables: Tables) -> int:
    """Return the version of tables that were created without a project."""
    versions = range(schema_version(), 0, -1)
    fitting = (version for version in versions if not changes_by_hand(tables, version))
    return next(fitting, schema_version())


def stored_project(connection: Connection) -> ProjectIdentity | None:
    """Return the project of the file; None before it has one."""
    return read_project(connection) if _has_project_table(connection) else None


def read_project(connection: Connection) -> ProjectIdentity | None:
    """Return what `stored_project` does, for a file with a project table."""
    row = first_row(
        connection, f"SELECT project_id, region, regime, zone FROM {schema.PROJECT.quoted}"
    )
    return ProjectIdentity(*row) if row else None


def made_at(connection: Connection) -> datetime | None:
    """Return when the tables of a project were created, naive UTC; None without a project."""
    if not _has_project_table(connection):
        return None
    row = first_row(connection, f"SELECT created_at FROM {schema.PROJECT.quoted}")
    return row[0] if row else None


def must_match(connection: Connection, stored: ProjectIdentity, expected: ProjectIdentity) -> None:
    """Raise `ConfigError` if the file's project, or how its times are read, is not as expected."""
    must_be_of(connection, stored, expected.project_id, expected.region)
    if _stored_times(stored) != _stored_times(expected):
        raise ConfigError(
            f"This database was loaded with time regime {stored.regime} and zone {stored.zone}, "
            f"but the settings say {expected.regime} and {expected.zone}. Set MP_TIME_REGIME and "
            "MP_TIME_ZONE to the stored ones, or load into a new file with MP_DATABASE.",
            {"stored": vars(stored), "asked": vars(expected)},
        )


def must_be_of(
    connection: Connection, stored: ProjectIdentity, project_id: str, region: str
) -> None:
    """Raise `ConfigError` if the file's project is not the expected one; '' stands for any."""
    expected = project_id or stored.project_id, region or stored.region
    if _stored_id_and_region(*expected) != _stored_id_and_region(stored.project_id, stored.region):
        raise ConfigError(
            f"This database holds project {stored.project_id} ({stored.region}), but project "
            f"{expected[0]} ({expected[1]}) was expected. {_way_out(connection)}",
            {"stored": vars(stored), "asked": {"project_id": expected[0], "region": expected[1]}},
        )


def _way_out(connection: Connection) -> str:
    """Return what to do with a file of another project; an empty one may be deleted."""
    # A first load with a mistyped project id leaves a file with failed days and no rows.
    others = "Set MP_DATABASE to another file, or MP_PROJECT_ID and MP_REGION to the stored project"
    notes = ", ".join(map(literal, (schema.PROJECT.name, schema.DAYS.name, "_snapshot")))
    stored_tables = (
        "SELECT count(*) FROM duckdb_tables() WHERE database_name = current_database() "
        f"AND estimated_size > 0 AND NOT (schema_name = {literal(SCHEMA)} "
        f"AND table_name IN ({notes}))"
    )
    stored_days = f"SELECT count(*) FROM {schema.DAYS.quoted} WHERE status <> 'failed'"
    if number(connection, stored_tables) or number(connection, stored_days):
        return f"{others}."
    return f"No row is stored in it yet: delete the file and its snapshot to use it. {others}."


def _stored_id_and_region(project_id: str, region: str) -> tuple[str, str]:
    return project_id.strip().lstrip("0"), region.strip().lower()


def _stored_times(project: ProjectIdentity) -> tuple[str, str]:
    # The zone converts nothing in the utc regime, so there it may be set freely.
    return project.regime, project.zone if project.regime == "legacy" else ""


def _check_zone(connection: Connection, project: ProjectIdentity) -> None:
    if is_zone(project.zone):
        try:
            # DuckDB, which the view of missing days uses, knows other names than Python.
            connection.execute("SELECT TIMESTAMP '2026-01-01' AT TIME ZONE ?", [project.zone])
            return
        except duckdb.Error:
            pass
    raise ConfigError(
        f"There is no time zone {project.zone!r}. Set MP_TIME_ZONE to an IANA name such as "
        "Europe/Paris.",
        {"zone": project.zone},
    )


def _has_project_table(connection: Connection) -> bool:
    return _is_project_table(columns_of(connection, schema.PROJECT))


def _is_project_table(columns: Columns) -> bool:
    return columns.keys() >= set(schema.PROJECT.column_names)


def _write_project(connection: Connection, project: ProjectIdentity) -> None:
    connection.execute(
        f"INSERT INTO {schema.PROJECT.quoted} BY NAME SELECT ? AS project_id, ? AS region, "
        "? AS regime, ? AS zone, ? AS schema_version, now() AT TIME ZONE 'UTC' AS created_at",
        [project.project_id, project.region, project.regime, project.zone, schema_version()],
    )


def _migrate(connection: Connection, version: int) -> None:
    if version == schema_version():
        return
    for migration in MIGRATIONS[version - 1 :]:
        migration(connection)
    schema.create_all(connection)
    connection.execute(f"UPDATE {schema.PROJECT.quoted} SET schema_version = ?", [schema_version()])


@dataclass(frozen=True)
class Origin:
    """Which database a file is, or is a copy of: its project, and when it was created."""

    project: ProjectIdentity | None
    made_at: datetime | None

    @classmethod
    def of(cls, connection: Connection) -> Origin:
        """Return the origin of the file of a connection."""
        return cls(stored_project(connection), made_at(connection))

    def may_be(self, now: Origin) -> bool:
        """Return whether this database may have become that one.

        A database without a project may have got its project since.
        """
        return self.project is None or self == now

    def __str__(self) -> str:
        if self.project is None:
            return "a database without a project"
        return f"a database of project {self.project.project_id} ({self.project.region})"


@dataclass(frozen=True)
class Stamp:
    """The description of a copy, stored in the copy.

    Attributes:
        taken_at: When it was taken; aware, UTC.
        version: The version of the database then.
        origin: Which database that is.
    """

    taken_at: datetime
    version: str
    origin: Origin

    @classmethod
    def read(cls, connection: Connection) -> Stamp | None:
        """Return the stamp of the file of a connection; None when it has none."""
        try:
            row = first_row(connection, f"SELECT taken_at, version FROM {STAMP}")
        except (duckdb.CatalogException, duckdb.BinderException):
            return None
        if row is None or not isinstance(row[0], datetime):
            return None
        return cls(row[0].replace(tzinfo=UTC), str(row[1]), Origin.of(connection))

    def is_of_now(self, database: Path) -> bool:
        """Return whether the database has not changed since."""
        return self.version == version_of(database)

    def is_of_file(self, database: Path) -> bool:
        """Return whether the file is the one that was copied, changed since or not."""
        return self.version.partition(" ")[0] == version_of(database).partition(" ")[0]

    @property
    def age(self) -> float:
        """Seconds since it was taken."""
        return max(0.0, (datetime.now(UTC) - self.taken_at).total_seconds())


def copy_path(database: Path) -> Path:
    """Return the path of the copy of a database: `x.duckdb` has `x.snapshot.duckdb`."""
    return database.with_name(f"{database.stem}.snapshot{database.suffix}")


def is_copy_path(path: Path) -> bool:
    """Return whether a file is named as `copy_path` names a copy."""
    return path.stem.endswith(".snapshot")


def read_stamp(path: Path) -> Stamp | None:
    """Return the stamp of a file; None without one, if it is a link or cannot be read."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        return _stamp_of(path, version_of(path))
    except (_UnstampedError, duckdb.Error):
        return None


class _UnstampedError(Exception):
    """The file has no stamp. As an exception, because a cache keeps what is returned."""


# A copy is replaced, never changed, and each load reads its stamp several times; opening the file
# takes 15 ms.
@lru_cache(maxsize=64)
def _stamp_of(path: Path, version: str) -> Stamp:
    with closing(duckdb.connect()) as connection:
        connection.execute(f"ATTACH {literal(str(path))} AS copy (READ_ONLY, TYPE duckdb)")
        connection.execute("USE copy")
        if stamp := Stamp.read(connection):
            return stamp
    raise _UnstampedError(version)


def log_path(database: Path) -> Path:
    """Return the path of DuckDB's log of commits that are not yet in the file."""
    return database.with_name(f"{database.name}.wal")


def version_of(database: Path) -> str:
    """Return a version string that changes with every commit, without opening the file.

    Opening and closing it here would drop the lock that DuckDB holds on it for this process.
    """
    file_versions = []
    for path in (database, log_path(database)):
        try:
            file_stat = path.stat()
        except OSError:
            continue
        file_versions.append(f"{file_stat.st_ino} {file_stat.st_size} {file_stat.st_mtime_ns}")
    return ", ".join(file_versions)
