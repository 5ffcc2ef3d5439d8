"""A week of events, requested in every way there is: the table is the same."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import duckdb
import pytest
import yaml

from mixpanel_assets import Workspace
from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.warehouse import copy_path
from mixpanel_assets_tests.dagster_server import JOB, LAUNCH, ROOT, Dagster, served, wait_for

FIRST, LAST = date(2024, 1, 1), date(2024, 1, 7)
RANGE = f"{FIRST}...{LAST}"
TAGS = {
    "dagster/asset_partition_range_start": str(FIRST),
    "dagster/asset_partition_range_end": str(LAST),
}
EVENTS = ["mixpanel", "events"]
DAYS_PER_RUN = 3

BACKFILL = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
BACKFILL_STATUS = """
query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status }
  }
}"""
RUNS = """
query ($id: String!) {
  runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {
    ... on Runs { results { status tags { key value } } }
  }
}"""


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(EmulatorSettings(days=10, events_per_day=60)) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def expected(emulator, tmp_path_factory) -> list[tuple]:
    """What the days are one by one, each fetched by `Workspace.sync_events`."""
    home = tmp_path_factory.mktemp("one-by-one")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(emulator, home).items():
            patch.setenv(name, value)
        with Workspace() as workspace:
            for day in range(FIRST.day, LAST.day + 1):
                workspace.sync_events(FIRST.replace(day=day), FIRST.replace(day=day))
    rows = stored(home)
    unstorable = [emulator.truth.unstorable(FIRST.replace(day=day)) for day in range(1, 8)]
    truth = sum(emulator.truth.count(FIRST.replace(day=day)) for day in range(1, 8))
    assert len(rows) == truth - sum(map(len, unstorable))
    return rows


def environment(emulator: Emulator, home: Path) -> dict[str, str]:
    (home / "dagster.yaml").write_text(yaml.safe_dump({"telemetry": {"enabled": False}}))
    return {
        **environment_of(emulator),
        "DAGSTER_HOME": str(home),
        "HOME": str(home),
        "MP_DATABASE": str(home / "w.duckdb"),
        "PYTHONPATH": str(ROOT),
    }


def stored(home: Path) -> list[tuple]:
    with duckdb.connect(home / "w.duckdb", read_only=True) as connection:
        return connection.execute("FROM mixpanel.events ORDER BY ALL").fetchall()


@pytest.mark.slow  # a process of Dagster; test_secrets.py starts one each time
@pytest.mark.parametrize(
    "command",
    [
        "dagster asset materialize --select mixpanel/events -m mixpanel_assets.definitions",
        "dg launch --assets mixpanel/events",
    ],
    ids=["dagster", "dg"],
)
def test_a_command_stores_the_range(command, emulator, expected, tmp_path):
    """One process, one run, every row with its ids and times."""
    name, *arguments = command.split()
    done = subprocess.run(
        [Path(sys.executable).with_name(name), *arguments, "--partition-range", RANGE],
        cwd=ROOT,
        env={**os.environ, **environment(emulator, tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert stored(tmp_path) == expected


def test_materialize_stores_the_range(emulator, expected, tmp_path, monkeypatch):
    """Dagster's own function, in a notebook or a test."""
    for name, value in environment(emulator, tmp_path).items():
        monkeypatch.setenv(name, value)
    definitions = build_definitions()
    with dg.instance_for_test() as instance:
        result = dg.materialize(
            [definitions.resolve_assets_def(dg.AssetKey(EVENTS))],
            instance=instance,
            tags=TAGS,
        )
    assert result.success
    assert stored(tmp_path) == expected


@pytest.fixture
def dagster(emulator, tmp_path) -> Iterator[Dagster]:
    """A webserver and a daemon; a run of a backfill loads three days."""
    settings = {"MP_PARTITIONS_PER_RUN": str(DAYS_PER_RUN)}
    command = [sys.executable, "-m", "dagster", "dev", "-m", "mixpanel_assets.definitions"]
    known = {**os.environ, **environment(emulator, tmp_path), **settings}
    with served(command, tmp_path, known, tmp_path / "w.duckdb") as dagster:
        yield dagster


def launch(dagster: Dagster) -> str:
    """Start one run of the range, as the launchpad does."""
    [repository] = dagster.ask(JOB)["repositoriesOrError"]["nodes"]
    selector = {
        "repositoryName": repository["name"],
        "repositoryLocationName": repository["location"]["name"],
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": EVENTS}],
        "assetCheckSelection": None,
    }
    config = {"ops": {"mixpanel__events": {"config": {"refetch": "stale"}}}}
    tags = [{"key": key, "value": value} for key, value in TAGS.items()]
    params = {
        "selector": selector,
        "mode": "default",
        "runConfigData": config,
        "executionMetadata": {"tags": tags},
    }
    answer = dagster.ask(LAUNCH, params=params)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return answer["run"]["runId"]


def backfilled(dagster: Dagster, days: list[str]) -> list[str]:
    """Let the daemon run a backfill of the days, and return the first day of each of its runs."""
    params = {"assetSelection": [{"path": EVENTS}], "partitionNames": days}
    answer = dagster.ask(BACKFILL, params=params)["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    backfill = answer["backfillId"]

    def finished() -> str | None:
        known = dagster.ask(BACKFILL_STATUS, id=backfill)["partitionBackfillOrError"]
        return known["status"] if known["status"].startswith(("COMPLETED", "FAIL")) else None

    assert wait_for(finished) == "COMPLETED_SUCCESS"
    runs = dagster.ask(RUNS, id=backfill)["runsOrError"]["results"]
    return [
        tag["value"]
        for run in runs
        for tag in run["tags"]
        if tag["key"] == "dagster/asset_partition_range_start"
    ]


@pytest.mark.slow
def test_the_ui_stores_the_range(dagster, emulator, expected, tmp_path):
    """By one run of the launchpad, and by a backfill of three runs that the daemon starts.

    A backfill after Mixpanel has deleted the days changes no row and tells what it no longer has.
    """
    assert dagster.ended(launch(dagster))["status"] == "SUCCESS"
    assert stored(tmp_path) == expected
    copy_path(dagster.database).unlink()
    dagster.database.unlink()

    days = [str(FIRST.replace(day=day)) for day in range(FIRST.day, LAST.day + 1)]
    assert sorted(backfilled(dagster, days)) == days[::DAYS_PER_RUN]
    assert stored(tmp_path) == expected

    emulator.retention_days = 700
    try:
        backfilled(dagster, days[:DAYS_PER_RUN])
    finally:
        emulator.retention_days = None
    assert stored(tmp_path) == expected
    with duckdb.connect(tmp_path / "w.duckdb", read_only=True) as connection:
        found = connection.execute(
            "SELECT day::VARCHAR FROM mixpanel._days WHERE rows_vanished = row_count ORDER BY day"
        ).fetchall()
    assert [day for (day,) in found] == days[:DAYS_PER_RUN]
