"""Where DuckDB puts rows that do not fit into memory: one folder per connection, beside the file.

If `<database>.tmp` is there, a folder or a link to one on a larger disk, the folders are made in
it. Only folders that were made here are ever deleted: their name says which process made them, and
nothing but DuckDB's temporary files and our mark is in them.
"""

from __future__ import annotations

import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mixpanel_assets.rules.locks import MARK, PRIVATE_FOLDER, hold, is_alive

_NAME = r"(\d+)-[0-9a-f]{32}"
_FILE = re.compile(rf"duckdb_temp_[\w.-]+|{re.escape(MARK)}")


@contextmanager
def spill_folder(database: Path) -> Iterator[Path]:
    """Make a folder for the spilled rows of one connection: in a shared one, two would collide.

    Where no folder can be made, a path is yielded all the same: most queries need no room.
    """
    lock = None
    while lock is None:  # the sweep of another process may take the folder before it is locked
        place, before, after = _place(database)
        folder = place / f"{before}{os.getpid()}-{uuid.uuid4().hex}{after}"
        try:
            folder.mkdir(PRIVATE_FOLDER)
            lock = hold(folder / MARK)
        except OSError:
            break
    try:
        yield folder
    finally:
        _remove(folder)
        if lock:
            lock.release(force=True)


def sweep_spilled(database: Path) -> None:
    """Delete the folders of processes that are gone."""
    place, before, after = _place(database)
    ours = re.compile(f"{re.escape(before)}{_NAME}{re.escape(after)}")
    with suppress(OSError):
        for folder in place.iterdir():
            if (made := ours.fullmatch(folder.name)) and _is_ours(folder):
                _remove_unused(folder, int(made[1]))


def _place(database: Path) -> tuple[Path, str, str]:
    """Return where folders are made, and what their names there begin and end with."""
    given = database.with_name(f"{database.name}.tmp")
    return (given, "", "") if given.is_dir() else (database.parent, f"{database.name}.", ".tmp")


def _is_ours(folder: Path) -> bool:
    try:
        return stat.S_ISDIR(folder.lstat().st_mode) and all(map(_is_spilled, folder.iterdir()))
    except OSError:
        return False


def _is_spilled(file: Path) -> bool:
    return bool(_FILE.fullmatch(file.name)) and stat.S_ISREG(file.lstat().st_mode)


def _remove_unused(folder: Path, pid: int) -> None:
    mark = folder / MARK
    if not mark.exists():  # made by an earlier version, or where the file system has no locks
        if not is_alive(pid):
            _remove(folder)
        return
    with suppress(OSError):
        if lock := hold(mark):
            _remove(folder)
            lock.release(force=True)


def _remove(folder: Path) -> None:
    with suppress(OSError):
        for file in filter(_is_spilled, folder.iterdir()):
            file.unlink()
        folder.rmdir()
