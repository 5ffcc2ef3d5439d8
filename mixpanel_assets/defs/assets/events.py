"""The asset `mixpanel/events`: raw events by export day; assets of the events of one filter."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date
from typing import Annotated, Any

import dagster as dg
from pydantic import Field

from mixpanel_assets.client import checked_events
from mixpanel_assets.defs.failures import explained_to_dagster
from mixpanel_assets.defs.fields import text
from mixpanel_assets.defs.metadata import (
    column_schema,
    day_metadata,
    kept_day_metadata,
    stored_table,
    vanished_metadata,
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
from mixpanel_assets.defs.partitions import (
    PartitionRecord,
    daily_partitions,
    days_of,
    recorded_partitions,
    run_group,
)
from mixpanel_assets.defs.resources import tag_project, tag_requests
from mixpanel_assets.loading.day_checks import ROWS_VANISHED
from mixpanel_assets.loading.events import EventLoad, LoadListener
from mixpanel_assets.loading.plan import REFETCH_TAG, Keeping, LoadProgress, Refetch, is_expired
from mixpanel_assets.rules.days import describe_counts
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.warehouse import EVENTS, DayReport, Target, check_events_asset

_ABOUT = (
    "Each day is checked and stored in one transaction, completely or not at all. "
    "Rows that Mixpanel does not send any more are kept and counted. "
    "Days share export requests, of which Mixpanel allows 60 an hour."
)


class EventsConfig(dg.Config):
    """Which days of the range are requested."""

    refetch: Refetch | None = Field(
        default=None,
        description="`all`: every day, whatever is stored. `missing`: the days that neither this "
        "run nor one that it continues has stored, and those that have ended since. `stale`: "
        "days that were never loaded, failed, had not ended, or were read before Mixpanel stopped "
        "taking late events (MP_SETTLE_DAYS). Empty: `all`; `missing` if a run that did not "
        "succeed is re-executed or a step retried; `stale` in runs of the sensor keep_current. "
        "Days that are left out succeed unchanged.",
    )
    accept_smaller: bool = Field(
        default=False,
        description="Make each day equal Mixpanel's response: remove stored rows that it lacks, "
        "instead of keeping them. The log first names these rows, as far as the ledger knows "
        "them. A day older than MP_RETENTION_DAYS (700 days when it is not set) for which "
        "Mixpanel sends nothing keeps its rows even then.",
    )


@quiet_beta()
def events_asset(
    settings: Settings,
    name: str = EVENTS.name,
    *,
    events: Sequence[str] | None = None,
    where: str | None = None,
    description: str = EVENTS.grain,
    checks: Collection[str] = (ROWS_VANISHED,),
    names: Names = THE_ONLY_PROJECT,
    hooks: AssetHooks = NO_HOOKS,
) -> dg.AssetsDefinition:
    """Return an asset of events, with partitions as the settings say.

    Args:
        settings: The partitions, and where responses and rows are kept.
        name: Name of the asset and of its table in schema `mixpanel`.
        events: Only events of these names; None: every event.
        where: A segmentation expression.
        description: What one row is.
        checks: Names of checks; without `rows_vanished` the step does not do it.
        names: The key of the asset and of its resources.
        hooks: What Dagster shows of the asset, and how its steps run.

    Example:
        >>> events_asset(Settings()).key.to_user_string()
        'mixpanel/events'
    """
    partitions, columns = daily_partitions(settings), column_schema(EVENTS.columns)
    spec = hooks.spec(
        AssetKind(
            name,
            "event",
            dg.AssetSpec(
                names.asset_key(name),
                description=f"{description}\n\n{_ABOUT}",
                group_name=names.group,
                kinds={"mixpanel", "duckdb"},
                owners=settings.owners,
                partitions_def=partitions,
            ),
        )
    )
    key = spec.key
    vanished = dg.AssetCheckSpec(
        ROWS_VANISHED,
        asset=key,
        description="Mixpanel still sends every stored row of the days of the run.",
    )

    @dg.asset(
        key=key,
        partitions_def=partitions,
        backfill_policy=backfill_policy(settings),
        required_resource_keys=names.resource_keys,
        io_manager_key=names.warehouse,
        # None by default: Dagster's pools leak the slot of a killed process, and the request
        # budget protects Mixpanel already.
        pool=settings.pool,
        op_tags=hooks.op_tags,
        check_specs=[vanished] if ROWS_VANISHED in checks else [],
        metadata=hooks.shown(stored_table(key, Target(name), "event_date", columns)),
    )
    def days_of_events(
        context: dg.AssetExecutionContext, config: EventsConfig
    ) -> Iterator[StepResult]:
        yield from hooks.execute(context, loaded(context, config))

    def loaded(context: dg.AssetExecutionContext, config: EventsConfig) -> Iterator[StepResult]:
        from_date, to_date = days_of(context.partition_time_window)
        record = PartitionRecord(context, key, hooks.shown)
        keeping = _keeping(context, config, settings)
        with explained_to_dagster():
            client = names.resource(context).client(settings)
            tag_project(context, client)
            load = EventLoad(
                client,
                settings,
                from_date=from_date,
                to_date=to_date,
                table=name,
                events=events,
                where=where,
                run_id=context.run.run_id,
                listener=_RunListener(context, keeping, record),
                keeping=keeping,
                accept_smaller=config.accept_smaller,
                materialized=record.materialized,
                asset=key.to_user_string(),
            )
        yield dg.Output(load)
        if ROWS_VANISHED in checks:
            yield rows_vanished_result(load.vanished, key)

    return hooks.present(days_of_events, spec)


def rows_vanished_result(vanished: Mapping[date, int], key: dg.AssetKey) -> dg.AssetCheckResult:
    """Return the result of the check that Mixpanel still sends all stored rows.

    Args:
        vanished: By day, the rows that are kept though the last response lacked them.
        key: The asset.
    """
    rows = sum(vanished.values())
    return dg.AssetCheckResult(
        passed=not vanished,
        asset_key=key,
        check_name=ROWS_VANISHED,
        severity=dg.AssetCheckSeverity.WARN,
        description=_advice(vanished) if vanished else None,
        metadata={"days": len(vanished), "rows_vanished": rows, **vanished_metadata(vanished)},
    )


def _advice(vanished: Mapping[date, int]) -> str:
    return (
        f"Mixpanel does not send {sum(vanished.values()):,} stored rows any more: "
        f"{describe_counts(vanished)}. They are kept, and `mixpanel._vanished` lists them. To "
        "remove them, materialize these days with `accept_smaller: true`, or run `mp sync "
        "--accept-smaller` for them; `mp drop-day` removes a complete day."
    )


def backfill_policy(settings: Settings) -> dg.BackfillPolicy:
    """Return whether a backfill is one run, or one for each MP_PARTITIONS_PER_RUN partitions."""
    # A run for each day would cost an export request for each day, of 60 an hour.
    if settings.partitions_per_run:
        return dg.BackfillPolicy.multi_run(settings.partitions_per_run)
    return dg.BackfillPolicy.single_run()


def _keeping(
    context: dg.AssetExecutionContext, config: EventsConfig, settings: Settings
) -> Keeping:
    run_ids = run_group(context.instance, context.run)
    continues = len(run_ids) > 1 or context.retry_number > 0
    usual = Refetch(context.run.tags.get(REFETCH_TAG, Refetch.all))
    # A re-execution or a retry must not request again what its own runs have stored.
    default = Refetch.missing if continues and usual is Refetch.all else usual
    return Keeping.of(settings, config.refetch or default, run_ids)


class _RunListener(LoadListener):
    """Writes to a run's log, and to the metadata of its partitions, what a load does."""

    def __init__(
        self, context: dg.AssetExecutionContext, keeping: Keeping, record: PartitionRecord
    ) -> None:
        self._context = context
        self._keeping = keeping
        self._record = record
        self._progress: LoadProgress | None = None

    def request_stored(self, progress: LoadProgress) -> None:
        self._progress = progress
        self._context.log.info(str(progress))

    def day_stored(self, report: DayReport, seconds: float) -> None:
        self._record.add(report.day, day_metadata(report, seconds, self._progress))

    def days_kept(self, reports: Sequence[DayReport]) -> None:
        days = len(reports)
        why = f"{self._keeping.reason} (refetch: {self._keeping.refetch})"
        if is_expired(reports[0].day, self._keeping.horizon):
            why = "days further back than MP_RETENTION_DAYS are not requested"
        self._context.log.info(f"{days:,} {'day is' if days == 1 else 'days are'} kept: {why}")
        group = (self._keeping.refetch is Refetch.missing and self._keeping.run_ids) or ()
        recorded = recorded_partitions(self._context.instance, self._context.asset_key, group)
        for report in reports:
            key = report.day.isoformat()
            metadata = {**recorded.get(key, kept_day_metadata(report)), "kept": True}
            # A killed run of the group could not record the days that it stored.
            is_unrecorded = bool(group) and key not in recorded
            (self._record.add if is_unrecorded else self._record.show)(report.day, metadata)

    def days_corrected(self, reports: Sequence[DayReport]) -> None:
        for report in reports:
            before = self._record.materialized[report.day.isoformat()]
            left = {**kept_day_metadata(report), "rows_vanished": report.rows_vanished}
            self._record.add(report.day, {**before, **left})

    def load_ended(self, requests: int) -> None:
        tag_requests(self._context, requests)

    def days_found(self, reports: Sequence[DayReport]) -> None:
        for report in reports:
            self._record.note(report.day, kept_day_metadata(report))


def filtered_events_asset(
    name: str,
    *,
    events: Sequence[str] | None = None,
    where: str | None = None,
    description: str = "One row per event of the filter, without duplicates.",
    settings: Settings | None = None,
    names: Names = THE_ONLY_PROJECT,
    hooks: AssetHooks = NO_HOOKS,
) -> dg.AssetsDefinition:
    """Return an asset of some events in a table of its own; `events` always holds all events.

    It has the guarantees, columns, partitions and metadata of `mixpanel/events`. Its days cost
    export requests of their own, even if `events` holds them.

    Args:
        name: Name of the asset and of its table in schema `mixpanel`. The table belongs to the
            filter: a run with another filter is refused and changes nothing.
        events: Only events of these names.
        where: A segmentation expression over event properties, such as
            `properties["country"] == "DE"`; Mixpanel evaluates it.
        description: What one row is; the filter and the cost are added.
        settings: Instead of the MP_* variables.
        names: The key of the asset and of its resources.
        hooks: What Dagster shows of the asset, and how its steps run.

    Raises:
        ConfigError: The filter is empty or wrong, or the name cannot be that of a new table.

    Example:
        >>> orders = filtered_events_asset("orders", events=["Order Completed"])
    """
    known = settings or load_settings()
    day = known.start_date  # any day: here, only the filter is checked
    filters = checked_events(day, day, events, where, None, time_in_ms=True).filters
    check_events_asset(name, filters)
    return events_asset(
        known,
        name,
        events=filters.get("events"),
        where=where,
        description=f"{description} {_in_words(filters)} Costs one export request for a day; up to "
        "31 days of a range share one.",
        names=names,
        hooks=hooks,
    )


class FilteredEvents(dg.Model, dg.Resolvable):
    """A table of the events of one filter, for `build_definitions` and components."""

    name: Annotated[str, text("Name of the asset and of its table in schema `mixpanel`.", "orders")]
    events: Annotated[
        list[str] | None,
        text("Only events of these names.", ["Order Completed"], kind=list[str | int] | None),
    ] = None
    where: Annotated[
        str | None,
        text(
            "A segmentation expression over event properties, which Mixpanel evaluates.",
            'properties["country"] == "DE"',
            kind=str | None,
        ),
    ] = None
    description: Annotated[
        str,
        text("What one row is; the filter and the cost are added.", "One row per completed order."),
    ] = "One row per event of the filter, without duplicates."

    def asset(self, settings: Settings, *, names: Names, hooks: AssetHooks) -> dg.AssetsDefinition:
        """Return the asset; see `filtered_events_asset`.

        Args:
            settings: The partitions, and where responses and rows are kept.
            names: The key of the asset and of its resources.
            hooks: What Dagster shows of the asset, and how its step runs.
        """
        return filtered_events_asset(
            self.name,
            events=self.events,
            where=self.where,
            description=self.description,
            settings=settings,
            names=names,
            hooks=hooks,
        )


def _in_words(filters: Mapping[str, Any]) -> str:
    parts = []
    if "events" in filters:
        parts.append(f"named {', '.join(f'`{name}`' for name in filters['events'])}")
    if "where" in filters:
        parts.append(f"where `{filters['where']}`")
    return f"Only events {' and '.join(parts)}."
