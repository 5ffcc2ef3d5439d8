"""How fast events stream, and that a hundred times as many cost no more memory.

`python -m benchmarks.stream --events 1000000`. Each way runs in a process of its own against
the emulator, which needs the other core; so the rate that counts is events per second of the
client's own CPU time, network calls included. With `--headless-python PATH` the interpreter
of an environment that has `mixpanel-headless` is timed against the same emulator.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import stream_client
from mixpanel_assets.cli.emulate import environment_of
from mixpanel_assets.emulator import Emulator, EmulatorSettings

FEW = 10_000
OURS = (("live raw", "raw"), ("live normalized", "normalized"), ("staged raw", "staged"))
LINES = ("live lines", "lines")
CLIENT = str(Path(stream_client.__file__))


@dataclass(frozen=True)
class Figure:
    """One run of a client."""

    events: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int

    @property
    def rate(self) -> float:
        """Events per second of the client's CPU time."""
        return self.events / self.cpu_seconds


def main() -> None:
    """Run each way with few and with many events and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--headless-python", help="an interpreter that has mixpanel-headless")
    options = parser.parse_args()
    ways = [(name, sys.executable, "ours", way) for name, way in (*OURS, LINES)]
    if options.headless_python:
        ways += [
            (f"headless {way}", options.headless_python, "headless", way)
            for way in ("raw", "normalized")
        ]
    few, many = measured(FEW, ways), measured(options.events, ways)
    Console().print(report(few, many))
    for way in ("raw", "normalized"):
        if (theirs := many.get(f"headless {way}")) is not None:
            factor = many[f"live {way}"].rate / theirs.rate
            Console().print(f"live {way}: {factor:.1f} times the rate of mixpanel-headless")


def measured(events: int, ways: list[tuple[str, str, str, str]]) -> dict[str, Figure]:
    """Return the figures of each way for a day of so many events."""
    settings = EmulatorSettings(
        start=date.fromisoformat(stream_client.DAY), days=1, exact_events=events
    )
    with Emulator(settings) as emulator, tempfile.TemporaryDirectory() as folder:
        variables = {
            **os.environ,
            **environment_of(emulator),
            "HOME": folder,
            "MP_DATABASE": f"{folder}/warehouse.duckdb",
        }
        return {name: run(python, [client, way], variables) for name, python, client, way in ways}


def run(python: str, arguments: list[str], variables: dict[str, str]) -> Figure:
    done = subprocess.run(
        [python, CLIENT, *arguments], env=variables, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return Figure(**json.loads(done.stdout.splitlines()[-1]))


def report(few: dict[str, Figure], many: dict[str, Figure]) -> Table:
    events = next(iter(many.values())).events
    table = Table(title=f"{FEW:,} and {events:,} events")
    for heading in ("way", "seconds", "CPU s", "events/CPU s", "MB few", "MB many", "growth"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, figure in many.items():
        small = few[name].peak_bytes
        table.add_row(
            name,
            f"{figure.seconds:.2f}",
            f"{figure.cpu_seconds:.2f}",
            f"{figure.rate:,.0f}",
            f"{small / 1e6:.1f}",
            f"{figure.peak_bytes / 1e6:.1f}",
            f"{figure.peak_bytes / small - 1:+.1%}",
        )
    return table


if __name__ == "__main__":
    main()
