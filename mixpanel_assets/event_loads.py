"""EventLoad: a range of event days that fetches and stores itself, request by request."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from mixpanel_assets.client import EventExport, MixpanelAPIClient
from mixpanel_assets.client.export import ExportQuery
from mixpanel_assets.client.spool import answers_of, clean, free_bytes
from mixpanel_assets.day_filler import DayFiller
from mixpanel_assets.errors import DatabaseNotFoundError, MixpanelDataError
from mixpanel_assets.load_progress import LoadProgress
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
from mixpanel_assets.refetch import KEEP_NONE, Keeping, Refetch, is_expired
from mixpanel_assets.rules.days import counted
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    EVENTS,
    EVERY_EVENT,
    KEEP_ALL,
    Database,
    DayReport,
    EventSizes,
    ProjectIdentity,
    Reload,
    Target,
    check_loadable,
    day_reports,
    day_rows,
    event_sizes,
    events_asset_table,
    forget_expired,
    mark_days,
    only_here,
    prepare,
)

logger = logging.getLogger(__name__)

_DAY = timedelta(days=1)
_MOST_NAMED = 31
_LAST_LOOK_SECONDS = 5.0  # a run that is cancelled waits no longer for a database


def _nobody(*told: object) -> None:
    pass


def _unknown() -> None:
    pass


@dataclass(kw_only=True)
class EventLoad(Load):
    """Days of events on their way into `mixpanel.events`, or a part of them elsewhere.

    Attributes:
        export: Fetches the days; its filter is that of the table.
        days: Which days of the export's range are meant; None: all of them.
        project: Whose events they are.
        target: The table; `events` holds everything.
        today: Days from here on are stored as `open`: more events will come.
        days_per_request: So many days share a request; None: what earlier days weighed decides.
        max_days: The most days that share one then.
        run_id: Written to the ledger.
        on_day: Told of each day once it is committed, and how many seconds passed from its
            request to its commit (the same for all days of one request).
        on_request: Told how far the load is once an answer is stored, before `on_day` is told
            of its days.
        keeping: Says which days stay as they are stored.
        horizon: The first day that Mixpanel is asked for; None: every day is. Older days become
            `expired`, unless they are stored.
        on_kept: Told of days that stay as they are, if there are any, before anything is asked;
            of those before the horizon by themselves.
        on_found: Told, when the load breaks off, of days that it has committed and that `on_day`
            was not told of.
        on_corrected: Told of days that lost rows to another day after `on_day` was told of them
            (legacy regime, after a change of zone).
        budget: Says what may still be asked this hour.
        reload: What may be removed of what is stored.
        vanished: How many rows of each day are kept, though the last response for it lacked them.
    """

    export: EventExport
    days: Collection[date] | None = None
    project: ProjectIdentity
    target: Target = EVERY_EVENT
    today: date
    days_per_request: int | None = None
    max_days: int = MAX_DAYS
    run_id: str | None = None
    on_day: Callable[[DayReport, float], None] = _nobody
    on_request: Callable[[LoadProgress], None] = _nobody
    keeping: Keeping = KEEP_NONE
    horizon: date | None = None
    on_kept: Callable[[Sequence[DayReport]], None] = _nobody
    on_found: Callable[[Sequence[DayReport]], None] | None = None
    on_corrected: Callable[[Sequence[DayReport]], None] = _nobody
    budget: Callable[[], RequestBudget | None] = _unknown
    reload: Reload = KEEP_ALL
    vanished: Mapping[date, int] = field(default_factory=dict)

    def store(self, database: Database) -> None:
        """Store request by request; each request's days are replaced in one transaction.

        Raises:
            IncompleteExportError: Days stayed broken; they keep what they held, the others
                are stored.
            ConfigError: The table holds what another filter finds, or the file another
                project; nothing was asked.
        """
        with database.write() as connection:
            prepare(connection, self.project)
            events_asset_table(connection, self.target, self.export.query.filters)
            forget_expired(connection, self.target, self.horizon)
            sizes = event_sizes(connection, self.target.table)
            outlived, expired = self._not_asked(connection)
            kept = self._kept(connection, self.keeping)
            self.vanished = self._lacking(connection)
        clean(self.export.directory)
        for left in (outlived, kept):
            if left:
                self.on_kept(left)
        for report in expired:
            self.on_day(report, 0.0)
        told = {report.day for report in (*outlived, *kept, *expired)}
        self.export.found = self._answers_left(told)
        plan = self._plan(sizes, told)
        self.export.estimate = plan.estimated_bytes
        if self.reload.accept_smaller:
            _warn_of_loss({day: rows for day, rows in self.vanished.items() if day not in told})
        vanished = dict(self.vanished)

        def tell(report: DayReport, seconds: float) -> None:
            vanished[report.day] = report.rows_vanished
            vanished.update({d.day: d.rows_vanished for d in report.corrected if d.day in vanished})
            self.vanished = {day: rows for day, rows in sorted(vanished.items()) if rows}
            self.on_day(report, seconds)
            told.add(report.day)
            if again := [day for day in report.corrected if day.day in told]:
                self.on_corrected(again)

        try:
            with self.export:
                DayFiller(
                    self.export,
                    database,
                    plan,
                    project=self.project,
                    target=self.target,
                    today=self.today,
                    run_id=self.run_id,
                    on_day=tell,
                    on_request=self.on_request,
                    budget=self.budget,
                    reload=replace(self.reload, read=self._read_before(kept)),
                ).fill()
        except BaseException:
            # An interrupt may come after the commit and before anybody was told.
            self._tell_of_found(database, told)
            raise

    def _read_before(self, kept: Sequence[DayReport]) -> list[date]:
        """Return the days that runs which this one goes on with have read."""
        is_resumed = self.keeping.refetch is Refetch.missing and bool(self.keeping.run_ids)
        return [report.day for report in kept] if is_resumed else []

    def _tell_of_found(self, database: Database, told: Collection[date]) -> None:
        if self.on_found is None or self.run_id is None:
            return
        written = Keeping(Refetch.missing, frozenset({self.run_id}))
        hurried = Database(
            database.path, memory_limit=database.memory_limit, lock_timeout=_LAST_LOOK_SECONDS
        )
        with suppress(MixpanelDataError), hurried.read() as connection:
            found = self._kept(connection, written)
            if untold := [report for report in found if report.day not in told]:
                self.on_found(untold)

    def _kept(self, connection: duckdb.DuckDBPyConnection, keeping: Keeping) -> list[DayReport]:
        reports = day_reports(connection, *self._range, table=self.target.table)
        rows = day_rows(connection, self.target.table, *self._range)
        return [
            reports[day]
            for day in self._asked()
            if day in rows and keeping.keeps(rows[day]) and not is_expired(day, self.horizon)
        ]

    def _lacking(self, connection: duckdb.DuckDBPyConnection) -> dict[date, int]:
        """Return how many stored rows of each day the last response for it lacked."""
        rows = day_rows(connection, self.target.table, *self._range)
        return {day: row["rows_vanished"] for day, row in rows.items() if row["rows_vanished"]}

    @property
    def _range(self) -> tuple[date, date]:
        return self.export.query.from_date, self.export.query.to_date

    def _not_asked(
        self, connection: duckdb.DuckDBPyConnection
    ) -> tuple[list[DayReport], list[DayReport]]:
        """Return the days before the horizon that are stored, and those that are `expired`."""
        days = [day for day in self._asked() if is_expired(day, self.horizon)]
        if not days:
            return [], []
        mark_days(
            connection,
            days,
            "expired",
            run_id=self.run_id,
            filters=self.export.query.filters,
            target=self.target,
        )
        known = day_reports(connection, days[0], days[-1], table=self.target.table)
        reports = [known[day] for day in days]
        return (
            [report for report in reports if report.status != "expired"],
            [report for report in reports if report.status == "expired"],
        )

    def _answers_left(self, kept: set[date]) -> dict[tuple[date, date], Path]:
        """Return the whole answers that the runs this one goes on with did not come to store."""
        if self.keeping.refetch is not Refetch.missing:
            return {}
        asked = self.export.query
        keys = {
            answer_key(run_id, self.project, self.target, asked.filters)
            for run_id in self.keeping.run_ids or ()
        }
        left = dict[tuple[date, date], Path]()
        for (first, last), path in answers_of(self.export.directory, keys).items():
            received = datetime.fromtimestamp(path.stat().st_mtime, UTC).date()
            if not kept.isdisjoint(days_between(first, last)):
                path.unlink(missing_ok=True)  # its days were stored just before the end
            elif asked.from_date <= first <= last <= asked.to_date and last < received - _DAY:
                left[first, last] = path  # in every zone, its days were over
        return left

    def _plan(self, sizes: EventSizes, kept: set[date]) -> RequestPlan:
        left = {day for window in self.export.found for day in days_between(*window)}
        without = kept | left
        days = [day for day in self._asked() if day not in without]
        return request_plan(days, sizes, self.days_per_request, self.max_days)

    def _asked(self) -> list[date]:
        return asked_days(self.export.query, self.days)


def event_load(
    client: MixpanelAPIClient,
    settings: Settings,
    *,
    from_date: date,
    to_date: date,
    days: Collection[date] | None = None,
    table: str = EVERY_EVENT.table,
    events: Sequence[str] | None = None,
    where: str | None = None,
    max_days: int = MAX_DAYS,
    at_once: int = 1,
    run_id: str | None = None,
    on_day: Callable[[DayReport, float], None] = _nobody,
    on_request: Callable[[LoadProgress], None] = _nobody,
    on_arrival: Callable[[date, date, int], None] = _nobody,
    keeping: Keeping = KEEP_NONE,
    on_kept: Callable[[Sequence[DayReport]], None] = _nobody,
    on_found: Callable[[Sequence[DayReport]], None] | None = None,
    on_corrected: Callable[[Sequence[DayReport]], None] = _nobody,
    accept_smaller: bool = False,
) -> EventLoad:
    """Return the load of a range of days, both ends included; nothing is asked yet.

    Args:
        client: Who is asked.
        settings: How times are read, how many days share a request, where answers lie.
        from_date: First day, included.
        to_date: Last day, included.
        days: Only these days of the range; no request spans a day between them.
        table: In schema `mixpanel`; a filter has a table of its own.
        events: Only events of these names.
        where: A segmentation expression.
        max_days: The most days that share a request.
        at_once: How many answers are on their way at the same time, while another is stored.
        run_id: Written to the ledger.
        on_day: Told of each day once it is committed, and of the seconds it took.
        on_request: Told how far the load is once an answer is stored.
        on_arrival: Told the days of a request that is on its way, and how many events of it have
            arrived.
        keeping: Says which days stay as they are stored; none by default.
        on_kept: Told of those days, if there are any.
        on_found: Told of days that were committed when the load was interrupted.
        on_corrected: Told of days that lost rows to another day after `on_day` was told of them.
        accept_smaller: Remove the stored rows that the responses lack, except all rows of a day
            that Mixpanel may have deleted for its age.

    Raises:
        ConfigError: The range ends before it begins.
    """
    fixed = settings.days_per_request
    export = client.event_export(
        from_date=from_date,
        to_date=to_date,
        events=events,
        where=where,
        directory=settings.spool_path(client.credentials.project_id),
        at_once=at_once,
    )
    export.on_arrival = on_arrival
    load = EventLoad(
        export=export,
        days=None if days is None else frozenset(days),
        project=project_identity(client.credentials, settings),
        target=Target(table),
        today=settings.today(),
        days_per_request=fixed and min(fixed, max_days),
        max_days=max_days,
        run_id=run_id,
        on_day=on_day,
        on_request=on_request,
        keeping=keeping,
        horizon=settings.horizon(),
        on_kept=on_kept,
        on_found=on_found,
        on_corrected=on_corrected,
        budget=lambda: _present_budget(client),
        reload=Reload(accept_smaller=accept_smaller, deleted_before=settings.deleted_before()),
    )
    if run_id:
        load.export.key = answer_key(run_id, load.project, load.target, load.export.query.filters)
    return load


def _warn_of_loss(days: Mapping[date, int]) -> None:
    """Say what a load that accepts smaller days will remove, as far as the ledger knows."""
    if not days:
        logger.warning(
            "Smaller days are accepted. By the ledger, the last responses lacked no stored row; "
            "rows that Mixpanel does not send now are removed."
        )
        return
    logger.warning(
        "Smaller days are accepted. %s stored rows will be removed if Mixpanel does not send them "
        "now: %s. All rows of a day that Mixpanel may have deleted for its age are kept.",
        f"{sum(days.values()):,}",
        counted(days, most=_MOST_NAMED),
    )


def answer_key(
    run_id: str, project: ProjectIdentity, target: Target, filters: Mapping[str, Any]
) -> str:
    """Return what names the answers that a run gets for a table."""
    of = [run_id, project.region, project.project_id, target.schema, target.table, filters]
    return uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(of, sort_keys=True)).hex


def asked_days(query: ExportQuery, days: Collection[date] | None) -> list[date]:
    """Return the days of a question's range that are meant, in order; None: all of them."""
    every = days_between(query.from_date, query.to_date)
    return every if days is None else [day for day in every if day in days]


def request_plan(
    days: Sequence[date],
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
    return RequestPlan(days, weights, max_days=max_days, fixed=fixed)


def plan_load(
    client: MixpanelAPIClient,
    settings: Settings,
    database: Database,
    *,
    from_date: date,
    to_date: date,
    days: Collection[date] | None = None,
    keeping: Keeping = KEEP_NONE,
) -> Plan:
    """Return what the load of a range of days would take; nothing is asked or stored.

    Args:
        client: Who would be asked.
        settings: How many days share a request, where answers would lie.
        database: It need not exist.
        from_date: First day, included.
        to_date: Last day, included.
        days: Only these days of the range.
        keeping: Says which days would stay as they are stored; none by default.

    Raises:
        ConfigError: The range ends before it begins, or the file holds another project.
    """
    asked = ExportQuery(from_date, to_date)
    project = project_identity(client.credentials, settings)
    horizon, wanted = settings.horizon(), asked_days(asked, days)
    stored = _stored(database, project, asked, keeping, horizon)
    within = [day for day in wanted if not is_expired(day, horizon)]
    loaded = [day for day in within if day not in stored.kept]
    requests = len(list(request_plan(loaded, stored.sizes, settings.days_per_request)))
    return Plan(
        from_date=from_date,
        to_date=to_date,
        days=len(loaded),
        requests=requests,
        confirming=0 if stored.known.issuperset(loaded) else 1,
        expired=len(wanted) - len(within),
        only_here=len(stored.only_here.intersection(wanted)),
        estimated_rows=Estimates(stored.sizes.rows).total(loaded),
        estimated_bytes=Estimates(stored.sizes.received_bytes).total(loaded),
        free_disk_bytes=free_bytes(settings.spool_path(client.credentials.project_id)),
        seconds=_present_budget(client).seconds_for(requests),
    )


@dataclass(frozen=True)
class _Stored:
    """What is stored: how much days weigh; of a range, the days known, kept, and only here."""

    sizes: EventSizes
    known: frozenset[date] = frozenset()
    kept: frozenset[date] = frozenset()
    only_here: frozenset[date] = frozenset()


def _stored(
    database: Database,
    project: ProjectIdentity,
    asked: ExportQuery,
    keeping: Keeping,
    horizon: date | None,
) -> _Stored:
    days = asked.from_date, asked.to_date
    try:
        with database.read() as connection:
            check_loadable(connection, project)
            rows = day_rows(connection, EVENTS.name, *days)
            return _Stored(
                event_sizes(connection),
                frozenset(day for day in rows if rows[day]["status"] != "failed"),
                frozenset(day for day in rows if keeping.keeps(rows[day])),
                frozenset(only_here(connection, horizon, *days)),
            )
    except DatabaseNotFoundError:
        return _Stored(EventSizes({}, {}))


def _present_budget(client: MixpanelAPIClient) -> RequestBudget:
    usage = next(usage for usage in client.quota() if usage.api == "export")
    return RequestBudget(usage.limit, usage.window_seconds, usage.used)
