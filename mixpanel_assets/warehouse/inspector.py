"""TableInspector: the tables of a database and their contents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import ConfigError, TableNotFoundError
from mixpanel_assets.results import (
    ColumnInfo,
    ColumnStatsResult,
    ColumnSummary,
    EventBreakdownResult,
    EventStats,
    SQLResult,
    SummaryResult,
    TableInfo,
    TableMetadata,
    TableSchema,
    WorkspaceInfo,
)
from mixpanel_assets.warehouse.faults import number, user_rows, user_sql
from mixpanel_assets.warehouse.ledger import Target
from mixpanel_assets.warehouse.project import ProjectIdentity, made_at, stored_project
from mixpanel_assets.warehouse.schema import is_lake, literal, quoted
from mixpanel_assets.warehouse.tables import (
    KnownTable,
    find_table,
    known_tables,
    metadata_of,
    warn_of_unknown_events,
)

if TYPE_CHECKING:
    import pandas as pd

_EVENT_COLUMNS = ("event_name", "event_time", "distinct_id")
_IN_JSON = re.compile(r"""\s*(\w+|"(?:[^"]|"")+")\s*(->>?)\s*'((?:[^']|'')*)'\s*""")
_MACRO = re.compile(
    r"""\s*(?:mixpanel\.)?(prop(?:_number|_time|_json)?)\(\s*(\w+)\s*,\s*'((?:[^']|'')*)'\s*\)\s*"""
)
_NUMERIC = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL\(.*\))")
_BIGGEST_SAMPLE = 1_000_000  # so that a result fits into memory


def stored_bytes(connection: Connection, place: object) -> int:
    """Return the size of a file, or of the files that a lake uses now; 0 in memory."""
    if isinstance(place, Path):
        return place.stat().st_size
    if not is_lake(connection):
        return 0
    sizes = "SELECT sum(file_size_bytes + coalesce(delete_file_size_bytes, 0))::BIGINT"
    return number(connection, f"{sizes} FROM ducklake_table_info(current_database())") or 0


class TableInspector:
    """Describes the tables of a database; every method only reads.

    Tables are searched in schema `main`, then `mixpanel`; `schema.table` names one elsewhere. A
    table that does not exist is a `TableNotFoundError`.

    Args:
        connection: Any connection of the database.

    Example:
        >>> with storage.read() as connection:
        ...     TableInspector(connection).event_breakdown("events").df
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def info(
        self,
        path: Path | str | None = None,
        *,
        project_id: str | None = None,
        region: str | None = None,
        account: str | None = None,
        snapshot_age: float | None = None,
    ) -> WorkspaceInfo:
        """Return a summary of the database.

        Args:
            path: The file; the location of a lake; None in memory.
            project_id: None: the stored one.
            region: None: the stored one.
            account: The named account in use.
            snapshot_age: Age in seconds of the copy for readers, if that is read.

        Returns:
            `created_at` is when its tables were created; None while it has no project.

        Example:
            >>> inspector.info(storage.path).tables
            ['events', 'january', 'people', 'profiles']
        """
        stored = stored_project(self._connection) or ProjectIdentity("", "")
        created_at = made_at(self._connection)
        return WorkspaceInfo(
            path=path,
            project_id=project_id or stored.project_id,
            region=region or stored.region,
            account=account,
            tables=[table.target.table for table in known_tables(self._connection)],
            size_mb=stored_bytes(self._connection, path) / 1e6,
            created_at=created_at and created_at.replace(tzinfo=UTC),
            snapshot_age=snapshot_age,
        )

    def tables(self) -> list[TableInfo]:
        """Return the loaded tables, by name, the assets' included.

        Example:
            >>> [(table.name, table.row_count) for table in inspector.tables()]
            [('events', 340), ('january', 1720), ('people', 40), ('profiles', 40)]
        """
        return [
            TableInfo(
                name=table.target.table,
                type=table.type,
                row_count=self._number(f"SELECT count(*) FROM {table.target.quoted}"),
                fetched_at=table.fetched_at,
            )
            for table in known_tables(self._connection)
        ]

    def metadata(self, table: str) -> TableMetadata:
        """Return how a table was fetched; the filters are those of its newest load.

        Args:
            table: Its name.

        Raises:
            TableNotFoundError: It does not exist, or nothing was loaded into it.

        Example:
            >>> inspector.metadata("events").to_date
            '2024-01-07'
        """
        return metadata_of(self.known(table))

    def known(self, table: str) -> KnownTable:
        """Return what the ledger says of a table.

        Arguments and errors: see `TableInspector.metadata`.

        Example:
            >>> inspector.known("events").from_date
            datetime.date(2024, 1, 1)
        """
        target = find_table(self._connection, table)
        known = known_tables(self._connection)
        for one in known:
            if one.target == target:
                return one
        raise TableNotFoundError(table, [one.target.table for one in known])

    def schema(self, table: str) -> TableSchema:
        """Return the columns of a table or view, in order.

        Args:
            table: Its name.

        Example:
            >>> [column.type for column in inspector.schema("people").columns]
            ['VARCHAR', 'JSON', 'TIMESTAMP']
        """
        target = find_table(self._connection, table)
        columns = [
            ColumnInfo(name, kind, nullable=nullable == "YES", primary_key=key == "PRI")
            for name, kind, nullable, key, *_ in self._rows(f"DESCRIBE {target.quoted}")
        ]
        return TableSchema(target.table, columns)

    def sample(self, table: str, n: int = 10) -> pd.DataFrame:
        """Return random rows of a table; all of them if there are fewer.

        Args:
            table: Its name.
            n: Number of rows, 1 to 1,000,000.

        Raises:
            ConfigError: `n` is out of range.

        Example:
            >>> inspector.sample("events", 3)
        """
        with user_sql():
            return self._sample(table, n).df()

    def sample_rows(self, table: str, n: int = 10) -> SQLResult:
        """Return what `sample` does, as tuples with DuckDB's own values.

        Arguments and errors: see `TableInspector.sample`.

        Example:
            >>> inspector.sample_rows("events", 3).columns
            ['event_name', 'event_time', 'distinct_id', 'insert_id', 'properties', ...]
        """
        with user_sql():
            sample = self._sample(table, n)
            return SQLResult([column[0] for column in sample.description], sample.fetchall())

    def summarize(self, table: str) -> SummaryResult:
        """Return statistics of every column of a table; `min`, `max` and quantiles are texts.

        Args:
            table: Its name.

        Example:
            >>> inspector.summarize("events").df
        """
        target = find_table(self._connection, table)
        columns = [
            ColumnSummary(
                column_name=name,
                column_type=kind,
                min=low,
                max=high,
                approx_unique=unique or 0,
                avg=_number_of(avg, kind),
                std=_number_of(std, kind),
                q25=q25,
                q50=q50,
                q75=q75,
                count=count,
                null_percentage=float(nulls or 0),
            )
            for name, kind, low, high, unique, avg, std, q25, q50, q75, count, nulls in self._rows(
                f"SUMMARIZE {target.quoted}"
            )
        ]
        row_count = self._number(f"SELECT count(*) FROM {target.quoted}")
        return SummaryResult(target.table, row_count, columns)

    def event_breakdown(self, table: str) -> EventBreakdownResult:
        """Return the events of a table, the most common first, then by name.

        Args:
            table: One with `event_name`, `event_time` and `distinct_id`.

        Returns:
            Moments are aware, UTC. `date_range` is None when the table is empty.

        Raises:
            ConfigError: It is not a table of events.

        Example:
            >>> inspector.event_breakdown("events").events[0].event_name
            'Product Viewed'
        """
        target = self._table_with(table, _EVENT_COLUMNS)
        statistics = "count(*), count(DISTINCT distinct_id), min(event_time), max(event_time)"
        total, users, first, last = self._rows(f"SELECT {statistics} FROM {target.quoted}")[0]
        rows = self._rows(
            f"SELECT event_name, {statistics} FROM {target.quoted} "
            "GROUP BY event_name ORDER BY 2 DESC, 1"
        )
        return EventBreakdownResult(
            table=target.table,
            total_events=total,
            total_users=users,
            date_range=(_utc(first), _utc(last)) if total else None,
            events=[
                EventStats(event, count, users, _utc(begin), _utc(end), 100 * count / total)
                for event, count, users, begin, end in rows
            ],
        )

    def property_keys(self, table: str, event: str | None = None) -> list[str]:
        """Return the names of all properties in a table, in alphabetical order.

        Args:
            table: One with `properties`.
            event: Only of events of this name.

        Raises:
            ConfigError: It has no `properties`, or no `event_name` for `event`.

        Example:
            >>> inspector.property_keys("events", "Sign Up")
            ['$browser', ..., 'plan', ...]
        """
        columns = ["properties"] if event is None else ["properties", "event_name"]
        target = self._table_with(table, columns)
        rows = self._rows(
            f"SELECT DISTINCT unnest(json_keys(properties)) AS key FROM {target.quoted} "
            f"{'' if event is None else 'WHERE event_name = $event'} ORDER BY 1",
            {} if event is None else {"event": event},
        )
        if event is not None and not rows:
            warn_of_unknown_events(self._connection, target, [event])
        return [key for (key,) in rows]

    def column_stats(self, table: str, column: str, *, top_n: int = 10) -> ColumnStatsResult:
        """Return one column of a table in detail.

        Args:
            table: Its name.
            column: A column, or a value inside of JSON, such as `prop(properties, '$browser')`,
                `prop_number(properties, 'amount')`, or `properties->>'$.plan'`.
            top_n: Number of most common values, 1 to 1,000,000; of equally common values, the
                smaller comes first.

        Raises:
            ConfigError: It has no such column, or `top_n` is out of range.

        Example:
            >>> inspector.column_stats("events", "properties->>'$.plan'").top_values
            [('free', 3), ('pro', 3), ('b', 2), ('team', 1)]
        """
        check_number("top_n", top_n, _BIGGEST_SAMPLE)
        target = find_table(self._connection, table)
        values = f"(SELECT {self._value(table, column)} AS value FROM {target.quoted})"
        kind, rows, count, unique = self._rows(
            "SELECT any_value(kind), count(*), count(value), count(DISTINCT value) FROM "
            f"(SELECT value, typeof(value) AS kind FROM {values})"
        )[0]
        kind = kind or self._rows(f"DESCRIBE SELECT value FROM {values}")[0][1]
        return ColumnStatsResult(
            table=target.table,
            column=column,
            dtype=kind,
            count=count,
            null_count=rows - count,
            null_pct=percentage(rows - count, rows),
            unique_count=unique,
            unique_pct=percentage(unique, count),
            top_values=self._rows(
                f"SELECT value, count(*) FROM {values} WHERE value IS NOT NULL "
                f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {top_n}"
            ),
            **self._numbers(values, kind),
        )

    def _numbers(self, values: str, kind: str) -> dict[str, float | None]:
        if not _NUMERIC.fullmatch(kind):
            return {}
        statistics = self._rows(
            f"SELECT min(value), max(value), avg(value), stddev_samp(value::DOUBLE) FROM {values}"
        )[0]
        numbers = [None if value is None else float(value) for value in statistics]
        return dict(zip(("min", "max", "mean", "std"), numbers, strict=True))

    def _value(self, table: str, column: str) -> str:
        """Return the SQL of a column, or of a value inside of one."""
        columns = {stored.name.lower(): stored.name for stored in self.schema(table).columns}
        if column.lower() in columns:
            return quoted(columns[column.lower()])
        macro, arrow = _MACRO.fullmatch(column), _IN_JSON.fullmatch(column)
        if macro and (outer := columns.get(macro[2].lower())):
            key = literal(macro[3].replace("''", "'"))
            return f"mixpanel.{macro[1]}({quoted(outer)}, {key})"
        outer = columns.get(arrow[1].strip('"').replace('""', '"').lower()) if arrow else None
        if arrow and outer:
            json_path = literal(arrow[3].replace("''", "'"))
            return f"({quoted(outer)} {arrow[2]} {json_path})"
        raise ConfigError(
            f"{table!r} has no column {column!r}; it has: {', '.join(columns.values())}. "
            "A value inside of JSON is written like prop(properties, '$browser').",
            {"table": table, "column": column},
        )

    def _table_with(self, table: str, columns: Sequence[str]) -> Target:
        """Return a table that must have these columns."""
        stored_columns = {column.name for column in self.schema(table).columns}
        missing = [column for column in columns if column not in stored_columns]
        if missing:
            raise ConfigError(
                f"{table!r} has no column {', '.join(missing)}, which this needs.",
                {"table": table, "missing": missing},
            )
        return find_table(self._connection, table)

    def _rows(self, sql: str, values: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return user_rows(self._connection, sql, values or {})

    def _sample(self, table: str, n: int) -> Connection:
        check_number("n", n, _BIGGEST_SAMPLE)
        target = find_table(self._connection, table)
        return self._connection.execute(f"SELECT * FROM {target.quoted} USING SAMPLE {n} ROWS")

    def _number(self, sql: str) -> int:
        return int(self._rows(sql)[0][0])


def check_number(name: str, value: int, most: int) -> None:
    """Raise `ConfigError` for a number that is not from 1 to `most`."""
    if type(value) is not int or not 1 <= value <= most:
        raise ConfigError(f"`{name}` is {value!r}, but goes from 1 to {most:,}.", {name: value})


def _number_of(text: Any, kind: str) -> float | None:
    return float(text) if text is not None and _NUMERIC.fullmatch(kind) else None


def percentage(part: int, whole: int) -> float:
    """Return a part in percent; 0 of nothing."""
    return 100 * part / whole if whole else 0.0


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC)
