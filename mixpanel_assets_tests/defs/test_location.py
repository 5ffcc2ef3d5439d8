"""build_definitions in a host: several projects, their names, and what stays the host's."""

import warnings
from datetime import date
from pathlib import Path

import dagster as dg
import duckdb
import pandas as pd
import pytest
from dagster_shared.utils.warnings import BetaWarning

from mixpanel_assets import (
    AssetHooks,
    AssetKind,
    FilteredEvents,
    FilteredProfiles,
    LiveQuery,
    MixpanelResource,
    MixpanelTranslator,
    Names,
    Settings,
    build_definitions,
    events_asset,
    filtered_events_asset,
    filtered_profiles_asset,
    group_profiles_asset,
    live_query_asset,
    profiles_asset,
)
from mixpanel_assets.defs.ops import SegmentationConfig
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.errors import ConfigError

DAY = "2024-01-02"
START = date(2024, 1, 1)
JOBS = {
    *("close_yesterday", "snapshot_profiles", "deep_sweep", "backfill_history", "verify_range"),
    *("keep_snapshots", "stream_events", "stream_profiles", "check_events"),
    "reconcile_events",
}


@pytest.fixture(scope="module")
def europe():
    """Another project, in another region and with other events."""
    shop = EmulatorSettings(start=START, days=7, seed=8, project_id=777, region="eu")
    with Emulator(shop) as emulator:
        yield emulator


def given_settings(path: Path, emulator: Emulator, **changes) -> Settings:
    return Settings.given(
        database=path, api_base_url=emulator.base_url, state_dir=":memory:", op_retries=0, **changes
    )


def account(emulator: Emulator) -> MixpanelResource:
    return MixpanelResource(
        username=emulator.username,
        secret=emulator.secret,
        project_id=str(emulator.project_id),
        region=emulator.settings.region,
    )


@dg.op
def theirs() -> None:
    """An op of the host."""


@dg.job
def close_yesterday() -> None:
    """A job of the host that has the name of one of ours."""
    theirs()


def job_names(definitions: dg.Definitions) -> set[str]:
    return {job.name for job in definitions.resolve_all_job_defs()} - {"__ASSET_JOB"}


def test_a_host_keeps_its_executor_its_storage_and_its_job_names():
    """Jobs of the project run in one process; nothing else changes."""
    host = dg.Definitions(
        jobs=[close_yesterday],
        executor=dg.multi_or_in_process_executor,
        resources={"warehouse": "theirs"},
    )
    merged = dg.Definitions.merge(host, build_definitions(name="shop"))
    dg.Definitions.validate_loadable(merged)
    assert merged.resources["warehouse"] == "theirs"
    executors = {
        job.name: job.executor_def.name
        for job in merged.resolve_all_job_defs()
        if job.name != "__ASSET_JOB"
    }
    assert executors.pop("close_yesterday") == "multi_or_in_process_executor"
    assert set(executors.values()) == {"in_process"}
    assert all(name.startswith("shop_") for name in executors)
    assert {f"shop_{name}" for name in JOBS} <= executors.keys()


def test_without_a_name_nothing_has_a_prefix():
    """The only project of a location; its storage is not called as a host's may be."""
    definitions = build_definitions(settings=Settings(automation=True))
    assert job_names(definitions) >= JOBS
    assert set(definitions.resources) == {"mixpanel", "mixpanel_warehouse"}
    assert {schedule.name for schedule in definitions.schedules} < JOBS
    assert [sensor.name for sensor in definitions.sensors] == [
        "keep_current",
        "late_events",
    ]
    assert definitions.executor is None


def test_the_location_that_stands_alone_keeps_its_key_and_its_executor():
    """The assets of those who work in it name `warehouse`."""
    from mixpanel_assets.definitions import defs

    assert set(defs.resources) == {"mixpanel", "warehouse"}
    assert defs.executor is dg.in_process_executor
    assert job_names(defs) >= JOBS


def test_everything_of_a_named_project_has_its_name():
    """Jobs, schedules, sensors, ops, assets, groups and resources."""
    settings = Settings(automation=True, groups={"companies": "1"}, owners=("team:a",))
    definitions = build_definitions(
        name="shop",
        settings=settings,
        owners=["team:data"],
        tags={"domain": "web"},
        tables=[FilteredEvents(name="orders", events=["Order Completed"])],
    )
    names = [job.name for job in definitions.resolve_all_job_defs()]
    names += [schedule.name for schedule in definitions.schedules]
    names += [sensor.name for sensor in definitions.sensors]
    names += [
        node.name
        for job in definitions.resolve_all_job_defs()
        for node in job.graph.iterate_node_defs()
        if node.name != job.name
    ]
    names += definitions.resources
    assert {name for name in names if not name.startswith("shop_")} == {"__ASSET_JOB"}
    specs = definitions.resolve_all_asset_specs()
    assert {tuple(spec.key.path) for spec in specs} == {
        ("shop", table) for table in ("events", "profiles", "companies", "orders", "coverage")
    }
    assert {spec.group_name for spec in specs} == {"shop"}
    assert {tuple(spec.owners) for spec in specs} == {("team:data",)}
    assert {spec.tags["domain"] for spec in specs} == {"web"}
    assert all(spec.metadata["schema"] == "mixpanel" for spec in specs)


@pytest.mark.parametrize("name", ["", "my shop", "1", "shop-eu", "shop/eu"])
def test_a_name_that_dagster_would_refuse_is_named(name):
    """The error is raised before any definition is built."""
    with pytest.raises(ConfigError, match="prefix"):
        build_definitions(name=name)


def test_key_prefix_and_group_can_be_chosen():
    """Apart from the name of the jobs."""
    definitions = build_definitions(name="shop", key_prefix=["raw", "web"], group_name="ingestion")
    specs = definitions.resolve_all_asset_specs()
    assert {tuple(spec.key.path[:-1]) for spec in specs} == {("raw", "web")}
    assert {spec.group_name for spec in specs} == {"ingestion"}


def test_jobs_and_schedules_can_be_left_out():
    """All of them, or all but some; a wrong name is refused with those that there are."""
    quiet = build_definitions(name="shop", jobs=False)
    assert not job_names(quiet)
    assert not quiet.schedules
    some = build_definitions(name="shop", jobs=["deep_sweep", "verify_range"])
    assert job_names(some) == {"shop_deep_sweep", "shop_verify_range"}
    assert [schedule.name for schedule in some.schedules] == ["shop_deep_sweep"]
    none = build_definitions(name="shop", schedules=False)
    assert not none.schedules
    assert len(job_names(none)) == 11
    with pytest.raises(ConfigError, match=r"no job shop_close;.* shop_close_yesterday"):
        build_definitions(name="shop", jobs=["close"])
    with pytest.raises(ConfigError, match="no schedule shop_deep_sweep"):
        build_definitions(name="shop", jobs=["close_yesterday"], schedules=["deep_sweep"])


def tables_of(definitions):
    return {spec.key.path[-1] for spec in definitions.resolve_all_asset_specs()}


def test_a_project_may_have_one_kind_of_rows_alone():
    """Tables and jobs of the other kind are left out."""
    people = build_definitions(events=False)
    assert tables_of(people) == {"profiles", "coverage"}
    assert not job_names(people) & {"close_yesterday", "check_events"}
    events = build_definitions(profiles=False, coverage=False)
    assert tables_of(events) == {"events"}
    assert not job_names(events) & {"snapshot_profiles", "keep_snapshots"}
    assert not tables_of(build_definitions(events=False, profiles=False))
    for definitions in (people, events):
        dg.Definitions.validate_loadable(definitions)


def test_two_projects_load_side_by_side(emulator, europe, tmp_path, instance, monkeypatch):
    """Each into its own file; an asset of the host reads the slice of one of them.

    Nothing of it follows the MP_* variables of the process.
    """
    for name in ("MP_START_DATE", "MP_TIME_ZONE", "MP_MEMORY_LIMIT", "MP_STATE_DIR", "MP_REGION"):
        monkeypatch.setenv(name, "wrong")
    monkeypatch.setenv("MP_DATABASE", str(tmp_path / "theirs.duckdb"))
    projects = {"shop": emulator, "shop_eu": europe}
    settings = {
        name: given_settings(tmp_path / f"{name}.duckdb", project)
        for name, project in projects.items()
    }

    @dg.asset(
        ins={"events": dg.AssetIn(["shop_eu", "events"])},
        partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_offset=1),
        required_resource_keys={"shop_eu_mixpanel"},
    )
    def counted(context: dg.AssetExecutionContext, events: pd.DataFrame) -> int:
        with context.resources.shop_eu_mixpanel.workspace() as workspace:
            [(stored,)] = workspace.sql_rows("SELECT count(*) FROM events")
        assert stored == len(events)
        return len(events)

    merged = dg.Definitions.merge(
        dg.Definitions(assets=[counted]),
        *(
            build_definitions(name=name, account=account(project), settings=settings[name])
            for name, project in projects.items()
        ),
    )
    result = merged.resolve_implicit_global_asset_job_def().execute_in_process(
        asset_selection=[dg.AssetKey([name, "events"]) for name in projects] + [counted.key],
        partition_key=DAY,
        instance=instance,
    )
    for name, project in projects.items():
        with duckdb.connect(str(settings[name].database), read_only=True) as connection:
            [(rows,)] = connection.execute("SELECT count(*) FROM mixpanel.events").fetchall()
            whose = connection.execute("SELECT project_id, region FROM mixpanel._project")
            assert whose.fetchall() == [(str(project.project_id), project.settings.region)]
        unstorable = len(project.truth.unstorable(date.fromisoformat(DAY)))
        assert rows == project.truth.count(date.fromisoformat(DAY)) - unstorable
    assert result.output_for_node("counted") == rows
    assert not (tmp_path / "theirs.duckdb").exists()


def test_every_op_follows_the_settings_that_were_given(emulator, tmp_path, instance, monkeypatch):
    """Not the MP_* variables of the process, which may be those of another project."""
    settings = given_settings(tmp_path / "shop.duckdb", emulator, start_date="2024-01-06")
    definitions = build_definitions(name="shop", account=account(emulator), settings=settings)
    for name in ("MP_START_DATE", "MP_TIME_ZONE", "MP_MEMORY_LIMIT"):
        monkeypatch.setenv(name, "wrong")
    days = {"from_date": "2024-01-06", "to_date": "2024-01-07"}
    configured = {
        "backfill_history": {"only_plan": True},
        "stream_events": days,
        "keep_snapshots": {},
        "ask_report": {"event_counts": {**days, "events": ["Sign Up"]}},
    }
    for name, config in configured.items():
        job = definitions.resolve_job_def(f"shop_{name}")
        [op] = job.graph.node_dict
        result = job.execute_in_process(
            instance=instance, run_config={"ops": {op: {"config": config}}}
        )
        assert result.success, name
    today = settings.today().isoformat()
    profiles = definitions.resolve_implicit_global_asset_job_def()
    assert profiles.execute_in_process(
        asset_selection=[dg.AssetKey(["shop", "profiles"])], partition_key=today, instance=instance
    ).success
    assert (tmp_path / "files" / "events").is_dir()


class Raw(MixpanelTranslator):
    """Other keys and groups; a fresh spec for profiles."""

    def get_asset_spec(self, kind: AssetKind) -> dg.AssetSpec:
        if kind.rows == "profile":
            return dg.AssetSpec(["raw", "people"], tags={"fresh": "yes"})
        spec = super().get_asset_spec(kind)
        key = dg.AssetKey(["raw", f"mixpanel_{kind.table}"])
        return spec.replace_attributes(key=key, group_name="raw")


@pytest.mark.slow
def test_a_translator_decides_how_assets_appear(emulator, tmp_path, instance):
    """Keys, groups and tags are its own; tables, partitions and jobs are as ever."""
    settings = given_settings(tmp_path / "shop.duckdb", emulator)
    definitions = build_definitions(
        account=account(emulator), settings=settings, translator=Raw(), warehouse_key="warehouse"
    )
    events, profiles = dg.AssetKey(["raw", "mixpanel_events"]), dg.AssetKey(["raw", "people"])
    specs = {spec.key: spec for spec in definitions.resolve_all_asset_specs()}
    assert specs.keys() == {events, profiles, dg.AssetKey(["raw", "mixpanel_coverage"])}
    assert specs[events].group_name == "raw"
    assert specs[profiles].tags["fresh"] == "yes"
    assert specs[profiles].partitions_def == specs[events].partitions_def
    assert specs[events].metadata["joins_by_distinct_id"].asset_key == profiles
    job = definitions.resolve_job_def("close_yesterday")
    assert job.asset_layer.executable_asset_keys == {events}

    @dg.asset(
        ins={"rows": dg.AssetIn(events), "people": dg.AssetIn(profiles)},
        partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_offset=1),
        key=["raw", "counts"],
        io_manager_key="warehouse",
        metadata={"partition_expr": "event_date"},
    )
    def counts(rows: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
        assert len(people) > 0
        return rows.groupby("event_date").size().reset_index(name="events")

    merged = dg.Definitions.merge(definitions, dg.Definitions(assets=[counts]))
    assert (
        merged.resolve_implicit_global_asset_job_def()
        .execute_in_process(
            asset_selection=[events, profiles, counts.key], partition_key=DAY, instance=instance
        )
        .success
    )
    with duckdb.connect(str(settings.database), read_only=True) as connection:
        tables = connection.execute(
            "SELECT schema_name || '.' || table_name FROM duckdb_tables() "
            "WHERE table_name IN ('events', 'mixpanel_events', 'people', 'counts') ORDER BY 1"
        )
        assert tables.fetchall() == [("mixpanel.events",), ("raw.counts",)]


def test_a_function_is_a_translator_and_a_wrong_result_is_refused():
    """The sentence says what must be returned."""
    definitions = build_definitions(
        translator=lambda kind: kind.spec.replace_attributes(group_name=f"g_{kind.rows}")
    )
    groups = {spec.group_name for spec in definitions.resolve_all_asset_specs()}
    assert groups == {"g_event", "g_profile", "g_day"}
    with pytest.raises(ConfigError, match=r"must return a dagster\.AssetSpec"):
        build_definitions(translator=lambda kind: None)


def test_metadata_can_be_left_out_but_not_what_says_that_a_day_is_complete(
    emulator, tmp_path, instance
):
    """Of the table and of each day."""
    settings = given_settings(tmp_path / "shop.duckdb", emulator, start_date="2024-01-13")
    definitions = build_definitions(
        name="shop",
        account=account(emulator),
        settings=settings,
        include_metadata=["row_count"],
        op_tags={"team": "data"},
    )
    key = dg.AssetKey(["shop", "events"])
    events = definitions.resolve_assets_def(key)
    assert "dagster/column_schema" not in events.get_asset_spec(key).metadata
    assert events.op.tags["team"] == "data"
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        asset_selection=[key], partition_key="2024-01-13", instance=instance
    )
    [stored] = result.asset_materializations_for_node("shop__events")
    shown = {name for name in stored.metadata if not name.startswith("dagster")}
    assert shown == {"status", "rows", "repeats_removed", "quarantined"}


def test_two_projects_without_a_database_get_a_file_each():
    """Next to where the default one is."""
    places = {
        Path(build_definitions(name=name).resources[f"{name}_warehouse"].database)
        for name in ("shop", "shop_eu")
    }
    assert {place.name for place in places} == {
        "shop_warehouse.duckdb",
        "shop_eu_warehouse.duckdb",
    }


def test_resources_of_the_usual_names_are_used_under_them():
    """A code location that already names them stays as it is."""
    definitions = build_definitions(name="shop", resources={"mixpanel": account_of_nobody()})
    assert set(definitions.resources) == {"mixpanel", "shop_warehouse"}
    dg.Definitions.validate_loadable(definitions)


def test_an_account_is_named_by_its_name():
    """As in `MixpanelResource(account=...)`."""
    definitions = build_definitions(name="shop", account="shop")
    assert definitions.resources["shop_mixpanel"].account == "shop"


def test_a_project_is_named_once():
    """By `account` or by a resource; two would be two projects."""
    with pytest.raises(ConfigError, match="not by both"):
        build_definitions(account="shop", resources={"mixpanel": account_of_nobody()})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"groups": {"companies": "first"}}, "groups: .*must be an integer"),
        ({"groups": {"my companies": 1}}, "groups: .*not a name for a table"),
        ({"owners": ["ann"]}, "owners: .*neither an e-mail address"),
    ],
)
def test_arguments_are_checked_as_the_settings_are(arguments, said):
    """The same sentence as for MP_GROUPS and MP_OWNERS."""
    with pytest.raises(ConfigError, match=said):
        build_definitions(**arguments)
    assert build_definitions(groups={"companies": -1}, owners=["team:a"]).assets


def test_without_jobs_there_is_no_schedule_of_queries_either():
    """Which would bring a job of its own."""
    query = LiveQuery(name="x", report="event_counts", parameters={"events": ["a"]})
    assert not build_definitions(queries=[query], jobs=False).schedules
    [schedule] = build_definitions(queries=[query], jobs=[]).schedules
    assert schedule.name == "ask_yesterday"


def account_of_nobody() -> MixpanelResource:
    return MixpanelResource(username="u", secret=dg.EnvVar("X"), project_id="7")


@pytest.mark.parametrize(
    "make",
    [
        lambda settings, names: events_asset(settings, names=names),
        lambda settings, names: profiles_asset(settings, names=names),
        lambda settings, names: filtered_events_asset(
            "orders", events=["a"], settings=settings, names=names
        ),
        lambda settings, names: filtered_profiles_asset(
            "payers", where="true", settings=settings, names=names
        ),
        lambda settings, names: group_profiles_asset(
            "companies", "1", settings=settings, names=names
        ),
        lambda settings, names: live_query_asset(
            "signups", query=SegmentationConfig(event="a"), settings=settings, names=names
        ),
        lambda settings, names: FilteredProfiles(name="x", where="true").asset(
            settings, names=names, hooks=AssetHooks()
        ),
    ],
)
def test_factories_are_quiet_and_use_the_names_that_they_are_given(make):
    """No warning of Dagster that a user cannot act on; keys and resources of the project."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", BetaWarning)
        asset = make(Settings.given(), Names.of("shop"))
    assert asset.key.path[0] in ("shop", "shop_queries")
    keys = asset.required_resource_keys - {"io_manager"}  # of values that pass between ops
    assert keys == {"shop_mixpanel", "shop_warehouse"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"account": 5}, "account must be of type str or MixpanelResource, not int"),
        ({"settings": {"database": "x"}}, "settings must be of type Settings, not dict"),
        ({"tables": ["orders"]}, "tables must be of type FilteredEvents or FilteredProfiles"),
        ({"queries": ["sign_ups"]}, "queries must be of type LiveQuery, not str"),
        ({"check_thresholds": {"volume_low": 1}}, "check_thresholds must be of type"),
        ({"include_metadata": ["row_counts"]}, "no metadata 'row_counts'"),
        ({"include_metadata": "rows"}, "no metadata 'rows'"),
        ({"resources": {"mixpanel": "shop"}}, "mixpanel must be of type MixpanelResource"),
    ],
)
def test_an_argument_of_another_kind_is_named(arguments, said):
    """The error is raised when the definitions are made, not by a run."""
    with pytest.raises(ConfigError, match=said):
        build_definitions(**{"name": "shop", "settings": Settings.given(), **arguments})
