"""Who may import whom, and what an import costs."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mixpanel_assets

PACKAGE = Path(mixpanel_assets.__file__).parent
# One entry for each room or face. An import within a function counts as well.
MAY_IMPORT = {
    "errors": set(),
    "rules": {"errors"},
    "results": set(),
    "emulator": set(),
    "client": {"errors", "results", "rules"},
    "warehouse": {"errors", "results", "rules"},
    "settings": {"client", "errors", "rules", "warehouse"},
    "auth": {"client", "errors", "results", "rules", "settings"},
    "loading": {"auth", "client", "errors", "results", "rules", "settings", "warehouse"},
    "workspace": {
        *("auth", "client", "errors", "loading", "results", "rules", "settings", "warehouse"),
    },
    "defs": {
        *("client", "errors", "loading", "results", "rules", "settings", "warehouse", "workspace"),
        *("auth", "emulator"),  # the emulator for components with `demo: true`
    },
    "definitions": {"defs"},
    "__init__": None,  # offers the public names lazily
    "cli": None,  # the commands import what they need, inside the command
}
# Former homes of documented names, and the version that removes them.
FORWARDS = {"literals": "0.2", "ops": "0.2", "verification": "0.2"}
RENAMED = {
    "ops": ["DatedQuestion", "Question"]
}  # their new names are DatedReportConfig, ReportConfig


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


def test_the_package_has_these_rooms_and_no_other_entry():
    """A new entry at the top needs a reason: fourteen rooms and faces, and the forwards."""
    assert parts().keys() == MAY_IMPORT.keys() | FORWARDS.keys()
    assert len(MAY_IMPORT) == 14


def test_forwards_are_kept_until_the_version_that_removes_them():
    """A forward says where the names are now, and is deleted when its time is over."""
    version = tuple(int(number) for number in mixpanel_assets.__version__.split(".")[:2])
    for name, removed_in in FORWARDS.items():
        (path,) = parts()[name]
        assert f"it goes with version {removed_in}." in path.read_text()
        assert version < tuple(int(number) for number in removed_in.split("."))


@pytest.mark.parametrize("name", FORWARDS)
def test_a_forward_warns_and_names_the_new_place(name):
    """The warning points at the line that imports it, and every name is there."""
    sys.modules.pop(f"mixpanel_assets.{name}", None)
    with pytest.warns(DeprecationWarning, match=f"version {FORWARDS[name]}") as warned:
        former = importlib.import_module(f"mixpanel_assets.{name}")
    told = str(warned[0].message).removeprefix("Import from ").partition(":")[0]
    home = importlib.import_module(told)
    names = [one for one in vars(former) if not one.startswith("_") and one != "warnings"]
    assert names
    assert [one for one in names if not hasattr(home, one)] == RENAMED.get(name, [])


@pytest.mark.parametrize(
    "part", sorted(name for name, may in MAY_IMPORT.items() if may is not None)
)
def test_imports_follow_the_arrows(part):
    """No part imports one that it may not know."""
    imported = {name for path in parts()[part] for name in imported_parts(path)} - {part}
    assert imported <= MAY_IMPORT[part]


def test_library_rooms_load_without_dagster():
    """A notebook can import the library half with no orchestrator in sight."""
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for room in MAY_IMPORT.keys() - {"cli", "defs", "definitions"}  # `mp demo` runs Dagster
        for path in parts()[room]
    ]
    loaded = modules_after("import " + ", ".join(["mixpanel_assets.cli", *modules]))
    assert {"duckdb", "httpx"} <= loaded
    assert "dagster" not in loaded


def test_importing_a_module_reads_no_setting():
    """Several projects can be defined in one process; only `definitions` stands for itself."""
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for room in ("auth", "client", "defs", "loading", "settings", "warehouse", "workspace")
        for path in parts()[room]
    ]
    modules_after("import os; os.environ['MP_TIME_ZONE'] = 'wrong'; import " + ", ".join(modules))


def test_only_the_warehouse_names_the_class_of_a_database():
    """Other rooms open one by `database_at` or `Settings.database_for`."""
    for room in MAY_IMPORT.keys() - {"warehouse"}:
        for path in parts()[room]:
            made = re.search(r"\b(Database|Lake|ReadersDatabase)\(", path.read_text())
            assert not made, f"{path}: {made}"


def test_only_the_factory_makes_a_lake():
    """`database_at` decides by the location; a lake makes itself readers alone."""
    makers = {
        path.name
        for path in parts()["warehouse"]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Lake"
    }
    assert makers == {"readers_copy.py", "lake.py"}


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


def test_importing_a_public_name_builds_nothing_and_reads_no_setting():
    """`dg` imports each name of a registered package; an exception would end its command."""
    code = """
import os, sys
os.environ |= dict.fromkeys(["MP_START_DATE", "MP_GROUPS", "MP_TIME_ZONE", "MP_REGION"], "wrong")
os.environ |= {"MP_CONFIG_PATH": "/nowhere", "MP_DATABASE": "/nowhere/x"}
opened = []
forbidden = ("sqlite3.connect", "socket.connect", "duckdb.connect")
sys.addaudithook(lambda event, _: event in forbidden and opened.append(event))
import mixpanel_assets
for name in dir(mixpanel_assets):
    getattr(mixpanel_assets, name)
assert not opened, opened
assert "mixpanel_assets.definitions" not in sys.modules
"""
    modules_after(code)


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print('\\nMODULES', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split("\nMODULES")[1].split()}
