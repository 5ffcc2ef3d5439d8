"""The tables that `mp fetch` makes, and what it prints of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any

from mixpanel_assets.cli.invocation import current
from mixpanel_assets.cli.output import print_record
from mixpanel_assets.cli.records import spinner
from mixpanel_assets.fetch_results import ParallelProfileResult, ProfileProgress
from mixpanel_assets.profile_fetcher import whole
from mixpanel_assets.progress import page_bar


def make_events_table(
    name: str,
    from_date: date,
    to_date: date,
    *,
    events: Sequence[str] | None,
    where: str | None,
    replace: bool,
) -> None:
    """Make a table of events and print what it holds as JSON."""
    with current().workspace() as workspace, spinner() as bar:
        bar.add_task("events")
        result = workspace.fetch_events(
            name,
            from_date=from_date,
            to_date=to_date,
            events=events,
            where=where,
            replace=replace,
        )
        current().note(f"in {workspace.db_path}")
    print_record(result.to_dict())


def make_profiles_table(
    name: str,
    filters: Mapping[str, Any],
    *,
    append: bool,
    replace: bool,
    parallel: bool,
    max_workers: int | None,
    progress: bool,
) -> None:
    """Make a table of profiles and print what it holds as JSON.

    Raises:
        IncompleteExportError: Pages are missing; the message names them.
    """
    with current().workspace() as workspace, _pages_shown(parallel, progress) as show:
        result = workspace.fetch_profiles(
            name,
            **filters,
            append=append,
            replace=replace,
            parallel=parallel,
            max_workers=max_workers,
            progress=False,
            on_page_complete=show,
        )
        current().note(f"in {workspace.db_path}")
    print_record(result.to_dict())
    if isinstance(result, ParallelProfileResult):
        whole(result)


@contextmanager
def _pages_shown(
    parallel: bool, progress: bool
) -> Iterator[Callable[[ProfileProgress], None] | None]:
    console = current().console()
    if not progress:
        yield None
    elif console.is_terminal:
        with page_bar(console) as draw:
            yield draw
    else:
        yield (lambda page: console.print(_line(page))) if parallel else None


def _line(page: ProfileProgress) -> str:
    if page.error:
        return f"✗ Page {page.page_index}: {page.error}"
    return f"✓ Page {page.page_index}: {page.rows:,} rows (cumulative: {page.cumulative_rows:,})"
