"""Options that several commands take, and how what was typed becomes what the library takes."""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, TypedDict

import typer

from mixpanel_assets.cli.exits import InvalidArgumentsError
from mixpanel_assets.errors import ConfigError, visible
from mixpanel_assets.results.choices import RefetchChoice
from mixpanel_assets.rules.days import as_day

_NAMED_DAYS = {"today": 0, "yesterday": 1}
_DAYS_AGO = re.compile(r"-(\d{1,5})d")
MOST_LAST_DAYS = 9_999


@dataclass(frozen=True)
class DaysAgo:
    """A day by its distance from the current one, which each command has in a zone of its own."""

    days: int

    def before(self, today: date) -> date:
        """Return the day.

        Raises:
            BadParameter: Mixpanel cannot hold it.
        """
        try:
            return as_day(today - timedelta(days=self.days))
        except ConfigError as error:
            raise typer.BadParameter(error.message) from None


def day(text: str | date | DaysAgo) -> date | DaysAgo:
    """Return the day that was typed; a default is one already.

    Raises:
        BadParameter: It is not a day, or one that Mixpanel cannot hold.
    """
    if not isinstance(text, str):
        return text
    if text.lower() in _NAMED_DAYS:
        return DaysAgo(_NAMED_DAYS[text.lower()])
    if ago := _DAYS_AGO.fullmatch(text.lower()):
        return DaysAgo(int(ago[1]))
    try:
        return as_day(text)
    except ConfigError as error:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text) and "between" in error.message:
            raise typer.BadParameter(error.message) from None
        raise typer.BadParameter(
            f"{text!r} is not a day; write it like 2024-01-31, today, yesterday or -7d."
        ) from None


def day_option(name: str, said: str) -> Any:
    """Return an option that takes a day."""
    return typer.Option(name, parser=day, metavar="DAY", help=said)


def day_argument(said: str) -> Any:
    """Return an argument that is a day."""
    return typer.Argument(parser=day, metavar="DAY", help=said)


_FIRST_DAY = "First day, included: like 2024-01-31, today, yesterday, or -7d for 7 days ago."
FromOption = Annotated[date, day_option("--from", _FIRST_DAY)]
ToOption = Annotated[date, day_option("--to", "Last day, included.")]
OptionalFromOption = Annotated[date | None, day_option("--from", _FIRST_DAY)]
OptionalToOption = Annotated[date | None, day_option("--to", "Last day, included.")]


def known_tables(incomplete: str) -> list[str]:
    """Return the stored tables whose names begin like this, for completion; it never fails."""
    from mixpanel_assets.cli.invocation import current

    with suppress(Exception), current().stored() as workspace:
        found = [table.name for table in workspace.tables()]
        return [name for name in found if name.startswith(incomplete)]
    return []


def known_accounts(incomplete: str) -> list[str]:
    """Return the accounts whose names begin like this, for completion; it never fails."""
    from mixpanel_assets.auth import ConfigManager

    with suppress(Exception):
        found = [account.name for account in ConfigManager().list_accounts()]
        return [name for name in found if name.startswith(incomplete)]
    return []


def range_of_last(days: int) -> tuple[DaysAgo, DaysAgo]:
    """Return the first and last day that --last means: the current one is the last."""
    return DaysAgo(days - 1), DaysAgo(0)


def _last_days(context: typer.Context, days: int | None) -> int | None:
    """Let --last stand for --from and --to, which commands may require."""
    if days is not None:
        # Typer's own bounds would stand in help, and take the room of its sentences.
        if not 1 <= days <= MOST_LAST_DAYS:
            raise typer.BadParameter(f"{days} is not between 1 and {MOST_LAST_DAYS:,} days.")
        named = zip(("from_date", "to_date"), range_of_last(days), strict=True)
        context.default_map = {**(context.default_map or {}), **dict(named)}
    return days


LastOption = Annotated[
    int | None,
    typer.Option(
        "--last",
        is_eager=True,
        callback=_last_days,
        metavar="DAYS",
        help="Instead of --from and --to: the number of days, up to the current one.",
    ),
]
RefetchOption = Annotated[
    RefetchChoice | None,
    typer.Option(
        "--refetch",
        metavar="WHICH",
        help="Which of the days are loaded: `all`; those `missing` (never loaded, failed, or "
        "loaded before they had ended); or the `stale` ones, which are those and days read less "
        "than MP_SETTLE_DAYS after their end.",
        show_default="stale",
    ),
]
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


def known_zone(zone: str | None) -> str | None:
    """Return the name of a zone.

    Raises:
        BadParameter: There is no such zone.
    """
    from mixpanel_assets.rules.zones import is_zone

    if zone is not None and not is_zone(zone):
        raise typer.BadParameter(f"{zone!r} is not a time zone; use a name like Europe/Berlin.")
    return zone


ZoneOption = Annotated[
    str | None,
    typer.Option(
        "--zone",
        callback=known_zone,
        help="Whose days these are, such as Europe/Berlin.",
        show_default="the project's zone",
    ),
]
DatabaseOption = Annotated[
    Path | None, typer.Option(help="The DuckDB file; default as MP_DATABASE says.")
]
TableOption = Annotated[
    str,
    typer.Option("--table", "-t", autocompletion=known_tables, help="The table's name."),
]
EventsTableOption = Annotated[
    str | None,
    typer.Option(
        "--table",
        "-t",
        autocompletion=known_tables,
        help="Another table of events.",
        show_default="events",
    ),
]
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


def must_be_sure(force: bool, question: str, *, option: str = "--force") -> None:
    """Return if the option that says so is given or the user at a terminal says yes.

    Raises:
        InvalidArgumentsError: Nobody can be asked.
        Abort: The answer was no.
    """
    if force:
        return
    if not sys.stdin.isatty():
        raise InvalidArgumentsError(f"Nobody can be asked here: this needs {option}.")
    typer.confirm(visible(question), abort=True, err=True)
