"""Jobs of the code location, run for real against the emulator."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.defs.resources import MixpanelResource
from mixpanel_assets.emulator import Emulator
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.conftest import resource_of

Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def resource(emulator: Emulator) -> MixpanelResource:
    """The emulator's project."""
    return resource_of(emulator, max_retries=2)


@pytest.fixture
def definitions(settings: Settings, resource: MixpanelResource) -> dg.Definitions:
    """The code location on the emulator."""
    return build_definitions(settings=settings, resources={"mixpanel": resource})


@pytest.fixture
def run(definitions: dg.Definitions, instance: dg.DagsterInstance) -> Run:
    """Run a job whose one op has this configuration."""

    def run(job: str, /, **config: Any) -> dg.ExecuteInProcessResult:
        found = definitions.resolve_job_def(job)
        [op] = found.graph.node_dict
        return found.execute_in_process(
            instance=instance,
            raise_on_error=False,
            run_config={"ops": {op: {"config": config}}},
        )

    return run


def output_of(result: dg.ExecuteInProcessResult) -> Any:
    """What the one op returned."""
    [op] = result.job_def.graph.node_dict
    return result.output_for_node(op)


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """What the one op told Dagster, as plain values."""
    [event] = [e for e in result.all_events if e.is_successful_output]
    metadata = event.event_specific_data.metadata
    return {name: getattr(value, "value", value) for name, value in metadata.items()}


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    """The sentence that the run failed with."""
    [event] = [e for e in result.all_events if e.is_step_failure]
    return event.step_failure_data.error.message
