"""Events into a named table, in one transaction or batch by batch."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any

from mixpanel_assets.client import EventExport, ExportQuery, MixpanelAPIClient, SecondLooks, Spool
from mixpanel_assets.client.export import MOST_BYTES, Confirmed, in_parts
from mixpanel_assets.errors import (
    ConfigError,
    ConnectionFailedError,
    DatabaseNotFoundError,
    IncompleteExportError,
    MixpanelDataError,
    ServerError,
    TableExistsError,
)
from mixpanel_assets.loading.events import request_plan
from mixpanel_assets.loading.plan import RequestPlan
from mixpanel_assets.loading.results import BatchProgress, BatchResult
from mixpanel_assets.rules.days import DayRange, days_between
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    EVENTS,
    Database,
    DayReport,
    EventSizes,
    StagedDays,
    append_events,
    check_before_load,
    check_name,
    check_table,
    event_sizes,
    free_table_name,
    mark_empty_days,
    named_events,
    prepare,
    stage_days,
)

if TYPE_CHECKING:
    import duckdb

logger = logging.getLogger(__name__)

OnBatchComplete = Callable[[BatchProgress], None]


@dataclass(frozen=True, kw_only=True)
class FetchRequest:
    """The arguments of `FetcherService.fetch_events`, where they are explained, as checked.

    A wrong one is a `ConfigError`, whose message names it.
    """

    name: str
    query: ExportQuery
    append: bool
    replace: bool
    parallel: bool
    chunk_days: int
    batch_size: int

    def __post_init__(self) -> None:
        check_name(self.name)
        _check_number("chunk_days", self.chunk_days, 1, 100)
        check_batch_size(self.batch_size)
        if self.append and self.replace:
            raise ConfigError("Give append or replace, not both.")
        if self.parallel and self.query.limit is not None:
            raise ConfigError(
                "limit is for a sequential fetch: requests that run at once cannot share it."
            )
        if self.is_asset and (self.query.filters or self.query.limit is not None):
            raise ConfigError(
                "The table `events` holds complete days. Choose another name for a part of them."
            )

    @property
    def is_asset(self) -> bool:
        """Whether the table is the asset's own."""
        return self.name == EVENTS.name

    @property
    def date_range(self) -> tuple[str, str]:
        """First and last day as text, both included."""
        return self.query.from_date.isoformat(), self.query.to_date.isoformat()


def check_batch_size(batch_size: int) -> None:
    """Raise `ConfigError` unless it is a number from 100 to 100,000."""
    _check_number("batch_size", batch_size, 100, 100_000)


def _check_number(name: str, value: int, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(f"{name} must be a number from {least} to {most:,}, not {value!r}.")


@dataclass(frozen=True)
class Response:
    """A complete response on disk.

    Attributes:
        spool: The file.
        limit: The limit of its request, if that cut events off.
    """

    spool: Spool
    limit: int | None = None


class UnstorableError(IncompleteExportError):
    """A response is complete, but does not hold the requested days."""

    def __init__(self, response: Response, error: IncompleteExportError) -> None:
        super().__init__(
            error.message,
            from_date=error.from_date,
            to_date=error.to_date,
            reason=error.reason,
            lines=error.lines,
        )
        self.response = response


class UnconfirmedDaysError(Exception):
    """Days have no events in a response, and no second response has confirmed it."""

    def __init__(self, days: set[date]) -> None:
        super().__init__(f"{len(days)} days without events are not confirmed")
        self.days = days


class EventTable:
    """The table that a fetch fills.

    Attributes:
        sizes: Of days, as far as the asset's table holds them.
        is_replaced: Whether an old table is kept until everything has arrived.
        rows: Events stored so far, each once.
        empty_before: Days without events in a response; a second such response confirms them.

    Raises:
        ConfigError: The file holds another project, or the table something else.
        TableExistsError: The table exists and is neither appended to nor replaced.
    """

    def __init__(
        self,
        client: MixpanelAPIClient,
        database: Database,
        settings: Settings,
        request: FetchRequest,
    ) -> None:
        self._database = database
        self._settings = settings
        self._request = request
        self._run_id = uuid.uuid4().hex
        self.project = settings.project(client.credentials)
        self.sizes = EventSizes({}, {})
        self.is_replaced = False
        self.rows = 0
        self.empty_before: set[date] = set()
        check_before_load(database, self.project)
        with suppress(DatabaseNotFoundError), database.read() as connection:
            self._inspect_table(connection)
        self._is_new_table = not request.append and not self.is_replaced

    def store(self, responses: Sequence[Response], *, replace: bool = False) -> set[date]:
        """Add responses in one transaction; the first ones make the table, or replace the old one.

        Returns:
            Days without events that are not stored yet: no second response has confirmed them.

        Raises:
            UnstorableError: One does not hold the requested days; nothing has changed.
        """
        with self._storing(responses, replace=replace) as unconfirmed_days:
            return unconfirmed_days

    def store_all(self, responses: Sequence[Response], *, replace: bool = False) -> None:
        """Do what `store` does, or raise `UnconfirmedDaysError` and change nothing."""
        with self._storing(responses, replace=replace) as unconfirmed_days:
            if unconfirmed_days:
                raise UnconfirmedDaysError(unconfirmed_days)

    def store_empty(self, days: Sequence[date]) -> None:
        """Write days as `empty`; their response was stored before."""
        with self._database.write() as connection:
            mark_empty_days(
                connection,
                days,
                table=self._request.name,
                filters=_with_limit(self._request.query.filters, None),
                run_id=self._run_id,
            )

    @contextmanager
    def _storing(self, responses: Sequence[Response], *, replace: bool) -> Iterator[set[date]]:
        """Yield the unconfirmed days before the transaction is committed."""
        with ExitStack() as stack:
            memory = stack.enter_context(self._database.staging())
            staged = [stack.enter_context(self._stage(memory, one)) for one in responses]
            connection = stack.enter_context(self._database.write(memory, run_id=self._run_id))
            prepare(connection, self.project)
            if replace or self._is_new_table:
                free_table_name(connection, self._request.name, replace=replace)
            reports = [
                self._append(connection, response, days)
                for response, days in zip(responses, staged, strict=True)
            ]
            written = {report.day for days in reports for report in days}
            requested = {day for response in responses for day in _days_of_response(response)}
            yield requested - written
        self._is_new_table = False
        self.rows += sum(report.row_count for days in reports for report in days)

    def _inspect_table(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.sizes = event_sizes(connection)
        if self._request.append:
            check_table(connection, named_events(self._request.name))
            return
        try:
            free_table_name(connection, self._request.name, replace=False)
        except TableExistsError:
            if not self._request.replace:
                raise
            self.is_replaced = True

    @contextmanager
    def _stage(self, memory: duckdb.DuckDBPyConnection, response: Response) -> Iterator[StagedDays]:
        with ExitStack() as staging:
            try:
                staged = staging.enter_context(
                    stage_days(
                        memory,
                        response.spool,
                        project=self.project,
                        open_days=[self._settings.today()],
                    )
                )
            except IncompleteExportError as error:
                raise UnstorableError(response, error) from error
            yield staged

    def _append(
        self, connection: duckdb.DuckDBPyConnection, response: Response, staged: StagedDays
    ) -> list[DayReport]:
        return append_events(
            connection,
            staged,
            table=self._request.name,
            filters=_with_limit(self._request.query.filters, response.limit),
            is_cut=response.limit is not None,
            run_id=self._run_id,
            empty_before=self.empty_before,
        )


def _days_of_response(response: Response) -> list[date]:
    return days_between(response.spool.from_date, response.spool.to_date)


def _with_limit(filters: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    return {**filters, "limit": limit} if limit is not None else dict(filters)


class EventTableFetch:
    """One fetch of days of events into a named table.

    Attributes:
        batches: The result of each request, with which `on_batch_complete` is called too.
        failed: Days that are missing, in order.
    """

    def __init__(
        self,
        client: MixpanelAPIClient,
        database: Database,
        settings: Settings,
        request: FetchRequest,
        on_batch_complete: OnBatchComplete,
    ) -> None:
        self._client = client
        self._settings = settings
        self._request = request
        self._on_batch_complete = on_batch_complete
        self._event_table = EventTable(client, database, settings, request)
        self._plan = self._make_plan()
        self._request_ranges = list(self._plan)
        self.batches: list[BatchResult] = []
        self.failed: list[date] = []
        self._unconfirmed_days: set[date] = set()

    @property
    def rows(self) -> int:
        """Events stored so far, each once."""
        return self._event_table.rows

    def store_whole(self) -> None:
        """Store every day in one transaction; if a day is missing, raise and change nothing."""
        with _responses_on_disk() as responses, self._open_export() as export:
            for response in self._fetch(export, self._request_ranges):
                responses.append(response)
            try:
                self._event_table.store_all(responses, replace=self._request.replace)
            except UnconfirmedDaysError as error:
                for confirmed in self._confirmed_days(export, error.days):
                    for response in self._fetch(export, self._plan.again(confirmed.doubtful)):
                        responses.append(response)
                self._event_table.store_all(responses, replace=self._request.replace)

    def store_in_pieces(self, at_once: int) -> None:
        """Store each response by itself, while others arrive.

        Days that stay incomplete are listed in `failed`. A table that is to be replaced is kept
        until everything is on disk; if days failed, the others are added to it instead.

        Raises:
            MixpanelDataError: Mixpanel refused, or the disk is full; what was stored is kept.
        """
        with _responses_on_disk() as kept_responses, self._open_export(at_once) as export:
            for batch_index, (first, last) in enumerate(export.ahead(self._request_ranges)):
                failed_before = len(self.failed)
                fetched_lines, error = self._store_range(export, first, last, kept_responses)
                success = len(self.failed) == failed_before
                batch = BatchResult(str(first), str(last), fetched_lines, success, error)
                self.batches.append(batch)
                self._report(batch_index, batch)
            self._confirm_days(export, self._unconfirmed_days, kept_responses)
            self._replace_table(export, kept_responses)
        self.failed.sort()

    def _make_plan(self) -> RequestPlan:
        sizes = self._event_table.sizes
        query, most = self._request.query, self._request.chunk_days
        fixed = self._settings.days_per_request
        if self._event_table.project.regime == "legacy":
            fixed = 1  # only then the request says which export day a row belongs to
        elif self._request.query.filters or not sizes.rows:
            sizes = EventSizes({}, {})  # the size of a complete day is not that of a part
            fixed = fixed or most
        return request_plan(
            days_between(query.from_date, query.to_date), sizes, fixed and min(fixed, most), most
        )

    def _open_export(self, at_once: int | None = None) -> EventExport:
        query = self._request.query
        export = self._client.event_export(
            from_date=query.from_date,
            to_date=query.to_date,
            events=query.events,
            where=query.where,
            limit=query.limit,
            directory=self._settings.spool_path(self._client.credentials.project_id),
            at_once=at_once,
        )
        export.estimate = self._plan.estimated_bytes
        return export

    def _fetch(self, export: EventExport, windows: Iterable[DayRange]) -> Iterator[Response]:
        """Yield responses that hold all days, until the limit is reached."""
        limit = export.query.limit
        for number, (first, last) in enumerate(windows):
            arrival = _Arrival(self._request.batch_size, self._reporter(number, first, last))
            export.on_lines = arrival.arrived
            for spool in in_parts(export.download, first, last):
                self._learn_sizes(spool)
                arrival.part_arrived(spool.lines)
                if limit is None:
                    yield Response(spool)
                    continue
                limit -= spool.lines
                yield Response(spool, None if limit > 0 else self._request.query.limit)
                if limit <= 0:
                    break
                # The requests share the limit, so the next one gets only the rest.
                export.query = replace(export.query, limit=limit)
            arrival.done()
            if limit is not None and limit <= 0:
                return

    def _reporter(self, batch_index: int, first: date, last: date) -> Callable[[int], None]:
        return lambda fetched_rows: self._report(
            batch_index, BatchResult(str(first), str(last), fetched_rows, success=True)
        )

    def _report(self, batch_index: int, batch: BatchResult) -> None:
        total_batches = len(self._request_ranges)
        self._on_batch_complete(
            BatchProgress(**batch.to_dict(), batch_index=batch_index, total_batches=total_batches)
        )

    def _store_range(
        self, export: EventExport, first: date, last: date, kept_responses: list[Response]
    ) -> tuple[int, str | None]:
        """Store some days, in halves if needed; return the number of events, and an error."""
        fetch_errors: list[str] = []

        def store_part(first: date, last: date) -> int:
            try:
                return self._download_and_store(export, first, last, kept_responses)
            except (ServerError, ConnectionFailedError) as error:
                fetch_errors.append(self._set_days_aside(first, last, error))
                return 0

        def give_up(day: date, error: IncompleteExportError) -> None:
            fetch_errors.append(self._set_days_aside(day, day, error))

        fetched_lines = sum(in_parts(store_part, first, last, give_up))
        return fetched_lines, fetch_errors[0] if fetch_errors else None

    def _download_and_store(
        self, export: EventExport, first: date, last: date, kept_responses: list[Response]
    ) -> int:
        response = Response(export.download(first, last))
        self._learn_sizes(response.spool)
        if self._event_table.is_replaced:
            kept_responses.append(response)
            return response.spool.lines
        try:
            self._unconfirmed_days |= self._event_table.store([response])
        except UnstorableError as error:
            logger.warning("%s Requesting it again.", error)
            response.spool.discard()
            response = Response(export.download(first, last))
            self._unconfirmed_days |= self._event_table.store([response])
        finally:
            response.spool.discard()
        return response.spool.lines

    def _learn_sizes(self, spool: Spool) -> None:
        days = days_between(spool.from_date, spool.to_date)
        for day in days:
            self._plan.learn(day, spool.json_bytes // len(days))

    def _confirmed_days(self, export: EventExport, days: Iterable[date]) -> Iterator[Confirmed]:
        """Yield, request by request, which days without events a second response confirms."""
        second_looks = SecondLooks(
            export.find_days,
            weigh=lambda day: self._plan.weights.of(day) or 0,
            most_bytes=None if self._request.query.filters else MOST_BYTES,
            by_date=self._event_table.project.regime == "utc",
        )
        for confirmed in second_looks.confirm(set(days)):
            self._event_table.empty_before.update(confirmed.empty, confirmed.doubtful)
            yield confirmed

    def _confirm_days(
        self, export: EventExport, days: Iterable[date], kept_responses: list[Response]
    ) -> None:
        """Store days as `empty` that have no event in a second response; load the others."""
        for confirmed in self._confirmed_days(export, days):
            if confirmed.empty and not self._event_table.is_replaced:
                self._event_table.store_empty(confirmed.empty)
            for first, last in self._plan.again(confirmed.doubtful):
                _, error = self._store_range(export, first, last, kept_responses)
                if error:
                    self._mark_failed(first, last, error)

    def _set_days_aside(self, first: date, last: date, error: MixpanelDataError) -> str:
        logger.warning("%s The fetch continues with the other days.", error)
        self.failed.extend(days_between(first, last))
        return error.message

    def _replace_table(self, export: EventExport, kept_responses: list[Response]) -> None:
        """Put kept responses in the place of the old table; if days failed, add them to it."""
        while kept_responses:
            try:
                self._event_table.store_all(kept_responses, replace=not self.failed)
            except UnconfirmedDaysError as error:
                self._confirm_days(export, error.days, kept_responses)
            except UnstorableError as error:
                spool = error.response.spool
                self._set_days_aside(spool.from_date, spool.to_date, error)
                self._mark_failed(spool.from_date, spool.to_date, error.message)
                kept_responses.remove(error.response)
                spool.discard()
            else:
                return

    def _mark_failed(self, first: date, last: date, error: str) -> None:
        self.batches = [
            replace(batch, success=False, error=error)
            if batch.from_date <= str(last) and str(first) <= batch.to_date
            else batch
            for batch in self.batches
        ]


class _Arrival:
    """Counts the events of one request as they arrive; those of a retry count once."""

    def __init__(self, batch_size: int, report: Callable[[int], None]) -> None:
        self._batch_size = batch_size
        self._report = report
        self._of_parts = 0
        self._reported = 0

    def arrived(self, lines: int) -> None:
        """Count the events of the current response so far."""
        new_events = self._of_parts + lines - self._reported
        if new_events >= self._batch_size:
            self._reported += new_events
            self._report(new_events)

    def part_arrived(self, lines: int) -> None:
        """Count a response that is complete."""
        self._of_parts += lines

    def done(self) -> None:
        """Report the rest, even if it is 0."""
        self._report(self._of_parts - self._reported)


@contextmanager
def _responses_on_disk() -> Iterator[list[Response]]:
    """Yield a list of responses; those that are still in it at the end are deleted."""
    responses: list[Response] = []
    try:
        yield responses
    finally:
        for response in responses:
            response.spool.discard()
