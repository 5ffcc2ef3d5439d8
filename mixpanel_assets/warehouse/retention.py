"""Which days of full snapshots stay: each holds everybody again, so a year of them is large.

Days that hold only the profiles last seen on them are small and never go.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import duckdb

from mixpanel_assets.errors import ConfigError
from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.answers import number
from mixpanel_assets.warehouse.ledger import Target
from mixpanel_assets.warehouse.quarantine import forget_quarantine
from mixpanel_assets.warehouse.schema import PROFILES, SCHEMA, literal, qualified
from mixpanel_assets.warehouse.tables import day_rows, table_exists

_EVERYBODY = Target(PROFILES.name)


@dataclass(frozen=True)
class Thinned:
    """What thinning left, or would leave.

    Attributes:
        kept: Days of full snapshots that stay, in order.
        deleted: Days of full snapshots that are gone, in order.
        deleted_rows: Rows of the deleted days.
        remaining_rows: Rows of the table now, other days included.
        remaining_bytes: An estimate: the remaining rows' share of the file.
        rows_per_snapshot: What one more full snapshot is likely to add: the rows of the newest.
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
    """Return the days that stay: the newest ones, and the newest of each of the newest periods.

    Args:
        days: Days that hold a full snapshot.
        daily: How many of the newest days stay.
        weekly: Of how many of the newest ISO weeks with a day the newest day stays.
        monthly: The same for calendar months.
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
    connection: duckdb.DuckDBPyConnection,
    *,
    daily: int = 7,
    weekly: int = 8,
    monthly: int = 24,
    today: date,
    target: Target = _EVERYBODY,
    dry_run: bool = False,
) -> Thinned:
    """Delete the days of full snapshots that are too many, in the caller's transaction.

    A day counts as a full snapshot if everybody was asked for, even if part of the answer did
    not come. Besides `days_to_keep`, all that `profiles_current` needs stays, so that it holds
    the same before and after: the newest complete snapshot and what was read since.

    Args:
        connection: A prepared database inside a transaction; `dry_run` needs none.
        daily: How many of the newest days stay.
        weekly: Of how many of the newest ISO weeks the newest snapshot stays.
        monthly: Of how many of the newest months the newest snapshot stays.
        today: In the project's time; it is not over, so its snapshot stays.
        target: `profiles`, or another asset table of profiles.
        dry_run: Only tell what would go.

    Raises:
        ConfigError: A number is negative.
        ValueError: The table has no days.
    """
    if target.schema != SCHEMA:
        raise ValueError("A named table has no days that could go.")
    if min(daily, weekly, monthly) < 0:
        raise ConfigError("How many snapshots stay is a number of 0 or more.")
    rows = day_rows(connection, target.table, date.min, date.max, schema=target.schema)
    full = {day: row["row_count"] for day, row in rows.items() if row["scope"] == "all"}
    complete = {day: rows[day]["complete_at"] for day in full if rows[day]["complete_at"]}
    # Chosen from the complete ones apart, so that no partial one takes the place of one of them.
    kept = (
        days_to_keep(full, daily=daily, weekly=weekly, monthly=monthly)
        | days_to_keep(complete, daily=daily, weekly=weekly, monthly=monthly)
        | _read_since(connection, target, complete)
        | {day for day in full if day >= today or day >= max(complete, default=date.min)}
    )
    deleted = sorted(full.keys() - kept)
    total = sum(row["row_count"] for row in rows.values())
    gone = sum(full[day] for day in deleted)
    size = _bytes(connection, target) * (total - gone) // max(total, 1)
    if not dry_run:
        _delete(connection, target, deleted)
    return Thinned(
        kept=tuple(sorted(full.keys() & kept)),
        deleted=tuple(deleted),
        deleted_rows=gone,
        remaining_rows=total - gone,
        remaining_bytes=size,
        rows_per_snapshot=full[max(complete)] if complete else 0,
    )


def _read_since(
    connection: duckdb.DuckDBPyConnection, target: Target, complete: Mapping[date, datetime]
) -> set[date]:
    """Return the days with rows read since the newest complete snapshot began, its own included."""
    if not complete:
        return set()
    newest = max(complete, key=lambda day: complete[day])
    found = connection.execute(
        f"SELECT DISTINCT snapshot_date FROM {qualified(target.schema, target.table)} "
        "WHERE fetched_at >= ?",
        [complete[newest]],
    )
    return {newest, *(day for (day,) in found.fetchall())}


def _bytes(connection: duckdb.DuckDBPyConnection, target: Target) -> int:
    """Return what the table takes up in the file, in whole blocks."""
    if not table_exists(connection, target.table, target.schema):
        return 0
    name = literal(qualified(target.schema, target.table))
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


def _delete(connection: duckdb.DuckDBPyConnection, target: Target, days: Sequence[date]) -> None:
    if not days:
        return
    connection.execute(
        f"DELETE FROM {qualified(target.schema, target.table)} "
        "WHERE snapshot_date IN (SELECT unnest(?::DATE[]))",
        [list(days)],
    )
    ledger.forget_days(connection, target, days)
    for day in days:
        forget_quarantine(connection, target, day, day)
