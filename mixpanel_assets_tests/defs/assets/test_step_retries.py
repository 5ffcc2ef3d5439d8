"""Steps that failed for a reason that may pass are repeated; no others."""

from typing import Any

import dagster as dg
import pytest

from mixpanel_assets.defs.failures import StepRetries
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.defs.resources import MixpanelResource
from mixpanel_assets.emulator import Fault
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.defs.assets.conftest import EVENTS, PROFILES
from mixpanel_assets_tests.laws import siblings

EXPORT, ENGAGE = "/api/2.0/export", "/api/query/engage"
DAY = "2024-01-03"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"op_retries": 2, "op_retry_seconds": 0.01})


def of_type(result: dg.ExecuteInProcessResult, kind: dg.DagsterEventType) -> list[Any]:
    return [event for event in result.all_events if event.event_type is kind]


def retries(result: dg.ExecuteInProcessResult) -> int:
    return len(of_type(result, dg.DagsterEventType.STEP_UP_FOR_RETRY))


@pytest.mark.parametrize("key", siblings([EVENTS, PROFILES], keep=1))
def test_an_outage_that_passes_is_outlasted(materialize, emulator, key):
    """The client's own tries are used up twice; the third attempt of the step succeeds."""
    path = EXPORT if key == EVENTS else ENGAGE
    emulator.faults.add(Fault("500-json", path=path, times=4))
    result = materialize(key, DAY)
    assert result.success
    assert retries(result) == 2


def test_an_outage_that_stays_fails_with_its_sentence(materialize, emulator):
    """The failure has the library's sentence instead of the number of retries."""
    emulator.faults.add(Fault("500-json", path=EXPORT, times=None))
    result = materialize(EVENTS, DAY)
    assert retries(result) == 2
    [failure] = of_type(result, dg.DagsterEventType.STEP_FAILURE)
    assert "500" in failure.step_failure_data.user_failure_data.description
    assert "Exceeded" not in failure.step_failure_data.error.message


def test_what_cannot_heal_is_not_repeated(materialize, emulator):
    """Refused credentials cost one request."""
    stranger = MixpanelResource(
        username="nobody", secret="wrong", project_id="12345", api_base_url=emulator.base_url
    )
    since = len(emulator.requests)
    result = materialize(EVENTS, DAY, mixpanel=stranger)
    assert not result.success
    assert retries(result) == 0
    assert len(emulator.requests) == since + 1


def test_a_programming_error_is_not_repeated(settings, instance):
    """An error that is not one of the library fails the step at once."""

    class Broken(MixpanelResource):
        def client(self) -> Any:
            raise TypeError("a mistake")

    broken = Broken(username="a", secret="b", project_id="1")
    definitions = build_definitions(settings=settings, resources={"mixpanel": broken})
    result = definitions.resolve_job_def("snapshot_profiles").execute_in_process(
        instance=instance, partition_key=DAY, raise_on_error=False
    )
    assert not result.success
    assert retries(result) == 0


def test_waits_grow_and_differ():
    """Twice as long each time, within half of it."""
    for used in range(4):
        waits = {StepRetries(used, 9, 60).request().seconds_to_wait for _ in range(50)}
        assert len(waits) > 10
        assert min(waits) >= 30 * 2**used
        assert max(waits) <= 90 * 2**used
