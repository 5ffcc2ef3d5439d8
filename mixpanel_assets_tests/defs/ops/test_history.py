"""The job `backfill_history`, run for real on a project that began ten days ago."""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import duckdb
import pytest

from mixpanel_assets.defs.io_managers import WarehouseIOManager
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.settings import Settings
from mixpanel_assets.workspace import Workspace
from mixpanel_assets_tests.defs.ops.conftest import failure_of, metadata_of
from mixpanel_assets_tests.laws import siblings

EVENTS = dg.AssetKey(["mixpanel", "events"])
EXPORT = "/api/2.0/export"


@pytest.fixture(scope="module")
def shared_emulator() -> Iterator[Emulator]:
    """A project that began ten days ago."""
    start = Settings().today() - timedelta(days=10)
    with Emulator(EmulatorSettings(start=start, days=11)) as emulator:
        yield emulator


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Partitions of the last ten finished days, and today."""
    start = settings.today() - timedelta(days=10)
    return settings.model_copy(update={"start_date": start})


def days(settings: Settings) -> list[str]:
    return [str(settings.start_date + timedelta(days=number)) for number in range(10)]


def stored(settings: Settings) -> list[str]:
    with duckdb.connect(settings.database, read_only=True) as connection:
        days = "SELECT day FROM mixpanel._days WHERE status <> 'failed' ORDER BY day"
        rows = connection.execute(days).fetchall()
    return [str(day) for (day,) in rows]


def test_every_finished_day_is_loaded_and_recorded(run, settings, instance, emulator):
    """Without any configuration: the asset's partitions are materialized, today's is not."""
    since = len(emulator.requests)
    result = run("backfill_history")
    assert result.success
    assert stored(settings) == days(settings)
    assert instance.get_materialized_partitions(EVENTS) == set(days(settings))
    plan = metadata_of(result)
    assert plan["days"] == 10
    assert plan["requests"] == len(emulator.requests) - since
    event = instance.get_latest_materialization_event(EVENTS)
    assert {"status", "rows", "events_per_hour"} <= event.asset_materialization.metadata.keys()


@pytest.mark.slow
def test_readers_get_a_snapshot_of_what_was_loaded(run, settings):
    """The snapshot has every day that was loaded."""
    run("backfill_history")
    copy = settings.database.with_name(f"{settings.database.stem}.snapshot.duckdb")
    with duckdb.connect(copy, read_only=True) as connection:
        found = connection.execute("SELECT DISTINCT event_date FROM mixpanel.events ORDER BY ALL")
        assert [str(day) for (day,) in found.fetchall()] == days(settings)


def test_started_again_it_asks_only_for_days_that_may_have_changed(run, settings, emulator):
    """Those of the last five days, whose late events Mixpanel may still get."""
    run("backfill_history")
    since = len(emulator.requests)
    result = run("backfill_history")
    asked = [request.params for request in emulator.requests[since:]]
    assert {params["from_date"] for params in asked} <= set(days(settings)[-5:])
    assert metadata_of(result)["days"] == 5


def test_the_plan_alone_asks_for_nothing(run, settings, emulator):
    """A plan sends no request and creates no file."""
    since = len(emulator.requests)
    result = run("backfill_history", only_plan=True)
    assert metadata_of(result)["days"] == 10
    assert len(emulator.requests) == since
    assert not settings.database.exists()


@pytest.mark.slow
def test_days_that_were_stored_without_dagster_are_recorded(
    run, settings, instance, resource, emulator
):
    """`mp sync` reported nothing to Dagster."""
    with Workspace(credentials=resource.credentials, settings=settings) as workspace:
        workspace.sync_events(settings.start_date, settings.start_date + timedelta(days=1))
    run("backfill_history")
    assert instance.get_materialized_partitions(EVENTS) == set(days(settings))


@pytest.mark.slow
def test_a_broken_day_stops_nothing_and_is_named(run, settings, instance, emulator):
    """The others are stored and recorded; the run fails."""
    broken = settings.start_date + timedelta(days=4)
    emulator.faults.add(Fault("junk-line", path=EXPORT, day=broken, times=None))
    result = run("backfill_history")
    emulator.faults.clear()
    assert not result.success
    assert str(broken) in failure_of(result)
    assert instance.get_materialized_partitions(EVENTS) == set(days(settings)) - {str(broken)}


def test_a_project_that_begins_today_has_no_history(resource, settings, instance):
    """The run succeeds and says so."""
    settings = settings.model_copy(update={"start_date": settings.today()})
    definitions = build_definitions(settings=settings, resources={"mixpanel": resource})
    job = definitions.resolve_job_def("backfill_history")
    assert metadata_of(job.execute_in_process(instance=instance))["days"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("by_variable", siblings([False, True], keep=1))
def test_rows_go_where_the_assets_put_theirs(
    settings, resource, instance, tmp_path, monkeypatch, by_variable
):
    """A `warehouse` that was given decides, so that what is recorded is there."""
    other = tmp_path / "other.duckdb"
    monkeypatch.setenv("ELSEWHERE", str(other))
    place = dg.EnvVar("ELSEWHERE") if by_variable else str(other)
    definitions = build_definitions(
        settings=settings,
        resources={"mixpanel": resource, "warehouse": WarehouseIOManager(database=place)},
    )
    job = definitions.resolve_job_def("backfill_history")
    assert job.execute_in_process(instance=instance).success
    assert stored(settings.model_copy(update={"database": other})) == days(settings)
    assert not settings.database.exists()
