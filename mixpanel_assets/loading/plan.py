"""Which days are fetched, which are kept, which share a request, and how far a load is."""

from __future__ import annotations

import math
from bisect import bisect, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from statistics import median
from typing import Any, Self
from zoneinfo import ZoneInfo

from mixpanel_assets.results import Result
from mixpanel_assets.rules.days import SETTLE_DAYS, DayRange, days_between
from mixpanel_assets.settings import Settings

# Requests are scarce (60 an hour), but a response that stays incomplete is downloaded again.
TARGET_BYTES = 200_000_000
MAX_DAYS = 31

# Exports of Mixpanel's own SDKs compress to between a sixth and a ninth. The ledger keeps the bytes
# received, so the JSON size of older days is estimated from them. Days of the running load are
# measured.
JSON_PER_RECEIVED_BYTE = 7.5

_NEIGHBOURS = 7  # a week, so that weekdays do not bias the median
_WEEK = 7


class Estimates:
    """A number for every day: the known one, else the median of the seven nearest known days."""

    def __init__(self, known: Mapping[date, int]) -> None:
        self.known = dict(known)
        self._days = sorted(known)

    def learn(self, day: date, number: int) -> None:
        """Make a day known."""
        if day not in self.known:
            insort(self._days, day)
        self.known[day] = number

    def forget(self, day: date) -> None:
        """Make a day unknown again."""
        if self.known.pop(day, None) is not None:
            self._days.remove(day)

    def of(self, day: date) -> int | None:
        """Return the number of a day; None if no day is known."""
        if day in self.known or not self.known:
            return self.known.get(day)
        place = bisect(self._days, day)
        days_around = self._days[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS]
        nearest_days = sorted(days_around, key=lambda other: abs(other - day))[:_NEIGHBOURS]
        return round(median(self.known[other] for other in nearest_days))

    def total(self, days: Sequence[date]) -> int | None:
        """Return the sum over days; None if no day is known."""
        numbers = [self.of(day) for day in days]
        return None if None in numbers else sum(number or 0 for number in numbers)

    def known_near(self, day: date, distance: int) -> list[date]:
        """Return the known days that are at most `distance` days away."""
        # In ordinals: a date before the first or after the last of the calendar is an error.
        here, number = day.toordinal(), date.toordinal
        first = bisect(self._days, here - distance - 1, key=number)
        return self._days[first : bisect(self._days, here + distance, key=number)]


class RequestPlan:
    """Cuts days into requests one by one, each by what is known when it begins.

    Args:
        days: In order; a request never spans a gap between them.
        weights: JSON bytes of days that are known.
        target_bytes: The most JSON bytes of a request; a larger day has one of its own.
        max_days: The most days of a request.
        fixed: The number of days per request, whatever their size; may be set during a load.
    """

    # If no day within a month is known, the first request has one day, the second the rest of
    # the week, and the others as many days as the size allows. A month that turns out too big is
    # never downloaded, and a long range costs only two requests more than the fewest.

    def __init__(
        self,
        days: Sequence[date],
        weights: Mapping[date, int],
        target_bytes: int = TARGET_BYTES,
        max_days: int = MAX_DAYS,
        fixed: int | None = None,
    ) -> None:
        self.days = days
        self.weights = Estimates(weights)
        self.target_bytes = target_bytes
        self.max_days = max_days
        self.fixed = fixed

    def __iter__(self) -> Iterator[DayRange]:
        start = 0
        while start < len(self.days):
            end = start + self._length(start)
            yield self.days[start], self.days[end - 1]
            start = end

    def requests_after(self, day: date) -> int:
        """Return the number of requests for the days after a day, by what is known now."""
        start, requests = bisect(self.days, day), 0
        while start < len(self.days):
            start += self._length(start)
            requests += 1
        return requests

    def learn(self, day: date, json_bytes: int) -> None:
        """Make the size of a day known."""
        self.weights.learn(day, json_bytes)

    def again(self, days: Sequence[date]) -> RequestPlan:
        """Return a plan for days whose known sizes turned out to be wrong."""
        for day in days:
            self.weights.forget(day)
        plan = RequestPlan(days, {}, self.target_bytes, self.max_days, self.fixed)
        plan.weights = self.weights
        return plan

    def estimated_bytes(self, first: date, last: date) -> int:
        """Return the JSON bytes of a request; the target if no day is known."""
        total = self.weights.total(days_between(first, last))
        return self.target_bytes if total is None else total

    def _length(self, first_index: int) -> int:
        first = self.days[first_index]
        days_limit = self.fixed or self.max_days
        unknown_days, most_unknown_days = 0, self._most_unknown_days(first_index)
        request_bytes = 0
        for length, day in enumerate(self.days[first_index : first_index + days_limit]):
            request_bytes += self.weights.of(day) or 0
            unknown_days += day not in self.weights.known
            too_much = request_bytes > self.target_bytes or unknown_days > most_unknown_days
            if length and (day - first).days != length:
                return length
            if length and too_much and not self.fixed:
                return length
        return min(days_limit, len(self.days) - first_index)

    def _most_unknown_days(self, start: int) -> int:
        """Return the most days of unknown size that the request may hold."""
        known_days_near = set(self.weights.known_near(self.days[start], self.max_days))
        known_days_near.update(self.days[max(0, start - self.max_days) : start])
        if not known_days_near:
            return 1
        return self.max_days if len(known_days_near) >= _WEEK else _WEEK - 1


@dataclass(frozen=True)
class RequestBudget:
    """The number of export requests that fit into a window of time, and how many are spent."""

    limit: int
    window_seconds: float
    used: int = 0

    @property
    def left(self) -> int:
        """Requests of the window that are not spent."""
        return max(0, self.limit - self.used)

    def seconds_for(self, requests: int) -> float:
        """Return the most seconds until the last of these requests may be sent."""
        waiting_requests = requests - self.left
        return math.ceil(max(0, waiting_requests) / self.limit) * self.window_seconds


@dataclass(frozen=True)
class Plan(Result):
    """What the load of a range of days will take.

    Attributes:
        from_date: First day, included.
        to_date: Last day, included.
        days: Days to load.
        requests: Export requests if every response is complete; while no day is known, the fewest.
        confirming: Additional requests if days that were never loaded have no events: one for
            days that lie close together.
        expired: Days further back than MP_RETENTION_DAYS; they are not requested.
        only_here: Stored days that Mixpanel has deleted.
        estimated_rows: Events; None while no day is known.
        estimated_bytes: Compressed bytes to receive; None while no day is known.
        free_disk_bytes: On the disk of the responses that are not stored yet.
        seconds: Until the last request may be sent, at the current budget.
    """

    from_date: date
    to_date: date
    days: int
    requests: int
    confirming: int
    expired: int
    only_here: int
    estimated_rows: int | None
    estimated_bytes: int | None
    free_disk_bytes: int
    seconds: float


REFETCH_TAG = "mixpanel_assets/refetch"  # for runs whose configuration does not set `refetch`
# Older days are read again only on request: a database of an earlier version, or of a shorter
# MP_SETTLE_DAYS, may hold years of days that were read too early.
MOST_DAYS_READ_AGAIN = 31


class Refetch(StrEnum):
    """Which days of a range are fetched: all of them, or those that lack something."""

    all = "all"
    missing = "missing"
    stale = "stale"


@dataclass(frozen=True)
class Keeping:
    """Decides by a day's row in the ledger whether the day is kept instead of requested.

    Attributes:
        refetch: `all` keeps no day. `missing` keeps stored days, except those that have ended
            since. `stale` keeps days that had ended `settle_days` before they were read.
        run_ids: A run and the runs that it continues: `missing` keeps only days that these have
            stored. None: any run.
        settle_days: How long after a day's end Mixpanel takes events for it.
        zone: The zone of the days.
        today: The current day; None: treat no day as finished since.
        horizon: The first day that is requested; None: every day is.
    """

    refetch: Refetch = Refetch.all
    run_ids: frozenset[str] | None = None
    settle_days: int = SETTLE_DAYS
    zone: str = "UTC"
    today: date | None = None
    horizon: date | None = None

    @classmethod
    def of(
        cls, settings: Settings, refetch: Refetch, run_ids: frozenset[str] | None = None
    ) -> Self:
        """Return what the settings say about kept days."""
        return cls(
            refetch,
            run_ids,
            settings.settle_days,
            settings.export_zone,
            settings.today(),
            settings.horizon(),
        )

    @property
    def reason(self) -> str:
        """Why days are kept, in words."""
        if self.refetch is Refetch.missing:
            return "this run or one that it continues has stored them"
        return f"they were read {self.settle_days} days after their end or later"

    def keeps(self, ledger_row: Mapping[str, Any]) -> bool:
        """Return whether the day of a row in the ledger is kept."""
        if self.refetch is Refetch.missing:
            is_theirs = self.run_ids is None or ledger_row["run_id"] in self.run_ids
            return is_theirs and not self.lacks_rows(ledger_row)
        return self.refetch is Refetch.stale and self.is_settled(ledger_row)

    def lacks_rows(self, ledger_row: Mapping[str, Any]) -> bool:
        """Return whether the day is not stored, or only in part, such as before it ended."""
        if ledger_row["status"] == "open":
            return self.today is not None and ledger_row["day"] < self.today
        if ledger_row["status"] == "expired":
            return not is_expired(ledger_row["day"], self.horizon)
        return ledger_row["status"] in ("failed", "partial")

    def is_settled(self, ledger_row: Mapping[str, Any]) -> bool:
        """Return whether the day was read when Mixpanel took no more events for it."""
        if ledger_row["status"] not in ("complete", "empty"):
            return False
        fetched_at: datetime = ledger_row["fetched_at"]
        return fetched_at.replace(tzinfo=UTC) >= self.settled_at(ledger_row["day"])

    def settled_at(self, day: date) -> datetime:
        """Return the moment from which a day's events no longer change, UTC."""
        midnight = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(self.zone))
        return midnight.astimezone(UTC) + timedelta(days=self.settle_days)


def is_expired(day: date, horizon: date | None) -> bool:
    """Return whether a day lies so far back that it is not requested."""
    return horizon is not None and day < horizon


KEEP_NONE = Keeping()

_MINUTE_SECONDS, _HOUR_SECONDS = 60, 3600


@dataclass(frozen=True)
class LoadProgress:
    """How far a load of events is.

    Attributes:
        from_date: First day of the last response.
        to_date: Its last day, included.
        request_days: The number of days of the last response.
        days_done: Days that have arrived so far; those without events are confirmed later.
        days: Days that the load requests.
        rows: Events stored so far.
        seconds: Since the load began.
        requests_to_come: Remaining requests if every response is complete.
        budget: The requests of this hour; None: unknown.
    """

    from_date: date
    to_date: date
    request_days: int
    days_done: int
    days: int
    rows: int
    seconds: float
    requests_to_come: int
    budget: RequestBudget | None = None

    @property
    def rows_per_second(self) -> float:
        """Events stored per second since the load began, waits included."""
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float:
        """Remaining seconds, at the pace so far or by the budget, whichever is longer."""
        at_this_pace = self.seconds / max(1, self.days_done) * (self.days - self.days_done)
        waiting = self.budget.seconds_for(self.requests_to_come) if self.budget else 0.0
        return max(at_this_pace, waiting)

    def __str__(self) -> str:
        request_range = str(self.from_date)
        if self.to_date > self.from_date:
            request_range += f"..{self.to_date}"
        budget = f"{self.budget.left} export requests left this hour, " if self.budget else ""
        return (
            f"{request_range}: {self.days_done:,} of {self.days:,} days, {self.rows:,} events at "
            f"{self.rows_per_second:,.0f}/s, {budget}about {_time_to_go(self.seconds_left)} to go"
        )


def _time_to_go(seconds: float) -> str:
    if seconds < 2 * _MINUTE_SECONDS:
        return f"{seconds:,.0f} s"
    if seconds < 2 * _HOUR_SECONDS:
        return f"{seconds / _MINUTE_SECONDS:,.0f} min"
    return f"{seconds / _HOUR_SECONDS:,.1f} h"
