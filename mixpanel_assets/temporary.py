"""Folders that go with their process: at the latest when the next one is made after a kill.

Only folders with our mark in them are ever deleted.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tempfile
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from types import FrameType

from filelock import FileLock

from mixpanel_assets.rules.locks import MARK, hold

PREFIX = "mixpanel_assets-"


class TemporaryFolder:
    """A folder of one process in the machine's temporary directory, for its user alone.

    It goes with `remove`, with the end of the process, and on SIGTERM unless the program has a
    handler of its own. What SIGKILL leaves is removed when the next folder is made.

    Attributes:
        path: Where it is.
        pid: The process that made it; a fork of it leaves the folder alone.
    """

    def __init__(self) -> None:
        sweep()
        self.path, lock = _made()
        self.pid = os.getpid()
        self._end = weakref.finalize(self, _remove, self.path, lock, self.pid)
        _OPEN.add(self)
        _watch_for_sigterm()

    def remove(self) -> None:
        """Delete the folder with all that is in it; again does nothing."""
        _OPEN.discard(self)
        self._end()


_OPEN: weakref.WeakSet[TemporaryFolder] = weakref.WeakSet()


def sweep() -> None:
    """Delete the folders of processes that are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not _is_ours(folder):
            continue
        with suppress(OSError):
            if lock := hold(folder / MARK):
                _remove(folder, lock, os.getpid())


def _made() -> tuple[Path, FileLock]:
    while True:  # a sweep of another process may take the folder before it is locked
        folder = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        with suppress(FileNotFoundError):
            if lock := hold(folder / MARK):
                return folder, lock


def _remove(folder: Path, lock: FileLock, pid: int) -> None:
    if pid == os.getpid():
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            lock.release(force=True)


def _is_ours(folder: Path) -> bool:
    try:
        found, mark = folder.lstat(), (folder / MARK).lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode) and stat.S_ISREG(mark.st_mode) and found.st_uid == os.getuid()
    )


def _watch_for_sigterm() -> None:
    """Clean up on SIGTERM too, which ends Python at once; a program's own handler is left alone."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end_by)


def _end_by(number: int, frame: FrameType | None) -> None:
    # The locks are left to the kernel: the code that was interrupted may be inside of one.
    for folder in list(_OPEN):
        if folder.pid == os.getpid():
            shutil.rmtree(folder.path, ignore_errors=True)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
