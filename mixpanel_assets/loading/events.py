"""EventLoad: days of events into an asset table, request by request, and incomplete days."""

from __future__ import annotations

import json
import logging
import time
import uuid
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import duckdb

from mixpanel_assets.client import MixpanelAPIClient, SecondLooks, Spool
from mixpanel_assets.client.export import MOST_BYTES, ExportQuery, days_set_aside
from mixpanel_assets.client.spool import clean, free_bytes, responses_of
from mixpanel_assets.errors import (
    APIError,
    ConnectionFailedError,
    DatabaseNotFoundError,
    IncompleteExportError,
    MixpanelDataError,
    PlanHorizonError,
)
from mixpanel_assets.loading.leases import DayLeases
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
from mixpanel_assets.rules.days import (
    DayRange,
    days_between,
    describe_counts,
    describe_days,
    describe_range,
    describe_rest,
    halves,
    how_to_load,
)
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    EVENTS,
    EVERY_EVENT,
    Database,
    DayReport,
    EventSizes,
    ProjectIdentity,
    Reload,
    ShiftedRowsError,
    StagedDays,
    Status,
    Target,
    check_loadable,
    day_reports,
    day_rows,
    event_sizes,
    events_asset_table,
    forget_expired,
    mark_days,
    mark_failed,
    only_here,
    prepare,
    repeated,
    replace_events,
    stage_days,
)

logger = logging.getLogger(__name__)

_DAY = timedelta(days=1)
# More than any request may weigh, so that no request spans a day that is not planned.
_NOT_PLANNED = MOST_BYTES + 1
_MOST_NAMED = 31
# Dagster kills a cancelled run soon after its interrupt, so the last read must not wait long.
_LAST_READ_SECONDS = 5.0

# Of each day: the rows of a response, and how many of the stored rows it lacked.
Looks = Mapping[date, tuple[int, int]]


class ShrunkenDaysError(IncompleteExportError):
    """A response lacks rows that are stored, and no earlier response lacked the same.

    Attributes:
        days: The days that lack rows.
        looks: What the response had for each of its days.
    """

    def __init__(self, message: str, days: Sequence[date], looks: Looks) -> None:
        super().__init__(
            message, from_date=days[0], to_date=days[-1], reason="stored rows are lacking"
        )
        self.days = days
        self.looks = looks

    def of_day(self, day: date) -> IncompleteExportError:
        """Return the error for one of the days."""
        rows, _ = self.looks[day]
        return IncompleteExportError(
            self.message, from_date=day, to_date=day, reason=self.reason, lines=rows
        )


class LoadListener:
    """Called while days of events are loaded; each method does nothing unless it is overridden."""

    def request_arriving(self, first: date, last: date, events: int) -> None:
        """Called repeatedly while a response for these days, both included, arrives."""

    def request_stored(self, progress: LoadProgress) -> None:
        """Called once a response is stored, before `day_stored` is called for its days."""

    def day_stored(self, report: DayReport, seconds: float) -> None:
        """Called once a day is committed.

        Args:
            report: What is stored now.
            seconds: From the request to the commit, in equal shares for the days of one request.
        """

    def days_kept(self, reports: Sequence[DayReport]) -> None:
        """Called before the first request with days that are not requested, if there are any.

        Days before the horizon come in a call of their own.
        """

    def days_corrected(self, reports: Sequence[DayReport]) -> None:
        """Called with days that lost rows to another day after `day_stored` was called for them.

        This happens in the legacy regime, after a change of the project's zone.
        """

    def days_found(self, reports: Sequence[DayReport]) -> None:
        """Called when a load fails, with committed days that `day_stored` was not called for."""

    def load_ended(self, requests: int) -> None:
        """Called at the end of a load, even if it fails.

        Args:
            requests: Requests of the load that count towards an hourly limit.
        """


class DayReports(LoadListener):
    """Collects the reports of the days that a load stores, by day.

    `on_day` is called with the report of each day once it is committed; for the others see
    `LoadListener.days_kept` and `LoadListener.request_arriving`.
    """

    def __init__(
        self,
        on_day: Callable[[DayReport], None] | None = None,
        on_kept: Callable[[Sequence[DayReport]], None] | None = None,
        on_arrival: Callable[[date, date, int], None] | None = None,
    ) -> None:
        self.by_day: dict[date, DayReport] = {}
        self._on_day = on_day
        self._on_kept = on_kept
        self._on_arrival = on_arrival

    def request_arriving(self, first: date, last: date, events: int) -> None:
        """Call `on_arrival`."""
        if self._on_arrival:
            self._on_arrival(first, last, events)

    def day_stored(self, report: DayReport, seconds: float) -> None:
        """Add the report, and call `on_day`."""
        self.by_day[report.day] = report
        if self._on_day:
            self._on_day(report)

    def days_kept(self, reports: Sequence[DayReport]) -> None:
        """Call `on_kept`."""
        if self._on_kept:
            self._on_kept(reports)

    def days_corrected(self, reports: Sequence[DayReport]) -> None:
        """Replace the reports."""
        self.by_day.update({report.day: report for report in reports})

    def days_found(self, reports: Sequence[DayReport]) -> None:
        """Add the reports, as if the load had reported them in time."""
        for report in reports:
            self.day_stored(report, 0.0)


class EventLoad(Load):
    """A load of a range of days into an asset table of events; nothing is requested before `store`.

    Args:
        client: Sends the requests.
        settings: How times are read, how many days share a request, where responses are kept.
        from_date: First day, included.
        to_date: Last day, included.
        days: Only these days of the range; no request spans a day between them.
        table: In schema `mixpanel`; each filter has a table of its own.
        events: Only events of these names.
        where: A segmentation expression.
        max_days: The most days that share a request.
        days_per_request: Exactly this many days share a request; None: the settings decide.
        at_once: How many responses may arrive at the same time, while another is stored.
        run_id: Written to the ledger.
        listener: Called with what is stored.
        keeping: Decides which days are not requested because of what is stored.
        accept_smaller: Remove the stored rows that the responses lack, except all rows of a day
            that Mixpanel may have deleted for its age.
        materialized: See `Load`.
        asset: The key of the asset in messages; None: `mixpanel/<table>`.

    Attributes:
        export: Downloads the days.
        vanished: By day, the stored rows that are kept though the last response lacked them.

    Raises:
        ConfigError: The range ends before it begins.
    """

    def __init__(
        self,
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
        days_per_request: int | None = None,
        at_once: int = 1,
        run_id: str | None = None,
        listener: LoadListener | None = None,
        keeping: Keeping = KEEP_NONE,
        accept_smaller: bool = False,
        materialized: dict[str, Mapping[str, Any]] | None = None,
        asset: str | None = None,
    ) -> None:
        super().__init__(materialized={} if materialized is None else materialized)
        self._asset = asset
        self._client = client
        self._listener = listener or LoadListener()
        self._keeping = keeping
        self._run_id = run_id
        self._project = settings.project(client.credentials)
        self._load_target = Target(table)
        self._today = settings.today()
        self._load_horizon = settings.horizon()
        self._reload = Reload(accept_smaller, settings.deleted_before())
        self._max_days = max_days
        fixed = days_per_request or settings.days_per_request
        self._days_per_request = fixed and min(fixed, max_days)
        self.vanished: Mapping[date, int] = {}
        self.export = client.event_export(
            from_date=from_date,
            to_date=to_date,
            events=events,
            where=where,
            directory=settings.spool_path(client.credentials.project_id),
            at_once=at_once,
        )
        self.export.on_arrival = self._listener.request_arriving
        self._filters = self.export.query.filters
        self._days = planned_days(self.export.query, days)
        self._mark_days = partial(
            mark_days, run_id=run_id, filters=self._filters, target=self._load_target
        )
        self._mark_failed = partial(
            mark_failed, run_id=run_id, filters=self._filters, target=self._load_target
        )
        if run_id:
            self.export.key = response_key(run_id, self._project, self._load_target, self._filters)

    def store(self, database: Database) -> None:
        """Store request by request; each request's days are replaced in one transaction.

        Raises:
            IncompleteExportError: Days stayed incomplete. Their stored rows are kept, and the
                other days are stored.
            ConfigError: The table belongs to another filter, or the file to another project;
                nothing was requested.
        """
        self._database = database
        self._leases = DayLeases(self._client, database, self._load_target.table, self._run_id)
        # Before the first request, so that a wrong file or another filter's table costs none.
        with database.write() as connection:
            prepare(connection, self._project)
            events_asset_table(connection, self._load_target, self._filters)
            forget_expired(connection, self._load_target, self._load_horizon)
            sizes = event_sizes(connection, self._load_target.table)
            outlived_days, expired_days = self._days_before_horizon(connection)
            kept_days = self._kept_days(connection, self._keeping)
            self.vanished = self._vanished_so_far(connection)
        # Failed loads leave responses; without this, they would fill the disk over time.
        clean(self.export.directory)
        for reports in (outlived_days, kept_days):
            if reports:
                self._listener.days_kept(reports)
        for report in expired_days:
            self._listener.day_stored(report, 0.0)
        self._reported_days = {report.day for report in (*outlived_days, *kept_days, *expired_days)}
        self._begin_load(sizes, kept_days)
        try:
            with self._leases.held(self._planned_days), self.export:
                self._load()
        except BaseException:
            # An interrupt may come after a commit and before the listener was called.
            self._report_found_days()
            raise
        finally:
            self._listener.load_ended(self._client.budget.requests)

    def _days_before_horizon(
        self, connection: duckdb.DuckDBPyConnection
    ) -> tuple[list[DayReport], list[DayReport]]:
        """Return the days before the horizon that are stored, and those that are `expired`."""
        days = [day for day in self._days if is_expired(day, self._load_horizon)]
        if not days:
            return [], []
        self._mark_days(connection, days, "expired")
        reports_by_day = day_reports(connection, days[0], days[-1], table=self._load_target.table)
        reports = [reports_by_day[day] for day in days]
        return (
            [report for report in reports if report.status != "expired"],
            [report for report in reports if report.status == "expired"],
        )

    def _kept_days(
        self, connection: duckdb.DuckDBPyConnection, keeping: Keeping
    ) -> list[DayReport]:
        reports = day_reports(connection, *self._requested_range, table=self._load_target.table)
        rows = day_rows(connection, self._load_target.table, *self._requested_range)
        return [
            reports[day]
            for day in self._days
            if day in rows and keeping.keeps(rows[day]) and not is_expired(day, self._load_horizon)
        ]

    def _vanished_so_far(self, connection: duckdb.DuckDBPyConnection) -> dict[date, int]:
        rows = day_rows(connection, self._load_target.table, *self._requested_range)
        return {day: row["rows_vanished"] for day, row in rows.items() if row["rows_vanished"]}

    @property
    def _requested_range(self) -> DayRange:
        return self.export.query.from_date, self.export.query.to_date

    def _begin_load(self, sizes: EventSizes, kept_days: Sequence[DayReport]) -> None:
        """Plan the requests; nothing is loaded so far."""
        self.export.earlier_spools = self._responses_of_earlier_attempts()
        downloaded = {day for window in self.export.earlier_spools for day in days_between(*window)}
        self._plan = request_plan(
            [day for day in self._days if day not in self._reported_days | downloaded],
            sizes,
            self._days_per_request,
            self._max_days,
        )
        self.export.estimate = self._plan.estimated_bytes
        self._planned_days = downloaded | set(self._plan.days)
        self._days_to_read = set(self._planned_days)
        # A load that continues another one has read its days too.
        is_resumed = self._keeping.refetch is Refetch.missing and bool(self._keeping.run_ids)
        self._read_days = {report.day for report in kept_days} if is_resumed else set[date]()
        if self._reload.accept_smaller:
            _warn_of_loss({d: n for d, n in self.vanished.items() if d not in self._reported_days})
        self._second_looks = SecondLooks(
            self.export.find_days,
            weigh=lambda day: (
                (self._plan.weights.of(day) or 0) if day in self._planned_days else _NOT_PLANNED
            ),
            by_date=self._project.regime == "utc" or self._plan.fixed != 1,
        )
        if self._filters:
            # A filter has few rows and many empty days: one request confirms all of them.
            self._second_looks.most_bytes = None
        self._unconfirmed: set[date] = set()
        self._empty_before: set[date] = set()
        self._incomplete_days: dict[date, IncompleteExportError] = {}
        self._still_stored: set[date] = set()
        self._refused_until = date.min
        self._probed_days: set[date] = set()
        self._newly_vanished = Counter[date]()
        self._rows_removed = Counter[date]()
        self._deleted_days: list[date] = []
        self._days_done: set[date] = set()
        self._out_of_reach = {day for day in self._days if is_expired(day, self._load_horizon)}
        self._rows_loaded = 0
        self._requests_counted = 0
        self._has_warned_of_times = False
        self._load_began = self._request_began = time.monotonic()

    def _responses_of_earlier_attempts(self) -> dict[DayRange, Path]:
        """Return complete responses that earlier attempts downloaded but did not store."""
        if self._keeping.refetch is not Refetch.missing:
            return {}
        keys = {
            response_key(run_id, self._project, self._load_target, self._filters)
            for run_id in self._keeping.run_ids or ()
        }
        from_date, to_date = self._requested_range
        responses_left = dict[DayRange, Path]()
        for (first, last), spool_path in responses_of(self.export.directory, keys).items():
            received_on = datetime.fromtimestamp(spool_path.stat().st_mtime, UTC).date()
            if not self._reported_days.isdisjoint(days_between(first, last)):
                spool_path.unlink(missing_ok=True)  # its days were stored just before the end
            elif from_date <= first <= last <= to_date and last < received_on - _DAY:
                responses_left[first, last] = spool_path  # its days were over, in every zone
        return responses_left

    def _load(self) -> None:
        request_ranges = chain(sorted(self.export.earlier_spools), self._plan)
        try:
            for first, last in self.export.ahead(request_ranges, self._is_one_request):
                self._load_range(first, last)
                if self._second_looks.is_due(self._unconfirmed, last):
                    self._confirm_empty_days()
            self._confirm_empty_days()
        except MixpanelDataError as error:
            if text := self._describe_rest():
                error.add(text)
            raise
        finally:
            self._warn_of_vanished()
            self._suggest_retention()
        if self._incomplete_days:
            incomplete = days_set_aside(
                list(self._incomplete_days.values()),
                self._reachable,
                self._ways_to_load(self._incomplete_days),
            )
            incomplete.partial = len(self._incomplete_days) < len(self._planned_days)
            raise incomplete

    @property
    def _reachable(self) -> int:
        """The number of days that Mixpanel can be asked for."""
        return len(self._days) - len(self._out_of_reach)

    def _describe_rest(self) -> str:
        """Return which days are stored, and how to load the others; empty if none is stored."""
        left = sorted(self._planned_days - self._days_done)
        if not left or len(left) >= self._reachable:
            return ""
        return f"{describe_rest(left, self._reachable)} {self._ways_to_load(left)}"

    def _ways_to_load(self, days: Collection[date]) -> str:
        again = not self._still_stored.isdisjoint(days)
        kept = "Rows of earlier loads are kept. " if again else ""
        ways = how_to_load(days, self._load_target.table, again=again, asset=self._asset)
        return f"{kept}Try again with {ways}."

    def _is_one_request(self, request_range: DayRange) -> bool:
        """Return whether a range will be requested as it is, as far as is known now."""
        first, last = request_range
        return first > self._refused_until and (self._plan.fixed != 1 or first == last)

    def _load_range(self, first: date, last: date) -> None:
        if first > last:
            return
        if first <= self._refused_until:
            self._mark_not_available(first, min(last, self._refused_until))
            self._load_range(self._refused_until + _DAY, last)
        elif self._plan.fixed == 1 and first < last:
            for day in days_between(first, last):
                self._load_range(day, day)
        else:
            self._load_or_split(first, last)

    def _load_or_split(self, first: date, last: date) -> None:
        try:
            self._download_and_store(first, last)
        except ShiftedRowsError as error:
            logger.warning("%s From now on, this project is read one day per request.", error)
            self._read_day_by_day()
            self._load_range(first, last)
        except ShrunkenDaysError as error:
            for day in error.days:
                self._set_day_aside(day, error.of_day(day))
            edges = [first - _DAY, *error.days, last + _DAY]
            for before, after in pairwise(edges):
                self._load_range(before + _DAY, after - _DAY)
        except PlanHorizonError as error:
            self._find_plan_horizon(first, last, error)
        except IncompleteExportError as error:
            if first == last:
                self._set_day_aside(first, error)
                return
            for half in halves(first, last):
                self._load_range(*half)
        except (APIError, ConnectionFailedError) as error:
            self._write_failure(days_between(first, last), error)
            raise

    def _set_day_aside(self, day: date, error: IncompleteExportError) -> None:
        self._days_to_read.discard(day)
        if len(self._planned_days) > 1:
            logger.warning("%s The load continues with the other days.", error)
        self._incomplete_days[day] = error
        self._write_failure([day], error)

    def _write_failure(self, days: Sequence[date], error: MixpanelDataError) -> None:
        """Write to the ledger why days failed, if the database can be written at all."""
        # An error of the ledger must not hide the one that the caller is about to raise.
        with suppress(MixpanelDataError), self._database.write() as connection:
            self._still_stored.update(self._mark_failed(connection, days, error.message))
            self._leases.confirm(days)

    def _download_and_store(self, first: date, last: date) -> None:
        """Store the response for some days; one that cannot be stored is requested once more."""
        earlier_looks: Looks = {}
        load_faults: set[type[IncompleteExportError]] = set()
        while True:
            spool = self.export.download(first, last)
            try:
                return self._store_response(spool, earlier_looks)
            except ShiftedRowsError:
                spool.discard()
                raise
            except IncompleteExportError as error:
                # The same fault twice is not an accident of one response.
                if type(error) in load_faults:
                    self._keep_for_inspection(spool, error)
                    raise
                spool.discard()
                logger.warning("%s Requesting it again.", error)
                load_faults.add(type(error))
                if isinstance(error, ShrunkenDaysError):
                    earlier_looks = error.looks

    def _keep_for_inspection(self, spool: Spool, error: IncompleteExportError) -> None:
        # Only days that are set aside: those of a range that is halved are requested again.
        if spool.from_date == spool.to_date or isinstance(error, ShrunkenDaysError):
            kept_spool = spool.hide()
            logger.warning("The response is kept in %s until `mp clean`.", kept_spool.path)
        else:
            spool.discard()

    def _store_response(self, spool: Spool, earlier_looks: Looks) -> None:
        days = days_between(spool.from_date, spool.to_date)
        requests = self.export.requests
        received = replace(spool, requests=requests - self._requests_counted)
        open_days = [day for day in days if day >= self._today]
        with (
            self._database.staging() as memory,
            stage_days(memory, received, project=self._project, open_days=open_days) as staged,
        ):
            reports = repeated(lambda: self._replace_days(memory, staged, days, earlier_looks))
        spool.discard()
        written_days = {report.day for report in reports}
        if spool.from_date in written_days:
            self._requests_counted = requests
        self._confirm_later([day for day in days if day not in written_days])
        self._learn_sizes(spool, reports)
        self._report_stored_days(days, reports)

    def _replace_days(
        self,
        memory: duckdb.DuckDBPyConnection,
        staged: StagedDays,
        days: Sequence[date],
        earlier_looks: Looks,
    ) -> list[DayReport]:
        """Replace the days by their staged rows, in one transaction."""
        with self._database.write(memory, run_id=self._run_id) as connection:
            reports = replace_events(
                connection,
                staged,
                run_id=self._run_id,
                empty_before=self._empty_before,
                filters=self._filters,
                target=self._load_target,
                reload=replace(
                    self._reload,
                    read=self._read_days.difference(days),
                    to_read=self._days_to_read.difference(days),
                ),
            )
            _refuse_shrunken(reports, earlier_looks)
            self._leases.confirm(days)
        return reports

    def _confirm_later(self, days: Sequence[date]) -> None:
        """Remember days without events, which are requested once more before they are stored."""
        self._unconfirmed.update(days)
        self._empty_before.update(days)
        for day in days:
            self._plan.learn(day, 0)

    def _confirm_empty_days(self) -> None:
        """Write days as `empty` that have no event in a second response; load the others."""
        empty_days, self._unconfirmed = self._unconfirmed, set()
        try:
            for confirmed in self._second_looks.confirm(sorted(empty_days)):
                empty_days.difference_update(confirmed.empty, confirmed.doubtful)
                loaded_meanwhile = self._mark_empty(confirmed.empty) if confirmed.empty else []
                doubtful = sorted([*confirmed.doubtful, *loaded_meanwhile])
                for first, last in self._plan.again(doubtful):
                    self._load_range(first, last)
        except (APIError, ConnectionFailedError) as error:
            if empty_days:  # else it was the load of a day that is not empty, which has written it
                self._write_failure(sorted(empty_days), error)
            raise

    def _mark_empty(self, days: Sequence[date]) -> list[date]:
        """Write days as `empty`; return those that another process has loaded by now."""
        requests = self.export.requests
        reports = self._mark(days, "empty", requests=requests - self._requests_counted)
        self._requests_counted = requests
        self._report_stored_days(days, [report for report in reports if not report.row_count])
        return [report.day for report in reports if report.row_count]

    def _mark(self, days: Sequence[date], status: Status, *, requests: int = 0) -> list[DayReport]:
        def mark() -> list[DayReport]:
            with self._database.write(run_id=self._run_id) as connection:
                reports = self._mark_days(connection, days, status, requests=requests)
                self._leases.confirm(days)
            return reports

        return repeated(mark)

    def _read_day_by_day(self) -> None:
        self._plan.fixed = 1
        self._second_looks.by_date = False

    def _learn_sizes(self, spool: Spool, reports: Sequence[DayReport]) -> None:
        for report in reports:
            # An open day still grows, so its size says nothing about other days.
            if report.status != "open":
                share_of_response = report.bytes / max(1, spool.received_bytes)
                self._plan.learn(report.day, round(share_of_response * spool.json_bytes))
            if report.shifted_rows:
                self._read_day_by_day()

    def _report_stored_days(self, days: Sequence[date], reports: Sequence[DayReport]) -> None:
        """Report that a response for the days is stored, and the days that are done with it."""
        self._read_days |= set(days)
        self._days_to_read -= set(days)
        now = time.monotonic()
        seconds, self._request_began = now - self._request_began, now
        self._listener.request_stored(self._load_progress(days, reports))
        for report in reports:
            if report.time_warning and not self._has_warned_of_times:
                self._has_warned_of_times = True  # the same holds for every day
                logger.warning("%s", report.time_warning)
            logger.debug("%s: %s events, %s", report.day, f"{report.row_count:,}", report.status)
            self._count_vanished(report)
            self._listener.day_stored(report, seconds / len(reports))
            self._reported_days.add(report.day)
            if corrected := [day for day in report.corrected if day.day in self._reported_days]:
                self._listener.days_corrected(corrected)

    def _count_vanished(self, report: DayReport) -> None:
        vanished = {**self.vanished, report.day: report.rows_vanished}
        vanished.update({d.day: d.rows_vanished for d in report.corrected if d.day in vanished})
        self.vanished = {day: rows for day, rows in sorted(vanished.items()) if rows}
        accepts = self._reload.accept_smaller
        newly_vanished = report.rows_vanished if accepts else report.newly_vanished
        self._newly_vanished[report.day] += newly_vanished
        for day in report.corrected:
            self._newly_vanished[day.day] = min(self._newly_vanished[day.day], day.rows_vanished)
        self._rows_removed[report.day] += report.rows_removed
        if report.is_only_here and report.day < self._reload.deleted_before:
            self._deleted_days.append(report.day)

    def _report_found_days(self) -> None:
        """Report days that this load has committed and not reported."""
        if self._run_id is None:
            return
        database, by_run = self._database, Keeping(Refetch.missing, frozenset({self._run_id}))
        hurried_database = database.reader(_LAST_READ_SECONDS)
        with suppress(MixpanelDataError), hurried_database.read() as connection:
            stored_days = self._kept_days(connection, by_run)
            if found := [report for report in stored_days if report.day not in self._reported_days]:
                self._listener.days_found(found)

    def _warn_of_vanished(self) -> None:
        """Log which stored rows the responses lacked, and whether they were removed or kept."""
        if removed_rows := +self._rows_removed:
            logger.warning(
                "Removed %s stored rows that Mixpanel's responses lack: %s.",
                f"{removed_rows.total():,}",
                describe_counts(removed_rows),
            )
        if not (vanished_rows := +self._newly_vanished):
            return
        rows, days = f"{vanished_rows.total():,}", describe_counts(vanished_rows)
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
        """Log which setting saves the requests for old days that Mixpanel seems to have deleted."""
        if not self._deleted_days:
            return
        logger.warning(
            "Mixpanel has no events of %s any more; the stored ones are kept. It deletes events "
            "after two years (older projects: five). Set MP_RETENTION_DAYS to the number of days "
            "that it keeps, so that older ones are not requested again.",
            describe_days(self._deleted_days),
        )

    def _load_progress(self, days: Sequence[date], reports: Sequence[DayReport]) -> LoadProgress:
        self._days_done.update(days)
        self._rows_loaded += sum(report.row_count for report in reports)
        return LoadProgress(
            from_date=days[0],
            to_date=days[-1],
            request_days=len(days),
            days_done=len(self._days_done),
            days=len(self._planned_days),
            rows=self._rows_loaded,
            seconds=time.monotonic() - self._load_began,
            requests_to_come=self._plan.requests_after(max(self._days_done)),
            budget=export_budget(self._client),
        )

    def _find_plan_horizon(self, first: date, last: date, error: PlanHorizonError) -> None:
        """Find the last refused day with few requests; those before it need none then."""
        # Mixpanel names the plan's reach. If the last day outside it is refused, so are all
        # before it, in this range and in later ones. If not, halves will find the edge.
        edge = self._last_planned_day(self._today - timedelta(days=error.days + 1), first)
        if first == last:
            self._refused_until = last
        is_found = edge >= first and edge > self._refused_until and self._is_refused_by_plan(edge)
        if is_found or first == last:
            self._load_range(first, last)
            return
        # The later half first: if its beginning is refused, the earlier half needs no request.
        for half in reversed(halves(first, last)):
            self._load_range(*half)

    def _last_planned_day(self, day: date, default: date) -> date:
        """Return the last planned day up to a day; other days are not requested."""
        place = bisect(self._plan.days, day)
        return self._plan.days[place - 1] if place else default

    def _is_refused_by_plan(self, day: date) -> bool:
        if day in self._probed_days:
            return False
        self._probed_days.add(day)
        try:
            self.export.download(day, day).discard()
        except PlanHorizonError:
            self._refused_until = day
        except IncompleteExportError:
            pass  # at least it was not refused
        return self._refused_until == day

    def _mark_not_available(self, first: date, last: date) -> None:
        days = days_between(first, last)
        reports = self._mark(days, "not available")
        self._out_of_reach.update(days)
        logger.warning(
            "%s: not available, the project's plan does not reach that far back. "
            "Stored rows are kept; MP_START_DATE can leave these days out.",
            describe_range(first, last),
        )
        self._report_stored_days(days, reports)


def _refuse_shrunken(reports: Sequence[DayReport], earlier_looks: Looks) -> None:
    """Raise unless each day that lacks stored rows lacked the same in the earlier response."""
    # A response that looks complete can still lack rows for a while. Two responses that lack the
    # same rows are accepted.
    shrunken_days = [
        report
        for report in reports
        if report.needs_second_look and earlier_looks.get(report.day) != report.look
    ]
    if not shrunken_days:
        return
    looks = "; ".join(
        f"{report.day} holds {report.rows_before:,} rows, "
        + (
            f"first received {_look_in_words(earlier_looks[report.day])}, then "
            if report.day in earlier_looks
            else ""
        )
        + ("" if report.day in earlier_looks else "now received ")
        + _look_in_words(report.look)
        for report in shrunken_days
    )
    raise ShrunkenDaysError(
        f"Responses lack rows that are stored: {looks}. The stored rows of these days are kept.",
        [report.day for report in shrunken_days],
        {report.day: report.look for report in reports},
    )


def _look_in_words(look: tuple[int, int]) -> str:
    return f"{look[0]:,} without {look[1]:,} of the stored ones"


def _warn_of_loss(days: Mapping[date, int]) -> None:
    """Say what a load that accepts smaller days will remove, as far as the ledger knows."""
    if not days:
        logger.warning(
            "Smaller days are accepted. According to the ledger, the last responses lacked no "
            "stored row; "
            "rows that Mixpanel does not send now are removed."
        )
        return
    logger.warning(
        "Smaller days are accepted. %s stored rows will be removed if Mixpanel does not send them "
        "now: %s. All rows of a day that Mixpanel may have deleted for its age are kept.",
        f"{sum(days.values()):,}",
        describe_counts(days, most=_MOST_NAMED),
    )


def response_key(
    run_id: str, project: ProjectIdentity, target: Target, filters: Mapping[str, Any]
) -> str:
    """Return the name under which a run keeps the responses for a table."""
    key_parts = [run_id, project.region, project.project_id, target.schema, target.table, filters]
    return uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(key_parts, sort_keys=True)).hex


def planned_days(query: ExportQuery, days: Collection[date] | None) -> list[date]:
    """Return those days of a query's range that are in `days`, in order; None: all of them."""
    range_of_days = days_between(query.from_date, query.to_date)
    return range_of_days if days is None else [day for day in range_of_days if day in days]


def request_plan(
    days: Sequence[date], sizes: EventSizes, days_per_request: int | None, max_days: int = MAX_DAYS
) -> RequestPlan:
    """Return which days share a request, by what is stored."""
    weights = {
        day: round(received_bytes * JSON_PER_RECEIVED_BYTE)
        for day, received_bytes in sizes.received_bytes.items()
    }
    # In a project that ever had rows of other dates, only the request says which export day a
    # row belongs to.
    fixed_days = 1 if sizes.shifted else days_per_request
    return RequestPlan(days, weights, max_days=max_days, fixed=fixed_days)


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
    """Return what the load of a range of days would take; nothing is requested or stored.

    For the arguments see `EventLoad`; the database need not exist.

    Raises:
        ConfigError: The range ends before it begins, or the file holds another project.
    """
    query = ExportQuery(from_date, to_date)
    project = settings.project(client.credentials)
    horizon, planned = settings.horizon(), planned_days(query, days)
    stored_days = _read_stored_days(database, project, query, keeping, horizon)
    requested_days = [day for day in planned if not is_expired(day, horizon)]
    days_to_load = [day for day in requested_days if day not in stored_days.kept]
    requests = len(list(request_plan(days_to_load, stored_days.sizes, settings.days_per_request)))
    return Plan(
        from_date=from_date,
        to_date=to_date,
        days=len(days_to_load),
        requests=requests,
        confirming=0 if stored_days.known.issuperset(days_to_load) else 1,
        expired=len(planned) - len(requested_days),
        only_here=len(stored_days.only_here.intersection(planned)),
        estimated_rows=Estimates(stored_days.sizes.rows).total(days_to_load),
        estimated_bytes=Estimates(stored_days.sizes.received_bytes).total(days_to_load),
        free_disk_bytes=free_bytes(settings.spool_path(client.credentials.project_id)),
        seconds=export_budget(client).seconds_for(requests),
    )


@dataclass(frozen=True)
class _StoredDays:
    """What is stored: the sizes of days; of a range, the days known, kept, and only here."""

    sizes: EventSizes
    known: frozenset[date] = frozenset()
    kept: frozenset[date] = frozenset()
    only_here: frozenset[date] = frozenset()


def _read_stored_days(
    database: Database,
    project: ProjectIdentity,
    query: ExportQuery,
    keeping: Keeping,
    horizon: date | None,
) -> _StoredDays:
    days = query.from_date, query.to_date
    try:
        with database.read() as connection:
            check_loadable(connection, project)
            rows = day_rows(connection, EVENTS.name, *days)
            return _StoredDays(
                event_sizes(connection),
                frozenset(day for day in rows if rows[day]["status"] != "failed"),
                frozenset(day for day in rows if keeping.keeps(rows[day])),
                frozenset(only_here(connection, horizon, *days)),
            )
    except DatabaseNotFoundError:
        return _StoredDays(EventSizes({}, {}))


def export_budget(client: MixpanelAPIClient) -> RequestBudget:
    """Return what is spent of the export requests of this hour."""
    usage = next(usage for usage in client.quota() if usage.api == "export")
    return RequestBudget(usage.limit, usage.window_seconds, usage.used)
