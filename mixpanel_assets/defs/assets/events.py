"""The asset `mixpanel/events`: raw events by export day; assets of the events of one filter."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
from pydantic import Field

from mixpanel_assets.client import checked_events
from mixpanel_assets.defs.failures import explained_to_dagster
from mixpanel_assets.defs.metadata import (
    column_schema,
    day_metadata,
    kept_day_metadata,
    table_of,
    vanished_metadata,
)
from mixpanel_assets.defs.partitions import (
    PROFILES_KEY,
    asset_key,
    daily_partitions,
    days_of,
    recorded_partitions,
    run_group,
)
from mixpanel_assets.defs.resources import MixpanelResource
from mixpanel_assets.loading.events import EventLoad, event_load
from mixpanel_assets.loading.plan import REFETCH_TAG, Keeping, LoadProgress, Refetch, is_expired
from mixpanel_assets.rules.days import counted
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.warehouse import EVENTS, DayReport, check_events_asset

ROWS_VANISHED = "rows_vanished"
_ABOUT = (
    "A day is fetched whole, checked and stored in one transaction, or it keeps what it held. "
    "Rows that Mixpanel does not send any more are kept and counted. "
    "Days share export requests, of which Mixpanel allows 60 an hour."
)


class EventsConfig(dg.Config):
    """Which days of the range are fetched."""

    refetch: Refetch | None = Field(
        default=None,
        description="`all`: every day, whatever is stored. `missing`: the days that neither this "
        "run nor one that it goes on with has stored, and those that have ended since. `stale`: "
        "days that were never loaded, failed, were not over, or were read before Mixpanel stopped "
        "taking late events (MP_SETTLE_DAYS). Empty: `all`; `missing` when a run that did not "
        "succeed is re-executed or a step retried; `stale` in runs of the sensor keep_current. "
        "Days left out succeed as they are.",
    )
    accept_smaller: bool = Field(
        default=False,
        description="Make each day equal Mixpanel's response: remove stored rows that it lacks, "
        "instead of keeping them. The log says first which rows these are, as far as the ledger "
        "knows. A day older than MP_RETENTION_DAYS (700 days when it is not set) for which "
        "Mixpanel sends nothing keeps its rows even then.",
    )


def events_asset(
    settings: Settings,
    name: str = EVENTS.name,
    *,
    events: Sequence[str] | None = None,
    where: str | None = None,
    description: str = EVENTS.grain,
) -> dg.AssetsDefinition:
    """Return an asset of events, with partitions as the settings say.

    Args:
        settings: Where answers and rows lie, and what today is.
        name: Of the asset, and of its table in schema `mixpanel`.
        events: Only events of these names; None: every event.
        where: A segmentation expression.
        description: What one row is.
    """
    key = asset_key(name)

    @dg.asset(
        key=key,
        description=f"{description}\n\n{_ABOUT}",
        group_name="mixpanel",
        kinds={"mixpanel", "duckdb"},
        partitions_def=daily_partitions(settings),
        backfill_policy=backfill_policy(settings),
        io_manager_key="warehouse",
        pool=settings.pool,
        check_specs=[
            dg.AssetCheckSpec(
                ROWS_VANISHED,
                asset=key,
                description="Mixpanel still sends every stored row of the days of the run.",
            )
        ],
        metadata={
            "partition_expr": "event_date",
            "dagster/column_schema": column_schema(EVENTS.columns),
            "dagster/table_name": table_of(key),
            "joins_by_distinct_id": dg.MetadataValue.asset(PROFILES_KEY),
        },
    )
    def days_of_events(
        context: dg.AssetExecutionContext, config: EventsConfig, mixpanel: MixpanelResource
    ) -> Iterator[dg.Output[EventLoad] | dg.AssetCheckResult]:
        from_date, to_date = days_of(context.partition_time_window)
        log = _RunLog(context, _keeping(context, config, settings))
        with explained_to_dagster():
            log.load = event_load(
                mixpanel.client(),
                settings,
                from_date=from_date,
                to_date=to_date,
                table=name,
                events=events,
                where=where,
                run_id=context.run.run_id,
                on_day=log.stored,
                on_request=log.answered,
                keeping=log.keeping,
                on_kept=log.kept,
                on_found=log.found,
                on_corrected=log.corrected,
                accept_smaller=config.accept_smaller,
            )
        yield dg.Output(log.load)
        yield rows_vanished_result(log.load.vanished, key)

    return days_of_events


def rows_vanished_result(vanished: Mapping[date, int], key: dg.AssetKey) -> dg.AssetCheckResult:
    """Return the result of the check that Mixpanel still sends all rows that are stored.

    Args:
        vanished: How many rows of each day of a run are kept, though its response lacked them.
        key: The asset.
    """
    rows = sum(vanished.values())
    return dg.AssetCheckResult(
        passed=not vanished,
        asset_key=key,
        check_name=ROWS_VANISHED,
        severity=dg.AssetCheckSeverity.WARN,
        description=_advice(vanished) if vanished else None,
        metadata={"days": len(vanished), "rows_vanished": rows, **vanished_metadata(vanished)},
    )


def _advice(vanished: Mapping[date, int]) -> str:
    return (
        f"Mixpanel does not send {sum(vanished.values()):,} rows any more that are stored: "
        f"{counted(vanished)}. They are kept, and `mixpanel._vanished` lists them. To remove them, "
        "materialize these days with `accept_smaller: true`, or run `mp sync --accept-smaller` for "
        "them; `mp drop-day` removes a whole day."
    )


def backfill_policy(settings: Settings) -> dg.BackfillPolicy:
    """Return how many runs a backfill is: one, or one for so many partitions each."""
    if settings.partitions_per_run:
        return dg.BackfillPolicy.multi_run(settings.partitions_per_run)
    return dg.BackfillPolicy.single_run()


def _keeping(
    context: dg.AssetExecutionContext, config: EventsConfig, settings: Settings
) -> Keeping:
    run_ids = run_group(context.instance, context.run)
    goes_on = len(run_ids) > 1 or context.retry_number > 0
    usual = Refetch(context.run.tags.get(REFETCH_TAG, Refetch.all))
    return Keeping(
        config.refetch or (Refetch.missing if goes_on and usual is Refetch.all else usual),
        run_ids,
        settings.settle_days,
        settings.export_zone,
        settings.today(),
        settings.horizon(),
    )


class _RunLog:
    """Tells a run's log and its partitions' materializations what the load does."""

    load: EventLoad

    def __init__(self, context: dg.AssetExecutionContext, keeping: Keeping) -> None:
        self.keeping = keeping
        self._context = context
        self._budget_left: int | None = None

    def answered(self, progress: LoadProgress) -> None:
        """Say how far the load is."""
        self._budget_left = progress.budget.left if progress.budget else None
        self._context.log.info(str(progress))

    def stored(self, report: DayReport, seconds: float) -> None:
        """Note what a day got."""
        key = report.day.isoformat()
        metadata = day_metadata(report, seconds, budget_left=self._budget_left)
        self.load.materialized[key] = metadata
        self._context.add_asset_metadata(metadata, partition_key=key)

    def kept(self, reports: Sequence[DayReport]) -> None:
        """Note what the days hold that are left as they are."""
        days = len(reports)
        why = f"{self.keeping.reason} (refetch: {self.keeping.refetch})"
        if is_expired(reports[0].day, self.keeping.horizon):
            why = "Mixpanel is not asked for days further back than MP_RETENTION_DAYS"
        self._context.log.info(
            f"{days:,} {'day stays as it is' if days == 1 else 'days stay as they are'}, because "
            f"{why}"
        )
        group = (self.keeping.refetch is Refetch.missing and self.keeping.run_ids) or ()
        recorded = recorded_partitions(self._context.instance, self._context.asset_key, group)
        for report in reports:
            key = report.day.isoformat()
            metadata = {**recorded.get(key, kept_day_metadata(report)), "kept": True}
            self._context.add_asset_metadata(metadata, partition_key=key)
            if group and key not in recorded:  # a killed run could not record it
                self.load.materialized[key] = metadata

    def corrected(self, reports: Sequence[DayReport]) -> None:
        """Note what is left of days once rows of them moved to another day."""
        for report in reports:
            key = report.day.isoformat()
            left = {**kept_day_metadata(report), "rows_vanished": report.rows_vanished}
            self.load.materialized[key] = metadata = {**self.load.materialized[key], **left}
            self._context.add_asset_metadata(metadata, partition_key=key)

    def found(self, reports: Sequence[DayReport]) -> None:
        """Note days that were committed at the moment of an interrupt."""
        for report in reports:
            self.load.materialized[report.day.isoformat()] = kept_day_metadata(report)


def filtered_events_asset(
    name: str,
    *,
    events: Sequence[str] | None = None,
    where: str | None = None,
    description: str = "One row per event that the filter finds; Mixpanel's repeats are removed.",
    settings: Settings | None = None,
) -> dg.AssetsDefinition:
    """Return an asset of some events, with a table of its own; `events` always holds all.

    It promises what `mixpanel/events` promises and has the same columns, partitions and
    metadata. Its days cost export requests of their own, whether `events` holds them or not.

    Args:
        name: Of the asset, and of its table in schema `mixpanel`. A table holds what one filter
            finds: a run with another one is refused and changes nothing.
        events: Only events of these names.
        where: A segmentation expression over event properties, such as
            `properties["country"] == "DE"`; Mixpanel evaluates it.
        description: What one row is; the filter and the cost are added.
        settings: Instead of the MP_* variables.

    Raises:
        ConfigError: There is no filter, or it cannot be asked; or the name is none for a table,
            or a table of the package has it.

    Example:
        >>> orders = filtered_events_asset("orders", events=["Order Completed"])
    """
    known = settings or load_settings()
    day = known.start_date  # the partitions say which days; here, only the filter is looked at
    filters = checked_events(day, day, events, where, None, time_in_ms=True).filters
    check_events_asset(name, filters)
    return events_asset(
        known,
        name,
        events=filters.get("events"),
        where=where,
        description=f"{description} {_told(filters)} Costs one export request for a day; up to 31 "
        "days of a range share one.",
    )


def _told(filters: Mapping[str, Any]) -> str:
    parts = []
    if "events" in filters:
        parts.append(f"named {', '.join(f'`{name}`' for name in filters['events'])}")
    if "where" in filters:
        parts.append(f"where `{filters['where']}`")
    return f"Only events {' and '.join(parts)}."
