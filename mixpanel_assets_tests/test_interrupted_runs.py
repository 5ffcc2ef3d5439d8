"""Runs of a real Dagster instance that end half-way, and what re-executing them costs."""

import json
import os
import re
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import httpx
import psutil
import pytest
import yaml

from mixpanel_assets.cli.emulate import environment_of
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault

ROOT = Path(__file__).parents[1]
ENGAGE = "/api/query/engage"
MERGE = "mixpanel__profiles.merge_profile_pages"
PAGES = 60
UNDER_WAY = range(30, 35)  # as many as are asked for at once
PATIENCE_SECONDS = 120

LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
FROM_FAILURE = """
mutation ($run: String!) {
  launchRunReexecution(reexecutionParams: {parentRunId: $run, strategy: FROM_FAILURE}) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
RUN = """
query ($run: ID!) {
  runOrError(runId: $run) {
    ... on Run {
      status
      stepStats { stepKey status }
      assetMaterializations {
        partition
        metadataEntries { label ... on TextMetadataEntry { text } }
      }
      eventConnection {
        events {
          ... on MessageEvent { message }
          ... on AssetCheckEvaluationEvent { evaluation { checkName success } }
        }
      }
    }
  }
}"""
JOB = """
{
  repositoriesOrError {
    ... on RepositoryConnection { nodes { name location { name } } }
  }
}"""


@dataclass(frozen=True)
class Dagster:
    """A webserver and a daemon on a folder of their own."""

    url: str
    server: psutil.Popen
    database: Path

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = httpx.post(
            f"{self.url}/graphql",
            json={"query": query, "variables": variables},
            timeout=PATIENCE_SECONDS,
        ).json()
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def launch(self, day: str) -> str:
        """Start a run that materializes a day's profiles."""
        [repository] = self.ask(JOB)["repositoriesOrError"]["nodes"]
        selector = {
            "repositoryName": repository["name"],
            "repositoryLocationName": repository["location"]["name"],
            "pipelineName": "snapshot_profiles",
            "assetSelection": [{"path": ["mixpanel", "profiles"]}],
            "assetCheckSelection": None,
        }
        tags = [{"key": "dagster/partition", "value": day}]
        params = {"selector": selector, "mode": "default", "executionMetadata": {"tags": tags}}
        answer = self.ask(LAUNCH, params=params)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def reexecute(self, run: str) -> str:
        """Start a run of the steps of another run that did not succeed."""
        answer = self.ask(FROM_FAILURE, run=run)["launchRunReexecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def ended(self, run: str) -> dict[str, Any]:
        """Wait until a run has ended and return what is known of it."""

        def found() -> dict[str, Any] | None:
            known = self.ask(RUN, run=run)["runOrError"]
            return known if known["status"] in ("SUCCESS", "FAILURE", "CANCELED") else None

        return wait_for(found)

    def worker(self, run: str) -> psutil.Process:
        """Return the process that executes a run."""

        def found() -> psutil.Process | None:
            told = " ".join(messages(self.ask(RUN, run=run)["runOrError"]))
            worker = re.search(r"Started process for run \(pid: (\d+)\)", told)
            return psutil.Process(int(worker[1])) if worker else None

        return wait_for(found)


def wait_for(found: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        if (result := found()) is not None:
            return result
        time.sleep(0.05)
    raise AssertionError("it did not happen")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def instance_settings() -> dict[str, Any]:
    """The settings of the project's own instance, and a daemon that looks often."""
    settings = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    settings["run_monitoring"]["poll_interval_seconds"] = 1
    return settings


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """A project whose profiles come on many pages."""
    with Emulator(EmulatorSettings(days=3, profiles=10 * PAGES - 5, page_size=10)) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def dagster(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    home, port = tmp_path_factory.mktemp("home"), free_port()
    (home / "dagster.yaml").write_text(yaml.safe_dump(instance_settings()))
    database = home / "w.duckdb"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MP_")}
    environment = {
        **clean,
        **environment_of(emulator),
        "DAGSTER_HOME": str(home),
        "MP_DATABASE": str(database),
        "MP_MAX_RETRIES": "1",
        "MP_RETRY_WAIT_SECONDS": "0.01",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "dagster", "dev", "-m", "mixpanel_assets.definitions"]
    with (home / "log").open("wb") as log:
        server = psutil.Popen(
            [*command, "-h", "127.0.0.1", "-p", str(port)],
            cwd=home,
            env=environment,
            stdout=log,
            stderr=log,
        )
    dagster = Dagster(f"http://127.0.0.1:{port}", server, database)
    try:
        wait_for(lambda: is_up(dagster))
        yield dagster
    finally:
        end(server)


def end(server: psutil.Popen) -> None:
    processes = server.children(recursive=True)
    server.send_signal(signal.SIGINT)
    with suppress(psutil.TimeoutExpired):
        server.wait(PATIENCE_SECONDS)
    for process in (server, *processes):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    server.wait()


def is_up(dagster: Dagster) -> bool | None:
    assert dagster.server.poll() is None, "it ended at once"
    with suppress(httpx.HTTPError):
        return bool(dagster.ask(JOB)["repositoriesOrError"].get("nodes")) or None
    return None


def messages(run: dict[str, Any]) -> list[str]:
    return [event.get("message", "") for event in run["eventConnection"]["events"]]


def checks(run: dict[str, Any]) -> list[bool]:
    events = run["eventConnection"]["events"]
    return [event["evaluation"]["success"] for event in events if "evaluation" in event]


def statuses(run: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the days that were recorded as materialized, and as what."""
    return [
        (record["partition"], entry["text"])
        for record in run["assetMaterializations"]
        for entry in record["metadataEntries"]
        if entry["label"] == "status"
    ]


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def assert_is_the_truth(dagster: Dagster, emulator: Emulator, day: str) -> None:
    """Every profile is there once, with its properties as sent."""
    query = "SELECT distinct_id, properties FROM mixpanel.profiles WHERE snapshot_date = ?"
    with duckdb.connect(dagster.database, read_only=True) as connection:
        rows = connection.execute(f"{query} ORDER BY distinct_id", [day]).fetchall()
    sent = []
    for profile in emulator.truth.profiles():
        properties = dict(profile["$properties"] or {})
        properties.pop("$last_seen", None)
        sent.append((profile["$distinct_id"], properties))
    found = [(name, json.loads(properties)) for name, properties in rows]
    assert found == sorted(sent, key=lambda profile: profile[0])


def pages(emulator: Emulator, since: int) -> Counter[int]:
    return Counter(int(request.params.get("page", 0)) for request in emulator.requests[since:])


def test_a_killed_run_goes_on_from_the_pages_that_came(dagster, emulator):
    """Only what was under way at the kill is asked for twice."""
    day, since = today(), len(emulator.requests)
    for page in UNDER_WAY:
        emulator.faults.add(Fault("timeout", path=ENGAGE, page=page))
    run = dagster.launch(day)
    worker = dagster.worker(run)
    wait_for(lambda: None if emulator.faults.waiting() else True)
    worker.kill()
    killed = dagster.ended(run)
    assert killed["status"] == "FAILURE"
    assert "SIGKILL" in " ".join(messages(killed))
    assert not dagster.database.exists()
    assert set(range(UNDER_WAY[0])) <= set(pages(emulator, since)) < set(range(PAGES))
    again = dagster.ended(dagster.reexecute(run))
    assert again["status"] == "SUCCESS"
    asked = pages(emulator, since)
    assert asked == Counter(range(PAGES)) + Counter(UNDER_WAY)
    assert_is_the_truth(dagster, emulator, day)


def test_a_partial_run_goes_on_with_its_failed_pages(dagster, emulator):
    """It is recorded with its failed check; then only the merge runs, and asks for them alone."""
    day = today()
    for page in (3, 7):
        emulator.faults.add(Fault("500-json", path=ENGAGE, page=page, times=None))
    run = dagster.launch(day)
    partial = dagster.ended(run)
    emulator.faults.clear()
    assert partial["status"] == "FAILURE"
    assert (statuses(partial), checks(partial)) == ([(day, "partial")], [False])
    since = len(emulator.requests)
    again = dagster.ended(dagster.reexecute(run))
    assert again["status"] == "SUCCESS"
    assert [step["stepKey"] for step in again["stepStats"]] == [MERGE]
    assert (statuses(again), checks(again)) == ([(day, "complete")], [True])
    assert sorted(pages(emulator, since).elements()) == [3, 7]
    assert_is_the_truth(dagster, emulator, day)
