"""The costs of a load from its first request to its last commit, on the emulator's own data.

`python -m benchmarks.end_to_end --events 577526`. The emulator's days have odd lines, duplicates
and late events. Its response for a week is recorded first and then replayed over loopback, to every
client the same. The load runs once for each `--memory`, and must stay within it and 300 MB for the
process. `--headless-python PATH` lets mixpanel-headless iterate that week beside it.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from datetime import date, timedelta
from pathlib import Path

from rich.table import Table

from benchmarks import stream_client
from benchmarks.show import show
from benchmarks.stream import Figure, record, replay, run
from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.warehouse.memory import in_bytes

DAYS = 7
PROCESS_BYTES = 300_000_000  # that a process may need beside MP_MEMORY_LIMIT


def main() -> None:
    """Record the week, run each way and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=577_526, help="of the whole week, about")
    parser.add_argument("--runs", type=int, default=3, help="runs of each way; the best counts")
    parser.add_argument(
        "--memory", nargs="+", default=["1GB", "512MB"], help="MP_MEMORY_LIMIT of each load"
    )
    parser.add_argument("--headless-python", help="an interpreter with mixpanel-headless")
    options = parser.parse_args()
    loads = {f"load, {memory}": memory for memory in options.memory}
    ways = [(name, sys.executable, "ours", "load") for name in loads]
    ways.append(("lines", sys.executable, "ours", "lines"))
    if options.headless_python:
        ways += [
            (f"headless {way}", options.headless_python, "headless", way)
            for way in ("raw", "normalized")
        ]
    figures = measure(ways, options.events, options.runs, loads)
    show(report(figures))
    for name, memory in loads.items():
        show(f"{name}: {describe(figures, name, in_bytes(memory))}")


def measure(
    ways: list[tuple[str, str, str, str]], events: int, runs: int, memory: dict[str, str]
) -> dict[str, Figure]:
    """Return the best figure of each way; `memory` is the MP_MEMORY_LIMIT of those that load."""
    first = date.fromisoformat(stream_client.DAY)
    days = (stream_client.DAY, (first + timedelta(days=DAYS - 1)).isoformat())
    settings = EmulatorSettings(start=first, days=DAYS, events_per_day=events // DAYS)
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as folder:
        with Emulator(settings) as emulator:
            variables = environment_of(emulator)
            responses = {ms: record(emulator, ms, *days, Path(folder)) for ms in (None, "true")}
        with replay(responses) as base_url:
            for round in range(runs):
                for name, python, client, way in ways:
                    settings_of_run = {
                        **os.environ,
                        **variables,
                        "MP_API_BASE_URL": base_url,
                        "MP_DAYS_PER_REQUEST": str(DAYS),
                        **({"MP_MEMORY_LIMIT": memory[name]} if name in memory else {}),
                        "MP_DATABASE": f"{folder}/{name.replace(', ', '_')}_{round}.duckdb",
                        "HOME": folder,
                    }
                    figure = run(python, [client, way, *days], settings_of_run)
                    best = figures.get(name, figure)
                    figures[name] = min(figure, best, key=lambda one: one.cpu_seconds)
    return figures


def describe(figures: dict[str, Figure], name: str, memory: float) -> str:
    """Return what a load needed, compared with its memory limit and mixpanel-headless."""
    load, theirs = figures[name], figures.get("headless normalized")
    allowed = memory + PROCESS_BYTES
    parts = [
        f"{load.cpu_seconds / load.events * 1e6:.1f} us of CPU a line",
        f"{load.peak_bytes / 1e6:,.0f} MB at most, of {allowed / 1e6:,.0f} MB allowed",
    ]
    if theirs:
        parts.append(f"{load.seconds / theirs.seconds:.2f} times the seconds of mixpanel-headless")
    return "; ".join(parts)


def report(figures: dict[str, Figure]) -> Table:
    """Return the figures as a table; ratios are of the seconds, relative to the last way."""
    *_, last = figures
    table = Table(title=f"{figures[last].events:,} lines of {DAYS} days")
    for heading in ("way", "seconds", f"x {last}", "CPU s", "CPU us a line", "peak MB"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, figure in figures.items():
        table.add_row(
            name,
            f"{figure.seconds:.2f}",
            f"{figure.seconds / figures[last].seconds:.2f}",
            f"{figure.cpu_seconds:.2f}",
            f"{figure.cpu_seconds / figure.events * 1e6:.1f}",
            f"{figure.peak_bytes / 1e6:,.0f}",
        )
    return table


if __name__ == "__main__":
    main()
