"""Events into a named table, in one transaction or batch by batch."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING, Any

from mixpanel_assets.client import (
    STREAMED_DAYS,
    EventExport,
    ExportQuery,
    MixpanelAPIClient,
    SecondLooks,
    Spool,
    checked_events,
)
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
from mixpanel_assets.rules.days import DayRange, days_between, halves
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    EVENTS,
    Database,
    DayReport,
    EventSizes,
    append_events,
    check_before_load,
    check_name,
    check_table,
    event_sizes,
    make_way,
    mark_empty_days,
    named_events,
    prepare,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchRequest:
    """What `FetcherService.fetch_events` was asked for; its arguments are explained there.

    Attributes:
        name: The table.
        query: Which events; its `limit` is that of the whole fetch.
        append: Whether they are added to what is there.
        replace: Whether they take the place of what is there.
        chunk_days: The most days that share a request.
        batch_size: Events between two calls that tell how far a request is.
    """

    name: str
    query: ExportQuery
    append: bool
    replace: bool
    chunk_days: int
    batch_size: int

    @property
    def is_asset(self) -> bool:
        """Whether the table is the asset's own."""
        return self.name == EVENTS.name

    @property
    def filters(self) -> dict[str, Any]:
        """What narrows the question, as the ledger keeps it."""
        return self.query.filters

    @property
    def date_range(self) -> tuple[str, str]:
        """First and last day as text, both included."""
        return self.query.from_date.isoformat(), self.query.to_date.isoformat()


def checked_request(
    name: str,
    *,
    from_date: date | str,
    to_date: date | str,
    events: Sequence[str] | None,
    where: str | None,
    limit: int | None,
    append: bool,
    replace: bool,
    chunk_days: int | None,
    batch_size: int,
    parallel: bool,
) -> FetchRequest:
    """Return the request that the arguments make.

    Raises:
        ConfigError: They make none; the message names the argument.
    """
    check_name(name)
    query = checked_events(from_date, to_date, events, where, limit, time_in_ms=True)
    chunk_days = STREAMED_DAYS if chunk_days is None else chunk_days
    _check_number("chunk_days", chunk_days, 1, 100)
    check_batch_size(batch_size)
    request = FetchRequest(name, query, append, replace, chunk_days, batch_size)
    if append and replace:
        raise ConfigError("Give append or replace, not both.")
    if parallel and limit is not None:
        raise ConfigError(
            "limit is for a sequential fetch: requests that run at once cannot share it."
        )
    if request.is_asset and (request.filters or limit is not None):
        raise ConfigError(
            "The table `events` holds whole days. Choose another name for a part of them."
        )
    return request


def check_batch_size(batch_size: int) -> None:
    """Raise `ConfigError` unless it is a number from 100 to 100,000."""
    _check_number("batch_size", batch_size, 100, 100_000)


def _check_number(name: str, value: int, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ConfigError(f"{name} must be a number from {least} to {most:,}, not {value!r}.")


if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class Answer:
    """A whole answer on disk.

    Attributes:
        spool: The file.
        limit: The limit it was asked with, if that kept events back.
    """

    spool: Spool
    limit: int | None = None


class UnstorableError(IncompleteExportError):
    """An answer came whole, but it is not the asked days."""

    def __init__(self, answer: Answer, error: IncompleteExportError) -> None:
        super().__init__(
            error.message,
            from_date=error.from_date,
            to_date=error.to_date,
            reason=error.reason,
            lines=error.lines,
        )
        self.answer = answer


class UnconfirmedDaysError(Exception):
    """Days have no events, and only one response says so."""

    def __init__(self, days: set[date]) -> None:
        super().__init__(f"{len(days)} days came without events")
        self.days = days


class EventTable:
    """The table that a request wants filled.

    Args:
        client: Whose project it is.
        database: Where the table is.
        settings: How times are read, and what today is.
        request: What is wanted.

    Attributes:
        project: Whose events they are.
        sizes: What days weigh, by what the asset table holds of them.
        is_replaced: Whether there is a table that is to stay until everything has come.
        rows: Events stored so far, each once.
        empty_before: Days that came without events once; one more such response is believed.

    Raises:
        ConfigError: The file holds another project, or the table something else.
        TableExistsError: The table is there and is neither appended to nor replaced.
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
            self._look(connection)
        self._is_new = not request.append and not self.is_replaced

    def store(self, answers: Sequence[Answer], *, replace: bool = False) -> set[date]:
        """Add answers in one transaction; the first ones make the table.

        Args:
            answers: What is stored.
            replace: Drop the old table in the same transaction.

        Returns:
            Days without events that are not stored yet, because no earlier response of this
            table said so.

        Raises:
            UnstorableError: One of them is not the asked days; nothing has changed.
        """
        with self._storing(answers, replace=replace) as unconfirmed:
            return unconfirmed

    def store_all(self, answers: Sequence[Answer], *, replace: bool = False) -> None:
        """Do what `store` does, or nothing if days without events are not confirmed.

        Raises:
            UnconfirmedDaysError: Nothing has changed.
            UnstorableError: See `store`.
        """
        with self._storing(answers, replace=replace) as unconfirmed:
            if unconfirmed:
                raise UnconfirmedDaysError(unconfirmed)

    def store_empty(self, days: Sequence[date]) -> None:
        """Note that days have no events; their response was stored before."""
        with self._database.write() as connection:
            mark_empty_days(
                connection,
                days,
                table=self._request.name,
                filters=_with_limit(self._request.filters, None),
                run_id=self._run_id,
            )

    @contextmanager
    def _storing(self, answers: Sequence[Answer], *, replace: bool) -> Iterator[set[date]]:
        """Yield the unconfirmed days before the transaction is committed."""
        with self._database.write() as connection:
            prepare(connection, self.project)
            if replace or self._is_new:
                make_way(connection, self._request.name, replace=replace)
            reports = [self._append(connection, answer) for answer in answers]
            written = {report.day for days in reports for report in days}
            asked = {day for answer in answers for day in _days_of(answer)}
            yield asked - written
        self._is_new = False
        self.rows += sum(report.row_count for days in reports for report in days)

    def _look(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.sizes = event_sizes(connection)
        if self._request.append:
            check_table(connection, named_events(self._request.name))
            return
        try:
            make_way(connection, self._request.name, replace=False)
        except TableExistsError:
            if not self._request.replace:
                raise
            self.is_replaced = True

    def _append(self, connection: duckdb.DuckDBPyConnection, answer: Answer) -> list[DayReport]:
        try:
            return append_events(
                connection,
                answer.spool,
                table=self._request.name,
                project=self.project,
                filters=_with_limit(self._request.filters, answer.limit),
                is_cut=answer.limit is not None,
                run_id=self._run_id,
                open_days=[self._settings.today()],
                empty_before=self.empty_before,
            )
        except IncompleteExportError as error:
            raise UnstorableError(answer, error) from error


def _days_of(answer: Answer) -> list[date]:
    return days_between(answer.spool.from_date, answer.spool.to_date)


def _with_limit(filters: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    return {**filters, "limit": limit} if limit is not None else dict(filters)


OnBatchComplete = Callable[[BatchProgress], None]


class EventTableFetch:
    """One fetch of days of events into a named table.

    Args:
        client: Who is asked.
        database: Where the table is.
        settings: How times are read, where answers lie, and what today is.
        request: What is wanted.
        tell: Told how far the fetch is.

    Attributes:
        batches: What became of each request.
        failed: Days that did not come, in order.
    """

    def __init__(
        self,
        client: MixpanelAPIClient,
        database: Database,
        settings: Settings,
        request: FetchRequest,
        tell: OnBatchComplete,
    ) -> None:
        self._client = client
        self._settings = settings
        self._request = request
        self._tell = tell
        self._table = EventTable(client, database, settings, request)
        self._plan = self._planned()
        self._windows = list(self._plan)
        self.batches: list[BatchResult] = []
        self.failed: list[date] = []
        self._unconfirmed: set[date] = set()

    @property
    def rows(self) -> int:
        """Events stored so far, each once."""
        return self._table.rows

    def store_whole(self) -> None:
        """Store every day in one transaction, or nothing.

        Raises:
            MixpanelDataError: A day did not come; nothing has changed.
        """
        with _on_disk() as answers, self._export() as export:
            for answer in self._sequence(export, self._windows):
                answers.append(answer)
            try:
                self._table.store_all(answers, replace=self._request.replace)
            except UnconfirmedDaysError as error:
                for confirmed in self._looked_at_again(export, error.days):
                    for answer in self._sequence(export, self._plan.again(confirmed.doubtful)):
                        answers.append(answer)
                self._table.store_all(answers, replace=self._request.replace)

    def store_in_pieces(self, at_once: int) -> None:
        """Store every request by itself, several of them on their way at once.

        Days that stay broken are listed in `failed`. A table that is to be replaced stays until
        everything is on disk; if days failed, the others are added to it instead.

        Raises:
            MixpanelDataError: Mixpanel refused, or the disk did; what was stored stays.
        """
        with _on_disk() as kept, self._export(at_once) as export:
            for number, (first, last) in enumerate(export.ahead(self._windows)):
                failed_before = len(self.failed)
                lines, error = self._settle(export, first, last, kept)
                success = len(self.failed) == failed_before
                batch = BatchResult(str(first), str(last), lines, success, error)
                self.batches.append(batch)
                self._tell_of(number, batch)
            self._confirm(export, self._unconfirmed, kept)
            self._exchange(export, kept)
        self.failed.sort()

    def _planned(self) -> RequestPlan:
        sizes = self._table.sizes
        query, most = self._request.query, self._request.chunk_days
        fixed = self._settings.days_per_request
        if self._table.project.regime == "legacy":
            fixed = 1  # only then does a row tell which export day it belongs to
        elif self._request.filters or not sizes.rows:
            sizes = EventSizes({}, {})  # what whole days weigh says nothing of a part of them
            fixed = fixed or most
        return request_plan(
            days_between(query.from_date, query.to_date), sizes, fixed and min(fixed, most), most
        )

    def _export(self, at_once: int | None = None) -> EventExport:
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

    def _sequence(self, export: EventExport, windows: Iterable[DayRange]) -> Iterator[Answer]:
        """Yield an answer for all days, until the limit is reached."""
        left = export.query.limit
        for number, (first, last) in enumerate(windows):
            arrival = _Arrival(self._request.batch_size, self._teller(number, first, last))
            export.on_lines = arrival.arrived
            for spool in in_parts(export.download, first, last):
                self._learn(spool)
                arrival.part_done(spool.lines)
                if left is None:
                    yield Answer(spool)
                    continue
                left -= spool.lines
                yield Answer(spool, None if left > 0 else self._request.query.limit)
                if left <= 0:
                    break
                export.query = replace(export.query, limit=left)
            arrival.done()
            if left is not None and left <= 0:
                return

    def _teller(self, number: int, first: date, last: date) -> Callable[[int], None]:
        return lambda rows: self._tell_of(
            number, BatchResult(str(first), str(last), rows, success=True)
        )

    def _tell_of(self, number: int, batch: BatchResult) -> None:
        self._tell(
            BatchProgress(
                from_date=batch.from_date,
                to_date=batch.to_date,
                batch_index=number,
                total_batches=len(self._windows),
                rows=batch.rows,
                success=batch.success,
                error=batch.error,
            )
        )

    def _settle(
        self, export: EventExport, first: date, last: date, kept: list[Answer]
    ) -> tuple[int, str | None]:
        """Store some days, in halves if need be; return the events that came, and what failed."""
        try:
            return self._take(export, first, last, kept), None
        except (ServerError, ConnectionFailedError) as error:
            return 0, self._set_aside(first, last, error)
        except IncompleteExportError as error:
            if first == last:
                return 0, self._set_aside(first, last, error)
        results = [self._settle(export, *half, kept) for half in halves(first, last)]
        return sum(lines for lines, _ in results), next(filter(None, (e for _, e in results)), None)

    def _take(self, export: EventExport, first: date, last: date, kept: list[Answer]) -> int:
        answer = Answer(export.download(first, last))
        self._learn(answer.spool)
        if self._table.is_replaced:
            kept.append(answer)
            return answer.spool.lines
        try:
            self._unconfirmed |= self._table.store([answer])
        except UnstorableError as error:
            logger.warning("%s Asking again.", error)
            answer.spool.discard()
            answer = Answer(export.download(first, last))
            self._unconfirmed |= self._table.store([answer])
        finally:
            answer.spool.discard()
        return answer.spool.lines

    def _learn(self, spool: Spool) -> None:
        days = days_between(spool.from_date, spool.to_date)
        for day in days:
            self._plan.learn(day, spool.json_bytes // len(days))

    def _looked_at_again(self, export: EventExport, days: Iterable[date]) -> Iterator[Confirmed]:
        """Yield, request by request, which of some days without events have none indeed."""
        looks = SecondLooks(
            export.find_days,
            weigh=lambda day: self._plan.weights.of(day) or 0,
            most_bytes=None if self._request.filters else MOST_BYTES,
            by_date=self._table.project.regime == "utc",
        )
        for confirmed in looks.confirm(set(days)):
            self._table.empty_before.update(confirmed.empty, confirmed.doubtful)
            yield confirmed

    def _confirm(self, export: EventExport, days: Iterable[date], kept: list[Answer]) -> None:
        """Store days without events as that, and those that turn out to have some."""
        for confirmed in self._looked_at_again(export, days):
            if confirmed.empty and not self._table.is_replaced:
                self._table.store_empty(confirmed.empty)
            for first, last in self._plan.again(confirmed.doubtful):
                _, error = self._settle(export, first, last, kept)
                if error:
                    self._mark_failed(first, last, error)

    def _set_aside(self, first: date, last: date, error: MixpanelDataError) -> str:
        logger.warning("%s The other days go on.", error)
        self.failed.extend(days_between(first, last))
        return error.message

    def _exchange(self, export: EventExport, kept: list[Answer]) -> None:
        """Put kept answers in the place of the old table; into it if there are not all of them."""
        while kept:
            try:
                self._table.store_all(kept, replace=not self.failed)
            except UnconfirmedDaysError as error:
                self._confirm(export, error.days, kept)
            except UnstorableError as error:
                spool = error.answer.spool
                self._set_aside(spool.from_date, spool.to_date, error)
                self._mark_failed(spool.from_date, spool.to_date, error.message)
                kept.remove(error.answer)
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
    """Counts the events of one request as they arrive, whatever is asked again."""

    def __init__(self, batch_size: int, tell: Callable[[int], None]) -> None:
        self._batch_size = batch_size
        self._tell = tell
        self._of_parts = 0
        self._told = 0

    def arrived(self, lines: int) -> None:
        """Take note of how many events of the present answer have arrived."""
        new = self._of_parts + lines - self._told
        if new >= self._batch_size:
            self._told += new
            self._tell(new)

    def part_done(self, lines: int) -> None:
        """Take note of an answer that came whole."""
        self._of_parts += lines

    def done(self) -> None:
        """Tell of the rest, if only that there is none."""
        self._tell(self._of_parts - self._told)


@contextmanager
def _on_disk() -> Iterator[list[Answer]]:
    """Yield a list of answers; those still in it at the end are deleted."""
    answers: list[Answer] = []
    try:
        yield answers
    finally:
        for answer in answers:
            answer.spool.discard()
