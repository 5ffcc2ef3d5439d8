"""A million profiles: time to fetch and to load them, and memory.

`python -m benchmarks.profiles --profiles 1000000 --streamed 500000`. The emulator and the client
share this machine, so the rates are lower bounds. `--headless-python PATH` lets mixpanel-headless
read the profiles too.
"""

from __future__ import annotations

import argparse
import sys
from itertools import product

from rich.table import Table

from benchmarks.profile_runs import Figure, page_times, run
from benchmarks.show import show
from mixpanel_assets.emulator import Emulator, EmulatorSettings


def main() -> None:
    """Load and stream few and many profiles, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profiles", type=int, default=1_000_000, help="the number to load")
    parser.add_argument("--streamed", type=int, default=500_000, help="the number to stream")
    parser.add_argument("--few", type=int, default=10_000, help="the number to compare with")
    parser.add_argument("--headless-python", help="an interpreter with mixpanel-headless")
    options, _ = parser.parse_known_args()
    show(loads([options.few, options.profiles]))
    show(streams([options.few, options.streamed], options.headless_python))


def project(profiles: int) -> EmulatorSettings:
    """Return a project with enough events that all sign-ups are within a year."""
    return EmulatorSettings(profiles=profiles, events_per_day=max(400, profiles // 3))


def loads(sizes: list[int]) -> Table:
    """Return the costs of `Workspace.sync_profiles` as a table."""
    table = Table(title="loaded")
    for heading in ("profiles", "fetch s", "load s", "load / fetch", "profiles/s", "peak MB"):
        table.add_column(heading, justify="right")
    for size in sizes:
        with Emulator(project(size)) as emulator:
            figure = run(emulator, "sync")
            # The request of the last page is a moment before its response.
            fetched = page_times(emulator)[-1].timestamp() - figure.began
        assert figure.profiles == size, f"{figure.profiles:,} of {size:,} were stored"
        loaded = figure.seconds - fetched
        table.add_row(
            f"{size:,}",
            f"{fetched:.1f}",
            f"{loaded:.1f}",
            f"{loaded / fetched:.1f}",
            f"{size / figure.seconds:,.0f}",
            f"{figure.peak_bytes / 1e6:,.0f}",
        )
    return table


def streams(sizes: list[int], headless_python: str | None) -> Table:
    """Return the costs of streams as a table; the ratios are to our raw stream of as many."""
    table = Table(title="streamed")
    for heading in ("way", "profiles", "seconds", "x raw", "CPU s", "profiles/s", "peak MB"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    clients = [("", "stream", sys.executable)]
    if headless_python:
        clients.append(("headless ", "headless", headless_python))
    raw = dict[int, float]()
    for (name, client, python), way, size in product(clients, ("raw", "normalized"), sizes):
        figure = measure_stream(size, client, way, python)
        table.add_row(
            name + way,
            f"{figure.profiles:,}",
            f"{figure.seconds:.2f}",
            f"{figure.seconds / raw.setdefault(size, figure.seconds):.2f}",
            f"{figure.cpu_seconds:.2f}",
            f"{figure.profiles / figure.seconds:,.0f}",
            f"{figure.peak_bytes / 1e6:.1f}",
        )
    return table


def measure_stream(size: int, client: str, way: str, python: str) -> Figure:
    """Return the figures of one stream."""
    with Emulator(project(size)) as emulator:
        figure = run(emulator, client, way, python=python)
    assert figure.profiles == size, f"{figure.profiles:,} of {size:,} were received"
    return figure


if __name__ == "__main__":
    main()
