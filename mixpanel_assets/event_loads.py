"""EventLoad: a range of event days that fetches and stores itself, request by request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from mixpanel_assets.client import EventExport, MixpanelAPIClient
from mixpanel_assets.client.disk import clean, free_bytes
from mixpanel_assets.client.export import ExportQuery
from mixpanel_assets.day_filler import DayFiller
from mixpanel_assets.errors import DatabaseNotFoundError
from mixpanel_assets.loads import Load, project_identity
from mixpanel_assets.planning import (
    JSON_PER_RECEIVED_BYTE,
    MAX_DAYS,
    Estimates,
    Plan,
    RequestBudget,
    RequestPlan,
    days_between,
)
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    EVERY_EVENT,
    Database,
    DayReport,
    EventSizes,
    ProjectIdentity,
    Target,
    event_sizes,
    events_asset_table,
    must_match,
    prepare,
    stored_project,
)


def _nobody(report: DayReport, seconds: float) -> None:
    pass


@dataclass(kw_only=True)
class EventLoad(Load):
    """A range of event days on its way into `mixpanel.events`, or a part of them elsewhere.

    Attributes:
        export: Fetches the days; its filter is that of the table.
        project: Whose events they are.
        target: The table; `events` holds everything.
        today: Days from here on are stored as `open`: more events will come.
        days_per_request: So many days share a request; None: what earlier days weighed decides.
        max_days: The most days that share one then.
        run_id: Written to the ledger.
        on_day: Told of each day once it is committed, and how many seconds passed from its
            request to its commit (the same for all days of one request).
    """

    export: EventExport
    project: ProjectIdentity
    target: Target = EVERY_EVENT
    today: date
    days_per_request: int | None = None
    max_days: int = MAX_DAYS
    run_id: str | None = None
    on_day: Callable[[DayReport, float], None] = _nobody

    def store(self, database: Database) -> None:
        """Store request by request; each request's days are replaced in one transaction.

        Raises:
            IncompleteExportError: Days stayed broken; they keep what they held, the others
                are stored.
            ConfigError: The table holds what another filter finds, or the file another
                project; nothing was asked.
        """
        days = self.export.query
        with database.write() as connection:
            prepare(connection, self.project)
            events_asset_table(connection, self.target, days.filters)
            sizes = event_sizes(connection, self.target.table)
        clean(self.export.directory)
        plan = request_plan(
            days.from_date, days.to_date, sizes, self.days_per_request, self.max_days
        )
        self.export.estimate = plan.estimated_bytes
        with self.export:
            DayFiller(
                self.export,
                database,
                plan,
                project=self.project,
                target=self.target,
                today=self.today,
                run_id=self.run_id,
                on_day=self.on_day,
            ).fill()


def event_load(
    client: MixpanelAPIClient,
    settings: Settings,
    *,
    from_date: date,
    to_date: date,
    table: str = EVERY_EVENT.table,
    events: Sequence[str] | None = None,
    where: str | None = None,
    max_days: int = MAX_DAYS,
    at_once: int = 1,
    run_id: str | None = None,
    on_day: Callable[[DayReport, float], None] = _nobody,
) -> EventLoad:
    """Return the load of a range of days, both ends included; nothing is asked yet.

    Args:
        client: Who is asked.
        settings: How times are read, how many days share a request, where answers lie.
        from_date: First day, included.
        to_date: Last day, included.
        table: In schema `mixpanel`; a filter has a table of its own.
        events: Only events of these names.
        where: A segmentation expression.
        max_days: The most days that share a request.
        at_once: How many requests run at the same time.
        run_id: Written to the ledger.
        on_day: Told of each day once it is committed, and of the seconds it took.

    Raises:
        ConfigError: The range ends before it begins.
    """
    fixed = settings.days_per_request
    return EventLoad(
        export=client.event_export(
            from_date=from_date,
            to_date=to_date,
            events=events,
            where=where,
            directory=settings.spool_path(client.credentials.project_id),
            at_once=at_once,
        ),
        project=project_identity(client.credentials, settings),
        target=Target(table),
        today=settings.today(),
        days_per_request=fixed and min(fixed, max_days),
        max_days=max_days,
        run_id=run_id,
        on_day=on_day,
    )


def request_plan(
    from_date: date,
    to_date: date,
    sizes: EventSizes,
    days_per_request: int | None,
    max_days: int = MAX_DAYS,
) -> RequestPlan:
    """Return which days share a request, by what is stored.

    A project that ever had rows of other dates is read one day per request, because only
    then does a row tell which export day it belongs to.
    """
    weights = {
        day: round(received * JSON_PER_RECEIVED_BYTE)
        for day, received in sizes.received_bytes.items()
    }
    fixed = 1 if sizes.shifted else days_per_request
    return RequestPlan(days_between(from_date, to_date), weights, max_days=max_days, fixed=fixed)


def plan_load(
    client: MixpanelAPIClient,
    settings: Settings,
    database: Database,
    *,
    from_date: date,
    to_date: date,
) -> Plan:
    """Return what the load of a range of days would take; nothing is asked or stored.

    Raises:
        ConfigError: The range ends before it begins, or the file holds another project.
    """
    asked = ExportQuery(from_date, to_date)
    days = days_between(asked.from_date, asked.to_date)
    sizes = _stored_sizes(database, project_identity(client.credentials, settings))
    requests = len(list(request_plan(from_date, to_date, sizes, settings.days_per_request)))
    return Plan(
        from_date=from_date,
        to_date=to_date,
        days=len(days),
        requests=requests,
        estimated_rows=Estimates(sizes.rows).total(days),
        estimated_bytes=Estimates(sizes.received_bytes).total(days),
        free_disk_bytes=free_bytes(settings.spool_path(client.credentials.project_id)),
        seconds=_present_budget(client).seconds_for(requests),
    )


def _stored_sizes(database: Database, project: ProjectIdentity) -> EventSizes:
    try:
        with database.read() as connection:
            if stored := stored_project(connection):
                must_match(stored, project)
            return event_sizes(connection)
    except DatabaseNotFoundError:
        return EventSizes({}, {})


def _present_budget(client: MixpanelAPIClient) -> RequestBudget:
    usage = next(usage for usage in client.quota() if usage.api == "export")
    return RequestBudget(usage.limit, usage.window_seconds, usage.used)
