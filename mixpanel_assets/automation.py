"""Conditions that keep the assets current without schedules, if MP_AUTOMATION is on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import dagster as dg

from mixpanel_assets.loading.plan import MOST_DAYS_READ_AGAIN, REFETCH_TAG, Refetch
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
            run_tags={REFETCH_TAG: Refetch.stale.value},  # Dagster takes plain text alone
            description="Once MP_CLOSE_HOUR has passed, fetches yesterday's events, those of the "
            f"days before that may have got late ones ({settings.settle_days} days, "
            "MP_SETTLE_DAYS), and those of days of the last month that are missing or failed; and "
            "takes today's snapshot of profiles. Days that are settled are not asked for. Costs "
            "one export request for as many neighbouring days as weigh about 200 MB, and one "
            "query request a day. An alternative to the schedules: use one or the other.",
        )
    ]


def condition(key: dg.AssetKey, settings: Settings) -> dg.AutomationCondition[Any]:
    """Return when an asset is materialized: events a day later than profiles."""
    if key.path[-1] == "events":
        return days_due_at(closing_cron(settings), settings.export_zone, settings.settle_days)
    return dg.AutomationCondition.on_cron(snapshot_cron(settings), settings.export_zone)


def days_due_at(cron: str, zone: str, settle_days: int) -> dg.AutomationCondition[Any]:
    """Return the condition that asks for days that lack something, at each of a cron's ticks.

    These are yesterday, days of the last month that were never stored (a failed day is one of
    them), and days whose late events may still come, or could when they were stored. A day that
    fails is asked for once a tick. Older days are left to backfills: they may be missing on
    purpose.
    """
    window = dg.AutomationCondition.in_latest_time_window
    updated = dg.AutomationCondition.newly_updated()
    unsettled = window(timedelta(days=settle_days + 1))
    stored_too_early = (updated & unsettled).since(updated & ~unsettled)
    lacking = unsettled | stored_too_early | dg.AutomationCondition.missing()
    last_month = window(timedelta(days=MOST_DAYS_READ_AGAIN))
    due = yesterday_at(cron, zone) | (last_month & lacking & _finished_at(cron, zone))
    return due.with_label(f"missing and late days, at {cron} {zone}")


def yesterday_at(cron: str, zone: str) -> dg.AutomationCondition[Any]:
    """Return the condition that asks for the day before the current one at a cron's ticks.

    `on_cron` would ask for the latest partition, which is the day that is not over yet. A tick
    counts only if it came after the day's end: one that passed while it was still the latest
    partition is forgotten.
    """
    latest_two = dg.AutomationCondition.in_latest_time_window(timedelta(days=2))
    due = latest_two & _finished_at(cron, zone)
    return due.with_label(f"yesterday, at {cron} {zone}")


def _finished_at(cron: str, zone: str) -> dg.AutomationCondition[Any]:
    """Return the condition of days that are over and were not handled since the last tick."""
    latest = dg.AutomationCondition.in_latest_time_window()
    handled = dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
    tick = dg.AutomationCondition.cron_tick_passed(cron, zone)
    return ~latest & tick.since(handled | latest)
