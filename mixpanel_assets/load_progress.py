"""LoadProgress: how far a load of events is, told after each answer that is stored."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from mixpanel_assets.planning import RequestBudget

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
