"""`mp sync`: the days asked for, or those that keep a database current."""

import csv
import json
import os
import shutil
import signal
import subprocess
from datetime import UTC, date, datetime, timedelta

import duckdb
import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.cli.emulate import environment_of
from mixpanel_assets.currency import days_behind
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.warehouse import Database
from mixpanel_assets_tests.cli.conftest import MP
from mixpanel_assets_tests.conftest import START

DAY = timedelta(days=1)
TWO = ("--from", "2024-01-03", "--to", "2024-01-04", "--no-profiles")


def days_of(done):
    return [(date.fromisoformat(one["day"]), one["status"]) for one in json.loads(done.stdout)]


def test_alone_it_starts_where_settings_say_and_goes_on_from_there(mp_here):
    """First from MP_START_DATE, then from the last day that is over; until today."""
    start = datetime.now(UTC).date() - 3 * DAY
    command = ("sync", "--no-profiles", "--format", "json")
    first = days_of(mp_here(*command, MP_START_DATE=str(start)))
    assert [day for day, _ in first] == [start + n * DAY for n in range(len(first))]
    *over, (today, status) = first
    assert status == "open"
    assert {status for _, status in over} == {"empty"}
    again = days_of(mp_here(*command, MP_START_DATE=str(start)))
    assert again[0][0] == over[-1][0]
    assert again[-1][0] >= today


def test_a_day_that_stayed_broken_is_asked_for_again(emulator, credentials, settings):
    """However many came after it: otherwise nobody would see that it is missing."""
    emulator.faults.add(Fault("truncate-whole-body", day=START + 2 * DAY, times=None))
    eager = settings.model_copy(update={"max_retries": 0})
    with Workspace(credentials=credentials, settings=eager) as workspace:
        with pytest.raises(IncompleteExportError):
            workspace.sync_events(START, START + 5 * DAY)
        database = Database(settings.database)
        assert days_behind(database, settings)[0] == START + DAY
        emulator.faults.clear()
        workspace.sync_events(START + 2 * DAY, START + 2 * DAY)
        assert days_behind(database, settings)[0] == START + 5 * DAY


def test_an_open_day_is_asked_for_again(credentials, settings, tmp_path):
    """It had not ended when it was stored."""
    now = datetime(2024, 1, 4, 12, tzinfo=UTC)
    with Emulator(EmulatorSettings(start=START, now=lambda: now)) as emulator:
        here = settings.model_copy(update={"api_base_url": emulator.base_url})
        with Workspace(credentials=credentials, settings=here) as workspace:
            workspace.sync_events(START, START + DAY)
    with duckdb.connect(settings.database) as connection:
        connection.execute("UPDATE mixpanel._days SET status = 'open' WHERE day = '2024-01-02'")
    assert days_behind(Database(settings.database), settings)[0] == START


def test_records_tell_what_was_stored(mp_here, emulator):
    """One per day, and one for the profiles; the place goes to stderr."""
    done = mp_here("sync", *TWO[:-1], "-f", "csv")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["table"] for row in rows] == ["events", "events", "profiles"]
    day = date(2024, 1, 3)
    held = emulator.truth.count(day) - len(emulator.truth.unstorable(day))
    assert int(rows[0]["row_count"]) == held
    assert "warehouse.duckdb" in done.stderr


def test_stored_days_are_told_when_others_stay_broken(mp_here, emulator):
    """The records, the error in JSON, and exit code 1."""
    emulator.faults.add(Fault("truncate-whole-body", day=date(2024, 1, 4), times=None))
    done = mp_here("sync", *TWO, "--format", "json", MP_MAX_RETRIES="0", MP_DAYS_PER_REQUEST="1")
    assert done.code == 1
    assert [day for day, _ in days_of(done)] == [date(2024, 1, 3)]
    assert json.loads(done.stderr.splitlines()[-1])["code"] == "INCOMPLETE_EXPORT"


@pytest.mark.parametrize("command", [("plan", *TWO[:-1]), ("quota",), ("clean",), ("doctor",)])
def test_other_commands_have_forms_for_programs(command, mp_here):
    """JSON is for jq, and --jq alone means JSON."""
    done = mp_here(*command, "--format", "json")
    assert done.code == 0
    assert json.loads(done.stdout)
    assert mp_here(*command, "--jq", "length").stdout.strip().isdecimal()


def start_mp(variables, tmp_path, *arguments, **more):
    return subprocess.Popen(
        [MP, *arguments],
        env={**os.environ, **variables, **more},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_interrupt_leaves_whole_days_only(tmp_path):
    """Exit code 130, no traceback; each day is there whole, or not at all."""
    with Emulator(EmulatorSettings(start=START, days=14)) as emulator:
        emulator.faults.add(Fault("slow-first-byte", day=date(2024, 1, 2), seconds=30))
        variables = {
            **environment_of(emulator),
            "MP_DATABASE": str(tmp_path / "w.duckdb"),
            "MP_DAYS_PER_REQUEST": "1",
        }
        week = ("--from", "2024-01-01", "--to", "2024-01-07", "--no-profiles")
        process = start_mp(variables, tmp_path, "sync", *week)
        assert process.stdout.readline().startswith("2024-01-01")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        held = emulator.truth.count(START) - len(emulator.truth.unstorable(START))
    assert process.returncode == 130
    assert errors.splitlines() == [
        "mp: Interrupted. Events of 1 whole days are stored, 2024-01-01 to 2024-01-01; the rest is "
        "as it was. The same command loads what is missing."
    ]
    with duckdb.connect(tmp_path / "w.duckdb", read_only=True) as connection:
        assert connection.execute(
            "SELECT event_date::VARCHAR, count(*) FROM mixpanel.events GROUP BY ALL"
        ).fetchall() == [("2024-01-01", held)]


@pytest.mark.parametrize("command", [("sync", *TWO), ("quota",), ("auth", "list"), ("--help",)])
def test_a_closed_pipe_ends_quietly(command, variables, tmp_path):
    """With 0 and nothing on stderr; a load is finished all the same."""
    process = start_mp(variables, tmp_path, *command)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert errors == ""
    if command[0] == "sync":
        with duckdb.connect(tmp_path / "warehouse.duckdb", read_only=True) as connection:
            assert connection.execute(
                "SELECT count(DISTINCT event_date) FROM mixpanel.events"
            ).fetchone() == (2,)


@pytest.mark.parametrize("line", [("sync", "--nonsense"), ("nonsense",), ("quota", "--from")])
def test_wrong_usage_is_one_json_object_when_asked_for(line, mp_here):
    """Wherever --format stands, and however it is written."""
    for form in (("--format", "json"), ("--format=jsonl",), ("-fjson",)):
        done = mp_here(*line, *form) if line[-1] != "--from" else mp_here(*form, *line)
        assert done.code == 3
        assert json.loads(done.stderr)["code"] == "INVALID_ARGUMENTS"
    assert "Usage" in mp_here(*line).stderr


def asked_by(shell, *arguments):
    # Two commands, or the shell makes way for the first one instead of starting it.
    line = [shutil.which(shell), "-c", '"$@"; exit $?', shell, MP, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("shell", "arguments"),
    [
        ("bash", ("--show-completion",)),
        ("sh", ("--show-completion", "bash")),
        ("sh", ("--show-completion=zsh",)),
    ],
)
def test_completion_can_be_shown(shell, arguments):
    """The script of the shell that asks, or of the one that is named."""
    done = asked_by(shell, *arguments)
    assert done.returncode == 0, done.stderr
    assert "_MP_COMPLETE" in done.stdout


@pytest.mark.parametrize("shell", [("sh",), ("bash", "zsh"), ("sh", "--quiet")])
@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
def test_a_shell_without_completion_is_told_which_have_one(option, shell):
    """In one sentence, as everything else."""
    done = asked_by("bash", option, *shell)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("mp: ")
    assert "bash, zsh, fish" in done.stderr


def test_completion_can_be_installed_for_a_shell_that_is_named(mp, tmp_path):
    """Whichever shell asks."""
    done = mp("--install-completion", "zsh", HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "_MP_COMPLETE" in (tmp_path / ".zfunc" / "_mp").read_text()
