"""A lane: threads of this process wait in the order in which they came."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Lane:
    """Lets one thread at a time try its luck; the others wait behind it."""

    def __init__(self) -> None:
        self._moved = threading.Condition()
        self._tickets: deque[object] = deque()
        self._opens_at = 0.0
        self._reason = ""

    @contextmanager
    def ticket(self) -> Iterator[object]:
        """Yield a ticket, the last of the lane; leaving gives it up, first or not."""
        ticket = object()
        with self._moved:
            self._tickets.append(ticket)
        try:
            yield ticket
        finally:
            with self._moved:
                self._tickets.remove(ticket)
                self._moved.notify_all()

    def is_first(self, ticket: object, timeout_seconds: float) -> bool:
        """Wait, but no longer than that, until the ticket is the first one."""
        with self._moved:
            return self._moved.wait_for(lambda: self._tickets[0] is ticket, timeout_seconds)

    def closed(self, seconds: float, reason: str) -> None:
        """Tell those behind for how long nobody will get through, and why."""
        self._opens_at, self._reason = time.monotonic() + seconds, reason

    def outlook(self) -> tuple[float, str]:
        """Return how many seconds nobody will get through, as the first one knows, and why."""
        return max(0.0, self._opens_at - time.monotonic()), self._reason
