"""`mp inspect`: what a project holds, asked of Mixpanel; its answers may spend requests."""

from __future__ import annotations

from typing import Annotated

import typer

from mixpanel_assets.cli.invocation import Questions, current
from mixpanel_assets.cli.options import EventOption
from mixpanel_assets.results.choices import BookmarkType, CountType, EntityType

app = Questions(
    name="inspect",
    help="See what a project holds, and what is stored of it.",
    no_args_is_help=True,
)

PropertyOption = Annotated[str, typer.Option("--property", "-p", help="The property's name.")]


@app.question("events", column="event")
def events() -> object:
    """List the names of the events of the last 31 days; rare and older ones are missing.

    Example: mp inspect events --format plain
    """
    with current().workspace() as workspace:
        return workspace.events()


@app.question("properties", column="property")
def properties(event: EventOption) -> object:
    """List the properties of an event.

    Example: mp inspect properties -e 'Sign Up'
    """
    with current().workspace() as workspace:
        return workspace.properties(event)


@app.question("values")
def values(
    property_name: PropertyOption,
    event: Annotated[
        str | None, typer.Option("--event", "-e", help="Only values in events of this name.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, help="At most so many.")] = 100,
) -> object:
    """List the most common values of a property, sorted.

    Example: mp inspect values -p plan -e 'Sign Up'
    """
    with current().workspace() as workspace:
        return workspace.property_values(property_name, event=event, limit=limit)


@app.question("funnels")
def funnels() -> object:
    """List the saved funnels.

    Example: mp inspect funnels --format table
    """
    with current().workspace() as workspace:
        return workspace.funnels()


@app.question("cohorts")
def cohorts() -> object:
    """List the saved cohorts and how many people they have.

    Example: mp inspect cohorts --jq '.[].name'
    """
    with current().workspace() as workspace:
        return workspace.cohorts()


@app.question("reports")
def reports(
    kind: Annotated[
        BookmarkType | None,
        typer.Option(
            "--type",
            "-t",
            metavar="TYPE",
            help="Only reports of this type: insights, funnels, retention or flows.",
        ),
    ] = None,
) -> object:
    """List the saved reports, with the numbers that `mp query saved-report` takes.

    Example: mp inspect reports --type insights --format table
    """
    with current().workspace() as workspace:
        return workspace.list_bookmarks(kind)


app.command("bookmarks", hidden=True)(reports)


@app.question("top-events")
def top_events(
    kind: Annotated[
        CountType,
        typer.Option(
            "--type",
            "-t",
            help="general counts events, unique people, average is events per person.",
        ),
    ] = "general",
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, help="At most so many.")] = 10,
) -> object:
    """List today's most common events, and how they changed since yesterday.

    Example: mp inspect top-events --limit 5 --format table
    """
    with current().workspace() as workspace:
        return workspace.top_events(type=kind, limit=limit)


@app.question("lexicon-schemas")
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


@app.question("lexicon-schema")
def lexicon_schema(
    kind: Annotated[EntityType, typer.Option("--type", "-t", help="The entry's type.")],
    name: Annotated[str, typer.Option("--name", "-n", help="The event; $user for profiles.")],
) -> object:
    """Show one entry of the data dictionary.

    Example: mp inspect lexicon-schema --type event --name 'Order Completed'
    """
    with current().workspace() as workspace:
        return workspace.lexicon_schema(kind, name)
