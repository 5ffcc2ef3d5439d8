"""Runs of a real Dagster instance that end half-way, and what re-executing them costs."""

import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
import yaml

from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets_tests.dagster_server import (
    ROOT,
    Dagster,
    checks,
    environment_for,
    messages,
    served,
    wait_for,
)

pytestmark = pytest.mark.slow  # a webserver, a daemon, and runs of sixty pages

ENGAGE, EXPORT = "/api/query/engage", "/api/2.0/export"
MERGE = "mixpanel__profiles.merge_profile_pages"
PAGES = 60
UNDER_WAY = range(30, 35)  # the pages that are requested at once


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    """A project whose profiles come on many pages."""
    with Emulator(EmulatorSettings(days=3, profiles=10 * PAGES - 5, page_size=10)) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def dagster(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dagster]:
    home = tmp_path_factory.mktemp("home")
    (home / "dagster.yaml").write_text(yaml.safe_dump(instance_settings()))
    database = home / "w.duckdb"
    environment = environment_for(
        emulator,
        DAGSTER_HOME=str(home),
        MP_DATABASE=str(database),
        MP_MAX_RETRIES="1",
        MP_RETRY_WAIT_SECONDS="0.01",
        MP_OP_RETRY_SECONDS="0.01",
    )
    command = [sys.executable, "-m", "dagster", "dev", "-m", "mixpanel_assets.definitions"]
    with served(command, home, environment, database) as dagster:
        yield dagster


def instance_settings() -> dict[str, Any]:
    """The settings of the project's own instance, and a daemon that looks often."""
    settings = yaml.safe_load((ROOT / "dagster.yaml").read_text())
    settings["run_monitoring"]["poll_interval_seconds"] = 1
    return settings


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


def killed_under_way(dagster, emulator: Emulator, day: str) -> str:
    """Start a run, kill its process while some pages are under way, and return its id."""
    for page in UNDER_WAY:
        emulator.faults.add(Fault("timeout", path=ENGAGE, page=page))
    run = dagster.launch(day)
    worker = dagster.worker(run)
    wait_for(lambda: None if emulator.faults.waiting() else True)
    worker.kill()
    return run


def test_a_killed_run_is_repeated_and_goes_on_from_the_pages_that_came(dagster, emulator):
    """The run is repeated automatically and requests only the pages that the kill interrupted."""
    day, since = today(), len(emulator.requests)
    run = killed_under_way(dagster, emulator, day)
    killed = dagster.ended(run)
    assert killed["status"] == "FAILURE"
    assert "SIGKILL" in " ".join(messages(killed))
    assert not dagster.database.exists()
    assert set(range(UNDER_WAY[0])) <= set(pages(emulator, since)) < set(range(PAGES))
    again = dagster.ended(dagster.repetition(run))
    assert again["status"] == "SUCCESS"
    asked = pages(emulator, since)
    assert asked == Counter(range(PAGES)) + Counter(UNDER_WAY)
    assert_is_the_truth(dagster, emulator, day)
    assert [known["parentRunId"] for known in dagster.runs()] == [None, run]


def test_a_killed_run_is_repeated_on_a_machine_without_its_files(dagster, emulator):
    """As after the end of a pod: the plan and the pages are gone, so all of them are requested."""
    day, since = today(), len(emulator.requests)
    run = killed_under_way(dagster, emulator, day)
    home = dagster.database.parent
    values, responses = [*home.rglob(run)], [*home.rglob("profiles-*")]
    assert values
    assert responses
    for folder in (*values, *responses):
        shutil.rmtree(folder, ignore_errors=True)
    again = dagster.ended(dagster.repetition(run))
    assert again["status"] == "SUCCESS"
    assert set(pages(emulator, since)) == set(range(PAGES))
    assert_is_the_truth(dagster, emulator, day)


def test_a_partial_run_goes_on_with_its_failed_pages(dagster, emulator):
    """Its check fails; then only the merge runs, and requests only the failed pages."""
    day = today()
    for page in (3, 7):
        emulator.faults.add(Fault("500-json", path=ENGAGE, page=page, times=None))
    run = dagster.launch(day)
    partial = dagster.ended(run)
    emulator.faults.clear()
    assert partial["status"] == "FAILURE"
    assert (statuses(partial), checks(partial)) == ([(day, "partial")], [False])
    assert run not in [known["parentRunId"] for known in dagster.runs()]
    since = len(emulator.requests)
    again = dagster.ended(dagster.reexecute(run))
    assert again["status"] == "SUCCESS"
    assert [step["stepKey"] for step in again["stepStats"]] == [MERGE]
    assert (statuses(again), checks(again)) == ([(day, "complete")], [True])
    assert sorted(pages(emulator, since).elements()) == [3, 7]
    assert_is_the_truth(dagster, emulator, day)


def test_a_cancelled_run_ends_at_once(dagster, emulator):
    """It is neither repeated nor goes on with another attempt of its step."""
    emulator.faults.add(Fault("timeout", path=EXPORT, times=None))
    run = dagster.launch("2024-01-02", "close_yesterday", "events")
    wait_for(lambda: any(request.path == EXPORT for request in emulator.requests) or None)
    dagster.cancel(run)
    ended = dagster.ended(run)
    emulator.faults.clear()
    assert ended["status"] == "CANCELED"
    asked = [request for request in emulator.requests if request.path == EXPORT]
    assert len(asked) == 1
