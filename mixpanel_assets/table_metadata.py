"""`TableMetadata` and the ledger: what callers say of a table, and what is kept of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from mixpanel_assets.errors import (
    ConfigError,
    EventNotFoundError,
    StorageError,
    similar_names,
)
from mixpanel_assets.results import TableMetadata
from mixpanel_assets.rules.days import as_day
from mixpanel_assets.warehouse import KnownTable, ProjectIdentity, Target, qualified

if TYPE_CHECKING:
    import duckdb

logger = logging.getLogger(__name__)


def days_between(from_date: date | str, to_date: date | str) -> list[date]:
    """Return the days of a range, both ends included.

    Raises:
        ConfigError: An end is no day, or they are in the wrong order.
    """
    first, last = as_day(from_date), as_day(to_date)
    if first > last:
        raise ConfigError(f"The range ends on {last}, before it begins on {first}.")
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def days_of(metadata: TableMetadata) -> set[date]:
    """Return the days that a table of events is said to speak for; none when it is not said.

    Raises:
        ConfigError: Only one end is given, or the range is none.
    """
    given = (metadata.from_date, metadata.to_date)
    if given == (None, None):
        return set()
    if metadata.from_date is None or metadata.to_date is None:
        raise ConfigError("The metadata gives one end of its days. Give both, or none.")
    return set(days_between(metadata.from_date, metadata.to_date))


def tell_of_unknown_events(
    connection: duckdb.DuckDBPyConnection, target: Target, events: Collection[str]
) -> None:
    """Warn of events that a table does not hold on any day; of an empty table nothing is said."""
    rows = connection.execute(
        f"SELECT DISTINCT event_name FROM {qualified(target.schema, target.table)} "
        "WHERE event_name IS NOT NULL ORDER BY 1"
    ).fetchall()
    known = [name for (name,) in rows]
    for event in events if known else ():
        if event not in known:
            similar = similar_names(event, known)
            logger.warning("%s", EventNotFoundError(event, similar, table=target.table))


def moment_of(metadata: TableMetadata) -> datetime:
    """Return when a table was fetched, aware; naive moments are UTC."""
    moment = metadata.fetched_at
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def day_of(metadata: TableMetadata, project: ProjectIdentity) -> date:
    """Return the export day on which a table was fetched."""
    zone = ZoneInfo(project.zone if project.regime == "legacy" else "UTC")
    return moment_of(metadata).astimezone(zone).date()


def refuse_outside(found: Collection[date], days: Collection[date]) -> None:
    """See that events lie in the days of their table.

    Raises:
        StorageError: Some do not.
    """
    outside = sorted(day for day in found if not min(days) <= day <= max(days))
    if outside:
        raise StorageError(
            f"There are events of {', '.join(map(str, outside[:5]))}, but the metadata says "
            f"{min(days)}..{max(days)}. Nothing was changed.",
            {"outside": [str(day) for day in outside]},
        )


def filters_of(metadata: TableMetadata) -> dict[str, Any]:
    """Return the filters as the ledger keeps them."""
    filters = {
        "events": metadata.filter_events,
        "where": metadata.filter_where,
        "cohort_id": metadata.filter_cohort_id,
        "output_properties": metadata.filter_output_properties,
        "group_id": metadata.filter_group_id,
        "behaviors": metadata.filter_behaviors,
    }
    return {name: value for name, value in filters.items() if value is not None}


def metadata_of(table: KnownTable) -> TableMetadata:
    """Return what the ledger knows of a table."""
    filters, is_events = table.filters, table.type == "events"
    behaviors = filters.get("behaviors")
    return TableMetadata(
        type=table.type,
        fetched_at=table.fetched_at,
        from_date=table.from_date.isoformat() if is_events else None,
        to_date=table.to_date.isoformat() if is_events else None,
        filter_events=filters.get("events"),
        filter_where=filters.get("where"),
        filter_cohort_id=filters.get("cohort_id"),
        filter_output_properties=filters.get("output_properties"),
        filter_group_id=filters.get("group_id"),
        filter_behaviors=behaviors if type(behaviors) is str else _json(behaviors),
    )


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
