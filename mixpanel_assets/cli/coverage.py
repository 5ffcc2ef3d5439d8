"""`mp coverage` and `mp certificate`: which days are stored, and how that is known of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixpanel_assets.cli.exits import GENERAL
from mixpanel_assets.cli.invocation import current
from mixpanel_assets.cli.options import (
    DatabaseOption,
    OptionalFromOption,
    OptionalToOption,
    complete_table,
    day_argument,
)
from mixpanel_assets.cli.output import Answer
from mixpanel_assets.errors import StorageError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from mixpanel_assets.results import Certificate
    from mixpanel_assets.results.coverage import CoveredDay, Weeks

_LABEL = 5  # characters left of the days


def coverage(
    from_date: OptionalFromOption = None,
    to_date: OptionalToOption = None,
    table: Annotated[
        str | None,
        typer.Option(
            "--table",
            "-t",
            autocompletion=complete_table,
            help="One table of an asset.",
            show_default="all of them",
        ),
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(help="Also write the calendar to this file, as an image.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Also write the calendar and a list of the days to this file."),
    ] = None,
    database: DatabaseOption = None,
) -> Answer:
    """Show which days are stored, as a calendar with a column for each week. Sends no request.

    Example: mp coverage --last 365 --html coverage.html
    """
    with current().open_stored(database) as workspace:
        result = workspace.coverage(from_date, to_date, table=table)
    if svg:
        _write(svg, result.svg())
    if html:
        _write(html, result.html())
    text: list[str | Text] = []
    for name, days in result.by_table():
        text += _calendar(name, days)
    return Answer(result, text=text or ["No day is stored yet."])


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}.") from error
    current().note(f"Wrote {path}.")


def _calendar(table: str, days: Sequence[CoveredDay]) -> Iterator[str | Text]:
    """Yield the lines of a table's calendar, then the number and the meaning of each status."""
    from rich.console import Console
    from rich.text import Text

    from mixpanel_assets.results.coverage import LOOKS, MOST_WEEKS, calendar_of, counts_of

    room = Console().width - _LABEL
    # A square has two characters, where a year of them fits.
    width = 2 if room >= 2 * MOST_WEEKS else 1
    yield f"{table}: {days[0].day} to {days[-1].day}"
    for weeks in calendar_of(days, max(1, min(MOST_WEEKS, room))):
        yield _months(weeks, width)
        yield from _weekdays(weeks, width)
    for status, count in counts_of(days).items():
        look = LOOKS[status]
        line = Text(" " * _LABEL)
        line.append(look.symbol.ljust(width), style=_style(look.color))
        line.append(f" {count:>6,} {status}: {look.meaning}")
        yield line
    yield ""


def _months(weeks: Weeks, width: int) -> str:
    line = f"{weeks.year}".ljust(_LABEL)
    for week, name in weeks.months:
        line = line.ljust(_LABEL + week * width) + name
    return line


def _weekdays(weeks: Weeks, width: int) -> Iterator[Text]:
    from rich.text import Text

    from mixpanel_assets.results.coverage import LOOKS, WEEKDAYS

    for weekday in range(7):
        line = Text(WEEKDAYS.get(weekday, "").ljust(_LABEL))
        for week in range(weeks.number):
            if day := weeks.days.get((week, weekday)):
                look = LOOKS[day.status]
                line.append(look.symbol.ljust(width), style=_style(look.color))
            else:
                line.append(" " * width)
        yield line


_DARK = 3 * 128  # the sum of red, green and blue below which black cannot be read


def _style(color: str) -> str:
    text = "white" if sum(bytes.fromhex(color[1:])) < _DARK else "black"
    return f"{text} on {color}"


def certificate(
    day: Annotated[date, day_argument("The day: like 2024-01-31, or yesterday.")],
    table: Annotated[
        str,
        typer.Option(
            "--table",
            "-t",
            autocompletion=complete_table,
            help="`events`, or the table of another event asset.",
        ),
    ] = "events",
    database: DatabaseOption = None,
) -> Answer:
    """Show what was received and stored of a day, and how the numbers add up.

    Sends no request. Exits with 1 if a sum is wrong.

    Example: mp certificate 2024-01-03
    """
    with current().open_stored(database) as workspace:
        found = workspace.certificate(day, table=table)
    return Answer(
        found, text=list(_certificate(found)), error=None if found.holds else typer.Exit(GENERAL)
    )


def _certificate(found: Certificate) -> Iterator[str | Table]:
    """Yield the numbers of a certificate with their meanings, then its sums."""
    from rich.table import Table

    from mixpanel_assets.results.certificate import MEANINGS, NOT_KNOWN

    yield (
        f"Certificate of {found.day}, table mixpanel.{found.table}, project {found.project_id} "
        f"({found.region})"
    )
    numbers = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    numbers.add_column("name", no_wrap=True)
    for name in ("value", "meaning"):
        numbers.add_column(name, overflow="fold")
    for name, meaning in MEANINGS.items():
        value = getattr(found, name)
        if name in found.unknown:
            value = NOT_KNOWN
        if value is not None:
            numbers.add_row(name, _shown(value), meaning)
    yield numbers
    words = {True: "holds", False: "WRONG", None: NOT_KNOWN}
    for one in found.sums:
        yield f"{words[one.holds]}: {one.text}"
    if found.unknown:
        yield "What is not known was not stored by the earlier version that loaded the day."


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return f"{value:,}" if isinstance(value, int) else str(value)
