"""SecondLooks: days that came without events are requested once more before they count as empty.

A 200 without a line is also what a proxy or an early end on the server looks like, and a response
that is cut exactly between two lines looks complete. One request confirms all such days that lie
close together; nothing of its response is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from mixpanel_assets.errors import (
    ConnectionFailedError,
    IncompleteExportError,
    PlanHorizonError,
    QueryError,
    ServerError,
)

logger = logging.getLogger(__name__)

MOST_BYTES = 200_000_000  # of JSON, as of other requests
MOST_DAYS = 31  # what every request may have; no limit is documented, and years go well

_DAY = timedelta(days=1)
_UNANSWERED = (ServerError, ConnectionFailedError, IncompleteExportError, QueryError)


@dataclass(frozen=True)
class Confirmed:
    """What one more response said of days that had come without events.

    Attributes:
        empty: It has no event of these either.
        doubtful: It has events of these, or may have: they are to be loaded again.
    """

    empty: list[date]
    doubtful: list[date]


@dataclass
class SecondLooks:
    """Confirms days that came without events, as many as possible with one request.

    Attributes:
        find: Requests days, both ends included, and returns the dates of their events, as
            `EventExport.find_days` does.
        weigh: Returns the JSON bytes of a day between them.
        most_bytes: Days share a request while no more than this lies between them; None: all do.
        by_date: Whether the date of an event is its export day. If not, only neighbours share a
            request, and an event of one makes all of them doubtful.
    """

    find: Callable[[date, date, int | None], set[date] | None]
    weigh: Callable[[date], int]
    most_bytes: int | None = MOST_BYTES
    by_date: bool = True
    _most_days: int | None = None

    def confirm(self, days: Collection[date]) -> Iterator[Confirmed]:
        """Yield what became of the days, request by request.

        A response of many days that stays broken is requested in shorter spans; one of few days
        leaves them doubtful, so that loading them again says what is wrong.

        Raises:
            APIError: Mixpanel refused, and not because of the number of days.
        """
        for group in self._groups(days):
            first, last = group[0], group[-1]
            try:
                found = self.find(first, last, self._limit(first, last))
            except PlanHorizonError:
                found = None
            except _UNANSWERED as error:
                if (last - first).days >= MOST_DAYS:
                    logger.warning("%s Requesting fewer days at a time.", error)
                    self._most_days = MOST_DAYS
                    yield from self.confirm(group)
                    continue
                found = None
            yield self._judged(group, found)

    def is_due(self, days: Collection[date], until: date) -> bool:
        """Tell whether days that come after `until` could not share a request with these."""
        if not days or self.most_bytes is None:
            return False
        if not self.by_date:
            return until > max(days)
        return sum(map(self.weigh, _between(min(days), until))) > self.most_bytes

    def _judged(self, group: list[date], found: set[date] | None) -> Confirmed:
        if found is None or (found and not self.by_date):
            return Confirmed([], group)
        if not found <= set(_between(group[0], group[-1])):
            return Confirmed([], group)
        return Confirmed(
            [day for day in group if day not in found], [day for day in group if day in found]
        )

    def _limit(self, first: date, last: date) -> int | None:
        if self.most_bytes is None:
            return None
        return self.most_bytes + sum(map(self.weigh, _between(first, last)))

    def _groups(self, days: Iterable[date]) -> Iterator[list[date]]:
        group: list[date] = []
        weight = 0
        for day in sorted(days):
            if group:
                weight += sum(map(self.weigh, _between(group[-1] + _DAY, day)))
                if not self._is_joined(group, day, weight):
                    yield group
                    group, weight = [], 0
            group.append(day)
        if group:
            yield group

    def _is_joined(self, group: list[date], day: date, weight: int) -> bool:
        if self._most_days and (day - group[0]).days >= self._most_days:
            return False
        if not self.by_date:
            return day - group[-1] == _DAY
        return self.most_bytes is None or weight <= self.most_bytes


def _between(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]
