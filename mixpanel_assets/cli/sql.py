"""`mp query sql`: SQL over what is stored; needs no account."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixpanel_assets.cli.invocation import current
from mixpanel_assets.cli.options import DatabaseOption, text_of
from mixpanel_assets.cli.query import app


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
