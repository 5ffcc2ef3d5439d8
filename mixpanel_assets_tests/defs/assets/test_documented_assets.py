"""The assets in `docs/dagster.md` do what the page says, in real runs."""

import re
import sys
from pathlib import Path
from types import ModuleType

import dagster as dg
import pandas as pd
import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets_tests.defs.assets.conftest import EVENTS, PROFILES

PAGE = Path(__file__).parents[3] / "docs" / "dagster.md"


@pytest.fixture
def example(monkeypatch):
    """Run the one example that holds a text and return what it defines."""

    def run(text):
        blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        [code] = [block for block in blocks if text in block]
        module = ModuleType("documented_assets")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(code, str(PAGE), "exec"), vars(module))
        return module

    return run


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("FilteredEvents(", ("companies", "orders", "pros")),
        ("filtered_events_asset(", ("orders", "pros")),
    ],
)
def test_filtered_assets_stand_beside_the_others(example, text, others):
    """The few lines of each example are a code location."""
    definitions = example(text).defs
    dg.Definitions.validate_loadable(definitions)
    keys = {spec.key for spec in definitions.resolve_all_asset_specs()}
    tables = {"events", "profiles", "coverage", *others}
    assert keys == {dg.AssetKey(["mixpanel", name]) for name in tables}


def test_an_asset_of_both_tables_is_linked_to_both(
    example, materialize, settings, resource, instance, database, credentials, emulator
):
    """It depends on events and profiles, counts each profile once, and is stored as a table."""
    asset = example("weekly_active_by_plan").weekly_active_by_plan
    assert set(asset.asset_deps[asset.key]) == {EVENTS, PROFILES}
    today = settings.today().isoformat()
    with Workspace(credentials=credentials, settings=settings) as workspace:
        workspace.sync_events(settings.today(), settings.today())
    assert materialize(PROFILES, today).success
    with database.write() as connection:  # who was active in the emulator's days is active today
        [(someone,)] = connection.execute(
            "SELECT distinct_id FROM mixpanel.profiles "
            "WHERE properties->>'plan' = 'pro' ORDER BY 1 LIMIT 1"
        ).fetchall()
        connection.execute(
            "INSERT INTO mixpanel.events BY NAME SELECT ? AS distinct_id, "
            "unnest([?::DATE, ?::DATE - 6, ?::DATE - 7]) AS event_date",
            [someone, today, today, today],
        )
    definitions = dg.Definitions.merge(
        build_definitions(settings=settings, resources={"mixpanel": resource}),
        dg.Definitions(assets=[asset]),
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(
        asset_selection=[asset.key], partition_key=today, instance=instance
    ).success
    with database.read() as connection:
        stored = connection.sql("SELECT day, plan, people FROM mixpanel.weekly_active_by_plan").df()
    assert stored.to_dict("records") == [{"day": pd.Timestamp(today), "plan": "pro", "people": 1}]
