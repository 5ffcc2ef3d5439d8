"""What is repeated, how often, and how long to wait before.

| what came                          | what happens                                              |
|------------------------------------|-----------------------------------------------------------|
| 5xx, a timeout, a broken connection| repeated with growing, jittered waits                     |
| 200 that is not whole              | repeated with growing, jittered waits                     |
| 429                                | `budget.py` waits for it; what it gives up on is raised   |
| 400, 401, 402, 403, 404, ...       | raised at once: repeating cannot help                     |
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import tenacity

from mixpanel_assets.errors import ConnectionFailedError, IncompleteExportError, ServerError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FAULTS = (ServerError, ConnectionFailedError, IncompleteExportError)
_LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class RetryPolicy:
    """How patient a client is.

    Attributes:
        max_retries: How often a fault is repeated after the first try. A 429 is not a fault.
        max_wait_seconds: How long a request may wait for its budget and for 429s; None waits
            without end.
        first_wait_seconds: Mean wait after the first fault; doubles, at most 60 seconds.
        cancelled: Ends every wait when it is set.
    """

    max_retries: int = 4
    max_wait_seconds: float | None = 900.0
    first_wait_seconds: float = 2.0
    cancelled: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)

    def call(self, question: Callable[[], T]) -> T:
        """Ask until there is an answer, a fatal error or one fault too many; raise the last one."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_FAULTS),
            wait=tenacity.wait_random_exponential(
                multiplier=self.first_wait_seconds, max=_LONGEST_WAIT_SECONDS
            ),
            stop=tenacity.stop_after_attempt(self.max_retries + 1),
            before_sleep=_log_wait,
            sleep=tenacity.sleep_using_event(self.cancelled),
            reraise=True,
        )
        return retrying(question)


def _log_wait(state: tenacity.RetryCallState) -> None:
    fault = state.outcome.exception() if state.outcome else None
    seconds = state.next_action.sleep if state.next_action else 0.0
    logger.warning("%s Asking again in %.0f s.", fault, seconds)
