"""Overhead of Dagster for a range of days, in seconds per run and per partition.

The same days are loaded without Dagster, in one run of the range, and in one run per day. All
runs are in this process, and so is the emulator. The start of a process, which a run from the UI
needs, is not measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
from rich.table import Table

from benchmarks.show import show
from mixpanel_assets import MixpanelResource, Workspace, build_definitions
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.settings import Settings

FIRST = date(2024, 1, 1)


@dataclass(frozen=True)
class Figure:
    """The time of one way of loading."""

    name: str
    runs: int
    days: int
    seconds: float


@dataclass(frozen=True)
class Project:
    """An emulated project, and the ways to load it."""

    emulator: Emulator
    settings: Settings

    def bare(self, first: date, last: date) -> None:
        """Download and load without Dagster."""
        credentials = make_credentials(
            username=self.emulator.username, secret=self.emulator.secret, project_id="12345"
        )
        with Workspace(credentials=credentials, settings=self.settings) as workspace:
            workspace.sync_events(first, last)

    def runs(self, instance: dg.DagsterInstance, *ranges: tuple[date, date]) -> None:
        """Run the asset for each range."""
        resource = MixpanelResource(
            username=self.emulator.username,
            secret=self.emulator.secret,
            project_id="12345",
            region="us",
            api_base_url=self.emulator.base_url,
            state_dir=":memory:",
        )
        definitions = build_definitions(settings=self.settings, resources={"mixpanel": resource})
        job = definitions.resolve_implicit_global_asset_job_def()
        for first, last in ranges:
            job.execute_in_process(
                asset_selection=[dg.AssetKey(["mixpanel", "events"])],
                instance=instance,
                tags={
                    "dagster/asset_partition_range_start": str(first),
                    "dagster/asset_partition_range_end": str(last),
                },
            )


def measure(name: str, runs: int, days: int, load: Callable[[], None]) -> Figure:
    """Return the wall time of one way."""
    began = time.perf_counter()
    load()
    return Figure(name, runs, days, time.perf_counter() - began)


def figures(days: int, singles: int, events_per_day: int) -> list[Figure]:
    """Load the days in each way, each into its own database."""
    last = FIRST + timedelta(days=days - 1)
    each = [(day, day) for day in (FIRST + timedelta(days=number) for number in range(singles))]
    with (
        tempfile.TemporaryDirectory() as folder,
        Emulator(EmulatorSettings(events_per_day=events_per_day)) as emulator,
        dg.instance_for_test(temp_dir=folder) as instance,
    ):

        def project(name: str) -> Project:
            settings = Settings(
                api_base_url=emulator.base_url,
                database=Path(folder) / f"{name}.duckdb",
                state_dir=":memory:",
                budget_export_per_hour=100_000,
                budget_export_per_second=1_000,
            )
            return Project(emulator, settings)

        project("warm").runs(instance, each[0])
        return [
            measure("bare", 0, days, lambda: project("bare").bare(FIRST, last)),
            measure("one run", 1, days, lambda: project("one").runs(instance, (FIRST, last))),
            measure(
                "a run for each day",
                singles,
                singles,
                lambda: project("each").runs(instance, *each),
            ),
        ]


def report(figures: list[Figure], events_per_day: int) -> Table:
    """Return the figures as a table. Ratios are per day, relative to the load without Dagster."""
    table = Table(title=f"{figures[0].days:,} days of {events_per_day:,} events")
    for heading in ("", "runs", "days", "seconds", "s/run", "s/day", "x bare", "overhead s/day"):
        table.add_column(heading, justify="right" if heading else "left")
    bare = figures[0].seconds / figures[0].days
    for one in figures:
        per_day = one.seconds / one.days
        table.add_row(
            one.name,
            f"{one.runs:,}",
            f"{one.days:,}",
            f"{one.seconds:.2f}",
            f"{one.seconds / one.runs:.2f}" if one.runs else "",
            f"{per_day:.3f}",
            f"{per_day / bare:.1f}",
            f"{per_day - bare:.3f}",
        )
    return table


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--singles", type=int, default=10, help="days with a run each")
    parser.add_argument("--events-per-day", type=int, default=2_000)
    options = parser.parse_args()
    results = figures(options.days, options.singles, options.events_per_day)
    show(report(results, options.events_per_day))


if __name__ == "__main__":
    main()
