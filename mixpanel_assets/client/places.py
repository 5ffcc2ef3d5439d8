"""Where a request ledger lives: a file that all processes of a user share, or this process.

A ledger file holds times of requests and nothing of Mixpanel's data. Locks are the kernel's
and are freed when their holder dies.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from mixpanel_assets.client.limits import IN_PROCESS, BudgetSettings
from mixpanel_assets.errors import StorageError
from mixpanel_assets.rules.locks import Wait, held, kernel_holder, say

logger = logging.getLogger(__name__)

_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700
_POLL_SECONDS = 0.005  # a decision takes less
_BUSY_MILLISECONDS = 5_000
_SAID_EVERY_SECONDS = 60.0

Release = Callable[[], None]
Opened = tuple[sqlite3.Connection, Any]


class Place(Protocol):
    """Opens the ledger's tables, and counts who is at work."""

    def open(self) -> AbstractContextManager[Opened]:
        """Yield a connection and the lock that guards it, held by the caller."""

    def slot(self, name: str) -> Release | None:
        """Take a named slot and return what gives it back, or None: somebody has it."""

    def __str__(self) -> str:
        """Say in words where this is."""


class FilePlace:
    """A SQLite file beside its lock files.

    Args:
        path: The file.
        timeout: Seconds to wait while other processes hold it; None: without end.
        cancelled: Ends such a wait when it is set.
    """

    def __init__(
        self,
        path: Path,
        *,
        timeout: float | None = None,
        cancelled: threading.Event | None = None,
    ) -> None:
        self.path = path
        self._timeout = timeout
        self._cancelled = cancelled
        self._said_at = float("-inf")

    def __str__(self) -> str:
        return str(self.path)

    def prepare(self) -> None:
        """Make the folder and the file, readable by their owner only.

        Raises:
            OSError: They cannot be made.
            sqlite3.Error: The file is not a database.
            DatabaseLockedError: As `open`.
        """
        for folder in reversed([self.path.parent, *self.path.parent.parents]):
            if not folder.exists():
                folder.mkdir(_PRIVATE_FOLDER, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, _PRIVATE_FILE))
        with self._connection() as (connection, _):
            connection.execute("PRAGMA user_version").fetchone()

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Yield a connection of the moment; waiting for a permit keeps none.

        Raises:
            StorageError: The file can no longer be read or written.
            DatabaseLockedError: Another process held it for too long, or the wait was cancelled.
        """
        try:
            with self._connection() as opened:
                yield opened
        except (OSError, sqlite3.Error) as error:
            raise StorageError(
                f"The request ledger {self.path} cannot be used: {error}. "
                f"Free the disk, or set MP_STATE_DIR to another folder or to {IN_PROCESS}."
            ) from error

    @contextmanager
    def _connection(self) -> Iterator[Opened]:
        lock = FileLock(f"{self.path}.lock", mode=_PRIVATE_FILE)
        wait = Wait(
            f"the request ledger {self.path}",
            self.path,
            self._timeout,
            self._say,
            self._cancelled,
            advice="Wait for it to finish, or set MP_STATE_DIR to another folder.",
        )
        with (
            held(lock, wait, poll_seconds=_POLL_SECONDS),
            closing(sqlite3.connect(self.path, timeout=0)) as connection,
        ):
            # Another program may have the file open without our lock.
            wait.until(lambda: _is_begun(connection), lambda: kernel_holder(self.path))
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
            yield connection, lock

    def _say(self, text: str) -> None:
        """Say for which process threads wait, once for all of them."""
        if time.monotonic() - self._said_at >= _SAID_EVERY_SECONDS:
            self._said_at = time.monotonic()
            say(text)

    def slot(self, name: str) -> Release | None:
        """Lock the slot's file, from whichever process and thread.

        Raises:
            StorageError: The file cannot be locked.
        """
        file = self.path.with_suffix(f".{name}.lock")
        # Given back by the thread that ends the answer, which may be another one.
        lock = FileLock(file, mode=_PRIVATE_FILE, thread_local=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return None
        except OSError as error:
            raise StorageError(
                f"{file} cannot be locked: {error.strerror or error}. Move it away, or set "
                f"MP_STATE_DIR to another folder or to {IN_PROCESS}."
            ) from error
        return lock.release


def _is_begun(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


class ProcessPlace:
    """A ledger in memory, shared by all threads of this process."""

    _lock = threading.RLock()
    _connections: dict[str, sqlite3.Connection] = {}  # noqa: RUF012 - guarded by the lock above
    _slots: dict[str, threading.Lock] = {}  # noqa: RUF012

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return "this process alone"

    @contextmanager
    def open(self) -> Iterator[Opened]:
        """Yield the one connection there is."""
        with self._lock:
            if self.name not in self._connections:
                connection = sqlite3.connect(":memory:", check_same_thread=False)
                atexit.register(connection.close)
                self._connections[self.name] = connection
            yield self._connections[self.name], self._lock

    def slot(self, name: str) -> Release | None:
        """Take the slot, from whichever thread."""
        with self._lock:
            slot = self._slots.setdefault(f"{self.name}.{name}", threading.Lock())
        return slot.release if slot.acquire(blocking=False) else None


_told: set[str] = set()


def find_place(
    settings: BudgetSettings,
    project: str,
    *,
    timeout: float | None = None,
    cancelled: threading.Event | None = None,
) -> Place:
    """Return the project's file, or this process where no file can be; that is told once.

    Args:
        settings: Names the folder.
        project: What the budget belongs to, such as `us-12345`.
        timeout: Seconds to wait while other processes hold the file; None: without end.
        cancelled: Ends such a wait when it is set.

    Raises:
        DatabaseLockedError: Another process held the file for too long.
    """
    name = re.sub(r"[^0-9A-Za-z.-]+", "_", project)
    if str(settings.state_dir) == IN_PROCESS:
        return ProcessPlace(name)
    try:
        folder = Path(settings.state_dir or "~/.mp/state").expanduser().absolute()
        place = FilePlace(folder / f"{name}.sqlite", timeout=timeout, cancelled=cancelled)
        place.prepare()
    except (OSError, RuntimeError, sqlite3.Error) as error:
        _tell_once(str(settings.state_dir or "~/.mp/state"), error)
        return ProcessPlace(name)
    return place


def _tell_once(path: str, error: Exception) -> None:
    if path not in _told:
        _told.add(path)
        logger.warning(
            "Requests to Mixpanel are counted in this process only: %s cannot be used (%s). "
            "Other processes may spend the same budget; set MP_STATE_DIR to a writable folder.",
            path,
            error,
        )
