"""The calendar: days as callers give them, ranges of days, and how messages show them.

Ranges are a first and a last day, both included, everywhere in the package.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta

from mixpanel_assets.errors import ConfigError

# Mixpanel began in 2009. At the ends of Python's calendar, the day before or after a day is an
# OverflowError.
_FIRST, _LAST = date(2000, 1, 1), date(2999, 12, 31)
_SHOWN = 5
_ONE_DAY = timedelta(days=1)
_NAMED_DAYS = {"today": 0, "yesterday": 1}
_DAYS_AGO = re.compile(r"-(\d{1,5})d")

SETTLE_DAYS = 5  # Mixpanel takes late events for five days after a day has ended

# Which values of `time` are moments, in milliseconds: Mixpanel takes no event from before 1971,
# and Python's calendar ends with the year 9999 (a day earlier, so that every zone has room).
EARLIEST_MS = 31_536_000_000
LATEST_MS = 253_402_300_799_999 - 86_400_000

DayRange = tuple[date, date]


def as_day(value: date | str) -> date:
    """Return the day of a date, or of text such as `2024-01-31`.

    Raises:
        ConfigError: It is neither, or a day that Mixpanel cannot hold. A `datetime` is refused,
            because its day depends on a zone.
    """
    day = value
    if isinstance(value, str):
        try:
            day = datetime.strptime(value, "%Y-%m-%d").date()
        except ValueError:
            raise _not_a_day(value) from None
    if isinstance(day, datetime) or not isinstance(day, date):
        raise _not_a_day(value)
    if not _FIRST <= day <= _LAST:
        raise ConfigError(f"{day} is not between {_FIRST} and {_LAST}.", {"value": str(day)})
    return day


def days_ago(text: str) -> int | None:
    """Return the distance of `today`, `yesterday` or a day such as `-7d`; None for other text."""
    if match := _DAYS_AGO.fullmatch(text.lower()):
        return int(match[1])
    return _NAMED_DAYS.get(text.lower())


def day_seen_from(today: date, text: str) -> date:
    """Return the day of text such as `2024-01-31`, `yesterday` or `-7d`.

    Raises:
        ConfigError: It is none, or a day that Mixpanel cannot hold.
    """
    distance = days_ago(text)
    return as_day(text) if distance is None else as_day(today - timedelta(days=distance))


def _not_a_day(value: object) -> ConfigError:
    return ConfigError(
        f"{value!r} is not a day. Use a date, or text such as '2024-01-31'.", {"value": str(value)}
    )


def days_between(first: date, last: date) -> list[date]:
    """Return every day from first to last, both included; none if last is before first."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def halves(first: date, last: date) -> tuple[DayRange, DayRange]:
    """Return the two halves of a range of at least two days, the earlier one first."""
    middle_day = first + (last - first) // 2
    return (first, middle_day), (middle_day + _ONE_DAY, last)


def ranges_of(days: Iterable[date]) -> list[DayRange]:
    """Return days as ranges of consecutive days, in order."""
    ranges: list[DayRange] = []
    for day in sorted(set(days)):
        if ranges and ranges[-1][1] + _ONE_DAY == day:
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges


def describe_range(first: date | str, last: date | str) -> str:
    """Return a range in words; one day is written as a day."""
    return f"{first}" if first == last else f"{first}..{last}"


def describe_days(days: Iterable[date]) -> str:
    """Return days as ranges in words, the first few of many."""
    ranges = ranges_of(days)
    range_texts = [describe_range(first, last) for first, last in ranges]
    more = f" and {len(ranges) - _SHOWN} more ranges" if len(ranges) > _SHOWN else ""
    return ", ".join(range_texts[:_SHOWN]) + more


def describe_rest(days: Iterable[date], of: int) -> str:
    """Return how many of a number of days are stored, and which are missing, as a sentence."""
    missing = sorted(days)
    return f"{of - len(missing):,} of {of:,} days are stored; missing: {describe_days(missing)}."


def how_to_load(
    days: Iterable[date], table: str, *, again: bool = False, asset: str | None = None
) -> str:
    """Return the ways to load days of an asset table, in words, for the end of a sentence.

    With `again`, they are ways to load days that are stored. `asset` is the asset's key, if it is
    not `mixpanel/<table>`; `mp` loads into the table `events` of one project only.
    """
    ranges = ranges_of(days)
    asset = asset or f"mixpanel/{table}"
    if asset != "mixpanel/events":
        return f"Dagster: materialize these partitions of `{asset}`"
    option = " --refetch all" if again else ""
    commands = [f"`mp sync --from {first} --to {last}{option}`" for first, last in ranges[:_SHOWN]]
    more = " and so on" if len(ranges) > _SHOWN else ""
    return f"{', '.join(commands)}{more}, or materialize these partitions of `mixpanel/events`"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 day` or `2,000 days`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def describe_counts(days: Mapping[date, int], *, most: int = _SHOWN) -> str:
    """Return days with their numbers of rows in words, the first few of many."""
    day_counts = [f"{day} ({row_count:,} rows)" for day, row_count in sorted(days.items())]
    more_days = f" and {len(day_counts) - most:,} more days" if len(day_counts) > most else ""
    return ", ".join(day_counts[:most]) + more_days
