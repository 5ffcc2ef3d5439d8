"""The true contents of the project, which a copy of it is compared with.

The truth does not use the code of the sample. It reads the lines and applies Mixpanel's own rule
for duplicates.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date, timedelta
from threading import Lock
from typing import Any, TypeVar

import msgspec

from mixpanel_assets.emulator.oddities import LONE_SURROGATE
from mixpanel_assets.emulator.profiles import Profile
from mixpanel_assets.emulator.state import RECEIVED, State

Record = dict[str, Any]
T = TypeVar("T")

LATEST_MS = 253_402_300_800_000  # year 10000
BAD_ROW = b'"event":"Bad Row"'
CACHED_DAYS = 64
MOST_CACHED_EVENTS = 20_000  # larger days would fill the memory; they are read again


@dataclass
class DayTotals:
    """Counts of a day: `lines` as sent, `events` without duplicates."""

    lines: int = 0
    events: int = 0
    unstorable: int = 0
    by_event: Counter[str] = field(default_factory=Counter)
    users: set[str] = field(default_factory=set)


class Truth:
    """Exact contents by day of the export."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lock = Lock()
        self._events: OrderedDict[object, list[Record]] = OrderedDict()
        self._totals: OrderedDict[object, DayTotals] = OrderedDict()

    def days(self) -> list[date]:
        """Return the days with data, sorted."""
        return self._state.days()

    def lines(self, day: date, *, time_in_ms: bool = False) -> Iterator[bytes]:
        """Yield every line of the day as sent, with duplicates, in a fixed order."""
        for block_number in self._state.block_numbers(day):
            for line, _, _ in self._state.block(day, block_number, time_in_ms=time_in_ms):
                yield line

    def events(self, day: date, *, time_in_ms: bool = False) -> list[Record]:
        """Return the day's raw records without duplicates, in a fixed order.

        Includes rows that no database can store; see `unstorable`.
        """
        return list(self.iter_events(day, time_in_ms=time_in_ms))

    def iter_events(self, day: date, *, time_in_ms: bool = False) -> Iterator[Record]:
        """Yield the records of `events` with bounded memory."""
        for record in self._read(day):
            yield record if time_in_ms else in_seconds(record)

    def shared_events(self, day: date) -> Iterator[Record]:
        """Yield cached events with `time` in milliseconds, for reports; do not change them."""
        if self._state.shop.sample(day).events > MOST_CACHED_EVENTS:
            return self._read(day)
        records = self._cached(self._events, CACHED_DAYS, day, lambda day: list(self._read(day)))
        return iter(records)

    def count(self, day: date) -> int:
        """Return the number of events of the day without duplicates."""
        return self._day_totals(day).events

    def count_by_event(self, day: date) -> dict[str, int]:
        """Return the number of events by event name, without duplicates."""
        return dict(self._day_totals(day).by_event)

    def users(self, day: date) -> int:
        """Return the number of different `distinct_id` values of the day, without null."""
        return len(self._day_totals(day).users)

    def duplicates(self, day: date) -> int:
        """Return the number of lines of the day that are duplicates."""
        totals = self._day_totals(day)
        return totals.lines - totals.events

    def unstorable(self, day: date) -> list[bytes]:
        """Return the lines that cannot be stored: half a surrogate pair, or no valid `time`."""
        return [line for line in self.lines(day) if _is_broken(line)]

    def profiles(self, data_group_id: str | None = None) -> list[Profile]:
        """Return the profiles as they are now."""
        return deepcopy(list(self._state.profiles(data_group_id)))

    def data_group_id(self, group_key: str) -> str:
        """Return the number of a group key, which requests of its profiles use."""
        return self._state.updates.data_group_id(group_key)

    def totals(self, from_date: date | None = None, to_date: date | None = None) -> dict[str, Any]:
        """Return the counts of a range of days, both ends included; by default of all days."""
        days = [
            day
            for day in self.days()
            if (from_date is None or day >= from_date) and (to_date is None or day <= to_date)
        ]
        by_day = {day: self._day_totals(day) for day in days}
        by_event: Counter[str] = Counter()
        for totals in by_day.values():
            by_event += totals.by_event
        return {
            "days": {day.isoformat(): totals.events for day, totals in by_day.items()},
            "events": sum(totals.events for totals in by_day.values()),
            "lines": sum(totals.lines for totals in by_day.values()),
            "duplicates": sum(totals.lines - totals.events for totals in by_day.values()),
            "unstorable": sum(totals.unstorable for totals in by_day.values()),
            "by_event": dict(by_event),
            "profiles": len(self._state.profiles()),
        }

    def _portions(self, day: date) -> Iterator[Iterator[bytes]]:
        """Yield the day's lines in portions; all duplicates of a line are in the same one."""
        numbers = self._state.block_numbers(day)
        # Duplicates of the sample are in the same block. A client can send any row again.
        for portion in [numbers] if RECEIVED in numbers else [[number] for number in numbers]:
            yield (line for number in portion for line, _, _ in self._state.block(day, number))

    def _read(self, day: date) -> Iterator[Record]:
        for lines in self._portions(day):
            yield from deduplicated(json.loads(line) for line in lines)

    def _cached(
        self, cache: OrderedDict[object, T], most: int, day: date, read: Callable[[date], T]
    ) -> T:
        """Return what `read` returns for the day's current contents."""
        if day >= self._state.today() - timedelta(days=1):
            return read(day)  # the contents still change with the clock
        version = self._state.version(day)
        with self._lock:
            if version in cache:
                cache.move_to_end(version)
                return cache[version]
        value = read(day)
        with self._lock:
            cache[version] = value
            if len(cache) > most:
                cache.popitem(last=False)
        return value

    def _day_totals(self, day: date) -> DayTotals:
        return self._cached(self._totals, CACHED_DAYS * 64, day, self._count)

    def _count(self, day: date) -> DayTotals:
        totals = DayTotals()
        for portion in self._portions(day):
            lines = list(portion)
            totals.lines += len(lines)
            totals.unstorable += sum(map(_is_broken, lines))
            for _, row_head in _newest((line, _head(line)) for line in lines):
                totals.events += 1
                totals.by_event[row_head.event] += 1
                identity = row_head.properties.distinct_id
                if identity is not None:
                    totals.users.add(str(identity))
        return totals


class HeadProperties(msgspec.Struct, gc=False):
    """The properties that decide whether rows are duplicates."""

    time: Any = None
    distinct_id: Any = None
    insert_id: Any = msgspec.field(default=None, name="$insert_id")
    before_identity: Any = msgspec.field(default=None, name="$distinct_id_before_identity")
    processed: int = msgspec.field(default=0, name="mp_processing_time_ms")


class Head(msgspec.Struct, gc=False):
    """The fields that counting needs; reading them takes a fifth of the time of the full row."""

    event: str
    properties: HeadProperties

    @property
    def key(self) -> tuple[object, ...] | None:
        """The values that duplicates have in common; None: the row cannot be a duplicate."""
        properties = self.properties
        if not properties.insert_id:
            return None
        original = properties.before_identity
        if original is None:
            original = properties.distinct_id
        return (self.event, properties.time, properties.insert_id, original)


_DECODER = msgspec.json.Decoder(Head)


def _head(line: bytes) -> Head:
    try:
        return _DECODER.decode(line)
    except msgspec.MsgspecError:
        # Half a surrogate pair, which only the standard library reads.
        return _head_of(json.loads(line))


def _head_of(record: Record) -> Head:
    return msgspec.convert(record, Head)


def deduplicated(records: Iterable[Record]) -> Iterator[Record]:
    """Yield records without Mixpanel's duplicates.

    Rows with the same event, time, `$insert_id` and original `distinct_id` are one event, of which
    the row processed last is kept. Rows without `$insert_id` are never duplicates.
    """
    return (record for record, _ in _newest((record, _head_of(record)) for record in records))


def _newest(rows: Iterable[tuple[T, Head]]) -> Iterator[tuple[T, Head]]:
    newest: dict[tuple[object, ...], tuple[T, Head]] = {}
    for row in rows:
        row_head = row[1]
        if (key := row_head.key) is None:
            yield row
        elif (known := newest.get(key)) is None or (
            row_head.properties.processed > known[1].properties.processed
        ):
            newest[key] = row
    yield from newest.values()


def in_seconds(record: Record) -> Record:
    """Return the record as sent without `time_in_ms`."""
    properties = record["properties"]
    if not has_time(record):
        return record
    return {**record, "properties": {**properties, "time": properties["time"] // 1000}}


def has_time(record: Record) -> bool:
    """Return whether `time`, in milliseconds, is a valid time up to the year 9999."""
    time = record["properties"].get("time")
    return isinstance(time, int) and 0 <= time < LATEST_MS


def _is_broken(line: bytes) -> bool:
    if LONE_SURROGATE in line and LONE_SURROGATE + b"\\ude" not in line:
        return True
    # Only the few rows of a fault lack a time.
    return BAD_ROW in line and not has_time(json.loads(line))
