"""The emulated project while the server runs: its clock, data, requests and budgets."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from math import ceil
from random import Random
from typing import Any, Literal
from zoneinfo import ZoneInfo

from mixpanel_assets.emulator.changes import apply_changes
from mixpanel_assets.emulator.faults import Fault, Faults
from mixpanel_assets.emulator.profiles import (
    GROUP_KEY,
    Person,
    Profile,
    ProfileUpdates,
    Properties,
    UserProfiles,
    group_profiles,
)
from mixpanel_assets.emulator.received import Received
from mixpanel_assets.emulator.sample import Block, Shop
from mixpanel_assets.emulator.settings import EmulatorSettings, Limits


class Clock:
    """A clock in UTC that can be changed while the server runs."""

    def __init__(self, source: Callable[[], datetime]) -> None:
        self._source = source
        self._fixed: datetime | None = None
        self._shift = timedelta()

    def now(self) -> datetime:
        """Return the emulated time."""
        return (self._fixed or self._source().astimezone(UTC)) + self._shift

    def now_ms(self) -> int:
        """Return the emulated time in milliseconds since 1970."""
        return int(self.now().timestamp() * 1000)

    def seconds(self) -> float:
        """Return the emulated time in seconds since 1970."""
        return self.now().timestamp()

    def set(self, moment: datetime) -> None:
        """Stop the clock at a time, which is UTC without a zone."""
        self._fixed = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        self._shift = timedelta()

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._shift += timedelta(seconds=seconds)

    def reset(self) -> None:
        """Use the clock of the settings again."""
        self._fixed = None
        self._shift = timedelta()


@dataclass(frozen=True)
class LoggedRequest:
    """One request and its response.

    Attributes:
        path: The path as sent.
        params: Query and body fields.
        started: The emulator's clock on arrival.
        bytes_sent: Bytes of the body on the wire.
        days: The requested days.
    """

    method: str
    path: str
    params: Mapping[str, str]
    status: int
    started: datetime
    bytes_sent: int
    days: tuple[date, ...]
    fault: str | None = None


class RequestLog:
    """The log of requests. An entry is written before the response is sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[LoggedRequest] = []

    def add(self, entry: LoggedRequest) -> int:
        """Add an entry and return its number."""
        with self._lock:
            self._entries.append(entry)
            return len(self._entries) - 1

    def add_bytes(self, number: int, size: int) -> None:
        """Add to the bytes that were sent for a request."""
        with self._lock:
            # A test may have cleared the log during the response.
            if number < len(self._entries):
                entry = self._entries[number]
                self._entries[number] = replace(entry, bytes_sent=entry.bytes_sent + size)

    def entries(self) -> list[LoggedRequest]:
        """Return a copy of the log, in the order of the responses."""
        with self._lock:
            return list(self._entries)

    def clear(self) -> None:
        """Remove all entries."""
        with self._lock:
            self._entries.clear()


Trip = Literal["window", "second", "concurrency", "schemas"]


@dataclass(frozen=True)
class Refusal:
    """An exceeded limit, and the time until the next request is allowed."""

    trip: Trip
    limit: int
    retry_after_seconds: int
    remaining: int


class Budgets:
    """Counts requests on arrival. A refused one is not counted."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._arrivals: dict[str, deque[float]] = {}
        self._running: dict[str, int] = {}

    def enter(self, family: str, limits: Limits | None, *, counted: bool = True) -> Refusal | None:
        """Count a request until `leave` and return None, or return the limit that refuses it.

        Requests with `counted=False` count only as running at the same time.
        """
        with self._lock:
            refusal = self._refusal(family, limits, counted=counted) if limits else None
            if refusal is None:
                self._running[family] = self._running.get(family, 0) + 1
                if counted:
                    self._arrivals.setdefault(family, deque()).append(self._seconds())
        return refusal

    def leave(self, family: str) -> None:
        """Remove a finished request from the running ones."""
        with self._lock:
            self._running[family] -= 1

    def used(self, family: str, window_seconds: float) -> int:
        """Return the number of requests in the window that ends now."""
        with self._lock:
            return len(self._arrivals_within(family, window_seconds))

    def _arrivals_within(self, family: str, window_seconds: float) -> list[float]:
        since = self._seconds() - window_seconds
        return [arrival for arrival in self._arrivals.get(family, ()) if arrival > since]

    def _refusal(self, family: str, limits: Limits, *, counted: bool) -> Refusal | None:
        if family == "schemas":
            return self._window(family, "schemas", limits.schemas_per_minute, 60)
        hourly, at_once = limits.query_per_hour, limits.query_concurrent
        if family == "export":
            hourly, at_once = limits.export_per_hour, limits.export_concurrent
        refusal = self._window(family, "window", hourly, limits.window_seconds) if counted else None
        if refusal is None and family == "export":
            refusal = self._window(family, "second", limits.export_per_second, 1)
        if refusal is None and self._running.get(family, 0) >= at_once:
            left = hourly - len(self._arrivals_within(family, limits.window_seconds))
            refusal = Refusal("concurrency", at_once, 10, left)
        return refusal

    def _window(self, family: str, trip: Trip, limit: int, seconds: float) -> Refusal | None:
        arrivals = self._arrivals_within(family, seconds)
        if len(arrivals) < limit:
            return None
        next_at = arrivals[-limit] + seconds if limit else self._seconds() + seconds
        wait = max(1, ceil(next_at - self._seconds()))
        return Refusal(trip, limit, wait, 0)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Number of the block with events from clients; the sample has the numbers from 0.
RECEIVED = -1
CACHE_BYTES = 48_000_000  # a test that exports the same weeks again should not compute them again
LAG_SECONDS = 45 * 60  # observed: rows missing after ingestion are present after 45 minutes
CACHED_PROFILES = 20_000  # larger projects compute each page when it is sent


@dataclass(frozen=True)
class Session:
    """A fixed result that pages are taken from."""

    results: Sequence[Profile]
    page_size: int
    started: float
    total: int


class State:
    """One project; thread-safe."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self.settings = settings
        self.clock = Clock(settings.now)
        self.shop = Shop(settings)
        self.zone = ZoneInfo(settings.zone)
        self.faults = Faults()
        self.budgets = Budgets(self.clock.seconds)
        self.requests = RequestLog()
        self.received = Received(settings, self._raw_ms)
        self.updates = ProfileUpdates()
        self.sessions: dict[str, Session] = {}
        self.retention_days = settings.retention_days
        self.name_limit = settings.name_limit
        self._export_numbers = count(1)
        self._session_numbers = count(1)
        self._lock = threading.Lock()
        self._blocks: OrderedDict[tuple[date, int, bool], tuple[Block, int]] = OrderedDict()
        self._cached_bytes = 0
        self._profiles: tuple[object, Sequence[Profile]] | None = None
        self._people: tuple[Sequence[Profile], Mapping[str, Properties | None]] | None = None

    def today(self) -> date:
        """Return the current day: in UTC, or in the project's zone for a legacy project."""
        now = self.clock.now()
        return (now.astimezone(self.zone) if self.settings.regime == "legacy" else now).date()

    def last_day(self) -> date:
        """Return the last day that can have data now."""
        last = self.settings.last
        return self.today() if last is None else min(last, self.today())

    def first_day(self) -> date:
        """Return the first day that can have data now; older data are deleted."""
        if self.retention_days is None:
            return date.min
        return self.today() - timedelta(days=self.retention_days)

    def holds(self, day: date) -> bool:
        """Return whether the day has data."""
        return day >= self.first_day() and (self._in_sample(day) or self.received.holds(day))

    def _in_sample(self, day: date) -> bool:
        return self.settings.start <= day <= self.last_day() or bool(self.faults.changes(day))

    def days(self) -> list[date]:
        """Return the days with data."""
        first = max(self.settings.start, self.first_day())
        span = (self.last_day() - first).days + 1
        sample = [first + timedelta(days=number) for number in range(span)]
        sent = [day for day in self.received.days() if day >= self.first_day()]
        return sorted({*sample, *sent})

    def block_numbers(self, day: date) -> list[int]:
        """Return the numbers of the day's blocks."""
        if not self.holds(day):
            return []
        sample = range(self.shop.sample(day).blocks if self._in_sample(day) else 0)
        return [*sample, RECEIVED] if self.received.holds(day) else [*sample]

    def version(self, day: date) -> object:
        """Return a value that changes with the contents of the day."""
        changes = self.faults.version if self.faults.changes(day) else None
        return day, self.holds(day), changes, self.received.version(day)

    def _raw_ms(self, milliseconds: int) -> int:
        """Convert UTC milliseconds to the export's `time`."""
        if self.settings.regime == "utc":
            return milliseconds
        local = datetime.fromtimestamp(milliseconds / 1000, self.zone)
        return milliseconds + round((local.utcoffset() or timedelta()).total_seconds() * 1000)

    def report_time(self, milliseconds: int) -> datetime:
        """Return the `time` of an event as reports show it: project time, without a zone."""
        at = EPOCH + timedelta(milliseconds=milliseconds)
        if self.settings.regime == "utc" and self.settings.zone != "UTC":
            at = at.astimezone(self.zone)
        return at.replace(tzinfo=None)

    def block(
        self,
        day: date,
        block_number: int,
        *,
        time_in_ms: bool = True,
        lagging: bool = False,
        changes: Sequence[Fault] | None = None,
    ) -> Block:
        """Return a block as it is now, with changes and without future events.

        `lagging` omits events that a `lag` fault hides now. By default, `changes` are those of now.
        """
        block: Block = []
        if block_number == RECEIVED:
            block = self.received.block(day, time_in_ms=time_in_ms)
        elif self.settings.start <= day <= self.last_day():
            block = self._sample_block(day, block_number, time_in_ms=time_in_ms)
        changes = self.faults.changes(day) if changes is None else changes
        if changes and block_number == 0:
            block = apply_changes(self.shop, day, block, changes, time_in_ms=time_in_ms)
        if day >= self.today() - timedelta(days=1):
            now_ms = self.clock.now_ms()
            block = [row for row in block if row[1] <= now_ms]
        for change in changes:
            if change.kind == "lag" and lagging:
                seconds = LAG_SECONDS if change.seconds is None else change.seconds
                visible_ms = self.clock.now_ms() - int(seconds * 1000)
                block = [row for row in block if row[2] <= visible_ms]
        return self.received.identities.rekey(block)

    def export(self, days: list[date], *, time_in_ms: bool) -> Iterator[list[bytes]]:
        """Return the lines of some days by block, in an order that changes with each export.

        Later changes do not affect the lines.
        """
        export_number = 0 if self.settings.stable_order else next(self._export_numbers)
        random = Random(f"{self.settings.seed}/{export_number}")
        keys = [(day, block_number) for day in days for block_number in self.block_numbers(day)]
        random.shuffle(keys)
        changes = {day: self.faults.changes(day) for day in days}
        self.faults.count_export(days)

        def blocks() -> Iterator[list[bytes]]:
            for day, block_number in keys:
                block = self.block(
                    day, block_number, time_in_ms=time_in_ms, lagging=True, changes=changes[day]
                )
                lines = [line for line, _, _ in block]
                random.shuffle(lines)
                yield lines

        return blocks()

    def profiles(self, data_group_id: str | None = None) -> Sequence[Profile]:
        """Return all profiles, of users or of groups."""
        return self.updates.apply(data_group_id, self._sample_profiles(data_group_id))

    def update_profile(
        self,
        data_group_id: str | None,
        identity: str,
        operation: str,
        value: Any,
        *,
        last_seen: str | None,
    ) -> None:
        """Change a profile, of a user or of a group."""
        if data_group_id is None:
            identity = self.received.identities.canonical(identity)
        sampled = self._sample_people(data_group_id).get(identity)
        self.updates.update(data_group_id, identity, sampled, operation, value, last_seen=last_seen)

    def _sample_profiles(self, data_group_id: str | None) -> Sequence[Profile]:
        if data_group_id is not None:
            known = data_group_id == GROUP_KEY
            return group_profiles(self.settings.group_profiles) if known else []
        last = self.last_day()
        # Today's later hours have no sign-ups yet.
        if last == self.today():
            last -= timedelta(days=1)
        with self._lock:
            if self._profiles is None or self._profiles[0] != last:
                profiles = UserProfiles(self.shop, last, self.clock.now(), self.settings.profiles)
                is_large = len(profiles) > CACHED_PROFILES
                self._profiles = (last, profiles if is_large else list(profiles))
            return self._profiles[1]

    def person(self, identity: str | None) -> Mapping[str, Any]:
        """Return the properties of a user's profile, called `user` in expressions."""
        return {} if identity is None else Person(self._properties_of, identity)

    def _properties_of(self, identity: str) -> Mapping[str, Any]:
        sample_profile = self._sample_people(None).get(identity)
        return self.updates.properties(None, identity, sample_profile) or {}

    def _sample_people(self, data_group_id: str | None) -> Mapping[str, Properties | None]:
        """Return the sample's properties by id. Those of users are cached."""
        profiles = self._sample_profiles(data_group_id)
        with self._lock:
            if data_group_id is None and self._people and self._people[0] is profiles:
                return self._people[1]
            sample_profiles = {one["$distinct_id"]: one["$properties"] for one in profiles}
            if data_group_id is None:
                self._people = (profiles, sample_profiles)
            return sample_profiles

    def open_session(self, results: Sequence[Profile], page_size: int, *, total: int) -> str:
        """Store a result, and return the id of its paging session."""
        number = next(self._session_numbers)
        tail = Random(f"{self.settings.seed}/session/{number}").getrandbits(32)
        session_id = f"{int(self.clock.seconds())}-{tail:08x}"
        self.sessions[session_id] = Session(results, page_size, self.clock.seconds(), total)
        return session_id

    def session(self, session_id: str) -> Session | None:
        """Return a session; None: unknown or expired."""
        session = self.sessions.get(session_id)
        seconds = self.settings.session_seconds
        if session and seconds is not None and self.clock.seconds() - session.started > seconds:
            return None
        return session

    def _sample_block(self, day: date, block_number: int, *, time_in_ms: bool) -> Block:
        key = (day, block_number, time_in_ms)
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
                return self._blocks[key][0]
        block = self.shop.block(day, block_number, time_in_ms=time_in_ms)
        # A day of many blocks would only replace all others.
        if self.shop.sample(day).blocks <= 8:
            self._cache(key, block)
        return block

    def _cache(self, key: tuple[date, int, bool], block: Block) -> None:
        size = sum(len(line) + 250 for line, _, _ in block)
        with self._lock:
            if key not in self._blocks:
                self._blocks[key] = (block, size)
                self._cached_bytes += size
            while self._cached_bytes > CACHE_BYTES:
                _, (_, freed) = self._blocks.popitem(last=False)
                self._cached_bytes -= freed
