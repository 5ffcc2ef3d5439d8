"""The asset `mixpanel/profiles`: plan pages -> fetch them in parallel -> merge."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import dagster as dg
from pydantic import Field

from mixpanel_assets.client import (
    MAX_WORKERS,
    MixpanelAPIClient,
    PageOutcome,
    PagePlan,
    ProfileQuery,
)
from mixpanel_assets.defs.failures import explained_to_dagster
from mixpanel_assets.defs.fields import text
from mixpanel_assets.defs.machines import refuse_remote_steps, step_database
from mixpanel_assets.defs.metadata import (
    column_schema,
    completeness_metadata,
    profile_metadata,
    stored_table,
)
from mixpanel_assets.defs.names import (
    NO_HOOKS,
    THE_ONLY_PROJECT,
    AssetHooks,
    AssetKind,
    Names,
    StepResult,
    quiet_beta,
)
from mixpanel_assets.defs.partitions import PartitionRecord, daily_partitions, days_of
from mixpanel_assets.defs.resources import client_of_step
from mixpanel_assets.loading.profiles import (
    OnPage,
    ProfileLoad,
    Snapshot,
    SnapshotRequest,
    begin_snapshot,
    complete_snapshot,
    fetch_missing,
    in_use,
    leave_out_kept_days,
    partial_days_error,
    require_complete,
    snapshot_requests,
)
from mixpanel_assets.rules.days import days_between
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.warehouse import (
    PROFILES,
    SCHEMA,
    ProfileReport,
    Target,
    check_name,
    refuse_our_names,
)


class ProfilesConfig(dg.Config):
    """Which profiles a day gets, and how its pages are distributed over ops."""

    scope: Literal["auto", "all", "seen_on_day"] = Field(
        default="auto",
        description="`auto`: today gets all profiles, an older day those last seen on it. The "
        "others force one or the other for every day.",
    )
    overwrite_full_snapshot: bool = Field(
        default=False,
        description="Also replace the full snapshot of a day that has ended; it cannot be taken "
        "again.",
    )
    pages_per_op: int = Field(
        default=200, ge=1, description="Pages that one op fetches; 1 makes an op of each page."
    )
    max_workers: int = Field(
        default=MAX_WORKERS,
        ge=1,
        description="Pages that one op requests at once. All runs together request five at most.",
    )


@dataclass(frozen=True)
class ProfilePlan:
    """What the plan op passes to the merge op.

    Attributes:
        snapshots: Page 0 of each is on disk.
        kept: Days that are left out.
        overwrite: Whether full snapshots may be replaced.
        max_workers: Pages to request at once.
        started: Time of the first request, in seconds since 1970.
    """

    snapshots: list[Snapshot]
    kept: list[ProfileReport]
    overwrite: bool
    max_workers: int
    started: float


# A mapped op costs 3.5 s under the multiprocess executor, so it fetches many pages with threads.
@dataclass(frozen=True)
class Chunk:
    """Pages of one snapshot that one op fetches."""

    snapshot: Snapshot
    pages: tuple[int, ...]
    max_workers: int


@quiet_beta()
def profiles_asset(
    settings: Settings,
    name: str = PROFILES.name,
    *,
    query: ProfileQuery | None = None,
    description: str = PROFILES.grain,
    names: Names = THE_ONLY_PROJECT,
    hooks: AssetHooks = NO_HOOKS,
) -> dg.AssetsDefinition:
    """Return an asset of profiles, with partitions as the settings say.

    Args:
        settings: The partitions, and where pages and rows are kept.
        name: Name of the asset and of its table in schema `mixpanel`.
        query: Narrows the profiles; None: all user profiles.
        description: What one row is.
        names: The key of the asset and of its resources; the names of its ops.
        hooks: What Dagster shows of the asset, and how its steps run.

    Example:
        >>> profiles_asset(Settings()).key.to_user_string()
        'mixpanel/profiles'
    """
    target, check, partitions = Target(name), f"{name}_complete", daily_partitions(settings)
    spec = hooks.spec(
        AssetKind(
            name,
            "profile",
            dg.AssetSpec(
                names.asset_key(name),
                description=description,
                group_name=names.group,
                kinds={"mixpanel", "duckdb"},
                owners=settings.owners,
                partitions_def=partitions,
            ),
        )
    )
    key = spec.key
    filters = query.filters if query else None
    stem = "profile" if name == PROFILES.name else name

    @dg.op(
        name=names.named(f"plan_{stem}_pages"),
        required_resource_keys=names.resource_keys,
        tags=hooks.op_tags,
        out={"plan": dg.Out(ProfilePlan), "chunks": dg.DynamicOut(Chunk)},
        description="Requests page 0 of each snapshot: session, total and page size.",
    )
    def plan_pages(
        context: dg.OpExecutionContext, config: ProfilesConfig
    ) -> Iterator[dg.Output[ProfilePlan] | dg.DynamicOutput[Chunk]]:
        started, mixpanel = time.time(), names.resource(context)
        with explained_to_dagster():
            refuse_remote_steps(context.job_def, key.to_user_string())
        with client_of_step(mixpanel, context, settings) as client:
            project = settings.project(client.credentials)
            root = settings.spool_path(project.project_id)
            database = step_database(context, settings, project.project_id)
            requests = snapshot_requests(
                _days(context),
                settings.today(),
                query,
                config.scope,
                zone=settings.export_zone,
            )
            requests, kept = leave_out_kept_days(
                database,
                project,
                requests,
                target=target,
                filters=filters,
                overwrite=config.overwrite_full_snapshot,
            )
            for report in kept:
                context.log.info(f"{report.snapshot_date}: its full snapshot is kept")
            plan = ProfilePlan(
                _begin_snapshots(context, client, requests, root),
                kept,
                config.overwrite_full_snapshot,
                config.max_workers,
                started,
            )
        yield dg.Output(plan, "plan")
        yield from _chunks(plan, config.pages_per_op)

    @dg.op(
        name=names.named(f"fetch_{stem}_pages"),
        required_resource_keys=names.resource_keys,
        tags=hooks.op_tags,
        description="Fetches the pages of a chunk that are not on disk yet, several at once.",
    )
    def fetch_pages(context: dg.OpExecutionContext, chunk: Chunk) -> list[int]:
        """Return the numbers of the pages that failed; the merge requests them again."""
        with explained_to_dagster(), names.resource(context).client(settings) as client:
            failed, _ = fetch_missing(
                client,
                chunk.snapshot,
                chunk.pages,
                max_workers=chunk.max_workers,
                on_page=_page_logger(context),
            )
        return sorted(failed)

    @dg.op(
        name=names.named(f"merge_{stem}_pages"),
        required_resource_keys=names.resource_keys,
        tags=hooks.op_tags,
        out={"rows": dg.Out(ProfileLoad, io_manager_key=names.warehouse), "complete": dg.Out()},
        description="Fetches the pages that are still missing and stores each day's profiles.",
    )
    def merge_pages(
        context: dg.AssetExecutionContext, plan: ProfilePlan, failed: list[list[int]]
    ) -> Iterator[StepResult]:
        yield from hooks.execute(context, merged(context, plan, failed))

    def merged(
        context: dg.AssetExecutionContext, plan: ProfilePlan, failed: list[list[int]]
    ) -> Iterator[StepResult]:
        record, mixpanel = PartitionRecord(context, key, hooks.shown), names.resource(context)
        last = plan.started

        def record_day(report: ProfileReport, pages: int) -> None:
            nonlocal last
            seconds, last = time.time() - last, time.time()
            metadata = profile_metadata(report, pages, seconds, budget_left=_budget_left(client))
            record.add(report.snapshot_date, metadata)

        if again := [page for pages in failed for page in pages]:
            context.log.warning(f"Pages that failed are requested again: {again}")
        with client_of_step(mixpanel, context, settings) as client, in_use(plan.snapshots):
            load = ProfileLoad(
                snapshots=[
                    complete_snapshot(
                        client,
                        snapshot,
                        settings.today,
                        max_workers=plan.max_workers,
                        on_page=_page_logger(context),
                    )
                    for snapshot in plan.snapshots
                ],
                kept=plan.kept,
                project=settings.project(mixpanel.credentials),
                target=target,
                filters=filters,
                overwrite=plan.overwrite,
                run_id=context.run.run_id,
                on_day=record_day,
                materialized=record.materialized,
            )
        yield dg.Output(load, "rows")
        yield _completeness(load, key, check)
        with explained_to_dagster():
            require_complete(load.reports)

    @dg.graph_asset(
        key=key,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        check_specs=[
            dg.AssetCheckSpec(
                check,
                asset=key,
                blocking=True,
                description="Every page has arrived, and the pages hold the announced profiles.",
            )
        ],
        metadata=hooks.shown(
            stored_table(key, target, "snapshot_date", column_schema(PROFILES.columns))
        ),
    )
    def profiles() -> dict[str, Any]:
        plan, chunks = plan_pages()
        rows, complete = merge_pages(plan, chunks.map(fetch_pages).collect())
        return {"result": rows, f"{key.to_python_identifier()}_{check}": complete}

    return hooks.present(profiles, spec)


def group_profiles_asset(
    name: str,
    group_id: str,
    *,
    settings: Settings | None = None,
    names: Names = THE_ONLY_PROJECT,
    hooks: AssetHooks = NO_HOOKS,
) -> dg.AssetsDefinition:
    """Return an asset of the profiles of a group, such as companies.

    Args:
        name: Name of the asset and of its table in schema `mixpanel`. The columns are those of
            `profiles`; `distinct_id` holds the group's id.
        group_id: The group key's id (`data_group_id`): a 64-bit integer as text, maybe negative.
        settings: Instead of the MP_* variables.
        names: The key of the asset and of its resources; the names of its ops.
        hooks: What Dagster shows of the asset, and how its steps run.

    Example:
        >>> companies = group_profiles_asset("companies", "-1405123841946871899")
    """
    _check_own_table(name)
    return profiles_asset(
        settings or load_settings(),
        name,
        query=ProfileQuery(group_id=group_id),
        description="One row per group profile and snapshot day.",
        names=names,
        hooks=hooks,
    )


def filtered_profiles_asset(
    name: str,
    *,
    where: str | None = None,
    cohort_id: str | None = None,
    output_properties: Sequence[str] | None = None,
    group_id: str | None = None,
    behaviors: Sequence[Mapping[str, Any]] | None = None,
    distinct_ids: Sequence[str] | None = None,
    settings: Settings | None = None,
    names: Names = THE_ONLY_PROJECT,
    hooks: AssetHooks = NO_HOOKS,
) -> dg.AssetsDefinition:
    """Return an asset of some profiles in a table of its own; `profiles` always holds all.

    Args:
        name: Name of the asset and of its table in schema `mixpanel`.
        where: A segmentation expression over profile properties.
        cohort_id: Only members of this cohort that have a profile.
        output_properties: Only these properties of each profile.
        group_id: Profiles of this group key instead of user profiles.
        behaviors: Behaviour filters, as the Engage API takes them; `where` names them.
        distinct_ids: Only these profiles.
        settings: Instead of the MP_* variables.
        names: The key of the asset and of its resources; the names of its ops.
        hooks: What Dagster shows of the asset, and how its steps run.

    Raises:
        ConfigError: The filters contradict each other.

    Example:
        >>> payers = filtered_profiles_asset("payers", where='properties["plan"] == "pro"')
    """
    query = ProfileQuery(
        where=where,
        cohort_id=cohort_id,
        output_properties=output_properties,
        group_id=group_id,
        behaviors=behaviors,
        distinct_ids=distinct_ids,
    )
    query.check()
    _check_own_table(name)
    return profiles_asset(
        settings or load_settings(),
        name,
        query=query,
        description="One row per profile of the filter and snapshot day.",
        names=names,
        hooks=hooks,
    )


def _check_own_table(name: str) -> None:
    """Refuse the name of a table of this package: `profiles` holds all user profiles, no others."""
    check_name(name, PROFILES)
    refuse_our_names(SCHEMA, name)


class FilteredProfiles(dg.Model, dg.Resolvable):
    """A table of the profiles of one filter, for `build_definitions` and components."""

    name: Annotated[str, text("Name of the asset and of its table in schema `mixpanel`.", "payers")]
    where: Annotated[
        str | None,
        text(
            "A segmentation expression over profile properties.",
            'properties["plan"] == "pro"',
            kind=str | None,
        ),
    ] = None
    cohort_id: Annotated[
        str | None,
        text("Only members of this cohort that have a profile.", "1234567", kind=str | int | None),
    ] = None
    output_properties: Annotated[
        list[str] | None,
        text(
            "Only these properties of each profile.",
            ["$email", "plan"],
            kind=list[str | int] | None,
        ),
    ] = None
    group_id: Annotated[
        str | None,
        text(
            "Profiles of this group key instead of user profiles.",
            "-1405123841946871899",
            kind=str | int | None,
        ),
    ] = None
    distinct_ids: Annotated[
        list[str] | None,
        text("Only these profiles.", ["user-1", "user-2"], kind=list[str | int] | None),
    ] = None

    def asset(self, settings: Settings, *, names: Names, hooks: AssetHooks) -> dg.AssetsDefinition:
        """Return the asset; see `filtered_profiles_asset`.

        Args:
            settings: The partitions, and where responses and rows are kept.
            names: The key of the asset and of its resources.
            hooks: What Dagster shows of the asset, and how its step runs.
        """
        filters = self.model_dump(exclude={"name"})
        return filtered_profiles_asset(
            self.name, **filters, settings=settings, names=names, hooks=hooks
        )


def _budget_left(client: MixpanelAPIClient) -> int:
    return next(usage.left for usage in client.quota() if usage.api == "query")


def _days(context: dg.OpExecutionContext) -> list[date]:
    return days_between(*days_of(context.partition_time_window))


def _begin_snapshots(
    context: dg.OpExecutionContext,
    client: MixpanelAPIClient,
    requests: Sequence[SnapshotRequest],
    root: Path,
) -> list[Snapshot]:
    snapshots = []
    with ExitStack() as used:  # a clean-up must not delete the first while others wait
        for request in requests:
            snapshots.append(snapshot := begin_snapshot(client, request, root))
            used.enter_context(snapshot.plan.in_use())
            plan, days = snapshot.plan, request.days
            context.log.info(
                f"{days[0]}{f' to {days[-1]}' if len(days) > 1 else ''}: {plan.total:,} profiles "
                f"on {plan.num_pages:,} pages, {len(plan.missing()):,} of them to be fetched"
            )
    return snapshots


def _chunks(plan: ProfilePlan, pages_per_op: int) -> Iterator[dg.DynamicOutput[Chunk]]:
    for number, snapshot in enumerate(plan.snapshots):
        missing = snapshot.plan.missing()
        for start in range(0, len(missing), pages_per_op):
            pages = tuple(missing[start : start + pages_per_op])
            yield dg.DynamicOutput(
                Chunk(snapshot, pages, plan.max_workers),
                output_name="chunks",
                mapping_key=f"{number}_{start}",
            )


def _page_logger(
    context: dg.OpExecutionContext | dg.AssetExecutionContext,
) -> OnPage:
    def log(outcome: PageOutcome, plan: PagePlan) -> None:
        if outcome.error:
            context.log.warning(outcome.error)
        else:
            page = f"page {outcome.page} of 0 to {plan.num_pages - 1}"
            context.log.info(f"{page}: {outcome.rows:,} profiles")

    return log


def _completeness(load: ProfileLoad, key: dg.AssetKey, check: str) -> dg.AssetCheckResult:
    error = partial_days_error(load.reports)
    kept = [f"{day.snapshot_date}" for day in load.reports if day.kept and day.status == "partial"]
    advice = f"Kept, though incomplete: {', '.join(kept)}." if kept else None
    return dg.AssetCheckResult(
        passed=error is None and not kept,
        asset_key=key,
        check_name=check,
        # A kept day cannot be completed any more, so it only warns and blocks nothing.
        severity=dg.AssetCheckSeverity.ERROR if error else dg.AssetCheckSeverity.WARN,
        description=error.message if error else advice,
        metadata=completeness_metadata(load.reports),
    )
