"""Progress bars on a terminal; nothing anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mixpanel_assets.fetch_results import ProfileProgress

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def page_bar(console: Console | None = None) -> Iterator[Callable[[ProfileProgress], None]]:
    """Yield what draws each settled page: pages done, rows, rows a second and time left.

    Args:
        console: Where to draw; standard error by default. Anything but a terminal stays empty.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    console = console or Console(stderr=True)
    bar = Progress(
        TextColumn("profiles"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("pages, {task.fields[rows]:,} rows, {task.fields[rate]:,.0f}/s"),
        TimeLeft(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("profiles", total=None, rows=0, rate=0.0)

        def draw(page: ProfileProgress) -> None:
            if page.page_index == 0:
                bar.reset(task)  # page 0 is told first, and again when a snapshot is begun anew
            rows, elapsed = page.cumulative_rows, bar.tasks[task].elapsed or 0.0
            rate = rows / elapsed if elapsed else 0.0
            bar.update(task, total=page.total_pages, rows=rows, rate=rate, advance=page.success)

        yield draw
