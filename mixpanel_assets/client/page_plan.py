"""The stored plan of a profile snapshot: which pages there are, and which of them lie on disk.

Page files hold one profile per line, exactly as Mixpanel sent it. A page that is on disk is
never asked for again, so whoever comes back to a plan fetches only what is missing.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mixpanel_assets.client.spool import in_use
from mixpanel_assets.rules.locks import PRIVATE_FILE, remove_unless_held

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
