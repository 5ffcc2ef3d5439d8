"""How many requests we take: Mixpanel's limits, minus a margin and a reserve for colleagues.

Mixpanel allows a project 60 exports an hour, 3 a second and 100 at once, and 60 queries an
hour and 5 at once; an hour is any 3,600 seconds. The App API has no limit of this kind.

Source: Mixpanel reference, Rate Limits; read 2026-11.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from pyrate_limiter import Rate

from mixpanel_assets.client.types import Api
from mixpanel_assets.errors import ConfigError

logger = logging.getLogger(__name__)

IN_PROCESS = ":memory:"

# 80 % of the queries that Mixpanel allows in an hour.
MANY_PAGES = 49


@dataclass(frozen=True)
class ApiLimits:
    """What one API family may be asked; None means that there is no limit.

    Attributes:
        per_window: Requests in any window.
        window_seconds: Length of the window.
        spacing_seconds: Least time between two requests.
        at_once: Requests that run at the same time.
    """

    per_window: int | None = None
    window_seconds: float = 3605.0
    spacing_seconds: float | None = None
    at_once: int | None = None

    def rates(self) -> list[Rate]:
        """Return the limits as pyrate-limiter takes them: shortest window first, each one felt."""
        if self.per_window is None:
            return []
        window = Rate(self.per_window, _milliseconds(self.window_seconds))
        if self.spacing_seconds is None or self.per_window == 1:
            return [window]
        spacing = Rate(1, _milliseconds(self.spacing_seconds))
        spacing_is_all = self.per_window * spacing.interval > window.interval
        return [spacing] if spacing_is_all else [spacing, window]


@dataclass(frozen=True)
class BudgetSettings:
    """How much of a project's request budget is ours, and where it is kept.

    Attributes:
        state_dir: Folder of the ledgers; None is `~/.mp/state`, `:memory:` this process alone.
        reserve: Requests per hour of each API that are left for colleagues.
        export_per_hour: Exports per window, 2 below Mixpanel's limit.
        export_per_second: Exports per second. They are spread evenly: two at the end of one
            second and two at the start of the next would be four within one.
        query_per_hour: Queries per window, 2 below Mixpanel's limit.
        query_at_once: Queries that run at the same time, in all processes together.
        count_pages: Whether profile pages after the first, free of charge today, count too.
        window_seconds: Length of an "hour"; the 5 s above Mixpanel's make up for requests
            that travel for different times.
        refusal_wait_seconds: Wait after a 429 that names none; doubles until an answer comes.
        longest_refusal_seconds: The most that a 429 can make us wait.
        report_seconds: A wait is told when it begins, and again this often.
        lock_timeout: Seconds to wait for a process that holds the ledger; None: as long as a
            request may wait for its permit.
    """

    state_dir: str | Path | None = None
    reserve: int = 0
    export_per_hour: int = 58
    export_per_second: float = 2.0
    query_per_hour: int = 58
    query_at_once: int = 5
    count_pages: bool = False
    window_seconds: float = 3605.0
    refusal_wait_seconds: float = 60.0
    longest_refusal_seconds: float = 3600.0
    report_seconds: float = 60.0
    lock_timeout: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.reserve < min(self.export_per_hour, self.query_per_hour):
            raise ConfigError(
                f"A reserve of {self.reserve} requests leaves none of {self.export_per_hour} "
                f"exports and {self.query_per_hour} queries per hour; lower MP_BUDGET_RESERVE."
            )

    def limits(self, api: Api) -> ApiLimits:
        """Return what may be asked of an API family."""
        if api == "export":
            return ApiLimits(
                per_window=self.export_per_hour - self.reserve,
                window_seconds=self.window_seconds,
                spacing_seconds=1 / self.export_per_second,
            )
        if api == "query":
            return ApiLimits(
                per_window=self.query_per_hour - self.reserve,
                window_seconds=self.window_seconds,
                at_once=self.query_at_once,
            )
        return ApiLimits()

    def warn_of_many_pages(self, pages: int) -> None:
        """Log what a snapshot of so many pages costs, if that is much."""
        if pages < MANY_PAGES:
            return
        if self.count_pages:
            cost = (
                f"each of them counts (MP_BUDGET_COUNT_PAGES is on), so they take "
                f"{pages / (self.query_per_hour - self.reserve):.1f} hours of the query budget"
            )
        else:
            cost = "only the first counts against the query budget (MP_BUDGET_COUNT_PAGES is off)"
        logger.warning("The profiles come on %s pages: %s.", f"{pages:,}", cost)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
