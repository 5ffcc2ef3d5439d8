"""The benchmarks at small size: they run, and they count what they measure.

Those that start many processes or Dagster runs are among the slow proofs.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


QUICK = [
    "load --events 500 --runs 1 --without-pandas",
]
SLOW = [
    "end_to_end --events 700 --runs 1",
    "serve --events 500",
    "stream --events 500",
    "pages --pages 4 --latency 0.01",
    "profiles --profiles 1500 --streamed 1500 --few 500",
    "backfill --days 3 --singles 1 --events-per-day 20",
    "parallel_runs --partitions 3 --processes 2 --events 40 --kill 1 --every 0.1",
]


@pytest.mark.parametrize(
    "arguments",
    [
        *(pytest.param(one, id=one.split()[0]) for one in QUICK),
        *(pytest.param(one, id=one.split()[0], marks=pytest.mark.slow) for one in SLOW),
    ],
)
def test_a_benchmark_runs_at_small_size(arguments):
    """Whoever changes what a benchmark uses learns of it here."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "│" in done.stdout
