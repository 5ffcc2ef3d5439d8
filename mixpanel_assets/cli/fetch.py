"""`mp fetch`: records to stdout, or into a table of one's own."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated

import typer

from mixpanel_assets.cli.invocation import App

app = App(
    name="fetch",
    help="Get events or profiles: as JSON Lines on stdout, or as a table of your own.",
    no_args_is_help=True,
)

_FORMATS = ["%Y-%m-%d"]


@app.command("events")
def fetch_events(
    from_date: Annotated[
        datetime, typer.Option("--from", formats=_FORMATS, help="First day, included.")
    ],
    to_date: Annotated[
        datetime, typer.Option("--to", formats=_FORMATS, help="Last day, included.")
    ],
    name: Annotated[
        str, typer.Argument(help="The table to make; not used with --stdout.")
    ] = "events",
    events: Annotated[
        list[str] | None,
        typer.Option(
            "--events",
            "-e",
            help="Only these events: names with commas between them, or a JSON array; repeatable.",
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", "-w", help="A segmentation expression.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-l", min=1, max=100_000, help="At most so many events."),
    ] = None,
    stdout: Annotated[
        bool, typer.Option("--stdout", help="JSON Lines instead of a table.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="Each line byte for byte as Mixpanel sent it.")
    ] = False,
    staged: Annotated[
        bool,
        typer.Option(
            "--staged", help="Check each answer on disk before its first line; a table always is."
        ),
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the new table in the place of an old one.")
    ] = False,
) -> None:
    """Get the events of some days, repeats of Mixpanel's included only with --stdout.

    With --stdout everything but data goes to stderr, and a stream that breaks ends with exit
    code 1 (6 if nothing had been written).

    Example: mp fetch events --from 2024-01-01 --to 2024-01-07 --stdout | jq .event_name
    """
    if from_date > to_date:
        raise typer.BadParameter("--from is after --to; both days are included.")
    if raw and not stdout:
        raise typer.BadParameter("--raw needs --stdout.")
    if replace and stdout:
        raise typer.BadParameter("--replace needs a table, so it excludes --stdout.")
    if limit is not None and not stdout:
        raise typer.BadParameter("--limit needs --stdout: a table holds whole days.")
    names = _names(events)

    if stdout:
        from mixpanel_assets.cli.records import write_events

        write_events(
            from_date.date(),
            to_date.date(),
            events=names,
            where=where,
            limit=limit,
            raw=raw,
            staged=staged,
        )
    else:
        from mixpanel_assets.cli.named_tables import make_events_table

        make_events_table(
            name, from_date.date(), to_date.date(), events=names, where=where, replace=replace
        )


@app.command("profiles")
def fetch_profiles(
    name: Annotated[
        str, typer.Argument(help="The table to make; not used with --stdout.")
    ] = "profiles",
    stdout: Annotated[
        bool, typer.Option("--stdout", help="JSON Lines instead of a table.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Each profile as Mixpanel sent it.")] = False,
    parallel: Annotated[
        bool, typer.Option("--parallel", "-p", help="Ask for several pages at once.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many pages at once; 5 is the most.")
    ] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Merge into the table; newer profiles stay.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the new table in the place of an old one.")
    ] = False,
    no_progress: Annotated[bool, typer.Option("--no-progress", help="Show no pages.")] = False,
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
) -> None:
    """Get profiles as they are now.

    If pages stay broken, the others are stored, the numbers of the lost ones are on stderr, and
    the exit code is 1. Within the hour the same command asks only for what is missing.

    Example: mp fetch profiles people --parallel
    """
    for wrong, said in (
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
    ):
        if wrong:
            raise typer.BadParameter(said)
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
            progress=not no_progress,
        )


def _names(given: list[str] | None) -> list[str] | None:
    names: list[str] = []
    for text in given or []:
        if not text.startswith("["):
            names += [name.strip() for name in text.split(",") if name.strip()]
            continue
        try:
            array = json.loads(text)
        except ValueError:
            raise typer.BadParameter(f"--events {text} is not a JSON array.") from None
        if not all(isinstance(name, str) for name in array):
            raise typer.BadParameter("--events takes names, which are texts.")
        names += array
    return names or None


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
