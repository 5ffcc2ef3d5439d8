"""What is repeated, how often, and how long to wait before.

| what came                          | what happens                                              |
|------------------------------------|-----------------------------------------------------------|
| 429                                | waited for, `Retry-After` in full; not counted as a fault |
| 5xx, a timeout, a broken connection| repeated with growing, jittered waits                     |
| 200 that is not whole              | repeated with growing, jittered waits                     |
| 400, 401, 402, 403, 404, ...       | raised at once: repeating cannot help                     |
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import tenacity

from mixpanel_assets.errors import (
    ConnectionFailedError,
    IncompleteExportError,
    RateLimitError,
    ServerError,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FAULTS = (ServerError, ConnectionFailedError, IncompleteExportError)
_LONGEST_SERVER_WAIT = 3600.0


@dataclass(frozen=True)
class RetryPolicy:
    """How patient a client is.

    Attributes:
        max_retries: How often a fault is repeated after the first try. A 429 is not a fault.
        max_wait_seconds: How long one question may wait for 429s in total; None waits without end.
        first_wait_seconds: Mean wait after the first fault; doubles, at most 60 seconds.
        rate_limit_wait_seconds: Wait after a 429 that names no time; doubles, at most an hour.
    """

    max_retries: int = 4
    max_wait_seconds: float | None = 900.0
    first_wait_seconds: float = 2.0
    rate_limit_wait_seconds: float = 60.0
    cancelled: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)

    def call(self, question: Callable[[], T]) -> T:
        """Ask until there is an answer, a fatal error or no patience left; raise the last error."""
        patience = _Patience(self)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((*_FAULTS, RateLimitError)),
            wait=patience.wait,
            stop=patience.is_over,
            before_sleep=_log_wait,
            sleep=tenacity.sleep_using_event(self.cancelled),
            reraise=True,
        )
        return retrying(question)


class _Patience:
    """Counts faults and waits of one question."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.policy = policy
        self.faults = 0
        self.refusals = 0
        self.refused_since: float | None = None
        self.backoff = tenacity.wait_random_exponential(
            multiplier=policy.first_wait_seconds, max=60.0
        )

    def is_over(self, state: tenacity.RetryCallState) -> bool:
        error = _error_of(state)
        if isinstance(error, RateLimitError):
            self.refusals += 1
            self.refused_since = self.refused_since or time.monotonic()
            return self._waits_too_long(error)
        self.faults += 1
        return self.faults > self.policy.max_retries

    def wait(self, state: tenacity.RetryCallState) -> float:
        error = _error_of(state)
        if isinstance(error, RateLimitError):
            return self._server_wait(error)
        return float(self.backoff(state))

    def _server_wait(self, error: RateLimitError) -> float:
        if error.retry_after is not None:
            return min(float(error.retry_after), _LONGEST_SERVER_WAIT)
        doubled = self.policy.rate_limit_wait_seconds * 2.0 ** max(0, self.refusals - 1)
        return min(doubled, _LONGEST_SERVER_WAIT)

    def _waits_too_long(self, error: RateLimitError) -> bool:
        if self.policy.max_wait_seconds is None or self.refused_since is None:
            return False
        waited = time.monotonic() - self.refused_since
        return waited + self._server_wait(error) > self.policy.max_wait_seconds


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _log_wait(state: tenacity.RetryCallState) -> None:
    seconds = state.next_action.sleep if state.next_action else 0.0
    logger.warning("%s Asking again in %.0f s.", _error_of(state), seconds)
