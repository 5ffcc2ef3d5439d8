"""Whether a process uses a folder or file: as long as it holds the kernel's lock on a mark.

The kernel frees the lock when its holder dies. Nothing else decides: no age, no process id.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

MARK = "in-use.lock"

# What Mixpanel sends is personal data, until it is stored in a file with rights of its own.
PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700


def hold(mark: Path) -> FileLock | None:
    """Make a mark and lock it; None if another process holds it or has just deleted it.

    The lock belongs to the caller until it releases it or its process ends. A caller that deletes
    what the mark stands for does so before it releases the lock, so that no other process can
    take the mark in between.

    Raises:
        OSError: The mark cannot be made, or the file system has no locks.
    """
    lock = FileLock(mark, mode=PRIVATE_FILE, thread_local=False)
    with suppress(Timeout):
        lock.acquire(timeout=0)
        if mark.exists():
            return lock
        lock.release(force=True)
    return None


@contextmanager
def marked(folder: Path, stem: str = "") -> Iterator[None]:
    """Hold a mark in a folder inside the block; the folder is made when it is missing.

    Args:
        folder: It may hold marks of other processes, too.
        stem: What the mark stands for there: the first of the 32 digits of its name.

    Raises:
        OSError: The folder or the mark cannot be made.
    """
    lock = None
    while lock is None:
        mark = folder / f"{stem}{uuid.uuid4().hex[len(stem) :]}.lock"
        folder.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # another process deleted the folder meanwhile
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
