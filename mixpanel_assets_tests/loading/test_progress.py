"""The bars of loads, as a terminal shows them."""

import io
import re
from datetime import date

import pytest
from rich.console import Console

from mixpanel_assets import BatchProgress, ProfileProgress
from mixpanel_assets.loading.results import batch_bar, day_bar, page_bar


def settled(page, rows=10, *, error=None, before=0):
    return ProfileProgress(page, 3, rows, error is None, error, before + rows)


def terminal(screen, width=100):
    return Console(file=screen, force_terminal=True, width=width, color_system=None)


def last_line(screen, word):
    return [line for line in re.split(r"[\r\n]+", screen.getvalue()) if word in line][-1]


def shown(*pages):
    """Return the last line that a terminal shows."""
    screen = io.StringIO()
    with page_bar(terminal(screen)) as draw:
        for page in pages:
            draw(page)
    return last_line(screen, "pages")


def test_it_counts_pages_and_rows():
    """A page that failed is not done."""
    line = shown(settled(0), settled(1, 0, error="lost", before=10), settled(2, before=10))
    assert "2/3 pages, 20 rows" in line


def test_a_snapshot_begun_anew_begins_at_nothing():
    """Page 0 opens each of them."""
    line = shown(settled(0), settled(1, before=10), settled(0))
    assert "1/3 pages, 10 rows" in line


def test_requests_of_events_are_counted_with_their_rows():
    """Those that have begun, of all."""
    screen = io.StringIO()
    with batch_bar(terminal(screen)) as draw:
        for number, rows in ((0, 1000), (0, 500), (1, 20)):
            draw(BatchProgress("2024-01-01", "2024-01-07", number, 3, rows, success=True))
    assert "2/3 requests, 1,520 rows" in last_line(screen, "requests")


def test_days_are_counted():
    """The bar counts the stored days among the requested ones."""
    screen = io.StringIO()
    with day_bar(31, terminal(screen)) as bar:
        bar.stored(10, 100)
        bar.kept()
    assert "2/31 days" in last_line(screen, "days")


@pytest.mark.parametrize("width", [80, 120])
def test_days_are_told_with_the_time_left_in_one_line(width):
    """What finds no room is left out, never cut; the last day has no time left."""
    screen = io.StringIO()
    with day_bar(365, terminal(screen, width)) as bar:
        bar.stored(12_345_678, 9_876_543_210)
        bar.arrived(date(2024, 1, 2), date(2024, 1, 6), 1_234_567)
        bar.progress.refresh()
        line = last_line(screen, "days")
        for _ in range(364):
            bar.stored(1, 100)
    assert re.search(r" 1/365 days, 12,345,678 events, 9,876.5 MB, .*\d:\d\d:\d\d left", line)
    assert ("2024-01-02..01-06: 1,234,567" in line) == (width == 120)
    assert "…" not in line
    assert (
        max(map(len, re.split(r"[\r\n]+", re.sub(r"\x1b\S*?[A-Za-z]", "", screen.getvalue()))))
        <= width
    )
    assert "365/365 days, 12,346,042 events" in last_line(screen, "days")


def test_anything_but_a_terminal_stays_empty():
    """Logs are not filled with bars."""
    screen = io.StringIO()
    with page_bar(Console(file=screen)) as draw:
        draw(settled(0))
    with day_bar(31, Console(file=screen)) as bar:
        bar.stored(10, 100)
    assert screen.getvalue().strip() == ""
