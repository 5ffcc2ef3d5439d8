"""The tables that `mp fetch` makes, and what it prints of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from mixpanel_assets.cli.exits import InvalidArgumentsError
from mixpanel_assets.cli.invocation import current, told_what_is_kept
from mixpanel_assets.cli.output import Format, print_record
from mixpanel_assets.cli.progress import batches_shown, pages_shown
from mixpanel_assets.errors import ConfigError, IncompleteExportError
from mixpanel_assets.loading.profiles import require_all_pages
from mixpanel_assets.loading.results import (
    BatchProgress,
    ParallelFetchResult,
    ParallelProfileResult,
)
from mixpanel_assets.warehouse import check_name


def make_events_table(
    name: str,
    asked: Mapping[str, Any],
    *,
    parallel: bool,
    progress: bool,
    output: Format,
    jq: str | None,
) -> None:
    """Make a table of events and print what it holds.

    Raises:
        IncompleteExportError: Days are missing; the message names them.
    """
    _check(name, "events")
    stored: list[BatchProgress] = []

    def told(batch: BatchProgress) -> None:
        if parallel and batch.success and not asked["replace"]:
            stored.append(batch)
        if show:
            show(batch)

    with (
        told_what_is_kept(lambda: _kept_of(name, stored)),
        current().workspace() as workspace,
        batches_shown(each=parallel) if progress else nullcontext() as show,
    ):
        result = workspace.fetch_events(
            name, **asked, parallel=parallel, progress=False, on_batch_complete=told
        )
        current().note(f"in {workspace.db_path}")
    print_record(result.to_dict(), output, jq)
    if isinstance(result, ParallelFetchResult):
        _require_whole(result)


def _check(name: str, default: str) -> None:
    if name != default:
        try:
            check_name(name)
        except ConfigError as error:
            raise InvalidArgumentsError(error.message) from None


def _kept_of(name: str, stored: Sequence[BatchProgress]) -> str:
    if not stored:
        return f"The table {name!r} is as it was."
    days = ", ".join(f"{batch.from_date}..{batch.to_date}" for batch in stored)
    return f"{name!r} holds {days}; the rest is as it was. Get other days with --append."


def _require_whole(result: ParallelFetchResult) -> None:
    if not result.has_failures:
        return
    days = ", ".join(f"{first}..{last}" for first, last in result.failed_date_ranges)
    raise IncompleteExportError(
        f"{result.failed_batches} of {result.successful_batches + result.failed_batches} requests "
        f"stayed broken. These days are missing: {days}. Fetch them again with --append.",
        partial=bool(result.successful_batches or result.total_rows),
    )


def make_profiles_table(
    name: str,
    filters: Mapping[str, Any],
    *,
    append: bool,
    replace: bool,
    parallel: bool,
    max_workers: int | None,
    batch_size: int,
    progress: bool,
    output: Format,
    jq: str | None,
) -> None:
    """Make a table of profiles and print what it holds.

    Raises:
        IncompleteExportError: Pages are missing; the message names them.
    """
    _check(name, "profiles")
    with (
        told_what_is_kept(lambda: _kept_of(name, ())),
        current().workspace() as workspace,
        pages_shown(each=parallel) if progress else nullcontext() as show,
    ):
        result = workspace.fetch_profiles(
            name,
            **filters,
            append=append,
            replace=replace,
            parallel=parallel,
            max_workers=max_workers,
            batch_size=batch_size,
            progress=False,
            on_page_complete=show,
        )
        current().note(f"in {workspace.db_path}")
    print_record(result.to_dict(), output, jq)
    if isinstance(result, ParallelProfileResult):
        require_all_pages(result)
