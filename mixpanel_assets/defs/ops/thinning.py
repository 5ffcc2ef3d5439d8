"""The job `keep_snapshots`: count full snapshots of profiles and delete old ones on request."""

import dagster as dg
from pydantic import Field

from mixpanel_assets.defs.failures import explained_to_dagster
from mixpanel_assets.defs.machines import step_database
from mixpanel_assets.defs.metadata import megabytes
from mixpanel_assets.defs.names import Names, opening
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    PROFILES,
    Publisher,
    Target,
    Thinned,
    prepare,
    thin_snapshots,
)


class KeepConfig(dg.Config):
    """Which full snapshots are kept. The newest complete one and today's always are."""

    daily: int = Field(default=7, ge=0, description="The newest days.")
    weekly: int = Field(default=8, ge=0, description="The newest day of this many ISO weeks.")
    monthly: int = Field(default=24, ge=0, description="The newest day of this many months.")
    delete: bool = Field(
        default=False,
        description="Delete the other days for good. Otherwise the run only names them.",
    )
    table: str = Field(default=PROFILES.name, description="An asset table of profiles.")


def keep_snapshots_job(settings: Settings, names: Names) -> dg.JobDefinition:
    """Return the job that thins out full snapshots; no schedule runs it."""

    @dg.op(
        name=names.named("thin_snapshots"),
        required_resource_keys=names.resource_keys,
        description="Names, or deletes, superfluous snapshots.",
    )
    def thin(context: dg.OpExecutionContext, config: KeepConfig) -> None:
        with explained_to_dagster():
            project = settings.project(names.resource(context).credentials)
            database = step_database(context, settings, project.project_id)
            publisher = Publisher(database, settings.snapshot, context.log.warning, project=project)
            with publisher.writing(), database.write() as connection:
                prepare(connection, project)  # refuses the file of another project
                thinned = thin_snapshots(
                    connection,
                    daily=config.daily,
                    weekly=config.weekly,
                    monthly=config.monthly,
                    today=settings.today(),
                    target=Target(config.table),
                    dry_run=not config.delete,
                )
        context.log.info(growth(thinned, deleted=config.delete))
        context.add_output_metadata(
            {
                "kept_days": [str(day) for day in thinned.kept],
                "deleted_days" if config.delete else "days_to_delete": [
                    str(day) for day in thinned.deleted
                ],
                "rows_deleted" if config.delete else "rows_to_delete": thinned.deleted_rows,
                "rows_left": thinned.remaining_rows,
                "megabytes_left": megabytes(thinned.remaining_bytes),
                "rows_per_snapshot": thinned.rows_per_snapshot,
            }
        )

    @dg.job(
        name=names.named("keep_snapshots"),
        executor_def=dg.in_process_executor,
        config=opening(thin, KeepConfig().model_dump()),
        description="Thins out full snapshots of profiles, each of which holds all profiles again: "
        "the newest day of the last 7 days, 8 weeks and 24 months are kept. Deletes nothing unless "
        "its configuration says `delete: true`, and logs how the table grows. Sends no request.",
    )
    def job() -> None:
        thin()

    return job


def growth(thinned: Thinned, *, deleted: bool) -> str:
    """Return what was or would be deleted, and what a snapshot a day adds in a year."""
    verb = "Deleted" if deleted else "Would delete"
    return (
        f"{verb} {len(thinned.deleted)} full snapshots ({thinned.deleted_rows:,} rows), "
        f"{len(thinned.kept)} are kept. {thinned.remaining_rows:,} rows are left, about "
        f"{thinned.remaining_bytes / 1e6:,.0f} MB. A snapshot a day adds about "
        f"{thinned.rows_per_snapshot:,} rows, {thinned.rows_per_snapshot * 365:,} in a year."
    )
