"""Get profiles in one way and print the costs as JSON.

`benchmarks.profile_runs` starts it as its own process. MP_* variables name the server. Each way
imports what it needs: an environment with mixpanel-headless has no mixpanel-assets.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from benchmarks.stream_client import peak_bytes


def fetch(max_workers: str) -> int:
    """Fetch all profiles into a table of a new database with the library."""
    from mixpanel_assets import ParallelProfileResult, Workspace

    with Workspace() as workspace:
        result = workspace.fetch_profiles("people", parallel=True, max_workers=int(max_workers))
        assert isinstance(result, ParallelProfileResult)
        assert not result.has_failures
        return result.total_rows


def materialize(max_workers: str) -> int:
    """Run the asset for today, all of its pages in one op."""
    import dagster as dg

    from mixpanel_assets.defs.location import build_definitions
    from mixpanel_assets.settings import load_settings

    settings = load_settings()
    config = {"pages_per_op": 1_000_000, "max_workers": int(max_workers)}
    plan_pages = {"ops": {"plan_profile_pages": {"config": config}}}
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_definitions(settings=settings).resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(
            asset_selection=[dg.AssetKey(["mixpanel", "profiles"])],
            partition_key=settings.today().isoformat(),
            instance=instance,
            run_config={"ops": {"mixpanel__profiles": plan_pages}},
        )
    [stored] = result.get_asset_materialization_events()
    return int(stored.materialization.metadata["rows"].value)


def sync() -> int:
    """Fetch all profiles into a new database."""
    from mixpanel_assets import Workspace

    with Workspace() as workspace:
        return workspace.sync_profiles().row_count


def stream(way: str) -> int:
    """Count the profiles of a stream: `raw` or `normalized`."""
    from mixpanel_assets import Workspace

    with Workspace() as workspace:
        return sum(1 for _ in workspace.stream_profiles(raw=way == "raw"))


def headless(way: str) -> int:
    """Count the profiles of mixpanel-headless: `raw` or `normalized`."""
    from mixpanel_headless import Workspace

    return sum(1 for _ in Workspace().stream_profiles(raw=way == "raw"))


def import_for(way: str) -> None:
    """Import what a way needs: the start is not measured."""
    if way == "headless":
        import mixpanel_headless as mixpanel_headless

        return
    import duckdb

    from mixpanel_assets import Workspace as Workspace

    duckdb.execute("SELECT ?", ["loaded"])  # DuckDB loads pandas with the first bound value


def main() -> None:
    """Run the way named by the arguments and print its figures."""
    ways: dict[str, Callable[..., int]] = {
        "fetch": fetch,
        "materialize": materialize,
        "sync": sync,
        "stream": stream,
        "headless": headless,
    }
    way, *arguments = sys.argv[1:]
    import_for(way)
    began, spent = time.time(), time.process_time()
    profiles = ways[way](*arguments)
    figures = {
        "profiles": profiles,
        "began": began,
        "ended": time.time(),
        "cpu_seconds": time.process_time() - spent,
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
