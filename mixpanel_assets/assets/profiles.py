"""The asset `mixpanel/profiles`: plan pages -> fetch them in parallel -> merge."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import chain
from typing import Any

import dagster as dg

from mixpanel_assets.client import PageOutcome
from mixpanel_assets.failures import explained_to_dagster
from mixpanel_assets.loads import ProfileLoad, kept_day, project_identity
from mixpanel_assets.partitions import daily_partitions, days_of
from mixpanel_assets.reports import column_schema, profile_metadata
from mixpanel_assets.resources import MixpanelResource
from mixpanel_assets.settings import Settings
from mixpanel_assets.snapshots import (
    Snapshot,
    discarded_on_failure,
    plan_day,
    question_for,
    whole,
)
from mixpanel_assets.warehouse import PROFILES, Database, ProfileReport

PROFILES_KEY = dg.AssetKey(["mixpanel", "profiles"])


@dataclass(frozen=True)
class Chunk:
    """Pages of one snapshot that one op fetches."""

    snapshot: Snapshot
    pages: tuple[int, ...]


class PlanConfig(dg.Config):
    """How the pages are dealt out."""

    pages_per_op: int = 200


def profiles_asset(settings: Settings) -> dg.AssetsDefinition:
    """Return the asset, with partitions as the settings say."""

    @dg.op(
        out={
            "snapshots": dg.Out(list[Snapshot]),
            "kept": dg.Out(list[ProfileReport]),
            "chunks": dg.DynamicOut(Chunk),
        },
        description="Asks for page 0 of each day's snapshot: session, total and page size.",
    )
    def plan_profile_pages(
        context: dg.OpExecutionContext, config: PlanConfig, mixpanel: MixpanelResource
    ) -> Iterator[dg.Output[Any] | dg.DynamicOutput[Chunk]]:
        today, snapshots, kept = settings.today(), list[Snapshot](), list[ProfileReport]()
        project = project_identity(mixpanel.credentials, settings)
        root, name = settings.spool_path(project.project_id), _folder_name(context)
        with (
            explained_to_dagster(),
            discarded_on_failure(root, name),
            mixpanel.client() as client,
        ):
            database = Database(settings.database_path(project.project_id))
            for day in _days(context):
                if report := kept_day(database, project, day, question_for(day, today)[0]):
                    kept.append(report)
                    context.log.info(f"{day}: kept, for it holds a full snapshot already")
                    continue
                snapshot = plan_day(client, day, today, root / f"{name}-{day}")
                snapshots.append(snapshot)
                plan = snapshot.plan
                context.log.info(f"{day}: {plan.total:,} profiles on {plan.num_pages:,} pages")
        yield dg.Output(snapshots, "snapshots")
        yield dg.Output(kept, "kept")
        yield from _dealt_out(snapshots, config.pages_per_op)

    @dg.op(description="Fetches a chunk of pages, up to five at once.")
    def fetch_profile_pages(
        context: dg.OpExecutionContext, chunk: Chunk, mixpanel: MixpanelResource
    ) -> list[PageOutcome]:
        def log_page(outcome: PageOutcome) -> None:
            context.log.info(
                f"page {outcome.page}: {outcome.error or f'{outcome.rows:,} profiles'}"
            )

        query, plan = chunk.snapshot.query, chunk.snapshot.plan
        if not plan.directory.exists():
            context.log.info("Another chunk of this run failed and deleted its pages")
            return []
        with (
            explained_to_dagster(),
            discarded_on_failure(plan.directory.parent, _folder_name(context)),
            mixpanel.client() as client,
        ):
            return client.fetch_profile_pages(query, plan, chunk.pages, on_page=log_page)

    @dg.op(
        out=dg.Out(ProfileLoad, io_manager_key="warehouse"),
        description="Stores each day's snapshot once all of its pages are there.",
    )
    def merge_profile_pages(
        context: dg.AssetExecutionContext,
        snapshots: list[Snapshot],
        kept: list[ProfileReport],
        outcomes: list[list[PageOutcome]],
        mixpanel: MixpanelResource,
    ) -> ProfileLoad:
        def report_day(report: ProfileReport, pages: int) -> None:
            key = report.snapshot_date.isoformat()
            load.materialized[key] = metadata = profile_metadata(report, pages)
            context.add_asset_metadata(metadata, asset_key=PROFILES_KEY, partition_key=key)

        project = project_identity(mixpanel.credentials, settings)
        root = settings.spool_path(project.project_id)
        with (
            explained_to_dagster(),
            discarded_on_failure(root, _folder_name(context)),
            mixpanel.client() as client,
        ):
            load = ProfileLoad(
                snapshots=whole(client, snapshots, chain.from_iterable(outcomes)),
                kept=kept,
                project=project,
                run_id=context.run.run_id,
                on_day=report_day,
            )
        return load

    @dg.graph_asset(
        key=PROFILES_KEY,
        description=PROFILES.grain,
        group_name="mixpanel",
        kinds={"mixpanel", "duckdb"},
        partitions_def=daily_partitions(settings),
        backfill_policy=dg.BackfillPolicy.single_run(),
        metadata={
            "partition_expr": "snapshot_date",
            "dagster/column_schema": column_schema(PROFILES.columns),
        },
    )
    def profiles() -> ProfileLoad:
        snapshots, kept, chunks = plan_profile_pages()
        outcomes = chunks.map(fetch_profile_pages).collect()
        merged: ProfileLoad = merge_profile_pages(snapshots, kept, outcomes)
        return merged

    return profiles


def _folder_name(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> str:
    """Return how the folders of this run's pages begin."""
    return f"profiles-{context.run.run_id}"


def _days(context: dg.OpExecutionContext) -> list[date]:
    first, last = days_of(context.partition_time_window)
    return [first + timedelta(days=offset) for offset in range((last - first).days + 1)]


def _dealt_out(snapshots: list[Snapshot], pages_per_op: int) -> Iterator[dg.DynamicOutput[Chunk]]:
    for number, snapshot in enumerate(snapshots):
        missing = snapshot.plan.missing()
        for start in range(0, len(missing), pages_per_op):
            pages = tuple(missing[start : start + pages_per_op])
            yield dg.DynamicOutput(
                Chunk(snapshot, pages), output_name="chunks", mapping_key=f"{number}_{start}"
            )
