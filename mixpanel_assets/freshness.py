"""How old the assets may get before Dagster's UI says so."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import dagster as dg

from mixpanel_assets.settings import Settings

GRACE = timedelta(hours=4)  # a spent budget waits up to an hour, and a big day takes its time


def with_freshness(
    assets: Iterable[dg.AssetsDefinition], settings: Settings
) -> list[dg.AssetsDefinition]:
    """Return the assets with a policy: each day has to be in four hours after MP_CLOSE_HOUR.

    Only what was stored in these four hours counts: an earlier load of yesterday may lack the
    events that Mixpanel shows late.
    """
    policy = freshness_policy(settings)
    return [asset.map_asset_specs(lambda spec: _applied(spec, policy)) for asset in assets]


def freshness_policy(settings: Settings) -> dg.FreshnessPolicy:
    """Return when an asset has to have been stored last, in the partitions' zone."""
    deadline = (settings.close_hour + GRACE // timedelta(hours=1)) % 24
    return dg.FreshnessPolicy.cron(
        deadline_cron=f"0 {deadline} * * *",
        lower_bound_delta=GRACE,
        timezone=settings.export_zone,
    )


def _applied(spec: dg.AssetSpec, policy: dg.FreshnessPolicy) -> dg.AssetSpec:
    return spec.replace_attributes(freshness_policy=policy)
