"""The files of `deploy/` name commands, variables and paths that exist."""

import configparser
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
import yaml

from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.settings import Settings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
WORKLOAD, SERVICE = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
POD = WORKLOAD["spec"]["template"]["spec"]
UNIT = configparser.RawConfigParser(delimiters="=")
UNIT.read(DEPLOY / "mixpanel-sync.service")
CREDENTIALS = {"MP_USERNAME", "MP_SECRET", "MP_PROJECT_ID", "MP_REGION"}


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each with its words."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def variables(name: str) -> dict[str, str]:
    """Return what a file of variables sets."""
    lines = (DEPLOY / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


COMMANDS = {
    "the image": json.loads(dict(instructions())["CMD"]),
    **{
        f"compose, {name}": it["command"]
        for name, it in COMPOSE["services"].items()
        if "command" in it
    },
    **{
        f"kubernetes, {it['name']}": it["args"]
        for it in POD["initContainers"] + POD["containers"]
        if "args" in it
    },
    "systemd": shlex.split(UNIT["Service"]["execstart"].replace("%h/.local/bin/", "")),
}


@pytest.mark.slow  # a process for each command
@pytest.mark.parametrize("where", COMMANDS)
def test_a_command_and_its_options_exist(where):
    """Each program parses its whole line before it answers `--help`."""
    program, *arguments = COMMANDS[where]
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments, "--help"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_variables_are_settings():
    """No variable is misspelled; credentials apart, each is a field of `Settings`."""
    known = CREDENTIALS | {f"MP_{name.upper()}" for name in Settings.model_fields}
    named = set(variables("demo.env")) | set(variables("project.env.example"))
    named |= set(re.findall(r"MP_[A-Z_]+", (DEPLOY / "Dockerfile").read_text()))
    assert named <= known


def test_the_variables_of_the_demo_are_those_of_the_emulator():
    """So that the demo works without an account."""
    [*_, port] = COMPOSE["services"]["emulator"]["command"]
    with Emulator(EmulatorSettings()) as emulator:
        expected = environment_of(emulator) | {"MP_API_BASE_URL": f"http://127.0.0.1:{port}"}
    assert variables("demo.env") == expected


def test_the_image_copies_what_is_there_and_nothing_else():
    """Each copied path exists, and the list of ignored files keeps the rest out of the build."""
    kept = {
        line.removeprefix("!")
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().split()
        if line.startswith("!")
    }
    copied = {words.split()[0] for name, words in instructions() if name == "COPY"} - {"."}
    assert copied <= kept
    assert all((ROOT / path).exists() for path in kept)


def test_the_ui_is_published_on_this_machine_alone():
    """Dagster's UI has no login."""
    ports = [port for it in COMPOSE["services"].values() for port in it.get("ports", [])]
    assert ports == ["127.0.0.1:3000:3000"]
    assert SERVICE["spec"].get("type", "ClusterIP") == "ClusterIP"


def test_the_instance_differs_from_that_of_a_clone_in_its_folder_alone(tmp_path):
    """And Dagster accepts it."""
    text = (DEPLOY / "dagster.yaml").read_text()
    clone = (ROOT / "dagster.yaml").read_text()
    moved = text.replace("/data/dagster/compute_logs", ".dagster_home/storage")
    assert yaml.safe_load(moved.replace("/data/dagster", ".dagster_home")) == yaml.safe_load(clone)
    (tmp_path / "dagster.yaml").write_text(text.replace("/data", str(tmp_path)))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_retries_max_retries == 2
