"""Options of several commands, and the conversion of typed texts to arguments of the library."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from mixpanel_assets.cli.exits import InvalidArgumentsError
from mixpanel_assets.errors import ConfigError, visible
from mixpanel_assets.results.choices import CountType, RefetchChoice
from mixpanel_assets.rules.days import as_day, days_ago

MOST_LAST_DAYS = 9_999  # 27 years; Mixpanel started in 2009


@dataclass(frozen=True)
class DaysAgo:
    """A day by its distance from the current one, whose zone depends on the command."""

    days: int

    def before(self, today: date) -> date:
        """Return the day."""
        try:
            return as_day(today - timedelta(days=self.days))
        except ConfigError as error:
            raise typer.BadParameter(error.message) from None


def day(option_value: str | date | DaysAgo) -> date | DaysAgo:
    """Return the day that was typed. A default is a day already."""
    if not isinstance(option_value, str):
        return option_value
    if (distance := days_ago(option_value)) is not None:
        return DaysAgo(distance)
    try:
        return as_day(option_value)
    except ConfigError as error:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", option_value) and "between" in error.message:
            raise typer.BadParameter(error.message) from None
        raise typer.BadParameter(
            f"{option_value!r} is not a day; write it like 2024-01-31, today, yesterday or -7d."
        ) from None


def day_option(name: str, description: str) -> Any:
    """Return an option that takes a day."""
    return typer.Option(name, parser=day, metavar="DAY", help=description)


def day_argument(description: str) -> Any:
    """Return an argument that is a day."""
    return typer.Argument(parser=day, metavar="DAY", help=description)


_FIRST_DAY = "First day, included: like 2024-01-31, today, yesterday, or -7d for 7 days ago."
FromOption = Annotated[date, day_option("--from", _FIRST_DAY)]
ToOption = Annotated[date, day_option("--to", "Last day, included.")]
OptionalFromOption = Annotated[date | None, day_option("--from", _FIRST_DAY)]
OptionalToOption = Annotated[date | None, day_option("--to", "Last day, included.")]


def completion(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return a function that completes the beginning of a name."""

    def complete(incomplete: str) -> list[str]:
        # A user is typing: an error must not appear on that line.
        with suppress(Exception):
            return [name for name in names() if name.startswith(incomplete)]
        return []

    return complete


def _table_names() -> Iterable[str]:
    from mixpanel_assets.cli.invocation import current

    with current().open_stored() as workspace:
        return [table.name for table in workspace.tables()]


def _account_names() -> Iterable[str]:
    from mixpanel_assets.auth import ConfigManager

    return [account.name for account in ConfigManager().list_accounts()]


complete_table = completion(_table_names)
complete_account = completion(_account_names)


def range_of_last(days: int) -> tuple[DaysAgo, DaysAgo]:
    """Return the first and last day of --last; the last one is the current day."""
    return DaysAgo(days - 1), DaysAgo(0)


def _last_days(context: typer.Context, days: int | None) -> int | None:
    """Make --last set --from and --to, also where a command requires them."""
    if days is not None:
        # Help would show bounds given to Typer, and leave less room for its sentences.
        if not 1 <= days <= MOST_LAST_DAYS:
            raise typer.BadParameter(f"{days} is not between 1 and {MOST_LAST_DAYS:,} days.")
        range_options = zip(("from_date", "to_date"), range_of_last(days), strict=True)
        context.default_map = {**(context.default_map or {}), **dict(range_options)}
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
        help="The days to load: `all`; `missing` ones (never loaded, failed, or loaded before they "
        "ended); or `stale` ones, which are the missing ones and those fetched less than "
        "MP_SETTLE_DAYS after their end.",
        show_default="stale",
    ),
]
CountTypeOption = Annotated[
    CountType,
    typer.Option(
        "--type",
        "-t",
        help="general counts events, unique counts people, average is events per person.",
    ),
]
PropertyOption = Annotated[str, typer.Option("--property", "-p", help="The property's name.")]
EventOption = Annotated[str, typer.Option("--event", "-e", help="The event's name.")]


def report_type_option(description: str) -> Any:
    """Return an option that takes the type of a saved report."""
    types = "insights, funnels, retention or flows"
    return typer.Option("--type", "-t", metavar="TYPE", help=f"{description}: {types}.")


def names_option(*flags: str, what: str = "Names") -> Any:
    """Return an option whose values `names` reads."""
    return typer.Option(*flags, help=f"{what} separated by commas, or a JSON array; repeatable.")


EventsOption = Annotated[
    list[str] | None, names_option("--events", "-e", what="Only these events: names")
]
WhereOption = Annotated[
    str | None, typer.Option("--where", "-w", help="Only events that match this expression.")
]


def known_zone(zone: str | None) -> str | None:
    """Return the name if it is one of a time zone."""
    from mixpanel_assets.rules.zones import is_zone

    if zone is not None and not is_zone(zone):
        raise typer.BadParameter(f"{zone!r} is not a time zone; use a name like Europe/Berlin.")
    return zone


ZoneOption = Annotated[
    str | None,
    typer.Option(
        "--zone",
        callback=known_zone,
        help="The time zone of the days, such as Europe/Berlin.",
        show_default="the project's zone",
    ),
]
DatabaseOption = Annotated[Path | None, typer.Option(help="The DuckDB file; default: MP_DATABASE.")]
TableOption = Annotated[
    str, typer.Option("--table", "-t", autocompletion=complete_table, help="The table's name.")
]
EventsTableOption = Annotated[
    str | None,
    typer.Option(
        "--table",
        "-t",
        autocompletion=complete_table,
        help="Another table of events.",
        show_default="events",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Do not ask.")]


def names(option_values: list[str] | None, option: str = "--events") -> list[str]:
    """Return the names in a repeatable option: separated by commas, or in JSON arrays."""
    option_names: list[str] = []
    for option_value in option_values or []:
        if not option_value.startswith("["):
            option_names += [name.strip() for name in option_value.split(",") if name.strip()]
            continue
        try:
            json_names = json.loads(option_value)
        except ValueError:
            raise typer.BadParameter(f"{option} {option_value} is not a JSON array.") from None
        if not all(isinstance(name, str) for name in json_names):
            raise typer.BadParameter(f"{option} takes names, which are texts.")
        option_names += json_names
    return option_names


def required_names(option_values: list[str] | None, option: str) -> list[str]:
    """Return at least one name; otherwise like `names`."""
    option_names = names(option_values, option)
    if not option_names:
        raise typer.BadParameter(f"{option} contains no name.")
    return option_names


def numbers(option_value: str | None, option: str) -> list[int] | None:
    """Return whole numbers that are separated by commas; None without the option."""
    if option_value is None:
        return None
    try:
        return [int(part) for part in option_value.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{option} takes whole numbers separated by commas, not {option_value!r}."
        ) from None


def text_of(option_value: str | None, file: Path | None, what: str) -> str:
    """Return a text from the command line, from a file, or with `-` from stdin."""
    if (option_value is None) == (file is None):
        raise typer.BadParameter(f"Give {what} once: as text, or as a file.")
    if file is None and option_value != "-":
        return str(option_value)
    try:
        content = sys.stdin.buffer.read() if file in (None, Path("-")) else file.read_bytes()
        return content.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidArgumentsError(f"{file or 'stdin'} cannot be read: {reason}.") from None


def confirm(is_confirmed: bool, question: str, *, option: str = "--force") -> None:
    """Return if the option is given, or if the user at a terminal answers yes; else raise."""
    if is_confirmed:
        return
    if not sys.stdin.isatty():
        raise InvalidArgumentsError(f"Without a terminal, this command needs {option}.")
    typer.confirm(visible(question), abort=True, err=True)
