"""What an asset returns instead of rows: work that fetches and stores itself, piece by piece.

Each piece is downloaded and checked first, then stored in one short transaction. What is
stored stays stored, whatever happens to the pieces after it. Events: `event_loads`.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from mixpanel_assets.client import Credentials, PagePlan
from mixpanel_assets.client.snapshot import fetched_at_utc
from mixpanel_assets.errors import DatabaseNotFoundError
from mixpanel_assets.settings import Settings
from mixpanel_assets.snapshots import Snapshot
from mixpanel_assets.warehouse import (
    Database,
    ProfilePage,
    ProfileReport,
    ProjectIdentity,
    Scope,
    kept_snapshot,
    must_match,
    prepare,
    replace_profiles,
    stored_project,
)

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Load(ABC):
    """Something that knows how to put itself into a database, partition by partition.

    Attributes:
        materialized: The metadata of each partition that is stored, by its key. Whoever runs
            the load fills it, so that a load that breaks off has its finished partitions
            recorded all the same.
    """

    materialized: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @abstractmethod
    def store(self, database: Database) -> None:
        """Fetch and store everything.

        Raises:
            MixpanelDataError: Part of it could not be had; what was stored before stays.
        """


def project_identity(credentials: Credentials, settings: Settings) -> ProjectIdentity:
    """Return whose data a database holds, to be compared with what it says itself."""
    return ProjectIdentity(
        project_id=credentials.project_id,
        region=credentials.region,
        regime=settings.time_regime,
        zone=settings.time_zone,
    )


def kept_day(
    database: Database, project: ProjectIdentity, day: date, scope: Scope
) -> ProfileReport | None:
    """Return what a day holds if no snapshot of this scope may replace it; else None.

    To be asked before requests are spent; a load looks again when it stores.
    """
    if scope == "all":
        return None
    try:
        with database.read() as connection:
            if stored := stored_project(connection):
                must_match(stored, project)
            return kept_snapshot(connection, day, scope)
    except DatabaseNotFoundError:
        return None


@dataclass(kw_only=True)
class ProfileLoad(Load):
    """Snapshots of profiles, all their pages on disk, on their way into `mixpanel.profiles`.

    Attributes:
        snapshots: One per day.
        kept: Days that were left alone, as `kept_day` returned them.
        project: Whose profiles they are.
        run_id: Written to the ledger.
        on_day: Told of each day once it is settled, and on how many pages it came.
    """

    snapshots: Sequence[Snapshot]
    kept: Sequence[ProfileReport] = ()
    project: ProjectIdentity
    run_id: str | None = None
    on_day: Callable[[ProfileReport, int], None] = field(default=lambda report, pages: None)

    def store(self, database: Database) -> None:
        """Replace each day's snapshot in a transaction of its own, unless it must stay.

        The pages are deleted in any case.
        """
        try:
            for report in self.kept:
                self._tell(report, 0)
            for snapshot in self.snapshots:
                self._tell(self._replaced(database, snapshot), snapshot.plan.num_pages)
        finally:
            for snapshot in self.snapshots:
                snapshot.plan.discard()

    def _replaced(self, database: Database, snapshot: Snapshot) -> ProfileReport:
        with database.write() as connection:
            prepare(connection, self.project)
            kept = kept_snapshot(connection, snapshot.day, snapshot.scope)
            if kept:
                return kept
            (report,) = replace_profiles(
                connection,
                _page_files(snapshot.plan),
                days=[snapshot.day],
                project=self.project,
                scope=snapshot.scope,
                expected_total=snapshot.plan.total,
                run_id=self.run_id,
            )
            return report

    def _tell(self, report: ProfileReport, pages: int) -> None:
        rows = f"{report.row_count:,}"
        if report.kept:
            logger.info("%s: the full snapshot of %s profiles is kept", report.snapshot_date, rows)
        else:
            logger.info("%s: %s profiles stored", report.snapshot_date, rows)
        self.on_day(report, pages)


def _page_files(plan: PagePlan) -> list[ProfilePage]:
    paths = [plan.path(page) for page in range(plan.num_pages)]
    return [ProfilePage(path, fetched_at_utc(path)) for path in paths]
