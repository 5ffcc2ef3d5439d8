"""Which responses are retried, waited for, or not retried: `RETRY_CLASSES` is the whole rule."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import tenacity

from mixpanel_assets.errors import (
    APIError,
    AuthenticationError,
    ConnectionFailedError,
    IncompleteExportError,
    MixpanelDataError,
    PlanHorizonError,
    QueryError,
    RateLimitError,
    ServerError,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

Treatment = Literal["retried", "waited for", "not retried"]


@dataclass(frozen=True)
class RetryClass:
    """One kind of answer, the error it becomes, and what is done about it.

    Attributes:
        came: The response, or what the network did instead.
        error: The error that is raised when no more retries follow.
        treatment: `retried` up to `max_retries` times, with growing, jittered waits; `waited for`
            as long as Mixpanel asks, which is not counted as a retry; or `not retried`.
    """

    came: str
    error: type[MixpanelDataError]
    treatment: Treatment


RETRY_CLASSES = (
    RetryClass("5xx, and 400 with the text `Timeout Error`", ServerError, "retried"),
    RetryClass(
        "no connection, a lost connection, or no response", ConnectionFailedError, "retried"
    ),
    RetryClass("200 with an incomplete or invalid body", IncompleteExportError, "retried"),
    RetryClass("429", RateLimitError, "waited for"),
    RetryClass(
        "401, 403, and 400 that refuses the credentials", AuthenticationError, "not retried"
    ),
    RetryClass("402: the plan does not include the API", APIError, "not retried"),
    RetryClass(
        "`Date range exceeds N days`: older than the plan allows", PlanHorizonError, "not retried"
    ),
    RetryClass("any other 4xx, such as a malformed filter", QueryError, "not retried"),
    RetryClass("200 with an error instead of a result", QueryError, "not retried"),
)

FAULTS = tuple(row.error for row in RETRY_CLASSES if row.treatment == "retried")
_LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class RetryPolicy:
    """How patient a client is.

    Attributes:
        max_retries: How often a fault is repeated after the first try. A 429 is not a fault.
        max_wait_seconds: How long a request may wait for its budget and for 429s; None waits
            without end.
        first_wait_seconds: Mean wait after the first fault; doubles, at most 60 seconds.
        cancelled: Ends every wait when it is set, and asks nothing again.
    """

    max_retries: int = 4
    max_wait_seconds: float | None = 900.0
    first_wait_seconds: float = 2.0
    cancelled: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)

    def call(self, question: Callable[[], T]) -> T:
        """Send until a response is accepted; else raise the last error."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(FAULTS),
            wait=tenacity.wait_random_exponential(
                multiplier=self.first_wait_seconds, max=_LONGEST_WAIT_SECONDS
            ),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self.max_retries + 1),
                tenacity.stop_when_event_set(self.cancelled),
            ),
            before_sleep=self._log_wait,
            sleep=tenacity.sleep_using_event(self.cancelled),
            reraise=True,
        )
        return retrying(question)

    def _log_wait(self, state: tenacity.RetryCallState) -> None:
        if self.cancelled.is_set():
            return
        fault = state.outcome.exception() if state.outcome else None
        seconds = state.next_action.sleep if state.next_action else 0.0
        logger.warning("%s Asking again in %.0f s.", fault, seconds)
