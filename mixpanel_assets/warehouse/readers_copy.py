"""The copy of the database for readers: read-only access without waiting for writers.

It is taken when the last writer ends, replaced by a rename, and read by any number of processes.
Users know it as the snapshot: MP_SNAPSHOT turns it on or off, its name ends with `.snapshot`.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import duckdb
from duckdb import DuckDBPyConnection as Connection
from filelock import ReadWriteLock

from mixpanel_assets.errors import DatabaseLockedError, DatabaseNotFoundError, StorageError
from mixpanel_assets.rules.location import LakeLocation, Location
from mixpanel_assets.rules.locks import Wait, kernel_holder, try_lock
from mixpanel_assets.warehouse.database import (
    CATALOG,
    Database,
    check_whose,
    closing_connection,
    set_up_session,
)
from mixpanel_assets.warehouse.faults import storage_errors
from mixpanel_assets.warehouse.files import draft_path, follow, remove_drafts
from mixpanel_assets.warehouse.lake import Lake
from mixpanel_assets.warehouse.lock import Mode, lock_at, named_if_foreign
from mixpanel_assets.warehouse.project import (
    Origin,
    ProjectIdentity,
    Stamp,
    copy_path,
    is_copy_path,
    log_path,
    read_stamp,
    version_of,
)
from mixpanel_assets.warehouse.schema import SCHEMA, STAMP, literal

logger = logging.getLogger(__name__)


_COPIED_AT_ONCE = 1 << 30  # bytes; Linux copies at most 2 GB with one call


@dataclass(frozen=True)
class ReadersCopy:
    """An open copy, and its stamp: what was copied and when."""

    connection: Connection
    stamp: Stamp


def is_copy(path: Path) -> bool:
    """Return whether a file is a copy, by its name and its missing permission to write."""
    return is_copy_path(path) and not path.stat().st_mode & 0o222


@contextmanager
def open_copy(database: Database) -> Iterator[ReadersCopy | None]:
    """Yield the copy of this very file; None without a readable one."""
    copy = _CopyFile(copy_path(database.path), memory_limit=database.memory_limit, lock_timeout=0)
    with ExitStack() as opened:
        readable = None
        with suppress(DatabaseNotFoundError, DatabaseLockedError, StorageError, duckdb.Error):
            connection = opened.enter_context(copy.opened("read"))
            stamp = Stamp.read(connection)
            readable = ReadersCopy(connection, stamp) if stamp else None
        yield readable if readable and readable.stamp.is_of_file(database.path) else None


class _CopyFile(Database):
    """A copy needs no lock: it is never changed, only replaced by a rename."""

    @contextmanager
    def _lock(self, mode: Mode, wait: Wait) -> Iterator[None]:
        yield


def take_copy(database: Database) -> Stamp:
    """Copy the database, blocking writers, and replace the previous copy.

    The caller ensures that one process at a time does this.

    Raises:
        DatabaseLockedError: A writer held the file for longer than `lock_timeout`.
        StorageError: The disk is full, the folder cannot be written, the copy is incomplete, or
            another file has its name.
    """
    target = copy_path(database.path)
    remove_drafts(target)
    _check_disk_room(database.path)
    draft = draft_path(target)
    try:
        with database.read() as connection:
            stamp = Stamp(datetime.now(UTC), version_of(database.path), Origin.of(connection))
            if said := obstacle_to_copy(database.path, stamp.origin):
                raise StorageError(said, {"db_path": str(target)})
            with storage_errors(target):
                if log_path(database.path).exists():
                    _copy(log_path(database.path), log_path(draft), database.path)
                # Last: POSIX ends all locks of a process on a file when it closes one handle.
                _copy(database.path, draft, database.path)
        with storage_errors(target):
            _finish_copy(draft, stamp)
            log_path(target).unlink(missing_ok=True)
            draft.replace(target)
            _sync_copy(target.parent)
    finally:
        remove_drafts(target)
    return stamp


def remove_copy(database: Path) -> bool:
    """Delete the copy, which open readers keep; return whether there was one."""
    target = copy_path(database)
    if read_stamp(target) is None:
        return False
    target.unlink(missing_ok=True)
    return True


def obstacle_to_copy(database: Path, origin: Origin | None = None) -> str | None:
    """Return a sentence about the file that has the copy's name; None if there is none.

    The copy of the database with this `origin` is no obstacle; with None, no copy is.
    """
    target = copy_path(database)
    stamp = read_stamp(target)
    if stamp and (origin is None or stamp.origin.may_be(origin)):
        return None
    for file in (target, log_path(target)):
        if os.path.lexists(file):
            what = f"the snapshot of {stamp.origin}" if stamp else f"no snapshot of {database}"
            return (
                f"No snapshot for readers is kept, and they wait for loads: {file} is {what}, so "
                "it is left alone. Move it away, or set MP_SNAPSHOT=off."
            )
    return None


def move_aside(database: Path, stamp: Stamp) -> Path:
    """Rename the copy of another database, perhaps all that is left of it; return its new path."""
    target = copy_path(database)
    name = f"{target.stem}.{stamp.taken_at:%Y-%m-%dT%H-%M-%S}-{uuid.uuid4().hex[:8]}{target.suffix}"
    with storage_errors(target):
        return target.rename(target.with_name(name))


def _check_disk_room(database: Path) -> None:
    """Refuse to fill the disk, which running loads need."""
    if database.exists() and shutil.disk_usage(database.parent).free < database.stat().st_size:
        raise StorageError(f"The disk has no room for a copy of {database}.")


def _copy(source: Path, target: Path, database: Path) -> None:
    """Copy a file with the database's permissions; XFS and Btrfs share its blocks."""
    with source.open("rb") as old, open(target, "xb", opener=_private_copy) as new:
        follow(new.fileno(), database)
        try:
            while os.copy_file_range(old.fileno(), new.fileno(), _COPIED_AT_ONCE):
                pass
        except (AttributeError, OSError):  # this system or file system cannot
            old.seek(0)
            new.seek(0)
            shutil.copyfileobj(old, new, 1 << 20)


def _private_copy(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _finish_copy(draft: Path, stamp: Stamp) -> None:
    """Stamp a copy, and apply the log that a killed writer left."""
    with closing_connection(duckdb.connect()) as connection:
        set_up_session(connection)
        connection.execute(f"ATTACH {literal(str(draft))} AS {CATALOG} (TYPE duckdb)")
        connection.execute(f"USE {CATALOG}")
        connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{SCHEMA}"')
        connection.execute(
            f"CREATE OR REPLACE TABLE {STAMP} AS SELECT ?::TIMESTAMP AS taken_at, ? AS version",
            [stamp.taken_at.replace(tzinfo=None), stamp.version],
        )
        connection.execute(f"CHECKPOINT {CATALOG}")
    if log_path(draft).exists():
        raise StorageError(f"The copy {draft} kept a log of its own.")
    draft.chmod(draft.stat().st_mode & ~0o222)  # so that writing to it fails
    _sync_copy(draft)


def _sync_copy(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


CopyChoice = Literal["auto", "on", "off"]
LARGEST_BYTES = 5_000_000_000  # a copy needs as much disk, and blocks writers while it is taken
SECONDS_BETWEEN = 60.0  # so that a run with many short commits does not copy the file for each
_COPY_FAULTS = (StorageError, DatabaseLockedError, OSError, duckdb.Error, sqlite3.Error)
_HURRIED_SECONDS = 1.0  # Ctrl-C must not take longer
_FREE_WITHIN_SECONDS = 0.2  # two processes that end at once both hold the lock for a moment
_REPORTED: set[Path] = set()


class Publisher:
    """Renews the copy for readers after this process has committed.

    Args:
        database: The database.
        choice: `auto` keeps a copy of a file below 5 GB, `on` of any, `off` of none. A copy that
            is no longer kept is deleted, so that no reader gets old data.
        say: Called with a sentence when there is no copy, or it could not be renewed.
        patience_seconds: Seconds to wait for the file, or for another process that takes the copy;
            at most the database's `lock_timeout`.
        largest_bytes: Size limit of the file for `auto`.
        project: The project that the file must hold; None: any.
    """

    def __init__(
        self,
        database: Database,
        choice: CopyChoice,
        say: Callable[[str], object],
        *,
        patience_seconds: float = 60.0,
        largest_bytes: int = LARGEST_BYTES,
        project: ProjectIdentity | None = None,
    ) -> None:
        if database.lock_timeout is not None:
            patience_seconds = min(patience_seconds, database.lock_timeout)
        self._lock_timeout = database.lock_timeout
        self._database = database.reader(patience_seconds, say)
        self._copy_choice = choice
        self._project = project
        self._say = say
        self._patience_seconds = patience_seconds
        self._largest_bytes = largest_bytes
        self._copy_obstacle: str | None = None
        self._load_has_failed = False

    @contextmanager
    def writing(self, *, more_follows: bool = False) -> Iterator[None]:
        """Write inside the block; renew the copy after it, also after an error.

        Args:
            more_follows: Another block follows: renew only a copy that is older than a minute.

        Raises:
            ConfigError: The file holds another project.
            StorageError: The folder cannot be written, the path cannot be a database's, or the
                database is missing and its copy exists.
            DatabaseLockedError: A process that was ending held the list of writers for longer than
                the database's `lock_timeout`.
        """
        path = self._database.path
        self._database.make_place()
        self._database.must_not_be_lost()
        if not self._database.needs_copy:
            yield
            return
        with suppress(DatabaseLockedError):  # the write, which waits, checks again
            check_whose(self._database, self._project)
        self._check_copy_name()
        self._load_has_failed = False
        lock = path.with_name(f"{path.name}.writers")
        with storage_errors(path):
            opened = lock_at(lock)
        with closing(opened) as writers:
            with storage_errors(path), named_if_foreign(lock):
                self._acquire(
                    writers.acquire_read, "the list of writers", lock, lock, self._lock_timeout
                )
            try:
                yield
            except StorageError:
                self._load_has_failed = True
                raise
            finally:
                writers.release()
                self.publish(is_last=not more_follows and _is_lock_free(writers))

    def publish(self, *, is_last: bool) -> None:
        """Take a copy if the present one is older than the file; report errors, raise none.

        Args:
            is_last: No other process writes, so do not wait until the present copy is a minute old.
        """
        with self._reported_copy_faults():
            if self._copy_obstacle or not self._can_keep_copy():
                return
            if not self._is_copy_wanted():
                self._remove_copy()
            elif not self._is_copy_current() and (is_last or self._is_copy_due()):
                self._take_copy(wait=is_last)

    def renew(self) -> None:
        """Take a copy for a reader; unlike writers, it never deletes one."""
        with self._reported_copy_faults():
            if self._can_keep_copy() and self._is_copy_wanted() and not self._is_copy_current():
                self._take_copy(wait=True)

    @contextmanager
    def _reported_copy_faults(self) -> Iterator[None]:
        try:
            yield
        except _COPY_FAULTS as error:
            if self._load_has_failed:  # its error says enough
                return
            self._say(
                f"The snapshot for readers, {copy_path(self._database.path)}, could not be "
                f"taken: {error} What was loaded is stored; the next run tries again."
            )

    def _take_copy(self, *, wait: bool) -> None:
        path = copy_path(self._database.path)
        lock = path.with_name(f"{path.name}.lock")
        patience_seconds = self._lock_patience()
        timeout = 10 * patience_seconds if wait else 0.0
        with closing(lock_at(lock)) as one_at_a_time:
            try:
                with named_if_foreign(lock):
                    self._acquire(one_at_a_time.acquire_write, "the snapshot", path, lock, timeout)
            except DatabaseLockedError:
                if wait:
                    raise
                return
            if not self._is_copy_current():
                self._database.lock_timeout = patience_seconds
                take_copy(self._database)

    def _acquire(
        self,
        acquire: Callable[..., object],
        what: str,
        path: Path,
        lock: Path,
        timeout: float | None,
    ) -> None:
        wait = Wait(f"{what} {path}", path, timeout, self._say)
        wait.until(lambda: try_lock(acquire), lambda: kernel_holder(lock))

    def _lock_patience(self) -> float:
        """Return the seconds to wait for a lock: few while an interrupt ends the process."""
        error = sys.exc_info()[1]
        is_interrupted = error is not None and not isinstance(error, Exception)
        return min(self._patience_seconds, _HURRIED_SECONDS if is_interrupted else float("inf"))

    def _can_keep_copy(self) -> bool:
        path = self._database.path
        return not (
            self._database.is_missing or is_copy(path) or not os.access(path.parent, os.W_OK)
        )

    def _is_copy_wanted(self) -> bool:
        return self._copy_choice != "off" and not self._is_database_too_large()

    def _is_database_too_large(self) -> bool:
        size = self._database.path.stat().st_size
        return self._copy_choice == "auto" and size > self._largest_bytes

    def _remove_copy(self) -> None:
        """Delete a copy that is not renewed, and say so."""
        path, too_large = self._database.path, self._is_database_too_large()
        if remove_copy(path) or (too_large and path not in _REPORTED):
            _REPORTED.add(path)
            self._say(_no_copy_message(path, self._largest_bytes if too_large else None))

    def _is_copy_current(self) -> bool:
        stamp = read_stamp(copy_path(self._database.path))
        return stamp is not None and stamp.is_of_now(self._database.path)

    def _is_copy_due(self) -> bool:
        with suppress(OSError):
            copied_at = copy_path(self._database.path).stat().st_mtime
            return abs(time.time() - copied_at) >= SECONDS_BETWEEN
        return True

    def _check_copy_name(self) -> None:
        """Move the copy of another database aside; report a file that is not a copy."""
        database = self._database.reader(0)
        stamp = read_stamp(copy_path(database.path))
        obstacle_before, self._copy_obstacle = self._copy_obstacle, None
        if stamp is None:
            self._copy_obstacle = obstacle_to_copy(database.path)
            if self._copy_obstacle not in (None, obstacle_before) and self._copy_choice != "off":
                self._say(self._copy_obstacle)
        elif not stamp.is_of_now(database.path):
            # The lock holder has already checked.
            with suppress(DatabaseLockedError), database.read() as connection:
                if not stamp.origin.may_be(Origin.of(connection)):
                    self._say(
                        f"{copy_path(database.path)} was the snapshot of {stamp.origin}, not of "
                        f"{database.path}. It may be the last copy, so it was renamed: "
                        f"{move_aside(database.path, stamp)}"
                    )


def _no_copy_message(path: Path, limit: int | None) -> str:
    if limit is None:
        return "No snapshot for readers is kept: MP_SNAPSHOT is off. They wait for writers."
    return (
        f"No snapshot for readers is kept: {path} is larger than {limit / 1e9:.0f} GB. They wait "
        "for writers. MP_SNAPSHOT=on keeps one all the same."
    )


def _is_lock_free(lock: ReadWriteLock) -> bool:
    until = time.monotonic() + _FREE_WITHIN_SECONDS
    while not try_lock(lock.acquire_write):
        if time.monotonic() > until:
            return False
        time.sleep(_FREE_WITHIN_SECONDS / 20)
    lock.release()
    return True


_BRIEFLY_SECONDS = 0.5  # most writes take less, and the file is newer than its copy


class ReadersDatabase(Database):
    """Read-only access that neither waits for writers nor blocks them.

    A read uses the copy if that is as new as the file; otherwise the file, if it is free within
    half a second; otherwise the copy, with a sentence about its age. Without a copy it waits for
    the file.

    Arguments are those of `Database`; it must be `read_only`.

    Attributes:
        choice: Whether there is to be a copy; see `Publisher`.
    """

    choice: CopyChoice = "auto"

    def hold(self) -> Connection:
        """Open what a read would, and keep it open.

        Raises:
            DatabaseNotFoundError: There is no file.
            StorageError: It cannot be read.
        """
        # First renew the copy, if the file is free: holding the file itself would block writers.
        if self._held is None:
            Publisher(self, self.choice, logger.debug, patience_seconds=0).renew()
        return super().hold()

    @contextmanager
    def _connect(
        self, mode: Mode, logged: bool = False, staging: Connection | None = None
    ) -> Iterator[Connection]:
        self.must_exist()
        with ExitStack() as opened:
            yield self._open_newest_copy(opened)

    def _open_newest_copy(self, opened: ExitStack) -> Connection:
        copy = opened.enter_context(open_copy(self))
        self.snapshot_age = None
        if copy and copy.stamp.is_of_now(self.path):
            return copy.connection
        if copy is None:
            return opened.enter_context(super()._connect("read"))
        with suppress(DatabaseLockedError):
            return opened.enter_context(self.reader(_BRIEFLY_SECONDS).opened("read"))
        self.snapshot_age = copy.stamp.age
        self._report_copy_age(copy.stamp)
        return copy.connection

    def _report_copy_age(self, stamp: Stamp) -> None:
        sentence = (
            f"{self.path} is being written to. Read instead: its snapshot of "
            f"{stamp.taken_at:%Y-%m-%d %H:%M:%S} UTC, {stamp.age:.0f} s old."
        )
        logger.info(sentence)
        if self.on_wait:
            self.on_wait(sentence)


def database_at(
    location: Location,
    *,
    memory_limit: str = "1GB",
    lock_timeout: float | None = None,
    on_wait: Callable[[str], None] | None = None,
    read_only: bool = False,
    snapshot: CopyChoice = "off",
) -> Database:
    """Return a database that is not yet opened; no other room names a class of databases.

    Arguments are those of `Database` and `Lake`. With `snapshot`, a read-only file may be read from
    its copy.
    """
    if isinstance(location, LakeLocation):
        return Lake(
            location,
            memory_limit=memory_limit,
            lock_timeout=lock_timeout,
            on_wait=on_wait,
            read_only=read_only,
        )
    database = (ReadersDatabase if read_only and snapshot != "off" else Database)(
        location,
        memory_limit=memory_limit,
        lock_timeout=lock_timeout,
        on_wait=on_wait,
        read_only=read_only,
    )
    if isinstance(database, ReadersDatabase):
        database.choice = snapshot
    return database
