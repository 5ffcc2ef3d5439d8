"""What a job shows before it is started: its description, and the configuration it opens with."""

import dagster as dg
import pytest
from dagster._core.remote_representation.external_data import JobDataSnap

from mixpanel_assets.defs.location import build_definitions

OF_ASSETS = (
    *("check_events", "close_yesterday", "deep_sweep", "reconcile_events", "snapshot_profiles"),
)
OF_OPS = (
    "ask_report",
    "backfill_history",
    "keep_snapshots",
    "stream_events",
    "stream_profiles",
    "verify_range",
)


@pytest.fixture(scope="module")
def jobs():
    """All jobs of two projects, by name."""
    definitions = dg.Definitions.merge(build_definitions(), build_definitions(name="shop"))
    return {job.name: job for job in definitions.resolve_all_job_defs()}


def opened(job):
    """Return the configuration of the launchpad, as Dagster's UI gets it."""
    [preset] = JobDataSnap.from_job_def(job, include_parent_snapshot=True).active_presets
    return preset.run_config


def test_the_jobs_are_in_dagsters_order(jobs):
    """Dagster sorts them by name."""
    names = [name for name in sorted(jobs) if not name.startswith(("__", "shop_"))]
    assert names == sorted([*OF_ASSETS, *OF_OPS])
    assert {f"shop_{name}" for name in names} <= jobs.keys()
    assert all(jobs[name].description for name in names)


@pytest.mark.parametrize("name", OF_OPS)
def test_a_launchpad_opens_with_what_matters_and_is_valid(name, jobs):
    """The fields of its one op, at most six lines, and none of a resource."""
    for job in (jobs[name], jobs[f"shop_{name}"]):
        config = opened(job)
        assert config.keys() == {"ops"}
        [(op, fields)] = config["ops"].items()
        assert [op] == [node.name for node in job.nodes]
        assert 1 <= len(fields["config"]) <= 5
        assert dg.validate_run_config(job, config)


def test_the_jobs_of_checks_open_without_fields(jobs):
    """They have nothing to set."""
    for name in ("check_events", "shop_check_events", "reconcile_events"):
        assert opened(jobs[name]) == {"ops": {}}


def test_resources_are_described_in_sentences(jobs):
    """Dagster's UI puts all lines of a description into one."""
    resources = build_definitions().resources
    for resource in resources.values():
        description = resource.get_resource_definition().description
        assert ">>>" not in description
        assert not {"Load", "Attributes:", "Args:"} & set(description.split())
