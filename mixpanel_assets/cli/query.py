"""`mp query`: Mixpanel's own reports, and SQL over what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixpanel_assets.cli.invocation import Questions, current
from mixpanel_assets.cli.options import (
    DatabaseOption,
    EventOption,
    FromOption,
    OptionalFromOption,
    OptionalToOption,
    ToOption,
    WhereOption,
    days,
    optional_days,
    required_names,
    text_of,
)
from mixpanel_assets.results.choices import (
    BookmarkType,
    CountType,
    HourDayUnit,
    LengthUnit,
    RetentionType,
    SegmentUnit,
    TimeUnit,
)

app = Questions(
    project_days=True,
    name="query",
    help="Ask Mixpanel's reports, each for a request of 60 an hour; and stored data, by SQL.",
    no_args_is_help=True,
)

UnitOption = Annotated[TimeUnit, typer.Option("--unit", "-u", help="The length of a step in time.")]
HourUnitOption = Annotated[
    HourDayUnit, typer.Option("--unit", "-u", help="The length of a step in time.")
]
TypeOption = Annotated[
    CountType,
    typer.Option(
        "--type",
        "-t",
        help="general counts events, unique people, average is events per person.",
    ),
]
SplitOption = Annotated[
    str | None, typer.Option("--on", "-o", help="A property or an expression to split by.")
]
NumberOption = Annotated[
    str, typer.Option("--on", "-o", help="The property or expression whose number is meant.")
]


@app.question("segmentation")
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
            help="The length of a step in time: minute, hour, day, week or month.",
        ),
    ] = "day",
    where: WhereOption = None,
    kind: TypeOption = "general",
) -> object:
    """Say how often an event happened, over time.

    Mixpanel discourages new use of this report since July 2026 (maintenance mode).

    Example: mp query segmentation -e 'Sign Up' --from 2024-01-01 --to 2024-01-07
    """
    asked = days(from_date, to_date)
    with current().workspace() as workspace:
        return workspace.segmentation(event, **asked, on=on, unit=unit, where=where, type=kind)


@app.question("funnel")
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
            show_default="as it was saved",
            help="How long people have for all steps, at most 90 days.",
        ),
    ] = None,
    length_unit: Annotated[LengthUnit, typer.Option(help="What --length counts.")] = "day",
) -> object:
    """Say how far people came in a saved funnel.

    Mixpanel discourages new use of this report since July 2026 (maintenance mode).

    Example: mp query funnel 7509 --from 2024-01-01 --to 2024-01-07 --format table
    """
    asked = days(from_date, to_date)
    with current().workspace() as workspace:
        return workspace.funnel(
            funnel_id,
            **asked,
            unit=unit,
            on=on,
            where=where,
            length=length,
            length_unit=length_unit,
        )


@app.question("retention")
def retention(
    born: Annotated[
        str, typer.Option("--born", "-b", help="The event that makes people part of a cohort.")
    ],
    returning: Annotated[
        str, typer.Option("--return", "-r", help="The event that counts as coming back.")
    ],
    from_date: FromOption,
    to_date: ToOption,
    born_where: Annotated[
        str | None, typer.Option(help="Only born events that fit this expression.")
    ] = None,
    return_where: Annotated[
        str | None, typer.Option(help="Only return events that fit this expression.")
    ] = None,
    interval: Annotated[
        int, typer.Option("--interval", "-i", min=1, help="Days per period, with unit day.")
    ] = 1,
    intervals: Annotated[
        int, typer.Option("--intervals", "-n", min=1, help="Periods to follow people for.")
    ] = 10,
    unit: UnitOption = "day",
    kind: Annotated[
        RetentionType,
        typer.Option(
            "--type",
            "-t",
            help="birth follows people from their first event; compounded from each time that they "
            "did it, so --born and --return are one event then.",
        ),
    ] = "birth",
    unbounded: Annotated[
        bool,
        typer.Option(
            "--unbounded", help="Count people in each period up to the last in which they came."
        ),
    ] = False,
) -> object:
    """Say how many people came back, by the date of their first event.

    Example: mp query retention -b 'Sign Up' -r 'Page View' --from 2024-01-01 --to 2024-01-07
    """
    asked = days(from_date, to_date)
    if interval != 1 and unit != "day":
        raise typer.BadParameter("--interval is in days; it needs --unit day.")
    with current().workspace() as workspace:
        return workspace.retention(
            born,
            returning,
            **asked,
            born_where=born_where,
            return_where=return_where,
            interval=interval,
            interval_count=intervals,
            unit=unit,
            retention_type=kind,
            unbounded=unbounded,
        )


@app.question("jql")
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
    """Run a JQL script; prints the array that it returns.

    Mixpanel discourages new use of JQL since July 2026 (maintenance mode).

    Example: mp query jql report.js -P from_date=2024-01-01 -P to_date=2024-01-07
    """
    text = text_of(script, file, "the script")
    params = _parameters(param or [])
    with current().workspace() as workspace:
        return workspace.jql(text, params)


@app.question("event-counts")
def event_counts(
    events: Annotated[
        list[str],
        typer.Option(
            "--events",
            "-e",
            help="Names with commas between them, or a JSON array; repeatable.",
        ),
    ],
    from_date: FromOption,
    to_date: ToOption,
    kind: TypeOption = "general",
    unit: UnitOption = "day",
) -> object:
    """Say how often several events happened, over time.

    Example: mp query event-counts -e 'Sign Up,Page View' --from 2024-01-01 --to 2024-01-07
    """
    asked = days(from_date, to_date)
    chosen = required_names(events, "--events")
    with current().workspace() as workspace:
        return workspace.event_counts(chosen, **asked, type=kind, unit=unit)


@app.question("property-counts")
def property_counts(
    event: EventOption,
    property_name: Annotated[str, typer.Option("--property", "-p", help="The property's name.")],
    from_date: FromOption,
    to_date: ToOption,
    kind: TypeOption = "general",
    unit: UnitOption = "day",
    limit: Annotated[
        int, typer.Option("--limit", "-l", min=1, help="At most so many values, the largest.")
    ] = 10,
) -> object:
    """Say how often an event happened with each value of a property, over time.

    Example: mp query property-counts -e 'Sign Up' -p plan --from 2024-01-01 --to 2024-01-07
    """
    asked = days(from_date, to_date)
    with current().workspace() as workspace:
        return workspace.property_counts(
            event, property_name, **asked, type=kind, unit=unit, limit=limit
        )


@app.question("activity-feed")
def activity_feed(
    users: Annotated[
        list[str],
        typer.Option(
            "--users",
            "-U",
            help="distinct_ids with commas between them, or a JSON array; repeatable.",
        ),
    ],
    from_date: OptionalFromOption = None,
    to_date: OptionalToOption = None,
) -> object:
    """Show what some users did, in order of time; the last 30 days unless others are named.

    Mixpanel discourages new use of this report since July 2026 (maintenance mode).

    Example: mp query activity-feed -U user-1,user-2 --from 2024-01-01 --to 2024-01-07
    """
    chosen = required_names(users, "--users")
    asked = optional_days(from_date, to_date)
    with current().workspace() as workspace:
        return workspace.activity_feed(chosen, **asked)


@app.question("saved-report")
def saved_report(
    bookmark_id: Annotated[
        int, typer.Argument(help="The report's number; `mp inspect reports` lists them.")
    ],
    kind: Annotated[
        BookmarkType,
        typer.Option(
            "--type",
            "-t",
            metavar="TYPE",
            help="What the report is: insights, funnels, retention or flows.",
        ),
    ] = "insights",
    from_date: OptionalFromOption = None,
    to_date: OptionalToOption = None,
) -> object:
    """Get the numbers of a saved report; only funnels take days.

    Example: mp query saved-report 100 --format csv
    """
    asked = optional_days(from_date, to_date)
    if (kind == "funnels") != all(asked.values()):
        raise typer.BadParameter("--type funnels needs --from and --to; other reports take none.")
    with current().workspace() as workspace:
        return workspace.query_saved_report(bookmark_id, kind, **asked)


@app.question("frequency")
def frequency(
    from_date: FromOption,
    to_date: ToOption,
    event: Annotated[
        str | None, typer.Option("--event", "-e", help="What counts as active; else any event.")
    ] = None,
    unit: UnitOption = "day",
    addiction_unit: Annotated[
        HourDayUnit, typer.Option(help="What is counted within --unit.")
    ] = "hour",
    where: WhereOption = None,
) -> object:
    """Say in how many hours or days of each period people were active.

    Example: mp query frequency --from 2024-01-01 --to 2024-01-07 -e 'Page View'
    """
    asked = days(from_date, to_date)
    with current().workspace() as workspace:
        return workspace.frequency(
            **asked, unit=unit, addiction_unit=addiction_unit, event=event, where=where
        )


@app.question("segmentation-numeric")
def segmentation_numeric(
    event: EventOption,
    on: NumberOption,
    from_date: FromOption,
    to_date: ToOption,
    kind: TypeOption = "general",
    unit: HourUnitOption = "day",
    where: WhereOption = None,
) -> object:
    """Say how often an event had a number in each of some ranges, over time.

    Mixpanel discourages new use of this report since July 2026 (maintenance mode).

    Example: mp query segmentation-numeric -e 'Order Completed' -o amount --from 2024-01-01
    --to 2024-01-07
    """
    asked = days(from_date, to_date)
    with current().workspace() as workspace:
        return workspace.segmentation_numeric(
            event, **asked, on=on, unit=unit, where=where, type=kind
        )


@app.question("segmentation-sum")
def segmentation_sum(
    event: EventOption,
    on: NumberOption,
    from_date: FromOption,
    to_date: ToOption,
    unit: HourUnitOption = "day",
    where: WhereOption = None,
) -> object:
    """Sum a number over an event's occurrences, over time.

    Mixpanel discourages new use of this report since July 2026 (maintenance mode).

    Example: mp query segmentation-sum -e 'Order Completed' -o amount --from 2024-01-01
    --to 2024-01-07
    """
    asked = days(from_date, to_date)
    with current().workspace() as workspace:
        return workspace.segmentation_sum(event, **asked, on=on, unit=unit, where=where)


@app.question("segmentation-average")
def segmentation_average(
    event: EventOption,
    on: NumberOption,
    from_date: FromOption,
    to_date: ToOption,
    unit: HourUnitOption = "day",
    where: WhereOption = None,
) -> object:
    """Average a number over an event's occurrences, over time.

    Mixpanel discourages new use of this report since July 2026 (maintenance mode).

    Example: mp query segmentation-average -e 'Order Completed' -o amount --from 2024-01-01
    --to 2024-01-07
    """
    asked = days(from_date, to_date)
    with current().workspace() as workspace:
        return workspace.segmentation_average(event, **asked, on=on, unit=unit, where=where)


def _parameters(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for name, equals, _ in pairs:
        if not (name and equals):
            raise typer.BadParameter(f"--param takes NAME=TEXT, not {name!r}.")
    return {name: text for name, _, text in pairs}


@app.question("sql")
def sql(
    query: Annotated[str | None, typer.Argument(help="The query; - reads stdin.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-F", help="A file with the query instead.")
    ] = None,
    scalar: Annotated[
        bool, typer.Option("--scalar", "-s", help="Only the first value of the first row.")
    ] = False,
    database: DatabaseOption = None,
) -> object:
    """Ask the database, read-only and without an account.

    Example: mp query sql "SELECT event_name, count(*) AS n FROM events GROUP BY ALL" -f table
    """
    text = text_of(query, file, "the query")
    with current().stored(database) as workspace:
        answer = workspace.storage.execute_exact(text)
        if scalar:
            return answer[0][0] if answer else None
        return answer
