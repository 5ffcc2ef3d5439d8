"""Workspace: the same data without Dagster, for notebooks, scripts and the shell."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from mixpanel_assets.budgets import budget_settings
from mixpanel_assets.client import (
    STREAMED_DAYS,
    Credentials,
    MixpanelAPIClient,
    ProfileQuery,
    RecordStream,
    RetryPolicy,
)
from mixpanel_assets.client.disk import KEPT_FOR, Cleaned, clean
from mixpanel_assets.event_loads import event_load, plan_load
from mixpanel_assets.fetch_results import FetchResult, ParallelProfileResult
from mixpanel_assets.fetcher import FetcherService
from mixpanel_assets.planning import Plan
from mixpanel_assets.profile_fetcher import OnPageComplete, ParallelProfileFetcherService, whole
from mixpanel_assets.progress import page_bar
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.snapshots import ScopeChoice
from mixpanel_assets.warehouse import Database, DayReport, ProfileReport

if TYPE_CHECKING:
    import pandas as pd


class Workspace:
    """One Mixpanel project and the DuckDB file that holds its copy; a context manager.

    Args:
        credentials: Who asks Mixpanel.
        path: The DuckDB file; None for the place that MP_DATABASE or its default says.
        settings: Instead of the MP_* variables.
        on_wait: Told whom a write waits for.

    Example:
        >>> with Workspace(credentials) as ws:
        ...     ws.sync_events(date(2024, 1, 1), date(2024, 1, 7))
        ...     ws.sql("SELECT event_date, count(*) FROM events GROUP BY ALL ORDER BY ALL")
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        path: str | Path | None = None,
        settings: Settings | None = None,
        on_wait: Callable[[str], None] | None = None,
    ) -> None:
        self.settings = settings or load_settings()
        if path is not None:
            self.settings = self.settings.model_copy(update={"database": Path(path)})
        self.credentials = credentials
        self.api = MixpanelAPIClient(
            credentials,
            api_base_url=self.settings.api_base_url,
            retries=RetryPolicy(
                max_retries=self.settings.max_retries,
                first_wait_seconds=self.settings.retry_wait_seconds,
            ),
            budget=budget_settings(self.settings),
        )
        self._database = Database(
            self.db_path,
            memory_limit=self.settings.memory_limit,
            lock_timeout=self.settings.lock_timeout,
            on_wait=on_wait,
        )
        self._fetcher = ParallelProfileFetcherService(self.api, self._database, self.settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def db_path(self) -> Path:
        """Where the DuckDB file is."""
        return self.settings.database_path(self.credentials.project_id)

    @property
    def spool_directory(self) -> Path:
        """Where answers lie until they are stored or, of a staged stream, delivered."""
        return self.settings.spool_path(self.credentials.project_id)

    def close(self) -> None:
        """Close the connections to Mixpanel."""
        self.api.close()

    def plan(self, from_date: date, to_date: date) -> Plan:
        """Return what `sync_events` would take; nothing is asked or stored.

        Args:
            from_date: First day, included.
            to_date: Last day, included.
        """
        return plan_load(
            self.api, self.settings, self._database, from_date=from_date, to_date=to_date
        )

    def clean(self, older_than: timedelta = KEPT_FOR) -> Cleaned:
        """Delete the received answers that failed loads left in the spool folder.

        Args:
            older_than: Younger ones stay; whatever it says, so does the last hour's, which
                may belong to a load that runs.
        """
        return clean(self.settings.spool_path(self.credentials.project_id), older_than)

    def sync_events(
        self,
        from_date: date,
        to_date: date,
        *,
        on_day: Callable[[DayReport], None] | None = None,
    ) -> list[DayReport]:
        """Fetch whole days into `mixpanel.events`, exactly as the asset does.

        Args:
            from_date: First day, included.
            to_date: Last day, included.
            on_day: Told of each day once it is committed.

        Returns:
            One report per day, in order.

        Raises:
            IncompleteExportError: Days stayed broken; they keep what they held, the others
                are stored.
        """
        reports: list[DayReport] = []

        def stored(report: DayReport, seconds: float) -> None:
            reports.append(report)
            if on_day:
                on_day(report)

        load = event_load(
            self.api,
            self.settings,
            from_date=from_date,
            to_date=to_date,
            run_id=_run_id(),
            on_day=stored,
        )
        load.store(self._database)
        return sorted(reports, key=lambda report: report.day)

    def sync_profiles(
        self,
        day: date | None = None,
        *,
        scope: ScopeChoice = "auto",
        overwrite_full_snapshot: bool = False,
        max_workers: int | None = None,
        on_page_complete: OnPageComplete | None = None,
    ) -> ProfileReport:
        """Take a snapshot of profiles into `mixpanel.profiles`, exactly as the asset does.

        Args:
            day: Today (the default) takes all profiles; an older day those last seen on it,
                unless it holds a full snapshot, which is kept.
            scope: `all` or `seen_on_day` whatever the day.
            overwrite_full_snapshot: Also replace the full snapshot of a day that is over.
            max_workers: Pages asked for at once; 5 is the default and the most.
            on_page_complete: Told of each page once it is settled.

        Raises:
            IncompleteExportError: Profiles are missing. With `partial`, those that came are
                merged in; otherwise nothing has changed. Asking again within the hour fetches
                only the missing pages.
        """
        return self._fetcher.sync(
            day,
            scope=scope,
            overwrite_full_snapshot=overwrite_full_snapshot,
            max_workers=max_workers,
            on_page_complete=on_page_complete,
        )

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
        """Return the events of the days, one at a time, from Mixpanel: complete, or it raises.

        Memory stays constant; no database is opened or made. Repeats that Mixpanel sends are
        not removed.

        Args:
            from_date: First day, included; a date, or text like 2024-01-31.
            to_date: Last day, included.
            events: Only events of these names.
            where: A segmentation expression.
            limit: At most so many events, 1 to 100,000; which ones is undefined.
            raw: Events exactly as Mixpanel sends them, `time` in seconds. Otherwise a dict of
                `event_name`, `event_time` (aware, UTC; None without a usable `time`),
                `distinct_id`, `insert_id` and `properties`, equal to the stored row.
            staged: Put each answer on disk and check it before its first event is out; faults
                are then repeated unseen to the end.

        Returns:
            An iterator; also a context manager that closes the connection when left early.

        Raises:
            ConfigError: An argument is wrong.
            AuthenticationError: From the iterator, before the first event.
            IncompleteExportError: From the iterator: an answer broke after its first event;
                `records` events had been delivered.

        Example:
            >>> for event in ws.stream_events(from_date="2024-01-01", to_date="2024-01-07"):
            ...     print(event["event_name"], event["event_time"])
        """
        return self.api.stream_events(
            from_date=from_date,
            to_date=to_date,
            events=events,
            where=where,
            limit=limit,
            raw=raw,
            staged=staged,
            days_per_request=self.settings.days_per_request or STREAMED_DAYS,
            local_zone=self.settings.local_zone,
            spool_directory=self.spool_directory,
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
        """Return each raw event as the bytes of its line; otherwise as `stream_events`."""
        return self.api.stream_event_lines(
            from_date=from_date,
            to_date=to_date,
            events=events,
            where=where,
            limit=limit,
            staged=staged,
            days_per_request=self.settings.days_per_request or STREAMED_DAYS,
            spool_directory=self.spool_directory,
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
        """Return profiles one at a time, page after page of one session: complete, or it raises.

        Args:
            where: A segmentation expression over profile properties.
            cohort_id: Only members of this cohort.
            output_properties: Only these properties of each profile.
            raw: Profiles exactly as Mixpanel sends them. Otherwise a dict of `distinct_id`
                (text), `last_seen` (text as sent, None when absent) and `properties`.
            distinct_id: Only this profile.
            distinct_ids: Only these profiles.
            group_id: Profiles of this group key instead of user profiles.
            behaviors: Behaviour filters, as the Engage API takes them; `where` names them.
            as_of_timestamp: Epoch seconds that `behaviors` are computed for.
            include_all_users: With a cohort, also list members that have no profile.

        Raises:
            ConfigError: The filters contradict each other.
            IncompleteExportError: From the iterator: a page did not come, or the pages do not
                add up; `records` profiles had been delivered.
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
        )
        return self.api.stream_profiles(query, raw=raw)

    def fetch_events(
        self,
        name: str = "events",
        *,
        from_date: date | str,
        to_date: date | str,
        events: Sequence[str] | None = None,
        where: str | None = None,
        replace: bool = False,
    ) -> FetchResult:
        """Make a table of the events of some days: whole, or not at all.

        It lies in schema `main` and has the columns `event_name`, `event_time`, `distinct_id`,
        `insert_id` and `properties`; days without events make an empty table. Under the name
        `events` it is the asset's own table instead, which must be empty and takes no filter.

        Args:
            name: Letters, digits and underscores.
            from_date: First day, included; a date, or text like 2024-01-31.
            to_date: Last day, included.
            events: Only events of these names.
            where: A segmentation expression.
            replace: Put it in the place of a table of that name, which stays until then.

        Raises:
            ConfigError: An argument is wrong.
            TableExistsError: There is a table of that name, and `replace` is not set.
            IncompleteExportError: Days stayed broken; nothing was changed.
        """
        result = FetcherService(self.api, self._database, self.settings).fetch_events(
            name,
            from_date=from_date,
            to_date=to_date,
            events=events,
            where=where,
            replace=replace,
        )
        return cast(FetchResult, result)  # it is not parallel

    def fetch_profiles(
        self,
        name: str = "profiles",
        *,
        where: str | None = None,
        cohort_id: str | None = None,
        output_properties: Sequence[str] | None = None,
        progress: bool = True,
        append: bool = False,
        replace: bool = False,
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

        It lies in schema `main` and has the columns `distinct_id`, `properties` and `last_seen`.
        Under the name `profiles` it is the asset's own table instead, which takes no filter: its
        partition of today is filled.

        Args:
            name: Letters, digits and underscores.
            where: A segmentation expression over profile properties.
            cohort_id: Only members of this cohort.
            output_properties: Only these properties of each profile.
            progress: Draw a bar on a terminal, unless `on_page_complete` is given.
            append: Merge into a table of that name by `distinct_id`; the newer profile stays.
            replace: Put it in the place of a table of that name, which stays until then.
            distinct_id: Only this profile.
            distinct_ids: Only these profiles.
            group_id: Profiles of this group key instead of user profiles.
            behaviors: Behaviour filters, as the Engage API takes them; `where` names them.
            as_of_timestamp: Epoch seconds that `behaviors` are computed for.
            include_all_users: With a cohort, also list members that have no profile.
            parallel: Ask for several pages at once, and tell of lost pages in the result.
            max_workers: How many pages at once; 5 is the default and the most.
            on_page_complete: Told of each page once it is settled.
            on_batch_complete: An older name of `on_page_complete`.

        Returns:
            A `ParallelProfileResult` if `parallel`, whose `has_failures` is to be looked at:
            of a snapshot that is not whole, what came is merged into what was there. Otherwise
            a `FetchResult`.

        Raises:
            ConfigError: An argument is wrong.
            TableExistsError: There is a table of that name, and neither `append` nor `replace`.
            IncompleteExportError: No page came; nothing was changed. Without `parallel` also
                when some pages came, which are stored then (`partial`).

        Example:
            >>> result = ws.fetch_profiles("people", parallel=True)
            >>> result.has_failures
            False
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
        )
        on_page_complete = on_page_complete or on_batch_complete
        with ExitStack() as shown:
            if progress and on_page_complete is None:
                on_page_complete = shown.enter_context(page_bar())
            result = self._fetcher.fetch_profiles(
                name,
                query=query,
                append=append,
                replace=replace,
                max_workers=max_workers if parallel else 1,
                on_page_complete=on_page_complete,
            )
        return result if parallel else whole(result)

    def sql(self, query: str) -> pd.DataFrame:
        """Return the answer to a query, as a DataFrame."""
        with self._database.read() as connection:
            return connection.execute(query).df()

    def sql_rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return the answer to a query, as a list of tuples."""
        with self._database.read() as connection:
            return connection.execute(query).fetchall()


def _run_id() -> str:
    return uuid.uuid4().hex
