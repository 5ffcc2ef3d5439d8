"""Which days keep a database current: those that are missing, and those that may have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import duckdb

from mixpanel_assets.errors import DatabaseNotFoundError
from mixpanel_assets.planning import days_between
from mixpanel_assets.refetch import MOST_DAYS_READ_AGAIN, Keeping, Refetch, is_expired
from mixpanel_assets.rules.days import ranges_of, shown
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import EVENTS, Database, day_rows, stored_project

STORED = ("complete", "partial", "empty", "open")

Ledger = Mapping[date, Mapping[str, Any]]


@dataclass(frozen=True)
class DaysDue:
    """What `mixpanel.events` lacks.

    Attributes:
        days: To load, in order, the current day included: those that are missing, and those read
            less than MP_SETTLE_DAYS after their end.
        missing: Those of them that are over and not stored, or not all of them: never loaded since
            the first stored day, failed, or loaded before they had ended.
        left: Days read too early, too, but more than a month ago: they are loaded when asked for.
        first: The first stored day; MP_START_DATE while there is none.
        today: The current day.
    """

    days: list[date]
    missing: list[date]
    left: list[date]
    first: date
    today: date


def days_due(database: Database, settings: Settings) -> DaysDue:
    """Return the days to load into `mixpanel.events` so that it is current.

    Args:
        database: It need not exist.
        settings: The start, the zone that decides which day is today, and when a day is settled.
    """
    try:
        with database.read() as connection:
            return days_due_in(connection, settings)
    except DatabaseNotFoundError:
        return _due({}, settings)


def days_due_in(connection: duckdb.DuckDBPyConnection, settings: Settings) -> DaysDue:
    """Return the same of a database that is open."""
    is_empty = stored_project(connection) is None
    return _due({} if is_empty else day_rows(connection, EVENTS.name, date.min, date.max), settings)


def is_due(ledger: Ledger, settings: Settings, day: date) -> bool:
    """Tell whether Mixpanel would be asked for a day, were the ledger like this."""
    return day in _due(ledger, settings).days and not is_expired(day, settings.horizon())


def _due(ledger: Ledger, settings: Settings) -> DaysDue:
    today = settings.today()
    stored = [day for day, row in ledger.items() if row["status"] in STORED]
    first = min(min(stored, default=settings.start_date), today)
    keeping = keeping_of(settings, Refetch.missing)
    failed = [day for day, row in ledger.items() if row["status"] == "failed" and day <= today]
    oldest_read_again = today - timedelta(days=MOST_DAYS_READ_AGAIN - 1)
    due = DaysDue(days=[], missing=[], left=[], first=first, today=today)
    for day in sorted({*days_between(first, today), *failed}):
        row = ledger.get(day)
        if day == today:
            due.days.append(day)
        elif row is None or keeping.lacks_rows(row):
            due.days.append(day)
            if (stored or row is not None) and not is_expired(day, keeping.horizon):
                due.missing.append(day)
        elif row["status"] in STORED and not keeping.is_settled(row):
            (due.days if day >= oldest_read_again else due.left).append(day)
    return due


def read_too_early(days: Sequence[date], settle_days: int) -> str:
    """Return which days were read too early, and what that means, as a clause."""
    number = f"{len(days):,} day{' was' if len(days) == 1 else 's were'}"
    return (
        f"{number} read less than {settle_days} days after their end, so late events may be "
        f"missing: {shown(ranges_of(days))}"
    )


def keeping_of(settings: Settings, refetch: Refetch) -> Keeping:
    """Return which days a load keeps that no run of Dagster asks for."""
    return Keeping(
        refetch,
        settle_days=settings.settle_days,
        zone=settings.export_zone,
        today=settings.today(),
        horizon=settings.horizon(),
    )
