"""The asset `mixpanel/events`: raw events, one partition per export day."""

import dagster as dg

from mixpanel_assets.event_loads import EventLoad, event_load
from mixpanel_assets.failures import explained_to_dagster
from mixpanel_assets.partitions import daily_partitions, days_of
from mixpanel_assets.reports import column_schema, day_metadata
from mixpanel_assets.resources import MixpanelResource
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import EVENTS, DayReport


def events_asset(settings: Settings) -> dg.AssetsDefinition:
    """Return the asset, with partitions as the settings say."""

    @dg.asset(
        key=["mixpanel", "events"],
        description=EVENTS.grain,
        group_name="mixpanel",
        kinds={"mixpanel", "duckdb"},
        partitions_def=daily_partitions(settings),
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="warehouse",
        pool=settings.pool,
        metadata={
            "partition_expr": "event_date",
            "dagster/column_schema": column_schema(EVENTS.columns),
        },
    )
    def events(context: dg.AssetExecutionContext, mixpanel: MixpanelResource) -> EventLoad:
        def report_day(report: DayReport, seconds: float) -> None:
            key = report.day.isoformat()
            load.materialized[key] = metadata = day_metadata(report, seconds)
            context.add_asset_metadata(metadata, partition_key=key)

        from_date, to_date = days_of(context.partition_time_window)
        with explained_to_dagster():
            load = event_load(
                mixpanel.client(),
                settings,
                from_date=from_date,
                to_date=to_date,
                run_id=context.run.run_id,
                on_day=report_day,
            )
        return load

    return events
