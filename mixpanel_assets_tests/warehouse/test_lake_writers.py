"""Many writers of one lake: every day is that of a single writer, also after a writer died."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from mixpanel_assets.rules.location import LakeLocation
from mixpanel_assets.warehouse import database_at
from mixpanel_assets_tests.lake_writers import by_day, replace_day, spools, write_days
from mixpanel_assets_tests.warehouse.conftest import DAY

EVENTS = 200
KILLED = """
import os, signal, sys, threading, time
from mixpanel_assets.rules.location import parse_location
from mixpanel_assets.warehouse import database_at
from mixpanel_assets_tests.lake_writers import replace_day, spools
from pathlib import Path
from datetime import date

# At a random moment of a write: staging, the transaction, or its commit.
threading.Timer(float(sys.argv[4]), os.kill, (os.getpid(), signal.SIGKILL)).start()
database = database_at(parse_location(sys.argv[1], sys.argv[2]))
[received] = spools(Path(sys.argv[3]), [date.fromisoformat(sys.argv[5])], int(sys.argv[6]))
print("writes", flush=True)
while True:
    replace_day(database, received)
"""


@pytest.mark.lake
@pytest.mark.parametrize(("number", "same_days"), [(2, True), (8, True), (8, False)])
def test_days_are_those_of_a_single_writer(
    lake: LakeLocation, tmp_path: Path, number: int, same_days: bool
):
    """No write is lost or repeated, whether the writers share the days or replace the same."""
    days = [DAY + timedelta(days=n) for n in range(4 * number if not same_days else 4)]
    received = spools(tmp_path, days, EVENTS)
    alone = database_at(tmp_path / "alone.duckdb")
    for one in received:
        replace_day(alone, one)
    replace_day(database_at(lake), received[0])  # makes the tables
    jobs = [received * 2 if same_days else received[n::number] * 2 for n in range(number)]
    took = write_days(lake, jobs)
    assert by_day(database_at(lake)) == by_day(alone)
    assert took.repeated == 0


@pytest.mark.lake
@pytest.mark.parametrize("seconds", [1.5, 2.0, 2.5, 3.0, 3.5, 4.0])
def test_a_killed_writer_leaves_whole_days(lake: LakeLocation, tmp_path: Path, seconds: float):
    """The day is the one before or the one after; the next writer does not wait."""
    day = DAY.isoformat()
    [first] = spools(tmp_path, [DAY], EVENTS)
    replace_day(database_at(lake), first)
    before = by_day(database_at(lake))
    command = [sys.executable, "-c", KILLED, str(lake), lake.data_path, str(tmp_path)]
    killed = subprocess.run(
        [*command, str(seconds), day, str(EVENTS)], env=dict(os.environ), capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert by_day(database_at(lake)) == before
    replace_day(database_at(lake, lock_timeout=30), first)
    assert by_day(database_at(lake)) == before
