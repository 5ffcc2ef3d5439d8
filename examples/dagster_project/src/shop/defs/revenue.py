"""An asset downstream of the events, in the same file, and a check of it."""

import json

import dagster as dg
import pandas as pd

daily = dg.DailyPartitionsDefinition("2024-01-01", end_offset=1)


@dg.asset(
    key=["mixpanel", "daily_revenue"],
    ins={
        "events": dg.AssetIn(
            ["mixpanel", "events"],
            # Only these columns are read.
            metadata={"columns": ["event_date", "event_name", "properties"]},
        )
    },
    partitions_def=daily,
    io_manager_key="mixpanel_warehouse",
    metadata={"partition_expr": "event_date"},
)
def daily_revenue(events: pd.DataFrame) -> pd.DataFrame:
    """One row per day and currency: the orders and their amount."""
    orders = events[events["event_name"] == "Order Completed"]
    properties = orders["properties"].map(json.loads)
    rows = pd.DataFrame(
        {
            "event_date": orders["event_date"],
            "currency": [one.get("currency") for one in properties],
            "amount": [float(one.get("amount") or 0) for one in properties],
        }
    )
    grouped = rows.groupby(["event_date", "currency"], dropna=False)["amount"]
    return grouped.agg(orders="count", amount="sum").reset_index()


@dg.asset_check(asset=["mixpanel", "daily_revenue"], partitions_def=daily)
def amounts_are_positive(daily_revenue: pd.DataFrame) -> dg.AssetCheckResult:
    """No currency has a negative sum."""
    wrong = daily_revenue[daily_revenue["amount"] < 0]
    return dg.AssetCheckResult(passed=wrong.empty, metadata={"wrong_rows": len(wrong)})
