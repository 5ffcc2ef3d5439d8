"""The asset `mixpanel/events`: raw events, one partition per export day."""

import dagster as dg

from mixpanel_assets.event_loads import EventLoad, event_load
from mixpanel_assets.failures import explained_to_dagster
from mixpanel_assets.partitions import daily_partitions, days_of
from mixpanel_assets.reports import column_schema, day_metadata, table_of
from mixpanel_assets.resources import MixpanelResource
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import EVENTS, DayReport

_ABOUT = (
    "A day is fetched whole, checked and replaced in one transaction, or it keeps what it held. "
    "Days share export requests, of which Mixpanel allows 60 an hour."
)


def events_asset(settings: Settings) -> dg.AssetsDefinition:
    """Return the asset, with partitions as the settings say."""
    asset_key = dg.AssetKey(["mixpanel", EVENTS.name])

    @dg.asset(
        key=asset_key,
        description=f"{EVENTS.grain}\n\n{_ABOUT}",
        group_name="mixpanel",
        kinds={"mixpanel", "duckdb"},
        partitions_def=daily_partitions(settings),
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="warehouse",
        metadata={
            "partition_expr": "event_date",
            "dagster/column_schema": column_schema(EVENTS.columns),
            "dagster/table_name": table_of(asset_key),
            "joins_by_distinct_id": dg.MetadataValue.asset(dg.AssetKey(["mixpanel", "profiles"])),
        },
    )
    def events(context: dg.AssetExecutionContext, mixpanel: MixpanelResource) -> EventLoad:
        def report_day(report: DayReport, seconds: float) -> None:
            key = report.day.isoformat()
            load.materialized[key] = metadata = day_metadata(report, seconds, client.quota())
            context.add_asset_metadata(metadata, partition_key=key)

        from_date, to_date = days_of(context.partition_time_window)
        with explained_to_dagster():
            client = mixpanel.client()
            load = event_load(
                client,
                settings,
                from_date=from_date,
                to_date=to_date,
                run_id=context.run.run_id,
                on_day=report_day,
            )
        return load

    return events
