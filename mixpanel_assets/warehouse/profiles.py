"""Profiles into their days, and how many full snapshots are kept.

Everything runs in the caller's transaction. A complete response replaces its days. A partial
one is merged in by `distinct_id`, so that no stored profile is lost to a missing page.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from types import MappingProxyType
from typing import Any

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import ConfigError, IncompleteExportError
from mixpanel_assets.rules.days import describe_range
from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.faults import number
from mixpanel_assets.warehouse.ledger import (
    OF_TABLE,
    LedgerKey,
    ProfileReport,
    Scope,
    Status,
    Target,
)
from mixpanel_assets.warehouse.profile_pages import StagedProfiles, Tally
from mixpanel_assets.warehouse.quarantine import (
    forget_quarantine,
    merge_quarantine,
    replace_quarantine,
)
from mixpanel_assets.warehouse.schema import DAYS, PROFILES, SCHEMA, Table, is_lake, literal
from mixpanel_assets.warehouse.tables import (
    NAMED_SCHEMA,
    check_name,
    day_rows,
    make_table,
    refuse_our_names,
    table_exists,
)

# Named tables have exactly the columns of the documented library.
_DOCUMENTED = ("distinct_id", "properties", "last_seen")


def is_partial(connection: Connection, target: Target, filters: Mapping[str, Any]) -> bool:
    """Return whether a named table has nothing but a partial response to these filters.

    False for an asset's table, whose missing profiles the asset fetches.
    """
    if target.schema != NAMED_SCHEMA or not table_exists(connection, DAYS.name):
        return False
    ledger_rows = connection.execute(
        f"SELECT type, status, filters FROM {DAYS.quoted} WHERE {OF_TABLE}", target.names
    ).fetchall()
    partial = ("profiles", "partial", LedgerKey(target, "profiles", filters=filters).filters_json)
    return bool(ledger_rows) and all(row == partial for row in ledger_rows)


def make_profile_table(connection: Connection, target: Target) -> Table:
    """Return the definition of a table of profiles, which is created if it is missing."""
    check_name(target.table, PROFILES)
    if target == Target(PROFILES.name):
        return PROFILES
    if target.table != PROFILES.name:
        refuse_our_names(target.schema, target.table)
    definition = _table_definition(target)
    make_table(connection, definition)
    return definition


def is_full(scope: Scope, filters: Mapping[str, Any] | None, target: Target) -> bool:
    """Return whether a complete response is a full snapshot for the table.

    For `profiles` these are all profiles, for another asset table those of its filters.
    """
    if target.schema == NAMED_SCHEMA or scope != "all":
        return False
    return target.table != PROFILES.name or not filters


def move_profiles(
    connection: Connection, staged: str, table: Table, days: Sequence[date], *, merge: bool
) -> None:
    """Replace the days by the staged rows, or with `merge` only the profiles among these.

    A named table has no days: without `merge`, all its rows are replaced.
    """
    if table.schema == NAMED_SCHEMA:
        where = f"distinct_id IN (SELECT distinct_id FROM {staged})" if merge else "true"
        connection.execute(f"DELETE FROM {table.quoted} WHERE {where}")
    else:
        only = (
            f"AND (snapshot_date, distinct_id) IN (SELECT snapshot_date, distinct_id FROM {staged})"
        )
        connection.execute(
            f"DELETE FROM {table.quoted} WHERE snapshot_date IN (SELECT unnest(?::DATE[])) "
            f"{only if merge else ''}",
            [list(days)],
        )
    columns = ", ".join(table.column_names)
    connection.execute(
        f"INSERT INTO {table.quoted} BY NAME "
        f"SELECT {columns} FROM {staged} WHERE snapshot_date IN (SELECT unnest(?::DATE[]))",
        [list(days)],
    )


def forget_other_days(connection: Connection, target: Target, days: Sequence[date]) -> None:
    """Delete ledger and quarantine rows of all other days of a named table: it was replaced."""
    others = set(ledger.known_days(connection, target)) - set(days)
    ledger.forget_days(connection, target, others)
    for day in others:
        forget_quarantine(connection, target, day, day)


def count_day(connection: Connection, table: Table, day: date) -> int:
    """Return the row count of a day; in a named table, of the rows that no other day counts."""
    if table.schema != NAMED_SCHEMA:
        return number(
            connection, f"SELECT count(*) FROM {table.quoted} WHERE snapshot_date = ?", [day]
        )
    rows = ledger.rows_before(connection, Target(table.name, table.schema), date.min, date.max)
    others = sum(count for known, count in rows.items() if known != day)
    return number(connection, f"SELECT count(*) FROM {table.quoted}") - others


def _table_definition(target: Target) -> Table:
    if target.schema == SCHEMA:
        return Table(target.table, PROFILES.grain, PROFILES.columns)
    columns = tuple(column for column in PROFILES.columns if column.name in _DOCUMENTED)
    return Table(target.table, "One row per profile.", columns, NAMED_SCHEMA)


_ALL_PROFILES = Target(PROFILES.name)


def replace_profiles(
    connection: Connection,
    staged: StagedProfiles,
    *,
    expected_total: int | None = None,
    failed_pages: Mapping[int, str] = MappingProxyType({}),
    merge: bool = False,
    overwrite: bool = False,
    run_id: str | None = None,
    filters: Mapping[str, Any] | None = None,
    target: Target = _ALL_PROFILES,
) -> list[ProfileReport]:
    """Store a staged response under its days; return what each day holds then.

    If pages are missing or there are fewer profiles than announced, the days are `partial`: rows
    are merged in by `distinct_id` and none is deleted. After an error, the caller rolls back.

    Args:
        connection: A prepared database inside a transaction.
        staged: The response.
        expected_total: Number of profiles that the first page announced.
        failed_pages: Numbers of the missing pages, and why they are missing.
        merge: Merge by `distinct_id` even if the response is complete.
        overwrite: Replace a full snapshot by a response that is none, and the profiles seen on a
            day by those of a later response.
        run_id: Kept in the ledger.
        filters: What narrowed the request, kept in the ledger; None for everything.
        target: `profiles`; another table in schema `mixpanel` with the same columns; or a table
            in `main` with the documented columns, which takes `all` only.

    Returns:
        One report for each day, in order. Days with a full snapshot are not changed, unless
        `overwrite`; their report says `kept`.

    Raises:
        IncompleteExportError: There is no page.
        ConfigError: The name of the table is not allowed.
        ValueError: The scope does not fit the table.
    """
    days, scope = staged.days, staged.scope
    if scope != "all" and target.schema == NAMED_SCHEMA:
        raise ValueError("A named table holds complete responses, not days.")
    key = LedgerKey(target, "profiles", run_id, filters)
    kept = {} if overwrite else _kept_snapshots(connection, key, days, scope)
    written = [day for day in days if day not in kept]
    if not written:
        return list(kept.values())
    if staged.began_at is None:
        raise _no_pages_error(days, failed_pages)
    table = make_profile_table(connection, target)
    if days[0] in kept:
        staged.quarantined.move(written[0])
    missing = max(0, (expected_total or 0) - staged.profiles)
    response = _Response(scope, expected_total, dict(failed_pages), missing)
    # A later response for a day lacks the profiles that were seen again since.
    merge = merge or response.is_partial or (scope == "seen_on_day" and not overwrite)
    before = ledger.rows_before(connection, target, min(written), max(written))
    move_profiles(connection, staged.table, table, written, merge=merge)
    write = merge_quarantine if merge else replace_quarantine
    refused = {day: write(connection, key, day, day, staged.quarantined) for day in written}
    if target.schema == NAMED_SCHEMA and not merge:
        forget_other_days(connection, target, written)
    stored = [
        _write_snapshot_day(
            connection,
            key,
            table,
            day,
            before.get(day),
            staged,
            response,
            refused[day],
            written=written,
            merge=merge,
        )
        for day in written
    ]
    reports = kept | {report.snapshot_date: report for report in stored}
    return [reports[day] for day in days]


def kept_snapshot(
    connection: Connection,
    day: date,
    scope: Scope,
    *,
    filters: Mapping[str, Any] | None = None,
    target: Target = _ALL_PROFILES,
) -> ProfileReport | None:
    """Return the report of a day whose full snapshot a load must not change; else None."""
    # Mixpanel shows profiles as they are now, so a past day's snapshot cannot be taken again.
    if target.schema == NAMED_SCHEMA or is_full(scope, filters, target):
        return None
    row = day_rows(connection, target.table, day, day, schema=target.schema).get(day)
    if row is None or not (row["complete_at"] or is_full(row["scope"], row["filters"], target)):
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
        failed_pages=dict.fromkeys(row["failed_pages"] or (), "missing when it was loaded"),
        quarantined=row["quarantined"],
        kept=True,
    )


@dataclass(frozen=True)
class _Response:
    """What is known of a response as a whole."""

    scope: Scope
    expected_total: int | None
    failed_pages: dict[int, str]
    missing: int

    @property
    def is_partial(self) -> bool:
        return bool(self.failed_pages) or self.missing > 0


def _write_snapshot_day(
    connection: Connection,
    key: LedgerKey,
    table: Table,
    day: date,
    rows_before: int | None,
    staged: StagedProfiles,
    response: _Response,
    quarantined: int,
    *,
    written: Collection[date],
    merge: bool,
) -> ProfileReport:
    """Write the ledger row of one day, whose rows and quarantine are stored already."""
    tally = staged.tallies.get(day, Tally())
    row_count = count_day(connection, table, day)
    complete_at = ledger.complete_at(connection, key.target, day) if merge else None
    report = ProfileReport(
        snapshot_date=day,
        status=_snapshot_status(tally.received + row_count + quarantined, response),
        scope="all" if complete_at else response.scope,
        row_count=row_count,
        received=tally.received + sum(line.day == day for line in staged.quarantined),
        rows_before=rows_before,
        duplicates_removed=tally.received - tally.rows,
        expected_total=response.expected_total,
        failed_pages=response.failed_pages,
        missing_rows=response.missing,
        elsewhere=staged.rows_elsewhere(written),
        quarantined=quarantined,
    )
    if is_full(response.scope, key.filters, key.target) and not response.is_partial:
        complete_at = staged.began_at
    ledger.write_profile_day(connection, key, report, complete_at=complete_at)
    return report


def _kept_snapshots(
    connection: Connection, key: LedgerKey, days: Sequence[date], scope: Scope
) -> dict[date, ProfileReport]:
    snapshots = {
        day: kept_snapshot(connection, day, scope, filters=key.filters, target=key.target)
        for day in days
    }
    return {day: report for day, report in snapshots.items() if report}


def _no_pages_error(days: Sequence[date], failed_pages: Mapping[int, str]) -> IncompleteExportError:
    reason = next(iter(failed_pages.values()), "")
    return IncompleteExportError(
        f"No page of the profiles for {describe_range(days[0], days[-1])} was received. "
        f"{f'First reason: {reason} ' if reason else ''}Nothing was changed; run it again.",
        from_date=min(days),
        to_date=max(days),
        reason="no pages",
    )


def _snapshot_status(received: int, response: _Response) -> Status:
    if response.is_partial:
        return "partial"
    return "complete" if received else "empty"


@dataclass(frozen=True)
class Thinned:
    """The result of thinning snapshots, or of a dry run.

    Attributes:
        kept: Days whose full snapshots are kept, in order.
        deleted: Days whose full snapshots are deleted, in order.
        deleted_rows: Rows of the deleted days.
        remaining_rows: Rows of the table now, other days included.
        remaining_bytes: An estimate: the remaining rows' share of the file.
        rows_per_snapshot: Rows of the newest full snapshot, as the next one will have.
    """

    kept: tuple[date, ...]
    deleted: tuple[date, ...]
    deleted_rows: int
    remaining_rows: int
    remaining_bytes: int
    rows_per_snapshot: int


def days_to_keep(
    days: Collection[date], *, daily: int, weekly: int, monthly: int
) -> frozenset[date]:
    """Return the days to keep: the newest `daily` ones, and the newest of recent periods.

    Periods are the newest `weekly` ISO weeks and `monthly` calendar months that have a day.
    """
    periods: tuple[tuple[int, Callable[[date], Hashable]], ...] = (
        (daily, lambda day: day),
        (weekly, lambda day: day.isocalendar()[:2]),
        (monthly, lambda day: (day.year, day.month)),
    )
    kept = set(sorted(days)[-1:])
    for count, period in periods:
        newest = {period(day): day for day in sorted(days)}
        kept |= set(sorted(newest.values(), reverse=True)[:count])
    return frozenset(kept)


def thin_snapshots(
    connection: Connection,
    *,
    daily: int = 7,
    weekly: int = 8,
    monthly: int = 24,
    today: date,
    target: Target = _ALL_PROFILES,
    dry_run: bool = False,
) -> Thinned:
    """Delete full snapshots that are not among the `days_to_keep`, in the caller's transaction.

    A snapshot is full if all profiles were requested, even if it is partial. What
    `profiles_current` needs is kept too: the newest complete snapshot and all rows read since, and
    the snapshot of `today`, in the project's time. A `dry_run` deletes nothing.

    Raises:
        ConfigError: A number is negative.
        ValueError: The table has no days.
    """
    if target.schema != SCHEMA:
        raise ValueError("A named table has no days to delete.")
    if min(daily, weekly, monthly) < 0:
        raise ConfigError("The number of snapshots to keep is 0 or more.")
    ledger = day_rows(connection, target.table, date.min, date.max, schema=target.schema)
    full = {day: row["row_count"] for day, row in ledger.items() if row["scope"] == "all"}
    complete = {day: ledger[day]["complete_at"] for day in full if ledger[day]["complete_at"]}
    # Chosen also from the complete ones alone, so that no partial one displaces one of them.
    kept = (
        days_to_keep(full, daily=daily, weekly=weekly, monthly=monthly)
        | days_to_keep(complete, daily=daily, weekly=weekly, monthly=monthly)
        | _days_read_since(connection, target, complete)
        | {day for day in full if day >= today or day >= max(complete, default=date.min)}
    )
    deleted = sorted(full.keys() - kept)
    total = sum(row["row_count"] for row in ledger.values())
    deleted_rows = sum(full[day] for day in deleted)
    size = _stored_bytes(connection, target) * (total - deleted_rows) // max(total, 1)
    if not dry_run:
        _delete_snapshots(connection, target, deleted)
    return Thinned(
        kept=tuple(sorted(full.keys() & kept)),
        deleted=tuple(deleted),
        deleted_rows=deleted_rows,
        remaining_rows=total - deleted_rows,
        remaining_bytes=size,
        rows_per_snapshot=full[max(complete)] if complete else 0,
    )


def _days_read_since(
    connection: Connection, target: Target, complete: Mapping[date, datetime]
) -> set[date]:
    """Return the days with rows read since the newest complete snapshot began, its own included."""
    if not complete:
        return set()
    newest_snapshot = max(complete, key=lambda day: complete[day])
    read_since = connection.execute(
        f"SELECT DISTINCT snapshot_date FROM {target.quoted} WHERE fetched_at >= ?",
        [complete[newest_snapshot]],
    )
    return {newest_snapshot, *(day for (day,) in read_since.fetchall())}


def _stored_bytes(connection: Connection, target: Target) -> int:
    """Return the bytes of the table in the file, in whole blocks; in a lake, of its files."""
    if not table_exists(connection, target.table, target.schema):
        return 0
    if is_lake(connection):
        return number(
            connection,
            "SELECT coalesce(sum(data_file_size_bytes), 0) FROM ducklake_list_files("
            f"current_database(), {literal(target.table)}, schema => {literal(target.schema)})",
        )
    name = literal(target.quoted)
    return number(
        connection,
        f"""
        SELECT count(DISTINCT block) * (
            SELECT any_value(block_size) FROM pragma_database_size()
            WHERE database_name = current_database()
        ) FROM (
            SELECT unnest(list_append(additional_block_ids, block_id)) AS block
            FROM pragma_storage_info({name})
        ) WHERE block >= 0
        """,
    )


def _delete_snapshots(connection: Connection, target: Target, days: Sequence[date]) -> None:
    if not days:
        return
    connection.execute(
        f"DELETE FROM {target.quoted} WHERE snapshot_date IN (SELECT unnest(?::DATE[]))",
        [list(days)],
    )
    ledger.forget_days(connection, target, days)
    for day in days:
        forget_quarantine(connection, target, day, day)
