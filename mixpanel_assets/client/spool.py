"""The folder of received responses: their names, the plan of a snapshot's pages, clean-up.

A response stays here exactly as it arrived until its rows are stored. A file that a living
process uses is never deleted.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Self

from mixpanel_assets.errors import StorageError
from mixpanel_assets.results import Result
from mixpanel_assets.rules.locks import PRIVATE_FILE, PRIVATE_FOLDER, marked, remove_unless_held

STEM_DIGITS = 24  # of the 32 that a file's name begins with: the same for all files of an export


@dataclass(frozen=True)
class Spool:
    """One export answer that was found whole.

    Attributes:
        path: The received bytes, `.jsonl.gz` when Mixpanel compressed them, else `.jsonl`.
        from_date: First day asked for, included.
        to_date: Last day asked for, included.
        lines: Events in the file, repeats included.
        names_once: Whether no object of a short line has a name twice.
        received_bytes: Size of the file.
        json_bytes: Size of its content, uncompressed.
        requests: Requests it took, failed ones included.
        seconds: From the first request to the verdict.
        received_at: When its last byte came, UTC.
    """

    path: Path
    from_date: date
    to_date: date
    lines: int
    names_once: bool
    received_bytes: int
    json_bytes: int
    requests: int
    seconds: float
    received_at: datetime

    def discard(self) -> None:
        """Delete the file; its content is stored elsewhere, or unwanted."""
        self.path.unlink(missing_ok=True)

    def named(self, key: str) -> Self:
        """Return it under a name that whoever knows the key can find.

        Args:
            key: 32 hexadecimal digits.
        """
        path = self.path.replace(self.path.with_name(f"{key}{self.path.name[len(key) :]}"))
        return replace(self, path=path)

    def anonymous(self) -> Self:
        """Return it under a name that nobody can find: it is not to be used."""
        return self.named(uuid.uuid4().hex)


@contextmanager
def new_file(
    directory: Path, name: str, stem: str = ""
) -> Iterator[tuple[Path, Callable[[bytes], object]]]:
    """Yield a new file's path and its `write`; the file goes away if the block fails.

    It is readable by this user alone, whatever the umask.

    Args:
        directory: Made when it is missing.
        name: What its name ends with, after 32 hexadecimal digits that no other file has.
        stem: The first of those digits.

    Raises:
        StorageError: The directory cannot be written or the disk is full.
    """
    path = directory / f"{stem}{uuid.uuid4().hex[len(stem) :]}-{name}"
    try:
        make_private_folder(directory)
        with open(path, "xb", opener=_private) as file, _removed_on_error(path):
            yield path, file.write
    except OSError as error:
        raise StorageError(_what_to_do(error, directory)) from error


def make_private_folder(directory: Path) -> None:
    """Make a folder for this user alone; one that is there stays as it is.

    Raises:
        OSError: It cannot be made.
    """
    directory.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE_FILE)


@contextmanager
def in_use(directory: Path, stem: str = "") -> Iterator[None]:
    """Keep every process from cleaning some files; ends with the block or the process.

    Args:
        directory: Made when it is missing.
        stem: What the names of the files begin with.

    Raises:
        StorageError: The directory cannot be written or the disk is full.
    """
    with ExitStack() as mark:
        try:
            mark.enter_context(marked(directory, stem))
        except OSError as error:
            raise StorageError(_what_to_do(error, directory)) from error
        yield


@contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _what_to_do(error: OSError, directory: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"The disk is full: {directory} took no more bytes. Free space, or set MP_SPOOL_DIR."
    reason = error.strerror or "unknown reason"
    return f"{directory} cannot be written ({reason}). Set MP_SPOOL_DIR to a folder that can be."


_PLAN = "plan.json"
_TRIED = "tried"
_FILE = re.compile(r"tried|plan\.json(\.part)?|page-\d{6}\.jsonl|[0-9a-f]{32}(-\d+\.part|\.lock)")


@dataclass(frozen=True)
class PagePlan:
    """What page 0 announced, and the full pages behind its last one showed.

    Attributes:
        directory: Where the plan and the page files lie.
        session_id: Pins the result; None when one page is all there is.
        total: Profiles in the whole result.
        page_size: Profiles in a full page.
        began_at: When page 0 was asked for; timezone-aware, UTC.
    """

    directory: Path
    session_id: str | None
    total: int
    page_size: int
    began_at: datetime

    @classmethod
    def stored_in(cls, directory: Path) -> PagePlan | None:
        """Return the plan that lies in a folder; None without a readable one."""
        try:
            stored = json.loads((directory / _PLAN).read_bytes())
            return cls(
                directory,
                session_id=stored["session_id"],
                total=stored["total"],
                page_size=stored["page_size"],
                began_at=datetime.fromisoformat(stored["began_at"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def num_pages(self) -> int:
        """How many pages the snapshot has; page 0 always exists."""
        return max(1, math.ceil(self.total / self.page_size))

    def path(self, page: int) -> Path:
        """Return where a page's file lies or will lie."""
        return self.directory / f"page-{page:06d}.jsonl"

    def announced_rows(self, page: int) -> int:
        """Return how many profiles a page must hold."""
        return min(self.page_size, self.total - page * self.page_size)

    def present(self) -> list[int]:
        """Return the numbers of the pages that are on disk, in order."""
        return [page for page in range(self.num_pages) if self.path(page).exists()]

    def missing(self) -> list[int]:
        """Return the numbers of the pages that are not on disk, in order."""
        return [page for page in range(self.num_pages) if not self.path(page).exists()]

    def fetched_at(self, page: int) -> datetime | None:
        """Return when a page was read; timezone-aware, UTC. None when it is not on disk."""
        try:
            return datetime.fromtimestamp(self.path(page).stat().st_mtime, UTC)
        except FileNotFoundError:
            return None

    def store(self) -> None:
        """Put the plan next to its pages."""
        stored = {
            "session_id": self.session_id,
            "total": self.total,
            "page_size": self.page_size,
            "began_at": self.began_at.isoformat(),
        }
        unfinished = self.directory / f"{_PLAN}.part"
        unfinished.touch(PRIVATE_FILE)
        unfinished.write_text(json.dumps(stored))
        unfinished.replace(self.directory / _PLAN)

    def is_tried_again(self) -> bool:
        """Tell whether somebody has tried before to get every page; now somebody has."""
        mark = self.directory / _TRIED
        before = mark.exists()
        mark.touch(PRIVATE_FILE)
        return before

    @contextmanager
    def in_use(self) -> Iterator[bool]:
        """Keep other processes from taking the snapshot over, and from cleaning it.

        Ends with the block or the process. Yields whether page 0 is there. Without it the snapshot
        is lost: page 0 of another session does not fit the pages of this one.
        """
        with pages_in_use(self.directory):
            yield self.path(0).exists()

    def taken_over(self) -> PagePlan | None:
        """Return the plan under a name of its own; None if a process uses it or was faster.

        Whoever had begun it finds nothing under the old name.
        """
        directory = take_over(self.directory)
        return replace(self, directory=directory) if directory else None

    def discard(self) -> None:
        """Delete every file of the snapshot; its content is stored elsewhere, or unwanted."""
        remove_pages(self.directory)


@contextmanager
def pages_in_use(directory: Path) -> Iterator[None]:
    """Keep other processes from a folder of pages, which is made when it is missing.

    Raises:
        StorageError: The folder cannot be written or the disk is full.
    """
    try:
        with in_use(directory):
            yield
    finally:
        with suppress(OSError):
            directory.rmdir()  # only one that was made for the mark is empty


def files_of_pages(directory: Path) -> list[Path] | None:
    """Return the files in a folder of pages; None if it is none, or others have files in it."""
    try:
        files = [] if directory.is_symlink() else list(directory.iterdir())
    except OSError:
        return None
    return files if all(map(_is_ours, files)) else None


def remove_pages(directory: Path) -> None:
    """Delete the pages in a folder and what belongs to them, and the folder if that is all."""
    with suppress(OSError):
        for file in filter(_is_ours, directory.iterdir()):
            file.unlink()
        directory.rmdir()


def _is_ours(file: Path) -> bool:
    return bool(_FILE.fullmatch(file.name)) and file.is_file() and not file.is_symlink()


def take_over(directory: Path) -> Path | None:
    """Rename a folder of pages that no process uses; None if one does, or was faster."""
    try:
        if not all(map(remove_unless_held, directory.glob("*.lock"))):
            return None
        stem = directory.name.rpartition("-")[0]
        return directory.rename(directory.with_name(f"{stem}-{uuid.uuid4().hex}"))
    except OSError:
        return None


KEPT_FOR = timedelta(days=7)
MARGIN_BYTES = 50_000_000

# A step that is repeated, or the next step of a run, may still go on with what is that young,
# though no process uses it at the moment.
RESUMED_FOR = timedelta(hours=1)

_EVENTS = re.compile(r"([0-9a-f]{32})-(\d{4}-\d\d-\d\d)_(\d{4}-\d\d-\d\d)\.jsonl(\.gz)?")
_PROFILES = re.compile(r"profiles-[0-9a-f]{16}-[0-9a-f]{32}")
_MARK = re.compile(r"[0-9a-f]{32}\.lock")


@dataclass(frozen=True, repr=False)
class Cleaned(Result):
    """What a clean-up deleted and what it left.

    Attributes:
        deleted: Answers and profile snapshots that were deleted.
        deleted_bytes: Their size.
        kept: Those that are too young to be deleted, or in use.
    """

    deleted: int = 0
    deleted_bytes: int = 0
    kept: int = 0


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
