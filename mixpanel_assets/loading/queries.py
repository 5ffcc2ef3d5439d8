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
from mixpanel_assets.rules.days import DayRange, days_between
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

logger = logging.getLogger(__name__)


def check_zone(
    client: MixpanelAPIClient, settings: Settings, warn: Callable[[str], object] = logger.warning
) -> None:
    """Compare MP_TIME_ZONE with the project's zone; costs nothing of the query budget.

    Mixpanel does not document where it names the zone. When it refuses to, or names none, a
    warning says so and MP_TIME_ZONE is believed.

    Args:
        client: Asks Mixpanel.
        settings: Whose zone is compared.
        warn: Called with the warning.

    Raises:
        ConfigError: They differ; the message has the value to set.
    """
    believed = f"Days are those of MP_TIME_ZONE={settings.time_zone}, which was not compared."
    try:
        access = project_access(client)
    except MixpanelDataError as error:
        warn(f"Mixpanel does not tell the project's zone: {error.message} {believed}")
        return
    matches = access.is_in(settings.time_zone)
    if matches is None:
        named = f"names {access.timezone!r}" if access.timezone else "names no zone"
        warn(f"Mixpanel {named} as the zone of project {access.project_id}. {believed}")
    elif not matches:
        raise ConfigError(
            f"{access.zone_advice(settings.time_zone)} Mixpanel's reports count by days of the "
            "project's zone, so nothing was asked.",
            {"time_zone": settings.time_zone, "project_zone": access.timezone},
        )


def must_be_over(last: date, zone: str) -> None:
    """Refuse a day that is not over in a zone, because its answer would change.

    Raises:
        ConfigError: It is not over; the message says when it will be.
    """
    _, ends = span_of(last, last, zone)
    if datetime.now(UTC) < ends:
        yesterday = datetime.now(ZoneInfo(zone)).date() - timedelta(days=1)
        raise ConfigError(
            f"{last} is not over in {zone} before {ends:%Y-%m-%d %H:%M} UTC, so its answer would "
            f"still change. Ask for days up to {yesterday}, or again then.",
            {"day": str(last), "over_at": ends.isoformat()},
        )


if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

QUERIES_SCHEMA = "mixpanel_queries"


@dataclass(frozen=True)
class QueryDay:
    """What was stored of one day; seconds from the request to the commit."""

    day: date
    rows: int
    seconds: float


@dataclass(kw_only=True)
class QueryLoad(Load):
    """Answers to one question on their way into a table of schema `mixpanel_queries`.

    Attributes:
        table: Its name. Its comment holds the question: one table holds answers to one only.
        question: What is asked, ready for JSON.
        defaults: What a question asks where it does not name a parameter. A parameter that is
            newer than a table is not among those that its comment names.
        spans: Ranges of days, both ends included, each asked for at once.
        ask: Returns the rows of a range, with a column `date`.
        project: Whose answers they are.
        on_day: Told of each day once it is committed.
        check: Called once before the first question, after the database was looked at; it raises
            what stands against asking.
    """

    table: str
    question: Mapping[str, Any]
    defaults: Mapping[str, Any]
    spans: Sequence[DayRange]
    ask: Callable[[date, date], pa.Table]
    project: ProjectIdentity
    on_day: Callable[[QueryDay], None]
    check: Callable[[], None]

    def store(self, database: Database) -> None:
        """Ask and store, span by span; the days of a span are replaced in one transaction.

        Raises:
            ConfigError: The table holds answers to another question, the file another project,
                or `check` raised; nothing was asked.
            ServerError: An answer has rows of days that were not asked for.
        """
        with database.write() as connection:
            prepare(connection, self.project)
            self._must_be_ours(connection)
        self.check()
        for first, last in self.spans:
            begin = time.monotonic()
            rows = self.ask(first, last)
            counts = _rows_per_day(rows, first, last)
            with database.write() as connection:
                prepare(connection, self.project)
                self._must_be_ours(connection)
                self._replace(connection, rows, first, last)
            seconds = time.monotonic() - begin
            for day, count in counts.items():
                self.on_day(QueryDay(day, count, seconds))

    def _replace(
        self, connection: duckdb.DuckDBPyConnection, rows: pa.Table, first: date, last: date
    ) -> None:
        target = qualified(QUERIES_SCHEMA, self.table)
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(QUERIES_SCHEMA)}")
        is_new = not table_exists(connection, self.table, QUERIES_SCHEMA)
        days = Partition(
            '"date"', f"\"date\" BETWEEN DATE '{first}' AND DATE '{last}'", f"{first}..{last}"
        )
        connection.register("answer", rows)
        replace_slice(
            connection, "answer", table=self.table, schema=QUERIES_SCHEMA, partitions=[days]
        )
        connection.unregister("answer")
        if is_new:
            # A comment takes no bound value.
            told = self._told().replace("'", "''")
            connection.execute(f"COMMENT ON TABLE {target} IS '{told}'")

    def _must_be_ours(self, connection: duckdb.DuckDBPyConnection) -> None:
        found = connection.execute(
            "SELECT comment FROM duckdb_tables() WHERE database_name = current_database() "
            "AND schema_name = ? AND lower(table_name) = lower(?)",
            [QUERIES_SCHEMA, self.table],
        ).fetchone()
        if found and not self._is_ours(found[0]):
            raise ConfigError(
                f"The table {QUERIES_SCHEMA}.{self.table} holds answers to another question: "
                f"{found[0]}. Give this one another name, or drop the table to start it anew."
            )

    def _is_ours(self, comment: str | None) -> bool:
        try:
            stored = json.loads(comment or "")
        except ValueError:
            return False
        if not isinstance(stored, dict):
            return False
        asked = json.loads(self._told())
        return {**self.defaults, **stored} == {**self.defaults, **asked}

    def _told(self) -> str:
        return json.dumps(self.question, sort_keys=True)


def _rows_per_day(rows: pa.Table, first: date, last: date) -> dict[date, int]:
    days = days_between(first, last)
    counts = Counter(rows.column("date").to_pylist())
    if strange := sorted(day for day in counts if day not in set(days)):
        raise ServerError(
            f"The answer for {first}..{last} has rows of {strange[0]}. Nothing of it was stored.",
            status_code=200,
        )
    return {day: counts[day] for day in days}
