"""Events from clients: parsed, with an identity, stored by the export day.

They are in memory until the emulator stops. A row is an event as the export shows it, with the
properties that the server adds.
"""

from __future__ import annotations

import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from random import Random
from typing import Any, NamedTuple
from zlib import crc32

from mixpanel_assets.emulator.expressions import is_number
from mixpanel_assets.emulator.sample import Block, json_text
from mixpanel_assets.emulator.settings import EmulatorSettings

EARLIEST_MS = 31_536_000_000  # 1971-01-01
HOUR_MS = 3_600_000  # events up to an hour in the future are accepted, with the time of arrival
IDENTITY_EVENTS = frozenset(["$identify", "$create_alias", "$merge"])
# this and the next limits are documented for `/import` with `strict=1`
MOST_EVENT_BYTES = 1_000_000
MOST_NAMES = 255
MOST_DEPTH = 3
LONGEST_TEXT = 255
INVALID_IDS = frozenset(
    [
        "00000000-0000-0000-0000-000000000000",
        *("anon", "anonymous", "nil", "none", "null", "n/a", "na", "undefined", "unknown"),
        *("<nil>", "0", "-1", "true", "false", "[]", "{}"),
    ]
)
# The token names the project and the address gives a location: neither is stored.
NOT_STORED = ("token", "ip", "time")

_INSERT_ID = re.compile(r"[A-Za-z0-9-]{1,36}")


class InvalidRecordError(ValueError):
    """A record is refused; `field` is the invalid field."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"'{field}' is invalid: {reason}")
        self.field = field


@dataclass(frozen=True)
class SentEvent:
    """A valid event. `time_ms` is UTC, and not later than the clock."""

    name: str
    time_ms: int
    properties: Mapping[str, Any]
    size: int


def read_event(
    record: Any, *, now_ms: int, strict: bool, oldest_ms: int = EARLIEST_MS, needs_time: bool = True
) -> SentEvent:
    """Return the event in a record that arrives now, or raise `InvalidRecordError`.

    `strict` checks ids, sizes and shapes too, as with `strict=1`. If `time` is not required, the
    default is the time of arrival.
    """
    if not isinstance(record, dict):
        raise InvalidRecordError("event", "must be an object")
    event_name, properties = record.get("event"), record.get("properties")
    if not isinstance(event_name, str) or not event_name:
        raise InvalidRecordError("event", "must be a non-empty string")
    if not isinstance(properties, dict):
        raise InvalidRecordError("properties", "must be an object")
    size = _size(record)
    time_ms = now_ms
    # Identity events are documented without `time` and ids.
    joins_ids = event_name in IDENTITY_EVENTS
    if (needs_time and not joins_ids) or properties.get("time") is not None:
        time_ms = _time(properties.get("time"), now_ms, oldest_ms)
    if strict and not joins_ids:
        _check_ids(properties)
    if strict:
        _check_shape(properties, size)
    names = [name for name in properties if name not in NOT_STORED]
    stored = {name: _cut(name, properties[name]) for name in names}
    return SentEvent(event_name, time_ms, stored, size)


def _size(record: Mapping[str, Any]) -> int:
    try:
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return len(text.encode())
    except UnicodeEncodeError:
        raise InvalidRecordError("properties", "string should be valid utf8") from None
    except ValueError:
        raise InvalidRecordError("properties", "numbers must be finite") from None


def _time(time: Any, now_ms: int, oldest_ms: int) -> int:
    field = "properties.time"
    if not is_number(time):
        raise InvalidRecordError(field, "must be specified as seconds since epoch")
    # If a number of seconds would be in the future, the number is one of milliseconds.
    time_ms: float = time * 1000
    if time_ms > now_ms + HOUR_MS and time >= EARLIEST_MS:
        time_ms = time
    if not time_ms <= now_ms + HOUR_MS:
        raise InvalidRecordError(field, "must not be more than 1 hour in the future")
    if time_ms < oldest_ms:
        raise InvalidRecordError(field, f"must not be before {_utc(oldest_ms)}")
    return min(round(time_ms), now_ms)


def _utc(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _check_ids(properties: Mapping[str, Any]) -> None:
    insert_id = properties.get("$insert_id")
    if not isinstance(insert_id, str) or not insert_id:
        raise InvalidRecordError("$insert_id", "must not be missing or empty")
    if len(insert_id) > 36:
        raise InvalidRecordError("$insert_id", "must not be longer than 36 bytes")
    if not _INSERT_ID.fullmatch(insert_id):
        raise InvalidRecordError(
            "$insert_id", "must only contain alphanumeric or hyphen '-' characters"
        )
    for field in ("$insert_id", "distinct_id"):
        value = properties.get(field)
        if isinstance(value, str) and value.lower() in INVALID_IDS:
            raise InvalidRecordError(field, f"must not be {value!r}")


def _check_shape(properties: Mapping[str, Any], size: int) -> None:
    if size >= MOST_EVENT_BYTES:
        raise InvalidRecordError("event", "must be smaller than 1 MB")
    if len(properties) >= MOST_NAMES:
        raise InvalidRecordError("properties", f"must be fewer than {MOST_NAMES}")
    for name, value in properties.items():
        for part, depth in _parts(value, 0):
            if depth > MOST_DEPTH:
                raise InvalidRecordError(f"properties.{name}", "must be nested 3 levels at most")
            if len(part) >= MOST_NAMES:
                raise InvalidRecordError(
                    f"properties.{name}", f"must have fewer than {MOST_NAMES} elements"
                )


def _parts(value: Any, depth: int) -> Iterator[tuple[list[Any] | dict[str, Any], int]]:
    """Yield each list and object inside a value, with the number of objects around it."""
    if isinstance(value, dict):
        yield value, depth + 1
        for inner in value.values():
            yield from _parts(inner, depth + 1)
    elif isinstance(value, list):
        yield value, depth
        for inner in value:
            yield from _parts(inner, depth)


def _cut(name: str, value: Any) -> Any:
    """Cut long text, as Mixpanel does. Its own properties can have long addresses."""
    own = name.startswith(("$", "mp_"))
    return value[:LONGEST_TEXT] if isinstance(value, str) and not own else value


DEVICE = "$device:"
MOST_IDS = 500  # documented for clusters of original ID merge

_UUID4 = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE
)
# Matches the complete beginning of every line, so that it cannot match inside a value.
_DISTINCT_ID = re.compile(
    rb'^(\{"event":"(?:[^"\\]|\\.)*","properties":\{"time":-?\d+,"distinct_id":)'
    rb'"((?:[^"\\]|\\.)*)"'
)
_BEFORE = b'"$distinct_id_before_identity":'


def identity_of(properties: Mapping[str, Any]) -> str | None:
    """Return the `distinct_id` of an event in a project with simplified ID merge."""
    if user_id := as_id(properties.get("$user_id")):
        return user_id
    if device_id := as_id(properties.get("$device_id")):
        return DEVICE + device_id.removeprefix(DEVICE)
    return as_id(properties.get("distinct_id"))


def as_id(value: Any) -> str | None:
    """Return an id as text; None without an id."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"))


class Identities:
    """The clusters of ids of one person; `version` grows with each change."""

    def __init__(self) -> None:
        self._clusters: dict[str, set[str]] = {}
        self._users: dict[str, str] = {}
        self.version = 0

    def canonical(self, identity: str) -> str:
        """Return the id in queries and exports."""
        user = self._users.get(identity)
        if user is not None:
            return user
        cluster = self._clusters.get(identity) or self._clusters.get(identity.removeprefix(DEVICE))
        # Mixpanel chooses any of the ids, also that of a device. A hash makes the choice stable.
        return min(cluster, key=lambda one: crc32(one.encode())) if cluster else identity

    def link(self, properties: Mapping[str, Any]) -> None:
        """Connect a device with a user, as simplified ID merge does the first time."""
        user, device = as_id(properties.get("$user_id")), as_id(properties.get("$device_id"))
        if not user or not device:
            return
        device = device.removeprefix(DEVICE)
        for identity in (device, DEVICE + device):
            if identity != user and identity not in self._users:
                self._users[identity] = user
                self.version += 1

    def merge(self, event: str, properties: Mapping[str, Any]) -> str | None:
        """Merge the ids of an identity event, as original ID merge does, or return why not."""
        if event == "$identify":
            return self._identify(properties)
        if event == "$create_alias":
            alias, other = as_id(properties.get("alias")), as_id(properties.get("distinct_id"))
            if alias in self._clusters:
                return "the alias already points to another id"
            return self._join(alias, other)
        ids = properties.get("$distinct_ids")
        if not isinstance(ids, list) or len(ids) != 2:
            return "$distinct_ids must hold two ids"
        return self._join(as_id(ids[0]), as_id(ids[1]))

    def _identify(self, properties: Mapping[str, Any]) -> str | None:
        user = as_id(properties.get("$identified_id"))
        device = (as_id(properties.get("$anon_id")) or "").removeprefix(DEVICE)
        if not _UUID4.fullmatch(device):
            return "$anon_id must be a UUID version 4"
        if device in self._clusters and user not in self._clusters[device]:
            return "$anon_id already belongs to another id"
        return self._join(device, user)

    def _join(self, one: str | None, other: str | None) -> str | None:
        if not one or not other:
            return "an id is missing"
        cluster = self._clusters.get(one, {one}) | self._clusters.get(other, {other})
        if len(cluster) > MOST_IDS:
            return f"a cluster has at most {MOST_IDS} ids"
        for identity in cluster:
            self._clusters[identity] = cluster
        self.version += 1
        return None

    def rekey(self, block: Block) -> Block:
        """Return the block with current ids. Changed rows also have their former id."""
        if not self.version:
            return block
        return [(self._rekey(line), happened, processed) for line, happened, processed in block]

    def _rekey(self, line: bytes) -> bytes:
        match = _DISTINCT_ID.match(line)
        if match is None:
            return line
        text = match.group(2)
        before = json.loads(b'"%b"' % text) if b"\\" in text else text.decode()
        now = self.canonical(before)
        if now == before:
            return line
        former = b"" if _BEFORE in line else b',%b"%b"' % (_BEFORE, text)
        shown_id = json.dumps(now, ensure_ascii=False).encode()
        return b"%b%b%b%b" % (match.group(1), shown_id, former, line[match.end() :])


HOSTS = {"us": "api.mixpanel.com", "eu": "api-eu.mixpanel.com", "in": "api-in.mixpanel.com"}
PROCESSING_MS = 700  # time between arrival and processing, as in the sample
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StoredEvent(NamedTuple):
    """A stored event. Its line is `before`, the time in the requested unit, and `after`."""

    event: str
    before: bytes
    raw_ms: int
    after: bytes
    happened_ms: int
    processed_ms: int


@dataclass(frozen=True)
class Origin:
    """Origin of an event. `address` is the sender's, if an id may be derived from it."""

    is_import: bool
    address: str | None = None


class Received:
    """The received events; thread-safe."""

    def __init__(self, settings: EmulatorSettings, raw_ms: Callable[[int], int]) -> None:
        """Start without events. `raw_ms` converts UTC milliseconds to the export's `time`."""
        self._settings = settings
        self._raw_ms = raw_ms
        self._lock = threading.Lock()
        self._rows: defaultdict[date, list[StoredEvent]] = defaultdict(list)
        self._last_processed = 0
        self._numbers = count(1)
        self._clear_count = 0
        self.identities = Identities()

    def days(self) -> list[date]:
        """Return the days with events from clients, sorted."""
        with self._lock:
            return sorted(self._rows)

    def holds(self, day: date) -> bool:
        """Return whether the day has events from clients."""
        return day in self._rows

    def version(self, day: date) -> object:
        """Return a value that changes with the rows of the day."""
        return self._clear_count, len(self._rows.get(day, ())), self.identities.version

    def clear(self) -> None:
        """Remove all events and identities."""
        with self._lock:
            self._rows.clear()
            self.identities = Identities()
            self._last_processed = 0
            self._clear_count += 1

    def names(self) -> set[str]:
        """Return the names of all events."""
        with self._lock:
            return {row.event for rows in self._rows.values() for row in rows}

    def add(self, events: Sequence[SentEvent], origin: Origin, now_ms: int) -> None:
        """Store events that arrive now, and merge their identities."""
        with self._lock:
            for event in events:
                if event.properties.get("$ignore"):
                    continue
                row = self._row(event, origin, now_ms)
                self._rows[(EPOCH + timedelta(milliseconds=row.raw_ms)).date()].append(row)

    def block(self, day: date, *, time_in_ms: bool) -> Block:
        """Return the rows of a day as lines, duplicates included."""
        with self._lock:
            stored_events = list(self._rows.get(day, ()))
        unit = 1 if time_in_ms else 1000
        return [
            (
                b"%b%d%b" % (event.before, event.raw_ms // unit, event.after),
                event.happened_ms,
                event.processed_ms,
            )
            for event in stored_events
        ]

    def _row(self, event: SentEvent, origin: Origin, now_ms: int) -> StoredEvent:
        properties = {**event.properties}
        identity = self._identity(event.name, properties, origin)
        properties.pop("distinct_id", None)
        if not properties.get("$insert_id"):
            properties["$insert_id"] = self._new_insert_id()
        if origin.is_import:
            properties["$import"] = True
        # The newest row of an event counts, so each row needs its own time.
        self._last_processed = max(now_ms + PROCESSING_MS, self._last_processed + 1)
        properties |= {
            "$mp_api_endpoint": HOSTS[self._settings.region],
            "$mp_api_timestamp_ms": now_ms,
            "$mp_event_size": event.size,
            "mp_processing_time_ms": self._last_processed,
        }
        if identity is not None:
            properties = {"distinct_id": identity, **properties}
        raw_ms = self._raw_ms(event.time_ms)
        return StoredEvent(
            event=event.name,
            before=f'{{"event":{json_text(event.name)},"properties":{{"time":'.encode(),
            raw_ms=raw_ms,
            after=f",{json_text(properties)[1:]}}}".encode(),
            happened_ms=event.time_ms,
            processed_ms=self._last_processed,
        )

    def _identity(self, event: str, properties: dict[str, Any], origin: Origin) -> str | None:
        """Return the event's `distinct_id` at ingestion."""
        if self._settings.id_merge == "simplified":
            self.identities.link(properties)
            identity = identity_of(properties)
        else:
            identity = as_id(properties.get("distinct_id"))
            if event in IDENTITY_EVENTS:
                problem: str | None = "accepted only by /import"
                if event != "$merge" or origin.is_import:
                    problem = self.identities.merge(event, properties)
                if problem is not None:
                    properties["$failure_reason"] = problem
                if identity is None:
                    identity = as_id(properties.get("$identified_id"))
        if identity is None and origin.address is not None:
            return f"{Random(origin.address).getrandbits(64):016x}"
        return identity

    def _new_insert_id(self) -> str:
        random = Random(f"{self._settings.seed}/insert-id/{next(self._numbers)}")
        return f"{random.getrandbits(128):032x}"
