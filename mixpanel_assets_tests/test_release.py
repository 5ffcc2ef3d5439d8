"""What a release consists of: the archives, the tested versions, and the workflows that make it."""

import json
import os
import re
import runpy
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest
import yaml

from mixpanel_assets import __version__

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUN = (ROOT / "run").read_text()
WORKFLOWS = {
    path.name: yaml.safe_load(path.read_text())
    for path in (ROOT / ".github" / "workflows").glob("*.yml")
}
# As it was before the tests' own: the registry is reached through it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("MP_")}


def versions(name: str) -> dict[str, set[str]]:
    """Return the pinned versions of a file of requirements, by name."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / name).read_text().splitlines():
        if pinned := re.match(r"([\w.-]+)==(\S+)", line):
            found.setdefault(pinned[1], set()).add(pinned[2])
    return found


def required(requirements: list[str]) -> set[str]:
    """Return the names of requirements as pyproject.toml has them."""
    return {re.match(r"[\w.-]+", one)[0] for one in requirements}


def test_the_constraints_are_the_tested_versions_of_what_users_install():
    """Those of requirements.txt, without the tools for development. `./run build` renews them."""
    constraints, lock = versions("constraints.txt"), versions("requirements.txt")
    assert {name: lock[name] for name in constraints} == constraints
    project, groups = PROJECT["project"], PROJECT["dependency-groups"]
    extras = project["optional-dependencies"].values()
    installed = required([*project["dependencies"], *chain.from_iterable(extras)])
    assert installed <= constraints.keys()
    # psutil and pyyaml come with Dagster too.
    tools = required(groups["dev"]) - installed - {"psutil", "pyyaml"}
    assert not tools & constraints.keys()


def test_proposed_updates_change_both_files_of_versions():
    """Dependabot reads requirements of these names only, and one group changes them together."""
    [pip] = [
        one
        for one in yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
        if one["package-ecosystem"] == "pip"
    ]
    assert pip["directory"] == "/"
    assert len(pip["groups"]) == 1
    read = {path.name for path in ROOT.iterdir() if path.suffix in (".txt", ".in")}
    assert read == {"requirements.txt", "constraints.txt"}


def test_the_readme_of_the_archives_has_no_link_that_leads_nowhere():
    """A package index shows it alone: each link to a file has become the name of that file."""
    namespace = runpy.run_path(str(ROOT / "hatch_build.py"))
    readme = (ROOT / "README.md").read_text()
    shown = namespace["without_links"](readme)
    relative = re.compile(r"\]\((?!https?:|#)")
    links = re.findall(r"(?<!!)\[[^]]+\]\(([^)#]+)", readme)
    assert relative.search(readme)
    assert not relative.search(shown)
    assert "images/" not in shown
    for path in links:
        assert f"(`{path}`)" in shown
        assert (ROOT / path).exists()


def test_the_changelog_begins_with_this_version():
    """In the usual form, with a date or as unreleased."""
    text = (ROOT / "CHANGELOG.md").read_text()
    first = re.search(r"^## \[(.+?)\] - (unreleased|\d{4}-\d\d-\d\d)$", text, re.MULTILINE)
    assert first[1] == __version__
    kinds = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def steps() -> list[tuple[str, str]]:
    """Return each shell command of the workflows, with the name of its file."""
    return [
        (name, step["run"])
        for name, workflow in WORKFLOWS.items()
        for job in workflow["jobs"].values()
        for step in job["steps"]
        if "run" in step
    ]


def test_workflows_call_commands_that_exist():
    """`./run check` and its siblings, with options that `./run` or pytest knows."""
    called = [
        words for _, text in steps() for words in re.findall(r"^\./run (.*)$", text, re.MULTILINE)
    ]
    assert {words.split()[0] for words in called} == {"check", "docs", "build", "audit"}
    for words in called:
        command, *options = words.split()
        assert re.search(rf"^{command}\)", RUN, re.MULTILINE), command
        for option in options:
            assert option in RUN or option == '"$VERSIONS"', option
    [matrix] = [
        job["strategy"]["matrix"]["include"]
        for name, job in WORKFLOWS["ci.yml"]["jobs"].items()
        if name == "versions"
    ]
    assert {case["versions"] for case in matrix} == {"oldest", "newest"}


def test_ci_runs_each_version_of_python_that_is_declared():
    """The classifiers of pyproject.toml are the matrix of the workflow."""
    declared = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert WORKFLOWS["ci.yml"]["jobs"]["check"]["strategy"]["matrix"]["python"] == declared


def test_workflows_get_no_more_than_they_need():
    """No permission for a whole workflow, no secret, and actions that cannot change unseen."""
    for name, workflow in WORKFLOWS.items():
        text = (ROOT / ".github" / "workflows" / name).read_text()
        assert workflow["permissions"] == {}, name
        assert "secrets." not in text
        for job in workflow["jobs"].values():
            assert job["permissions"]
            assert job["timeout-minutes"]
        for used in re.findall(r"uses: (.*)", text):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", used), used


def test_forms_for_reports_ask_for_what_is_needed():
    """Each form has a name; those for failures and wrong data ask for the version."""
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.name != "config.yml":
            assert {"name", "description", "body"} <= form.keys()
        if path.name in ("failure.yml", "wrong_data.yml"):
            assert "mp --version" in path.read_text()


def ran(*words: str | Path, folder: Path, **variables: str) -> str:
    """Return what a command prints."""
    done = subprocess.run(
        words, cwd=folder, env=ENVIRONMENT | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive, and the wheel that was built from it, where no clone is."""
    folder = tmp_path_factory.mktemp("archives")
    build = (sys.executable, "-m", "hatchling", "build", "-d", folder)
    ran(*build, "-t", "sdist", folder=ROOT)
    [source] = folder.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    ran(*build, "-t", "wheel", folder=folder / source.name.removesuffix(".tar.gz"))
    [wheel] = folder.glob("*.whl")
    return source, wheel


@pytest.mark.slow  # builds two archives
def test_the_archives_contain_what_they_should(archives):
    """The wheel the package alone, the source archive all of the clone but pictures."""
    source, wheel = archives
    with tarfile.open(source) as archive:
        names = {
            Path(name).relative_to(Path(name).parts[0]).as_posix() for name in archive.getnames()
        }
    assert {"run", "constraints.txt", "requirements.txt", "docs/cli.md", "LICENSE"} <= names
    assert not [name for name in names if name.endswith(".png") or name.startswith(".venv")]
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
        [metadata] = [archive.read(name).decode() for name in files if name.endswith("METADATA")]
    assert {name.split("/")[0] for name in files} == {
        "mixpanel_assets",
        f"mixpanel_assets-{__version__}.dist-info",
    }
    assert "mixpanel_assets/py.typed" in files
    assert "Author: " in metadata
    assert "Description-Content-Type: text/markdown" in metadata
    assert "(`docs/tutorial.md`)" in metadata
    assert "Project-URL" not in metadata


@pytest.mark.slow  # installs all that a user gets
def test_the_wheel_works_without_the_source_and_without_tools(archives, tmp_path):
    """Installed by uv with the tested versions: the demo runs, and Dagster finds the component."""
    _, wheel = archives
    uv = Path(sys.executable).with_name("uv")
    python = tmp_path / "venv" / "bin" / "python"
    ran(uv, "venv", "--python", sys.executable, python.parents[1], folder=tmp_path)
    pinned = ("--constraint", ROOT / "constraints.txt")
    ran(uv, "pip", "install", "--python", python, *pinned, wheel, folder=tmp_path)
    code = """
        import importlib.util, json, mixpanel_assets
        for name in mixpanel_assets.__all__:
            getattr(mixpanel_assets, name)
        tools = ["pytest", "hypothesis", "polars", "ruff", "mypy", "trustme"]
        print(json.dumps([
            mixpanel_assets.__file__, [name for name in tools if importlib.util.find_spec(name)]
        ]))
    """
    place, tools = json.loads(ran(python, "-c", "if 1:" + code, folder=tmp_path))
    assert place.startswith(str(tmp_path))
    assert not tools
    loaded = "from mixpanel_assets.definitions import defs; print(len(defs.assets))"
    variables = {"MP_PROJECT_ID": "1", "DAGSTER_DISABLE_TELEMETRY": "yes"}
    ran(python, "-W", "ignore", "-c", loaded, folder=tmp_path, **variables)


@pytest.mark.slow  # the same as one command, as a newcomer types it
def test_uvx_runs_the_demo_from_the_wheel(archives, tmp_path):
    """In an empty folder, without an account: each table is equal to what was generated."""
    _, wheel = archives
    uvx = Path(sys.executable).with_name("uvx")
    pinned = ("--constraints", ROOT / "constraints.txt", "--python", sys.executable)
    said = ran(uvx, *pinned, "--from", wheel, "mp", "demo", folder=tmp_path)
    assert said.count("equal") >= 8
    assert (tmp_path / "data" / "demo.duckdb").exists()
