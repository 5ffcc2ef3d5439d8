"""When assets run: jobs, schedules, automation conditions, freshness. All are off by default."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from mixpanel_assets.defs.names import THE_ONLY_PROJECT, AssetKind, Names
from mixpanel_assets.defs.partitions import range_tags
from mixpanel_assets.loading.checks import EVENTS_COMPLETE, RECONCILED
from mixpanel_assets.loading.late_days import LATE_DAYS
from mixpanel_assets.loading.plan import MOST_DAYS_READ_AGAIN, REFETCH_TAG, Refetch
from mixpanel_assets.rules.days import counted
from mixpanel_assets.rules.zones import periods
from mixpanel_assets.settings import Settings, load_settings

Keys = Sequence[dg.AssetKey]


def asset_jobs(
    names: Names, events: Keys, profiles: Keys, reconciled: Collection[dg.AssetCheckKey] = ()
) -> list[Any]:
    """Return every job that materializes assets, in this process.

    Args:
        names: Prefix the jobs.
        events: The assets of events; without any there is no job for them.
        profiles: The assets of profiles; without any there is no job for them.
        reconciled: Checks that send requests, which the jobs leave out.
    """
    # The list of Any: Dagster does not export the type of these jobs.
    described = [
        ("close_yesterday", events, CLOSING),
        ("snapshot_profiles", profiles, SNAPSHOT),
        ("deep_sweep", events, SWEEP),
    ]
    return [
        dg.define_asset_job(
            names.named(job),
            selection=dg.AssetSelection.assets(*keys) - dg.AssetSelection.checks(*reconciled),
            description=description,
            # A step costs 0.14 s in this process and 3.5 s in one of its own.
            executor_def=dg.in_process_executor,
            tags=_EVERY_STEP if keys == profiles else None,
        )
        for job, keys, description in described
        if keys
    ]


# A run that Dagster starts again may be on another machine, without what the first steps stored. On
# the same one, they find the pages that have arrived.
_EVERY_STEP = {"dagster/retry_strategy": "ALL_STEPS"}

CLOSING = "Fetches one day of events. For a single day: one export request for each table."
SNAPSHOT = (
    "Takes a snapshot of all profiles, also those of groups. Costs one query request per table and "
    "snapshot; Mixpanel does not seem to count the pages after the first (MP_BUDGET_COUNT_PAGES)."
)
SWEEP = (
    "Loads a range of days again, whatever is stored of them, for late events and deletions. Costs "
    "one export request per 200 MB of days and table."
)


_DAY = timedelta(days=1)


def check_job(names: Names, events: dg.AssetKey | None, coverage: dg.AssetKey | None) -> Any:
    """Return the job that checks that no day is missing, and draws the days that are stored.

    Args:
        names: Prefix the job.
        events: The asset of events that has the check; None: it has none.
        coverage: The asset of coverage; None: there is none. One of both there is.
    """
    drawn = dg.AssetSelection.assets(*([coverage] if coverage else []))
    checks = [dg.AssetCheckKey(events, EVENTS_COMPLETE)] if events else []
    return dg.define_asset_job(
        names.named("check_events"),
        selection=drawn | dg.AssetSelection.checks(*checks),
        description="Checks that each day of events up to yesterday is stored, and draws the "
        "calendar of coverage. Sends no request.",
        executor_def=dg.in_process_executor,
        # Nothing to set: without it, the launchpad opens with all fields of the resources.
        config={"ops": {}},
    )


def reconcile_job(names: Names, events: dg.AssetKey) -> Any:
    """Return the job that compares days of events with Mixpanel's own counts."""
    return dg.define_asset_job(
        names.named("reconcile_events"),
        selection=dg.AssetSelection.checks(dg.AssetCheckKey(events, RECONCILED)),
        description="Compares the number of each event and day with Mixpanel's own reports, and "
        "says why they differ: yesterday, or the partitions that are chosen. Costs two query "
        "requests, and no export request.",
        executor_def=dg.in_process_executor,
        config={"ops": {}},
    )


def reconcile_events_schedule(
    settings: Settings, names: Names = THE_ONLY_PROJECT, *, tables: int = 1
) -> dg.ScheduleDefinition:
    """Return the schedule that compares the last month with Mixpanel's own counts each day."""
    hour = deadline_hour(settings)

    @dg.schedule(
        name=names.named("reconcile_events"),
        job_name=names.named("reconcile_events"),
        cron_schedule=deadline_cron(settings),
        execution_timezone=settings.export_zone,
        description=f"Every day at {hour:02d}:00 ({settings.export_zone}), four hours after "
        f"MP_CLOSE_HOUR: compares the last {LATE_DAYS} finished days with Mixpanel's own counts. "
        "Costs two query requests a day.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return _request_for_last(LATE_DAYS, day_of(context, settings) - _DAY, settings)

    return schedule


def schedules(
    settings: Settings, names: Names, events: Keys, profiles: Keys
) -> list[dg.ScheduleDefinition]:
    """Return the schedule of each job of `asset_jobs`, and that of `check_job`."""
    makers = [
        (close_yesterday_schedule, events),
        (snapshot_profiles_schedule, profiles),
        (deep_sweep_schedule, events),
        (check_events_schedule, events),
        (reconcile_events_schedule, events),
    ]
    return [make(settings, names, tables=len(keys)) for make, keys in makers if keys]


def close_yesterday_schedule(
    settings: Settings, names: Names = THE_ONLY_PROJECT, *, tables: int = 1
) -> dg.ScheduleDefinition:
    """Return the schedule that fetches each finished day once late events have arrived."""

    @dg.schedule(
        name=names.named("close_yesterday"),
        job_name=names.named("close_yesterday"),
        cron_schedule=closing_cron(settings),
        execution_timezone=settings.export_zone,
        description=f"Every day at {_clock(settings)}: fetches yesterday, whose last events "
        "Mixpanel shows with some delay (MP_CLOSE_HOUR). Costs "
        f"{'one export request' if tables == 1 else f'{tables} export requests'} a day.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return _request_for(day_of(context, settings) - _DAY, settings)

    return schedule


def snapshot_profiles_schedule(
    settings: Settings, names: Names = THE_ONLY_PROJECT, *, tables: int = 1
) -> dg.ScheduleDefinition:
    """Return the schedule that takes a snapshot of all profiles each day."""

    @dg.schedule(
        name=names.named("snapshot_profiles"),
        job_name=names.named("snapshot_profiles"),
        cron_schedule=snapshot_cron(settings),
        execution_timezone=settings.export_zone,
        description=f"Every day at {_clock(settings, 15)}: takes a snapshot of all profiles as "
        f"they are now, stored for that day. Costs {counted(tables, 'query request')} a day, "
        f"and stores all profiles again (the job {names.named('keep_snapshots')} thins them out).",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return _request_for(day_of(context, settings), settings)

    return schedule


def deep_sweep_schedule(
    settings: Settings, names: Names = THE_ONLY_PROJECT, *, tables: int = 1
) -> dg.ScheduleDefinition:
    """Return the schedule that loads the last finished days again each week, in one run."""
    days = settings.sweep_days

    @dg.schedule(
        name=names.named("deep_sweep"),
        job_name=names.named("deep_sweep"),
        cron_schedule=f"30 {settings.close_hour} * * 1",
        execution_timezone=settings.export_zone,
        description=f"Every Monday at {_clock(settings, 30)}: loads the last {days} finished days "
        "(MP_SWEEP_DAYS) again in one run, for late events and deletions. Costs "
        f"{sweep_cost(settings, tables)} a week, one per 200 MB of days.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return _request_for_last(days, day_of(context, settings) - _DAY, settings)

    return schedule


def check_events_schedule(
    settings: Settings, names: Names = THE_ONLY_PROJECT, *, tables: int = 1
) -> dg.ScheduleDefinition:
    """Return the schedule that checks whether yesterday, or an earlier day, is missing."""
    hour = deadline_hour(settings)
    return dg.ScheduleDefinition(
        name=names.named("check_events"),
        job_name=names.named("check_events"),
        cron_schedule=deadline_cron(settings),
        execution_timezone=settings.export_zone,
        description=f"Every day at {hour:02d}:00 ({settings.export_zone}), four hours after "
        "MP_CLOSE_HOUR: checks that each day of events up to yesterday is stored, and draws the "
        "calendar of coverage. Sends no request.",
    )


def live_query_schedule(
    *assets: dg.AssetsDefinition, name: str = "ask_yesterday", settings: Settings | None = None
) -> dg.ScheduleDefinition:
    """Return a schedule that stores yesterday's results of some `live_query_asset`.

    It ticks at MP_CLOSE_HOUR of the project's zone or of UTC, whichever begins its days later, so
    that the day has ended in both.

    Args:
        assets: Made by `live_query_asset`.
        name: Name of the schedule and of its job.
        settings: Those of the assets; None: the MP_* variables.

    Example:
        >>> signups = live_query_asset("signups", query=SegmentationConfig(event="Sign Up"))
        >>> daily = live_query_schedule(signups)
    """
    known = settings or load_settings()
    zone = _later_zone(known)
    job = dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*assets),
        executor_def=dg.in_process_executor,
    )

    @dg.schedule(
        name=name,
        job=job,
        cron_schedule=closing_cron(known),
        execution_timezone=zone,
        description=f"Every day at {known.close_hour:02d}:00 ({zone}): requests yesterday, which "
        f"has ended in UTC and in {known.time_zone}.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        moment: datetime = context.scheduled_execution_time
        return _request_for(moment.astimezone(ZoneInfo(zone)).date() - _DAY, known)

    return schedule


def _later_zone(settings: Settings) -> str:
    """Return the project's zone or UTC, whichever begins a day later at any time of the year."""
    today = settings.project_today()
    offsets = [one.offset for one in periods(settings.time_zone, today, today + 366 * _DAY)]
    return settings.time_zone if min(offsets) < timedelta() else "UTC"


def closing_cron(settings: Settings) -> str:
    """Return when yesterday is fetched, in the partitions' zone."""
    return f"0 {settings.close_hour} * * *"


def snapshot_cron(settings: Settings) -> str:
    """Return when profiles are read, in the partitions' zone."""
    return f"15 {settings.close_hour} * * *"


def sweep_cost(settings: Settings, tables: int = 1) -> str:
    """Return what a sweep of some tables costs, in words."""
    days, together = settings.sweep_days, settings.days_per_request
    if together:
        return counted(-(-days // together) * tables, "export request")
    return f"{tables} to {days * tables} export requests"


def day_of(context: dg.ScheduleEvaluationContext, settings: Settings) -> date:
    """Return the day of a tick in the partitions' zone."""
    moment: datetime = context.scheduled_execution_time
    return moment.astimezone(ZoneInfo(settings.export_zone)).date()


def _clock(settings: Settings, minute: int = 0) -> str:
    return f"{settings.close_hour:02d}:{minute:02d} ({settings.export_zone})"


def _in_words(cron: str) -> str:
    if daily := re.fullmatch(r"(\d+) (\d+) \* \* \*", cron):
        return f"daily at {int(daily[2]):02d}:{int(daily[1]):02d}"
    return f"at {cron}"


def _request_for(day: date, settings: Settings) -> dg.RunRequest | dg.SkipReason:
    if day < settings.start_date:
        return _too_early(settings)
    # Dagster starts no second run for a run key, even if the tick is evaluated twice.
    return dg.RunRequest(run_key=day.isoformat(), partition_key=day.isoformat())


def _request_for_last(days: int, last: date, settings: Settings) -> dg.RunRequest | dg.SkipReason:
    """Return the request of one run for a number of days up to the last one, included."""
    if last < settings.start_date:
        return _too_early(settings)
    first = max(settings.start_date, last - (days - 1) * _DAY)
    return dg.RunRequest(run_key=f"{first}..{last}", tags=range_tags(first, last))


def _too_early(settings: Settings) -> dg.SkipReason:
    return dg.SkipReason(f"The first partition is {settings.start_date} (MP_START_DATE).")


def kept_current(kind: AssetKind, settings: Settings) -> dg.AssetSpec:
    """Return an asset's spec with its deadline and, while MP_AUTOMATION is on, its condition."""
    spec = kind.spec
    if kind.rows == "report":
        return spec
    if kind.rows == "day":
        daily = check_condition(settings) if settings.automation else None
        return spec.replace_attributes(automation_condition=daily)
    # A policy looks at any materialization. A backfill of last year would satisfy it while
    # yesterday's events are missing, so events have the check `events_complete` instead.
    if kind.rows != "event":
        spec = spec.replace_attributes(freshness_policy=freshness_policy(settings))
    if not settings.automation:
        return spec
    return spec.replace_attributes(automation_condition=condition(kind, settings))


def automation_sensors(
    settings: Settings, names: Names, keys: Keys
) -> list[dg.AutomationConditionSensorDefinition]:
    """Return the sensor that evaluates the conditions; none while MP_AUTOMATION is off."""
    if not (settings.automation and keys):
        return []
    return [
        dg.AutomationConditionSensorDefinition(
            names.named("keep_current"),
            target=dg.AssetSelection.assets(*keys),
            default_status=dg.DefaultSensorStatus.RUNNING,
            run_tags={REFETCH_TAG: Refetch.stale.value},  # Dagster takes plain text alone
            description="After MP_CLOSE_HOUR, fetches the events of yesterday, of the "
            f"{settings.settle_days} days before that may have received late events "
            "(MP_SETTLE_DAYS), and of missing and failed days of the last month; and takes today's "
            "snapshot of profiles. Days that no longer change are not requested. Costs one export "
            "request per 200 MB of neighbouring days, and one query request a day. An alternative "
            "to the schedules: use one or the other.",
        )
    ]


def condition(kind: AssetKind, settings: Settings) -> dg.AutomationCondition[Any]:
    """Return when an asset is materialized: events a day later than profiles."""
    if kind.rows == "event":
        return days_due_at(closing_cron(settings), settings.export_zone, settings.settle_days)
    cron, zone = snapshot_cron(settings), settings.export_zone
    due = dg.AutomationCondition.on_cron(cron, zone)
    return due.with_label(f"today, {_in_words(cron)} {zone}")


def check_condition(settings: Settings) -> dg.AutomationCondition[Any]:
    """Return when it is checked that no day is missing: at the deadline, as by the schedule."""
    tick = dg.AutomationCondition.cron_tick_passed(deadline_cron(settings), settings.export_zone)
    due = tick & ~dg.AutomationCondition.newly_requested()
    return due.with_label(f"{_in_words(deadline_cron(settings))} {settings.export_zone}")


def days_due_at(cron: str, zone: str, settle_days: int) -> dg.AutomationCondition[Any]:
    """Return the condition that requests incomplete days, at each tick of a cron.

    These are yesterday, days of the last month that were never stored or failed, and days that
    Mixpanel still took late events for when they were stored. A day that fails is requested once
    a tick.
    """
    # Older days are left to backfills, because they may be missing on purpose.
    window = dg.AutomationCondition.in_latest_time_window
    updated = dg.AutomationCondition.newly_updated()
    unsettled = window(timedelta(days=settle_days + 1))
    stored_too_early = (updated & unsettled).since(updated & ~unsettled)
    lacking = unsettled | stored_too_early | dg.AutomationCondition.missing()
    last_month = window(timedelta(days=MOST_DAYS_READ_AGAIN))
    due = yesterday_at(cron, zone) | (last_month & lacking & _finished_at(cron, zone))
    return due.with_label(f"incomplete days, {_in_words(cron)} {zone}")


def yesterday_at(cron: str, zone: str) -> dg.AutomationCondition[Any]:
    """Return the condition that requests the day before the current one at a cron's ticks."""
    # `on_cron` would request the latest partition, which is the day that has not ended.
    latest_two = dg.AutomationCondition.in_latest_time_window(timedelta(days=2))
    due = latest_two & _finished_at(cron, zone)
    return due.with_label(f"yesterday, {_in_words(cron)} {zone}")


def _finished_at(cron: str, zone: str) -> dg.AutomationCondition[Any]:
    """Return the condition of days that have ended and were not handled since the last tick."""
    # A tick counts only after the day's end, not while the day was still the latest partition.
    latest = dg.AutomationCondition.in_latest_time_window()
    handled = dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
    tick = dg.AutomationCondition.cron_tick_passed(cron, zone)
    return ~latest & tick.since(handled | latest)


GRACE = timedelta(hours=4)  # a spent budget waits up to an hour, and a large day takes time


def deadline_hour(settings: Settings) -> int:
    """Return the hour by which the newest day must be stored, in the partitions' zone."""
    return (settings.close_hour + GRACE // timedelta(hours=1)) % 24


def deadline_cron(settings: Settings) -> str:
    """Return the cron of that hour."""
    return f"0 {deadline_hour(settings)} * * *"


def freshness_policy(settings: Settings) -> dg.FreshnessPolicy:
    """Return a policy: a snapshot is taken within four hours after MP_CLOSE_HOUR."""
    return dg.FreshnessPolicy.cron(
        deadline_cron=deadline_cron(settings),
        lower_bound_delta=GRACE,
        timezone=settings.export_zone,
    )
