"""The folder where answers lie until they are stored: its free room, and what was left there.

Only files and folders with the names that this package gives them are ever deleted, and none
that a process uses.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from mixpanel_assets.client.page_plan import files_of_pages, remove_pages, take_over
from mixpanel_assets.client.spool import STEM_DIGITS
from mixpanel_assets.errors import StorageError
from mixpanel_assets.rules.locks import remove_unless_held

KEPT_FOR = timedelta(days=7)
MARGIN_BYTES = 50_000_000

# A step that is repeated, or the next step of a run, may still go on with what is that young,
# though no process uses it at the moment.
RESUMED_FOR = timedelta(hours=1)

_EVENTS = re.compile(r"([0-9a-f]{32})-(\d{4}-\d\d-\d\d)_(\d{4}-\d\d-\d\d)\.jsonl(\.gz)?")
_PROFILES = re.compile(r"profiles-[0-9a-f]{16}-[0-9a-f]{32}")
_MARK = re.compile(r"[0-9a-f]{32}\.lock")


@dataclass(frozen=True)
class Cleaned:
    """What a clean-up deleted and what it left.

    Attributes:
        deleted: Answers and profile snapshots that were deleted.
        deleted_bytes: Their size.
        kept: Those that are too young to be deleted, or in use.
    """

    deleted: int = 0
    deleted_bytes: int = 0
    kept: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes, ready for JSON."""
        return asdict(self)


def free_bytes(directory: Path) -> int:
    """Return the free room on the disk of a folder, which need not exist yet."""
    existing = directory.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    return shutil.disk_usage(existing).free


def require_room(directory: Path, needed_bytes: int, asked: str) -> None:
    """Make sure that an answer will find room before a request is spent on it.

    Args:
        directory: Where the answer will lie.
        needed_bytes: What it will take; a margin is added.
        asked: The question in words, for the message.

    Raises:
        StorageError: There is less room than that.
    """
    needed, free = needed_bytes + MARGIN_BYTES, free_bytes(directory)
    if free < needed:
        raise StorageError(
            f"{asked} needs about {needed / 1e6:,.0f} MB, but {directory} has {free / 1e6:,.0f} MB "
            "free. Nothing was asked. Make room (`mp clean` deletes what failed loads left), or "
            "set MP_SPOOL_DIR to a folder on a larger disk.",
            {"needed_bytes": needed, "free_bytes": free, "directory": str(directory)},
        )


def answers_of(directory: Path, keys: Collection[str]) -> dict[tuple[date, date], Path]:
    """Return the answers that were left under some keys, by first and last day.

    Of answers that share a day, only one is returned.
    """
    found: dict[tuple[date, date], Path] = {}
    for path in sorted(directory.glob("*_*.jsonl*"), key=lambda path: path.name[33:]):
        name = _EVENTS.fullmatch(path.name)
        if name and name[1] in keys:
            first, last = map(date.fromisoformat, name.group(2, 3))
            if not any(first <= other and since <= last for since, other in found):
                found[first, last] = path
    return found


def clean(directory: Path, older_than: timedelta = KEPT_FOR) -> Cleaned:
    """Delete the answers that failed loads left in a folder.

    Args:
        directory: The spool folder; other files in it are left alone.
        older_than: Younger ones are kept; whatever it says, so are the last hour's, and those that
            a process uses.
    """
    limit = time.time() - max(older_than, RESUMED_FOR).total_seconds()
    used = _stems_in_use(directory)
    deleted = size = kept = 0
    for path in sorted(directory.glob("*")):
        files = _files_of(path)
        if not files:
            continue
        found = [_written_and_size(file) for file in files]
        is_young = max(written for written, _ in found) > limit
        if is_young or path.name[:STEM_DIGITS] in used or not _delete(path):
            kept += 1
            continue
        deleted += 1
        size += sum(size for _, size in found)
    return Cleaned(deleted, size, kept)


def _stems_in_use(directory: Path) -> set[str]:
    """Return what the names of answers begin with that a process uses."""
    marks = [path for path in directory.glob("*.lock") if _MARK.fullmatch(path.name)]
    return {
        mark.name[:STEM_DIGITS] for mark in marks if _is_file(mark) and not remove_unless_held(mark)
    }


def _files_of(path: Path) -> list[Path]:
    """Return the files of an answer or a snapshot; none if it is not one of ours."""
    if _EVENTS.fullmatch(path.name) and _is_file(path):
        return [path]
    if _PROFILES.fullmatch(path.name):
        return files_of_pages(path) or []
    return []


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _written_and_size(path: Path) -> tuple[float, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return time.time(), 0  # another process is busy with it
    return status.st_mtime, status.st_size


def _delete(path: Path) -> bool:
    """Delete an answer or a snapshot; False if a process uses it."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return True
    taken = take_over(path)
    if taken:
        remove_pages(taken)
    return taken is not None
