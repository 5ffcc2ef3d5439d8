"""Raw Event Export: a few days, one request, one complete response on disk.

`EventExport` downloads and checks a response, `AheadExport` downloads the next ones while the
caller stores the current one, and `SecondLooks` requests a day without events once more
before it counts as empty.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

from mixpanel_assets.client.budget import checked_at_once
from mixpanel_assets.client.spool import (
    Spool,
    SpoolName,
    in_use,
    new_file,
    require_room,
    stem_of,
)
from mixpanel_assets.client.transport import RetryPolicy, Transport
from mixpanel_assets.client.verdict import IncompleteBodyError, Judge, RecordVerdict, Verdict
from mixpanel_assets.errors import (
    ConfigError,
    ConnectionFailedError,
    IncompleteExportError,
    PlanHorizonError,
    QueryError,
    ServerError,
    StorageError,
)
from mixpanel_assets.rules.days import (
    EARLIEST_MS,
    LATEST_MS,
    DayRange,
    days_between,
    describe_days,
    describe_range,
    halves,
)

logger = logging.getLogger(__name__)


MOST_BYTES = 200_000_000  # of JSON, as of other requests
MOST_DAYS = 31  # always allowed; Mixpanel documents no limit, and requests for years succeed

_DAY = timedelta(days=1)
_UNCONFIRMED = (ServerError, ConnectionFailedError, IncompleteExportError, QueryError)


@dataclass(frozen=True)
class Confirmed:
    """The result of one more request for days that had no events.

    Attributes:
        empty: Days without events in this response too.
        doubtful: Days that have events, or may have: they must be loaded again.
    """

    empty: list[date]
    doubtful: list[date]


@dataclass
class SecondLooks:
    """Confirms days without events, as many as possible with one request.

    Attributes:
        find: Requests days, both ends included, and returns the dates of their events, as
            `EventExport.find_days` does.
        weigh: Returns the JSON bytes of a day between them.
        most_bytes: Days share a request if the JSON bytes of the days between them are at most
            this; None: all days share one.
        by_date: Whether the date of an event is its export day. If not, only neighbours share a
            request, and one event makes all of them doubtful.
    """

    find: Callable[[date, date, int | None], set[date] | None]
    weigh: Callable[[date], int]
    most_bytes: int | None = MOST_BYTES
    by_date: bool = True
    _most_days: int | None = None

    def confirm(self, days: Collection[date]) -> Iterator[Confirmed]:
        """Yield the results for the days, request by request.

        If a response for many days stays incomplete, shorter spans are requested. If it is for few
        days, they are doubtful, so that the next load of them raises the error.

        Raises:
            APIError: Mixpanel refused, and not because of the number of days.
        """
        for empty_days in self._confirming_requests(days):
            first, last = empty_days[0], empty_days[-1]
            try:
                days_with_events = self.find(first, last, self._byte_limit(first, last))
            except PlanHorizonError:
                days_with_events = None
            except _UNCONFIRMED as error:
                if (last - first).days >= MOST_DAYS:
                    logger.warning("%s Requesting fewer days at a time.", error)
                    self._most_days = MOST_DAYS
                    yield from self.confirm(empty_days)
                    continue
                days_with_events = None
            yield self._confirmed_days(empty_days, days_with_events)

    def is_due(self, days: Collection[date], until: date) -> bool:
        """Return whether days after `until` could not share a request with these."""
        if not days or self.most_bytes is None:
            return False
        if not self.by_date:
            return until > max(days)
        return sum(map(self.weigh, days_between(min(days), until))) > self.most_bytes

    def _confirmed_days(
        self, empty_days: list[date], days_with_events: set[date] | None
    ) -> Confirmed:
        if days_with_events is None or (days_with_events and not self.by_date):
            return Confirmed([], empty_days)
        if not days_with_events <= set(days_between(empty_days[0], empty_days[-1])):
            return Confirmed([], empty_days)
        return Confirmed(
            [day for day in empty_days if day not in days_with_events],
            [day for day in empty_days if day in days_with_events],
        )

    def _byte_limit(self, first: date, last: date) -> int | None:
        if self.most_bytes is None:
            return None
        return self.most_bytes + sum(map(self.weigh, days_between(first, last)))

    def _confirming_requests(self, days: Iterable[date]) -> Iterator[list[date]]:
        empty_days: list[date] = []
        json_bytes = 0
        for day in sorted(days):
            if empty_days:
                json_bytes += sum(map(self.weigh, days_between(empty_days[-1] + _DAY, day)))
                if not self._shares_request(empty_days, day, json_bytes):
                    yield empty_days
                    empty_days, json_bytes = [], 0
            empty_days.append(day)
        if empty_days:
            yield empty_days

    def _shares_request(self, empty_days: list[date], day: date, json_bytes: int) -> bool:
        if self._most_days and (day - empty_days[0]).days >= self._most_days:
            return False
        if not self.by_date:
            return day - empty_days[-1] == _DAY
        return self.most_bytes is None or json_bytes <= self.most_bytes


_CHUNK_BYTES = 1 << 16  # inflates to about ten times as much; memory must stay small

T = TypeVar("T")


@dataclass(frozen=True)
class ExportQuery:
    """The days and filters of an export.

    Attributes:
        from_date: First day, included; UTC, or project time for projects from before 2023.
        to_date: Last day, included.
        events: Only events of these names; None means every event.
        where: A segmentation expression, sent to Mixpanel as it is.
        limit: The most events to send, for samples; their choice is undefined.
        time_in_ms: Whether `time` is in milliseconds; otherwise in seconds.
    """

    from_date: date
    to_date: date
    events: Sequence[str] | None = None
    where: str | None = None
    limit: int | None = None
    time_in_ms: bool = True

    def __post_init__(self) -> None:
        if self.from_date > self.to_date:
            raise ConfigError(
                f"from_date {self.from_date} is after to_date {self.to_date}; both are included."
            )

    @property
    def description(self) -> str:
        """The request in words, for messages and logs."""
        return f"export {describe_range(self.from_date, self.to_date)}"

    @property
    def filters(self) -> dict[str, Any]:
        """The filters, ready for JSON; equal exports have equal filters."""
        filters: dict[str, Any] = {}
        if self.events is not None:
            filters["events"] = sorted(set(self.events))
        if self.where is not None:
            filters["where"] = self.where
        return filters

    def params(self) -> dict[str, Any]:
        """Return the query parameters."""
        return {
            "from_date": self.from_date.isoformat(),
            "to_date": self.to_date.isoformat(),
            "event": json.dumps(list(self.events)) if self.events is not None else None,
            "where": self.where,
            "limit": self.limit,
            "time_in_ms": "true" if self.time_in_ms else None,
        }


def windows(from_date: date, to_date: date, days_per_request: int) -> list[DayRange]:
    """Return consecutive (first day, last day) pairs, both included, that tile the range."""
    starts = range(0, (to_date - from_date).days + 1, days_per_request)
    firsts = [from_date + timedelta(days=start) for start in starts]
    return [(first, min(first + timedelta(days=days_per_request - 1), to_date)) for first in firsts]


def open_export(transport: Transport, query: ExportQuery) -> AbstractContextManager[httpx.Response]:
    """Send one export request and yield its response, whose body is not read yet."""
    return transport.open(
        "GET", "export", "/export", description=query.description, params=query.params()
    )


def judge_lines(
    response_pieces: Iterable[bytes],
    query: ExportQuery,
    judge: Judge[T],
    write: Callable[[bytes], object] | None = None,
) -> Iterator[Iterable[T]]:
    """Yield blocks with an item for each line of a response; `write` gets its bytes before.

    Raises:
        IncompleteExportError: The response is incomplete; the items so far are valid.
    """
    reason = ""
    try:
        for received_bytes in response_pieces:
            if write:
                write(received_bytes)
            yield from judge.feed(received_bytes)
        yield from judge.finish()
    except IncompleteBodyError as error:
        reason = str(error)
    if reason:  # raised here, because the error above carries the line, which may hold a secret
        raise incomplete(query, reason, judge.lines)
    if judge.blank_lines:
        logger.info("%s: %s blank lines were skipped.", query.description, f"{judge.blank_lines:,}")


def is_gzip(response: httpx.Response) -> bool:
    """Whether the body travels compressed; Mixpanel compresses from 1,400 bytes on."""
    return "gzip" in response.headers.get("Content-Encoding", "")


def incomplete(query: ExportQuery, reason: str, lines: int) -> IncompleteExportError:
    """Return the error for a response that does not hold the requested days."""
    return IncompleteExportError(
        f"{query.description} is not complete: {reason}, after {lines:,} complete events. "
        "Nothing of it was stored.",
        from_date=query.from_date,
        to_date=query.to_date,
        reason=reason,
        lines=lines,
    )


def download(
    transport: Transport,
    query: ExportQuery,
    directory: Path,
    retries: RetryPolicy,
    *,
    on_request: Callable[[], None] = lambda: None,
    on_lines: Callable[[int], None] = lambda lines: None,
    stem: str = "",
) -> Spool:
    """Put a complete response on disk, with retries.

    `on_request` is called before each request, and `on_lines` again and again with the number of
    events of the response so far. The file's name begins with `stem`.

    Raises:
        IncompleteExportError: Every response was incomplete.
        StorageError: The spool directory cannot be written or is full.
    """
    started = time.monotonic()
    requests = 0

    def attempt() -> Spool:
        nonlocal requests
        requests += 1
        on_request()
        with open_export(transport, query) as response:
            gzip = is_gzip(response)
            key = stem + uuid.uuid4().hex[len(stem) :]
            name = SpoolName(query.from_date, query.to_date, gzip, key)
            verdict = Verdict(gzip=gzip)
            with new_file(directory, str(name)) as (path, write):
                for _ in judge_lines(response.iter_raw(_CHUNK_BYTES), query, verdict, write=write):
                    on_lines(verdict.lines)
        with _complete_file(query, verdict.lines):
            spool = _spool_of(path, query, verdict)
        seconds = time.monotonic() - started
        return replace(spool, requests=requests, seconds=seconds, received_at=datetime.now(UTC))

    return retries.call(attempt)


def find_days(
    transport: Transport,
    query: ExportQuery,
    retries: RetryPolicy,
    *,
    most_bytes: int | None = None,
    on_request: Callable[[], None] = lambda: None,
) -> set[date] | None:
    """Request some days and return the dates of their events; nothing is stored.

    Reading stops after `most_bytes` of JSON. `on_request` is called before each request.

    Returns:
        The dates of `time`; None if they are not known, because an event has no usable `time`
        or there are more than `most_bytes`.
    """

    def attempt() -> set[date] | None:
        on_request()
        days_with_events: set[date | None] = set()
        with open_export(transport, query) as response:
            judge = RecordVerdict(_day_of_event, gzip=is_gzip(response))
            for days_of_lines in judge_lines(response.iter_raw(), query, judge):
                days_with_events.update(days_of_lines)
                if None in days_with_events or judge.json_bytes > (most_bytes or judge.json_bytes):
                    return None
        return {day for day in days_with_events if day}

    return retries.call(attempt)


def _day_of_event(event: dict[str, Any], line: bytes) -> date | None:
    time_ms = event["properties"].get("time")
    if type(time_ms) is not int or not EARLIEST_MS <= time_ms <= LATEST_MS:
        return None
    return datetime.fromtimestamp(time_ms / 1000, UTC).date()


@contextmanager
def _complete_file(query: ExportQuery, lines: int) -> Iterator[None]:
    """Turn a missing file into an error that is retried: another program deleted it."""
    try:
        yield
    except FileNotFoundError as error:
        raise incomplete(query, "its file was deleted from the spool folder", lines) from error


def reread(spool_path: Path, query: ExportQuery) -> Spool:
    """Return a response that an earlier run left on disk, checked as if it arrived now."""
    verdict = Verdict(gzip=spool_path.suffix == ".gz")
    with spool_path.open("rb") as spool_file:
        for _ in judge_lines(iter(lambda: spool_file.read(_CHUNK_BYTES), b""), query, verdict):
            pass
    return _spool_of(spool_path, query, verdict)


def _spool_of(spool_path: Path, query: ExportQuery, verdict: Verdict) -> Spool:
    """Return a complete response on disk, as if no request had been sent for it."""
    file_status = spool_path.stat()
    return Spool(
        path=spool_path,
        from_date=query.from_date,
        to_date=query.to_date,
        lines=verdict.lines,
        names_once=verdict.names_once,
        unusual=verdict.unusual,
        received_bytes=file_status.st_size,
        json_bytes=verdict.json_bytes,
        requests=0,
        seconds=0.0,
        received_at=datetime.fromtimestamp(file_status.st_mtime, UTC),
    )


@dataclass
class EventExport:
    """Downloads the events of a range of days into spool files.

    Inside its `with` block, `download` fetches any of the days, and no clean-up deletes its files.
    Iterating is a short form: one request for all days, and halves of the range where responses
    stay incomplete. Each `Spool` is complete; the caller stores it and calls its `discard`.

    Attributes:
        open_transport: Makes the connection, which is closed at the end of the `with` block.
        query: The days and filters.
        directory: The folder of spool files.
        retries: The policy for faults and rate limits.
        requests: Requests sent so far, failed ones included.
        estimate: Returns the size of the response for some days; if set, no request is sent
            without room for it on the disk.
        on_lines: Called again and again with the number of events of a response so far.
        on_arrival: Called in the same way, with the days too; with 0 before the request.
        key: Names complete responses, so that a later run of the same load finds them.
        found: Responses of an earlier run by their days; they are used instead of a request.
    """

    open_transport: Callable[[], Transport]
    query: ExportQuery
    directory: Path
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    requests: int = 0
    estimate: Callable[[date, date], int] | None = None
    on_lines: Callable[[int], None] = lambda lines: None
    on_arrival: Callable[[date, date, int], None] = lambda first, last, lines: None
    key: str | None = None
    earlier_spools: dict[tuple[date, date], Path] = field(default_factory=dict)
    _transport: Transport | None = None
    _own_key: str = field(default_factory=lambda: uuid.uuid4().hex)
    _spool_marks: ExitStack = field(default_factory=ExitStack)
    _marked_stems: set[str] = field(default_factory=set)
    _marking: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        for path in self.earlier_spools.values():
            self._mark_spools(stem_of(path.name))
        self._transport = self.open_transport()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._transport:
            self._transport.close()
            self._transport = None
        self._spool_marks.close()
        self._marked_stems.clear()

    def _mark_spools(self, stem: str) -> str:
        """Protect the files with this stem from clean-ups until the `with` block ends."""
        with self._marking:
            if stem not in self._marked_stems:
                self._spool_marks.enter_context(in_use(self.directory, stem))
                self._marked_stems.add(stem)
        return stem

    def __iter__(self) -> Iterator[Spool]:
        errors: list[IncompleteExportError] = []
        first, last = self.query.from_date, self.query.to_date
        with self:
            yield from in_parts(self.download, first, last, lambda _, error: errors.append(error))
        if errors:
            raise days_set_aside(errors, (last - first).days + 1)

    def download(self, from_date: date, to_date: date) -> Spool:
        """Put the events of some days on disk, both ends included, with one request and retries.

        Raises:
            IncompleteExportError: Every response was incomplete.
            PlanHorizonError: The plan does not reach back to the first day.
            StorageError: The spool directory cannot be written or is full.
        """
        self.require_room(from_date, to_date)
        return self._fetch_spool(from_date, to_date)

    def find_days(
        self, from_date: date, to_date: date, most_bytes: int | None = None
    ) -> set[date] | None:
        """Return the dates of the events of some days; see the function of the same name."""
        return find_days(
            self._connection(),
            replace(self.query, from_date=from_date, to_date=to_date, limit=None, time_in_ms=True),
            self.retries,
            most_bytes=most_bytes,
            on_request=self._count_requests,
        )

    def ahead(
        self,
        windows: Iterable[tuple[date, date]],
        wanted: Callable[[tuple[date, date]], bool] = lambda window: True,
    ) -> Iterator[tuple[date, date]]:
        """Yield the windows of days; the caller downloads each one before it draws the next."""
        yield from windows

    def require_room(self, from_date: date, to_date: date, *, beside: int = 0) -> None:
        """Raise `StorageError` unless the response fits on the disk, beside those on their way."""
        if self.estimate:
            needed = self.estimate(from_date, to_date) * (1 + beside)
            require_room(self.directory, needed, f"export {describe_range(from_date, to_date)}")

    def _fetch_spool(
        self, from_date: date, to_date: date, *, on_request: Callable[[], None] | None = None
    ) -> Spool:
        transport = self._connection()
        stem = self._mark_spools(stem_of(self.key or self._own_key))
        query = replace(self.query, from_date=from_date, to_date=to_date)

        def arrived(lines: int) -> None:
            self._report_lines(lines)
            self.on_arrival(from_date, to_date, lines)

        self.on_arrival(from_date, to_date, 0)
        spool = self._earlier_spool(query) or download(
            transport,
            query,
            self.directory,
            self.retries,
            on_request=on_request or self._count_requests,
            on_lines=arrived,
            stem=stem,
        )
        with _complete_file(query, spool.lines):
            return spool.rename(self.key) if self.key else spool

    def _connection(self) -> Transport:
        if self._transport is None:
            raise RuntimeError("an export downloads inside its `with` block only")
        return self._transport

    def _earlier_spool(self, query: ExportQuery) -> Spool | None:
        path = self.earlier_spools.pop((query.from_date, query.to_date), None)
        if path is None:
            return None
        try:
            return reread(path, query)
        except (IncompleteExportError, OSError) as error:
            logger.warning(
                "%s is requested again, because %s cannot be used: %s",
                query.description,
                path,
                error,
            )
            return None

    def _report_lines(self, lines: int) -> None:
        self.on_lines(lines)

    def _count_requests(self, requests: int = 1) -> None:
        self.requests += requests


def in_parts(
    download_days: Callable[[date, date], T],
    first: date,
    last: date,
    give_up: Callable[[date, IncompleteExportError], object] | None = None,
) -> Iterator[T]:
    """Yield what `download_days` returns for some days, or for parts of them that are complete.

    A range whose responses stay incomplete is halved until single days are left. `give_up` is
    called with each single day that stays incomplete and its error, or the error is raised.
    """
    try:
        response = download_days(first, last)
    except IncompleteExportError as error:
        if first < last:
            for half in halves(first, last):
                yield from in_parts(download_days, *half, give_up)
            return
        if give_up is None:
            raise
        give_up(first, error)
        return
    yield response


def days_set_aside(
    incomplete_days: Sequence[IncompleteExportError], days: int, what_to_do: str = ""
) -> IncompleteExportError:
    """Return one error that names the incomplete days, of how many, and what to do."""
    errors_by_day = sorted(incomplete_days, key=lambda error: error.from_date or date.max)
    complete_days = days - len(incomplete_days)
    message = incomplete_days[0].message
    if days > 1:
        day_names = describe_days(error.from_date for error in errors_by_day if error.from_date)
        message = (
            f"{len(incomplete_days)} of {days} days stayed incomplete and were not stored: "
            f"{day_names}. {f'The other {complete_days:,} are stored. ' if complete_days else ''}"
            f"The first error: {message}"
        )
    return IncompleteExportError(
        f"{message} {what_to_do}".rstrip(),
        from_date=errors_by_day[0].from_date,
        to_date=errors_by_day[-1].to_date,
        reason=incomplete_days[0].reason,
        lines=sum(error.lines for error in incomplete_days),
        partial=complete_days > 0,
    )


# Mixpanel allows a hundred exports of a project at the same time.
MAX_EXPORTS = 100
EXPORTS_AT_ONCE = 10


def checked_exports(max_workers: int | None) -> int:
    """Return the number of exports to run at once, as `checked_at_once` does."""
    return checked_at_once(max_workers, EXPORTS_AT_ONCE, MAX_EXPORTS, "exports")


class _ExportLeftError(Exception):
    """The caller has left the `with` block: the response is not needed any more."""


class _DownloadHeldError(Exception):
    """An earlier response failed, so no request was sent for this one."""


@dataclass
class _Download:
    """A response on its way, and the number of requests sent for it so far."""

    response: Future[Spool] = field(default_factory=Future)
    requests: int = 0

    def count(self) -> None:
        """Count a request; one thread alone sends those of a window."""
        self.requests += 1


@dataclass
class AheadExport(EventExport):
    """An export that downloads the windows given to `ahead` before their turn.

    A failure often ends the load, so no request is sent after one until the caller has seen it
    and continues.

    Attributes:
        at_once: The number of windows on their way at the same time, beside the one in use.
    """

    at_once: int = EXPORTS_AT_ONCE
    _pool: ThreadPoolExecutor | None = None
    _downloads: dict[DayRange, _Download] = field(default_factory=dict)
    _failed_windows: set[DayRange] = field(default_factory=set)
    _is_left: bool = False

    def __enter__(self) -> Self:
        self._is_left = False
        self._failed_windows.clear()
        self._pool = ThreadPoolExecutor(self.at_once)
        return super().__enter__()

    def __exit__(self, *raised: object) -> None:
        self._is_left = True
        for window in list(self._downloads):
            self._drop_download(window, delete=self.key is None)
        self.retries.cancelled.set()  # ends waits for the budget and for retries
        if any(raised) and self._transport:
            self._transport.abandon()  # ends waits for responses
        try:
            if self._pool:
                self._pool.shutdown()
        finally:
            self.retries.cancelled.clear()  # the client can be used again
            super().__exit__(*raised)

    def ahead(
        self, windows: Iterable[DayRange], wanted: Callable[[DayRange], bool] = lambda window: True
    ) -> Iterator[DayRange]:
        """Yield windows of days in order, while the next ones are downloaded.

        `wanted` returns whether a window will be needed; it is called before its request is sent.
        """
        windows_left = iter(windows)
        arriving: deque[DayRange] = deque()
        next_window = next(windows_left, None)
        while arriving or next_window:
            while (
                next_window
                and len(arriving) <= self.at_once
                and (not wanted(next_window) or self._start_download(next_window, len(arriving)))
            ):
                arriving.append(next_window)
                next_window = next(windows_left, None)
            window = arriving.popleft()
            yield window
            self._drop_download(window)
            if window in self._failed_windows:
                self._failed_windows.remove(window)
                self._resume_downloads(arriving)

    def download(self, from_date: date, to_date: date) -> Spool:
        """Return the response that was requested ahead, or send a request now."""
        if download := self._downloads.pop((from_date, to_date), None):
            try:
                return download.response.result()
            except _DownloadHeldError:
                pass
            finally:
                self._count_requests(download.requests)
        return super().download(from_date, to_date)

    def _start_download(self, window: DayRange, beside: int) -> bool:
        """Begin to download a window; False: the disk has no room until others are stored."""
        if self._pool is None:
            raise RuntimeError("an export downloads inside its `with` block only")
        try:
            self.require_room(*window, beside=beside)
        except StorageError:
            if beside:
                return False
            raise
        download = self._downloads[window] = _Download()
        download.response = self._pool.submit(
            self._download_in_turn, window, download.count, first=not beside
        )
        return True

    def _resume_downloads(self, arriving: Iterable[DayRange]) -> None:
        """Begin again with the windows that a failure had held back."""
        for beside, window in enumerate(arriving):
            download = self._downloads.get(window)
            if download and download.response.done() and _was_download_held(download.response):
                self._drop_download(window)
                self._start_download(window, beside)

    def _download_in_turn(
        self, window: DayRange, on_request: Callable[[], None], *, first: bool
    ) -> Spool:
        if self._failed_windows and not first:
            raise _DownloadHeldError
        try:
            return self._fetch_spool(*window, on_request=on_request)
        except BaseException:
            self._failed_windows.add(window)
            raise

    def _report_lines(self, lines: int) -> None:
        if self._is_left:
            raise _ExportLeftError
        super()._report_lines(lines)

    def _drop_download(self, window: DayRange, *, delete: bool = True) -> None:
        """Forget a response that the caller did not use; with `delete`, delete its file too."""
        download = self._downloads.pop(window, None)
        if download is None:
            return
        self._count_requests(download.requests)
        if not download.response.cancel() and delete:
            download.response.add_done_callback(_discard_spool)


def _was_download_held(download: Future[Spool]) -> bool:
    return isinstance(download.exception(), _DownloadHeldError)


def _discard_spool(download: Future[Spool]) -> None:
    if not download.cancelled() and download.exception() is None:
        download.result().discard()
