"""What people do one thing after another: funnels, retention, frequency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixpanel_assets.literals import HourDayUnit, TimeUnit
from mixpanel_assets.results.base import Result, ResultWithDataFrame
from mixpanel_assets.results.table import Table


@dataclass(frozen=True, repr=False)
class FunnelStep(Result):
    """One step of a funnel.

    Attributes:
        event: What people did.
        count: How many came this far, all dates together.
        conversion_rate: Their part of those at the step before, 0 to 1; 1 for the first step.
    """

    event: str
    count: int
    conversion_rate: float


@dataclass(frozen=True, repr=False)
class FunnelResult(ResultWithDataFrame):
    """How far people came in a saved funnel. The frame holds the steps of everybody.

    Attributes:
        funnel_id: The funnel.
        funnel_name: Its name; empty when Mixpanel does not list it.
        from_date: First day on which people began, included, as text.
        to_date: Last such day, included; steps after it count too, so late days keep growing.
        conversion_rate: The part of those who began that came to the last step, 0 to 1.
        steps: The steps, in order, for everybody.
        segments: The same for each segment, when the funnel was split; the largest first step
            comes first. Someone may be in several segments.
    """

    funnel_id: int
    funnel_name: str
    from_date: str
    to_date: str
    conversion_rate: float
    steps: list[FunnelStep] = field(default_factory=list)
    segments: dict[str, list[FunnelStep]] = field(default_factory=dict)

    def _table(self) -> Table:
        return Table(
            ("step", "event", "count", "conversion_rate"),
            [
                (number, step.event, step.count, step.conversion_rate)
                for number, step in enumerate(self.steps, start=1)
            ],
        )


@dataclass(frozen=True, repr=False)
class CohortInfo(Result):
    """The people who first did something in one period.

    Attributes:
        date: First day of the period, as text.
        size: How many they are.
        retention: The part of them, 0 to 1, that came back in the period itself, in the next
            one, and so on; it need not fall.
    """

    date: str
    size: int
    retention: list[float] = field(default_factory=list)


@dataclass(frozen=True, repr=False)
class RetentionResult(ResultWithDataFrame):
    """How many people came back.

    Attributes:
        born_event: What makes people part of a cohort.
        return_event: What counts as coming back.
        from_date: First day of the first cohorts, included, as text.
        to_date: Last day of the last, included.
        unit: The length of a period.
        cohorts: In order of date.
    """

    born_event: str
    return_event: str
    from_date: str
    to_date: str
    unit: TimeUnit
    cohorts: list[CohortInfo] = field(default_factory=list)

    def _table(self) -> Table:
        rows = {(cohort.date, cohort.size): cohort.retention for cohort in self.cohorts}
        return _periods(("cohort_date", "cohort_size"), rows, first=0)


@dataclass(frozen=True, repr=False)
class FrequencyResult(ResultWithDataFrame):
    """In how many hours or days of a period people were active.

    Attributes:
        event: What counts as active; None: any event.
        from_date: First day, included, as text.
        to_date: Last day, included.
        unit: The length of a period.
        addiction_unit: What is counted in it.
        data: By first day of the period, in order: how many people were active in at least 1,
            2, 3 ... hours or days of it.
    """

    event: str | None
    from_date: str
    to_date: str
    unit: TimeUnit
    addiction_unit: HourDayUnit
    data: dict[str, list[int]] = field(default_factory=dict)

    def _table(self) -> Table:
        return _periods(("date",), {(when,): counts for when, counts in self.data.items()}, first=1)


def _periods(
    heads: tuple[str, ...], rows: Mapping[tuple[Any, ...], Sequence[float]], *, first: int
) -> Table:
    """Return a column per period after the heads; a period that a row lacks is None."""
    longest = max(map(len, rows.values()), default=0)
    return Table(
        (*heads, *(f"period_{first + number}" for number in range(longest))),
        [(*head, *values, *([None] * (longest - len(values)))) for head, values in rows.items()],
    )
