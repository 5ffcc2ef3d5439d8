"""The benchmarks at small size: they run, and they count what they measure.

Those that start many processes or Dagster runs are among the slow proofs.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from benchmarks.page import SECTIONS
from benchmarks.show import as_markdown

ROOT = Path(__file__).parents[1]


SLOW = [
    "load --events 500 --runs 1 --without-pandas",
    "serve --events 500",
    "pages --pages 4 --latency 0.01",
    "parallel_runs --partitions 3 --processes 2 --events 40 --kill 1 --every 0.1",
]


def printed(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [pytest.param(one, id=one.split()[0]) for one in SLOW])
def test_a_benchmark_runs_at_small_size(arguments):
    """A change of what a benchmark uses is noticed here."""
    assert "│" in printed(*arguments.split())


def sections(page: str) -> dict[str, str]:
    """Return the text of each section of a page by its title."""
    _, *parts = re.split(r"^## (.+)\n", page, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.slow
def test_the_page_has_a_section_for_each_benchmark(tmp_path):
    """With the tables of those that were run; of the others it says that they were not."""
    path = tmp_path / "page.md"
    printed("--page", "--out", str(path), "--scale", "0.0005", "--only", "load")
    page = path.read_text()
    assert f"{os.cpu_count()} cores" in page
    assert "0.0005 of the full number of events" in page
    found = sections(page)
    assert list(found) == [section.title for section in SECTIONS]
    load = found.pop("Load")
    assert "125 events" in load
    assert "| scan |" in load
    assert "times as fast as pandas" in load
    assert "dlt was not run" in load
    assert all("Not run." in text and "|" not in text for text in found.values())


@pytest.mark.slow
def test_the_page_has_a_table_of_each_benchmark(tmp_path):
    """All of them run at a small size."""
    path = tmp_path / "page.md"
    printed("--page", "--out", str(path), "--scale", "0.001")
    found = sections(path.read_text())
    assert list(found) == [section.title for section in SECTIONS]
    assert all("\n| " in text and "Not run." not in text for text in found.values())


def test_an_environment_without_the_program_is_named_before_the_first_measurement(tmp_path):
    """The page is kept as it was."""
    path = tmp_path / "page.md"
    path.write_text("before")
    with pytest.raises(AssertionError, match=r"--dlt-python: .*/none has no dlt"):
        printed("--page", "--out", str(path), "--dlt-python", str(tmp_path / "none"))
    assert path.read_text() == "before"


def test_a_table_is_written_as_markdown():
    """Columns keep their sides, and a bar in a cell does not end it."""
    table = Table(title="Two ways")
    table.add_column("way")
    table.add_column("seconds", justify="right")
    table.add_row("a|b", "1.0")
    assert as_markdown(table).splitlines() == [
        "Two ways:",
        "",
        "| way | seconds |",
        "| --- | ---: |",
        "| a\\|b | 1.0 |",
    ]
