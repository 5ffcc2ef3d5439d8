"""The profiles of one answer in memory: each once, with the day that it is to be kept under."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import duckdb

from mixpanel_assets.warehouse.answers import number
from mixpanel_assets.warehouse.memory import at_most
from mixpanel_assets.warehouse.profile_pages import ProfilePage
from mixpanel_assets.warehouse.quarantine import Quarantined, check_limit, why_refused
from mixpanel_assets.warehouse.reports import Scope
from mixpanel_assets.warehouse.schema import PROFILES, Column
from mixpanel_assets.warehouse.staging import staging_table

if TYPE_CHECKING:
    import pyarrow as pa

# More makes a load of a million profiles no faster; rows beyond it wait on disk.
_MEMORY = "192MB"
_POSITION = Column("position", "BIGINT", "Place of the line in the answer.")
_BATCH = 1000
DayOf = Callable[[datetime | None], date | None]
Row = tuple[int, str, str, datetime | None, date | None, datetime]


@dataclass(frozen=True)
class Tally:
    """Lines of one day of an answer, repeats included, and the rows left of them."""

    received: int = 0
    rows: int = 0


@dataclass(frozen=True)
class Answer:
    """A staged answer.

    Attributes:
        table: The name of its table, whose columns are those of `profiles` and `position`;
            `snapshot_date` is NULL in rows that belong to none of the days.
        tallies: By day, None for rows that belong to none.
        quarantined: Lines that cannot be stored; they count for the first day.
        profiles: How many different profiles came, those in quarantine included.
        began_at: When its first page was read; naive UTC.
    """

    table: str
    tallies: Mapping[date | None, Tally]
    quarantined: Sequence[Quarantined]
    profiles: int
    began_at: datetime


@contextmanager
def staged_profiles(
    connection: duckdb.DuckDBPyConnection,
    pages: Sequence[ProfilePage],
    *,
    days: Sequence[date],
    scope: Scope,
    zone: str = "UTC",
) -> Iterator[Answer]:
    """Read the pages of one answer for the length of the block; the later of two lines wins.

    Args:
        connection: The load's own; it only reads the staging table.
        pages: In page order, at least one.
        days: With `all`, the one day; with `seen_on_day`, rows get the one they were seen on.
        scope: What the answer holds.
        zone: Whose days they are.

    Raises:
        IncompleteExportError: A page cannot be read, a line is no profile, or too many lines
            cannot be stored.
    """
    columns = (_POSITION, *PROFILES.columns)
    day_of = (lambda seen: days[0]) if scope == "all" else _seen_on(frozenset(days), ZoneInfo(zone))
    with at_most(connection, _MEMORY), staging_table(connection, columns) as (staging, table):
        received, quarantined = _read(staging, table, pages, days[0], day_of)
        check_limit(days[0], received, quarantined)
        before = _count(staging, table)
        staging.execute(
            f"DELETE FROM {table} "
            f"WHERE position NOT IN (SELECT max(position) FROM {table} GROUP BY distinct_id)"
        )
        after = _count(staging, table)
        tallies = {day: Tally(count, after.get(day, 0)) for day, count in before.items()}
        began_at = min(page.fetched_at_utc for page in pages)
        profiles = sum(after.values()) + _only_refused(staging, table, quarantined)
        yield Answer(table, tallies, quarantined, profiles, began_at)


def _read(
    staging: duckdb.DuckDBPyConnection,
    table: str,
    pages: Sequence[ProfilePage],
    first_day: date,
    day_of: DayOf,
) -> tuple[int, list[Quarantined]]:
    refused, received = list[Quarantined](), 0

    def rows() -> Iterator[Row]:
        nonlocal received
        for page in pages:
            for line in page.lines():
                received += 1
                if reason := why_refused(line):
                    refused.append(Quarantined(first_day, line, reason))
                    continue
                distinct_id, properties, seen = page.row(line)
                yield received, distinct_id, properties, seen, day_of(seen), page.fetched_at_utc

    staged = rows()
    while batch := list(islice(staged, _BATCH)):
        _insert(staging, table, batch)
    return received, refused


def _seen_on(days: Collection[date], zone: ZoneInfo) -> DayOf:
    def day_of(seen: datetime | None) -> date | None:
        if seen is None:
            return None
        day = seen.replace(tzinfo=UTC).astimezone(zone).date()
        return day if day in days else None

    return day_of


@cache
def _schema() -> pa.Schema:
    """Return the columns of `Row`."""
    import pyarrow as pa  # a fifth of a second that only loads of profiles are to take

    return pa.schema(
        [
            ("position", pa.int64()),
            ("distinct_id", pa.string()),
            ("properties", pa.string()),
            ("last_seen", pa.timestamp("us")),
            ("snapshot_date", pa.date32()),
            ("fetched_at", pa.timestamp("us")),
        ]
    )


def _insert(staging: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Row]) -> None:
    import pyarrow as pa

    schema = _schema()
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    staging.register("_batch", pa.Table.from_arrays(arrays, schema=schema))
    staging.execute(f"INSERT INTO {table} BY NAME SELECT * FROM _batch")
    staging.unregister("_batch")


def _only_refused(
    staging: duckdb.DuckDBPyConnection, table: str, quarantined: Sequence[Quarantined]
) -> int:
    """Return how many profiles came in quarantined lines alone."""
    ids = {_id_of(refused.line) for refused in quarantined}
    storable = [one for one in ids if one.encode(errors="replace").decode() == one]
    stored = number(
        staging,
        f"SELECT count(*) FROM {table} WHERE distinct_id IN (SELECT unnest(?::VARCHAR[]))",
        [storable],
    )
    return len(ids) - stored


def _id_of(line: bytes) -> str:
    """Return whose profile a refused line is; the line itself if that cannot be read."""
    text = line.decode(errors="surrogateescape")
    try:
        return str(json.loads(text)["$distinct_id"])
    except (ValueError, KeyError, TypeError):
        return text


def _count(staging: duckdb.DuckDBPyConnection, table: str) -> dict[date | None, int]:
    found = staging.execute(f"SELECT snapshot_date, count(*) FROM {table} GROUP BY ALL")
    return dict(found.fetchall())
