"""EventTableFetch: days of events into a named table, whole or piece by piece.

Answers lie on disk until they are stored; the database is open only while it stores.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from mixpanel_assets.client import EventExport, MixpanelAPIClient, Spool
from mixpanel_assets.errors import (
    ConnectionFailedError,
    DatabaseNotFoundError,
    IncompleteExportError,
    MixpanelDataError,
    ServerError,
)
from mixpanel_assets.event_loads import request_plan
from mixpanel_assets.fetch_requests import FetchRequest
from mixpanel_assets.fetch_results import BatchProgress, BatchResult
from mixpanel_assets.loads import project_identity
from mixpanel_assets.planning import RequestPlan, Window, days_between
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    Database,
    EventSizes,
    append_events,
    check_table,
    event_sizes,
    make_way,
    named_events,
    prepare,
    table_exists,
)

logger = logging.getLogger(__name__)

OnBatchComplete = Callable[[BatchProgress], None]

_DAY = timedelta(days=1)


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


class EventTableFetch:
    """One fetch of days of events into a named table.

    Args:
        client: Who is asked.
        database: Where the table is.
        settings: How times are read, where answers lie, and what today is.
        request: What is wanted.
        tell: Told how far the fetch is.

    Attributes:
        rows: Events stored so far, each once.
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
        self._database = database
        self._settings = settings
        self._request = request
        self._tell = tell
        self._project = project_identity(client.credentials, settings)
        self._run_id = uuid.uuid4().hex
        self._replaces, sizes = self._look()
        self._plan = self._planned(sizes)
        self._windows = list(self._plan)
        self._makes_way = not request.append
        self.rows = 0
        self.batches: list[BatchResult] = []
        self.failed: list[date] = []

    def store_whole(self) -> None:
        """Store every day in one transaction, or nothing.

        Raises:
            MixpanelDataError: A day did not come; nothing has changed.
        """
        with _on_disk() as answers:
            with self._export() as export:
                for answer in self._sequence(export):
                    answers.append(answer)
            self._write(answers, replace_table=self._request.replace)

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
            self._exchange(kept)
        self.failed.sort()

    def _look(self) -> tuple[bool, EventSizes]:
        """Return whether there is a table to replace, and what days weigh; refuse early."""
        name = self._request.name
        try:
            with self._database.read() as connection:
                if self._request.append:
                    check_table(connection, named_events(name))
                elif not self._request.replace:
                    make_way(connection, name, replace=False)
                there = self._request.replace and table_exists(connection, name, "main")
                return there, event_sizes(connection)
        except DatabaseNotFoundError:
            return False, EventSizes({}, {})

    def _planned(self, sizes: EventSizes) -> RequestPlan:
        query, most = self._request.query, self._request.chunk_days
        fixed = self._settings.days_per_request
        if self._project.regime == "legacy":
            fixed = 1  # only then does a row tell which export day it belongs to
        elif self._request.filters or not sizes.rows:
            sizes = EventSizes({}, {})  # what whole days weigh says nothing of a part of them
            fixed = fixed or most
        return request_plan(query.from_date, query.to_date, sizes, fixed and min(fixed, most), most)

    def _export(self, at_once: int = 1) -> EventExport:
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

    def _sequence(self, export: EventExport) -> Iterator[Answer]:
        """Yield an answer for all days, until the limit is reached."""
        left = self._request.query.limit
        for number, (first, last) in enumerate(self._windows):
            arrival = _Arrival(self._request.batch_size, self._teller(number, first, last))
            export.on_lines = arrival.arrived
            for spool in _in_parts(export, first, last):
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
        if self._replaces:
            kept.append(answer)
            return answer.spool.lines
        try:
            self._write([answer])
        except UnstorableError as error:
            logger.warning("%s Asking again.", error)
            answer.spool.discard()
            answer = Answer(export.download(first, last))
            self._write([answer])
        finally:
            answer.spool.discard()
        return answer.spool.lines

    def _set_aside(self, first: date, last: date, error: MixpanelDataError) -> str:
        logger.warning("%s The other days go on.", error)
        self.failed.extend(days_between(first, last))
        return error.message

    def _exchange(self, kept: list[Answer]) -> None:
        """Put kept answers in the place of the old table; into it if there are not all of them."""
        while kept:
            try:
                self._write(kept, replace_table=not self.failed)
            except UnstorableError as error:
                spool = error.answer.spool
                self._set_aside(spool.from_date, spool.to_date, error)
                self._mark_failed(spool, error)
                kept.remove(error.answer)
                spool.discard()
            else:
                return

    def _mark_failed(self, spool: Spool, error: MixpanelDataError) -> None:
        self.batches = [
            replace(batch, success=False, error=error.message)
            if batch.from_date <= str(spool.from_date) <= batch.to_date
            else batch
            for batch in self.batches
        ]

    def _write(self, answers: Sequence[Answer], *, replace_table: bool = False) -> None:
        """Store answers in one transaction; the first one makes the table."""
        rows = 0
        with self._database.write() as connection:
            prepare(connection, self._project)
            if replace_table or (self._makes_way and not self._replaces):
                make_way(connection, self._request.name, replace=replace_table)
            for answer in answers:
                rows += self._append(connection, answer)
        self._makes_way = False
        self.rows += rows

    def _append(self, connection: Any, answer: Answer) -> int:
        spool, filters = answer.spool, self._request.filters
        try:
            days = append_events(
                connection,
                spool.path,
                table=self._request.name,
                from_date=spool.from_date,
                to_date=spool.to_date,
                lines=spool.lines,
                project=self._project,
                filters=_with_limit(filters, answer.limit),
                is_cut=answer.limit is not None,
                received_bytes=spool.received_bytes,
                requests=spool.requests,
                run_id=self._run_id,
                open_days=[self._settings.today()],
            )
        except IncompleteExportError as error:
            raise UnstorableError(answer, error) from error
        return sum(day.row_count for day in days)


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


def _with_limit(filters: Mapping[str, Any], limit: int | None) -> dict[str, Any]:
    return {**filters, "limit": limit} if limit is not None else dict(filters)


def ranges(days: Iterable[date]) -> list[Window]:
    """Return (first, last) pairs, both included, of days that follow each other."""
    found: list[Window] = []
    for day in sorted(set(days)):
        if found and found[-1][1] + _DAY == day:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found
