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
from mixpanel_assets.rules.days import DayRange
from mixpanel_assets.rules.lines import ReceivedDays
from mixpanel_assets.rules.locks import (
    PRIVATE_FILE,
    PRIVATE_FOLDER,
    mark_in_use,
    remove_unless_held,
)

# Of the 32 digits of a key. The files of an export share them, so that one mark protects them all.
_STEM_DIGITS = 24
_EVENT_SPOOL = re.compile(r"([0-9a-f]{32})-(\d{4}-\d\d-\d\d)_(\d{4}-\d\d-\d\d)\.jsonl(\.gz)?")


def stem_of(key: str) -> str:
    """Return the digits that a key, or a file's name, shares with the other files of its export."""
    return key[:_STEM_DIGITS]


@dataclass(frozen=True, order=True)
class SpoolName:
    """The name of a file with a response of events.

    Attributes:
        from_date: First requested day.
        to_date: Last requested day, included.
        is_gzip: Whether the bytes are compressed.
        key: 32 hexadecimal digits. A later run finds the file by the key of its load.
    """

    from_date: date
    to_date: date
    is_gzip: bool
    key: str

    def __str__(self) -> str:
        return f"{self.key}-{self.from_date}_{self.to_date}.jsonl{'.gz' if self.is_gzip else ''}"

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Return the parts of a file's name; None for other names."""
        if name_parts := _EVENT_SPOOL.fullmatch(name):
            with suppress(ValueError):  # such as 30 February
                first, last = map(date.fromisoformat, name_parts.group(2, 3))
                return cls(first, last, bool(name_parts[4]), name_parts[1])
        return None


@dataclass(frozen=True, kw_only=True)
class Spool(ReceivedDays):
    """A complete export response in the folder, `.jsonl.gz` if Mixpanel compressed it.

    Attributes:
        json_bytes: Size of its content, uncompressed.
        seconds: From the first request to the verdict.
    """

    json_bytes: int
    seconds: float

    def discard(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    def rename(self, key: str) -> Self:
        """Put a key of 32 hexadecimal digits into the file's name; return the response there."""
        name = SpoolName(self.from_date, self.to_date, self.path.suffix == ".gz", key)
        return replace(self, path=self.path.replace(self.path.with_name(str(name))))

    def hide(self) -> Self:
        """Rename the file so that no later run finds it, and return the response."""
        return self.rename(uuid.uuid4().hex)


@contextmanager
def new_file(directory: Path, name: str) -> Iterator[tuple[Path, Callable[[bytes], object]]]:
    """Yield the path of a new file and its `write`; the file is deleted if the block fails.

    The directory is created if it is missing. Only this user can read the file, whatever the umask.

    Raises:
        StorageError: The directory cannot be written or the disk is full.
    """
    path = directory / name
    try:
        make_private_folder(directory)
        with open(path, "xb", opener=_open_private) as file, _spool_removed_on_error(path):
            yield path, file.write
    except OSError as error:
        raise StorageError(_spool_advice(error, directory)) from error


def make_private_folder(directory: Path) -> None:
    """Create a folder that only this user can read; an existing one is not changed."""
    directory.mkdir(PRIVATE_FOLDER, parents=True, exist_ok=True)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE_FILE)


@contextmanager
def in_use(directory: Path, stem: str = "") -> Iterator[None]:
    """Protect files from the clean-up of every process, until the block or this process ends.

    The directory is created if it is missing; the names of the files begin with `stem`.

    Raises:
        StorageError: The directory cannot be written or the disk is full.
    """
    with ExitStack() as mark:
        try:
            mark.enter_context(mark_in_use(directory, stem))
        except OSError as error:
            raise StorageError(_spool_advice(error, directory)) from error
        yield


@contextmanager
def _spool_removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _spool_advice(error: OSError, directory: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"The disk is full: {directory} took no more bytes. Free space, or set MP_SPOOL_DIR."
    reason = error.strerror or "unknown reason"
    return f"{directory} cannot be written ({reason}). Set MP_SPOOL_DIR to a folder that can be."


_PLAN_FILE = "plan.json"
_TRIED_FILE = "tried"
_PAGES = re.compile(r"tried|plan\.json(\.part)?|page-\d{6}\.jsonl|[0-9a-f]{32}(-\d+\.part|\.lock)")


@dataclass(frozen=True)
class PagePlan:
    """The pages of a snapshot, as page 0 and full pages at the end announced them.

    Attributes:
        directory: The folder of the plan and the pages.
        session_id: Pins the result; None if page 0 is the only page.
        total: Profiles in the whole result.
        page_size: Profiles in a full page.
        began_at: The time of the request for page 0; timezone-aware, UTC.
    """

    directory: Path
    session_id: str | None
    total: int
    page_size: int
    began_at: datetime

    @classmethod
    def stored_in(cls, directory: Path) -> PagePlan | None:
        """Return the plan in a folder; None if there is no readable one."""
        try:
            plan_json = json.loads((directory / _PLAN_FILE).read_bytes())
            return cls(
                directory,
                session_id=plan_json["session_id"],
                total=plan_json["total"],
                page_size=plan_json["page_size"],
                began_at=datetime.fromisoformat(plan_json["began_at"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def num_pages(self) -> int:
        """The number of pages; at least 1, because page 0 always exists."""
        return max(1, math.ceil(self.total / self.page_size))

    def path(self, page: int) -> Path:
        """Return the path of a page's file, which need not exist yet."""
        return self.directory / f"page-{page:06d}.jsonl"

    def announced_rows(self, page: int) -> int:
        """Return the number of profiles that a page must hold."""
        return min(self.page_size, self.total - page * self.page_size)

    def present(self) -> list[int]:
        """Return the numbers of the pages that are on disk, in order."""
        return [page for page in range(self.num_pages) if self.path(page).exists()]

    def missing(self) -> list[int]:
        """Return the numbers of the pages that are not on disk, in order."""
        return [page for page in range(self.num_pages) if not self.path(page).exists()]

    def fetched_at(self, page: int) -> datetime | None:
        """Return the time of a page's response, timezone-aware, UTC; None: it is not on disk."""
        try:
            return datetime.fromtimestamp(self.path(page).stat().st_mtime, UTC)
        except FileNotFoundError:
            return None

    def store(self) -> None:
        """Write the plan next to its pages."""
        plan_json = {
            "session_id": self.session_id,
            "total": self.total,
            "page_size": self.page_size,
            "began_at": self.began_at.isoformat(),
        }
        # Renamed when it is complete: a process that dies here leaves no half plan.
        new_plan = self.directory / f"{_PLAN_FILE}.part"
        new_plan.touch(PRIVATE_FILE)
        new_plan.write_text(json.dumps(plan_json))
        new_plan.replace(self.directory / _PLAN_FILE)

    def is_tried_again(self) -> bool:
        """Return whether a full attempt was made before, and record this one."""
        tried_mark = self.directory / _TRIED_FILE
        was_tried = tried_mark.exists()
        tried_mark.touch(PRIVATE_FILE)
        return was_tried

    @contextmanager
    def in_use(self) -> Iterator[bool]:
        """Protect the snapshot from other processes, until the block or this process ends.

        Yields whether page 0 is on disk. Without it the snapshot is lost, because page 0 of
        another session does not fit the pages of this one.
        """
        with pages_in_use(self.directory):
            yield self.path(0).exists()

    def take_over(self) -> PagePlan | None:
        """Rename the folder, so that no other process finds it; None if another one has it."""
        directory = take_over(self.directory)
        return replace(self, directory=directory) if directory else None

    def discard(self) -> None:
        """Delete every file of the snapshot."""
        remove_pages(self.directory)


@contextmanager
def pages_in_use(directory: Path) -> Iterator[None]:
    """Protect a folder of pages from other processes; it is created if it is missing."""
    try:
        with in_use(directory):
            yield
    finally:
        with suppress(OSError):
            directory.rmdir()  # it is empty only if it was created for the mark


def files_of_pages(directory: Path) -> list[Path] | None:
    """Return the files in a folder of pages; None if it holds other files or is not a folder."""
    try:
        page_files = [] if directory.is_symlink() else list(directory.iterdir())
    except OSError:
        return None
    return page_files if all(map(_is_page_file, page_files)) else None


def remove_pages(directory: Path) -> None:
    """Delete the pages in a folder with their plan, and the folder if it is empty then."""
    with suppress(OSError):
        for page_file in filter(_is_page_file, directory.iterdir()):
            page_file.unlink()
        directory.rmdir()


def _is_page_file(file: Path) -> bool:
    return bool(_PAGES.fullmatch(file.name)) and file.is_file() and not file.is_symlink()


def take_over(directory: Path) -> Path | None:
    """Rename a folder of pages and return its new path; None if a process uses or renamed it."""
    try:
        if not all(map(remove_unless_held, directory.glob("*.lock"))):
            return None
        stem = directory.name.rpartition("-")[0]
        return directory.rename(directory.with_name(f"{stem}-{uuid.uuid4().hex}"))
    except OSError:
        return None


KEPT_FOR = timedelta(days=7)
MARGIN_BYTES = 50_000_000  # sizes are estimates

# A retry of a step, or the next step of a run, may still need younger files, though no process uses
# them at the moment.
RESUMED_FOR = timedelta(hours=1)

_PROFILE_FOLDER = re.compile(r"profiles-[0-9a-f]{16}-[0-9a-f]{32}")
_SPOOL_MARK = re.compile(r"[0-9a-f]{32}\.lock")


@dataclass(frozen=True, repr=False)
class Cleaned(Result):
    """The result of a clean-up.

    Attributes:
        deleted: The number of deleted responses and profile snapshots.
        deleted_bytes: Their size.
        kept: The number of responses and snapshots that are too young, or in use.
    """

    deleted: int = 0
    deleted_bytes: int = 0
    kept: int = 0


def free_bytes(directory: Path) -> int:
    """Return the free bytes on the disk of a folder, which need not exist yet."""
    existing_folder = directory.absolute()
    while not existing_folder.exists() and existing_folder != existing_folder.parent:
        existing_folder = existing_folder.parent
    return shutil.disk_usage(existing_folder).free


def require_room(directory: Path, needed_bytes: int, description: str) -> None:
    """Raise `StorageError` unless a response will fit on the disk, before it is requested.

    A margin is added to the needed bytes.
    """
    bytes_needed, bytes_free = needed_bytes + MARGIN_BYTES, free_bytes(directory)
    if bytes_free < bytes_needed:
        raise StorageError(
            f"{description} needs about {bytes_needed / 1e6:,.0f} MB, but {directory} has "
            f"{bytes_free / 1e6:,.0f} MB free. No request was sent. Make room (`mp clean` "
            "deletes what failed loads left), or "
            "set MP_SPOOL_DIR to a folder on a larger disk.",
            {"needed_bytes": bytes_needed, "free_bytes": bytes_free, "directory": str(directory)},
        )


def responses_of(directory: Path, keys: Collection[str]) -> dict[DayRange, Path]:
    """Return the responses that were left under some keys, by first and last day.

    Of responses that share a day, only one is returned.
    """
    spools: dict[DayRange, Path] = {}
    spool_names = [SpoolName.parse(path.name) for path in directory.glob("*_*.jsonl*")]
    for name in sorted(name for name in spool_names if name and name.key in keys):
        if not any(name.from_date <= last and first <= name.to_date for first, last in spools):
            spools[name.from_date, name.to_date] = directory / str(name)
    return spools


def clean(directory: Path, older_than: timedelta = KEPT_FOR) -> Cleaned:
    """Delete the responses that failed loads left in a spool folder; other files are not touched.

    Responses younger than `older_than` are kept. So are those of the last hour and those that a
    process uses, whatever it is.
    """
    deleted_before = time.time() - max(older_than, RESUMED_FOR).total_seconds()
    used_stems = _stems_in_use(directory)
    deleted = deleted_bytes = kept = 0
    for path in sorted(directory.glob("*")):
        files = _response_files(path)
        if not files:
            continue
        times_and_sizes = [_written_and_size(file) for file in files]
        is_young = max(written for written, _ in times_and_sizes) > deleted_before
        if is_young or stem_of(path.name) in used_stems or not _delete_response(path):
            kept += 1
            continue
        deleted += 1
        deleted_bytes += sum(size for _, size in times_and_sizes)
    return Cleaned(deleted, deleted_bytes, kept)


def _stems_in_use(directory: Path) -> set[str]:
    """Return the stems of the responses that a process uses."""
    marks = [path for path in directory.glob("*.lock") if _SPOOL_MARK.fullmatch(path.name)]
    return {stem_of(mark.name) for mark in marks if _is_file(mark) and not remove_unless_held(mark)}


def _response_files(response_path: Path) -> list[Path]:
    """Return the files of a response or a snapshot; none for other files and folders."""
    if SpoolName.parse(response_path.name) and _is_file(response_path):
        return [response_path]
    if _PROFILE_FOLDER.fullmatch(response_path.name):
        return files_of_pages(response_path) or []
    return []


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _written_and_size(spool_file: Path) -> tuple[float, int]:
    try:
        file_status = spool_file.stat()
    except FileNotFoundError:
        return time.time(), 0  # another process deleted or renamed it just now
    return file_status.st_mtime, file_status.st_size


def _delete_response(response_path: Path) -> bool:
    """Delete a response or a snapshot, and return whether it was possible: no process uses it."""
    if not response_path.is_dir():
        response_path.unlink(missing_ok=True)
        return True
    taken_over = take_over(response_path)
    if taken_over:
        remove_pages(taken_over)
    return taken_over is not None
