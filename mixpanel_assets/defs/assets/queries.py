"""Daily results of a live report as a partitioned table."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Annotated, Any, Literal, TypeAlias

import dagster as dg
import pyarrow as pa
from pydantic import ValidationError

from mixpanel_assets.client.live import LiveQueryService
from mixpanel_assets.defs.failures import explained_to_dagster
from mixpanel_assets.defs.fields import as_written, described, text
from mixpanel_assets.defs.metadata import stored_table
from mixpanel_assets.defs.names import (
    NO_HOOKS,
    THE_ONLY_PROJECT,
    AssetHooks,
    AssetKind,
    Names,
    StepResult,
    quiet_beta,
)
from mixpanel_assets.defs.ops.live_queries import (
    DatedReportConfig,
    EventCountsConfig,
    PropertyCountsConfig,
    SegmentationAverageConfig,
    SegmentationConfig,
    SegmentationNumericConfig,
    SegmentationSumConfig,
)
from mixpanel_assets.defs.partitions import PartitionRecord, days_of
from mixpanel_assets.defs.resources import tag_project, tag_requests
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.loading.queries import (
    QUERIES_SCHEMA,
    QueryDay,
    QueryLoad,
    check_zone,
    require_ended,
)
from mixpanel_assets.rules.days import DayRange, days_between
from mixpanel_assets.settings import Settings, complaints, load_settings
from mixpanel_assets.warehouse import Target, check_name

_COLUMNS: Mapping[type[DatedReportConfig], tuple[str, ...]] = {
    SegmentationConfig: ("date", "segment", "count"),
    EventCountsConfig: ("date", "event", "count"),
    PropertyCountsConfig: ("date", "value", "count"),
    SegmentationNumericConfig: ("date", "bucket", "count"),
    SegmentationSumConfig: ("date", "sum"),
    SegmentationAverageConfig: ("date", "average"),
}
_TYPES = {
    "date": pa.date32(),
    **dict.fromkeys(("segment", "event", "value", "bucket"), pa.string()),
    "count": pa.int64(),
    **dict.fromkeys(("sum", "average"), pa.float64()),
}


@quiet_beta()
def live_query_asset(
    name: str,
    *,
    query: DatedReportConfig,
    description: str | None = None,
    group_name: str | None = None,
    settings: Settings | None = None,
    names: Names = THE_ONLY_PROJECT,
    hooks: AssetHooks = NO_HOOKS,
) -> dg.AssetsDefinition:
    """Return an asset that keeps the daily results of one report.

    A partition is a day of the project's zone that has ended. Each run compares MP_TIME_ZONE with
    the zone that Mixpanel names, and refuses another zone and a day that has not ended.
    `live_query_schedule` requests each day once it has ended. A range of days is one request,
    split by date. If the result of a day depends on the days around it (ranges of numbers, the most
    common values), each day is one request. A segment without events on a day has no row.

    Args:
        name: Name of the asset `mixpanel_queries/<name>` and of its table in that schema.
        query: The report of each day: `SegmentationConfig`, `EventCountsConfig`,
            `PropertyCountsConfig`, `SegmentationNumericConfig`, `SegmentationSumConfig` or
            `SegmentationAverageConfig`, without days.
        description: What one row is; None: the report's description.
        group_name: The asset's group in Dagster; None: `mixpanel_queries`.
        settings: Instead of the MP_* variables.
        names: The key of the asset and of its resources.
        hooks: What Dagster shows of the asset, and how its steps run.

    Returns:
        An asset whose table has `date` and the columns of the report's frame; it needs the
        resources of `build_definitions` with the same names.

    Raises:
        ConfigError: The report has no result per day, or the query names its days.

    Example:
        >>> signups = live_query_asset("signups", query=SegmentationConfig(event="Sign Up"))
    """
    _check(query)
    check_name(name)
    known = settings or load_settings()
    schema = _schema(query)
    partitions = dg.DailyPartitionsDefinition(
        start_date=known.start_date.isoformat(), timezone=known.time_zone
    )
    spec = hooks.spec(
        AssetKind(
            name,
            "report",
            dg.AssetSpec(
                names.query_key(name),
                description=f"{description or type(query).__doc__} Costs "
                f"{'one query request per run' if _adds_up(query) else 'one query request per day'}"
                ".",
                group_name=group_name or names.queries,
                kinds={"mixpanel", "duckdb"},
                owners=known.owners,
                partitions_def=partitions,
            ),
        )
    )
    asset_key = spec.key

    @dg.asset(
        key=asset_key,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        required_resource_keys=names.resource_keys,
        op_tags=hooks.op_tags,
        io_manager_key=names.warehouse,
        metadata=hooks.shown(
            stored_table(
                asset_key,
                Target(name, QUERIES_SCHEMA),
                '"date"',
                dg.TableSchema([dg.TableColumn(field.name, str(field.type)) for field in schema]),
            )
        ),
    )
    def daily_results(context: dg.AssetExecutionContext) -> Iterator[StepResult]:
        yield from hooks.execute(context, (dg.Output(load(context)) for _ in range(1)))

    def load(context: dg.AssetExecutionContext) -> QueryLoad:
        record, mixpanel = PartitionRecord(context, asset_key, hooks.shown), names.resource(context)

        def record_day(stored: QueryDay) -> None:
            record.add(stored.day, {"rows": stored.rows, "seconds": round(stored.seconds, 3)})

        def check() -> None:
            with mixpanel.client(known) as client:
                tag_project(context, client)
                check_zone(client, known, context.log.warning)
            require_ended(last, known.time_zone)

        def request(first: date, last: date) -> pa.Table:
            with mixpanel.client(known) as client:
                try:
                    return _rows(LiveQueryService(client), query, first, last)
                finally:
                    tag_requests(context, client.budget.requests)

        first, last = days_of(context.partition_time_window)
        with explained_to_dagster():
            return QueryLoad(
                table=name,
                query=_parameters(query),
                defaults=_defaults(query),
                ranges=[(first, last)] if _adds_up(query) else _each_day(first, last),
                request=request,
                project=known.project(mixpanel.credentials),
                on_day=record_day,
                check=check,
                materialized=record.materialized,
            )

    return hooks.present(daily_results, spec)


_REPORTS = {config.report: config for config in _COLUMNS}
_Report: TypeAlias = Literal[
    "segmentation",
    "event_counts",
    "property_counts",
    "segmentation_numeric",
    "segmentation_sum",
    "segmentation_average",
]


class LiveQuery(dg.Model, dg.Resolvable):
    """A table of the daily results of a report, for `build_definitions` and components."""

    name: Annotated[str, text("Name of the asset and of its table.", "sign_ups")]
    report: Annotated[_Report, described("The report.", "event_counts")]
    parameters: Annotated[
        dict[str, Any],
        as_written("The parameters of the report, without days.", {"events": ["Sign Up"]}),
    ]

    def asset(self, settings: Settings, *, names: Names, hooks: AssetHooks) -> dg.AssetsDefinition:
        """Return the asset; see `live_query_asset`.

        Args:
            settings: The partitions, and where responses and rows are kept.
            names: The key of the asset and of its resources.
            hooks: What Dagster shows of the asset, and how its step runs.

        Raises:
            ConfigError: The parameters are not those of the report.
        """
        config = _REPORTS[self.report]
        try:
            query = config(**self.parameters)
        except ValidationError as error:
            raise ConfigError(
                f"The live query {self.name!r} of {self.report} cannot be used. "
                f"{complaints(error)}."
            ) from error
        return live_query_asset(self.name, query=query, settings=settings, names=names, hooks=hooks)


def _check(query: DatedReportConfig) -> None:
    if type(query) not in _COLUMNS:
        allowed = ", ".join(kind.__name__ for kind in _COLUMNS)
        raise ConfigError(
            f"{type(query).__name__} has no result per day that can be a table. Use one of "
            f"{allowed}, or run its job."
        )
    if query.from_date or query.to_date:
        raise ConfigError("The partitions are the days of the query; leave its days out.")
    if (unit := _parameters(query).get("unit")) != "day":
        raise ConfigError(f"A partition is a day, so the unit must be day, not {unit!r}.")


def _parameters(query: DatedReportConfig) -> dict[str, Any]:
    return {"report": query.report, **query.model_dump(exclude={"from_date", "to_date"})}


def _defaults(query: DatedReportConfig) -> dict[str, Any]:
    fields = type(query).model_fields.items()
    return {name: field.default for name, field in fields if not field.is_required()}


def _adds_up(query: DatedReportConfig) -> bool:
    """Return whether a day's rows are the same, requested alone or with other days."""
    if isinstance(query, PropertyCountsConfig):
        return query.values is not None and query.limit is None
    return not isinstance(query, SegmentationNumericConfig)


def _each_day(first: date, last: date) -> list[DayRange]:
    return [(day, day) for day in days_between(first, last)]


def _schema(query: DatedReportConfig) -> pa.Schema:
    average = getattr(query, "type", "general") == "average"
    return pa.schema(
        (name, pa.float64() if average and name == "count" else _TYPES[name])
        for name in _COLUMNS[type(query)]
    )


def _rows(live: LiveQueryService, query: DatedReportConfig, first: date, last: date) -> pa.Table:
    days = query.model_copy(update={"from_date": first.isoformat(), "to_date": last.isoformat()})
    rows = [
        row | {"date": date.fromisoformat(row["date"])}
        for row in days.request(live, last).to_table_dict()
    ]
    if isinstance(query, SegmentationConfig) and query.on is not None:
        # Mixpanel fills a segment with zeros on days of the range without events.
        rows = [row for row in rows if row["count"]]
    return pa.Table.from_pylist(rows, schema=_schema(query))
