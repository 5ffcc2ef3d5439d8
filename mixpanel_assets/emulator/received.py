"""What clients sent: their events, by the day of the export that they happened on.

Held in memory until the emulator stops. A row is what the export shows of an event, with the
properties that the server adds.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import count
from random import Random
from typing import Any, NamedTuple

from mixpanel_assets.emulator.catalogue import json_text
from mixpanel_assets.emulator.identities import Identities, as_id, identity_of
from mixpanel_assets.emulator.sample import Block
from mixpanel_assets.emulator.sent import IDENTITY_EVENTS, SentEvent
from mixpanel_assets.emulator.settings import EmulatorSettings

HOSTS = {"us": "api.mixpanel.com", "eu": "api-eu.mixpanel.com", "in": "api-in.mixpanel.com"}
PROCESSING_MS = 700
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    """A stored event: the line is `before`, the time in the unit asked for, and `after`."""

    event: str
    before: bytes
    raw_ms: int
    after: bytes
    happened_ms: int
    processed_ms: int


@dataclass(frozen=True)
class Origin:
    """How an event came: `address` is the sender's, where an id may be made of it."""

    is_import: bool
    address: str | None = None


class Received:
    """The events; safe to use from several threads."""

    def __init__(self, settings: EmulatorSettings, raw_ms: Callable[[int], int]) -> None:
        """Hold nothing yet.

        Args:
            settings: The project.
            raw_ms: Turns a moment in UTC into the number that the export shows as `time`.
        """
        self._settings = settings
        self._raw_ms = raw_ms
        self._lock = threading.Lock()
        self._rows: defaultdict[date, list[Row]] = defaultdict(list)
        self._last_processed = 0
        self._numbers = count(1)
        self._times_cleared = 0
        self.identities = Identities()

    def days(self) -> list[date]:
        """Return the days that clients sent events of, in order."""
        with self._lock:
            return sorted(self._rows)

    def holds(self, day: date) -> bool:
        """Say whether clients sent events of the day."""
        return day in self._rows

    def version(self, day: date) -> object:
        """Name what a day holds: another value whenever its rows are others."""
        return self._times_cleared, len(self._rows.get(day, ())), self.identities.version

    def clear(self) -> None:
        """Forget all events, and who is who."""
        with self._lock:
            self._rows.clear()
            self.identities = Identities()
            self._last_processed = 0
            self._times_cleared += 1

    def names(self) -> set[str]:
        """Return the names of the events."""
        with self._lock:
            return {row.event for rows in self._rows.values() for row in rows}

    def add(self, events: Sequence[SentEvent], origin: Origin, now_ms: int) -> None:
        """Store events that arrive now, and do what they say of identities."""
        with self._lock:
            for event in events:
                if event.properties.get("$ignore"):
                    continue
                row = self._row(event, origin, now_ms)
                self._rows[(EPOCH + timedelta(milliseconds=row.raw_ms)).date()].append(row)

    def block(self, day: date, *, time_in_ms: bool) -> Block:
        """Return the rows of a day as lines, repeats included."""
        with self._lock:
            rows = list(self._rows.get(day, ()))
        unit = 1 if time_in_ms else 1000
        return Block(
            [b"%b%d%b" % (row.before, row.raw_ms // unit, row.after) for row in rows],
            [row.happened_ms for row in rows],
            [row.processed_ms for row in rows],
        )

    def _row(self, event: SentEvent, origin: Origin, now_ms: int) -> Row:
        properties = {**event.properties}
        identity = self._identity(event.name, properties, origin)
        properties.pop("distinct_id", None)
        if not properties.get("$insert_id"):
            properties["$insert_id"] = self._made_id()
        if origin.is_import:
            properties["$import"] = True
        # The row that was received last is the one that counts, so no two have one time.
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
        return Row(
            event=event.name,
            before=f'{{"event":{json_text(event.name)},"properties":{{"time":'.encode(),
            raw_ms=raw_ms,
            after=f",{json_text(properties)[1:]}}}".encode(),
            happened_ms=event.time_ms,
            processed_ms=self._last_processed,
        )

    def _identity(self, event: str, properties: dict[str, Any], origin: Origin) -> str | None:
        """Return the event's `distinct_id` as it is ingested."""
        if self._settings.id_merge == "simplified":
            self.identities.link(properties)
            identity = identity_of(properties)
        else:
            identity = as_id(properties.get("distinct_id"))
            if event in IDENTITY_EVENTS:
                problem: str | None = "only taken by /import"
                if event != "$merge" or origin.is_import:
                    problem = self.identities.merge(event, properties)
                if problem is not None:
                    properties["$failure_reason"] = problem
                if identity is None:
                    identity = as_id(properties.get("$identified_id"))
        if identity is None and origin.address is not None:
            return f"{Random(origin.address).getrandbits(64):016x}"
        return identity

    def _made_id(self) -> str:
        random = Random(f"{self._settings.seed}/insert-id/{next(self._numbers)}")
        return f"{random.getrandbits(128):032x}"
