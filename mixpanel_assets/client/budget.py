"""The request budget: every request of every thread and process takes a permit here first."""

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
    Api,
    ApiUsage,
    BudgetSettings,
    Denial,
    Ledger,
    Permit,
    Place,
    Release,
    find_place,
)
from mixpanel_assets.errors import RateLimitError

logger = logging.getLogger(__name__)


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


# Other processes cannot tell us that they gave a slot back; threads of ours notice cancelling.
_SLOT_POLL_SECONDS = 0.03
_LANE_POLL_SECONDS = 0.1
_WORTH_TELLING_SECONDS = 5.0
_LEAST_LOCK_SECONDS = 1.0  # other threads and processes hold the ledger for a moment all the time


class Budget:
    """The budget of one project, as one client spends it.

    Args:
        settings: How much may be spent.
        project: What the budget belongs to, such as `us-12345`.
        max_wait_seconds: The most that one request may wait for its permit; None: no end.
        cancelled: Ends every wait when it is set.
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
        self._lanes: dict[tuple[Api, bool], Lane] = {}

    @cached_property
    def place(self) -> Place:
        """Where the ledgers are."""
        bounds = (self.max_wait_seconds, self.settings.lock_timeout)
        given = [bound for bound in bounds if bound is not None]
        timeout = max(_LEAST_LOCK_SECONDS, min(given)) if given else None
        return find_place(self.settings, self.project, timeout=timeout, cancelled=self.cancelled)

    def ledger(self, api: Api) -> Ledger:
        """Return the ledger of an API family."""
        return Ledger(api, self.settings, self.place)

    def usage(self) -> list[ApiUsage]:
        """Return what is spent and left of each API family that has a limit."""
        return [self.ledger("export").usage(), self.ledger("query").usage()]

    def question(self, api: Api, asked: str, *, free: bool = False) -> Question:
        """Return the permits of one question, which may need several until it is answered.

        Args:
            api: The API family that is asked.
            asked: What is asked, in words.
            free: Mixpanel does not count this kind of request.
        """
        counted = self.settings.count_pages or not free
        # A free request must not queue behind one that waits for the hour to pass.
        lane = self._lanes.setdefault((api, counted), Lane())
        return Question(self, self.ledger(api), lane, asked, counted)

    def free_slot(self, api: Api) -> Release | None:
        """Take one of the places at work and return what gives it back; None: all are taken."""
        at_once = self.settings.limits(api).at_once
        if at_once is None:
            return lambda: None
        slots = (self.place.slot(f"{api}-{number}") for number in range(1, at_once + 1))
        return next((release for release in slots if release), None)


@dataclass
class Question:
    """One question on its way: its permits, and how long it has waited for them in total.

    A 429 is told with `refused`; the next permit then comes when the wait is over.
    """

    budget: Budget
    ledger: Ledger
    lane: Lane
    asked: str
    counted: bool
    waited_seconds: float = 0.0
    refusal: RateLimitError | None = None

    @contextmanager
    def permit(self) -> Iterator[Permit]:
        """Wait for a permit and hold it until the answer has been read.

        Raises:
            RateLimitError: The wait would be longer than allowed, or was cancelled.
        """
        permit, release = self._wait()
        try:
            yield permit
        finally:
            release()

    def refused(self, permit: Permit, refusal: RateLimitError) -> None:
        """Note that Mixpanel answered 429."""
        self.refusal = refusal
        self.ledger.refused(permit, refusal.retry_after)

    def accepted(self, permit: Permit) -> None:
        """Note that Mixpanel answered something else."""
        self.ledger.accepted(permit)

    def _wait(self) -> tuple[Permit, Release]:
        began, waited_before = time.monotonic(), self.waited_seconds
        report_at = 0.0
        with self.lane.ticket() as ticket:
            while True:
                if self.budget.cancelled.is_set():
                    raise self._error("it was cancelled", Denial(0.0, "no longer wanted"))
                first = self.lane.is_first(ticket, _LANE_POLL_SECONDS)
                outcome = self._try() if first else Denial(*self.lane.outlook())
                self.waited_seconds = waited_before + time.monotonic() - began
                if not isinstance(outcome, Denial):
                    return outcome
                self._give_up_if_too_long(outcome)
                if first:
                    self.lane.closed(outcome.seconds, outcome.reason)
                    report_at = self._report(outcome, report_at)
                    self._sleep(outcome.seconds)
                elif self.budget.cancelled.is_set():
                    raise self._error("waiting was cancelled", outcome)

    def _try(self) -> tuple[Permit, Release] | Denial:
        release = self.budget.free_slot(self.ledger.api)
        if release is None:
            at_once = self.ledger.limits.at_once
            reason = f"{at_once} {self.ledger.api} requests are running, no more may at once"
            return Denial(_SLOT_POLL_SECONDS, reason)
        try:
            outcome = self.ledger.take(counted=self.counted)
        except BaseException:
            release()
            raise
        if isinstance(outcome, Denial):
            release()
            return outcome
        return outcome, release

    def _sleep(self, seconds: float) -> None:
        # Wakes up to report, and to notice a clock that was set or a computer that slept.
        longest = self.budget.settings.report_seconds
        if self.budget.cancelled.wait(min(seconds, longest)):
            raise self._error("waiting was cancelled", Denial(seconds, "cancelled"))

    def _give_up_if_too_long(self, denial: Denial) -> None:
        most = self.budget.max_wait_seconds
        if most is not None and self.waited_seconds + denial.seconds > most:
            raise self._error(f"it would wait longer than {most:,.0f} s", denial)

    def _report(self, denial: Denial, report_at: float) -> float:
        """Say what is waited for, if it is time to; return when it is time again."""
        every = self.budget.settings.report_seconds
        worth_telling = min(_WORTH_TELLING_SECONDS, every)
        told = time.monotonic()
        if told < report_at or max(denial.seconds, self.waited_seconds) < worth_telling:
            return report_at
        logger.warning(
            "%s waits: %s. It goes on %s.", self.asked, denial.reason, _when(denial.seconds)
        )
        return told + every

    def _error(self, why: str, denial: Denial) -> RateLimitError:
        said = self.refusal
        message = (
            f"{'It was not sent again' if said else f'{self.asked} was not sent'}, because {why}: "
            f"{denial.reason} (project {self.budget.project}). It can go on "
            f"{_when(denial.seconds)}; see `mp quota`."
        )
        error = RateLimitError(
            f"{said.message} {message}" if said else message,
            retry_after=math.ceil(denial.seconds),
            response_body=said.response_body if said else None,
            request_method=said.request_method if said else None,
            request_url=said.request_url if said else None,
            request_params=said.request_params if said else None,
        )
        error.__cause__ = said
        return error


def _when(seconds: float) -> str:
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return f"in {max(1, math.ceil(seconds)):,} s, at {at:%H:%M:%S} UTC"
