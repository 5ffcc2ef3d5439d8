"""What one machine keeps for itself is refused where runs or steps use several."""

import os
import re
import time
from pathlib import Path

import dagster as dg
import pytest
import yaml

from mixpanel_assets import build_definitions
from mixpanel_assets.defs import machines
from mixpanel_assets.defs.machines import check_machines, is_remote, refuse_remote_steps
from mixpanel_assets.errors import ConfigError, DatabaseLockedError
from mixpanel_assets.warehouse import database_at
from mixpanel_assets_tests.conftest import resource_of

REMOTE = (
    *("CeleryRunLauncher", "DockerRunLauncher", "K8sRunLauncher", "CeleryK8sRunLauncher"),
    *("EcsRunLauncher", "CloudK8sRunLauncher", "celery", "celery-k8s", "celery-docker"),
    *("k8s", "k8s_job_executor", "docker", "celery_executor", "ecs"),
)
LOCAL = (
    *("DefaultRunLauncher", "SyncInMemoryRunLauncher", "in_process", "multiprocess"),
    *("multi_or_in_process_executor", "SpecsLauncher"),
)


def job_with(executor):
    @dg.executor(name=executor)
    def remote(_):
        raise NotImplementedError

    @dg.op
    def nothing():
        pass

    @dg.job(executor_def=remote)
    def job():
        nothing()

    return job


@pytest.fixture
def of_celery(tmp_path):
    """An instance whose launcher hands runs to workers; nothing connects to a broker."""
    launcher = {"module": "dagster_celery.launcher", "class": "CeleryRunLauncher", "config": {}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"run_launcher": launcher}))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def test_launchers_and_executors_of_several_machines_are_known_by_their_names():
    """Those of Dagster's libraries, and classes derived from them that keep the name."""
    assert [name for name in REMOTE if not is_remote(name)] == []
    assert [name for name in LOCAL if is_remote(name)] == []


def test_a_file_is_refused_under_a_launcher_of_several_machines(
    of_celery, settings, asked, emulator
):
    """Each machine would fill its own; MP_DATABASE_SHARED says that there is only one."""

    def materialize(**changes):
        definitions = build_definitions(
            settings=settings.model_copy(update=changes),
            resources={"mixpanel": resource_of(emulator)},
        )
        return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            asset_selection=[dg.AssetKey(["mixpanel", "events"])],
            partition_key="2024-01-02",
            instance=of_celery,
            raise_on_error=False,
        )

    refused = materialize()
    (failure,) = [event for event in refused.all_events if event.is_step_failure]
    said = failure.step_failure_data.user_failure_data.description
    assert "CeleryRunLauncher can use several machines" in said
    assert "MP_DATABASE_SHARED=true" in said
    assert asked() == []
    assert not settings.database.exists()
    assert materialize(database_shared=True).success


def test_a_file_is_refused_under_an_executor_of_several_machines(instance, tmp_path):
    """A lake is not, and neither is a file whose volume all runs mount on one machine."""
    file, job = str(tmp_path / "w.duckdb"), job_with("k8s_job_executor")
    with pytest.raises(ConfigError, match="k8s_job_executor can use several machines"):
        check_machines(file, instance, job, is_shared=False)
    for lake in ("ducklake:postgres:dbname=lake", "ducklake:postgres://h/d"):
        check_machines(lake, instance, job, is_shared=False)
    check_machines(file, instance, job, is_shared=True)
    check_machines(file, instance, job_with("multiprocess"), is_shared=False)


def test_every_step_and_sensor_opens_its_database_in_one_place():
    """Where machines are checked; a new one that forgets it would fill a file of each machine."""
    calls = [
        path.name
        for path in Path(machines.__file__).parent.rglob("*.py")
        if re.search(r"\bdatabase_(for|at)\(", path.read_text())
    ]
    assert sorted(calls) == ["io_managers.py", "machines.py"]


def test_steps_that_hand_each_other_files_are_not_spread():
    """The pages of profiles lie on the machine of the step that fetched them."""
    with pytest.raises(ConfigError, match="steps of `mixpanel/profiles` on several machines"):
        refuse_remote_steps(job_with("celery"), "mixpanel/profiles")
    refuse_remote_steps(job_with("multiprocess"), "mixpanel/profiles")


def test_two_hosts_that_write_one_shared_file_are_noticed(instance, tmp_path):
    """Their kernels do not see each other's locks; a volume that moved is free after a while."""
    file = tmp_path / "w.duckdb"

    def write():
        with database_at(file).write() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS t (x INTEGER)")

    write()
    assert not (tmp_path / "w.duckdb.hosts").exists()
    check_machines(str(file), instance, job_with("docker"), is_shared=True)
    write()
    write()  # one host may write as often as it likes, and so may its containers
    other = tmp_path / "w.duckdb.hosts" / "another-kernel"
    other.write_text("worker-7")
    with pytest.raises(DatabaseLockedError, match=r"another machine \(worker-7\)"):
        write()
    os.utime(other, (time.time() - 121,) * 2)
    write()
    os.utime(other, (time.time() - 90_000,) * 2)
    write()
    assert not other.exists()
