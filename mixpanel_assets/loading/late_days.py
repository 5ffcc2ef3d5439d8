"""Which stored days have received late events, by Mixpanel's own counts instead of by age."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import duckdb

from mixpanel_assets.client import MixpanelAPIClient
from mixpanel_assets.errors import ConnectionFailedError, DatabaseNotFoundError
from mixpanel_assets.loading.days_behind import STORED, DaysDue, Ledger
from mixpanel_assets.loading.events import request_plan
from mixpanel_assets.loading.plan import Keeping, Refetch
from mixpanel_assets.loading.reconciliation import (
    Reconciliation,
    calendar_of,
    reconcile,
)
from mixpanel_assets.results import Result
from mixpanel_assets.rules.days import (
    counted,
    days_between,
    describe_days,
    ranges_of,
)
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    EVENTS,
    Calendar,
    Database,
    EventSizes,
    day_rows,
    event_sizes,
    stored_project,
)

# Counts of a month cost as many requests as those of a day.
LATE_DAYS = 31
_DAY = timedelta(days=1)


@dataclass(frozen=True, repr=False)
class LateDays(Result):
    """Stored days to load again for late events.

    Attributes:
        days: In order; with days between them if that saves a request.
        moved: Those of them whose number in Mixpanel's reports a load may explain.
        is_sweep: Whether all days of the fixed sweep are among them: counts are not available, or
            most of these days have moved.
        message: Why these days, in words.
        key: Changes with the numbers in Mixpanel's reports, so that one difference has one key;
            that of a sweep changes once a day.
    """

    days: tuple[date, ...]
    moved: tuple[date, ...]
    is_sweep: bool
    message: str
    key: str


def find_late_days(
    client: MixpanelAPIClient,
    settings: Settings,
    database: Database,
    *,
    sweep: Sequence[date],
    last: date | None = None,
    now: datetime | None = None,
) -> LateDays:
    """Return the stored days that have received late events, at the cost of two query requests.

    It compares the last 31 days with Mixpanel's own counts. The days never take more export
    requests than the fixed sweep would.

    Args:
        client: Names the project; the requests do not wait for the query budget.
        settings: The time zone, and how days share requests.
        database: Need not exist.
        sweep: The days that are loaded again if the counts do not say which.
        last: The last day to compare; None: yesterday in the project's time zone.
        now: The current time; aware.
    """
    now = now or datetime.now(UTC)
    last = last or settings.today() - _DAY
    ledger, sizes, calendar = _stored(database, settings, last)
    if calendar:
        # The days of the calendar begin and end at other times than those of the export.
        last = min(last, calendar.last_ended(now))
    stored = [day for day, row in sorted(ledger.items()) if row["status"] in STORED and day <= last]
    if not stored:
        return LateDays(
            (), (), is_sweep=False, message="No day of the last month is stored.", key=""
        )
    first = max(stored[0], last - (LATE_DAYS - 1) * _DAY)
    try:
        # Without waiting: days can be loaded again without the counts.
        with settings.client(client.credentials, max_wait_seconds=0.0) as hurried:
            found = reconcile(hurried, settings, database, from_date=first, to_date=last, now=now)
    except ConnectionFailedError as error:
        found = Reconciliation(first, last, now, unavailable=error.message)
    if found.unavailable or found.is_of_other_calendar:
        why = found.unavailable or found.message
        return LateDays(
            tuple(sweep),
            (),
            is_sweep=True,
            message=f"Loading {_named(sweep)} again, whatever has changed. {why}",
            key=_sweep_key(now),
        )
    moved = [day for day in found.days_to_load if day in ledger]
    of_sweep = set(sweep) & set(moved)
    if sweep and len(of_sweep) * 2 > len(sweep):
        return LateDays(
            tuple(sorted({*sweep, *moved})),
            tuple(moved),
            is_sweep=True,
            message=f"Late events have arrived for {len(of_sweep):,} of {_named(sweep)}, so all of "
            "them are loaded again.",
            key=_sweep_key(now),
        )
    days = with_days_between(moved, sweep, sizes, settings)
    message = (
        f"Late events have arrived for {_named(moved)}."
        if moved
        else (f"No day from {first} to {last} has received late events.")
    )
    return LateDays(tuple(days), tuple(moved), is_sweep=False, message=message, key=_key(found))


def days_to_sync(
    client: MixpanelAPIClient, settings: Settings, database: Database, due: DaysDue
) -> LateDays:
    """Return the days that keep `mixpanel.events` current, by Mixpanel's counts if possible.

    These are the current day, missing days, days that have received late events, and each day once
    after MP_SETTLE_DAYS, because identity merges change no count.

    Args:
        client: Names the project.
        settings: The time zone, and how days share requests.
        database: Need not exist.
        due: The days that are loaded again if the counts do not say which.
    """
    ledger, sizes, _ = _stored(database, settings, due.today)
    keeping, now = Keeping.of(settings, Refetch.missing), datetime.now(UTC)
    unsettled = [
        day
        for day in due.days
        if day != due.today and day in ledger and not _lacks_rows(ledger, day, keeping)
    ]
    if not any(row["status"] in STORED for day, row in ledger.items() if day < due.today):
        return LateDays(tuple(due.days), (), is_sweep=True, message="", key="")
    late = find_late_days(client, settings, database, sweep=unsettled, now=now)
    if late.is_sweep:
        return replace(late, days=tuple(sorted({*due.days, *late.moved})))
    final = {day for day in unsettled if keeping.settled_at(day) <= now}
    certain = set(due.days) - set(unsettled) | final
    days = with_days_between(sorted(certain | set(late.moved)), due.days, sizes, settings)
    return replace(late, days=tuple(days))


def with_days_between(
    days: Sequence[date], sweep: Sequence[date], sizes: EventSizes, settings: Settings
) -> list[date]:
    """Return days, with as many of those between them as it takes to need no more requests.

    Args:
        days: In order.
        sweep: The days whose number of requests is not exceeded.
        sizes: What is known of the sizes of days.
        settings: How days share requests.
    """

    def requests(some: Collection[date]) -> int:
        plan = request_plan(sorted(some), sizes, settings.days_per_request)
        return len(list(plan))

    most, found = max(1, requests(sweep)), list(days)
    while requests(found) > most:
        ranges = ranges_of(found)
        gaps = [days_between(end + _DAY, begin - _DAY) for (_, end), (begin, _) in pairwise(ranges)]
        if not gaps:
            break
        found = sorted({*found, *min(gaps, key=len)})
    return found


def _lacks_rows(ledger: Ledger, day: date, keeping: Keeping) -> bool:
    row = ledger[day]
    return row["status"] not in STORED or keeping.lacks_rows(row)


_Stored = tuple[Ledger, EventSizes, Calendar | None]
_NOTHING: _Stored = ({}, EventSizes({}, {}), None)


def _stored(database: Database, settings: Settings, last: date) -> _Stored:
    """Return the ledger of the compared days, the sizes of all days, and the project's calendar."""
    with suppress(DatabaseNotFoundError), database.read() as connection:
        return _read(connection, settings, last)
    return _NOTHING


def _read(connection: duckdb.DuckDBPyConnection, settings: Settings, last: date) -> _Stored:
    project = stored_project(connection)
    if project is None:
        return _NOTHING
    ledger = day_rows(connection, EVENTS.name, last - (LATE_DAYS + 1) * _DAY, last + _DAY)
    return ledger, event_sizes(connection), calendar_of(settings, project)


def _named(days: Sequence[date]) -> str:
    return f"{counted(len(days), 'day')} ({describe_days(days)})" if days else "no day"


def _sweep_key(now: datetime) -> str:
    """Return a text that is the same on one day: days that change each hour are loaded once."""
    return f"{now.date()} sweep"


def _key(found: Reconciliation) -> str:
    """Return a text that is the same while the counts are, on one day.

    A difference that a load has answered is not loaded again on the next day either, but one whose
    load failed is.
    """
    counts = [
        (str(one.day), one.event, one.live)
        for one in found.counts
        if one.cls in ("pending", "unexplained")
    ]
    digest = hashlib.sha256(repr(counts).encode()).hexdigest()
    return f"{found.asked_at.date()} {digest[:16]}"
