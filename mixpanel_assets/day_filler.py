"""DayFiller: the loop that downloads days, stores them, and deals with days that will not come.

| what came                           | what happens                                              |
|-------------------------------------|-----------------------------------------------------------|
| not whole, or not the asked days    | asked again; then in halves; one bad day is set aside     |
| rows that are stored are lacking    | asked again; if both answers agree, the rows are kept     |
| no event of a day, for the first time | requested again; `empty` if there is none again        |
| legacy: rows of dates around        | one day per request, for these days and all that follow   |
| refused: before the plan's horizon  | `not available`; what is stored stays                     |

Days that are set aside keep what they held, and the ledger says why they failed. The others go on,
and the end is an error that names them.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, timedelta
from itertools import chain, pairwise

from mixpanel_assets.client import EventExport, SecondLooks, Spool
from mixpanel_assets.client.export import MOST_BYTES, days_set_aside
from mixpanel_assets.errors import (
    APIError,
    ConnectionFailedError,
    IncompleteExportError,
    MixpanelDataError,
    PlanHorizonError,
)
from mixpanel_assets.load_progress import LoadProgress
from mixpanel_assets.planning import RequestBudget, RequestPlan, days_between
from mixpanel_assets.rules.days import counted, how_to_load, ranges_of, shown
from mixpanel_assets.warehouse import (
    KEEP_ALL,
    Database,
    DayReport,
    ProjectIdentity,
    Reload,
    ShiftedRowsError,
    Status,
    Target,
    mark_days,
    mark_failed,
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
            middle = first + (last - first) // 2
            self._fill(first, middle)
            self._fill(middle + _DAY, last)
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
        middle = first + (last - first) // 2
        self._fill(middle + _DAY, last)
        self._fill(first, middle)

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
