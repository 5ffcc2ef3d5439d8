"""The bars of loads, as a terminal shows them."""

import io
import re

from rich.console import Console

from mixpanel_assets import BatchProgress, ProfileProgress
from mixpanel_assets.progress import batch_bar, day_bar, page_bar


def settled(page, rows=10, *, error=None, before=0):
    return ProfileProgress(page, 3, rows, error is None, error, before + rows)


def terminal(screen):
    return Console(file=screen, force_terminal=True, width=100, color_system=None)


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
    """Those that are stored, of all that were asked for."""
    screen = io.StringIO()
    with day_bar(31, terminal(screen)) as bar:
        bar.stored(10, 100)
        bar.kept()
    assert re.search(r"2/31\s+days", last_line(screen, "days"))


def test_anything_but_a_terminal_stays_empty():
    """Logs are not filled with bars."""
    screen = io.StringIO()
    with page_bar(Console(file=screen)) as draw:
        draw(settled(0))
    with day_bar(31, Console(file=screen)) as bar:
        bar.stored(10, 100)
    assert screen.getvalue().strip() == ""
