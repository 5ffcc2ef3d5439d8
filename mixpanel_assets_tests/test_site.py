"""The documentation as a site, and the pages that a newcomer or a program follows word for word."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest
import yaml

from mixpanel_assets.warehouse.schema import TABLES, VIEWS
from mixpanel_assets_tests.dagster_server import wait_for
from mixpanel_assets_tests.test_layers import MAY_IMPORT, imported_parts, parts
from mixpanel_assets_tests.test_release import ENVIRONMENT, archives, ran  # noqa: F401

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SITE = ROOT / ".github" / "site"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def entries(nav: list) -> set[str]:
    """Return the pages of the site's menu."""
    found: set[str] = set()
    for entry in nav:
        [target] = entry.values() if isinstance(entry, dict) else [entry]
        found |= {target} if isinstance(target, str) else entries(target)
    return found


class Loader(yaml.SafeLoader):
    """Reads the configuration of the site, and leaves Python's own tags alone."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def test_each_page_is_in_the_menu_and_in_the_list_for_programs():
    """In `mkdocs.yml`, and in `llms.txt`, which needs no generated pages."""
    pages = {path.name for path in DOCS.glob("*.md")}
    menu = entries(yaml.load((SITE / "mkdocs.yml").read_text(), Loader)["nav"])
    assert {page for page in menu if "/" not in page} == {
        *pages,
        *("index.md", "contributing.md", "changelog.md", "examples.md"),
    }
    listed = re.findall(r"^- \[.+?\]\((.+?)\)", (DOCS / "llms.txt").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(pages)


def test_the_skill_has_what_programs_look_for():
    """A name and a description of when to use it, in front of the text."""
    _, head, text = (DOCS / "SKILL.md").read_text().split("---\n", 2)
    about = yaml.safe_load(head)
    assert about["name"] == "mixpanel-assets"
    assert "Use when" in about["description"]
    assert text.strip().startswith("# ")


@pytest.fixture(scope="module")
def pictures():
    """The module that draws, which stands beside the configuration of the site."""
    spec = importlib.util.spec_from_file_location("pictures", SITE / "pictures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def texts_in(picture: str) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(picture).iterfind(".//*")]


@pytest.mark.slow  # reads every module
def test_the_page_shows_each_picture_once(pictures):
    """A comment marks the place of each one."""
    text = (DOCS / "how-it-works.md").read_text()
    marks = re.findall(r"<!-- picture: (\w+) -->", text)
    assert sorted(marks) == sorted(pictures.PICTURES)
    assert pictures.with_pictures(text).count("<svg") == len(marks)


def test_the_picture_of_the_tables_has_each_column(pictures):
    """With its type and, when the pointer is on it, its meaning."""
    texts = texts_in(pictures.picture_of_tables())
    for table in TABLES:
        assert f"{table.grain}{table.name}" in texts
        for column in table.columns:
            assert f"{column.description}{column.name}" in texts
            assert column.type in texts


@pytest.mark.slow
def test_the_picture_of_the_parts_has_each_import_as_an_arrow_or_in_several_steps(pictures):
    """An arrow is an import, and each import can be followed along the arrows."""
    arrows = pictures.reduced(pictures.imports())
    assert set(arrows) == set(MAY_IMPORT) - {"__init__"}
    picture = pictures.picture_of_parts()
    assert picture.count("url(#tip)") == sum(len(ends) for ends in arrows.values())
    assert set(arrows) <= set(texts_in(picture))

    def reached(part):
        return arrows[part].union(*(reached(end) for end in arrows[part]))

    for part, ends in arrows.items():
        imported = {one for path in parts()[part] for one in imported_parts(path)} - {part}
        assert ends <= imported <= reached(part)


def test_parts_that_import_each_other_are_not_drawn_for_ever(pictures):
    """A picture from top to bottom has no place for them."""
    with pytest.raises(AssertionError, match="import each other"):
        pictures.rows({"a": {"b"}, "b": {"a"}})


@pytest.mark.slow  # installs MkDocs on first use
def test_the_site_is_built_with_strict_links(tmp_path):
    """Each link leads to a page and a heading; the reference has what the code has."""
    ran(ROOT / "run", "docs", str(tmp_path), folder=ROOT)
    pages = {
        path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.html")
    }
    assert "Workspace.sync_events" in pages["reference/python/index.html"]
    assert "MP_RETENTION_DAYS" in pages["reference/variables/index.html"]
    assert "mp sync" in pages["reference/commands/index.html"]
    assert not re.search(r" at 0x|&lt;factory|typing\.", pages["reference/python/index.html"])
    assert "time_raw" in pages["reference/tables/index.html"]
    assert all(f".{view}<" in pages["reference/tables/index.html"] for view in VIEWS)
    assert pages["how-it-works/index.html"].count("<figure><svg") == 2
    for link in re.findall(r"\]\((.+?)\)", (tmp_path / "llms.txt").read_text()):
        assert (tmp_path / link).read_text().startswith(("# ", "---\nname: ")), link
    # A page loads nothing from another host.
    loaded = re.compile(
        r'<(?:script|img)[^>]* src="?(https?:)|<link rel="?stylesheet"?[^>]*https?:'
    )
    assert not [name for name, text in pages.items() if loaded.search(text)]


@contextmanager
def emulator_of(command: str, environment: dict[str, str], folder: Path, url: str):
    """Run `mp emulator` until the block ends."""
    process = subprocess.Popen(
        ["sh", "-c", f"exec {command}"], cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: answers(url))
        yield
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    """Return whether a server is there."""
    try:
        return bool(httpx.get(url, trust_env=False))
    except httpx.TransportError:
        return False


@pytest.mark.slow  # installs the wheel, and runs all that a newcomer does
def test_the_tutorial_is_followed_word_for_word(archives, tmp_path):  # noqa: F811
    """In an empty folder: only the port and the source of the package are others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = (DOCS / "tutorial.md").read_text().replace("127.0.0.1:8765", f"127.0.0.1:{port}")
    blocks = BLOCK.findall(text)
    pinned = f"--quiet --constraint {ROOT / 'constraints.txt'} {archives[1]}"
    [setup] = [body for _, body in blocks if "pip install" in body]
    setup = setup.replace("pip install mixpanel-assets", f"pip install {pinned}")
    setup = setup.replace("python3 -m venv", f"{sys.executable} -m venv")
    environment = {"DAGSTER_DISABLE_TELEMETRY": "yes", **ENVIRONMENT, "HOME": str(tmp_path)}
    ran("sh", "-ec", setup, folder=tmp_path, **environment)
    steps = [". .venv/bin/activate\n"]
    for kind, body in blocks:
        if kind == "python":
            steps.append(f"python - <<'END'\n{body}END\n")
        elif "pip install" not in body and "mp emulator" not in body:
            steps.append(body)
    environment["PATH"] = f"{tmp_path / '.venv' / 'bin'}{os.pathsep}{environment['PATH']}"
    with emulator_of(
        f"mp emulator --port {port}", environment, tmp_path, f"http://127.0.0.1:{port}"
    ):
        said = ran("sh", "-ec", "".join(steps), folder=tmp_path, **environment)
    assert "2024-01-07" in said
    assert (tmp_path / "data" / "warehouse.duckdb").exists()
