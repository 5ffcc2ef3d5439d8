"""Request limits: rolling windows and requests at once, per project and API family."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Literal

from mixpanel_assets.emulator.settings import Limits

Trip = Literal["window", "second", "concurrency", "schemas"]


@dataclass(frozen=True)
class Refusal:
    """A limit that was hit, and how long until there is room again."""

    trip: Trip
    limit: int
    retry_after_seconds: int
    remaining: int


class Budgets:
    """Counts requests as they arrive; a refused one is not counted."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._arrivals: dict[str, deque[float]] = {}
        self._running: dict[str, int] = {}

    def enter(self, family: str, limits: Limits | None, *, counted: bool = True) -> Refusal | None:
        """Count a request in, or say which limit stands against it.

        A request that was let in must be followed by `leave`. Uncounted ones take no part in
        the windows, only in what runs at once.
        """
        with self._lock:
            refusal = self._refusal(family, limits, counted=counted) if limits else None
            if refusal is None:
                self._running[family] = self._running.get(family, 0) + 1
                if counted:
                    self._arrivals.setdefault(family, deque()).append(self._seconds())
        return refusal

    def leave(self, family: str) -> None:
        """Note that a request has been answered."""
        with self._lock:
            self._running[family] -= 1

    def used(self, family: str, window_seconds: float) -> int:
        """Return how many requests count in the window that ends now."""
        with self._lock:
            return len(self._within(family, window_seconds))

    def _within(self, family: str, window_seconds: float) -> list[float]:
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
            left = hourly - len(self._within(family, limits.window_seconds))
            refusal = Refusal("concurrency", at_once, 10, left)
        return refusal

    def _window(self, family: str, trip: Trip, limit: int, seconds: float) -> Refusal | None:
        arrivals = self._within(family, seconds)
        if len(arrivals) < limit:
            return None
        free_at = arrivals[-limit] + seconds if limit else self._seconds() + seconds
        wait = max(1, ceil(free_at - self._seconds()))
        return Refusal(trip, limit, wait, 0)
