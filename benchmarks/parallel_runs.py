"""Many processes that write one DuckDB file while others read it.

`python -m benchmarks.parallel_runs --partitions 365 --processes 16`. Each process runs its share
of the days, one Dagster run per day, in one instance on disk. For comparison, one run loads the
same days. `--kill 10` also ends ten random processes with SIGKILL, and starts their
unfinished days again. The exit code is 1 if a read failed, or a row is missing or duplicated.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from subprocess import PIPE
from typing import IO

import duckdb
from rich.console import Console
from rich.table import Table

from benchmarks.run_process import Reads
from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.warehouse import copy_path

FIRST_DAY = date(2024, 1, 1)
READERS = ("workspace", "snapshot")
LOCK_ERRORS = ("DatabaseLockedError", "database is locked", "Could not set lock")


@dataclass
class Setup:
    """A database and a Dagster instance in an empty folder."""

    folder: Path
    environment: dict[str, str]

    @property
    def database(self) -> Path:
        return self.folder / "warehouse.duckdb"

    def start(self, *arguments: str, output: IO[str] | int = PIPE) -> subprocess.Popen[str]:
        home = self.folder / "dagster"
        home.mkdir(parents=True, exist_ok=True)
        (home / "dagster.yaml").touch()
        number = len(list(self.folder.glob("*.err")))
        with (self.folder / f"{number}.err").open("w") as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "benchmarks.run_process", *arguments],
                env={
                    **os.environ,
                    **self.environment,
                    "DAGSTER_HOME": str(home),
                    "DAGSTER_DISABLE_TELEMETRY": "yes",
                    "MP_DATABASE": str(self.database),
                },
                stdin=PIPE,
                stdout=output,
                stderr=errors,
                text=True,
            )

    def errors(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob("*.err"))


@dataclass
class Figure:
    """The result of one way of loading the days."""

    name: str
    seconds: float
    setup: Setup
    failed: int = 0
    killed: int = 0
    reads: dict[str, Reads] = field(default_factory=dict)


def main() -> None:
    """Load the days both ways, compare the results, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, default=365)
    parser.add_argument("--processes", type=int, default=16)
    parser.add_argument("--events", type=int, default=300, help="a day, on average")
    parser.add_argument("--kill", type=int, default=0, help="processes to end with SIGKILL")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two reads")
    options, _ = parser.parse_known_args()
    days = [FIRST_DAY + timedelta(days=n) for n in range(options.partitions)]
    console = Console()
    settings = EmulatorSettings(
        start=FIRST_DAY,
        days=len(days),
        events_per_day=options.events,
        profiles=10,
        rate_limits=None,
    )
    with tempfile.TemporaryDirectory() as folder, Emulator(settings) as emulator:
        plenty = {f"MP_BUDGET_EXPORT_PER_{span}": "1000000" for span in ("HOUR", "SECOND")}
        environment = {**environment_of(emulator), **plenty, "MP_START_DATE": str(FIRST_DAY)}
        alone = one_run(Setup(Path(folder) / "range", environment), days)
        parallel = many_runs(Setup(Path(folder) / "many", environment), days, options)
        figures, problems = [alone, parallel], []
        if options.kill:
            killed = Setup(Path(folder) / "killed", environment)
            figures.append(many_runs(killed, days, options, kill=options.kill))
        truth = truth_of(emulator, days)
        for figure in figures:
            problems += problems_of(figure, alone, truth)
        console.print(table_of(figures, options))
    for problem in problems:
        console.print(problem)
    sys.exit(bool(problems))


def one_run(setup: Setup, days: list[date]) -> Figure:
    """Load all days in one run."""
    began = time.perf_counter()
    process = setup.start("range", str(days[0]), str(days[-1]))
    process.communicate()
    seconds = time.perf_counter() - began
    return Figure("one range run", seconds, setup, failed=int(process.returncode != 0))


def many_runs(
    setup: Setup, days: list[date], options: argparse.Namespace, *, kill: int = 0
) -> Figure:
    """Load each day in its own run, in several processes, while others read."""
    first, rest = days[0], [str(day) for day in days[1:]]
    setup.start("days", str(first)).communicate()  # so that readers find data
    name = f"{options.processes} processes{', SIGKILL' if kill else ''}"
    figure = Figure(name, 0.0, setup, killed=kill)
    with readers(setup, options.every, figure):
        began = time.perf_counter()
        shares = [rest[n :: options.processes] for n in range(options.processes)]
        workers = [Worker(setup, share) for share in shares if share]
        random_choice = random.Random(17).choice
        while running := [worker for worker in workers if worker.is_running()]:
            stored = sum(len(worker.stored()) for worker in workers)
            if kill and stored >= len(rest) * (figure.killed - kill + 1) / (figure.killed + 2):
                random_choice(running).kill()
                kill -= 1
            time.sleep(0.05)
        figure.seconds = time.perf_counter() - began
    figure.killed -= kill
    figure.failed = sum(worker.failures for worker in workers)
    return figure


@dataclass(frozen=True)
class Truth:
    """The emulator's rows by day that can be stored, and the number of rows that cannot."""

    rows: dict[str, int]
    unstorable: int


def truth_of(emulator: Emulator, days: list[date]) -> Truth:
    """Return the expected contents of the database."""
    unstorable = {str(day): len(emulator.truth.unstorable(day)) for day in days}
    events = emulator.truth.totals(days[0], days[-1])["days"]
    rows = {day: count - unstorable[day] for day, count in events.items()}
    return Truth(rows, sum(unstorable.values()))


class Worker:
    """A share of the days, loaded by one process after another until all are stored."""

    def __init__(self, setup: Setup, days: list[str]) -> None:
        self._setup = setup
        self._days = days
        self._output = setup.folder / f"{days[0]}.stored"
        self.failures = 0
        self._was_killed = False
        self._start()

    def _start(self) -> None:
        with self._output.open("a") as output:
            left = [day for day in self._days if day not in self.stored()]
            self._process = self._setup.start("days", *left, output=output)

    def stored(self) -> list[str]:
        """Return the days with successful runs."""
        return self._output.read_text().split()

    def is_running(self) -> bool:
        """Return whether days are left; start a new process for them if the last one ended."""
        ended = self._process.poll() is not None
        left = len(self._days) - len(self.stored())
        if ended and left:
            self.failures += not self._was_killed
            self._was_killed = False
            if self.failures > len(self._days):
                raise SystemExit(self._setup.errors()[-5000:])
            self._start()
        return bool(left)

    def kill(self) -> None:
        """End the process, as the kernel does if memory is low."""
        self._was_killed = True
        self._process.kill()
        self._process.wait()


@contextmanager
def readers(setup: Setup, every: float, figure: Figure) -> Iterator[None]:
    """Read in other processes during the block."""
    processes = {name: setup.start("read", name, "--every", str(every)) for name in READERS}
    with ExitStack() as ended:
        for reader in processes.values():
            ended.callback(reader.kill)
        yield
        for name, reader in processes.items():
            output, _ = reader.communicate()
            figure.reads[name] = Reads(**json.loads(output))


def problems_of(figure: Figure, alone: Figure, truth: Truth) -> Iterator[str]:
    """Yield a description of each problem."""
    for path in (figure.setup.database, copy_path(figure.setup.database)):
        with duckdb.connect(path, read_only=True) as connection:
            stored = {
                str(day): rows
                for day, rows in connection.execute(
                    "SELECT event_date, count(*) FROM mixpanel.events GROUP BY ALL"
                ).fetchall()
            }
            connection.execute(f"ATTACH '{alone.setup.database}' AS alone (READ_ONLY)")
            [(refused,)] = connection.execute(
                "SELECT count(*) FROM mixpanel._quarantine"
            ).fetchall()
            columns = (
                "event_date, event_name, event_time, distinct_id, insert_id, properties::VARCHAR"
            )
            mine, theirs = (
                f"SELECT {columns} FROM {name}mixpanel.events" for name in ("", "alone.")
            )
            [(different,)] = connection.execute(
                f"SELECT count(*) FROM (({mine} EXCEPT ALL {theirs}) UNION ALL "
                f"({theirs} EXCEPT ALL {mine}))"
            ).fetchall()
        wrong = sum(stored.get(day, 0) != rows for day, rows in truth.rows.items())
        if different or wrong or refused != truth.unstorable or stored.keys() - truth.rows:
            yield (
                f"{figure.name}, {path.name}: {different} rows differ from those of one range run, "
                f"{wrong} days from the truth; {refused} of {truth.unstorable} in quarantine"
            )
    for name, reads in figure.reads.items():
        if reads.refused or reads.backwards:
            yield f"{figure.name}: reads through the {name} failed: {reads}"
    if figure.failed:
        yield f"{figure.name}: {figure.failed} runs failed: {figure.setup.errors()[-2000:]}"
    drafts = list(figure.setup.folder.glob("*.new*"))
    if drafts or lock_errors(figure):
        yield f"{figure.name}: {lock_errors(figure)} lock errors, left over: {drafts}"


def lock_errors(figure: Figure) -> int:
    """Return the number of lock errors in the output of all processes."""
    text = figure.setup.errors()
    return sum(text.count(words) for words in LOCK_ERRORS)


def table_of(figures: list[Figure], options: argparse.Namespace) -> Table:
    """Return the figures as a table with one column per way."""
    table = Table(title=f"{options.partitions} partitions, about {options.events} events each")
    table.add_column("")
    for figure in figures:
        table.add_column(figure.name, justify="right")
    rows = {
        "seconds": [f"{one.seconds:.1f}" for one in figures],
        "ratio": [f"{one.seconds / figures[0].seconds:.2f}" for one in figures],
        "killed processes": [str(one.killed) for one in figures],
        "failed runs": [str(one.failed) for one in figures],
        "lock errors": [str(lock_errors(one)) for one in figures],
    }
    for name in READERS:
        reads = [one.reads.get(name, Reads()) for one in figures]
        rows |= {
            f"reads through the {name}": [str(one.reads) for one in reads],
            "  refused": [str(len(one.refused)) for one in reads],
            "  slowest": [f"{one.slowest:.2f} s" for one in reads],
            "  oldest data": [f"{one.oldest:.0f} s" for one in reads],
        }
        for row in list(rows.items()):
            table.add_row(row[0], *row[1])
        rows = {}
    return table


if __name__ == "__main__":
    main()
