"""Ctrl-C or SIGTERM at any moment: 130 or 143, one line on what is kept, nothing half-stored."""

import json
import os
import signal
import subprocess
import time
from datetime import date

import duckdb
import pytest

from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets_tests.cli.conftest import MP, heed_signals
from mixpanel_assets_tests.laws import TIMES, siblings

WEEK = ("--from", "2024-01-01", "--to", "2024-01-07")
TABLE = ("fetch", "events", "mine", *WEEK, "--chunk-days", "1")
EXPORT, PROFILES = "/api/2.0/export", "/api/query/engage"


@pytest.fixture
def ended_by(forked_mp, tmp_path):
    """Run a command until a day or a page is stuck, interrupt it, and return how it ended."""

    def run(*arguments, stuck, before=(), end_with=signal.SIGINT):
        settings = EmulatorSettings(start=date(2024, 1, 1), days=14, profiles=50, page_size=10)
        with Emulator(settings) as emulator:
            variables = {
                **os.environ,
                **environment_of(emulator),
                "MP_DATABASE": str(tmp_path / "w.duckdb"),
                "MP_DAYS_PER_REQUEST": "1",
            }
            for command in before:
                assert forked_mp.run(command, env=variables, cwd=tmp_path).returncode == 0
            emulator.faults.add(stuck)
            process = subprocess.Popen(
                [MP, *arguments],
                env=variables,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=heed_signals,
            )
            while emulator.faults.waiting():
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(end_with)
            process.output, process.errors = process.communicate(timeout=300)
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
    ("command", "path", "name", "again"),
    siblings(
        [
            (TABLE, EXPORT, "mine", True),
            (("fetch", "profiles", "people", "--parallel"), PROFILES, "people", False),
            (("fetch", "profiles", "people"), PROFILES, "people", True),
            (TABLE, EXPORT, "mine", False),
            (("fetch", "profiles", "people", "--parallel"), PROFILES, "people", True),
            (("fetch", "profiles", "people"), PROFILES, "people", False),
        ],
        keep=1,
    ),
)
def test_a_table_is_whole_or_as_it_was(command, path, name, again, ended_by, tmp_path):
    """Whether it was to be made or to be replaced."""
    stuck = Fault("slow-first-byte", path=path, seconds=600, skip=2)
    arguments = (*command, "--replace") if again else command
    process = ended_by(*arguments, stuck=stuck, before=[command] if again else [])
    assert process.returncode == 130
    assert process.output == ""
    # A thread that was just being started may say a word after it.
    assert f"mp: Interrupted. The table {name!r} is unchanged." in process.errors.splitlines()
    assert "Traceback" not in process.errors
    if again:
        assert stored(tmp_path, f"SELECT count(*) FROM {name}") > 0
    else:
        assert not stored(tmp_path, TABLES)


@pytest.mark.slow
def test_requests_that_a_parallel_fetch_has_stored_are_told(ended_by, tmp_path):
    """They are kept, each with complete days, and the others can be added."""
    stuck = Fault("slow-first-byte", path=EXPORT, day=date(2024, 1, 3), seconds=600)
    process = ended_by(*TABLE, "--parallel", "--workers", "1", stuck=stuck)
    assert process.returncode == 130
    told = process.errors.splitlines()[-1]
    # The day before the one that is stuck may be on its way into the table.
    first, both = ("2024-01-01", "2024-01-01, 2024-01-02")
    days = stored(tmp_path, "SELECT count(DISTINCT event_time::DATE) FROM mine")
    assert told.startswith(f"mp: Interrupted. 'mine' now holds {first if days == 1 else both};")
    assert "--append" in told


@pytest.mark.slow
def test_the_other_days_of_a_sync_are_as_they_were(ended_by, tmp_path):
    """They are unchanged also before the first response, and during a snapshot of profiles."""
    first = Fault("slow-first-byte", path=EXPORT, seconds=600)
    process = ended_by("sync", *WEEK, stuck=first)
    assert process.returncode == 130
    assert process.errors == (
        "mp: Interrupted. Nothing was stored, and the database is unchanged.\n"
    )
    page = Fault("stall-mid-stream", path=PROFILES, skip=1, at=1)
    process = ended_by("sync", *WEEK, "--format", "json", stuck=page)
    assert process.returncode == 130
    assert len(json.loads(process.output)) == 7
    *_, told = process.errors.splitlines()
    assert json.loads(told)["code"] == "INTERRUPTED"
    assert "7 complete days" in json.loads(told)["message"]
    assert stored(tmp_path, "SELECT count(*) FROM mixpanel.profiles") == 0
    assert stored(tmp_path, "SELECT count(DISTINCT event_date) FROM mixpanel.events") == 7


@pytest.mark.slow  # the tests above interrupt such waits, too
def test_nobody_waits_for_answers_that_are_on_their_way(ended_by):
    """A page or a day may take minutes; the interrupt does not."""
    commands = [(("sync", *WEEK), EXPORT), (("fetch", "profiles", "people"), PROFILES)]
    for command, path in commands:
        stuck = Fault("slow-first-byte", path=path, seconds=600, skip=1)
        process = ended_by(*command, stuck=stuck)  # within 300 s
        assert process.returncode == 130


def days_in(path):
    if not path.exists():
        return []
    with duckdb.connect(path, read_only=True) as connection:
        tables = connection.execute(
            "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'events'"
        )
        if not tables.fetchone()[0]:
            return []
        counted = "SELECT event_date, count(*) FROM mixpanel.events GROUP BY ALL ORDER BY ALL"
        return connection.execute(counted).fetchall()


CALLS = 1_100  # about as many as a load of two answers makes, with its snapshot
AT = [*range(CALLS, 1, -CALLS // (3 * TIMES)), 1_050]


@pytest.mark.parametrize("call", AT)
def test_whatever_is_interrupted(call, forked_mp, emulator, tmp_path):
    """One sentence names the number of stored days, readers see them, the code is the signal's."""
    env = {
        **os.environ,
        **environment_of(emulator),
        "MP_DATABASE": str(tmp_path / "w.duckdb"),
        "MP_DAYS_PER_REQUEST": "2",
    }
    number = signal.SIGTERM if call % 2 else signal.SIGINT
    command = ("sync", "--from", "2024-01-01", "--to", "2024-01-04", "--no-profiles")
    done = forked_mp.run(command, env=env, cwd=tmp_path, interrupt=(number, call))
    stored = days_in(tmp_path / "w.duckdb")
    assert days_in(tmp_path / "w.snapshot.duckdb") == stored
    if done.returncode == 0:  # it was faster
        assert (len(stored), done.stderr) == (4, "")
        return
    days = f"{len(stored)} complete day{'s' if len(stored) > 1 else ''}"
    kept = f"Stored events of {days}" if stored else "Nothing was stored"
    assert (done.returncode, done.stderr.count("\n")) == (128 + number, 1), done.stderr
    assert done.stderr.startswith(f"mp: Interrupted. {kept}")
