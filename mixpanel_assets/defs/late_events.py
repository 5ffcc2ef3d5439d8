"""The sensor `late_events`: load days again for which Mixpanel counts more events than before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import dagster as dg

from mixpanel_assets.defs.machines import step_database
from mixpanel_assets.defs.names import Names
from mixpanel_assets.defs.partitions import range_tags
from mixpanel_assets.errors import DatabaseLockedError, MixpanelDataError
from mixpanel_assets.loading.late_days import LATE_DAYS, LateDays, find_late_days
from mixpanel_assets.rules.days import days_between, ranges_of
from mixpanel_assets.settings import Settings

WHY_TAG = "mixpanel/late_events"
_HOUR = 3600
_LOCK_SECONDS = 20.0  # a tick that waits for a load would block the other sensors
_DAY = timedelta(days=1)


def late_events_sensor(
    settings: Settings, names: Names, events: dg.AssetKey
) -> dg.SensorDefinition:
    """Return the sensor, which is off by default.

    Args:
        settings: Where rows are kept, and the fixed sweep.
        names: Prefix the sensor, and the job that it starts.
        events: The asset of all events.
    """

    @dg.sensor(
        name=names.named("late_events"),
        job_name=names.named("deep_sweep"),
        minimum_interval_seconds=_HOUR,
        required_resource_keys=names.resource_keys,
        description=f"Every hour: compares the last {LATE_DAYS} days with Mixpanel's own counts, "
        "and loads days again for which Mixpanel counts more events than before. Days at rest cost "
        "no export request. Costs two query requests an hour. Without access to the counts, or if "
        f"most days have changed, it loads the last {settings.sweep_days} days (MP_SWEEP_DAYS) "
        "once a day.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if running := _running(context.instance, names.named("late_events")):
            return dg.SensorResult(skip_reason=f"Run {running} still loads late events.")
        yesterday = settings.today() - _DAY
        sweep = days_between(yesterday - (settings.sweep_days - 1) * _DAY, yesterday)
        hurried = settings.model_copy(update={"lock_timeout": _LOCK_SECONDS})
        resource = getattr(context.resources, names.mixpanel)
        try:
            with resource.client(settings) as client:
                late = find_late_days(
                    client,
                    settings,
                    step_database(context, hurried, client.credentials.project_id),
                    sweep=[day for day in sweep if day >= settings.start_date],
                )
        except DatabaseLockedError as error:
            return dg.SensorResult(skip_reason=error.message)
        except MixpanelDataError as error:
            context.log.warning(error.message)
            return dg.SensorResult(skip_reason=error.message)
        if late.is_sweep:
            context.log.warning(late.message)
        partitions = [day for day in late.days if day >= settings.start_date]
        if not partitions:
            return dg.SensorResult(skip_reason=late.message)
        context.log.info(late.message)
        return dg.SensorResult(
            [_request(days, late, names, events) for days in ranges_of(partitions)]
        )

    return sensor


def _request(
    days: tuple[date, date], late: LateDays, names: Names, events: dg.AssetKey
) -> dg.RunRequest:
    first, last = days
    return dg.RunRequest(
        # Dagster starts no second run for a run key, even if the tick is evaluated twice.
        run_key=f"{names.named('late_events')} {first}..{last} {late.key}",
        asset_selection=[events],
        tags={**range_tags(first, last), WHY_TAG: names.named("late_events")},
    )


def _running(instance: dg.DagsterInstance, name: str) -> str | None:
    """Return a run that has not ended; its days would be requested again."""
    unfinished: Sequence[dg.DagsterRunStatus] = [
        dg.DagsterRunStatus.QUEUED,
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
    ]
    found = instance.get_runs(
        dg.RunsFilter(tags={WHY_TAG: name}, statuses=list(unfinished)), limit=1
    )
    return found[0].run_id if found else None
