"""Lines that arrived whole but cannot be stored: kept with their reason, few or none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import duckdb

from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.warehouse.answers import number
from mixpanel_assets.warehouse.ledger import Load, Target
from mixpanel_assets.warehouse.reports import DayReport
from mixpanel_assets.warehouse.schema import QUARANTINE

MAX_LINES = 1000
MAX_SHARE = 0.01
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Quarantined:
    """One line that cannot be stored: the asked day it counts for, its bytes and the reason."""

    day: date
    line: bytes
    reason: str


def why_refused(line: bytes) -> str | None:
    """Say why DuckDB would refuse a line, None when its text is fine."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return "its bytes are not UTF-8"
    if not _SURROGATE.search(line):
        return None
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "it holds half of a surrogate pair, which is no character"
    except ValueError:
        return None
    return None


def replace_quarantine(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    from_date: date,
    to_date: date,
    lines: Sequence[Quarantined],
    *,
    kept: Sequence[int] = (),
) -> int:
    """Replace the quarantine of the loaded days, both ends included; return its size.

    Args:
        connection: Inside the transaction of the load.
        load: Of which table.
        from_date: First day.
        to_date: Last day.
        lines: What came.
        kept: Row ids of stored lines that stay.
    """
    forget_quarantine(connection, load.target, from_date, to_date, kept=kept)
    _insert(connection, load, lines)
    return len(lines) + len(kept)


def merge_quarantine(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    from_date: date,
    to_date: date,
    lines: Sequence[Quarantined],
) -> int:
    """Add the lines that the quarantine of the days lacks; return its size then."""
    found = connection.execute(
        f"SELECT day, line FROM {QUARANTINE.quoted} "
        "WHERE schema_name = ? AND table_name = ? AND day BETWEEN ? AND ?",
        [load.target.schema, load.target.table, from_date, to_date],
    ).fetchall()
    known = set(found)
    added = [line for line in lines if (line.day, line.line) not in known]
    _insert(connection, load, added)
    return len(found) + len(added)


def forget_quarantine(
    connection: duckdb.DuckDBPyConnection,
    target: Target,
    from_date: date,
    to_date: date,
    *,
    kept: Sequence[int] = (),
) -> int:
    """Delete the quarantine of some days, both ends included, except the kept rowids.

    Returns:
        How many lines went.
    """
    return number(
        connection,
        f"DELETE FROM {QUARANTINE.quoted} "
        "WHERE schema_name = ? AND table_name = ? AND day BETWEEN ? AND ? "
        "AND rowid NOT IN (SELECT unnest(?::BIGINT[]))",
        [target.schema, target.table, from_date, to_date, list(kept)],
    )


def _insert(
    connection: duckdb.DuckDBPyConnection, load: Load, lines: Iterable[Quarantined]
) -> None:
    target = [load.target.schema, load.target.table]
    for line in lines:
        connection.execute(
            f"INSERT INTO {QUARANTINE.quoted} BY NAME SELECT ? AS schema_name, ? AS table_name, "
            "? AS day, ?::BLOB AS line, ? AS reason, ? AS run_id, "
            "now() AT TIME ZONE 'UTC' AS quarantined_at",
            [*target, line.day, line.line, line.reason, load.run_id],
        )


def check_limits(reports: Iterable[DayReport], lines: Sequence[Quarantined]) -> None:
    """Check the limit of each reported day of events, as `check_limit` does."""
    for report in reports:
        whole = report.row_count + report.duplicates_removed + report.quarantined
        check_limit(report.day, whole, [line for line in lines if line.day == report.day])


def check_limit(day: date, whole: int, refused: Sequence[Quarantined]) -> None:
    """Allow a day one bad line, or 1 % of its `whole` lines, and never more than 1,000.

    Raises:
        IncompleteExportError: It has more, so what came for it is not to be trusted.
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
