"""One DuckDB file, or a database in memory: opening, locking, one transaction per write.

`check_readable` and its neighbours compare a file with the project before rows are read or
loaded.
"""

from __future__ import annotations

import copy
import logging
import os
import random
import shlex
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import duckdb
from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import (
    MOST_SIMILAR,
    ConfigError,
    DatabaseLockedError,
    DatabaseNotFoundError,
    StorageError,
    WriteConflictError,
)
from mixpanel_assets.rules.location import Location
from mixpanel_assets.rules.locks import Wait, holder_of
from mixpanel_assets.rules.postgres import machine
from mixpanel_assets.warehouse.faults import holding_pid, must_be_writable, number, storage_errors
from mixpanel_assets.warehouse.files import (
    close_to_others,
    draft_path,
    prepare_log,
    remove_drafts,
    remove_empty,
)
from mixpanel_assets.warehouse.lock import Mode, lock_path, locked
from mixpanel_assets.warehouse.memory import restore_settings, spill_folder, sweep_spill_folders
from mixpanel_assets.warehouse.project import (
    ProjectIdentity,
    check_loadable,
    check_version,
    copy_path,
    has_marks,
    is_copy_path,
    log_path,
    must_be_of,
    must_be_unchanged,
    read_project,
    read_stamp,
    rules_by_hand,
    schema_version,
    tables_of,
)
from mixpanel_assets.warehouse.schema import SCHEMA, literal

logger = logging.getLogger(__name__)


CATALOG = "warehouse"  # the name of every attached file, whatever the file is called
STORAGE_VERSION = "v1.5.0"
_LOCK_POLL_SECONDS = 0.05


KEEP_DAYS, MOST_FILES = 7, 1_000


@dataclass(frozen=True)
class Tidied:
    """What `Database.tidy` did.

    Attributes:
        unknown_files: Files of the data path that no snapshot has, and that were not deleted.
    """

    merged_files: int
    ended_snapshots: int
    deleted_files: int
    unknown_files: int = 0

    def __str__(self) -> str:
        done = (
            f"Merged {self.merged_files:,} files, ended {self.ended_snapshots:,} snapshots and "
            f"deleted {self.deleted_files:,} files."
        )
        if not self.unknown_files:
            return done
        return (
            f"{done} {self.unknown_files:,} files of the data path are in no snapshot, such as "
            "those of interrupted loads; `mp tidy --delete-unknown` deletes them."
        )


class Database:
    """A DuckDB file that many processes share: one writer or many readers at a time.

    Opening it raises `DatabaseLockedError` if other processes held it for longer than
    `lock_timeout`, and `StorageError` for a full disk, a missing permission, a file that is not
    DuckDB's, or one of a newer DuckDB.

    Args:
        path: The file; the first write creates it and its folder.
        memory_limit: What DuckDB may use, such as `1GB`.
        lock_timeout: Seconds to wait for other processes; None: no limit.
        on_wait: Called with a sentence when a wait begins (after a second) and then each minute.
        read_only: Refuse every write.

    Attributes:
        given: The path as it was given, links included.
        path: The file that it leads to.
        confined: Whether statements may use no other file; set it before opening.
        needs_copy: Whether readers wait for writers, unless they have a copy.
        has_written: Whether this has committed, or may have.
        snapshot_age: Age in seconds of the copy that the last read came from; None if that read
            was as new as the file.
    """

    confined = False
    needs_copy = True
    snapshot_age: float | None = None

    def __init__(
        self,
        path: Path,
        *,
        memory_limit: str = "1GB",
        lock_timeout: float | None = None,
        on_wait: Callable[[str], object] | None = None,
        read_only: bool = False,
    ) -> None:
        self.given = Path(path).expanduser().absolute()
        self.path = _resolve_database(self.given)
        self.memory_limit = memory_limit
        self.lock_timeout = lock_timeout
        self.on_wait = on_wait
        self.read_only = read_only
        self.has_written = False
        self._is_logged = True
        self._held: Connection | None = None
        self._held_open = ExitStack()

    @property
    def location(self) -> Location:
        """Where it is: a path, or the location of a lake."""
        return self.path

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return str(self.location)

    @property
    def shared_name(self) -> str:
        """What every machine calls it. Files of two machines are two, whatever their paths."""
        return f"{machine()}:{self.location}"

    def reader(
        self, lock_timeout: float, on_wait: Callable[[str], object] | None = None
    ) -> Database:
        """Return read-only access to the file itself, with another limit of its waits."""
        reader = Database(
            self.given,
            memory_limit=self.memory_limit,
            lock_timeout=lock_timeout,
            on_wait=on_wait,
            read_only=True,
        )
        reader.path = self.path  # the same file, wherever a link leads now
        return reader

    @contextmanager
    def staging(self) -> Iterator[Connection]:
        """Yield a connection without the file, for rows that a `write` inside the block stores.

        Other processes can read and write the file meanwhile.
        """
        if self._held is not None:
            with self.errors(), restore_settings(self._held):
                yield self._held
            return
        self.make_place()
        sweep_spill_folders(self.path)
        with self.errors(), self._instance() as connection:
            yield connection

    def errors(self) -> AbstractContextManager[None]:
        """Raise errors of this package for faults of the storage inside a block."""
        return storage_errors(self.path)

    @contextmanager
    def write(
        self, staging: Connection | None = None, *, run_id: str | None = None
    ) -> Iterator[Connection]:
        """Open the file alone in one transaction: committed after the block, undone on an error.

        Args:
            staging: What `staging` yielded; the transaction can then read its tables.
            run_id: The run that writes; a lake keeps it with the commit.

        Raises:
            ConfigError: It is `read_only`.
            StorageError: An index or constraint that was made by hand refuses rows.
        """
        if self.read_only:
            raise ConfigError(
                f"{self.place} was opened to read. Open it with `read_only=False`.",
                {"db_path": self.place},
            )
        with self._usable("write", staging) as connection, restore_settings(connection):
            try:
                with transaction(connection):
                    yield connection
                    self._prepare_log()
            except duckdb.ConstraintException as error:
                raise _constraint_error(connection, error) from error
            self.has_written = True
            if not self._is_logged:
                connection.execute(f"CHECKPOINT {CATALOG}")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open the file read-only, beside other readers.

        Raises:
            DatabaseNotFoundError: There is no file yet.
        """
        with self._usable("read") as connection:
            yield connection

    def hold(self) -> Connection:
        """Open the file on first use and keep it open; reads and writes then use this connection.

        Until `release`, other processes cannot write; unless it is `read_only`, nor read.

        Raises:
            DatabaseNotFoundError: It is `read_only` and there is no file.
        """
        if self._held is None:
            mode: Mode = "read" if self.read_only else "write"
            self._held = self._held_open.enter_context(self.opened(mode, logged=True))
            self.has_written = not self.read_only
        return self._held

    @property
    def is_held(self) -> bool:
        """Whether `hold` has opened the file."""
        return self._held is not None

    def release(self) -> None:
        """Close what `hold` opened."""
        self._held = None
        self._held_open.close()

    @contextmanager
    def _usable(self, mode: Mode, staging: Connection | None = None) -> Iterator[Connection]:
        if self._held is None or staging not in (None, self._held):
            with self.opened(mode, staging=staging) as connection:
                yield connection
        else:
            with self.errors():
                yield self._held

    @contextmanager
    def opened(
        self, mode: Mode, *, logged: bool = False, staging: Connection | None = None
    ) -> Iterator[Connection]:
        """Open the file without a transaction, until the block ends.

        Blocks writers until then; in `write` mode, readers too. With `logged`, each commit is
        durable at once; otherwise only after `CHECKPOINT`.

        Raises:
            DatabaseNotFoundError: There is no file to read.
        """
        # Without a log, a large load takes a gigabyte less memory, which DuckDB's limit does not
        # cover.
        with self.errors(), self._connect(mode, logged, staging) as connection:
            _search_both_schemas(connection)
            if self.confined:
                self._confine(connection)
            yield connection

    def _confine(self, connection: Connection) -> None:
        connection.execute("SET enable_external_access = false")

    @contextmanager
    def _connect(
        self, mode: Mode, logged: bool = False, staging: Connection | None = None
    ) -> Iterator[Connection]:
        if mode == "read":
            self.must_exist()
        else:
            self.make_place()
        wait = Wait(f"the database {self.path}", self.path, self.lock_timeout, self.on_wait)
        with self._lock(mode, wait):
            is_new = mode == "write" and self.is_missing
            self.must_not_be_lost() if is_new else self.must_exist()
            with self._instance(staging) as connection:
                if is_new:
                    _create(connection, self.path)
                # Only DuckDB itself can complete the log of a killed process.
                self._is_logged = logged or log_path(self.path).exists()
                self._attach(connection, mode, wait)
                if mode == "read":
                    yield connection
                    return
                sweep_spill_folders(self.path)
                try:
                    yield connection
                finally:
                    remove_empty(log_path(self.path))

    @contextmanager
    def _instance(self, staging: Connection | None = None) -> Iterator[Connection]:
        """Yield a connection to a DuckDB, that of `staging` if given; close the file after it."""
        if staging is None:
            with (
                spill_folder(self.path) as spilled,
                closing_connection(duckdb.connect()) as connection,
            ):
                self._configure(connection, spilled)
                yield connection
            return
        try:
            with closing_connection(staging.cursor()) as connection:
                set_up_session(connection)
                yield connection
        finally:
            staging.execute(f"DETACH DATABASE IF EXISTS {CATALOG}")

    @contextmanager
    def _lock(self, mode: Mode, wait: Wait) -> Iterator[None]:
        # A reader without permission to write the lock relies on DuckDB's own lock.
        if mode == "read" and not _may_be_locked(self.path):
            yield
            return
        with locked(self.path, mode, wait=wait):
            yield

    def _configure(self, connection: Connection, spilled: Path) -> None:
        set_up_session(connection)
        connection.execute("SET memory_limit = ?", [self.memory_limit])
        connection.execute("SET preserve_insertion_order = false")
        connection.execute("SET temp_directory = ?", [str(spilled)])

    def _attach(self, connection: Connection, mode: Mode, wait: Wait) -> None:
        """Attach the file, waiting for a process that opened it without our lock."""
        # A fixed name, because DuckDB would name it after the file: in `mixpanel.duckdb`, the
        # schema `mixpanel` would be ambiguous. A fixed type, because DuckDB would otherwise
        # search an extension for a file that is not its own.
        options = ["TYPE duckdb"]
        if mode == "read":
            options.append("READ_ONLY")
        elif not self._is_logged:
            options.append("RECOVERY_MODE no_wal_writes")
        while True:
            try:
                connection.execute(
                    f"ATTACH {literal(str(self.path))} AS {CATALOG} ({', '.join(options)})"
                )
                break
            except duckdb.IOException as error:
                pid = holding_pid(error)
                if pid is None:
                    raise
            wait.check(partial(holder_of, pid))
            wait.sleep(_LOCK_POLL_SECONDS)
        connection.execute(f"USE {CATALOG}")

    def _prepare_log(self) -> None:
        """Create the log that a commit writes to, with the permissions of the database."""
        if self._is_logged:
            prepare_log(log_path(self.path), self.path)

    @contextmanager
    def attached_to(self, connection: Connection, name: str) -> Iterator[None]:
        """Attach the file read-only to another DuckDB inside the block; no process writes to it."""
        self.must_exist()
        wait = Wait(f"the database {self.place}", self.path, self.lock_timeout, self.on_wait)
        with self.errors(), self._lock("read", wait):
            connection.execute(
                f"ATTACH {literal(str(self.path))} AS {name} (TYPE duckdb, READ_ONLY)"
            )
            with detached_afterwards(connection, name):
                yield

    def tidy(
        self,
        *,
        keep_days: int = KEEP_DAYS,
        most_files: int = MOST_FILES,
        delete_unknown: bool = False,
    ) -> Tidied:
        """Merge small files of a lake, and delete those that no kept snapshot needs.

        Args:
            keep_days: For how many days the rows of then can still be read.
            most_files: The most files of a table that are merged.
            delete_unknown: Delete files of the data path that are older than a day and in no
                snapshot; without it, they are counted. Another lake's would be among them.

        Raises:
            ConfigError: It is a file, which DuckDB keeps tidy itself.
            StorageError: DuckLake takes files of the lake for unknown ones.
        """
        raise ConfigError(f"{self.place} is a file; only a lake is tidied.")

    def describe(self) -> str | None:
        """Return the versions of a lake, after its data path was tried; None for a file."""
        return None

    @property
    def is_missing(self) -> bool:
        """Whether there is no file yet, or an empty one."""
        return not self.path.exists() or self.path.stat().st_size == 0

    def must_exist(self) -> None:
        """Check that there is a file to read.

        Raises:
            DatabaseNotFoundError: There is none.
            StorageError: It is a folder, a device or a broken link; or it is missing, but its copy
                or log exists.
        """
        _must_be_database_file(self.path)
        if self.is_missing:
            _must_lead_somewhere(self.given)
            self.must_not_be_lost()
            raise DatabaseNotFoundError(str(self.path), _databases_near(self.path))

    def must_not_be_lost(self) -> None:
        """Raise `StorageError` if the file is missing, but its copy or log exists."""
        if self.is_missing and (message := _lost_database_message(self.path)):
            raise StorageError(message, {"db_path": str(self.path)})

    def make_place(self) -> None:
        """Create the folder of the file, and check that DuckDB can write the file there.

        Raises:
            StorageError: It cannot.
        """
        _must_lead_somewhere(self.given)
        _must_be_database_file(self.path)
        _make_database_folder(self.path)
        must_be_writable(self.path)


_WRITES = 5  # of one transaction, if other programs keep changing the same tables
_WAIT_SECONDS = 0.2
T = TypeVar("T")


def repeated(write: Callable[[], T]) -> T:
    """Return what `write` returns, called again if another program changed the same table.

    Processes of this package never do that: they take the lock first. It is for other programs.

    Args:
        write: Writes one whole transaction.

    Raises:
        WriteConflictError: It happened five times in a row.
    """
    for attempt in range(1, _WRITES):
        try:
            return write()
        except WriteConflictError as error:
            logger.warning("%s Writing it again (%s of %s).", error.message, attempt, _WRITES - 1)
            time.sleep(_WAIT_SECONDS * attempt * random.uniform(0.5, 1.5))
    return write()


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Commit what the block writes, or undo all of it on an error."""
    connection.execute("BEGIN TRANSACTION")
    try:
        # DuckDB refuses a search path with a schema that does not exist.
        connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{SCHEMA}"')
        _search_both_schemas(connection)
        yield
        connection.execute("COMMIT")
    except BaseException:
        undo(connection)
        raise


@contextmanager
def detached_afterwards(connection: Connection, name: str) -> Iterator[None]:
    """Detach a database when the block ends, whichever database the connection uses then."""
    try:
        yield
    finally:
        undo(connection)
        connection.execute("USE memory")
        connection.execute(f"DETACH {name}")


@contextmanager
def closing_connection(connection: Connection) -> Iterator[Connection]:
    """Close a connection, and with it the file, when the block ends."""
    try:
        yield connection
    finally:
        try:
            undo(connection)
        finally:
            connection.close()


def undo(connection: Connection) -> None:
    """Undo an open transaction; end a statement that Ctrl-C interrupted."""
    # After Ctrl-C, DuckDB's threads go on with the statement, and the next one and closing wait for
    # them. Without another statement, a cursor keeps the file open even then.
    with suppress(duckdb.Error):  # usually there is nothing to undo
        connection.interrupt()
        connection.execute("ROLLBACK")


def _constraint_error(connection: Connection, error: duckdb.ConstraintException) -> StorageError:
    rules = rules_by_hand(connection, error)
    return StorageError(
        "A rule that was made by hand refuses rows of this load: "
        f"{'; '.join(rules) or 'it is not known which'}. The stored rows are kept. Drop it, or "
        "load into another table or file.",
        {"rules": rules},
    )


def set_up_session(connection: Connection) -> None:
    """Apply the settings that each connection and cursor needs."""
    connection.execute("SET TimeZone = 'UTC'")
    # In a notebook without ipywidgets, DuckDB refuses every setting of the progress bar.
    with suppress(duckdb.InvalidInputException):
        connection.execute("SET enable_progress_bar = false")


def _may_be_locked(path: Path) -> bool:
    lock = lock_path(path)
    return os.access(lock if lock.exists() else lock.parent, os.W_OK)


def _resolve_database(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links in a circle, refused when the file is opened
        return path


def _must_be_database_file(path: Path) -> None:
    """Refuse a folder, a device, a pipe or a socket."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    if stat.S_ISDIR(mode):
        raise StorageError(
            f"{path} is a folder. Set MP_DATABASE to a file in it, such as "
            f"{path / 'warehouse.duckdb'}.",
            {"db_path": str(path)},
        )
    if not stat.S_ISREG(mode):
        raise StorageError(
            f"{path} is a device, a pipe or a socket, not a database. Set MP_DATABASE to a file.",
            {"db_path": str(path)},
        )


def _must_lead_somewhere(path: Path) -> None:
    """Refuse a broken link: its disk may not be mounted."""
    for link in (path, *path.parents):
        if not link.is_symlink() or link.exists():
            continue
        target = _resolve_database(link)
        if target.is_symlink():
            raise StorageError(
                f"{link} is a link that leads to itself. Set MP_DATABASE to a file.",
                {"db_path": str(path)},
            )
        make = [f"mkdir -p {_shell(target.parent)}", f"touch {_shell(target)}"]
        make = make if link == path else [f"mkdir -p {_shell(target)}"]
        raise StorageError(
            f"{link} is a link to {target}, which is not there. If its disk is not mounted, mount "
            f"it. To begin with an empty database there: {' && '.join(make)}",
            {"db_path": str(path)},
        )


def _lost_database_message(path: Path) -> str | None:
    """Return what to do about a missing database whose copy or log exists; None without them."""
    log, copied = log_path(path), copy_path(path)
    stamp = read_stamp(copied)
    move_log = [f"mv {_shell(log)} {_shell(log)}.old"] if log.exists() else []
    if stamp is None and not move_log:
        return None
    away = [*move_log, f"mv {_shell(copied)} {_shell(copied)}.old"] if stamp else move_log
    gone = f"The database {path} is gone, or its disk is not mounted, but "
    begin = f"To begin with an empty database: {' && '.join(away)}"
    if stamp is None:
        return f"{gone}its log {log} is still there. Put the database back beside it. {begin}"
    restore = [*move_log, f"cp -p {_shell(copied)} {_shell(path)}", f"chmod u+w {_shell(path)}"]
    return (
        f"{gone}its snapshot of {stamp.taken_at:%Y-%m-%d %H:%M:%S} UTC is still there. To go on "
        f"with that copy: {' && '.join(restore)}. {begin}"
    )


def _databases_near(path: Path) -> list[str]:
    """Return the databases beside a missing one, and in the `data` of the working directory."""
    found: list[str] = []
    with suppress(OSError):  # a folder that may not be read, or a working directory that is gone
        for folder in dict.fromkeys((path.parent, Path("data").absolute())):
            found += [
                str(file)
                for file in sorted(folder.glob("*.d*b"))
                if file.suffix in (".db", ".duckdb")
                and not is_copy_path(file)
                and file.is_file()
                and file.stat().st_size
            ]
    return found[:MOST_SIMILAR]


def _shell(path: Path) -> str:
    return shlex.quote(str(path))


def _make_database_folder(path: Path) -> None:
    if "?" in str(path.parent):  # DuckDB cuts the path of its log at a `?`
        raise StorageError(
            f"DuckDB cannot write to a folder with a `?` in its name: {path.parent}. "
            "Set MP_DATABASE to another place.",
            {"db_path": str(path)},
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The folder {path.parent} cannot be made ({error.strerror}). "
            "Set MP_DATABASE to a place that can be written.",
            {"db_path": str(path)},
        ) from error


def _create(connection: Connection, path: Path) -> None:
    """Create an empty file, complete or not at all."""
    # The newest storage version that every supported DuckDB reads. Before 1.2, `USING COMPRESSION
    # zstd` is ignored, which doubles the file; DuckDB 1.5 refuses the newest version of 2.0.
    remove_drafts(path)
    draft = draft_path(path)
    connection.execute(
        f"ATTACH {literal(str(draft))} AS draft (STORAGE_VERSION '{STORAGE_VERSION}')"
    )
    connection.execute("DETACH draft")
    close_to_others(draft)
    draft.replace(path)


def _search_both_schemas(connection: Connection) -> None:
    schemas = number(
        connection,
        "SELECT count(*) FROM duckdb_schemas() WHERE database_name = ? AND schema_name = ?",
        [CATALOG, SCHEMA],
    )
    if schemas:
        connection.execute(f"SET search_path = '{CATALOG}.main,{CATALOG}.{SCHEMA}'")


class MemoryDatabase(Database):
    """A database in the memory of this process, without locks and waits.

    A read sees what was committed before it. Of two writes of the same rows at once, the second
    fails.

    Args:
        spill_folder: For rows that do not fit into `memory_limit`.
        memory_limit: What DuckDB may use, such as `1GB`.
    """

    def __init__(self, spill_folder: Path, *, memory_limit: str = "1GB") -> None:
        super().__init__(spill_folder / "memory", memory_limit=memory_limit)
        self._root = duckdb.connect()
        self._configure(self._root, spill_folder)
        self._root.execute(f"ATTACH ':memory:' AS {CATALOG}")

    @property
    def is_missing(self) -> bool:
        """False: it exists as long as this object."""
        return False

    def make_place(self) -> None:
        """Do nothing: there is no file."""

    def _prepare_log(self) -> None:
        """Do nothing: there is no log."""

    def close(self) -> None:
        """Delete the database."""
        self._root.close()

    @contextmanager
    def _instance(self, staging: Connection | None = None) -> Iterator[Connection]:
        with closing_connection(self._root.cursor()) as connection:
            set_up_session(connection)
            yield connection

    @contextmanager
    def _connect(
        self, mode: Mode, logged: bool = False, staging: Connection | None = None
    ) -> Iterator[Connection]:
        with self._instance() as connection:
            connection.execute(f"USE {CATALOG}")
            if mode == "read":
                connection.execute("BEGIN TRANSACTION READ ONLY")
            yield connection


_BRIEF_READ_SECONDS = 0.5  # most writes are over by then
_REPORTED: set[str] = set()


def check_readable(
    connection: Connection, place: str, expected: ProjectIdentity | None = None
) -> None:
    """Check that a file may be read; log once that it is of an older version.

    An empty text in the expected project stands for any. Settings of time are not compared: the
    file says how its times are read.

    Raises:
        ConfigError: The file holds another project.
        StorageError: Its schema version is newer or unknown, or `_project` was changed by hand.
    """
    version = _checked_version(connection, expected)
    if version is None:
        return
    if version < schema_version() and place not in _REPORTED:
        _REPORTED.add(place)
        logger.warning(
            "%s was written by an earlier mixpanel-assets (schema version %s, now %s). It is read "
            "as it is; columns and views that were added since are made by the next load.",
            place,
            version,
            schema_version(),
        )


def check_before_load(database: Database, project: ProjectIdentity) -> None:
    """Check that a load can be stored, before its first request.

    Skipped while another process holds the database: storing checks again.

    Raises:
        ConfigError: The file holds another project, or the same read in another time regime.
        StorageError: The database cannot be used, or its tables were changed by hand.
    """
    database.make_place()
    with (
        suppress(DatabaseLockedError, DatabaseNotFoundError),
        _read_briefly(database) as connection,
    ):
        check_loadable(connection, project)


def check_whose(database: Database, expected: ProjectIdentity | None) -> None:
    """Check that a database is not another project's, before files beside it are changed.

    Raises:
        ConfigError: The file holds another project.
        DatabaseLockedError: Another process held it for half a second.
        StorageError: It cannot be read.
    """
    with suppress(DatabaseNotFoundError), _read_briefly(database) as connection:
        _checked_version(connection, expected)


def _checked_version(connection: Connection, expected: ProjectIdentity | None) -> int | None:
    tables = tables_of(connection)
    version = check_version(connection, tables)
    if version is None:
        if has_marks(tables):
            must_be_unchanged(tables, schema_version())
        return None
    if expected and (stored := read_project(connection)):
        must_be_of(connection, stored, expected.project_id, expected.region)
    return version


@contextmanager
def _read_briefly(database: Database) -> Iterator[Connection]:
    """Read a database, waiting for it no longer than half a second."""
    hurried = copy.copy(database)
    hurried.lock_timeout = min(_BRIEF_READ_SECONDS, database.lock_timeout or _BRIEF_READ_SECONDS)
    with hurried.read() as connection:
        yield connection
