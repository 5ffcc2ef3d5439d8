"""The lock beside a database: one writer or many readers, across processes and threads.

The kernel frees it when its holder ends. A note beside it names the holder, for messages only.
"""

from __future__ import annotations

import json
import os
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

from mixpanel_assets.errors import StorageError
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
            with _lock_note(path, mode):
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
def _lock_note(path: Path, mode: Mode) -> Iterator[None]:
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
    """Return the path of the note of a database's writer."""
    return path.with_name(f"{path.name}.lock.holder")
