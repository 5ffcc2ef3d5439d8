"""Findings on everything that a load needs: settings, access, budget, disk, missing days."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Literal

from mixpanel_assets.auth import ConfigManager, ProjectAccess, check_access
from mixpanel_assets.client import Credentials
from mixpanel_assets.client.spool import MARGIN_BYTES, free_bytes
from mixpanel_assets.errors import (
    ConfigError,
    DatabaseLockedError,
    DatabaseNotFoundError,
    MixpanelDataError,
    visible,
)
from mixpanel_assets.loading.checks import events_complete, first_day_wanted, last_day_due
from mixpanel_assets.loading.day_checks import DAY_CHECKS, CheckOutcome, check_days
from mixpanel_assets.loading.days_behind import STORED, Ledger, days_due_in, read_too_early
from mixpanel_assets.results import Result
from mixpanel_assets.rules.days import describe_days
from mixpanel_assets.rules.location import Location
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.warehouse import (
    EVENTS,
    Status,
    check_loadable,
    day_rows,
    only_here,
    stored_bytes,
    stored_project,
)

# The clock decides which day is today, so a larger skew ends days too early or too late.
MOST_SKEW = timedelta(seconds=30)
# A load may hold the file for minutes, which is a finding and no reason to wait.
_LOCK_SECONDS = 2.0
_DAYS_CHECKED = 7

Verdict = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding(Result):
    """The result of one check.

    Attributes:
        status: `fail` prevents loads, or makes them wrong; `warn` may do so.
        what: The subject of the check, in one word.
        detail: What is so.
        remedy: What to do; empty if nothing is needed.
    """

    status: Verdict
    what: str
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"  -> {self.remedy}" if self.remedy else ""
        return visible(f"{self.status:<4}  {self.what}: {self.detail}{remedy}")


def doctor(
    account: str | None = None,
    *,
    credentials: Credentials | None = None,
    settings: Settings | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Finding]:
    """Check everything that a load needs; changes nothing, and raises no error for a finding.

    Sends two requests to Mixpanel, which do not count. Credentials are those given, or those of the
    account as in `Workspace`; `now` returns the time of this machine, in UTC.

    Returns:
        Findings on credentials, region, access, clock, quota, history, zone, database, disk, the
        last stored days of events and the days that only this copy holds. A check that needs
        another comes after it, or is left out.

    Example:
        >>> [finding.what for finding in doctor() if finding.status == "fail"]
        []
    """
    try:
        settings = settings or load_settings()
    except ConfigError as error:
        return [Finding("fail", "settings", error.message, "Correct the variable.")]
    finding, credentials = _credentials_finding(account, credentials)
    findings = [finding]
    if credentials:
        findings += _mixpanel_findings(credentials, settings, now)
    return [*findings, *_database_findings(credentials, settings, now())]


def _credentials_finding(
    account: str | None, given: Credentials | None
) -> tuple[Finding, Credentials | None]:
    if given:
        return Finding("ok", "credentials", f"{given.username}, given in the call"), given
    try:
        resolution = ConfigManager().resolution(account)
        credentials = resolution.credentials()
    except ConfigError as error:
        detail = error.what_went_wrong.rstrip(".")
        remedy = error.what_to_do or "Add an account with `mp auth add`, or set the MP_* variables."
        return Finding("fail", "credentials", detail, remedy), None
    sources = resolution.sources()
    detail = ", ".join(f"{name} from {source}" for name, source in sources.items())
    return Finding("ok", "credentials", detail), credentials


def _mixpanel_findings(
    credentials: Credentials, settings: Settings, now: Callable[[], datetime]
) -> Iterator[Finding]:
    where = f", reached at {settings.api_base_url}" if settings.api_base_url else ""
    yield Finding("ok", "region", f"{credentials.region}{where}")
    try:
        access = check_access(credentials, settings)
        yield Finding(
            "ok",
            "access",
            f"{access.username} may read project {access.project_id} ({access.project_name})",
        )
        yield _clock_finding(credentials, settings, now)
        yield _zone_finding(access, settings)
    except MixpanelDataError as error:
        yield Finding("fail", "access", error.message, "Compare with what `mp auth show` says.")
    yield _quota_finding(credentials, settings)


def _clock_finding(
    credentials: Credentials, settings: Settings, now: Callable[[], datetime]
) -> Finding:
    with settings.client(credentials) as client, closing(client.open_transport()) as transport:
        before = now()
        with transport.open("GET", "app", "/me", description="the time") as response:
            after = now()
            sent_at = response.headers.get("date", "")
    try:
        server_time = parsedate_to_datetime(sent_at).astimezone(UTC)
    except ValueError:
        return Finding("warn", "clock", "the response does not say when it was sent")
    # The header has no fractions of a second, and was written at some time between the two.
    clock_behind = max(timedelta(), server_time - after)
    clock_ahead = max(timedelta(), before - server_time - timedelta(seconds=1))
    clock_skew = max(clock_behind, clock_ahead)
    if clock_skew <= MOST_SKEW:
        return Finding("ok", "clock", f"agrees with Mixpanel's within {MOST_SKEW.seconds} s")
    direction = "behind" if clock_behind else "ahead of"
    return Finding(
        "warn",
        "clock",
        f"{clock_skew.total_seconds():,.0f} s {direction} Mixpanel's, so days may end too early or "
        "too late",
        "Set this machine's clock by NTP.",
    )


def _zone_finding(access: ProjectAccess, settings: Settings) -> Finding:
    is_legacy = settings.time_regime == "legacy"
    read = f"times are read as {f'the wall clock of {settings.time_zone}' if is_legacy else 'UTC'}"
    is_same_zone = access.is_in(settings.time_zone)
    if is_same_zone is None:
        zone_in_words = f"names {access.timezone!r}" if access.timezone else "does not name it"
        return Finding(
            "warn",
            "zone",
            f"{read}; the project's own zone is unknown, as Mixpanel {zone_in_words}",
            f"Compare MP_TIME_ZONE={settings.time_zone} with the settings of the project.",
        )
    detail = f"{read}; the project's own zone is {access.timezone}"
    if is_same_zone:
        return Finding("ok", "zone", detail)
    if not is_legacy:
        return Finding(
            "warn",
            "zone",
            f"{detail}, but MP_TIME_ZONE is {settings.time_zone}, so live reports are refused",
            f"Set MP_TIME_ZONE={access.timezone}; for a project from before 2023 set "
            "MP_TIME_REGIME=legacy too.",
        )
    return Finding(
        "fail",
        "zone",
        detail,
        f"Set MP_TIME_ZONE={access.timezone} (MP_TIME_REGIME=utc for a project made since 2023).",
    )


def _quota_finding(credentials: Credentials, settings: Settings) -> Finding:
    try:
        with settings.client(credentials) as client:
            usage = client.quota()
    except MixpanelDataError as error:
        return Finding("fail", "quota", error.message, "Correct MP_STATE_DIR or MP_BUDGET_*.")
    detail = ", ".join(f"{api.api} {api.left} of {api.limit} requests left" for api in usage)
    spent = [api for api in usage if (api.next_slot_at and not api.left) or api.blocked_until]
    if not spent:
        return Finding("ok", "quota", detail)
    free = max(moment for api in spent if (moment := api.blocked_until or api.next_slot_at))
    return Finding("warn", "quota", detail, f"Loads wait until {free:%H:%M} UTC; see `mp quota`.")


def _database_findings(
    credentials: Credentials | None, settings: Settings, now: datetime
) -> Iterator[Finding]:
    project_id = credentials.project_id if credentials else ""
    if credentials or settings.database:
        yield from _database(settings.database_location(project_id), credentials, settings, now)
    yield _disk_finding(settings.spool_path(project_id))


def _database(
    place: Location, credentials: Credentials | None, settings: Settings, now: datetime
) -> Iterator[Finding]:
    if isinstance(place, Path) and (obstacle := _unwritable_file(place)):
        yield obstacle
        return
    timeout = min(_LOCK_SECONDS, settings.lock_timeout or _LOCK_SECONDS)
    hurried_settings = settings.model_copy(update={"database": place, "lock_timeout": timeout})
    database = hurried_settings.database_for(credentials.project_id if credentials else "")
    ledger: Ledger = {}
    days_only_here: list[date] = []
    try:
        with database.read() as connection:
            project = settings.project(credentials) if credentials else None
            check_loadable(connection, project)
            if stored_project(connection):
                ledger = day_rows(connection, EVENTS.name, date.min, date.max)
                days_only_here = only_here(connection, settings.horizon())
            days_due = days_due_in(connection, settings)
            recent = _recent_days(ledger, settings, now)
            outcomes = check_days(connection, recent, table=EVENTS.name)
            size_mb = stored_bytes(connection, place) / 1e6
        if said := database.describe():
            yield Finding("ok", "lake", said)
    except DatabaseNotFoundError:
        yield Finding("ok", "database", f"{place} does not exist yet; the first load creates it")
        return
    except DatabaseLockedError as error:
        yield Finding("warn", "database", error.message, "Wait for it; loads wait too.")
        return
    except MixpanelDataError as error:
        yield Finding("fail", "database", error.message)
        return
    statuses = {day: row["status"] for day, row in ledger.items()}
    yield Finding("ok", "database", f"{place} ({size_mb:,.1f} MB) has {_days_in_words(statuses)}")
    yield _missing_days_finding(ledger, settings, now)
    if days_due.left:
        yield Finding(
            "warn",
            "late",
            read_too_early(days_due.left, settings.settle_days),
            f"`mp sync --from {days_due.left[0]} --to {days_due.left[-1]}` loads them again.",
        )
    for check in DAY_CHECKS:
        if of_days := [outcome for outcome in outcomes if outcome.check == check]:
            yield _day_check_finding(of_days)
    yield _plan_history_finding(statuses)
    if days_only_here:
        yield _only_copy_finding(place, days_only_here)


def _unwritable_file(path: Path) -> Finding | None:
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    for place in (path, folder):
        if place.exists() and not os.access(place, os.W_OK):
            remedy = "Give this user access to it, or set MP_DATABASE to another place."
            return Finding("fail", "database", f"{place} cannot be written", remedy)
    return None


def _days_in_words(statuses: dict[date, Status]) -> str:
    days = sorted(day for day, status in statuses.items() if status in STORED)
    if not days:
        return "no events yet"
    span = (days[-1] - days[0]).days + 1
    number = f"{len(days):,}" if len(days) == span else f"{len(days):,} of {span:,}"
    return f"{number} days of events, {days[0]} to {days[-1]}"


def _missing_days_finding(ledger: Ledger, settings: Settings, now: datetime) -> Finding:
    first = first_day_wanted(ledger, settings)
    if first is None and not ledger:
        return Finding("ok", "days", "nothing was loaded yet")
    today = settings.today()
    return _check_finding(
        "days",
        events_complete(ledger, settings, first=first or today, now=now, table=EVENTS.name),
    )


def _recent_days(ledger: Ledger, settings: Settings, now: datetime) -> list[date]:
    """Return the last stored days that are over."""
    last = last_day_due(settings, now)
    stored = (day for day, row in ledger.items() if row["status"] in STORED and day <= last)
    return sorted(stored)[-_DAYS_CHECKED:]


def _day_check_finding(outcomes: list[CheckOutcome]) -> Finding:
    """Return one finding on several days: on the newest that fails, if one does."""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if not failed:
        days = describe_days(outcome.day for outcome in outcomes if outcome.day)
        return Finding("ok", outcomes[0].check, f"nothing unusual on {days}")
    finding = _check_finding(failed[-1].check, failed[-1])
    if len(failed) == 1:
        return finding
    others = describe_days(outcome.day for outcome in failed[:-1] if outcome.day)
    return replace(finding, detail=f"{finding.detail} (also {others})")


def _check_finding(what: str, outcome: CheckOutcome) -> Finding:
    detail = outcome.detail.removesuffix(".")
    return Finding("ok" if outcome.passed else "warn", what, detail, outcome.remedy)


def _plan_history_finding(statuses: dict[date, Status]) -> Finding:
    refused = [str(day) for day, status in statuses.items() if status == "not available"]
    if not refused:
        return Finding("ok", "history", "no day was refused as older than the plan reaches")
    return Finding(
        "warn",
        "history",
        f"{len(refused):,} days up to {max(refused)} are older than the plan reaches",
        "Set MP_START_DATE to the day after; a larger plan may reach further.",
    )


def _only_copy_finding(place: Location, days: list[date]) -> Finding:
    number = f"{len(days):,} day{'s' if len(days) > 1 else ''} up to {max(days)}"
    return Finding(
        "ok",
        "copy",
        f"{number} can no longer be loaded from Mixpanel",
        f"Back up {place}: no load brings them back.",
    )


def _disk_finding(spool: Path) -> Finding:
    free = free_bytes(spool)
    detail = f"{free / 1e9:,.1f} GB free for responses in {spool}"
    if free >= MARGIN_BYTES:
        return Finding("ok", "disk", detail)
    return Finding(
        "fail", "disk", detail, "Make room (`mp clean`), or set MP_SPOOL_DIR to a larger disk."
    )
