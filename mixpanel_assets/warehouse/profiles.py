"""A day's profile pages into `mixpanel.profiles`, in the caller's transaction.

A whole snapshot replaces its day. A partial one is merged in by `distinct_id`, so that
nothing that was there is lost to a page that did not come.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from gzip import GzipFile
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb

from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.answers import number
from mixpanel_assets.warehouse.exact import members, text_of
from mixpanel_assets.warehouse.ledger import Load, Target
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.quarantine import (
    Quarantined,
    check_limit,
    replace_quarantine,
    why_refused,
)
from mixpanel_assets.warehouse.reports import ProfileReport, Scope, Status
from mixpanel_assets.warehouse.schema import PROFILES
from mixpanel_assets.warehouse.spool import is_gzip
from mixpanel_assets.warehouse.tables import day_rows

_BATCH = 2000
_ROW = "STRUCT(distinct_id VARCHAR, properties VARCHAR, last_seen VARCHAR)"
# No finer than a TIMESTAMP, which holds microseconds.
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII
)


@dataclass(frozen=True)
class ProfilePage:
    """One page of profiles on disk: a result object per line, as Mixpanel sent it.

    Attributes:
        path: NDJSON, gzip or plain.
        fetched_at: When the page was read; timezone-aware, or naive UTC.
    """

    path: Path
    fetched_at: datetime


def replace_profiles(
    connection: duckdb.DuckDBPyConnection,
    pages: Sequence[ProfilePage],
    *,
    snapshot_date: date,
    project: ProjectIdentity,
    scope: Scope = "all",
    expected_total: int | None = None,
    failed_pages: Sequence[int] = (),
    run_id: str | None = None,
    filters: Mapping[str, Any] | None = None,
) -> ProfileReport:
    """Store a snapshot's pages under its day and tell what the day holds then.

    Args:
        connection: A prepared database inside a transaction.
        pages: In page order; a profile on two pages is kept as the later page has it.
        snapshot_date: The day the rows are kept under.
        project: Whose profiles they are.
        scope: `all` profiles, or only those `seen_on_day`.
        expected_total: What the first page announced.
        failed_pages: Numbers of pages that did not come. With any, rows are merged in and
            the day is `partial`; with none, the pages replace the day.
        run_id: Kept in the ledger.
        filters: What narrowed the request, kept in the ledger; None for everything.

    Raises:
        IncompleteExportError: A line is no profile, too many lines cannot be stored, or no page
            failed and yet there are fewer profiles than announced. Roll back; nothing has
            changed then.
    """
    load = Load(Target(PROFILES.name), "profiles", run_id, filters)
    before = ledger.rows_before(connection, load.target, snapshot_date, snapshot_date)
    complete_at = ledger.complete_at(connection, load.target, snapshot_date)
    received, quarantined = _stage(connection, pages, snapshot_date)
    check_limit(snapshot_date, received, quarantined)
    duplicates = _remove_duplicates(connection)
    _move(connection, snapshot_date, merge=bool(failed_pages))
    row_count = _count(connection, snapshot_date)
    if not failed_pages:
        _require_all(row_count + len(quarantined), expected_total, snapshot_date)
        is_everybody = scope == "all" and not filters
        complete_at = _began(pages) if is_everybody else None
    report = ProfileReport(
        snapshot_date=snapshot_date,
        status=_status(row_count + len(quarantined), failed_pages),
        scope=scope,
        row_count=row_count,
        received=received,
        rows_before=before.get(snapshot_date),
        duplicates_removed=duplicates,
        expected_total=expected_total,
        failed_pages=tuple(failed_pages),
        quarantined=len(quarantined),
    )
    replace_quarantine(connection, load, snapshot_date, snapshot_date, quarantined)
    ledger.write_profile_day(connection, load, report, complete_at=complete_at)
    return report


def kept_snapshot(
    connection: duckdb.DuckDBPyConnection, day: date, scope: Scope
) -> ProfileReport | None:
    """Return what a day holds if a load of this scope must leave it alone; else None.

    A full snapshot of a day that is over cannot be taken again.
    """
    row = day_rows(connection, PROFILES.name, day, day).get(day)
    if scope == "all" or row is None or row["complete_at"] is None:
        return None
    return ProfileReport(
        snapshot_date=day,
        status=row["status"],
        scope=row["scope"],
        row_count=row["row_count"],
        received=0,
        rows_before=row["row_count"],
        duplicates_removed=row["duplicates_removed"],
        expected_total=row["expected_total"],
        failed_pages=tuple(row["failed_pages"] or ()),
        quarantined=row["quarantined"],
        kept=True,
    )


def _stage(
    connection: duckdb.DuckDBPyConnection, pages: Sequence[ProfilePage], day: date
) -> tuple[int, list[Quarantined]]:
    connection.execute(
        "CREATE TEMP TABLE _pages (page INTEGER, line INTEGER, distinct_id VARCHAR, "
        "properties JSON, last_seen TIMESTAMP, fetched_at TIMESTAMP)"
    )
    received, refused = 0, list[Quarantined]()
    for position, page in enumerate(pages):
        for lines in _batches(page.path):
            reasons = [why_refused(line) for line in lines]
            refused += [
                Quarantined(day, line, reason)
                for line, reason in zip(lines, reasons, strict=True)
                if reason
            ]
            rows = [
                _row(line, page.path)
                for line, reason in zip(lines, reasons, strict=True)
                if not reason
            ]
            _insert(connection, position, received, page, rows)
            received += len(lines)
    return received, refused


def _insert(
    connection: duckdb.DuckDBPyConnection,
    number: int,
    first: int,
    page: ProfilePage,
    batch: list[dict[str, Any]],
) -> None:
    if not batch:
        return
    connection.execute(
        f"""
        INSERT INTO _pages BY NAME
        SELECT ?::INTEGER AS page, ? + row_number() OVER () AS line, distinct_id,
               properties::JSON AS properties,
               last_seen::TIMESTAMP AS last_seen, ?::TIMESTAMP AS fetched_at
        FROM (SELECT unnest(?::{_ROW}[], recursive := true))
        """,
        [number, first, _naive(page.fetched_at), batch],
    )


def _batches(path: Path) -> Iterator[list[bytes]]:
    with GzipFile(path) if is_gzip(path) else path.open("rb") as file:
        lines = (line.rstrip(b"\r\n") for line in file if line.strip())
        while batch := list(islice(lines, _BATCH)):
            yield batch


def _row(line: bytes, path: Path) -> dict[str, Any]:
    """Return a profile's row with every property as the text Mixpanel sent."""
    profile = _parse(line.decode(), path)
    properties = profile.get("$properties", "null")
    pairs = [] if properties == "null" else list(members(properties))
    seen = _moment(text_of(dict(pairs).get("$last_seen")))
    kept = [(key, text) for key, text in pairs if seen is None or key != "$last_seen"]
    return {
        "distinct_id": text_of(profile["$distinct_id"]),
        "properties": f"{{{','.join(f'{json.dumps(key)}:{text}' for key, text in kept)}}}",
        "last_seen": seen and seen.isoformat(),
    }


def _moment(text: str | None) -> datetime | None:
    """Return a time as naive UTC, which it is without an offset; None if it is no time."""
    if text is None or not _MOMENT.fullmatch(text):
        return None
    try:
        return _naive(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def _parse(text: str, path: Path) -> dict[str, str]:
    """Return the texts of a profile's fields, once it is sure to be one."""
    try:
        profile = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        raise _not_a_profile(path) from error
    if (
        isinstance(profile, dict)
        and profile.get("$distinct_id") is not None
        and isinstance(profile.get("$properties"), dict | None)
    ):
        return dict(members(text))
    raise _not_a_profile(path)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _not_a_profile(path: Path) -> IncompleteExportError:
    return IncompleteExportError(
        f"The profile page {path.name} holds a line that is no profile with a `$distinct_id`. "
        "Nothing was changed; fetch this page again.",
        reason="a line is no profile",
    )


def _remove_duplicates(connection: duckdb.DuckDBPyConnection) -> int:
    return number(
        connection,
        "DELETE FROM _pages WHERE rowid IN (SELECT rowid FROM _pages QUALIFY "
        "row_number() OVER (PARTITION BY distinct_id ORDER BY page DESC, line DESC) > 1)",
    )


def _move(connection: duckdb.DuckDBPyConnection, snapshot_date: date, *, merge: bool) -> None:
    only = "AND distinct_id IN (SELECT distinct_id FROM _pages)" if merge else ""
    connection.execute(
        f"DELETE FROM {PROFILES.quoted} WHERE snapshot_date = ? {only}", [snapshot_date]
    )
    connection.execute(
        f"INSERT INTO {PROFILES.quoted} BY NAME "
        "SELECT * EXCLUDE (page, line), ?::DATE AS snapshot_date FROM _pages",
        [snapshot_date],
    )
    connection.execute("DROP TABLE _pages")


def _count(connection: duckdb.DuckDBPyConnection, snapshot_date: date) -> int:
    return number(
        connection,
        f"SELECT count(*) FROM {PROFILES.quoted} WHERE snapshot_date = ?",
        [snapshot_date],
    )


def _require_all(come: int, expected_total: int | None, day: date) -> None:
    if expected_total is not None and come < expected_total:
        raise IncompleteExportError(
            f"The pages for {day} hold {come:,} different profiles, {expected_total:,} were "
            "announced. Nothing was changed; take this snapshot again.",
            from_date=day,
            to_date=day,
            reason="fewer profiles than announced",
            lines=come,
        )


def _status(come: int, failed_pages: Sequence[int]) -> Status:
    if failed_pages:
        return "partial"
    return "complete" if come else "empty"


def _naive(moment: datetime) -> datetime:
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def _began(pages: Sequence[ProfilePage]) -> datetime:
    return min((_naive(page.fetched_at) for page in pages), default=_naive(datetime.now(UTC)))
