"""The code location of `mp demo --ui`: the assets, and one that is derived from them."""

import warnings

import dagster as dg
import pandas as pd
from dagster_shared.utils.warnings import BetaWarning

from mixpanel_assets.defs.location import build_definitions, linked_to_code
from mixpanel_assets.defs.partitions import daily_partitions
from mixpanel_assets.settings import load_settings

warnings.simplefilter("ignore", BetaWarning)

EVENTS = dg.AssetKey(["mixpanel", "events"])
LINEAGE = dg.TableColumnLineage(
    {
        "event_date": [dg.TableColumnDep(EVENTS, "event_date")],
        "event_name": [dg.TableColumnDep(EVENTS, "event_name")],
        "events": [dg.TableColumnDep(EVENTS, "event_name")],
    }
)


@dg.asset(
    key=["mixpanel", "daily_event_counts"],
    ins={"events": dg.AssetIn(EVENTS)},
    group_name="mixpanel",
    kinds={"pandas", "duckdb"},
    partitions_def=daily_partitions(load_settings()),
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="warehouse",
    metadata={"partition_expr": "event_date"},
)
def daily_event_counts(context: dg.AssetExecutionContext, events: pd.DataFrame) -> pd.DataFrame:
    """One row per day and event name: an example of an asset made from `mixpanel/events`."""
    context.add_output_metadata({"dagster/column_lineage": LINEAGE})
    return events.groupby(["event_date", "event_name"]).size().reset_index(name="events")


defs = linked_to_code(
    dg.Definitions.merge(
        build_definitions(warehouse_key="warehouse", executor=dg.in_process_executor),
        dg.Definitions(assets=[daily_event_counts]),
    )
)
