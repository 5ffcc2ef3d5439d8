"""MixpanelComponent in a `dg` project: what it writes, what it loads, and what it runs."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
import yaml
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

from mixpanel_assets import AssetKind, MixpanelComponent, MixpanelCredentials
from mixpanel_assets.auth import ConfigManager
from mixpanel_assets.defs.fields import text as text_field
from mixpanel_assets.emulator import shared

# Dagster reads YAML by a function that pydantic has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated")

TYPE = "mixpanel_assets.MixpanelComponent"
DAY = "2024-01-02"
CREDENTIALS = {
    "project_id": "{{ env.SHOP_PROJECT_ID }}",
    "username": "{{ env.SHOP_USERNAME }}",
    "secret": "{{ env.SHOP_SECRET }}",
}
EVERY_FIELD: dict[str, Any] = {
    "credentials": CREDENTIALS,
    "region": "eu",
    "name": "web",
    "start_date": "2024-03-01",
    "time_regime": "legacy",
    "time_zone": "Europe/Berlin",
    "database": "files/web.duckdb",
    "events": True,
    "event_tables": [{"name": "orders", "events": ["Order Completed", "404"], "where": "true"}],
    "profiles": True,
    "coverage": False,
    "profile_tables": [{"name": "payers", "cohort_id": "1234567"}],
    "groups": {"companies": -1405123841946871899},
    "live_queries": [
        {"name": "sign_ups", "report": "event_counts", "parameters": {"events": ["Sign Up"]}}
    ],
    "jobs": ["close_yesterday", "snapshot_profiles"],
    "schedules": ["close_yesterday", "ask_yesterday"],
    "automation": True,
    "checks": ["rows_vanished"],
    "check_thresholds": {"volume_low": 0.8},
    "op": {
        "pool": "mixpanel",
        "tags": {"team": "data"},
        "backfill_policy": {"type": "multi_run", "max_partitions_per_run": 5},
    },
    "translation": {"tags": {"rows": "{{ rows }}"}, "group_name": "raw_{{ table }}"},
    "include_metadata": ["row_count"],
    "settings": {"memory_limit": "2GB", "close_hour": 7},
}
# These exclude others.
OTHER_FIELDS = {"account", "demo"}


@pytest.fixture
def sandbox() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as found:
        yield found


def written(sandbox: DefsFolderSandbox, name: str = "shop", **attributes: Any) -> Path:
    """Return the folder of a component with a `defs.yaml`."""
    folder = sandbox.defs_folder_path / name
    folder.mkdir()
    document = {"type": TYPE, "attributes": attributes}
    (folder / "defs.yaml").write_text(yaml.safe_dump(document))
    return folder


def keys_of(definitions: dg.Definitions) -> set[str]:
    return {spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs()}


def test_every_field_has_a_description_and_an_example():
    """Of the component and of what is inside; the editor and `dg docs` show nothing else."""
    schema = MixpanelComponent.get_model_cls().model_json_schema()
    ours = {
        name: model
        for name, model in schema["$defs"].items()
        if name.startswith(("Mixpanel", "Filtered", "Live"))
    }
    assert len(ours) == 4
    for name, model in {"": schema, **ours}.items():
        for field, described in model["properties"].items():
            if (name, field) != ("", "translation"):  # Dagster's own
                assert described["description"].endswith("."), (name, field)
                assert described["examples"], (name, field)
    assert schema["properties"].keys() == EVERY_FIELD.keys() | OTHER_FIELDS


def test_the_type_describes_itself():
    """`dg list components` and the UI show these."""
    assert MixpanelComponent.get_spec().tags == ["ingestion", "mixpanel", "duckdb"]
    assert MixpanelComponent.get_form_config().editable
    assert MixpanelComponent.__doc__.splitlines()[0].endswith(".")


@pytest.mark.parametrize("kind", ["yaml", "python"])
@pytest.mark.parametrize(
    ("params", "variables"),
    [
        ({}, ["MP_SHOP_PROJECT_ID", "MP_SHOP_USERNAME", "MP_SHOP_SECRET"]),
        ({"project_id": "5", "start_date": "2025-01-01"}, ["MP_SHOP_USERNAME", "MP_SHOP_SECRET"]),
        ({"demo": True, "region": "eu"}, []),
    ],
)
def test_what_the_scaffolder_writes_loads(sandbox, kind, params, variables):
    """Without a variable set, in both formats; the YAML names the variables that runs need."""
    folder = sandbox.scaffold_component(
        component_cls=MixpanelComponent,
        defs_path="shop",
        scaffold_format=kind,
        scaffold_params=params,
    )
    with sandbox.load_component_and_build_defs(folder) as (_, definitions):
        assert keys_of(definitions) == {"shop/events", "shop/profiles", "shop/coverage"}
        resource = definitions.resources["shop_mixpanel"]
    assert resource.region == params.get("region", "us")
    shown = [resource.project_id, resource.username, resource.secret]
    assert [one.env_var_name for one in shown if isinstance(one, dg.EnvVar)] == variables
    if kind == "yaml":
        document = yaml.safe_load((folder / "defs.yaml").read_text())
        assert document.get("requirements", {}).get("env", []) == variables


def test_every_field_has_its_effect(sandbox):
    """Read from YAML, where text stays text."""
    folder = written(sandbox, **EVERY_FIELD)
    with sandbox.load_component_and_build_defs(folder) as (component, definitions):
        specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
        tables = ("events", "orders", "profiles", "payers", "companies")
        assert specs.keys() == {*(f"web/{table}" for table in tables), "web_queries/sign_ups"}
        assert specs["web/orders"].tags["rows"] == "event"
        assert specs["web_queries/sign_ups"].tags["rows"] == "report"
        assert specs["web/payers"].group_name == "raw_payers"
        assert "dagster/column_schema" not in specs["web/events"].metadata
        assert "`404`" in specs["web/orders"].description
        events = definitions.resolve_assets_def(dg.AssetKey(["web", "events"]))
        assert events.partitions_def.start.date() == date(2024, 3, 1)
        assert events.partitions_def.timezone == "Europe/Berlin"
        assert events.backfill_policy.max_partitions_per_run == 5
        assert (events.op.pool, events.op.tags["team"]) == ("mixpanel", "data")
        assert events.get_asset_spec(events.key).automation_condition
        assert [schedule.name for schedule in definitions.schedules] == [
            "web_close_yesterday",
            "web_ask_yesterday",
        ]
        assert {job.name for job in definitions.jobs} == {
            "web_close_yesterday",
            "web_snapshot_profiles",
        }
        assert {check.name for check in definitions.resolve_asset_graph().asset_check_keys} == {
            "rows_vanished",
            *(f"{name}_complete" for name in ("profiles", "payers", "companies")),
        }
        warehouse = definitions.resources["web_warehouse"]
        assert warehouse.database == str(sandbox.project_root / "files" / "web.duckdb")
        assert (warehouse.memory_limit, warehouse.region) == ("2GB", "eu")
        assert component.check_thresholds == {"volume_low": 0.8}
        assert component.groups == {"companies": "-1405123841946871899"}


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"account": "shop", "demo": True}, "one of account, credentials and demo"),
        ({"settings": {"start_date": "2024-01-01"}}, "a field of the component"),
        ({"settings": {"memory": "1GB"}}, "memory: Extra inputs"),
        ({"check_thresholds": {"volume_high": 0}}, "volume_high: Input should be greater"),
        ({"time_zone": "Mars"}, "IANA zone"),
        ({"op": {"name": "x"}}, "holds for several assets"),
        ({"jobs": ["closing"]}, "no job shop_closing"),
        ({"checks": ["all"]}, "no check 'all'"),
        ({"check_thresholds": {"volume_low": 8}}, "volume_low: Input should be less than"),
        (
            {"live_queries": [{"name": "x", "report": "segmentation", "parameters": {}}]},
            "live query 'x' of segmentation cannot be used. event:",
        ),
        ({"start_date": "01/02/2026"}, "start_date: it must be a day such as 2025-01-31"),
        ({"start_date": 20260102}, "start_date: it must be a day such as 2025-01-31"),
        ({"groups": {"Companies": "1", "companies": "2"}}, "have the same name in DuckDB"),
        (
            {
                "groups": {"companies": "1"},
                "event_tables": [{"name": "companies", "events": ["Sign Up"]}],
                "translation": {"key": "{{ rows }}/{{ table }}"},
            },
            "have the same name in DuckDB",
        ),
        (
            {
                "live_queries": [
                    {"name": name, "report": "event_counts", "parameters": {"events": ["Sign Up"]}}
                    for name in ("sign_ups", "Sign_Ups")
                ]
            },
            "have the same name in DuckDB",
        ),
        ({"groups": {"Profiles": "1"}}, "taken by a table of this package"),
        ({"profiles": False, "groups": {"profiles": "1"}}, "taken by a table of this package"),
        ({"events": False, "groups": {"events": "1"}}, "taken by a table of this package"),
        (
            {"profiles": False, "profile_tables": [{"name": "profiles", "where": "true"}]},
            "taken by a table of this package",
        ),
        ({"profile_tables": [{"name": "my people", "where": "true"}]}, "not a name for a table"),
    ],
)
def test_a_wrong_field_is_named(sandbox, attributes, said):
    """With what to write instead; `dg check defs` shows the sentence."""
    folder = written(sandbox, **attributes)
    with (
        pytest.raises(Exception) as caught,  # noqa: PT011 - Dagster wraps it
        sandbox.load_component_and_build_defs(folder),
    ):
        pass
    reasons, error = [], caught.value
    while error:
        reasons.append(str(error))
        error = error.__cause__ or error.__context__
    assert any(said in reason for reason in reasons), reasons


@pytest.mark.parametrize("folder_name", ["2024-shop", "größe"])
def test_a_folder_whose_name_cannot_be_a_prefix_needs_a_name(sandbox, folder_name):
    """The error names the field that stands for the folder's name."""
    folder = written(sandbox, folder_name, demo=True)
    with (
        pytest.raises(Exception, match="Error") as caught,
        sandbox.load_component_and_build_defs(folder),
    ):
        pass
    assert "set the field `name`, such as `name: shop`" in str(caught.value.__cause__)


def test_a_database_may_be_in_the_home_folder(sandbox, monkeypatch):
    """A `~` in `database` is expanded, as in MP_DATABASE."""
    monkeypatch.setenv("HOME", "/home/ann")
    folder = written(sandbox, demo=True, database="~/shop.duckdb")
    with sandbox.load_component_and_build_defs(folder) as (_, definitions):
        assert definitions.resources["shop_warehouse"].database == "/home/ann/shop.duckdb"


def test_loading_reads_no_file_and_no_setting(sandbox, monkeypatch):
    """Neither the config file of a saved account nor the MP_* variables."""
    for name in ("MP_START_DATE", "MP_TIME_ZONE", "MP_GROUPS", "MP_REGION"):
        monkeypatch.setenv(name, "wrong")
    place = sandbox.project_root / "config.toml"
    place.write_text("not toml")
    monkeypatch.setenv("MP_CONFIG_PATH", str(place))
    folder = written(sandbox, account="shop", automation=True)
    opened: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("sqlite3.connect", "socket.connect") or (
            event == "open" and str(arguments[0]) == str(place)
        ):
            opened.append(event)

    with sandbox.build_component_tree() as tree:
        component = tree.load_component(folder)
        sys.addaudithook(watch)
        definitions = component.build_defs(tree.load_context.for_component_loc(_loc(tree, folder)))
        dg.Definitions.validate_loadable(definitions)
    assert opened == []
    assert not (sandbox.project_root / "data").exists()


def _loc(tree: Any, folder: Path) -> Any:
    from dagster.components.core.defs_module import ComponentPath

    return ComponentPath.from_resolvable(tree.load_context.defs_module_path, folder)


def test_the_component_in_documents_loads(sandbox):
    """The YAML of docs/component.md loads as it is written."""
    page = (Path(__file__).parents[2] / "docs" / "component.md").read_text()
    [text] = [block for block in page.split("```yaml\n") if block.startswith("type:")]
    folder = sandbox.defs_folder_path / "shop"
    folder.mkdir()
    (folder / "defs.yaml").write_text(text.split("```")[0])
    with sandbox.load_component_and_build_defs(folder) as (_, definitions):
        assert keys_of(definitions) == {
            f"raw/mixpanel_{table}"
            for table in ("events", "profiles", "orders", "companies", "coverage")
        }
        assert len(definitions.jobs) == 4


def test_a_saved_account_is_read_by_runs(sandbox, emulator, instance):
    """Its project is then the one that the file holds, and that checks look for."""
    folder = written(
        sandbox,
        account="shop",
        settings={"api_base_url": emulator.base_url, "state_dir": ":memory:"},
    )
    with sandbox.load_component_and_build_defs(folder) as (_, definitions):
        project = (str(emulator.project_id), "us")
        ConfigManager().add_account("shop", emulator.username, emulator.secret, *project)
        key = dg.AssetKey(["shop", "events"])
        job = definitions.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(asset_selection=[key], partition_key=DAY, instance=instance)
        assert result.success
        seen: list[tuple[str, str]] = []

        @dg.op(required_resource_keys={"shop_mixpanel"})
        def look(context: dg.OpExecutionContext) -> None:
            seen.append(context.resources.shop_mixpanel.known_project)

        @dg.job(resource_defs=definitions.resources)
        def looking() -> None:
            look()

        assert looking.execute_in_process(instance=instance).success
    assert seen == [project]
    database = sandbox.project_root / "data" / "shop_warehouse.duckdb"
    with duckdb.connect(str(database), read_only=True) as connection:
        whose = connection.execute("SELECT project_id, region FROM mixpanel._project")
        assert whose.fetchall() == [project]


def test_two_components_share_a_location(sandbox):
    """Each with its own names, file and project."""
    written(sandbox, "shop", demo=True)
    written(sandbox, "shop-eu", demo=True, region="eu")
    with sandbox.build_all_defs() as definitions:
        dg.Definitions.validate_loadable(definitions)
        assert keys_of(definitions) == {
            f"{name}/{table}"
            for name in ("shop", "shop_eu")
            for table in ("events", "profiles", "coverage")
        }
        files = {
            Path(one.database).name
            for name, one in definitions.resources.items()
            if name.endswith("_warehouse")
        }
    assert files == {"shop_demo.duckdb", "shop_eu_demo.duckdb"}


def test_post_processing_changes_the_assets(sandbox):
    """Post-processing works as for every Dagster component."""
    folder = written(sandbox, demo=True)
    place = folder / "defs.yaml"
    document = yaml.safe_load(place.read_text())
    change = {"target": "key:shop/events", "attributes": {"tags": {"tier": "1"}}}
    place.write_text(yaml.safe_dump({**document, "post_processing": {"assets": [change]}}))
    with sandbox.build_all_defs() as definitions:
        specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    assert specs["shop/events"].tags["tier"] == "1"
    assert "tier" not in specs["shop/profiles"].tags


EXECUTED: list[dg.AssetKey] = []


class Loud(MixpanelComponent):
    """A component of a host: other keys and groups, and a note of each load."""

    def get_asset_spec(self, kind: AssetKind) -> dg.AssetSpec:
        spec = super().get_asset_spec(kind)
        return spec.replace_attributes(group_name="loud", key=["raw", *spec.key.path])

    def execute(self, context, results):
        EXECUTED.append(context.asset_key)
        yield from super().execute(context, results)


def test_a_subclass_decides_on_specs_and_steps(emulator, tmp_path, instance, monkeypatch):
    """`get_asset_spec` and `execute` are called for each asset."""
    monkeypatch.setenv("SHOP_SECRET", emulator.secret)
    component = Loud(
        name="shop",
        credentials=MixpanelCredentials(
            project_id=str(emulator.project_id),
            username=emulator.username,
            secret=dg.EnvVar("SHOP_SECRET"),
        ),
        database=str(tmp_path / "shop.duckdb"),
        settings={"api_base_url": emulator.base_url, "state_dir": ":memory:"},
    )
    definitions = component.build_defs(dg.ComponentTree.for_test().load_context)
    key = dg.AssetKey(["raw", "shop", "events"])
    assert (
        definitions.resolve_implicit_global_asset_job_def()
        .execute_in_process(asset_selection=[key], partition_key=DAY, instance=instance)
        .success
    )
    assert [key] == EXECUTED
    with duckdb.connect(str(tmp_path / "shop.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM mixpanel.events").fetchall()[0][0] > 0


@pytest.mark.slow  # the emulator ends half a minute later
def test_demo_runs_share_one_emulator(sandbox, tmp_path, monkeypatch):
    """The first run starts it; the projects of two regions have different data."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        written(sandbox, "shop", demo=True)
        written(sandbox, "shop_eu", demo=True, region="eu")
        serving = threading.Thread(target=shared.serve, args=(tmp_path / "mixpanel_demo",))
        (tmp_path / "mixpanel_demo").mkdir()
        serving.start()
        place = tmp_path / "mixpanel_demo" / "emulator.json"
        while not place.exists():
            time.sleep(0.01)
        addresses = json.loads(place.read_text())
        with sandbox.build_all_defs() as definitions:
            keys = [dg.AssetKey([name, "events"]) for name in ("shop", "shop_eu")]
            job = definitions.resolve_implicit_global_asset_job_def()
            assert job.execute_in_process(
                asset_selection=keys, partition_key=DAY, instance=instance
            ).success
        assert json.loads(place.read_text()) == addresses
        place.unlink()
        serving.join()
    first = {}
    for name in ("shop", "shop_eu"):
        database = sandbox.project_root / "data" / f"{name}_demo.duckdb"
        with duckdb.connect(str(database), read_only=True) as connection:
            rows = connection.execute("SELECT distinct_id FROM mixpanel.events ORDER BY ALL")
            first[name] = rows.fetchall()
    assert first["shop"] != first["shop_eu"]


def test_numbers_written_as_text_stay_text():
    """The reason for the fields' own reading of YAML."""
    context = dg.ResolutionContext.default()
    read = text_field("An id.").fn.callable
    assert read(context, "0123") == "0123"
    assert read(context, 123) == "123"
    assert read(context, "{{ 1 + 1 }}") == "2"
    assert read(context, None) is None
