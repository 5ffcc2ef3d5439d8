"""Databases that earlier versions wrote: opened, brought up to date, and served."""

import gzip
import json
import os
import shutil
from contextlib import suppress
from datetime import date
from pathlib import Path

import duckdb
import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.client.spool import clean
from mixpanel_assets.emulator import Emulator
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import Database, prepare
from mixpanel_assets.warehouse.project import schema_version
from mixpanel_assets.warehouse.schema import TABLES
from mixpanel_assets_tests.old_data import DATA, FILES, SHOP
from mixpanel_assets_tests.warehouse.processes import in_another_process

VERSIONS = sorted(int(folder.name.removeprefix("schema_")) for folder in DATA.glob("schema_*"))


@pytest.fixture(scope="module")
def shop():
    """The project that the old databases hold."""
    with Emulator(SHOP) as emulator:
        yield emulator


@pytest.fixture(params=VERSIONS)
def old(request, tmp_path) -> Path:
    """A database of one version, with its snapshot and spool folder."""
    source = DATA / f"schema_{request.param}"
    for name in FILES:
        (tmp_path / name).write_bytes(gzip.decompress((source / f"{name}.gz").read_bytes()))
    shutil.copytree(source / "spool", tmp_path / "spool")
    shutil.copy(source / "counts.json", tmp_path)
    return tmp_path


@pytest.fixture
def open_old(shop, old):
    """Open the old database as a workspace."""
    settings = Settings(api_base_url=shop.base_url, database=old / FILES[0])
    credentials = make_credentials(
        username=shop.username, secret=shop.secret, project_id=str(shop.project_id)
    )
    return lambda **options: Workspace(credentials=credentials, settings=settings, **options)


def schema_version_of(old: Path) -> int:
    with duckdb.connect(old / FILES[0], read_only=True) as connection:
        return connection.sql("SELECT schema_version FROM mixpanel._project").fetchall()[0][0]


def counts(old: Path) -> dict[str, int]:
    with duckdb.connect(old / FILES[0], read_only=True) as connection:
        return {
            name: connection.table(name).count("*").fetchall()[0][0]
            for name in json.loads((old / "counts.json").read_text())
        }


def test_reading_changes_nothing_and_finds_every_row(open_old, old):
    """An older file is read as it is."""
    before = (old / FILES[0]).read_bytes()
    with open_old(read_only=True) as workspace:
        assert workspace.sql("SELECT count(*) AS n FROM events")["n"][0] == 121
        assert {table.name for table in workspace.tables()} >= {"events", "profiles", "visits"}
    assert (old / FILES[0]).read_bytes() == before


def test_every_read_works_without_what_was_added_since(open_old, old, caplog):
    """From the file and from its snapshot; that it is older is said once."""
    with open_old(read_only=True) as workspace:
        assert workspace.info().project_id == str(SHOP.project_id)
        assert workspace.days_due().first == SHOP.start
        assert workspace.plan("2024-01-01", "2024-01-03").days == 3
        assert workspace.daily_counts(from_date="2024-01-01", to_date="2024-01-01").counts
        assert workspace.event_breakdown("events").total_events == 121
        assert workspace.summarize("profiles").row_count
        assert workspace.connection.sql("SELECT count(*) FROM events").fetchall() == [(121,)]
        assert sum(workspace.coverage(to_date="2024-01-07").counts["events"].values()) == 7
        certificate = workspace.certificate(SHOP.start)
        assert ("lines" in certificate.unknown) == (schema_version_of(old) < 4)
        assert certificate.holds
        found = {one.what: one for one in workspace.doctor()}
    assert found["database"].status == "ok"
    told = [text for text in caplog.messages if "earlier mixpanel-assets" in text]
    assert len(told) == (schema_version_of(old) < schema_version())
    with Workspace.open(old / FILES[1]) as workspace:
        assert workspace.sql_scalar("SELECT count(*) FROM events") == 121


MIGRATE = """
    from pathlib import Path
    from mixpanel_assets.warehouse import Database, prepare
    with Database(Path(sys.argv[1])).write() as connection:
        prepare(connection, None)
        print("held", flush=True)
        sys.stdin.readline()
    print("held", flush=True)
"""


def test_it_is_read_while_another_process_brings_it_up_to_date(open_old, old):
    """Until that is done from the snapshot, which is as old; then from the file."""
    count = "SELECT count(*) FROM events"
    with open_old(read_only=True) as reader:
        assert reader.connection.execute(count).fetchall() == [(121,)]  # takes a snapshot
    with in_another_process(MIGRATE, old / FILES[0]) as writer, open_old(read_only=True) as reader:
        assert reader.info().project_id == str(SHOP.project_id)
        assert reader.sql_scalar(count) == 121
        assert reader.days_due().first == SHOP.start
        writer.stdin.write("go\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "held\n"
        assert reader.sql_scalar(count) == 121
        assert reader.sql_scalar("SELECT count(*) FROM mixpanel._reconciled") == 0
    assert schema_version_of(old) == schema_version()


def test_the_first_write_brings_the_tables_up_to_date(open_old, old):
    """Every column of today is there, and no row is another one."""
    before = json.loads((old / "counts.json").read_text())
    with duckdb.connect(old / FILES[0], read_only=True) as connection:
        rows = connection.sql("FROM mixpanel.events ORDER BY ALL").fetchall()
    with open_old() as workspace:
        workspace.sync_events(date(2024, 1, 1), date(2024, 1, 1))
    assert counts(old) == before
    with duckdb.connect(old / FILES[0], read_only=True) as connection:
        assert connection.sql("FROM mixpanel.events ORDER BY ALL").fetchall() == rows
        version = connection.sql("SELECT schema_version FROM mixpanel._project").fetchall()
        assert version == [(schema_version(),)]
        covered = connection.sql("SELECT status FROM mixpanel.coverage WHERE day = '2024-01-01'")
        assert ("complete",) in covered.fetchall()
        for table in TABLES:
            described = connection.sql(f"DESCRIBE {table.quoted}").fetchall()
            assert [name for name, *_ in described] == list(table.column_names), table.name


def test_there_is_a_database_of_each_earlier_version():
    """So that none is left out: CONTRIBUTING.md says when to add one."""
    assert set(range(1, schema_version())) <= set(VERSIONS)


def test_a_migration_that_fails_changes_nothing(old):
    """It is one transaction: the file keeps its version, its tables and its rows."""

    def content() -> list:
        with duckdb.connect(old / FILES[0], read_only=True) as connection:
            tables = "SELECT table_name, sql FROM duckdb_tables() ORDER BY ALL"
            rows = [connection.table(name).fetchall() for name in counts(old)]
            return [*connection.execute(tables).fetchall(), *rows]

    before = content()
    with suppress(ZeroDivisionError), Database(old / FILES[0]).write() as connection:
        prepare(connection, None)
        version = connection.execute("SELECT schema_version FROM mixpanel._project").fetchall()
        assert version == [(schema_version(),)]
        raise ZeroDivisionError
    assert content() == before


def test_the_snapshot_follows(open_old, old):
    """Readers of the snapshot go on, and find what was loaded since."""
    (old / "warehouse.snapshot.duckdb").chmod(0o444)
    with open_old() as workspace:
        workspace.sync_events(date(2024, 1, 5), date(2024, 1, 5))
    with duckdb.connect(old / FILES[1], read_only=True) as connection:
        days = connection.sql("SELECT DISTINCT event_date FROM mixpanel.events").fetchall()
    assert (date(2024, 1, 5),) in days


def test_what_failed_loads_left_is_cleaned(old):
    """Answers and pages that the old version kept are known as such."""
    for path in (old / "spool").rglob("*"):
        os.utime(path, (0, 0))
    assert clean(old / "spool").deleted == 2
    assert not list((old / "spool").iterdir())
