"""Options that several commands take, and how what was typed becomes what the library takes."""

from __future__ import annotations

import json
import sys
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, TypedDict

import typer

from mixpanel_assets.cli.exits import InvalidArgumentsError

# Mixpanel began in 2009; around the ends of the calendar there are no days before and after.
_FIRST, _LAST = date(2000, 1, 1), date(2999, 12, 31)


def day(text: str | date) -> date:
    """Return the day that was typed; a default is one already.

    Raises:
        BadParameter: It is none, or none that Mixpanel could hold.
    """
    if isinstance(text, date):
        return text
    try:
        found = datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day; write it like 2024-01-31.") from None
    if not _FIRST <= found <= _LAST:
        raise typer.BadParameter(f"{text} is not between {_FIRST} and {_LAST}.")
    return found


def day_option(name: str, said: str) -> Any:
    """Return an option that takes a day."""
    return typer.Option(name, parser=day, metavar="YYYY-MM-DD", help=said)


FromOption = Annotated[date, day_option("--from", "First day, included.")]
ToOption = Annotated[date, day_option("--to", "Last day, included.")]
OptionalFromOption = Annotated[date | None, day_option("--from", "First day, included.")]
OptionalToOption = Annotated[date | None, day_option("--to", "Last day, included.")]
EventOption = Annotated[str, typer.Option("--event", "-e", help="The event's name.")]
EventsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--events",
        "-e",
        help="Only these events: names with commas between them, or a JSON array; repeatable.",
    ),
]
WhereOption = Annotated[
    str | None, typer.Option("--where", "-w", help="Only events that fit this expression.")
]
DatabaseOption = Annotated[
    Path | None, typer.Option(help="The DuckDB file; default as MP_DATABASE says.")
]
TableOption = Annotated[str, typer.Option("--table", "-t", help="The table's name.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Do not ask.")]


class Days(TypedDict):
    """First and last day of a range, both included."""

    from_date: date
    to_date: date


def days(from_date: date, to_date: date) -> Days:
    """Return the days that --from and --to name.

    Raises:
        BadParameter: They are in the wrong order.
    """
    if from_date > to_date:
        raise typer.BadParameter("--from is after --to; both days are included.")
    return {"from_date": from_date, "to_date": to_date}


class OptionalDays(TypedDict):
    """As `Days`, as far as they are given."""

    from_date: date | None
    to_date: date | None


def optional_days(from_date: date | None, to_date: date | None) -> OptionalDays:
    """Return the days that --from and --to name, None where there are none.

    Raises:
        BadParameter: They are in the wrong order.
    """
    if from_date and to_date:
        days(from_date, to_date)
    return {"from_date": from_date, "to_date": to_date}


def names(given: list[str] | None, option: str = "--events") -> list[str]:
    """Return the names of a repeatable option: with commas between them, or JSON arrays.

    Raises:
        BadParameter: An array is none, or holds something that is no text.
    """
    found: list[str] = []
    for text in given or []:
        if not text.startswith("["):
            found += [name.strip() for name in text.split(",") if name.strip()]
            continue
        try:
            array = json.loads(text)
        except ValueError:
            raise typer.BadParameter(f"{option} {text} is not a JSON array.") from None
        if not all(isinstance(name, str) for name in array):
            raise typer.BadParameter(f"{option} takes names, which are texts.")
        found += array
    return found


def required_names(given: list[str] | None, option: str) -> list[str]:
    """Return at least one name; otherwise as `names`.

    Raises:
        BadParameter: There is none, too.
    """
    found = names(given, option)
    if not found:
        raise typer.BadParameter(f"{option} names nothing.")
    return found


def numbers(given: str | None, option: str) -> list[int] | None:
    """Return whole numbers with commas between them; None without any.

    Raises:
        BadParameter: One is no whole number.
    """
    if given is None:
        return None
    try:
        return [int(part) for part in given.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{option} takes whole numbers with commas between them, not {given!r}."
        ) from None


def text_of(given: str | None, file: Path | None, what: str) -> str:
    """Return a text from the command line, from a file, or with `-` from stdin.

    Raises:
        BadParameter: Not exactly one of both is given.
        InvalidArgumentsError: The file cannot be read, or is no text in UTF-8.
    """
    if (given is None) == (file is None):
        raise typer.BadParameter(f"Give {what} once: as text, or as a file.")
    if file is None and given != "-":
        return str(given)
    try:
        read = sys.stdin.buffer.read() if file in (None, Path("-")) else file.read_bytes()
        return read.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidArgumentsError(f"{file or 'stdin'} cannot be read: {reason}.") from None


def must_be_sure(force: bool, question: str) -> None:
    """Return if --force is given or somebody at a terminal says yes.

    Raises:
        InvalidArgumentsError: Nobody can be asked.
        Abort: The answer was no.
    """
    if force:
        return
    if not sys.stdin.isatty():
        raise InvalidArgumentsError("Nobody can be asked here: this needs --force.")
    typer.confirm(question, abort=True, err=True)
