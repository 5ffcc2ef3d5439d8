"""Whether reports count days by another calendar than the one that stored days are compared on.

The project's zone was changed, or the setting is not the project's zone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from itertools import accumulate

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.warehouse import Calendar, Reconciled, slots

OTHER_CALENDAR = "the counts are those of a calendar"
_SLOT = timedelta(minutes=15)
_WIDEST = timedelta(hours=26)  # from UTC-12 to UTC+14
_MOST_DAYS = 14  # as many show a shift as well as a year does
# A hundred shifts are tried, so that one of them fits a few small differences by chance.
_FEWEST = 10


def days_of_another_calendar(
    connection: Connection,
    calendar: Calendar,
    found: Sequence[Reconciled],
    whole_days: Collection[date],
) -> dict[date, str]:
    """Return the days whose reported counts are all those of a shifted calendar, with a sentence.

    Args:
        connection: Of the database.
        calendar: The calendar of the counts.
        found: The counts, with their classes.
        whole_days: The days that are stored with those beside them.
    """
    by_day: dict[date, list[Reconciled]] = defaultdict(list)
    for one in found:
        by_day[one.day].append(one)
    odd = [
        day
        for day in sorted(by_day)
        if day in whole_days and any(_is_open(one) for one in by_day[day])
    ]
    if not odd:
        return {}
    recent = odd[-_MOST_DAYS:]
    shift = _shift(_Histogram.read(connection, calendar, recent), by_day, recent)
    if shift is None:
        return {}
    histogram = _Histogram.read(connection, calendar, odd) if odd != recent else None
    histogram = histogram or _Histogram.read(connection, calendar, recent)
    hours = abs(shift) / timedelta(hours=1)
    said = (
        f"{OTHER_CALENDAR} {hours:g} hours {'later' if shift > timedelta() else 'earlier'}: "
        "compare MP_TIME_ZONE with the project's"
    )
    return {day: said for day in odd if histogram.fits(by_day[day], shift)}


def _is_open(one: Reconciled) -> bool:
    return one.cls in ("unexplained", "pending")


def _shift(
    histogram: _Histogram, by_day: Mapping[date, Sequence[Reconciled]], days: Sequence[date]
) -> timedelta | None:
    """Return the shift of the calendar that makes the most days equal; None without any.

    A shift moves events between days, so some counts are higher and some are lower. Where all are
    higher, events are missing.
    """
    steps = _WIDEST // _SLOT
    best: tuple[int, timedelta | None] = (0, None)
    for step in sorted((one for one in range(-steps, steps + 1) if one), key=abs):
        fitting = [day for day in days if histogram.fits(by_day[day], step * _SLOT)]
        missing = [one.missing for day in fitting for one in by_day[day] if one.missing]
        is_evident = len(missing) >= _FEWEST and min(missing) < 0 < max(missing)
        if is_evident and len(fitting) > best[0]:
            best = (len(fitting), step * _SLOT)
    return best[1]


class _Histogram:
    """Rows of each event by quarter of an hour, to be summed over any time."""

    def __init__(self, by_event: Mapping[str, list[tuple[datetime, int]]]) -> None:
        self._times = {event: [at for at, _ in rows] for event, rows in by_event.items()}
        self._sums = {
            event: [0, *accumulate(count for _, count in rows)] for event, rows in by_event.items()
        }

    @classmethod
    def read(cls, connection: Connection, calendar: Calendar, days: Sequence[date]) -> _Histogram:
        return cls(slots(connection, calendar, days))

    def fits(self, counts: Sequence[Reconciled], shift: timedelta) -> bool:
        """Return whether all counts of a day are those of the calendar with a shift."""
        return all(self._count(one.event, one.day, shift) == one.live for one in counts)

    def _count(self, event: str, day: date, shift: timedelta) -> int:
        times = self._times.get(event, [])
        begin = datetime.combine(day, time()) + shift
        ends = (bisect_left(times, moment) for moment in (begin, begin + timedelta(days=1)))
        first, last = (self._sums.get(event, [0])[at] for at in ends)
        return last - first
