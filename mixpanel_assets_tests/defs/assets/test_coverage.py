"""The asset of coverage: it draws what is stored, and other assets read its view."""

import base64
import re
from xml.etree import ElementTree

import dagster as dg
import pandas as pd

from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.defs.assets.conftest import EVENTS

COVERAGE = dg.AssetKey(["mixpanel", "coverage"])


def drawn(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    """Return the metadata of the materialization, the image as text."""
    [event] = result.asset_materializations_for_node("mixpanel__coverage")
    metadata = {name: value.value for name, value in event.metadata.items()}
    found = re.findall(r"!\[(.*)\]\(data:image/svg\+xml;base64,(.*)\)", metadata["calendar"])
    [(metadata["told"], image)] = found
    metadata["image"] = ElementTree.fromstring(base64.b64decode(image))
    return metadata


def test_it_is_drawn_after_the_events_of_the_run(settings, resource, instance):
    """From the first partition on; a downstream asset reads the view as a frame."""
    settings = settings.model_copy(update={"start_date": Settings().start_date})

    @dg.asset(
        ins={"coverage": dg.AssetIn(COVERAGE, input_manager_key="mixpanel_warehouse")},
        key=["days", "complete"],
    )
    def complete(coverage: pd.DataFrame) -> dg.MaterializeResult:
        days = coverage[coverage["status"] == "complete"]
        return dg.MaterializeResult(metadata={"days": [f"{day:%Y-%m-%d}" for day in days["day"]]})

    definitions = dg.Definitions.merge(
        build_definitions(settings=settings, resources={"mixpanel": resource}),
        dg.Definitions([complete]),
    )
    job = definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        asset_selection=[COVERAGE, EVENTS, complete.key],
        instance=instance,
        partition_key="2024-01-03",
    )
    metadata = drawn(result)
    assert metadata["days_complete"] == 1
    assert metadata["told"] == f"events: complete 1, never loaded {metadata['days_never_loaded']:,}"
    assert [record.data["status"] for record in metadata["ranges"].records] == [
        *("never loaded", "complete", "never loaded"),
    ]
    assert metadata["image"].findall("{*}path")
    [events] = result.asset_materializations_for_node("mixpanel__events")
    certificate = events.metadata["certificate"].value
    assert certificate["lines"] == certificate["rows"] + certificate["duplicates"]
    assert certificate["rows_stored"] == events.metadata["rows"].value == certificate["rows"]
    [told] = result.asset_materializations_for_node("days__complete")
    assert told.metadata["days"].value == ["2024-01-03"]


def test_it_follows_the_other_assets_and_can_be_left_out():
    """Its job is the one that checks that no day is missing."""
    definitions = build_definitions(name="shop")
    graph = definitions.resolve_asset_graph()
    key = dg.AssetKey(["shop", "coverage"])
    assert graph.get(key).parent_keys == {
        dg.AssetKey(["shop", "events"]),
        dg.AssetKey(["shop", "profiles"]),
    }
    assert graph.get(key).partitions_def is None
    jobs = {
        (checks, coverage): definitions_of(checks, coverage)
        for checks in (True, False)
        for coverage in (True, False)
    }
    assert jobs == {
        (True, True): {"assets": 1, "checks": 1},
        (True, False): {"assets": 0, "checks": 1},
        (False, True): {"assets": 1, "checks": 0},
        (False, False): None,
    }


def definitions_of(checks: bool, coverage: bool) -> dict[str, int] | None:
    """Return what the job `check_events` selects; None if there is no such job."""
    definitions = build_definitions(checks=checks, coverage=coverage)
    dg.Definitions.validate_loadable(definitions)
    if "check_events" not in {job.name for job in definitions.jobs}:
        return None
    layer = definitions.resolve_job_def("check_events").asset_layer
    checked = layer.asset_graph.asset_check_keys
    return {"assets": len(layer.selected_asset_keys), "checks": len(checked)}
