"""`mp fetch`: data and nothing else on stdout, exit codes a script can tell apart."""

import fcntl
import json
import os
import signal
import subprocess
import termios
import time
from array import array
from collections import Counter
from datetime import UTC, date, datetime

import duckdb
import pytest

from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.loading.files import as_json
from mixpanel_assets_tests.cli.conftest import MP, heed_signals

DAY = date(2024, 1, 3)
RANGE = ("--from", "2024-01-03", "--to", "2024-01-03")
KEYS = ["event_name", "event_time", "distinct_id", "insert_id", "properties"]


@pytest.fixture
def mp_bytes(variables, forked_mp, tmp_path):
    """Run `mp` and return its outputs as bytes."""

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[bytes]:
        env = {**os.environ, **variables, **changes}
        return forked_mp.run(arguments, env=env, cwd=tmp_path, text=False)

    return run


@pytest.mark.parametrize("more", [(), ("--staged",)])
def test_raw_lines_are_written_byte_for_byte(more, mp_bytes, emulator):
    """Every line as Mixpanel sent it, and not a byte else; stderr is silent."""
    done = mp_bytes("fetch", "events", *RANGE, "--stdout", "--raw", *more)
    assert done.returncode == 0
    assert Counter(done.stdout.split(b"\n")[:-1]) == Counter(emulator.truth.lines(DAY))
    assert done.stderr == b""


def test_normalized_lines_are_json_with_times_in_utc(mp_here, emulator):
    """Five keys a line; `event_time` is ISO 8601 and ends in Z."""
    done = mp_here("fetch", "events", *RANGE, "--stdout")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(events) == len(list(emulator.truth.lines(DAY)))
    for event in events:
        assert list(event) == KEYS
        assert event["event_time"].startswith("2024-01-03T")
        assert event["event_time"].endswith("Z")
    assert not done.stderr


def test_what_msgspec_cannot_write_is_written_all_the_same():
    """Integers beyond 64 bits and half a surrogate pair are printed as JSON of the same value."""
    moment = datetime(2024, 1, 3, 10, tzinfo=UTC)
    for value in (2**70, "\ud83d"):
        written = json.loads(as_json({"event_time": moment, "properties": {"x": value}}))
        assert written == {"event_time": "2024-01-03T10:00:00Z", "properties": {"x": value}}


def test_filters_and_limit_narrow_the_lines(mp_here):
    """Names with commas between them, as a JSON array or repeated."""
    for names in (("-e", "Sign Up,Search"), ("-e", '["Sign Up","Search"]'), ("-e", "Search")):
        done = mp_here("fetch", "events", *RANGE, "--stdout", "-l", "5", *names)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(lines) == 5
        assert {line["event_name"] for line in lines} <= {"Sign Up", "Search"}


def test_the_reader_may_stop_reading(mp_here, variables, tmp_path):
    """`| head -1` gets its line, without an error, and the exit code is 0."""
    with Emulator(EmulatorSettings(start=DAY, days=1, exact_events=30_000)) as emulator:
        process = subprocess.Popen(
            [MP, "fetch", "events", *RANGE, "--stdout", "--raw"],
            env={**os.environ, **variables, **environment_of(emulator)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
        )
        assert json.loads(process.stdout.readline())
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait(300) == 0


def fetching(variables, tmp_path):
    return subprocess.Popen(
        [MP, "fetch", "events", *RANGE, "--stdout", "--raw"],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # `communicate` passes over what a read before it has left in the buffer
        cwd=tmp_path,
        preexec_fn=heed_signals,
    )


INTERRUPTED = b"mp: Interrupted. The lines on stdout are valid, but some events are missing.\n"


def test_an_interrupt_exits_with_130(variables, tmp_path, emulator):
    """Ctrl-C during a stream prints no traceback, and all written lines are complete."""
    emulator.faults.add(Fault("stall-mid-stream", path="/api/2.0/export", at=20_000))
    process = fetching(variables, tmp_path)
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=300)
    assert (errors, process.returncode) == (INTERRUPTED, 130)
    assert output.endswith(b"}\n")


def test_a_reader_that_does_not_read_cannot_hold_an_interrupted_process(variables, tmp_path):
    """SIGTERM ends the process although its last lines are stuck in a full pipe."""
    process = fetching(variables, tmp_path)
    seen = [0, 1]
    while seen[-1] < 40_000 or seen[-1] != seen[-2]:  # until it writes no more
        assert process.poll() is None
        time.sleep(0.2)
        seen += array("i", fcntl.ioctl(process.stdout, termios.FIONREAD, bytes(4)))
    process.send_signal(signal.SIGTERM)
    assert process.stderr.read() == INTERRUPTED
    assert process.wait(300) == 143
    process.stdout.close()
    process.stderr.close()


@pytest.mark.parametrize(
    "arguments",
    [
        ("events", *RANGE, "--raw"),
        ("events", "--from", "2024-01-03", "--stdout"),
        ("events", "--from", "2024-01-04", "--to", "2024-01-03", "--stdout"),
        ("events", *RANGE, "--stdout", "--limit", "0"),
        ("events", *RANGE, "--limit", "5"),
        ("events", *RANGE, "--stdout", "--replace"),
        ("events", *RANGE, "--stdout", "-e", "[1]"),
        ("events", *RANGE, "--stdout", "-e", "[oops"),
        ("profiles", "people", "--raw"),
        ("profiles", "people", "--append", "--replace"),
        ("profiles", "people", "--workers", "3"),
        ("profiles", "--stdout", "--parallel"),
        ("profiles", "--stdout", "--replace"),
        ("profiles", "--stdout", "--behaviors", "[]"),
        ("profiles", "--stdout", "--behaviors", "5", "-w", "x"),
        ("profiles", "--stdout", "--include-all-users"),
        ("profiles", "--stdout", "--cohort", "mine"),
        ("profiles", "--stdout", "--distinct-id", "a", "--distinct-ids", "b"),
    ],
)
def test_wrong_usage_exits_with_3(arguments, mp_here, emulator):
    """The error is raised before any request."""
    before = len(emulator.requests)
    done = mp_here("fetch", *arguments)
    assert done.code == 3
    assert not done.stdout
    assert len(emulator.requests) == before


def test_a_stream_that_breaks_exits_with_1(mp_here, emulator):
    """The lines on stdout are valid, and one sentence says that some are missing."""
    emulator.faults.add(Fault("truncate-mid-record", path="/api/2.0/export", at=50))
    done = mp_here("fetch", "events", *RANGE, "--stdout", "--raw")
    assert done.code == 1
    assert done.stdout.count("\n") == 50  # a property may hold what else ends a line
    assert "50 records had been delivered" in done.stderr


def test_a_day_that_never_comes_exits_with_6(mp_here, emulator):
    """Nothing was written."""
    emulator.faults.add(Fault("truncate-whole-body", path="/api/2.0/export", times=None))
    done = mp_here("fetch", "events", *RANGE, "--stdout", MP_MAX_RETRIES="0")
    assert (done.code, done.stdout) == (6, "")


def test_refused_credentials_exit_with_2(mp_here):
    """The exit code is 2, and nothing is on stdout."""
    done = mp_here("fetch", "events", *RANGE, "--stdout", MP_SECRET="wrong-77e")
    assert (done.code, done.stdout) == (2, "")
    assert "MP_SECRET" in done.stderr


def test_a_stream_makes_no_database(mp_here, tmp_path):
    """Nothing lies where the database would."""
    mp_here("fetch", "events", *RANGE, "--stdout")
    mp_here("fetch", "profiles", "--stdout")
    assert not list(tmp_path.glob("*.duckdb*"))
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize("more", [(), ("--raw",)])
def test_profiles_are_written_as_lines(more, mp_here, emulator):
    """One JSON object a profile."""
    done = mp_here("fetch", "profiles", "--stdout", *more)
    assert done.code == 0
    profiles = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(profiles) == len(emulator.truth.profiles())
    keys = {"$distinct_id", "$properties"} if more else {"distinct_id", "last_seen", "properties"}
    assert all(profile.keys() == keys for profile in profiles)


def test_a_table_is_made_and_described(mp_here, emulator, tmp_path):
    """JSON on stdout describes the table; creating it again needs --replace."""
    done = mp_here("fetch", "events", "mine", *RANGE)
    assert done.code == 0, done.stderr
    said = json.loads(done.stdout)
    stored = emulator.truth.count(DAY) - len(emulator.truth.unstorable(DAY))
    assert (said["table"], said["rows"], said["type"]) == ("mine", stored, "events")
    assert said["date_range"] == ["2024-01-03", "2024-01-03"]
    again = mp_here("fetch", "events", "mine", *RANGE)
    assert again.code == 1
    assert "'mine'" in again.stderr
    replaced = mp_here("fetch", "events", "mine", *RANGE, "--replace", "-e", "Sign Up")
    assert replaced.code == 0
    with duckdb.connect(tmp_path / "warehouse.duckdb", read_only=True) as connection:
        names = connection.execute("SELECT DISTINCT event_name FROM main.mine").fetchall()
    assert names == [("Sign Up",)]


@pytest.mark.parametrize("name", ['a"b', "x'; DROP TABLE people; --", "_x", "a b", "été", ""])
def test_what_is_no_name_for_a_table_exits_with_3(name, mp_here, emulator):
    """The error is raised before any request."""
    before = len(emulator.requests)
    for command in (("events", name, *RANGE), ("profiles", name)):
        done = mp_here("fetch", *command, "--format", "json")
        assert done.code == 3
        assert "is not a name for a table" in json.loads(done.stderr)["message"]
    assert len(emulator.requests) == before


def test_a_table_that_is_there_names_every_way_out(mp_here):
    """Another name, more rows, or other rows."""
    assert mp_here("fetch", "events", "mine", *RANGE).code == 0
    done = mp_here("fetch", "events", "mine", *RANGE)
    assert done.code == 1
    for way in ("another name", "--append", "append=True", "--replace", "replace=True"):
        assert way in done.stderr


def test_a_table_of_an_asset_that_is_there_names_what_it_takes(mp_here):
    """Never the option that is refused for it; what is advised works."""
    assert mp_here("fetch", "events", *RANGE).code == 0
    done = mp_here("fetch", "events", *RANGE)
    assert done.code == 1
    said = " ".join(done.stderr.split())
    assert "'events' is the asset's own table and holds days already; it is never replaced" in said
    assert "--replace" not in said
    assert mp_here("fetch", "events", *RANGE, "--append").code == 0
    assert mp_here("fetch", "events", *RANGE, "--replace").code != 0


def test_quiet_keeps_warnings_about_data(mp_here, emulator):
    """Faults that were repeated with success are not worth a word; what is missing is."""
    emulator.faults.add(Fault("500-json", path="/api/2.0/export"))
    emulator.faults.add(Fault("timeless-rows", day=date(2024, 1, 3), count=3))
    command = ("fetch", "events", *RANGE, "--stdout", "--staged")
    done = mp_here("-q", *command, MP_RETRY_WAIT_SECONDS="0.01")
    assert done.code == 0
    (line,) = done.stderr.splitlines()
    assert "no usable `time`" in line
