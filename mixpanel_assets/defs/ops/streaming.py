"""Ops that stream events and profiles into files."""

import time
from pathlib import Path
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from mixpanel_assets.client import STREAMED_DAYS, MixpanelAPIClient, ProfileQuery
from mixpanel_assets.defs.metadata import megabytes, table
from mixpanel_assets.defs.names import THE_ONLY_PROJECT, Names, opening
from mixpanel_assets.defs.partitions import FIRST_DAY, LAST_DAY, USUAL_DAYS, span
from mixpanel_assets.defs.resources import client_of_step
from mixpanel_assets.loading.files import DayFile, EventFilter, EventFolder, write_snapshot
from mixpanel_assets.settings import Settings, load_settings


class EventFilesConfig(dg.Config):
    """Which events are written to files, and where."""

    from_date: str | None = Field(
        default=None, description=f"{FIRST_DAY}; empty: 30 days up to to_date."
    )
    to_date: str | None = Field(default=None, description=LAST_DAY)
    events: list[str] | None = Field(
        default=None, description="Only events of these names; empty: all."
    )
    where: str | None = Field(
        default=None,
        description='Only events that fit an expression such as properties["plan"] == "pro".',
    )
    raw: bool = Field(
        default=False,
        description="As Mixpanel sends them, byte for byte, `time` in seconds (jsonl only). "
        "Otherwise event_name, event_time (UTC), distinct_id, insert_id and properties.",
    )
    format: Literal["jsonl", "parquet"] = Field(
        default="jsonl", description="Parquet has typed columns; its properties are JSON text."
    )
    directory: str | None = Field(
        default=None,
        description="The folder, one for each filter; empty: `files/events` next to the database.",
    )
    days_per_request: int = Field(
        default=STREAMED_DAYS,
        ge=1,
        le=31,
        description="The number of neighbouring days that share a request; one in projects from "
        "before 2023.",
    )
    overwrite: bool = Field(
        default=False, description="Request days again that have a finished file."
    )


class ProfileFileConfig(dg.Config):
    """Which profiles are written to a file, and where."""

    path: str | None = Field(
        default=None,
        description="The file; empty: `files/profiles.jsonl` (or .parquet) next to the database.",
    )
    format: Literal["jsonl", "parquet"] = Field(
        default="jsonl", description="Parquet has typed columns; its properties are JSON text."
    )
    raw: bool = Field(
        default=False,
        description="As Mixpanel sends them, byte for byte (jsonl only). Otherwise distinct_id, "
        "last_seen and properties.",
    )
    overwrite: bool = Field(
        default=False, description="Replace a file of that name once the new one is complete."
    )
    where: str | None = Field(default=None, description="An expression over profile properties.")
    cohort_id: str | None = Field(default=None, description="Only members of this cohort.")
    output_properties: list[str] | None = Field(
        default=None, description="Only these properties of each profile."
    )
    distinct_id: str | None = Field(default=None, description="Only this profile.")
    distinct_ids: list[str] | None = Field(default=None, description="Only these profiles.")
    group_id: str | None = Field(
        default=None, description="Profiles of this group key instead of user profiles."
    )
    behaviors: list[dict[str, Any]] | None = Field(
        default=None, description="Behaviour filters, as the Engage API takes them."
    )
    as_of_timestamp: int | None = Field(
        default=None, description="Seconds since 1970 that behaviors are computed for."
    )
    include_all_users: bool = Field(
        default=False, description="With a cohort, also members that have no profile."
    )

    def query(self) -> ProfileQuery:
        """Return the filters."""
        own = {"path", "format", "raw", "overwrite"}
        return ProfileQuery(**self.model_dump(exclude=own))


def stream_events_op(
    settings: Settings | None = None, names: Names = THE_ONLY_PROJECT
) -> dg.OpDefinition:
    """Return the op `stream_events_to_files`.

    Args:
        settings: Instead of the MP_* variables.
        names: Prefix the op, and name its resource.
    """

    @dg.op(
        name=names.named("stream_events_to_files"),
        required_resource_keys=names.resource_keys,
        description="Writes a complete file of events per day; finished days are not requested "
        "again. Costs one export request for seven days that have no finished file. Returns the "
        "paths of all days, in order.",
    )
    def stream(context: dg.OpExecutionContext, config: EventFilesConfig) -> list[str]:
        known, begin = settings or load_settings(), time.monotonic()
        with client_of_step(names.resource(context), context, known) as client:
            first, last = span(config.from_date, config.to_date, known.today())
            folder = EventFolder(
                _path(config.directory, client, known, "events"),
                client,
                known,
                EventFilter(config.events, config.where, config.raw),
                config.format,
                config.days_per_request,
            )
            files = folder.fill(
                first,
                last,
                overwrite=config.overwrite,
                on_day=lambda file: context.log.info(_in_words(file)),
            )
        context.add_output_metadata(
            _files_metadata(folder.directory, files, time.monotonic() - begin)
        )
        return [str(file.path) for file in files]

    return stream


def stream_profiles_op(
    settings: Settings | None = None, names: Names = THE_ONLY_PROJECT
) -> dg.OpDefinition:
    """Return the op `stream_profiles_to_file`.

    Args:
        settings: Instead of the MP_* variables.
        names: Prefix the op, and name its resource.
    """

    @dg.op(
        name=names.named("stream_profiles_to_file"),
        required_resource_keys=names.resource_keys,
        description="Writes one snapshot of profiles, completely or not at all. Costs one query "
        "request; Mixpanel does not seem to count the pages after the first. Returns the path.",
    )
    def stream(context: dg.OpExecutionContext, config: ProfileFileConfig) -> str:
        known = settings or load_settings()
        with client_of_step(names.resource(context), context, known) as client:
            written = write_snapshot(
                client,
                _path(config.path, client, known, f"profiles.{config.format}"),
                config.query(),
                raw=config.raw,
                format=config.format,
                overwrite=config.overwrite,
            )
        context.add_output_metadata(
            {
                "path": dg.PathMetadataValue(str(written.path)),
                "rows": written.rows,
                "megabytes": megabytes(written.bytes),
                "seconds": round(written.seconds, 3),
            }
        )
        return str(written.path)

    return stream


stream_events_to_files = stream_events_op()
stream_profiles_to_file = stream_profiles_op()


def streaming_jobs(settings: Settings, names: Names) -> list[dg.JobDefinition]:
    """Return a job for each op."""
    events, profiles = stream_events_op(settings, names), stream_profiles_op(settings, names)

    @dg.job(
        name=names.named("stream_events"),
        description=events.description,
        executor_def=dg.in_process_executor,
        config=opening(
            events,
            {"from_date": f"-{USUAL_DAYS}d", "to_date": "yesterday", "format": "jsonl"},
        ),
    )
    def events_job() -> None:
        events()

    @dg.job(
        name=names.named("stream_profiles"),
        description=profiles.description,
        executor_def=dg.in_process_executor,
        config=opening(profiles, {"format": "jsonl", "overwrite": False}),
    )
    def profiles_job() -> None:
        profiles()

    return [events_job, profiles_job]


def _path(given: str | None, client: MixpanelAPIClient, settings: Settings, name: str) -> Path:
    if given:
        return Path(given).expanduser().absolute()
    return settings.local_folder(client.credentials.project_id) / "files" / name


def _in_words(file: DayFile) -> str:
    if file.rows is None:
        return f"{file.day} has a finished file already"
    return f"{file.day}: {file.rows:,} events, {file.bytes:,} bytes, {file.seconds:.1f} s"


def _files_metadata(directory: Path, files: list[DayFile], seconds: float) -> dict[str, Any]:
    written = [file for file in files if file.rows is not None]
    return {
        "path": dg.PathMetadataValue(str(directory)),
        "days": len(files),
        "days_written": len(written),
        "rows": sum(file.rows or 0 for file in written),
        "megabytes": megabytes(sum(file.bytes for file in written)),
        "seconds": round(seconds, 3),
        "files": table(
            (
                {
                    "day": str(file.day),
                    "rows": file.rows,
                    "megabytes": megabytes(file.bytes),
                    "seconds": round(file.seconds, 3),
                    "status": "there already" if file.rows is None else "written",
                }
                for file in files
            ),
            {
                "day": "string",
                "rows": "int",
                "megabytes": "float",
                "seconds": "float",
                "status": "string",
            },
            rows="Empty for a file of an earlier run.",
        ),
    }
