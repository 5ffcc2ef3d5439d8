"""What the project really holds: the answers that a copy of it is compared with.

Nothing here relies on how the sample was made; the lines are read and Mixpanel's own rule for
repeats is applied to them.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import date, timedelta
from threading import Lock
from typing import Any

import msgspec

from mixpanel_assets.emulator.oddities import LONE_SURROGATE
from mixpanel_assets.emulator.profiles import Profile
from mixpanel_assets.emulator.state import RECEIVED, State

Record = dict[str, Any]

LATEST_MS = 253_402_300_800_000
BAD_ROW = b'"event":"Bad Row"'
REMEMBERED_DAYS = 64
REMEMBERED_DAY_EVENTS = 20_000


@dataclass
class DayTotals:
    """A day in numbers: `lines` as sent, `events` once repeats are removed."""

    lines: int = 0
    events: int = 0
    unstorable: int = 0
    by_event: Counter[str] = field(default_factory=Counter)
    users: set[str] = field(default_factory=set)


class Truth:
    """Exact contents, by day of the export."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lock = Lock()
        self._events: OrderedDict[object, list[Record]] = OrderedDict()
        self._totals: OrderedDict[object, DayTotals] = OrderedDict()

    def days(self) -> list[date]:
        """Return the days that hold data, first to last."""
        return self._state.days()

    def lines(self, day: date, *, time_in_ms: bool = False) -> Iterator[bytes]:
        """Yield every line of the day as sent, repeats included, in a fixed order."""
        for part in self._state.parts(day):
            yield from self._state.block(day, part, time_in_ms=time_in_ms).lines

    def events(self, day: date, *, time_in_ms: bool = False) -> list[Record]:
        """Return the day's raw records, repeats removed, in a fixed order.

        Rows that no database can store are among them; `unstorable` names those.
        """
        return list(self.iter_events(day, time_in_ms=time_in_ms))

    def iter_events(self, day: date, *, time_in_ms: bool = False) -> Iterator[Record]:
        """Yield what `events` returns, with bounded memory."""
        for record in self._read(day):
            yield record if time_in_ms else in_seconds(record)

    def shared_events(self, day: date) -> Iterator[Record]:
        """Yield events, `time` in milliseconds, for reports: remembered, so not to be changed."""
        records = self._remembered(day)
        yield from self._read(day) if records is None else records

    def count(self, day: date) -> int:
        """Return the number of events of the day, repeats removed."""
        return self._day_totals(day).events

    def count_by_event(self, day: date) -> dict[str, int]:
        """Return the number of events per event name, repeats removed."""
        return dict(self._day_totals(day).by_event)

    def users(self, day: date) -> int:
        """Return how many different `distinct_id` the day has, absent and null ones aside."""
        return len(self._day_totals(day).users)

    def duplicates(self, day: date) -> int:
        """Return how many lines of the day are repeats."""
        totals = self._day_totals(day)
        return totals.lines - totals.events

    def unstorable(self, day: date) -> list[bytes]:
        """Return the lines that databases refuse: half a surrogate pair, or no usable `time`."""
        return [line for line in self.lines(day) if _is_broken(line)]

    def profiles(self, data_group_id: str | None = None) -> list[Profile]:
        """Return the profiles as they are now."""
        return deepcopy(list(self._state.profiles(data_group_id)))

    def data_group_id(self, group_key: str) -> str:
        """Return the number under which the profiles of a group key are asked for."""
        return self._state.updates.data_group_id(group_key)

    def totals(self, from_date: date | None = None, to_date: date | None = None) -> dict[str, Any]:
        """Return the numbers of a range of days, ends included; all days by default."""
        days = [
            day
            for day in self.days()
            if (from_date is None or day >= from_date) and (to_date is None or day <= to_date)
        ]
        found = {day: self._day_totals(day) for day in days}
        by_event: Counter[str] = Counter()
        for totals in found.values():
            by_event += totals.by_event
        return {
            "days": {day.isoformat(): totals.events for day, totals in found.items()},
            "events": sum(totals.events for totals in found.values()),
            "lines": sum(totals.lines for totals in found.values()),
            "duplicates": sum(totals.lines - totals.events for totals in found.values()),
            "unstorable": sum(totals.unstorable for totals in found.values()),
            "by_event": dict(by_event),
            "profiles": len(self._state.profiles()),
        }

    def _key(self, day: date) -> object:
        """Name a day's present contents; None while they still change with the clock."""
        if day >= self._state.today() - timedelta(days=1):
            return None
        return self._state.version(day)

    def _settled(self, day: date) -> Iterator[Iterator[bytes]]:
        """Yield the day's lines in portions, with all repeats of a line in one of them."""
        parts = self._state.parts(day)
        # Repeats of the sample never leave their block. Clients may repeat any row.
        portions = [parts] if RECEIVED in parts else [[part] for part in parts]
        for portion in portions:
            yield (line for part in portion for line in self._state.block(day, part).lines)

    def _read(self, day: date) -> Iterator[Record]:
        for lines in self._settled(day):
            yield from deduplicated(json.loads(line) for line in lines)

    def _remembered(self, day: date) -> list[Record] | None:
        if self._state.shop.plan(day).events > REMEMBERED_DAY_EVENTS:
            return None
        key = self._key(day)
        with self._lock:
            if key is not None and key in self._events:
                self._events.move_to_end(key)
                return self._events[key]
        records = list(self._read(day))
        if key is not None:
            with self._lock:
                self._events[key] = records
                if len(self._events) > REMEMBERED_DAYS:
                    self._events.popitem(last=False)
        return records

    def _day_totals(self, day: date) -> DayTotals:
        key = self._key(day)
        with self._lock:
            if key is not None and key in self._totals:
                return self._totals[key]
        totals = self._counted(day)
        if key is not None:
            with self._lock:
                self._totals[key] = totals
                if len(self._totals) > REMEMBERED_DAYS * 64:
                    self._totals.popitem(last=False)
        return totals

    def _counted(self, day: date) -> DayTotals:
        totals = DayTotals()
        for portion in self._settled(day):
            lines = list(portion)
            totals.lines += len(lines)
            totals.unstorable += sum(map(_is_broken, lines))
            for head in _newest(map(_head, lines)):
                totals.events += 1
                totals.by_event[head.event] += 1
                identity = head.properties.distinct_id
                if identity is not None:
                    totals.users.add(str(identity))
        return totals


class HeadProperties(msgspec.Struct, gc=False):
    """The properties that decide whether rows are repeats."""

    time: Any = None
    distinct_id: Any = None
    insert_id: Any = msgspec.field(default=None, name="$insert_id")
    before_identity: Any = msgspec.field(default=None, name="$distinct_id_before_identity")
    processed: int = msgspec.field(default=0, name="mp_processing_time_ms")


class Head(msgspec.Struct, gc=False):
    """What has to be read of a row to count it: a fifth of the time of reading all of it."""

    event: str
    properties: HeadProperties

    @property
    def key(self) -> tuple[object, ...] | None:
        """What repeats have in common; None when the row can have none."""
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
        return msgspec.convert(json.loads(line), Head)


def _newest(heads: Iterable[Head]) -> Iterator[Head]:
    newest: dict[tuple[object, ...], Head] = {}
    for head in heads:
        key = head.key
        if key is None:
            yield head
            continue
        known = newest.get(key)
        if known is None or head.properties.processed > known.properties.processed:
            newest[key] = head
    yield from newest.values()


def deduplicated(records: Iterable[Record]) -> Iterator[Record]:
    """Yield records without Mixpanel's repeats.

    The same event, time, `$insert_id` and original `distinct_id` are one event, of which the row
    processed last stays. Rows without `$insert_id` are never repeats.
    """
    newest: dict[tuple[object, ...], Record] = {}
    for record in records:
        properties = record["properties"]
        if not properties.get("$insert_id"):
            yield record
            continue
        original = properties.get("$distinct_id_before_identity")
        if original is None:
            original = properties.get("distinct_id")
        key = (record["event"], properties.get("time"), properties["$insert_id"], original)
        known = newest.get(key)
        if known is None or _processed(record) > _processed(known):
            newest[key] = record
    yield from newest.values()


def _processed(record: Record) -> int:
    return int(record["properties"].get("mp_processing_time_ms", 0))


def in_seconds(record: Record) -> Record:
    """Return the record as it is sent without `time_in_ms`."""
    properties = record["properties"]
    if not has_time(record):
        return record
    return {**record, "properties": {**properties, "time": properties["time"] // 1000}}


def has_time(record: Record) -> bool:
    """Say whether `time`, in milliseconds, is a moment that a calendar knows."""
    time = record["properties"].get("time")
    return isinstance(time, int) and 0 <= time < LATEST_MS


def _is_broken(line: bytes) -> bool:
    if LONE_SURROGATE in line and LONE_SURROGATE + b"\\ude" not in line:
        return True
    # Only rows that a fault put there lack a time, and they are few.
    return BAD_ROW in line and not has_time(json.loads(line))
