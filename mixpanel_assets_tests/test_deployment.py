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
from dagster._config import validate_config
from dagster._core.instance.config import dagster_instance_config_schema
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import (
    DagsterK8sJobConfig,
    UserDefinedDagsterK8sConfig,
    construct_dagster_k8s_job,
)

from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.defs.machines import remote_launcher
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.settings import Settings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MACHINES = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())
WORKLOAD, SERVICE = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
POD = WORKLOAD["spec"]["template"]["spec"]
WORKER = configparser.RawConfigParser(delimiters="=", strict=False)
WORKER.read(DEPLOY / "celery" / "mixpanel-worker.service")
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
    **{
        f"docker, {name}": it["command"]
        for name, it in MACHINES["services"].items()
        if "command" in it
    },
    "worker": shlex.split(WORKER["Service"]["execstart"].replace("/opt/mixpanel/venv/bin/", "")),
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
    for services in (COMPOSE["services"], MACHINES["services"]):
        ports = [port for it in services.values() for port in it.get("ports", [])]
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


def names_in(path: str) -> set[str]:
    """Return the variables that a file names by `env:` or in a list of names."""
    return set(re.findall(r"\b(?:DAGSTER_POSTGRES|CELERY|MIXPANEL|MP)_[A-Z_]+", text_of(path)))


def text_of(path: str) -> str:
    return (DEPLOY / path).read_text()


def test_each_variable_of_an_example_for_several_machines_is_given():
    """What dagster.yaml and the module of Celery read is in the file beside them."""
    given = set(variables("celery/workers.env.example"))
    needed = names_in("celery/dagster.yaml") | names_in("celery/dagster_celery_config.py")
    assert needed <= given
    daemon = MACHINES["services"]["daemon"]
    given = set(daemon["environment"]) | set(variables("project.env.example"))
    assert names_in("docker/dagster.yaml") <= given


def test_every_mp_variable_of_the_examples_is_a_setting():
    """Also in comments, for they are copied."""
    known = {f"MP_{name.upper()}" for name in Settings.model_fields} | CREDENTIALS
    known |= {"MP_S3_KEY_ID", "MP_S3_SECRET"}
    files = [path for path in DEPLOY.rglob("*") if path.is_file()]
    named = {name for path in files for name in re.findall(r"\bMP_[A-Z0-9_]+", path.read_text())}
    assert named <= known


def test_a_celery_instance_is_built_on_postgresql(postgres, tmp_path, monkeypatch):
    """By Dagster itself: its storage, its launcher, and what ends a run whose worker died."""
    given = variables("celery/workers.env.example") | {
        "DAGSTER_POSTGRES_HOST": postgres.host,
        "DAGSTER_POSTGRES_USER": postgres.user,
        "DAGSTER_POSTGRES_PASSWORD": postgres.password,
        "DAGSTER_POSTGRES_DB": postgres.dbname,
    }
    for name, value in given.items():
        if name.startswith(("DAGSTER_POSTGRES", "CELERY")):
            monkeypatch.setenv(name, value)
    text = text_of("celery/dagster.yaml")
    host = "hostname: {env: DAGSTER_POSTGRES_HOST}"
    there = f"hostname: {postgres.host}\n      port: {postgres.port}"
    (tmp_path / "dagster.yaml").write_text(text.replace(host, there))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_launcher.broker == given["CELERY_BROKER_URL"]
        assert remote_launcher(instance) == "CeleryRunLauncher"
        assert instance.run_monitoring_max_runtime_seconds == 14_400
        assert instance.run_retries_max_retries == 2
        run = instance.create_run_for_job(job_def=nothing)
        instance.report_engine_event("an event, of which PostgreSQL notifies", run)
        assert instance.all_logs(run.run_id)


@dg.job
def nothing() -> None:
    """A job that is not run."""


def test_a_docker_instance_is_built(tmp_path, monkeypatch):
    """The launcher takes the variables by name; their values are in no file."""
    monkeypatch.setenv("MIXPANEL_IMAGE", "mixpanel-assets-docker")
    described = yaml.safe_load(text_of("docker/dagster.yaml"))
    described.pop("storage")
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(described))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        launcher = instance.run_launcher
        assert remote_launcher(instance) == "DockerRunLauncher"
        assert launcher.image == "mixpanel-assets-docker"
        network = launcher.inst_data.config_dict["network"]
        assert network == MACHINES["networks"]["mixpanel"]["name"]
        [volume] = launcher.container_kwargs["volumes"]
        assert volume == f"{MACHINES['volumes']['data']['name']}:/data"


def test_the_helm_values_describe_jobs_that_kubernetes_accepts():
    """In the words of Dagster's chart, whose run launcher checks them; finished Jobs go."""
    values = yaml.safe_load(text_of("helm-values.yaml"))
    launcher = values["runLauncher"]
    assert launcher["type"] == K8sRunLauncher.__name__
    # The chart writes the names of the launcher's options in its own way, and no others.
    config = snake_keys(launcher["config"]["k8sRunLauncher"])
    config["run_k8s_config"] = snake_keys(config["run_k8s_config"])
    given = {"service_account_name": "dagster", "instance_config_map": "m", "dagster_home": "/opt"}
    checked = validate_config(K8sRunLauncher.config_type(), {**config, **given})
    assert checked.success, checked.errors

    [deployment] = values["dagster-user-deployments"]["deployments"]
    secrets = [secret["name"] for secret in deployment["envSecrets"]]
    of_code = {"k8s": {"env": deployment["env"], "env_secrets": secrets}}
    described = K8sContainerContext(
        run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(config["run_k8s_config"])
    ).merge(K8sContainerContext.create_from_config(of_code))
    job = construct_dagster_k8s_job(
        DagsterK8sJobConfig(job_image="image", dagster_home="/opt"),
        ["dagster", "api", "execute_run"],
        "job",
        user_defined_k8s_config=described.run_k8s_config,
    )
    pod = job.spec.template.spec
    assert job.spec.ttl_seconds_after_finished == 600
    assert pod.termination_grace_period_seconds == 60
    [container] = pod.containers
    assert container.resources.limits["memory"] == "3Gi"
    assert {"MP_DATABASE", "MP_STATE_DIR"} <= {variable.name for variable in container.env}
    assert "mixpanel" in [source.secret_ref.name for source in container.env_from]

    instance = dagster_instance_config_schema()
    daemon = values["dagsterDaemon"]
    for part in ("runMonitoring", "runRetries"):
        [(name, options)] = snake_keys({part: snake_keys(daemon[part])}).items()
        assert validate_config(instance[name].config_type, options).success
        assert options["enabled"]
    assert values["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"


def snake_keys(values):
    return {re.sub(r"(?=[A-Z])", "_", name).lower(): value for name, value in values.items()}
