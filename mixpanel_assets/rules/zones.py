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
_ONE_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_DAY = date(2009, 1, 1)  # Mixpanel has no older projects
_WIDEST_OFFSET = timedelta(days=2)  # more than any clock is away from UTC


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
    day_start = _day_start(first) - _WIDEST_OFFSET
    last_end = _day_start(last) + _ONE_DAY + _WIDEST_OFFSET
    zone_periods = [Period(day_start, _offset(clocks, day_start))]
    while day_start < last_end:
        next_day = day_start + _ONE_DAY
        if (offset := _offset(clocks, next_day)) != zone_periods[-1].offset:
            zone_periods.append(Period(_offset_change(clocks, day_start, next_day), offset))
        day_start = next_day
    return tuple(zone_periods)


def _offset_change(clocks: ZoneInfo, before_change: datetime, after_change: datetime) -> datetime:
    """Return the first moment with the offset of `after`, by halving."""
    offset = _offset(clocks, after_change)
    while after_change - before_change > _SECOND:
        middle_moment = before_change + (after_change - before_change) // _SECOND // 2 * _SECOND
        if _offset(clocks, middle_moment) == offset:
            after_change = middle_moment
        else:
            before_change = middle_moment
    return after_change


def moment_of(wall_clock: datetime, zone: ZoneInfo, processed_ms: object = None) -> datetime:
    """Return the moment, aware, UTC, of a naive time of a zone's wall clock.

    `processed_ms` is when Mixpanel processed the event; only a whole number counts.
    """
    # When clocks go back, a time occurs twice; the smaller offset is that of the second. An event
    # that was processed before the second moment must have happened at the first. When clocks go
    # forward, the smaller offset is that before the change.
    first_offset, second_offset = (_offset_of_wall_clock(wall_clock, zone, fold) for fold in (0, 1))
    later_moment = (wall_clock - min(first_offset, second_offset)).replace(tzinfo=UTC)
    if isinstance(processed_ms, float) and processed_ms.is_integer():
        processed_ms = int(processed_ms)
    if first_offset <= second_offset or type(processed_ms) is not int:
        return later_moment
    earlier_moment = (wall_clock - first_offset).replace(tzinfo=UTC)
    return earlier_moment if 0 <= processed_ms < _ms(later_moment - _EPOCH) else later_moment


def moment_sql(zone: str, first: date, last: date) -> str:
    """Return the SQL of `moment_of`, for wall clocks of some days, both ends included.

    It reads the columns `time_raw`, the wall clock in milliseconds, and `processed_ms`.
    """
    zone_periods = periods(zone, first, last)
    moment = f"time_raw - {_ms(zone_periods[-1].offset)}"
    for earlier, later in reversed(list(pairwise(zone_periods))):
        # Between the two wall clocks of the change, times occur twice or never.
        low, high = sorted((earlier.offset, later.offset))
        begins, ends = (_ms(later.begins + offset - _EPOCH) for offset in (low, high))
        at_change = f"time_raw - {_ms(low)}"
        if later.offset < earlier.offset:
            at_change = (
                f"CASE WHEN processed_ms >= 0 AND processed_ms < {at_change} "
                f"THEN time_raw - {_ms(high)} ELSE {at_change} END"
            )
        moment = (
            f"CASE WHEN time_raw < {begins} THEN time_raw - {_ms(earlier.offset)} "
            f"WHEN time_raw < {ends} THEN {at_change} ELSE {moment} END"
        )
    return f"make_timestamp_ms({moment})"


def wall_clock_sql(moment: str, zone: str, first: date, last: date) -> str:
    """Return the SQL of a zone's wall clock at a moment, the SQL of a naive timestamp in UTC.

    `first` and `last` are the days of such moments, in UTC or in the zone, both included.
    """
    zone_periods = periods(zone, first, last)
    offset = _offset_sql(zone_periods[-1].offset)
    for earlier, later in reversed(list(pairwise(zone_periods))):
        change = later.begins.replace(tzinfo=None)
        offset = (
            f"CASE WHEN {moment} < TIMESTAMP '{change}' THEN {_offset_sql(earlier.offset)} "
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


def _day_start(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _ms(length: timedelta) -> int:
    return length // timedelta(milliseconds=1)


def _offset_sql(length: timedelta) -> str:
    return f"to_seconds({length // _SECOND})"
