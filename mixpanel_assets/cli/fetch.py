"""`mp fetch`: records to stdout, or into a named table."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixpanel_assets.cli.exits import InvalidArgumentsError
from mixpanel_assets.cli.invocation import App, current, explain_interrupt
from mixpanel_assets.cli.options import EventsOption, FromOption, ToOption, WhereOption, names
from mixpanel_assets.cli.output import Answer, Format
from mixpanel_assets.errors import ConfigError, IncompleteExportError

if TYPE_CHECKING:
    from rich.progress import Progress

    from mixpanel_assets.client import RecordStream
    from mixpanel_assets.loading.results import BatchProgress, ParallelFetchResult
    from mixpanel_assets.workspace import Workspace

app = App(
    name="fetch",
    help="Get events or profiles: as JSON Lines on stdout, or as a named table.",
    no_args_is_help=True,
)

_LINES_PER_UPDATE = 1000

NameArgument = Annotated[str, typer.Argument(help="The table to create; not used with --stdout.")]
StdoutOption = Annotated[bool, typer.Option("--stdout", help="JSON Lines instead of a table.")]
AppendOption = Annotated[
    bool,
    typer.Option("--append", help="Add to an existing table; the newer of two records is kept."),
]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Replace an existing table.")]
ProgressOption = Annotated[bool, typer.Option("--no-progress", help="Show no progress.")]


@app.command("events")
def fetch_events(
    from_date: FromOption,
    to_date: ToOption,
    name: NameArgument = "events",
    events: EventsOption = None,
    where: WhereOption = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-l", min=1, max=100_000, help="The maximum number of events."),
    ] = None,
    stdout: StdoutOption = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Each line exactly as Mixpanel sent it.")
    ] = False,
    staged: Annotated[
        bool,
        typer.Option(
            "--staged",
            help="Check each response on disk before its first line is printed. Tables always do.",
        ),
    ] = False,
    replace: ReplaceOption = False,
    append: AppendOption = False,
    parallel: Annotated[
        bool, typer.Option("--parallel", "-p", help="Send several requests at once.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=100, show_default="10", help="The number of requests at once."),
    ] = None,
    chunk_days: Annotated[
        int, typer.Option(min=1, max=100, help="The maximum number of days per request.")
    ] = 7,
    batch_size: Annotated[
        int, typer.Option(min=100, max=100_000, help="Events between two progress messages.")
    ] = 1000,
    no_progress: ProgressOption = False,
) -> Answer | None:
    """Get the events of some days, without the duplicates that Mixpanel sends.

    A table is created completely or not at all. With --parallel each response is stored when it
    is complete. Days that fail are named on stderr, the exit code is 1, and --append gets them
    later.

    With --stdout, duplicates are included, and only data goes to stdout. A stream that breaks ends
    with exit code 1, or 6 if nothing was written.

    Example: mp fetch events --from 2024-01-01 --to 2024-01-07 --stdout | jq .event_name
    """
    _refuse(
        *_conflicts(stdout, raw, append, replace, parallel, workers),
        (limit is not None and parallel, "--limit excludes --parallel."),
        (
            limit is not None and not stdout and name == "events",
            "--limit needs --stdout or another name: the table `events` holds complete days.",
        ),
        _other_form(stdout),
    )
    query: dict[str, Any] = {
        "from_date": from_date,
        "to_date": to_date,
        "events": names(events) or None,
        "where": where,
        "limit": limit,
    }
    if stdout:
        _write_events(query, raw=raw, staged=staged)
        return None
    _check_name(name, "events")
    stored_batches: list[BatchProgress] = []

    def store(batch: BatchProgress) -> None:
        if parallel and batch.success and not replace:
            stored_batches.append(batch)
        if show:
            show(batch)

    from mixpanel_assets.cli.progress import show_batches

    with (
        explain_interrupt(lambda: _stored_part(name, stored_batches)),
        current().workspace() as workspace,
        nullcontext() if no_progress else show_batches(each=parallel) as show,
    ):
        result = workspace.fetch_events(
            name,
            **query,
            append=append,
            replace=replace,
            parallel=parallel,
            max_workers=workers,
            chunk_days=chunk_days,
            batch_size=batch_size,
            progress=False,
            on_batch_complete=store,
        )
    return _table_answer(workspace, result)


@app.command("profiles")
def fetch_profiles(
    name: NameArgument = "profiles",
    stdout: StdoutOption = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Each profile exactly as Mixpanel sent it.")
    ] = False,
    parallel: Annotated[
        bool, typer.Option("--parallel", "-p", help="Request several pages at once.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="The number of pages at once; at most 5.")
    ] = None,
    append: AppendOption = False,
    replace: ReplaceOption = False,
    batch_size: Annotated[
        int,
        typer.Option(
            min=100, max=100_000, help="No effect: Mixpanel decides the size of a page of profiles."
        ),
    ] = 1000,
    no_progress: ProgressOption = False,
    where: Annotated[
        str | None, typer.Option("--where", "-w", help="A segmentation expression.")
    ] = None,
    cohort: Annotated[
        str | None, typer.Option("--cohort", "-c", help="Only members of this cohort.")
    ] = None,
    output_properties: Annotated[
        str | None,
        typer.Option(
            "--output-properties", "-o", help="Only these properties, separated by commas."
        ),
    ] = None,
    distinct_id: Annotated[str | None, typer.Option(help="Only this profile.")] = None,
    distinct_ids: Annotated[
        list[str] | None, typer.Option(help="Only these profiles; repeatable.")
    ] = None,
    group_id: Annotated[
        str | None, typer.Option("--group-id", "-g", help="Profiles of this group key.")
    ] = None,
    behaviors: Annotated[
        str | None, typer.Option(help="Behaviour filters as a JSON array; needs --where.")
    ] = None,
    as_of_timestamp: Annotated[
        int | None, typer.Option(help="Epoch seconds at which behaviors are computed.")
    ] = None,
    include_all_users: Annotated[
        bool,
        typer.Option("--include-all-users", help="With --cohort: also members without a profile."),
    ] = False,
) -> Answer | None:
    """Get profiles as they are now.

    If pages fail, the other pages are stored, the numbers of the failed pages are on stderr, and
    the exit code is 1. Within an hour, the same command requests only the missing pages.

    Example: mp fetch profiles people --parallel
    """
    _refuse(
        *_conflicts(stdout, raw, append, replace, parallel, workers),
        (bool(distinct_id and distinct_ids), "--distinct-id excludes --distinct-ids."),
        (bool(behaviors and cohort), "--behaviors excludes --cohort."),
        (bool(behaviors and not where), "--behaviors needs --where."),
        (include_all_users and cohort is None, "--include-all-users needs --cohort."),
        (cohort is not None and not cohort.isdecimal(), "--cohort is a cohort's number."),
        _other_form(stdout),
    )
    filters: dict[str, Any] = {
        "where": where,
        "cohort_id": cohort,
        "output_properties": output_properties.split(",") if output_properties else None,
        "distinct_id": distinct_id,
        "distinct_ids": distinct_ids or None,
        "group_id": group_id,
        "behaviors": _behaviors(behaviors),
        "as_of_timestamp": as_of_timestamp,
        "include_all_users": include_all_users,
    }

    if stdout:
        _write_profiles(filters, raw=raw)
        return None
    _check_name(name, "profiles")
    from mixpanel_assets.cli.progress import show_pages

    with (
        explain_interrupt(lambda: _stored_part(name, ())),
        current().workspace() as workspace,
        nullcontext() if no_progress else show_pages(each=parallel) as show,
    ):
        result = workspace.fetch_profiles(
            name,
            **filters,
            append=append,
            replace=replace,
            parallel=parallel,
            max_workers=workers,
            batch_size=batch_size,
            progress=False,
            on_page_complete=show,
        )
    return _table_answer(workspace, result)


def _conflicts(
    stdout: bool, raw: bool, append: bool, replace: bool, parallel: bool, workers: int | None
) -> list[tuple[bool, str]]:
    """Return the rules of both commands."""
    return [
        (raw and not stdout, "--raw needs --stdout."),
        (append and replace, "--append excludes --replace."),
        (stdout and (append or replace), "--append and --replace need a table, not --stdout."),
        (stdout and parallel, "--parallel excludes --stdout."),
        (workers is not None and not parallel, "--workers needs --parallel."),
    ]


def _refuse(*rules: tuple[bool, str]) -> None:
    for is_broken, message in rules:
        if is_broken:
            raise typer.BadParameter(message)


def _other_form(stdout: bool) -> tuple[bool, str]:
    is_lines = current().output in (Format.JSON, Format.JSONL) and current().jq is None
    return stdout and not is_lines, "--stdout is JSON Lines; pipe it into jq for another form."


def _behaviors(option_value: str | None) -> list[dict[str, object]] | None:
    if option_value is None:
        return None
    try:
        behaviors = json.loads(option_value)
    except ValueError:
        behaviors = None
    if isinstance(behaviors, list) and all(
        isinstance(one, dict) and {"window", "name", "event_selectors"} <= one.keys()
        for one in behaviors
    ):
        return behaviors
    raise typer.BadParameter(
        "--behaviors is a JSON array of objects with window, name and event_selectors."
    )


def _check_name(name: str, default: str) -> None:
    from mixpanel_assets.warehouse import check_name

    if name != default:
        try:
            check_name(name)
        except ConfigError as error:
            raise InvalidArgumentsError(error.message) from None


def _stored_part(name: str, stored_batches: Sequence[BatchProgress]) -> str:
    from mixpanel_assets.rules.days import describe_range

    if not stored_batches:
        return f"The table {name!r} is unchanged."
    days = ", ".join(describe_range(batch.from_date, batch.to_date) for batch in stored_batches)
    return f"{name!r} now holds {days}; other days are unchanged. Get them with --append."


def _table_answer(workspace: Workspace, result: Any) -> Answer:
    """Return what is stored, with the error to raise if days or pages are missing."""
    from mixpanel_assets.loading.profiles import require_all_pages
    from mixpanel_assets.loading.results import ParallelFetchResult, ParallelProfileResult

    current().note(f"in {workspace.db_path}")
    error: IncompleteExportError | None = None
    if isinstance(result, ParallelFetchResult) and result.has_failures:
        error = _missing_days(result)
    elif isinstance(result, ParallelProfileResult):
        try:
            require_all_pages(result)
        except IncompleteExportError as missing:
            error = missing
    return Answer(result.to_dict(), error=error)


def _missing_days(result: ParallelFetchResult) -> IncompleteExportError:
    from mixpanel_assets.rules.days import describe_range

    days = ", ".join(describe_range(first, last) for first, last in result.failed_date_ranges)
    return IncompleteExportError(
        f"{result.failed_batches} of {result.successful_batches + result.failed_batches} requests "
        f"failed. These days are missing: {days}. Fetch them again with --append.",
        partial=bool(result.successful_batches or result.total_rows),
    )


def _write_events(query: Mapping[str, Any], *, raw: bool, staged: bool) -> None:
    with current().workspace() as workspace:
        stream = workspace.stream_event_lines if raw else workspace.stream_events
        written = _write(stream(**query, staged=staged), "events")
        if query["events"] and not written:
            workspace.tell_of_unknown(query["events"])


def _write_profiles(filters: Mapping[str, Any], *, raw: bool) -> None:
    from mixpanel_assets.client import ProfileQuery

    with current().workspace() as workspace:
        query = ProfileQuery(**filters, workspace_id=workspace.workspace_id)
        api = workspace.api
        _write((api.stream_profile_lines if raw else api.stream_profiles)(query), "profiles")


def _write(stream: RecordStream[Any], what: str) -> int:
    """Write lines or records to stdout, one per line; return their number."""
    from mixpanel_assets.loading.files import as_json

    out = sys.stdout.buffer
    with explain_interrupt(lambda: f"The lines on stdout are valid, but some {what} are missing."):
        try:
            with stream, _spinner() as spinner:
                task = spinner.add_task(what, total=None)
                try:
                    for number, record in enumerate(stream, 1):
                        line = record if isinstance(record, bytes) else as_json(record)
                        out.write(line + b"\n")
                        if number % _LINES_PER_UPDATE == 0:
                            spinner.update(task, completed=number)
                except KeyboardInterrupt:
                    # A reader that has stopped reading must not delay the end of the process.
                    if not select.select([], [out], [], 0)[1]:
                        close_stdout()
                    raise
                finally:
                    out.flush()
        except BrokenPipeError:
            close_stdout()  # the reader of stdout needs no more lines
    return stream.delivered


def close_stdout() -> None:
    """Write further output to nowhere."""
    # Python flushes stdout when it ends, and would print an error then.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _spinner() -> Progress:
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = current().console()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description} {task.completed:,.0f}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        # Between lines on the same terminal, the spinner would only disturb.
        disable=console.quiet or not console.is_terminal or sys.stdout.isatty(),
    )
