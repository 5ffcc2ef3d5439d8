"""StoredQueries: distributions, summaries and counts of stored events."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import ConfigError, MissingDaysError, TableNotFoundError
from mixpanel_assets.results import (
    DailyCount,
    DailyCountsResult,
    EngagementBucket,
    EngagementDistributionResult,
    LatenessResult,
    LatenessStep,
    NumericPropertySummaryResult,
    PropertyCoverage,
    PropertyCoverageResult,
    PropertyDistributionResult,
    PropertyValueCount,
)
from mixpanel_assets.rules.days import as_day, describe_days, how_to_load, ranges_of
from mixpanel_assets.rules.zones import is_zone, same_clocks, span_of, wall_clock_sql
from mixpanel_assets.warehouse.faults import user_rows, user_sql
from mixpanel_assets.warehouse.inspector import check_number, percentage
from mixpanel_assets.warehouse.ledger import Target
from mixpanel_assets.warehouse.project import ProjectIdentity, stored_project
from mixpanel_assets.warehouse.schema import EVENTS, SCHEMA
from mixpanel_assets.warehouse.tables import (
    KnownTable,
    day_rows,
    days_between,
    find_table,
    known_tables,
    warn_of_unknown_events,
)

logger = logging.getLogger(__name__)


_WHY_NOT_STORED = {
    "not available": "the project's plan did not reach back that far. Ask about later days.",
    "expired": "Mixpanel had deleted these days by MP_RETENTION_DAYS. Ask about later days.",
}


@dataclass(frozen=True)
class StoredDays:
    """Loaded days of a table.

    Attributes:
        table: The qualified name, ready for SQL.
        day: The SQL of a row's day.
        condition: The SQL that is true for the rows of these days.
    """

    table: str
    day: str
    condition: str
    from_date: date
    to_date: date


def stored_days(
    connection: Connection,
    table: str,
    from_date: date | str,
    to_date: date | str,
    events: Collection[str] = (),
    *,
    zone: str | None = None,
    project_zone: str | None = None,
) -> StoredDays:
    """Return days of a table of events, after a check that each of them was loaded.

    Both ends are included. `zone` says whose days they are, by default the project's:
    `project_zone`, or the zone in the database. A warning names `events` that the table does not
    have, and similar names that it does have.

    Raises:
        MissingDaysError: Days were never loaded, or the table does not exist.
        ConfigError: A day is not a day, there is no such zone, or the table was loaded without
            these events.
    """
    days = days_between(from_date, to_date)
    project = stored_project(connection) or ProjectIdentity("", "")
    zone = _query_zone(zone, project, project_zone)
    try:
        target = find_table(connection, table)
    except TableNotFoundError:
        if table != EVENTS.name:
            raise
        target = Target(EVENTS.name)
    known = next((table for table in known_tables(connection) if table.target == target), None)
    if known is not None:
        _check_loaded_events(known, events)
    needed_days = _NeededDays.of(days, zone, project.day_zone)
    _refuse_missing_days(connection, target, needed_days, known)
    day, condition = _day_sql(days, zone, project, target)
    stored = StoredDays(target.quoted, day, condition, days[0], days[-1])
    if events and (absent := _missing_events(connection, stored, events)):
        warn_of_unknown_events(connection, target, absent)
    return stored


def _missing_events(connection: Connection, days: StoredDays, events: Collection[str]) -> list[str]:
    stored_events = connection.execute(
        f"SELECT DISTINCT event_name FROM {days.table} "
        f"WHERE {days.condition} AND event_name IN $events",
        {"events": list(events)},
    ).fetchall()
    return [event for event in events if (event,) not in stored_events]


@dataclass(frozen=True)
class _NeededDays:
    """The export days that days of a zone lie on.

    Attributes:
        days: Those that have the same dates.
        before: The export day before them, if the first day of the zone begins on it.
        after: The export day after them, if the last day of the zone ends on it.
        until: When the last day of the zone ends, naive UTC.
    """

    days: Sequence[date]
    before: date | None
    after: date | None
    until: datetime
    zone: str

    @classmethod
    def of(cls, days: Sequence[date], zone: str, export_zone: str) -> _NeededDays:
        zone_begins, zone_ends = span_of(days[0], days[-1], zone)
        exports = ZoneInfo(export_zone)
        first_export_day = zone_begins.astimezone(exports).date()
        last_export_day = (zone_ends - timedelta(milliseconds=1)).astimezone(exports).date()
        is_other_zone = not same_clocks(zone, export_zone)
        return cls(
            days,
            first_export_day if is_other_zone and first_export_day < days[0] else None,
            last_export_day if is_other_zone and last_export_day > days[-1] else None,
            zone_ends.replace(tzinfo=None),
            zone,
        )

    @property
    def edge_days(self) -> dict[date, str]:
        """The export days at the edges, and in words what is missing without them."""
        missing_hours = {
            self.before: f"the first hours of {self.days[0]}",
            self.after: f"the last hours of {self.days[-1]}",
        }
        return {day: hours for day, hours in missing_hours.items() if day is not None}


def _query_zone(query_zone: str | None, project: ProjectIdentity, project_zone: str | None) -> str:
    # In the legacy regime, stored times were read by the zone of the loads, so no other holds.
    stored_zone = project.zone if project.regime == "legacy" else project_zone or project.zone
    if query_zone is not None and not is_zone(query_zone):
        raise ConfigError(
            f"There is no time zone {query_zone!r}. Use an IANA name such as Europe/Paris.",
            {"zone": query_zone},
        )
    return stored_zone if query_zone is None else query_zone


def _day_sql(
    days: Sequence[date], zone: str, project: ProjectIdentity, target: Target
) -> tuple[str, str]:
    """Return the SQL of a row's day, and the condition for rows of the days."""
    within_days = f"BETWEEN DATE '{days[0]}' AND DATE '{days[-1]}'"
    if target.schema == SCHEMA and same_clocks(zone, project.day_zone):
        return "event_date", f"event_date {within_days}"
    day_column = f"{wall_clock_sql('event_time', zone, days[0], days[-1])}::DATE"
    # The plain bounds let DuckDB skip the days that are far off.
    near_days = (
        f"event_time >= TIMESTAMP '{days[0]}' - INTERVAL 2 DAY "
        f"AND event_time < TIMESTAMP '{days[-1]}' + INTERVAL 3 DAY"
    )
    return day_column, f"{near_days} AND {day_column} {within_days}"


def _check_loaded_events(known: KnownTable, events: Collection[str]) -> None:
    table = known.target.table
    if known.type != "events":
        raise ConfigError(f"{table!r} holds {known.type}, not events.", {"table": table})
    loaded_events: list[str] = known.filters.get("events") or []
    not_loaded = sorted(set(events) - set(loaded_events))
    if loaded_events and not_loaded:
        raise ConfigError(
            f"{table!r} was loaded with {', '.join(map(repr, loaded_events))} alone, without "
            f"{', '.join(map(repr, not_loaded))}. Query another table.",
            {"table": table, "events": not_loaded},
        )
    filters = {key: value for key, value in known.filters.items() if key != "events" or not events}
    if filters:
        logger.warning("%r contains only the events that match its filters: %s.", table, filters)


def _refuse_missing_days(
    connection: Connection, target: Target, needed: _NeededDays, known: KnownTable | None
) -> None:
    days = needed.days
    needed_days = sorted([*days, *needed.edge_days])
    first, last = needed_days[0], needed_days[-1]
    ledger = day_rows(connection, target.table, first, last, schema=target.schema)
    statuses = {day: row["status"] for day, row in ledger.items()}
    stored = {day for day, status in statuses.items() if status in ("complete", "empty", "open")}
    missing_days = [day for day in days if day not in stored]
    if missing_days:
        raise MissingDaysError(
            " ".join(_missing_message(target, missing_days, statuses, known)),
            table=target.table,
            ranges=ranges_of(missing_days),
        )
    for day, hours in needed.edge_days.items():
        if day not in stored:
            logger.warning(
                "Events of %s in %s are missing. %s",
                hours,
                needed.zone,
                " ".join(_missing_message(target, [day], statuses, known)),
            )
    open_days = [
        day
        for day in needed_days
        if statuses.get(day) == "open" and ledger[day]["fetched_at"] < needed.until
    ]
    if open_days:
        logger.warning(
            "%s of %r had not ended when they were loaded, so events are missing.",
            describe_days(open_days),
            target.table,
        )


def _missing_message(
    target: Target, missing: Sequence[date], statuses: Mapping[date, str], known: KnownTable | None
) -> list[str]:
    sentences = []
    never_loaded = [day for day in missing if statuses.get(day) not in _WHY_NOT_STORED]
    if never_loaded:
        sentences.append(
            f"{target.table!r} lacks {describe_days(never_loaded)}, which was never loaded."
        )
        sentences.append(f"Load it with {_load_commands(target, never_loaded, known)}.")
    for status, reason in _WHY_NOT_STORED.items():
        not_stored = [day for day in missing if statuses.get(day) == status]
        if not_stored:
            sentences.append(
                f"{target.table!r} has nothing for {describe_days(not_stored)}: {reason}"
            )
    return sentences


def _load_commands(target: Target, days: Sequence[date], known: KnownTable | None) -> str:
    if target.schema == SCHEMA:
        return how_to_load(days, target.table)
    first, last = days[0], days[-1]
    if known is not None:
        first, last = min(first, known.from_date), max(last, known.to_date)
    return f"`mp fetch events {target.table} --from {first} --to {last} --replace`"


# The defaults that the documented library has.
PERCENTILES = (25, 50, 75, 90, 95, 99)
BUCKETS = (1, 2, 5, 10, 25, 50, 100)
_MOST_VALUES = 100_000  # so that a result fits into memory

# Columns of the table for what the load takes out of `properties`.
_COLUMNS = {
    "time": "to_json(epoch_ms(event_time))",
    "distinct_id": "to_json(distinct_id)",
    "$insert_id": "to_json(insert_id)",
}
_NUMBER_TYPES = "('BIGINT', 'UBIGINT', 'HUGEINT', 'UHUGEINT', 'DOUBLE')"

# JSON has one kind of number: 1 and 1.0 are equal.
_KIND_AND_TEXT = f"""
    SELECT CASE WHEN value IS NULL THEN 'missing'
                WHEN json_type(value) IN {_NUMBER_TYPES} THEN 'number'
                WHEN json_type(value) = 'VARCHAR' THEN 'string'
                ELSE lower(json_type(value)) END AS kind,
           CASE WHEN kind <> 'number' THEN value::VARCHAR
                WHEN regexp_matches(value::VARCHAR, '^-?0+(\\.0+)?$') THEN '0'
                ELSE regexp_replace(value::VARCHAR, '^(-?[0-9]+)\\.0+$', '\\1') END AS text
    FROM ({{values}})
"""


class StoredQueries:
    """Queries over stored events, of any number of days; every method only reads.

    A day is a day of the project's zone, as in Mixpanel's reports, or of the query's `zone`. Of
    days that were not over when they were loaded, the stored part counts, with a warning. In most
    zones, the first or the last day begins or ends on a further export day. If that was not loaded,
    a warning says so.

    Every query raises `MissingDaysError` if days were never loaded, `TableNotFoundError` if the
    table does not exist, and `ConfigError` if an argument is wrong or the table was loaded without
    the events.

    Args:
        connection: Any connection of the database.
        table: `events`, or a named table of events.
        zone: The project's zone; None: the one in the database.

    Example:
        >>> with storage.read() as connection:
        ...     queries = StoredQueries(connection)
        ...     queries.daily_counts(from_date="2024-01-01", to_date="2024-01-07").df
    """

    def __init__(
        self, connection: Connection, *, table: str = EVENTS.name, zone: str | None = None
    ) -> None:
        self._connection = connection
        self._table = table
        self._zone = zone

    def property_distribution(
        self,
        event: str,
        property: str,
        *,
        from_date: date | str,
        to_date: date | str,
        limit: int = 20,
        table: str | None = None,
        zone: str | None = None,
    ) -> PropertyDistributionResult:
        """Return the values of a property of an event, with their counts.

        Values are distinguished as in JSON: the text "1", the number 1, true, null and an absent
        property are five values; 1 and 1.0 are one. A list or an object is one value.

        Args:
            event: The event.
            property: Any name, also `time`, `distinct_id` and `$insert_id`.
            from_date: First day, included; a date, or text like 2024-01-31.
            to_date: Last day, included.
            limit: Maximum number of values, 1 to 100,000.
            table: Another table of events; None: the table of this service.
            zone: Whose days these are, such as `Europe/Berlin`; None: the project's.

        Returns:
            The most common values first, then by kind and text. The percentages of all values
            add up to 100; those beyond `limit` are in `total_count` alone.

        Example:
            >>> queries.property_distribution(
            ...     "Sign Up", "plan", from_date="2024-01-01", to_date="2024-01-07"
            ... ).values[0]
            PropertyValueCount(value='free', count=3, percentage=42.8..., kind='string')
        """
        check_number("limit", limit, _MOST_VALUES)
        days = self._days(from_date, to_date, [event], table, zone)
        values_sql, sql_values = _values_sql(days, event, property)
        rows = self._rows(
            "SELECT kind, text, count(*) AS count, sum(count(*)) OVER ()::BIGINT AS total "
            f"FROM ({values_sql}) GROUP BY kind, text ORDER BY count DESC, kind, text LIMIT $limit",
            sql_values | {"limit": limit},
        )
        total = rows[0][3] if rows else 0
        return PropertyDistributionResult(
            event=event,
            property_name=property,
            from_date=str(days.from_date),
            to_date=str(days.to_date),
            total_count=total,
            values=tuple(
                PropertyValueCount(_stored_value(json_text), count, 100 * count / total, kind)
                for kind, json_text, count, _ in rows
            ),
        )

    def numeric_summary(
        self,
        event: str,
        property: str,
        *,
        from_date: date | str,
        to_date: date | str,
        percentiles: Sequence[int] | None = None,
        table: str | None = None,
        zone: str | None = None,
    ) -> NumericPropertySummaryResult:
        """Return statistics of a numeric property of an event.

        Args:
            event: The event.
            property: Its name. Only JSON numbers count, not texts such as "5".
            percentiles: From 0 to 100; 25, 50, 75, 90, 95 and 99 by default.

        Other arguments: see `StoredQueries.property_distribution`.

        Returns:
            Numbers are doubles, `stddev` is the population's (n, not n - 1), and percentiles are
            interpolated. Without numbers, `sum` is 0 and the others are None.

        Raises:
            ConfigError: An argument is wrong.

        Example:
            >>> queries.numeric_summary(
            ...     "Order Completed", "amount", from_date="2024-01-01", to_date="2024-01-07"
            ... ).percentiles[50]
            43.75
        """
        percents = list(PERCENTILES if percentiles is None else percentiles)
        if not all(type(percent) in (int, float) and 0 <= percent <= 100 for percent in percents):
            raise ConfigError(f"Percentiles go from 0 to 100, not {percents!r}.")
        days = self._days(from_date, to_date, [event], table, zone)
        values_sql, sql_values = _values_sql(days, event, property)
        quantile_columns = [f"quantile_cont(number, {percent / 100})" for percent in percents]
        columns = ["count(number)", "min(number)", "max(number)", "fsum(number)", "favg(number)"]
        count, least, most, total, mean, deviation, *quantiles = self._rows(
            f"SELECT {', '.join([*columns, 'stddev_pop(number)', *quantile_columns])} "
            f"FROM (SELECT text::DOUBLE AS number FROM ({values_sql}) WHERE kind = 'number')",
            sql_values,
        )[0]
        return NumericPropertySummaryResult(
            event=event,
            property_name=property,
            from_date=str(days.from_date),
            to_date=str(days.to_date),
            count=count,
            min=least,
            max=most,
            sum=total or 0.0,
            avg=mean,
            stddev=deviation,
            percentiles=dict(zip(percents, quantiles, strict=True)),
        )

    def daily_counts(
        self,
        *,
        from_date: date | str,
        to_date: date | str,
        events: Sequence[str] | None = None,
        table: str | None = None,
        zone: str | None = None,
    ) -> DailyCountsResult:
        """Return how often events happened on each day.

        Args:
            events: Only these; None for all.

        Other arguments: see `StoredQueries.property_distribution`.

        Returns:
            By date and name; a day without an event has no row for it.

        Example:
            >>> queries.daily_counts(from_date="2024-01-01", to_date="2024-01-07").df
        """
        days = self._days(from_date, to_date, _checked_event_names(events), table, zone)
        rows = self._rows(
            f"SELECT {days.day}::VARCHAR, event_name, count(*) FROM {days.table} "
            f"WHERE {_where(days, events)} GROUP BY 1, 2 ORDER BY 1, 2",
            _event_values(events),
        )
        return DailyCountsResult(
            from_date=str(days.from_date),
            to_date=str(days.to_date),
            events=None if events is None else tuple(events),
            counts=tuple(DailyCount(*row) for row in rows),
        )

    def lateness(self, *, from_date: date | str, to_date: date | str) -> LatenessResult:
        """Return how late the events of `mixpanel.events` arrived, as a curve.

        Args:
            from_date: First day of the export, included.
            to_date: Last day of the export, included.

        Returns:
            The share of events that Mixpanel had processed one day after they happened, two days
            and so on, up to all of them.

        Raises:
            ConfigError: The range ends before it begins, or an argument is no day.

        Example:
            >>> queries.lateness(from_date="2024-01-01", to_date="2024-01-07").steps[0].share
        """
        first, last = as_day(from_date), as_day(to_date)
        if first > last:
            raise ConfigError(f"from_date {first} is after to_date {last}; both are included.")
        rows = self._rows(
            # Clocks of devices that are ahead make the difference negative.
            "SELECT CASE WHEN processed_at IS NOT NULL THEN "
            "greatest(epoch_ms(processed_at) - epoch_ms(event_time), 0) // 86400000 + 1 END, "
            f"count(*) FROM {EVENTS.quoted} WHERE event_date BETWEEN $first AND $last "
            "GROUP BY 1 ORDER BY 1",
            {"first": first, "last": last},
        )
        counts = {days: count for days, count in rows if days is not None}
        total, steps, processed = sum(counts.values()), [], 0
        for days, count in sorted(counts.items()):
            processed += count
            steps.append(LatenessStep(days, processed, processed / total))
        unknown = sum(count for days, count in rows if days is None)
        return LatenessResult(str(first), str(last), total, unknown, tuple(steps))

    def engagement_distribution(
        self,
        *,
        from_date: date | str,
        to_date: date | str,
        events: Sequence[str] | None = None,
        buckets: Sequence[int] | None = None,
        table: str | None = None,
        zone: str | None = None,
    ) -> EngagementDistributionResult:
        """Return the number of users by their number of events, which need a `distinct_id`.

        Args:
            events: Only these; None for all.
            buckets: The smallest number of events of each bucket, ascending; 1, 2, 5, 10, 25, 50
                and 100 by default. One for the users below the first is added.

        Other arguments: see `StoredQueries.property_distribution`.

        Returns:
            All buckets, also those without users; the percentages add up to 100.

        Example:
            >>> queries.engagement_distribution(
            ...     from_date="2024-01-01", to_date="2024-01-07", buckets=[1, 10]
            ... ).buckets[0].bucket_label
            '1-9'
        """
        starts = _bucket_starts(buckets)
        days = self._days(from_date, to_date, _checked_event_names(events), table, zone)
        rows = self._rows(
            "SELECT list_max(list_filter($starts::BIGINT[], lambda start: start <= events)), "
            f"count(*) FROM (SELECT count(*) AS events FROM {days.table} "
            f"WHERE {_where(days, events)} AND distinct_id IS NOT NULL GROUP BY distinct_id) "
            "GROUP BY 1",
            _event_values(events) | {"starts": starts},
        )
        users_by_start = dict(rows)
        total_users = sum(users_by_start.values())
        return EngagementDistributionResult(
            from_date=str(days.from_date),
            to_date=str(days.to_date),
            events=None if events is None else tuple(events),
            total_users=total_users,
            buckets=tuple(
                EngagementBucket(
                    start,
                    _bucket_label(start, end),
                    users_by_start.get(start, 0),
                    percentage(users_by_start.get(start, 0), total_users),
                )
                for start, end in zip(starts, [*starts[1:], None], strict=True)
            ),
        )

    def property_coverage(
        self,
        event: str,
        properties: Sequence[str],
        *,
        from_date: date | str,
        to_date: date | str,
        table: str | None = None,
        zone: str | None = None,
    ) -> PropertyCoverageResult:
        """Return how often properties of an event have a value.

        Args:
            event: The event.
            properties: Their names.

        Other arguments: see `StoredQueries.property_distribution`.

        Returns:
            In the order of `properties`. Null and absent are no value; false, 0 and empty are.

        Raises:
            ConfigError: An argument is wrong.

        Example:
            >>> queries.property_coverage(
            ...     "Order Completed", ["coupon"], from_date="2024-01-01", to_date="2024-01-07"
            ... ).coverage[0].coverage_percentage
            20.0
        """
        if isinstance(properties, str) or not properties:
            raise ConfigError("Name the properties in a list, at least one.")
        days = self._days(from_date, to_date, [event], table, zone)
        sql_values = _event_values([event])
        count_columns = []
        for number, name in enumerate(properties):
            json_column, path = _column_sql(name, f"path{number}")
            count_columns.append(f"count(nullif(json_type({json_column}), 'NULL'))")
            sql_values |= path
        total, *defined_counts = self._rows(
            f"SELECT count(*), {', '.join(count_columns)} FROM {days.table} "
            f"WHERE {_where(days, [event])}",
            sql_values,
        )[0]
        return PropertyCoverageResult(
            event=event,
            from_date=str(days.from_date),
            to_date=str(days.to_date),
            total_events=total,
            coverage=tuple(
                PropertyCoverage(name, count, total - count, percentage(count, total))
                for name, count in zip(properties, defined_counts, strict=True)
            ),
        )

    def _days(
        self,
        from_date: date | str,
        to_date: date | str,
        events: Sequence[str],
        table: str | None,
        zone: str | None,
    ) -> StoredDays:
        with user_sql():
            return stored_days(
                self._connection,
                table or self._table,
                from_date,
                to_date,
                events,
                zone=zone,
                project_zone=self._zone,
            )

    def _rows(self, sql: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return user_rows(self._connection, sql, values)


def _values_sql(days: StoredDays, event: str, property: str) -> tuple[str, dict[str, Any]]:
    """Return the SQL of kind and text of a property, one row per event, and what it binds."""
    json_column, path = _column_sql(property, "path")
    values = f"SELECT {json_column} AS value FROM {days.table} WHERE {_where(days, [event])}"
    return _KIND_AND_TEXT.format(values=values), _event_values([event]) | path


def _column_sql(property: str, key: str) -> tuple[str, dict[str, str]]:
    """Return the SQL of a property as JSON, NULL when absent, and what it binds.

    Its path is a JSON pointer: that writes every name, also an empty one.
    """
    if property in _COLUMNS:
        return _COLUMNS[property], {}
    pointer = "/" + property.replace("~", "~0").replace("/", "~1")
    return f"json_extract(properties, ${key})", {key: pointer}


def _where(days: StoredDays, events: Sequence[str] | None) -> str:
    return days.condition if events is None else f"{days.condition} AND event_name IN $events"


def _event_values(events: Sequence[str] | None) -> dict[str, Any]:
    return {} if events is None else {"events": list(events)}


def _checked_event_names(events: Sequence[str] | None) -> Sequence[str]:
    if isinstance(events, str) or (events is not None and not events):
        raise ConfigError("Name the events in a list, at least one, or leave them out for all.")
    return events or ()


def _bucket_starts(buckets: Sequence[int] | None) -> list[int]:
    starts = list(BUCKETS if buckets is None else buckets)
    whole = all(type(start) is int and start >= 1 for start in starts)
    if not starts or not whole or starts != sorted(set(starts)):
        raise ConfigError(f"Buckets begin at whole numbers from 1 on, ascending, not {starts!r}.")
    return starts if starts[0] == 1 else [1, *starts]


def _bucket_label(start: int, end: int | None) -> str:
    if end is None:
        return f"{start}+"
    return str(start) if end == start + 1 else f"{start}-{end - 1}"


def _stored_value(json_text: str | None) -> Any:
    return None if json_text is None else json.loads(json_text)
