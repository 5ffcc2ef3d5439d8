"""Pages of profiles from a slow server: the speed of five workers compared with one.

`python -m benchmarks.pages --pages 100 --latency 0.2`. Page 0 opens the session and is requested
alone, so five workers need at least 1 + 99/5 rounds instead of 100: 4.76 times as fast. For an
asset, only the pages after it are timed (99/5 rounds instead of 99), because Dagster works between.
"""

from __future__ import annotations

import argparse
import math

from rich.console import Console
from rich.table import Table

from benchmarks.profile_runs import page_times, run
from mixpanel_assets.emulator import Emulator, EmulatorSettings

PAGE_SIZE = 10


def main() -> None:
    """Run each way with each number of workers and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=100)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds before a response")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 5])
    parser.add_argument(
        "--ways", nargs="+", choices=("library", "asset"), default=["library", "asset"]
    )
    options, _ = parser.parse_known_args()
    table = Table(title=f"{options.pages} pages, {options.latency:g} s each")
    for heading in ("way", "workers", "seconds", "least possible", "ratio", "bound"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for way in options.ways:
        seconds, least = list[float](), list[float]()
        for workers in options.workers:
            alone = 1 if way == "library" else 0
            rounds = alone + math.ceil((options.pages - 1) / workers)
            least.append(rounds * options.latency)
            seconds.append(measure(way, options.pages, options.latency, workers))
            table.add_row(
                way,
                str(workers),
                f"{seconds[-1]:.2f}",
                f"{least[-1]:.2f}",
                f"{seconds[0] / seconds[-1]:.2f}",
                f"{least[0] / least[-1]:.2f}",
            )
    Console().print(table)


def measure(way: str, pages: int, latency: float, workers: int) -> float:
    """Return the seconds of the library, or of the asset's fetch ops."""
    settings = EmulatorSettings(
        # The last page is not full: after a full one, another page would be requested.
        profiles=pages * PAGE_SIZE - 1,
        page_size=PAGE_SIZE,
        latency_seconds=latency,
    )
    with Emulator(settings) as emulator:
        figure = run(emulator, "fetch" if way == "library" else "materialize", str(workers))
        times = page_times(emulator)
    assert len(times) == pages, f"{len(times)} requests for {pages} pages"
    if way == "library":
        return figure.seconds
    return (times[-1] - times[1]).total_seconds() + latency


if __name__ == "__main__":
    main()
