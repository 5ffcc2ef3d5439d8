from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import duckdb
import pytest

from mixpanel_assets.errors import ConfigError, StorageError
from mixpanel_assets.warehouse import project as project_module
from mixpanel_assets.warehouse import schema
from mixpanel_assets.warehouse.database import check_before_load
from mixpanel_assets.warehouse.ledger import Target
from mixpanel_assets.warehouse.profiles import make_profile_table
from mixpanel_assets.warehouse.project import (
    ProjectIdentity,
    changes_by_hand,
    prepare,
    schema_version,
    stored_project,
    tables_of,
)
from mixpanel_assets_tests.laws import siblings
from mixpanel_assets_tests.warehouse.conftest import (
    DAY,
    DAY_MS,
    PROJECT,
    START_MS,
    Warehouse,
    event,
)


def prepared(warehouse: Warehouse, project: ProjectIdentity = PROJECT) -> None:
    with warehouse.database.write() as connection:
        prepare(connection, project)


@contextmanager
def opened_by_hand(warehouse: Warehouse) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{warehouse.database.path}' AS hand; USE hand")
        yield connection
        connection.execute("USE memory; DETACH hand")


def test_the_tables_are_those_described(warehouse):
    """Every table has the described columns in order, with their descriptions as comments."""
    prepared(warehouse)
    for table in schema.TABLES:
        found = warehouse.query(
            "SELECT column_name, data_type, comment FROM duckdb_columns() "
            "WHERE schema_name = ? AND table_name = ? ORDER BY column_index",
            table.schema,
            table.name,
        )
        assert found == [(c.name, c.type, c.description) for c in table.columns]


def test_preparing_again_changes_nothing(warehouse):
    """A prepared file with rows stays as it is."""
    warehouse.load([event()])
    before = warehouse.rows()
    prepared(warehouse)
    assert warehouse.rows() == before
    with warehouse.database.read() as connection:
        assert stored_project(connection) == PROJECT


@pytest.mark.parametrize(
    ("change", "names"),
    siblings(
        [
            ({"project_id": "99"}, ["1234", "99", "MP_PROJECT_ID"]),
            ({"region": "us"}, ["(eu)", "(us)", "MP_REGION"]),
            ({"regime": "legacy"}, ["utc", "legacy", "MP_TIME_REGIME"]),
        ],
        keep=1,
    ),
)
def test_another_project_is_refused(warehouse, change, names):
    """The message names both and what to set; nothing changes."""
    warehouse.load([event()])
    other = Warehouse(warehouse.folder, replace(PROJECT, **change))
    with pytest.raises(ConfigError) as caught:
        other.load([event("Other")])
    assert all(name in caught.value.message for name in names)
    assert [row[0] for row in warehouse.rows()] == ["Visit"]


def test_the_zone_matters_in_legacy_only(tmp_path):
    """In utc the zone converts nothing; in legacy another zone is another reading."""
    utc = Warehouse(tmp_path / "utc")
    prepared(utc)
    prepared(utc, replace(PROJECT, zone="Europe/Paris"))
    legacy = replace(PROJECT, regime="legacy", zone="Europe/Paris")
    prepared(Warehouse(tmp_path / "legacy"), legacy)
    with pytest.raises(ConfigError, match="MP_TIME_ZONE"):
        prepared(Warehouse(tmp_path / "legacy"), replace(legacy, zone="Europe/Rome"))


def test_a_zone_that_is_set_later_is_kept_for_readers(warehouse):
    """In utc; a load without the variable does not take it back, a wrong one changes nothing."""
    prepared(warehouse)
    for zone in ("Europe/Paris", "UTC"):
        prepared(warehouse, replace(PROJECT, zone=zone))
        assert warehouse.query("SELECT zone FROM mixpanel._project") == [("Europe/Paris",)]
    with pytest.raises(ConfigError, match="IANA"):
        prepared(warehouse, replace(PROJECT, zone="Mars/Olympus"))
    assert warehouse.query("SELECT zone FROM mixpanel._project") == [("Europe/Paris",)]


def test_an_unknown_zone_is_refused(warehouse):
    """A zone that does not exist is found before anything is stored."""
    with pytest.raises(ConfigError, match="IANA"):
        prepared(warehouse, replace(PROJECT, zone="Mars/Olympus"))


def test_a_newer_schema_is_refused(warehouse):
    """The error for a file of a later version says to upgrade mixpanel-assets."""
    prepared(warehouse)
    with warehouse.database.write() as connection:
        connection.execute("UPDATE mixpanel._project SET schema_version = 99")
    with pytest.raises(StorageError, match="Upgrade mixpanel-assets"):
        prepared(warehouse)


def test_an_older_schema_is_migrated_once(warehouse, monkeypatch):
    """A migration runs in the write that meets the old file, and never again."""
    warehouse.load([event()])
    ran = []

    def mark(connection):
        ran.append(True)
        connection.execute("UPDATE mixpanel._days SET run_id = 'migrated'")

    monkeypatch.setattr(project_module, "MIGRATIONS", (*project_module.MIGRATIONS, mark))
    prepared(warehouse)
    prepared(warehouse)
    assert ran == [True]
    assert warehouse.query("SELECT run_id FROM mixpanel._days") == [("migrated",)]
    assert warehouse.query("SELECT schema_version FROM mixpanel._project") == [(schema_version(),)]


def make_first_version(connection):
    """Drop what later versions of the schema have added."""
    for table in schema.TABLES:
        if table.since > 1:
            connection.execute(f"DROP TABLE {table.quoted}")
        for column in table.columns if table.since == 1 else ():
            if column.since > 1:
                connection.execute(f'ALTER TABLE {table.quoted} DROP "{column.name}"')


def test_each_version_adds_what_it_says(warehouse):
    """A file of an earlier version gets every column and table that was added since."""
    prepared(warehouse)
    with warehouse.database.write() as connection:
        make_first_version(connection)
        connection.execute("UPDATE mixpanel._project SET schema_version = 1")
    prepared(warehouse)
    with warehouse.database.read() as connection:
        assert changes_by_hand(tables_of(connection), schema_version()) == []


def test_tables_made_before_there_was_a_project_are_migrated_too(warehouse):
    """A storage engine makes them for named tables."""
    prepared(warehouse)
    with warehouse.database.write() as connection:
        make_first_version(connection)
        connection.execute("DELETE FROM mixpanel._project")
    prepared(warehouse)
    with warehouse.database.read() as connection:
        assert changes_by_hand(tables_of(connection), schema_version()) == []
        assert stored_project(connection) == PROJECT


CHANGED = {
    "ALTER TABLE mixpanel.events RENAME TO mine": "mixpanel.events is missing",
    "ALTER TABLE mixpanel.profiles RENAME TO mine": "mixpanel.profiles is missing",
    "ALTER TABLE mixpanel._project RENAME TO mine": "mixpanel._project is missing",
    "DROP TABLE mixpanel._days CASCADE": "mixpanel._days is missing",
    "ALTER TABLE mixpanel.events ADD COLUMN note TEXT": 'DROP COLUMN "note"',
    "ALTER TABLE mixpanel.profiles DROP COLUMN last_seen": "has no column last_seen (TIMESTAMP)",
    "ALTER TABLE mixpanel._days DROP COLUMN run_id": "has no column run_id (VARCHAR)",
    "ALTER TABLE mixpanel._project DROP COLUMN schema_version": "no column schema_version",
    "ALTER TABLE mixpanel.events RENAME COLUMN time_raw TO ms": 'COLUMN "ms" TO "time_raw"',
    "ALTER TABLE mixpanel.events ALTER properties TYPE TEXT": 'ALTER "properties" TYPE JSON',
    "ALTER TABLE mixpanel._days ALTER day TYPE TIMESTAMP": 'ALTER "day" TYPE DATE',
    "UPDATE mixpanel._project SET schema_version = 0": "schema version 0",
    "UPDATE mixpanel._project SET schema_version = -1": "schema version -1",
    "UPDATE mixpanel._project SET schema_version = NULL": "schema version None",
    "ALTER TABLE mixpanel._project ALTER schema_version TYPE TEXT": (
        f"schema version {schema_version()}"
    ),
    "ALTER TABLE mixpanel._project ALTER project_id TYPE INTEGER": "project 1234, region eu",
    "UPDATE mixpanel._project SET project_id = NULL": "project None, region eu",
    "UPDATE mixpanel._project SET region = NULL": "region None",
    "INSERT INTO mixpanel._project FROM mixpanel._project": "it has 2 rows",
    "DELETE FROM mixpanel._project": "it has 0 rows",
}


@pytest.mark.parametrize("change", siblings(CHANGED, keep=6))
def test_tables_changed_by_hand_are_named_and_kept(warehouse, change):
    """The error is raised before any write and says how to undo the change."""
    warehouse.load([event()])
    with opened_by_hand(warehouse) as connection:
        connection.execute(change)
    before = warehouse.database.path.read_bytes()
    with pytest.raises(StorageError, match=re.escape(CHANGED[change])):
        check_before_load(warehouse.database, PROJECT)
    with pytest.raises(StorageError, match=re.escape(CHANGED[change])):
        warehouse.load([event("Other")])
    assert warehouse.database.path.read_bytes() == before


def test_a_change_that_is_undone_as_the_message_says_is_none(warehouse):
    """The commands in it work."""
    warehouse.load([event()])
    for change in ("RENAME COLUMN time_raw TO ms", "ADD COLUMN note TEXT", "ALTER day TYPE TEXT"):
        table = "mixpanel._days" if "day" in change else "mixpanel.events"
        with opened_by_hand(warehouse) as connection:
            connection.execute(f"ALTER TABLE {table} {change}")
            [said] = changes_by_hand(tables_of(connection), schema_version())
            connection.execute(said.split("`")[1])
        prepared(warehouse)
    assert len(warehouse.rows()) == 1


@pytest.mark.parametrize(
    "foreign",
    siblings(
        [
            "CREATE TABLE mixpanel.events (id INTEGER, name TEXT)",
            "CREATE VIEW mixpanel.profiles AS SELECT 1 AS id",
            "CREATE TABLE mixpanel.profiles_current (id INTEGER)",
            "CREATE TABLE mixpanel._days (id INTEGER)",
        ],
        keep=2,
    ),
)
def test_tables_of_another_program_are_named_and_kept(warehouse, foreign):
    """A schema of the same name may be that of another loader."""
    with opened_by_hand(warehouse) as connection:
        connection.execute(f"CREATE SCHEMA mixpanel; {foreign}")
    name = foreign.split()[2]
    for attempt in (
        lambda: check_before_load(warehouse.database, PROJECT),
        lambda: warehouse.load([event()]),
    ):
        with pytest.raises(StorageError, match=f"it did not make them: {name}"):
            attempt()
    assert warehouse.query(f"SELECT count(*) FROM {name}")[0][0] in (0, 1)
    assert warehouse.query("SELECT count(*) FROM duckdb_tables()") == [(int("TABLE" in foreign),)]


@pytest.mark.parametrize(
    ("rule", "said"),
    siblings(
        [
            (
                "CREATE UNIQUE INDEX one ON mixpanel.events (event_name)",
                "unique index one on mixpanel.events (`DROP INDEX mixpanel.one`)",
            ),
            ("ALTER TABLE mixpanel.events ALTER processed_at SET NOT NULL", "NOT NULL on mixpanel"),
            (
                "ALTER TABLE mixpanel.events ADD PRIMARY KEY (event_name)",
                "PRIMARY KEY(event_name) on",
            ),
        ],
        keep=1,
    ),
)
def test_a_rule_made_by_hand_that_refuses_rows_is_named(warehouse, rule, said):
    """Not as a traceback, and without the row's values; the stored rows are kept."""
    stamped = event(mp_processing_time_ms=START_MS)
    warehouse.load([stamped])
    with opened_by_hand(warehouse) as connection:
        connection.execute(rule)
    before = warehouse.rows()
    with pytest.raises(StorageError) as caught:
        warehouse.load(
            [event(time=START_MS + DAY_MS), event(time=START_MS + DAY_MS + 1)],
            from_date=DAY + timedelta(days=1),
        )
    assert said in caught.value.message
    assert "Visit" not in caught.value.message
    assert warehouse.rows() == before


def test_an_index_that_refuses_nothing_is_no_matter(warehouse):
    """It was made to find rows faster."""
    warehouse.load([event()])
    with opened_by_hand(warehouse) as connection:
        connection.execute("CREATE INDEX fast ON mixpanel.events (event_name)")
    warehouse.load([event("Other")], from_date=DAY)
    assert "Other" in {row[0] for row in warehouse.rows()}


MIXPANEL_DATA = """
    CREATE TABLE _metadata (table_name VARCHAR PRIMARY KEY, type VARCHAR NOT NULL,
        fetched_at TIMESTAMP NOT NULL, from_date DATE, to_date DATE, row_count INTEGER NOT NULL);
    CREATE TABLE {name} (event_name VARCHAR NOT NULL, event_time TIMESTAMP NOT NULL,
        distinct_id VARCHAR NOT NULL, insert_id VARCHAR PRIMARY KEY, properties JSON);
    INSERT INTO {name} VALUES ('Old', '2020-01-01', 'me', 'id', '{{}}');
    INSERT INTO _metadata VALUES ('{name}', 'events', now(), '2020-01-01', '2020-01-01', 1);
"""


@pytest.mark.parametrize("name", siblings(["january", "events", "profiles"], keep=1))
def test_a_file_of_mixpanel_data_is_loaded_into_beside_its_tables(warehouse, name, caplog):
    """Its tables and its `_metadata` are unchanged; a name that hides ours is reported once."""
    with opened_by_hand(warehouse) as connection:
        connection.execute(MIXPANEL_DATA.format(name=name))
    for day in range(2):
        at = START_MS + day * DAY_MS
        warehouse.load([event(time=at)], from_date=DAY + timedelta(days=day))
    with warehouse.database.write() as connection:
        assert make_profile_table(connection, Target("profiles")) is schema.PROFILES
    assert warehouse.query(f"SELECT event_name FROM main.{name}") == [("Old",)]
    assert warehouse.query("SELECT table_name, row_count FROM _metadata") == [(name, 1)]
    assert warehouse.query("SELECT count(*) FROM mixpanel.events") == [(2,)]
    told = [f"main.{name} hides mixpanel.{name}"] if name != "january" else []
    told.append("main._metadata was there before")
    assert len(caplog.messages) == len(told)
    assert all(text.startswith(start) for text, start in zip(caplog.messages, told, strict=True))


def test_a_failed_migration_leaves_the_old_file(warehouse, monkeypatch):
    """A migration that breaks is undone with its write."""
    warehouse.load([event()])
    before = warehouse.rows()

    def broken(connection):
        connection.execute("DROP VIEW main._metadata")
        raise StorageError("no")

    monkeypatch.setattr(project_module, "MIGRATIONS", (*project_module.MIGRATIONS, broken))
    with pytest.raises(StorageError):
        prepared(warehouse)
    assert warehouse.rows() == before
    assert len(warehouse.query("FROM _metadata")) == 1
