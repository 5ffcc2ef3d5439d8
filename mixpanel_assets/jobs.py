"""Jobs and schedules: what runs together, and when."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import dagster as dg

from mixpanel_assets.settings import Settings

close_yesterday = dg.define_asset_job(
    "close_yesterday",
    selection=dg.AssetSelection.assets(["mixpanel", "events"]),
    description="Fetches one day of events. For a single day: one export request.",
)

snapshot_profiles = dg.define_asset_job(
    "snapshot_profiles",
    selection=dg.AssetSelection.assets(["mixpanel", "profiles"]),
    description="Takes a snapshot of all profiles. Costs one query request per snapshot; "
    "Mixpanel is said not to count the pages after the first (MP_BUDGET_COUNT_PAGES).",
)


def close_yesterday_schedule(settings: Settings) -> dg.ScheduleDefinition:
    """Return the schedule that fetches each finished day once its stragglers are in."""

    @dg.schedule(
        job=close_yesterday,
        cron_schedule="0 6 * * *",
        execution_timezone=settings.export_zone,
        name="close_yesterday",
        description="Each day at 06:00 in the partitions' zone: fetches yesterday, whose last "
        "events Mixpanel may show with some delay. Costs one export request a day.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        yesterday = yesterday_of(context.scheduled_execution_time)
        yield dg.RunRequest(run_key=yesterday, partition_key=yesterday)

    return schedule


def yesterday_of(moment: datetime) -> str:
    """Return the partition key of the day before a moment, in the moment's own zone."""
    return (moment.date() - timedelta(days=1)).isoformat()
