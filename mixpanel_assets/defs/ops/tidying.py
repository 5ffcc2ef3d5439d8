"""The job `tidy_lake`: merge small files of a lake and delete those that no snapshot needs."""

import dagster as dg
from pydantic import Field

from mixpanel_assets.defs.failures import explained_to_dagster
from mixpanel_assets.defs.machines import step_database
from mixpanel_assets.defs.names import Names, opening
from mixpanel_assets.rules.location import LakeLocation
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import KEEP_DAYS, MOST_FILES


class TidyConfig(dg.Config):
    """What is kept, and how much is done in one run."""

    keep_days: int = Field(
        default=KEEP_DAYS, ge=0, description="For how many days old rows can still be read."
    )
    most_files: int = Field(
        default=MOST_FILES, ge=1, description="The most files of a table that are merged."
    )


def is_lake(settings: Settings) -> bool:
    """Return whether the tables are in a lake, which alone needs the job."""
    return isinstance(settings.database, LakeLocation)


def tidy_lake_job(settings: Settings, names: Names) -> dg.JobDefinition:
    """Return the job that tidies the lake."""

    @dg.op(
        name=names.named("tidy_files"),
        required_resource_keys=names.resource_keys,
        description="Merges small files, ends old snapshots and deletes the files that only these "
        "needed. Writers wait for each of the three steps; readers never do.",
    )
    def tidy(context: dg.OpExecutionContext, config: TidyConfig) -> None:
        with explained_to_dagster():
            project_id = names.resource(context).credentials.project_id
            database = step_database(context, settings, project_id)
            tidied = database.tidy(keep_days=config.keep_days, most_files=config.most_files)
        context.log.info(str(tidied))
        context.add_output_metadata(
            {
                "merged_files": tidied.merged_files,
                "ended_snapshots": tidied.ended_snapshots,
                "deleted_files": tidied.deleted_files,
                "unknown_files": tidied.unknown_files,
            }
        )

    @dg.job(
        name=names.named("tidy_lake"),
        executor_def=dg.in_process_executor,
        config=opening(tidy, {"keep_days": KEEP_DAYS, "most_files": MOST_FILES}),
        description="Merges small files of the lake and deletes those that no kept snapshot "
        "needs. Sends no request.",
    )
    def job() -> None:
        tidy()

    return job


def tidy_lake_schedule(settings: Settings, names: Names) -> dg.ScheduleDefinition:
    """Return the schedule that tidies the lake each day."""
    return dg.ScheduleDefinition(
        name=names.named("tidy_lake"),
        job_name=names.named("tidy_lake"),
        cron_schedule="40 3 * * *",
        execution_timezone=settings.export_zone,
        description="Every day at 03:40: merges small files of the lake, and deletes those that "
        f"no snapshot of the last {KEEP_DAYS} days needs.",
    )
