"""A planted secret is looked for wherever a run leaves something behind."""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets_tests.laws import siblings

ROOT = Path(__file__).parent.parent
SECRET = "planted-5f1c9a-secret"
BIN = Path(sys.executable).parent
START_SECONDS = 300

QUERIES = [
    "{ runsOrError { ... on Runs { results { id runConfigYaml tags { key value } "
    "eventConnection { events { ... on MessageEvent { message } "
    "... on ExecutionStepFailureEvent { error { message stack } } } } } } } }",
    "{ repositoriesOrError { ... on RepositoryConnection { nodes { name "
    "allTopLevelResourceDetails { name configuredValues { key value type } } } } } }",
    "{ assetNodes { description metadataEntries { label } "
    "assetMaterializations { metadataEntries { label ... on TextMetadataEntry { text } } } } }",
]

LIBRARY = """
import traceback
from mixpanel_assets import MixpanelResource
resource = MixpanelResource()
with resource.client() as client:
    print(repr(resource), resource, repr(client), vars(client), client.credentials)
    try:
        client.get("query", "/nonsense")
    except Exception as error:
        traceback.print_exc()
        print(repr(error), vars(error))
    print(client.credentials.model_dump(), client.credentials.model_dump_json())
"""


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with Emulator(EmulatorSettings(days=5, secret=SECRET)) as emulator:
        yield emulator


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder like the project's own, where runs keep their history."""
    for name in ("dagster.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def run(emulator, project, postgres):
    """Run a command in the folder and return all it printed."""
    variables = {**os.environ, **environment_of(emulator), "MP_MAX_RETRIES": "0"}
    variables["MP_STATE_DIR"] = postgres.url

    def run(*command: str, **changes: str) -> str:
        done = subprocess.run(
            [str(BIN / command[0]), *command[1:]],
            cwd=project,
            env={**variables, **changes},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )
        return done.stdout

    return run


def materialize(run, day: str) -> str:
    """Run both assets for a day, side by side."""
    select = ("--select", "mixpanel/events,mixpanel/profiles", "--partition", day)
    return run("dagster", "asset", "materialize", "-m", "mixpanel_assets.definitions", *select)


def graphql_answers(project: Path, emulator: Emulator) -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [str(BIN / "dagster-webserver"), "-h", "127.0.0.1", "-p", str(port)],
        cwd=project,
        env={**os.environ, **environment_of(emulator), "DAGSTER_HOME": str(project)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
            wait_for(http)
            return "".join(ask(http, query) for query in QUERIES)
    finally:
        server.terminate()
        server.wait()


def wait_for(http: httpx.Client) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            http.get("/server_info").raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.2)
        else:
            return
    pytest.fail("the web server did not start")


def ask(http: httpx.Client, query: str) -> str:
    answer = http.post("/graphql", json={"query": query}, timeout=300)
    assert "errors" not in answer.json(), answer.text
    return json.dumps(answer.json())


@pytest.mark.parametrize("ui", siblings([False, True], keep=1))
def test_a_planted_secret_is_nowhere_but_in_the_request(emulator, project, run, postgres, ui):
    """Output, files, databases, Dagster's storage and the UI's answers: no trace of it."""
    pair = f"{emulator.username}:{SECRET}"
    forms = [
        SECRET,
        base64.b64encode(pair.encode()).decode(),
        base64.b64encode(SECRET.encode()).decode(),
        postgres.password,
    ]
    forms.append(quote(forms[1], safe=""))
    printed = [
        materialize(run, "2024-01-03"),
        run("mp", "sync", "--from", "2024-01-01", "--to", "2024-01-02"),
        run("python", "-c", LIBRARY),
        run("mp", "quota"),
        run("mp", "doctor", MP_STATE_DIR=replace(postgres, port=1).url),
    ]
    said = f"not {SECRET}, Authorization: Basic {forms[1]} {quote(forms[1], safe='')}"
    emulator.faults.add(
        Fault("truncate-mid-record", path="/api/2.0/export", times=1),
        Fault("401-json", path="/api/2.0/export", times=None, text=said),
        Fault("error-200", path="*", times=None, text=said),
    )
    printed += [
        run("mp", "sync", "--from", "2024-01-01", "--to", "2024-01-02", MP_MAX_RETRIES="1"),
        materialize(run, "2024-01-04"),
        run("python", "-c", LIBRARY),
    ]
    emulator.faults.clear()
    if ui:
        printed.append(graphql_answers(project, emulator))

    assert "RUN_SUCCESS" in printed[0]
    assert "schema mixpanel_us_" in printed[3]
    assert f"{postgres.host}:1/" in printed[4]
    assert "RUN_FAILURE" in printed[6]
    assert "[secret]" in printed[6]
    assert not ui or "MP_SECRET" in printed[-1], "the UI shows the variable's name"
    files = [path for path in project.rglob("*") if path.is_file()]
    assert any(path.suffix == ".duckdb" for path in files)
    assert any("runs" in path.parts for path in files)
    for form in forms:
        assert [text for text in printed if form in text] == []
        assert [path for path in files if form.encode() in path.read_bytes()] == []
