"""`dagster dev` and `dg dev` for tests: a webserver and a daemon on a folder of their own."""

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.emulator import Emulator

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 300

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
CANCEL = """
mutation ($run: String!) {
  terminateRun(runId: $run) { __typename ... on PythonError { message } }
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
SENSOR = """
query ($sensor: SensorSelector!) {
  sensorOrError(sensorSelector: $sensor) {
    ... on Sensor { sensorState { status ticks(limit: 1) { status endTimestamp } } }
  }
}"""
RUNS = """
{
  runsOrError { ... on Runs { results {
    runId status jobName parentRunId tags { key value }
  } } }
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

    def launch(
        self,
        day: str,
        job: str = "snapshot_profiles",
        asset: str = "profiles",
        project: str = "mixpanel",
    ) -> str:
        """Start a run that materializes an asset's day; by default a day's profiles."""
        selector = {
            **self._repository(),
            "pipelineName": job,
            "assetSelection": [{"path": [project, asset]}],
            "assetCheckSelection": None,
        }
        tags = [{"key": "dagster/partition", "value": day}]
        params = {"selector": selector, "mode": "default", "executionMetadata": {"tags": tags}}
        answer = self.ask(LAUNCH, params=params)["launchRun"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def sensor(self, name: str) -> dict[str, Any]:
        """Return a sensor's status, and its last look at what it watches."""
        sensor = {**self._repository(), "sensorName": name}
        state = self.ask(SENSOR, sensor=sensor)["sensorOrError"]["sensorState"]
        [tick] = state["ticks"] or [None]
        return {"status": state["status"], "tick": tick}

    def _repository(self) -> dict[str, str]:
        [repository] = self.ask(JOB)["repositoriesOrError"]["nodes"]
        return {
            "repositoryName": repository["name"],
            "repositoryLocationName": repository["location"]["name"],
        }

    def runs(self) -> list[dict[str, Any]]:
        """Return every run of the history, the oldest first."""
        return list(reversed(self.ask(RUNS)["runsOrError"]["results"]))

    def repetition(self, run: str) -> str:
        """Wait for the run that the daemon starts by itself because another one crashed."""
        return wait_for(
            lambda: next((r["runId"] for r in self.runs() if r["parentRunId"] == run), None)
        )

    def reexecute(self, run: str) -> str:
        """Start a run of the steps of another run that did not succeed."""
        answer = self.ask(FROM_FAILURE, run=run)["launchRunReexecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def cancel(self, run: str) -> None:
        """Terminate a run."""
        answer = self.ask(CANCEL, run=run)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

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


def wait_for(
    found: Callable[[], Any], *, seconds: float = PATIENCE_SECONDS, pause: float = 0.05
) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if (result := found()) is not None:
            return result
        time.sleep(pause)
    raise AssertionError("it did not happen")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def served(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    database: Path,
    *,
    place: Sequence[str] = ("-h", "127.0.0.1", "-p"),
    end_with: signal.Signals = signal.SIGINT,
) -> Iterator[Dagster]:
    """Start a command that serves Dagster in a folder, and end it with all its processes."""
    port = free_port()
    with (folder / "log").open("ab") as log:
        server = psutil.Popen(
            [*command, *place, str(port)],
            cwd=folder,
            env=dict(environment),
            stdout=log,
            stderr=log,
        )
    dagster = Dagster(f"http://127.0.0.1:{port}", server, database)
    try:
        wait_for(lambda: is_up(dagster))
        yield dagster
    finally:
        end(server, end_with)


def environment_for(emulator: Emulator, **more: str) -> dict[str, str]:
    """Return an environment that leads to an emulator, without the settings of this machine."""
    foreign = ("MP_", "DAGSTER_HOME")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**clean, **environment_of(emulator), "PYTHONPATH": str(ROOT), **more}


def end(server: psutil.Popen, end_with: signal.Signals) -> None:
    processes = server.children(recursive=True)
    server.send_signal(end_with)
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
