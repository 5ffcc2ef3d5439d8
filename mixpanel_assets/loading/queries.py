"""Daily results of one report into a table, by days of the project's time zone."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from mixpanel_assets.auth import project_access
from mixpanel_assets.client import MixpanelAPIClient
from mixpanel_assets.errors import ConfigError, MixpanelDataError, ServerError
from mixpanel_assets.loading.load import Load
from mixpanel_assets.rules.days import DayRange, days_between, describe_range, describe_rest
from mixpanel_assets.rules.zones import span_of
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    Database,
    Partition,
    ProjectIdentity,
    prepare,
    qualified,
    quoted,
    replace_slice,
    table_exists,
)

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

logger = logging.getLogger(__name__)

QUERIES_SCHEMA = "mixpanel_queries"


def check_zone(
    client: MixpanelAPIClient, settings: Settings, warn: Callable[[str], object] = logger.warning
) -> None:
    """Compare MP_TIME_ZONE with the project's zone, which costs no query request.

    `warn` is called if Mixpanel names no zone, and MP_TIME_ZONE is used unchecked.

    Raises:
        ConfigError: They differ; the message has the value to set.
    """
    # Mixpanel does not document where it names the zone, so a response without it is no error.
    unchecked = f"Days are those of MP_TIME_ZONE={settings.time_zone}, which was not compared."
    try:
        project = project_access(client)
    except MixpanelDataError as error:
        warn(f"Mixpanel does not name the project's zone: {error.message} {unchecked}")
        return
    is_same_zone = project.is_in(settings.time_zone)
    if is_same_zone is None:
        zone_in_words = f"names {project.timezone!r}" if project.timezone else "names no zone"
        warn(f"Mixpanel {zone_in_words} as the zone of project {project.project_id}. {unchecked}")
    elif not is_same_zone:
        raise ConfigError(
            f"{project.zone_advice(settings.time_zone)} Mixpanel's reports count by days of the "
            "project's zone, so nothing was requested.",
            {"time_zone": settings.time_zone, "project_zone": project.timezone},
        )


def require_ended(last: date, zone: str) -> None:
    """Raise `ConfigError` if a day has not ended in a zone; the message says when it does."""
    # The numbers of a day change until it ends, and a stored partition would not show that.
    _, ends = span_of(last, last, zone)
    if datetime.now(UTC) < ends:
        yesterday = datetime.now(ZoneInfo(zone)).date() - timedelta(days=1)
        raise ConfigError(
            f"{last} has not ended in {zone}: it ends at {ends:%Y-%m-%d %H:%M} UTC, and its "
            f"numbers change until then. Request days up to {yesterday}, or try again then.",
            {"day": str(last), "over_at": ends.isoformat()},
        )


@dataclass(frozen=True)
class QueryDay:
    """A stored day: its rows, and its share of the seconds from the request to the commit."""

    day: date
    rows: int
    seconds: float


@dataclass(kw_only=True)
class QueryLoad(Load):
    """Daily results of one report, to be stored in a table of schema `mixpanel_queries`.

    Attributes:
        table: Its name. Its comment holds the query: a table holds the results of one only.
        query: The report and its parameters, ready for JSON.
        defaults: The values of parameters that a query does not name.
        ranges: Each is one request.
        request: Returns the rows of a range, with a column `date`.
        project: The project that the database must hold.
        on_day: Called with each day once it is committed.
        check: Called once before the first request, after the database was checked. It raises an
            error if nothing may be requested.
    """

    table: str
    query: Mapping[str, Any]
    # A comment that was written before a parameter existed does not name it.
    defaults: Mapping[str, Any]
    ranges: Sequence[DayRange]
    request: Callable[[date, date], pa.Table]
    project: ProjectIdentity
    on_day: Callable[[QueryDay], None]
    check: Callable[[], None]

    def store(self, database: Database) -> None:
        """Request and store range by range; the days of a range are replaced in one transaction.

        Raises:
            ConfigError: The table holds results of another query, the file another project, or
                `check` raised; nothing was requested.
            ServerError: A response has rows of days that were not requested.
        """
        # Before the first request, and again below: another process may make the table meanwhile.
        with database.write() as connection:
            prepare(connection, self.project)
            self._require_same_query(connection)
        self.check()
        days = [day for window in self.ranges for day in days_between(*window)]
        left = set(days)
        try:
            self._load_ranges(database, left)
        except MixpanelDataError as error:
            if len(left) < len(days):
                again = f"Materialize these partitions of `{QUERIES_SCHEMA}/{self.table}`."
                error.add(f"{describe_rest(left, len(days))} {again}")
            raise

    def _load_ranges(self, database: Database, left: set[date]) -> None:
        for first, last in self.ranges:
            request_began = time.monotonic()
            result_rows = self.request(first, last)
            rows_per_day = _result_rows_per_day(result_rows, first, last)
            with database.write() as connection:
                prepare(connection, self.project)
                self._require_same_query(connection)
                self._replace(connection, result_rows, first, last)
            left.difference_update(rows_per_day)
            seconds = (time.monotonic() - request_began) / len(rows_per_day)
            for day, day_rows in rows_per_day.items():
                self.on_day(QueryDay(day, day_rows, seconds))

    def _replace(
        self, connection: duckdb.DuckDBPyConnection, result_rows: pa.Table, first: date, last: date
    ) -> None:
        target = qualified(QUERIES_SCHEMA, self.table)
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(QUERIES_SCHEMA)}")
        is_new = not table_exists(connection, self.table, QUERIES_SCHEMA)
        days_partition = Partition(
            '"date"',
            f"\"date\" BETWEEN DATE '{first}' AND DATE '{last}'",
            describe_range(first, last),
        )
        connection.register("rows", result_rows)
        replace_slice(
            connection, "rows", table=self.table, schema=QUERIES_SCHEMA, partitions=[days_partition]
        )
        connection.unregister("rows")
        if is_new:
            # DuckDB binds no values in a comment.
            query_comment = self._query_text().replace("'", "''")
            connection.execute(f"COMMENT ON TABLE {target} IS '{query_comment}'")

    def _require_same_query(self, connection: duckdb.DuckDBPyConnection) -> None:
        table_comment = connection.execute(
            "SELECT comment FROM duckdb_tables() WHERE database_name = current_database() "
            "AND schema_name = ? AND lower(table_name) = lower(?)",
            [QUERIES_SCHEMA, self.table],
        ).fetchone()
        if table_comment and not self._is_same_query(table_comment[0]):
            raise ConfigError(
                f"The table {QUERIES_SCHEMA}.{self.table} holds results of another query: "
                f"{table_comment[0]}. Give this one another name, or drop the table."
            )

    def _is_same_query(self, comment: str | None) -> bool:
        try:
            stored_query = json.loads(comment or "")
        except ValueError:
            return False
        if not isinstance(stored_query, dict):
            return False
        wanted_query = json.loads(self._query_text())
        return {**self.defaults, **stored_query} == {**self.defaults, **wanted_query}

    def _query_text(self) -> str:
        return json.dumps(self.query, sort_keys=True)


def _result_rows_per_day(result_rows: pa.Table, first: date, last: date) -> dict[date, int]:
    days = days_between(first, last)
    rows_per_day = Counter(result_rows.column("date").to_pylist())
    if days_not_requested := sorted(day for day in rows_per_day if day not in set(days)):
        raise ServerError(
            f"The response for {describe_range(first, last)} has rows of {days_not_requested[0]}. "
            "None of its rows was stored.",
            status_code=200,
        )
    return {day: rows_per_day[day] for day in days}
