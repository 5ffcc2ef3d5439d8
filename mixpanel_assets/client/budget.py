"""The request budget: every request of every thread and process waits here for its permit."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

from mixpanel_assets.client.ledger import (
    HOURLY,
    ApiUsage,
    BudgetSettings,
    Denial,
    Ledger,
    LedgerStore,
    Limited,
    Permit,
    Release,
    find_store,
)
from mixpanel_assets.errors import ConfigError, RateLimitError

logger = logging.getLogger(__name__)


def checked_at_once(max_workers: int | None, usual: int, most: int, requests: str) -> int:
    """Return the number of requests of a kind to send at once; warn if it is capped.

    Raises:
        ConfigError: It is less than 1.
    """
    if max_workers is None:
        return usual
    if type(max_workers) is not int or max_workers < 1:
        raise ConfigError(f"max_workers must be a number from 1 on, not {max_workers!r}.")
    if max_workers > most:
        logger.warning(
            "max_workers=%s is capped at %s: Mixpanel runs no more %s at the same time.",
            max_workers,
            most,
            requests,
        )
    return min(max_workers, most)


class PermitQueue:
    """Lets one thread at a time try to get a permit, in order of arrival."""

    def __init__(self) -> None:
        self._queue_moved = threading.Condition()
        self._waiting_requests: deque[object] = deque()
        self._next_permit_at = 0.0
        self._wait_reason = ""

    @contextmanager
    def join(self) -> Iterator[object]:
        """Yield an entry at the end of the queue; it is removed when the block ends."""
        request = object()
        with self._queue_moved:
            self._waiting_requests.append(request)
        try:
            yield request
        finally:
            with self._queue_moved:
                self._waiting_requests.remove(request)
                self._queue_moved.notify_all()

    def is_first(self, request: object, timeout_seconds: float) -> bool:
        """Return whether the entry is the first one, after waiting for that at most so long."""
        with self._queue_moved:
            return self._queue_moved.wait_for(
                lambda: self._waiting_requests[0] is request, timeout_seconds
            )

    def set_delay(self, seconds: float, reason: str) -> None:
        """Publish the wait of the first entry, which holds for all entries behind it."""
        self._next_permit_at, self._wait_reason = time.monotonic() + seconds, reason

    def delay(self) -> tuple[float, str]:
        """Return the seconds until the queue can move, and the reason."""
        return max(0.0, self._next_permit_at - time.monotonic()), self._wait_reason


# Other processes cannot signal that they released a slot; threads of this process are woken when
# they are cancelled.
_SLOT_POLL_SECONDS = 0.03
_QUEUE_POLL_SECONDS = 0.1
_LONG_WAIT_SECONDS = 5.0  # a shorter wait is not logged: exports are spread by half a second
_LEAST_LOCK_SECONDS = 1.0  # other threads and processes hold the ledger for a moment all the time


class Budget:
    """The budget of one project, such as `us-12345`, as one client spends it.

    A request waits for its permit at most `max_wait_seconds` (None: no limit); setting `cancelled`
    ends every wait.

    Attributes:
        requests: Permits so far for requests that count towards an hourly limit.
    """

    def __init__(
        self,
        settings: BudgetSettings,
        project: str,
        *,
        max_wait_seconds: float | None = None,
        cancelled: threading.Event | None = None,
    ) -> None:
        self.settings = settings
        self.project = project
        self.max_wait_seconds = max_wait_seconds
        self.cancelled = cancelled or threading.Event()
        self.requests = 0
        self._count_lock = threading.Lock()
        self._queues: dict[tuple[Limited, bool], PermitQueue] = {}

    @cached_property
    def store(self) -> LedgerStore:
        """The file, the server or the memory with the ledgers."""
        wait_limits = (self.max_wait_seconds, self.settings.lock_timeout)
        lock_timeouts = [bound for bound in wait_limits if bound is not None]
        timeout = max(_LEAST_LOCK_SECONDS, min(lock_timeouts)) if lock_timeouts else None
        return find_store(self.settings, self.project, timeout=timeout, cancelled=self.cancelled)

    def ledger(self, api: Limited) -> Ledger:
        """Return the ledger of an API family."""
        return Ledger(api, self.settings, self.store)

    def usage(self) -> list[ApiUsage]:
        """Return the requests spent and left of each API family that has an hourly limit."""
        return [self.ledger(api).usage() for api in HOURLY]

    def permits(self, api: Limited, description: str, *, free: bool = False) -> Permits:
        """Return the permits of one request, which needs a further one after each 429.

        `free`: Mixpanel does not count this kind of request.
        """
        counted = self.settings.count_pages or not free
        # A free request must not queue behind one that waits for the hour to pass.
        queue = self._queues.setdefault((api, counted), PermitQueue())
        return Permits(self, self.ledger(api), queue, description, counted)

    def count_request(self) -> None:
        """Count a permit; threads share a client."""
        with self._count_lock:
            self.requests += 1

    def free_slot(self, api: Limited) -> Release | None:
        """Take a slot for a running request and return its release; None: all are taken."""
        at_once = self.settings.limits(api).at_once
        if at_once is None:
            return lambda: None
        return self.store.slot(*(f"{api}-{number}" for number in range(1, at_once + 1)))

    def close(self) -> None:
        """Close what the ledger keeps open for the next request."""
        if "store" in self.__dict__:
            self.store.close()


@dataclass
class Permits:
    """The permits of one request, and its total wait for them.

    The caller reports a 429 with `refused`; the next permit then comes after its wait.
    """

    budget: Budget
    ledger: Ledger
    queue: PermitQueue
    description: str
    counted: bool
    waited_seconds: float = 0.0
    refusal: RateLimitError | None = None

    @contextmanager
    def permit(self) -> Iterator[Permit]:
        """Wait for a permit, or raise `RateLimitError`; hold it until the response was read."""
        permit, release_slot = self._wait_for_permit()
        try:
            yield permit
        finally:
            release_slot()

    def refused(self, permit: Permit, refusal: RateLimitError) -> None:
        """Record that Mixpanel answered 429."""
        self.refusal = refusal
        self.ledger.refused(permit, refusal.retry_after)

    def accepted(self, permit: Permit) -> None:
        """Record that Mixpanel answered with another status."""
        self.ledger.accepted(permit)

    def _wait_for_permit(self) -> tuple[Permit, Release]:
        wait_began, waited_before = time.monotonic(), self.waited_seconds
        report_at = 0.0
        with self.queue.join() as request:
            while True:
                if self.budget.cancelled.is_set():
                    raise self._refusal("it was cancelled", Denial(0.0, "the caller stopped"))
                is_first = self.queue.is_first(request, _QUEUE_POLL_SECONDS)
                permit_or_denial = self._try_permit() if is_first else Denial(*self.queue.delay())
                self.waited_seconds = waited_before + time.monotonic() - wait_began
                if not isinstance(permit_or_denial, Denial):
                    return permit_or_denial
                self._give_up_if_too_long(permit_or_denial)
                if is_first:
                    self.queue.set_delay(permit_or_denial.seconds, permit_or_denial.reason)
                    report_at = self._report_wait(permit_or_denial, report_at)
                    self._sleep_until_permit(permit_or_denial.seconds)
                elif self.budget.cancelled.is_set():
                    raise self._refusal("waiting was cancelled", permit_or_denial)

    def _try_permit(self) -> tuple[Permit, Release] | Denial:
        release_slot = self.budget.free_slot(self.ledger.api)
        if release_slot is None:
            at_once = self.ledger.limits.at_once
            reason = f"{at_once} {self.ledger.api} requests are running, the most allowed at once"
            return Denial(_SLOT_POLL_SECONDS, reason)
        try:
            permit_or_denial = self.ledger.take(counted=self.counted)
        except BaseException:
            release_slot()
            raise
        if isinstance(permit_or_denial, Denial):
            release_slot()
            return permit_or_denial
        if self.counted and self.ledger.api in HOURLY:
            self.budget.count_request()
        return permit_or_denial, release_slot

    def _sleep_until_permit(self, seconds: float) -> None:
        # Wakes up to report, and to notice a clock that was set or a computer that slept.
        longest_sleep = self.budget.settings.report_seconds
        if self.budget.cancelled.wait(min(seconds, longest_sleep)):
            raise self._refusal("waiting was cancelled", Denial(seconds, "cancelled"))

    def _give_up_if_too_long(self, denial: Denial) -> None:
        longest_wait = self.budget.max_wait_seconds
        if longest_wait is not None and self.waited_seconds + denial.seconds > longest_wait:
            raise self._refusal(f"it would wait longer than {longest_wait:,.0f} s", denial)

    def _report_wait(self, denial: Denial, report_at: float) -> float:
        """Log the reason of the wait if a line is due, and return when the next one is due."""
        report_seconds = self.budget.settings.report_seconds
        now = time.monotonic()
        longest_wait = max(denial.seconds, self.waited_seconds)
        if now < report_at or longest_wait < min(_LONG_WAIT_SECONDS, report_seconds):
            return report_at
        logger.warning(
            "%s waits: %s. It goes on %s.", self.description, denial.reason, _when(denial.seconds)
        )
        return now + report_seconds

    def _refusal(self, why: str, denial: Denial) -> RateLimitError:
        refusal = self.refusal
        not_sent = "It was not sent again" if refusal else f"{self.description} was not sent"
        message = (
            f"{not_sent}, because {why}: "
            f"{denial.reason} (project {self.budget.project}). It can go on "
            f"{_when(denial.seconds)}; see `mp quota`."
        )
        error = RateLimitError(
            f"{refusal.message} {message}" if refusal else message,
            retry_after=math.ceil(denial.seconds),
            response_body=refusal.response_body if refusal else None,
            request_method=refusal.request_method if refusal else None,
            request_url=refusal.request_url if refusal else None,
            request_params=refusal.request_params if refusal else None,
        )
        error.__cause__ = refusal
        return error


def _when(seconds: float) -> str:
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return f"in {max(1, math.ceil(seconds)):,} s, at {at:%H:%M:%S} UTC"
