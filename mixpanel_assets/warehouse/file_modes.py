"""Who may read the files beside a database: those who may read the database, and nobody else.

Nothing here changes the process's umask, which all of its threads share.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

# Events are personal data. Who wants more readers says so with `chmod`, which then holds.
_NEW_DATABASE = 0o640
_OWNER = 0o600


def close_to_others(database: Path) -> None:
    """Take every right on a new database from all but its owner and readers in its group."""
    database.chmod(database.stat().st_mode & _NEW_DATABASE)


def prepare_log(log: Path, database: Path) -> None:
    """Make the empty log that DuckDB will write to; close one that is more open than the database.

    DuckDB would make it with the rights that the umask leaves. If it cannot be made here, the
    commit says so.
    """
    with suppress(OSError):
        try:
            made = os.open(log, os.O_RDWR | os.O_CREAT | os.O_EXCL, _OWNER)
        except FileExistsError:
            log.chmod(log.stat().st_mode & (database.stat().st_mode | _OWNER))
            return
        try:
            follow(made, database)
        finally:
            os.close(made)


def follow(file: int, database: Path) -> None:
    """Give an open file the group and the mode of the database; its owner may always write it.

    If it cannot have the group, no group may read it.
    """
    wanted = database.stat()
    mode = stat.S_IMODE(wanted.st_mode) | _OWNER
    if os.fstat(file).st_gid != wanted.st_gid:
        try:
            os.fchown(file, -1, wanted.st_gid)
        except OSError:
            mode &= ~stat.S_IRWXG
    os.fchmod(file, mode)


def remove_empty(log: Path) -> None:
    """Delete a log that nothing was written to; DuckDB deletes its own when it closes the file."""
    with suppress(OSError):
        if not log.stat().st_size:
            log.unlink()
