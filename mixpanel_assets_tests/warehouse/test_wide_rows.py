"""Days of large events fit into the memory that DuckDB may use, and nothing is kept by halves."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from mixpanel_assets.errors import StorageError
from mixpanel_assets.rules.lines import ReceivedDays
from mixpanel_assets.warehouse.database import Database
from mixpanel_assets.warehouse.memory import make_room
from mixpanel_assets.warehouse.project import log_path
from mixpanel_assets_tests.warehouse.conftest import DAY, START_MS, Warehouse

SETTINGS = "SELECT current_setting('memory_limit'), current_setting('threads')"


def wide(number: int, size: int) -> bytes:
    digits = b",".join(b"0.%017d" % (number + place) for place in range(size // 20))
    return b'{"event":"A","properties":{"time":%d,"$insert_id":"i%d","a":[%b]}}' % (
        START_MS,
        number,
        digits,
    )


@pytest.mark.parametrize(("rows", "size"), [(40, 200_000)])
def test_a_day_of_large_events_fits_into_little_memory(tmp_path, rows, size):
    """DuckDB reads thousands of lines at once, and takes 30 bytes for each of theirs."""
    warehouse = Warehouse(tmp_path)
    lines = [wide(number, size) for number in range(rows)]
    spool = warehouse.spool(lines)
    database = Database(warehouse.database.path, memory_limit="100MB")
    database.hold()
    before = database.hold().execute(SETTINGS).fetchall()
    received = ReceivedDays(spool, DAY, DAY, rows, names_once=True)
    [report] = warehouse.store(received, database=database)
    assert report.row_count == rows
    assert database.hold().execute(SETTINGS).fetchall() == before
    stored = database.hold().execute("SELECT insert_id, md5(properties) FROM events").fetchall()
    database.release()
    assert len(set(stored)) == rows
    [(one,)] = warehouse.query("SELECT properties FROM events WHERE insert_id = 'i7'")
    assert one.encode()[1:-1] in lines[7]


_LOAD = """
import sys
from datetime import date
from pathlib import Path
from benchmarks.stream_client import peak_bytes
from mixpanel_assets.rules.lines import ReceivedDays
from mixpanel_assets.warehouse.database import Database
from mixpanel_assets.warehouse.events import replace_events, stage_days
from mixpanel_assets.warehouse.project import ProjectIdentity, prepare

folder, project = Path(sys.argv[1]), ProjectIdentity("1", "us")
day = date(2026, 3, 1)
received = ReceivedDays(folder / "spool.jsonl", day, day, int(sys.argv[2]), names_once=True)
database = Database(folder / "large.duckdb", memory_limit=sys.argv[3])
with (
    database.staging() as memory,
    stage_days(memory, received, project=project) as staged,
    database.write(memory) as connection,
):
    prepare(connection, project)
    replace_events(connection, staged)
print(peak_bytes())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("memory_limit", "allowed"), [("1GB", 1.3e9), ("500MB", 0.8e9)])
def test_a_day_takes_no_more_memory_than_it_may(tmp_path, memory_limit, allowed):
    """875 MB of events of 250 kB with long numbers: the limit and 300 MB of the process itself."""
    with (tmp_path / "spool.jsonl").open("wb") as spool:
        spool.writelines(wide(number, 250_000) + b"\n" for number in range(3500))
    arguments = [sys.executable, "-c", _LOAD, str(tmp_path), "3500", memory_limit]
    peak = int(subprocess.run(arguments, check=True, capture_output=True).stdout)
    assert peak < allowed


def test_what_a_load_changes_of_the_settings_is_undone(tmp_path):
    """Also in a database that is held, and when the load fails."""
    database = Database(tmp_path / "held.duckdb", memory_limit="900MB")
    before = database.hold().execute(SETTINGS).fetchall()

    def load(largest: int) -> None:
        with database.write() as connection:
            make_room(connection, largest)
            assert connection.execute(SETTINGS).fetchall() != before
            raise StorageError("stop")

    for largest, said in ((64 << 20, "stop"), (2 << 30, r"Set MP_MEMORY_LIMIT to \d+MB")):
        with pytest.raises(StorageError, match=said):
            load(largest)
        assert database.hold().execute(SETTINGS).fetchall() == before
    database.release()


def test_a_write_needs_no_log_and_a_log_that_is_there_is_read(tmp_path):
    """A killed process that held the database leaves a log with what it had committed."""
    held = Database(tmp_path / "held.duckdb")
    held.hold().execute("CREATE TABLE numbers (n INTEGER)")
    held.hold().execute("CHECKPOINT")
    with held.write() as connection:
        connection.execute("INSERT INTO numbers VALUES (1)")
    killed = Database(tmp_path / "killed.duckdb")
    for file, copy in ((held.path, killed.path), (log_path(held.path), log_path(killed.path))):
        shutil.copyfile(file, copy)
    held.release()
    for number in (2, 3):
        with killed.write() as connection:
            connection.execute("INSERT INTO numbers VALUES (?)", [number])
        assert not log_path(killed.path).exists()
        with killed.read() as connection:
            assert connection.execute("SELECT count(*) FROM numbers").fetchall() == [(number,)]
