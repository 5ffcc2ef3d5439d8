"""Run the benchmarks and write what they print as a page of the documentation.

`./run bench --page` writes docs/benchmarks.md. `--scale 0.1` takes a tenth of the events, and
`--only load stream` runs these alone; the page says of the others that they were not run. The
programs to compare with run in environments of their own, such as `--dlt-python env/bin/python`.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from benchmarks.show import AS_MARKDOWN

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PROGRAMS = {
    "headless": "mixpanel-headless",
    "dlt": "dlt",
    "io-manager": "dagster-duckdb-pandas",  # Dagster's own IO manager for DuckDB
}


@dataclass(frozen=True)
class Section:
    """One benchmark on the page: what it measures, its full sizes, and the other programs."""

    title: str
    name: str
    text: str
    sizes: dict[str, list[int]]
    options: list[str] = field(default_factory=list)
    programs: tuple[str, ...] = ()

    def command(self, scale: float, pythons: dict[str, str]) -> list[str]:
        """Return the arguments of the benchmark at this scale."""
        command = [self.name, *self.options]
        for option, sizes in self.sizes.items():
            command += [option, *(str(max(1, round(size * scale))) for size in sizes)]
        for program in self.programs:
            if program in pythons:
                command += [f"--{program}-python", pythons[program]]
        return command


SECTIONS = (
    Section(
        "Load",
        "load",
        "A received day of events is stored in a new file. `scan` only reads the lines, and "
        "`pandas` makes a DataFrame of them and inserts it. "
        "Imports count, which matters for few events.",
        {"--events": [250_000]},  # of a million, dlt takes more than ten minutes
        programs=("dlt", "io-manager"),
    ),
    Section(
        "End to end",
        "end_to_end",
        "A week is downloaded over loopback, checked and stored, with two memory limits. `lines` "
        "is the download alone.",
        {"--events": [577_526]},
        programs=("headless",),
    ),
    Section(
        "Stream",
        "stream",
        "A day is read event by event and not stored: a small day, then a large one.",
        {"--events": [1_000_000]},
        programs=("headless",),
    ),
    Section(
        "Profiles",
        "profiles",
        "All profiles are fetched and stored, or read one by one. The emulator runs on the same "
        "cores, so the rates are lower bounds.",
        {"--profiles": [1_000_000], "--streamed": [500_000], "--few": [10_000]},
        programs=("headless",),
    ),
    Section(
        "Backfill",
        "backfill",
        "What Dagster adds to a load: all days in one run, and each day in a run of its own.",
        {"--events-per-day": [2_000]},
    ),
    Section(
        "Lake",
        "lake",
        "A file beside a [lake](scale.md#the-lake) on disk and on S3, all on one machine. Then one "
        "writer and eight, which replace days of the lake.",
        {"--events": [500_000], "--small": [20_000]},
        ["--only", "compared", "written"],
    ),
    Section(
        "Memory",
        "memory",
        "The peak memory of a process, by the number of events of a day.",
        {"--sizes": [10_000, 100_000, 1_000_000, 10_000_000]},
        programs=("headless",),
    ),
)


def main() -> int:
    """Run the benchmarks and write the page. If one fails, the page is kept as it was."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [section.name for section in SECTIONS]
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--scale", type=float, default=1.0, help="of the full number of events")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    for program, package in PROGRAMS.items():
        parser.add_argument(f"--{program}-python", dest=program, help=f"interpreter with {package}")
    options = parser.parse_args()
    pythons = {program: python for program in PROGRAMS if (python := vars(options)[program])}
    # Before the measurements, which may take an hour.
    versions = {program: version_of(program, python) for program, python in pythons.items()}
    parts = [introduction(options.scale)]
    for section in SECTIONS:
        parts += [f"## {section.title}", section.text]
        if section.name in options.only:
            parts.append(printed(section.command(options.scale, pythons)))
            parts += [compared_with(program, versions) for program in section.programs]
        else:
            parts.append(f"Not run. `./run bench {section.name}` runs it.")
    options.out.write_text("\n\n".join(parts) + "\n")
    print(f"Wrote {options.out}.")
    return 0


def introduction(scale: float) -> str:
    """Return where, when and with which versions the figures were measured."""
    load, _, _ = os.getloadavg()
    rows = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "size": f"{f'{scale:g} of ' if scale != 1 else ''}the full number of events",
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 1e9:.1f} GB",
        "load average at the start": f"{load:.1f}",
        "system": platform.platform(terse=True),
        "Python": platform.python_version(),
        **{name: version(name.lower()) for name in ("mixpanel-assets", "DuckDB", "Dagster")},
    }
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "`./run bench --page` writes this page. All data is invented, and all servers run on",
            "the same machine. The ratios (`x`) compare ways on this machine.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in rows.items()),
            "",
            "ingestr has no setting for the address of Mixpanel, so it was not run here.",
            "[Compared with other loaders](comparison.md) shows what it stored through a proxy.",
        ]
    )


def processor() -> str:
    """Return the name of the processor, as well as the system knows it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def printed(command: list[str]) -> str:
    """Run a benchmark and return what it prints."""
    print("Running", *command, file=sys.stderr)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *command],
        env={**os.environ, AS_MARKDOWN: "yes"},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout.strip()


def version_of(program: str, python: str) -> str:
    """Return the version of another program in its environment."""
    code = f"import importlib.metadata as found; print(found.version({PROGRAMS[program]!r}))"
    try:
        return subprocess.check_output([python, "-c", code], text=True).strip()
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"--{program}-python: {python} has no {PROGRAMS[program]}: {error}")


def compared_with(program: str, versions: dict[str, str]) -> str:
    """Return the version of another program, or that it was not run."""
    if program not in versions:
        return f"{PROGRAMS[program]} was not run (`--{program}-python`)."
    return f"{PROGRAMS[program]} is version {versions[program]}."


if __name__ == "__main__":
    sys.exit(main())
