"""`mp inspect` of what is stored: its tables, what is in them, and what its events say."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import typer

from mixpanel_assets.cli.inspect import PropertyOption, app
from mixpanel_assets.cli.invocation import current
from mixpanel_assets.cli.options import (
    DatabaseOption,
    EventOption,
    EventsOption,
    EventsTableOption,
    ForceOption,
    FromOption,
    TableOption,
    ToOption,
    ZoneOption,
    day_argument,
    days,
    must_be_sure,
    names,
    numbers,
    required_names,
)
from mixpanel_assets.cli.output import WithRows
from mixpanel_assets.results.choices import TableType

MOST_ROWS = 1_000_000


@app.question("info")
def info(database: DatabaseOption = None) -> object:
    """Show where the database is, whose data it holds, and how large it is.

    Example: mp inspect info
    """
    with current().stored(database) as workspace:
        return workspace.info()


@app.question("tables")
def tables(database: DatabaseOption = None) -> object:
    """List the tables, their rows, and when they were fetched.

    Example: mp inspect tables --format table
    """
    with current().stored(database) as workspace:
        return workspace.tables()


@app.question("schema")
def schema(
    table: TableOption,
    sample: Annotated[
        bool, typer.Option("--sample", help="Show a value of each column, from one row.")
    ] = False,
    database: DatabaseOption = None,
) -> object:
    """List the columns of a table.

    Example: mp inspect schema -t events --format table
    """
    with current().stored(database) as workspace:
        found = workspace.table_schema(table).to_dict()
        if sample:
            rows = workspace.sample_rows(table, 1).to_dicts() or [{}]
            for column in found["columns"]:
                column["sample"] = rows[0].get(column["name"])
        return WithRows(found, found["columns"])


@app.question("sample")
def sample(
    table: TableOption,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, max=MOST_ROWS, help="How many.")] = 10,
    database: DatabaseOption = None,
) -> object:
    """Show rows of a table, chosen at random.

    Example: mp inspect sample -t events -n 3
    """
    with current().stored(database) as workspace:
        return workspace.sample_rows(table, rows)


@app.question("summarize")
def summarize(table: TableOption, database: DatabaseOption = None) -> object:
    """Show each column of a table in a few numbers.

    Example: mp inspect summarize -t events --format table
    """
    with current().stored(database) as workspace:
        return workspace.summarize(table)


@app.question("breakdown")
def breakdown(table: TableOption, database: DatabaseOption = None) -> object:
    """Show the events of a table: how many, of how many users, first and last.

    Example: mp inspect breakdown -t events --format table
    """
    with current().stored(database) as workspace:
        return workspace.event_breakdown(table)


@app.question("keys", column="property")
def keys(
    table: TableOption,
    event: Annotated[
        str | None, typer.Option("--event", "-e", help="Only of events of this name.")
    ] = None,
    database: DatabaseOption = None,
) -> object:
    """List the properties in a table.

    Example: mp inspect keys -t events -e 'Sign Up'
    """
    with current().stored(database) as workspace:
        keys = workspace.property_keys(table, event)
    if keys:
        from mixpanel_assets.warehouse.schema import spelling

        current().note(f"In SQL, {spelling(keys[0])} is the text of one.")
    return keys


@app.question("column")
def column(
    table: TableOption,
    column: Annotated[
        str,
        typer.Option(
            "--column", "-c", help="A column, or a property: prop(properties, '$browser')."
        ),
    ],
    top: Annotated[
        int, typer.Option(min=1, max=MOST_ROWS, help="How many of the most common values.")
    ] = 10,
    database: DatabaseOption = None,
) -> object:
    """Show one column of a table in detail.

    Example: mp inspect column -t events -c event_name --top 5
    """
    with current().stored(database) as workspace:
        return workspace.column_stats(table, column, top_n=top)


@app.question("drop", column="table")
def drop(
    table: Annotated[
        list[str], typer.Option("--table", "-t", help="The table's name; repeatable.")
    ],
    force: ForceOption = False,
    database: DatabaseOption = None,
) -> object:
    """Drop tables; of an asset's own table all rows go. Prints what was dropped.

    Example: mp inspect drop -t january --force
    """
    must_be_sure(force, f"Drop {', '.join(table)}, all rows included?")
    with current().stored(database, read_only=False) as workspace:
        return workspace.drop(*table)


@app.question("drop-all", column="table")
def drop_all(
    kind: Annotated[
        TableType | None, typer.Option("--type", "-t", help="Only tables of this type.")
    ] = None,
    force: ForceOption = False,
    database: DatabaseOption = None,
) -> object:
    """Drop the tables that were fetched; the assets' own tables stay. Prints what was dropped.

    Example: mp inspect drop-all --type profiles --force
    """
    must_be_sure(force, f"Drop all fetched tables{f' of {kind}' if kind else ''}?")
    with current().stored(database, read_only=False) as workspace:
        return workspace.drop_all(kind)


@app.question("drop-day")
def drop_day(
    day: Annotated[date, day_argument("The day to remove: like 2024-01-31, or yesterday.")],
    table: Annotated[
        str, typer.Option("--table", "-t", help="`events`, or another asset's table of events.")
    ] = "events",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    database: DatabaseOption = None,
) -> object:
    """Remove one day of events: rows, quarantine and what is known of it. Prints what was removed.

    A load never removes a day on its own, because Mixpanel may have deleted the day for its age.

    Example: mp inspect drop-day 2024-01-07 --yes
    """
    with current().stored(database, read_only=False) as workspace:
        would = workspace.drop_day(day, table=table, dry_run=True)
        must_be_sure(yes, f"Remove {would.message} Go on?", option="--yes")
        done = workspace.drop_day(day, table=table)
    current().note(f"Removed {done.message}")
    return done


@app.question("distribution")
def distribution(
    event: EventOption,
    property_name: PropertyOption,
    from_date: FromOption,
    to_date: ToOption,
    limit: Annotated[
        int, typer.Option("--limit", "-l", min=1, max=100_000, help="At most so many values.")
    ] = 20,
    table: EventsTableOption = None,
    zone: ZoneOption = None,
    database: DatabaseOption = None,
) -> object:
    """Show the most common values of a property of stored events.

    Example: mp inspect distribution -e 'Sign Up' -p plan --from 2024-01-01 --to 2024-01-07
    """
    asked = days(from_date, to_date)
    with current().stored(database) as workspace:
        return workspace.property_distribution(
            event, property_name, **asked, limit=limit, table=table, zone=zone
        )


@app.question("numeric")
def numeric(
    event: EventOption,
    property_name: PropertyOption,
    from_date: FromOption,
    to_date: ToOption,
    percentiles: Annotated[
        str | None, typer.Option(help="0 to 100, with commas between them.")
    ] = None,
    table: EventsTableOption = None,
    zone: ZoneOption = None,
    database: DatabaseOption = None,
) -> object:
    """Show a property of stored events in a few numbers.

    Example: mp inspect numeric -e 'Order Completed' -p amount --from 2024-01-01 --to 2024-01-07
    """
    asked = days(from_date, to_date)
    points = numbers(percentiles, "--percentiles")
    if points and not all(0 <= point <= 100 for point in points):
        raise typer.BadParameter("--percentiles go from 0 to 100.")
    with current().stored(database) as workspace:
        return workspace.numeric_summary(
            event, property_name, **asked, percentiles=points, table=table, zone=zone
        )


@app.question("daily")
def daily(
    from_date: FromOption,
    to_date: ToOption,
    events: EventsOption = None,
    table: EventsTableOption = None,
    zone: ZoneOption = None,
    database: DatabaseOption = None,
) -> object:
    """Count stored events by day.

    Example: mp inspect daily --from 2024-01-01 --to 2024-01-07 --format csv
    """
    asked = days(from_date, to_date)
    with current().stored(database) as workspace:
        return workspace.daily_counts(**asked, events=names(events) or None, table=table, zone=zone)


@app.question("engagement")
def engagement(
    from_date: FromOption,
    to_date: ToOption,
    events: EventsOption = None,
    buckets: Annotated[
        str | None,
        typer.Option(help="Where each bucket begins, ascending, with commas between them."),
    ] = None,
    table: EventsTableOption = None,
    zone: ZoneOption = None,
    database: DatabaseOption = None,
) -> object:
    """Say how many users had how many of the stored events.

    Example: mp inspect engagement --from 2024-01-01 --to 2024-01-07 --buckets 1,5,20
    """
    asked = days(from_date, to_date)
    starts = numbers(buckets, "--buckets")
    if starts and (starts != sorted(set(starts)) or starts[0] < 1):
        raise typer.BadParameter("--buckets begin at 1 or more and ascend.")
    with current().stored(database) as workspace:
        return workspace.engagement_distribution(
            **asked, events=names(events) or None, buckets=starts, table=table, zone=zone
        )


@app.question("coverage")
def coverage(
    event: EventOption,
    properties: Annotated[
        list[str],
        typer.Option(
            "--properties",
            "-p",
            help="Names with commas between them, or a JSON array; repeatable.",
        ),
    ],
    from_date: FromOption,
    to_date: ToOption,
    table: EventsTableOption = None,
    zone: ZoneOption = None,
    database: DatabaseOption = None,
) -> object:
    """Say how often properties of stored events have a value.

    Example: mp inspect coverage -e 'Sign Up' -p plan,city --from 2024-01-01 --to 2024-01-07
    """
    asked = days(from_date, to_date)
    chosen = required_names(properties, "--properties")
    with current().stored(database) as workspace:
        return workspace.property_coverage(event, chosen, **asked, table=table, zone=zone)
