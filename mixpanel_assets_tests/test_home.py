"""The folder as a Dagster home: every way of starting a run shares one history."""

import shutil
import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from dagster._core.instance.config import dagster_instance_config

from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets_tests.dagster_server import ROOT, RUN, environment_for, messages, served

BIN = Path(sys.executable).parent
FILES = ("dagster.yaml", "workspace.yaml", "pyproject.toml")
MODULE = "mixpanel_assets.definitions"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The folder as it is fetched: nothing has ever run in it."""
    folder = tmp_path / "clone"
    folder.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    (folder / "mixpanel_assets").symlink_to(ROOT / "mixpanel_assets")
    return folder


def history(clone: Path) -> list[tuple[str, str]]:
    """Return the partition and the status of every run, the oldest first."""
    query = (
        "SELECT tags.value, status FROM runs JOIN run_tags AS tags USING (run_id) "
        "WHERE tags.key = 'dagster/partition' ORDER BY runs.id"
    )
    with sqlite3.connect(clone / ".dagster_home" / "history" / "runs.db") as connection:
        return connection.execute(query).fetchall()


@pytest.mark.slow  # two webservers with their daemons, and two commands
def test_every_way_of_starting_a_run_shares_one_history(clone):
    """`dagster asset materialize`, `dg launch`, `dagster dev`, `dg dev`, with no variable set."""
    with Emulator(EmulatorSettings(days=5)) as emulator:
        environment = environment_for(emulator, MP_RETRY_WAIT_SECONDS="0.01")
        days = ["2024-01-01", "2024-01-02", "2024-01-03"]

        def call(program: str, *arguments: str) -> str:
            return subprocess.run(
                [BIN / program, *arguments],
                cwd=clone,
                env=environment,
                check=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ).stdout

        asset = ["mixpanel/events", "--partition"]
        emulator.faults.add(Fault("500-json", path="/api/2.0/export"))
        said = call("dagster", "asset", "materialize", "-m", MODULE, "--select", *asset, days[0])
        call("dg", "launch", "--assets", *asset, days[1])
        database = clone / "data" / "warehouse.duckdb"
        with served([str(BIN / "dagster"), "dev"], clone, environment, database) as dagster:
            first, _ = dagster.runs()
            run = dagster.ended(dagster.launch(days[2], "close_yesterday", "events"))
            assert run["status"] == "SUCCESS"
            told = messages(dagster.ask(RUN, run=first["runId"])["runOrError"])
            known = dagster.runs()
        with served([str(BIN / "dg"), "dev"], clone, environment, database) as dagster:
            assert dagster.runs() == known
    assert history(clone) == [(day, "SUCCESS") for day in days]
    left = {path.name for path in clone.iterdir()} - {*FILES, "mixpanel_assets", "log"}
    assert left == {".dagster_home", "data"}
    # What the library warns of is in the run's log, and once on the console.
    assert sum("Retrying in" in line for line in told) == 1
    assert said.count("Retrying in") == 1
    assert "RUN_SUCCESS" in said


def test_the_files_agree_on_what_is_loaded():
    """`workspace.yaml`, `[tool.dagster]` and `[tool.dg]` name one module."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    assert workspace == {"load_from": [{"python_module": MODULE}]}
    assert project["dagster"] == {"module_name": MODULE}
    assert project["dg"]["project"]["code_location_target_module"] == MODULE


def test_crashed_runs_are_repeated_and_failed_ones_are_not():
    """A failed op has had its own retries; the daemon only repeats what died."""
    settings, _ = dagster_instance_config(str(ROOT))
    assert settings["run_monitoring"]["enabled"]
    assert settings["run_retries"] == {
        "enabled": True,
        "max_retries": 2,
        "retry_on_asset_or_op_failure": False,
    }


def test_nothing_is_told_and_nothing_grows_without_end():
    """No telemetry; ticks of schedules and sensors go after a while."""
    settings, _ = dagster_instance_config(str(ROOT))
    assert settings["telemetry"] == {"enabled": False}
    for kind in ("schedule", "sensor", "auto_materialize"):
        assert set(settings["retention"][kind]["purge_after_days"].values()) <= set(range(1, 91))
