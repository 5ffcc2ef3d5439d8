"""`mp verify`: compare stored events with Mixpanel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from mixpanel_assets.cli.exits import GENERAL
from mixpanel_assets.cli.invocation import current
from mixpanel_assets.cli.options import DatabaseOption, FromOption, OptionalToOption
from mixpanel_assets.cli.output import Answer, printable
from mixpanel_assets.rules.days import counted, describe_days, how_to_load

if TYPE_CHECKING:
    from rich.table import Table

    from mixpanel_assets.loading.reconciliation import Reconciliation
    from mixpanel_assets.warehouse import DayDifference, Reconciled

_MOST_SHOWN = 50


def verify(
    from_date: FromOption,
    to_date: OptionalToOption = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Download the days again and compare row by row. Costs export requests.",
        ),
    ] = False,
    tolerance: Annotated[
        int, typer.Option(min=0, help="The number of unexplained events that is accepted.")
    ] = 0,
    database: DatabaseOption = None,
) -> Answer:
    """Compare stored events with Mixpanel's own counts, by day and event name.

    Costs two to four requests of the query budget for a year, and no export request. Each
    difference gets a class, such as pending, hidden or deleted. Exits with 1 if one is unexplained,
    or, with --again, if a day differs. Without --to, the range ends yesterday.

    Example: mp verify --from -30d
    """
    with current().workspace(database) as workspace:
        if again:
            return _days(workspace.verify_again(from_date, to_date))
        return _counts(workspace.verify(from_date, to_date), tolerance)


def _counts(found: Reconciliation, tolerance: int) -> Answer:
    rows = found.unexplained_rows()
    text: list[str | Table] = [found.message]
    if found.differences:
        text.append(_differences(found.differences))
    if found.days_to_load:
        ways = how_to_load(found.days_to_load, "events", again=True)
        text.append(
            f"A load of {describe_days(found.days_to_load)} may bring the missing events: {ways}."
        )
    if rows:
        text.append(f"{counted(rows, 'event')} unexplained, {tolerance:,} accepted.")
    return Answer(
        found.to_dict(),
        text=text,
        rows=[one.to_dict() for one in found.counts],
        error=typer.Exit(GENERAL) if rows > tolerance else None,
    )


def _differences(found: Sequence[Reconciled]) -> Table:
    from rich.table import Column, Table
    from rich.text import Text

    names = ("day", "event", "stored", "Mixpanel", "class", "why")
    # In a narrow terminal, nothing is cut off.
    columns = [Column(name, overflow="fold") for name in names]
    table = Table(*columns, box=None, pad_edge=False)
    # Unexplained ones first, because only those need a decision.
    for one in sorted(found, key=lambda one: (one.cls != "unexplained", one.day))[:_MOST_SHOWN]:
        numbers = (f"{one.stored:,}", f"{one.live:,}")
        cells = (str(one.day), one.event, *numbers, one.cls, one.reason or "")
        # As text, because a name like [/b] is no markup.
        table.add_row(*(Text(printable(cell)) for cell in cells))
    if len(found) > _MOST_SHOWN:
        table.add_row("…", f"{len(found) - _MOST_SHOWN:,} more; --format json shows all")
    return table


def _days(found: Sequence[DayDifference]) -> Answer:
    different = [one for one in found if one.differs]
    text = [f"{len(found) - len(different)} of {counted(len(found), 'day')} equal the download."]
    text += [
        f"{one.day}: missing {one.missing:,}, gone {one.gone:,}, changed {one.changed:,}"
        f"{_events(one)}"
        for one in different
    ]
    records = [vars(one) | {"differs": one.differs} for one in found]
    return Answer(records, text=text, error=typer.Exit(GENERAL) if different else None)


def _events(one: DayDifference) -> str:
    return f" ({', '.join(one.events[:5])})" if one.events else ""
