"""EventTableFetch: days of events into a named table, whole or piece by piece.

Answers lie on disk until they are stored; the database is open only while it stores.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta

from mixpanel_assets.client import EventExport, MixpanelAPIClient, SecondLooks, Spool
from mixpanel_assets.client.export import MOST_BYTES, Confirmed
from mixpanel_assets.errors import (
    ConnectionFailedError,
    IncompleteExportError,
    MixpanelDataError,
    ServerError,
)
from mixpanel_assets.event_loads import request_plan
from mixpanel_assets.event_tables import (
    Answer,
    EventTable,
    UnconfirmedDaysError,
    UnstorableError,
)
from mixpanel_assets.fetch_requests import FetchRequest
from mixpanel_assets.fetch_results import BatchProgress, BatchResult
from mixpanel_assets.planning import RequestPlan, Window, days_between
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import Database, EventSizes

logger = logging.getLogger(__name__)

OnBatchComplete = Callable[[BatchProgress], None]

_DAY = timedelta(days=1)


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

    def _sequence(self, export: EventExport, windows: Iterable[Window]) -> Iterator[Answer]:
        """Yield an answer for all days, until the limit is reached."""
        left = export.query.limit
        for number, (first, last) in enumerate(windows):
            arrival = _Arrival(self._request.batch_size, self._teller(number, first, last))
            export.on_lines = arrival.arrived
            for spool in _in_parts(export, first, last):
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
        middle = first + (last - first) // 2
        one, error_of_one = self._settle(export, first, middle, kept)
        other, error_of_other = self._settle(export, middle + _DAY, last, kept)
        return one + other, error_of_one or error_of_other

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


def _in_parts(export: EventExport, first: date, last: date) -> Iterator[Spool]:
    """Yield the answer for some days; if it stays broken, those for its halves."""
    try:
        spool = export.download(first, last)
    except IncompleteExportError:
        if first == last:
            raise
        middle = first + (last - first) // 2
        yield from _in_parts(export, first, middle)
        yield from _in_parts(export, middle + _DAY, last)
        return
    yield spool


@contextmanager
def _on_disk() -> Iterator[list[Answer]]:
    """Yield a list of answers; those still in it at the end are deleted."""
    answers: list[Answer] = []
    try:
        yield answers
    finally:
        for answer in answers:
            answer.spool.discard()
