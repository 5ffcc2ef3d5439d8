"""One answer to a question for profiles into its days, in the caller's transaction.

A complete answer replaces its days. A partial one is merged in by `distinct_id`, so that
nothing that was there is lost to what did not come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import Any

import duckdb

from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.destination import NAMED_SCHEMA
from mixpanel_assets.warehouse.ledger import Load, Target
from mixpanel_assets.warehouse.profile_pages import ProfilePage
from mixpanel_assets.warehouse.profile_staging import Answer, Tally, staged_profiles
from mixpanel_assets.warehouse.profile_tables import (
    count_day,
    forget_other_days,
    is_full,
    make_profile_table,
    move_profiles,
)
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.quarantine import merge_quarantine, replace_quarantine
from mixpanel_assets.warehouse.reports import ProfileReport, Scope, Status
from mixpanel_assets.warehouse.schema import PROFILES, Table
from mixpanel_assets.warehouse.tables import day_rows

_EVERYBODY = Target(PROFILES.name)


def replace_profiles(
    connection: duckdb.DuckDBPyConnection,
    pages: Sequence[ProfilePage],
    *,
    days: Sequence[date],
    project: ProjectIdentity,
    scope: Scope = "all",
    expected_total: int | None = None,
    failed_pages: Mapping[int, str] = MappingProxyType({}),
    merge: bool = False,
    overwrite: bool = False,
    run_id: str | None = None,
    filters: Mapping[str, Any] | None = None,
    target: Target = _EVERYBODY,
) -> list[ProfileReport]:
    """Store the pages of one answer under its days and tell what each day holds then.

    If pages failed or fewer profiles came than announced, the days are `partial`: rows are
    merged in by `distinct_id` and nothing is deleted. The same goes for `seen_on_day`, for an
    answer of later lacks those who were seen again. When this raises, roll back: nothing of
    the old days has changed then.

    Args:
        connection: A prepared database inside a transaction.
        pages: In page order; a profile on two pages is kept as the later page has it.
        days: The one day of a full snapshot, or the days that `seen_on_day` was asked for;
            rows are split by the date of `last_seen`, in UTC or a legacy project's zone.
        project: Whose profiles they are.
        scope: `all` profiles, or only those `seen_on_day`.
        expected_total: What the first page announced for the whole answer.
        failed_pages: Numbers of pages that did not come, and why.
        merge: Merge by `distinct_id` even if the answer is complete.
        overwrite: Let anything but a new full snapshot replace a full one, and an answer of
            later the profiles seen on a day.
        run_id: Kept in the ledger.
        filters: What narrowed the request, kept in the ledger; None for everything.
        target: `profiles`; another table in schema `mixpanel` with the same columns, made when
            absent; or a table in `main` with the documented columns, which takes `all` only.

    Returns:
        One report for each day, in order. Days that hold a full snapshot are left alone
        unless `overwrite`; their report says `kept`.

    Raises:
        IncompleteExportError: There is no page, one cannot be read, a line is no profile, or
            too many lines cannot be stored.
        ConfigError: The name of the table is taken, or none for a table.
        ValueError: The days do not fit the scope, or the scope does not fit the table.
    """
    _check_days(days, scope, target)
    load = Load(target, "profiles", run_id, filters)
    kept = {} if overwrite else _kept_days(connection, load, days, scope)
    written = [day for day in days if day not in kept]
    if not written:
        return list(kept.values())
    if not pages:
        raise _no_pages(days, failed_pages)
    table = make_profile_table(connection, target)
    zone = project.zone if project.regime == "legacy" else "UTC"
    with staged_profiles(connection, pages, days=written, scope=scope, zone=zone) as answer:
        missing = max(0, (expected_total or 0) - answer.profiles)
        told = _Told(scope, expected_total, dict(failed_pages), missing)
        # Who was seen again since is no longer in the answer, and cannot be asked for.
        merge = merge or told.is_partial or (scope == "seen_on_day" and not overwrite)
        before = ledger.rows_before(connection, target, min(written), max(written))
        move_profiles(connection, answer.table, table, written, merge=merge)
        write = merge_quarantine if merge else replace_quarantine
        refused = {day: write(connection, load, day, day, answer.quarantined) for day in written}
    if target.schema == NAMED_SCHEMA and not merge:
        forget_other_days(connection, target, written)
    stored = [
        _settle(
            connection, load, table, day, before.get(day), answer, told, refused[day], merge=merge
        )
        for day in written
    ]
    reports = kept | {report.snapshot_date: report for report in stored}
    return [reports[day] for day in days]


def kept_snapshot(
    connection: duckdb.DuckDBPyConnection,
    day: date,
    scope: Scope,
    *,
    filters: Mapping[str, Any] | None = None,
    target: Target = _EVERYBODY,
) -> ProfileReport | None:
    """Return what a day holds if a load of this kind must leave it alone; else None.

    A full snapshot of a day that is over cannot be taken again, not even a partial one.
    """
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
        failed_pages=dict.fromkeys(row["failed_pages"] or (), "did not come when it was loaded"),
        quarantined=row["quarantined"],
        kept=True,
    )


@dataclass(frozen=True)
class _Told:
    """What is known of an answer as a whole."""

    scope: Scope
    expected_total: int | None
    failed_pages: dict[int, str]
    missing: int

    @property
    def is_partial(self) -> bool:
        return bool(self.failed_pages) or self.missing > 0


def _settle(
    connection: duckdb.DuckDBPyConnection,
    load: Load,
    table: Table,
    day: date,
    rows_before: int | None,
    answer: Answer,
    told: _Told,
    quarantined: int,
    *,
    merge: bool,
) -> ProfileReport:
    """Write the ledger of one day, whose rows and quarantine are there already."""
    tally = answer.tallies.get(day, Tally())
    row_count = count_day(connection, table, day)
    complete_at = ledger.complete_at(connection, load.target, day) if merge else None
    report = ProfileReport(
        snapshot_date=day,
        status=_status(tally.received + row_count + quarantined, told),
        scope="all" if complete_at else told.scope,
        row_count=row_count,
        received=tally.received + sum(line.day == day for line in answer.quarantined),
        rows_before=rows_before,
        duplicates_removed=tally.received - tally.rows,
        expected_total=told.expected_total,
        failed_pages=told.failed_pages,
        missing_rows=told.missing,
        elsewhere=answer.tallies.get(None, Tally()).rows,
        quarantined=quarantined,
    )
    if is_full(told.scope, load.filters, load.target) and not told.is_partial:
        complete_at = answer.began_at
    ledger.write_profile_day(connection, load, report, complete_at=complete_at)
    return report


def _kept_days(
    connection: duckdb.DuckDBPyConnection, load: Load, days: Sequence[date], scope: Scope
) -> dict[date, ProfileReport]:
    found = {
        day: kept_snapshot(connection, day, scope, filters=load.filters, target=load.target)
        for day in days
    }
    return {day: report for day, report in found.items() if report}


def _check_days(days: Sequence[date], scope: Scope, target: Target) -> None:
    if not days or len(set(days)) < len(days):
        raise ValueError("Profiles need a day to be kept under, and each day once.")
    if scope == "all" and len(days) > 1:
        raise ValueError("A snapshot of all profiles is kept under one day.")
    if scope != "all" and target.schema == NAMED_SCHEMA:
        raise ValueError("A named table holds whole answers, not days.")


def _no_pages(days: Sequence[date], failed_pages: Mapping[int, str]) -> IncompleteExportError:
    reason = next(iter(failed_pages.values()), "")
    return IncompleteExportError(
        f"No page of the profiles for {days[0]}..{days[-1]} came. "
        f"{f'First reason: {reason} ' if reason else ''}Nothing was changed; run it again.",
        from_date=min(days),
        to_date=max(days),
        reason="no pages",
    )


def _status(come: int, told: _Told) -> Status:
    if told.is_partial:
        return "partial"
    return "complete" if come else "empty"
