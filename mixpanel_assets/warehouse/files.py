"""Files beside a database: drafts that a rename completes, file modes, temporary folders."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import tempfile
import threading
import uuid
import weakref
from contextlib import suppress
from pathlib import Path
from types import FrameType

from filelock import FileLock

from mixpanel_assets.rules.locks import MARK, hold


def draft_path(target: Path) -> Path:
    """Return the path of a new file beside the target."""
    return target.with_name(f"{target.name}.{uuid.uuid4().hex}.new")


def remove_drafts(target: Path) -> None:
    """Delete the drafts of killed processes, with DuckDB's logs.

    The caller must be the only process that creates drafts of the target now.
    """
    ours = re.compile(rf"{re.escape(target.name)}\.[0-9a-f]{{32}}\.new(\.wal)?")
    with suppress(OSError):
        for file in target.parent.iterdir():
            if ours.fullmatch(file.name) and stat.S_ISREG(file.lstat().st_mode):
                file.unlink()


# Events are personal data. `chmod` gives access to more readers, and is respected from then on.
_NEW_DATABASE_MODE = 0o640
_OWNER_MODE = 0o600


def close_to_others(database: Path) -> None:
    """Leave a new database to its owner, and to its group for reading."""
    database.chmod(database.stat().st_mode & _NEW_DATABASE_MODE)


def prepare_log(log: Path, database: Path) -> None:
    """Create DuckDB's empty log with the permissions of the database, or reduce those of its log.

    DuckDB would use the umask. If the log cannot be created here, the commit raises the error.
    """
    with suppress(OSError):
        try:
            log_file = os.open(log, os.O_RDWR | os.O_CREAT | os.O_EXCL, _OWNER_MODE)
        except FileExistsError:
            log.chmod(log.stat().st_mode & (database.stat().st_mode | _OWNER_MODE))
            return
        try:
            follow(log_file, database)
        finally:
            os.close(log_file)


def follow(file: int, database: Path) -> None:
    """Give an open file the group and the mode of the database; its owner may always write it.

    If it cannot have the group, no group may read it.
    """
    database_stat = database.stat()
    mode = stat.S_IMODE(database_stat.st_mode) | _OWNER_MODE
    if os.fstat(file).st_gid != database_stat.st_gid:
        try:
            os.fchown(file, -1, database_stat.st_gid)
        except OSError:
            mode &= ~stat.S_IRWXG
    os.fchmod(file, mode)


def remove_empty(log: Path) -> None:
    """Delete an empty log; DuckDB deletes its own when it closes the file."""
    with suppress(OSError):
        if not log.stat().st_size:
            log.unlink()


PREFIX = "mixpanel_assets-"


class TemporaryFolder:
    """A folder of one process in the temporary directory, for its user alone.

    It is deleted by `remove`, at the end of the process, and on SIGTERM unless the program has a
    handler of its own. Folders of killed processes are deleted when the next one is created.

    Forks of the process do not delete it.
    """

    def __init__(self) -> None:
        sweep()
        self.path, lock = _locked_folder()
        self.pid = os.getpid()
        self._end = weakref.finalize(self, _remove, self.path, lock, self.pid)
        _OPEN_FOLDERS.add(self)
        _remove_folders_on_sigterm()

    def remove(self) -> None:
        """Delete the folder with its contents; a second call does nothing."""
        _OPEN_FOLDERS.discard(self)
        self._end()


_OPEN_FOLDERS: weakref.WeakSet[TemporaryFolder] = weakref.WeakSet()


def sweep() -> None:
    """Delete the folders of processes that have ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if not _is_ours(folder):
            continue
        with suppress(OSError):
            if lock := hold(folder / MARK):
                _remove(folder, lock, os.getpid())


def _locked_folder() -> tuple[Path, FileLock]:
    while True:  # another process may sweep the folder before it is locked
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


def _remove_folders_on_sigterm() -> None:
    """Clean up on SIGTERM too, which ends Python at once, unless the program handles it."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _remove_folders_and_end)


def _remove_folders_and_end(number: int, frame: FrameType | None) -> None:
    # The kernel frees the locks: the interrupted code may be changing one.
    for folder in list(_OPEN_FOLDERS):
        if folder.pid == os.getpid():
            shutil.rmtree(folder.path, ignore_errors=True)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
