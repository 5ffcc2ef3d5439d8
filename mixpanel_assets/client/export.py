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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from mixpanel_assets.client.spool import (
    Spool,
    SpoolName,
    in_use,
    new_file,
    require_room,
    stem_of,
)
from mixpanel_assets.client.transport import RetryPolicy, Transport
from mixpanel_assets.client.verdict import Judge, NotWholeError, RecordVerdict, Verdict
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
    halves,
    ranges_of,
    shown,
)

logger = logging.getLogger(__name__)


MOST_BYTES = 200_000_000  # of JSON, as of other requests
MOST_DAYS = 31  # what every request may have; no limit is documented, and years go well

_DAY = timedelta(days=1)
_UNANSWERED = (ServerError, ConnectionFailedError, IncompleteExportError, QueryError)


@dataclass(frozen=True)
class Confirmed:
    """What one more response said of days that had come without events.

    Attributes:
        empty: It has no event of these either.
        doubtful: It has events of these, or may have: they are to be loaded again.
    """

    empty: list[date]
    doubtful: list[date]


@dataclass
class SecondLooks:
    """Confirms days that came without events, as many as possible with one request.

    Attributes:
        find: Requests days, both ends included, and returns the dates of their events, as
            `EventExport.find_days` does.
        weigh: Returns the JSON bytes of a day between them.
        most_bytes: Days share a request while no more than this lies between them; None: all do.
        by_date: Whether the date of an event is its export day. If not, only neighbours share a
            request, and an event of one makes all of them doubtful.
    """

    find: Callable[[date, date, int | None], set[date] | None]
    weigh: Callable[[date], int]
    most_bytes: int | None = MOST_BYTES
    by_date: bool = True
    _most_days: int | None = None

    def confirm(self, days: Collection[date]) -> Iterator[Confirmed]:
        """Yield what became of the days, request by request.

        A response of many days that stays broken is requested in shorter spans; one of few days
        leaves them doubtful, so that loading them again says what is wrong.

        Raises:
            APIError: Mixpanel refused, and not because of the number of days.
        """
        for group in self._groups(days):
            first, last = group[0], group[-1]
            try:
                found = self.find(first, last, self._limit(first, last))
            except PlanHorizonError:
                found = None
            except _UNANSWERED as error:
                if (last - first).days >= MOST_DAYS:
                    logger.warning("%s Requesting fewer days at a time.", error)
                    self._most_days = MOST_DAYS
                    yield from self.confirm(group)
                    continue
                found = None
            yield self._judged(group, found)

    def is_due(self, days: Collection[date], until: date) -> bool:
        """Tell whether days that come after `until` could not share a request with these."""
        if not days or self.most_bytes is None:
            return False
        if not self.by_date:
            return until > max(days)
        return sum(map(self.weigh, days_between(min(days), until))) > self.most_bytes

    def _judged(self, group: list[date], found: set[date] | None) -> Confirmed:
        if found is None or (found and not self.by_date):
            return Confirmed([], group)
        if not found <= set(days_between(group[0], group[-1])):
            return Confirmed([], group)
        return Confirmed(
            [day for day in group if day not in found], [day for day in group if day in found]
        )

    def _limit(self, first: date, last: date) -> int | None:
        if self.most_bytes is None:
            return None
        return self.most_bytes + sum(map(self.weigh, days_between(first, last)))

    def _groups(self, days: Iterable[date]) -> Iterator[list[date]]:
        group: list[date] = []
        weight = 0
        for day in sorted(days):
            if group:
                weight += sum(map(self.weigh, days_between(group[-1] + _DAY, day)))
                if not self._is_joined(group, day, weight):
                    yield group
                    group, weight = [], 0
            group.append(day)
        if group:
            yield group

    def _is_joined(self, group: list[date], day: date, weight: int) -> bool:
        if self._most_days and (day - group[0]).days >= self._most_days:
            return False
        if not self.by_date:
            return day - group[-1] == _DAY
        return self.most_bytes is None or weight <= self.most_bytes


_CHUNK_BYTES = 1 << 16  # inflates to ten times as much, and memory is to stay small

T = TypeVar("T")


@dataclass(frozen=True)
class ExportQuery:
    """Which events are asked for.

    Attributes:
        from_date: First day, included; UTC, or project time for projects from before 2023.
        to_date: Last day, included.
        events: Only events of these names; None means every event.
        where: A segmentation expression, handed to Mixpanel unread.
        limit: At most so many events, for samples; which ones is undefined.
        time_in_ms: Whether `time` is asked for in milliseconds; without, it is in seconds.
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
    def asked(self) -> str:
        """The question in words, for messages and logs."""
        return f"export {self.from_date}..{self.to_date}"

    @property
    def filters(self) -> dict[str, Any]:
        """What narrows the question, ready for JSON; equal questions have equal ones."""
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


@contextmanager
def open_export(transport: Transport, query: ExportQuery) -> Iterator[httpx.Response]:
    """Send one export request and yield the unread answer."""
    with transport.open(
        "GET", "export", "/export", asked=query.asked, params=query.params()
    ) as response:
        yield response


def judged(
    pieces: Iterable[bytes],
    query: ExportQuery,
    judge: Judge[T],
    keep: Callable[[bytes], object] | None = None,
) -> Iterator[Iterable[T]]:
    """Yield blocks of an item for each line of an answer, after `keep` took the bytes it came in.

    Raises:
        IncompleteExportError: The answer is not whole; what was yielded is real, but not all.
    """
    reason = ""
    try:
        for data in pieces:
            if keep:
                keep(data)
            yield from judge.feed(data)
        yield from judge.finish()
    except NotWholeError as error:
        reason = str(error)
    if reason:  # raised here, for the errors behind it carry the line, which may hold a secret
        raise incomplete(query, reason, judge.lines)
    if judge.blank_lines:
        logger.info("%s: %s blank lines were skipped.", query.asked, f"{judge.blank_lines:,}")


def is_gzip(response: httpx.Response) -> bool:
    """Whether the body travels compressed; Mixpanel compresses from 1,400 bytes on."""
    return "gzip" in response.headers.get("Content-Encoding", "")


def incomplete(query: ExportQuery, reason: str, lines: int) -> IncompleteExportError:
    """Return the error for an answer that is not the days that were asked."""
    return IncompleteExportError(
        f"{query.asked} is not whole: {reason}, after {lines:,} whole events. "
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
    """Put one request's answer on disk, asking again until it is whole.

    Args:
        transport: The connection.
        query: What is asked.
        directory: Where the file goes.
        retries: How patient to be with faults and rate limits.
        on_request: Told of each request before it is sent.
        on_lines: Told how many events of an answer have arrived, again and again.
        stem: What the file's name begins with.

    Raises:
        IncompleteExportError: Every answer was broken.
        StorageError: The spool directory took no more.
    """
    started = time.monotonic()
    requests = 0

    def attempt() -> Spool:
        nonlocal requests
        requests += 1
        on_request()
        return _download_once(transport, query, directory, requests, started, on_lines, stem)

    return retries.call(attempt)


def find_days(
    transport: Transport,
    query: ExportQuery,
    retries: RetryPolicy,
    *,
    most_bytes: int | None = None,
    on_request: Callable[[], None] = lambda: None,
) -> set[date] | None:
    """Request some days and return the dates of the events that come; nothing is kept.

    Args:
        transport: The connection.
        query: Which days, and what narrows them.
        retries: How patient to be.
        most_bytes: The JSON bytes after which reading stops; None: read to the end.
        on_request: Called before each request is sent.

    Returns:
        The dates of `time`; None if they cannot be told, because an event has no usable `time`
        or there are more than `most_bytes`.
    """

    def attempt() -> set[date] | None:
        on_request()
        found: set[date | None] = set()
        with open_export(transport, query) as response:
            judge = RecordVerdict(_day_of, gzip=is_gzip(response))
            for days in judged(response.iter_raw(), query, judge):
                found.update(days)
                if None in found or judge.json_bytes > (most_bytes or judge.json_bytes):
                    return None
        return {day for day in found if day}

    return retries.call(attempt)


def _day_of(event: dict[str, Any], line: bytes) -> date | None:
    time = event["properties"].get("time")
    if type(time) is not int or not EARLIEST_MS <= time <= LATEST_MS:
        return None
    return datetime.fromtimestamp(time / 1000, UTC).date()


def _download_once(
    transport: Transport,
    query: ExportQuery,
    directory: Path,
    requests: int,
    started: float,
    on_lines: Callable[[int], None],
    stem: str,
) -> Spool:
    with open_export(transport, query) as response:
        gzip = is_gzip(response)
        key = stem + uuid.uuid4().hex[len(stem) :]
        name = SpoolName(query.from_date, query.to_date, gzip, key)
        verdict = Verdict(gzip=gzip)
        with new_file(directory, str(name)) as (path, write):
            for _ in judged(response.iter_raw(_CHUNK_BYTES), query, verdict, keep=write):
                on_lines(verdict.lines)
    with _missed(query, verdict.lines):
        received_bytes = path.stat().st_size
    return Spool(
        path=path,
        from_date=query.from_date,
        to_date=query.to_date,
        lines=verdict.lines,
        names_once=verdict.names_once,
        received_bytes=received_bytes,
        json_bytes=verdict.json_bytes,
        requests=requests,
        seconds=time.monotonic() - started,
        received_at=datetime.now(UTC),
    )


@contextmanager
def _missed(query: ExportQuery, lines: int) -> Iterator[None]:
    """Have a response requested again whose file was deleted from outside.

    Raises:
        IncompleteExportError: The file is gone.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise incomplete(query, "its file was deleted from the spool folder", lines) from error


def reread(path: Path, query: ExportQuery) -> Spool:
    """Return an answer that lies on disk, after the same verdict as when it came.

    Raises:
        IncompleteExportError: It is not whole.
        FileNotFoundError: It is gone.
    """
    verdict = Verdict(gzip=path.suffix == ".gz")
    with path.open("rb") as file:
        for _ in judged(iter(lambda: file.read(_CHUNK_BYTES), b""), query, verdict):
            pass
    found = path.stat()
    return Spool(
        path=path,
        from_date=query.from_date,
        to_date=query.to_date,
        lines=verdict.lines,
        names_once=verdict.names_once,
        received_bytes=found.st_size,
        json_bytes=verdict.json_bytes,
        requests=0,
        seconds=0.0,
        received_at=datetime.fromtimestamp(found.st_mtime, UTC),
    )


@dataclass
class EventExport:
    """The events of a range of days, on their way into spool files.

    Inside its `with` block, `download` fetches any of the days, and no clean-up deletes its files.
    Who only wants the files may iterate instead: one request for all of the days, halves of it
    where answers stay broken. Each `Spool` is whole; whoever stores it calls its `discard`.

    Attributes:
        open_transport: Makes the connection, closed on leaving the `with` block.
        query: What is asked.
        directory: Where spool files go.
        retries: How patient to be with faults and rate limits.
        requests: Requests made so far, broken answers included.
        estimate: Says what bytes the answer for some days will take; if set, no request is sent
            without room for them on the disk.
        on_lines: Told how many events of an answer have arrived, again and again.
        on_arrival: Told the same with the days of the answer; 0 once they are asked for.
        key: Names whole answers, so that whoever goes on with a broken load finds them.
        found: Answers of an earlier load, by the days asked for; taken instead of asking.
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
    found: dict[tuple[date, date], Path] = field(default_factory=dict)
    _transport: Transport | None = None
    _own: str = field(default_factory=lambda: uuid.uuid4().hex)
    _marks: ExitStack = field(default_factory=ExitStack)
    _marked: set[str] = field(default_factory=set)
    _marking: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        for path in self.found.values():
            self._mark(stem_of(path.name))
        self._transport = self.open_transport()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._transport:
            self._transport.close()
            self._transport = None
        self._marks.close()
        self._marked.clear()

    def _mark(self, stem: str) -> str:
        """See that files with that stem are known to be in use."""
        with self._marking:
            if stem not in self._marked:
                self._marks.enter_context(in_use(self.directory, stem))
                self._marked.add(stem)
        return stem

    def __iter__(self) -> Iterator[Spool]:
        broken: list[IncompleteExportError] = []
        first, last = self.query.from_date, self.query.to_date
        with self:
            yield from in_parts(self.download, first, last, broken.append)
        if broken:
            raise days_set_aside(broken, (last - first).days + 1)

    def download(self, from_date: date, to_date: date) -> Spool:
        """Put the events of some days on disk, both ends included; one request if all goes well.

        Raises:
            IncompleteExportError: Every answer was broken.
            PlanHorizonError: The plan does not reach back to the first day.
            StorageError: The spool directory took no more.
        """
        self.require_room(from_date, to_date)
        return self._ask(from_date, to_date)

    def find_days(
        self, from_date: date, to_date: date, most_bytes: int | None = None
    ) -> set[date] | None:
        """Request some days, both ends included, and return the dates of the events that come.

        Args:
            from_date: First day.
            to_date: Last day.
            most_bytes: The JSON bytes after which reading stops; None: read to the end.

        Returns:
            See the function of the same name.
        """
        return find_days(
            self._opened(),
            replace(self.query, from_date=from_date, to_date=to_date, limit=None, time_in_ms=True),
            self.retries,
            most_bytes=most_bytes,
            on_request=self._count,
        )

    def ahead(
        self,
        windows: Iterable[tuple[date, date]],
        wanted: Callable[[tuple[date, date]], bool] = lambda window: True,
    ) -> Iterator[tuple[date, date]]:
        """Yield windows of days, each to be downloaded while it is the last one yielded."""
        yield from windows

    def require_room(self, from_date: date, to_date: date, *, beside: int = 0) -> None:
        """Make sure that the answer for some days will find room, beside others on their way.

        Raises:
            StorageError: There is too little; nothing was asked.
        """
        if self.estimate:
            needed = self.estimate(from_date, to_date) * (1 + beside)
            require_room(self.directory, needed, f"export {from_date}..{to_date}")

    def _ask(
        self, from_date: date, to_date: date, *, on_request: Callable[[], None] | None = None
    ) -> Spool:
        transport = self._opened()
        stem = self._mark(stem_of(self.key or self._own))
        query = replace(self.query, from_date=from_date, to_date=to_date)

        def arrived(lines: int) -> None:
            self._tell(lines)
            self.on_arrival(from_date, to_date, lines)

        self.on_arrival(from_date, to_date, 0)
        spool = self._take_found(query) or download(
            transport,
            query,
            self.directory,
            self.retries,
            on_request=on_request or self._count,
            on_lines=arrived,
            stem=stem,
        )
        with _missed(query, spool.lines):
            return spool.rename(self.key) if self.key else spool

    def _opened(self) -> Transport:
        if self._transport is None:
            raise RuntimeError("an export downloads inside its `with` block only")
        return self._transport

    def _take_found(self, query: ExportQuery) -> Spool | None:
        path = self.found.pop((query.from_date, query.to_date), None)
        if path is None:
            return None
        try:
            return reread(path, query)
        except (IncompleteExportError, OSError) as error:
            logger.warning("%s is asked again, for %s cannot be used: %s", query.asked, path, error)
            return None

    def _tell(self, lines: int) -> None:
        self.on_lines(lines)

    def _count(self, requests: int = 1) -> None:
        self.requests += requests


def in_parts(
    download: Callable[[date, date], T],
    first: date,
    last: date,
    give_up: Callable[[IncompleteExportError], object] | None = None,
) -> Iterator[T]:
    """Yield what `download` returns for some days, or for parts of them that are complete.

    A range whose responses stay incomplete is halved until single days are left.

    Args:
        download: Called with a first and a last day, both included.
        first: First day.
        last: Last day, included.
        give_up: Called with the error of each single day that stays incomplete; None: it is raised.
    """
    try:
        complete = download(first, last)
    except IncompleteExportError as error:
        if first < last:
            for half in halves(first, last):
                yield from in_parts(download, *half, give_up)
            return
        if give_up is None:
            raise
        give_up(error)
        return
    yield complete


def days_set_aside(
    broken: Sequence[IncompleteExportError], days: int, what_to_do: str = ""
) -> IncompleteExportError:
    """Return the one error that names the days that stayed broken, of so many asked for."""
    ordered = sorted(broken, key=lambda error: error.from_date or date.max)
    others = days - len(broken)
    said = broken[0].message
    if days > 1:
        named = shown(ranges_of(error.from_date for error in ordered if error.from_date))
        said = (
            f"{len(broken)} of {days} days stayed broken and were not stored: {named}. "
            f"{f'The other {others:,} are stored. ' if others else ''}First seen: {said}"
        )
    return IncompleteExportError(
        f"{said} {what_to_do}".rstrip(),
        from_date=ordered[0].from_date,
        to_date=ordered[-1].to_date,
        reason=broken[0].reason,
        lines=sum(error.lines for error in broken),
        partial=others > 0,
    )


# Mixpanel lets a hundred exports of a project run at once.
MAX_EXPORTS = 100
EXPORTS_AT_ONCE = 10


def checked_exports(max_workers: int | None) -> int:
    """Return how many exports to run at once; warn if that is fewer than wanted.

    Raises:
        ConfigError: It is less than 1.
    """
    if max_workers is None:
        return EXPORTS_AT_ONCE
    if type(max_workers) is not int or max_workers < 1:
        raise ConfigError(f"max_workers must be a number from 1 on, not {max_workers!r}.")
    if max_workers > MAX_EXPORTS:
        logger.warning(
            "max_workers=%s is capped at %s: Mixpanel runs no more exports at once.",
            max_workers,
            MAX_EXPORTS,
        )
    return min(max_workers, MAX_EXPORTS)


class _LeftError(Exception):
    """Nobody waits for the answer any more."""


class _HeldError(Exception):
    """An earlier answer failed: what waited behind it was not asked for."""


@dataclass
class _Started:
    """An answer on its way, and how many requests it has taken so far."""

    answer: Future[Spool]
    requests: list[None]


@dataclass
class AheadExport(EventExport):
    """An export that downloads the windows given to `ahead` before their turn.

    After a failure nothing more is asked for until its turn has come and the load goes on.

    Attributes:
        at_once: How many of them are on their way at the same time; the one in use is beside
            them.
    """

    at_once: int = EXPORTS_AT_ONCE
    _pool: ThreadPoolExecutor | None = None
    _started: dict[DayRange, _Started] = field(default_factory=dict)
    _failed: set[DayRange] = field(default_factory=set)
    _left: bool = False

    def __enter__(self) -> Self:
        self._left = False
        self._failed.clear()
        self._pool = ThreadPoolExecutor(self.at_once)
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left = True
        for window in list(self._started):
            self._drop(window, whole=self.key is None)
        self.retries.cancelled.set()  # nobody is to wait for a budget or a retry
        if error and self._transport:
            self._transport.abandon()  # nor for an answer
        try:
            if self._pool:
                self._pool.shutdown()
        finally:
            self.retries.cancelled.clear()  # the client can be used again
            super().__exit__(kind, error, trace)

    def ahead(
        self, windows: Iterable[DayRange], wanted: Callable[[DayRange], bool] = lambda window: True
    ) -> Iterator[DayRange]:
        """Yield windows of days in order, with the next ones on their way.

        Args:
            windows: The windows.
            wanted: Whether an answer will be of use, by what is known when its turn comes.
        """
        left = iter(windows)
        coming: deque[DayRange] = deque()
        following = next(left, None)
        while coming or following:
            while (
                following
                and len(coming) <= self.at_once
                and (not wanted(following) or self._start(following, len(coming)))
            ):
                coming.append(following)
                following = next(left, None)
            window = coming.popleft()
            yield window
            self._drop(window)
            if window in self._failed:
                self._failed.remove(window)
                self._go_on(coming)

    def download(self, from_date: date, to_date: date) -> Spool:
        """Return the answer that was asked for ahead, or ask now."""
        if started := self._started.pop((from_date, to_date), None):
            try:
                return started.answer.result()
            except _HeldError:
                pass
            finally:
                self._count(len(started.requests))
        return super().download(from_date, to_date)

    def _start(self, window: DayRange, beside: int) -> bool:
        """Ask for a window; False if the disk has no room until others are stored."""
        if self._pool is None:
            raise RuntimeError("an export downloads inside its `with` block only")
        try:
            self.require_room(*window, beside=beside)
        except StorageError:
            if beside:
                return False
            raise
        sent: list[None] = []
        answer = self._pool.submit(self._ask_in_turn, window, sent, first=not beside)
        self._started[window] = _Started(answer, sent)
        return True

    def _go_on(self, coming: Iterable[DayRange]) -> None:
        """Ask for what a failure had held back."""
        for beside, window in enumerate(coming):
            started = self._started.get(window)
            if started and started.answer.done() and _was_held(started.answer):
                self._drop(window)
                self._start(window, beside)

    def _ask_in_turn(self, window: DayRange, sent: list[None], *, first: bool) -> Spool:
        if self._failed and not first:
            raise _HeldError
        try:
            return self._ask(*window, on_request=lambda: sent.append(None))
        except BaseException:
            self._failed.add(window)
            raise

    def _tell(self, lines: int) -> None:
        if self._left:
            raise _LeftError
        super()._tell(lines)

    def _drop(self, window: DayRange, *, whole: bool = True) -> None:
        """Forget an answer that nobody took, also a whole one if it is of no use later."""
        started = self._started.pop(window, None)
        if started is None:
            return
        self._count(len(started.requests))
        if not started.answer.cancel() and whole:
            started.answer.add_done_callback(_discard)


def _was_held(done: Future[Spool]) -> bool:
    return isinstance(done.exception(), _HeldError)


def _discard(done: Future[Spool]) -> None:
    if not done.cancelled() and done.exception() is None:
        done.result().discard()
