"""build_definitions: everything that Dagster shows and runs of one Mixpanel project."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import dagster as dg

from mixpanel_assets.defs.assets.coverage import coverage_asset
from mixpanel_assets.defs.assets.events import FilteredEvents, events_asset
from mixpanel_assets.defs.assets.profiles import (
    FilteredProfiles,
    group_profiles_asset,
    profiles_asset,
)
from mixpanel_assets.defs.assets.queries import LiveQuery
from mixpanel_assets.defs.checks import chosen_checks, event_checks
from mixpanel_assets.defs.io_managers import WarehouseIOManager
from mixpanel_assets.defs.late_events import late_events_sensor
from mixpanel_assets.defs.metadata import METADATA, MetadataKind
from mixpanel_assets.defs.names import (
    NO_HOOKS,
    AssetHooks,
    AssetKind,
    Execute,
    MixpanelTranslator,
    Names,
    Translate,
    quiet_beta,
)
from mixpanel_assets.defs.ops import ask_report_job, streaming_jobs
from mixpanel_assets.defs.ops.history import backfill_history_job
from mixpanel_assets.defs.ops.thinning import keep_snapshots_job
from mixpanel_assets.defs.ops.tidying import is_lake, tidy_lake_job, tidy_lake_schedule
from mixpanel_assets.defs.ops.verification import verify_range_job
from mixpanel_assets.defs.resources import MixpanelResource, resource_from_environment
from mixpanel_assets.defs.schedules import (
    Keys,
    asset_jobs,
    automation_sensors,
    check_job,
    kept_current,
    live_query_schedule,
    reconcile_job,
)
from mixpanel_assets.defs.schedules import schedules as schedules_of
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.loading.checks import EVENTS_COMPLETE, RECONCILED
from mixpanel_assets.loading.day_checks import CheckThresholds
from mixpanel_assets.rules.location import LakeLocation
from mixpanel_assets.settings import Settings, load_settings

Table: TypeAlias = FilteredEvents | FilteredProfiles


def build_definitions(
    *,
    name: str | None = None,
    key_prefix: str | Sequence[str] | None = None,
    group_name: str | None = None,
    owners: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    account: str | MixpanelResource | None = None,
    settings: Settings | None = None,
    events: bool = True,
    profiles: bool = True,
    coverage: bool = True,
    groups: Mapping[str, str] | None = None,
    tables: Sequence[Table] = (),
    checks: bool | Collection[str] = True,
    check_thresholds: CheckThresholds | None = None,
    jobs: bool | Collection[str] = True,
    schedules: bool | Collection[str] = True,
    queries: Sequence[LiveQuery] = (),
    executor: dg.ExecutorDefinition | None = None,
    op_tags: Mapping[str, str] | None = None,
    translator: MixpanelTranslator | Translate | None = None,
    execute: Execute | None = None,
    include_metadata: Collection[MetadataKind] | None = None,
    resources: Mapping[str, Any] | None = None,
    warehouse_key: str | None = None,
) -> dg.Definitions:
    """Return everything that Dagster shows and runs of one Mixpanel project.

    The results for several projects can be merged, and with the definitions of a host: jobs of
    this project run in one process, the other jobs keep their executor.

    Args:
        name: Prefixes jobs, schedules, sensors, ops and resources, and is the key prefix and group
            of the assets; None: the only project, whose assets are `mixpanel/...`.
        key_prefix: The first parts of the assets' keys, instead of the name.
        group_name: The assets' group, instead of the name.
        owners: The assets' owners, instead of MP_OWNERS.
        tags: The assets' tags.
        account: The project: the name of a saved account or a resource. None: the project of the
            MP_* variables, or of the default account.
        settings: Instead of the MP_* variables. Without a database in them, a project with a name
            whose number is not known has the file `<name>_warehouse.duckdb`.
        events: Whether there is an asset of all events.
        profiles: Whether there is an asset of all user profiles.
        coverage: Whether there is an asset that draws which days of the others are stored.
        groups: Group profiles, by table: the id of the group key. None: MP_GROUPS.
        tables: Filtered events and profiles, in tables of their own.
        checks: Whether `events` has checks, or the names of those that are wanted.
        check_thresholds: When the checks of a day warn.
        jobs: Whether there are jobs, or the names of those that are wanted, without prefix.
        schedules: Whether there are schedules, or the names of those that are wanted. A schedule
            whose job is left out is left out too.
        queries: Reports whose daily results are kept in tables; with a schedule of their own.
        executor: Of all jobs of the code location that have none; None: it stays the host's.
        op_tags: The tags of the assets' steps.
        translator: Decides how the assets appear in Dagster.
        execute: Runs each step that stores rows of an asset; see `AssetHooks`.
        include_metadata: Kinds of metadata that are shown; None: all. See `AssetHooks`.
        resources: Replaces resources by key. `mixpanel` (the project) and `warehouse` (the storage)
            are used under these keys, whatever the name is.
        warehouse_key: The key of the storage; None: `mixpanel_warehouse`, or `<name>_warehouse`.

    Raises:
        ConfigError: An argument is wrong, or a setting of the environment.

    Example:
        >>> import dagster as dg
        >>> shop = build_definitions(name="shop", settings=Settings(database="data/shop.duckdb"))
        >>> eu = build_definitions(name="shop_eu", account=MixpanelResource(region="eu"))
        >>> defs = dg.Definitions.merge(shop, eu)
    """
    given = dict(resources or {})
    _check_kind("account", [account], str, MixpanelResource)
    _check_kind("settings", [settings], Settings)
    _check_kind("tables", tables, FilteredEvents, FilteredProfiles)
    _check_kind("queries", queries, LiveQuery)
    _check_kind("check_thresholds", [check_thresholds], CheckThresholds)
    _check_metadata(include_metadata)
    chosen = chosen_checks(checks) if events else ()
    names = Names.of(
        name,
        key_prefix=key_prefix,
        group=group_name,
        mixpanel="mixpanel" if "mixpanel" in given else None,
        warehouse=warehouse_key or ("warehouse" if "warehouse" in given else None),
    )
    known = (settings or load_settings()).with_values(owners=owners, groups=groups)
    replaced = given.pop(names.mixpanel, None)
    _check_kind(names.mixpanel, [replaced], MixpanelResource)
    mixpanel = _resource(account, replaced)
    project_id, region = mixpanel.known_project
    if isinstance(warehouse := given.get(names.warehouse), WarehouseIOManager):
        # Jobs that open the file themselves must open the same one.
        known = known.model_copy(update={"database": warehouse.known_database})
        given[names.warehouse] = warehouse.of_project(project_id, region)
    elif names.prefix and known.database is None:
        place = known.database_location(project_id, name=f"{names.prefix}_warehouse")
        known = known.model_copy(update={"database": place})
    hooks = AssetHooks(
        _translation(known, tags or {}, translator),
        execute or NO_HOOKS.execute,
        op_tags or {},
        NO_HOOKS.include_metadata if include_metadata is None else include_metadata,
    )
    shown: dict[str, Any] = {"names": names, "hooks": hooks}
    with quiet_beta():
        of_events, of_profiles = _assets(known, shown, events, profiles, tables)
        of_queries = [query.asset(known, **shown) for query in queries]
    _refuse_shared_tables([*known.groups, *(one.name for one in tables)])
    _refuse_shared_tables([query.name for query in queries])
    all_events = of_events[0].key if events else None
    keys = _keys(of_events), _keys(of_profiles)
    tables_with_days = [*keys[0], *keys[1]]
    days = []
    if coverage and tables_with_days:
        days.append(coverage_asset(known, tables_with_days, **shown))
    every_job = _jobs(known, shown, keys, _keys(days), all_events, chosen)
    found_jobs = _chosen(jobs, every_job, names, "job")
    their_names = {job.name for job in found_jobs}
    found_schedules = [
        schedule
        for schedule in [*schedules_of(known, names, *keys), tidy_lake_schedule(known, names)]
        if schedule.job_name in their_names
    ]
    if of_queries and jobs is not False:
        found_schedules.append(
            live_query_schedule(*of_queries, name=names.named("ask_yesterday"), settings=known)
        )
    return dg.Definitions(
        assets=[*of_events, *of_profiles, *days, *of_queries],
        asset_checks=event_checks(
            known, key=all_events, names=names, checks=chosen, thresholds=check_thresholds
        ),
        jobs=found_jobs,
        schedules=_chosen(schedules, found_schedules, names, "schedule"),
        sensors=[
            *automation_sensors(known, names, [*tables_with_days, *_keys(days)]),
            *(
                [late_events_sensor(known, names, all_events)]
                if all_events and names.named("deep_sweep") in their_names
                else []
            ),
        ],
        resources={
            names.mixpanel: mixpanel.with_settings(known),
            names.warehouse: _warehouse(known, project_id, region),
            **given,
        },
        executor=executor,
    )


def _resource(
    account: str | MixpanelResource | None, given: MixpanelResource | None
) -> MixpanelResource:
    if account is None:
        return given or resource_from_environment()
    if given is not None:
        raise ConfigError("Name the project by `account` or in `resources`, not by both.")
    return MixpanelResource(account=account) if isinstance(account, str) else account


def _translation(
    settings: Settings, tags: Mapping[str, str], translator: MixpanelTranslator | Translate | None
) -> Translate:
    """Return what makes the spec of each asset: its deadline and tags, then the translator."""
    last = translator.get_asset_spec if isinstance(translator, MixpanelTranslator) else translator

    def translate(kind: AssetKind) -> dg.AssetSpec:
        spec = kept_current(kind, settings).merge_attributes(tags=tags)
        return last(AssetKind(kind.table, kind.rows, spec)) if last else spec

    return translate


Assets = list[dg.AssetsDefinition]


def _assets(
    settings: Settings,
    shown: Mapping[str, Any],
    events: bool,
    profiles: bool,
    tables: Sequence[Table],
) -> tuple[Assets, Assets]:
    """Return the assets of events and those of profiles, the unfiltered one first."""
    # Of all events, `event_checks` has the check of the step too.
    everything = [events_asset(settings, checks=(), **shown)] if events else []
    everyone = [profiles_asset(settings, **shown)] if profiles else []
    of_events, of_profiles = [*everything], [*everyone]
    for table, group_id in settings.groups.items():
        of_profiles.append(group_profiles_asset(table, group_id, settings=settings, **shown))
    for one in tables:
        (of_events if isinstance(one, FilteredEvents) else of_profiles).append(
            one.asset(settings, **shown)
        )
    if events and profiles:
        of_events = [_joined(asset, of_profiles[0].key) for asset in of_events]
        of_profiles[0] = _joined(of_profiles[0], of_events[0].key)
    return of_events, of_profiles


def _check_kind(argument: str, values: Iterable[object], *kinds: type) -> None:
    """Refuse values of another kind; some would be noticed only when a run uses them.

    Raises:
        ConfigError: A value is neither None nor of one of the kinds.
    """
    for value in values:
        if value is not None and not isinstance(value, kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise ConfigError(
                f"{argument} must be of type {names}, not {type(value).__name__}.",
                {"argument": argument},
            )


def _check_metadata(kinds: Collection[str] | None) -> None:
    """Refuse unknown kinds of metadata, which would hide all others.

    Raises:
        ConfigError: A name is unknown.
    """
    names = {kinds} if isinstance(kinds, str) else {*(kinds or ())}
    if unknown := sorted(names - set(METADATA)):
        raise ConfigError(
            f"There is no metadata {', '.join(map(repr, unknown))}. include_metadata is a list of: "
            f"{', '.join(METADATA)}.",
            {"include_metadata": unknown},
        )


def _refuse_shared_tables(names: Iterable[str]) -> None:
    """Refuse names of tables that DuckDB takes for the same: two assets would share their rows.

    Raises:
        ConfigError: Two names differ at most by capital letters.
    """
    seen: dict[str, str] = {}
    for name in names:
        if other := seen.get(name.lower()):
            raise ConfigError(
                f"The tables {other!r} and {name!r} have the same name in DuckDB, which ignores "
                "capital letters. Choose another name for one of them.",
                {"tables": [other, name]},
            )
        seen[name.lower()] = name


def _joined(asset: dg.AssetsDefinition, other: dg.AssetKey) -> dg.AssetsDefinition:
    joins = {"joins_by_distinct_id": dg.MetadataValue.asset(other)}
    return asset.map_asset_specs(lambda spec: spec.merge_attributes(metadata=joins))


def _jobs(
    settings: Settings,
    shown: Mapping[str, Any],
    keys: tuple[Keys, Keys],
    coverage: Keys,
    all_events: dg.AssetKey | None,
    checks: Collection[str],
) -> list[Any]:
    names: Names = shown["names"]
    reconciled = [dg.AssetCheckKey(all_events, RECONCILED)] if all_events else []
    reconciled = reconciled if RECONCILED in checks else []
    found = asset_jobs(names, *keys, reconciled)
    checked = all_events if EVENTS_COMPLETE in checks else None
    if all_events and (checked or coverage):
        found.append(check_job(names, checked, next(iter(coverage), None)))
    if all_events and reconciled:
        found.append(reconcile_job(names, all_events))
    if all_events:
        found += [
            backfill_history_job(settings, names, all_events, shown["hooks"]),
            verify_range_job(settings, names, all_events),
        ]
    if keys[1]:
        found.append(keep_snapshots_job(settings, names))
    if is_lake(settings):
        found.append(tidy_lake_job(settings, names))
    return [*found, *streaming_jobs(settings, names), ask_report_job(settings, names)]


def _keys(assets: Iterable[dg.AssetsDefinition]) -> Keys:
    return [asset.key for asset in assets]


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Some = TypeVar("_Some", bound=_Named)


def _chosen(
    wanted: bool | Collection[str], found: Sequence[_Some], names: Names, noun: str
) -> list[_Some]:
    """Return the jobs or schedules that are wanted, in their order.

    Raises:
        ConfigError: One does not exist.
    """
    if isinstance(wanted, bool):
        return [*found] if wanted else []
    whole = {names.named(one) for one in ([wanted] if isinstance(wanted, str) else wanted)}
    if unknown := whole - {one.name for one in found}:
        raise ConfigError(
            f"There is no {noun} {', '.join(sorted(unknown))}; there are "
            f"{', '.join(one.name for one in found) or 'none'}. The prefix is left out."
        )
    return [one for one in found if one.name in whole]


def linked_to_code(definitions: dg.Definitions) -> dg.Definitions:
    """Return definitions whose assets have a link to their source file on this machine."""
    assets = [asset for asset in definitions.assets or () if isinstance(asset, dg.AssetsDefinition)]
    with quiet_beta():
        linked = dg.with_source_code_references(assets)
    return dg.Definitions(
        assets=linked,
        asset_checks=definitions.asset_checks,
        jobs=definitions.jobs,
        schedules=definitions.schedules,
        sensors=definitions.sensors,
        resources=definitions.resources,
        executor=definitions.executor,
    )


def _warehouse(settings: Settings, project_id: str, region: str) -> WarehouseIOManager:
    return WarehouseIOManager(
        database=str(location := settings.database_location(project_id)),
        data_path=location.data_path if isinstance(location, LakeLocation) else "",
        memory_limit=settings.memory_limit,
        lock_timeout=settings.lock_timeout,
        op_retries=settings.op_retries,
        op_retry_seconds=settings.op_retry_seconds,
        snapshot=settings.snapshot,
        shared=settings.database_shared,
        project_id=project_id,
        region=region,
    )
