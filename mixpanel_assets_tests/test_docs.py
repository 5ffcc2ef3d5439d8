"""Docstrings and documents: complete, and every example in them runs and shows what is true."""

import inspect
import re
from functools import cached_property
from pathlib import Path

import pytest

import mixpanel_assets
from mixpanel_assets_tests import examples

ROOT = Path(mixpanel_assets.__file__).parent.parent
CLASSES = [
    "Workspace",
    "MixpanelAPIClient",
    "StorageEngine",
    "DiscoveryService",
    "LiveQueryService",
    "FetcherService",
    "ParallelProfileFetcherService",
    "ConfigManager",
    "MixpanelResource",
]
PROPERTIES = (property, cached_property)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def documented():
    """Return each class, method and property of ours once, whatever other name it has."""
    found = {}
    for name in CLASSES:
        kind = getattr(mixpanel_assets, name)
        found[name] = kind
        for attribute in dir(kind):
            member = inspect.getattr_static(kind, attribute)
            if isinstance(member, classmethod | staticmethod):
                member = member.__func__
            function = getattr(member, "fget", None) or getattr(member, "func", None) or member
            ours = str(getattr(function, "__module__", "")).startswith("mixpanel_assets")
            if ours and not attribute.startswith("_") and callable(function):
                found.setdefault(f"{function.__module__}.{function.__qualname__}", member)
    return found


DOCUMENTED = documented()
METHODS = [name for name, one in DOCUMENTED.items() if inspect.isfunction(one)]
BLOCKS = {
    f"{path.name}-{number}": block
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for number, block in enumerate(BLOCK.findall(path.read_text()), 1)
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_takes_and_returns_and_shows_it(name):
    """Arguments by name, what comes back, and an example."""
    method = DOCUMENTED[name]
    doc = inspect.getdoc(method)
    signature = inspect.signature(method)
    parameters = [name for name in signature.parameters if name not in ("self", "cls")]
    told = re.findall(r"^    (\w+): ", doc.partition("Args:")[2].split("\n\n")[0], re.MULTILINE)
    assert told == parameters
    if signature.return_annotation not in ("None", "Iterator[None]"):
        assert re.match("Return|Yield|Whether", doc) or re.search(
            "^(Returns|Yields):", doc, re.MULTILINE
        )
    assert "Example:" in doc


@pytest.mark.parametrize("name", set(DOCUMENTED) - set(METHODS))
def test_every_class_and_property_says_what_it_is(name):
    """In a docstring of its own."""
    assert inspect.getdoc(DOCUMENTED[name])


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """An emulator, and a database filled from it."""
    folder = tmp_path_factory.mktemp("filled")
    with examples.shop() as emulator, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        examples.environment(emulator, folder, patch)
        examples.fill(folder / "shop.duckdb")
        yield emulator, folder / "shop.duckdb"


@pytest.fixture
def known(filled, tmp_path, monkeypatch):
    """The names that examples use, over a copy of the database."""
    emulator, database = filled
    examples.environment(emulator, tmp_path, monkeypatch)
    examples.copied(database, tmp_path)
    with examples.names(tmp_path) as known:
        yield known


@pytest.mark.parametrize(
    "name", [name for name, one in DOCUMENTED.items() if ">>>" in (inspect.getdoc(one) or "")]
)
def test_examples_run_and_show_what_is_true(name, known):
    """Against the emulator; what an example prints is compared."""
    assert not examples.failures(name, inspect.getdoc(DOCUMENTED[name]), known)


@pytest.mark.parametrize("name", BLOCKS)
def test_python_in_documents_runs(name, known):
    """README and docs, block by block, with the accounts and variables that they speak of."""
    known["accounts"].add_account("shop", "a", examples.SECRET, "12345", "eu")
    exec(compile(BLOCKS[name], name, "exec"), {"ws": known["ws"], "__name__": name})
