"""The examples do what they say, against the emulator."""

import ast
import csv
import gzip
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets_tests.dagster_server import ROOT

EXAMPLES = ROOT / "examples"
FIRST, LAST = "2024-01-03", "2024-01-05"


@pytest.fixture
def here(emulator, tmp_path, monkeypatch) -> Path:
    """An empty folder, and an environment that points at the emulator."""
    for name, value in environment_of(emulator).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(script: str, *arguments: object) -> None:
    """Run a script of an example as its main program, in this process."""
    arguments_before, sys.argv = sys.argv, [script, *map(str, arguments)]
    try:
        runpy.run_path(str(EXAMPLES / "streaming" / script), run_name="__main__")
    finally:
        sys.argv = arguments_before


def stored(here: Path, sql: str) -> list[tuple]:
    """Return the rows of a query over the same days, which `mp sync` loaded."""
    from mixpanel_assets import Workspace

    with Workspace(path=here / "same.duckdb") as ws:
        ws.sync_events(FIRST, LAST)
        return list(ws.sql_rows(sql))


def test_the_pipeline_writes_each_order(here):
    """One row for each order that Mixpanel sent; duplicates, which a stream keeps, among them."""
    call("pipeline.py", FIRST, LAST, here / "orders.csv")
    with (here / "orders.csv").open() as file:
        rows = list(csv.DictReader(file))
    known = stored(here, "SELECT distinct_id FROM events WHERE event_name = 'Order Completed'")
    assert {row["user"] for row in rows} == {user for (user,) in known}
    assert len(rows) >= len(known) > 0
    assert all(row["currency"] for row in rows)
    assert not (here / "orders.part").exists()


def test_the_sum_takes_little_memory(here, capsys):
    """It counts each event once, and names the memory."""
    call("bounded_memory.py", FIRST, LAST)
    said = capsys.readouterr().out.splitlines()
    total, most = re.fullmatch(
        r"([\d,]+) events, at most ([\d.]+) MB of objects", said[-1]
    ).groups()
    counts = [int(line.split()[0].replace(",", "")) for line in said[:-1]]
    assert sum(counts) == int(total.replace(",", ""))
    assert float(most) < 50


def test_the_archive_has_each_line(here, emulator):
    """One file for each day; a second run requests none of them again."""
    call("raw.py", FIRST, LAST, here / "archive")
    files = sorted((here / "archive").iterdir())
    assert [file.name for file in files] == [f"2024-01-0{day}.jsonl.gz" for day in (3, 4, 5)]
    sizes = [len(gzip.decompress(file.read_bytes()).splitlines()) for file in files]
    sums = "SELECT row_count + duplicates_removed + quarantined"
    counts = stored(here, f"{sums} FROM mixpanel._days ORDER BY day")
    assert sizes == [lines for (lines,) in counts]
    requests = len(emulator.requests)
    call("raw.py", FIRST, LAST, here / "archive")
    assert len(emulator.requests) == requests


@pytest.mark.slow  # a process of `mp`
@pytest.mark.skipif(not shutil.which("jq"), reason="jq is not installed here")
def test_the_shell_counts_events(here):
    """The counts are those of the lines that were sent."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", EXAMPLES / "streaming" / "shell.sh", FIRST],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    counts = {
        name: int(n) for n, name in (line.split(None, 1) for line in done.stdout.splitlines())
    }
    assert counts["Order Completed"] > 0
    assert list(counts.values()) == sorted(counts.values(), reverse=True)


def test_the_notebook_runs_from_the_first_cell_to_the_last(here):
    """Each cell, in order, as a kernel does; the value of the last line is shown."""
    notebook = json.loads((EXAMPLES / "notebook.ipynb").read_text())
    names: dict[str, object] = {}
    shown = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            *body, last = ast.parse("".join(cell["source"])).body
            exec(compile(ast.Module(body, []), "cell", "exec"), names)
            if isinstance(last, ast.Expr):
                shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
            else:
                exec(compile(ast.Module([last], []), "cell", "exec"), names)
    funnel = names["funnel"]
    assert list(funnel["event"]) == ["Sign Up", "Order Completed"]
    assert funnel["users"][0] > 0
    assert (here / "data" / "notebook.duckdb").exists()
    assert all(len(frame) for frame in shown if hasattr(frame, "columns"))


@pytest.mark.slow  # two processes of dg
def test_the_dagster_project_loads_a_day_and_its_revenue(tmp_path):
    """`dg check` accepts it, and a run stores the events, the revenue and the check."""
    project = tmp_path / "shop"
    shutil.copytree(EXAMPLES / "dagster_project", project)
    (tmp_path / "home").mkdir(exist_ok=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MP_")},
        "DAGSTER_HOME": str(tmp_path / "home"),
        "PYTHONPATH": str(project / "src"),
        "PYTHONWARNINGS": "ignore",
    }

    def dg(*words: str) -> str:
        done = subprocess.run(
            [Path(sys.executable).with_name("dg"), *words],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    dg("check", "yaml")
    listed = json.loads(dg("list", "defs", "--json"))
    keys = {asset["asset_key"] for asset in listed["assets"]}
    assert keys >= {"mixpanel/events", "mixpanel/profiles", "mixpanel/daily_revenue"}
    assets = "mixpanel/events,mixpanel/daily_revenue"
    dg("launch", "--assets", assets, "--partition", FIRST)
    database = project / "data" / "mixpanel_demo.duckdb"
    with duckdb.connect(database, read_only=True) as connection:
        rows = connection.execute("SELECT orders, amount FROM mixpanel.daily_revenue").fetchall()
    assert rows
    assert sum(orders for orders, _ in rows) > 0
    (tmp_path / "home" / "mixpanel_demo" / "emulator.json").unlink()
