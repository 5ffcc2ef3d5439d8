"""Dagster compares stored days with Mixpanel's own counts, and loads late days again."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from mixpanel_assets import build_definitions
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.settings import Settings
from mixpanel_assets.workspace import Workspace
from mixpanel_assets_tests.conftest import resource_of

_DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def fresh() -> Iterator[Emulator]:
    """A project that goes on today."""
    today = datetime.now(UTC).date()
    with Emulator(
        EmulatorSettings(start=today - 6 * _DAY, events_per_day=25, odd_content=False)
    ) as emulator:
        yield emulator


@pytest.fixture
def site(fresh, tmp_path, instance):
    """Its definitions and its loaded copy."""
    fresh.faults.clear()
    today = datetime.now(UTC).date()
    settings = Settings(
        api_base_url=fresh.base_url,
        database=tmp_path / "w.duckdb",
        start_date=today - 5 * _DAY,
        sweep_days=4,
    )
    resource = resource_of(fresh)
    with Workspace(credentials=resource.credentials, settings=settings) as workspace:
        workspace.sync_events(today - 5 * _DAY, today - _DAY)
    definitions = build_definitions(settings=settings, resources={"mixpanel": resource})
    yield definitions, settings, today
    fresh.faults.clear()


def tick(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dg.SensorResult:
    """Evaluate the sensor once."""
    repository = definitions.get_repository_def()
    sensor = repository.get_sensor_def("late_events")
    with dg.build_sensor_context(
        instance=instance, repository_def=repository, resources=definitions.resources
    ) as context:
        return sensor.evaluate_tick(context)


def run_of(request: dg.RunRequest, definitions: dg.Definitions, instance: dg.DagsterInstance):
    """Do what the daemon does with a request of the sensor."""
    job = definitions.resolve_job_def("deep_sweep")
    return job.execute_in_process(
        instance=instance, tags=dict(request.tags), asset_selection=request.asset_selection
    )


def test_the_sensor_loads_days_with_late_events_once(site, fresh, instance):
    """A tick without any skips; a difference has one run key and one run."""
    definitions, _, today = site
    assert tick(definitions, instance).skip_message.endswith("has received late events.")
    late = today - 2 * _DAY
    fresh.faults.add(Fault("late-events", day=late, count=3))
    [request] = tick(definitions, instance).run_requests
    [again] = tick(definitions, instance).run_requests
    assert request.run_key == again.run_key
    assert request.tags["dagster/asset_partition_range_start"] == str(late)
    assert request.tags["dagster/asset_partition_range_end"] == str(late)
    assert run_of(request, definitions, instance).success
    assert not tick(definitions, instance).run_requests


def test_without_counts_the_sensor_sweeps_once_a_day(site, fresh, instance, caplog):
    """It says so."""
    definitions, _, today = site
    fresh.faults.add(Fault("402-json", path="/api/query/events*", times=None))
    [request] = tick(definitions, instance).run_requests
    assert request.tags["dagster/asset_partition_range_start"] == str(today - 4 * _DAY)
    assert request.tags["dagster/asset_partition_range_end"] == str(today - _DAY)
    assert tick(definitions, instance).run_requests[0].run_key == request.run_key


def test_the_check_has_a_result_for_each_day_and_fails_for_unexplained_ones(site, fresh, instance):
    """With the counts as a table and the classes as bars."""
    definitions, _, today = site
    wrong = today - 3 * _DAY
    fresh.faults.add(Fault("wrong-count", day=wrong, count=-1))
    job = definitions.resolve_job_def("reconcile_events")
    tags = {
        "dagster/asset_partition_range_start": str(today - 4 * _DAY),
        "dagster/asset_partition_range_end": str(today),
    }
    result = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
    found = {one.partition: one for one in result.get_asset_check_evaluations()}
    assert {day for day, one in found.items() if not one.passed} == {str(wrong)}
    assert found[str(wrong)].severity == dg.AssetCheckSeverity.ERROR
    assert "unexplained" in found[str(wrong)].metadata["classes"].value
    assert found[str(wrong)].metadata["events_unexplained"].value == 1
    assert found[str(today)].description == "The day has not ended in the project's time zone."
    assert found[str(today - _DAY)].metadata["counts_equal"].value > 2
    assert found[str(wrong)].metadata["lateness"].records[-1].data["percent"] == 100
    assert "1 day" in found[str(wrong)].metadata["lateness_chart"].value


def test_the_jobs_that_load_send_no_query_request(site, fresh, instance):
    """The comparison is a job of its own."""
    definitions, _, today = site
    before = len(fresh.requests)
    job = definitions.resolve_job_def("close_yesterday")
    assert job.execute_in_process(instance=instance, partition_key=str(today - _DAY)).success
    assert {one.path for one in fresh.requests[before:]} == {"/api/2.0/export"}
