"""Runs and steps on several machines: what one machine keeps for itself is refused there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeAlias

import dagster as dg

from mixpanel_assets.errors import ConfigError
from mixpanel_assets.rules.location import is_lake
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import Database
from mixpanel_assets.warehouse.lock import note_hosts

# The names of Dagster's own launchers and executors: CeleryRunLauncher, k8s_job_executor.
_REMOTE = re.compile(r"[Cc]elery|[Dd]ocker|[Kk]8s|[Kk]ubernetes|(?<![a-z])[Ee]cs(?![a-z])")

Step: TypeAlias = (
    dg.OpExecutionContext
    | dg.AssetExecutionContext
    | dg.AssetCheckExecutionContext
    | dg.SensorEvaluationContext
)


def step_database(
    context: Step, settings: Settings, project_id: str, *, read_only: bool = False
) -> Database:
    """Return the database of the settings for a step or a sensor, not opened yet.

    Args:
        context: Of the step or the sensor.
        settings: Name the database.
        project_id: Names the file in the home directory.
        read_only: Refuse every write, and read the copy for readers.

    Raises:
        ConfigError: It is a file of this machine, and runs or steps are spread over several.
    """
    database = settings.database_for(project_id, read_only=read_only, on_wait=context.log.info)
    job = None if isinstance(context, dg.SensorEvaluationContext) else context.job_def
    check_machines(database.place, context.instance, job, is_shared=settings.database_shared)
    return database


def check_machines(
    database: str, instance: dg.DagsterInstance, job: Any, *, is_shared: bool
) -> None:
    """Refuse a file where each machine would fill one of its own.

    Args:
        database: A path, or the location of a lake.
        instance: Names the run launcher.
        job: Names the executor; None: no job is run.
        is_shared: All runs mount one volume on one machine (MP_DATABASE_SHARED).

    Raises:
        ConfigError: The launcher or the executor uses several machines.
    """
    if is_lake(database):
        return
    if is_shared:
        note_hosts(Path(database))
        return
    if spread := remote_launcher(instance) or (job and remote_executor(job)):
        raise ConfigError(
            f"{spread} can use several machines, and each would fill a file of its own at "
            f"{database}. Set MP_DATABASE to a lake, which machines share. If all runs mount the "
            "volume of the file on one machine, set MP_DATABASE_SHARED=true."
        )


def is_remote(name: str) -> bool:
    """Return whether a launcher or an executor of that name uses several machines."""
    return bool(_REMOTE.search(name))


def remote_launcher(instance: dg.DagsterInstance) -> str | None:
    """Return the class of a run launcher that starts runs elsewhere; None: it starts them here."""
    # Not `instance.run_launcher`, which connects to the cluster.
    launcher = instance.get_ref().run_launcher_data if instance.is_persistent else None
    return launcher.class_name if launcher and is_remote(launcher.class_name) else None


def remote_executor(job: Any) -> str | None:
    """Return the name of an executor that runs steps elsewhere; None: it runs them here."""
    name: str = job.executor_def.name
    return name if is_remote(name) else None


def refuse_remote_steps(job: Any, asset: str) -> None:
    """Refuse an executor whose steps cannot read the files of other steps.

    Raises:
        ConfigError: The executor runs steps on several machines.
    """
    if name := remote_executor(job):
        raise ConfigError(
            f"{name} can run the steps of `{asset}` on several machines, but they hand each other "
            "files of one machine. Run them in one process (executor_def=dg.in_process_executor), "
            "and spread runs instead: with the CeleryRunLauncher, DockerRunLauncher or "
            "K8sRunLauncher."
        )
