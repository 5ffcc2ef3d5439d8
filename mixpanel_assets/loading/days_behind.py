"""Which days a database lacks, which may have changed, and what deleting a day means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import duckdb

from mixpanel_assets.errors import DatabaseNotFoundError, MissingDaysError
from mixpanel_assets.loading.plan import MOST_DAYS_READ_AGAIN, Keeping, Refetch, is_expired
from mixpanel_assets.results import Result
from mixpanel_assets.rules.days import days_between, describe_days
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    EVENTS,
    EVERY_EVENT,
    SCHEMA,
    Database,
    day_rows,
    drop_day,
    events_target,
    stored_project,
)

STORED = ("complete", "partial", "empty", "open")

Ledger = Mapping[date, Mapping[str, Any]]


@dataclass(frozen=True)
class DaysDue:
    """What `mixpanel.events` lacks.

    Attributes:
        days: To load, in order, the current day included: missing days, and days read less than
            MP_SETTLE_DAYS after their end.
        missing: Days that have ended and are not completely stored: never loaded since the first
            stored day, failed, or loaded before they had ended.
        left: Days that were also read too early, but more than a month ago: they are loaded only
            on request.
        first: The first stored day; MP_START_DATE if none is stored.
        today: The current day.
    """

    days: list[date]
    missing: list[date]
    left: list[date]
    first: date
    today: date


def days_due(database: Database, settings: Settings) -> DaysDue:
    """Return the days to load into `mixpanel.events` so that it is current."""
    try:
        with database.read() as connection:
            return days_due_in(connection, settings)
    except DatabaseNotFoundError:
        return _due({}, settings)


def days_due_in(connection: duckdb.DuckDBPyConnection, settings: Settings) -> DaysDue:
    """Return the days to load, by an open connection."""
    is_empty = stored_project(connection) is None
    return _due({} if is_empty else day_rows(connection, EVENTS.name, date.min, date.max), settings)


def is_due(ledger: Ledger, settings: Settings, day: date) -> bool:
    """Return whether a day would be requested if the ledger were like this."""
    return day in _due(ledger, settings).days and not is_expired(day, settings.horizon())


def _due(ledger: Ledger, settings: Settings) -> DaysDue:
    today = settings.today()
    stored = [day for day, row in ledger.items() if row["status"] in STORED]
    first = min(min(stored, default=settings.start_date), today)
    keeping = Keeping.of(settings, Refetch.missing)
    failed = [day for day, row in ledger.items() if row["status"] == "failed" and day <= today]
    oldest_read_again = today - timedelta(days=MOST_DAYS_READ_AGAIN - 1)
    due = DaysDue(days=[], missing=[], left=[], first=first, today=today)
    # A failed day is due even before the first stored one, because a load has requested it.
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
        f"missing: {describe_days(days)}"
    )


@dataclass(frozen=True, repr=False)
class DroppedDay(Result):
    """A day that was deleted from a table of events, or would be.

    Attributes:
        table: The table, in schema `mixpanel`.
        day: The export day.
        row_count: Its rows.
        quarantined: Its lines in `mixpanel._quarantine`.
        is_loaded_again: Whether `mp sync` without days will load it again.
    """

    table: str
    day: date
    row_count: int
    quarantined: int
    is_loaded_again: bool

    @property
    def message(self) -> str:
        """What is deleted, and what `mp sync` does about it, in words."""
        lines = f" and {self.quarantined:,} quarantined lines" if self.quarantined else ""
        if self.table != EVENTS.name:
            again = f"Materialize this partition of `{SCHEMA}/{self.table}` to load it again."
        elif self.is_loaded_again:
            again = "`mp sync` without days loads it again; Mixpanel may send other events then."
        else:
            again = (
                "`mp sync` without days does not load it again; "
                f"`mp sync --from {self.day} --to {self.day}` does."
            )
        return f"{self.day} of {self.table}: {self.row_count:,} rows{lines}. {again}"


def delete_day(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    day: date,
    *,
    table: str,
    dry_run: bool,
) -> DroppedDay:
    """Delete a day of an asset's table of events; see `Workspace.drop_day`.

    The connection is inside a transaction. With `dry_run` it need not be, and nothing is deleted.

    Raises:
        MissingDaysError: Nothing is stored for the day.
        TableNotFoundError: The table does not exist.
        ConfigError: It is not an asset's table of events.
    """
    target = events_target(
        connection,
        table,
        "Days are only deleted from those; `mp drop` deletes other tables completely.",
    )
    ledger = day_rows(connection, target.table, date.min, date.max)
    row = ledger.pop(day, None)
    if row is None:
        raise MissingDaysError(
            f"Nothing is stored for {day} in {target.schema}.{target.table}.",
            table=target.table,
            ranges=[(day, day)],
        )
    again = target == EVERY_EVENT and is_due(ledger, settings, day)
    if dry_run:
        return DroppedDay(target.table, day, row["row_count"], row["quarantined"] or 0, again)
    rows, quarantined = drop_day(connection, target, day)
    return DroppedDay(target.table, day, rows, quarantined, again)
