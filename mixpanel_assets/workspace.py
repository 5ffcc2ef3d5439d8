"""Workspace: the same data without Dagster, for notebooks, scripts and the shell."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from mixpanel_assets.budgets import budget_settings
from mixpanel_assets.client import Credentials, MixpanelAPIClient, RetryPolicy
from mixpanel_assets.client.disk import KEPT_FOR, Cleaned, clean
from mixpanel_assets.event_loads import event_load, plan_load
from mixpanel_assets.loads import ProfileLoad, project_identity
from mixpanel_assets.planning import Plan
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.snapshots import plan_day, require_every_page
from mixpanel_assets.warehouse import Database, DayReport, ProfileReport

if TYPE_CHECKING:
    import pandas as pd


class Workspace:
    """One Mixpanel project and the DuckDB file that holds its copy; a context manager.

    Args:
        credentials: Who asks Mixpanel; None for a workspace that only queries.
        path: The DuckDB file; None for the place that MP_DATABASE or its default says.
        settings: Instead of the MP_* variables.
        on_wait: Told whom a write waits for.

    Example:
        >>> with Workspace(credentials) as ws:
        ...     ws.sync(date(2024, 1, 1), date(2024, 1, 7))
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
            retries=RetryPolicy(max_retries=self.settings.max_retries),
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
            day: Today (the default) takes all profiles; an older day those last seen on it.
        """
        today = self.settings.today()
        run_id = _run_id()
        root = self.settings.spool_path(self.credentials.project_id)
        snapshot = plan_day(self.api, day or today, today, root / f"profiles-{run_id}")
        plan = snapshot.plan
        require_every_page(self.api.fetch_profile_pages(snapshot.query, plan, plan.missing()))
        reports: list[ProfileReport] = []
        load = ProfileLoad(
            snapshots=[snapshot],
            project=project_identity(self.credentials, self.settings),
            run_id=run_id,
            on_day=lambda _, report: reports.append(report),
        )
        load.store(self._database)
        return reports[0]

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
