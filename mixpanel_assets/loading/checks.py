"""Checks of stored events: which days are missing, and what is unusual about a day.

Dagster shows the results as asset checks of `mixpanel/events`, `mp doctor` as findings. A check
reads the database and sends no request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from mixpanel_assets.client import MixpanelAPIClient
from mixpanel_assets.errors import ConnectionFailedError, DatabaseNotFoundError
from mixpanel_assets.loading.day_checks import CheckOutcome, CheckThresholds, check_days
from mixpanel_assets.loading.days_behind import STORED, Ledger
from mixpanel_assets.loading.plan import is_expired
from mixpanel_assets.loading.reconciliation import (
    Reconciliation,
    last_ended,
    reconcile,
)
from mixpanel_assets.rules.days import counted, days_between, describe_days, how_to_load
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    CLASSES,
    EVENTS,
    Database,
    ProjectIdentity,
    check_readable,
    day_rows,
)

EVENTS_COMPLETE = "events_complete"
RECONCILED = "reconciled"
NOT_ENDED = "The day has not ended in the project's time zone."

_DAY = timedelta(days=1)
_UNAVAILABLE = ("not available", "expired")
REASONS = {
    "never loaded": "never loaded",
    "not available": "beyond the reach of the project's plan",
    "expired": "further back than MP_RETENTION_DAYS",
    "failed": "not loaded because the last attempt failed",
    "partial": "loaded in part",
    "open": "loaded before its end",
}


def check_events(
    database: Database,
    settings: Settings,
    *,
    checks: Collection[str],
    days: Sequence[date],
    project: ProjectIdentity,
    table: str,
    asset: str,
    now: datetime,
    thresholds: CheckThresholds,
) -> list[CheckOutcome]:
    """Run checks of a table of events.

    Args:
        database: It need not exist.
        settings: The days that are wanted, from MP_START_DATE on.
        checks: Their names.
        days: The days to check one by one.
        project: The project that the database must hold; an empty text in it stands for any.
        table: Its name in schema `mixpanel`.
        asset: The key of its asset.
        now: The current time; aware.
        thresholds: When the check of a day warns.

    Raises:
        ConfigError: The database holds another project.
        StorageError: It cannot be read.
    """
    ledger: Ledger = {}
    found: list[CheckOutcome] = []
    with suppress(DatabaseNotFoundError), database.read() as connection:
        check_readable(connection, database.place, project)
        ledger = day_rows(connection, table, date.min, date.max)
        found = check_days(
            connection, days, table=table, asset=asset, checks=checks, thresholds=thresholds
        )
    if EVENTS_COMPLETE not in checks:
        return found
    first = settings.start_date
    complete = events_complete(ledger, settings, first=first, now=now, table=table, asset=asset)
    return [*found, complete]


def check_reconciled(
    client: MixpanelAPIClient,
    settings: Settings,
    database: Database,
    *,
    days: Sequence[date],
    thresholds: CheckThresholds,
    asset: str,
    now: datetime | None = None,
) -> tuple[list[CheckOutcome], Reconciliation | None]:
    """Compare days with Mixpanel's own counts; return a result for each day, and what was found.

    Args:
        client: Does not wait for the query budget.
        settings: The time zone of the project.
        database: It need not exist.
        days: Days in the project's time zone; those that have not ended pass.
        thresholds: How many events may differ without an explanation.
        asset: The key of the asset of all events.
        now: The current time; aware.
    """
    now = now or datetime.now(UTC)
    ended = list[date]()
    found, said = None, NOT_ENDED
    try:
        last = last_ended(settings, database, now)
        ended = sorted(day for day in days if day <= last)
        if ended:
            first, last = ended[0], ended[-1]
            found = reconcile(client, settings, database, from_date=first, to_date=last, now=now)
            said = found.message if found.unavailable else ""
    except DatabaseNotFoundError:
        said = "No event is stored."
    except ConnectionFailedError as error:
        said = f"Nothing was compared. {error.message}"
    outcomes = []
    for day in sorted(days):
        if found is None or found.unavailable or day not in ended:
            outcomes.append(CheckOutcome(RECONCILED, True, said or NOT_ENDED, day=day))
        else:
            outcomes.append(_reconciled(found.of_day(day), day, thresholds, asset))
    return outcomes, found


def _reconciled(
    found: Reconciliation, day: date, thresholds: CheckThresholds, asset: str
) -> CheckOutcome:
    rows = found.unexplained_rows()
    passed = rows <= thresholds.unexplained_events
    remedy = ""
    if not passed:
        remedy = "`mp verify --again` compares the rows with a second download."
    if found.days_to_load:
        ways = how_to_load(found.days_to_load, EVENTS.name, again=True, asset=asset)
        remedy = f"One load may bring the missing events: {ways}."
    return CheckOutcome(
        RECONCILED,
        passed,
        found.message,
        remedy,
        "error",
        day,
        {
            "events_unexplained": rows,
            **{f"counts_{cls.replace(' ', '_')}": n for cls, n in found.by_class().items()},
        },
        [
            {
                "event": one.event,
                "stored": one.stored,
                "mixpanel": one.live,
                "class": one.cls,
                "why": one.reason or "",
            }
            for one in sorted(found.counts, key=lambda one: (-CLASSES.index(one.cls), one.event))
        ],
    )


def last_day_due(settings: Settings, now: datetime) -> date:
    """Return the last day that is expected to be stored: yesterday from MP_CLOSE_HOUR on.

    Args:
        settings: The zone of the days, and the hour.
        now: The current time; aware.
    """
    here = now.astimezone(ZoneInfo(settings.export_zone))
    return here.date() - _DAY * (1 if here.hour >= settings.close_hour else 2)


def first_day_wanted(ledger: Ledger, settings: Settings) -> date | None:
    """Return MP_START_DATE if it is set, else the first stored day; None if nothing is stored."""
    if "start_date" in settings.model_fields_set:
        return settings.start_date
    return min((day for day, row in ledger.items() if row["status"] in STORED), default=None)


def events_complete(
    ledger: Ledger,
    settings: Settings,
    *,
    first: date,
    now: datetime,
    table: str,
    asset: str | None = None,
) -> CheckOutcome:
    """Check that each day is stored completely, up to the last one that is due.

    Days that Mixpanel has deleted, or that the project's plan does not reach, are named; they
    cannot be loaded, so they do not count as missing.

    Args:
        ledger: The ledger rows of the table, by day.
        settings: Which day is due, and which days Mixpanel still has.
        first: The first day that is wanted. Failed days before it count as missing, too.
        now: The current time; aware.
        table: Its name in schema `mixpanel`.
        asset: The key of its asset; None: that of the only project.
    """
    last, horizon = last_day_due(settings, now), settings.horizon()
    failed = [day for day, row in ledger.items() if row["status"] == "failed" and day <= last]
    days = sorted({*days_between(first, last), *failed})
    lacking = {day: why for day in days if (why := _why_lacking(ledger.get(day), day, horizon))}
    missing = {day: why for day, why in lacking.items() if why not in _UNAVAILABLE}
    unavailable = sorted(lacking.keys() - missing.keys())
    stored = len(days) - len(lacking)
    if missing:
        are = "is" if len(missing) == 1 else "are"
        detail = (
            f"{describe_days(missing)} {are} missing: {len(missing):,} of "
            f"{counted(len(days), 'day')} from {days[0]} to {last} ({_reasons(missing)})."
        )
    elif days:
        detail = f"No day from {days[0]} to {last} is missing."
    else:
        detail = f"No day since {first} is due yet."
    if unavailable:
        reasons = _reasons({day: lacking[day] for day in unavailable})
        detail += f" {describe_days(unavailable)} cannot be loaded ({reasons})."
    return CheckOutcome(
        EVENTS_COMPLETE,
        not missing,
        detail,
        f"Load with {how_to_load(missing, table, asset=asset)}." if missing else "",
        "error",
        numbers={
            "days": len(days),
            "days_stored": stored,
            "days_missing": len(missing),
            "days_unavailable": len(unavailable),
        },
        rows=[_range(*days, why, ledger) for days, why in _ranges(lacking)],
    )


def _why_lacking(row: Mapping[str, Any] | None, day: date, horizon: date | None) -> str | None:
    """Return why a day is not stored completely; None if it is."""
    if row and row["status"] in ("complete", "empty"):
        return None
    if row and row["status"] == "not available":
        return "not available"
    if is_expired(day, horizon):
        return "expired"
    # The horizon moved back, so that an expired day can be loaded.
    return "never loaded" if row is None or row["status"] == "expired" else str(row["status"])


def _reasons(lacking: Mapping[date, str]) -> str:
    """Return how many days lack rows for each reason."""
    counts = Counter(lacking.values()).most_common()
    return ", ".join(f"{days:,} {REASONS[why]}" for why, days in counts)


def _ranges(lacking: Mapping[date, str]) -> list[tuple[tuple[date, date], str]]:
    """Return consecutive days with one reason, in order."""
    ranges: list[tuple[tuple[date, date], str]] = []
    for day, why in sorted(lacking.items()):
        if ranges and ranges[-1][1] == why and ranges[-1][0][1] + _DAY == day:
            ranges[-1] = ((ranges[-1][0][0], day), why)
        else:
            ranges.append(((day, day), why))
    return ranges


def _range(first: date, last: date, why: str, ledger: Ledger) -> dict[str, Any]:
    errors = Counter(
        ledger[day].get("last_error") for day in days_between(first, last) if day in ledger
    )
    return {
        "first_day": str(first),
        "last_day": str(last),
        "days": (last - first).days + 1,
        "why": REASONS[why],
        "last_error": next((error for error, _ in errors.most_common() if error), ""),
    }
