"""Readers are never refused: they read the snapshot during a write, and know its age."""

import os
import shutil
import signal
import subprocess
import threading
from contextlib import ExitStack

import duckdb
import pytest

from mixpanel_assets.errors import DatabaseNotFoundError, StorageError
from mixpanel_assets.warehouse.database import Database
from mixpanel_assets.warehouse.project import ProjectIdentity, copy_path, prepare
from mixpanel_assets.warehouse.readers_copy import Publisher, ReadersDatabase
from mixpanel_assets_tests.laws import siblings
from mixpanel_assets_tests.warehouse.processes import HOLD_FOREIGN, in_another_process

HOLD = """
    import sys
    from pathlib import Path
    from mixpanel_assets.warehouse.database import Database
    with Database(Path(sys.argv[1])).write() as connection:
        connection.execute("INSERT INTO numbers VALUES (99)")
        print("held", flush=True)
        sys.stdin.read()
"""


def add(path, number):
    with Database(path).write() as connection:
        prepare(connection, ProjectIdentity("1234", "eu"))
        connection.execute("CREATE TABLE IF NOT EXISTS numbers (n INTEGER)")
        connection.execute("INSERT INTO numbers VALUES (?)", [number])


def numbers(database):
    with database.read() as connection:
        return [n for (n,) in connection.execute("FROM numbers ORDER BY ALL").fetchall()]


def plain(path):
    with duckdb.connect(path, read_only=True) as connection:
        return [n for (n,) in connection.execute("FROM numbers ORDER BY ALL").fetchall()]


def publisher(path, choice="auto", **options):
    told = []
    options.setdefault("patience_seconds", 20)
    made = Publisher(Database(path), choice, told.append, **options)
    return made, told


def write(path, *new, **options):
    """Commit each number by itself, as a run does its days."""
    made, told = publisher(path, **options)
    with made.writing():
        for number in new:
            add(path, number)
    return told


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "warehouse.duckdb"
    assert write(path, 1) == []
    return path


def left_over(path):
    known = {path, copy_path(path)}
    known |= {path.with_name(f"{path.name}.{kind}") for kind in ("lock", "writers")}
    known |= {path.with_name(f"{copy_path(path).name}.lock")}
    return {file.name for file in path.parent.iterdir() if file not in known}


def test_who_wrote_last_leaves_a_whole_snapshot(path):
    """It is a database of its own, beside the file, with no log and nothing half-made."""
    write(path, 2, 3)
    assert copy_path(path).name == "warehouse.snapshot.duckdb"
    assert plain(copy_path(path)) == [1, 2, 3]
    assert left_over(path) == set()


def test_a_snapshot_that_is_opened_itself_is_not_copied(path):
    """A snapshot is never written, so it needs no copy."""
    readers = ReadersDatabase(copy_path(path), read_only=True)
    assert readers.hold().execute("FROM numbers").fetchall() == [(1,)]
    readers.release()
    assert not copy_path(copy_path(path)).exists()


def test_a_snapshot_says_when_it_was_taken(path):
    """A BI tool can show the time to its users."""
    with duckdb.connect(copy_path(path), read_only=True) as connection:
        [(taken_at,)] = connection.execute("SELECT taken_at FROM mixpanel._snapshot").fetchall()
    assert taken_at.year >= 2024


def test_a_snapshot_cannot_be_written_by_accident(path):
    """The snapshot has no write permission for any user."""
    assert copy_path(path).stat().st_mode & 0o222 == 0


def test_who_reads_is_not_kept_waiting_by_a_writer_nor_refused(path):
    """While a process holds the file, readers get the snapshot and its age."""
    add(path, 2)
    told = []
    readers = ReadersDatabase(path, read_only=True, on_wait=told.append)
    with in_another_process(HOLD, path):
        assert numbers(readers) == [1]
        assert readers.snapshot_age >= 0
    assert "snapshot of" in told[0]
    assert numbers(readers) == [1, 2]
    assert readers.snapshot_age is None
    assert len(told) == 1


def test_a_program_that_ignores_our_lock_refuses_nobody(path):
    """A notebook with a connection of its own is a writer like others."""
    add(path, 2)
    readers = ReadersDatabase(path, read_only=True)
    with in_another_process(HOLD_FOREIGN, path):
        assert numbers(readers) == [1]
        assert readers.snapshot_age is not None


def test_while_nobody_writes_what_is_read_is_as_new_as_the_file(path):
    """An old snapshot is passed over."""
    add(path, 2)
    readers = ReadersDatabase(path, read_only=True)
    assert numbers(readers) == [1, 2]
    assert readers.snapshot_age is None


def test_who_reads_an_up_to_date_snapshot_keeps_no_writer_waiting(path):
    """A long query and a commit go on side by side."""
    with ReadersDatabase(path, read_only=True).read() as connection:
        write(path, 2)
        assert connection.execute("FROM numbers").fetchall() == [(1,)]
    assert plain(copy_path(path)) == [1, 2]


def test_a_connection_that_stays_open_keeps_no_writer_waiting(path):
    """A snapshot is taken for it if the one there is old."""
    add(path, 2)
    readers = ReadersDatabase(path, read_only=True)
    assert readers.hold().execute("FROM numbers ORDER BY ALL").fetchall() == [(1,), (2,)]
    write(path, 3)
    assert numbers(readers) == [1, 2]
    readers.release()
    assert numbers(readers) == [1, 2, 3]


def test_without_a_snapshot_the_file_itself_is_read(path):
    """And without a file, there is nothing to read."""
    copy_path(path).unlink()
    assert numbers(ReadersDatabase(path, read_only=True)) == [1]
    path.unlink()
    with pytest.raises(DatabaseNotFoundError):
        numbers(ReadersDatabase(path, read_only=True))


def test_the_snapshot_of_another_file_is_never_read(path, tmp_path):
    """A file moved in from elsewhere has no snapshot, though one lies beside."""
    other = tmp_path / "other.duckdb"
    add(other, 7)
    other.replace(path)
    with in_another_process(HOLD, path):
        readers = ReadersDatabase(path, read_only=True, lock_timeout=0.1)
        with pytest.raises(Exception, match="held by process"):
            numbers(readers)
    assert numbers(ReadersDatabase(path, read_only=True)) == [7]


def test_the_snapshot_of_a_replaced_database_is_renamed_before_a_load(path, tmp_path):
    """The inode is the same, but the database is not: the old snapshot may be its last copy."""
    other = tmp_path / "other.duckdb"
    add(other, 7)
    shutil.copyfile(other, path)
    made, told = publisher(path)
    with made.writing():
        assert not copy_path(path).exists()
    [said] = told
    [renamed] = path.parent.glob("warehouse.snapshot.*-*.duckdb")
    assert "project 1234 (eu)" in said
    assert str(renamed) in said
    assert plain(renamed) == [1]
    assert plain(copy_path(path)) == [7]


def test_the_snapshot_of_a_restored_backup_is_replaced(path, tmp_path):
    """A backup is the same database, even if it is another file."""
    backup = shutil.copy(path, tmp_path / "backup.duckdb")
    write(path, 2)
    path.unlink()
    shutil.move(backup, path)
    assert write(path, 3) == []
    assert plain(copy_path(path)) == [1, 3]
    assert left_over(path) == set()


def test_the_snapshot_of_a_database_that_got_its_project_since_is_replaced(tmp_path):
    """Assets of others may have been stored first."""
    path = tmp_path / "warehouse.duckdb"
    made, _ = publisher(path)
    with made.writing(), Database(path).write() as connection:
        connection.execute("CREATE TABLE numbers AS SELECT 1 AS n")
    assert write(path, 2) == []
    assert plain(copy_path(path)) == [1, 2]


def a_text(place):
    place.write_bytes(b"mine" * 5000)


def a_database(place):
    with duckdb.connect(place) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 42 AS answer")


def a_database_with_such_a_table(place):
    with duckdb.connect(place) as connection:
        connection.execute("CREATE SCHEMA mixpanel; CREATE TABLE mixpanel._snapshot (mine TEXT)")


def a_link(place):
    target = place.with_name("mine.duckdb")
    a_database(target)
    place.symlink_to(target)


def a_folder(place):
    place.mkdir()


def only_a_log(place):
    a_text(place.with_name(f"{place.name}.wal"))


FOREIGN = [a_text, a_database, a_database_with_such_a_table, a_link, a_folder, only_a_log]


def content(folder):
    return {file: file.read_bytes() for file in folder.iterdir() if file.is_file()}


OPTIONS = [{}, {"choice": "off"}, {"largest_bytes": 1000}]
EACH = [
    *((foreign, {}, False) for foreign in FOREIGN),
    *((a_text, options, True) for options in OPTIONS),
]
OTHERS = [
    (foreign, options, is_new)
    for foreign in FOREIGN
    for options in OPTIONS
    for is_new in (False, True)
    if (foreign, options, is_new) not in EACH
]


@pytest.mark.parametrize(
    ("foreign", "options", "is_new"), siblings([*EACH, *OTHERS], keep=len(EACH))
)
def test_a_file_of_others_at_the_snapshots_name_stays(tmp_path, foreign, options, is_new):
    """It is named before the load; the load goes on, and no snapshot is kept."""
    path = tmp_path / "folder" / "warehouse.duckdb"
    path.parent.mkdir()
    if not is_new:
        add(path, 1)
    foreign(copy_path(path))
    theirs = {file: held for file, held in content(path.parent).items() if file != path}
    told = write(path, 2, **options)
    assert theirs.items() <= content(path.parent).items()
    assert numbers(Database(path))[-1] == 2
    assert os.path.lexists(copy_path(path)) == (foreign is not only_a_log)
    if options.get("choice") == "off":
        assert told == []
    else:
        [said] = told
        assert f"{copy_path(path)}" in said
        assert "left alone" in said


def test_a_reader_replaces_no_file_of_others(path):
    """A file that is not a snapshot of this database is kept."""
    copy_path(path).unlink()
    a_text(copy_path(path))
    before = content(path.parent)
    readers = ReadersDatabase(path, read_only=True)
    assert readers.hold().execute("FROM numbers").fetchall() == [(1,)]
    readers.release()
    assert before.items() <= content(path.parent).items()


@pytest.mark.parametrize("choice", ["auto", "off"])
def test_a_load_stops_when_the_database_is_gone_and_its_snapshot_is_there(path, choice):
    """The copy may be the last one: it stays, and the message has the command that restores it."""
    copy = copy_path(path).read_bytes()
    path.unlink()
    for attempt in (
        lambda: write(path, 7, choice=choice),
        lambda: add(path, 7),
        lambda: numbers(Database(path)),
        lambda: numbers(ReadersDatabase(path, read_only=True)),
    ):
        with pytest.raises(StorageError, match=r"is gone.*snapshot of \d{4}-.*cp -p .*mv ") as said:
            attempt()
    assert not path.exists()
    assert copy_path(path).read_bytes() == copy
    restore = said.value.message.partition("with that copy: ")[2].partition(". To begin")[0]
    subprocess.run(restore, shell=True, check=True)
    assert write(path, 2) == []
    assert numbers(Database(path)) == [1, 2]
    if choice == "auto":
        assert plain(copy_path(path)) == [1, 2]
        with duckdb.connect(path, read_only=True) as connection:
            assert not connection.execute(
                "FROM duckdb_tables() WHERE table_name = '_snapshot'"
            ).fetchall()


def test_a_load_begins_with_nothing_once_the_snapshot_is_moved_away(path):
    """The message has the command for that too."""
    path.unlink()
    with pytest.raises(StorageError) as said:
        write(path, 7)
    subprocess.run(said.value.message.partition("empty database: ")[2], shell=True, check=True)
    assert write(path, 7) == []
    assert plain(copy_path(path)) == [7]
    assert plain(copy_path(path).with_name("warehouse.snapshot.duckdb.old")) == [1]


@pytest.mark.parametrize("has_snapshot", [True, False])
def test_the_log_of_a_database_that_is_gone_stays(path, has_snapshot):
    """It holds what was committed last, and would break a new or restored file beside it."""
    log = path.with_name(f"{path.name}.wal")
    log.write_bytes(b"rows")
    path.unlink()
    if not has_snapshot:
        copy_path(path).unlink()
    with pytest.raises(StorageError, match=r"warehouse\.duckdb\.wal") as said:
        write(path, 7)
    assert log.read_bytes() == b"rows"
    subprocess.run(said.value.message.partition("empty database: ")[2], shell=True, check=True)
    assert write(path, 7) == []
    assert log.with_name(f"{log.name}.old").read_bytes() == b"rows"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_who_may_not_read_the_file_may_not_read_the_snapshot(path, mode):
    """The snapshot has the read permissions of the database file."""
    path.chmod(mode)
    write(path, 2)
    assert copy_path(path).stat().st_mode & 0o777 == mode & 0o444


def test_what_a_killed_writer_committed_is_in_the_snapshot(path):
    """Its log is worked in, and the database is left to the next writer."""
    killed = """
        import os, sys, duckdb
        connection = duckdb.connect(sys.argv[1])
        connection.execute("INSERT INTO numbers VALUES (2)")
        print("held", flush=True)
        os.kill(os.getpid(), 9)
    """
    with in_another_process(killed, path) as process:
        process.wait()
    assert path.with_name(f"{path.name}.wal").exists()
    made, told = publisher(path)
    made.publish(is_last=True)
    assert (told, plain(copy_path(path))) == ([], [1, 2])
    assert not copy_path(path).with_name(f"{copy_path(path).name}.wal").exists()
    assert numbers(Database(path)) == [1, 2]


def test_what_a_killed_copy_left_goes_with_the_next_one(path):
    """Nothing is to be cleaned by hand."""
    for end in ("new", "new.wal"):
        draft = f"{copy_path(path).name}.{'0123abcd' * 4}.{end}"
        path.with_name(draft).write_text("torn")
    write(path, 2)
    assert left_over(path) == set()


def test_nothing_is_copied_when_nothing_changed(path):
    """A run that stored nothing new costs no copy."""
    before = copy_path(path).stat().st_ino
    write(path)
    assert copy_path(path).stat().st_ino == before


def test_who_ends_while_others_write_leaves_a_young_snapshot(path):
    """The last of them takes it; an old one is replaced meanwhile."""
    others, _ = publisher(path)
    with others.writing():
        write(path, 2)
        assert plain(copy_path(path)) == [1]
        os.utime(copy_path(path), (0, 0))
        write(path, 3)
        assert plain(copy_path(path)) == [1, 2, 3]
        write(path, 4)
        assert plain(copy_path(path)) == [1, 2, 3]
    assert plain(copy_path(path)) == [1, 2, 3, 4]


def test_a_killed_writer_counts_no_more(path):
    """Its share of the lock goes with it, so the next one to end is the last."""
    writing = """
        import sys
        from pathlib import Path
        from mixpanel_assets.warehouse.database import Database
        from mixpanel_assets.warehouse.readers_copy import Publisher
        with Publisher(Database(Path(sys.argv[1])), "auto", print).writing():
            print("held", flush=True)
            sys.stdin.read()
    """
    with in_another_process(writing, path) as process:
        write(path, 2)
        assert plain(copy_path(path)) == [1]
        process.send_signal(signal.SIGKILL)
        process.wait()
        write(path, 3)
    assert plain(copy_path(path)) == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("size", siblings([3, 2, 5], keep=1))
def test_of_writers_who_end_at_once_every_commit_is_in_the_snapshot(path, size):
    """Whichever writer copies the file, the snapshot has every commit."""
    for round_ in range(4):
        start = threading.Barrier(size)

        def one(number, start=start):
            start.wait()
            write(path, number)

        threads = [
            threading.Thread(target=one, args=(10 * round_ + i,)) for i in range(10, 10 + size)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert plain(copy_path(path)) == numbers(Database(path))


def test_off_keeps_none_and_removes_the_one_there(path):
    """The snapshot is deleted, so that no reader gets outdated data from it."""
    [said] = write(path, 2, choice="off")
    assert "MP_SNAPSHOT is off" in said
    assert not copy_path(path).exists()
    assert write(path, 3, choice="off") == []


def test_of_a_large_file_none_is_kept_which_is_said_once(path):
    """Copying it would cost more than waiting; `on` decides otherwise."""
    [said] = write(path, 2, largest_bytes=1000)
    assert "MP_SNAPSHOT=on" in said
    assert not copy_path(path).exists()
    assert write(path, 3, largest_bytes=1000) == []
    assert write(path, 4, largest_bytes=1000, choice="on") == []
    assert plain(copy_path(path)) == [1, 2, 3, 4]


def test_a_reader_removes_no_snapshot(path):
    """A reader keeps the snapshot, because the writer's settings may differ from its own."""
    add(path, 2)
    for options in ({"choice": "off"}, {"largest_bytes": 1000}):
        reader, told = publisher(path, **options)
        reader.renew()
        assert (told, plain(copy_path(path))) == ([], [1])
    reader, _ = publisher(path)
    reader.renew()
    assert plain(copy_path(path)) == [1, 2]


def test_a_copy_that_fails_is_told_and_fails_nothing(path):
    """The loaded rows are kept, and so is the earlier snapshot."""
    blocked = path.with_name(f"{copy_path(path).name}.lock")
    blocked.unlink()
    blocked.mkdir()
    [said] = write(path, 2)
    assert "could not be taken" in said
    assert numbers(Database(path)) == [1, 2]
    assert plain(copy_path(path)) == [1]


def test_readers_keep_the_snapshot_that_they_opened(path):
    """A connection to the old snapshot still reads the old rows after a new one replaces it."""
    with ExitStack() as opened:
        for number in (2, 3, 4):
            connection = opened.enter_context(ReadersDatabase(path, read_only=True).read())
            write(path, number)
            assert connection.execute("SELECT count(*) FROM numbers").fetchall() == [(number - 1,)]
