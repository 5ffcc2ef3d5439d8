"""When the snapshot for readers is taken: as soon as those who write are done.

Whoever writes holds a shared lock meanwhile, which the kernel frees when its process dies.
Whoever ends as the last takes the snapshot, so the last commit of all is always in it; those
who end while others still write take one only if the snapshot is older than a minute.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Literal

import duckdb
from filelock import ReadWriteLock

from mixpanel_assets.errors import DatabaseLockedError, StorageError
from mixpanel_assets.rules.locks import Wait, kernel_holder, taken
from mixpanel_assets.warehouse.access import check_whose
from mixpanel_assets.warehouse.database import Database
from mixpanel_assets.warehouse.faults import translated
from mixpanel_assets.warehouse.lock import lock_at, named_if_foreign
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.snapshot import (
    is_snapshot,
    move_aside,
    open_snapshot,
    remove_snapshot,
    take_snapshot,
    what_is_in_the_way,
)
from mixpanel_assets.warehouse.stamp import Origin, Stamp, snapshot_path, stamp_of

SnapshotChoice = Literal["auto", "on", "off"]
LARGEST_BYTES = 5_000_000_000
SECONDS_BETWEEN = 60.0
_FAULTS = (StorageError, DatabaseLockedError, OSError, duckdb.Error, sqlite3.Error)
_HURRIED_SECONDS = 1.0
_ALONE_WITHIN_SECONDS = 0.2  # two who end at once disturb each other for a moment
_SAID: set[Path] = set()


class Publisher:
    """Lets the snapshot of a database follow what this process commits.

    Args:
        database: The database.
        choice: `auto` keeps a snapshot of a file below 5 GB, `on` of any, `off` of none; one that
            is no longer kept is removed, so that nobody reads old data from it.
        say: Gets a sentence when a snapshot is not kept, or could not be taken.
        patience_seconds: How long to wait for who holds the file, or takes a snapshot just now;
            no longer than the database's own `lock_timeout`.
        largest_bytes: Of the file, for `auto`.
        project: Whose data the file is to hold; None: whatever it holds.
    """

    def __init__(
        self,
        database: Database,
        choice: SnapshotChoice,
        say: Callable[[str], object],
        *,
        patience_seconds: float = 60.0,
        largest_bytes: int = LARGEST_BYTES,
        project: ProjectIdentity | None = None,
    ) -> None:
        if database.lock_timeout is not None:
            patience_seconds = min(patience_seconds, database.lock_timeout)
        self._lock_timeout = database.lock_timeout
        self._database = Database(
            database.given,
            memory_limit=database.memory_limit,
            lock_timeout=patience_seconds,
            on_wait=say,
            read_only=True,
        )
        self._choice = choice
        self._project = project
        self._say = say
        self._patience_seconds = patience_seconds
        self._largest_bytes = largest_bytes
        self._is_blocked: str | None = None
        self._load_has_failed = False

    @contextmanager
    def writing(self, *, more_follows: bool = False) -> Iterator[None]:
        """Write inside the block; when it is left, whatever ended it, the snapshot follows.

        Args:
            more_follows: Leave a snapshot that is younger than a minute to the block after this.

        Raises:
            ConfigError: The file holds another project.
            StorageError: The folder cannot be made or written, the path cannot be a database's,
                or the database is gone and its snapshot is what is left of it.
            DatabaseLockedError: A process that ends kept others from beginning for longer than the
                database's `lock_timeout`.
        """
        path = self._database.path
        self._database.make_place()
        self._database.must_not_be_lost()
        with suppress(DatabaseLockedError):  # the write that waits for it looks again
            check_whose(self._database, self._project)
        self._look_at_place()
        self._load_has_failed = False
        lock = path.with_name(f"{path.name}.writers")
        with translated(path):
            opened = lock_at(lock)
        with closing(opened) as writers:
            with translated(path), named_if_foreign(lock):
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
                self.publish(is_last=not more_follows and _is_free(writers))

    def publish(self, *, is_last: bool) -> None:
        """Take a snapshot if the one there is older than the file; a fault is only told.

        Args:
            is_last: Nobody else will do it, so take it however young the one there is.
        """
        with self._faults_told():
            if self._is_blocked or not self._can_be_kept():
                return
            if not self._is_wanted():
                self._remove()
            elif not self._is_current() and (is_last or self._is_due()):
                self._take(wait=is_last)

    def renew(self) -> None:
        """Take a snapshot for a reader, who removes none: those who write decide about that."""
        with self._faults_told():
            if self._can_be_kept() and self._is_wanted() and not self._is_current():
                self._take(wait=True)

    @contextmanager
    def _faults_told(self) -> Iterator[None]:
        try:
            yield
        except _FAULTS as error:
            if self._load_has_failed:  # for a reason that says it all
                return
            self._say(
                f"The snapshot for readers, {snapshot_path(self._database.path)}, could not be "
                f"taken: {error} What was loaded is stored; the next run tries again."
            )

    def _take(self, *, wait: bool) -> None:
        path = snapshot_path(self._database.path)
        lock = path.with_name(f"{path.name}.lock")
        patience_seconds = self._present_patience()
        timeout = 10 * patience_seconds if wait else 0.0
        with closing(lock_at(lock)) as one_at_a_time:
            try:
                with named_if_foreign(lock):
                    self._acquire(one_at_a_time.acquire_write, "the snapshot", path, lock, timeout)
            except DatabaseLockedError:
                if wait:
                    raise
                return
            if not self._is_current():
                self._database.lock_timeout = patience_seconds
                take_snapshot(self._database)

    def _acquire(
        self,
        acquire: Callable[..., object],
        what: str,
        path: Path,
        lock: Path,
        timeout: float | None,
    ) -> None:
        wait = Wait(f"{what} {path}", path, timeout, self._say)
        wait.until(lambda: taken(acquire), lambda: kernel_holder(lock))

    def _present_patience(self) -> float:
        """Return how long to wait for a lock: not long while an interrupt ends the process."""
        error = sys.exc_info()[1]
        is_interrupted = error is not None and not isinstance(error, Exception)
        return min(self._patience_seconds, _HURRIED_SECONDS if is_interrupted else float("inf"))

    def _can_be_kept(self) -> bool:
        path = self._database.path
        return not (
            self._database.is_missing or is_snapshot(path) or not os.access(path.parent, os.W_OK)
        )

    def _is_wanted(self) -> bool:
        return self._choice != "off" and not self._is_too_large()

    def _is_too_large(self) -> bool:
        size = self._database.path.stat().st_size
        return self._choice == "auto" and size > self._largest_bytes

    def _remove(self) -> None:
        """Remove the snapshot that nobody keeps up to date, and say so."""
        path, too_large = self._database.path, self._is_too_large()
        if remove_snapshot(path) or (too_large and path not in _SAID):
            _SAID.add(path)
            self._say(_why_not(path, self._largest_bytes if too_large else None))

    def _is_current(self) -> bool:
        with open_snapshot(self._database) as snapshot:
            return snapshot is not None and snapshot.stamp.is_of_now(self._database.path)

    def _is_due(self) -> bool:
        with suppress(OSError):
            taken = snapshot_path(self._database.path).stat().st_mtime
            return abs(time.time() - taken) >= SECONDS_BETWEEN
        return True

    def _look_at_place(self) -> None:
        """Move the snapshot of another database aside, and tell of a file that is no snapshot."""
        at_once = Database(self._database.given, lock_timeout=0, read_only=True)
        stamp = stamp_of(snapshot_path(at_once.path))
        blocked_before, self._is_blocked = self._is_blocked, None
        if stamp is None:
            self._is_blocked = what_is_in_the_way(at_once.path)
            if self._is_blocked not in (None, blocked_before) and self._choice != "off":
                self._say(self._is_blocked)
        elif not stamp.is_of_now(at_once.path):
            # A process that holds the file has looked itself.
            with suppress(DatabaseLockedError), at_once.read() as connection:
                if not stamp.origin.may_be(Origin.of(connection)):
                    self._say(_moved(at_once.path, stamp))


def _moved(database: Path, stamp: Stamp) -> str:
    return (
        f"{snapshot_path(database)} was the snapshot of {stamp.origin}, not of {database}. It may "
        f"be the last copy, so it was renamed: {move_aside(database, stamp)}"
    )


def _why_not(path: Path, limit: int | None) -> str:
    if limit is None:
        return "No snapshot for readers is kept: MP_SNAPSHOT is off. They wait for who writes."
    return (
        f"No snapshot for readers is kept: {path} is larger than {limit / 1e9:.0f} GB. They wait "
        "for who writes. MP_SNAPSHOT=on keeps one all the same."
    )


def _is_free(lock: ReadWriteLock) -> bool:
    until = time.monotonic() + _ALONE_WITHIN_SECONDS
    while not taken(lock.acquire_write):
        if time.monotonic() > until:
            return False
        time.sleep(_ALONE_WITHIN_SECONDS / 20)
    lock.release()
    return True
