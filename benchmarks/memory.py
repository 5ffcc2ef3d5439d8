"""The peak memory of a process that loads or streams a day, for few and for many events.

`python -m benchmarks.memory --sizes 10000 100000 1000000 10000000`. The emulator is slow to make
ten million events, so the default ends earlier. `--headless-python PATH` adds mixpanel-headless.
"""

from __future__ import annotations

import argparse
import sys

from rich.table import Table

from benchmarks.show import show
from benchmarks.stream import OURS, Figure, measure


def main() -> None:
    """Run each way with each number of events and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--headless-python", help="an interpreter with mixpanel-headless")
    options, _ = parser.parse_known_args()
    ways = [(name, sys.executable, "ours", way) for name, way in (("load", "load"), *OURS)]
    if options.headless_python:
        ways.append(("headless raw", options.headless_python, "headless", "raw"))
    show(report([measure(size, ways) for size in options.sizes]))


def report(curve: list[dict[str, Figure]]) -> Table:
    """Return the megabytes as a table; the ratios are to the first number of events."""
    first, *_ = curve
    table = Table(title="Peak MB by number of events")
    table.add_column("way")
    for figures in curve:
        table.add_column(f"{next(iter(figures.values())).events:,}", justify="right")
    for way, smallest in first.items():
        peaks = [figures[way].peak_bytes for figures in curve]
        table.add_row(way, *(f"{x / 1e6:,.0f} ({x / smallest.peak_bytes:.2f}x)" for x in peaks))
    return table


if __name__ == "__main__":
    main()
