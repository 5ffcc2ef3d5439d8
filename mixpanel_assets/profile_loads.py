"""ProfileLoad: snapshots of profiles, their pages on disk, that store themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb

from mixpanel_assets.errors import DatabaseNotFoundError, IncompleteExportError
from mixpanel_assets.loads import Load
from mixpanel_assets.snapshots import PAGE_IS_GONE, Question, Snapshot, in_use
from mixpanel_assets.warehouse import (
    PROFILES,
    Database,
    ProfilePage,
    ProfileReport,
    ProjectIdentity,
    Target,
    check_before_load,
    kept_snapshot,
    prepare,
    replace_profiles,
)

logger = logging.getLogger(__name__)

EVERYBODY = Target(PROFILES.name)


def without_kept_days(
    database: Database,
    project: ProjectIdentity,
    questions: Iterable[Question],
    *,
    target: Target = EVERYBODY,
    filters: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> tuple[list[Question], list[ProfileReport]]:
    """Leave out days whose full snapshot must stay, because it cannot be taken again.

    To be asked before requests are spent; a load looks again when it stores.

    Args:
        database: May not exist yet.
        project: Whose profiles they are.
        questions: What is to be asked.
        target: The table.
        filters: What narrows the question; None for everybody.
        overwrite: Leave none out.

    Returns:
        What is left to ask, and what the days left out hold.

    Raises:
        ConfigError: The file holds another project.
        StorageError: No load could be stored there.
    """
    check_before_load(database, project)
    if overwrite:
        return list(questions), []
    left, kept = list[Question](), list[ProfileReport]()
    try:
        with database.read() as connection:
            for question in questions:
                found = {
                    day: kept_snapshot(
                        connection, day, question.scope, filters=filters, target=target
                    )
                    for day in question.days
                }
                kept += [report for report in found.values() if report]
                if days := tuple(day for day, report in found.items() if not report):
                    left.append(replace(question, days=days))
    except DatabaseNotFoundError:
        return list(questions), []
    return left, kept


@dataclass(kw_only=True)
class ProfileLoad(Load):
    """Snapshots of profiles on their way into a table.

    Attributes:
        snapshots: With the pages that could be had on disk.
        kept: Days that were left alone, as `kept_days` returned them.
        project: Whose profiles they are.
        target: The table.
        filters: What narrowed the snapshots; None for everybody.
        merge: Whether rows are merged in by `distinct_id` even when every page is there.
        overwrite: Whether the full snapshot of a day that is over may be replaced.
        run_id: Written to the ledger.
        on_day: Told of each day once it is settled, and on how many pages it came.
        reports: The days that are settled so far.
    """

    snapshots: Sequence[Snapshot]
    kept: Sequence[ProfileReport] = ()
    project: ProjectIdentity
    target: Target = EVERYBODY
    filters: Mapping[str, Any] | None = None
    merge: bool = False
    overwrite: bool = False
    run_id: str | None = None
    on_day: Callable[[ProfileReport, int], None] = field(default=lambda report, pages: None)
    reports: list[ProfileReport] = field(default_factory=list)

    def store(self, database: Database) -> None:
        """Store each snapshot in a transaction of its own; whole ones delete their pages.

        A snapshot with failed pages is merged in, and its pages stay for the next try.

        Raises:
            IncompleteExportError: No page of a snapshot came; nothing of its days has changed.
        """
        for report in self.kept:
            self._settled(report, 0)
        with in_use(self.snapshots):
            self._store_snapshots(database)

    def _store_snapshots(self, database: Database) -> None:
        for snapshot in self.snapshots:
            pages = snapshot.plan.num_pages
            reports = self._stored(database, snapshot)
            for report in reports:
                self._settled(report, pages)
                pages = 0  # so that the pages of all days add up
            if not snapshot.failed:
                snapshot.plan.discard()

    def _stored(self, database: Database, snapshot: Snapshot) -> list[ProfileReport]:
        with database.write() as connection:
            prepare(connection, self.project)
            return self.replaced(connection, snapshot)

    def replaced(
        self, connection: duckdb.DuckDBPyConnection, snapshot: Snapshot
    ) -> list[ProfileReport]:
        """Store one snapshot in the caller's transaction and return a report per day."""
        question, plan = snapshot.question, snapshot.plan
        pages = {page: at for page in range(plan.num_pages) if (at := plan.fetched_at(page))}
        gone = {page: PAGE_IS_GONE for page in range(plan.num_pages) if page not in pages}
        return replace_profiles(
            connection,
            [ProfilePage(plan.path(page), fetched_at) for page, fetched_at in pages.items()],
            days=question.days,
            project=self.project,
            scope=question.scope,
            expected_total=plan.total,
            failed_pages=gone | dict(snapshot.failed),
            merge=self.merge,
            overwrite=self.overwrite,
            run_id=self.run_id,
            filters=self.filters,
            target=self.target,
        )

    def _settled(self, report: ProfileReport, pages: int) -> None:
        rows = f"{report.row_count:,}"
        if report.kept:
            logger.info("%s: the full snapshot of %s profiles is kept", report.snapshot_date, rows)
        else:
            logger.info("%s: %s profiles, %s", report.snapshot_date, rows, report.status)
        self.reports.append(report)
        self.on_day(report, pages)


def require_complete(reports: Iterable[ProfileReport]) -> None:
    """Raise `IncompleteExportError` if a day was stored in part."""
    if error := incomplete(reports):
        raise error


def incomplete(reports: Iterable[ProfileReport]) -> IncompleteExportError | None:
    """Return what to raise about days that were stored in part; None if all are whole."""
    partial = [report for report in reports if not report.kept and report.status == "partial"]
    if not partial:
        return None
    days = f"{partial[0].snapshot_date}"
    if len(partial) > 1:
        days += f" to {partial[-1].snapshot_date}"
    again = ": within the hour it asks only for lost pages" if partial[0].failed_pages else ""
    return IncompleteExportError(
        f"Profiles of {days} are stored in part: {_what_is_missing(partial[0])} What came was "
        f"merged in, and nothing that was stored before is lost. Run it again{again}.",
        from_date=partial[0].snapshot_date,
        to_date=partial[-1].snapshot_date,
        reason="missing pages" if partial[0].failed_pages else "fewer profiles than announced",
        partial=True,
    )


def _what_is_missing(report: ProfileReport) -> str:
    """Return, in a sentence, what a snapshot lacks."""
    if not report.failed_pages:
        return (
            f"its pages hold {report.missing_rows:,} different profiles fewer than the "
            f"{report.expected_total:,} that were announced."
        )
    count, first = len(report.failed_pages), min(report.failed_pages)
    pages = ", ".join(str(page) for page in sorted(report.failed_pages))
    return (
        f"{count} page{'s' if count > 1 else ''} could not be fetched: {pages}. "
        f"First reason: {report.failed_pages[first].rstrip('.')}."
    )
