"""The asset checks of `mixpanel/events`, as Dagster's UI shows them."""

import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster_graphql.test.utils import execute_dagster_graphql

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.defs.checks import CHECKS, event_checks
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.loading.checks import last_day_due
from mixpanel_assets.loading.day_checks import CheckThresholds
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.conftest import resource_of
from mixpanel_assets_tests.odd_days import FAILS, database_bytes, days, odd_day

EVENTS = dg.AssetKey(["mixpanel", "events"])
DAY = timedelta(days=1)

LOCATION = """
import warnings
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    defs = build_definitions(settings=Settings.model_validate_json({settings!r}))
"""
ASKED = """
query ($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) { ... on AssetNode {
    assetChecksOrError { ... on AssetChecks { checks {
      name blocking canExecuteIndividually
      partitionStatuses { ... on AssetCheckTimePartitionStatuses {
        ranges { startKey endKey status }
      } }
      executionForLatestMaterialization { status evaluation {
        severity success description partition metadataEntries {
          label
          ... on IntMetadataEntry { intValue }
          ... on TextMetadataEntry { text }
          ... on TableMetadataEntry { table { records } }
        } } }
    } } }
  } }
}
"""
HISTORY = """
query ($key: AssetKeyInput!, $name: String!) {
  assetCheckExecutions(assetKey: $key, checkName: $name, limit: 100) {
    evaluation { partition success severity description }
  }
}
"""


@pytest.fixture(scope="module")
def shop() -> Iterator[Emulator]:
    """A project with few events on each of the last 60 days."""
    first = datetime.now(UTC).date() - 60 * DAY
    with Emulator(EmulatorSettings(start=first, exact_events=3)) as emulator:
        yield emulator


@pytest.fixture
def here(shop: Emulator, tmp_path: Path) -> Settings:
    """Settings for the shop, of which the last thirty days are wanted."""
    shop.faults.clear()
    last = last_day_due(Settings(), datetime.now(UTC))
    return Settings(
        api_base_url=shop.base_url,
        database=tmp_path / "warehouse.duckdb",
        start_date=last - 29 * DAY,
        max_retries=0,
    )


@pytest.fixture
def workspace(shop: Emulator, here: Settings) -> Iterator[Workspace]:
    """Loads without Dagster."""
    credentials = make_credentials(
        username=shop.username, secret=shop.secret, project_id=str(shop.project_id)
    )
    with Workspace(credentials=credentials, settings=here) as workspace:
        yield workspace


@pytest.fixture
def definitions(shop: Emulator, here: Settings) -> dg.Definitions:
    """The code location of the shop."""
    return build_definitions(settings=here, resources={"mixpanel": resource_of(shop)})


@pytest.fixture
def stored_instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Where Dagster keeps its runs: in files, as its web server needs it."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def ask(
    here: Settings, tmp_path: Path, stored_instance: dg.DagsterInstance
) -> Iterator[Callable[..., Any]]:
    """Return the answers of the web server's GraphQL on the asset of events."""
    location = tmp_path / "location.py"
    location.write_text(LOCATION.format(settings=here.model_dump_json(exclude_unset=True)))
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(python_file=str(location), attribute="defs")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Dagster's own, of its schedules
        target = InProcessWorkspaceLoadTarget([origin])
        with WorkspaceProcessContext(stored_instance, target) as process:

            def answer(query: str, **variables: Any) -> Any:
                request = process.create_request_context()
                variables = {"key": {"path": EVENTS.path}, **variables}
                return execute_dagster_graphql(request, query, variables).data

            yield answer


@pytest.fixture
def shown(ask: Callable[..., Any]) -> Callable[[], dict[str, Any]]:
    """Return the checks of events by name, as the page of the asset gets them."""

    def checks() -> dict[str, Any]:
        nodes = ask(ASKED)["assetNodeOrError"]["assetChecksOrError"]["checks"]
        return {node["name"]: node for node in nodes}

    return checks


def entries(check: dict[str, Any]) -> dict[str, Any]:
    found = check["executionForLatestMaterialization"]["evaluation"]["metadataEntries"]
    values = ({"intValue", "text", "table"} & entry.keys() for entry in found)
    return {entry["label"]: entry[name] for entry, [name] in zip(found, values, strict=True)}


def run_check(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    job = definitions.resolve_job_def("check_events")
    [evaluation] = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    return evaluation


def materialize(
    definitions: dg.Definitions, instance: dg.DagsterInstance, first: date, last: date
) -> dg.ExecuteInProcessResult:
    tags = {
        "dagster/asset_partition_range_start": str(first),
        "dagster/asset_partition_range_end": str(last),
    }
    job = definitions.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(asset_selection=[EVENTS], instance=instance, tags=tags)


def test_the_page_of_the_asset_says_that_seven_of_thirty_days_are_missing(
    definitions, here, workspace, stored_instance, shown
):
    """After a load of the others: which days, why, and the command that loads them."""
    first, last = here.start_date, here.start_date + 29 * DAY
    workspace.sync_events(first + DAY, last - 7 * DAY)
    assert materialize(definitions, stored_instance, first, first).success
    check = shown()["events_complete"]
    assert check["canExecuteIndividually"] == "CAN_EXECUTE"
    execution = check["executionForLatestMaterialization"]
    evaluation = execution["evaluation"]
    assert (execution["status"], evaluation["severity"]) == ("FAILED", "ERROR")
    gap = f"{last - 6 * DAY}..{last}"
    assert evaluation["description"].startswith(f"{gap} are missing: 7 of 30 days from {first}")
    found = entries(check)
    assert (found["days_stored"], found["days_missing"]) == (23, 7)
    command = f"`mp sync --from {last - 6 * DAY} --to {last}`"
    assert command in found["what_to_do"]
    [row] = found["found"]["records"]
    assert f'"first_day": "{last - 6 * DAY}"' in row
    assert '"why": "never loaded"' in row


@pytest.mark.slow
def test_a_backfill_of_old_days_does_not_make_yesterday_fresh(
    definitions, here, instance, workspace
):
    """The check that the schedule runs looks at the days, not at the last load."""
    last = here.start_date + 29 * DAY
    workspace.sync_events(here.start_date, last - DAY)
    materialize(definitions, instance, here.start_date, here.start_date)
    evaluation = run_check(definitions, instance)
    assert not evaluation.passed
    assert evaluation.description.startswith(f"{last} is missing: 1 of 30 days")
    workspace.sync_events(last, last)
    assert run_check(definitions, instance).passed


def test_the_check_waits_for_no_load_and_needs_no_database(definitions, instance, workspace, here):
    """Before the first load every day is missing; a writer is not waited for."""
    assert run_check(definitions, instance).metadata["days_missing"].value == 30
    workspace.sync_events(here.start_date, here.start_date + 29 * DAY)
    with workspace.storage.write():
        assert run_check(definitions, instance).passed


@pytest.fixture
def odd(here: Settings) -> Settings:
    """The settings, with a day in the database for each check to fail."""
    assert here.database is not None
    here.database.write_bytes(database_bytes())
    return here


def run_checks(
    definitions: dg.Definitions, instance: dg.DagsterInstance, *span: date
) -> dg.ExecuteInProcessResult:
    """Run every check without a load: of the days from a first to a last one, or without days."""
    job = definitions.resolve_implicit_global_asset_job_def()
    keys = {key for key in job.asset_layer.asset_graph.asset_check_keys if key.asset_key == EVENTS}
    checks = job.get_subset(asset_selection=set(), asset_check_selection=keys)
    tags = {}
    if span:
        tags["dagster/asset_partition_range_start"] = str(span[0])
        tags["dagster/asset_partition_range_end"] = str(span[-1])
    return checks.execute_in_process(instance=instance, tags=tags, raise_on_error=False)


@pytest.mark.slow
def test_a_run_of_several_days_shows_which_of_them_fail_which_check(
    odd, definitions, stored_instance, shown, ask
):
    """On the page of the asset, for each check and day; the others pass."""
    first, last = days()[-8], days()[-1]
    result = run_checks(definitions, stored_instance, first, last)
    assert not result.success, "event_times is blocking"
    checks = shown()
    assert {name for name, check in checks.items() if check["blocking"]} == {"event_times"}
    for name in FAILS:
        ranges = checks[name]["partitionStatuses"]["ranges"]
        failed = [(one["startKey"], one["endKey"]) for one in ranges if one["status"] == "FAILED"]
        assert failed == [(str(odd_day(name)), str(odd_day(name)))]
        found = [one["evaluation"] for one in ask(HISTORY, name=name)["assetCheckExecutions"]]
        assert {one["partition"]: one["success"] for one in found} == {
            str(day): day != odd_day(name) for day in days()[-8:]
        }
        [failure] = [one for one in found if not one["success"]]
        assert failure["severity"] == ("ERROR" if name == "event_times" else "WARN")
        assert str(odd_day(name)) in failure["description"]
    assert checks["events_complete"]["executionForLatestMaterialization"]["status"] == "SUCCEEDED"
    logged = [entry.user_message for entry in stored_instance.all_logs(result.run_id)]
    assert f"daily_volume fails for 1 day: {odd_day('daily_volume')}" in logged


@pytest.mark.slow
def test_a_load_shows_the_checks_of_its_day_on_the_page(odd, definitions, stored_instance, shown):
    """The emulator has other events than those stored, so all of these have vanished."""
    day = days()[-8]
    assert materialize(definitions, stored_instance, day, day).success
    checks = shown()
    vanished = checks["rows_vanished"]["executionForLatestMaterialization"]
    assert (vanished["status"], vanished["evaluation"]["severity"]) == ("FAILED", "WARN")
    assert f"150 stored rows of {day}" in vanished["evaluation"]["description"]
    for name in FAILS.keys() - {"rows_vanished"}:
        execution = checks[name]["executionForLatestMaterialization"]
        assert execution["status"] == "SUCCEEDED", execution["evaluation"]["description"]
        assert execution["evaluation"]["partition"] == str(day)
        [done] = checks[name]["partitionStatuses"]["ranges"]
        assert (done["startKey"], done["endKey"], done["status"]) == (*[str(day)] * 2, "SUCCEEDED")


def test_without_days_yesterday_is_checked_and_whether_a_day_is_missing(odd, definitions, instance):
    """As `Execute all` in the UI does it, which names no partition."""
    yesterday = odd.today() - DAY
    result = run_checks(definitions, instance)
    assert result.success
    found = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert found.keys() == set(CHECKS)
    assert found.pop("events_complete").partition is None
    assert {one.partition for one in found.values()} == {str(yesterday)}
    is_due = yesterday == days()[-1]
    assert found["property_changes"].passed != is_due


def test_a_project_with_a_name_is_told_of_its_own_asset(odd, shop, instance):
    """`mp sync` would load the days into another project's database."""
    definitions = build_definitions(
        name="shop", account=resource_of(shop), settings=odd, checks=["events_complete"]
    )
    assert odd.database is not None
    odd.database.unlink()
    job = definitions.resolve_job_def("shop_check_events")
    [evaluation] = job.execute_in_process(instance=instance).get_asset_check_evaluations()
    assert "materialize these partitions of `shop/events`" in evaluation.description
    assert "mp sync" not in evaluation.description


def test_limits_are_configuration(odd, shop, instance):
    """With other limits the same day passes."""
    name = "daily_volume"
    definitions = build_definitions(
        settings=odd,
        resources={"mixpanel": resource_of(shop)},
        checks=[name],
        check_thresholds=CheckThresholds(volume_low=0.1),
    )
    result = run_checks(definitions, instance, odd_day(name), odd_day(name))
    [evaluation] = result.get_asset_check_evaluations()
    assert evaluation.passed


def test_a_failed_backfill_leaves_no_check_green(
    definitions, here, shop, workspace, stored_instance, instance, shown
):
    """The run cannot do the check any more; the schedule does, and says why the day is missing."""
    last = here.start_date + 29 * DAY
    workspace.sync_events(here.start_date, last - 2 * DAY)
    shop.faults.add(Fault("truncate-own-line", day=last, times=None))
    job = definitions.resolve_implicit_global_asset_job_def()
    tags = {
        "dagster/asset_partition_range_start": str(last - DAY),
        "dagster/asset_partition_range_end": str(last),
    }
    result = job.execute_in_process(
        asset_selection=[EVENTS], instance=stored_instance, tags=tags, raise_on_error=False
    )
    assert not result.success
    execution = shown()["events_complete"]["executionForLatestMaterialization"]
    assert execution["status"] == "EXECUTION_FAILED"
    evaluation = run_check(definitions, instance)
    assert evaluation.description.startswith(f"{last} is missing: 1 of 30 days")
    [row] = evaluation.metadata["found"].records
    assert row.data["why"] == "not loaded because the last attempt failed"
    assert "is not complete" in row.data["last_error"]


@pytest.mark.parametrize("checks", [False, [], ["rows_vanished"]])
def test_checks_can_be_left_out(checks, here):
    """With the check goes the schedule that runs it."""
    definitions = build_definitions(settings=here, checks=checks, coverage=False)
    dg.Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    assert dg.AssetCheckKey(EVENTS, "events_complete") not in graph.asset_check_keys
    assert "check_events" not in {schedule.name for schedule in definitions.schedules}


def test_an_unknown_check_is_refused_with_the_known_ones(here):
    """A typo would leave out every check in silence."""
    with pytest.raises(ConfigError, match=r"'volum'.*events_complete"):
        event_checks(here, checks=["volum"])
    assert len(event_checks(here, checks=CHECKS)) == 2  # one sends requests
