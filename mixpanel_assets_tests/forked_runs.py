"""Real runs of `mixpanel/events` in processes of their own, which can be killed at any step.

Run as a module, it forks a process for each line of stdin, which saves the imports, and prints
how that process ended. `ForkedRuns` is the other end of it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg

import mixpanel_assets
from mixpanel_assets.defs.location import build_definitions

EVENTS = dg.AssetKey(["mixpanel", "events"])
_PACKAGE = str(Path(mixpanel_assets.__file__).parent) + os.sep


def events_job() -> dg.JobDefinition:
    """Return a job of `mixpanel/events` alone, as the MP_* variables say."""
    return _job_of_events()


@cache  # Dagster asks for the job four times a run
def _job_of_events() -> dg.JobDefinition:
    job = dg.define_asset_job(
        "events_alone",
        selection=dg.AssetSelection.assets(EVENTS).without_checks(),
        executor_def=dg.in_process_executor,
    )
    definitions = dg.Definitions.merge(build_definitions(), dg.Definitions(jobs=[job]))
    return definitions.resolve_job_def("events_alone")


def execute(
    instance: dg.DagsterInstance,
    first: str,
    last: str,
    *,
    parent: str | None = None,
    refetch: str | None = None,
) -> dg.JobExecutionResult:
    """Run a range of days, both ends included, or re-execute a run of it."""
    config = {"ops": {"mixpanel__events": {"config": {"refetch": refetch}}}} if refetch else {}
    again = None
    if parent and instance.get_run_by_id(parent).is_success:
        again = dg.ReexecutionOptions(parent)
    elif parent:
        again = dg.ReexecutionOptions.from_failure(parent, instance)
    return dg.execute_job(
        dg.reconstructable(events_job),
        instance,
        run_config=config,
        tags={
            "dagster/asset_partition_range_start": first,
            "dagster/asset_partition_range_end": last,
        },
        reexecution_options=again,
    )


class ForkedRuns:
    """Starts runs in processes of their own, on an instance that this process sees too.

    Args:
        environment: Of these processes; DAGSTER_HOME and the MP_* variables among it.
        instance: That of DAGSTER_HOME.
    """

    def __init__(self, environment: Mapping[str, str], instance: dg.DagsterInstance) -> None:
        self.instance = instance
        with (Path(environment["DAGSTER_HOME"]) / "runs.log").open("wb") as log:
            self._server = subprocess.Popen(
                [sys.executable, "-m", __name__],
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def start(self, first: str, last: str, *, signal: int = 0, at: int = 0, **options: Any) -> int:
        """Start a run, sent a signal at the n-th step of its load; return the process id."""
        request = {"first": first, "last": last, "signal": signal, "at": at, **options}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def ended(self) -> int:
        """Wait for the end of the run that was started and return the exit code."""
        return int(self._server.stdout.readline())

    def run(self, first: str, last: str, **options: Any) -> int:
        """Run to the end and return the exit code."""
        self.start(first, last, **options)
        return self.ended()

    def last_run(self) -> dg.DagsterRun:
        """Return the newest run; one that was killed is noted as failed, as the daemon does."""
        [record] = self.instance.get_run_records(limit=1)
        if not record.dagster_run.is_finished:
            self.instance.report_run_failed(record.dagster_run)
        return self.instance.get_run_by_id(record.dagster_run.run_id)

    def close(self) -> None:
        """End the process that forks."""
        self._server.communicate()


def _fork(signal: int, at: int, **options: Any) -> int:
    if child := os.fork():
        return child
    steps = None

    def count(frame: Any, kind: str, argument: Any) -> None:
        nonlocal steps
        code = frame.f_code
        if kind != "call" or not code.co_filename.startswith(_PACKAGE):
            return
        if steps is None and code.co_qualname == "EventLoad.store":
            steps = 0
        if steps is not None:
            steps += 1
            if steps == at:
                sys.setprofile(None)
                os.kill(os.getpid(), signal)

    try:
        with dg.DagsterInstance.get() as instance:
            if at:
                sys.setprofile(count)
            os._exit(0 if execute(instance, **options).success else 1)
    finally:
        os._exit(2)


if __name__ == "__main__":
    # Dagster imports the job by its module. Each fork has the one that is built here.
    from mixpanel_assets_tests.forked_runs import events_job, execute

    events_job()
    told = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(told, "w") as out:
        for line in sys.stdin:
            child = _fork(**json.loads(line))
            print(child, file=out, flush=True)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=out, flush=True)
