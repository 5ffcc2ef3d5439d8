"""Compares stored days with what Mixpanel holds now, row by row, by a second download."""

from __future__ import annotations

import math
from datetime import date, timedelta

from mixpanel_assets.client import MixpanelAPIClient
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.loading.events import EventLoad, plan_load
from mixpanel_assets.loading.plan import is_expired
from mixpanel_assets.rules.days import as_day, days_between
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    Database,
    DayDifference,
    check_loadable,
    compare_events,
    database_at,
    expired_days,
)
from mixpanel_assets.warehouse.files import TemporaryFolder


def verify_days(
    client: MixpanelAPIClient,
    settings: Settings,
    database: Database,
    *,
    from_date: date | str,
    to_date: date | str,
) -> list[DayDifference]:
    """Compare stored days of `mixpanel.events` with what Mixpanel holds now; stores nothing.

    The days, both ends included, are downloaded into a temporary file by the code that loads them,
    and cost as many export requests. No lock is held before they have arrived. Quarantined lines
    are not compared.

    Returns:
        One for each day, in order, also for those that are equal. Days further back than
        MP_RETENTION_DAYS are `expired` and cost no request.

    Raises:
        ConfigError: A day has not ended, the range ends before it begins, or the file holds
            another project.
        DatabaseNotFoundError: Nothing is stored yet.
        IncompleteExportError: Days stayed incomplete; no day was compared.

    Example:
        >>> [found.day for found in verify_days(...) if found.differs]
    """
    first, last = as_day(from_date), as_day(to_date)
    if last >= settings.today():
        raise ConfigError(f"{last} has not ended; only finished days can be compared.")
    database.must_exist()
    horizon = settings.horizon()
    expired = [day for day in days_between(first, last) if is_expired(day, horizon)]
    if not expired:
        return _compare(client, settings, database, first, last)
    with database.read() as connection:  # these days lie too far back to be requested
        check_loadable(connection, settings.project(client.credentials))
        differences = expired_days(connection, expired)
    if expired[-1] == last:
        return differences
    return differences + _compare(client, settings, database, expired[-1] + timedelta(days=1), last)


def _compare(
    client: MixpanelAPIClient, settings: Settings, database: Database, first: date, last: date
) -> list[DayDifference]:
    plan = plan_load(client, settings, database, from_date=first, to_date=last)
    load = EventLoad(
        client,
        settings,
        from_date=first,
        to_date=last,
        # The temporary file knows no sizes, which would cost a request to find out.
        days_per_request=math.ceil(plan.days / plan.requests),
    )
    # In a file of its own, because a load replaces the days that it finds.
    folder = TemporaryFolder()
    try:
        fetched = database_at(folder.path / "fetched.duckdb", memory_limit=settings.memory_limit)
        load.store(fetched)
        with database.read() as connection:
            return compare_events(connection, fetched.path, days_between(first, last))
    finally:
        folder.remove()
