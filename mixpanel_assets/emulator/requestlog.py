"""What was asked and what was sent: the log that tests read."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime


@dataclass(frozen=True)
class LoggedRequest:
    """One request and its answer.

    `path` is as it was asked, `params` holds query and body fields, `days` the days asked for,
    `started` the emulator's clock on arrival, `bytes_sent` the body as it went over the wire.
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
    """Collects requests; entries are written before the bytes they tell of are sent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: list[LoggedRequest] = []

    def add(self, entry: LoggedRequest) -> int:
        """Add an entry and return its number."""
        with self._lock:
            self._entries.append(entry)
            return len(self._entries) - 1

    def sent(self, number: int, size: int) -> None:
        """Note that more bytes of the body are on their way."""
        with self._lock:
            # Someone may have cleared the log while the answer was under way.
            if number < len(self._entries):
                entry = self._entries[number]
                self._entries[number] = replace(entry, bytes_sent=entry.bytes_sent + size)

    def entries(self) -> list[LoggedRequest]:
        """Return a copy of the log, in order of arrival of the answers."""
        with self._lock:
            return list(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
