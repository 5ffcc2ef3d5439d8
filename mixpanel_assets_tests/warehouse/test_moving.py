"""Moving a database: into a lake and back, equal day by day, and resumed after a kill."""

import shutil
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from mixpanel_assets.errors import ConfigError, DatabaseNotFoundError, StorageError
from mixpanel_assets.rules.location import LakeLocation
from mixpanel_assets.warehouse import ProjectIdentity, database_at, prepare
from mixpanel_assets.warehouse.moving import move
from mixpanel_assets_tests.warehouse.conftest import DAY, DAY_MS, START_MS, Warehouse, event
from mixpanel_assets_tests.warehouse.profiles import profile, store

LONG = "12345678901234567890123"
KILLED = """
import os, signal, sys
from pathlib import Path
from mixpanel_assets.rules.location import parse_location
from mixpanel_assets.warehouse import database_at, move

def stop(table):
    if table.table == "events":
        os.kill(os.getpid(), signal.SIGKILL)

move(database_at(Path(sys.argv[1])), database_at(parse_location(sys.argv[2], sys.argv[3])), stop)
"""


@pytest.fixture
def file(tmp_path: Path) -> Warehouse:
    """A file with days of events, profiles, a quarantined line, a failed day and another table."""
    warehouse = Warehouse(tmp_path)
    for n in range(3):
        day = DAY + timedelta(days=n)
        lines = [event(time=START_MS + n * DAY_MS, insert=i, long=int(LONG)) for i in range(30)]
        warehouse.load([*lines, event(time=None)] if n == 1 else lines, from_date=day)
    store(warehouse, [profile("u"), profile("v", nul="a\0b")], expected_total=2)
    with warehouse.database.write() as connection:
        connection.execute("CREATE SCHEMA shop")
        connection.execute(
            f"CREATE TABLE shop.orders AS SELECT {LONG}::HUGEINT AS a, 'x'::ENUM('x') AS kind, "
            "range AS n FROM range(20)"
        )
    return warehouse


def contents(warehouse: Warehouse) -> list[object]:
    """Return every row as text."""
    return [
        warehouse.query(f"SELECT COLUMNS(*)::VARCHAR FROM {table} ORDER BY ALL")
        for table in (
            *("mixpanel.events", "mixpanel.profiles", "mixpanel._days", "mixpanel._event_counts"),
            *("mixpanel._quarantine", "mixpanel._project", "shop.orders"),
        )
    ]


def test_a_file_goes_into_a_lake_and_back_unchanged(file: Warehouse, lake: LakeLocation, tmp_path):
    """Every row and every day of the ledger is there, and loads go on in the copy."""
    before = contents(file)
    moved = move(file.database, database_at(lake))
    assert {(one.table, one.days, one.rows) for one in moved} >= {
        ("events", 3, 90),
        ("profiles", 1, 2),
        ("orders", 0, 20),
    }
    in_lake = Warehouse(tmp_path, place=lake)
    assert contents(in_lake) == before == contents(file)
    back = Warehouse(tmp_path, place=tmp_path / "back.duckdb")
    move(in_lake.database, back.database)
    assert contents(back) == before
    (report,) = in_lake.load([event(insert=i, long=int(LONG)) for i in range(30)])
    assert report.rows_before == 30


def test_a_killed_copy_is_refused_by_others_and_continues(
    file: Warehouse, lake: LakeLocation, tmp_path
):
    """Nothing takes half of the rows for all of them; the next copy does the rest."""
    command = [sys.executable, "-c", KILLED, str(file.database.path), str(lake), lake.data_path]
    killed = subprocess.run(command, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    in_lake = Warehouse(tmp_path, place=lake)
    with pytest.raises(StorageError, match="Run `mp migrate` again"):
        in_lake.load([event()])
    move(file.database, in_lake.database)
    assert contents(in_lake) == contents(file)


def test_a_target_that_is_not_empty_is_refused(file: Warehouse, lake: LakeLocation, tmp_path):
    """Neither another project's rows nor any other table is touched."""
    with database_at(lake).write() as connection:
        connection.execute("CREATE TABLE main.other AS SELECT 1 AS a")
    with pytest.raises(ConfigError, match=r"not empty: it has main\.other"):
        move(file.database, database_at(lake))
    full = database_at(tmp_path / "full.duckdb")
    with full.write() as connection:
        prepare(connection, ProjectIdentity("9", "us"))
    with pytest.raises(ConfigError, match="is not empty"):
        move(file.database, full)
    with pytest.raises(ConfigError, match="to itself"):
        move(file.database, file.database)
    with pytest.raises(DatabaseNotFoundError):
        move(database_at(tmp_path / "none.duckdb"), database_at(tmp_path / "new.duckdb"))


def test_a_lake_is_known_in_other_words(lake: LakeLocation):
    """A copy of it to itself would wait for its own lock without an end."""
    other = LakeLocation(f"{lake.catalog} connect_timeout=9", lake.data_path)
    with pytest.raises(ConfigError, match="to itself"):
        move(database_at(lake, lock_timeout=0.1), database_at(other, lock_timeout=0.1))


@pytest.mark.slow
def test_the_copy_of_another_project_is_not_continued(file: Warehouse, tmp_path):
    """A copy belongs to its source."""
    target = tmp_path / "copy.duckdb"
    command = [sys.executable, "-c", KILLED, str(file.database.path), str(target), ""]
    subprocess.run(command, capture_output=True)
    other = tmp_path / "other"
    other.mkdir()
    source = Warehouse(other, project=ProjectIdentity("9", "us"))
    source.load([event()])
    with pytest.raises(ConfigError, match="holds project 1234"):
        move(source.database, database_at(target))
    shutil.rmtree(other)


@pytest.mark.slow
def test_tables_whose_types_a_lake_lacks_are_named(file: Warehouse, lake: LakeLocation):
    """Nothing is changed in silence."""
    with file.database.write() as connection:
        connection.execute("CREATE TABLE shop.bits AS SELECT '101'::BIT AS b")
    with pytest.raises(StorageError, match=r"shop\.bits: 'b' is BIT"):
        move(file.database, database_at(lake))
