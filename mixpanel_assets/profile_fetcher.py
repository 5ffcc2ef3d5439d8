"""ParallelProfileFetcherService: snapshots of profiles into tables, without Dagster.

It plans and merges with the same functions as the asset, and answers with the same reports.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from time import monotonic

from mixpanel_assets.client import (
    MixpanelAPIClient,
    PageOutcome,
    PagePlan,
    ProfileQuery,
    checked_workers,
)
from mixpanel_assets.errors import ConfigError, DatabaseNotFoundError, IncompleteExportError
from mixpanel_assets.fetch_results import FetchResult, ParallelProfileResult, ProfileProgress
from mixpanel_assets.loads import HoldsDatabase, database_in, project_identity
from mixpanel_assets.profile_loads import ProfileLoad, require_complete, without_kept_days
from mixpanel_assets.rules.days import as_day
from mixpanel_assets.settings import Settings
from mixpanel_assets.snapshots import (
    Question,
    ScopeChoice,
    Snapshot,
    begin,
    completed,
    questions_for,
    tell_present,
)
from mixpanel_assets.warehouse import (
    PROFILES,
    Database,
    ProfileReport,
    check_before_load,
    check_name,
    is_partial,
    make_way,
    prepare,
    target_of,
)

OnPageComplete = Callable[[ProfileProgress], None]


class ParallelProfileFetcherService:
    """Plans snapshots of profiles, fetches their pages in parallel and merges them into tables.

    Args:
        client: Who is asked.
        database: Where the rows go, or a `StorageEngine`.
        settings: Where pages lie until they are stored, and what today is; None: the MP_*
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
        self._project = project_identity(client.credentials, settings)
        self._root = settings.spool_path(client.credentials.project_id)

    def sync(
        self,
        day: date | str | None = None,
        *,
        scope: ScopeChoice = "auto",
        overwrite_full_snapshot: bool = False,
        max_workers: int | None = None,
        on_page_complete: OnPageComplete | None = None,
    ) -> ProfileReport:
        """Store a day's profiles in `mixpanel.profiles`; see `Workspace.sync_profiles`.

        Args:
            day: Today (the default) takes all profiles; an older day those last seen on it.
            scope: `all` or `seen_on_day` whatever the day.
            overwrite_full_snapshot: Also replace the full snapshot of a day that is over.
            max_workers: Pages asked for at once; 5 is the default and the most.
            on_page_complete: Told of each page once it is settled.

        Returns:
            A report: how many rows the day has, and whether they are everybody.

        Raises:
            IncompleteExportError: Profiles are missing; `partial` if those that came are merged in.

        Example:
            >>> pages.sync().scope
            'all'
        """
        workers, today = checked_workers(max_workers), self._settings.today()
        wanted = today if day is None else as_day(day)
        asked, kept = without_kept_days(
            self._database,
            self._project,
            questions_for([wanted], today, scope=scope, zone=self._settings.export_zone),
            overwrite=overwrite_full_snapshot,
        )
        load = ProfileLoad(
            snapshots=[self._taken(question, workers, on_page_complete) for question in asked],
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
        """Store the profiles that a query finds in a table; see `Workspace.fetch_profiles`.

        A table of which the same question brought only a part is completed.

        Args:
            name: Letters, digits and underscores.
            query: Which profiles; None: all.
            append: Merge into a table of that name by `distinct_id`.
            replace: Put it in the place of a table of that name.
            max_workers: How many pages at once; 5 is the default and the most.
            on_page_complete: Told of each page once it is settled.

        Returns:
            What was stored; `has_failures` is to be looked at.

        Raises:
            ConfigError: Arguments contradict each other, or want of `profiles` what it never is.
            TableExistsError: There is such a table, and neither `append` nor `replace` was given.
            IncompleteExportError: No page came; nothing was changed.

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
                "The table `profiles` holds everybody. Choose another name for a part of them."
            )
        workers, started = checked_workers(max_workers), monotonic()
        check_before_load(self._database, self._project)
        if not append and not replace:
            with suppress(DatabaseNotFoundError), self._database.read() as connection:
                append = is_partial(connection, target_of(name, PROFILES), query.filters)
                if not append:
                    make_way(connection, name, replace=False)
        today = self._settings.today()
        [question] = questions_for([today], today, query, "all")
        snapshot = self._taken(question, workers, on_page_complete)
        report = self._stored(name, snapshot, append=append, replace=replace)
        if not snapshot.failed:
            snapshot.plan.discard()
        return ParallelProfileResult(
            table=name,
            total_rows=report.received - report.duplicates_removed - report.quarantined,
            successful_pages=snapshot.plan.num_pages - len(snapshot.failed),
            failed_pages=len(snapshot.failed),
            failed_page_indices=tuple(sorted(snapshot.failed)),
            duration_seconds=round(monotonic() - started, 3),
            fetched_at=datetime.now(UTC),
            expected_total=snapshot.plan.total,
            missing_rows=report.missing_rows,
        )

    def _taken(
        self, question: Question, max_workers: int, on_page_complete: OnPageComplete | None
    ) -> Snapshot:
        told = _Pages(on_page_complete)
        snapshot = begin(self._client, question, self._root)
        tell_present(snapshot, told)
        return completed(
            self._client, snapshot, self._settings.today, max_workers=max_workers, on_page=told
        )

    def _stored(
        self, name: str, snapshot: Snapshot, *, append: bool, replace: bool
    ) -> ProfileReport:
        load = ProfileLoad(
            snapshots=[snapshot],
            project=self._project,
            target=target_of(name, PROFILES),
            filters=snapshot.question.query.filters or None,
            merge=append and name != PROFILES.name,
            run_id=uuid.uuid4().hex,
        )
        with snapshot.plan.in_use(), self._database.write() as connection:
            prepare(connection, self._project)
            if not append and not replace:
                make_way(connection, name, replace=False)
            [report] = load.replaced(connection, snapshot)
        return report


def whole(result: ParallelProfileResult) -> FetchResult:
    """Return a result as a `FetchResult`, which has no room for failures.

    Raises:
        IncompleteExportError: Pages or rows are missing; what came is stored.
    """
    if result.has_failures:
        lost = ", ".join(map(str, result.failed_page_indices)) or "none"
        raise IncompleteExportError(
            f"Profiles are stored in part in {result.table!r}: {result.missing_rows:,} of "
            f"{result.expected_total:,} are missing (pages that could not be fetched: {lost}). "
            "What came was merged into what was there. Fetch them again"
            f"{': within the hour that asks only for lost pages' if result.failed_pages else ''}.",
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


class _Pages:
    """Tells of each page once it is settled, and adds up what is on disk."""

    def __init__(self, on_page_complete: OnPageComplete | None) -> None:
        self._tell = on_page_complete
        self._directory: Path | None = None
        self._rows = 0

    def __call__(self, outcome: PageOutcome, plan: PagePlan) -> None:
        if plan.directory != self._directory:  # begun anew
            self._directory, self._rows = plan.directory, 0
        self._rows += outcome.rows
        if self._tell:
            self._tell(
                ProfileProgress(
                    page_index=outcome.page,
                    total_pages=plan.num_pages,
                    rows=outcome.rows,
                    success=outcome.error is None,
                    error=outcome.error,
                    cumulative_rows=self._rows,
                )
            )
