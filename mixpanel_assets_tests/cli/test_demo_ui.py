"""`mp demo --ui`: a real Dagster on an emulated Mixpanel, checked through its API."""

import os
import signal
from datetime import UTC, datetime, timedelta

import pytest

from mixpanel_assets_tests.cli.conftest import MP
from mixpanel_assets_tests.dagster_server import ROOT, served


@pytest.mark.slow  # a webserver, a daemon and its sensors
def test_the_demo_keeps_itself_current(tmp_path):
    """Its sensor runs, and yesterday, which the sensor will ask for, holds data."""
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
