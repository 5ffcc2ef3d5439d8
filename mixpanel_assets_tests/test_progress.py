"""The bar of a snapshot of profiles, as a terminal shows it."""

import io
import re

from rich.console import Console

from mixpanel_assets import ProfileProgress
from mixpanel_assets.progress import page_bar


def settled(page, rows=10, *, error=None, before=0):
    return ProfileProgress(page, 3, rows, error is None, error, before + rows)


def shown(*pages):
    """Return the last line that a terminal shows."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)
    with page_bar(console) as draw:
        for page in pages:
            draw(page)
    return [line for line in re.split(r"[\r\n]+", screen.getvalue()) if "pages" in line][-1]


def test_it_counts_pages_and_rows():
    """A page that failed is not done."""
    line = shown(settled(0), settled(1, 0, error="lost", before=10), settled(2, before=10))
    assert "2/3 pages, 20 rows" in line


def test_a_snapshot_begun_anew_begins_at_nothing():
    """Page 0 opens each of them."""
    line = shown(settled(0), settled(1, before=10), settled(0))
    assert "1/3 pages, 10 rows" in line


def test_anything_but_a_terminal_stays_empty():
    """Logs are not filled with bars."""
    screen = io.StringIO()
    with page_bar(Console(file=screen)) as draw:
        draw(settled(0))
    assert screen.getvalue().strip() == ""
