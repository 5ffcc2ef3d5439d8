"""What a fetch returns, what it reports while it runs, and progress bars for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from mixpanel_assets.errors import StorageError
from mixpanel_assets.results import Result

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console


@dataclass(frozen=True)
class FetchResult(Result):
    """What a fetch stored.

    Attributes:
        table: Its name.
        rows: Rows of it that this fetch brought, each event once; of an append, events that were
            there already are among them.
        type: What a row is.
        duration_seconds: From the first request to the commit.
        date_range: First and last day as text, both included; None for profiles.
        fetched_at: When it was stored; UTC.
    """

    table: str
    rows: int
    type: Literal["events", "profiles"]
    duration_seconds: float
    date_range: tuple[str, str] | None
    fetched_at: datetime
    _read: Callable[[], pd.DataFrame] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def df(self) -> pd.DataFrame:
        """The rows of the table, read when this is first asked for, and kept.

        Of the assets' tables, the rows of the days that were fetched.

        Raises:
            TableNotFoundError: It was dropped since.
            StorageError: The result was made without a database.
        """
        if self._read is None:
            raise StorageError(f"This result knows no database that holds {self.table!r}.")
        return self._read()


@dataclass(frozen=True)
class BatchProgress(Result):
    """How far a fetch of events is.

    A parallel fetch tells of each request once it is settled. A sequential one tells of events
    as they arrive, and once more when a request is done; the numbers of all calls add up.

    Attributes:
        from_date: First day of the request, included.
        to_date: Last day of the request, included.
        batch_index: Its number, from 0.
        total_batches: How many requests there are.
        rows: Events that arrived since the last call, repeats that Mixpanel sent included.
        success: Whether all days of the request are whole, as far as they have come.
        error: Why not.
    """

    from_date: str
    to_date: str
    batch_index: int
    total_batches: int
    rows: int
    success: bool
    error: str | None = None


@dataclass(frozen=True)
class BatchResult(Result):
    """What became of one request of a parallel fetch.

    Attributes:
        from_date: First day, included.
        to_date: Last day, included.
        rows: Events that arrived whole, repeats that Mixpanel sent included.
        success: Whether all of its days came.
        error: Why not.
    """

    from_date: str
    to_date: str
    rows: int
    success: bool
    error: str | None = None


@dataclass(frozen=True)
class ParallelFetchResult(Result):
    """What a parallel fetch of events stored.

    Attributes:
        table: Its name.
        total_rows: Rows of it that this fetch brought, each event once.
        successful_batches: Requests of which every day is stored.
        failed_batches: Requests with days that are not.
        failed_date_ranges: Those days: first and last, both included, in order.
        duration_seconds: From the first request to the last commit.
        fetched_at: When that was; UTC.
    """

    table: str
    total_rows: int
    successful_batches: int
    failed_batches: int
    failed_date_ranges: tuple[tuple[str, str], ...]
    duration_seconds: float
    fetched_at: datetime

    @property
    def has_failures(self) -> bool:
        """Whether days are missing; fetch them again with `append`."""
        return bool(self.failed_batches)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `has_failures`, ready for JSON."""
        return {**super().to_dict(), "has_failures": self.has_failures}


@dataclass(frozen=True)
class ProfileProgress(Result):
    """One page of a snapshot is settled.

    Attributes:
        page_index: Its number, from 0.
        total_pages: How many pages the snapshot has, as far as is known.
        rows: Profiles on this page; 0 if it failed.
        success: Whether it is on disk, whole.
        error: Why not.
        cumulative_rows: Profiles on all pages that are on disk, this one included.
    """

    page_index: int
    total_pages: int | None
    rows: int
    success: bool
    error: str | None
    cumulative_rows: int


@dataclass(frozen=True)
class ParallelProfileResult(Result):
    """What a parallel fetch of profiles stored.

    Attributes:
        table: Its name.
        total_rows: Rows that are stored of this snapshot.
        successful_pages: Pages that came whole.
        failed_pages: Pages that stayed broken.
        failed_page_indices: Their numbers, in order.
        duration_seconds: From the first request to the commit.
        fetched_at: When it was stored; UTC.
        expected_total: Profiles that page 0 announced.
        missing_rows: How many different profiles came short of that.
    """

    table: str
    total_rows: int
    successful_pages: int
    failed_pages: int
    failed_page_indices: tuple[int, ...]
    duration_seconds: float
    fetched_at: datetime
    expected_total: int
    missing_rows: int

    @property
    def has_failures(self) -> bool:
        """Whether the snapshot is not whole: what came was merged in, nothing was deleted."""
        return bool(self.failed_pages or self.missing_rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `has_failures`, ready for JSON."""
        return {**super().to_dict(), "has_failures": self.has_failures}


# The names that earlier documents gave to the same things.
ProfileBatchProgress = ProfileProgress
ParallelProfileFetchResult = ParallelProfileResult


_BAR_WIDTH = 12  # leaves room for the rest in 80 columns


class _Bar:
    """Parts done, rows, rows a second and time left."""

    def __init__(self, what: str, parts: str, console: Console) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.progress = Progress(
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(parts + ", {task.fields[rows]:,} rows, {task.fields[rate]:,.0f}/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self.progress.add_task(what, total=None, rows=0, rate=0.0)

    def begin(self) -> None:
        self.progress.reset(self._task)

    def draw(self, done: float, total: int | None, rows: int) -> None:
        elapsed = self.progress.tasks[self._task].elapsed or 0.0
        rate = rows / elapsed if elapsed else 0.0
        self.progress.update(self._task, completed=done, total=total, rows=rows, rate=rate)


@contextmanager
def page_bar(console: Console | None = None) -> Iterator[Callable[[ProfileProgress], None]]:
    """Yield what draws each settled page: pages done, rows, rows a second and time left.

    Args:
        console: Where to draw; standard error by default. Anything but a terminal stays empty.
    """
    with _drawn("profiles", "pages", console) as bar:
        done = 0

        def draw(page: ProfileProgress) -> None:
            nonlocal done
            if page.page_index == 0:  # told first, and again when a snapshot is begun anew
                bar.begin()
                done = 0
            done += page.success
            bar.draw(done, page.total_pages, page.cumulative_rows)

        yield draw


@contextmanager
def batch_bar(console: Console | None = None) -> Iterator[Callable[[BatchProgress], None]]:
    """Yield what draws how far a fetch of events is: requests done, rows, rate and time left.

    Args:
        console: Where to draw; standard error by default. Anything but a terminal stays empty.
    """
    with _drawn("events", "requests", console) as bar:
        rows, begun = 0, set[int]()

        def draw(batch: BatchProgress) -> None:
            nonlocal rows
            rows += batch.rows
            begun.add(batch.batch_index)
            bar.draw(len(begun), batch.total_batches, rows)

        yield draw


class DayBar:
    """Days that are stored, what they hold, the request that is on its way, and the time left.

    It is one line: what finds no room in a narrow terminal is left out.
    """

    def __init__(self, days: int, console: Console) -> None:
        """Draw nothing yet.

        Args:
            days: How many there will be.
            console: Where to draw. Anything but a terminal stays empty.
        """
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
        from rich.table import Column

        self.progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=_BAR_WIDTH),
            TextColumn("{task.fields[told]}", table_column=Column(no_wrap=True)),
            console=console,
            disable=not console.is_terminal,
        )
        self._room = console.width - _BAR_WIDTH - len("⠋ ") - 1
        self._days = days
        self._done = self._stored = self._rows = self._bytes = 0
        self._coming = ""
        self._task = self.progress.add_task("events", total=days, told=f"0/{days} days")

    def stored(self, rows: int, size: int) -> None:
        """Draw one more day.

        Args:
            rows: Its events.
            size: What was received for it, in bytes.
        """
        self._stored += 1
        self._rows += rows
        self._bytes += size
        self._coming = ""
        self._draw(1)

    def kept(self) -> None:
        """Draw one more day that stays as it is."""
        self._draw(1)

    def arrived(self, first: date, last: date, events: int) -> None:
        """Draw what is on its way: first and last day, and how many events have come."""
        days = f"{first}" if first == last else f"{first}..{last:%m-%d}"
        self._coming = f"{days}: {events:,}"
        self._draw(0)

    def _draw(self, days: int) -> None:
        self._done += days
        self.progress.update(self._task, advance=days, told=self._text())

    def _text(self) -> str:
        elapsed = self.progress.tasks[self._task].elapsed or 0.0
        rate = f"{self._rows / elapsed if elapsed else 0.0:,.0f}/s"
        parts = [
            f"{self._done}/{self._days} days",
            f"{self._rows:,} events",
            f"{self._bytes / 1e6:,.1f} MB",
            rate,
            self._coming,
            self._time_left(elapsed),
        ]
        for least in (self._coming, rate):
            if len(", ".join(filter(None, parts))) > self._room:
                parts.remove(least)
        return ", ".join(filter(None, parts))

    def _time_left(self, elapsed: float) -> str:
        """Return about how long the rest takes; days that stay as they are take no time."""
        if not self._stored or self._done >= self._days:
            return ""
        left = timedelta(seconds=round(elapsed / self._stored * (self._days - self._done)))
        return f"{left} left"


@contextmanager
def day_bar(days: int, console: Console) -> Iterator[DayBar]:
    """Yield a bar that is on the terminal for the length of the block.

    Args:
        days: How many there will be.
        console: Where to draw.
    """
    bar = DayBar(days, console)
    with bar.progress:
        yield bar


@contextmanager
def _drawn(what: str, parts: str, console: Console | None) -> Iterator[_Bar]:
    if console is None:
        from rich.console import Console

        console = Console(stderr=True)
    bar = _Bar(what, parts, console)
    with bar.progress:
        yield bar
