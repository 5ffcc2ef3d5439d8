"""The lock beside a database: one writer or many readers, across processes and threads.

The kernel frees it when its holder ends. A note beside it names the holder, for messages only.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import ReadWriteLock

from mixpanel_assets.errors import DatabaseLockedError, StorageError
from mixpanel_assets.rules.locks import (
    Holder,
    Wait,
    is_alive,
    kernel_holder,
    short_command,
    try_lock,
)
from mixpanel_assets.warehouse.files import draft_path, remove_drafts


def leave_note(note: Path) -> None:
    """Write that this process holds the database; ignore errors."""
    command = short_command([sys.argv[0] or sys.executable, *sys.argv[1:]])
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    remove_drafts(note)
    draft = draft_path(note)
    with suppress(OSError, ValueError, TypeError):
        if note.exists() and note.stat().st_size:
            _holder_in(note)  # raises for another program's file, which is not overwritten
        draft.touch(0o640)
        draft.write_text(json.dumps(asdict(Holder(os.getpid(), command, since))))
        draft.replace(note)


def remove_note(note: Path) -> None:
    """Delete the note, unless another process has written its own since."""
    with suppress(OSError):
        if (holder := read_note(note)) and holder.pid == os.getpid():
            note.unlink(missing_ok=True)


def read_note(note: Path) -> Holder | None:
    """Return the holder named by the note, if that process still runs."""
    try:
        holder = _holder_in(note)
    except (OSError, ValueError, TypeError):
        return None
    return holder if is_alive(holder.pid) else None


def _holder_in(note: Path) -> Holder:
    return Holder(**json.loads(note.read_text()))


Mode = Literal["read", "write"]

# What this process holds, by file and thread: a thread that waits for its own lock waits forever.
_HELD_HERE: dict[tuple[Path, int], Mode] = {}


@contextmanager
def locked(path: Path, mode: Mode, *, wait: Wait) -> Iterator[None]:
    """Hold the lock of the database at `path` inside the block.

    Raises:
        DatabaseLockedError: The wait's timeout passed.
        StorageError: This thread already holds the lock, so waiting would never end; or another
            program's file has the lock's name.
    """
    file = lock_path(path)
    with _registered_lock(path, mode):
        lock = lock_at(file)
        try:
            with named_if_foreign(file):
                acquire = lock.acquire_write if mode == "write" else lock.acquire_read
                # Readers leave no note, but the kernel lists their locks on the files.
                wait.until(
                    lambda: try_lock(acquire),
                    lambda: read_note(note_path(path)) or kernel_holder(path, file),
                )
            if mode == "read":
                yield
            else:
                with _alone_among_hosts(path), _lock_note(path):
                    yield
        finally:
            lock.close()


def lock_path(path: Path) -> Path:
    """Return the path of the lock of a database."""
    return path.with_name(f"{path.name}.lock")


def lock_at(file: Path) -> ReadWriteLock:
    """Return a lock with a holder of its own, which `close` frees; raise `named_if_foreign`."""
    with named_if_foreign(file):
        return ReadWriteLock(file, is_singleton=False)


@contextmanager
def named_if_foreign(lock: Path) -> Iterator[None]:
    """Raise a `StorageError` if the lock's file is a folder, a link or another program's file."""
    try:
        yield
    except (OSError, sqlite3.DatabaseError) as error:
        is_file = lock.is_file() and not lock.is_symlink()
        if (is_file and "not a database" not in str(error)) or not os.path.lexists(lock):
            raise
        raise StorageError(
            f"{lock} has the name of a lock, but is not one, so it is not touched. Move it away, "
            "or set MP_DATABASE to another place.",
            {"lock": str(lock)},
        ) from error


@contextmanager
def _registered_lock(path: Path, mode: Mode) -> Iterator[None]:
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
def _lock_note(path: Path) -> Iterator[None]:
    note = note_path(path)
    leave_note(note)
    try:
        yield
    finally:
        remove_note(note)


def note_path(path: Path) -> Path:
    """Return the path of the note of a database's writer."""
    return path.with_name(f"{path.name}.lock.holder")


# For so long after its last write, another host may still be writing.
QUIET_SECONDS = 120.0
_FORGOTTEN_SECONDS = 86_400.0
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def note_hosts(path: Path) -> None:
    """Let every writer of a database note its host from now on, and refuse to follow another one.

    Hosts do not see each other's locks, even if they mount the same volume.
    """
    notes = _host_notes(path.expanduser().absolute())
    if notes.parent.is_dir():
        notes.mkdir(exist_ok=True)


def _host_notes(path: Path) -> Path:
    return path.with_name(f"{path.name}.hosts")


@contextmanager
def _alone_among_hosts(path: Path) -> Iterator[None]:
    """Note this host before and after the block, if hosts are noted.

    Raises:
        DatabaseLockedError: Another host has just written.
    """
    notes = _host_notes(path)
    if not notes.is_dir():
        yield
        return
    # All containers of a machine have its kernel, and locks of one kernel see each other.
    kernel = _BOOT.read_text().strip() if _BOOT.exists() else socket.gethostname()
    own_note = notes / kernel
    own_note.write_text(socket.gethostname())
    now = own_note.stat().st_mtime  # by the clock of the volume
    # After the own note: of two hosts at the same moment, one sees the other at least.
    for note in notes.iterdir():
        quiet_seconds = now - note.stat().st_mtime
        if note != own_note and quiet_seconds < QUIET_SECONDS:
            own_note.unlink()
            raise DatabaseLockedError(
                str(path),
                message=f"{path} was written {quiet_seconds:.0f} s ago by another machine "
                f"({note.read_text()}), whose locks this one ({socket.gethostname()}) does not "
                "see. MP_DATABASE_SHARED is for runs of one machine: start all of them there, or "
                "set MP_DATABASE to a lake. If the volume has moved to this machine, try again "
                f"in {QUIET_SECONDS:.0f} s.",
            )
        if quiet_seconds > _FORGOTTEN_SECONDS:
            note.unlink(missing_ok=True)
    try:
        yield
    finally:
        own_note.write_text(socket.gethostname())
