"""Jobs over the assets: what runs together, and what it costs in requests."""

from __future__ import annotations

from typing import Any

import dagster as dg

from mixpanel_assets.settings import Settings

EVENTS = dg.AssetKey(["mixpanel", "events"])


def asset_jobs(settings: Settings) -> list[Any]:
    """Return every job that materializes assets."""
    return [close_yesterday_job(), snapshot_profiles_job(settings), deep_sweep_job()]


def close_yesterday_job() -> Any:
    """Return the job that fetches one day of events."""
    return dg.define_asset_job(
        "close_yesterday",
        selection=[EVENTS],
        description="Fetches one day of events. For a single day: one export request.",
    )


def snapshot_profiles_job(settings: Settings) -> Any:
    """Return the job that takes a snapshot of all profiles, those of groups included."""
    names = ["profiles", *settings.groups]
    return dg.define_asset_job(
        "snapshot_profiles",
        selection=[dg.AssetKey(["mixpanel", name]) for name in names],
        description="Takes a snapshot of all profiles. Costs one query request per table and "
        "snapshot; Mixpanel is said not to count the pages after the first "
        "(MP_BUDGET_COUNT_PAGES).",
    )


def deep_sweep_job() -> Any:
    """Return the job that reads a range of days anew, whatever is stored of them."""
    return dg.define_asset_job(
        "deep_sweep",
        selection=[EVENTS],
        description="Reads a range of days anew, whatever is stored of them: events that came "
        "late, and deletions. Costs one export request for as many days as weigh about 200 MB.",
    )
