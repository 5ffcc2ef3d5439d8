"""Named tables from files of lines that were records: whole or not at all.

`records` writes the files; here they are loaded, in the caller's transaction, and the ledger
says of them what the caller knows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb

from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.append import append_events
from mixpanel_assets.warehouse.destination import NAMED_SCHEMA, make_way
from mixpanel_assets.warehouse.ledger import Target
from mixpanel_assets.warehouse.profile_pages import ProfilePage
from mixpanel_assets.warehouse.profiles import replace_profiles
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.schema import DAYS


def make_events_table(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    spool: Path,
    *,
    lines: int,
    days: Collection[date],
    covers_gaps: bool,
    project: ProjectIdentity,
    fetched_at: datetime,
    open_days: Collection[date],
    filters: Mapping[str, Any],
) -> int:
    """Make a table of events in schema `main`; return how many rows it has.

    Args:
        connection: A prepared database inside a transaction.
        table: Its name.
        spool: Lines as Mixpanel sends them.
        lines: How many.
        days: The first and the last day are asked for, both included.
        covers_gaps: Whether days in between without events are known to have none.
        project: How times are read.
        fetched_at: When the events came, aware.
        open_days: Days that were not over then.
        filters: What narrowed the events.
    """
    make_way(connection, table, replace=False)
    reports = append_events(
        connection,
        spool,
        from_date=min(days),
        to_date=max(days),
        lines=lines,
        project=project,
        received_bytes=spool.stat().st_size,
        requests=0,
        open_days=open_days,
        table=table,
        filters=filters or None,
    )
    target = Target(table, NAMED_SCHEMA)
    if not covers_gaps:
        unknown = [report.day for report in reports if report.day not in days]
        ledger.forget_days(connection, target, unknown)
    _date(connection, target, fetched_at)
    return sum(report.row_count for report in reports)


def make_profiles_table(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    page: Path,
    *,
    day: date,
    project: ProjectIdentity,
    fetched_at: datetime,
    filters: Mapping[str, Any],
) -> int:
    """Make a table of profiles in schema `main`; return how many rows it has.

    Args:
        connection: A prepared database inside a transaction.
        table: Its name.
        page: Lines as Mixpanel sends them; the later of two for the same profile stays.
        day: The day of fetching.
        project: Whose profiles they are.
        fetched_at: When the profiles came, aware.
        filters: What narrowed the profiles.
    """
    make_way(connection, table, replace=False)
    target = Target(table, NAMED_SCHEMA)
    [report] = replace_profiles(
        connection,
        [ProfilePage(page, fetched_at)],
        days=[day],
        project=project,
        filters=filters or None,
        target=target,
    )
    _date(connection, target, fetched_at)
    return report.row_count


def _date(connection: duckdb.DuckDBPyConnection, target: Target, fetched_at: datetime) -> None:
    moment = fetched_at.astimezone(UTC).replace(tzinfo=None)
    connection.execute(
        f"UPDATE {DAYS.quoted} SET fetched_at = ? WHERE schema_name = ? AND table_name = ?",
        [moment, target.schema, target.table],
    )
