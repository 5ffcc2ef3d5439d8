"""How far a load is, on stderr: a bar on a terminal, and now and then a line elsewhere."""

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
Tell = Callable[[T], None]

_FIRST_SECONDS = 2.0
_NEXT_SECONDS = 10.0


class Lines:
    """Says a line once two seconds have passed, and another one every ten seconds.

    Args:
        say: Takes a line.
        now: A clock that only goes forward, in seconds.
    """

    def __init__(self, say: Tell[str], now: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._now = now
        self._due = now() + _FIRST_SECONDS
        self._events = 0
        self._done = 0

    def batch(self, batch: BatchProgress) -> None:
        """Take note of events that arrived."""
        self._events += batch.rows
        self._perhaps(
            f"{self._events:,} events so far; at {batch.from_date} to {batch.to_date}, "
            f"{batch.batch_index + 1} of {batch.total_batches}"
        )

    def page(self, page: ProfileProgress) -> None:
        """Take note of a page that is settled; page 0 begins a snapshot, also anew."""
        self._done = page.success + (self._done if page.page_index else 0)
        self._perhaps(
            f"{self._done} of {page.total_pages} pages, {page.cumulative_rows:,} profiles so far"
        )

    def day(self, report: DayReport, days: int) -> None:
        """Take note of a day that is stored."""
        self._done += 1
        self._events += report.row_count
        self._perhaps(f"{self._done} of {days} days, {self._events:,} events stored so far")

    def _perhaps(self, line: str) -> None:
        now = self._now()
        if now >= self._due:
            self._due = now + _NEXT_SECONDS
            self._say(line)


def batches_shown(*, each: bool) -> AbstractContextManager[Tell[BatchProgress]]:
    """Yield who shows how far a fetch of events is; `each` request is a line, or some are."""
    lines = Lines(current().note)
    return _shown(batch_bar, _each_told(_batch_line) if each else lines.batch)


def pages_shown(*, each: bool) -> AbstractContextManager[Tell[ProfileProgress]]:
    """Yield who shows how far a snapshot of profiles is; `each` page is a line, or some are."""
    lines = Lines(current().note)
    return _shown(page_bar, _each_told(_page_line) if each else lines.page)


@contextmanager
def _shown(
    bar: Callable[[Console], AbstractContextManager[Tell[T]]], tell: Tell[T]
) -> Iterator[Tell[T]]:
    """Yield what draws a bar on a terminal, or else tells."""
    console = current().console()
    if console.is_terminal:
        with bar(console) as draw:
            yield draw
    else:
        yield tell


def _each_told(line: Callable[[T], str]) -> Tell[T]:
    return lambda part: current().note(line(part))


class DaysShown:
    """Shows how far a load of days is: nowhere, unless a subclass does."""

    def stored(self, report: DayReport) -> None:
        """Take note of a day that is stored."""

    def kept(self, report: DayReport) -> None:
        """Take note of a day that stays as it was."""

    def arrived(self, first: date, last: date, events: int) -> None:
        """Take note of events of a request that is on its way."""


class _DaysAsBar(DaysShown):
    def __init__(self, bar: DayBar) -> None:
        self._bar = bar

    def stored(self, report: DayReport) -> None:
        self._bar.stored(report.row_count, report.bytes)

    def kept(self, report: DayReport) -> None:
        self._bar.kept()

    def arrived(self, first: date, last: date, events: int) -> None:
        self._bar.arrived(first, last, events)


class _DaysAsLines(DaysShown):
    def __init__(self, days: int) -> None:
        self._days = days
        self._lines = Lines(current().note)

    def stored(self, report: DayReport) -> None:
        self._lines.day(report, self._days)

    kept = stored


@contextmanager
def days_shown(days: int, *, lines: bool) -> Iterator[DaysShown]:
    """Yield who shows how many days are stored.

    Args:
        days: How many there will be.
        lines: Whether there are lines without a terminal; not needed where each day is told.
    """
    console = current().console()
    if console.is_terminal:
        with day_bar(days, console) as bar:
            yield _DaysAsBar(bar)
    else:
        yield _DaysAsLines(days) if lines else DaysShown()


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
