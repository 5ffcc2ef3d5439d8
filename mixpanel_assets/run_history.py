"""What Dagster's instance knows of a run's ancestors: the runs that it goes on with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import dagster as dg


def run_group(instance: dg.DagsterInstance, run: dg.DagsterRun) -> frozenset[str]:
    """Return the ids of a run and of all runs that it goes on with, directly or not.

    It goes on with those that it re-executes, back to the last one that succeeded: of that one,
    nothing is missing, so whoever re-executes it wants it all done again.
    """
    group, parent_id = {run.run_id}, run.parent_run_id
    while parent_id and parent_id not in group:
        parent = instance.get_run_by_id(parent_id)
        if parent and parent.is_success:
            break
        group.add(parent_id)
        # The root is known even when a run in between was deleted.
        parent_id = parent.parent_run_id if parent else run.root_run_id
    return frozenset(group)


def recorded_partitions(
    instance: dg.DagsterInstance, key: dg.AssetKey, run_ids: Collection[str]
) -> dict[str, Mapping[str, Any]]:
    """Return what the runs have recorded of each partition of an asset that they materialized."""
    materialized = {dg.DagsterEventType.ASSET_MATERIALIZATION}
    entries = (
        entry
        for run_id in run_ids
        for entry in instance.all_logs(run_id, of_type=materialized)
        if entry.asset_materialization and entry.asset_materialization.asset_key == key
    )
    found = [entry.asset_materialization for entry in sorted(entries, key=lambda e: e.timestamp)]
    return {event.partition: event.metadata for event in found if event and event.partition}
