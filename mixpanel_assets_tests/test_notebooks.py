"""A notebook: DuckDB behaves otherwise in one, and its reader sees every result."""

import os
import subprocess
import sys

import pytest

from mixpanel_assets.cli.demo import environment_of

# As far as DuckDB looks: no `__file__`, and an IPython that runs a kernel. There is no ipywidgets,
# without which it refuses every word about progress bars.
KERNEL = """
import sys, types
class Shell:
    config = {"IPKernelApp": {}}
sys.modules["IPython"] = types.SimpleNamespace(get_ipython=Shell)
sys.modules["ipywidgets"] = None
"""
CELLS = """
import duckdb, mixpanel_assets as mp
try:
    duckdb.sql("SET enable_progress_bar = false")
except duckdb.InvalidInputException:
    print("in a notebook")
asked = {"from_date": "2024-01-01", "to_date": "2024-01-02"}
ws = mp.Workspace()
print(ws.fetch_events("two", **asked).rows == ws.sql_scalar("SELECT count(*) FROM two"))
print(ws.connection.sql("SELECT count(*) > 0 FROM two").fetchone())
for place in (mp.Workspace.ephemeral, mp.Workspace.memory):
    with place() as other:
        print(other.fetch_events("two", **asked).rows == len(other.sql("FROM two")))
ws.close()
"""


@pytest.mark.slow
def test_everything_works_in_a_notebook_without_widgets(emulator, tmp_path):
    """Tables are created and queried, in a file and elsewhere, without a warning."""
    variables = {**environment_of(emulator), "MP_DATABASE": str(tmp_path / "shop.duckdb")}
    done = subprocess.run(
        [sys.executable, "-c", KERNEL + CELLS],
        env={**os.environ, **variables},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["in a notebook", "True", "(True,)", "True", "True"]
    assert done.stderr == ""
