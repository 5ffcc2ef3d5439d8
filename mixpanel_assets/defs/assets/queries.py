"""Saved questions: the daily results of a live report as a partitioned table."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import dagster as dg
import pyarrow as pa

from mixpanel_assets.client.live import LiveQueryService
from mixpanel_assets.defs.failures import explained_to_dagster
from mixpanel_assets.defs.metadata import table_of
from mixpanel_assets.defs.ops.live_queries import (
    DatedQuestion,
    EventCountsConfig,
    PropertyCountsConfig,
    SegmentationAverageConfig,
    SegmentationConfig,
    SegmentationNumericConfig,
    SegmentationSumConfig,
)
from mixpanel_assets.defs.partitions import PartitionRecord, days_of
from mixpanel_assets.defs.resources import MixpanelResource
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.loading.queries import (
    QUERIES_SCHEMA,
    QueryDay,
    QueryLoad,
    check_zone,
    must_be_over,
)
from mixpanel_assets.rules.days import DayRange, days_between
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.warehouse import check_name

_COLUMNS: Mapping[type[DatedQuestion], tuple[str, ...]] = {
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


def live_query_asset(
    name: str,
    *,
    query: DatedQuestion,
    description: str | None = None,
    group_name: str = "mixpanel_queries",
    settings: Settings | None = None,
) -> dg.AssetsDefinition:
    """Return an asset that keeps the daily answers to one question.

    A partition is a day of the project's zone that is over: each run compares MP_TIME_ZONE with
    what Mixpanel says, and refuses another zone and a day that is not over. `live_query_schedule`
    asks for each day once it is. A range of days is one question,
    split by date; where the answer for a day depends on the days around it (ranges of numbers,
    the most common values), each day is asked for by itself. Segments that did not happen on a
    day have no row.

    Args:
        name: Of the asset `mixpanel_queries/<name>`, and of its table in that schema.
        query: What is asked, per day: `SegmentationConfig`, `EventCountsConfig`,
            `PropertyCountsConfig`, `SegmentationNumericConfig`, `SegmentationSumConfig` or
            `SegmentationAverageConfig`, without days.
        description: What one row is; None: the report's own words.
        group_name: Where Dagster shows it.
        settings: Instead of the MP_* variables.

    Returns:
        An asset whose table has `date` and the columns of the report's frame; it needs the
        resources `mixpanel` and `warehouse` of `build_definitions`.

    Raises:
        ConfigError: The question has no answer per day, or names its days.

    Example:
        >>> signups = live_query_asset("signups", query=SegmentationConfig(event="Sign Up"))
    """
    _check(query)
    check_name(name)
    known = settings or load_settings()
    schema = _schema(query)
    asset_key = dg.AssetKey([QUERIES_SCHEMA, name])

    @dg.asset(
        key=asset_key,
        description=f"{description or query.title} Costs "
        f"{'one query request per run' if _adds_up(query) else 'one query request per day'}.",
        group_name=group_name,
        kinds={"mixpanel", "duckdb"},
        partitions_def=dg.DailyPartitionsDefinition(
            start_date=known.start_date.isoformat(), timezone=known.time_zone
        ),
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="warehouse",
        metadata={
            "partition_expr": '"date"',
            "dagster/table_name": table_of(asset_key),
            "dagster/column_schema": dg.TableSchema(
                [dg.TableColumn(field.name, str(field.type)) for field in schema]
            ),
        },
    )
    def answers(context: dg.AssetExecutionContext, mixpanel: MixpanelResource) -> QueryLoad:
        record = PartitionRecord(context, asset_key)

        def record_day(stored: QueryDay) -> None:
            metadata = {
                "dagster/partition_row_count": stored.rows,
                "rows": stored.rows,
                "seconds": round(stored.seconds, 3),
            }
            record.add(stored.day, metadata)

        def check() -> None:
            with mixpanel.client() as client:
                check_zone(client, known, context.log.warning)
            must_be_over(last, known.time_zone)

        def ask(first: date, last: date) -> pa.Table:
            with mixpanel.client() as client:
                return _answer(LiveQueryService(client), query, first, last)

        first, last = days_of(context.partition_time_window)
        with explained_to_dagster():
            return QueryLoad(
                table=name,
                question=_question(query),
                defaults=_defaults(query),
                spans=[(first, last)] if _adds_up(query) else _each_day(first, last),
                ask=ask,
                project=known.project(mixpanel.credentials),
                on_day=record_day,
                check=check,
                materialized=record.materialized,
            )

    return answers


def _check(query: DatedQuestion) -> None:
    if type(query) not in _COLUMNS:
        allowed = ", ".join(kind.__name__ for kind in _COLUMNS)
        raise ConfigError(
            f"{type(query).__name__} has no answer per day that adds up to a table; ask one of "
            f"{allowed}, or run its job."
        )
    if query.from_date or query.to_date:
        raise ConfigError("The partitions say which days are asked for; leave the days out.")
    if (unit := _question(query).get("unit")) != "day":
        raise ConfigError(f"A partition is a day, so the unit must be day, not {unit!r}.")


def _question(query: DatedQuestion) -> dict[str, Any]:
    asked = query.model_dump(exclude={"from_date", "to_date"})
    return {"report": query.report, **asked}


def _defaults(query: DatedQuestion) -> dict[str, Any]:
    fields = type(query).model_fields.items()
    return {name: field.default for name, field in fields if not field.is_required()}


def _adds_up(query: DatedQuestion) -> bool:
    """Whether a day's rows are the same, asked alone or with others."""
    if isinstance(query, PropertyCountsConfig):
        return query.values is not None and query.limit is None
    return not isinstance(query, SegmentationNumericConfig)


def _each_day(first: date, last: date) -> list[DayRange]:
    return [(day, day) for day in days_between(first, last)]


def _schema(query: DatedQuestion) -> pa.Schema:
    average = getattr(query, "type", "general") == "average"
    return pa.schema(
        (name, pa.float64() if average and name == "count" else _TYPES[name])
        for name in _COLUMNS[type(query)]
    )


def _answer(live: LiveQueryService, query: DatedQuestion, first: date, last: date) -> pa.Table:
    days = query.model_copy(update={"from_date": first.isoformat(), "to_date": last.isoformat()})
    rows = [
        row | {"date": date.fromisoformat(row["date"])}
        for row in days.ask(live, last).to_table_dict()
    ]
    if isinstance(query, SegmentationConfig) and query.on is not None:
        # A segment is filled with zeros on the days of the question that it did not happen on.
        rows = [row for row in rows if row["count"]]
    return pa.Table.from_pylist(rows, schema=_schema(query))
