"""A project of the shape that create-dagster makes, whose only new dependency is our wheel."""

import json
import subprocess
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest

from mixpanel_assets_tests.dagster_server import ROOT, Dagster, served

pytestmark = pytest.mark.slow  # builds a wheel and starts some `dg` commands
DAY, NEXT_DAY = "2024-01-02", "2024-01-03"
FILES = {
    "pyproject.toml": """
        [project]
        name = "host"
        requires-python = ">=3.11"
        version = "0.1.0"
        dependencies = ["dagster", "mixpanel-assets"]

        [tool.dg]
        directory_type = "project"

        [tool.dg.project]
        root_module = "host"
        """,
    "src/host/__init__.py": "",
    "src/host/defs/__init__.py": "",
    "src/host/definitions.py": """
        from pathlib import Path

        import dagster as dg


        @dg.definitions
        def defs():
            return dg.Definitions.merge(
                dg.load_from_defs_folder(path_within_project=Path(__file__).parent),
                dg.Definitions(executor=dg.multiprocess_executor),
            )
        """,
    # What the host has of its own: a job of a name that is ours without a prefix, a resource
    # `warehouse`, and an asset that reads events and stores rows in the same file.
    "src/host/defs/theirs.py": """
        import dagster as dg
        import pandas as pd


        @dg.op(required_resource_keys={"warehouse"})
        def close(context):
            assert context.resources.warehouse == "theirs"


        @dg.job
        def close_yesterday():
            close()


        @dg.asset(
            key=["shop", "counts"],
            ins={"events": dg.AssetIn(["shop", "events"])},
            partitions_def=dg.DailyPartitionsDefinition("2024-01-01", end_offset=1),
            io_manager_key="shop_warehouse",
            metadata={"partition_expr": "event_date"},
        )
        def counts(events: pd.DataFrame) -> pd.DataFrame:
            return events.groupby(["event_date", "event_name"]).size().reset_index(name="events")


        @dg.definitions
        def defs():
            return dg.Definitions(
                assets=[counts], jobs=[close_yesterday], resources={"warehouse": "theirs"}
            )
        """,
}
EXECUTORS = """
import json
from host.definitions import defs
found = defs().resolve_all_job_defs()
print(json.dumps({job.name: job.executor_def.name for job in found}))
"""


class Host:
    """A host project with an environment of its own."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder, self.home = folder / "host", folder / "dagster_home"
        for name, content in FILES.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(content).lstrip())
        self.home.mkdir()
        self._bin = folder / "venv" / "bin"
        call = [sys.executable, "-m"]
        subprocess.run([*call, "venv", "--without-pip", folder / "venv"], check=True)
        [site] = (folder / "venv" / "lib").glob("python*/site-packages")
        subprocess.run(
            [*call, "pip", "install", "--quiet", "--no-deps", "--target", site, wheel], check=True
        )
        # What the tests' environment has, but not its link to the source tree.
        others = [self.folder / "src", sysconfig.get_path("purelib")]
        (site / "others.pth").write_text("".join(f"{place}\n" for place in others))
        dg = self._bin / "dg"
        # A step's process imports this file too.
        start = "from dagster_dg_cli.cli import main\nif __name__ == '__main__':\n    main()\n"
        dg.write_text(f"#!{self._bin / 'python'}\n{start}")
        dg.chmod(0o755)

        self.environment = {
            "PATH": f"{self._bin}:/usr/bin:/bin",
            "HOME": str(self.home),
            "VIRTUAL_ENV": str(self._bin.parent),
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "PYTHONWARNINGS": "ignore",
        }

    def run(self, *words: str) -> str:
        """Return what a command of the environment prints."""
        done = subprocess.run(
            [self._bin / words[0], *words[1:]],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    @contextmanager
    def ui(self) -> Iterator[Dagster]:
        """Serve the project by `dg dev`."""
        database = self.folder / "data" / "shop_demo.duckdb"
        with served(
            [str(self._bin / "dg"), "dev"], self.folder, self.environment, database
        ) as dagster:
            yield dagster

    def rows(self, name: str, query: str) -> list[tuple]:
        place = self.folder / "data" / f"{name}_demo.duckdb"
        with duckdb.connect(str(place), read_only=True) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_a_host_project_gets_two_projects_and_keeps_its_own(tmp_path, wheel):
    """Scaffold, check, list, launch and serve with `dg`; no account, no variable."""
    host = Host(tmp_path, wheel)
    place = host.run("python", "-c", "import mixpanel_assets; print(mixpanel_assets.__file__)")
    assert place.startswith(str(tmp_path))
    kind = "mixpanel_assets.MixpanelComponent"
    assert kind in host.run("dg", "list", "components", "--json")
    for name, region in (("shop", "us"), ("shop_eu", "eu")):
        options = ["--demo", "true", "--region", region, "--start-date", "2024-01-01"]
        host.run("dg", "scaffold", "defs", kind, name, *options)
    host.run("dg", "check", "yaml", "--validate-requirements")
    host.run("dg", "check", "defs")
    assert not (host.folder / "data").exists()
    listed = json.loads(host.run("dg", "list", "defs", "--json"))
    assert {asset["asset_key"] for asset in listed["assets"]} == {
        *(f"{name}/{table}" for name in ("shop", "shop_eu") for table in ("events", "profiles")),
        "shop/counts",
    }
    executors = json.loads(host.run("python", "-c", EXECUTORS))
    theirs = {executors.pop(name) for name in ("close_yesterday", "__ASSET_JOB")}
    assert theirs == {"multiprocess"}
    assert set(executors.values()) == {"in_process"}
    assert all(name.startswith("shop_") for name in executors)
    keys = "shop/events,shop/counts,shop_eu/events"
    host.run("dg", "launch", "--assets", keys, "--partition", DAY)
    events = {
        name: host.rows(name, "SELECT event_date, distinct_id FROM mixpanel.events ORDER BY ALL")
        for name in ("shop", "shop_eu")
    }
    assert len(events["shop"]) > 100
    assert len(events["shop_eu"]) > 100
    assert events["shop"] != events["shop_eu"]
    [(counted,)] = host.rows("shop", "SELECT sum(events)::BIGINT FROM shop.counts")
    assert counted == len(events["shop"])
    host.run("dg", "launch", "--job", "close_yesterday")
    with host.ui() as dagster:
        run = dagster.launch(NEXT_DAY, "shop_close_yesterday", "events", project="shop")
        assert dagster.ended(run)["status"] == "SUCCESS"
    days = host.rows("shop", "SELECT DISTINCT event_date::VARCHAR FROM mixpanel.events ORDER BY 1")
    assert days == [(DAY,), (NEXT_DAY,)]
    # The emulator that the first run started ends when its folder says so.
    (host.home / "mixpanel_demo" / "emulator.json").unlink()
