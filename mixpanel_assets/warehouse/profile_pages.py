"""Page files of profiles become staged rows: each profile once, with the day it belongs to.

A line that cannot be stored is quarantined with its reason.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from gzip import GzipFile
from heapq import heappush, heappushpop
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.rules.json_text import (
    MAX_DEPTH,
    build_plain,
    encode,
    joined,
    last_values,
    may_be_deep,
    members,
    parse,
    values,
)
from mixpanel_assets.rules.lines import BOM, TOO_LONG, LongLine, lines_of, why_unstorable
from mixpanel_assets.warehouse.faults import number
from mixpanel_assets.warehouse.ledger import Scope
from mixpanel_assets.warehouse.lines import is_gzip, text_of
from mixpanel_assets.warehouse.memory import LARGE_BYTES, ROWS_AT_ONCE, Spread, at_most, make_room
from mixpanel_assets.warehouse.quarantine import Refusals, check_limit
from mixpanel_assets.warehouse.schema import PROFILES, Column
from mixpanel_assets.warehouse.staging import staging_table

# No finer than a TIMESTAMP, which holds microseconds.
_LAST_SEEN = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII
)


@dataclass(frozen=True)
class PageFile:
    """One page of profiles on disk: one profile per line, as Mixpanel sent it.

    Attributes:
        path: NDJSON, gzip or plain.
        fetched_at: When the page was read; timezone-aware, or naive UTC.
    """

    path: Path
    fetched_at: datetime

    @property
    def fetched_at_utc(self) -> datetime:
        """When the page was read; naive, UTC."""
        return _timestamp(self.fetched_at)

    def lines(self) -> Iterator[bytes | LongLine]:
        """Yield the lines that are not blank, without white space around; long ones in part."""
        try:
            with GzipFile(self.path) if is_gzip(self.path) else self.path.open("rb") as file:
                for line in lines_of(file.read):
                    if isinstance(line, LongLine):
                        yield line
                    elif stripped_line := line.removeprefix(BOM).strip():
                        yield stripped_line
        except (OSError, EOFError, zlib.error) as error:
            raise IncompleteExportError(
                f"The profile page {self.path.name} cannot be read ({error}). Nothing was "
                "changed; run it again, and the page is fetched again.",
                reason="unreadable page",
            ) from error

    def row(self, line: bytes) -> tuple[str, str, datetime | None]:
        """Return `distinct_id`, `properties` and `last_seen` of a line that DuckDB can store.

        Every property is the text that Mixpanel sent. `last_seen` is naive UTC; if `$last_seen` is
        not a time, it is None and `$last_seen` is kept among the properties.
        """
        try:
            profile = values(last_values(line))
            sent = profile.get("$properties", b"null")
            properties = {} if sent == b"null" else values(sent)
        except ValueError as error:
            raise self.holds_no_profile() from error
        distinct_id = text_of(profile.get("$distinct_id"))
        if distinct_id is None:
            raise self.holds_no_profile()
        last_seen = _last_seen_column(text_of(properties.get("$last_seen")))
        if last_seen is not None:
            del properties["$last_seen"]
        return (distinct_id, joined(properties, ascii_only=sent.isascii()).decode(), last_seen)

    def holds_no_profile(self) -> IncompleteExportError:
        """Return the error for a line that is not a profile."""
        return IncompleteExportError(
            f"The profile page {self.path.name} has a line that is not a profile with a "
            "`$distinct_id`. Nothing was changed; fetch this page again.",
            reason="a line is not a profile",
        )


def _plain_row(line: bytes) -> tuple[str, str, datetime | None] | None:
    """Return what `PageFile.row` does of a usual line, four times as fast; None of another line."""
    profile = build_plain(line)
    if profile is None or may_be_deep(line, MAX_DEPTH // 2):
        return None
    try:
        distinct_id, properties = profile["$distinct_id"], profile["$properties"]
        last_seen = properties.get("$last_seen", "")
    except (KeyError, TypeError, AttributeError):  # not a profile, or one without properties
        return None
    if type(distinct_id) is not str or type(last_seen) is not str:
        return None
    seen_at = _last_seen_column(last_seen)
    if seen_at is not None:
        del properties["$last_seen"]
    return distinct_id, encode(properties).decode(), seen_at


def _last_seen_column(text: str | None) -> datetime | None:
    """Return a time as naive UTC, which it is without an offset; None if it is not one."""
    if text is None or not _LAST_SEEN.fullmatch(text):
        return None
    try:
        return _timestamp(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def _timestamp(moment: datetime) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


if TYPE_CHECKING:
    import pyarrow as pa

# More does not make a load of a million profiles faster; rows beyond it are spilled to disk.
_MEMORY = "192MB"
_POSITION = Column("position", "BIGINT", "Place of the line in the response.")
_MOST_BATCH_ROWS = 5000  # row by row, DuckDB inserts 850 a second
_MOST_BATCH_BYTES = 2 << 20
DayOf = Callable[[datetime | None], date | None]
StagedRow = tuple[int, str, str, datetime | None, date | None, datetime]


@dataclass(frozen=True)
class Tally:
    """Lines of one day of a response, duplicates included, and the rows left of them."""

    received: int = 0
    rows: int = 0


@dataclass(frozen=True)
class StagedProfiles:
    """A staged response.

    Attributes:
        days: The requested days.
        scope: Whether it has `all` profiles, or only those `seen_on_day`.
        table: The name of its table with the columns of `profiles` and `position`;
            `snapshot_date` is NULL in rows that belong to none of the days.
        tallies: By day, None for rows that belong to none.
        quarantined: Lines that cannot be stored; they count for the first day.
        profiles: Number of different profiles, those in quarantine included.
        began_at: When its first page was read; naive UTC; None without pages.
    """

    days: Sequence[date]
    scope: Scope
    table: str
    tallies: Mapping[date | None, Tally]
    quarantined: Refusals
    profiles: int
    began_at: datetime | None

    def rows_elsewhere(self, days: Collection[date]) -> int:
        """Return the number of rows that belong to none of these days."""
        return sum(tally.rows for day, tally in self.tallies.items() if day not in days)


@contextmanager
def stage_profiles(
    connection: Connection,
    pages: Sequence[PageFile],
    *,
    days: Sequence[date],
    scope: Scope,
    zone: str,
) -> Iterator[StagedProfiles]:
    """Stage the pages of one response, in page order, until the block ends. Nothing is locked.

    Of two lines of a profile, the later one is kept.

    Args:
        connection: What `Database.staging` yields, or a connection to the database.
        pages: The pages that were fetched.
        days: The one day of a full snapshot, or the requested days of `seen_on_day`.
        scope: With `all` profiles, rows belong to the one day; with `seen_on_day`, to the day of
            `last_seen`.
        zone: The zone of these days.

    Raises:
        IncompleteExportError: A page cannot be read, a line is not a profile, or too many lines
            cannot be stored.
        ValueError: The days do not fit the scope.
    """
    if not days or len(set(days)) < len(days):
        raise ValueError("Profiles need a day to be kept under, and each day once.")
    if scope == "all" and len(days) > 1:
        raise ValueError("A snapshot of all profiles is kept under one day.")
    columns = (_POSITION, *PROFILES.columns)
    day_of = (
        (lambda seen: days[0]) if scope == "all" else _day_seen_on(frozenset(days), ZoneInfo(zone))
    )
    with ExitStack() as room, staging_table(connection, columns) as (staging, table, refusals):
        room.enter_context(at_most(connection, _MEMORY))
        reader = _PageReader(staging, table, refusals, days[0], day_of)
        reader.read(pages)
        check_limit(days[0], reader.received, list(refusals))
        staged_rows = _staged_rows(staging, table)
        staging.execute(
            f"DELETE FROM {table} "
            f"WHERE position NOT IN (SELECT max(position) FROM {table} GROUP BY distinct_id)"
        )
        kept_rows = _staged_rows(staging, table)
        tallies = {day: Tally(count, kept_rows.get(day, 0)) for day, count in staged_rows.items()}
        began_at = min((page.fetched_at_utc for page in pages), default=None)
        profiles = sum(kept_rows.values()) + _only_refused(staging, table, reader.refused_ids)
        if sum(reader.largest) >= LARGE_BYTES:
            room.close()
            make_room(connection, sum(reader.largest))
        yield StagedProfiles(days, scope, table, tallies, refusals, profiles, began_at)


class _PageReader:
    """Reads lines into the staging table, in batches of some megabytes.

    Attributes:
        received: Number of lines read.
        refused_ids: Ids of the quarantined profiles.
        largest: Bytes of the largest rows, as many as DuckDB handles at once.
    """

    def __init__(
        self, staging: Connection, table: str, refusals: Refusals, first_day: date, day_of: DayOf
    ) -> None:
        self._staging = staging
        self._table = table
        self._refusals = refusals
        self._first_day = first_day
        self._day_of = day_of
        self._spread = Spread(staging, table, _POSITION.name)
        self._batch: list[StagedRow] = []
        self._batch_bytes = 0
        self.received = 0
        self.refused_ids: set[str] = set()
        self.largest: list[int] = []

    def read(self, pages: Sequence[PageFile]) -> None:
        for page in pages:
            fetched_at = page.fetched_at_utc
            for line in page.lines():
                self.received += 1
                self._stage_line(line, page, fetched_at)
        self._insert_batch()
        self._spread.finish()

    def _stage_line(self, line: bytes | LongLine, page: PageFile, fetched_at: datetime) -> None:
        if isinstance(line, LongLine):
            if not line.is_whole:
                raise page.holds_no_profile()
            self._quarantine(line, TOO_LONG)
            return
        row = _plain_row(line)
        if row is None:
            if reason := why_unstorable(line):
                self._quarantine(line, reason)
                return
            row = page.row(line)
        distinct_id, properties, last_seen = row
        day = self._day_of(last_seen)
        self._batch.append((self.received, distinct_id, properties, last_seen, day, fetched_at))
        self._batch_bytes += len(line)
        keep = heappush if len(self.largest) < ROWS_AT_ONCE else heappushpop
        keep(self.largest, len(line))
        if len(self._batch) >= _MOST_BATCH_ROWS or self._batch_bytes >= _MOST_BATCH_BYTES:
            self._insert_batch()

    def _quarantine(self, line: bytes | LongLine, reason: str) -> None:
        self._refusals.add(self._first_day, line, reason)
        self.refused_ids.add(_quarantined_id(line))

    def _insert_batch(self) -> None:
        if self._batch:
            _insert_rows(self._staging, self._table, self._batch)
            self._spread.add(self._batch_bytes)
        self._batch, self._batch_bytes = [], 0


def _day_seen_on(days: Collection[date], zone: ZoneInfo) -> DayOf:
    def day_of(last_seen: datetime | None) -> date | None:
        if last_seen is None:
            return None
        snapshot_date = last_seen.replace(tzinfo=UTC).astimezone(zone).date()
        return snapshot_date if snapshot_date in days else None

    return day_of


@cache
def _staged_schema() -> pa.Schema:
    """Return the columns of `StagedRow`."""
    import pyarrow as pa  # imported late: costs 0.2 s and only profile loads need it

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


def _insert_rows(staging: Connection, table: str, rows: Sequence[StagedRow]) -> None:
    import pyarrow as pa

    schema = _staged_schema()
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    staging.register("_batch", pa.Table.from_arrays(arrays, schema=schema))
    staging.execute(f"INSERT INTO {table} BY NAME SELECT * FROM _batch")


def _only_refused(staging: Connection, table: str, refused_ids: set[str]) -> int:
    """Return the number of profiles that have quarantined lines alone."""
    storable = [one for one in refused_ids if one.encode(errors="replace").decode() == one]
    stored = number(
        staging,
        f"SELECT count(*) FROM {table} WHERE distinct_id IN (SELECT unnest(?::VARCHAR[]))",
        [storable],
    )
    return len(refused_ids) - stored


def _quarantined_id(line: bytes | LongLine) -> str:
    """Return the profile id of a refused line; if it cannot be read, a text unique to the line."""
    if isinstance(line, LongLine):
        return line.sha256
    line_text = line.decode(errors="surrogateescape")
    try:
        return str(parse(dict(members(line_text))["$distinct_id"]))
    except (ValueError, KeyError):
        return line_text


def _staged_rows(staging: Connection, table: str) -> dict[date | None, int]:
    staged = staging.execute(f"SELECT snapshot_date, count(*) FROM {table} GROUP BY ALL")
    return dict(staged.fetchall())
