"""Progress bars on a terminal; nothing anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import TYPE_CHECKING

from mixpanel_assets.fetch_results import BatchProgress, ProfileProgress

if TYPE_CHECKING:
    from rich.console import Console

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
