"""Days as callers give them and as messages show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta

from mixpanel_assets.errors import ConfigError

# Mixpanel began in 2009; around the ends of the calendar there are no days before and after.
_FIRST, _LAST = date(2000, 1, 1), date(2999, 12, 31)
_SHOWN = 5

SETTLE_DAYS = 5  # Mixpanel takes late events for five days after a day has ended


def as_day(value: date | str) -> date:
    """Return a day that is a date already, or text such as `2024-01-31`.

    Raises:
        ConfigError: It is neither (a `datetime` is not: its zone would decide which day is meant),
            or a day that Mixpanel cannot hold.
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


def _not_a_day(value: object) -> ConfigError:
    return ConfigError(
        f"{value!r} is not a day. Use a date, or text such as '2024-01-31'.", {"value": str(value)}
    )


def ranges_of(days: Iterable[date]) -> list[tuple[date, date]]:
    """Return days as ranges of consecutive ones, in order, both ends included."""
    ranges: list[tuple[date, date]] = []
    for day in sorted(set(days)):
        if ranges and ranges[-1][1] + timedelta(days=1) == day:
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges


def shown(ranges: Sequence[tuple[date, date]]) -> str:
    """Return ranges of days in words, the first few of many."""
    texts = [str(first) if first == last else f"{first}..{last}" for first, last in ranges]
    more = f" and {len(texts) - _SHOWN} more ranges" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def how_to_load(days: Iterable[date], table: str, *, again: bool = False) -> str:
    """Return what loads days of an asset table, to stand after "with".

    Args:
        days: In any order.
        table: Its name in schema `mixpanel`.
        again: Whether days are stored that are to be loaded all the same.
    """
    ranges = ranges_of(days)
    if table != "events":
        return f"Dagster: materialize these partitions of `mixpanel/{table}`"
    option = " --refetch all" if again else ""
    commands = [f"`mp sync --from {first} --to {last}{option}`" for first, last in ranges[:_SHOWN]]
    more = " and so on" if len(ranges) > _SHOWN else ""
    return f"{', '.join(commands)}{more}, or materialize these partitions of `mixpanel/events`"


def counted(days: Mapping[date, int], *, most: int = _SHOWN) -> str:
    """Return days with a number of rows each in words, the first few of many."""
    texts = [f"{day} ({rows:,} rows)" for day, rows in sorted(days.items())]
    more = f" and {len(texts) - most:,} more days" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
