"""Docstrings, documents and help: complete, and every example runs and shows what is true."""

import ast
import builtins
import inspect
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from functools import cached_property
from pathlib import Path

import click
import dagster as dg
import duckdb
import pytest
import yaml
from dagster_dg_cli.cli import create_dg_cli

import mixpanel_assets
from mixpanel_assets import ConfigManager, StorageEngine, auth, client, errors
from mixpanel_assets.cli.app import run as run_mp
from mixpanel_assets.defs.failures import ExplainedFailure
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import copy_path
from mixpanel_assets.warehouse.inspector import TableInspector
from mixpanel_assets.warehouse.stored_queries import StoredQueries
from mixpanel_assets_tests import examples
from mixpanel_assets_tests.cli.commands import commands, example
from mixpanel_assets_tests.test_layers import MAY_IMPORT

ROOT = Path(mixpanel_assets.__file__).parent.parent
PUBLIC = {name: getattr(mixpanel_assets, name) for name in mixpanel_assets.__all__}
# What these take and return is for Dagster to say.
DAGSTERS_OWN = {"WarehouseIOManager"}
# Their methods are what a user calls; values have fields, and methods without arguments.
SERVICES = {
    "Workspace",
    "MixpanelAPIClient",
    "StorageEngine",
    "DiscoveryService",
    "LiveQueryService",
    "FetcherService",
    "ParallelProfileFetcherService",
    "ConfigManager",
    "MixpanelResource",
    "TableInspector",
    "StoredQueries",
}

# Lines of documents that do not run here, by how they begin, and why.
CANNOT_RUN = {
    "pip install": "changes the environment of the tests",
    "uv add": "works in a project of uv, and changes its environment",
    "python3 -m venv": "makes the environment of a newcomer; the tutorial's own test does it",
    ". .venv/bin/activate": "makes the environment of a newcomer; the tutorial's own test does it",
    "export ": "sets the variables that the emulator's stand in for",
    "./run demo": "sets up .venv first; `mp demo` is what it starts then",
    "./run check": "is these tests",
    "./run test": "runs tests of this package inside a test",
    "dagster dev": "serves until interrupted",
    "dagster asset materialize -m": "is a line of README.md, which runs, in another order",
    "dg scaffold": "works in a project of dg; defs/test_component.py scaffolds and loads it",
    "dg list envs": "works in a project of dg; defs/test_component.py scaffolds and loads it",
    "dg dev": "serves until interrupted",
    "dg launch": "works in the project's folder alone; test_home.py runs it there",
    "sudo ": "takes a group of the machine's; warehouse/test_file_modes.py does the same",
    "mp emulator": "serves until interrupted; cli/test_mp.py starts it",
    "mp demo": "takes a Dagster run of its own; cli/test_mp.py starts it",
    "mp tidy": "takes a lake; warehouse/test_lake.py tidies one",
    "mp migrate": "takes a lake; warehouse/test_moving.py copies a file into one",
    "mp sync": "alone: ends today, whenever that is; cli/test_sync.py stops the clock",
}
ALONE = {"mp sync"}


def function_name(function):
    return getattr(function, "__qualname__", "")


def members(name, kind):
    """Yield each method and property of ours, under the name of where it is written."""
    for attribute in dir(kind):
        member = inspect.getattr_static(kind, attribute)
        if isinstance(member, classmethod | staticmethod):
            member = member.__func__
        function = getattr(member, "fget", None) or getattr(member, "func", None) or member
        ours = str(getattr(function, "__module__", "")).startswith("mixpanel_assets")
        # The default of a field may be a private function.
        is_public = not attribute.startswith("_") and "._" not in f".{function_name(function)}"
        if ours and is_public and callable(function):
            yield f"{function.__module__}.{function.__qualname__}", member


def documented():
    """Return each public class, function, method and property once, and those of services."""
    every, called = {}, {}
    services = {"TableInspector": TableInspector, "StoredQueries": StoredQueries}
    for name, one in {**PUBLIC, **services}.items():
        every[name] = one
        if not inspect.isclass(one):
            called[name] = one
        elif name not in DAGSTERS_OWN:
            every.update(found := dict(members(name, one)))
            called.update(found if name in SERVICES else {})
    return every, called


DOCUMENTED, CALLED = documented()
FUNCTIONS = {name: one for name, one in DOCUMENTED.items() if inspect.isfunction(one)}
PROPERTIES = (property, cached_property)


def parameters_of(function):
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def referred(function):
    """Return the function or value whose arguments and errors hold here as well, if any."""
    text = " ".join(inspect.getdoc(function).split())
    found = re.search(r"[Aa]rguments(?: and errors)?: see `([\w.]+)`", text)
    if found is None:
        return None
    if "." not in found[1]:
        return getattr(client, found[1])
    (other,) = (one for name, one in FUNCTIONS.items() if name.endswith(f".{found[1]}"))
    return other


def section(doc, title):
    """Return the lines of a section; empty without it."""
    return doc.partition(f"{title}:\n")[2].split("\n\n")[0]


def test_everything_public_is_looked_at():
    """Also what is reached through another name, such as `auth`."""
    assert {"AccountInfo", "ConfigManager", "Credentials"} <= vars(auth).keys() & set(PUBLIC)
    assert set(PUBLIC) >= SERVICES - {"TableInspector", "StoredQueries"}
    assert len(CALLED) > 100


def lacking(is_so, among):
    """Return the names of those of which something is not so."""
    return [name for name, one in among.items() if not is_so(one)]


def test_everything_public_says_what_it_is():
    """In a docstring of its own, whose first line is a sentence."""
    assert not lacking(lambda one: re.match(r"[A-Z`].*[.:;]", one.__doc__ or ""), DOCUMENTED)


def test_arguments_are_told_by_name():
    """Each one of the signature, in its order, and no other; here, or where it is referred to."""

    def are_told(function):
        doc = inspect.getdoc(function)
        here = re.findall(r"^    \*{0,2}(\w+): ", section(doc, "Args"), re.MULTILINE)
        there = []
        if other := referred(function):  # it may lack arguments that are told in passing
            there = parameters_of(other) + re.findall(r"`(\w+)`", doc)
        parameters = parameters_of(function)
        in_order = [name for name in parameters if name in here]
        return here == in_order and set(parameters) <= {*here, *there}

    assert not lacking(are_told, FUNCTIONS)


def test_what_comes_back_is_told():
    """In a section of its own, or by a first line that begins with the verb."""

    def is_told(function):
        doc = inspect.getdoc(function)
        return (
            inspect.signature(function).return_annotation in ("None", None)
            or re.match(r"Return |Yield |Whether ", doc)
            or section(doc, "Returns")
            or section(doc, "Yields")
        )

    assert not lacking(is_told, FUNCTIONS)


def raised_by(function):
    """Yield the errors of the project that a function itself raises."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    for raised in [one.exc for one in ast.walk(tree) if isinstance(one, ast.Raise)]:
        kind = getattr(errors, getattr(getattr(raised, "func", None), "id", ""), None)
        if inspect.isclass(kind):
            yield kind


def test_errors_that_are_raised_on_purpose_are_told():
    """Those of the project that the function itself raises, or a base of theirs."""

    def are_told(function):
        described = [one for one in (function, referred(function)) if one]
        raises = "\n".join(section(inspect.getdoc(one), "Raises") for one in described)
        told = re.findall(r"^    (\w+): ", raises, re.MULTILINE)
        bases = tuple(getattr(errors, one) for one in told if hasattr(errors, one))
        return all(issubclass(kind, bases) for kind in raised_by(function)) and all(
            hasattr(errors, one) or hasattr(builtins, one) for one in told
        )

    assert not lacking(are_told, FUNCTIONS)


def test_what_users_call_is_shown():
    """By an example; Dagster calls the methods that its own resources have."""
    shown = {
        name: one
        for name, one in CALLED.items()
        if not isinstance(one, PROPERTIES)
        and not hasattr(dg.ConfigurableResource, name.rpartition(".")[2])
    }
    assert not lacking(lambda one: ">>> " in section(inspect.getdoc(one), "Example"), shown)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """An emulator, and a database filled from it."""
    folder = tmp_path_factory.mktemp("filled")
    with examples.shop() as emulator, pytest.MonkeyPatch.context() as patch:
        examples.environment(emulator, folder, patch)
        examples.fill(folder / "shop.duckdb")
        yield emulator, folder / "shop.duckdb"


@pytest.fixture
def folder(filled, tmp_path, monkeypatch):
    """A folder with a copy of the database, to which the environment points."""
    emulator, database = filled
    examples.environment(emulator, tmp_path, monkeypatch)
    examples.copied(database, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name", [name for name, one in DOCUMENTED.items() if ">>>" in (inspect.getdoc(one) or "")]
)
def test_examples_run_and_show_what_is_true(name, folder):
    """Against the emulator; what an example prints is compared."""
    with examples.names(folder) as known:
        assert not examples.failures(name, inspect.getdoc(DOCUMENTED[name]), known)


DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for folder in (ROOT, ROOT / "docs", ROOT / "examples")
    for path in sorted(folder.glob("*.md"))
}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language):
    """Return the blocks of a language in all documents."""
    return {
        f"{name}-{number}": block
        for name, text in DOCUMENTS.items()
        for number, (marked, block) in enumerate(BLOCK.findall(text), 1)
        if marked == language
    }


PYTHON = blocks("python")
SHELL = blocks("sh")
PROCESSES = [name for name, block in SHELL.items() if "dagster asset materialize" in block]
SQL = blocks("sql")
# Pages that a test of their own runs from the first line to the last one; see test_site.py.
WHOLE = ("docs/tutorial.md",)


def test_the_readme_begins_with_the_commands_of_the_demo_and_of_the_tests():
    """In this order: CI runs the second one."""
    [demo, tests] = BLOCK.findall(DOCUMENTS["README.md"])[:2]
    assert (demo, tests) == (("sh", "./run demo\n"), ("sh", "./run check\n"))


def headings(text):
    """Return the anchors of a document's headings, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_a_file_and_a_heading_of_it(name):
    """Links to other sites are not followed."""
    for link in re.findall(r"\]\((?!https?:)(.*?)\)", DOCUMENTS[name]):
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert target.exists(), link
        if anchor:
            assert anchor in headings(target.read_text()), link


def test_tests_that_documents_name_exist():
    """Each test file that a document names exists."""
    for name, text in DOCUMENTS.items():
        for path in re.findall(r"mixpanel_assets_tests/[\w/]+\.py", text):
            assert (ROOT / path).exists(), f"{name}: {path}"


def test_the_layout_names_each_part_of_the_package():
    """One line for each, in CONTRIBUTING.md; `test_layers.py` lists the parts."""
    layout = DOCUMENTS["CONTRIBUTING.md"].partition("\nmixpanel_assets/\n")[2]
    lines = layout.partition("\nmixpanel_assets_tests/")[0].splitlines()
    assert {line.split()[0].rstrip("/").removesuffix(".py") for line in lines} == set(MAY_IMPORT)


def test_each_variable_is_described_once():
    """`docs/configuration.md` has a row for each MP_* variable that the package reads."""
    rows = re.findall(r"^\| (`MP_.*?) \|", DOCUMENTS["docs/configuration.md"], re.MULTILINE)
    described = [name for row in rows for name in re.findall(r"MP_\w+", row)]
    read = {f"MP_{name.upper()}" for name in Settings.model_fields} | {
        *("MP_USERNAME", "MP_SECRET", "MP_PROJECT_ID", "MP_REGION"),
        *("MP_ACCOUNT", "MP_CONFIG_PATH", "MP_WORKSPACE_ID"),
        *("MP_S3_ENDPOINT", "MP_S3_KEY_ID", "MP_S3_SECRET", "MP_S3_REGION"),
    }
    assert sorted(described) == sorted(read)


def test_each_command_is_listed():
    """In the table of `docs/cli.md`, or below it as a short form."""
    page = DOCUMENTS["docs/cli.md"].partition("## All commands")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(mp [\w-]+)`", page))
    for group, rest in re.findall(r"^\| `(mp \w+)`[^|]*\| (.*) \|$", page, re.MULTILINE):
        listed |= {f"{group} {word}" for word in re.findall(r"`([\w-]+)`", rest)}
    assert listed == {name for _, name in commands()} | {"mp auth", "mp fetch"} | {
        *("mp query", "mp inspect"),
    }


@pytest.mark.parametrize("name", SQL)
def test_sql_in_documents_runs(name, before_people, filled):
    """In the filled database; a block that attaches a file begins without a database."""
    place = ":memory:" if "ATTACH" in SQL[name] else before_people / "shop.duckdb"
    with duckdb.connect(place) as connection:
        for statement in connection.extract_statements(SQL[name]):
            connection.execute(statement)
            assert connection.description


@pytest.fixture
def before_people(folder, filled):
    """The same without the table `people`; with copies for readers, and a component's file."""
    snapshot = folder / "data" / "warehouse.snapshot.duckdb"
    snapshot.parent.mkdir()
    shutil.copy(copy_path(filled[1]), snapshot)
    for name in ("shop_warehouse", "shop.snapshot", "shop_eu.snapshot"):
        shutil.copy(copy_path(filled[1]), snapshot.with_name(f"{name}.duckdb"))
    with StorageEngine(folder / "shop.duckdb") as storage:
        storage.drop("people")
    return folder


@pytest.mark.parametrize("name", [name for name in PYTHON if not name.startswith(WHOLE)])
def test_python_in_documents_runs(name, before_people, filled):
    """Block by block, with the accounts and variables that the documents name."""
    ConfigManager().add_account("shop", filled[0].username, examples.SECRET, "12345", "eu")
    exec(compile(PYTHON[name], name, "exec"), {"__name__": name})


def test_the_config_file_in_documents_is_read(tmp_path):
    """As one account, which is the default."""
    [text] = blocks("toml").values()
    path = tmp_path / "config.toml"
    path.write_text(text)
    path.chmod(0o600)
    [account] = ConfigManager(path).list_accounts()
    assert (account.name, account.project_id, account.is_default) == ("shop", "12345", True)


def test_the_blocks_for_dagster_yaml_are_accepted(tmp_path):
    """By Dagster, as the configuration of one instance."""
    others = ("type:", "ops:")
    texts = [text for text in blocks("yaml").values() if not text.startswith(others)]
    (tmp_path / "dagster.yaml").write_text("".join(texts))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 2
        assert instance.run_retries_max_retries == 2


def test_the_configuration_of_a_job_in_documents_is_accepted():
    """By the job `ask_report`."""
    [text] = [text for text in blocks("yaml").values() if text.startswith("ops:")]
    job = build_definitions().resolve_job_def("ask_report")
    assert dg.validate_run_config(job, yaml.safe_load(text))


def codes():
    """Return the codes of all errors: of the classes, and those that are given to one."""
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    found = {kind.code for kind in kinds if issubclass(kind, errors.MixpanelDataError)}
    given = re.compile(r'(?:code=|message, |_INTERRUPTED = )"([A-Z_]{6,})"')
    for path in Path(mixpanel_assets.__file__).parent.rglob("*.py"):
        found |= set(given.findall(path.read_text()))
    return found


def test_each_code_of_an_error_has_a_section_and_no_other_has():
    """Under the heading to which the error's `page` leads."""
    page = DOCUMENTS["docs/troubleshooting.md"]
    sections = dict(
        re.findall(r"^### ([A-Z_]+)\n\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    )
    assert sections.keys() == codes()
    assert all(len(text) > 40 for text in sections.values())
    for code in sections:
        path, _, anchor = errors.MixpanelDataError("", code).page.partition("#")
        assert anchor in headings(DOCUMENTS[path])
    failure = ExplainedFailure(errors.ConfigError("MP_REGION is missing."))
    assert failure.metadata["page"].value == "docs/troubleshooting.md#config_error"


def cannot_run(words):
    """Return why a command line does not run here; None if it does."""
    line = shlex.join(words).replace("'", "")
    return next(
        (
            why
            for start, why in CANNOT_RUN.items()
            if (line == start if start in ALONE else line.startswith(start))
        ),
        None,
    )


def ran(words, capsys):
    """Run a command line and return its exit code and what it said on stderr."""
    if words[0] != "mp":
        done = subprocess.run(
            [Path(sys.executable).with_name(words[0]), *words[1:]], capture_output=True, text=True
        )
        return done.returncode, done.stderr[-2000:]
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_mp(words[1:])
    return ended.value.code or 0, capsys.readouterr().err


def typed(line):
    """Return the words of a line before its comment and before what it is piped into."""
    words = shlex.split(line, comments=True)
    return words[: words.index("|")] if "|" in words else words


@pytest.mark.parametrize(
    "name",
    [
        # A process of Dagster for each line; test_secrets.py starts one of them each time.
        pytest.param(name, marks=pytest.mark.slow if name in PROCESSES else ())
        for name in SHELL
        if not name.startswith(WHOLE)
    ],
)
def test_command_lines_in_documents_run(name, before_people, filled, capsys):
    """Block by block, one line after the other, each with exit code 0."""
    if "mp auth add shop" not in SHELL[name]:
        ConfigManager().add_account("shop", filled[0].username, examples.SECRET, "12345", "eu")
    for words in filter(None, map(typed, SHELL[name].splitlines())):
        if not cannot_run(words):
            code, said = ran(words, capsys)
            assert code == 0, f"{shlex.join(words)}: {said}"


def test_the_commands_of_dg_in_documents_exist():
    """They need a project of their own, so only their names and options are looked up."""
    texts = [line for block in SHELL.values() for line in block.splitlines()]
    texts += [code for text in DOCUMENTS.values() for code in re.findall(r"`(dg [^`\n]+)`", text)]
    typed_lines = [words for words in map(typed, texts) if words[:1] == ["dg"]]
    assert typed_lines
    for words in typed_lines:
        command: click.Command | None = create_dg_cli()
        for word in words[1:]:
            # What `dg scaffold` takes depends on the components of a project.
            if not isinstance(command, click.Group) or command.name == "scaffold":
                break
            command = command.get_command(click.Context(command), word)
        assert command, f"`{shlex.join(words)}` names a command that `dg` does not have"
        known = {name for parameter in command.params for name in parameter.opts}
        options = {word for word in words if word.startswith("--")}
        assert command.name == "scaffold" or options <= known, shlex.join(words)


def test_the_commands_of_mp_in_texts_exist():
    """In sentences, in blocks that are not run, and in the list for programs; options too."""
    known = {tuple(name.split()): chain for chain, name in commands()}
    texts = "\n".join([*DOCUMENTS.values(), (ROOT / "docs" / "llms.txt").read_text()])
    lines = re.findall(r"`(mp [^`]+)`", texts)
    lines += re.findall(r"^ *(?:\$ )?(mp .*)", texts, re.MULTILINE)
    others = DOCUMENTS["docs/compatibility.md"].partition("\n## What is different")[0]
    first_cells = " ".join(re.findall(r"^\| (.*?) \|", others, re.MULTILINE))
    not_included = re.findall(r"`(mp [^`]+)`", first_cells)
    for words in map(typed, {*lines} - {*not_included}):
        is_group = any(key[: len(words)] == tuple(words) for key in known)
        if is_group or words[1] == "COMMAND" or words[1].startswith("-"):
            continue
        found = next((known[key] for n in (3, 2) if (key := tuple(words[:n])) in known), None)
        assert found, f"`{shlex.join(words)}` names a command that `mp` does not have"
        parameters = [parameter for one in found for parameter in one.params]
        options = {name for one in parameters for name in (*one.opts, *one.secondary_opts)}
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= options, shlex.join(words)


def test_every_line_that_cannot_run_is_there():
    """So that the list of exceptions does not outlive what it excuses."""
    lines = [typed(line) for block in SHELL.values() for line in block.splitlines()]
    lines += [shlex.split(example(chain[-1])) for chain, _ in commands()]
    reasons = {cannot_run(words) for words in lines if words}
    assert reasons - {None} == set(CANNOT_RUN.values())


EXAMPLES = {name: typed(example(chain[-1])) for chain, name in commands()}


@pytest.mark.parametrize(
    "name", [name for name, words in EXAMPLES.items() if not cannot_run(words)]
)
def test_the_example_in_a_commands_help_runs(name, before_people, filled, capsys):
    """Against the emulator, with exit code 0."""
    (before_people / "report.js").write_text(examples.SCRIPT)
    if name != "mp auth add":
        ConfigManager().add_account("shop", filled[0].username, examples.SECRET, "12345", "eu")
    code, said = ran(EXAMPLES[name], capsys)
    assert code == 0, said
