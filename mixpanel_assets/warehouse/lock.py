"""The lock beside a database: one writer or many readers, across processes and threads.

The kernel frees it when its holder dies. Waiting sleeps, says whom it waits for, and
has no end of its own unless a timeout is given.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from filelock import ReadWriteLock, Timeout

from mixpanel_assets.errors import DatabaseLockedError, StorageError
from mixpanel_assets.warehouse.holder import find_holder, leave_note, remove_note

Mode = Literal["read", "write"]

_HELD_HERE: dict[tuple[Path, int], Mode] = {}


@dataclass
class Wait:
    """One wait for one database: when it began, when it must end, what was said.

    Attributes:
        path: The database waited for.
        timeout: Seconds from the start of the wait; None waits without end.
        on_wait: Gets a sentence when waiting begins and then once per `repeat_seconds`.
        quiet_seconds: A wait shorter than this is not worth a word.
        repeat_seconds: Seconds between two sentences.
    """

    path: Path
    timeout: float | None = None
    on_wait: Callable[[str], None] | None = None
    quiet_seconds: float = 1.0
    repeat_seconds: float = 60.0
    began: float = field(default_factory=time.monotonic)
    said_at: float | None = None

    def remaining(self) -> float:
        """Return the seconds left; infinity when nothing bounds the wait."""
        if self.timeout is None:
            return float("inf")
        return max(0.0, self.began + self.timeout - time.monotonic())

    def check(self, pid: int | None, holder: str) -> None:
        """Say whom we wait for when it is time to.

        Raises:
            DatabaseLockedError: The time allowed is over.
        """
        waited = time.monotonic() - self.began
        if not self.remaining():
            raise DatabaseLockedError(
                str(self.path),
                pid,
                f"The database {self.path} is held by {holder}; gave up after {waited:.0f} s. "
                "Wait for it to finish, or raise MP_LOCK_TIMEOUT.",
            )
        if self.on_wait and self._is_time_to_speak(waited):
            self.said_at = time.monotonic()
            self.on_wait(
                f"Waiting for the database {self.path}: it is held by {holder}; "
                f"{waited:.0f} s so far."
            )

    def _is_time_to_speak(self, waited: float) -> bool:
        if self.said_at is None:
            return waited >= self.quiet_seconds
        return time.monotonic() - self.said_at >= self.repeat_seconds


@contextmanager
def locked(path: Path, mode: Mode, *, wait: Wait, poll_seconds: float) -> Iterator[None]:
    """Hold the lock of the database at `path` inside the block.

    Raises:
        DatabaseLockedError: The wait's timeout passed.
        StorageError: This thread already holds the lock, so waiting would never end; or a file of
            others has the lock's name.
    """
    file = path.with_name(f"{path.name}.lock")
    with _noted(path, mode):
        lock = lock_at(file)
        try:
            with named_if_foreign(file):
                _acquire(lock, path, mode, wait, poll_seconds)
            with _note(path, mode):
                yield
        finally:
            lock.close()


def lock_at(file: Path) -> ReadWriteLock:
    """Return a lock of one holder's own, which `close` frees.

    Raises:
        StorageError: A file of others has the lock's name.
    """
    with named_if_foreign(file):
        return ReadWriteLock(file, is_singleton=False)


@contextmanager
def named_if_foreign(lock: Path) -> Iterator[None]:
    """Raise an error that names the lock's file, if that is no lock.

    Raises:
        StorageError: It is a folder, a link or another program's file; it is left alone.
    """
    try:
        yield
    except (OSError, sqlite3.DatabaseError) as error:
        is_file = lock.is_file() and not lock.is_symlink()
        if (is_file and "not a database" not in str(error)) or not os.path.lexists(lock):
            raise
        raise StorageError(
            f"{lock} is in the way: its name is that of a lock, but it is none, so it is left "
            "alone. Move it away, or set MP_DATABASE to another place.",
            {"lock": str(lock)},
        ) from error


@contextmanager
def _noted(path: Path, mode: Mode) -> Iterator[None]:
    key = (path, threading.get_ident())
    held = _HELD_HERE.get(key)
    if held and "write" in {held, mode}:
        raise StorageError(
            f"This thread already has {path} open to {held}. Leave that `with` block before "
            f"opening the database to {mode}.",
            {"db_path": str(path)},
        )
    if held:
        yield
        return
    _HELD_HERE[key] = mode
    try:
        yield
    finally:
        _HELD_HERE.pop(key, None)


@contextmanager
def _note(path: Path, mode: Mode) -> Iterator[None]:
    if mode == "read":
        yield
        return
    note = note_path(path)
    leave_note(note)
    try:
        yield
    finally:
        remove_note(note)


def note_path(path: Path) -> Path:
    """Return where the writer of the database at `path` leaves its note."""
    return path.with_name(f"{path.name}.lock.holder")


def _acquire(lock: ReadWriteLock, path: Path, mode: Mode, wait: Wait, poll_seconds: float) -> None:
    acquire = lock.acquire_write if mode == "write" else lock.acquire_read
    while True:
        with suppress(Timeout):
            acquire(timeout=min(poll_seconds, wait.remaining()))
            return
        holder = find_holder(note_path(path), path)
        wait.check(holder.pid if holder else None, str(holder or "another process"))
