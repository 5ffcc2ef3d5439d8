"""`mp sync`: load days, say what was stored."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mixpanel_assets.cli.invocation import current
from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.progress import page_bar
from mixpanel_assets.warehouse import DayReport
from mixpanel_assets.workspace import Workspace


def sync_days(from_date: date, to_date: date, database: Path | None, *, profiles: bool) -> None:
    """Load the days, both ends included; progress goes to stderr, results to stdout."""
    errors = current().console()
    out = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=True)
    credentials = current().credentials()
    bar = Progress(
        TextColumn("events"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("days"),
        TimeRemainingColumn(),
        console=errors,
        disable=errors.quiet or not errors.is_terminal,
    )
    with Workspace(credentials=credentials, path=database, on_wait=errors.print) as workspace, bar:
        task = bar.add_task("events", total=max(0, (to_date - from_date).days + 1))

        def stored(report: DayReport) -> None:
            bar.advance(task)
            out.print(
                f"{report.day}  {report.row_count:>10,} events  {report.status}"
                f"  repeats removed {report.duplicates_removed:,}"
            )

        reports = workspace.sync_events(from_date, to_date, on_day=stored)
        if profiles:
            bar.stop()
            with _partial_if(bool(reports)), page_bar(errors) as draw:
                snapshot = workspace.sync_profiles(on_page_complete=draw)
            out.print(f"profiles    {snapshot.row_count:>10,} rows    {snapshot.status}")
        out.print(f"in {workspace.db_path}")


@contextmanager
def _partial_if(stored: bool) -> Iterator[None]:
    """Let an incomplete answer say that something else of the same command is stored."""
    try:
        yield
    except IncompleteExportError as error:
        error.partial = error.partial or stored
        error.details["partial"] = error.partial
        raise
