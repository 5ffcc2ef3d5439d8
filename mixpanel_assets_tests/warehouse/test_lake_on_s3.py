"""The object store of a lake fails in the middle of a load: nothing changes or is lost."""

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mixpanel_assets.errors import StorageError
from mixpanel_assets.rules.location import LakeLocation
from mixpanel_assets.warehouse import database_at
from mixpanel_assets.warehouse.lake import close_lakes
from mixpanel_assets_tests.lake_writers import by_day, replace_day, spools
from mixpanel_assets_tests.relay import Relay, relayed
from mixpanel_assets_tests.servers import S3
from mixpanel_assets_tests.warehouse.conftest import DAY, DAY_MS, START_MS, Warehouse, event

DAYS = 3  # each is a file of its own
SLOW = (pytest.mark.slow, pytest.mark.lake)
WRITER = """
import sys
from datetime import date
from pathlib import Path
from mixpanel_assets.rules.location import parse_location
from mixpanel_assets.warehouse import database_at
from mixpanel_assets_tests.lake_writers import replace_day, spools

database = database_at(parse_location(sys.argv[1], sys.argv[2]))
days = [date.fromisoformat(day) for day in sys.argv[4:]]
for received in spools(Path(sys.argv[3]), days, 200):
    replace_day(database, received)
"""
EVENTS = 200


@pytest.fixture
def relay(lake_on_s3: LakeLocation, s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """What the lake takes for its object store."""
    with relayed(s3.host, s3.port) as relay:
        monkeypatch.setenv("MP_S3_ENDPOINT", relay.endpoint)
        yield relay


@pytest.fixture
def on_s3(lake_on_s3: LakeLocation, relay: Relay, tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path, place=lake_on_s3)


def load(warehouse: Warehouse, rows: int) -> None:
    """Load the days in one transaction."""
    events = [
        event(time=START_MS + day * DAY_MS, **{"$insert_id": f"i{n}"})
        for day in range(DAYS)
        for n in range(rows)
    ]
    warehouse.load(events, to_date=DAY + timedelta(days=DAYS - 1))


def row_counts(warehouse: Warehouse) -> list[int]:
    return [rows for _, (rows, *_) in sorted(by_day(warehouse.database).items())]


@pytest.mark.parametrize("after_writes", [0, pytest.param(2, marks=SLOW)])
@pytest.mark.parametrize(
    "fault", [403, *(pytest.param(one, marks=SLOW) for one in (500, 503, "cut", "lost", "gone"))]
)
def test_a_store_that_fails_in_a_write_changes_nothing(
    on_s3: Warehouse, relay: Relay, s3: S3, fault: Any, after_writes: int
):
    """The error names the store and what to do; the same process loads when the store is back."""
    load(on_s3, 20)
    before = by_day(on_s3.database)
    relay.break_down(fault, after_writes=after_writes)
    with pytest.raises(StorageError, match=r"object store of .*run it again") as failed:
        load(on_s3, 30)
    assert relay.is_broken
    relay.recover()
    said = "".join(traceback.format_exception(failed.value))
    assert relay.endpoint in said or "s3://" in said
    assert s3.secret not in said
    assert by_day(on_s3.database) == before
    load(on_s3, 30)
    assert row_counts(on_s3) == [30] * DAYS


@pytest.mark.slow
@pytest.mark.lake
def test_a_store_that_cannot_be_reached_is_named(
    on_s3: Warehouse, relay: Relay, monkeypatch: pytest.MonkeyPatch
):
    """Nothing listens at its address."""
    load(on_s3, 20)
    before = by_day(on_s3.database)
    close_lakes()
    monkeypatch.setenv("MP_S3_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"object store of .*127.0.0.1:9.*run it again"):
        load(on_s3, 30)
    monkeypatch.setenv("MP_S3_ENDPOINT", relay.endpoint)
    assert by_day(on_s3.database) == before
    load(on_s3, 30)
    assert row_counts(on_s3) == [30] * DAYS


@pytest.mark.slow
@pytest.mark.lake
def test_files_of_an_interrupted_load_are_found(on_s3: Warehouse, relay: Relay):
    """The store had taken some, and could not delete them."""
    load(on_s3, 20)
    before = by_day(on_s3.database)
    relay.break_down("cut", after_writes=2)
    with pytest.raises(StorageError):
        load(on_s3, 30)
    relay.recover()
    assert on_s3.database.tidy().unknown_files == 0  # they are younger than a day
    left = on_s3.database.tidy(keep_days=0)
    assert left.unknown_files == 2
    assert "2 files" in str(left)
    tidied = on_s3.database.tidy(keep_days=0, delete_unknown=True)
    assert (tidied.deleted_files, tidied.unknown_files) == (2, 0)
    assert on_s3.database.tidy(keep_days=0).unknown_files == 0
    assert by_day(on_s3.database) == before


@pytest.mark.slow
@pytest.mark.lake
@pytest.mark.parametrize("writes", [1, 2])
def test_a_writer_that_dies_in_a_write_leaves_whole_days(
    on_s3: Warehouse, lake_on_s3: LakeLocation, relay: Relay, tmp_path: Path, writes: int
):
    """The day is the one before; the next writer does not wait, and the files are found."""
    days = [DAY + timedelta(days=n) for n in range(DAYS)]
    command = [sys.executable, "-c", WRITER, str(lake_on_s3), lake_on_s3.data_path, str(tmp_path)]
    command += [day.isoformat() for day in days]
    subprocess.run(command, check=True)
    before = by_day(on_s3.database)
    started = subprocess.Popen(command)
    left = iter(range(writes - 1, -1, -1))
    relay.on_write = lambda: next(left, 0) or os.kill(started.pid, signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    relay.on_write = lambda: None
    assert by_day(on_s3.database) == before
    [first, *_] = spools(tmp_path, days, EVENTS)
    replace_day(database_at(lake_on_s3, lock_timeout=30), first)
    assert by_day(on_s3.database) == before
    assert on_s3.database.tidy(keep_days=0).unknown_files == 1  # a day is committed by itself
