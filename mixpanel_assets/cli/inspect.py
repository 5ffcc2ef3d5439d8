"""`mp inspect`: what Mixpanel lists of a project, and what is stored of it."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import typer

from mixpanel_assets.cli.invocation import App, current
from mixpanel_assets.cli.options import (
    CountTypeOption,
    DatabaseOption,
    EventOption,
    EventsOption,
    EventsTableOption,
    ForceOption,
    FromOption,
    PropertyOption,
    TableOption,
    ToOption,
    ZoneOption,
    confirm,
    day_argument,
    names,
    names_option,
    numbers,
    report_type_option,
    required_names,
)
from mixpanel_assets.cli.output import Answer
from mixpanel_assets.results.choices import BookmarkType, EntityType, TableType
from mixpanel_assets.rules.days import counted

MOST_ROWS = 1_000_000  # all rows are in memory to be printed

app = App(
    name="inspect",
    help="Show what a project contains, and what is stored of it.",
    no_args_is_help=True,
)


@app.command("events")
def events() -> Answer:
    """List the names of the most common events of the last 31 days.

    Example: mp inspect events --format plain
    """
    with current().workspace() as workspace:
        return Answer(workspace.events(), column="event")


@app.command("properties")
def properties(event: EventOption) -> Answer:
    """List the properties of an event.

    Example: mp inspect properties -e 'Sign Up'
    """
    with current().workspace() as workspace:
        return Answer(workspace.properties(event), column="property")


@app.command("values")
def values(
    property_name: PropertyOption,
    event: Annotated[
        str | None, typer.Option("--event", "-e", help="Only values of this event.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, help="The maximum number.")] = 100,
) -> Answer:
    """List the most common values of a property, sorted.

    Example: mp inspect values -p plan -e 'Sign Up'
    """
    with current().workspace() as workspace:
        values = workspace.property_values(property_name, event=event, limit=limit)
        return Answer(values, column="value")


@app.command("funnels")
def funnels() -> object:
    """List the saved funnels.

    Example: mp inspect funnels --format table
    """
    with current().workspace() as workspace:
        return workspace.funnels()


@app.command("cohorts")
def cohorts() -> object:
    """List the saved cohorts and their number of people.

    Example: mp inspect cohorts --jq '.[].name'
    """
    with current().workspace() as workspace:
        return workspace.cohorts()


@app.command("reports")
def reports(
    kind: Annotated[BookmarkType | None, report_type_option("Only reports of this type")] = None,
) -> object:
    """List the saved reports, with the numbers for `mp query saved-report`.

    Example: mp inspect reports --type insights --format table
    """
    with current().workspace() as workspace:
        return workspace.list_bookmarks(kind)


app.command("bookmarks", hidden=True)(reports)


@app.command("top-events")
def top_events(
    kind: CountTypeOption = "general",
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, help="The maximum number.")] = 10,
) -> object:
    """List today's most common events, and their change since yesterday.

    Example: mp inspect top-events --limit 5 --format table
    """
    with current().workspace() as workspace:
        return workspace.top_events(type=kind, limit=limit)


@app.command("lexicon-schemas")
def lexicon_schemas(
    kind: Annotated[
        EntityType | None, typer.Option("--type", "-t", help="Only entries of this type.")
    ] = None,
) -> object:
    """List the data dictionary.

    Example: mp inspect lexicon-schemas --type event --jq '.[].name'
    """
    with current().workspace() as workspace:
        return workspace.lexicon_schemas(entity_type=kind)


@app.command("lexicon-schema")
def lexicon_schema(
    kind: Annotated[EntityType, typer.Option("--type", "-t", help="The entry's type.")],
    name: Annotated[str, typer.Option("--name", "-n", help="The event; $user for profiles.")],
) -> object:
    """Show one entry of the data dictionary.

    Example: mp inspect lexicon-schema --type event --name 'Order Completed'
    """
    with current().workspace() as workspace:
        return workspace.lexicon_schema(kind, name)


@app.command("info")
def info(database: DatabaseOption = None) -> object:
    """Show the path, project and size of the database.

    Example: mp inspect info
    """
    with current().open_stored(database) as workspace:
        return workspace.info()


@app.command("tables")
def tables(database: DatabaseOption = None) -> object:
    """List the tables with their row counts and fetch times.

    Example: mp inspect tables --format table
    """
    with current().open_stored(database) as workspace:
        return workspace.tables()


@app.command("schema")
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
    with current().open_stored(database) as workspace:
        schema = workspace.table_schema(table).to_dict()
        if sample:
            rows = workspace.sample_rows(table, 1).to_dicts() or [{}]
            for column in schema["columns"]:
                column["sample"] = rows[0].get(column["name"])
        return Answer(schema, rows=schema["columns"])


@app.command("sample")
def sample(
    table: TableOption,
    rows: Annotated[
        int, typer.Option("--rows", "-n", min=1, max=MOST_ROWS, help="The number of rows.")
    ] = 10,
    database: DatabaseOption = None,
) -> object:
    """Show random rows of a table.

    Example: mp inspect sample -t events -n 3
    """
    with current().open_stored(database) as workspace:
        return workspace.sample_rows(table, rows)


@app.command("summarize")
def summarize(table: TableOption, database: DatabaseOption = None) -> object:
    """Show statistics of each column of a table.

    Example: mp inspect summarize -t events --format table
    """
    with current().open_stored(database) as workspace:
        return workspace.summarize(table)


@app.command("breakdown")
def breakdown(table: TableOption, database: DatabaseOption = None) -> object:
    """Show the count, users, first and last time of each event in a table.

    Example: mp inspect breakdown -t events --format table
    """
    with current().open_stored(database) as workspace:
        return workspace.event_breakdown(table)


@app.command("keys")
def keys(
    table: TableOption,
    event: Annotated[
        str | None, typer.Option("--event", "-e", help="Only properties of this event.")
    ] = None,
    database: DatabaseOption = None,
) -> object:
    """List the properties in a table.

    Example: mp inspect keys -t events -e 'Sign Up'
    """
    with current().open_stored(database) as workspace:
        keys = workspace.property_keys(table, event)
    if keys:
        from mixpanel_assets.warehouse.schema import spelling

        current().note(f"In SQL, {spelling(keys[0])} is the value of a property as text.")
    return Answer(keys, column="property")


@app.command("column")
def column(
    table: TableOption,
    column: Annotated[
        str,
        typer.Option(
            "--column", "-c", help="A column, or a property: prop(properties, '$browser')."
        ),
    ],
    top: Annotated[
        int, typer.Option(min=1, max=MOST_ROWS, help="The number of most common values.")
    ] = 10,
    database: DatabaseOption = None,
) -> object:
    """Show statistics of one column or property.

    Example: mp inspect column -t events -c event_name --top 5
    """
    with current().open_stored(database) as workspace:
        return workspace.column_stats(table, column, top_n=top)


@app.command("drop")
def drop(
    table: Annotated[
        list[str], typer.Option("--table", "-t", help="The table's name; repeatable.")
    ],
    force: ForceOption = False,
    database: DatabaseOption = None,
) -> object:
    """Drop tables. An asset's own table is emptied instead. Prints the names.

    Example: mp inspect drop -t january --force
    """
    confirm(force, f"Drop {', '.join(table)}, all rows included?")
    with current().open_stored(database, read_only=False) as workspace:
        return Answer(workspace.drop(*table), column="table")


@app.command("drop-all")
def drop_all(
    kind: Annotated[
        TableType | None, typer.Option("--type", "-t", help="Only tables of this type.")
    ] = None,
    force: ForceOption = False,
    database: DatabaseOption = None,
) -> object:
    """Drop all named tables. The assets' own tables are kept. Prints the names.

    Example: mp inspect drop-all --type profiles --force
    """
    confirm(force, f"Drop all named tables{f' of {kind}' if kind else ''}?")
    with current().open_stored(database, read_only=False) as workspace:
        return Answer(workspace.drop_all(kind), column="table")


@app.command("drop-day")
def drop_day(
    day: Annotated[date, day_argument("The day to remove: like 2024-01-31, or yesterday.")],
    table: Annotated[
        str, typer.Option("--table", "-t", help="`events`, or the table of another event asset.")
    ] = "events",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    database: DatabaseOption = None,
) -> object:
    """Remove one day of events: rows, quarantined lines and load record. Prints the counts.

    A load never removes a day, because Mixpanel deletes old events and then sends none.

    Example: mp inspect drop-day 2024-01-07 --yes
    """
    with current().open_stored(database, read_only=False) as workspace:
        preview = workspace.drop_day(day, table=table, dry_run=True)
        confirm(yes, f"Remove {preview.message} Continue?", option="--yes")
        dropped_day = workspace.drop_day(day, table=table)
    current().note(f"Removed {dropped_day.message}")
    return dropped_day


@app.command("distribution")
def distribution(
    event: EventOption,
    property_name: PropertyOption,
    from_date: FromOption,
    to_date: ToOption,
    limit: Annotated[
        int, typer.Option("--limit", "-l", min=1, max=100_000, help="The maximum number of values.")
    ] = 20,
    table: EventsTableOption = None,
    zone: ZoneOption = None,
    database: DatabaseOption = None,
) -> object:
    """Show the most common values of a property of stored events.

    Example: mp inspect distribution -e 'Sign Up' -p plan --from 2024-01-01 --to 2024-01-07
    """
    with current().open_stored(database) as workspace:
        return workspace.property_distribution(
            event,
            property_name,
            from_date=from_date,
            to_date=to_date,
            limit=limit,
            table=table,
            zone=zone,
        )


@app.command("numeric")
def numeric(
    event: EventOption,
    property_name: PropertyOption,
    from_date: FromOption,
    to_date: ToOption,
    percentiles: Annotated[
        str | None, typer.Option(help="Numbers from 0 to 100, separated by commas.")
    ] = None,
    table: EventsTableOption = None,
    zone: ZoneOption = None,
    database: DatabaseOption = None,
) -> object:
    """Show statistics of a numeric property of stored events.

    Example: mp inspect numeric -e 'Order Completed' -p amount --from 2024-01-01 --to 2024-01-07
    """
    points = numbers(percentiles, "--percentiles")
    if points and not all(0 <= point <= 100 for point in points):
        raise typer.BadParameter("--percentiles must be from 0 to 100.")
    with current().open_stored(database) as workspace:
        return workspace.numeric_summary(
            event,
            property_name,
            from_date=from_date,
            to_date=to_date,
            percentiles=points,
            table=table,
            zone=zone,
        )


@app.command("daily")
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
    with current().open_stored(database) as workspace:
        return workspace.daily_counts(
            from_date=from_date,
            to_date=to_date,
            events=names(events) or None,
            table=table,
            zone=zone,
        )


@app.command("lateness", form="text")
def lateness(from_date: FromOption, to_date: ToOption, database: DatabaseOption = None) -> Answer:
    """Show how late stored events arrived: their share after one day, two days and so on.

    Example: mp inspect lateness --from 2024-01-01 --to 2024-01-07
    """
    with current().open_stored(database) as workspace:
        result = workspace.lateness(from_date=from_date, to_date=to_date)
    lines = [
        f"{counted(step.days, 'day'):>9}  {step.share:>8.2%}  {'█' * round(step.share * 40):<40} "
        f"{step.count:>12,}"
        for step in result.steps
    ]
    if result.unknown:
        lines.append(f"{counted(result.unknown, 'event')} without a time of processing")
    return Answer(result, text=lines or ["No event is stored for these days."])


@app.command("engagement")
def engagement(
    from_date: FromOption,
    to_date: ToOption,
    events: EventsOption = None,
    buckets: Annotated[
        str | None, typer.Option(help="The start of each bucket, ascending, separated by commas.")
    ] = None,
    table: EventsTableOption = None,
    zone: ZoneOption = None,
    database: DatabaseOption = None,
) -> object:
    """Count users by their number of stored events.

    Example: mp inspect engagement --from 2024-01-01 --to 2024-01-07 --buckets 1,5,20
    """
    starts = numbers(buckets, "--buckets")
    if starts and (starts != sorted(set(starts)) or starts[0] < 1):
        raise typer.BadParameter("--buckets must ascend from 1 or more.")
    with current().open_stored(database) as workspace:
        return workspace.engagement_distribution(
            from_date=from_date,
            to_date=to_date,
            events=names(events) or None,
            buckets=starts,
            table=table,
            zone=zone,
        )


@app.command("coverage")
def coverage(
    event: EventOption,
    properties: Annotated[list[str], names_option("--properties", "-p")],
    from_date: FromOption,
    to_date: ToOption,
    table: EventsTableOption = None,
    zone: ZoneOption = None,
    database: DatabaseOption = None,
) -> object:
    """Show the share of stored events in which properties have a value.

    Example: mp inspect coverage -e 'Sign Up' -p plan,city --from 2024-01-01 --to 2024-01-07
    """
    names_of_properties = required_names(properties, "--properties")
    with current().open_stored(database) as workspace:
        return workspace.property_coverage(
            event, names_of_properties, from_date=from_date, to_date=to_date, table=table, zone=zone
        )
