"""FetcherService: events and profiles into tables, or record by record, without Dagster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixpanel_assets.client import (
    STREAMED_DAYS,
    MixpanelAPIClient,
    ProfileQuery,
    RecordStream,
    checked_events,
    checked_exports,
)
from mixpanel_assets.client.discovery import DiscoveryService
from mixpanel_assets.errors import DatabaseNotFoundError, IncompleteExportError
from mixpanel_assets.loading.event_tables import (
    EventTableFetch,
    FetchRequest,
    OnBatchComplete,
    check_batch_size,
)
from mixpanel_assets.loading.events import DayReports, EventLoad
from mixpanel_assets.loading.load import HoldsDatabase, database_in
from mixpanel_assets.loading.plan import MAX_DAYS
from mixpanel_assets.loading.profiles import (
    OnPageComplete,
    ParallelProfileFetcherService,
    require_all_pages,
)
from mixpanel_assets.loading.results import (
    BatchProgress,
    FetchResult,
    ParallelFetchResult,
    ParallelProfileResult,
    batch_bar,
    page_bar,
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
    check_before_load,
    find_table,
    free_table_name,
    qualified,
    user_sql,
)

if TYPE_CHECKING:
    import pandas as pd

_NOT_FETCHED: Mapping[Status, str] = {
    "not available": "the project's plan does not reach that far back",
    "expired": "the day lies further back than MP_RETENTION_DAYS",
}


@dataclass(frozen=True)
class _FetchedEvents:
    """What a fetch of events has stored, and what failed."""

    rows: int
    successful: int
    failed: int
    failed_days: Sequence[date]


class FetcherService:
    """Fetches what Mixpanel holds into tables of a database, or yields it record by record.

    Args:
        client: Sends the requests.
        database: Holds the tables; a `StorageEngine` will do.
        settings: How times are read, and where responses are kept until they are stored; None: the
            MP_* variables.
        discovery: Knows the project's events: if given, a fetch that finds none of the events it
            was called with warns of names that the project does not have.

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
        *,
        discovery: DiscoveryService | None = None,
    ) -> None:
        database, settings = database_in(database, settings)
        self._client = client
        self._database = database
        self._settings = settings
        self._discovery = discovery
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
        progress: bool = True,
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
        `distinct_id`, `insert_id` and `properties`. It holds no event twice, whatever is appended
        in whatever order: if an event is received again, the copy that Mixpanel processed last is
        kept.

        Sequentially, everything is stored or nothing. In parallel, each request is stored as it
        arrives. Days that stay incomplete are left out and named in the result, and what is stored
        is kept even if the fetch fails. With `replace`, the old table is kept until everything has
        arrived; if days are missing then, the others are added to it instead, so that nothing
        stored is lost.

        Under the name `events` it is the asset's own table, filled day by day as the asset does,
        also sequentially: complete days only, into an empty table or with `append`.

        Args:
            name: Letters, digits and underscores.
            from_date: First day, included; a date, or text like 2024-01-31.
            to_date: Last day, included.
            events: Only events of these names.
            where: A segmentation expression.
            limit: The most events, 1 to 100,000; which ones is undefined, and the ledger calls the
                days that it cuts `partial`. Not in parallel.
            progress: Draw a bar on a terminal, unless `on_batch_complete` is given.
            append: Add to a table of that name.
            replace: Put it in the place of a table of that name.
            batch_size: The number of events that arrive between two calls of `on_batch_complete`,
                100 to 100,000. In parallel, each call reports a request; of `events`, a day.
            parallel: Send several requests at once.
            max_workers: The number of requests at once; 10 is the default, 100 the most.
            on_batch_complete: Called with how far the fetch is.
            chunk_days: The most days that share a request, 1 to 100; None is 7. Fewer days share
                one if `events` holds them and they are large.

        Returns:
            A `ParallelFetchResult` if `parallel`, whose `has_failures` the caller has to check;
            otherwise a `FetchResult`.

        Raises:
            ConfigError: An argument is wrong, the table holds something else, or `events` holds
                days and is to be replaced.
            TableExistsError: There is a table of that name, and neither `append` nor `replace`.
            IncompleteExportError: Sequentially: days stayed incomplete; nothing was changed. Of
                `events`, the other days are stored then (`partial`).
            StorageError: The disk has no room for a response, which was not requested.

        Example:
            >>> fetcher.fetch_events("one", from_date=day, to_date=day).date_range
            ('2024-01-01', '2024-01-01')
        """
        request = FetchRequest(
            name=name,
            query=checked_events(from_date, to_date, events, where, limit, time_in_ms=True),
            append=append,
            replace=replace,
            parallel=parallel,
            chunk_days=STREAMED_DAYS if chunk_days is None else chunk_days,
            batch_size=batch_size,
        )
        # Also checked for a sequential fetch, which does not use the number.
        requests_at_once = checked_exports(max_workers)
        fetch_began = time.monotonic()
        with ExitStack() as progress_bars:
            if progress and on_batch_complete is None:
                on_batch_complete = progress_bars.enter_context(batch_bar())
            on_batch = on_batch_complete or (lambda batch: None)
            fetch_into = (
                self._fetch_into_asset_table if request.is_asset else self._fetch_into_named_table
            )
            fetched = fetch_into(request, requests_at_once if parallel else None, on_batch)
        seconds, fetched_at = round(time.monotonic() - fetch_began, 3), datetime.now(UTC)
        # After the clock was read: this request can wait long for the budget of queries.
        if events and not fetched.rows and self._discovery:
            self._discovery.tell_of_unknown(events)
        if parallel:
            return ParallelFetchResult(
                table=name,
                total_rows=fetched.rows,
                successful_batches=fetched.successful,
                failed_batches=fetched.failed,
                failed_date_ranges=tuple(
                    (first.isoformat(), last.isoformat())
                    for first, last in ranges_of(fetched.failed_days)
                ),
                duration_seconds=seconds,
                fetched_at=fetched_at,
            )
        return self._with_rows(
            FetchResult(
                table=name,
                rows=fetched.rows,
                type="events",
                duration_seconds=seconds,
                date_range=request.date_range,
                fetched_at=fetched_at,
            )
        )

    def fetch_profiles(
        self,
        name: str = PROFILES.name,
        *,
        where: str | None = None,
        cohort_id: str | None = None,
        output_properties: Sequence[str] | None = None,
        progress: bool = True,
        append: bool = False,
        replace: bool = False,
        batch_size: int = 1000,
        distinct_id: str | None = None,
        distinct_ids: Sequence[str] | None = None,
        group_id: str | None = None,
        behaviors: Sequence[Mapping[str, Any]] | None = None,
        as_of_timestamp: int | None = None,
        include_all_users: bool = False,
        parallel: bool = False,
        max_workers: int | None = None,
        on_page_complete: OnPageComplete | None = None,
        on_batch_complete: OnPageComplete | None = None,
    ) -> FetchResult | ParallelProfileResult:
        """Store profiles as they are now in a table.

        The table lies in schema `main` and has the columns `distinct_id`, `properties` and
        `last_seen`. Under the name `profiles` it is the asset's own table instead, which takes no
        filter: its partition of today is filled.

        Args:
            name: Letters, digits and underscores.
            where: A segmentation expression over profile properties.
            cohort_id: Only members of this cohort.
            output_properties: Only these properties of each profile.
            progress: Draw a bar on a terminal, unless `on_page_complete` is given.
            append: Merge into a table of that name by `distinct_id`; the newer profile is kept.
            replace: Put it in the place of a table of that name, which is kept until then.
            batch_size: 100 to 100,000. Checked, and otherwise without effect: profiles arrive in
                pages, whose size Mixpanel decides.
            distinct_id: Only this profile.
            distinct_ids: Only these profiles.
            group_id: Profiles of this group key instead of user profiles.
            behaviors: Behaviour filters, as the Engage API takes them; `where` names them.
            as_of_timestamp: Epoch seconds that `behaviors` are computed for.
            include_all_users: With a cohort, also list members that have no profile.
            parallel: Request several pages at once, and name missing pages in the result.
            max_workers: The number of pages at once; 5 is the default and the most.
            on_page_complete: Called with each page that arrived or finally failed.
            on_batch_complete: An older name of `on_page_complete`.

        Returns:
            A `ParallelProfileResult` if `parallel`, whose `has_failures` the caller has to check:
            an incomplete snapshot is merged into what was stored. Otherwise a `FetchResult`.

        Raises:
            ConfigError: An argument is wrong.
            TableExistsError: There is a table of that name, and neither `append` nor `replace`.
            IncompleteExportError: No page arrived; nothing was changed. Without `parallel` also
                when some pages arrived, which are stored then (`partial`).

        Example:
            >>> fetcher.fetch_profiles("paying", cohort_id="1000", parallel=True).has_failures
            False
        """
        check_batch_size(batch_size)
        query = ProfileQuery(
            where=where,
            cohort_id=cohort_id,
            output_properties=output_properties,
            distinct_id=distinct_id,
            distinct_ids=distinct_ids,
            group_id=group_id,
            behaviors=behaviors,
            as_of_timestamp=as_of_timestamp,
            include_all_users=include_all_users,
            workspace_id=self._client.workspace_id,
        )
        on_page_complete = on_page_complete or on_batch_complete
        with ExitStack() as progress_bars:
            if progress and on_page_complete is None:
                on_page_complete = progress_bars.enter_context(page_bar())
            result = self._profiles.fetch_profiles(
                name,
                query=query,
                append=append,
                replace=replace,
                max_workers=max_workers if parallel else 1,
                on_page_complete=on_page_complete,
            )
        return result if parallel else self._with_rows(require_all_pages(result))

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
        """Return the events of the days, one at a time: all of them, or an error is raised.

        Memory stays constant; no database is opened or made. Duplicates that Mixpanel sends are
        not removed.

        Args:
            from_date: First day, included; a date, or text like 2024-01-31.
            to_date: Last day, included.
            events: Only events of these names.
            where: A segmentation expression.
            limit: The most events, 1 to 100,000; which ones is undefined.
            raw: Events exactly as Mixpanel sends them, `time` in seconds. Otherwise a dict of
                `event_name`, `event_time` (aware, UTC; None without a usable `time`),
                `distinct_id`, `insert_id` and `properties`, equal to the stored row.
            staged: Put each response on disk and check it before its first event is delivered, so
                that failed responses are retried before the caller sees any event of them.

        Returns:
            An iterator. It is also a context manager that closes the connection when it is left
            early.

        Raises:
            ConfigError: An argument is wrong.
            AuthenticationError: From the iterator, before the first event.
            IncompleteExportError: From the iterator: a response was truncated after its first
                event; `records` events had been delivered.

        Example:
            >>> for event in fetcher.stream_events(from_date="2024-01-01", to_date="2024-01-07"):
            ...     print(event["event_name"], event["event_time"])
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
            spool_directory=self._spool_folder,
        )

    def stream_event_lines(
        self,
        *,
        from_date: date | str,
        to_date: date | str,
        events: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        staged: bool = False,
    ) -> RecordStream[bytes]:
        """Return each raw event as the bytes of its line, as Mixpanel sends it.

        Arguments and errors: see `FetcherService.stream_events`.

        Example:
            >>> with fetcher.stream_event_lines(from_date=day, to_date=day) as lines:
            ...     next(lines)[:9]
            b'{"event":'
        """
        return self._client.stream_event_lines(
            from_date=from_date,
            to_date=to_date,
            events=events,
            where=where,
            limit=limit,
            staged=staged,
            days_per_request=self._settings.days_per_request or STREAMED_DAYS,
            spool_directory=self._spool_folder,
        )

    def stream_profiles(
        self,
        *,
        where: str | None = None,
        cohort_id: str | None = None,
        output_properties: Sequence[str] | None = None,
        raw: bool = False,
        distinct_id: str | None = None,
        distinct_ids: Sequence[str] | None = None,
        group_id: str | None = None,
        behaviors: Sequence[Mapping[str, Any]] | None = None,
        as_of_timestamp: int | None = None,
        include_all_users: bool = False,
    ) -> RecordStream[dict[str, Any]]:
        """Return profiles one at a time, page after page: all of them, or an error is raised.

        With `raw`, profiles are exactly as Mixpanel sends them. Otherwise each is a dict of
        `distinct_id` (text), `last_seen` (text as sent, None when absent) and `properties`.
        Arguments and errors: see `FetcherService.fetch_profiles`.

        Raises:
            ConfigError: The filters contradict each other.
            IncompleteExportError: From the iterator: a page did not arrive, or the pages do not
                add up; `records` profiles had been delivered.

        Example:
            >>> for profile in fetcher.stream_profiles(output_properties=["plan"]):
            ...     profile["distinct_id"], profile["properties"]
        """
        query = ProfileQuery(
            where=where,
            cohort_id=cohort_id,
            output_properties=output_properties,
            distinct_id=distinct_id,
            distinct_ids=distinct_ids,
            group_id=group_id,
            behaviors=behaviors,
            as_of_timestamp=as_of_timestamp,
            include_all_users=include_all_users,
            workspace_id=self._client.workspace_id,
        )
        return self._client.stream_profiles(query, raw=raw)

    @property
    def _spool_folder(self) -> Path:
        return self._settings.spool_path(self._client.credentials.project_id)

    def _with_rows(self, result: FetchResult) -> FetchResult:
        """Return the result with a `df`."""
        return replace(result, _read=partial(_fetched_rows, self._database, result))

    def _fetch_into_named_table(
        self, request: FetchRequest, requests_at_once: int | None, on_batch: OnBatchComplete
    ) -> _FetchedEvents:
        fetch = EventTableFetch(self._client, self._database, self._settings, request, on_batch)
        if requests_at_once is None:
            fetch.store_whole()
        else:
            fetch.store_in_pieces(requests_at_once)
        failed_batches = sum(not batch.success for batch in fetch.batches)
        return _FetchedEvents(
            fetch.rows, len(fetch.batches) - failed_batches, failed_batches, fetch.failed
        )

    def _fetch_into_asset_table(
        self, request: FetchRequest, requests_at_once: int | None, on_batch: OnBatchComplete
    ) -> _FetchedEvents:
        if not request.append:
            self._require_empty(request)
        days = days_between(request.query.from_date, request.query.to_date)
        listener = _FetchedDays(days, on_batch)
        load = EventLoad(
            self._client,
            self._settings,
            from_date=days[0],
            to_date=days[-1],
            max_days=min(request.chunk_days, MAX_DAYS),
            at_once=requests_at_once or 1,
            listener=listener,
        )
        try:
            load.store(self._database)
        except IncompleteExportError:
            if requests_at_once is None:
                raise
        day_reports = [
            report for report in listener.by_day.values() if report.status not in _NOT_FETCHED
        ]
        failed_days = sorted(set(days).difference(report.day for report in day_reports))
        fetched_rows = sum(report.row_count for report in day_reports)
        return _FetchedEvents(fetched_rows, len(day_reports), len(failed_days), failed_days)

    def _require_empty(self, request: FetchRequest) -> None:
        # The asset's own days must not be replaced by a fetch that names the table by accident.
        project = self._settings.project(self._client.credentials)
        check_before_load(self._database, project)
        try:
            with self._database.read() as connection:
                free_table_name(connection, request.name, replace=request.replace)
        except DatabaseNotFoundError:
            pass


def _fetched_rows(database: Database, result: FetchResult) -> pd.DataFrame:
    """Return the rows of a table; of an asset's, those of the days that were fetched."""
    with database.read() as connection, user_sql():
        target = find_table(connection, result.table)
        query, days = f"FROM {qualified(target.schema, target.table)}", list[str]()
        if target.schema == SCHEMA and result.date_range:
            query, days = f"{query} WHERE event_date BETWEEN ? AND ?", [*result.date_range]
        elif target.schema == SCHEMA:
            query += f" WHERE snapshot_date = (SELECT max(snapshot_date) {query})"
        return connection.execute(query, days).df()


class _FetchedDays(DayReports):
    """The days of a fetch that are stored, those that were stored before included."""

    def __init__(self, days: Sequence[date], on_batch_complete: OnBatchComplete) -> None:
        super().__init__(on_day=self._report_day)
        self._days = days
        self._on_batch_complete = on_batch_complete

    def days_kept(self, reports: Sequence[DayReport]) -> None:
        for report in reports:
            self.day_stored(report, 0.0)

    def _report_day(self, report: DayReport) -> None:
        why_not_fetched = _NOT_FETCHED.get(report.status)
        self._on_batch_complete(
            BatchProgress(
                from_date=report.day.isoformat(),
                to_date=report.day.isoformat(),
                batch_index=len(self.by_day) - 1,
                total_batches=len(self._days),
                rows=0 if why_not_fetched else report.row_count,
                success=why_not_fetched is None,
                error=why_not_fetched,
            )
        )
