"""Asset checks of stored events: every day is there, and nothing about a day is unusual.

What they find is in `loading.checks`; here it becomes results of Dagster.
"""

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as Materialized,
)
from dagster_shared.utils.warnings import PreviewWarning

from mixpanel_assets.defs.failures import explained_to_dagster
from mixpanel_assets.defs.machines import step_database
from mixpanel_assets.defs.metadata import bar_chart, table
from mixpanel_assets.defs.names import THE_ONLY_PROJECT, Names
from mixpanel_assets.defs.partitions import daily_partitions
from mixpanel_assets.defs.schedules import check_condition
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.loading.checks import (
    EVENTS_COMPLETE,
    RECONCILED,
    check_events,
    check_reconciled,
)
from mixpanel_assets.loading.day_checks import ROWS_VANISHED, CheckOutcome, CheckThresholds
from mixpanel_assets.rules.days import as_day, counted, days_between, describe_days
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import EVENTS, Database, ProjectIdentity
from mixpanel_assets.warehouse.stored_queries import StoredQueries

_OF_ALL_DAYS = {
    EVENTS_COMPLETE: "Each day from the first partition to yesterday is stored completely; "
    "yesterday counts from MP_CLOSE_HOUR on. Days that Mixpanel has deleted, or that the project's "
    "plan does not reach, are named and do not count.",
}
_OF_A_DAY = {
    ROWS_VANISHED: "Mixpanel still sends every stored row of the day. Others are kept.",
    "rows_quarantined": "Every line that Mixpanel sent for the day is stored as an event.",
    "duplicate_share": "Few of the events that Mixpanel sent for the day were duplicates.",
    "null_ids": "Nearly all events of the day have a `distinct_id` and an `$insert_id`.",
    "event_times": "Each `event_time` belongs to the day, and is its `time` by the project's time "
    "settings. Blocking: if rows are in the wrong day, assets downstream in the run wait.",
    "daily_volume": "The day has about as many events as the same weekday in the weeks before, and "
    "no common event is missing.",
    "property_changes": "The events of the day have the properties of the days before, with "
    "values of the same types. Compares samples.",
}
_BY_COUNTS = {
    RECONCILED: "The number of each event of the day is the one that Mixpanel's reports have, or "
    "the difference is explained (late, hidden, deleted events and so on). Costs two query "
    "requests for all days of the run; without access to them it passes and says so.",
}
_BLOCKING = ("event_times",)
CHECKS = (*_OF_ALL_DAYS, *_OF_A_DAY, *_BY_COUNTS)
_MOST_ROWS = 100
_MOST_BARS = 31


def chosen_checks(checks: bool | Collection[str]) -> tuple[str, ...]:
    """Return the names of the wanted checks, in order.

    Args:
        checks: All of them, none, or those of these names.

    Raises:
        ConfigError: A name is unknown.
    """
    if isinstance(checks, bool):
        return CHECKS if checks else ()
    names = [checks] if isinstance(checks, str) else list(checks)
    if unknown := sorted(set(names) - set(CHECKS)):
        raise ConfigError(
            f"There is no check {', '.join(map(repr, unknown))}. The checks of events are: "
            f"{', '.join(CHECKS)}.",
            {"checks": unknown},
        )
    return tuple(name for name in CHECKS if name in names)


def event_checks(
    settings: Settings,
    *,
    key: dg.AssetKey | None = None,
    name: str = EVENTS.name,
    names: Names = THE_ONLY_PROJECT,
    checks: bool | Collection[str] = True,
    thresholds: CheckThresholds | None = None,
) -> list[dg.AssetChecksDefinition]:
    """Return the checks of an asset of events: one op, of which each check can be run by itself.

    The check `reconciled` has an op of its own, because it sends requests.

    Args:
        settings: The partitions, and where the database is.
        key: The asset; None: that of the names.
        name: The name of its table in schema `mixpanel`.
        names: The key of the resource that names the project.
        checks: All checks, none, or those of these names.
        thresholds: When the check of a day warns.

    Raises:
        ConfigError: A name is unknown.
    """
    asset = key or names.asset_key(name)
    specs = _specs(settings, asset, chosen_checks(checks))
    by_counts = specs.pop(RECONCILED, None)
    more = [_reconciled_check(settings, asset, names, by_counts, thresholds)] if by_counts else []
    if not specs:
        return more

    @dg.multi_asset_check(
        name=f"{asset.to_python_identifier()}_checks",
        specs=list(specs.values()),
        can_subset=True,
        required_resource_keys=names.resource_keys,
        description="Reads what is stored; sends no request.",
    )
    def evaluate(context: dg.AssetCheckExecutionContext) -> Iterator[Any]:
        project = ProjectIdentity(*names.resource(context).known_project)
        selected = [chosen.name for chosen in context.selected_asset_check_keys]
        days = _days(context, settings)
        with explained_to_dagster():
            outcomes = check_events(
                # The rows that this run has stored are not in the copy for readers yet.
                step_database(
                    context,
                    settings,
                    project.project_id,
                    read_only=not context.run.is_partitioned,
                ),
                settings,
                checks=selected,
                days=days,
                project=project,
                table=name,
                asset=asset.to_user_string(),
                now=datetime.now(UTC),
                thresholds=thresholds or CheckThresholds(),
            )
        for check in selected:
            yield dg.Output(None, specs[check].get_python_identifier())
        loads = _last_loads(context.instance, asset, days)
        for outcome in outcomes:
            yield _evaluation(specs[outcome.check], outcome, loads)
        _log_failures(context, outcomes)

    return [evaluate, *more]


def _reconciled_check(
    settings: Settings,
    asset: dg.AssetKey,
    names: Names,
    spec: dg.AssetCheckSpec,
    thresholds: CheckThresholds | None,
) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(
        name=f"{asset.to_python_identifier()}_reconciled",
        specs=[spec],
        required_resource_keys=names.resource_keys,
        description="Compares stored counts with Mixpanel's own: two query requests.",
    )
    def evaluate(context: dg.AssetCheckExecutionContext) -> Iterator[Any]:
        days = _days(context, settings)
        resource = names.resource(context)
        with (
            explained_to_dagster(),
            # A check must not wait an hour for the budget: it says that nothing was compared.
            settings.client(resource.credentials, max_wait_seconds=0.0) as client,
        ):
            database = step_database(context, settings, client.credentials.project_id)
            outcomes, found = check_reconciled(
                client,
                settings,
                database,
                days=days,
                thresholds=thresholds or CheckThresholds(),
                asset=asset.to_user_string(),
            )
        late: dict[str, Any] = {}
        if found:
            context.log.info(found.message)
            late = _lateness(database, days)
        yield dg.Output(None, spec.get_python_identifier())
        loads = _last_loads(context.instance, asset, days)
        for outcome in outcomes:
            yield _evaluation(spec, outcome, loads, _class_chart(outcome) | late)
        _log_failures(context, outcomes)

    return evaluate


def _lateness(database: Database, days: Sequence[date]) -> dict[str, Any]:
    """Return how late the events of the days of the run arrived, as a table and as bars."""
    with database.read() as connection:
        late = StoredQueries(connection).lateness(from_date=min(days), to_date=max(days))
    if not late.steps:
        return {}
    bars = [(counted(step.days, "day"), round(100 * step.share, 2)) for step in late.steps]
    rows = [
        {"days": step.days, "events": step.count, "percent": share}
        for step, (_, share) in zip(late.steps, bars, strict=True)
    ]
    return {
        "lateness": table(rows, {"days": "int", "events": "int", "percent": "float"}),
        "lateness_chart": dg.MarkdownMetadataValue(bar_chart(bars[:_MOST_BARS])),
    }


def _class_chart(outcome: CheckOutcome) -> dict[str, Any]:
    """Return the number of counts of each class as bars."""
    bars: list[tuple[str, float]] = [
        (name.removeprefix("counts_").replace("_", " "), number)
        for name, number in outcome.numbers.items()
        if name.startswith("counts_")
    ]
    return {"classes": dg.MarkdownMetadataValue(bar_chart(bars))} if bars else {}


def _specs(
    settings: Settings, key: dg.AssetKey, checks: Collection[str]
) -> dict[str, dg.AssetCheckSpec]:
    partitions = daily_partitions(settings)
    # The checks of a day are done by the runs that load it.
    daily = check_condition(settings) if settings.automation else None
    with warnings.catch_warnings():
        # Dagster warns that partitions of checks may still change, which no user can act on.
        warnings.simplefilter("ignore", PreviewWarning)
        return {
            check: dg.AssetCheckSpec(
                check,
                asset=key,
                description=about,
                blocking=check in _BLOCKING,
                partitions_def=None if check in _OF_ALL_DAYS else partitions,
                automation_condition=daily if check in _OF_ALL_DAYS else None,
            )
            for check, about in (_OF_ALL_DAYS | _OF_A_DAY | _BY_COUNTS).items()
            if check in checks
        }


def _days(context: dg.AssetCheckExecutionContext, settings: Settings) -> list[date]:
    """Return the days of the run; of a run without partitions, yesterday."""
    tags = context.run.tags
    if day := tags.get("dagster/partition"):
        return [as_day(day)]
    if first := tags.get("dagster/asset_partition_range_start"):
        return days_between(as_day(first), as_day(tags["dagster/asset_partition_range_end"]))
    yesterday = settings.today() - timedelta(days=1)
    return [yesterday] if yesterday >= settings.start_date else []


def _last_loads(
    instance: dg.DagsterInstance, key: dg.AssetKey, days: Sequence[date]
) -> Mapping[date, Materialized]:
    """Return the last materialization of each day, which its results are results of."""
    keys = {day.isoformat() for day in days}
    found = instance.event_log_storage.get_latest_storage_id_by_partition(
        key, dg.DagsterEventType.ASSET_MATERIALIZATION, keys
    )
    ids = [storage_id for partition, storage_id in found.items() if partition in keys]
    if not ids:
        return {}
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, storage_ids=ids), limit=len(ids)
    ).records
    return {
        date.fromisoformat(record.partition_key): Materialized(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        for record in records
        if record.partition_key
    }


# Not a `dg.AssetCheckResult`, which has no partition: a run of several days has a result for each.
def _evaluation(
    spec: dg.AssetCheckSpec,
    outcome: CheckOutcome,
    loads: Mapping[date, Materialized],
    more: Mapping[str, Any] | None = None,
) -> dg.AssetCheckEvaluation:
    severity = dg.AssetCheckSeverity
    return dg.AssetCheckEvaluation(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=outcome.passed,
        severity=severity.ERROR if outcome.severity == "error" else severity.WARN,
        description=f"{outcome.detail} {outcome.remedy}".rstrip(),
        metadata=outcome_metadata(outcome) | dict(more or {}),
        blocking=spec.blocking,
        partition=outcome.day.isoformat() if outcome.day else None,
        target_materialization_data=loads.get(outcome.day) if outcome.day else None,
    )


def _log_failures(context: dg.AssetCheckExecutionContext, outcomes: Sequence[CheckOutcome]) -> None:
    """Log for each check of a day which days fail it."""
    failed: dict[str, list[date]] = {}
    for outcome in outcomes:
        if outcome.day and not outcome.passed:
            failed.setdefault(outcome.check, []).append(outcome.day)
    for check, days in failed.items():
        context.log.warning(f"{check} fails for {counted(len(days), 'day')}: {describe_days(days)}")


def outcome_metadata(outcome: CheckOutcome) -> dict[str, Any]:
    """Return what a check counted, what it found as a table, and what to do."""
    found: dict[str, Any] = dict(outcome.numbers)
    if outcome.rows:
        types = {name: _type(value) for name, value in outcome.rows[0].items()}
        found["found"] = table(outcome.rows[:_MOST_ROWS], types)
    if outcome.remedy:
        found["what_to_do"] = outcome.remedy
    return found


def _type(value: object) -> str:
    return "string" if isinstance(value, str) else type(value).__name__
