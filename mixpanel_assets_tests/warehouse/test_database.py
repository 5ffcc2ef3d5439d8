from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import duckdb
import pytest

from mixpanel_assets.errors import DatabaseLockedError, DatabaseNotFoundError, StorageError
from mixpanel_assets.rules.locks import Holder, Wait, is_alive
from mixpanel_assets.warehouse.database import Database, closing_connection
from mixpanel_assets.warehouse.lock import note_path, read_note
from mixpanel_assets.warehouse.schema import Column
from mixpanel_assets.warehouse.staging import staging_table
from mixpanel_assets_tests.laws import siblings
from mixpanel_assets_tests.warehouse.processes import HOLD_FOREIGN, in_another_process

HOLD_OURS = """
    from pathlib import Path
    from mixpanel_assets.warehouse.database import Database
    with Database(Path(sys.argv[1])).{mode}() as connection:
        print("held", flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "mixpanel.duckdb"
    with Database(path).write() as connection:
        connection.execute("CREATE TABLE numbers AS SELECT 1 AS n")
    return path


def numbers(path: Path) -> list[int]:
    with Database(path).read() as connection:
        return [n for (n,) in connection.execute("SELECT n FROM numbers ORDER BY n").fetchall()]


def test_a_write_is_kept_whole(path):
    """What a block wrote is there afterwards, and no helper file but the lock stays."""
    with Database(path).write() as connection:
        connection.execute("INSERT INTO numbers VALUES (2)")
    assert numbers(path) == [1, 2]
    assert sorted(file.name for file in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]


def test_an_error_undoes_the_whole_write(path):
    """After any exception the file is as before and free for the next one."""
    with pytest.raises(duckdb.CatalogException), Database(path).write() as connection:
        connection.execute("INSERT INTO numbers VALUES (2); SELECT * FROM nothing")
    assert numbers(path) == [1]


def test_a_new_file_has_a_storage_that_all_versions_read(path):
    """It compresses JSON with zstd and can be opened by DuckDB 1.5 and 2."""
    with Database(path).read() as connection:
        ((tags,),) = connection.execute(
            "SELECT tags FROM duckdb_databases() WHERE database_name = current_database()"
        ).fetchall()
    assert tags["storage_version"].startswith("v1.5.0")


def test_times_are_read_in_utc(path):
    """The machine's zone changes no query."""
    with Database(path).read() as connection:
        assert connection.execute("SELECT current_setting('TimeZone')").fetchall() == [("UTC",)]


def test_reading_cannot_write(path):
    """A reader's connection is read-only."""
    with (
        Database(path).read() as connection,
        pytest.raises(duckdb.InvalidInputException, match="read-only"),
    ):
        connection.execute("INSERT INTO numbers VALUES (2)")


def test_readers_share(path):
    """One reader does not keep out another, in one thread or several processes."""
    with in_another_process(HOLD_OURS.format(mode="read"), path), Database(path).read():
        assert numbers(path) == [1]


def test_reading_nothing_says_so(tmp_path):
    """A missing file is not made by looking."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(DatabaseNotFoundError), Database(folder / "none.duckdb").read():
        pass
    assert list(folder.iterdir()) == []


def test_the_databases_near_a_missing_one_are_named(tmp_path, monkeypatch):
    """Those beside it and in `data/` here, such as that of a component; no copy for readers."""
    beside, project = tmp_path / "beside", tmp_path / "project"
    for file in (beside / "1.db", project / "data" / "shop_warehouse.duckdb"):
        file.parent.mkdir(parents=True)
        file.write_text("rows")
    for name in ("shop_warehouse.snapshot.duckdb", "shop_warehouse.duckdb.wal", "notes.txt"):
        (project / "data" / name).write_text("not rows")
    (project / "data" / "empty.duckdb").touch()
    (project / "data" / "folder.duckdb").mkdir()
    monkeypatch.chdir(project)
    with pytest.raises(DatabaseNotFoundError) as caught, Database(beside / "mixpanel.db").read():
        pass
    near = f"{beside / '1.db'}, {project / 'data' / 'shop_warehouse.duckdb'}"
    assert f"Databases near it: {near}. Set MP_DATABASE or `--database` to" in str(caught.value)
    assert caught.value.what_to_do.startswith("Set MP_DATABASE")


def test_an_empty_file_counts_as_missing(tmp_path):
    """A file of zero bytes, left by whatever, can be loaded into."""
    path = tmp_path / "x.duckdb"
    path.touch()
    with pytest.raises(DatabaseNotFoundError), Database(path).read():
        pass
    with Database(path).write() as connection:
        connection.execute("CREATE TABLE numbers AS SELECT 1 AS n")
    assert numbers(path) == [1]


def test_opening_twice_in_one_thread_is_an_error(path):
    """Waiting for oneself would never end."""
    with (
        pytest.raises(StorageError, match="This thread already"),
        Database(path).write(),
        Database(path).read(),
    ):
        pass


def test_a_link_to_the_file_shares_its_lock(path, tmp_path):
    """Two ways to one file are one database."""
    link = tmp_path / "link.duckdb"
    link.symlink_to(path)
    assert numbers(link) == [1]
    assert not link.with_name("link.duckdb.lock").exists()


def test_threads_take_turns(path):
    """Writers of one process wait for each other and lose nothing."""

    def add(number: int) -> None:
        with Database(path).write() as connection:
            connection.execute("INSERT INTO numbers VALUES (?)", [number])

    threads = [threading.Thread(target=add, args=(number,)) for number in range(2, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers(path) == list(range(1, 8))


@pytest.mark.parametrize(
    ("holder", "mode"),
    siblings(
        [
            (HOLD_OURS.format(mode="write"), "read"),
            (HOLD_OURS.format(mode="read"), "write"),
            (HOLD_FOREIGN, "write"),
            (HOLD_FOREIGN, "read"),
            (HOLD_OURS.format(mode="write"), "write"),
        ],
        keep=1,
    ),
)
def test_a_wait_with_a_timeout_ends_and_names_the_holder(path, holder, mode):
    """A locked file is reported with its holder, ours or a notebook, when the time is over."""
    database = Database(path, lock_timeout=0.2)
    with in_another_process(holder, path) as process:
        with pytest.raises(DatabaseLockedError) as caught, getattr(database, mode)():
            pass
        if sys.platform == "linux" or ".read()" not in holder:
            assert caught.value.holding_pid == process.pid
            assert str(process.pid) in caught.value.message


@pytest.mark.parametrize("holder", siblings([HOLD_FOREIGN, HOLD_OURS.format(mode="write")], keep=1))
def test_a_wait_says_whom_it_waits_for_and_ends_with_the_holders_death(path, holder):
    """A waiting load names the process that holds the file and goes on when that is killed."""
    said: list[str] = []
    with in_another_process(holder, path) as process:

        def on_wait(sentence: str) -> None:
            said.append(sentence)
            process.kill()

        with Database(path, on_wait=on_wait).write() as connection:
            connection.execute("INSERT INTO numbers VALUES (2)")
        assert len(said) == 1
        assert f"process {process.pid}" in said[0]
    assert numbers(path) == [1, 2]


def test_a_wait_speaks_when_it_begins_and_then_each_minute(monkeypatch):
    """A second passes in silence; after that a sentence comes once per minute."""
    clock = iter([0.5, 1.5, 1.5, 30.0, 30.0, 61.6, 61.6, 61.6])
    monkeypatch.setattr("mixpanel_assets.rules.locks.time.monotonic", lambda: next(clock))
    said: list[str] = []
    wait = Wait("the database x", Path("x"), on_wait=said.append, began=0.0)
    counts = []
    for _ in range(4):
        wait.check(lambda: Holder(7))
        counts.append(len(said))
    assert counts == [0, 1, 1, 2]


def test_a_stale_note_names_nobody(path):
    """A note left by a killed writer does not accuse a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    note_path(path).write_text(f'{{"pid": {process.pid}, "what": "x", "since": "y"}}')
    assert not is_alive(process.pid)
    assert read_note(note_path(path)) is None
    assert numbers(path) == [1]
    note_path(path).write_text("garbage")
    assert read_note(note_path(path)) is None


def test_a_note_says_what_holds(path):
    """While a write runs, its note names this process."""
    with Database(path).write():
        holder = read_note(note_path(path))
        assert isinstance(holder, Holder)
        assert holder.pid == os.getpid()
    assert not note_path(path).exists()


def test_a_connection_of_ones_own_is_named(path):
    """A notebook that has the file open in the same process gets an error that says so."""
    own = duckdb.connect(path)
    try:
        with (
            pytest.raises(DatabaseLockedError, match="This process already has"),
            Database(path).write(),
        ):
            pass
    finally:
        own.close()
    assert numbers(path) == [1]


def test_a_file_that_is_no_database_says_so(tmp_path):
    """Another file at the place is named and left alone."""
    path = tmp_path / "notes.txt"
    path.write_text("hello" * 2000)
    for mode in ("read", "write"):
        with (
            pytest.raises(StorageError, match="is not a DuckDB database"),
            getattr(Database(path), mode)(),
        ):
            pass
    assert path.read_text() == "hello" * 2000


def duckdb_checksum(block: bytearray) -> bytes:
    """Return the checksum that DuckDB keeps before each header of its file."""
    checksum = 5381
    for start in range(0, len(block), 8):
        word = int.from_bytes(block[start : start + 8], "little")
        checksum ^= word * 0xBF58476D1CE4E5B9 % 2**64
    return checksum.to_bytes(8, "little")


def test_a_newer_file_says_so(path):
    """A file of a later storage version raises an error that names the newer DuckDB."""
    content = bytearray(path.read_bytes())
    content[12:20] = (9999).to_bytes(8, "little")
    content[:8] = duckdb_checksum(content[8:4096])
    path.write_bytes(content)
    with pytest.raises(StorageError, match="newer DuckDB"), Database(path).read():
        pass


LIMITED = """
    import resource
    from pathlib import Path
    from mixpanel_assets.errors import StorageError
    from mixpanel_assets.warehouse.database import Database
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
    try:
        with Database(Path(sys.argv[1])).write() as connection:
            connection.execute(
                "INSERT INTO numbers SELECT hash(range) % 2147483647 FROM range(5_000_000)"
            )
    except StorageError as error:
        print("held" if "disk is full" in error.message else error.message, flush=True)
    except BaseException as error:
        print(repr(error), flush=True)
    else:
        print("stored", flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on file sizes")
def test_a_full_disk_says_so_and_keeps_what_was(path):
    """When the file cannot grow, the load fails with a plain sentence and changes nothing."""
    with in_another_process(LIMITED, path):
        pass
    assert numbers(path) == [1]
    with Database(path).write() as connection:
        connection.execute("INSERT INTO numbers VALUES (2)")
    assert numbers(path) == [1, 2]


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_named(folder, tmp_path):
    """A file is in the way: the message says where and which variable to set."""
    (tmp_path / "file").touch()
    with (
        pytest.raises(StorageError, match="MP_DATABASE"),
        Database(tmp_path / folder / "x.duckdb").write(),
    ):
        pass


def test_a_folder_without_permission_says_so(tmp_path):
    """No permission is named with the place and what to do."""
    tmp_path.chmod(0o500)
    folder = Path("/sys/kernel") if os.access(tmp_path, os.W_OK) else tmp_path  # root may do all
    with pytest.raises(StorageError, match="no permission"), Database(folder / "x.duckdb").write():
        pass


SORT = """
    from pathlib import Path
    from mixpanel_assets.warehouse.database import Database
    with Database(Path(sys.argv[1]), memory_limit="60MB").read() as connection:
        print("held", flush=True)
        sys.stdin.readline()
        (last,) = connection.execute(
            "SELECT last(n) FROM (SELECT hash(range) AS n, repeat('x', 20) || range AS text "
            "FROM range(1_000_000) ORDER BY text, n)"
        ).fetchone()
        print("sorted", flush=True)
"""


@pytest.mark.slow
def test_readers_that_spill_at_once_stay_out_of_each_others_way(path):
    """Two processes that sort more than fits into memory both finish, and leave nothing."""
    with ExitStack() as stack:
        readers = [stack.enter_context(in_another_process(SORT, path)) for _ in range(2)]
        for reader in readers:
            reader.stdin.write("go\n")
            reader.stdin.flush()
        said = [reader.stdout.readline() for reader in readers]
        assert said == ["sorted\n"] * 2
        assert [reader.wait(timeout=300) for reader in readers] == [0] * 2
    assert not path.with_name(f"{path.name}.tmp").exists()


def test_a_folder_that_cannot_be_written_to_can_be_read(path):
    """Where no folder for spilled rows can be made, small questions are answered all the same."""
    path.with_name(f"{path.name}.tmp").touch()
    assert numbers(path) == [1]


def test_a_folder_whose_name_duckdb_cannot_write_to_says_so(tmp_path):
    """DuckDB takes a `?` for the end of the name; that is said before anything is made."""
    with (
        pytest.raises(StorageError, match=r"`\?`.*MP_DATABASE"),
        Database(tmp_path / "what?" / "x.duckdb").write(),
    ):
        pass
    assert not (tmp_path / "what?").exists()


def test_an_interrupt_in_the_middle_of_a_statement_is_an_interrupt(path):
    """DuckDB raises a RuntimeError for Ctrl-C; `write` raises KeyboardInterrupt instead."""

    def interrupted() -> None:
        with Database(path).write():
            raise RuntimeError("Query interrupted") from KeyboardInterrupt()

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def interrupted_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Interrupt a statement without end, as Ctrl-C does."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        connection.execute(sql)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


ENDLESS = "SELECT max(a.range + b.range) FROM range(10_000_000) a, range(10_000_000) b"


def read(path):
    with Database(path).read() as connection:
        interrupted_statement(connection, ENDLESS)


def read_beside(path):
    with Database(path).read() as connection, closing_connection(connection.cursor()) as beside:
        interrupted_statement(beside, ENDLESS)


def write(path):
    with Database(path).write() as connection:
        interrupted_statement(connection, f"CREATE TABLE more AS {ENDLESS}")


def stage(path):
    with (
        Database(path).write() as connection,
        staging_table(connection, [Column("n", "HUGEINT", "")]) as (staging, table, _),
    ):
        interrupted_statement(staging, f"INSERT INTO {table} {ENDLESS}")


def endless_in_threads(connection, many):
    """Return a query whose threads go on with it, unless they are interrupted as well."""
    connection.execute("SET threads = 4")
    connection.execute(f"CREATE TABLE {many} AS FROM range(1_000_000)")
    return f"SELECT max(a.range + b.range) FROM {many} a, range(10_000_000) b"


def write_in_threads(path):
    with Database(path).write() as connection:
        endless = endless_in_threads(connection, "many")
        interrupted_statement(connection, f"CREATE TABLE more AS {endless}")


def stage_in_threads(path):
    with (
        Database(path).write() as connection,
        staging_table(connection, [Column("n", "HUGEINT", "")]) as (staging, table, _),
    ):
        endless = endless_in_threads(staging, f"{table}_from")
        interrupted_statement(staging, f"INSERT INTO {table} {endless}")


USES = [read, read_beside, write, stage, write_in_threads, stage_in_threads]


@pytest.mark.parametrize("use", USES)
def test_an_interrupted_statement_lets_go_of_the_file(use, path):
    """Also while the interrupt is still being handled: then the snapshot is taken."""

    def use_and_write() -> None:
        try:
            use(path)
        finally:
            with Database(path).write() as connection:
                connection.execute("INSERT INTO numbers VALUES (2)")

    with pytest.raises(KeyboardInterrupt):
        use_and_write()
    assert numbers(path) == [1, 2]


def test_staging_locks_nothing_and_its_tables_are_there_in_the_transaction(tmp_path):
    """Others read and write until the transaction begins; the file is closed when it ends."""
    path = tmp_path / "mixpanel.duckdb"
    database, other = Database(path), Database(path, lock_timeout=0)
    with database.staging() as memory:
        memory.execute("CREATE TABLE memory.main.staged AS SELECT 7 AS day")
        with other.write() as connection:
            connection.execute("CREATE TABLE stored AS SELECT 1 AS day")
        with database.write(memory) as connection:
            connection.execute("INSERT INTO stored FROM memory.main.staged")
        with other.read() as connection:
            assert connection.execute("FROM stored ORDER BY day").fetchall() == [(1,), (7,)]
        with pytest.raises(duckdb.ConversionException), database.write(memory) as connection:
            connection.execute("DELETE FROM stored; SELECT 'x'::INT")
        with other.write() as connection:
            assert connection.execute("SELECT count(*) FROM stored").fetchone() == (2,)
        assert memory.execute("FROM memory.main.staged").fetchall() == [(7,)]
    assert not [file for file in tmp_path.iterdir() if file.suffix in (".tmp", ".wal")]


def test_staged_rows_are_not_written_with_a_connection_that_was_opened_after_them(path):
    """It belongs to a DuckDB without the staged rows; once it is closed, they can be written."""
    database = Database(path, lock_timeout=0)
    with database.staging() as memory:
        memory.execute("CREATE TABLE memory.main.waiting AS SELECT 7 AS day")
        database.hold()
        with pytest.raises(StorageError, match="This thread already has"), database.write(memory):
            pass
        database.release()
        with database.write(memory) as connection:
            connection.execute("CREATE TABLE stored AS FROM memory.main.waiting")
    with database.read() as connection:
        assert connection.execute("FROM stored").fetchall() == [(7,)]
