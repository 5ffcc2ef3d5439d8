"""What an asset returns instead of rows: work that fetches and stores itself, piece by piece.

Each piece is downloaded and checked first, then stored in one short transaction. What is
stored stays stored, whatever happens to the pieces after it.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from mixpanel_assets.client import Credentials, EventExport, MixpanelAPIClient, PagePlan
from mixpanel_assets.client.snapshot import fetched_at_utc
from mixpanel_assets.settings import Settings
from mixpanel_assets.snapshots import Snapshot
from mixpanel_assets.warehouse import (
    Database,
    DayReport,
    ProfilePage,
    ProfileReport,
    ProjectIdentity,
    prepare,
    replace_events,
    replace_profiles,
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


@dataclass(kw_only=True)
class EventLoad(Load):
    """A range of event days on its way into `mixpanel.events`.

    Attributes:
        export: Fetches the days.
        project: Whose events they are.
        today: Days from here on are stored as `open`: more events will come.
        run_id: Written to the ledger.
        on_day: Told of each day once it is committed, and how many seconds passed from its
            request to its commit (the same for all days of one request).
    """

    export: EventExport
    project: ProjectIdentity
    today: date
    run_id: str | None = None
    on_day: Callable[[DayReport, float], None] = field(default=lambda report, seconds: None)

    def store(self, database: Database) -> None:
        """Store request by request; each request's days are replaced in one transaction."""
        with database.write() as connection:
            prepare(connection, self.project)
        open_days = [day for day in self.export.days if day >= self.today]
        started = time.monotonic()
        for spool in self.export:
            with database.write() as connection:
                reports = replace_events(
                    connection,
                    spool.path,
                    from_date=spool.from_date,
                    to_date=spool.to_date,
                    lines=spool.lines,
                    project=self.project,
                    received_bytes=spool.received_bytes,
                    requests=spool.requests,
                    run_id=self.run_id,
                    open_days=open_days,
                )
            spool.discard()
            seconds, started = time.monotonic() - started, time.monotonic()
            for report in reports:
                logger.info("%s: %s events stored", report.day, f"{report.row_count:,}")
                self.on_day(report, seconds)


def event_load(
    client: MixpanelAPIClient,
    settings: Settings,
    *,
    from_date: date,
    to_date: date,
    run_id: str | None = None,
    on_day: Callable[[DayReport, float], None] | None = None,
) -> EventLoad:
    """Return the load of a range of days, both ends included; nothing is asked yet."""
    # A zone change shifts rows of legacy projects to other days; alone, a day keeps its rows.
    legacy = settings.time_regime == "legacy"
    return EventLoad(
        export=client.event_export(
            from_date=from_date,
            to_date=to_date,
            directory=settings.spool_path(client.credentials.project_id),
            days_per_request=1 if legacy else settings.days_per_request,
        ),
        project=project_identity(client.credentials, settings),
        today=settings.today(),
        run_id=run_id,
        on_day=on_day or (lambda report, seconds: None),
    )


def project_identity(credentials: Credentials, settings: Settings) -> ProjectIdentity:
    """Return whose data a database holds, to be compared with what it says itself."""
    return ProjectIdentity(
        project_id=credentials.project_id,
        region=credentials.region,
        regime=settings.time_regime,
        zone=settings.time_zone,
    )


@dataclass(kw_only=True)
class ProfileLoad(Load):
    """Snapshots of profiles, all their pages on disk, on their way into `mixpanel.profiles`.

    Attributes:
        snapshots: One per day.
        project: Whose profiles they are.
        run_id: Written to the ledger.
        on_day: Told of each day once it is committed.
    """

    snapshots: Sequence[Snapshot]
    project: ProjectIdentity
    run_id: str | None = None
    on_day: Callable[[Snapshot, ProfileReport], None] = field(default=lambda snapshot, report: None)

    def store(self, database: Database) -> None:
        """Replace each day's snapshot in a transaction of its own."""
        for snapshot in self.snapshots:
            with database.write() as connection:
                prepare(connection, self.project)
                report = replace_profiles(
                    connection,
                    _page_files(snapshot.plan),
                    snapshot_date=snapshot.day,
                    project=self.project,
                    scope=snapshot.scope,
                    expected_total=snapshot.plan.total,
                    failed_pages=(),
                    run_id=self.run_id,
                )
            snapshot.plan.discard()
            logger.info("%s: %s profiles stored", snapshot.day, f"{report.row_count:,}")
            self.on_day(snapshot, report)


def _page_files(plan: PagePlan) -> list[ProfilePage]:
    paths = [plan.path(page) for page in range(plan.num_pages)]
    return [ProfilePage(path, fetched_at_utc(path)) for path in paths]
