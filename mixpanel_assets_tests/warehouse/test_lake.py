"""A DuckLake in PostgreSQL: one writer at a time, readers that never wait, and clear refusals."""

import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import psycopg2
import pyarrow.parquet as pq
import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from mixpanel_assets.errors import (
    ConfigError,
    DatabaseLockedError,
    DatabaseNotFoundError,
    MixpanelDataError,
    StorageError,
    WriteConflictError,
)
from mixpanel_assets.rules.lines import ReceivedDays
from mixpanel_assets.rules.location import LakeLocation, parse_location
from mixpanel_assets.rules.locks import Wait
from mixpanel_assets.warehouse import (
    append_events,
    database_at,
    prepare,
    repeated,
    replace_events,
    replace_slice,
    schema,
    stage_days,
)
from mixpanel_assets.warehouse import lake_lock as lock_of_lake
from mixpanel_assets.warehouse.engine import StorageEngine
from mixpanel_assets.warehouse.lake import close_lakes, load_extensions
from mixpanel_assets.warehouse.lake_lock import lake_lock
from mixpanel_assets.warehouse.schema import Column
from mixpanel_assets.warehouse.staging import staging_table
from mixpanel_assets_tests.pooler import pooled
from mixpanel_assets_tests.servers import Postgres
from mixpanel_assets_tests.warehouse.conftest import DAY, PROJECT, Warehouse, event

SECRET = "planted-7d1e-secret"
WRITER = """
import sys
from mixpanel_assets.rules.location import parse_location
from mixpanel_assets.warehouse import database_at

with database_at(parse_location(sys.argv[1], sys.argv[2])).write() as connection:
    connection.execute("CREATE TABLE main.half (a INTEGER)")
    print("writes", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def on_lake(tmp_path: Path, lake: LakeLocation) -> Warehouse:
    """The same helper as for files, on an empty lake."""
    return Warehouse(tmp_path, place=lake)


def writer(lake: LakeLocation) -> subprocess.Popen[str]:
    """Start a process that writes until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(lake), lake.data_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "writes\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        assert stream
        stream.close()


class TestLocations:
    @pytest.mark.parametrize(
        "text",
        [
            f"ducklake:postgres:host=db dbname=lake user=me password={SECRET}",
            f"ducklake:postgresql://me:{SECRET}@db/lake",
            f"ducklake:postgres://me:{SECRET}@db/lake",
            f"ducklake:postgres:postgresql://me@db/lake?password={SECRET}",
            f" DuckLake:postgres:postgresql://me:{SECRET}@db/lake",
        ],
    )
    def test_a_password_is_kept_apart_from_the_text(self, text):
        """Neither the text nor the repr of a location contains the password."""
        location = parse_location(text, "s3://bucket/lake")
        assert isinstance(location, LakeLocation)
        assert location.password == SECRET
        assert set(location.catalog.split()) == {"host=db", "dbname=lake", "user=me"}
        assert SECRET not in f"{location} {location!r}"
        assert location.data_path == "s3://bucket/lake/"

    def test_a_path_of_a_url_is_the_url(self):
        """`mp --database` takes a path, which has lost a slash."""
        assert parse_location(Path("ducklake:postgresql://me@db/lake")) == parse_location(
            "ducklake:postgresql://me@db/lake"
        )

    def test_a_path_is_a_path(self):
        """Everything else names a file."""
        for text in ("data/shop.duckdb", "/a/ducklake.db", "postgres.duckdb"):
            assert parse_location(text, "s3://bucket/") == Path(text)

    @pytest.mark.parametrize(
        "text",
        [
            f"ducklake:metadata.ducklake?password={SECRET}",
            "ducklake:sqlite:meta.db",
            f"ducklake:postgres:host=db password='{SECRET}",
            f"ducklake:postgres:dbname=lake sslpassword={SECRET}",
            "ducklake:postgres:",
            "ducklake:",
            f"ducklake:postgresql://me:{SECRET}/word@db/lake",
            f"ducklake:postgresql://me:word@{SECRET}@db/lake",
            f"ducklake:postgresql://me@db/lake&password={SECRET}",
            f"ducklake:postgres:host=db;password={SECRET}",
            f"ducklake:postgres:dbname=lake?password={SECRET}",
            f"postgresql://me:{SECRET}@db/lake",
            Path(f"postgres://me:{SECRET}@db/lake"),
            f"postgres:dbname=lake password={SECRET}",
            f"mysql://me:{SECRET}@db/lake",
            "s3://bucket/shop.duckdb",
        ],
    )
    def test_another_catalog_is_refused_in_a_sentence(self, text):
        """The sentence says what is right, and repeats nothing that may be a password."""
        with pytest.raises(ConfigError, match="MP_DATABASE") as refused:
            parse_location(text)
        assert SECRET not in "".join(traceback.format_exception(refused.value))

    @pytest.mark.parametrize(
        "data_path",
        [
            f"s3://key:{SECRET}@bucket/lake",
            f"s3://bucket/lake?s3_secret_access_key={SECRET}",
            f"https://me:{SECRET}@host/bucket",
            "gs://bucket/lake",
            "file:///lake",
            "s3://",
            "ducklake:postgres:dbname=lake",
        ],
    )
    def test_a_data_path_is_a_folder_or_a_prefix_of_s3(self, data_path):
        """Other places cannot be written, and credentials in it would be shown."""
        with pytest.raises(ConfigError, match="MP_DATA_PATH") as refused:
            parse_location("ducklake:postgres:dbname=lake", data_path)
        assert SECRET not in "".join(traceback.format_exception(refused.value))

    @pytest.mark.parametrize("data_path", [" s3://bucket/lake", "S3://bucket/lake//"])
    def test_a_data_path_is_kept_in_one_way(self, data_path):
        """The catalog compares it letter by letter; a `Path` of it has lost a slash."""
        for given in (data_path, Path(data_path)):
            location = parse_location("ducklake:postgres:dbname=lake", given)
            assert isinstance(location, LakeLocation)
            assert location.data_path == "s3://bucket/lake/"

    def test_dagsters_configuration_finds_the_password_of_the_variable(self, monkeypatch):
        """It holds the location without the password, which only the variable has."""
        monkeypatch.setenv("MP_DATABASE", f"ducklake:postgresql://me:{SECRET}@db/lake")
        given = parse_location(os.environ["MP_DATABASE"])
        assert parse_location(str(given)) == given
        assert parse_location("ducklake:postgresql://me@other/lake").password == ""


def test_a_lake_without_a_catalog_is_missing(postgres: Postgres, tmp_path):
    """A reader says so, and makes nothing; the first writer needs the path of the files."""
    location = LakeLocation(postgres.dsn, f"{tmp_path}/lake/", postgres.password)
    for database in (database_at(location), database_at(location, read_only=True)):
        assert database.is_missing
        with pytest.raises(DatabaseNotFoundError), database.read():
            pass
    assert postgres.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    without_path = LakeLocation(postgres.dsn, "", postgres.password)
    with pytest.raises(ConfigError, match="Set MP_DATA_PATH"), database_at(without_path).write():
        pass
    with database_at(location).write() as connection:
        prepare(connection, PROJECT)
    with database_at(without_path).read() as connection:  # the catalog knows it
        assert connection.execute("FROM events").fetchall() == []
    close_lakes()


def test_another_data_path_is_refused(lake: LakeLocation, tmp_path):
    """Two paths would divide one table; the sentence says which one the catalog has."""
    other = LakeLocation(lake.catalog, f"{tmp_path}/other/")
    with pytest.raises(ConfigError, match=f"other/.*are in {lake.data_path}"):
        database_at(other).read().__enter__()


def test_a_wrong_password_says_what_to_set(lake: LakeLocation, monkeypatch):
    """The user learns the names of the variable and the file, not the password."""
    monkeypatch.setenv("PGPASSWORD", SECRET)
    with pytest.raises(StorageError, match=r"Set PGPASSWORD") as refused:
        database_at(lake).read().__enter__()
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_a_server_that_does_not_answer_is_named(lake: LakeLocation):
    """The user learns the location, what was said, and what to do next."""
    silent = LakeLocation("host=127.0.0.1 port=9 dbname=lake", lake.data_path)
    for open_it in (database_at(silent).read, database_at(silent).write):
        with pytest.raises(StorageError, match=r"port=9.*could not be used.*run it again"):
            open_it().__enter__()


def test_a_server_that_accepts_and_says_nothing_is_given_up():
    """Neither a reader nor a writer waits for it without an end."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"host=127.0.0.1 port={silent.getsockname()[1]} dbname=lake connect_timeout=2"
        with pytest.raises(StorageError, match=r"timeout expired.*run it again"):
            database_at(LakeLocation(where, "/lake/")).write().__enter__()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT timeout FROM main.a",
        "SELECT 'HTTP'::INTEGER",
        "FROM main.does_not exist",
        "FROM ssl",
    ],
)
def test_a_fault_of_a_statement_is_not_one_of_a_server(lake: LakeLocation, sql):
    """Its words may look like it."""
    with database_at(lake).write() as connection:
        connection.execute("CREATE TABLE main.a AS SELECT 1 AS a")
    with pytest.raises(duckdb.Error), database_at(lake).read() as connection:
        connection.execute(sql)


def test_a_user_without_rights_is_told_which(lake: LakeLocation, postgres_server: Postgres):
    """PostgreSQL names the table; the sentence, what to grant."""
    role = f"role_{parse_dsn(lake.catalog)['dbname']}"
    postgres_server.run(f"CREATE ROLE {role} LOGIN PASSWORD 'word'")
    try:
        with pytest.raises(StorageError, match=r"permission denied for table .* Grant"):
            database_at(
                LakeLocation(make_dsn(lake.catalog, user=role), lake.data_path, "word")
            ).read().__enter__()
    finally:
        close_lakes()
        postgres_server.run(f"DROP ROLE {role}")


def test_a_folder_that_cannot_be_made_is_named(postgres: Postgres, tmp_path):
    """The sentence names the setting, and PostgreSQL has no half of a lake."""
    (tmp_path / "file").touch()
    for folder in ("file", "file/below"):
        location = LakeLocation(postgres.dsn, f"{tmp_path}/{folder}/", postgres.password)
        with pytest.raises(StorageError, match=f"{folder}/ .*Set MP_DATA_PATH"):
            database_at(location).write().__enter__()
    assert postgres.run("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_loads_leave_nothing_in_memory(on_lake: Warehouse, lake: LakeLocation, monkeypatch):
    """The next load uses the same DuckDB: rows of one that failed would fill it in the end."""

    def attached() -> list[tuple[str]]:
        with database_at(lake).staging() as connection:
            return connection.execute(
                "SELECT database_name FROM duckdb_databases() WHERE NOT internal "
                "AND database_name LIKE '%staging%'"
            ).fetchall()

    def interrupted() -> None:
        with (
            database_at(lake).staging() as connection,
            staging_table(connection, [Column("a", "INTEGER", "Staged.")]) as (staging, table, _),
        ):
            staging.execute(f"INSERT INTO {table} VALUES (1)")
            raise ValueError("interrupted")

    on_lake.load([event()])
    with pytest.raises(ValueError, match="interrupted"):
        interrupted()
    assert attached() == []


@pytest.mark.parametrize("days", [-1, 36_501])
def test_days_that_no_calendar_has_are_not_kept(lake: LakeLocation, days):
    """DuckDB's own message would be about its SQL."""
    with pytest.raises(ConfigError, match="0 to 36500 days"):
        database_at(lake).tidy(keep_days=days)


def test_a_session_that_ends_in_the_commit_is_a_fault_of_the_server(
    lake: LakeLocation, postgres_server: Postgres
):
    """The writer learns that PostgreSQL ended it."""
    name = parse_dsn(lake.catalog)["dbname"]

    def write() -> None:
        with database_at(lake).write() as connection:
            connection.execute("CREATE TABLE main.half (a INTEGER)")
            postgres_server.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s "
                "AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')",
                (name,),
            )

    with pytest.raises(StorageError, match="could not be used"):
        write()
    with database_at(lake).read() as connection:
        assert connection.execute("SHOW TABLES").fetchall() == []


def test_readers_see_committed_rows_and_never_wait(on_lake: Warehouse):
    """While a write is open, others read what was committed before; it writes on."""
    on_lake.load([event()])
    with on_lake.database.write() as connection:
        connection.execute("DELETE FROM events")
        assert len(on_lake.rows()) == 1
        with database_at(on_lake.place, read_only=True).read() as reader:
            assert reader.execute("SELECT count(*) FROM events").fetchall() == [(1,)]
    assert on_lake.rows() == []


def test_a_reader_changes_nothing(lake: LakeLocation):
    """Neither a reader nor a read of a writer can write."""
    with database_at(lake).write() as connection:
        prepare(connection, PROJECT)
    for read_only in (True, False):
        reading = database_at(lake, read_only=read_only).read()
        with reading as connection, pytest.raises(duckdb.Error, match="read-only"):
            connection.execute("CREATE TABLE main.made (a INTEGER)")
    with pytest.raises(ConfigError, match="opened to read"):
        database_at(lake, read_only=True).write().__enter__()


def test_a_confined_reader_reads_the_lake_and_no_other_file(on_lake: Warehouse, tmp_path):
    """`mp sql` reads the files of the lake, and nothing else of the disk."""
    on_lake.load([event(insert=n) for n in range(20)])
    (secret := tmp_path / "secret.csv").write_text("a\n1\n")
    database = database_at(on_lake.place, read_only=True)
    database.confined = True
    with database.read() as connection:
        assert connection.execute("SELECT count(properties) FROM events").fetchall() == [(20,)]
        with pytest.raises(duckdb.PermissionException):
            connection.execute(f"FROM '{secret}'")


def test_a_failed_write_leaves_nothing(on_lake: Warehouse):
    """An error inside the transaction undoes all of it, and the next write works."""
    on_lake.load([event()])
    writing = on_lake.database.write()
    writing.__enter__().execute("DELETE FROM events")
    assert not writing.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert len(on_lake.rows()) == 1
    with pytest.raises(duckdb.Error), on_lake.database.write() as connection:
        connection.execute("INSERT INTO main.nothing SELECT 1")
    on_lake.load([event()])
    assert len(on_lake.rows()) == 1


def test_a_writer_waits_for_another_process_and_names_it(lake: LakeLocation):
    """The sentence names the process and its machine; a timeout names them too."""
    holder, said = writer(lake), []
    try:
        database = database_at(lake, lock_timeout=1.5, on_wait=said.append)
        with pytest.raises(DatabaseLockedError, match=rf"process {holder.pid} \(.* on .*since"):
            database.write().__enter__()
        assert f"process {holder.pid}" in said[0]
        assert "Waiting for the lake ducklake:postgres:" in said[0]
    finally:
        end(holder)


def test_the_lock_of_a_dead_writer_is_free(lake: LakeLocation):
    """PostgreSQL frees it; what the dead process wrote is not there."""
    end(writer(lake))
    with database_at(lake, lock_timeout=30).write():
        pass
    assert tables(lake) == []


def test_a_commit_needs_the_lock(lake: LakeLocation, postgres_server: Postgres):
    """If PostgreSQL ends the session of the lock, the transaction is undone."""
    writing = database_at(lake).write()
    connection = writing.__enter__()
    connection.execute("CREATE TABLE main.made (a INTEGER)")
    postgres_server.run(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
        "AND database = (SELECT oid FROM pg_database WHERE datname = %s)",
        [parse_dsn(lake.catalog)["dbname"]],
    )
    with pytest.raises(StorageError, match="ended the connection that held the lock"):
        writing.__exit__(None, None, None)
    assert tables(lake) == []


def tables(lake: LakeLocation) -> list[str]:
    with database_at(lake).read() as connection:
        found = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'warehouse'"
        ).fetchall()
    return [name for (name,) in found]


def test_sessions_that_ended_meanwhile_are_replaced(
    on_lake: Warehouse, lake: LakeLocation, postgres_server: Postgres
):
    """After a restart of PostgreSQL, a process that lives on reads and writes again."""
    on_lake.load([event()])
    postgres_server.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
        [parse_dsn(lake.catalog)["dbname"]],
    )
    assert len(on_lake.rows()) == 1
    on_lake.load([event(), event("Buy")])
    assert len(on_lake.rows()) == 2


def test_threads_write_one_after_the_other(lake: LakeLocation):
    """Each has a connection of its own, and no row is lost."""
    with database_at(lake).write() as connection:
        connection.execute("CREATE TABLE main.counted (a INTEGER)")

    def add(number: int) -> None:
        with database_at(lake).write() as connection:
            rows = connection.execute("SELECT count(*) FROM main.counted").fetchall()
            connection.execute("INSERT INTO main.counted VALUES (?)", [rows[0][0]])

    threads = [threading.Thread(target=add, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database_at(lake).read() as connection:
        assert connection.execute("FROM main.counted ORDER BY a").fetchall() == [
            (0,),
            (1,),
            (2,),
            (3,),
        ]


def test_the_run_is_in_the_commit(on_lake: Warehouse, lake: LakeLocation):
    """Time travel says which run wrote a snapshot."""
    with database_at(lake).write(run_id="5f1c") as connection:
        connection.execute("CREATE TABLE main.made (a INTEGER)")
    with database_at(lake).read() as connection:
        said = connection.execute(
            "SELECT author, commit_message FROM ducklake_snapshots('warehouse') "
            "ORDER BY snapshot_id DESC LIMIT 1"
        ).fetchall()
    assert said == [("mixpanel_assets", "run 5f1c")]


def test_files_are_divided_by_day_and_compressed(on_lake: Warehouse, lake: LakeLocation):
    """A query of one day reads its file alone; zstd takes half the bytes of the default."""
    on_lake.load([event(insert=n) for n in range(20)])
    [file] = Path(lake.data_path).rglob("*.parquet")
    assert file.parent.name == "event_date=2026-03-01"
    with duckdb.connect() as connection:
        kinds = connection.execute(f"SELECT DISTINCT compression FROM parquet_metadata('{file}')")
        assert kinds.fetchall() == [("ZSTD",)]


LONG = "12345678901234567890123"


def test_every_object_of_the_schema_is_there_and_exact(on_lake: Warehouse):
    """Tables, views, macros and comments; long numbers, NUL and the last year keep their value."""
    last = 253_402_300_799_999
    properties = {"long": int(LONG), "nul": "a\0b", "odd": "é\u2028", "exact": 1.10}
    on_lake.load([event(f"E{n}", n=n, **properties) for n in range(20)])
    with on_lake.database.write() as connection:
        connection.execute(f"UPDATE events SET event_time = make_timestamp({last} * 1000)")
    assert on_lake.query(
        "SELECT DISTINCT json_extract_string(properties, '$.long'), "
        "length(mixpanel.prop(properties, 'nul')), mixpanel.prop(properties, 'odd') FROM events "
        "WHERE event_date IS NOT NULL"
    ) == [(LONG, 3, "é\u2028")]
    assert ("9999-12-31 23:59:59.999",) in on_lake.query("SELECT event_time::VARCHAR FROM events")
    for name in {*schema.BY_NAME, *schema.VIEWS} - {schema.METADATA}:
        on_lake.query(f"FROM mixpanel.{name}")
    on_lake.query(f"FROM main.{schema.METADATA}")
    assert on_lake.query(
        "SELECT mixpanel.prop_number('{\"a\": 2}', 'a'), mixpanel.prop_time('{\"a\": 0}', 'a'), "
        "mixpanel.prop_json('{\"a\": [1]}', 'a')"
    )
    comments = dict(
        on_lake.query("SELECT table_name, comment FROM duckdb_tables() WHERE comment <> ''")
    )
    assert comments["events"] == schema.EVENTS.grain
    for table in schema.TABLES:
        with on_lake.database.read() as connection:
            described = connection.execute(f"DESCRIBE {table.quoted}").fetchall()
        assert [(name, kind) for name, kind, *_ in described] == [
            (column.name, column.type) for column in table.columns
        ]


class TestSlices:
    @pytest.mark.parametrize(
        ("value", "kept", "kind"),
        [
            (f"{LONG}::HUGEINT", LONG, "DECIMAL(38,0)"),
            ("'b'::ENUM('a', 'b')", "b", "VARCHAR"),
            ("[1, 2]::INTEGER[2]", "[1, 2]", "INTEGER[]"),
            (f"[{LONG}::HUGEINT]", f"[{LONG}]", "DECIMAL(38,0)[]"),
        ],
    )
    @pytest.mark.parametrize("rows", [3, 30])  # kept in the catalog, and in a file
    def test_types_that_a_lake_lacks_become_others(self, lake, value, kept, kind, rows):
        """The values stay as they are, also when the slice is replaced."""
        self.store(lake, value, rows)
        self.store(lake, value, rows)
        with database_at(lake).read() as connection:
            found = connection.execute("SELECT DISTINCT a::VARCHAR, typeof(a) FROM main.t")
            assert found.fetchall() == [(kept, kind)]

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (f"{2**127 - 1}::HUGEINT", "has no room"),
            ("'101'::BIT", "'a' is BIT"),
            ("union_value(x := 1)", "'a' is UNION"),
            ("INTERVAL '0.123456 s'", "'a' is INTERVAL"),
            ("TIME_NS '12:00:00'", "'a' is TIME_NS"),
            ("'12:00:00+01'::TIMETZ", "'a' is TIME WITH TIME ZONE"),
        ],
    )
    def test_values_that_a_lake_would_change_are_refused(self, lake, value, said):
        """One sentence names the column and what to do; nothing is stored."""
        with pytest.raises(StorageError, match=said):
            self.store(lake, value, 3)
        assert tables(lake) == []

    def test_sql_of_the_user_makes_no_wide_integer(self, lake):
        """A sum of integers is a HUGEINT for DuckDB; the sentence says which cast keeps it."""
        with StorageEngine(database_at(lake)) as storage:
            with pytest.raises(StorageError, match=r"main\.t\.a, .*::DECIMAL\(38, 0\)"):
                storage.execute("CREATE TABLE main.t AS SELECT sum(range) AS a FROM range(3)")
            storage.execute(
                "CREATE TABLE main.t AS SELECT sum(range)::DECIMAL(38, 0) AS a FROM range(3)"
            )
            assert storage.execute_rows("FROM main.t").rows == [(3,)]

    def test_a_category_of_pandas_is_text(self, lake):
        """A frame's category arrives as ENUM."""
        frame = pd.DataFrame({"a": pd.Categorical(["x", "y", "x"])})
        with database_at(lake).write() as connection:
            connection.register("frame", frame)
            replace_slice(connection, "frame", table="t", schema="main")
            connection.unregister("frame")
        with database_at(lake).read() as connection:
            assert sorted(connection.execute("FROM main.t").fetchall()) == [("x",), ("x",), ("y",)]

    @staticmethod
    def store(lake: LakeLocation, value: str, rows: int) -> None:
        with database_at(lake).write() as connection:
            connection.execute(
                f"CREATE OR REPLACE TEMP VIEW given AS SELECT {value} AS a FROM range({rows})"
            )
            replace_slice(connection, "given", table="t", schema="main")


VERSIONS = """
import importlib.util, sys

sys.path.insert(0, sys.argv[1])
if sys.argv[2] == "None":
    find = importlib.util.find_spec
    importlib.util.find_spec = lambda name: None if "extension" in name else find(name)
import duckdb
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.warehouse.lake import load_extensions

try:
    load_extensions(duckdb.connect())
except ConfigError as error:
    print(error)
"""


def test_versions_that_do_not_fit_are_named(tmp_path):
    """Without the wheels, or with those of another DuckDB, one sentence says what to install."""
    for version, said in ((None, "is not installed"), ("v0.1", "is for v0.1")):
        wheel = tmp_path / str(version)
        wheel.mkdir()
        if version:
            package = wheel / "duckdb_extension_ducklake"
            (package / "extensions" / version).mkdir(parents=True)
            (package / "__init__.py").touch()
        printed = subprocess.run(
            [sys.executable, "-c", VERSIONS, wheel, str(version)], capture_output=True, text=True
        )
        assert said in printed.stdout, printed.stderr
        assert "mixpanel-assets[lake]" in printed.stdout


def test_no_statement_shows_a_password(postgres: Postgres, tmp_path, monkeypatch, caplog):
    """Neither the list of databases nor of secrets has it, nor an error or a log."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MP_S3_KEY_ID", "key")
    monkeypatch.setenv("MP_S3_SECRET", SECRET)
    monkeypatch.setenv("MP_S3_ENDPOINT", "http://127.0.0.1:9")
    location = parse_location(
        f"ducklake:postgres:{postgres.dsn} password={postgres.password}", tmp_path / "lake"
    )
    database, shown = database_at(location), []
    with database.write() as connection:
        prepare(connection, PROJECT)
    with database.read() as connection:
        for sql in (
            "FROM duckdb_databases()",
            "FROM duckdb_secrets()",
            "FROM duckdb_settings()",
            "FROM duckdb_secrets(redact => false)",
            "SELECT getvariable('mixpanel_assets_PASSWORD')",
            "SELECT getvariable('mixpanel_assets_SECRET')",
            "FROM 's3://bucket/nothing.parquet'",
        ):
            try:
                shown.append(str(connection.execute(sql).fetchall()))
            except duckdb.Error as error:
                shown.append("".join(traceback.format_exception(error)))
    postgres.run("DROP TABLE ducklake_snapshot CASCADE")
    try:
        with database.read() as connection:
            connection.execute("FROM events")
    except (MixpanelDataError, duckdb.Error) as error:
        shown.append("".join(traceback.format_exception(error)))
    close_lakes()
    for secret in (postgres.password, SECRET):
        assert secret not in " ".join([*shown, caplog.text, repr(database), str(vars(database))])


class TestConflicts:
    """Another program changes the same table during a write, without the lock."""

    @pytest.mark.parametrize("how", ["replace", "append"])
    def test_the_whole_transaction_is_written_again(self, on_lake, lake, tmp_path, how, caplog):
        """The rows are those of a write without a conflict, and a log says what happened."""
        alone = Warehouse(tmp_path)
        options = {} if how == "replace" else {"table": "some"}
        old = [event(insert=n) for n in range(20)]
        new = [event(insert=n, **{"$insert_id": f"i{n}"}) for n in range(30)]
        wanted = []
        for warehouse in (alone, on_lake):
            warehouse.load([*old, *new[:5]], **options)
            store: Any = partial(append_events, **options) if options else replace_events
            table = "main.some" if options else "mixpanel.events"
            change = partial(self.change, lake, table) if warehouse is on_lake else lambda: None
            self.store(warehouse, new, store, change)
            wanted.append(warehouse.query(f"SELECT * EXCLUDE properties FROM {table} ORDER BY ALL"))
            wanted.append(warehouse.query("SELECT row_count, status FROM mixpanel._days"))
        assert wanted[:2] == wanted[2:]
        assert "Writing it again (1 of 4)" in caplog.text

    @pytest.mark.slow
    def test_it_ends_after_five_times(self, on_lake, lake):
        """A conflict each time is an error that says that nothing was stored."""
        on_lake.load([event(insert=n) for n in range(20)])
        before, change, tries = on_lake.rows(), partial(self.change, lake, "mixpanel.events"), []

        def write():
            with on_lake.database.write() as connection:
                connection.execute("DELETE FROM mixpanel.events WHERE properties IS NOT NULL")
                tries.append(change())

        with pytest.raises(WriteConflictError, match="without this package's lock"):
            repeated(write)
        assert (len(tries), on_lake.rows()) == (5, before)

    @staticmethod
    def store(warehouse: Warehouse, lines: list[Any], store: Any, change: Any) -> None:
        received = ReceivedDays(warehouse.spool(lines), DAY, DAY, len(lines), True)
        changes = [change]
        with (
            warehouse.database.staging() as memory,
            stage_days(memory, received, project=PROJECT) as staged,
        ):

            def write() -> None:
                with warehouse.database.write(memory) as connection:
                    prepare(connection, PROJECT)
                    store(connection, staged)
                    if changes:
                        changes.pop()()

            repeated(write)

    @staticmethod
    def change(lake: LakeLocation, table: str) -> None:
        with duckdb.connect() as other:
            load_extensions(other)
            other.execute(f"ATTACH '{lake}' AS lake")
            one = f"FROM lake.{table} WHERE rowid = (SELECT min(rowid) FROM lake.{table})"
            other.execute("BEGIN")
            other.execute(f"CREATE TEMP TABLE changed AS {one}")
            other.execute(f"DELETE {one}")
            other.execute(f"INSERT INTO lake.{table} FROM changed")
            other.execute("COMMIT")
            other.execute("DETACH lake")


def test_other_programs_read_through_the_catalog(on_lake, lake, postgres_server):
    """Another DuckDB, PyArrow and Polars get the rows of now, and those of then."""
    on_lake.load([event(insert=n) for n in range(20)])
    on_lake.load([event(insert=n) for n in range(30)])
    with duckdb.connect() as other:
        load_extensions(other)
        other.execute(f"ATTACH '{lake}' AS lake (READ_ONLY)")
        assert other.execute("SELECT count(*) FROM lake.mixpanel.events").fetchall() == [(30,)]
        first = other.execute(
            "SELECT min(begin_snapshot) FROM __ducklake_metadata_lake.ducklake_data_file"
        ).fetchall()[0][0]
        then = f"FROM lake.mixpanel.events AT (VERSION => {first})"
        assert len(other.sql(then).pl()) == 20
        files = other.execute(
            "SELECT data_file FROM ducklake_list_files('lake', 'events', schema => 'mixpanel')"
        ).fetchall()
        other.execute("DETACH lake")
    assert [pq.read_table(file).num_rows for (file,) in files] == [30]


class TestTidying:
    def test_superfluous_files_go_and_kept_snapshots_stay(self, on_lake, lake):
        """Rows of kept days can be read as they were; the files of others are deleted."""
        for n in range(3):
            on_lake.load([event(insert=i, n=n) for i in range(20)])
        files = Path(lake.data_path)
        before = on_lake.rows()
        assert len(list(files.rglob("*.parquet"))) == 3
        on_lake.database.tidy(keep_days=7)
        assert len(list(files.rglob("*.parquet"))) == 3
        assert len(on_lake.query("FROM mixpanel.events AT (VERSION => 3)")) == 20
        tidied = on_lake.database.tidy(keep_days=0)
        assert (tidied.deleted_files, len(list(files.rglob("*.parquet")))) == (2, 1)
        assert on_lake.rows() == before

    def test_small_files_of_a_day_become_one(self, on_lake, lake):
        """Appending makes small files, which slow queries down."""
        for n in range(3):
            with database_at(lake).write() as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS main.t (a INTEGER)")
                connection.execute(f"INSERT INTO main.t SELECT {n} FROM range(20)")
        tidied = on_lake.database.tidy(keep_days=0)
        assert tidied.merged_files == 3
        assert len(list(Path(lake.data_path).rglob("*.parquet"))) == 1
        assert on_lake.query("SELECT a, count(*) FROM main.t GROUP BY a ORDER BY a") == [
            (0, 20),
            (1, 20),
            (2, 20),
        ]

    def test_files_of_no_snapshot_are_counted_until_they_may_be_deleted(self, on_lake, lake):
        """Interrupted loads leave them; a new one may be that of a program that writes now."""
        on_lake.load([event(insert=i) for i in range(20)])
        before = on_lake.rows()
        [file] = Path(lake.data_path).rglob("*.parquet")
        left, new = file.with_name("ducklake-left.parquet"), file.with_name("ducklake-new.parquet")
        for copy in (left, new):
            shutil.copyfile(file, copy)
        os.utime(left, (0, 0))
        assert on_lake.database.tidy().unknown_files == 1
        tidied = on_lake.database.tidy(delete_unknown=True)
        assert (tidied.deleted_files, tidied.unknown_files) == (1, 0)
        assert set(file.parent.iterdir()) == {file, new}
        assert on_lake.rows() == before

    @pytest.mark.slow
    def test_no_file_of_a_lake_is_taken_for_an_unknown_one(self, lake, tmp_path):
        """DuckLake compares paths by letter, and would delete all files of this one."""
        path = f"{tmp_path}//lake/"
        lock_of_lake.rows(
            lake, "UPDATE ducklake_metadata SET value = %s WHERE key = 'data_path'", [path]
        )
        warehouse = Warehouse(tmp_path, place=LakeLocation(lake.catalog, path))
        warehouse.load([event(insert=i) for i in range(20)])
        before = warehouse.rows()
        [file] = Path(path).rglob("*.parquet")
        shutil.copyfile(file, left := file.with_name("ducklake-left.parquet"))
        for one in (file, left):
            os.utime(one, (0, 0))
        assert warehouse.database.tidy().unknown_files == 1
        with pytest.raises(StorageError, match="No unknown file was deleted"):
            warehouse.database.tidy(delete_unknown=True)
        assert warehouse.rows() == before

    @pytest.mark.slow
    def test_it_waits_for_a_writer(self, lake):
        """Under the same lock, compaction and a load never meet."""
        holder = writer(lake)
        try:
            with pytest.raises(DatabaseLockedError):
                database_at(lake, lock_timeout=0.5).tidy()
        finally:
            end(holder)

    def test_a_file_is_not_tidied(self, tmp_path):
        """DuckDB does that itself."""
        with pytest.raises(ConfigError, match="only a lake"):
            database_at(tmp_path / "w.duckdb").tidy()


@pytest.mark.parametrize("by_transaction", [True, False])
def test_a_pooler_that_shares_sessions_is_refused(postgres, tmp_path, by_transaction):
    """It would lose the lock between two statements; a pooler that keeps sessions may be used."""
    with pooled(lambda: psycopg2.connect(postgres.url), by_transaction=by_transaction) as port:
        behind = LakeLocation(replace(postgres, port=port).dsn, f"{tmp_path}/lake/")
        wait = Wait("the lake", tmp_path, timeout=30)
        if by_transaction:
            with pytest.raises(ConfigError, match="pooler that shares sessions"):
                lake_lock(behind, wait).__enter__()
        else:
            with lake_lock(behind, wait) as lock:
                lock.must_be_held()
