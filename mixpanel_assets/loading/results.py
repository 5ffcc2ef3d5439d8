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
        rows: Rows that this fetch received, each event once. With `append`, this includes events
            that were stored before.
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
        """The rows of the table, read on first use and cached.

        Of an asset's table, the rows of the fetched days.

        Raises:
            TableNotFoundError: The table was dropped.
            StorageError: The result was made without a database.
        """
        if self._read is None:
            raise StorageError(f"This result knows no database that holds {self.table!r}.")
        return self._read()


@dataclass(frozen=True)
class BatchProgress(Result):
    """How far a fetch of events is.

    A parallel fetch reports each request when it is done. A sequential one reports events as they
    arrive, and the rest when a request is done; the numbers of all reports add up.

    Attributes:
        from_date: First day of the request, included.
        to_date: Last day of the request, included.
        batch_index: Its number, from 0.
        total_batches: The number of requests.
        rows: Events that arrived since the last report, duplicates that Mixpanel sent included.
        success: Whether no day of the request has failed so far.
        error: Why one failed.
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
    """The result of one request of a parallel fetch.

    Attributes:
        from_date: First day, included.
        to_date: Last day, included.
        rows: Events received, duplicates that Mixpanel sent included.
        success: Whether all of its days are complete.
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
        total_rows: Rows that this fetch received, each event once.
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
        values = super().to_dict()
        # A script that reads CSV by position expects it before these two.
        last = {name: values.pop(name) for name in ("duration_seconds", "fetched_at")}
        return {**values, "has_failures": self.has_failures, **last}


@dataclass(frozen=True)
class ProfileProgress(Result):
    """One page of a snapshot has arrived or finally failed.

    Attributes:
        page_index: Its number, from 0.
        total_pages: The number of pages, as far as is known.
        rows: Profiles on this page; 0 if it failed.
        success: Whether it is complete and on disk.
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
        total_rows: Stored rows of this snapshot.
        successful_pages: Complete pages.
        failed_pages: Pages that could not be fetched.
        failed_page_indices: Their numbers, in order.
        duration_seconds: From the first request to the commit.
        fetched_at: When it was stored; UTC.
        expected_total: Profiles that page 0 announced.
        missing_rows: Announced profiles that did not arrive.
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
        """Whether the snapshot is incomplete: it was merged in, and nothing was deleted."""
        return bool(self.failed_pages or self.missing_rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `has_failures`, ready for JSON."""
        return {**super().to_dict(), "has_failures": self.has_failures}


# The names that earlier documents gave to the same things.
ProfileBatchProgress = ProfileProgress
ParallelProfileFetchResult = ParallelProfileResult


_PROGRESS_WIDTH = 12  # leaves room for the rest in 80 columns


class _FetchBar:
    """Parts done, rows, rows a second and time left."""

    def __init__(self, title: str, parts: str, console: Console) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.progress = Progress(
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(parts + ", {task.fields[rows]:,} rows, {task.fields[rate]:,.0f}/s"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self.progress.add_task(title, total=None, rows=0, rate=0.0)

    def begin(self) -> None:
        self.progress.reset(self._task)

    def draw(self, done: float, total: int | None, rows: int) -> None:
        elapsed = self.progress.tasks[self._task].elapsed or 0.0
        rate = rows / elapsed if elapsed else 0.0
        self.progress.update(self._task, completed=done, total=total, rows=rows, rate=rate)


@contextmanager
def page_bar(console: Console | None = None) -> Iterator[Callable[[ProfileProgress], None]]:
    """Yield a function that draws pages on a terminal, by default of standard error."""
    with _drawn_bar("profiles", "pages", console) as bar:
        done = 0

        def draw(page: ProfileProgress) -> None:
            nonlocal done
            if page.page_index == 0:  # reported first, and again if a snapshot begins again
                bar.begin()
                done = 0
            done += page.success
            bar.draw(done, page.total_pages, page.cumulative_rows)

        yield draw


@contextmanager
def batch_bar(console: Console | None = None) -> Iterator[Callable[[BatchProgress], None]]:
    """Yield a function that draws requests on a terminal, by default of standard error."""
    with _drawn_bar("events", "requests", console) as bar:
        rows, begun = 0, set[int]()

        def draw(batch: BatchProgress) -> None:
            nonlocal rows
            rows += batch.rows
            begun.add(batch.batch_index)
            bar.draw(len(begun), batch.total_batches, rows)

        yield draw


class DayBar:
    """A line with stored days, their rows and bytes, the arriving response, and the time left.

    Parts that do not fit into a narrow terminal are left out. On other consoles nothing is drawn.
    """

    def __init__(self, days: int, console: Console) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
        from rich.table import Column

        self.progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=_PROGRESS_WIDTH),
            TextColumn("{task.fields[text]}", table_column=Column(no_wrap=True)),
            console=console,
            disable=not console.is_terminal,
        )
        self._bar_room = console.width - _PROGRESS_WIDTH - len("⠋ ") - 1
        self._days = days
        self._days_done = self._days_stored = self._rows_stored = self._bytes_received = 0
        self._arriving_response = ""
        self._task = self.progress.add_task("events", total=days, text=f"0/{days} days")

    def stored(self, rows: int, size: int) -> None:
        """Draw one more day with its events, and the bytes received for it."""
        self._days_stored += 1
        self._rows_stored += rows
        self._bytes_received += size
        self._arriving_response = ""
        self._draw_progress(1)

    def kept(self) -> None:
        """Draw one more day that is not requested."""
        self._draw_progress(1)

    def arrived(self, first: date, last: date, events: int) -> None:
        """Draw an arriving response: its first and last day, and its events so far."""
        days = f"{first}" if first == last else f"{first}..{last:%m-%d}"
        self._arriving_response = f"{days}: {events:,}"
        self._draw_progress(0)

    def _draw_progress(self, days: int) -> None:
        self._days_done += days
        self.progress.update(self._task, advance=days, text=self._progress_text())

    def _progress_text(self) -> str:
        elapsed = self.progress.tasks[self._task].elapsed or 0.0
        rate = f"{self._rows_stored / elapsed if elapsed else 0.0:,.0f}/s"
        progress_parts = [
            f"{self._days_done}/{self._days} days",
            f"{self._rows_stored:,} events",
            f"{self._bytes_received / 1e6:,.1f} MB",
            rate,
            self._arriving_response,
            self._time_left(elapsed),
        ]
        for least_important in (self._arriving_response, rate):
            if len(", ".join(filter(None, progress_parts))) > self._bar_room:
                progress_parts.remove(least_important)
        return ", ".join(filter(None, progress_parts))

    def _time_left(self, elapsed: float) -> str:
        """Return about how long the rest takes; kept days take no time."""
        if not self._days_stored or self._days_done >= self._days:
            return ""
        left = timedelta(
            seconds=round(elapsed / self._days_stored * (self._days - self._days_done))
        )
        return f"{left} left"


@contextmanager
def day_bar(days: int, console: Console) -> Iterator[DayBar]:
    """Yield a bar that is drawn until the block ends; see `DayBar`."""
    bar = DayBar(days, console)
    with bar.progress:
        yield bar


@contextmanager
def _drawn_bar(title: str, parts: str, console: Console | None) -> Iterator[_FetchBar]:
    if console is None:
        from rich.console import Console

        console = Console(stderr=True)
    bar = _FetchBar(title, parts, console)
    with bar.progress:
        yield bar
