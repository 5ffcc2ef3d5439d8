"""Reads check the project and the version of a file as writes do."""

import os
import shutil
from datetime import timedelta

import dagster as dg
import duckdb
import pandas as pd
import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.defs.io_managers import WarehouseIOManager
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.defs.resources import MixpanelResource
from mixpanel_assets.errors import AuthenticationError, ConfigError, StorageError
from mixpanel_assets.loading.doctor import doctor
from mixpanel_assets.loading.verification import verify_days
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import Database
from mixpanel_assets.warehouse.engine import StorageEngine
from mixpanel_assets_tests.conftest import START
from mixpanel_assets_tests.laws import siblings

DAY = {"from_date": "2024-01-01", "to_date": "2024-01-01"}
BOTH = r"holds project 12345 \(us\), but project 999 \(us\)"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, shared_emulator):
    """A day of events and profiles of project 12345."""
    path = tmp_path_factory.mktemp("loaded") / "warehouse.duckdb"
    settings = Settings(api_base_url=shared_emulator.base_url, database=path, state_dir=":memory:")
    with Workspace(credentials=credentials_of(shared_emulator), settings=settings) as workspace:
        workspace.sync_events(START, START)
        workspace.sync_profiles()
    return path


@pytest.fixture
def path(loaded, tmp_path):
    return shutil.copy(loaded, tmp_path / "warehouse.duckdb")


@pytest.fixture
def open_as(emulator, path):
    """Open the file as a project."""

    def open_as(project_id="12345", region="us", settings=None, **options):
        settings = settings or Settings(api_base_url=emulator.base_url, database=path)
        return Workspace(
            credentials=credentials_of(emulator, project_id, region), settings=settings, **options
        )

    return open_as


def credentials_of(emulator, project_id="12345", region="us"):
    return make_credentials(
        username=emulator.username, secret=emulator.secret, project_id=project_id, region=region
    )


def change(path, statement):
    with duckdb.connect(path) as connection:
        connection.execute(statement)


READS = {
    "info": lambda ws: ws.info(),
    "tables": lambda ws: ws.tables(),
    "table_schema": lambda ws: ws.table_schema("events"),
    "sample": lambda ws: ws.sample("events", 1),
    "sample_rows": lambda ws: ws.sample_rows("events", 1),
    "summarize": lambda ws: ws.summarize("profiles"),
    "event_breakdown": lambda ws: ws.event_breakdown("events"),
    "property_keys": lambda ws: ws.property_keys("events"),
    "column_stats": lambda ws: ws.column_stats("events", "event_name"),
    "sql": lambda ws: ws.sql("SELECT 1"),
    "sql_rows": lambda ws: ws.sql_rows("SELECT 1"),
    "sql_scalar": lambda ws: ws.sql_scalar("SELECT 1"),
    "daily_counts": lambda ws: ws.daily_counts(**DAY),
    "property_distribution": lambda ws: ws.property_distribution("Page View", "plan", **DAY),
    "days_due": lambda ws: ws.days_due(),
    "plan": lambda ws: ws.plan("2024-01-01", "2024-01-02"),
    "connection": lambda ws: ws.connection.sql("SELECT 1"),
    "table_exists": lambda ws: ws.storage.table_exists("events"),
    "drop": lambda ws: ws.drop("events"),
    "fetch": lambda ws: ws.fetch_events("visits", **DAY, progress=False),
    "sync": lambda ws: ws.sync_events(START, START),
    "profiles": lambda ws: ws.fetch_profiles("people", progress=False),
    "verify": lambda ws: verify_days(
        ws.api, ws.settings, Database(ws.settings.database), from_date=START, to_date=START
    ),
}


@pytest.mark.parametrize("read_only", [True, False])
def test_another_projects_file_is_not_read(open_as, path, emulator, read_only):
    """Every read names both projects; no request is sent, and no file is changed or created."""
    before, requests = path.read_bytes(), len(emulator.requests)
    for name in ("info", "sql", "plan", "connection", "fetch") if read_only else READS:
        with (
            open_as("999", read_only=read_only) as workspace,
            pytest.raises(ConfigError, match=BOTH),
        ):
            READS[name](workspace)
    assert len(emulator.requests) == requests
    assert path.read_bytes() == before
    assert not path.with_name("warehouse.snapshot.duckdb").exists()


def test_another_region_is_another_project(open_as):
    """The region is part of a project's identity, as the number is."""
    with open_as(region="eu") as workspace, pytest.raises(ConfigError, match=r"\(us\).*\(eu\)"):
        workspace.info()


def test_how_times_are_read_is_no_matter_for_a_reader(open_as, path):
    """The file says it itself; a load is refused all the same."""
    legacy = Settings(database=path, time_regime="legacy", time_zone="Europe/Paris")
    with open_as(settings=legacy) as workspace:
        assert workspace.info().project_id == "12345"
        with pytest.raises(ConfigError, match="time regime utc"):
            workspace.sync_events(START, START)
    zone = Settings(database=path, time_zone="Europe/Paris")
    with open_as(settings=zone) as workspace:
        assert workspace.info().project_id == "12345"
        workspace.drop("events")


def test_a_workspace_without_credentials_reads_any_file(path):
    """Nothing names a project."""
    with Workspace.open(path) as workspace:
        assert workspace.info().project_id == "12345"
        assert workspace.sql_scalar("SELECT count(*) FROM events")


def test_a_file_that_is_opened_holds_the_project_of_the_environment(path, monkeypatch):
    """Whether it is to be read or changed, and through a link as well."""
    monkeypatch.setenv("MP_PROJECT_ID", "999")
    link = path.with_name("shop.duckdb")
    link.symlink_to(path)
    for given in (path, link):
        for read_only in (True, False):
            with Workspace.open(given, read_only=read_only) as workspace:
                for read in (READS["info"], READS["sql"], READS["connection"], READS["drop"]):
                    with pytest.raises(ConfigError, match=BOTH if not read_only else "."):
                        read(workspace)
    monkeypatch.setenv("MP_PROJECT_ID", "12345")
    with Workspace.open(link) as workspace:
        assert workspace.info().project_id == "12345"
    monkeypatch.setenv("MP_REGION", "eu")
    with Workspace.open(link) as workspace, pytest.raises(ConfigError, match=r"\(eu\)"):
        workspace.info()


def test_an_engine_that_is_handed_over_holds_the_project_too(path, emulator):
    """It may have been opened for no project."""
    storage = StorageEngine.open_existing(path)
    with (
        Workspace(credentials=credentials_of(emulator, "999"), storage=storage) as workspace,
        pytest.raises(ConfigError, match=BOTH),
    ):
        workspace.info()


@pytest.mark.parametrize("project_id", ["12345", "012345", " 12345 "])
def test_a_projects_number_is_the_same_in_every_spelling(open_as, project_id):
    """Zeros in front and blanks around it are no part of it."""
    with open_as(project_id, region="US") as workspace:
        assert workspace.info().project_id == "12345"
        workspace.sync_profiles()


def test_a_snapshot_of_another_project_is_not_read_either(open_as, loaded, path):
    """It is read while a writer holds the file."""
    shutil.copy(loaded.with_name("warehouse.snapshot.duckdb"), path.parent)
    snapshot = path.with_name("warehouse.snapshot.duckdb")
    with open_as("999", path=snapshot) as workspace, pytest.raises(ConfigError, match=BOTH):
        workspace.info()


def test_answers_beside_another_projects_file_stay(open_as, path):
    """They may be of days that its Mixpanel has deleted since."""
    spool = path.with_name("spool")
    spool.mkdir()
    answer = spool / f"{'0' * 32}-2024-01-01_2024-01-01.jsonl"
    answer.touch()
    os.utime(answer, (0, 0))
    for given in ({"project_id": "999"}, {"region": "eu"}):
        with open_as(**given) as workspace, pytest.raises(ConfigError, match="holds project 12345"):
            workspace.clean(timedelta())
        assert answer.exists()
    with open_as() as workspace:
        assert workspace.clean(timedelta()).deleted == 1


def test_answers_beside_a_file_that_cannot_be_read_can_go(open_as, path):
    """Their room may be what is missing."""
    path.write_text("no database" * 1000)
    with open_as() as workspace:
        assert workspace.clean(timedelta()).deleted == 0
    path.unlink()
    path.with_name("warehouse.snapshot.duckdb").unlink(missing_ok=True)
    with open_as() as workspace:
        assert workspace.clean(timedelta()).deleted == 0


VERSIONS = {
    "99": "Upgrade mixpanel-assets",
    "0": "copy that has not ended",
    "-1": "changed by hand",
    "NULL": "changed by hand",
}


@pytest.mark.parametrize(
    "statement",
    siblings(
        [
            "DROP TABLE mixpanel._project",
            "ALTER TABLE mixpanel._project RENAME TO mine",
            "ALTER TABLE mixpanel._project DROP COLUMN region",
            "DELETE FROM mixpanel._project",
            "UPDATE mixpanel._project SET project_id = NULL",
            "UPDATE mixpanel._project SET region = NULL",
            "ALTER TABLE mixpanel._project ALTER project_id TYPE INTEGER",
        ],
        keep=3,
    ),
)
def test_a_file_whose_project_was_changed_by_hand_is_not_read(open_as, path, statement):
    """After such a change, the project of the rows is unknown."""
    change(path, statement)
    for project_id in ("12345", "999"):
        with open_as(project_id) as workspace, pytest.raises(StorageError, match="by hand"):
            workspace.info()
    with Workspace.open(path) as workspace, pytest.raises(StorageError, match="by hand"):
        workspace.sql("SELECT 1")


@pytest.mark.parametrize("version", siblings(VERSIONS, keep=2))
def test_a_version_that_this_code_does_not_know_is_not_read(open_as, path, version):
    """Its tables may mean something else."""
    change(path, f"UPDATE mixpanel._project SET schema_version = {version}")
    for name in READS if version == "99" else ("info", "sql", "sync"):
        with open_as() as workspace, pytest.raises(StorageError, match=VERSIONS[version]):
            READS[name](workspace)
    with Workspace.open(path) as workspace, pytest.raises(StorageError, match=VERSIONS[version]):
        workspace.info()


def test_the_doctor_tells_of_both(emulator, path):
    """The finding fails for another project and for a newer version."""
    settings = Settings(api_base_url=emulator.base_url, database=path)
    other = credentials_of(emulator, "999")
    [found] = [
        one for one in doctor(credentials=other, settings=settings) if one.what == "database"
    ]
    assert (found.status, "999" in found.detail) == ("fail", True)
    change(path, "UPDATE mixpanel._project SET schema_version = 99")
    own = credentials_of(emulator)
    [found] = [one for one in doctor(credentials=own, settings=settings) if one.what == "database"]
    assert (found.status, "Upgrade" in found.detail) == ("fail", True)


@dg.asset(
    key=["shop", "counts"],
    io_manager_key="warehouse",
    ins={"events": dg.AssetIn(["mixpanel", "events"])},
)
def counts(events: pd.DataFrame) -> pd.DataFrame:
    return events.value_counts("event_name").reset_index()


@dg.asset(key=["shop", "prices"], io_manager_key="warehouse")
def prices() -> pd.DataFrame:
    return pd.DataFrame({"price": [1]})


def run(path, **options):
    """Return why each of the two assets failed; nothing of those that did not."""
    events = dg.AssetSpec(["mixpanel", "events"]).with_io_manager_key("warehouse")
    manager = WarehouseIOManager(database=str(path), **options)
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [counts, prices, events],
            resources={"warehouse": manager},
            instance=instance,
            raise_on_error=False,
        )
    failed = [event for event in result.all_events if event.is_step_failure]
    return [event.step_failure_data.user_failure_data.description for event in failed]


def test_assets_downstream_are_given_no_rows_of_another_project(path):
    """Nor may they add theirs to it; nor to a file of a newer version."""
    before = path.read_bytes()
    said = run(path, project_id="999", region="us")
    assert ["project 999 (us)" in text for text in said] == [True, True]
    assert path.read_bytes() == before
    assert run(path, project_id=" 012345", region="US") == []
    change(path, "UPDATE mixpanel._project SET schema_version = 99")
    assert ["Upgrade mixpanel-assets" in text for text in run(path)] == [True, True]


def test_a_code_location_says_whose_rows_it_reads(settings):
    """As far as it is known when it is loaded."""
    resource = MixpanelResource(username="u", secret="secret-secret", project_id="7", region="eu")
    given = build_definitions(settings=settings, resources={"mixpanel": resource})
    manager = given.resources["mixpanel_warehouse"]
    assert (manager.project_id, manager.region) == ("7", "eu")
    own = WarehouseIOManager(database=dg.EnvVar("MP_DATABASE"), schema="shop")
    resources = {"mixpanel": resource, "warehouse": own}
    manager = build_definitions(settings=settings, resources=resources).resources["warehouse"]
    assert (manager.project_id, manager.region, manager.schema_) == ("7", "eu", "shop")
    resources["warehouse"] = WarehouseIOManager(database="x", project_id="8")
    given = build_definitions(settings=settings, resources=resources).resources["warehouse"]
    assert (given.project_id, given.region) == ("8", "")
    for project_id, region in (("", "eu"), ("none", "eu"), ("7", "mars")):
        resource = MixpanelResource(username="u", secret="s", project_id=project_id, region=region)
        given = build_definitions(settings=settings, resources={"mixpanel": resource})
        manager = given.resources["mixpanel_warehouse"]
        assert (manager.project_id, manager.region) == ("", "")


def test_a_file_that_a_mistyped_project_left_may_be_deleted(emulator, tmp_path):
    """The first load failed, so the file holds nothing but the failed day."""
    place = tmp_path / "warehouse.duckdb"
    settings = Settings(api_base_url=emulator.base_url, database=place, state_dir=":memory:")

    def load(project_id):
        with Workspace(
            credentials=credentials_of(emulator, project_id), settings=settings
        ) as workspace:
            workspace.sync_events(START, START)

    with pytest.raises(AuthenticationError):
        load("999")
    with pytest.raises(ConfigError, match="delete the file and its snapshot to use it") as caught:
        load("12345")
    assert "holds project 999" in caught.value.message
    place.unlink()
    place.with_name("warehouse.snapshot.duckdb").unlink(missing_ok=True)
    load("12345")


def test_a_file_with_rows_is_never_to_be_deleted(open_as, path):
    """Rows of any kind: of other tables than events, or an empty day."""
    change(path, "DELETE FROM mixpanel.events")
    with open_as("999") as workspace, pytest.raises(ConfigError, match=BOTH) as of_profiles:
        workspace.sync_events(START, START)
    change(path, "UPDATE mixpanel._days SET status = 'failed'; CREATE TABLE own AS SELECT 1 AS one")
    for table in ("events", "profiles"):
        change(path, f"DELETE FROM mixpanel.{table}")
    with open_as("999") as workspace, pytest.raises(ConfigError, match=BOTH) as of_own:
        workspace.sync_events(START, START)
    assert "delete" not in of_profiles.value.message + of_own.value.message
