"""Which days are fetched, which are kept, which share a request, and how far a load is."""

from __future__ import annotations

import math
from bisect import bisect, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

from mixpanel_assets.results import Result
from mixpanel_assets.rules.days import SETTLE_DAYS, DayRange, days_between

TARGET_BYTES = 200_000_000
MAX_DAYS = 31

# Exports of Mixpanel's own SDKs compress to between a sixth and a ninth. The ledger keeps what
# was received, so that is what older days are weighed by; days of a running load are weighed
# by their JSON itself.
JSON_PER_RECEIVED_BYTE = 7.5

_NEIGHBOURS = 7  # a whole week, so that the median knows no weekday
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
        """Return the number of a day, None when no day at all is known."""
        if day in self.known or not self.known:
            return self.known.get(day)
        at = bisect(self._days, day)
        around = self._days[max(0, at - _NEIGHBOURS) : at + _NEIGHBOURS]
        nearest = sorted(around, key=lambda other: abs(other - day))[:_NEIGHBOURS]
        return round(median(self.known[other] for other in nearest))

    def total(self, days: Sequence[date]) -> int | None:
        """Return the sum over days, None when no day at all is known."""
        numbers = [self.of(day) for day in days]
        return None if None in numbers else sum(number or 0 for number in numbers)

    def known_near(self, day: date, distance: int) -> list[date]:
        """Return the known days that are at most so many days away."""
        # In numbers, because the calendar ends.
        here, number = day.toordinal(), date.toordinal
        first = bisect(self._days, here - distance - 1, key=number)
        return self._days[first : bisect(self._days, here + distance, key=number)]


class RequestPlan:
    """Cuts days into requests one by one, each by what is known when its turn comes.

    Where nothing within a month is known, a request starts with one day, then takes the rest
    of a week, and only then as many days as the weight allows: nobody downloads a month to
    find out that it is too big, and a long range costs two requests more than the fewest.

    Args:
        days: In order; a request never spans a gap between them.
        weights: JSON bytes of days that are known.
        target_bytes: What a request should weigh at most; a heavier day stands alone.
        max_days: The most days of one request.
        fixed: So many days per request, whatever they weigh; may be set on the way.
    """

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
        """Return how many requests the days after a day are, by what is known now."""
        start, requests = bisect(self.days, day), 0
        while start < len(self.days):
            start += self._length(start)
            requests += 1
        return requests

    def learn(self, day: date, json_bytes: int) -> None:
        """Tell what a day turned out to weigh."""
        self.weights.learn(day, json_bytes)

    def again(self, days: Sequence[date]) -> RequestPlan:
        """Return the plan for days that turned out not to be what was learned of them."""
        for day in days:
            self.weights.forget(day)
        plan = RequestPlan(days, {}, self.target_bytes, self.max_days, self.fixed)
        plan.weights = self.weights
        return plan

    def estimated_bytes(self, first: date, last: date) -> int:
        """Return what a request will weigh; the target when no day at all is known."""
        total = self.weights.total(days_between(first, last))
        return self.target_bytes if total is None else total

    def _length(self, start: int) -> int:
        first = self.days[start]
        limit = self.fixed or self.max_days
        strangers, trusted = 0, self._trusted_strangers(start)
        weight = 0
        for length, day in enumerate(self.days[start : start + limit]):
            weight += self.weights.of(day) or 0
            strangers += day not in self.weights.known
            too_much = weight > self.target_bytes or strangers > trusted
            if length and (day - first).days != length:
                return length
            if length and too_much and not self.fixed:
                return length
        return min(limit, len(self.days) - start)

    def _trusted_strangers(self, start: int) -> int:
        """Return how many days of unknown weight the request may hold."""
        near = set(self.weights.known_near(self.days[start], self.max_days))
        near.update(self.days[max(0, start - self.max_days) : start])
        if not near:
            return 1
        return self.max_days if len(near) >= _WEEK else _WEEK - 1


@dataclass(frozen=True)
class RequestBudget:
    """How many export requests fit into a window of time, and how many of them are spent."""

    limit: int
    window_seconds: float
    used: int = 0

    @property
    def left(self) -> int:
        """Requests of the window that are not spent."""
        return max(0, self.limit - self.used)

    def seconds_for(self, requests: int) -> float:
        """Return after how long, at most, the last of so many requests may be sent."""
        waiting = requests - self.left
        return math.ceil(max(0, waiting) / self.limit) * self.window_seconds


@dataclass(frozen=True)
class Plan(Result):
    """What loading a range of days will take, before anything moves.

    Attributes:
        from_date: First day, included.
        to_date: Last day, included.
        days: Number of days.
        requests: Export requests if no answer is broken; while no day is known, the fewest.
        confirming: Requests more if days that were never loaded come without events: those that
            lie close together take one.
        expired: Days further back than MP_RETENTION_DAYS; they are not requested.
        only_here: Stored days that Mixpanel has deleted.
        estimated_rows: Events; None while no day is known.
        estimated_bytes: Compressed bytes to receive; None while no day is known.
        free_disk_bytes: Free where answers lie until they are stored.
        seconds: Until the last request may be sent, at the present budget.
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


REFETCH_TAG = "mixpanel_assets/refetch"  # of a run whose configuration does not say it
# Unasked, days before that are not read again: a database that was kept by an earlier version, or
# with a shorter MP_SETTLE_DAYS, may hold years of days that were read too early.
MOST_DAYS_READ_AGAIN = 31


class Refetch(StrEnum):
    """Which days of a range are fetched: all of them, or those that lack something."""

    all = "all"
    missing = "missing"
    stale = "stale"


@dataclass(frozen=True)
class Keeping:
    """Decides by a day's ledger row whether the day stays as it is.

    Attributes:
        refetch: `all` keeps no day; `missing` keeps days that are stored, unless one was not over
            then and is now; `stale` keeps days that were over for `settle_days` when they were
            read.
        run_ids: A run and those it goes on with: `missing` keeps only days that these have
            stored. None: any.
        settle_days: How long after its end a day's events may still come.
        zone: The zone whose days these are.
        today: The current day; None: as if no day had ended since.
        horizon: The first day that Mixpanel is asked for; None: every day is.
    """

    refetch: Refetch = Refetch.all
    run_ids: frozenset[str] | None = None
    settle_days: int = SETTLE_DAYS
    zone: str = "UTC"
    today: date | None = None
    horizon: date | None = None

    @property
    def reason(self) -> str:
        """Why days are kept, in words."""
        if self.refetch is Refetch.missing:
            return "this run or one that it goes on with has stored them"
        return f"they were read {self.settle_days} days after their end or later"

    def keeps(self, row: Mapping[str, Any]) -> bool:
        """Tell whether the day of a ledger row is left out."""
        if self.refetch is Refetch.missing:
            is_theirs = self.run_ids is None or row["run_id"] in self.run_ids
            return is_theirs and not self.lacks_rows(row)
        return self.refetch is Refetch.stale and self.is_settled(row)

    def lacks_rows(self, row: Mapping[str, Any]) -> bool:
        """Tell whether the day was not stored, or not all of it: it had not ended then."""
        if row["status"] == "open":
            return self.today is not None and row["day"] < self.today
        if row["status"] == "expired":
            return not is_expired(row["day"], self.horizon)
        return row["status"] in ("failed", "partial")

    def is_settled(self, row: Mapping[str, Any]) -> bool:
        """Tell whether the day was read when no more events of it were to come."""
        if row["status"] not in ("complete", "empty"):
            return False
        fetched_at: datetime = row["fetched_at"]
        return fetched_at.replace(tzinfo=UTC) >= self.settled_at(row["day"])

    def settled_at(self, day: date) -> datetime:
        """Return from when on a day's events no longer change, UTC."""
        midnight = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(self.zone))
        return midnight.astimezone(UTC) + timedelta(days=self.settle_days)


def is_expired(day: date, horizon: date | None) -> bool:
    """Tell whether a day lies so far back that Mixpanel is not asked for it."""
    return horizon is not None and day < horizon


KEEP_NONE = Keeping()


_MINUTE, _HOUR = 60, 3600


@dataclass(frozen=True)
class LoadProgress:
    """How far a load of events is.

    Attributes:
        from_date: First of the days that just came.
        to_date: Last of them, included.
        days_done: Days that came so far; those without events are confirmed later.
        days: Days that the load fetches.
        rows: Events stored so far.
        seconds: Since the load began.
        requests_to_come: As many as are left if no answer is broken.
        budget: What is left of the requests of this hour; None when nobody asked.
    """

    from_date: date
    to_date: date
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
        """Seconds to go: at the pace so far, or until the budget has room, whichever is longer."""
        at_this_pace = self.seconds / max(1, self.days_done) * (self.days - self.days_done)
        waiting = self.budget.seconds_for(self.requests_to_come) if self.budget else 0.0
        return max(at_this_pace, waiting)

    def __str__(self) -> str:
        day = str(self.from_date)
        if self.to_date > self.from_date:
            day += f"..{self.to_date}"
        budget = f"{self.budget.left} export requests left this hour, " if self.budget else ""
        return (
            f"{day}: {self.days_done:,} of {self.days:,} days, {self.rows:,} events at "
            f"{self.rows_per_second:,.0f}/s, {budget}about {_span(self.seconds_left)} to go"
        )


def _span(seconds: float) -> str:
    if seconds < 2 * _MINUTE:
        return f"{seconds:,.0f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:,.0f} min"
    return f"{seconds / _HOUR:,.1f} h"
