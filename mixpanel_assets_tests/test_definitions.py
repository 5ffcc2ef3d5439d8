"""The code location as Dagster sees it."""

from datetime import UTC, datetime

import dagster as dg
import pytest

from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.defs.partitions import days_of
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.settings import Settings, load_settings

EVENTS = dg.AssetKey(["mixpanel", "events"])
PROFILES = dg.AssetKey(["mixpanel", "profiles"])


def test_the_location_loads_without_any_setting():
    """No variable has to be set to look around."""
    definitions = build_definitions()
    dg.Definitions.validate_loadable(definitions)
    keys = {key for spec in definitions.resolve_all_asset_specs() for key in [spec.key]}
    assert keys == {EVENTS, PROFILES}


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
    """Every asset names who looks after it; nobody, unless somebody is set."""
    assert owners() == {()}
    monkeypatch.setenv("MP_OWNERS", "ann@example.com, team:data")
    monkeypatch.setenv("MP_GROUPS", '{"companies": "1"}')
    assert owners() == {("ann@example.com", "team:data")}


def owners():
    return {tuple(spec.owners) for spec in build_definitions().resolve_all_asset_specs()}


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


def test_the_database_is_where_one_rule_says(monkeypatch, tmp_path):
    """MP_DATABASE, else the project's folder, else the home directory."""
    assert Settings().database_path("1", tmp_path).parent.name == ".mixpanel_data"
    (tmp_path / "dagster.yaml").touch()
    (tmp_path / "workspace.yaml").write_text("python_module: somebody_elses")
    assert Settings().database_path("1", tmp_path).parent.name == ".mixpanel_data"
    (tmp_path / "workspace.yaml").write_text("python_module: mixpanel_assets.definitions")
    assert Settings().database_path("1", tmp_path) == tmp_path / "data" / "warehouse.duckdb"
    monkeypatch.setenv("MP_DATABASE", str(tmp_path / "x.duckdb"))
    assert Settings().database_path("1", tmp_path) == tmp_path / "x.duckdb"
