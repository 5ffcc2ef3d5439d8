"""Whether a process uses a folder or file: as long as it holds the kernel's lock on a mark.

The kernel frees the lock when its holder dies. Nothing else decides: no age, no process id.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

MARK = "in-use.lock"


def hold(mark: Path) -> FileLock | None:
    """Make a mark and lock it; None if another process holds it or has just deleted it.

    The lock belongs to the caller until it releases it or its process ends. A caller that deletes
    what the mark stands for does so before it releases the lock, so that no other process can
    take the mark in between.

    Raises:
        OSError: The mark cannot be made, or the file system has no locks.
    """
    lock = FileLock(mark, thread_local=False)
    with suppress(Timeout):
        lock.acquire(timeout=0)
        if mark.exists():
            return lock
        lock.release(force=True)
    return None
