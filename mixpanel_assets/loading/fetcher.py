"""FetcherService: events and profiles into tables, or as streams, without Dagster."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from mixpanel_assets.client import (
    STREAMED_DAYS,
    MixpanelAPIClient,
    ProfileQuery,
    RecordStream,
    checked_exports,
)
from mixpanel_assets.errors import DatabaseNotFoundError, IncompleteExportError
from mixpanel_assets.loading.event_tables import (
    EventTableFetch,
    FetchRequest,
    OnBatchComplete,
    checked_request,
)
from mixpanel_assets.loading.events import DayReports, EventLoad
from mixpanel_assets.loading.load import HoldsDatabase, database_in
from mixpanel_assets.loading.plan import MAX_DAYS
from mixpanel_assets.loading.profiles import OnPageComplete, ParallelProfileFetcherService, whole
from mixpanel_assets.loading.results import (
    BatchProgress,
    FetchResult,
    ParallelFetchResult,
    ParallelProfileResult,
)
from mixpanel_assets.rules.days import days_between, ranges_of
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    EVENTS,
    PROFILES,
    SCHEMA,
    Database,
    DayReport,
    Status,
    asked,
    check_before_load,
    find_table,
    make_way,
    qualified,
)

if TYPE_CHECKING:
    import pandas as pd

R = TypeVar("R")

_GONE: Mapping[Status, str] = {
    "not available": "the project's plan does not reach that far back",
    "expired": "the day lies further back than MP_RETENTION_DAYS",
}


class FetcherService:
    """Fetches what Mixpanel holds into tables of a database, or yields it record by record.

    Args:
        client: Who is asked.
        database: Where the tables are, or a `StorageEngine`.
        settings: How times are read, where answers lie until they are stored; None: the MP_*
            variables.

    Example:
        >>> fetcher = FetcherService(client, database, settings)
        >>> fetcher.fetch_events("signups", from_date="2024-01-01", to_date="2024-01-31",
        ...                      events=["Sign Up"]).rows
        31
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
        self._profiles = ParallelProfileFetcherService(client, database, settings)

    def fetch_events(
        self,
        name: str = EVENTS.name,
        *,
        from_date: date | str,
        to_date: date | str,
        events: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        append: bool = False,
        replace: bool = False,
        batch_size: int = 1000,
        parallel: bool = False,
        max_workers: int | None = None,
        on_batch_complete: OnBatchComplete | None = None,
        chunk_days: int | None = STREAMED_DAYS,
    ) -> FetchResult | ParallelFetchResult:
        """Store the events of some days in a table; days without events make an empty one.

        The table lies in schema `main` and has the columns `event_name`, `event_time`,
        `distinct_id`, `insert_id` and `properties`. No event is in it twice, whatever is
        appended in whatever order: of an event that is there and comes again, the copy that
        Mixpanel processed last stays.

        Sequentially, everything is stored or nothing. In parallel, each request is stored as it
        comes, days that stay broken are left out and named in the result, and what is stored
        stays, also if the fetch breaks off. With `replace`, the old table stays until
        everything has come; if days are missing then, those that came are added to it instead,
        so that nothing stored is lost.

        Under the name `events` it is the asset's own table, filled day by day as the asset
        does, also sequentially: whole days only, into an empty table or with `append`.

        Args:
            name: Letters, digits and underscores.
            from_date: First day, included; a date, or text like 2024-01-31.
            to_date: Last day, included.
            events: Only events of these names.
            where: A segmentation expression.
            limit: At most so many events, 1 to 100,000; which ones is undefined. The ledger
                calls days that it cuts `partial`. Not in parallel.
            append: Add to a table of that name.
            replace: Put it in the place of a table of that name.
            batch_size: How many events arrive between two calls of `on_batch_complete`, 100 to
                100,000; in parallel a call tells of a whole request, of `events` of a day.
            parallel: Have several requests on their way at once.
            max_workers: How many; 10 is the default, 100 the most.
            on_batch_complete: Told how far the fetch is.
            chunk_days: The most days that share a request, 1 to 100; fewer share one if they
                weigh much by what `events` holds of them. None is 7.

        Returns:
            A `ParallelFetchResult` if `parallel`, whose `has_failures` is to be looked at;
            otherwise a `FetchResult`.

        Raises:
            ConfigError: An argument is wrong, the table holds something else, or `events` holds
                days and is to be replaced.
            TableExistsError: There is a table of that name, and neither `append` nor `replace`.
            IncompleteExportError: Sequentially: days stayed broken; nothing was changed. Of
                `events`, the other days are stored then (`partial`).
            StorageError: The disk has no room for an answer; it was not asked for.

        Example:
            >>> fetcher.fetch_events("one", from_date=day, to_date=day).date_range
            ('2024-01-01', '2024-01-01')
        """
        request = checked_request(
            name,
            from_date=from_date,
            to_date=to_date,
            events=events,
            where=where,
            limit=limit,
            append=append,
            replace=replace,
            chunk_days=chunk_days,
            batch_size=batch_size,
            parallel=parallel,
        )
        workers = checked_exports(max_workers)
        tell = on_batch_complete or _nobody
        if request.is_asset:
            return self._readable(self._sync(request, workers if parallel else None, tell))
        started = time.monotonic()
        fetch = EventTableFetch(self._client, self._database, self._settings, request, tell)
        if not parallel:
            fetch.store_whole()
            return self._readable(_sequential_result(request, fetch.rows, started))
        fetch.store_in_pieces(workers)
        return _parallel_result(
            request,
            fetch.rows,
            started,
            successful=sum(batch.success for batch in fetch.batches),
            failed=sum(not batch.success for batch in fetch.batches),
            failed_days=fetch.failed,
        )

    def fetch_profiles(
        self,
        name: str = PROFILES.name,
        *,
        query: ProfileQuery | None = None,
        append: bool = False,
        replace: bool = False,
        parallel: bool = False,
        max_workers: int | None = None,
        on_page_complete: OnPageComplete | None = None,
    ) -> FetchResult | ParallelProfileResult:
        """Store the profiles that a query finds in a table; see `Workspace.fetch_profiles`.

        Args:
            name: Letters, digits and underscores.
            query: Which profiles; None: all.
            append: Merge into a table of that name by `distinct_id`.
            replace: Put it in the place of a table of that name.
            parallel: Ask for several pages at once, and tell of lost pages in the result.
            max_workers: How many pages at once; 5 is the default and the most.
            on_page_complete: Told of each page once it is settled.

        Returns:
            A `ParallelProfileResult` if `parallel`; otherwise a `FetchResult`.

        Raises:
            ConfigError: Arguments contradict each other, or want of `profiles` what it never is.
            TableExistsError: There is such a table, and neither `append` nor `replace` was given.
            IncompleteExportError: No page came; nothing was changed. Without `parallel` also
                when some pages came, which are stored then (`partial`).

        Example:
            >>> fetcher.fetch_profiles("paying", query=ProfileQuery(cohort_id="1000")).type
            'profiles'
        """
        result = self._profiles.fetch_profiles(
            name,
            query=query,
            append=append,
            replace=replace,
            max_workers=max_workers if parallel else 1,
            on_page_complete=on_page_complete,
        )
        return result if parallel else self._readable(whole(result))

    def stream_events(
        self,
        *,
        from_date: date | str,
        to_date: date | str,
        events: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        raw: bool = False,
        staged: bool = False,
    ) -> RecordStream[dict[str, Any]]:
        """Return the events of the days, one at a time; see `Workspace.stream_events`.

        Args:
            from_date: First day, included; a date, or text like 2024-01-31.
            to_date: Last day, included.
            events: Only events of these names.
            where: A segmentation expression.
            limit: At most so many events, 1 to 100,000; which ones is undefined.
            raw: Events exactly as Mixpanel sends them.
            staged: Put each answer on disk and check it before its first line is out.

        Example:
            >>> for event in fetcher.stream_events(from_date="2024-01-01", to_date="2024-01-01"):
            ...     event["event_name"]
        """
        return self._client.stream_events(
            from_date=from_date,
            to_date=to_date,
            events=events,
            where=where,
            limit=limit,
            raw=raw,
            staged=staged,
            days_per_request=self._settings.days_per_request or STREAMED_DAYS,
            local_zone=self._settings.local_zone,
            spool_directory=self._settings.spool_path(self._client.credentials.project_id),
        )

    def stream_profiles(
        self, query: ProfileQuery | None = None, *, raw: bool = False
    ) -> RecordStream[dict[str, Any]]:
        """Return profiles one at a time; see `Workspace.stream_profiles`.

        Args:
            query: Which ones; None: all.
            raw: Profiles exactly as Mixpanel sends them.

        Example:
            >>> for profile in fetcher.stream_profiles():
            ...     profile["distinct_id"]
        """
        return self._client.stream_profiles(query, raw=raw)

    def _readable(self, result: R) -> R:
        """Return a result that can read its table, if it is one that does."""
        if isinstance(result, FetchResult):
            return replace(result, _read=partial(_rows_of, self._database, result))
        return result

    def _sync(
        self, request: FetchRequest, workers: int | None, tell: OnBatchComplete
    ) -> FetchResult | ParallelFetchResult:
        """Fill days of the asset's own table; `workers` is None for a sequential fetch."""
        if not request.append:
            self._require_empty(request)
        started = time.monotonic()
        days = days_between(request.query.from_date, request.query.to_date)
        stored = _FetchedDays(days, tell)
        load = EventLoad(
            self._client,
            self._settings,
            from_date=request.query.from_date,
            to_date=request.query.to_date,
            max_days=min(request.chunk_days, MAX_DAYS),
            at_once=workers or 1,
            listener=stored,
        )
        try:
            load.store(self._database)
        except IncompleteExportError:
            if workers is None:
                raise
        available = {
            day: report.row_count
            for day, report in stored.by_day.items()
            if report.status not in _GONE
        }
        failed = [day for day in days if day not in available]
        rows = sum(available.values())
        if workers is None:
            return _sequential_result(request, rows, started)
        return _parallel_result(
            request,
            rows,
            started,
            successful=len(available),
            failed=len(failed),
            failed_days=failed,
        )

    def _require_empty(self, request: FetchRequest) -> None:
        project = self._settings.project(self._client.credentials)
        check_before_load(self._database, project)
        try:
            with self._database.read() as connection:
                make_way(connection, request.name, replace=request.replace)
        except DatabaseNotFoundError:
            pass


def _rows_of(database: Database, result: FetchResult) -> pd.DataFrame:
    """Return the rows of a table; of an asset's, those of the days that were fetched."""
    with database.read() as connection, asked():
        target = find_table(connection, result.table)
        query, days = f"FROM {qualified(target.schema, target.table)}", list[str]()
        if target.schema == SCHEMA and result.date_range:
            query, days = f"{query} WHERE event_date BETWEEN ? AND ?", [*result.date_range]
        elif target.schema == SCHEMA:
            query += f" WHERE snapshot_date = (SELECT max(snapshot_date) {query})"
        return connection.execute(query, days).df()


def _nobody(progress: BatchProgress) -> None:
    pass


class _FetchedDays(DayReports):
    """The days of a fetch that are stored, those that were stored before included."""

    def __init__(self, days: Sequence[date], on_batch_complete: OnBatchComplete) -> None:
        super().__init__(on_day=self._report)
        self._days = days
        self._on_batch_complete = on_batch_complete

    def days_kept(self, reports: Sequence[DayReport]) -> None:
        for report in reports:
            self.day_stored(report, 0.0)

    def _report(self, report: DayReport) -> None:
        gone = _GONE.get(report.status)
        self._on_batch_complete(
            BatchProgress(
                from_date=report.day.isoformat(),
                to_date=report.day.isoformat(),
                batch_index=len(self.by_day) - 1,
                total_batches=len(self._days),
                rows=0 if gone else report.row_count,
                success=gone is None,
                error=gone,
            )
        )


def _sequential_result(request: FetchRequest, rows: int, started: float) -> FetchResult:
    return FetchResult(
        table=request.name,
        rows=rows,
        type="events",
        duration_seconds=round(time.monotonic() - started, 3),
        date_range=request.date_range,
        fetched_at=datetime.now(UTC),
    )


def _parallel_result(
    request: FetchRequest,
    rows: int,
    started: float,
    *,
    successful: int,
    failed: int,
    failed_days: Iterable[date],
) -> ParallelFetchResult:
    return ParallelFetchResult(
        table=request.name,
        total_rows=rows,
        successful_batches=successful,
        failed_batches=failed,
        failed_date_ranges=tuple(
            (first.isoformat(), last.isoformat()) for first, last in ranges_of(failed_days)
        ),
        duration_seconds=round(time.monotonic() - started, 3),
        fetched_at=datetime.now(UTC),
    )
