"""Whatever lock is waited for: the wait names the process that holds it, and ends when it must."""

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from mixpanel_assets.auth.file import ConfigFile
from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.client import BudgetSettings
from mixpanel_assets.client.budget import Budget
from mixpanel_assets.errors import DatabaseLockedError
from mixpanel_assets.rules.locks import Wait, kernel_holder, short_command
from mixpanel_assets.warehouse import Publisher
from mixpanel_assets.warehouse.database import Database
from mixpanel_assets_tests.cli.conftest import MP, heed_signals
from mixpanel_assets_tests.warehouse.processes import in_another_process

LOCK = """
    import fcntl
    file = open(sys.argv[1], "a")
    fcntl.flock(file, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""
OTHER_PROGRAM = """
    import sqlite3
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    print("held", flush=True)
    sys.stdin.read()
"""
ROW_LOCK = """
    from filelock import ReadWriteLock
    lock = ReadWriteLock(sys.argv[1], is_singleton=False)
    lock.acquire_write()
    print("held", flush=True)
    sys.stdin.read()
"""
LEDGER = "us-12345.sqlite"
BY = [(LOCK, f"{LEDGER}.lock"), (OTHER_PROGRAM, LEDGER)]


def budget_in(folder: Path, **given: object) -> Budget:
    budget = Budget(BudgetSettings(state_dir=folder), "us-12345", **given)
    budget.usage()
    return budget


@pytest.mark.parametrize(("program", "file"), BY)
def test_the_request_ledger_names_its_holder(program, file, tmp_path):
    """Also a program that knows nothing of our lock; a request may not wait longer for it."""
    budget = budget_in(tmp_path, max_wait_seconds=0.0)
    with (
        in_another_process(program, tmp_path / file) as process,
        pytest.raises(
            DatabaseLockedError, match=rf"ledger .*{LEDGER} is held by .*gave up"
        ) as told,
    ):
        budget.usage()
    assert told.value.holding_pid == process.pid
    assert f"process {process.pid} (python -c import" in told.value.message
    assert budget.usage()


@pytest.mark.parametrize(("program", "file"), BY)
def test_a_cancelled_request_stops_waiting_for_the_ledger(program, file, tmp_path):
    """Otherwise a thread would keep an interrupted process alive."""
    budget = budget_in(tmp_path)
    with in_another_process(program, tmp_path / file):
        threading.Timer(0.1, budget.cancelled.set).start()
        with pytest.raises(DatabaseLockedError, match="cancelled"):
            budget.ledger("export").take()


@pytest.mark.parametrize(
    "command",
    [
        ("sync", "--from", "2024-01-01", "--no-profiles"),
        pytest.param(("quota",), marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_ends_a_wait_for_the_ledger(command, emulator, forked_mp, tmp_path):
    """It says for which process it waits, then that nothing was stored."""
    variables = {
        **os.environ,
        **environment_of(emulator),
        "MP_STATE_DIR": str(tmp_path / "state"),
        "MP_DATABASE": str(tmp_path / "w.duckdb"),
    }
    assert forked_mp.run(["quota"], env=variables, cwd=tmp_path).returncode == 0
    [ledger] = (tmp_path / "state").glob("*.sqlite")
    with (
        in_another_process(LOCK, f"{ledger}.lock") as holder,
        subprocess.Popen(
            [MP, *command],
            env=variables,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            preexec_fn=heed_signals,
        ) as process,
    ):
        assert f"held by process {holder.pid} (python -c import" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().startswith("mp: Interrupted.")
        assert process.wait(300) == 130


@pytest.mark.slow
def test_the_config_file_names_its_holder(tmp_path, caplog):
    """A change of the accounts goes on once the other one is done."""
    file = ConfigFile(tmp_path / "config.toml")
    with in_another_process(LOCK, tmp_path / "config.toml.lock") as process:
        threading.Timer(1.5, process.kill).start()
        file.change(lambda content: content.update(default="shop"))
    assert f"config file {tmp_path / 'config.toml'}: it is held by process {process.pid}" in (
        caplog.text
    )
    assert file.read() == {"default": "shop"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["w.duckdb.writers", "w.snapshot.duckdb.lock"])
def test_the_locks_of_the_snapshot_name_their_holder(name, tmp_path):
    """A load that cannot begin fails; a failed snapshot is reported, and the data is kept."""
    said: list[str] = []
    database = Database(tmp_path / "w.duckdb", lock_timeout=0.2)
    publisher = Publisher(database, "auto", said.append)

    def write() -> None:
        with publisher.writing(), database.write() as connection:
            connection.execute("CREATE TABLE numbers AS SELECT 1 AS n")

    with in_another_process(ROW_LOCK, tmp_path / name) as process:
        try:
            write()
        except DatabaseLockedError as error:
            said.append(error.message)
    assert f"is held by process {process.pid} (python -c import" in said[-1]
    assert database.is_missing == (name == "w.duckdb.writers")


@pytest.mark.slow  # it waits as long as an interrupt may
def test_an_interrupt_does_not_wait_long_for_a_snapshot(tmp_path):
    """The process is about to end, and the next one that writes takes it."""
    said: list[str] = []
    database = Database(tmp_path / "w.duckdb")
    publisher = Publisher(database, "auto", said.append)

    def interrupted() -> None:
        with publisher.writing(), database.write() as connection:
            connection.execute("CREATE TABLE numbers AS SELECT 1 AS n")
            raise KeyboardInterrupt

    with database.write():
        pass
    began = time.monotonic()
    with (
        in_another_process(ROW_LOCK, tmp_path / "w.snapshot.duckdb.lock"),
        pytest.raises(KeyboardInterrupt),
    ):
        interrupted()
    assert time.monotonic() - began < 300  # and not ten minutes
    assert "gave up" in said[-1]


def test_the_own_process_is_named_last(tmp_path):
    """Another thread may hold a lock; a lock of another process is what one waits for."""
    mine, other = tmp_path / "mine.lock", tmp_path / "other.lock"
    with FileLock(mine):
        assert "this process itself" in str(kernel_holder(mine))
        with in_another_process(LOCK, other) as process:
            assert kernel_holder(mine, other).pid == process.pid
    assert kernel_holder(mine) is None


def test_a_wait_without_end_can_be_interrupted():
    """Ctrl-C, in a program whose handler is Python's own."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            Wait("it", Path("x")).until(lambda: False, lambda: None)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "words",
    [
        ["sync", "--database", "ducklake:postgresql://me:planted/w@rd@db/lake"],
        ["sync", "--database=ducklake:postgres://:planted@db/lake"],
        ["--database", "ducklake:postgres:password='planted w\\'ord planted' host=db"],
        ["--database", "ducklake:postgres:password = planted host=db"],
        ["auth", "--secret", "planted"],
        ["auth", "--secret=planted"],
    ],
)
def test_a_holders_command_line_shows_no_password(words):
    """Every user of the machine, and with a lake of the server, may read it."""
    shown = short_command(["/usr/bin/mp", *words])
    assert not {"planted", "rd"} & set(re.split(r"\W+", shown))
    assert shown.startswith("mp ")
