"""Who may import whom, and what an import costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mixpanel_assets

PACKAGE = Path(mixpanel_assets.__file__).parent
BASE = {"days", "errors", "settings", "made_ids"}
LINES = {"made_ids", "raw_json", "received_lines"}
MAY_IMPORT = {
    "days": {"errors"},
    "control_characters": set(),
    "errors": {"control_characters"},
    "refetch": set(),
    "settings": {"errors", "refetch", "wall_clocks"},
    "made_ids": set(),
    "raw_json": set(),
    "received_lines": {"raw_json"},
    "literals": set(),
    "results": {"literals"},
    "emulator": set(),
    "in_use": set(),
    "waits": {"control_characters", "errors"},
    "wall_clocks": set(),
    "client": {"days", "errors", "in_use", "literals", "waits", "wall_clocks", *LINES},
    "warehouse": {"errors", "in_use", "waits", "wall_clocks", *LINES},
    "accounts": {*BASE, "budgets", "client", "waits", "wall_clocks"},
    "auth": {"accounts", "client", "errors"},
    "budgets": {*BASE, "client"},
    "fetch_results": {"errors"},
    "progress": {"fetch_results"},
    "snapshots": {*BASE, "client"},
    "answers": {"errors", "results"},
    "charts": set(),
    "discovery": {"answers", "client", "errors", "literals", "results"},
    "live_query": {"answers", "client", "days", "discovery", "errors", "literals", "results"},
    "planning": set(),
    "load_progress": {"planning"},
    "loads": {*BASE, "client", "warehouse"},
    "profile_loads": {*BASE, "loads", "snapshots", "warehouse"},
    "profile_fetcher": {
        *BASE,
        *("client", "fetch_results", "loads", "profile_loads", "snapshots", "warehouse"),
    },
    "day_filler": {*BASE, "client", "load_progress", "planning", "warehouse"},
    "event_loads": {
        *BASE,
        *("client", "day_filler", "load_progress", "loads", "planning", "refetch", "warehouse"),
    },
    "currency": {*BASE, "planning", "refetch", "warehouse"},
    "verification": {
        *BASE,
        *("client", "event_loads", "loads", "planning", "refetch", "temporary", "warehouse"),
    },
    "doctor": {
        *BASE,
        *("accounts", "budgets", "client", "control_characters", "currency", "loads", "warehouse"),
    },
    "json_lines": {"control_characters"},
    "record_files": {"errors", "json_lines"},
    "event_days": {"client", "record_files"},
    "event_files": {*BASE, "client", "event_days", "record_files"},
    "profile_files": {*BASE, "client", "record_files"},
    "delegation": set(),
    "fetch_requests": {*BASE, "client", "warehouse"},
    "event_tables": {*BASE, "client", "fetch_requests", "loads", "planning", "warehouse"},
    "event_fetches": {
        *BASE,
        *("client", "event_loads", "event_tables", "fetch_requests", "fetch_results", "planning"),
        "warehouse",
    },
    "fetcher": {
        *BASE,
        *("client", "event_fetches", "event_loads", "fetch_requests", "fetch_results"),
        *("loads", "planning", "profile_fetcher", "warehouse"),
    },
    "dropped_days": {*BASE, "currency", "results", "warehouse"},
    "workspace": {
        *BASE,
        *("accounts", "budgets", "client", "currency", "delegation", "discovery", "doctor"),
        *(
            "dropped_days",
            "event_fetches",
            "event_loads",
            "fetch_requests",
            "fetch_results",
            "fetcher",
        ),
        *("inspection", "literals", "live_query", "loads", "planning", "profile_fetcher"),
        *("progress", "refetch", "results", "snapshots", "storage", "stored_queries"),
        "warehouse",
    },
    "temporary": {"in_use"},
    "table_metadata": {"days", "errors", "results", "warehouse"},
    "inspection": {"errors", "results", "table_metadata", "warehouse"},
    "storage": {
        *("errors", "inspection", "literals", "results", "table_metadata", "temporary"),
        "warehouse",
    },
    "stored_days": {"days", "errors", "table_metadata", "wall_clocks", "warehouse"},
    "stored_queries": {"errors", "results", "stored_days", "warehouse"},
    "partitions": BASE,
    "failures": {*BASE, "client"},
    "reports": {*BASE, "charts", "control_characters", "client", "snapshots", "warehouse"},
    "run_history": set(),
    "resources": {*BASE, "accounts", "budgets", "client", "workspace", "failures"},
    "frames": set(),
    "gaps": {"days", "errors", "warehouse"},
    "io_managers": {
        *BASE,
        *("failures", "frames", "gaps", "loads", "partitions", "planning", "warehouse"),
    },
    "schedules": {*BASE, "wall_clocks"},
    "project_days": {*BASE, "accounts", "client", "wall_clocks"},
    "freshness": BASE,
    "automation": {*BASE, "refetch", "schedules"},
    "jobs": {*BASE, "partitions"},
    "retention": {*BASE, "failures", "loads", "resources", "warehouse"},
    "assets": {
        *BASE,
        *("client", "event_loads", "failures", "live_query", "load_progress", "loads", "ops"),
        *("partitions", "profile_loads", "query_loads", "refetch", "reports", "resources"),
        *("project_days", "run_history", "snapshots", "warehouse"),
    },
    "query_loads": {*BASE, "loads", "warehouse"},
    "ops": {
        *BASE,
        *(
            "client",
            "control_characters",
            "event_files",
            "failures",
            "literals",
            "live_query",
            "profile_files",
        ),
        *("event_loads", "planning", "refetch"),
        *("project_days", "reports", "resources", "results", "verification", "warehouse"),
        "workspace",
    },
    "definitions": {
        *BASE,
        *("assets", "automation", "freshness", "io_managers", "jobs", "ops", "resources"),
        *("retention", "schedules"),
    },
    "cli": None,  # the commands import what they need, inside the command
    "__init__": None,  # offers the public names lazily
}


def parts() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in PACKAGE.rglob("*.py"):
        found.setdefault(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), []).append(path)
    return found


def imported_parts(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("mixpanel_assets."):
                yield name.split(".")[1]


def test_every_part_of_the_package_has_its_place():
    """A new module is given its arrows here."""
    assert parts().keys() == MAY_IMPORT.keys()


@pytest.mark.parametrize(
    "part", sorted(name for name, may in MAY_IMPORT.items() if may is not None)
)
def test_imports_follow_the_arrows(part):
    """No part imports one that it may not know."""
    imported = {name for path in parts()[part] for name in imported_parts(path)} - {part}
    assert imported <= MAY_IMPORT[part]


LIBRARY = [
    *("auth", "client", "warehouse", "workspace", "emulator", "cli", "event_loads"),
    *("live_query", "results", "storage", "stored_queries"),
    *("event_files", "frames", "gaps", "profile_files", "query_loads"),
    "verification",
]


def test_library_parts_load_without_dagster():
    """A notebook can import the library half with no orchestrator in sight."""
    imports = "; ".join(
        f"import mixpanel_assets.{part}; assert 'dagster' not in sys.modules, {part!r}"
        for part in LIBRARY
    )
    assert "dagster" not in modules_after(f"import sys; {imports}")


def test_the_public_names_pull_in_what_they_need_and_no_more():
    """Importing the package costs nothing; `Workspace` costs no Dagster and no data frames."""
    assert not {"dagster", "duckdb", "httpx", "pandas", "pydantic"} & modules_after(
        "import mixpanel_assets"
    )
    loaded = modules_after("from mixpanel_assets import Workspace")
    assert not {"dagster", "pandas", "pyarrow"} & loaded


def test_results_are_light_until_a_frame_is_built():
    """Naming a result loads no pandas, no pyarrow and no HTTP."""
    loaded = modules_after("from mixpanel_assets import SegmentationResult, JQLResult")
    assert not {"dagster", "duckdb", "httpx", "msgspec", "pandas", "pyarrow"} & loaded


def test_help_loads_no_heavy_library():
    """`mp --help` answers before any of the heavy imports."""
    code = "import sys; sys.argv = ['mp', '--help']\nfrom mixpanel_assets.cli.app import app\n"
    code += "app(standalone_mode=False)"
    assert not {"dagster", "pandas", "duckdb", "httpx"} & modules_after(code)


def test_type_checkers_are_told_that_there_are_types():
    """What they then find, mypy itself looks at: data/consumer.py is a program of public names."""
    assert (PACKAGE / "py.typed").exists()


def test_every_public_name_is_there():
    """What the package offers can be imported from it."""
    aliases = {
        "ParallelProfileFetchResult": "ParallelProfileResult",
        "ProfileBatchProgress": "ProfileProgress",
    }
    found = [getattr(mixpanel_assets, name).__name__ for name in mixpanel_assets.__all__]
    assert found == [aliases.get(name, name) for name in mixpanel_assets.__all__]


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print('\\nMODULES', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split("\nMODULES")[1].split()}
