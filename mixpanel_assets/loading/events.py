"""EventLoad: days of events into an asset table, request by request, and what happens to bad days.

`DayFiller` is the loop: it downloads, stores, halves a range that stays broken, and fails
single days without stopping the others.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import duckdb

from mixpanel_assets.client import EventExport, MixpanelAPIClient, SecondLooks, Spool
from mixpanel_assets.client.export import MOST_BYTES, ExportQuery, days_set_aside
from mixpanel_assets.client.spool import answers_of, clean, free_bytes
from mixpanel_assets.errors import (
    APIError,
    ConnectionFailedError,
    DatabaseNotFoundError,
    IncompleteExportError,
    MixpanelDataError,
    PlanHorizonError,
)
from mixpanel_assets.loading.load import Load
from mixpanel_assets.loading.plan import (
    JSON_PER_RECEIVED_BYTE,
    KEEP_NONE,
    MAX_DAYS,
    Estimates,
    Keeping,
    LoadProgress,
    Plan,
    Refetch,
    RequestBudget,
    RequestPlan,
    is_expired,
)
from mixpanel_assets.rules.days import counted, days_between, halves, how_to_load, ranges_of, shown
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
    ShiftedRowsError,
    Status,
    Target,
    check_loadable,
    database_at,
    day_reports,
    day_rows,
    event_sizes,
    events_asset_table,
    forget_expired,
    mark_days,
    mark_failed,
    only_here,
    prepare,
    replace_events,
)

logger = logging.getLogger(__name__)


_DAY = timedelta(days=1)
_NOT_ASKED = MOST_BYTES + 1  # so that no request spans a day that is not planned

Looks = Mapping[date, tuple[int, int]]


class ShrunkenDaysError(IncompleteExportError):
    """A response lacks rows that are stored, and no earlier response says the same.

    Attributes:
        days: The days that lack rows.
        answered: Of each asked day, how many rows the response had and how many it lacked.
    """

    def __init__(self, message: str, days: Sequence[date], answered: Looks) -> None:
        super().__init__(
            message, from_date=days[0], to_date=days[-1], reason="stored rows are lacking"
        )
        self.days = days
        self.answered = answered

    def alone(self, day: date) -> IncompleteExportError:
        """Return the error for one of the days."""
        rows, _ = self.answered[day]
        return IncompleteExportError(
            self.message, from_date=day, to_date=day, reason=self.reason, lines=rows
        )


class DayFiller:
    """Fills the planned days of a table, once.

    Args:
        export: Fetches days; open; its filter is that of the table.
        database: Where they go.
        plan: Which days share a request; told what days turn out to weigh.
        project: Whose events they are.
        target: The table.
        today: Days from here on are stored as `open`.
        run_id: Written to the ledger.
        on_day: Told of each day that is settled, and how many seconds it took.
        on_request: Told how far the filling is, before `on_day` is told of a request's days.
        budget: Says what may still be asked this hour.
        reload: What may be removed of what is stored, and which days this load has read already.
    """

    def __init__(
        self,
        export: EventExport,
        database: Database,
        plan: RequestPlan,
        *,
        project: ProjectIdentity,
        target: Target,
        today: date,
        run_id: str | None,
        on_day: Callable[[DayReport, float], None],
        on_request: Callable[[LoadProgress], None],
        budget: Callable[[], RequestBudget | None],
        reload: Reload = KEEP_ALL,
    ) -> None:
        self._export = export
        self._database = database
        self._plan = plan
        self._project = project
        self._target = target
        self._today = today
        self._run_id = run_id
        self._on_day = on_day
        self._on_request = on_request
        self._budget = budget
        self._reload = reload
        self._read = set(reload.read)
        self._to_read = {day for window in export.found for day in days_between(*window)}
        self._to_read |= set(plan.days)
        self._vanished = Counter[date]()
        self._removed = Counter[date]()
        self._deleted: list[date] = []
        self._broken: dict[date, IncompleteExportError] = {}
        self._still_stored: set[date] = set()
        self._refused_until = date.min
        self._probed: set[date] = set()
        self._requests_told = 0
        self._warned = False
        self._unconfirmed: set[date] = set()
        self._empty_before: set[date] = set()
        planned = frozenset(self._to_read)
        self._looks = SecondLooks(
            export.find_days,
            weigh=lambda day: (plan.weights.of(day) or 0) if day in planned else _NOT_ASKED,
            by_date=project.regime == "utc" or plan.fixed != 1,
        )
        if export.query.filters:
            self._looks.most_bytes = None  # its rows are few, and its empty days many
        self._days = len(planned)
        self._answered: set[date] = set()
        self._rows = 0
        self._began = self._started = time.monotonic()

    def fill(self) -> None:
        """Fetch and store every day.

        Raises:
            IncompleteExportError: Days were set aside; the others are stored.
        """
        windows = chain(sorted(self._export.found), self._plan)
        try:
            for first, last in self._export.ahead(windows, self._is_one_request):
                self._fill(first, last)
                if self._looks.is_due(self._unconfirmed, last):
                    self._confirm_empty_days()
            self._confirm_empty_days()
        finally:
            self._tell_of_vanished()
            self._suggest_retention()
        if self._broken:
            raise self._days_missing()

    def _days_missing(self) -> IncompleteExportError:
        """Return the error that says what is stored, what is not and why, and what to run."""
        again = bool(self._still_stored)
        kept = "Rows of earlier loads are kept. " if again else ""
        ways = how_to_load(self._broken, self._target.table, again=again)
        return days_set_aside(
            list(self._broken.values()), self._days, f"{kept}Try again with {ways}."
        )

    def _is_one_request(self, window: tuple[date, date]) -> bool:
        """Tell whether a window will be asked for as it is, by what is known now."""
        first, last = window
        return first > self._refused_until and (self._plan.fixed != 1 or first == last)

    def _fill(self, first: date, last: date) -> None:
        if first > last:
            return
        if first <= self._refused_until:
            self._mark_not_available(first, min(last, self._refused_until))
            self._fill(self._refused_until + _DAY, last)
        elif self._plan.fixed == 1 and first < last:
            for day in days_between(first, last):
                self._fill(day, day)
        else:
            self._ask(first, last)

    def _ask(self, first: date, last: date) -> None:
        try:
            self._fetch_and_store(first, last)
        except ShiftedRowsError as error:
            logger.warning("%s From now on, this project is read one day per request.", error)
            self._read_day_by_day()
            self._fill(first, last)
        except ShrunkenDaysError as error:
            for day in error.days:
                self._set_aside(day, error.alone(day))
            edges = [first - _DAY, *error.days, last + _DAY]
            for before, after in pairwise(edges):
                self._fill(before + _DAY, after - _DAY)
        except PlanHorizonError as error:
            self._find_horizon(first, last, error)
        except IncompleteExportError as error:
            if first == last:
                self._set_aside(first, error)
                return
            for half in halves(first, last):
                self._fill(*half)
        except (APIError, ConnectionFailedError) as error:
            self._write_failure(days_between(first, last), error)
            raise

    def _set_aside(self, day: date, error: IncompleteExportError) -> None:
        self._to_read.discard(day)
        if self._days > 1:
            logger.warning("%s The other days go on.", error)
        self._broken[day] = error
        self._write_failure([day], error)

    def _write_failure(self, days: Sequence[date], error: MixpanelDataError) -> None:
        """Write to the ledger why days failed, if the database can be written at all."""
        with suppress(MixpanelDataError), self._database.write() as connection:
            self._still_stored.update(
                mark_failed(
                    connection,
                    days,
                    error.message,
                    run_id=self._run_id,
                    filters=self._export.query.filters,
                    target=self._target,
                )
            )

    def _fetch_and_store(self, first: date, last: date) -> None:
        """Settle one window; an answer that cannot be stored is asked for once more."""
        answered: Looks = {}
        complaints: set[type[IncompleteExportError]] = set()
        while True:
            spool = self._export.download(first, last)
            try:
                return self._store(spool, answered)
            except ShiftedRowsError:
                spool.discard()
                raise
            except IncompleteExportError as error:
                if type(error) in complaints:
                    self._leave(spool, error)
                    raise
                spool.discard()
                logger.warning("%s Asking again.", error)
                complaints.add(type(error))
                if isinstance(error, ShrunkenDaysError):
                    answered = error.answered

    def _leave(self, spool: Spool, error: IncompleteExportError) -> None:
        """Keep the answer of a day that is set aside; parts of any other come again."""
        if spool.from_date == spool.to_date or isinstance(error, ShrunkenDaysError):
            kept = spool.anonymous()
            logger.warning("The answer stays in %s until `mp clean`.", kept.path)
        else:
            spool.discard()

    def _store(self, spool: Spool, answered: Looks) -> None:
        days = days_between(spool.from_date, spool.to_date)
        requests = self._export.requests
        with self._database.write() as connection:
            reports = replace_events(
                connection,
                spool.path,
                from_date=spool.from_date,
                to_date=spool.to_date,
                lines=spool.lines,
                names_once=spool.names_once,
                project=self._project,
                received_bytes=spool.received_bytes,
                requests=requests - self._requests_told,
                received_at=spool.received_at,
                run_id=self._run_id,
                open_days=[day for day in days if day >= self._today],
                empty_before=self._empty_before,
                filters=self._export.query.filters,
                target=self._target,
                reload=replace(
                    self._reload,
                    read=self._read.difference(days),
                    to_read=self._to_read.difference(days),
                ),
            )
            _refuse_shrunken(reports, answered)
        spool.discard()
        written = {report.day for report in reports}
        if spool.from_date in written:
            self._requests_told = requests
        self._put_off([day for day in days if day not in written])
        self._learn(spool, reports)
        self._tell(days, reports)

    def _put_off(self, days: Sequence[date]) -> None:
        """Take note of days without events, to be requested once more."""
        self._unconfirmed.update(days)
        self._empty_before.update(days)
        for day in days:
            self._plan.learn(day, 0)

    def _confirm_empty_days(self) -> None:
        """Write days as `empty` that have no event in a second response; load the others."""
        days, self._unconfirmed = self._unconfirmed, set()
        try:
            for answer in self._looks.confirm(sorted(days)):
                days.difference_update(answer.empty, answer.doubtful)
                loaded_meanwhile = self._mark_empty(answer.empty) if answer.empty else []
                for first, last in self._plan.again(sorted([*answer.doubtful, *loaded_meanwhile])):
                    self._fill(first, last)
        except (APIError, ConnectionFailedError) as error:
            if days:  # else it was the load of a day that is not empty, which has written it
                self._write_failure(sorted(days), error)
            raise

    def _mark_empty(self, days: Sequence[date]) -> list[date]:
        """Write days as `empty`; return those that another process has loaded by now."""
        requests = self._export.requests
        reports = self._mark(days, "empty", requests=requests - self._requests_told)
        self._requests_told = requests
        self._tell(days, [report for report in reports if not report.row_count])
        return [report.day for report in reports if report.row_count]

    def _read_day_by_day(self) -> None:
        self._plan.fixed = 1
        self._looks.by_date = False

    def _learn(self, spool: Spool, reports: Sequence[DayReport]) -> None:
        for report in reports:
            if report.status != "open":
                share = report.bytes / max(1, spool.received_bytes)
                self._plan.learn(report.day, round(share * spool.json_bytes))
            if report.shifted_rows:
                self._read_day_by_day()

    def _tell(self, days: Sequence[date], reports: Sequence[DayReport]) -> None:
        """Tell that days have been answered, and of those that are settled by it."""
        self._read |= set(days)
        self._to_read -= set(days)
        seconds, self._started = time.monotonic() - self._started, time.monotonic()
        self._on_request(self._progress(days, reports))
        for report in reports:
            if report.time_warning and not self._warned:
                self._warned = True  # the same holds for every day
                logger.warning("%s", report.time_warning)
            logger.debug("%s: %s events, %s", report.day, f"{report.row_count:,}", report.status)
            accepts = self._reload.accept_smaller
            self._vanished[report.day] += report.rows_vanished if accepts else report.newly_vanished
            for day in report.corrected:
                self._vanished[day.day] = min(self._vanished[day.day], day.rows_vanished)
            self._removed[report.day] += report.rows_removed
            if report.is_only_here and report.day < self._reload.deleted_before:
                self._deleted.append(report.day)
            self._on_day(report, seconds)

    def _tell_of_vanished(self) -> None:
        """Say which stored rows did not come any more, and what became of them."""
        if removed := +self._removed:
            logger.warning(
                "Removed %s stored rows that Mixpanel's responses lack: %s.",
                f"{removed.total():,}",
                counted(removed),
            )
        if not (vanished := +self._vanished):
            return
        rows, days = f"{vanished.total():,}", counted(vanished)
        if self._reload.accept_smaller:
            logger.warning(
                "Kept %s rows of days for which Mixpanel sent nothing: %s. They are so old that it "
                "may have deleted them for their age, and this copy may be the last one. Only "
                "`mp drop-day DAY` removes them.",
                rows,
                days,
            )
            return
        logger.warning(
            "Mixpanel's responses lack %s rows that are stored: %s. They are kept. To remove such "
            "rows, load their days again with `accept_smaller` (`mp sync --accept-smaller`).",
            rows,
            days,
        )

    def _suggest_retention(self) -> None:
        """Say how to spend no more requests on old days that Mixpanel has deleted, it seems."""
        if not self._deleted:
            return
        logger.warning(
            "Mixpanel has no events of %s any more; the stored ones are kept. It deletes events "
            "after two years (older projects: five). Set MP_RETENTION_DAYS to the number of days "
            "that it keeps, so that older ones are not requested again.",
            shown(ranges_of(self._deleted)),
        )

    def _progress(self, days: Sequence[date], reports: Sequence[DayReport]) -> LoadProgress:
        self._answered.update(days)
        self._rows += sum(report.row_count for report in reports)
        return LoadProgress(
            from_date=days[0],
            to_date=days[-1],
            days_done=len(self._answered),
            days=self._days,
            rows=self._rows,
            seconds=time.monotonic() - self._began,
            requests_to_come=self._plan.requests_after(max(self._answered)),
            budget=self._budget(),
        )

    def _find_horizon(self, first: date, last: date, error: PlanHorizonError) -> None:
        """Find the last refused day with few requests; those before it need none then."""
        # Mixpanel names the plan's reach. If the last day outside it is refused, so are all
        # before it, in this window and in later ones; if not, halves will find the edge.
        edge = self._last_planned(self._today - timedelta(days=error.days + 1), first)
        if first == last:
            self._refused_until = last
        settled = edge >= first and edge > self._refused_until and self._is_refused(edge)
        if settled or first == last:
            self._fill(first, last)
            return
        for half in reversed(halves(first, last)):
            self._fill(*half)

    def _last_planned(self, day: date, default: date) -> date:
        """Return the last planned day up to a day; only planned days are asked for."""
        at = bisect(self._plan.days, day)
        return self._plan.days[at - 1] if at else default

    def _is_refused(self, day: date) -> bool:
        if day in self._probed:
            return False
        self._probed.add(day)
        try:
            self._export.download(day, day).discard()
        except PlanHorizonError:
            self._refused_until = day
        except IncompleteExportError:
            pass  # at least it was no refusal
        return self._refused_until == day

    def _mark_not_available(self, first: date, last: date) -> None:
        days = days_between(first, last)
        reports = self._mark(days, "not available")
        logger.warning(
            "%s..%s: not available, the project's plan does not reach that far back. "
            "What was stored before stays; MP_START_DATE can leave these days out.",
            first,
            last,
        )
        self._tell(days, reports)

    def _mark(self, days: Sequence[date], status: Status, *, requests: int = 0) -> list[DayReport]:
        with self._database.write() as connection:
            return mark_days(
                connection,
                days,
                status,
                requests=requests,
                run_id=self._run_id,
                filters=self._export.query.filters,
                target=self._target,
            )


def _refuse_shrunken(reports: Sequence[DayReport], answered: Looks) -> None:
    """Raise unless each day that lacks stored rows looked the same in the earlier response."""
    shrunken = [
        report
        for report in reports
        if report.needs_second_look and answered.get(report.day) != report.look
    ]
    if not shrunken:
        return
    seen = "; ".join(
        f"{report.day} holds {report.rows_before:,} rows, "
        + (f"first came {_said(answered[report.day])}, then " if report.day in answered else "")
        + ("" if report.day in answered else "now came ")
        + _said(report.look)
        for report in shrunken
    )
    raise ShrunkenDaysError(
        f"Responses lack rows that are stored: {seen}. These days keep what they held.",
        [report.day for report in shrunken],
        {report.day: report.look for report in reports},
    )


def _said(look: tuple[int, int]) -> str:
    return f"{look[0]:,} without {look[1]:,} of the stored ones"


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
        hurried = database_at(
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
        project=settings.project(client.credentials),
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
    project = settings.project(client.credentials)
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
