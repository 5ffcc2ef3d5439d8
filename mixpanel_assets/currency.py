"""How far a database lags behind: which days to load so that it is current."""

from __future__ import annotations

from datetime import date, timedelta

from mixpanel_assets.errors import DatabaseNotFoundError
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    EVENTS,
    Database,
    Status,
    Target,
    day_statuses,
    stored_project,
)

_SETTLED: frozenset[Status] = frozenset({"complete", "empty", "not available"})
_DAY = timedelta(days=1)


def days_behind(database: Database, settings: Settings) -> tuple[date, date]:
    """Return the first and last day, both included, to load into `mixpanel.events`.

    The last is today. The first is the last of the days that are complete without a gap, as
    it may have got more events since; MP_START_DATE when no day is stored. So a day that stayed
    broken is asked for again, however many came after it.

    Args:
        database: It need not exist.
        settings: The start, and the zone that decides which day is today.
    """
    today = settings.today()
    settled, first = _stored(database)
    if first is None:
        return min(settings.start_date, today), today
    day = first
    while day in settled and day < today:
        day += _DAY
    return min(max(first, day - _DAY), today), today


def _stored(database: Database) -> tuple[set[date], date | None]:
    try:
        with database.read() as connection:
            if not stored_project(connection):
                return set(), None
            statuses = day_statuses(connection, Target(EVENTS.name))
    except DatabaseNotFoundError:
        return set(), None
    settled = {day for day, status in statuses.items() if status in _SETTLED}
    return settled, min(statuses, default=None)
