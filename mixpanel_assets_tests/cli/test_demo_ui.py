"""`mp demo --ui`: a real Dagster on an emulated Mixpanel, checked through its API."""

import os
import signal
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from mixpanel_assets.warehouse import Database, ProjectIdentity, prepare
from mixpanel_assets_tests.cli.conftest import MP
from mixpanel_assets_tests.dagster_server import ROOT, served


@pytest.mark.slow  # a webserver, a daemon and its sensors
def test_the_demo_keeps_itself_current(tmp_path):
    """Its sensor runs, and yesterday, which the sensor will request, has data."""
    database = tmp_path / "demo.duckdb"
    command = [MP, "demo", "--ui", "--database", str(database)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    yesterday = str(datetime.now(UTC).date() - timedelta(days=1))
    with served(
        command, tmp_path, environment, database, place=["--port"], end_with=signal.SIGTERM
    ) as dagster:
        assert dagster.sensor("keep_current")["status"] == "RUNNING"
        run = dagster.ended(dagster.launch(yesterday, "close_yesterday", "events"))
        assert run["status"] == "SUCCESS"
        [record] = run["assetMaterializations"]
        texts = {entry["label"]: entry.get("text") for entry in record["metadataEntries"]}
        assert (record["partition"], texts["status"]) == (yesterday, "complete")
    assert dagster.server.wait() == 128 + signal.SIGTERM
    assert "dagster" in (database.with_suffix(".dagster") / "ui.log").read_text()


@pytest.mark.slow  # a Dagster that does not start
def test_a_dagster_that_does_not_start_says_why(tmp_path):
    """The last lines that Dagster printed are in the error."""
    database = tmp_path / "demo.duckdb"
    with Database(database).write() as connection:
        prepare(connection, ProjectIdentity("12345", "us"))
    history = database.with_suffix(".dagster")
    history.mkdir()
    (history / "dagster.yaml").write_text("no_such_key: true\n")
    done = subprocess.run(
        [MP, "demo", "--ui", "--port", "0", "--database", str(database)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, "no_such_key" in done.stderr) == (1, True), done.stderr
    assert "did not start" in done.stderr
