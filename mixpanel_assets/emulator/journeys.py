"""What people do one thing after another: funnels, retention, frequency."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from mixpanel_assets.emulator.reports import Seen, first_day

Times = dict[str, list[datetime]]

# Consecutive steps this close together count in either order (Mixpanel's Funnels FAQ).
GRACE = timedelta(seconds=2)


@dataclass(frozen=True)
class Funnel:
    """A saved funnel: what has to happen in this order, and within how many days."""

    id: int
    name: str
    steps: tuple[str, ...]
    days: int


FUNNELS = (
    Funnel(
        7509, "Purchase", ("Page View", "Product Viewed", "Added To Cart", "Order Completed"), 7
    ),
    Funnel(9070, "First order", ("Sign Up", "Order Completed"), 14),
)


def times_by_user(events: Iterable[Seen]) -> dict[str, Times]:
    """Return, per user and event name, when it happened, in order."""
    found: dict[str, Times] = defaultdict(lambda: defaultdict(list))
    for seen in events:
        if seen.user is not None:
            found[seen.user][seen.event].append(seen.at)
    for times in found.values():
        for moments in times.values():
            moments.sort()
    return found


def completed(
    steps: Sequence[str], times: Times, start: datetime, within: timedelta
) -> list[datetime]:
    """Return when each step was taken, as far as the user came.

    A step may come up to two seconds before the one it follows. An event serves one step only.
    """
    taken = [start]
    used = {steps[0]: bisect_left(times.get(steps[0], []), start) + 1}
    for step in steps[1:]:
        moments = times.get(step, [])
        following = max(bisect_left(moments, taken[-1] - GRACE), used.get(step, 0))
        if following == len(moments) or moments[following] - start > within:
            break
        taken.append(moments[following])
        used[step] = following + 1
    return taken


def funnel_steps(
    steps: Sequence[str], journeys: Sequence[Sequence[datetime]]
) -> list[dict[str, Any]]:
    """Return the steps of a funnel with counts, conversion and seconds."""
    found = []
    counts = [sum(len(taken) > number for taken in journeys) for number in range(len(steps))]
    for number, step in enumerate(steps):
        here = [taken for taken in journeys if len(taken) > number]
        before = counts[number - 1] if number else counts[0]
        found.append(
            {
                "count": counts[number],
                "avg_time": _average(taken[number] - taken[number - 1] for taken in here)
                if number
                else None,
                "avg_time_from_start": _average(taken[number] - taken[0] for taken in here)
                if number
                else None,
                "step_conv_ratio": _ratio(counts[number], before),
                "overall_conv_ratio": _ratio(counts[number], counts[0]),
                "goal": step,
                "event": step,
                "step_label": step,
            }
        )
    return found


def analysis(steps: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the summary under a funnel's steps."""
    ratios = [step["step_conv_ratio"] for step in steps]
    worst = min(range(1, len(steps)), key=lambda number: ratios[number]) if len(steps) > 1 else 0
    return {
        "completion": steps[-1]["count"],
        "starting_amount": steps[0]["count"],
        "steps": len(steps),
        "worst": worst,
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _average(gaps: Iterable[timedelta]) -> int | None:
    # A step taken just before the one it follows took no time.
    seconds = [max(gap.total_seconds(), 0) for gap in gaps]
    return round(sum(seconds) / len(seconds)) if seconds else None


def retention(
    born: Times, back: Times, *, unit: str, width: timedelta, intervals: int, unbounded: bool
) -> dict[str, dict[str, Any]]:
    """Return, per first day, how many people came and how many came back.

    Args:
        born: When each user first did what makes them count, one moment each or several.
        back: When each user did what counts as coming back, in order.
        unit: What the first days are grouped by.
        width: The length of an interval.
        intervals: How many intervals follow the 0th.
        unbounded: Count a user in every interval up to the last return, however late that is.
    """
    cohorts: dict[str, set[tuple[str, datetime]]] = defaultdict(set)
    for user, moments in born.items():
        grouped: dict[str, datetime] = {}
        for moment in moments:
            grouped.setdefault(first_day(moment.date(), unit).isoformat(), moment)
        for start, moment in grouped.items():
            cohorts[start].add((user, moment))
    found = {}
    for start in sorted(cohorts):
        counts = [0] * (intervals + 1)
        for user, moment in cohorts[start]:
            for number in _intervals(moment, back.get(user, []), width, intervals, unbounded):
                counts[number] += 1
        found[start] = {"counts": counts, "first": len(cohorts[start])}
    return found


def _intervals(
    start: datetime, moments: Sequence[datetime], width: timedelta, most: int, unbounded: bool
) -> set[int]:
    later = moments[bisect_right(moments, start) :]
    reached = {(moment - start) // width for moment in later}
    if unbounded and reached:
        return set(range(min(max(reached), most) + 1))
    return {number for number in reached if number <= most}


def frequency(
    events: Iterable[Seen], days: Sequence[date], unit: str, part: str
) -> dict[str, list[int]]:
    """Return, per unit, how many people were active in at least 1, 2, 3 ... of its parts."""
    active: dict[str, dict[str, set[tuple[date, int]]]] = {
        first_day(day, unit).isoformat(): defaultdict(set) for day in days
    }
    for seen in events:
        if seen.user is not None:
            hour = seen.at.hour if part == "hour" else 0
            start = first_day(seen.at.date(), unit).isoformat()
            active[start][seen.user].add((seen.at.date(), hour))
    length = {"day": 1, "week": 7, "month": 31}[unit] * (24 if part == "hour" else 1)
    return {
        start: [sum(len(parts) > least for parts in users.values()) for least in range(length)]
        for start, users in active.items()
    }
