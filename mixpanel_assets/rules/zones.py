"""Time zones: the wall clock at a moment, and the moment of a wall clock.

The same rules exist in Python for streams and in SQL for tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

# No zone has changed its offset twice within a week since 1971.
_STEP = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_DAY = date(2009, 1, 1)  # Mixpanel has no older projects
_WIDEST = timedelta(days=2)  # more than any clock is away from UTC


@dataclass(frozen=True)
class Period:
    """A time in which a zone's offset does not change.

    Attributes:
        begins: Its first moment, aware, UTC.
        offset: The wall clock minus UTC.
    """

    begins: datetime
    offset: timedelta


@lru_cache(maxsize=256)
def periods(zone: str, first: date, last: date) -> tuple[Period, ...]:
    """Return the periods of a zone that overlap days of its wall clock or of UTC, in order."""
    clocks = ZoneInfo(zone)
    moment = _start(first) - _WIDEST
    end = _start(last) + _STEP + _WIDEST
    found = [Period(moment, _offset(clocks, moment))]
    while moment < end:
        later = moment + _STEP
        if (offset := _offset(clocks, later)) != found[-1].offset:
            found.append(Period(_change(clocks, moment, later), offset))
        moment = later
    return tuple(found)


def _change(clocks: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Return the first moment with the offset of `after`, by halving."""
    offset = _offset(clocks, after)
    while after - before > _SECOND:
        middle = before + (after - before) // _SECOND // 2 * _SECOND
        if _offset(clocks, middle) == offset:
            after = middle
        else:
            before = middle
    return after


def moment_of(wall_clock: datetime, zone: ZoneInfo, processed_ms: object = None) -> datetime:
    """Return the moment, aware, UTC, of a naive time of a zone's wall clock.

    `processed_ms` is when Mixpanel processed the event; only a whole number counts.
    """
    # When clocks go back, a time occurs twice; the smaller offset is that of the second. An event
    # that was processed before the second moment must have happened at the first. When clocks go
    # forward, the smaller offset is that before the change.
    first, second = (_offset_of_wall_clock(wall_clock, zone, fold) for fold in (0, 1))
    later = (wall_clock - min(first, second)).replace(tzinfo=UTC)
    if isinstance(processed_ms, float) and processed_ms.is_integer():
        processed_ms = int(processed_ms)
    if first <= second or type(processed_ms) is not int:
        return later
    earlier = (wall_clock - first).replace(tzinfo=UTC)
    return earlier if 0 <= processed_ms < _ms(later - _EPOCH) else later


def moment_sql(zone: str, first: date, last: date) -> str:
    """Return the SQL of `moment_of`, for wall clocks of some days, both ends included.

    It reads the columns `time_raw`, the wall clock in milliseconds, and `processed_ms`.
    """
    found = periods(zone, first, last)
    sql = f"time_raw - {_ms(found[-1].offset)}"
    for before, after in reversed(list(pairwise(found))):
        # Between the two wall clocks of the change, times occur twice or never.
        low, high = sorted((before.offset, after.offset))
        begins, ends = (_ms(after.begins + offset - _EPOCH) for offset in (low, high))
        within = f"time_raw - {_ms(low)}"
        if after.offset < before.offset:
            within = (
                f"CASE WHEN processed_ms >= 0 AND processed_ms < {within} "
                f"THEN time_raw - {_ms(high)} ELSE {within} END"
            )
        sql = (
            f"CASE WHEN time_raw < {begins} THEN time_raw - {_ms(before.offset)} "
            f"WHEN time_raw < {ends} THEN {within} ELSE {sql} END"
        )
    return f"make_timestamp_ms({sql})"


def wall_clock_sql(moment: str, zone: str, first: date, last: date) -> str:
    """Return the SQL of a zone's wall clock at a moment, the SQL of a naive timestamp in UTC.

    `first` and `last` are the days of such moments, in UTC or in the zone, both included.
    """
    found = periods(zone, first, last)
    offset = _interval(found[-1].offset)
    for before, after in reversed(list(pairwise(found))):
        begins = after.begins.replace(tzinfo=None)
        offset = (
            f"CASE WHEN {moment} < TIMESTAMP '{begins}' THEN {_interval(before.offset)} "
            f"ELSE {offset} END"
        )
    return f"({moment} + {offset})"


def day_zone(regime: str, zone: str) -> str:
    """Return the zone of Mixpanel's export days; the regime `legacy` is that of before 2023."""
    return zone if regime == "legacy" else "UTC"


def is_zone(name: str) -> bool:
    """Return whether a zone of that name exists on this machine."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def same_clocks(zone: str, other: str) -> bool:
    """Return whether two zones show the same time, from Mixpanel's first year to two years on."""
    if zone == other:
        return True
    days = _FIRST_DAY, date.today() + timedelta(days=730)
    return periods(zone, *days) == periods(other, *days)


def span_of(first: date, last: date, zone: str) -> tuple[datetime, datetime]:
    """Return the first moment of some days of a zone and the end of the last one, aware, UTC."""
    clocks = ZoneInfo(zone)
    begin, end = (datetime.combine(day, time()) for day in (first, last + timedelta(days=1)))
    # Midnight can occur twice, or never.
    begins, ends = (
        [(wall - _offset_of_wall_clock(wall, clocks, fold)).replace(tzinfo=UTC) for fold in (0, 1)]
        for wall in (begin, end)
    )
    return min(begins), max(ends)


def _offset(clocks: ZoneInfo, moment: datetime) -> timedelta:
    return moment.astimezone(clocks).utcoffset() or timedelta()


def _offset_of_wall_clock(wall_clock: datetime, zone: ZoneInfo, fold: int) -> timedelta:
    return wall_clock.replace(tzinfo=zone, fold=fold).utcoffset() or timedelta()


def _start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _ms(length: timedelta) -> int:
    return length // timedelta(milliseconds=1)


def _interval(length: timedelta) -> str:
    return f"to_seconds({length // _SECOND})"
