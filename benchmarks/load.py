"""Time the load of one day of events, clean or odd, against a bare scan and against pandas.

Each way runs in its own process, so that its peak memory can be measured. Run it as
`python -m benchmarks.load --events 1000000`. The received file is created first, from a seed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import duckdb
from rich.table import Table

from benchmarks import other_loaders
from benchmarks.other_loaders import frame_of
from benchmarks.show import show
from benchmarks.spool import DAY, write_spool
from benchmarks.stream_client import peak_bytes
from mixpanel_assets.client.export import ExportQuery, reread
from mixpanel_assets.rules.lines import ReceivedDays
from mixpanel_assets.warehouse.database import Database
from mixpanel_assets.warehouse.events import replace_events, stage_days
from mixpanel_assets.warehouse.project import ProjectIdentity, prepare

OTHERS = {"dlt": "dlt", "io_manager": "Dagster's IO manager"}
SILENT = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DAGSTER_DISABLE_TELEMETRY": "yes"}
PROJECT = ProjectIdentity("1", "us")


@dataclass(frozen=True)
class Figure:
    """One way of reading the file: wall seconds, peak memory and file size in bytes."""

    name: str
    seconds: float
    peak_bytes: int
    file_bytes: int = 0


def scan(received: ReceivedDays, database: Path) -> None:
    """Read every line and extract one value: the minimum of a load with DuckDB."""
    with duckdb.connect() as connection:
        connection.execute(
            "SELECT count(*), sum(length(json ->> '$.event')) FROM read_json_objects(?)",
            [str(received.path)],
        ).fetchall()


def load(received: ReceivedDays, database: Path) -> None:
    """Load the day as the IO manager does: checks, duplicates, ledger, commit, checkpoint."""
    opened = Database(database)
    with (
        opened.staging() as memory,
        stage_days(memory, received, project=PROJECT) as staged,
        opened.write(memory) as connection,
    ):
        prepare(connection, PROJECT)
        replace_events(connection, staged)


def load_with_pandas(received: ReceivedDays, database: Path) -> None:
    """Load the day with `json`, a DataFrame without duplicates, and an insert."""
    frame = frame_of(received.path)  # noqa: F841 (DuckDB finds it by its name)
    with duckdb.connect(database) as connection:
        connection.execute("CREATE TABLE events AS SELECT * FROM frame")


def measure(
    name: str, way: Callable[[ReceivedDays, Path], None], received: ReceivedDays, *, runs: int
) -> Figure:
    """Return the best of some runs, each in a new process."""
    return min((_run(name, way, received) for _ in range(runs)), key=lambda one: one.seconds)


def _run(name: str, way: Callable[[ReceivedDays, Path], None], received: ReceivedDays) -> Figure:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe()
    with tempfile.TemporaryDirectory(dir=received.path.parent) as folder:
        database = Path(folder) / "benchmark.duckdb"
        process = context.Process(target=_child, args=(sender, way, received, database))
        process.start()
        sender.close()
        seconds, peak = receiver.recv()
        process.join()
        size = database.stat().st_size if database.exists() else 0
    return Figure(name, seconds, peak, size)


def measure_other(name: str, python: str, received: ReceivedDays, *, runs: int) -> Figure:
    """Return the best of some runs of another loader, which has its own environment."""
    return min(
        (_run_other(name, python, received) for _ in range(runs)), key=lambda one: one.seconds
    )


def _run_other(name: str, python: str, received: ReceivedDays) -> Figure:
    with tempfile.TemporaryDirectory(dir=received.path.parent) as folder:
        database = Path(folder) / "benchmark.duckdb"
        done = subprocess.run(
            [python, other_loaders.__file__, name, str(received.path), str(database)],
            env={**os.environ, **SILENT, "HOME": folder},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(done.stderr)
        figures = json.loads(done.stdout.splitlines()[-1])
        return Figure(OTHERS[name], **figures, file_bytes=database.stat().st_size)


def _child(
    pipe: Connection,
    way: Callable[[ReceivedDays, Path], None],
    received: ReceivedDays,
    database: Path,
) -> None:
    started = time.perf_counter()
    way(received, database)
    seconds = time.perf_counter() - started
    pipe.send((seconds, peak_bytes()))


def report(figures: list[Figure], *, events: int, raw_bytes: int, gzip_bytes: int) -> Table:
    """Return the figures as a table; ratios are relative to the scan, which is first."""
    title = f"{events:,} events, {raw_bytes / 1e6:,.0f} MB, gzip {gzip_bytes / 1e6:,.1f} MB, "
    table = Table(title=f"{title}DuckDB {duckdb.__version__}")
    for heading in ("", "seconds", "events/s", "x scan", "peak MB", "file MB", "x gzip"):
        table.add_column(heading, justify="right" if heading else "left")
    for figure in figures:
        table.add_row(
            figure.name,
            f"{figure.seconds:.2f}",
            f"{events / figure.seconds:,.0f}",
            f"{figure.seconds / figures[0].seconds:.1f}",
            f"{figure.peak_bytes / 1e6:,.0f}",
            f"{figure.file_bytes / 1e6:,.1f}" if figure.file_bytes else "",
            f"{figure.file_bytes / gzip_bytes:.2f}" if figure.file_bytes else "",
        )
    return table


def main() -> None:
    """Create the file, run each way and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=2, help="runs of each way; the best counts")
    parser.add_argument("--without-pandas", action="store_true")
    parser.add_argument("--dlt-python", help="an interpreter with dlt[duckdb]")
    parser.add_argument("--io-manager-python", help="an interpreter with dagster-duckdb-pandas")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spool = Path(folder) / "spool.jsonl.gz"
        raw_bytes = write_spool(spool, events=options.events)
        odd = Path(folder) / "odd.jsonl.gz"
        write_spool(odd, events=options.events, odd=True)
        query = ExportQuery(DAY, DAY)
        received = reread(spool, query)
        figures = [
            measure("scan", scan, received, runs=options.runs),
            measure("load", load, received, runs=options.runs),
            measure("load of odd lines", load, reread(odd, query), runs=options.runs),
        ]
        if not options.without_pandas:
            figures.append(measure("pandas", load_with_pandas, received, runs=1))
        figures += [
            measure_other(name, python, received, runs=options.runs)
            for name in OTHERS
            if (python := getattr(options, f"{name}_python"))
        ]
        size = spool.stat().st_size
        table = report(figures, events=options.events, raw_bytes=raw_bytes, gzip_bytes=size)
    show(table)
    for other in figures[3:]:
        faster = other.seconds / figures[1].seconds
        show(f"The load is {faster:.1f} times as fast as {other.name}.")


if __name__ == "__main__":
    main()
