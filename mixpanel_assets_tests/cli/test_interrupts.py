"""Ctrl-C at any moment: 130, one line that says what is kept, and nothing half-stored."""

import json
import os
import signal
import subprocess
import time
from datetime import date

import duckdb
import pytest

from mixpanel_assets.cli.emulate import environment_of
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets_tests.cli.conftest import MP

WEEK = ("--from", "2024-01-01", "--to", "2024-01-07")
TABLE = ("fetch", "events", "mine", *WEEK, "--chunk-days", "1")
EXPORT, PROFILES = "/api/2.0/export", "/api/query/engage"


@pytest.fixture
def ended_by(tmp_path):
    """Run a command until a day or a page is stuck, interrupt it, and return how it ended."""

    def run(*arguments, stuck, before=()):
        settings = EmulatorSettings(start=date(2024, 1, 1), days=14, profiles=50, page_size=10)
        with Emulator(settings) as emulator:
            variables = {
                **os.environ,
                **environment_of(emulator),
                "MP_DATABASE": str(tmp_path / "w.duckdb"),
                "MP_DAYS_PER_REQUEST": "1",
            }
            for command in before:
                subprocess.run([MP, *command], env=variables, check=True, capture_output=True)
            emulator.faults.add(stuck)
            process = subprocess.Popen(
                [MP, *arguments],
                env=variables,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            while emulator.faults.waiting():
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            process.output, process.errors = process.communicate(timeout=30)
        return process

    return run


def stored(tmp_path, sql):
    path = tmp_path / "w.duckdb"
    if not path.exists():
        return None
    with duckdb.connect(path, read_only=True) as connection:
        return connection.execute(sql).fetchone()[0]


TABLES = "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'main'"


@pytest.mark.parametrize(
    ("command", "path", "name"),
    [
        (TABLE, EXPORT, "mine"),
        (("fetch", "profiles", "people"), PROFILES, "people"),
        (("fetch", "profiles", "people", "--parallel"), PROFILES, "people"),
    ],
)
@pytest.mark.parametrize("again", [False, True])
def test_a_table_is_whole_or_as_it_was(command, path, name, again, ended_by, tmp_path):
    """Whether it was to be made or to be replaced."""
    stuck = Fault("slow-first-byte", path=path, seconds=60, skip=2)
    arguments = (*command, "--replace") if again else command
    process = ended_by(*arguments, stuck=stuck, before=[command] if again else [])
    assert process.returncode == 130
    assert process.output == ""
    # A thread that was just being started may say a word after it.
    assert f"mp: Interrupted. The table {name!r} is as it was." in process.errors.splitlines()
    assert "Traceback" not in process.errors
    if again:
        assert stored(tmp_path, f"SELECT count(*) FROM {name}") > 0
    else:
        assert not stored(tmp_path, TABLES)


def test_requests_that_a_parallel_fetch_has_stored_are_told(ended_by, tmp_path):
    """They stay, each with whole days, and the others can be added."""
    stuck = Fault("slow-first-byte", path=EXPORT, day=date(2024, 1, 3), seconds=60)
    process = ended_by(*TABLE, "--parallel", "--workers", "1", stuck=stuck)
    assert process.returncode == 130
    told = process.errors.splitlines()[-1]
    assert told.startswith("mp: Interrupted. 'mine' holds 2024-01-01..2024-01-01, 2024-01-02..")
    assert "--append" in told
    assert stored(tmp_path, "SELECT count(DISTINCT event_time::DATE) FROM mine") == 2


def test_the_other_days_of_a_sync_are_as_they_were(ended_by, tmp_path):
    """Also when nothing at all had come, and when profiles are being taken."""
    first = Fault("slow-first-byte", path=EXPORT, seconds=60)
    process = ended_by("sync", *WEEK, stuck=first)
    assert process.returncode == 130
    assert process.errors == ("mp: Interrupted. Nothing was stored; the database is as it was.\n")
    page = Fault("stall-mid-stream", path=PROFILES, skip=1, at=1)
    process = ended_by("sync", *WEEK, "--format", "json", stuck=page)
    assert process.returncode == 130
    assert len(json.loads(process.output)) == 7
    *_, told = process.errors.splitlines()
    assert json.loads(told)["code"] == "INTERRUPTED"
    assert "7 whole days" in json.loads(told)["message"]
    assert stored(tmp_path, "SELECT count(*) FROM mixpanel.profiles") == 0
    assert stored(tmp_path, "SELECT count(DISTINCT event_date) FROM mixpanel.events") == 7


def test_nobody_waits_for_answers_that_are_on_their_way(ended_by):
    """A page or a day may take minutes; the interrupt does not."""
    commands = [(("sync", *WEEK), EXPORT), (("fetch", "profiles", "people"), PROFILES)]
    for command, path in commands:
        stuck = Fault("slow-first-byte", path=path, seconds=600, skip=1)
        process = ended_by(*command, stuck=stuck)  # within 30 s
        assert process.returncode == 130
