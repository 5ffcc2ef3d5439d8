"""Which days keep a database current: those that are missing, and those that may have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from mixpanel_assets.errors import DatabaseNotFoundError
from mixpanel_assets.planning import days_between
from mixpanel_assets.refetch import Keeping, Refetch
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import EVENTS, Database, day_rows, stored_project

# A database from before a longer MP_SETTLE_DAYS may hold years of days that were read too early.
MOST_DAYS_READ_AGAIN = 31

_STORED = ("complete", "partial", "empty", "open")


@dataclass(frozen=True)
class DaysDue:
    """What `mixpanel.events` lacks.

    Attributes:
        days: To load, in order, the current day included: never loaded since the first stored day,
            failed, loaded before they had ended, or read less than MP_SETTLE_DAYS after their end.
        left: Days read too early, too, but more than a month ago: they are loaded when asked for.
        first: The first stored day; MP_START_DATE while there is none.
        today: The current day.
    """

    days: Sequence[date]
    left: Sequence[date]
    first: date
    today: date


def days_due(database: Database, settings: Settings) -> DaysDue:
    """Return the days to load into `mixpanel.events` so that it is current.

    Args:
        database: It need not exist.
        settings: The start, the zone that decides which day is today, and when a day is settled.
    """
    today = settings.today()
    ledger = _ledger(database)
    stored = [day for day, row in ledger.items() if row["status"] in _STORED]
    first = min(min(stored, default=settings.start_date), today)
    keeping = keeping_of(settings, Refetch.missing)
    failed = [day for day, row in ledger.items() if row["status"] == "failed" and day <= today]
    oldest_read_again = today - timedelta(days=MOST_DAYS_READ_AGAIN - 1)
    days, left = list[date](), list[date]()
    for day in sorted({*days_between(first, today), *failed}):
        row = ledger.get(day)
        if row is None or day == today or keeping.lacks_rows(row):
            days.append(day)
        elif row["status"] in _STORED and not keeping.is_settled(row):
            (days if day >= oldest_read_again else left).append(day)
    return DaysDue(days, left, first, today)


def keeping_of(settings: Settings, refetch: Refetch) -> Keeping:
    """Return which days a load keeps that no run of Dagster asks for."""
    return Keeping(
        refetch,
        settle_days=settings.settle_days,
        zone=settings.export_zone,
        today=settings.today(),
        horizon=settings.horizon(),
    )


def _ledger(database: Database) -> Mapping[date, Mapping[str, Any]]:
    try:
        with database.read() as connection:
            if not stored_project(connection):
                return {}
            return day_rows(connection, EVENTS.name, date.min, date.max)
    except DatabaseNotFoundError:
        return {}
