"""Events that came together -> the file of each one's day."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, datetime, timedelta
from typing import Any

import msgspec

from mixpanel_assets.client.normalize import parse_record
from mixpanel_assets.record_files import RecordFile

_EPOCH = datetime(1970, 1, 1)
_LATEST = 253_402_300_800  # 10000, which no calendar of ours knows


class StrayEventError(Exception):
    """An event is of none of the days that were asked for together."""


class _Time(msgspec.Struct):
    time: Any = None


class _Timed(msgspec.Struct):
    properties: _Time


_decode_time = msgspec.json.Decoder(_Timed).decode


def deal_out(
    events: Iterable[Any], days: Collection[date], file_of: Callable[[date], RecordFile]
) -> None:
    """Add each event to the file of its day; a single file gets all of them.

    Args:
        events: Normalized events, or raw ones as the bytes of their lines; `time` is UTC.
        days: Those that were asked for.
        file_of: Returns the file of a day.

    Raises:
        StrayEventError: An event is of none of the days.
    """
    if len(days) == 1:
        [day] = days
        for event in events:
            file_of(day).add(event)
        return
    for event in events:
        found = _day_of_line(event) if isinstance(event, bytes) else _day_of(event)
        if found is None or found not in days:
            raise StrayEventError(f"An event is of {found or 'no day'}.")
        file_of(found).add(event)


def _day_of(event: Mapping[str, Any]) -> date | None:
    moment: datetime | None = event["event_time"]
    return moment.date() if moment else None


def _day_of_line(line: bytes) -> date | None:
    try:
        seconds = _decode_time(line).properties.time
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        seconds = parse_record(line)["properties"].get("time")
    if type(seconds) is not int or not 0 <= seconds < _LATEST:
        return None
    return (_EPOCH + timedelta(seconds=seconds)).date()
