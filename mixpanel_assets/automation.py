"""Conditions that keep the assets current without schedules, if MP_AUTOMATION is on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import dagster as dg

from mixpanel_assets.schedules import closing_cron, snapshot_cron
from mixpanel_assets.settings import Settings


def with_automation(
    assets: Iterable[dg.AssetsDefinition], settings: Settings
) -> list[dg.AssetsDefinition]:
    """Return the assets with their conditions, or as they are while MP_AUTOMATION is off."""
    if not settings.automation:
        return list(assets)
    return [
        asset.map_asset_specs(
            lambda spec: spec.replace_attributes(automation_condition=condition(spec.key, settings))
        )
        for asset in assets
    ]


def automation_sensors(settings: Settings) -> list[dg.AutomationConditionSensorDefinition]:
    """Return the sensor that looks at the conditions; none while MP_AUTOMATION is off."""
    if not settings.automation:
        return []
    return [
        dg.AutomationConditionSensorDefinition(
            "keep_current",
            target=dg.AssetSelection.groups("mixpanel"),
            default_status=dg.DefaultSensorStatus.RUNNING,
            description="Fetches yesterday's events and takes today's snapshot of profiles once "
            "MP_CLOSE_HOUR has passed. Costs one export request and one query request a day. "
            "An alternative to the schedules: use one or the other.",
        )
    ]


def condition(key: dg.AssetKey, settings: Settings) -> dg.AutomationCondition[Any]:
    """Return when an asset is materialized: events a day later than profiles."""
    if key.path[-1] == "events":
        return yesterday_at(closing_cron(settings), settings.export_zone)
    return dg.AutomationCondition.on_cron(snapshot_cron(settings), settings.export_zone)


def yesterday_at(cron: str, zone: str) -> dg.AutomationCondition[Any]:
    """Return the condition that asks for the day before the current one at a cron's ticks.

    `on_cron` would ask for the latest partition, which is the day that is not over yet. A tick
    counts only if it came after the day's end: one that passed while it was still the latest
    partition is forgotten.
    """
    latest = dg.AutomationCondition.in_latest_time_window()
    latest_two = dg.AutomationCondition.in_latest_time_window(timedelta(days=2))
    handled = dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
    tick = dg.AutomationCondition.cron_tick_passed(cron, zone)
    due = latest_two & ~latest & tick.since(handled | latest)
    return due.with_label(f"yesterday, at {cron} {zone}")
