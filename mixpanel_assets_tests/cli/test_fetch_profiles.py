"""`mp fetch profiles`: tables, lost pages and exit codes, in a shell."""

import json
import os
import pty
import subprocess

import duckdb
import pytest

from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets_tests.cli.conftest import MP

ENGAGE = "/api/query/engage"


@pytest.fixture
def emulator():
    with Emulator(EmulatorSettings(days=3, profiles=95, page_size=10)) as emulator:
        yield emulator


def rows(tmp_path, table):
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
        [(count,)] = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    return count


def test_a_table_is_made_and_told(mp_here, emulator, tmp_path):
    """JSON on stdout, a line per page on stderr."""
    done = mp_here("fetch", "profiles", "people", "--parallel", "--workers", "3")
    assert done.code == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["table"] == "people"
    assert told["total_rows"] == rows(tmp_path, "people") == len(emulator.truth.profiles())
    assert (told["successful_pages"], told["has_failures"]) == (10, False)
    assert done.stderr.count("✓ Page ") == 10
    assert "(cumulative: 95)" in done.stderr


def test_lost_pages_end_in_1_and_are_named(mp_here, emulator, tmp_path):
    """The other pages are stored; the same command then requests only the two failed pages."""
    for page in (2, 8):
        emulator.faults.add(Fault("500-json", path=ENGAGE, page=page, times=None))
    command = ("fetch", "profiles", "people", "--parallel", "--no-progress")
    done = mp_here(*command, MP_MAX_RETRIES="0")
    assert done.code == 1
    assert json.loads(done.stdout)["failed_page_indices"] == [2, 8]
    assert "could not be fetched: 2, 8" in done.stderr
    assert rows(tmp_path, "people") == 75
    emulator.faults.clear()
    asked = len(emulator.requests)
    assert mp_here(*command).code == 0
    assert len(emulator.requests) - asked == 2
    assert rows(tmp_path, "people") == 95


def test_lost_pages_end_sync_in_1_and_are_named(mp_here, emulator, tmp_path):
    """The exit code is 1, and the other pages are stored."""
    emulator.faults.add(Fault("500-json", path=ENGAGE, page=4, times=None))
    days = ("--from", "2024-01-01", "--to", "2024-01-01")
    done = mp_here("sync", *days, MP_MAX_RETRIES="0")
    assert done.code == 1
    assert "1 page could not be fetched: 4." in done.stderr
    assert rows(tmp_path, "mixpanel.profiles") == 85


def test_no_page_at_all_ends_in_6(mp_here, emulator, tmp_path):
    """Nothing is stored."""
    emulator.faults.add(Fault("html-200", path=ENGAGE, times=None))
    done = mp_here("fetch", "profiles", "people", MP_MAX_RETRIES="0")
    assert done.code == 6
    assert not (tmp_path / "warehouse.duckdb").exists()


def test_a_table_that_is_there_ends_in_1(mp_here):
    """Unless an option says what to do with the table."""
    assert mp_here("fetch", "profiles", "people").code == 0
    done = mp_here("fetch", "profiles", "people")
    assert done.code == 1
    assert "--replace" in done.stderr
    assert mp_here("fetch", "profiles", "people", "--append").code == 0


@pytest.mark.slow
def test_a_terminal_shows_pages_rows_and_rate(variables, tmp_path):
    """A bar instead of lines."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [MP, "fetch", "profiles", "people", "--parallel"],
        env={**os.environ, **variables, "TERM": "xterm", "COLUMNS": "120"},
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=child,
    )
    os.close(child)
    shown = bytearray()
    while block := _read(parent):
        shown += block
    assert process.wait(timeout=300) == 0
    text = shown.decode(errors="replace")
    assert "10/10" in text
    assert "95 rows" in text
    assert "/s" in text


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other side is gone
        return b""
