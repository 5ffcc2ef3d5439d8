"""One of many processes: it materializes days, or reads the database.

`python -m benchmarks.run_process days 2024-01-01 2024-01-02`   a Dagster run for each day
`python -m benchmarks.run_process range 2024-01-01 2024-01-31`  one run for all of them
`python -m benchmarks.run_process read snapshot --every 1`      reads until stdin is closed

It prints each stored day, or the figures of its reads as JSON. The database, DAGSTER_HOME and
the account come from the environment.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb

from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.settings import load_settings
from mixpanel_assets.warehouse import copy_path
from mixpanel_assets.workspace import Workspace

QUERY = "SELECT count(*), count(DISTINCT event_date) FROM mixpanel.events"
EVENTS = [dg.AssetKey(["mixpanel", "events"])]


@dataclass
class Reads:
    """The reads of one reader.

    Attributes:
        reads: The number of reads.
        older: The number of reads that returned older data than the file had.
        slowest: Seconds of the slowest read.
        oldest: Greatest age of the data, in seconds.
        refused: Messages of failed reads.
        backwards: The number of reads with fewer days than an earlier read and no older age.
    """

    reads: int = 0
    older: int = 0
    slowest: float = 0.0
    oldest: float = 0.0
    refused: list[str] = field(default_factory=list)
    backwards: int = 0


def main() -> None:
    """Materialize or read, as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("days", "range", "read"))
    parser.add_argument("arguments", nargs="+")
    parser.add_argument("--every", type=float, default=1.0)
    options = parser.parse_args()
    database = load_settings().database_path("")
    if options.what == "read":
        through = {"workspace": through_workspace, "snapshot": through_snapshot}
        query = through[options.arguments[0]]
        result = read(
            lambda: query(database), options.every, may_go_back=options.arguments[0] == "workspace"
        )
        print(json.dumps(asdict(result)))
    elif options.what == "range":
        first, last = options.arguments
        materialize(
            tags={
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last,
            }
        )
    else:
        for day in options.arguments:
            materialize(partition_key=day)
            print(day, flush=True)


def materialize(**partitions: Any) -> None:
    """Run the events asset in this process, recorded in the shared instance."""
    job = build_definitions().resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as instance:
        job.execute_in_process(
            instance=instance,
            asset_selection=EVENTS,
            run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
            **partitions,
        )


def read(query: Callable[[], tuple[int, float]], every: float, *, may_go_back: bool) -> Reads:
    """Read repeatedly until stdin is closed.

    Args:
        query: Returns the number of days, and the age of the data in seconds.
        every: Seconds between two reads.
        may_go_back: Whether a read with an age may return fewer days than an earlier one.
    """
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    result, most = Reads(), 0
    while not ended.wait(every):
        began = time.perf_counter()
        try:
            days, age = query()
        except Exception as error:
            result.refused.append(f"{type(error).__name__}: {error}")
        else:
            result.backwards += days < most and not (may_go_back and age)
            most = max(most, days)
            result.older += age > 0
            result.oldest = max(result.oldest, age)
        result.reads += 1
        result.slowest = max(result.slowest, time.perf_counter() - began)
    return result


def through_workspace(database: Path) -> tuple[int, float]:
    """Return the number of days in a `Workspace`, and the age of the data."""
    with Workspace.open(database) as workspace:
        [(_, days)] = workspace.sql_rows(QUERY)
        return days, workspace.snapshot_age or 0.0


def through_snapshot(database: Path) -> tuple[int, float]:
    """Return the number of days as a BI tool sees them, and the age of the data."""
    with duckdb.connect(copy_path(database), read_only=True) as connection:
        [(_, days)] = connection.execute(QUERY).fetchall()
        [(age,)] = connection.execute(
            "SELECT epoch(now()::TIMESTAMPTZ) - epoch(taken_at) FROM mixpanel._snapshot"
        ).fetchall()
        return days, age


if __name__ == "__main__":
    main()
