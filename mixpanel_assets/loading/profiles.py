"""Snapshots of profiles: which profiles a day holds, pages onto disk, pages into a table."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Literal
from zoneinfo import ZoneInfo

import duckdb

from mixpanel_assets.client import (
    MAX_WORKERS,
    MixpanelAPIClient,
    PageOutcome,
    PagePlan,
    ProfileQuery,
    checked_workers,
)
from mixpanel_assets.client.spool import RESUMED_FOR, pages_in_use, remove_pages, require_room
from mixpanel_assets.errors import ConfigError, DatabaseNotFoundError, IncompleteExportError
from mixpanel_assets.loading.load import HoldsDatabase, Load, database_in
from mixpanel_assets.loading.results import FetchResult, ParallelProfileResult, ProfileProgress
from mixpanel_assets.rules.days import as_day
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    PROFILES,
    Database,
    PageFile,
    ProfileReport,
    ProjectIdentity,
    Scope,
    StagedProfiles,
    Target,
    check_before_load,
    check_name,
    free_table_name,
    is_partial,
    kept_snapshot,
    prepare,
    repeated,
    replace_profiles,
    stage_profiles,
    target_of,
)

logger = logging.getLogger(__name__)


ScopeChoice = Literal["auto", "all", "seen_on_day"]
OnPage = Callable[[PageOutcome, PagePlan], None]

PAGE_IS_GONE = "its file was deleted from the spool folder"


@dataclass(frozen=True)
class SnapshotRequest:
    """A snapshot to request, and the days that it fills.

    Attributes:
        days: In order; one day if the scope is `all`.
        scope: `all` profiles that the query finds, or those `seen_on_day`.
        query: What is sent.
        requested_on: The current day.
    """

    days: tuple[date, ...]
    scope: Scope
    query: ProfileQuery
    requested_on: date

    def can_be_repeated(self, today: date) -> bool:
        """Return whether a new snapshot would still belong to the same days."""
        # Mixpanel shows profiles as they are now, so a day that has ended cannot be taken again.
        return (
            self.scope == "seen_on_day"
            or self.days[0] != self.requested_on
            or today == self.requested_on
        )


@dataclass(frozen=True)
class Snapshot:
    """A snapshot whose pages are being downloaded, with the errors of failed pages."""

    request: SnapshotRequest
    plan: PagePlan
    failed: Mapping[int, str] = field(default_factory=dict)


def snapshot_requests(
    days: Iterable[date],
    today: date,
    query: ProfileQuery | None = None,
    scope: ScopeChoice = "auto",
    *,
    zone: str = "UTC",
) -> list[SnapshotRequest]:
    """Return the snapshots that fill the partitions of some days.

    Today gets all profiles, and one snapshot fills all days before it; `scope` says otherwise, for
    every day. The query narrows the profiles. `zone` is that of the days; `$last_seen` is UTC.

    Raises:
        ConfigError: A day has not begun.
    """
    days, query = sorted(days), query or ProfileQuery()
    if days and days[-1] > today:
        raise ConfigError(f"{days[-1]} has not begun, so it has no profiles; today is {today}.")
    older_days, snapshots = list[date](), list[SnapshotRequest]()
    for day in days:
        if scope == "all" or (scope == "auto" and day == today):
            snapshots.append(SnapshotRequest((day,), "all", query, today))
        else:
            older_days.append(day)
    if older_days:
        seen_query = _seen_between(query, older_days[0], older_days[-1], ZoneInfo(zone))
        snapshots.insert(0, SnapshotRequest(tuple(older_days), "seen_on_day", seen_query, today))
    return snapshots


def begin_snapshot(client: MixpanelAPIClient, request: SnapshotRequest, root: Path) -> Snapshot:
    """Return a snapshot that an earlier attempt left unfinished, or a new one with page 0 on disk.

    `root` holds a folder of pages for each snapshot.

    Raises:
        IncompleteExportError: Page 0 stayed incomplete. No folder is left.
    """
    name = f"profiles-{_snapshot_digest(client, request)}"
    if plan := _unfinished_snapshot(root, name):
        present = len(plan.present())
        logger.info("%s of %s pages are on disk from an earlier attempt", present, plan.num_pages)
        return Snapshot(request, plan)
    # Another process may begin the same snapshot at the same moment.
    directory = root / f"{name}-{uuid.uuid4().hex}"
    try:
        with pages_in_use(directory):  # a clean-up of another process must not delete it
            plan = client.plan_profiles(directory, request.query)
        # Page 0 is as large as the others, so the disk is checked before they are requested.
        require_room(root, plan.path(0).stat().st_size * plan.num_pages, "The profiles")
        return Snapshot(request, plan)
    except BaseException:
        remove_pages(directory)
        raise


def complete_snapshot(
    client: MixpanelAPIClient,
    snapshot: Snapshot,
    today: Callable[[], date],
    *,
    max_workers: int = MAX_WORKERS,
    on_page: OnPage | None = None,
) -> Snapshot:
    """Return the snapshot with its missing pages fetched; `failed` names those that failed.

    A snapshot, maybe of another process, is begun again, once, if its session has ended, if pages
    were deleted, or if its page 0 seems to have announced too much. `on_page` is called with each
    requested page, also page 0 of a second snapshot.

    Raises:
        IncompleteExportError: Its pages are gone, and its day has ended.
    """
    request, root, is_second = snapshot.request, snapshot.plan.directory.parent, False
    while True:
        failed, lost = fetch_missing(client, snapshot, max_workers=max_workers, on_page=on_page)
        snapshot = replace(snapshot, failed=failed)
        if not lost or is_second:
            return snapshot
        if not request.can_be_repeated(today()):
            if snapshot.plan.present():
                return snapshot
            raise _day_has_ended(request)
        logger.warning("The session of page 0 cannot be used any more: the snapshot begins again.")
        snapshot.plan.discard()
        snapshot, is_second = begin_snapshot(client, request, root), True
        if on_page:
            report_present_pages(snapshot, on_page)


def fetch_missing(
    client: MixpanelAPIClient,
    snapshot: Snapshot,
    pages: Iterable[int] | None = None,
    *,
    max_workers: int = MAX_WORKERS,
    on_page: OnPage | None = None,
) -> tuple[dict[int, str], bool]:
    """Fetch those of some pages (None: all pages) that are not on disk.

    Returns:
        The errors of failed pages, and whether the snapshot is lost: its session has ended, pages
        of it were deleted, or a second attempt at all pages contradicts page 0 again.
    """
    plan = snapshot.plan
    wanted_pages = set(range(plan.num_pages) if pages is None else pages)
    with plan.in_use() as has_page_0:
        missing_pages = wanted_pages.intersection(plan.missing())
        if not has_page_0:
            return dict.fromkeys(sorted(missing_pages), PAGE_IS_GONE), True
        is_second_attempt = pages is None and plan.is_tried_again()
        outcomes = client.fetch_profile_pages(
            snapshot.request.query,
            plan,
            sorted(missing_pages),
            max_workers=max_workers,
            on_page=on_page and (lambda outcome: on_page(outcome, plan)),
        )
        gone_pages = wanted_pages.intersection(plan.missing())
    failed_pages = {outcome.page: outcome.error for outcome in outcomes if outcome.error}
    gone_pages -= failed_pages.keys()
    is_session_lost = (
        bool(gone_pages)
        or any(outcome.session_ended for outcome in outcomes)
        # The first time the page may be wrong. The second time page 0 is: its `total` stays.
        or (is_second_attempt and any(outcome.unannounced for outcome in outcomes))
    )
    return failed_pages | dict.fromkeys(sorted(gone_pages), PAGE_IS_GONE), is_session_lost


@contextmanager
def in_use(snapshots: Iterable[Snapshot]) -> Iterator[None]:
    """Protect the pages of all snapshots from clean-ups until the block ends."""
    with ExitStack() as used:
        for snapshot in snapshots:
            used.enter_context(snapshot.plan.in_use())
        yield


def report_present_pages(snapshot: Snapshot, on_page: OnPage) -> None:
    """Call `on_page` with each page that is on disk already."""
    for page in snapshot.plan.present():
        on_page(PageOutcome(page, snapshot.plan.announced_rows(page)), snapshot.plan)


def _unfinished_snapshot(root: Path, name: str) -> PagePlan | None:
    """Return the newest recent plan of a request that no other process uses."""
    plans = (PagePlan.stored_in(directory) for directory in root.glob(f"{name}-*"))
    # Mixpanel ends sessions after some time; older pages could not be completed.
    oldest_session = datetime.now(UTC) - RESUMED_FOR
    young_plans = [plan for plan in plans if plan and plan.began_at >= oldest_session]
    plans_by_age = sorted(young_plans, key=lambda plan: plan.began_at, reverse=True)
    return next(filter(None, (plan.take_over() for plan in plans_by_age)), None)


def _snapshot_digest(client: MixpanelAPIClient, request: SnapshotRequest) -> str:
    """Return a name for a request to a project on a day."""
    parts = [client.budget.project, request.requested_on.isoformat(), request.query.form()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _seen_between(query: ProfileQuery, first: date, last: date, zone: ZoneInfo) -> ProfileQuery:
    begin, end = (
        datetime.combine(day, time(), zone).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        for day in (first, last + timedelta(days=1))
    )
    seen = f'properties["$last_seen"] >= "{begin}" and properties["$last_seen"] < "{end}"'
    return replace(query, where=f"({query.where}) and {seen}" if query.where else seen)


def _day_has_ended(request: SnapshotRequest) -> IncompleteExportError:
    day = request.days[0]
    return IncompleteExportError(
        f"The pages of the snapshot of {day} are gone, and the day has ended: Mixpanel shows "
        f"profiles as they are now. Nothing was stored. Materialize {day} in a new run to get the "
        "profiles last seen on it.",
        from_date=day,
        to_date=day,
        reason="the day has ended",
    )


ALL_PROFILES = Target(PROFILES.name)


def leave_out_kept_days(
    database: Database,
    project: ProjectIdentity,
    requests: Iterable[SnapshotRequest],
    *,
    target: Target = ALL_PROFILES,
    filters: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> tuple[list[SnapshotRequest], list[ProfileReport]]:
    """Leave out days whose full snapshot has to be kept, because it cannot be taken again.

    With `overwrite` none is left out. The database need not exist.

    Returns:
        The remaining requests, and what the days that were left out hold.

    Raises:
        ConfigError: The file holds another project.
        StorageError: No load could be stored there.
    """
    # Before requests are spent. The load checks again in its transaction, because another
    # process may store a snapshot in between.
    check_before_load(database, project)
    if overwrite:
        return list(requests), []
    requests_left, kept_days = list[SnapshotRequest](), list[ProfileReport]()
    try:
        with database.read() as connection:
            for request in requests:
                reports = {
                    day: kept_snapshot(
                        connection, day, request.scope, filters=filters, target=target
                    )
                    for day in request.days
                }
                kept_days += [report for report in reports.values() if report]
                if days := tuple(day for day, report in reports.items() if not report):
                    requests_left.append(replace(request, days=days))
    except DatabaseNotFoundError:
        return list(requests), []
    return requests_left, kept_days


@dataclass(kw_only=True)
class ProfileLoad(Load):
    """Snapshots of profiles that are downloaded and to be stored in a table.

    Attributes:
        snapshots: Their pages are on disk, but for failed ones.
        kept: Days that were left out, as `leave_out_kept_days` returned them.
        filters: Of the snapshots; None: all profiles.
        merge: Whether rows are merged in by `distinct_id` even if no page is missing.
        overwrite: Whether the full snapshot of a day that has ended may be replaced.
        on_day: Called with each day that is stored or kept, and the number of its pages.
        reports: Of the days so far.
    """

    snapshots: Sequence[Snapshot]
    kept: Sequence[ProfileReport] = ()
    project: ProjectIdentity
    target: Target = ALL_PROFILES
    filters: Mapping[str, Any] | None = None
    merge: bool = False
    overwrite: bool = False
    run_id: str | None = None
    on_day: Callable[[ProfileReport, int], None] = field(default=lambda report, pages: None)
    reports: list[ProfileReport] = field(default_factory=list)

    def store(self, database: Database) -> None:
        """Store each snapshot in a transaction of its own, and delete the pages of complete ones.

        A snapshot with failed pages is merged in, and its pages are kept for the next attempt.

        Raises:
            IncompleteExportError: A snapshot has no page; nothing of its days has changed.
        """
        for report in self.kept:
            self._report_day(report, 0)
        with in_use(self.snapshots):
            self._store_snapshots(database)

    def _store_snapshots(self, database: Database) -> None:
        for snapshot in self.snapshots:
            pages = snapshot.plan.num_pages
            with (
                database.staging() as memory,
                self.staged(memory, snapshot) as staged,
            ):
                reports = repeated(partial(self._write, database, memory, snapshot, staged))
            for report in reports:
                self._report_day(report, pages)
                pages = 0  # so that the pages of all days add up
            if not snapshot.failed:
                snapshot.plan.discard()

    def _write(
        self,
        database: Database,
        memory: duckdb.DuckDBPyConnection,
        snapshot: Snapshot,
        staged: StagedProfiles,
    ) -> list[ProfileReport]:
        with database.write(memory, run_id=self.run_id) as connection:
            prepare(connection, self.project)
            return self.store_in(connection, snapshot, staged)

    def staged(
        self, memory: duckdb.DuckDBPyConnection, snapshot: Snapshot
    ) -> AbstractContextManager[StagedProfiles]:
        """Stage the pages of a snapshot until the block ends."""
        request, plan = snapshot.request, snapshot.plan
        return stage_profiles(
            memory,
            [
                PageFile(plan.path(page), fetched_at)
                for page in range(plan.num_pages)
                if (fetched_at := plan.fetched_at(page))
            ],
            days=request.days,
            scope=request.scope,
            zone=self.project.day_zone,
        )

    def store_in(
        self, connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, staged: StagedProfiles
    ) -> list[ProfileReport]:
        """Store a staged snapshot in the caller's transaction and return a report per day."""
        plan = snapshot.plan
        gone_pages = {
            page: PAGE_IS_GONE for page in range(plan.num_pages) if not plan.fetched_at(page)
        }
        return replace_profiles(
            connection,
            staged,
            expected_total=plan.total,
            failed_pages=gone_pages | dict(snapshot.failed),
            merge=self.merge,
            overwrite=self.overwrite,
            run_id=self.run_id,
            filters=self.filters,
            target=self.target,
        )

    def _report_day(self, report: ProfileReport, pages: int) -> None:
        rows = f"{report.row_count:,}"
        if report.kept:
            logger.info("%s: the full snapshot of %s profiles is kept", report.snapshot_date, rows)
        else:
            logger.info("%s: %s profiles, %s", report.snapshot_date, rows, report.status)
        self.reports.append(report)
        self.on_day(report, pages)


def require_complete(reports: Iterable[ProfileReport]) -> None:
    """Raise `IncompleteExportError` if a day was stored in part."""
    if error := partial_days_error(reports):
        raise error


def partial_days_error(reports: Iterable[ProfileReport]) -> IncompleteExportError | None:
    """Return the error for days that were stored in part; None if all are complete."""
    partial = [report for report in reports if not report.kept and report.status == "partial"]
    if not partial:
        return None
    days = f"{partial[0].snapshot_date}"
    if len(partial) > 1:
        days += f" to {partial[-1].snapshot_date}"
    again = ": within the hour it requests only missing pages" if partial[0].failed_pages else ""
    return IncompleteExportError(
        f"Profiles of {days} are stored in part: {_missing_pages_text(partial[0])} What arrived "
        f"was merged in, and no stored row is lost. Run it again{again}.",
        from_date=partial[0].snapshot_date,
        to_date=partial[-1].snapshot_date,
        reason="missing pages" if partial[0].failed_pages else "fewer profiles than announced",
        partial=True,
    )


def _missing_pages_text(report: ProfileReport) -> str:
    """Return what a snapshot lacks, as a sentence."""
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


OnPageComplete = Callable[[ProfileProgress], None]


class ParallelProfileFetcherService:
    """Plans snapshots of profiles, fetches their pages in parallel and merges them into tables.

    Args:
        client: Sends the requests.
        database: Holds the tables; a `StorageEngine` will do.
        settings: Where pages are kept until they are stored, and what today is; None: the MP_*
            variables.

    Example:
        >>> fetcher = ParallelProfileFetcherService(ws.api, ws.storage.database, ws.settings)
        >>> result = fetcher.fetch_profiles("everybody", max_workers=5)
        >>> result.has_failures
        False
    """

    def __init__(
        self,
        client: MixpanelAPIClient,
        database: Database | HoldsDatabase,
        settings: Settings | None = None,
    ) -> None:
        database, settings = database_in(database, settings)
        self._client = client
        self._database = database
        self._settings = settings
        self._project = settings.project(client.credentials)
        self._pages_folder = settings.spool_path(client.credentials.project_id)

    def sync_profiles(
        self,
        day: date | str | None = None,
        *,
        scope: ScopeChoice = "auto",
        overwrite_full_snapshot: bool = False,
        max_workers: int | None = None,
        on_page_complete: OnPageComplete | None = None,
    ) -> ProfileReport:
        """Take a snapshot of profiles into `mixpanel.profiles`, exactly as the asset does.

        Args:
            day: Today (the default) takes all profiles. An older day takes those last seen on it,
                unless it holds a full snapshot, which is kept.
            scope: `all` or `seen_on_day` whatever the day.
            overwrite_full_snapshot: Also replace the full snapshot of a day that has ended.
            max_workers: Pages requested at once; 5 is the default and the most.
            on_page_complete: Called with each page that arrived or finally failed.

        Returns:
            A report: the day's row count, and whether these are all profiles.

        Raises:
            IncompleteExportError: Profiles are missing. With `partial`, those that arrived are
                merged in; otherwise nothing has changed. A second call within the hour requests
                only the missing pages.

        Example:
            >>> pages.sync_profiles().scope
            'all'
        """
        workers, today = checked_workers(max_workers), self._settings.today()
        snapshot_day = today if day is None else as_day(day)
        requests, kept = leave_out_kept_days(
            self._database,
            self._project,
            snapshot_requests([snapshot_day], today, scope=scope, zone=self._settings.export_zone),
            overwrite=overwrite_full_snapshot,
        )
        load = ProfileLoad(
            snapshots=[
                self._take_snapshot(request, workers, on_page_complete) for request in requests
            ],
            kept=kept,
            project=self._project,
            overwrite=overwrite_full_snapshot,
            run_id=uuid.uuid4().hex,
        )
        load.store(self._database)
        require_complete(load.reports)
        return load.reports[0]

    def fetch_profiles(
        self,
        name: str = PROFILES.name,
        *,
        query: ProfileQuery | None = None,
        append: bool = False,
        replace: bool = False,
        max_workers: int | None = None,
        on_page_complete: OnPageComplete | None = None,
    ) -> ParallelProfileResult:
        """Store the profiles of a query in a table.

        Without `query`, all profiles are stored. A table that an incomplete snapshot of the same
        query made is completed. Arguments and errors: see `FetcherService.fetch_profiles`.

        Returns:
            What was stored; the caller has to check `has_failures`.

        Example:
            >>> pages.fetch_profiles("everybody").missing_rows
            0
        """
        query = query or ProfileQuery()
        query.check()
        check_name(name, PROFILES)
        if append and replace:
            raise ConfigError("Give append or replace, not both.")
        if replace and name == PROFILES.name:
            raise ConfigError(
                "The table `profiles` is the asset's own and is never replaced. Choose another "
                "name, or take today's snapshot (`append=True`, `sync_profiles`, `mp sync`)."
            )
        if name == PROFILES.name and query.filters:
            raise ConfigError(
                "The table `profiles` holds all profiles. Choose another name for a part of them."
            )
        pages_at_once, fetch_began = checked_workers(max_workers), monotonic()
        check_before_load(self._database, self._project)
        if not append and not replace:
            with suppress(DatabaseNotFoundError), self._database.read() as connection:
                append = is_partial(connection, target_of(name, PROFILES), query.filters)
                if not append:
                    free_table_name(connection, name, replace=False)
        today = self._settings.today()
        [request] = snapshot_requests([today], today, query, "all")
        snapshot = self._take_snapshot(request, pages_at_once, on_page_complete)
        report = self._store_snapshot(name, snapshot, append=append, replace=replace)
        if not snapshot.failed:
            snapshot.plan.discard()
        return ParallelProfileResult(
            table=name,
            total_rows=report.received - report.duplicates_removed - report.quarantined,
            successful_pages=snapshot.plan.num_pages - len(snapshot.failed),
            failed_pages=len(snapshot.failed),
            failed_page_indices=tuple(sorted(snapshot.failed)),
            duration_seconds=round(monotonic() - fetch_began, 3),
            fetched_at=datetime.now(UTC),
            expected_total=snapshot.plan.total,
            missing_rows=report.missing_rows,
        )

    def _take_snapshot(
        self, request: SnapshotRequest, max_workers: int, on_page_complete: OnPageComplete | None
    ) -> Snapshot:
        report = _PageReports(on_page_complete)
        snapshot = begin_snapshot(self._client, request, self._pages_folder)
        report_present_pages(snapshot, report)
        return complete_snapshot(
            self._client, snapshot, self._settings.today, max_workers=max_workers, on_page=report
        )

    def _store_snapshot(
        self, name: str, snapshot: Snapshot, *, append: bool, replace: bool
    ) -> ProfileReport:
        load = ProfileLoad(
            snapshots=[snapshot],
            project=self._project,
            target=target_of(name, PROFILES),
            filters=snapshot.request.query.filters or None,
            merge=append and name != PROFILES.name,
            run_id=uuid.uuid4().hex,
        )
        with (
            snapshot.plan.in_use(),
            self._database.staging() as memory,
            load.staged(memory, snapshot) as staged,
            self._database.write(memory, run_id=load.run_id) as connection,
        ):
            prepare(connection, self._project)
            if not append and not replace:
                free_table_name(connection, name, replace=False)
            [report] = load.store_in(connection, snapshot, staged)
        return report


def require_all_pages(result: ParallelProfileResult) -> FetchResult:
    """Return a result as a `FetchResult`, which cannot express failures.

    Raises:
        IncompleteExportError: Pages or rows are missing; what arrived is stored.
    """
    if result.has_failures:
        hint = ": within the hour that requests only missing pages" if result.failed_pages else ""
        lost = ", ".join(map(str, result.failed_page_indices)) or "none"
        raise IncompleteExportError(
            f"Profiles are stored in part in {result.table!r}: {result.missing_rows:,} of "
            f"{result.expected_total:,} are missing (pages that could not be fetched: {lost}). "
            f"What arrived was merged in, and no stored row is lost. Fetch them again{hint}.",
            reason="missing pages" if result.failed_pages else "fewer profiles than announced",
            partial=True,
        )
    return FetchResult(
        table=result.table,
        rows=result.total_rows,
        type="profiles",
        duration_seconds=result.duration_seconds,
        date_range=None,
        fetched_at=result.fetched_at,
    )


class _PageReports:
    """Calls `on_page_complete` for each page, with the number of profiles on disk so far."""

    def __init__(self, on_page_complete: OnPageComplete | None) -> None:
        self._on_page_complete = on_page_complete
        self._directory: Path | None = None
        self._rows = 0

    def __call__(self, outcome: PageOutcome, plan: PagePlan) -> None:
        if plan.directory != self._directory:  # the snapshot has begun again
            self._directory, self._rows = plan.directory, 0
        self._rows += outcome.rows
        if self._on_page_complete:
            self._on_page_complete(
                ProfileProgress(
                    page_index=outcome.page,
                    total_pages=plan.num_pages,
                    rows=outcome.rows,
                    success=outcome.error is None,
                    error=outcome.error,
                    cumulative_rows=self._rows,
                )
            )
