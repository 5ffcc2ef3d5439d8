"""Schedules: at which moment which day is asked for. All are off until somebody turns them on.

The zone of every tick and day is the partitions' own, so that a day is over when it is asked
for, also where clocks change.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from mixpanel_assets.rules.zones import periods
from mixpanel_assets.settings import Settings, load_settings

_DAY = timedelta(days=1)


def schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Return every schedule of the code location."""
    return [
        close_yesterday_schedule(settings),
        snapshot_profiles_schedule(settings),
        deep_sweep_schedule(settings),
    ]


def close_yesterday_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Return the schedule that fetches each finished day once its stragglers are in."""

    @dg.schedule(
        name="close_yesterday",
        job_name="close_yesterday",
        cron_schedule=closing_cron(settings),
        execution_timezone=settings.export_zone,
        description=f"Every day at {_clock(settings)}: fetches yesterday, whose last events "
        "Mixpanel shows with some delay (MP_CLOSE_HOUR). Costs one export request a day.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        yesterday = day_of(context, settings) - _DAY
        if yesterday < settings.start_date:
            return _too_early(settings)
        key = yesterday.isoformat()
        return dg.RunRequest(run_key=key, partition_key=key)

    return schedule


def snapshot_profiles_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Return the schedule that takes a snapshot of all profiles each day."""
    tables = 1 + len(settings.groups)

    @dg.schedule(
        name="snapshot_profiles",
        job_name="snapshot_profiles",
        cron_schedule=snapshot_cron(settings),
        execution_timezone=settings.export_zone,
        description=f"Every day at {_clock(settings, 15)}: takes a snapshot of all profiles as "
        f"they are now, kept under that day. Costs {_counted(tables, 'query request')} a day, "
        "and stores everybody again (the job keep_snapshots thins out).",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        today = day_of(context, settings)
        if today < settings.start_date:
            return _too_early(settings)
        key = today.isoformat()
        return dg.RunRequest(run_key=key, partition_key=key)

    return schedule


def deep_sweep_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Return the schedule that reads the last finished days anew each week, in one run."""
    days = settings.sweep_days

    @dg.schedule(
        name="deep_sweep",
        job_name="deep_sweep",
        cron_schedule=f"30 {settings.close_hour} * * 1",
        execution_timezone=settings.export_zone,
        description=f"Every Monday at {_clock(settings, 30)}: reads the last {days} finished days "
        "(MP_SWEEP_DAYS) anew in one run, for events that came late and for deletions. Costs "
        f"{sweep_cost(settings)} a week: as many days share one as weigh about 200 MB.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        last = day_of(context, settings) - _DAY
        if last < settings.start_date:
            return _too_early(settings)
        first = max(settings.start_date, last - (days - 1) * _DAY)
        return dg.RunRequest(
            run_key=f"{first}..{last}",
            tags={
                "dagster/asset_partition_range_start": first.isoformat(),
                "dagster/asset_partition_range_end": last.isoformat(),
            },
        )

    return schedule


def live_query_schedule(
    *assets: dg.AssetsDefinition, name: str = "ask_yesterday", settings: Settings | None = None
) -> dg.ScheduleDefinition:
    """Return a schedule that stores yesterday's answers of some `live_query_asset`.

    It ticks at MP_CLOSE_HOUR of the project's zone or of UTC, whichever begins its days later, so
    that the day is over in both.

    Args:
        assets: What `live_query_asset` returned.
        name: Of the schedule and of its job.
        settings: Instead of the MP_* variables; those that the assets were made with.

    Example:
        >>> signups = live_query_asset("signups", query=SegmentationConfig(event="Sign Up"))
        >>> daily = live_query_schedule(signups)
    """
    known = settings or load_settings()
    zone = _later_zone(known)
    job = dg.define_asset_job(name, selection=dg.AssetSelection.assets(*assets))

    @dg.schedule(
        name=name,
        job=job,
        cron_schedule=closing_cron(known),
        execution_timezone=zone,
        description=f"Every day at {known.close_hour:02d}:00 ({zone}): asks for yesterday, which "
        f"is over in UTC and in {known.time_zone}.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        moment: datetime = context.scheduled_execution_time
        yesterday = moment.astimezone(ZoneInfo(zone)).date() - _DAY
        if yesterday < known.start_date:
            return _too_early(known)
        key = yesterday.isoformat()
        return dg.RunRequest(run_key=key, partition_key=key)

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


def sweep_cost(settings: Settings) -> str:
    """Return what a sweep costs, in words."""
    days, together = settings.sweep_days, settings.days_per_request
    if together:
        return _counted(-(-days // together), "export request")
    return f"1 to {days} export requests"


def day_of(context: dg.ScheduleEvaluationContext, settings: Settings) -> date:
    """Return the day of a tick in the partitions' zone."""
    moment: datetime = context.scheduled_execution_time
    return moment.astimezone(ZoneInfo(settings.export_zone)).date()


def _clock(settings: Settings, minute: int = 0) -> str:
    return f"{settings.close_hour:02d}:{minute:02d} ({settings.export_zone})"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _too_early(settings: Settings) -> dg.SkipReason:
    return dg.SkipReason(f"The first partition is {settings.start_date} (MP_START_DATE).")
