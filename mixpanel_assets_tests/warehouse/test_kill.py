"""A load killed at any moment leaves the old day or the new one, never a mixture."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import count

import pytest

from mixpanel_assets_tests.laws import TIMES, siblings
from mixpanel_assets_tests.warehouse.conftest import DAY, START_MS, Warehouse, event

ROWS = 1500
STEP = 29 if TIMES > 1 else 331
KILLS = 30 if TIMES > 1 else 12
# Forks a loader for each request, which saves the imports; tells its pid and how it ended.
LOADERS = """
import os, signal, sys
from datetime import date
from pathlib import Path
from mixpanel_assets.warehouse.database import Database
from mixpanel_assets.rules.lines import ReceivedDays
from mixpanel_assets.warehouse.events import replace_events, stage_days
from mixpanel_assets.warehouse.project import ProjectIdentity, prepare

def load(database, spool, lines, die_before):
    def count_down(frame, kind, argument):
        nonlocal die_before
        code = frame.f_code
        if "mixpanel_assets/warehouse" in code.co_filename and code.co_name != "_from_row":
            die_before -= 1
            if die_before == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    project, day = ProjectIdentity("1234", "eu"), date(2026, 3, 1)
    if die_before:
        sys.setprofile(count_down)
    received = ReceivedDays(Path(spool), day, day, lines, names_once=True)
    opened = Database(Path(database))
    with (
        opened.staging() as memory,
        stage_days(memory, received, project=project) as staged,
        opened.write(memory) as connection,
    ):
        prepare(connection, project)
        replace_events(connection, staged)
    sys.setprofile(None)

for request in sys.stdin:
    database, spool, lines, die_before = request.split("|")
    if not (child := os.fork()):
        try:
            load(database, spool, int(lines), int(die_before))
        except BaseException:
            os._exit(1)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def loaders():
    process = subprocess.Popen(
        [sys.executable, "-c", LOADERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.communicate()


def version(number: int) -> list[dict]:
    """A day's events; rows of two versions cannot be mistaken for each other."""
    return [
        event("Visit", START_MS + n, v=number, **({"$insert_id": str(n)} if n % 9 else {}))
        for n in range(ROWS)
    ]


def load(loaders, warehouse: Warehouse, number: int, *, die_before=0, after_seconds=None) -> int:
    """Load in a process of its own, killed at its n-th step or after a time."""
    spool = warehouse.spool(version(number), compress=True)
    request = "|".join(map(str, [warehouse.database.path, spool, ROWS, die_before]))
    loaders.stdin.write(f"{request}\n")
    loaders.stdin.flush()
    child = int(loaders.stdout.readline())
    if after_seconds is not None:
        time.sleep(after_seconds)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return int(loaders.stdout.readline())


def stored_version(warehouse: Warehouse) -> int:
    """Return the one version that is stored, and check that it is whole with its ledger."""
    ((versions, rows, ids),) = warehouse.query(
        "SELECT list(DISTINCT (properties ->> '$.v')::INT), count(*), count(DISTINCT insert_id) "
        "FROM events"
    )
    assert (len(versions), rows, ids) == (1, ROWS, ROWS)
    ledger = warehouse.query(
        "SELECT day, days.row_count, event_name, counts.row_count FROM mixpanel._days AS days "
        "JOIN mixpanel._event_counts AS counts USING (day)"
    )
    assert ledger == [(DAY, ROWS, "Visit", ROWS)]
    return versions[0]


def test_a_kill_at_any_step_leaves_old_or_new(tmp_path, loaders):
    """Killed at one step of the load after another, the day is whole and loads again."""
    warehouse = Warehouse(tmp_path)
    warehouse.load(version(0))
    old = 0
    for number in count(1):
        ended = load(loaders, warehouse, number, die_before=STEP * number)
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
        stored = stored_version(warehouse)
        assert stored in {old, number}
        old = stored
    assert number > 4
    assert stored_version(warehouse) == number


def test_a_kill_at_any_time_leaves_old_or_new(tmp_path, loaders):
    """Killed after random times, the day is whole and loads again with nothing to clean."""
    warehouse = Warehouse(tmp_path)
    warehouse.load(version(0))
    chance, old = random.Random(5), 0
    for number in range(1, KILLS + 1):
        load(loaders, warehouse, number, after_seconds=chance.uniform(0, 0.2))
        stored = stored_version(warehouse)
        assert stored in {old, number}
        old = stored
    warehouse.load(version(99))
    assert stored_version(warehouse) == 99


@pytest.mark.parametrize("die_before", siblings([1, 120, 60, 240], keep=2))
def test_a_first_load_can_be_killed(tmp_path, loaders, die_before):
    """Killed while the file is made, the next load finds nothing in its way."""
    warehouse = Warehouse(tmp_path)
    assert load(loaders, warehouse, 1, die_before=die_before) == -signal.SIGKILL
    warehouse.load(version(2))
    assert stored_version(warehouse) == 2
