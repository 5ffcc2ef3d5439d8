from __future__ import annotations

from dataclasses import replace

import pytest

from mixpanel_assets.errors import ConfigError, StorageError
from mixpanel_assets.warehouse import project as project_module
from mixpanel_assets.warehouse import schema
from mixpanel_assets.warehouse.project import ProjectIdentity, prepare, stored_project
from mixpanel_assets_tests.warehouse.conftest import PROJECT, Warehouse, event


def prepared(warehouse: Warehouse, project: ProjectIdentity = PROJECT) -> None:
    with warehouse.database.write() as connection:
        prepare(connection, project)


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
    [
        ({"project_id": "99"}, ["1234", "99", "MP_PROJECT_ID"]),
        ({"region": "us"}, ["(eu)", "(us)", "MP_REGION"]),
        ({"regime": "legacy"}, ["utc", "legacy", "MP_TIME_REGIME"]),
    ],
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


def test_an_unknown_zone_is_refused(warehouse):
    """A zone that does not exist is found before anything is stored."""
    with pytest.raises(ConfigError, match="IANA"):
        prepared(warehouse, replace(PROJECT, zone="Mars/Olympus"))


def test_a_newer_schema_is_refused(warehouse):
    """A file of a later mixpanel-assets asks for an upgrade."""
    prepared(warehouse)
    with warehouse.database.write() as connection:
        connection.execute("UPDATE mixpanel._project SET schema_version = 99")
    with pytest.raises(StorageError, match="Upgrade mixpanel-assets"):
        prepared(warehouse)


def test_an_older_schema_is_migrated_once(warehouse, monkeypatch):
    """A migration runs in the write that meets the old file, and never again."""
    warehouse.load([event()])
    ran = []

    def add_column(connection):
        ran.append(True)
        connection.execute("ALTER TABLE mixpanel.events ADD COLUMN extra INTEGER")

    monkeypatch.setattr(project_module, "MIGRATIONS", (*project_module.MIGRATIONS, add_column))
    prepared(warehouse)
    prepared(warehouse)
    assert ran == [True]
    assert warehouse.query("SELECT extra FROM events") == [(None,)]
    assert warehouse.query("SELECT schema_version FROM mixpanel._project") == [(3,)]


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
