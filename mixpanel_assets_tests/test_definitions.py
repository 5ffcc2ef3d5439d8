"""The code location as Dagster sees it."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from mixpanel_assets import MixpanelResource
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.defs.partitions import days_of
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.settings import Settings, load_settings

EVENTS = dg.AssetKey(["mixpanel", "events"])
PROFILES = dg.AssetKey(["mixpanel", "profiles"])
COVERAGE = dg.AssetKey(["mixpanel", "coverage"])


def test_the_location_loads_without_any_setting():
    """No variable has to be set to look around."""
    definitions = build_definitions()
    dg.Definitions.validate_loadable(definitions)
    keys = {key for spec in definitions.resolve_all_asset_specs() for key in [spec.key]}
    assert keys == {EVENTS, PROFILES, COVERAGE}


def test_partitions_run_from_the_start_date_to_today():
    """The first partition is MP_START_DATE, the last one is today."""
    definitions = build_definitions(settings=Settings(start_date="2024-03-01"))
    days = definitions.resolve_assets_def(EVENTS).partitions_def.get_partition_keys()
    assert days[0] == "2024-03-01"
    assert days[-1] == datetime.now(UTC).date().isoformat()


def test_the_column_schema_describes_every_column():
    """Names, types and a sentence for each."""
    spec = build_definitions().resolve_assets_def(EVENTS).get_asset_spec(EVENTS)
    columns = spec.metadata["dagster/column_schema"].columns
    assert [column.name for column in columns][:3] == ["event_name", "event_time", "distinct_id"]
    assert all(column.description for column in columns)


def test_pools_are_an_option():
    """None by default; a setting names one."""
    for name in (None, "mixpanel"):
        events = build_definitions(settings=Settings(pool=name)).resolve_assets_def(EVENTS)
        assert events.op.pool == name


@pytest.mark.parametrize(("key", "table"), [(EVENTS, "events"), (PROFILES, "profiles")])
def test_the_catalogue_tells_what_an_asset_is(key, table):
    """Group, kinds, table, schema and partition; the table's name holds no path."""
    spec = build_definitions().resolve_assets_def(key).get_asset_spec(key)
    assert spec.group_name == "mixpanel"
    assert spec.kinds == {"mixpanel", "duckdb"}
    assert spec.description
    assert spec.metadata["dagster/table_name"] == f"mixpanel.{table}"
    assert spec.metadata["dagster/column_schema"].columns
    other = {EVENTS: PROFILES, PROFILES: EVENTS}[key]
    assert spec.metadata["joins_by_distinct_id"].asset_key == other


def test_owners_are_those_of_the_setting(monkeypatch):
    """Every asset has the owners of MP_OWNERS, and no owner if it is not set."""
    assert owners() == {()}
    monkeypatch.setenv("MP_OWNERS", "ann@example.com, team:data")
    monkeypatch.setenv("MP_GROUPS", '{"companies": "1"}')
    assert owners() == {("ann@example.com", "team:data")}


def owners():
    return {tuple(spec.owners) for spec in build_definitions().resolve_all_asset_specs()}


def test_assets_of_the_location_that_stands_alone_link_to_their_code():
    """Each to a line of its own module."""
    from mixpanel_assets import definitions

    links = {
        spec.key.path[-1]: spec.metadata["dagster/code_references"].code_references
        for spec in definitions.defs.resolve_all_asset_specs()
    }
    assert links.keys() == {"events", "profiles", "coverage"}
    for table, [link] in links.items():
        assert link.file_path.endswith(f"defs/assets/{table}.py")
        assert link.line_number > 1


def test_a_window_becomes_included_days():
    """Dagster's open end is the day after Mixpanel's last day."""
    window = dg.TimeWindow(datetime(2024, 1, 3, tzinfo=UTC), datetime(2024, 1, 5, tzinfo=UTC))
    assert [day.day for day in days_of(window)] == [3, 4]


def test_legacy_projects_have_days_of_their_own_zone():
    """A project from before 2023 counts days in its zone."""
    settings = Settings(time_regime="legacy", time_zone="US/Pacific")
    definitions = build_definitions(settings=settings)
    assert definitions.resolve_assets_def(EVENTS).partitions_def.timezone == "US/Pacific"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MP_START_DATE", "yesterday"),
        ("MP_TIME_ZONE", "Mars/Olympus"),
        ("MP_MEMORY_LIMIT", "lots"),
        ("MP_DAYS_PER_REQUEST", "0"),
        ("MP_OWNERS", "ann"),
        ("MP_OWNERS", "team:data,,"),
    ],
)
def test_a_setting_that_cannot_be_understood_is_named(name, value, monkeypatch):
    """The message says which variable is wrong."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name):
        load_settings()


CLONE = {"dagster.yaml": "", "workspace.yaml": "python_module: mixpanel_assets.definitions"}
PROJECT = {"pyproject.toml": '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\n'}
WORKSPACE = {"dg.toml": 'directory_type = "workspace"\n[workspace]\n'}
IN_PROJECT, IN_CLONE, AT_HOME = "data/12345.duckdb", "data/warehouse.duckdb", "12345.db"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return where the database of a project is, seen from a folder; files are made first."""
    home = tmp_path / "home"

    def place(files=None, folder=".", project_id="12345"):
        root = tmp_path / "work"
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name, text in (files or {}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        monkeypatch.chdir(root / folder)
        monkeypatch.setenv("MP_PROJECT_ID", project_id)
        found = load_settings().database_path(project_id)
        # Dagster and `mp` find the same file.
        assert build_definitions().resources["mixpanel_warehouse"].database == str(found)
        base = root if found.is_relative_to(root) else home / ".mixpanel_data"
        return found.relative_to(base).as_posix()

    return place


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, AT_HOME),
        ({"pyproject.toml": "[tool.ruff]\n[project]\nname = 'dg'\n"}, AT_HOME),
        ({"dagster.yaml": "", "workspace.yaml": "python_module: somebody_elses"}, AT_HOME),
        ({"dg.toml": "[cli]\nverbose = true\n"}, AT_HOME),
        (CLONE, IN_CLONE),
        ({**CLONE, **PROJECT}, IN_CLONE),
        (PROJECT, IN_PROJECT),
        ({"pyproject.toml": "[tool.dagster]\nmodule_name = 'shop'\n"}, IN_PROJECT),
        ({"pyproject.toml": "[tool.ruff\n  [tool.dg.project]\n"}, IN_PROJECT),
        ({"dg.toml": 'directory_type = "project"\n'}, IN_PROJECT),
        (WORKSPACE, IN_PROJECT),
    ],
)
def test_a_new_database_is_in_the_dagster_project(files, expected, place):
    """Else in the home directory, whatever else the folder is."""
    assert place(files) == expected


@pytest.mark.parametrize("files", [PROJECT, {**CLONE, **PROJECT}])
def test_a_folder_of_a_project_has_the_projects_database(files, place):
    """So that `mp` finds it from anywhere in the project."""
    assert place(files, "src/shop/defs") == (IN_CLONE if "dagster.yaml" in files else IN_PROJECT)


def test_the_projects_of_a_workspace_share_its_folder(place):
    """`dg dev` starts them from there, and `mp` is called in one of them."""
    shop = {f"projects/shop/{name}": text for name, text in PROJECT.items()}
    assert place({**WORKSPACE, **shop}) == IN_PROJECT
    assert place({}, "projects/shop/src") == IN_PROJECT


@pytest.mark.parametrize("name", ["12345.db", "12345.snapshot.db"])
def test_a_database_in_the_home_directory_is_kept(name, place, tmp_path):
    """Also if its disk is away, or only its copy for readers is left, which a load reports."""
    folder = tmp_path / "home" / ".mixpanel_data"
    folder.mkdir()
    (folder / name).symlink_to(tmp_path / "disk" / "away.db")
    assert place(PROJECT) == AT_HOME
    assert place(project_id="999") == "data/999.duckdb"
    assert place({"data/12345.duckdb": ""}) == IN_PROJECT


def test_two_named_projects_have_a_file_each(place, monkeypatch):
    """Their number is its name, as for `mp`; without one, their name."""
    place(PROJECT)
    for name, account in {"shop": "1", "shop_eu": "2"}.items():
        resource = MixpanelResource(username="u", secret="s", project_id=account)
        resources = build_definitions(name=name, account=resource).resources
        assert resources[f"{name}_warehouse"].database.endswith(f"/work/data/{account}.duckdb")
    monkeypatch.delenv("MP_PROJECT_ID")
    database = build_definitions(name="shop").resources["shop_warehouse"].database
    assert database.endswith("/work/data/shop_warehouse.duckdb")


def test_a_database_that_is_set_is_used_everywhere(place, tmp_path, monkeypatch):
    """MP_DATABASE, whatever the folder is."""
    monkeypatch.setenv("MP_DATABASE", str(tmp_path / "work" / "x.duckdb"))
    for files in ({}, PROJECT, CLONE):
        assert place(files) == "x.duckdb"
