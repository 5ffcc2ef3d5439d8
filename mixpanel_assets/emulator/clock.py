"""The emulator's clock: the injected one, moved or stopped on request."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta


class Clock:
    """Tells the time in UTC; can be moved while the server runs."""

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
        """Stop the clock at a moment; a moment without a zone is taken as UTC."""
        self._fixed = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        self._shift = timedelta()

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._shift += timedelta(seconds=seconds)

    def reset(self) -> None:
        """Go back to the injected clock."""
        self._fixed = None
        self._shift = timedelta()
