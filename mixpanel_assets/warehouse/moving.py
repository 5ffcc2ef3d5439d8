"""Copies a database into an empty one: a file into a lake, or back. The source is kept.

Until the copy is complete, the target's schema version is `MOVING`, so that nothing else uses it.
A copy that was killed continues: days that are equal already are not copied again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import ConfigError, StorageError
from mixpanel_assets.rules.location import LakeLocation
from mixpanel_assets.warehouse import lake_lock
from mixpanel_assets.warehouse.database import CATALOG, Database
from mixpanel_assets.warehouse.faults import number
from mixpanel_assets.warehouse.project import (
    MOVING,
    check_version,
    must_be_of,
    prepare,
    read_project,
    schema_version,
    tables_of,
)
from mixpanel_assets.warehouse.schema import (
    BY_NAME,
    PROJECT,
    SCHEMA,
    create_empty,
    is_lake,
    literal,
    qualified,
    quoted,
)
from mixpanel_assets.warehouse.slices import exact_in_lake

_SOURCE = "mixpanel_assets_source"
_ROWS_AT_ONCE = 500_000  # in one transaction
_DAY_COLUMNS = ("event_date", "snapshot_date")
_OURS_TO_MAKE = {PROJECT.name, "_snapshot"}

Day = Any  # of a table without days, None


@dataclass(frozen=True)
class MovedTable:
    """A table whose copy is equal to it: each day has the same row count and hash.

    Attributes:
        days: The number of days; 0 for a table without days.
    """

    schema: str
    table: str
    days: int
    rows: int


def move(
    source: Database, target: Database, on_table: Callable[[MovedTable], object] | None = None
) -> list[MovedTable]:
    """Copy every table of a database into an empty one, and compare both.

    Args:
        source: It is not changed, and nothing else writes to it meanwhile.
        target: An empty database, or one into which this copy was begun.
        on_table: Called after each table.

    Raises:
        ConfigError: The target is not empty, or another project's copy was begun in it.
        DatabaseNotFoundError: There is no source.
        StorageError: A copy differs, a type of a table has no place in a lake, or one of them
            cannot be used.
    """
    if _are_one(source, target):
        raise ConfigError(f"{source.place} cannot be copied to itself.")
    moved = []
    with target.staging() as memory, source.attached_to(memory, _SOURCE):
        copy = _Copy(memory, target)
        copy.begin()
        for schema, table in copy.tables():
            moved.append(copy.table(schema, table))
            if on_table:
                on_table(moved[-1])
        copy.end()
    return moved


def _are_one(source: Database, target: Database) -> bool:
    """Return whether both are the same database; a copy would wait for its own lock."""
    one, other = source.location, target.location
    if one == other or not (isinstance(one, LakeLocation) and isinstance(other, LakeLocation)):
        return one == other
    with source.errors(), target.errors():
        return lake_lock.are_one(one, other)


class _Copy:
    """One copy: `memory` reads the source, and writes are transactions of the target."""

    def __init__(self, memory: Connection, target: Database) -> None:
        self._memory = memory
        self._target = target

    def begin(self) -> None:
        """Make the tables in the target, or check that they are those of this copy."""
        self._memory.execute(f"USE {_SOURCE}")
        if check_version(self._memory, tables_of(self._memory)) is None:
            raise ConfigError("The source has no project yet, so there is nothing to copy.")
        project = read_project(self._memory)
        assert project
        with self._target.write(self._memory) as connection:
            if _is_begun(connection):
                stored = read_project(connection)
                assert stored
                must_be_of(connection, stored, project.project_id, project.region)
                return
            taken = connection.execute(
                "SELECT schema_name || '.' || table_name FROM duckdb_tables() "
                f"WHERE database_name = {literal(CATALOG)} ORDER BY ALL LIMIT 3"
            ).fetchall()
            if taken:
                raise ConfigError(
                    f"{self._target.place} is not empty: it has {', '.join(t for (t,) in taken)}. "
                    "Name an empty database."
                )
            prepare(connection, project)
            connection.execute(f"UPDATE {PROJECT.quoted} SET schema_version = {MOVING}")

    def tables(self) -> list[tuple[str, str]]:
        """Return schema and name of each table of the source, those of the ledger last."""
        found = self._memory.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ? "
            "AND NOT internal ORDER BY starts_with(table_name, '_'), 1, 2",
            [_SOURCE],
        ).fetchall()
        return [
            (schema, table)
            for schema, table in found
            if not (schema == SCHEMA and table in _OURS_TO_MAKE)
        ]

    def table(self, schema: str, table: str) -> MovedTable:
        """Copy the days of a table that differ, and check that none does then."""
        source = f"{_SOURCE}.{qualified(schema, table)}"
        day = self._day_column(source)
        columns = self._columns(schema, table)
        wanted = _days(self._memory, source, day, columns)
        with self._target.write(self._memory) as connection:
            self._make(connection, schema, table, columns)
            there = _days(connection, qualified(schema, table), day, _plain(columns))
        for days in _in_portions(wanted, there):
            with self._target.write(self._memory) as connection:
                where = f"{day} IN (SELECT unnest(?))" if day else "true"
                values = [list(days)] if day else []
                if day and None in days:
                    where, values = f"{day} IS NULL", []
                target = qualified(schema, table)
                connection.execute(f"DELETE FROM {target} WHERE {where}", values)
                selected = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in columns.items())
                connection.execute(
                    f"INSERT INTO {target} BY NAME SELECT {selected} FROM {source} WHERE {where}",
                    values,
                )
        with self._target.read() as connection:
            there = _days(connection, qualified(schema, table), day, _plain(columns))
        if differing := [key for key in {*wanted, *there} if wanted.get(key) != there.get(key)]:
            raise StorageError(
                f"The copy of {schema}.{table} differs from its source in "
                f"{len(differing)} days, such as {differing[0]}. The source is unchanged; copy it "
                "into another database, and report this.",
                {"days": [str(key) for key in differing]},
            )
        rows = sum(count for count, _ in wanted.values())
        return MovedTable(schema, table, len(wanted) if day else 0, rows)

    def end(self) -> None:
        """Let the target be used."""
        self._memory.execute(f"USE {_SOURCE}")
        [(created_at,)] = self._memory.execute(
            f"SELECT created_at FROM {PROJECT.quoted}"
        ).fetchall()
        with self._target.write(self._memory) as connection:
            connection.execute(
                f"UPDATE {PROJECT.quoted} SET schema_version = ?, created_at = ?",
                [schema_version(), created_at],
            )

    def _columns(self, schema: str, table: str) -> dict[str, str]:
        """Return the SQL of each column of a source's table, exact in the target."""
        described = self._memory.execute(
            f"DESCRIBE {_SOURCE}.{qualified(schema, table)}"
        ).fetchall()
        kinds = {name: kind for name, kind, *_ in described}
        with self._target.read() as connection:
            in_lake = is_lake(connection)
        changed = exact_in_lake(f"{schema}.{table}", kinds) if in_lake else {}
        return {name: changed.get(name, quoted(name)) for name in kinds}

    def _make(
        self, connection: Connection, schema: str, table: str, columns: dict[str, str]
    ) -> None:
        if schema == SCHEMA and table in BY_NAME:
            return
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
        selected = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in columns.items())
        source = f"{_SOURCE}.{qualified(schema, table)}"
        create_empty(connection, schema, table, f"SELECT {selected} FROM {source}")

    def _day_column(self, source: str) -> str | None:
        names = {name for name, *_ in self._memory.execute(f"DESCRIBE {source}").fetchall()}
        return next((name for name in _DAY_COLUMNS if name in names), None)


def _is_begun(connection: Connection) -> bool:
    tables = tables_of(connection)
    if PROJECT.name not in tables:
        return False
    begun = f"SELECT count(*) FROM {PROJECT.quoted} WHERE schema_version = {MOVING}"
    return number(connection, begun) == 1


def _plain(columns: dict[str, str]) -> dict[str, str]:
    return {name: quoted(name) for name in columns}


def _days(
    connection: Connection, table: str, day: str | None, columns: dict[str, str]
) -> dict[Day, tuple[int, str]]:
    """Return the row count and the hash of the rows of each day."""
    # Cast to text, as JSON and long integers have other types in a lake.
    values = ", ".join(f"({sql})::VARCHAR" for sql in columns.values())
    rows = connection.execute(
        f"SELECT {day or 'NULL'}, count(*), sum(hash({values}))::VARCHAR FROM {table} GROUP BY 1"
    ).fetchall()
    return {key: (count, digest) for key, count, digest in rows}


def _in_portions(
    wanted: dict[Day, tuple[int, str]], there: dict[Day, tuple[int, str]]
) -> Iterator[list[Day]]:
    """Yield the days that differ, as many at once as a transaction takes."""
    portion: list[Day] = []
    rows = 0
    differing = [key for key in {**wanted, **there} if wanted.get(key) != there.get(key)]
    for key in sorted(differing, key=lambda key: (key is not None, key)):
        count = wanted.get(key, (0, ""))[0]
        if portion and (rows + count > _ROWS_AT_ONCE or None in portion):
            yield portion
            portion, rows = [], 0
        portion.append(key)
        rows += count
    if portion:
        yield portion
