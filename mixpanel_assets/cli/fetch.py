"""`mp fetch`: records to stdout, or into a table of one's own."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from mixpanel_assets.cli.invocation import App, FormatOption, JqOption
from mixpanel_assets.cli.options import (
    EventsOption,
    FromOption,
    ToOption,
    WhereOption,
    days,
    names,
)
from mixpanel_assets.cli.output import Format

app = App(
    name="fetch",
    help="Get events or profiles: as JSON Lines on stdout, or as a table of your own.",
    no_args_is_help=True,
)

MakeOption = Annotated[str, typer.Argument(help="The table to make; not used with --stdout.")]
StdoutOption = Annotated[bool, typer.Option("--stdout", help="JSON Lines instead of a table.")]
AppendOption = Annotated[
    bool, typer.Option("--append", help="Add to a table of that name; newer records stay.")
]
ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="Put the new table in the place of an old one.")
]
ProgressOption = Annotated[bool, typer.Option("--no-progress", help="Show no progress.")]


@app.command("events")
def fetch_events(
    from_date: FromOption,
    to_date: ToOption,
    name: MakeOption = "events",
    events: EventsOption = None,
    where: WhereOption = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-l", min=1, max=100_000, help="At most so many events."),
    ] = None,
    stdout: StdoutOption = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Each line byte for byte as Mixpanel sent it.")
    ] = False,
    staged: Annotated[
        bool,
        typer.Option(
            "--staged", help="Check each answer on disk before its first line; a table always is."
        ),
    ] = False,
    replace: ReplaceOption = False,
    append: AppendOption = False,
    parallel: Annotated[
        bool, typer.Option("--parallel", "-p", help="Have several requests on their way at once.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=100, show_default="10", help="How many requests at once."),
    ] = None,
    chunk_days: Annotated[
        int, typer.Option(min=1, max=100, help="The most days that share a request.")
    ] = 7,
    batch_size: Annotated[
        int,
        typer.Option(min=100, max=100_000, help="Events between two words of progress."),
    ] = 1000,
    no_progress: ProgressOption = False,
    output: FormatOption = Format.JSON,
    jq: JqOption = None,
) -> None:
    """Get the events of some days, repeats of Mixpanel's included only with --stdout.

    A table is made whole or not at all. With --parallel each request is stored as it comes; days
    that stay broken are on stderr then, the exit code is 1, and --append gets them later.

    With --stdout everything but data goes to stderr, and a stream that breaks ends with exit
    code 1 (6 if nothing had been written).

    Example: mp fetch events --from 2024-01-01 --to 2024-01-07 --stdout | jq .event_name
    """
    asked = days(from_date, to_date)
    _refuse(
        (raw and not stdout, "--raw needs --stdout."),
        (replace and append, "--append excludes --replace."),
        (stdout and (append or replace), "--append and --replace need a table, not --stdout."),
        (stdout and parallel, "--parallel excludes --stdout."),
        (limit is not None and parallel, "--limit excludes --parallel."),
        (workers is not None and not parallel, "--workers needs --parallel."),
        (
            limit is not None and not stdout and name == "events",
            "--limit needs --stdout or another name: the table `events` holds whole days.",
        ),
        _no_form(stdout, output, jq),
    )
    chosen = names(events) or None

    if stdout:
        from mixpanel_assets.cli.records import write_events

        write_events(**asked, events=chosen, where=where, limit=limit, raw=raw, staged=staged)
    else:
        from mixpanel_assets.cli.named_tables import make_events_table

        make_events_table(
            name,
            {
                **asked,
                "events": chosen,
                "where": where,
                "limit": limit,
                "append": append,
                "replace": replace,
                "max_workers": workers,
                "chunk_days": chunk_days,
                "batch_size": batch_size,
            },
            parallel=parallel,
            progress=not no_progress,
            output=output,
            jq=jq,
        )


@app.command("profiles")
def fetch_profiles(
    name: MakeOption = "profiles",
    stdout: StdoutOption = False,
    raw: Annotated[bool, typer.Option("--raw", help="Each profile as Mixpanel sent it.")] = False,
    parallel: Annotated[
        bool, typer.Option("--parallel", "-p", help="Ask for several pages at once.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many pages at once; 5 is the most.")
    ] = None,
    append: AppendOption = False,
    replace: ReplaceOption = False,
    batch_size: Annotated[
        int,
        typer.Option(
            min=100, max=100_000, help="Of no effect: profiles come in pages of Mixpanel's size."
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
            "--output-properties", "-o", help="Only these properties, with commas between them."
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
        str | None, typer.Option(help="Behaviour filters, a JSON array; needs --where.")
    ] = None,
    as_of_timestamp: Annotated[
        int | None, typer.Option(help="Epoch seconds that behaviors are computed for.")
    ] = None,
    include_all_users: Annotated[
        bool,
        typer.Option("--include-all-users", help="With --cohort: members without profile too."),
    ] = False,
    output: FormatOption = Format.JSON,
    jq: JqOption = None,
) -> None:
    """Get profiles as they are now.

    If pages stay broken, the others are stored, the numbers of the lost ones are on stderr, and
    the exit code is 1. Within the hour the same command asks only for what is missing.

    Example: mp fetch profiles people --parallel
    """
    _refuse(
        (raw and not stdout, "--raw needs --stdout."),
        (append and replace, "--append excludes --replace."),
        (stdout and parallel, "--parallel excludes --stdout."),
        (stdout and (append or replace), "--append and --replace need a table, not --stdout."),
        (workers is not None and not parallel, "--workers needs --parallel."),
        (bool(distinct_id and distinct_ids), "--distinct-id excludes --distinct-ids."),
        (bool(behaviors and cohort), "--behaviors excludes --cohort."),
        (bool(behaviors and not where), "--behaviors needs --where."),
        (include_all_users and cohort is None, "--include-all-users needs --cohort."),
        (cohort is not None and not cohort.isdecimal(), "--cohort is a cohort's number."),
        _no_form(stdout, output, jq),
    )
    filters = {
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
        from mixpanel_assets.cli.records import write_profiles

        write_profiles(filters, raw=raw)
    else:
        from mixpanel_assets.cli.named_tables import make_profiles_table

        make_profiles_table(
            name,
            filters,
            append=append,
            replace=replace,
            parallel=parallel,
            max_workers=workers,
            batch_size=batch_size,
            progress=not no_progress,
            output=output,
            jq=jq,
        )


def _refuse(*rules: tuple[bool, str]) -> None:
    for is_broken, said in rules:
        if is_broken:
            raise typer.BadParameter(said)


def _no_form(stdout: bool, output: Format, jq: str | None) -> tuple[bool, str]:
    is_lines = output in (Format.JSON, Format.JSONL) and jq is None
    return stdout and not is_lines, "--stdout is JSON Lines; pipe it into jq for another form."


def _behaviors(text: str | None) -> list[dict[str, object]] | None:
    if text is None:
        return None
    try:
        behaviors = json.loads(text)
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
