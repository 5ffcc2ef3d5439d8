"""Which days are stored, of those that the settings want."""

from __future__ import annotations

from datetime import UTC, date, datetime

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import ConfigError, TableNotFoundError
from mixpanel_assets.loading.checks import last_day_due
from mixpanel_assets.results import CoverageResult
from mixpanel_assets.rules.days import as_day
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import covered_days


def coverage(
    connection: Connection | None,
    settings: Settings,
    *,
    from_date: date | str | None = None,
    to_date: date | str | None = None,
    table: str | None = None,
    now: datetime | None = None,
) -> CoverageResult:
    """Return the days of the assets' tables; for arguments see `Workspace.coverage`.

    Args:
        connection: Any connection of the database; None: it does not exist.
        settings: The days that are wanted, and when they are settled.
        from_date: The first day.
        to_date: The last day.
        table: One table of an asset.
        now: The current time, aware; None: that of the clock.
    """
    first = as_day(from_date) if from_date is not None else None
    last = as_day(to_date) if to_date is not None else None
    if first and last and first > last:
        raise ConfigError(f"from_date {first} is after to_date {last}; both are included.")
    is_set = "start_date" in settings.model_fields_set
    due = last_day_due(settings, now or datetime.now(UTC))
    found = covered_days(
        connection,
        first=first or (settings.start_date if is_set else None),
        last=min(due, last or due),
        horizon=settings.horizon(),
        settle_days=settings.settle_days,
    )
    tables = sorted({day.table for day in found})
    if table is not None and table not in tables:
        raise TableNotFoundError(table, tables)
    days = (
        day
        for day in found
        if table in (None, day.table) and (first or day.day) <= day.day <= (last or day.day)
    )
    return CoverageResult(tuple(days))
