"""Which of the asked days a load fetches again, and which it keeps as they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from mixpanel_assets.rules.days import SETTLE_DAYS

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
