"""`mp query`: Mixpanel's own reports, and SQL over stored data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixpanel_assets.cli.invocation import App, current
from mixpanel_assets.cli.options import (
    CountTypeOption,
    DatabaseOption,
    EventOption,
    FromOption,
    OptionalFromOption,
    OptionalToOption,
    PropertyOption,
    ToOption,
    WhereOption,
    names_option,
    report_type_option,
    required_names,
    text_of,
)
from mixpanel_assets.cli.output import Answer
from mixpanel_assets.results.choices import (
    BookmarkType,
    HourDayUnit,
    LengthUnit,
    RetentionType,
    SegmentUnit,
    TimeUnit,
)

app = App(
    project_days=True,
    name="query",
    help="Get Mixpanel's reports, each for one of 60 requests an hour; query stored data with SQL.",
    no_args_is_help=True,
)

UnitOption = Annotated[TimeUnit, typer.Option("--unit", "-u", help="The length of a time step.")]
HourUnitOption = Annotated[
    HourDayUnit, typer.Option("--unit", "-u", help="The length of a time step.")
]
SplitOption = Annotated[
    str | None, typer.Option("--on", "-o", help="A property or an expression to split by.")
]
NumberOption = Annotated[
    str, typer.Option("--on", "-o", help="The property or expression with the number.")
]


@app.command("segmentation")
def segmentation(
    event: EventOption,
    from_date: FromOption,
    to_date: ToOption,
    on: SplitOption = None,
    unit: Annotated[
        SegmentUnit,
        typer.Option(
            "--unit",
            "-u",
            metavar="UNIT",
            help="The length of a time step: minute, hour, day, week or month.",
        ),
    ] = "day",
    where: WhereOption = None,
    kind: CountTypeOption = "general",
) -> object:
    """Count an event over time.

    Mixpanel discourages new use of this report since July 2026 (maintenance mode).

    Example: mp query segmentation -e 'Sign Up' --from 2024-01-01 --to 2024-01-07
    """
    with current().workspace() as workspace:
        return workspace.segmentation(
            event, from_date=from_date, to_date=to_date, on=on, unit=unit, where=where, type=kind
        )


@app.command("funnel")
def funnel(
    funnel_id: Annotated[
        int, typer.Argument(help="The funnel's number; `mp inspect funnels` lists them.")
    ],
    from_date: FromOption,
    to_date: ToOption,
    unit: Annotated[
        TimeUnit | None, typer.Option("--unit", "-u", help="How Mixpanel groups the days.")
    ] = None,
    on: SplitOption = None,
    where: WhereOption = None,
    length: Annotated[
        int | None,
        typer.Option(
            "--length",
            min=1,
            show_default="as saved",
            help="The time that people have for all steps, at most 90 days.",
        ),
    ] = None,
    length_unit: Annotated[LengthUnit, typer.Option(help="The unit of --length.")] = "day",
) -> object:
    """Count the people who reached each step of a saved funnel.

    Mixpanel discourages new use of this report since July 2026 (maintenance mode).

    Example: mp query funnel 7509 --from 2024-01-01 --to 2024-01-07 --format table
    """
    with current().workspace() as workspace:
        return workspace.funnel(
            funnel_id,
            from_date=from_date,
            to_date=to_date,
            unit=unit,
            on=on,
            where=where,
            length=length,
            length_unit=length_unit,
        )


@app.command("retention")
def retention(
    born: Annotated[
        str, typer.Option("--born", "-b", help="The event that makes people part of a cohort.")
    ],
    returning: Annotated[
        str, typer.Option("--return", "-r", help="The event that counts as a return.")
    ],
    from_date: FromOption,
    to_date: ToOption,
    born_where: Annotated[
        str | None, typer.Option(help="Only born events that match this expression.")
    ] = None,
    return_where: Annotated[
        str | None, typer.Option(help="Only return events that match this expression.")
    ] = None,
    interval: Annotated[
        int, typer.Option("--interval", "-i", min=1, help="Days per period; needs --unit day.")
    ] = 1,
    intervals: Annotated[
        int, typer.Option("--intervals", "-n", min=1, help="The number of periods.")
    ] = 10,
    unit: UnitOption = "day",
    kind: Annotated[
        RetentionType,
        typer.Option(
            "--type",
            "-t",
            help="birth counts from a person's first event; compounded counts from each event, and "
            "uses the same event for --born and --return.",
        ),
    ] = "birth",
    unbounded: Annotated[
        bool,
        typer.Option(
            "--unbounded",
            help="Count people in each period up to the last one in which they returned.",
        ),
    ] = False,
) -> object:
    """Count the people who returned, by the date of their first event.

    Example: mp query retention -b 'Sign Up' -r 'Page View' --from 2024-01-01 --to 2024-01-07
    """
    if interval != 1 and unit != "day":
        raise typer.BadParameter("--interval is in days; it needs --unit day.")
    with current().workspace() as workspace:
        return workspace.retention(
            born,
            returning,
            from_date=from_date,
            to_date=to_date,
            born_where=born_where,
            return_where=return_where,
            interval=interval,
            interval_count=intervals,
            unit=unit,
            retention_type=kind,
            unbounded=unbounded,
        )


@app.command("jql")
def jql(
    file: Annotated[
        Path | None, typer.Argument(help="A file with the script; - reads stdin.")
    ] = None,
    script: Annotated[str | None, typer.Option("--script", "-c", help="The script itself.")] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-P", help="NAME=TEXT, seen as params.NAME; repeatable."),
    ] = None,
) -> object:
    """Run a JQL script and print the array that it returns.

    Mixpanel discourages new use of JQL since July 2026 (maintenance mode).

    Example: mp query jql report.js -P from_date=2024-01-01 -P to_date=2024-01-07
    """
    jql_script = text_of(script, file, "the script")
    params = _parameters(param or [])
    with current().workspace() as workspace:
        return workspace.jql(jql_script, params)


@app.command("event-counts")
def event_counts(
    events: Annotated[list[str], names_option("--events", "-e")],
    from_date: FromOption,
    to_date: ToOption,
    kind: CountTypeOption = "general",
    unit: UnitOption = "day",
) -> object:
    """Count several events over time.

    Example: mp query event-counts -e 'Sign Up,Page View' --from 2024-01-01 --to 2024-01-07
    """
    event_names = required_names(events, "--events")
    with current().workspace() as workspace:
        return workspace.event_counts(
            event_names, from_date=from_date, to_date=to_date, type=kind, unit=unit
        )


@app.command("property-counts")
def property_counts(
    event: EventOption,
    property_name: PropertyOption,
    from_date: FromOption,
    to_date: ToOption,
    kind: CountTypeOption = "general",
    unit: UnitOption = "day",
    limit: Annotated[
        int,
        typer.Option(
            "--limit", "-l", min=1, help="The maximum number of values; the most common are kept."
        ),
    ] = 10,
) -> object:
    """Count an event by the values of a property, over time.

    Example: mp query property-counts -e 'Sign Up' -p plan --from 2024-01-01 --to 2024-01-07
    """
    with current().workspace() as workspace:
        return workspace.property_counts(
            event,
            property_name,
            from_date=from_date,
            to_date=to_date,
            type=kind,
            unit=unit,
            limit=limit,
        )


@app.command("activity-feed")
def activity_feed(
    users: Annotated[list[str], names_option("--users", "-U", what="distinct_ids")],
    from_date: OptionalFromOption = None,
    to_date: OptionalToOption = None,
) -> object:
    """Show the events of some users in time order; by default of the last 30 days.

    Mixpanel discourages new use of this report since July 2026 (maintenance mode).

    Example: mp query activity-feed -U user-1,user-2 --from 2024-01-01 --to 2024-01-07
    """
    user_ids = required_names(users, "--users")
    with current().workspace() as workspace:
        return workspace.activity_feed(user_ids, from_date=from_date, to_date=to_date)


@app.command("saved-report")
def saved_report(
    bookmark_id: Annotated[
        int, typer.Argument(help="The report's number; `mp inspect reports` lists them.")
    ],
    kind: Annotated[BookmarkType, report_type_option("The type of the report")] = "insights",
    from_date: OptionalFromOption = None,
    to_date: OptionalToOption = None,
) -> object:
    """Get the numbers of a saved report. Only funnels take days.

    Example: mp query saved-report 100 --format csv
    """
    if (kind == "funnels") != bool(from_date and to_date):
        raise typer.BadParameter("--type funnels needs --from and --to; other reports take none.")
    with current().workspace() as workspace:
        return workspace.query_saved_report(bookmark_id, kind, from_date=from_date, to_date=to_date)


@app.command("frequency")
def frequency(
    from_date: FromOption,
    to_date: ToOption,
    event: Annotated[
        str | None,
        typer.Option("--event", "-e", help="The event that counts as active; default: any event."),
    ] = None,
    unit: UnitOption = "day",
    addiction_unit: Annotated[
        HourDayUnit, typer.Option(help="The unit that is counted within --unit.")
    ] = "hour",
    where: WhereOption = None,
) -> object:
    """Count the hours or days of each period in which people were active.

    Example: mp query frequency --from 2024-01-01 --to 2024-01-07 -e 'Page View'
    """
    with current().workspace() as workspace:
        return workspace.frequency(
            from_date=from_date,
            to_date=to_date,
            unit=unit,
            addiction_unit=addiction_unit,
            event=event,
            where=where,
        )


@app.command("segmentation-numeric")
def segmentation_numeric(
    event: EventOption,
    on: NumberOption,
    from_date: FromOption,
    to_date: ToOption,
    kind: CountTypeOption = "general",
    unit: HourUnitOption = "day",
    where: WhereOption = None,
) -> object:
    """Count an event by ranges of a number, over time.

    Mixpanel discourages new use of this report since July 2026 (maintenance mode).

    Example: mp query segmentation-numeric -e 'Order Completed' -o amount --from 2024-01-01
    --to 2024-01-07
    """
    with current().workspace() as workspace:
        return workspace.segmentation_numeric(
            event, from_date=from_date, to_date=to_date, on=on, unit=unit, where=where, type=kind
        )


@app.command("segmentation-sum")
def segmentation_sum(
    event: EventOption,
    on: NumberOption,
    from_date: FromOption,
    to_date: ToOption,
    unit: HourUnitOption = "day",
    where: WhereOption = None,
) -> object:
    """Sum a number of an event over time.

    Mixpanel discourages new use of this report since July 2026 (maintenance mode).

    Example: mp query segmentation-sum -e 'Order Completed' -o amount --from 2024-01-01
    --to 2024-01-07
    """
    with current().workspace() as workspace:
        return workspace.segmentation_sum(
            event, from_date=from_date, to_date=to_date, on=on, unit=unit, where=where
        )


@app.command("segmentation-average")
def segmentation_average(
    event: EventOption,
    on: NumberOption,
    from_date: FromOption,
    to_date: ToOption,
    unit: HourUnitOption = "day",
    where: WhereOption = None,
) -> object:
    """Average a number of an event over time.

    Mixpanel discourages new use of this report since July 2026 (maintenance mode).

    Example: mp query segmentation-average -e 'Order Completed' -o amount --from 2024-01-01
    --to 2024-01-07
    """
    with current().workspace() as workspace:
        return workspace.segmentation_average(
            event, from_date=from_date, to_date=to_date, on=on, unit=unit, where=where
        )


def _parameters(param_options: list[str]) -> dict[str, str]:
    pairs = [option.partition("=") for option in param_options]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise typer.BadParameter(f"--param takes NAME=TEXT, not {name!r}.")
    return {name: value for name, _, value in pairs}


@app.command("sql")
def sql(
    query: Annotated[str | None, typer.Argument(help="The query; - reads stdin.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-F", help="A file with the query.")
    ] = None,
    scalar: Annotated[
        bool, typer.Option("--scalar", "-s", help="Only the first value of the first row.")
    ] = False,
    database: DatabaseOption = None,
) -> object:
    """Query the database with SQL, read-only and without an account.

    Example: mp query sql "SELECT event_name, count(*) AS n FROM events GROUP BY ALL" -f table
    """
    statement = text_of(query, file, "the query")
    with current().open_stored(database) as workspace:
        answer = workspace.storage.execute_exact(statement)
        if scalar:
            return Answer(answer[0][0] if answer else None)
        return answer
