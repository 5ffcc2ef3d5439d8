"""Real Dagster runs against the emulator, into a DuckDB file of the test's own."""

from collections.abc import Callable
from functools import cache
from typing import Any

import dagster as dg
import pytest

from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.defs.resources import MixpanelResource
from mixpanel_assets.emulator import Emulator
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import Database
from mixpanel_assets_tests.conftest import resource_of

EVENTS = dg.AssetKey(["mixpanel", "events"])
PROFILES = dg.AssetKey(["mixpanel", "profiles"])

Materialize = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def database(settings: Settings) -> Database:
    """The file that the runs fill."""
    return settings.database_for("12345")


@pytest.fixture
def resource(emulator: Emulator) -> MixpanelResource:
    """The emulator's project."""
    return resource_of(emulator, max_retries=1)


@pytest.fixture
def materialize(
    settings: Settings, resource: MixpanelResource, instance: dg.DagsterInstance
) -> Materialize:
    """Run one asset for a day, or for a range of days, both ends included.

    Without the checks of events unless they are asked for: they take longer than a small load.
    """

    def job_with(checks: bool, **changes: Any) -> dg.JobDefinition:
        definitions = build_definitions(
            settings=settings,
            resources={"mixpanel": resource, **changes},
            checks=checks,
            jobs=False,
        )
        return definitions.resolve_implicit_global_asset_job_def()

    usual_job = cache(job_with)

    def run(
        key: dg.AssetKey,
        first: str,
        last: str | None = None,
        *,
        config: dict[str, Any] | None = None,
        tags: dict[str, str] | None = None,
        checks: bool = False,
        **changes: Any,
    ) -> dg.ExecuteInProcessResult:
        job = job_with(checks, **changes) if changes else usual_job(checks)
        days: dict[str, Any] = {"partition_key": first, "tags": tags or {}}
        if last:
            days = {
                "tags": {
                    **(tags or {}),
                    "dagster/asset_partition_range_start": first,
                    "dagster/asset_partition_range_end": last,
                }
            }
        return job.execute_in_process(
            asset_selection=[key],
            instance=instance,
            raise_on_error=False,
            run_config=config,
            **days,
        )

    return run
