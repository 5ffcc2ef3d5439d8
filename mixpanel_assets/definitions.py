"""The code location: assembles what the modules of `defs` define."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import dagster as dg
from dagster_shared.utils.warnings import BetaWarning

from mixpanel_assets.defs.assets.events import events_asset
from mixpanel_assets.defs.assets.profiles import group_profiles_assets, profiles_asset
from mixpanel_assets.defs.checks import chosen_checks, event_checks
from mixpanel_assets.defs.io_managers import WarehouseIOManager
from mixpanel_assets.defs.ops import live_query_jobs, streaming_jobs
from mixpanel_assets.defs.ops.history import backfill_history_job
from mixpanel_assets.defs.ops.thinning import keep_snapshots_job
from mixpanel_assets.defs.ops.verification import verify_range_job
from mixpanel_assets.defs.resources import resource_from_environment
from mixpanel_assets.defs.schedules import (
    asset_jobs,
    automation_sensors,
    check_job,
    schedules,
    with_automation,
    with_freshness,
)
from mixpanel_assets.settings import Settings, load_settings


def build_definitions(
    *,
    settings: Settings | None = None,
    resources: Mapping[str, Any] | None = None,
    checks: bool | Collection[str] = True,
) -> dg.Definitions:
    """Return everything that Dagster shows and runs.

    Args:
        settings: Instead of the MP_* variables.
        resources: Replaces resources by name: `mixpanel` (the project) and `warehouse` (the
            storage). Jobs that open the file themselves take that of a `WarehouseIOManager`.
        checks: The checks of `events`: all, none, or those of these names.

    Example:
        >>> defs = build_definitions(resources={"mixpanel": MixpanelResource(region="eu")})
    """
    settings = settings or load_settings()
    chosen = chosen_checks(checks)
    given = dict(resources or {})
    if isinstance(warehouse := given.get("warehouse"), WarehouseIOManager):
        # Jobs that open the file themselves must open the same one.
        settings = settings.model_copy(update={"database": warehouse.known_database})
    mixpanel = given.pop("mixpanel", None) or resource_from_environment(settings)
    project_id, region = mixpanel.known_project
    if isinstance(warehouse, WarehouseIOManager):
        given["warehouse"] = warehouse.of_project(project_id, region)
    database = settings.database_path(project_id)
    with warnings.catch_warnings():
        # Dagster warns that backfill policies may still change, which no user can act on.
        warnings.simplefilter("ignore", BetaWarning)
        assets = [
            asset.map_asset_specs(lambda spec: spec.replace_attributes(owners=settings.owners))
            for asset in (
                events_asset(settings, checks=chosen),
                profiles_asset(settings),
                *group_profiles_assets(settings),
            )
        ]
    return dg.Definitions(
        assets=with_automation(with_freshness(assets, settings), settings),
        asset_checks=event_checks(settings, checks=chosen),
        jobs=[
            *asset_jobs(settings),
            *check_job(chosen),
            backfill_history_job(settings),
            verify_range_job(settings),
            keep_snapshots_job(settings),
            *streaming_jobs(settings),
            *live_query_jobs(settings),
        ],
        schedules=schedules(settings, chosen),
        sensors=automation_sensors(settings),
        resources={
            "mixpanel": mixpanel,
            "warehouse": WarehouseIOManager(
                database=str(database),
                memory_limit=settings.memory_limit,
                lock_timeout=settings.lock_timeout,
                op_retries=settings.op_retries,
                op_retry_seconds=settings.op_retry_seconds,
                snapshot=settings.snapshot,
                project_id=project_id,
                region=region,
            ),
            **given,
        },
        # A step costs 0.14 s in this process and 3.5 s in one of its own.
        executor=dg.in_process_executor,
    )


defs = build_definitions()
