"""A DuckLake instead of a file: the catalog in PostgreSQL, the rows in Parquet files.

Readers never wait and need no copy. A writer stages outside, and holds the lock of the lake for its
short transaction. DuckDB's extensions come from wheels that fit one version of DuckDB.
"""

from __future__ import annotations

import atexit
import os
import re
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import (
    ConfigError,
    DatabaseNotFoundError,
    StorageError,
    WriteConflictError,
)
from mixpanel_assets.rules.location import LakeLocation
from mixpanel_assets.rules.locks import Wait
from mixpanel_assets.rules.postgres import process_name
from mixpanel_assets.warehouse import lake_lock
from mixpanel_assets.warehouse.database import (
    CATALOG,
    KEEP_DAYS,
    MOST_FILES,
    Database,
    Tidied,
    closing_connection,
    detached_afterwards,
    set_up_session,
)
from mixpanel_assets.warehouse.faults import number, storage_errors
from mixpanel_assets.warehouse.lock import Mode
from mixpanel_assets.warehouse.memory import spill_folder, sweep_spill_folders
from mixpanel_assets.warehouse.schema import literal, quoted

_EXTENSIONS = ("ducklake", "postgres_scanner", "httpfs")
_INSTALL = "pip install 'mixpanel-assets[lake]'"
_SECRET = "mixpanel_assets_catalog"  # noqa: S105 - the name of one
_METADATA = f"__ducklake_metadata_{CATALOG}"
# The names of the files that the catalog has; they contain a UUID.
_KNOWN_NAMES = " UNION ALL ".join(
    f"SELECT parse_filename(path) FROM {_METADATA}.{table}"
    for table in (
        "ducklake_data_file",
        "ducklake_delete_file",
        "ducklake_files_scheduled_for_deletion",
    )
)
_UNKNOWN_FILES = f"ducklake_delete_orphaned_files('{CATALOG}'"
_MOST_IDLE = 2
_MOST_DAYS = 36_500

_CONFLICT = (
    "Another program wrote to {place} at the same time, without this package's lock: {said} "
    "Nothing of this load was kept; run it again."
)
# Faults of a statement, whose words may look like those of a server.
_OF_STATEMENT = (
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.DataError,
    duckdb.ParserException,
    duckdb.SyntaxException,
)
_FAULTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"Transaction conflict|could not serialize|deadlock detected"),
        _CONFLICT,
    ),
    (
        re.compile(r"password authentication failed|no password supplied|Ident authentication"),
        "PostgreSQL refused the user of {place}: {said} Set PGPASSWORD, or write the password "
        "into the file that PGPASSFILE names (~/.pgpass by default).",
    ),
    (
        re.compile(r"permission denied for|must be owner of"),
        "PostgreSQL does not give the user of {place} the right to this: {said} Grant the user "
        "the tables of the catalog: SELECT to read, and to write INSERT, UPDATE and DELETE too.",
    ),
    (
        re.compile(r"version mismatch|requires .*version|newer version", re.IGNORECASE),
        "{place} was written by another version of DuckLake: {said} Install the versions of "
        "DuckDB and its extensions that the writers use.",
    ),
    (
        re.compile(r"HTTP|AccessDenied|SignatureDoesNotMatch|InvalidAccessKeyId|NoSuchBucket"),
        "The object store of {place} could not be used: {said} Nothing of the interrupted load "
        "was kept; run it again when the store answers. The store and its credentials are those "
        "of MP_S3_ENDPOINT, MP_S3_KEY_ID and MP_S3_SECRET.",
    ),
    (
        re.compile(
            r"connection to server|Unable to connect|could not (connect|translate|receive)|"
            r"server closed the connection|terminating connection|Failed to (commit|execute query)|"
            r"does not exist$|SSL|timeout|"
            r"the database system is|Connection refused",
            re.IGNORECASE,
        ),
        "PostgreSQL, the catalog of {place}, could not be used: {said} Nothing of the interrupted "
        "load was kept; run it again when the server answers.",
    ),
)


class Lake(Database):
    """A DuckLake that many machines share: one writer at a time, any number of readers.

    Errors are those of `Database`.

    Args:
        location: Its catalog and data path.
        memory_limit: What DuckDB may use, such as `1GB`.
        lock_timeout: Seconds to wait for other writers; None: no limit.
        on_wait: Called with a sentence when a wait begins (after a second) and then each minute.
        read_only: Refuse every write.
    """

    needs_copy = False

    def __init__(
        self,
        location: LakeLocation,
        *,
        memory_limit: str = "1GB",
        lock_timeout: float | None = None,
        on_wait: Callable[[str], object] | None = None,
        read_only: bool = False,
    ) -> None:
        # Local files, such as spilled rows, are beside this path, which itself does not exist.
        super().__init__(
            Path(tempfile.gettempdir(), f"mixpanel-lake-{os.geteuid()}"),
            memory_limit=memory_limit,
            lock_timeout=lock_timeout,
            on_wait=on_wait,
            read_only=read_only,
        )
        self._location = location

    @property
    def location(self) -> LakeLocation:
        """Its catalog and data path; its text is without the password."""
        return self._location

    @property
    def shared_name(self) -> str:
        """What every machine calls it, in whichever words its connection is written."""
        with self.errors():
            [(name,)] = lake_lock.rows(self.location, "SELECT current_database()")
            stored = _catalog_of(self.location) or {}
        return f"{name} in {stored.get('data_path', self.location.data_path)}"

    def reader(self, lock_timeout: float, on_wait: Callable[[str], object] | None = None) -> Lake:
        """Return read-only access; it never waits."""
        return Lake(
            self.location,
            memory_limit=self.memory_limit,
            lock_timeout=lock_timeout,
            on_wait=on_wait,
            read_only=True,
        )

    @contextmanager
    def staging(self) -> Iterator[Connection]:
        """Yield a connection for rows that a `write` inside the block stores."""
        if self._held is not None:
            with super().staging() as held:
                yield held
            return
        with self.errors(), self._taken() as instance, instance.cursor() as connection:
            _STAGING[id(connection)] = instance
            try:
                yield connection
            finally:
                del _STAGING[id(connection)]

    @contextmanager
    def write(
        self, staging: Connection | None = None, *, run_id: str | None = None
    ) -> Iterator[Connection]:
        """Do what `Database.write` does; the run's id is in the lake's commit message."""
        with super().write(staging, run_id=run_id) as connection:
            yield connection
            message = f"run {run_id}" if run_id else process_name()
            connection.execute(
                f"CALL {CATALOG}.set_commit_message('mixpanel_assets', {literal(message)})"
            )
            if self._lock_held:
                self._lock_held.must_be_held()

    _lock_held: lake_lock.LakeLock | None = None

    @contextmanager
    def _connect(
        self, mode: Mode, logged: bool = False, staging: Connection | None = None
    ) -> Iterator[Connection]:
        with ExitStack() as stack:
            if mode == "write":
                wait = Wait(f"the lake {self.place}", self.path, self.lock_timeout, self.on_wait)
                self._lock_held = stack.enter_context(lake_lock.lake_lock(self.location, wait))
                stack.callback(setattr, self, "_lock_held", None)
            instance = _STAGING.get(id(staging)) or stack.enter_context(self._taken())
            instance.attach(self, may_create=mode == "write")
            connection = stack.enter_context(instance.cursor())
            connection.execute(f"USE {CATALOG}")
            if mode == "read" and not self.read_only and not logged:
                connection.execute("BEGIN TRANSACTION READ ONLY")
            self._is_logged = True  # a commit is durable at once
            yield connection

    @contextmanager
    def _taken(self) -> Iterator[_Instance]:
        """Yield a DuckDB that no other user of this process has meanwhile."""
        key = (self.location, self.memory_limit, self.read_only, self.confined)
        instance = _IDLE.take(key) or _Instance(self._start)
        try:
            yield instance
        except (duckdb.FatalException, duckdb.IOException, duckdb.InternalException, StorageError):
            instance.close()
            raise
        except Exception:
            _IDLE.give_back(key, instance)
            raise
        except BaseException:  # Ctrl-C: a statement may still run
            instance.close()
            raise
        else:
            _IDLE.give_back(key, instance)

    def _start(self, resources: ExitStack) -> Connection:
        """Start a DuckDB with the extensions, its settings and credentials, without the lake."""
        sweep_spill_folders(self.path)
        spilled = resources.enter_context(spill_folder(self.path))
        root = duckdb.connect()
        try:
            load_extensions(root)
            self._configure(root, spilled)
            _create_secrets(root, self.location)
        except BaseException:
            root.close()
            raise
        return root

    def _confine(self, connection: Connection) -> None:
        """Do nothing: `_Instance.attach` has done it, once for all its connections."""

    def errors(self) -> AbstractContextManager[None]:
        """Translate errors of DuckDB, PostgreSQL and the object store inside a block."""
        return lake_errors(self.location)

    @contextmanager
    def attached_to(self, connection: Connection, name: str) -> Iterator[None]:
        """Attach the lake read-only to another DuckDB inside the block; no process writes to it."""
        wait = Wait(f"the lake {self.place}", self.path, self.lock_timeout, self.on_wait)
        with self.errors(), lake_lock.lake_lock(self.location, wait):
            if (stored := _catalog_of(self.location)) is None:
                raise DatabaseNotFoundError(self.place)
            data_path = _agreed_data_path(self.location, stored["data_path"])
            load_extensions(connection)
            secret = f"{_SECRET}_{name}"
            _create_secrets(connection, self.location, secret)
            _attach(connection, self.location, data_path, name, secret, read_only=True)
            with detached_afterwards(connection, name):
                yield

    def tidy(
        self,
        *,
        keep_days: int = KEEP_DAYS,
        most_files: int = MOST_FILES,
        delete_unknown: bool = False,
    ) -> Tidied:
        """Merge small files, and delete those that no kept snapshot needs; see `Database.tidy`."""
        if not 0 <= keep_days <= _MOST_DAYS:
            raise ConfigError(f"Rows are kept for 0 to {_MOST_DAYS} days, not for {keep_days}.")
        # Each step holds the lock on its own, so that a writer need not wait for all of them. Files
        # that have just become superfluous stay for a day: a reader may have begun before.
        merged = self._tidied(
            f"SELECT coalesce(sum(files_processed), 0) FROM ducklake_merge_adjacent_files("
            f"'{CATALOG}', max_compacted_files => {most_files})"
        )
        ended = self._tidied(
            f"SELECT count(*) FROM ducklake_expire_snapshots('{CATALOG}', "
            f"older_than => now() - INTERVAL {keep_days} DAY)"
        )
        age = f"older_than => now() - INTERVAL {min(keep_days, 1)} DAY"
        deleted = self._tidied(
            f"SELECT count(*) FROM ducklake_cleanup_old_files('{CATALOG}', {age})"
        )
        unknown, known = self._files_without_snapshot(age)
        if delete_unknown and unknown:
            if known:
                raise StorageError(
                    f"No unknown file was deleted: the data path of {self.place} is written in a "
                    "way in which DuckLake does not recognize the lake's own files. Delete the "
                    "files whose names the catalog does not have yourself.",
                    {"db_path": self.place},
                )
            deleted += self._tidied(f"SELECT count(*) FROM {_UNKNOWN_FILES}, {age})")
            unknown = 0
        return Tidied(merged, ended, deleted, unknown)

    def _files_without_snapshot(self, age: str) -> tuple[int, int]:
        """Return of how many files that DuckLake would delete the catalog lacks or has the name.

        DuckLake compares paths letter by letter: with `//` in the data path, it would delete every
        file of the lake. A long list of a store must not keep writers waiting.
        """
        is_known = f"parse_filename(path) IN ({_KNOWN_NAMES})"
        with self.opened("read") as connection:
            [(unknown, known)] = connection.execute(
                f"SELECT count(*) FILTER (NOT {is_known}), count(*) FILTER ({is_known}) "
                f"FROM {_UNKNOWN_FILES}, {age}, dry_run => true)"
            ).fetchall()
        return unknown, known

    def _tidied(self, sql: str) -> int:
        if self.read_only:
            raise ConfigError(f"{self.place} was opened to read.", {"db_path": self.place})
        with self.opened("write") as connection:
            return number(connection, sql)

    def describe(self) -> str:
        """Return the versions that work together, after a file was written and deleted."""
        with self.errors(), self._taken() as instance:
            instance.attach(self, may_create=False)
            with instance.cursor() as connection:
                connection.execute("BEGIN TRANSACTION")
                # Rolled back, so its file is deleted again; more rows than a catalog keeps itself.
                name = f"{CATALOG}.main.{quoted(f'_probe_{uuid.uuid4().hex}')}"
                connection.execute(f"CREATE TABLE {name} AS SELECT range AS a FROM range(10000)")
                connection.execute("ROLLBACK")
        [(postgres,)] = lake_lock.rows(self.location, "SHOW server_version")
        stored = _catalog_of(self.location)
        assert stored
        return (
            f"PostgreSQL {postgres}, DuckLake {stored['version']}, DuckDB {duckdb.__version__}; "
            f"{stored['data_path']} can be written"
        )

    @property
    def is_missing(self) -> bool:
        """Whether PostgreSQL has no catalog of a lake there."""
        with self.errors():
            return _catalog_of(self.location) is None

    def must_exist(self) -> None:
        """Check that there is a lake to read.

        Raises:
            DatabaseNotFoundError: There is none.
            StorageError: PostgreSQL cannot be used.
        """
        if self.is_missing:
            raise DatabaseNotFoundError(self.place)

    def must_not_be_lost(self) -> None:
        """Do nothing: there is no copy that could remain."""

    def make_place(self) -> None:
        """Do nothing: the first write creates the lake."""

    def _prepare_log(self) -> None:
        """Do nothing: PostgreSQL keeps the log."""


class _Instance:
    """A DuckDB in this process; its connections come and go, and the lake stays attached."""

    def __init__(self, start: Callable[[ExitStack], Connection]) -> None:
        self._resources = ExitStack()
        self._is_attached = False
        try:
            self._root = start(self._resources)
        except BaseException:
            self._resources.close()
            raise
        self._resources.callback(self._root.close)

    @contextmanager
    def cursor(self) -> Iterator[Connection]:
        """Yield a connection of its own."""
        with closing_connection(self._root.cursor()) as connection:
            set_up_session(connection)
            yield connection

    def attach(self, lake: Lake, *, may_create: bool) -> None:
        """Attach the lake, unless it is; the caller who may create it holds its lock.

        Raises:
            DatabaseNotFoundError: It does not exist.
            ConfigError: MP_DATA_PATH is not its data path, or is missing.
        """
        if self._is_attached:
            return
        location = lake.location
        stored = _catalog_of(location)
        if stored is None and not may_create:
            raise DatabaseNotFoundError(lake.place)
        data_path = _agreed_data_path(location, stored["data_path"] if stored else None)
        _attach(self._root, location, data_path, read_only=lake.read_only)
        if stored is None:
            # Snappy, the default, takes 1.7 times the bytes.
            self._root.execute(f"CALL {CATALOG}.set_option('parquet_compression', 'zstd')")
        if lake.confined:
            self._root.execute(f"SET allowed_directories = [{literal(data_path)}]")
            self._root.execute("SET enable_external_access = false")
        self._is_attached = True

    def close(self) -> None:
        """Close it and its connections to PostgreSQL; delete its spilled rows."""
        with suppress(duckdb.Error):
            self._root.interrupt()
        self._resources.close()


@dataclass
class _Idle:
    """DuckDBs that wait for their next use, by how they were opened.

    To start one, load the extensions and attach the lake takes half a second.
    """

    instances: dict[Any, list[_Instance]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    lost: list[Any] = field(default_factory=list)

    def take(self, key: object) -> _Instance | None:
        with self.lock:
            found = self.instances.get(key)
            return found.pop() if found else None

    def give_back(self, key: object, instance: _Instance) -> None:
        with self.lock:
            found = self.instances.setdefault(key, [])
            if len(found) < _MOST_IDLE:
                found.append(instance)
                return
        instance.close()

    def close(self) -> None:
        """Close all of them."""
        with self.lock:
            found = [one for some in self.instances.values() for one in some]
            self.instances.clear()
        for instance in found:
            instance.close()

    def forget(self) -> None:
        """In a forked process, leave those of its parent alone: their threads are not here."""
        self.lost.append(self.instances)
        self.instances, self.lock = {}, threading.Lock()


_IDLE = _Idle()
_STAGING: dict[int, _Instance] = {}  # by the connections that `Lake.staging` has yielded
close_lakes = _IDLE.close
atexit.register(close_lakes)
os.register_at_fork(after_in_child=_IDLE.forget)


def load_extensions(connection: Connection) -> None:
    """Load DuckDB's extensions from their wheels, without the network.

    Raises:
        ConfigError: A wheel is not installed, or is for another version of DuckDB.
    """
    for name in _EXTENSIONS:
        connection.execute(f"LOAD {literal(str(_extension(name)))}")


def _extension(name: str) -> Path:
    spec = find_spec(f"duckdb_extension_{name}")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise ConfigError(
            f"A DuckLake needs DuckDB's extension {name}, which is not installed: {_INSTALL}",
            {"extension": name},
        )
    versions = Path(folders[0], "extensions")
    file = versions / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"
    if not file.exists():
        found = ", ".join(sorted(path.name for path in versions.glob("v*"))) or "none"
        raise ConfigError(
            f"DuckDB is {duckdb.__version__}, but its extension {name} is for {found}. A DuckLake "
            f"needs versions that belong together: {_INSTALL}",
            {"extension": name, "duckdb": duckdb.__version__, "found": found},
        )
    return file


def _create_secrets(connection: Connection, location: LakeLocation, secret: str = _SECRET) -> None:
    """Give DuckDB the credentials; no statement contains one, so no error can show it."""
    if location.password:
        _create_secret(connection, f"{secret} (TYPE postgres", {"PASSWORD": location.password})
    given = {name: os.environ.get(f"MP_S3_{name}", "") for name in ("KEY_ID", "SECRET", "REGION")}
    options = {name: value for name, value in given.items() if value}
    endpoint = os.environ.get("MP_S3_ENDPOINT", "")
    if endpoint or options:
        host = re.sub(r"^https?://", "", endpoint).rstrip("/")
        address = {"ENDPOINT": host} if host else {}
        how = "TYPE s3"
        if host:  # not Amazon's
            is_plain = endpoint.startswith("http://")
            how += f", URL_STYLE 'path', USE_SSL {'false' if is_plain else 'true'}"
        _create_secret(connection, f"mixpanel_assets_s3 ({how}", options | address)


def _create_secret(connection: Connection, start: str, values: Mapping[str, str]) -> None:
    words = []
    for name, value in values.items():
        connection.execute(f"SET VARIABLE mixpanel_assets_{name} = ?", [value])
        words.append(f"{name} getvariable('mixpanel_assets_{name}')")
    connection.execute(f"CREATE OR REPLACE SECRET {start}, {', '.join(words)})")
    for name in values:
        connection.execute(f"RESET VARIABLE mixpanel_assets_{name}")


def _attach(
    connection: Connection,
    location: LakeLocation,
    data_path: str,
    name: str = CATALOG,
    secret: str = _SECRET,
    *,
    read_only: bool,
) -> None:
    from psycopg2.extensions import make_dsn, parse_dsn

    words = {"connect_timeout": "10", **lake_lock.KEEPALIVE, **parse_dsn(location.catalog)}
    words["application_name"] = process_name()
    catalog = f"ducklake:postgres:{make_dsn(**words)}"
    options = [f"DATA_PATH {literal(data_path)}"]
    if location.password:
        options.append(f"META_SECRET {literal(secret)}")
    if read_only:
        options.append("READ_ONLY")
    if not location.is_on_s3 and not read_only:
        try:
            Path(data_path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"The folder {data_path} for the files of the lake {location} cannot be made: "
                f"{error.strerror}. Set MP_DATA_PATH to a folder that this user may write.",
                {"data_path": data_path},
            ) from error
    connection.execute(f"ATTACH {literal(catalog)} AS {name} ({', '.join(options)})")


def _catalog_of(location: LakeLocation) -> dict[str, str] | None:
    """Return what a catalog says of itself, such as its `data_path`; None without a lake."""
    # In the schema in which DuckLake creates its tables.
    found = lake_lock.rows(location, "SELECT to_regclass('public.ducklake_metadata') IS NOT NULL")
    if found != [(True,)]:
        return None
    return dict(
        lake_lock.rows(
            location, "SELECT key, value FROM public.ducklake_metadata WHERE scope IS NULL"
        )
    )


def _agreed_data_path(location: LakeLocation, stored: str | None) -> str:
    given = location.data_path
    if stored is None and not given:
        raise ConfigError(
            f"The lake {location} does not exist yet. Set MP_DATA_PATH to the folder or the "
            "s3:// prefix for its files; the first load creates it."
        )
    if stored is not None and given and stored.rstrip("/") != given.rstrip("/"):
        raise ConfigError(
            f"MP_DATA_PATH is {given}, but the files of the lake {location} are in {stored}, as "
            "its catalog says. Set MP_DATA_PATH to that, or unset it; or name another database.",
            {"given": given, "stored": stored},
        )
    return stored or given


@contextmanager
def lake_errors(location: LakeLocation) -> Iterator[None]:
    """Raise errors of this package for faults of PostgreSQL, the object store and local disks.

    Raises:
        WriteConflictError: A program without our lock has committed in between.
        StorageError: One of them cannot be used.
    """
    with storage_errors(str(location)):
        try:
            yield
        except Exception as error:
            if not isinstance(error, (duckdb.Error, *_postgres_errors())):
                raise
            if isinstance(error, _OF_STATEMENT):
                raise
            said = _one_line(error)
            for pattern, advice in _FAULTS:
                if pattern.search(str(error)):
                    kind = WriteConflictError if advice is _CONFLICT else StorageError
                    message = advice.format(place=location, said=said)
                    raise kind(message, {"db_path": str(location), "said": said}) from error
            if isinstance(error, duckdb.Error):
                raise
            raise StorageError(
                f"The catalog of {location} could not be used: {said}", {"said": said}
            ) from error


def _postgres_errors() -> tuple[type[Exception], ...]:
    try:
        import psycopg2
    except ImportError:
        return ()
    return (psycopg2.Error,)


def _one_line(error: Exception) -> str:
    line = " ".join(str(error).split())
    return line if line.endswith((".", "!")) else f"{line}."
