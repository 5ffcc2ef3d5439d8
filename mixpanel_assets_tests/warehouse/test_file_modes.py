"""Files beside a database are readable by the same users as the database, and no others."""

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import duckdb
import pytest

from mixpanel_assets.errors import StorageError
from mixpanel_assets.warehouse.database import Database, check_before_load
from mixpanel_assets.warehouse.engine import StorageEngine
from mixpanel_assets.warehouse.files import prepare_log
from mixpanel_assets.warehouse.project import ProjectIdentity, copy_path, log_path
from mixpanel_assets.warehouse.readers_copy import Publisher
from mixpanel_assets_tests.laws import siblings

UMASKS = (0o000, 0o002, 0o022, 0o027, 0o077)
BI_GROUP, BI_USER = 4242, 4243  # no account needs to be there
IS_ROOT = os.geteuid() == 0

KILLED = """
    import os, sys
    from pathlib import Path
    from mixpanel_assets.warehouse.database import Database
    database = Database(Path(sys.argv[1]))
    connection = database.hold()
    with database.write() as connection:
        connection.execute("CREATE TABLE numbers AS SELECT range AS n FROM range(1000)")
    os._exit(9)
"""


@contextmanager
def umask(wanted: int) -> Iterator[None]:
    before = os.umask(wanted)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def add(path: Path, number: int) -> None:
    told: list[str] = []
    with Publisher(Database(path), "on", told.append).writing(), Database(path).write() as opened:
        opened.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER)")
        opened.execute("INSERT INTO numbers VALUES (?)", [number])
    assert told == []


@pytest.mark.parametrize("wanted", UMASKS)
def test_a_new_database_is_for_owner_and_group_at_most(wanted, tmp_path):
    """The umask may take more away; every file beside it is no more open than it is."""
    path = tmp_path / "data" / "w.duckdb"
    with umask(wanted):
        add(path, 1)
        assert mode(path) == 0o640 & ~wanted
        assert mode(copy_path(path)) == 0o440 & ~wanted
        for file in path.parent.iterdir():
            assert not mode(file) & ~(mode(path) | 0o200), file


@pytest.mark.parametrize("wanted", siblings(UMASKS, keep=2))
def test_the_log_is_no_more_open_than_the_database(wanted, tmp_path):
    """From before its first row on, and again after a checkpoint, which deletes it."""
    path = tmp_path / "data" / "w.duckdb"
    with umask(wanted), StorageEngine(path) as storage:
        storage.connection.execute("CREATE TABLE numbers AS SELECT range AS n FROM range(1000)")
        for _ in range(2):
            assert log_path(path).stat().st_size
            assert mode(log_path(path)) == mode(path) == 0o640 & ~wanted
            storage.connection.execute("CHECKPOINT")
            assert not log_path(path).exists()
            storage.connection.execute("INSERT INTO numbers VALUES (1)")
    assert not log_path(path).exists()


@pytest.mark.parametrize("wanted", siblings(UMASKS, keep=2))
def test_the_log_that_a_killed_writer_leaves_is_no_more_open(wanted, tmp_path):
    """Its rows are there when the database is opened next."""
    path = tmp_path / "data" / "w.duckdb"
    with umask(wanted):
        code = "\n".join(line[4:] for line in KILLED.splitlines())
        assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == 9
    assert log_path(path).stat().st_size
    assert mode(log_path(path)) == mode(path) == 0o640 & ~wanted
    with Database(path).read() as connection:
        assert connection.execute("SELECT count(*) FROM numbers").fetchone() == (1000,)


@pytest.mark.parametrize("given", siblings([0o600, 0o644, 0o666], keep=1))
def test_a_database_that_exists_keeps_its_mode(given, tmp_path):
    """The log and the snapshot follow it, whatever the umask."""
    path = tmp_path / "data" / "w.duckdb"
    add(path, 1)
    path.chmod(given)
    for wanted in (0o022, 0o077):
        with umask(wanted), StorageEngine(path) as storage:
            storage.connection.execute("INSERT INTO numbers VALUES (2)")
            assert mode(log_path(path)) == given
        with umask(wanted):
            add(path, 3)
        assert mode(path) == given
        assert mode(copy_path(path)) == given & 0o444


@pytest.mark.parametrize("wanted", UMASKS)
def test_spilled_rows_are_for_their_user_alone(wanted, tmp_path):
    """Other users have no access to their folder, nor to the files that DuckDB creates in it."""
    path = tmp_path / "data" / "w.duckdb"
    with umask(wanted), Database(path).write():
        (spilled,) = path.parent.glob("*.tmp")
        assert mode(spilled) & 0o077 == 0


def test_a_log_that_is_too_open_is_closed(tmp_path):
    """As one that an earlier version left when it was killed."""
    path = tmp_path / "data" / "w.duckdb"
    add(path, 1)
    log_path(path).touch()
    log_path(path).chmod(0o666)
    prepare_log(log_path(path), path)
    assert mode(log_path(path)) == mode(path)


def test_a_write_that_changes_nothing_leaves_no_log(tmp_path):
    """An empty one would make the snapshot look old."""
    path = tmp_path / "data" / "w.duckdb"
    add(path, 1)
    taken = copy_path(path).stat().st_ino
    with Database(path).write():
        pass
    with suppress(duckdb.Error), Database(path).write() as connection:
        connection.execute("SELECT * FROM nothing")
    assert not log_path(path).exists()
    with Publisher(Database(path), "on", print).writing():
        pass
    assert copy_path(path).stat().st_ino == taken


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the group that reads; the path to it is open to all."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        made = Path(name)
        os.chown(made, -1, group())
        made.chmod(0o2750)
        yield made


def group() -> int:
    return BI_GROUP if IS_ROOT else os.getegid()


@contextmanager
def bi_user() -> Iterator[None]:
    """Be a user of the group; without root's rights, stay who one is."""
    if not IS_ROOT:
        yield
        return
    before = os.getgroups()
    os.setgroups([])
    os.setresgid(BI_GROUP, BI_GROUP, 0)
    os.setresuid(BI_USER, BI_USER, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        os.setgroups(before)


def read(path: Path) -> list[int]:
    with duckdb.connect(path, read_only=True) as connection:
        return [n for (n,) in connection.execute("FROM numbers ORDER BY n").fetchall()]


def test_a_bi_user_of_the_group_goes_on_reading(folder):
    """After each publication, in a folder that hands its group on; writing stays refused."""
    path = folder / "w.duckdb"
    with umask(0o022):
        for number in (1, 2, 3):
            add(path, number)
            assert copy_path(path).stat().st_gid == path.stat().st_gid == group()
            with bi_user():
                assert read(copy_path(path)) == list(range(1, number + 1))
                assert read(path) == list(range(1, number + 1))
                with pytest.raises(duckdb.IOException) if IS_ROOT else nullcontext():
                    duckdb.connect(path).close()


def test_a_bi_user_may_use_this_library_too(folder):
    """The lock belongs to the process that loads; in a folder that the group may write as well."""
    path = folder / "w.duckdb"
    add(path, 1)
    for rights in (0o2750, 0o2770):
        folder.chmod(rights)
        with bi_user(), Database(path, read_only=True, lock_timeout=5).read() as connection:
            assert connection.execute("FROM numbers").fetchall() == [(1,)]
        with bi_user(), StorageEngine(path, read_only=True) as storage:
            assert storage.connection.execute("FROM numbers").fetchall() == [(1,)]
    add(path, 2)


@pytest.mark.parametrize(
    ("file", "holder", "has_locks"),
    [(0o440, 0o2770, True), (0o660, 0o2550, True), (0o660, 0o2550, False)],
)
def test_what_may_only_be_read_is_refused_before_a_load(folder, file, holder, has_locks):
    """The file may not be written, or no log made beside it; both are read all the same."""
    path = folder / "w.duckdb"
    add(path, 1)
    locks = [one for one in folder.iterdir() if one.suffix in (".lock", ".writers")]
    for lock in locks:
        lock.chmod(0o666)
        if not has_locks:
            lock.unlink()
    path.chmod(file)
    folder.chmod(holder)
    project = ProjectIdentity("1", "us")
    with bi_user():
        for begin in (
            lambda: check_before_load(Database(path), project),
            lambda: Publisher(Database(path), "on", print).writing().__enter__(),
            lambda: Database(path).write().__enter__(),
        ):
            with pytest.raises(StorageError, match="no permission"):
                begin()
        with StorageEngine(path, read_only=True) as storage:
            assert storage.execute_scalar("SELECT n FROM numbers") == 1


def test_the_group_of_a_database_is_that_of_its_snapshot_and_log(tmp_path):
    """`chgrp` of the database alone is enough, also back."""
    path = tmp_path / "data" / "w.duckdb"
    add(path, 1)
    for wanted in (group(), os.getegid()):
        os.chown(path, -1, wanted)
        add(path, 2)
        assert copy_path(path).stat().st_gid == wanted
        assert mode(copy_path(path)) == mode(path) & 0o444
        with StorageEngine(path) as storage:
            storage.connection.execute("INSERT INTO numbers VALUES (3)")
            assert log_path(path).stat().st_gid == wanted
