"""StorageEngine: a DuckDB file or a temporary database, with its tables."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import duckdb
from duckdb import DuckDBPyConnection as Connection
from duckdb.sqltypes import DuckDBPyType

from mixpanel_assets.errors import (
    ConfigError,
    DatabaseNotFoundError,
    QueryError,
    StorageError,
    TableExistsError,
    TableNotFoundError,
)
from mixpanel_assets.results import SQLResult, TableInfo, TableMetadata, TableSchema
from mixpanel_assets.results.base import frame
from mixpanel_assets.results.choices import TableType
from mixpanel_assets.rules.lines import ReceivedDays
from mixpanel_assets.rules.location import parse_location
from mixpanel_assets.warehouse.database import Database, MemoryDatabase, check_readable
from mixpanel_assets.warehouse.faults import Values, user_sql
from mixpanel_assets.warehouse.files import TemporaryFolder
from mixpanel_assets.warehouse.inspector import TableInspector
from mixpanel_assets.warehouse.project import ProjectIdentity, prepare, stored_project
from mixpanel_assets.warehouse.readers_copy import database_at
from mixpanel_assets.warehouse.records import (
    EventLines,
    make_events_table,
    make_profiles_table,
    profile_line,
    write_lines,
)
from mixpanel_assets.warehouse.schema import quoted
from mixpanel_assets.warehouse.slices import refuse_wide_integers
from mixpanel_assets.warehouse.tables import (
    check_name,
    day_of,
    days_of,
    drop_tables,
    filters_of,
    find_table,
    known_tables,
    moment_of,
    refuse_our_names,
    refuse_outside,
)

logger = logging.getLogger(__name__)


# DuckDB's Python module rounds, clips or counts these in other units.
_SQL_TEXTS = {
    *("interval", "blob", "bit", "timestamp_ns", "time", "time_ns", "time with time zone"),
    *("union", "variant"),
}
_SQL_MOMENTS = {*("date", "timestamp", "timestamp_s", "timestamp_ms", "timestamp with time zone")}
_SQL_NUMBERS = {"float", "double"}
_SQL_NESTED = {"list", "array", "struct", "map"}
# Searched in the text of a list or an object. A string in it that looks alike does no harm: the
# value is then shown as text.
_ODD_SQL_TEXT = r"(^|\W)(inf|infinity|nan|\d{5,}-\d\d-\d\d|[\d-]+ \(BC\))($|\W)"


def exact_rows(relation: duckdb.DuckDBPyRelation) -> list[tuple[Any, ...]]:
    """Return the rows of a query, with DuckDB's text for values that Python cannot represent.

    These are values of types that Python lacks, infinite moments, moments outside the years 1 to
    9999, and numbers that are not finite.
    """
    columns = []
    for place, sql_type in enumerate(relation.types, 1):
        column, text = f"#{place}", _sql_text(f"#{place}", sql_type)
        columns += [f"CASE WHEN {text} IS NULL THEN {column} END AS {quoted(f'v{place}')}"]
        columns += [f"{text} AS {quoted(f't{place}')}"]
    rows = relation.project(", ".join(columns)).fetchall()
    return [
        tuple(
            value if text is None else text for value, text in zip(row[::2], row[1::2], strict=True)
        )
        for row in rows
    ]


def _sql_text(column: str, sql_type: DuckDBPyType) -> str:
    """Return the SQL of a value's text, NULL where Python can represent the value."""
    column_text, leaf_types = f"{column}::VARCHAR", set(_leaf_types(sql_type))
    if leaf_types & _SQL_TEXTS:
        return column_text
    if sql_type.id in _SQL_NUMBERS:
        return f"CASE WHEN NOT isfinite({column}) THEN {column_text} END"
    if sql_type.id in _SQL_MOMENTS:
        fits = f"isfinite({column}) AND year({column}) BETWEEN 1 AND 9999"
        return f"CASE WHEN NOT ({fits}) THEN {column_text} END"
    if leaf_types & (_SQL_MOMENTS | _SQL_NUMBERS) and sql_type.id in _SQL_NESTED:
        return f"CASE WHEN regexp_matches({column_text}, '{_ODD_SQL_TEXT}') THEN {column_text} END"
    return "NULL::VARCHAR"


def _leaf_types(sql_type: DuckDBPyType) -> Iterator[str]:
    if sql_type.id not in _SQL_NESTED:
        yield sql_type.id
        return
    for _, child in sql_type.children:
        if isinstance(child, DuckDBPyType):
            yield from _leaf_types(child)


if TYPE_CHECKING:
    import pandas as pd

Record = Mapping[str, Any]

_ANY_PROJECT = ProjectIdentity("", "")  # tables of records need no project


class ExecutedRows(SQLResult):
    """The rows of a statement, with the methods of DuckDB's own result."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows, each time."""
        return list(self.rows)

    def fetchone(self) -> tuple[Any, ...] | None:
        """Return the first row, each time; None without one."""
        return self.rows[0] if self.rows else None

    def df(self) -> pd.DataFrame:  # type: ignore[override]
        """Return the rows as a pandas frame; a method here, as users of DuckDB type it."""
        return frame(self._table())


class StorageEngine:
    """A DuckDB database with tables of events and profiles; a context manager.

    The file is opened for each call and shared with other processes in between, until
    `connection` is used. Every call raises `DatabaseLockedError` if other processes held the file
    for longer than `lock_timeout`, `ConfigError` if it holds another project, and `StorageError` if
    the file or the disk cannot be used. Reads raise `DatabaseNotFoundError` without a file.

    Args:
        path: The file, created with its folder by the first write; or a `Database` with its own
            settings, which others may use too. None: a database in memory, as from `memory`.
        project: The project of the data, compared with the file at each call; None: the file's.
        read_only: Refuse every change.
        memory_limit: What DuckDB may use, such as `1GB`.
        lock_timeout: Seconds to wait for other processes; None: no limit.
        on_wait: Called with a sentence that names the process a call waits for.

    Attributes:
        asked_for: The project that every call expects, as far as it is known: an empty text
            stands for any; None: the file's.

    Example:
        >>> with StorageEngine("shop.duckdb") as storage:
        ...     storage.create_events_table("visits", events, metadata)
        ...     storage.execute_df("SELECT event_name, count(*) FROM visits GROUP BY ALL")
    """

    def __init__(
        self,
        path: str | Path | Database | None = None,
        *,
        read_only: bool = False,
        project: ProjectIdentity | None = None,
        memory_limit: str = "1GB",
        lock_timeout: float | None = None,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self._storage_end = ExitStack()
        if path is None:
            folder = _temporary_folder()
            self._storage_end.callback(folder.remove)
            path = MemoryDatabase(folder.path / "spilled", memory_limit=memory_limit)
            self._storage_end.callback(path.close)
        if not isinstance(path, Database):
            path = database_at(
                parse_location(path),
                memory_limit=memory_limit,
                lock_timeout=lock_timeout,
                on_wait=on_wait,
                read_only=read_only,
            )
        self._database = path
        self._project = self.asked_for = project
        self._storage_end.callback(path.release)
        self._is_closed = False
        if isinstance(path, MemoryDatabase):
            self._prepare_tables()

    @classmethod
    def open_existing(
        cls, path: str | Path, read_only: bool = True, *, lock_timeout: float | None = None
    ) -> Self:
        """Return an engine for an existing file.

        Args:
            path: The file.
            read_only: Refuse every change.
            lock_timeout: Seconds to wait for other processes; None: no limit.

        Raises:
            DatabaseNotFoundError: It does not exist.

        Example:
            >>> with StorageEngine.open_existing("shop.duckdb") as storage:
            ...     storage.list_tables()
        """
        database = database_at(parse_location(path), lock_timeout=lock_timeout, read_only=read_only)
        database.must_exist()
        return cls(database)

    @classmethod
    def ephemeral(
        cls, *, project: ProjectIdentity | None = None, memory_limit: str = "1GB"
    ) -> Self:
        """Return an engine for a temporary file, for data larger than memory.

        The file is deleted by `close`, at the end of the `with` block, at the end of the process
        and on SIGTERM. Files of a killed process are removed when the next one is created.

        Args:
            project: The project of the data.
            memory_limit: What DuckDB may use; `memory` spills rows beyond it to a temporary folder.

        Raises:
            StorageError: The temporary directory cannot be written.

        Example:
            >>> with StorageEngine.ephemeral() as storage:
            ...     storage.create_events_table("events_2024", events, metadata)
        """
        folder = _temporary_folder()
        database = database_at(folder.path / "ephemeral.duckdb", memory_limit=memory_limit)
        engine = cls(database, project=project)
        engine.on_close(folder.remove)
        engine._prepare_tables()
        return engine

    @classmethod
    def memory(cls, *, project: ProjectIdentity | None = None, memory_limit: str = "1GB") -> Self:
        """Return an engine for a database in the memory of this process, which `close` deletes.

        Arguments and errors: see `StorageEngine.ephemeral`.

        Example:
            >>> with StorageEngine.memory() as storage:
            ...     storage.execute("CREATE TABLE seen AS SELECT 42 AS answer")
        """
        return cls(project=project, memory_limit=memory_limit)

    def _prepare_tables(self) -> None:
        """Create the tables; close after an error."""
        try:
            with self.write():
                pass
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    @property
    def database(self) -> Database:
        """The database that opens, locks and waits for the file."""
        return self._database

    @property
    def path(self) -> Path | None:
        """The file; None for a lake or a database in memory.

        Example:
            >>> storage.path
            PosixPath('.../shop.duckdb')
        """
        place = self._database.location
        if isinstance(self._database, MemoryDatabase) or not isinstance(place, Path):
            return None
        return place

    @property
    def connection(self) -> Connection:
        """DuckDB's own connection, opened on first use and open until `close`.

        An open connection blocks other processes that write. Unless the engine is `read_only`, it
        can write, each statement is committed when it ends, and readers are blocked too. All calls
        of the engine use it from then on.

        Raises:
            DatabaseNotFoundError: The engine is read-only and there is no file.

        Example:
            >>> storage.connection.sql("FROM january LIMIT 5").show()
        """
        self._must_be_open()
        if not self._database.is_held:
            # The file may be another project's: check before it stays open or is copied.
            with suppress(DatabaseNotFoundError), self.read():
                pass
        connection = self._database.hold()
        with self.read() if self._database.read_only else self.write():
            pass
        return connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection that reads the database, for the length of the block.

        Raises:
            QueryError: DuckDB refused a statement of the block.

        Example:
            >>> with storage.read() as connection:
            ...     StoredQueries(connection).daily_counts(from_date=day, to_date=day)
        """
        self._must_be_open()
        with self._database.read() as connection, user_sql():
            check_readable(connection, self._database.place, self.asked_for)
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection in one transaction: committed after the block, undone on an error.

        Raises:
            ConfigError: The engine is read-only, or the file holds another project.
            QueryError: DuckDB refused a statement of the block.
            StorageError: A table of a lake got a column that would be changed.

        Example:
            >>> with storage.write() as connection:
            ...     connection.execute("CREATE TABLE seen AS FROM january")
        """
        self._must_be_open()
        with self._database.write() as connection, user_sql():
            if self.asked_for != self._project:
                check_readable(connection, self._database.place, self.asked_for)
            prepare(connection, self._project)
            yield connection
            refuse_wide_integers(connection)

    def close(self) -> None:
        """Close the connection; delete a temporary database. A second call does nothing.

        Example:
            >>> storage.close()
        """
        self._is_closed = True
        self._storage_end.close()

    def on_close(self, callback: Callable[[], object]) -> None:
        """Register a function for `close` to call; the last one is called first.

        Args:
            callback: It takes no arguments.

        Example:
            >>> storage.on_close(workspace.close)
        """
        self._storage_end.callback(callback)

    def cleanup(self) -> None:
        """Do what `close` does.

        Example:
            >>> storage.cleanup()
        """
        self.close()

    def create_events_table(
        self, name: str, data: Iterable[Record], metadata: TableMetadata
    ) -> int:
        """Create a table of events, completely or not at all, with constant memory.

        The events are stored as a load stores them: duplicates are removed, events without an id
        get a made one, and those that cannot be stored are quarantined. The database is opened
        after the last event was read.

        Args:
            name: Letters, digits and underscores; not the name of a table of this package.
            data: Normalized events, as `stream_events` yields them: `event_name`, `event_time`
                (naive is UTC), `distinct_id`, `insert_id`, `properties`. Read once.
            metadata: `from_date` and `to_date` are the days that the table covers, with or
                without events; without them it covers the days with events only.

        Returns:
            The row count of the table.

        Raises:
            ConfigError: The name is not allowed, or a day is not a day.
            TableExistsError: There is a table of that name.
            IncompleteExportError: Too many events cannot be stored.
            StorageError: A record is not a normalized event, or is outside the days.

        Example:
            >>> stream = workspace.stream_events(from_date="2024-01-01", to_date="2024-01-31")
            >>> metadata = TableMetadata("events", now, "2024-01-01", "2024-01-31")
            >>> storage.create_events_table("again", stream, metadata)
            1720
        """
        self._refuse_name(name, metadata, "events")
        project = self._stored_project()
        lines = EventLines(project)
        fetched_at, fetched_on = moment_of(metadata), day_of(metadata, project)
        covered_days = days_of(metadata)
        with self._write_records(data, lines) as (spool, count):
            days = covered_days or lines.days or {fetched_on}
            refuse_outside(lines.days, days)
            with self.write() as connection:
                return make_events_table(
                    connection,
                    name,
                    ReceivedDays(
                        path=spool,
                        from_date=min(days),
                        to_date=max(days),
                        lines=count,
                        names_once=True,
                        received_bytes=spool.stat().st_size,
                        requests=0,
                        received_at=fetched_at,
                    ),
                    days=days,
                    covers_gaps=bool(covered_days),
                    project=project,
                    open_days=[day for day in days if day >= fetched_on],
                    filters=filters_of(metadata),
                )

    def create_profiles_table(
        self, name: str, data: Iterable[Record], metadata: TableMetadata
    ) -> int:
        """Create a table of profiles, completely or not at all, with constant memory.

        Of two records of a profile, the later one is stored. Errors are those of
        `create_events_table`.

        Args:
            name: Letters, digits and underscores; not the name of a table of this package.
            data: Normalized profiles, as `stream_profiles` yields them: `distinct_id`,
                `last_seen` (text), `properties`. Read once.
            metadata: How they were fetched; the ledger has the day of `fetched_at`.

        Returns:
            The row count of the table.

        Example:
            >>> metadata = TableMetadata("profiles", fetched_at=datetime.now(UTC))
            >>> storage.create_profiles_table("everybody", workspace.stream_profiles(), metadata)
            40
        """
        self._refuse_name(name, metadata, "profiles")
        project = self._stored_project()
        with self._write_records(data, profile_line) as (spool, _), self.write() as connection:
            return make_profiles_table(
                connection,
                name,
                spool,
                day=day_of(metadata, project),
                project=project,
                fetched_at=moment_of(metadata),
                filters=filters_of(metadata),
            )

    def drop_table(self, name: str) -> None:
        """Drop a table, as `drop` does.

        Args:
            name: Its name.

        Raises:
            TableNotFoundError: It does not exist.
            ConfigError: It is a view, or a table of this package that holds no data.

        Example:
            >>> storage.drop_table("january")
        """
        self.drop(name)

    def drop(self, *names: str) -> list[str]:
        """Drop tables with their days, all of them or none.

        An asset's table (`events`, `profiles`, others in schema `mixpanel`) is emptied, not
        dropped. Errors are those of `drop_table`.

        Args:
            *names: Their names.

        Returns:
            The names, as they are written in the database.

        Example:
            >>> storage.drop("january", "people")
            ['january', 'people']
        """
        with self.write() as connection:
            return drop_tables(connection, [find_table(connection, name) for name in names])

    def drop_all(self, type: TableType | None = None, *, assets: bool = False) -> list[str]:
        """Drop the loaded named tables with their days, all of them or none.

        Other tables, such as those of a `CREATE TABLE`, are kept.

        Args:
            type: Only tables of this type.
            assets: Also empty the assets' tables.

        Returns:
            The names of the dropped tables.

        Example:
            >>> storage.drop_all("events")
            ['january']
        """
        with self.write() as connection:
            tables = known_tables(connection)
            chosen = [table for table in tables if type in (None, table.type)]
            kept = [table.target.table for table in chosen if table.is_asset and not assets]
            if kept:
                logger.info("The assets' tables are kept: %s.", ", ".join(kept))
            dropped = [table.target for table in chosen if assets or not table.is_asset]
            return drop_tables(connection, dropped)

    def table_exists(self, name: str) -> bool:
        """Return whether a table or view of that name exists; DuckDB ignores case.

        Args:
            name: Its name.

        Example:
            >>> storage.table_exists("january")
            True
        """
        with suppress(TableNotFoundError, DatabaseNotFoundError), self.read() as connection:
            return bool(find_table(connection, name))
        return False

    def list_tables(self) -> list[TableInfo]:
        """Return the loaded tables, by name; none while there is no file.

        Example:
            >>> [table.name for table in storage.list_tables()]
            ['events', 'january', 'people', 'profiles']
        """
        with suppress(DatabaseNotFoundError), self.read() as connection:
            return TableInspector(connection).tables()
        return []

    def get_schema(self, name: str) -> TableSchema:
        """Return the columns of a table or view.

        Args:
            name: Its name.

        Raises:
            TableNotFoundError: It does not exist.

        Example:
            >>> [column.name for column in storage.get_schema("people").columns]
            ['distinct_id', 'properties', 'last_seen']
        """
        with self.read() as connection:
            return TableInspector(connection).schema(name)

    def get_metadata(self, name: str) -> TableMetadata:
        """Return how a table was fetched.

        Args:
            name: Its name.

        Raises:
            TableNotFoundError: It does not exist, or nothing was loaded into it.

        Example:
            >>> storage.get_metadata("january").from_date
            '2024-01-01'
        """
        with self.read() as connection:
            return TableInspector(connection).metadata(name)

    def execute(self, query: str, values: Values = ()) -> ExecutedRows:
        """Run a statement that may change the database, in one transaction, unless read-only.

        Args:
            query: One or more statements.
            values: For the `?` or `$name` in it.

        Returns:
            The rows of the last statement, with `fetchall()`, `fetchone()` and `df()`.

        Raises:
            QueryError: DuckDB refused it; nothing was changed.

        Example:
            >>> storage.execute("CREATE TABLE big AS FROM january WHERE event_name = ?", ["Order"])
        """
        with self.read() if self._database.read_only else self.write() as connection:
            result = _result(_execute(connection, query, values))
            return ExecutedRows(result.columns, result.rows)

    def execute_df(self, query: str, values: Values = ()) -> pd.DataFrame:
        """Return the result of a query as a DataFrame; a query can change nothing.

        Args:
            query: The query.
            values: For the `?` or `$name` in it.

        Raises:
            QueryError: DuckDB refused it.

        Example:
            >>> storage.execute_df("SELECT event_name, count(*) FROM january GROUP BY ALL")
        """
        with self._query(query, values) as result:
            return result.df()

    def execute_scalar(self, query: str, values: Values = ()) -> Any:
        """Return the first value of the result of a query; None when it is empty.

        Arguments and errors: see `StorageEngine.execute_df`.

        Example:
            >>> storage.execute_scalar("SELECT count(*) FROM january")
            1720
        """
        with self._query(query, values) as result:
            rows = result.fetchall()
        return rows[0][0] if rows else None

    def execute_rows(self, query: str, values: Values = ()) -> SQLResult:
        """Return the result of a query as a sequence of tuples.

        Arguments and errors: see `StorageEngine.execute_df`.

        Example:
            >>> storage.execute_rows("SELECT distinct_id FROM people ORDER BY ALL LIMIT 1")
            SQLResult(columns=['distinct_id'], rows=[('42700000',)])
        """
        with self._query(query, values) as result:
            return _result(result)

    def execute_exact(self, query: str) -> SQLResult:
        """Return the result of a query as tuples, for people and for JSON.

        A value that Python cannot represent is DuckDB's text for it: an infinite moment or number,
        an interval, nanoseconds, a blob.

        Args:
            query: The query.

        Raises:
            QueryError: DuckDB refused it.

        Example:
            >>> storage.execute_exact("SELECT INTERVAL 1 month AS age").rows
            [('1 month',)]
        """
        with self.read() as connection:
            relation = connection.sql(query)
            # For a statement without a result DuckDB returns None, as for no statement at all.
            if relation is None:
                return _result(_execute(connection, query, ()))
            return SQLResult(list(relation.columns), exact_rows(relation))

    @contextmanager
    def _query(self, query: str, values: Values) -> Iterator[Connection]:
        with self.read() as connection:
            yield _execute(connection, query, values)

    def _stored_project(self) -> ProjectIdentity:
        if self._project is None:
            with suppress(DatabaseNotFoundError), self.read() as connection:
                return stored_project(connection) or _ANY_PROJECT
        return self._project or _ANY_PROJECT

    def _refuse_name(self, name: str, metadata: TableMetadata, kind: TableType) -> None:
        """Raise, before a record is read, what would be raised at the end."""
        if metadata.type != kind:
            raise ConfigError(f"The metadata is of {metadata.type}, but the table is of {kind}.")
        refuse_our_names("main", name)
        check_name(name)
        if self._database.read_only:
            with self.write():
                pass
        if self.table_exists(name):
            raise TableExistsError(name)

    @contextmanager
    def _write_records(
        self, data: Iterable[Record], line_of: Callable[[Record], bytes]
    ) -> Iterator[tuple[Path, int]]:
        self._must_be_open()
        folder = _temporary_folder()
        try:
            path = folder.path / "records.jsonl.gz"
            try:
                count = write_lines(data, path, line_of)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    raise
                raise StorageError(
                    f"The disk is full: {folder.path.parent} took no more records. Nothing was "
                    "changed; make room, or set TMPDIR to another place."
                ) from error
            yield path, count
        finally:
            folder.remove()

    def _must_be_open(self) -> None:
        if self._is_closed:
            raise StorageError("This storage is closed. Make another one.")


def _execute(connection: Connection, query: str, values: Values) -> Connection:
    # Without a statement, DuckDB returns None and raises nothing.
    result: Connection | None = connection.execute(query, values)
    if result is None:
        raise QueryError.of_sql("there is none in it.")
    return result


def _result(result: Connection) -> SQLResult:
    columns = [column[0] for column in result.description or ()]
    return SQLResult(columns, result.fetchall() if columns else [])


def _temporary_folder() -> TemporaryFolder:
    try:
        return TemporaryFolder()
    except OSError as error:
        raise StorageError(
            f"The temporary directory cannot be written ({error.strerror}). Set TMPDIR to one "
            "that can be."
        ) from error
