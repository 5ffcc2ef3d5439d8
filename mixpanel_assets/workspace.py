"""Workspace: the same data without Dagster, for notebooks, scripts and the shell."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

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
from mixpanel_assets.fetches import FetchResult, fetch_events
from mixpanel_assets.loads import ProfileLoad, kept_day, project_identity
from mixpanel_assets.planning import Plan
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.snapshots import discarded_on_failure, plan_day, question_for, whole
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

    def sync_profiles(self, day: date | None = None) -> ProfileReport:
        """Take a snapshot of profiles into `mixpanel.profiles`, exactly as the asset does.

        Args:
            day: Today (the default) takes all profiles; an older day those last seen on it,
                unless it holds a full snapshot, which is kept.
        """
        today = self.settings.today()
        day = day or today
        project = project_identity(self.credentials, self.settings)
        if kept := kept_day(self._database, project, day, question_for(day, today)[0]):
            return kept
        run_id = _run_id()
        name = f"profiles-{run_id}"
        reports: list[ProfileReport] = []
        with discarded_on_failure(self.spool_directory, name):
            snapshot = plan_day(self.api, day, today, self.spool_directory / name)
            plan = snapshot.plan
            outcomes = self.api.fetch_profile_pages(snapshot.query, plan, plan.missing())
            load = ProfileLoad(
                snapshots=whole(self.api, [snapshot], outcomes),
                project=project,
                run_id=run_id,
                on_day=lambda report, _: reports.append(report),
            )
            load.store(self._database)
        return reports[0]

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
        return fetch_events(
            self.api,
            self._database,
            self.settings,
            name=name,
            from_date=from_date,
            to_date=to_date,
            events=events,
            where=where,
            replace=replace,
        )

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
