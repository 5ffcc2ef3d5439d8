"""Locks between processes: marks of files in use, and waits for a held lock.

The kernel frees a lock when its holder dies; ages and process ids are not trusted. A wait names
the holder and ends at once on Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from mixpanel_assets.errors import DatabaseLockedError, visible

logger = logging.getLogger(__name__)


_KERNEL_LOCKS = Path("/proc/locks")
# Other users see the command line of a holder. In URLs, connection strings and options:
_SECRETS = re.compile(
    r"(?P<start>:/+[^\s/@:]*:)\S*(?=@)"
    r"|(?P<word>(?:passw\w*|pwd|secret|token)(?:\s*=\s*|\s+))('(?:[^'\\]|\\.)*'?|\S+)",
    re.IGNORECASE,
)
_SHOWN_WORDS, _SHOWN_CHARACTERS = 4, 80


@dataclass(frozen=True)
class Holder:
    """A process, its command line and its start in UTC, as far as they are known."""

    pid: int
    what: str = ""
    since: str = ""

    def __str__(self) -> str:
        holder = f"{self.what}, since {self.since} UTC" if self.since else self.what
        return visible(f"process {self.pid}" + (f" ({holder})" if holder else ""))


@dataclass
class Wait:
    """One wait for one lock: its beginning, its end and its messages.

    Attributes:
        what: The locked thing in words, such as `the database /data/x.duckdb`.
        timeout: Seconds from the start of the wait; None: no limit.
        on_wait: Called with a sentence when the wait begins and then once per `repeat_seconds`.
        cancelled: Ends the wait when it is set.
        advice: The next step after a timeout, for the message.
        quiet_seconds: A shorter wait is not reported.
        repeat_seconds: Seconds between two sentences.
    """

    what: str
    path: Path | str
    timeout: float | None = None
    on_wait: Callable[[str], object] | None = None
    cancelled: threading.Event | None = None
    advice: str = "Wait for it to finish, or raise MP_LOCK_TIMEOUT."
    quiet_seconds: float = 1.0
    repeat_seconds: float = 60.0
    began: float = field(default_factory=time.monotonic)
    reported_at: float | None = None

    def until(
        self,
        try_once: Callable[[], bool],
        holder: Callable[[], Holder | None],
        *,
        poll_seconds: float = 0.05,
    ) -> None:
        """Try again and again until `try_once`, which returns at once, returns True.

        Raises:
            DatabaseLockedError: The timeout is over, or the wait was cancelled.
        """
        while not try_once():
            self.check(holder)
            self.sleep(poll_seconds)

    def remaining(self) -> float:
        """Return the seconds left; infinity without a timeout."""
        if self.timeout is None:
            return float("inf")
        return max(0.0, self.began + self.timeout - time.monotonic())

    def sleep(self, seconds: float) -> None:
        """Sleep, but not longer than the rest of the timeout."""
        seconds = min(seconds, self.remaining())
        if self.cancelled is None:
            time.sleep(seconds)
        else:
            self.cancelled.wait(seconds)

    def check(self, holder: Callable[[], Holder | None]) -> None:
        """Report the holder of the lock, when a sentence is due.

        Raises:
            DatabaseLockedError: The timeout is over, or the wait was cancelled.
        """
        waited = time.monotonic() - self.began
        if self.cancelled is not None and self.cancelled.is_set():
            raise self._lock_error(holder(), "waiting was cancelled.")
        if not self.remaining():
            raise self._lock_error(holder(), f"gave up after {waited:.0f} s. {self.advice}")
        if self.on_wait and self._is_sentence_due(waited):
            self.reported_at = time.monotonic()
            self.on_wait(
                f"Waiting for {self.what}: it is held by {holder() or 'another process'}; "
                f"{waited:.0f} s so far."
            )

    def _is_sentence_due(self, waited: float) -> bool:
        if self.reported_at is None:
            return waited >= self.quiet_seconds
        return time.monotonic() - self.reported_at >= self.repeat_seconds

    def _lock_error(self, holder: Holder | None, how_it_ended: str) -> DatabaseLockedError:
        held = f"{self.what[0].upper()}{self.what[1:]} is held by {holder or 'another process'}"
        return DatabaseLockedError(
            str(self.path), holder.pid if holder else None, f"{held}; {how_it_ended}"
        )


@contextmanager
def locked(lock: FileLock, wait: Wait, *, poll_seconds: float = 0.05) -> Iterator[None]:
    """Hold a lock inside the block.

    Raises:
        DatabaseLockedError: The timeout is over, or the wait was cancelled.
    """
    file = Path(lock.lock_file)
    wait.until(
        lambda: try_lock(lock.acquire), lambda: kernel_holder(file), poll_seconds=poll_seconds
    )
    try:
        yield
    finally:
        lock.release()


def log_wait(sentence: str) -> None:
    """Log a sentence of a wait."""
    logger.warning("%s", sentence)


def try_lock(acquire: Callable[..., object]) -> bool:
    """Return whether a lock's `acquire` succeeds at once."""
    try:
        acquire(blocking=False)
    except Timeout:
        return False
    return True


def kernel_holder(*files: Path) -> Holder | None:
    """Return a process with a lock on one of the files, from Linux's own list.

    Another process is named before this one, whose other threads may hold the lock.
    """
    try:
        locks = [line.split() for line in _KERNEL_LOCKS.read_text().splitlines()]
    except OSError:
        return None
    own_lock = None
    for file in files:
        try:
            inode = f":{file.stat().st_ino}"
        except OSError:
            continue
        for lock in locks:
            # A process that waits for a lock has an arrow in its line.
            if lock[1] == "->" or not lock[5].endswith(inode) or (pid := int(lock[4])) <= 0:
                continue
            if pid != os.getpid():
                return holder_of(pid)
            own_lock = Holder(pid, "this process itself")
    return own_lock


def holder_of(pid: int) -> Holder | None:
    """Return the process of an id; None for 0, an unknown process."""
    return Holder(pid, _holder_command(pid)) if pid > 0 else None


def _holder_command(pid: int) -> str:
    """Return the first words of a process's command line, a script's without its interpreter."""
    try:
        command_line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    words = command_line.rstrip("\0").split("\0")
    if len(words) > 1 and "python" in words[0] and not words[1].startswith("-"):
        del words[0]
    return short_command(words)


def short_command(words: list[str]) -> str:
    """Return the start of a command line, short enough for a message, without passwords."""
    line = _SECRETS.sub(
        lambda found: f"{found['start'] or found['word']}[secret]",
        " ".join([Path(words[0]).name, *words[1:]]),
    )
    shown = line.split()[:_SHOWN_WORDS]
    return " ".join(shown)[:_SHOWN_CHARACTERS]


def is_alive(pid: int) -> bool:
    """Return whether a process of that id exists, of any user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


MARK = "in-use.lock"

# Responses hold personal data; only the database file has access rights that users choose.
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


def hold(mark: Path) -> FileLock | None:
    """Create a mark and lock it; None if another process holds it or has just deleted it.

    The caller holds the lock until it releases it or its process ends. If it deletes the marked
    files, it does so before it releases the lock: otherwise another process could take the mark
    in between.

    Raises:
        OSError: The mark cannot be created, or the file system has no locks.
    """
    lock = FileLock(mark, mode=PRIVATE_FILE, thread_local=False)
    with suppress(Timeout):
        lock.acquire(timeout=0)
        if mark.exists():
            return lock
        lock.release(force=True)
    return None


@contextmanager
def mark_in_use(folder: Path, stem: str = "") -> Iterator[None]:
    """Hold a mark in a folder inside the block; the folder is created if it is missing.

    Args:
        folder: It may hold marks of other processes too.
        stem: The marked files: the first of the 32 digits of their names.

    Raises:
        OSError: The folder or the mark cannot be created.
    """
    lock = None
    while lock is None:
        mark = folder / f"{stem}{uuid.uuid4().hex[len(stem) :]}.lock"
        folder.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another process deleted the folder in between
            lock = hold(mark)
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)
        lock.release(force=True)


def remove_unless_held(mark: Path) -> bool:
    """Delete a mark that a dead process left; return False if a process holds it."""
    try:
        lock = hold(mark)
    except OSError:
        return False
    if lock is None:
        return False
    mark.unlink(missing_ok=True)
    lock.release(force=True)
    return True
