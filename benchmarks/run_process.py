"""One process beside many others: it materializes days, or reads what is there.

`python -m benchmarks.run_process days 2024-01-01 2024-01-02`   a Dagster run for each day
`python -m benchmarks.run_process range 2024-01-01 2024-01-31`  one run for all of them
`python -m benchmarks.run_process read snapshot --every 1`      reads until its input is closed

It prints each day once it is stored, or the figures of its reads as JSON. The database,
DAGSTER_HOME and the account come from the environment.
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

from mixpanel_assets.definitions import build_definitions
from mixpanel_assets.settings import load_settings
from mixpanel_assets.warehouse import copy_path
from mixpanel_assets.workspace import Workspace

QUERY = "SELECT count(*), count(DISTINCT event_date) FROM mixpanel.events"
EVENTS = [dg.AssetKey(["mixpanel", "events"])]


@dataclass
class Reads:
    """What became of the reads of one reader.

    Attributes:
        reads: How many there were.
        older: How many were answered with older data than the file held.
        slowest: Seconds that the slowest took.
        oldest: Seconds, the greatest age of what was read.
        refused: What was said by those that failed.
        backwards: How often one saw fewer days than one before it, and did not say that what it
            read was older.
    """

    reads: int = 0
    older: int = 0
    slowest: float = 0.0
    oldest: float = 0.0
    refused: list[str] = field(default_factory=list)
    backwards: int = 0


def main() -> None:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("days", "range", "read"))
    parser.add_argument("given", nargs="+")
    parser.add_argument("--every", type=float, default=1.0)
    options = parser.parse_args()
    database = load_settings().database_path("")
    if options.what == "read":
        through = {"workspace": through_workspace, "snapshot": through_snapshot}
        ask = through[options.given[0]]
        told = read(
            lambda: ask(database), options.every, may_go_back=options.given[0] == "workspace"
        )
        print(json.dumps(asdict(told)))
    elif options.what == "range":
        first, last = options.given
        materialize(
            tags={
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last,
            }
        )
    else:
        for day in options.given:
            materialize(partition_key=day)
            print(day, flush=True)


def materialize(**chosen: Any) -> None:
    """Run the events asset in this process, recorded in the shared instance."""
    job = build_definitions().resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.get() as instance:
        job.execute_in_process(
            instance=instance,
            asset_selection=EVENTS,
            run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
            **chosen,
        )


def read(ask: Callable[[], tuple[int, float]], every: float, *, may_go_back: bool) -> Reads:
    """Ask again and again until standard input is closed.

    Args:
        ask: Returns the days that it saw, and how old that is.
        every: Seconds between two reads.
        may_go_back: A read that says it is older may see less than the one before.
    """
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    told, most = Reads(), 0
    while not ended.wait(every):
        began = time.perf_counter()
        try:
            days, age = ask()
        except Exception as error:
            told.refused.append(f"{type(error).__name__}: {error}")
        else:
            told.backwards += days < most and not (may_go_back and age)
            most = max(most, days)
            told.older += age > 0
            told.oldest = max(told.oldest, age)
        told.reads += 1
        told.slowest = max(told.slowest, time.perf_counter() - began)
    return told


def through_workspace(database: Path) -> tuple[int, float]:
    """Return the days that a `Workspace` shows, and how old that is."""
    with Workspace.open(database) as workspace:
        [(_, days)] = workspace.sql_rows(QUERY)
        return days, workspace.snapshot_age or 0.0


def through_snapshot(database: Path) -> tuple[int, float]:
    """Return the days that a BI tool sees, which knows nothing of us."""
    with duckdb.connect(copy_path(database), read_only=True) as connection:
        [(_, days)] = connection.execute(QUERY).fetchall()
        [(age,)] = connection.execute(
            "SELECT epoch(now()::TIMESTAMPTZ) - epoch(taken_at) FROM mixpanel._snapshot"
        ).fetchall()
        return days, age


if __name__ == "__main__":
    main()
