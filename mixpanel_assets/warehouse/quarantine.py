"""The quarantine: complete lines that cannot be stored, each with the reason."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.rules.lines import HEAD_BYTES, LongLine
from mixpanel_assets.warehouse.faults import number
from mixpanel_assets.warehouse.ledger import OF_TABLE, DayReport, LedgerKey, Target
from mixpanel_assets.warehouse.memory import Spread
from mixpanel_assets.warehouse.schema import QUARANTINE

# A day with more bad lines than this is a sign of a damaged response, not of odd events.
MAX_LINES = 1000
MAX_SHARE = 0.01


# Lines of an earlier version have no hash of their own.
DIGEST = "coalesce(sha256, sha256(line))"
_STORED = f"{QUARANTINE.quoted} WHERE {OF_TABLE} AND day BETWEEN $from_date AND $to_date"


@dataclass(frozen=True)
class Quarantined:
    """One line that cannot be stored; `head` is its beginning, `sha256` that of all of it."""

    day: date
    reason: str
    head: bytes
    sha256: str


class Refusals:
    """The lines of one load that cannot be stored; a table, created here, holds their bytes."""

    def __init__(self, connection: Connection, table: str) -> None:
        self.table = self.rows = table
        self._connection = connection
        self._lines: list[Quarantined] = []
        self._spread = Spread(connection, table, "day")
        connection.execute(
            f"CREATE TABLE {table} (day DATE, line BLOB, reason VARCHAR, line_bytes BIGINT, "
            "sha256 VARCHAR)"
        )

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Quarantined]:
        return iter(self._lines)

    def add(self, day: date, line: bytes | LongLine, reason: str) -> None:
        """Keep a line, or the beginning of a long one, its length and its hash."""
        if isinstance(line, LongLine):
            kept_bytes, line_bytes, sha256 = line.head, line.length, line.sha256
        else:
            kept_bytes, line_bytes, sha256 = line, len(line), hashlib.sha256(line).hexdigest()
        self._connection.execute(
            f"INSERT INTO {self.table} VALUES (?, ?::BLOB, ?, ?, ?)",
            [day, kept_bytes, reason, line_bytes, sha256],
        )
        self._lines.append(Quarantined(day, reason, kept_bytes[:HEAD_BYTES], sha256))
        self._spread.add(len(kept_bytes))

    def move(self, day: date) -> None:
        """Let every line count for this day instead."""
        # Not by an update of the table: a transaction that has begun would not see it.
        lines = f"{self.table} WHERE day IS NOT NULL"  # without the gaps between large lines
        self.rows = f"(SELECT * REPLACE (DATE '{day}' AS day) FROM {lines})"
        self._lines = [replace(line, day=day) for line in self._lines]


def replace_quarantine(
    connection: Connection,
    key: LedgerKey,
    from_date: date,
    to_date: date,
    refusals: Refusals,
    *,
    kept: Sequence[int] = (),
) -> int:
    """Replace the quarantine of days, except the `kept` row ids; return its number of lines."""
    forget_quarantine(connection, key.target, from_date, to_date, kept=kept)
    days = key.target.names | {"from_date": from_date, "to_date": to_date}
    _insert(connection, key, refusals, days)
    return number(connection, f"SELECT count(*) FROM {_STORED}", days)


def merge_quarantine(
    connection: Connection, key: LedgerKey, from_date: date, to_date: date, refusals: Refusals
) -> int:
    """Add the lines that the quarantine of the days lacks; return the number of lines then."""
    days = key.target.names | {"from_date": from_date, "to_date": to_date}
    is_new = f"AND (day, sha256) NOT IN (SELECT (day, {DIGEST}) FROM {_STORED})"
    _insert(connection, key, refusals, days, is_new)
    return number(connection, f"SELECT count(*) FROM {_STORED}", days)


def forget_quarantine(
    connection: Connection,
    target: Target,
    from_date: date,
    to_date: date,
    *,
    kept: Sequence[int] = (),
) -> int:
    """Delete the quarantine of days, both ends included, except the `kept` row ids; count it."""
    return number(
        connection,
        f"DELETE FROM {_STORED} AND rowid NOT IN (SELECT unnest($kept::BIGINT[]))",
        target.names | {"from_date": from_date, "to_date": to_date, "kept": list(kept)},
    )


def _insert(
    connection: Connection,
    key: LedgerKey,
    refusals: Refusals,
    days: Mapping[str, Any],
    condition: str = "",
) -> None:
    if len(refusals):
        connection.execute(
            f"INSERT INTO {QUARANTINE.quoted} BY NAME SELECT $schema AS schema_name, "
            "$table AS table_name, *, now() AT TIME ZONE 'UTC' AS quarantined_at, "
            f"$run_id AS run_id FROM {refusals.rows} "
            f"WHERE day BETWEEN $from_date AND $to_date {condition}",
            {**days, "run_id": key.run_id},
        )


def check_limits(reports: Iterable[DayReport], lines: Iterable[Quarantined]) -> None:
    """Check the limit of each reported day of events, as `check_limit` does."""
    for report in reports:
        whole = report.row_count + report.duplicates_removed + report.quarantined
        check_limit(report.day, whole, [line for line in lines if line.day == report.day])


def check_limit(day: date, whole: int, refused: Sequence[Quarantined]) -> None:
    """Raise `IncompleteExportError` if too many lines of a day cannot be stored.

    One may, or 1 % of its `whole` lines, and never more than 1,000.
    """
    if len(refused) <= min(MAX_LINES, max(1, MAX_SHARE * whole)):
        return
    reasons = sorted({line.reason for line in refused})
    raise IncompleteExportError(
        f"{len(refused)} of the {whole} lines received for {day} cannot be stored "
        f"({'; '.join(reasons[:3])}). Nothing was changed; look at what Mixpanel sends before "
        "loading this day.",
        from_date=day,
        to_date=day,
        reason="too many lines cannot be stored",
        lines=whole,
    )
