"""Progress of a load on stderr: a bar on a terminal, and elsewhere a line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from typing import TYPE_CHECKING, TypeVar

from mixpanel_assets.cli.invocation import current
from mixpanel_assets.loading.results import (
    BatchProgress,
    DayBar,
    ProfileProgress,
    batch_bar,
    day_bar,
    page_bar,
)
from mixpanel_assets.warehouse import DayReport

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
Listener = Callable[[T], None]

_FIRST_SECONDS = 2.0  # short loads print nothing
_NEXT_SECONDS = 10.0


class Lines:
    """Prints a line after two seconds, and then one every ten seconds."""

    def __init__(self, write: Listener[str], now: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._now = now
        self._due = now() + _FIRST_SECONDS
        self._events = 0
        self._done = 0

    def batch(self, batch: BatchProgress) -> None:
        """Count events that were received."""
        self._events += batch.rows
        self._write_if_due(
            f"{self._events:,} events so far; at {batch.from_date} to {batch.to_date}, "
            f"{batch.batch_index + 1} of {batch.total_batches}"
        )

    def page(self, page: ProfileProgress) -> None:
        """Count a page that was received or has failed; page 0 starts a new snapshot."""
        self._done = page.success + (self._done if page.page_index else 0)
        self._write_if_due(
            f"{self._done} of {page.total_pages} pages, {page.cumulative_rows:,} profiles so far"
        )

    def day(self, report: DayReport, days: int) -> None:
        """Count a stored day."""
        self._done += 1
        self._events += report.row_count
        self._write_if_due(f"{self._done} of {days} days, {self._events:,} events stored so far")

    def _write_if_due(self, line: str) -> None:
        now = self._now()
        if now >= self._due:
            self._due = now + _NEXT_SECONDS
            self._write(line)


def show_batches(*, each: bool) -> AbstractContextManager[Listener[BatchProgress]]:
    """Yield a listener that shows the progress of a fetch; `each`: every request is a line."""
    return _show(batch_bar, _each_line(_batch_line) if each else Lines(current().note).batch)


def show_pages(*, each: bool) -> AbstractContextManager[Listener[ProfileProgress]]:
    """Yield a listener that shows the progress of a snapshot; `each`: every page is a line."""
    return _show(page_bar, _each_line(_page_line) if each else Lines(current().note).page)


@contextmanager
def _show(
    bar: Callable[[Console], AbstractContextManager[Listener[T]]], write: Listener[T]
) -> Iterator[Listener[T]]:
    console = current().console()
    if console.is_terminal:
        with bar(console) as draw:
            yield draw
    else:
        yield write


def _each_line(line: Callable[[T], str]) -> Listener[T]:
    return lambda part: current().note(line(part))


class DayProgress:
    """Progress of a load of days. This base class shows nothing."""

    def stored(self, report: DayReport) -> None:
        """Count a stored day."""

    def kept(self, report: DayReport) -> None:
        """Count a day that was not loaded again."""

    def arrived(self, first: date, last: date, events: int) -> None:
        """Show the number of events received so far for the current request."""


class _DayBar(DayProgress):
    def __init__(self, bar: DayBar) -> None:
        self._bar = bar

    def stored(self, report: DayReport) -> None:
        self._bar.stored(report.row_count, report.bytes)

    def kept(self, report: DayReport) -> None:
        self._bar.kept()

    def arrived(self, first: date, last: date, events: int) -> None:
        self._bar.arrived(first, last, events)


class _DayLines(DayProgress):
    def __init__(self, days: int) -> None:
        self._days = days
        self._lines = Lines(current().note)

    def stored(self, report: DayReport) -> None:
        self._lines.day(report, self._days)

    kept = stored


@contextmanager
def show_days(days: int, *, lines: bool) -> Iterator[DayProgress]:
    """Yield what shows the number of stored days; `lines`: also without a terminal."""
    console = current().console()
    if console.is_terminal:
        with day_bar(days, console) as bar:
            yield _DayBar(bar)
    else:
        yield _DayLines(days) if lines else DayProgress()


def _batch_line(batch: BatchProgress) -> str:
    which = f"Batch {batch.batch_index + 1}/{batch.total_batches}"
    days = f"{batch.from_date} to {batch.to_date}"
    if batch.error:
        return f"✗ {which}: {days}: {batch.error}"
    return f"✓ {which}: {days} ({batch.rows:,} rows)"


def _page_line(page: ProfileProgress) -> str:
    if page.error:
        return f"✗ Page {page.page_index}: {page.error}"
    return f"✓ Page {page.page_index}: {page.rows:,} rows (cumulative: {page.cumulative_rows:,})"
