"""The job `backfill_history`: load all missing days under the hourly limit."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from mixpanel_assets.client import MixpanelAPIClient
from mixpanel_assets.defs.machines import step_database
from mixpanel_assets.defs.metadata import day_metadata, kept_day_metadata
from mixpanel_assets.defs.names import NO_HOOKS, AssetHooks, Names, opening
from mixpanel_assets.defs.resources import client_of_step
from mixpanel_assets.loading.events import EventLoad, LoadListener, plan_load
from mixpanel_assets.loading.plan import Keeping, LoadProgress, Plan, Refetch
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import DayReport, Publisher


class HistoryConfig(dg.Config):
    """Whether days are loaded, or only planned."""

    only_plan: bool = Field(
        default=False, description="Only log what the load would take. Sends no request."
    )


def backfill_history_job(
    settings: Settings, names: Names, events: dg.AssetKey, hooks: AssetHooks = NO_HOOKS
) -> dg.JobDefinition:
    """Return the job that loads missing days; started again, it continues where it ended.

    Args:
        settings: The days, and where responses and rows are kept.
        names: Prefix the job.
        events: The asset whose partitions the days are.
        hooks: Those of the asset.
    """

    @dg.op(
        name=names.named("load_history"),
        required_resource_keys=names.resource_keys,
        description="Logs what the load takes (days, requests, time by the budget, disk), then "
        "loads each day that was never loaded or may have received events since, and records it as "
        f"a partition of {events.to_user_string()}.",
    )
    def load_history(context: dg.OpExecutionContext, config: HistoryConfig) -> None:
        listener = _HistoryListener(context, events, hooks)
        with client_of_step(names.resource(context), context, settings) as client:
            plan = _load(context, client, settings, listener, events, only_plan=config.only_plan)
        context.add_output_metadata(plan_metadata(plan) if plan else {"days": 0})

    @dg.job(
        name=names.named("backfill_history"),
        executor_def=dg.in_process_executor,
        config=opening(load_history, HistoryConfig().model_dump()),
        description="Loads every day from MP_START_DATE to yesterday that is not stored yet, or "
        "that was read before its last events had arrived. Needs no configuration; `only_plan` "
        "logs what it takes without loading. Costs one export request for about 200 MB of days, 31 "
        "at most, of 58 requests an hour: a year is 12 requests or more. Started again, it "
        "continues where it ended.",
    )
    def job() -> None:
        load_history()

    return job


def _load(
    context: dg.OpExecutionContext,
    client: MixpanelAPIClient,
    settings: Settings,
    listener: LoadListener,
    events: dg.AssetKey,
    *,
    only_plan: bool,
) -> Plan | None:
    """Load the days; return the plan, None if no day has ended yet."""
    first, last = settings.start_date, settings.today() - timedelta(days=1)
    if first > last:
        context.log.info(f"The first partition is {first}; no day has ended since.")
        return None
    database = step_database(context, settings, client.credentials.project_id)
    keeping = Keeping.of(settings, Refetch.stale)
    plan = plan_load(client, settings, database, from_date=first, to_date=last, keeping=keeping)
    context.log.info(plan_in_words(plan))
    if only_plan:
        return plan
    context.log.info(f"Storing in {database.place}")
    load = EventLoad(
        client,
        settings,
        from_date=first,
        to_date=last,
        run_id=context.run_id,
        listener=listener,
        keeping=keeping,
        asset=events.to_user_string(),
    )
    with Publisher(database, settings.snapshot, context.log.warning).writing():
        load.store(database)
    return plan


def plan_in_words(plan: Plan) -> str:
    """Return what a load takes, as one sentence."""
    if not plan.days:
        gone = f" or expired ({plan.expired:,})" if plan.expired else ""
        return f"{plan.from_date} to {plan.to_date}: every day is stored{gone}."
    size = "an unknown size" if plan.estimated_bytes is None else _megabytes(plan.estimated_bytes)
    more = " (one more if days have no events)" if plan.confirming else ""
    return (
        f"{plan.from_date} to {plan.to_date}: {plan.days:,} days to load with {plan.requests:,} "
        f"export requests{more}, {size} to receive. The last request can be sent in "
        f"{plan.seconds / 60:,.0f} minutes; {_megabytes(plan.free_disk_bytes)} of disk are free."
        + (f" {plan.expired:,} expired days are not requested." if plan.expired else "")
    )


def plan_metadata(plan: Plan) -> dict[str, Any]:
    """Return a plan's numbers without those that are not known."""
    return {name: value for name, value in plan.to_dict().items() if value is not None}


class _HistoryListener(LoadListener):
    """Records each stored day as a materialization at once; the op itself has no partitions."""

    def __init__(
        self, context: dg.OpExecutionContext, events: dg.AssetKey, hooks: AssetHooks
    ) -> None:
        self._context = context
        self._hooks = hooks
        self._events = events
        self._progress: LoadProgress | None = None

    def request_stored(self, progress: LoadProgress) -> None:
        self._progress = progress
        self._context.log.info(str(progress))

    def day_stored(self, report: DayReport, seconds: float) -> None:
        self._record(report, day_metadata(report, seconds, self._progress))

    def days_kept(self, reports: Sequence[DayReport]) -> None:
        # Days that `mp sync` or a killed run stored are not recorded yet.
        known = self._context.instance.get_materialized_partitions(self._events)
        for report in reports:
            if report.day.isoformat() not in known:
                self._record(report, kept_day_metadata(report))

    def days_found(self, reports: Sequence[DayReport]) -> None:
        self.days_kept(reports)

    def days_corrected(self, reports: Sequence[DayReport]) -> None:
        for report in reports:
            self._record(report, kept_day_metadata(report))

    def _record(self, report: DayReport, metadata: dict[str, Any]) -> None:
        day = report.day.isoformat()
        self._context.log_event(
            dg.AssetMaterialization(
                self._events, partition=day, metadata=self._hooks.shown(metadata)
            )
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
