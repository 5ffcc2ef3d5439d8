"""StorageEngine: a DuckDB file, or a temporary database, and its tables."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import duckdb
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
from mixpanel_assets.warehouse.database import Database, MemoryDatabase, check_readable
from mixpanel_assets.warehouse.faults import user_sql
from mixpanel_assets.warehouse.files import TemporaryFolder
from mixpanel_assets.warehouse.inspector import TableInspector
from mixpanel_assets.warehouse.project import ProjectIdentity, prepare, stored_project
from mixpanel_assets.warehouse.records import (
    EventLines,
    make_events_table,
    make_profiles_table,
    profile_line,
    write_lines,
)
from mixpanel_assets.warehouse.schema import quoted
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
_TEXTS = {
    *("interval", "blob", "bit", "timestamp_ns", "time", "time_ns", "time with time zone"),
    *("union", "variant"),
}
_MOMENTS = {
    *("date", "timestamp", "timestamp_s", "timestamp_ms", "timestamp with time zone"),
}
_NUMBERS = {"float", "double"}
_NESTED = {"list", "array", "struct", "map"}
# In the text of a list or an object; a text in it that reads like one is no harm.
_ODD = r"(^|\W)(inf|infinity|nan|\d{5,}-\d\d-\d\d|[\d-]+ \(BC\))($|\W)"


def exact_rows(relation: duckdb.DuckDBPyRelation) -> list[tuple[Any, ...]]:
    """Return the rows of a query; a value is DuckDB's text if it would not be itself in Python.

    That is one of a type that Python lacks, a moment that is infinite or not within the years 1
    to 9999, and a number that is not finite.
    """
    columns = []
    for number, kind in enumerate(relation.types, 1):
        value, text = f"#{number}", _text_of(f"#{number}", kind)
        columns += [f"CASE WHEN {text} IS NULL THEN {value} END AS {quoted(f'v{number}')}"]
        columns += [f"{text} AS {quoted(f't{number}')}"]
    rows = relation.project(", ".join(columns)).fetchall()
    return [
        tuple(
            value if text is None else text for value, text in zip(row[::2], row[1::2], strict=True)
        )
        for row in rows
    ]


def _text_of(value: str, kind: DuckDBPyType) -> str:
    """Return the SQL of a value's text, NULL where Python has the value itself."""
    text, leaves = f"{value}::VARCHAR", set(_leaves(kind))
    if leaves & _TEXTS:
        return text
    if kind.id in _NUMBERS:
        return f"CASE WHEN NOT isfinite({value}) THEN {text} END"
    if kind.id in _MOMENTS:
        fits = f"isfinite({value}) AND year({value}) BETWEEN 1 AND 9999"
        return f"CASE WHEN NOT ({fits}) THEN {text} END"
    if leaves & (_MOMENTS | _NUMBERS) and kind.id in _NESTED:
        return f"CASE WHEN regexp_matches({text}, '{_ODD}') THEN {text} END"
    return "NULL::VARCHAR"


def _leaves(kind: DuckDBPyType) -> Iterator[str]:
    if kind.id not in _NESTED:
        yield kind.id
        return
    for _, child in kind.children:
        if isinstance(child, DuckDBPyType):
            yield from _leaves(child)


if TYPE_CHECKING:
    import pandas as pd

Values = Sequence[Any] | Mapping[str, Any]
Record = Mapping[str, Any]

_ANY_PROJECT = ProjectIdentity("", "")


class ExecutedRows(SQLResult):
    """The rows of a statement, with the methods that DuckDB's own answer has."""

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
    `connection` is asked for.

    Args:
        path: The file, made, with its folder, by the first write; or a `Database` that others
            use too, which knows the rest itself. None: a database in memory, as `memory` makes.
        project: Whose data it is, compared with the file at each call; None takes the file's.
        read_only: Refuse every change.
        memory_limit: What DuckDB may use, such as `1GB`.
        lock_timeout: Seconds to wait for other processes; None waits without end.
        on_wait: Told whom a call waits for.

    Attributes:
        asked_for: The project that every call asks for, as far as it is known: an empty text
            stands for any; None: whatever the file holds.

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
        self._end = ExitStack()
        if path is None:
            folder = _temporary_folder()
            self._end.callback(folder.remove)
            path = MemoryDatabase(folder.path / "spilled", memory_limit=memory_limit)
            self._end.callback(path.close)
        if not isinstance(path, Database):
            path = Database(
                Path(path),
                memory_limit=memory_limit,
                lock_timeout=lock_timeout,
                on_wait=on_wait,
                read_only=read_only,
            )
        self._database = path
        self._project = self.asked_for = project
        self._end.callback(path.release)
        self._is_closed = False
        if isinstance(path, MemoryDatabase):
            self._prepare_all()

    @classmethod
    def open_existing(
        cls, path: str | Path, read_only: bool = True, *, lock_timeout: float | None = None
    ) -> Self:
        """Return an engine over a file that is there.

        Args:
            path: The file.
            read_only: Refuse every change.
            lock_timeout: Seconds to wait for other processes; None waits without end.

        Raises:
            DatabaseNotFoundError: It is not there.

        Example:
            >>> with StorageEngine.open_existing("shop.duckdb") as storage:
            ...     storage.list_tables()
        """
        database = Database(Path(path), lock_timeout=lock_timeout, read_only=read_only)
        database.must_exist()
        return cls(database)

    @classmethod
    def ephemeral(
        cls, *, project: ProjectIdentity | None = None, memory_limit: str = "1GB"
    ) -> Self:
        """Return an engine over a temporary file, for data larger than memory.

        The file is gone after `close`, after the `with` block whatever ends it, at the end of
        the process and on SIGTERM; what SIGKILL leaves goes when the next one is made.

        Args:
            project: Whose data it will be.
            memory_limit: What DuckDB may use.

        Raises:
            StorageError: The temporary directory cannot be written.

        Example:
            >>> with StorageEngine.ephemeral() as storage:
            ...     storage.create_events_table("events_2024", events, metadata)
        """
        folder = _temporary_folder()
        database = Database(folder.path / "ephemeral.duckdb", memory_limit=memory_limit)
        engine = cls(database, project=project)
        engine.on_close(folder.remove)
        engine._prepare_all()
        return engine

    @classmethod
    def memory(cls, *, project: ProjectIdentity | None = None, memory_limit: str = "1GB") -> Self:
        """Return an engine over a database in memory, gone with it; nobody else can read it.

        Args:
            project: Whose data it will be.
            memory_limit: What DuckDB may use; rows beyond it wait in the temporary directory.

        Raises:
            StorageError: The temporary directory cannot be written.

        Example:
            >>> with StorageEngine.memory() as storage:
            ...     storage.execute("CREATE TABLE seen AS SELECT 42 AS answer")
        """
        return cls(project=project, memory_limit=memory_limit)

    def _prepare_all(self) -> None:
        """Make the tables; a failure closes."""
        with ExitStack() as failed:
            failed.callback(self.close)
            with self.write():
                pass
            failed.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def database(self) -> Database:
        """What opens, locks and waits for the file."""
        return self._database

    @property
    def path(self) -> Path | None:
        """The file; None in memory.

        Example:
            >>> storage.path
            PosixPath('.../shop.duckdb')
        """
        return None if isinstance(self._database, MemoryDatabase) else self._database.path

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """DuckDB's own connection, opened on first use and open until `close`.

        While a connection of a `read_only` engine is open, other processes read beside it and
        whoever wants to write waits. Any other engine's can write, each statement committed as
        it ends, so that readers wait too. The engine's own calls go through it from then on.

        Raises:
            DatabaseNotFoundError: The engine is read-only and there is no file.
            DatabaseLockedError: Others held the file for longer than `lock_timeout`.
            StorageError: The file cannot be used, or the engine is closed.

        Example:
            >>> storage.connection.sql("FROM january LIMIT 5").show()
        """
        self._must_be_open()
        if not self._database.is_held:
            # Before it is kept open, and a snapshot taken: it may be another project's.
            with suppress(DatabaseNotFoundError), self.read():
                pass
        connection = self._database.hold()
        with self.read() if self._database.read_only else self.write():
            pass
        return connection

    @contextmanager
    def read(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield the database, open to read for the length of the block.

        Raises:
            DatabaseNotFoundError: There is no file yet.
            DatabaseLockedError: A writer held the file for longer than `lock_timeout`.
            ConfigError: The file holds another project.
            StorageError: It cannot be used, or was made by a newer version.
            QueryError: DuckDB refused a statement of the block.

        Example:
            >>> with storage.read() as connection:
            ...     StoredQueries(connection).daily_counts(from_date=day, to_date=day)
        """
        self._must_be_open()
        with self._database.read() as connection, user_sql():
            check_readable(connection, self._database.path, self.asked_for)
            yield connection

    @contextmanager
    def write(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Yield the database, open alone in one transaction: kept on leaving, undone on an error.

        Raises:
            ConfigError: The engine is read-only, or the file holds another project.
            DatabaseLockedError: Others held the file for longer than `lock_timeout`.
            QueryError: DuckDB refused a statement of the block.
            StorageError: Full disk, no permission, not a DuckDB file, or a newer one.

        Example:
            >>> with storage.write() as connection:
            ...     connection.execute("CREATE TABLE seen AS FROM january")
        """
        self._must_be_open()
        with self._database.write() as connection, user_sql():
            if self.asked_for != self._project:
                check_readable(connection, self._database.path, self.asked_for)
            prepare(connection, self._project)
            yield connection

    def close(self) -> None:
        """Close the connection; a temporary database is gone. Again does nothing.

        Example:
            >>> storage.close()
        """
        self._is_closed = True
        self._end.close()

    def on_close(self, callback: Callable[[], object]) -> None:
        """Have something called once this is closed; the last one first.

        Args:
            callback: Takes nothing.

        Example:
            >>> storage.on_close(workspace.close)
        """
        self._end.callback(callback)

    def cleanup(self) -> None:
        """Do what `close` does.

        Example:
            >>> storage.cleanup()
        """
        self.close()

    def create_events_table(
        self, name: str, data: Iterable[Record], metadata: TableMetadata
    ) -> int:
        """Make a table of events, whole or not at all, with constant memory.

        The events are treated as loads treat what Mixpanel sends: its repeats go, events without
        an id get the made one, what cannot be stored is quarantined. The database is opened
        once all of them are there.

        Args:
            name: Letters, digits and underscores; none that this package uses itself.
            data: Normalized events, as `stream_events` yields them: `event_name`, `event_time`
                (naive is UTC), `distinct_id`, `insert_id`, `properties`. Drawn once.
            metadata: `from_date` and `to_date` are the days that the table then speaks for,
                whether they have events or not; without them, only days with events.

        Returns:
            The rows of the table.

        Raises:
            ConfigError: The name cannot be taken, or a day is no day.
            TableExistsError: There is a table of that name.
            IncompleteExportError: Too many events cannot be stored.
            StorageError: One is no normalized event or outside the days; or the file or the
                disk is at fault.

        Example:
            >>> stream = workspace.stream_events(from_date="2024-01-01", to_date="2024-01-31")
            >>> metadata = TableMetadata("events", now, "2024-01-01", "2024-01-31")
            >>> storage.create_events_table("again", stream, metadata)
            1720
        """
        self._refuse_name(name, metadata, "events")
        project = self._identity()
        lines = EventLines(project)
        fetched_at, fetched_on = moment_of(metadata), day_of(metadata, project)
        given = days_of(metadata)
        with self._write_records(data, lines) as (spool, count):
            days = given or lines.days or {fetched_on}
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
                    covers_gaps=bool(given),
                    project=project,
                    open_days=[day for day in days if day >= fetched_on],
                    filters=filters_of(metadata),
                )

    def create_profiles_table(
        self, name: str, data: Iterable[Record], metadata: TableMetadata
    ) -> int:
        """Make a table of profiles, whole or not at all, with constant memory.

        The later of two records of a profile stays. The database is opened once all of them
        are there.

        Args:
            name: Letters, digits and underscores; none that this package uses itself.
            data: Normalized profiles, as `stream_profiles` yields them: `distinct_id`,
                `last_seen` (text), `properties`. Drawn once.
            metadata: How they were fetched; the ledger keeps the day of `fetched_at`.

        Returns:
            The rows of the table.

        Raises:
            ConfigError: The name cannot be taken.
            TableExistsError: There is a table of that name.
            IncompleteExportError: Too many profiles cannot be stored.
            StorageError: One is no normalized profile; or the file or the disk is at fault.

        Example:
            >>> metadata = TableMetadata("profiles", fetched_at=datetime.now(UTC))
            >>> storage.create_profiles_table("everybody", workspace.stream_profiles(), metadata)
            40
        """
        self._refuse_name(name, metadata, "profiles")
        project = self._identity()
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
        """Drop a table with what is known of it; see `drop`.

        Args:
            name: Its name.

        Raises:
            TableNotFoundError: It is not there.
            ConfigError: It is a view, or none that holds data; or the engine is read-only.

        Example:
            >>> storage.drop_table("january")
        """
        self.drop(name)

    def drop(self, *names: str) -> list[str]:
        """Drop tables with their days, all of them or none.

        Of an asset's table (`events`, `profiles`, others in schema `mixpanel`) all rows and
        days go; it stays, empty.

        Args:
            *names: Their names.

        Returns:
            The names as they were written.

        Raises:
            TableNotFoundError: One is not there.
            ConfigError: One is a view, or none that holds data; or the engine is read-only.

        Example:
            >>> storage.drop("january", "people")
            ['january', 'people']
        """
        with self.write() as connection:
            return drop_tables(connection, [find_table(connection, name) for name in names])

    def drop_all(self, type: TableType | None = None, *, assets: bool = False) -> list[str]:
        """Drop the named tables with their days, all of them or none.

        Tables that nobody loaded, such as those of a `CREATE TABLE`, stay.

        Args:
            type: Only tables of this type.
            assets: Also empty the assets' tables.

        Returns:
            What was dropped.

        Raises:
            ConfigError: The engine is read-only.

        Example:
            >>> storage.drop_all("events")
            ['january']
        """
        with self.write() as connection:
            tables = known_tables(connection)
            chosen = [table for table in tables if type in (None, table.type)]
            kept = [table.target.table for table in chosen if table.is_asset and not assets]
            if kept:
                logger.info("The assets' tables stay: %s.", ", ".join(kept))
            gone = [table.target for table in chosen if assets or not table.is_asset]
            return drop_tables(connection, gone)

    def table_exists(self, name: str) -> bool:
        """Return whether a table or view of that name is there; DuckDB ignores case.

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
        """Return the tables that were loaded, by name; none while there is no file.

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
            TableNotFoundError: It is not there.

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
            TableNotFoundError: It is not there, or nothing was loaded into it.

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
            DatabaseLockedError: Others held the file for longer than `lock_timeout`.

        Example:
            >>> storage.execute("CREATE TABLE big AS FROM january WHERE event_name = ?", ["Order"])
        """
        with self.read() if self._database.read_only else self.write() as connection:
            result = _result(_execute(connection, query, values))
            return ExecutedRows(result.columns, result.rows)

    def execute_df(self, query: str, values: Values = ()) -> pd.DataFrame:
        """Return the answer to a query as a DataFrame; nothing can be changed.

        Args:
            query: The query.
            values: For the `?` or `$name` in it.

        Raises:
            QueryError: DuckDB refused it.
            DatabaseNotFoundError: There is no file yet.

        Example:
            >>> storage.execute_df("SELECT event_name, count(*) FROM january GROUP BY ALL")
        """
        with self._query(query, values) as answer:
            return answer.df()

    def execute_scalar(self, query: str, values: Values = ()) -> Any:
        """Return the first value of the answer to a query; None when it is empty.

        Args:
            query: The query.
            values: For the `?` or `$name` in it.

        Raises:
            QueryError: DuckDB refused it.
            DatabaseNotFoundError: There is no file yet.

        Example:
            >>> storage.execute_scalar("SELECT count(*) FROM january")
            1720
        """
        with self._query(query, values) as answer:
            rows = answer.fetchall()
        return rows[0][0] if rows else None

    def execute_rows(self, query: str, values: Values = ()) -> SQLResult:
        """Return the answer to a query as a sequence of tuples; nothing can be changed.

        Args:
            query: The query.
            values: For the `?` or `$name` in it.

        Raises:
            QueryError: DuckDB refused it.
            DatabaseNotFoundError: There is no file yet.

        Example:
            >>> storage.execute_rows("SELECT distinct_id FROM people ORDER BY ALL LIMIT 1")
            SQLResult(columns=['distinct_id'], rows=[('42700000',)])
        """
        with self._query(query, values) as answer:
            return _result(answer)

    def execute_exact(self, query: str) -> SQLResult:
        """Return the answer to a query as `execute_rows` does, for people and for JSON.

        A value for which Python has no form is the text that DuckDB writes: an infinite moment or
        number, an interval, nanoseconds, a blob. Nothing can be changed.

        Args:
            query: The query.

        Raises:
            QueryError: DuckDB refused it.
            DatabaseNotFoundError: There is no file yet.

        Example:
            >>> storage.execute_exact("SELECT INTERVAL 1 month AS age").rows
            [('1 month',)]
        """
        with self.read() as connection:
            relation = connection.sql(query)
            # Of a statement without an answer DuckDB says nothing, as of none at all.
            if relation is None:
                return _result(_execute(connection, query, ()))
            return SQLResult(list(relation.columns), exact_rows(relation))

    @contextmanager
    def _query(self, query: str, values: Values) -> Iterator[duckdb.DuckDBPyConnection]:
        with self.read() as connection:
            yield _execute(connection, query, values)

    def _identity(self) -> ProjectIdentity:
        if self._project is None:
            with suppress(DatabaseNotFoundError), self.read() as connection:
                return stored_project(connection) or _ANY_PROJECT
        return self._project or _ANY_PROJECT

    def _refuse_name(self, name: str, metadata: TableMetadata, kind: TableType) -> None:
        """Refuse before anything is drawn what would be refused at the end."""
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
        self, data: Iterable[Record], line: Callable[[Record], bytes]
    ) -> Iterator[tuple[Path, int]]:
        self._must_be_open()
        folder = _temporary_folder()
        try:
            path = folder.path / "records.jsonl.gz"
            try:
                count = write_lines(data, path, line)
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


def _execute(
    connection: duckdb.DuckDBPyConnection, query: str, values: Values
) -> duckdb.DuckDBPyConnection:
    # DuckDB answers nothing at all, not even an error, when there is no statement.
    answer: duckdb.DuckDBPyConnection | None = connection.execute(query, values)
    if answer is None:
        raise QueryError.of_sql("there is none in it.")
    return answer


def _result(answer: duckdb.DuckDBPyConnection) -> SQLResult:
    columns = [column[0] for column in answer.description or ()]
    return SQLResult(columns, answer.fetchall() if columns else [])


def _temporary_folder() -> TemporaryFolder:
    try:
        return TemporaryFolder()
    except OSError as error:
        raise StorageError(
            f"The temporary directory cannot be written ({error.strerror}). Set TMPDIR to one "
            "that can be."
        ) from error
