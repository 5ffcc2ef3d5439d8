"""Raw Event Export: some days -> one request -> an answer on disk that was found whole.

A broken answer is discarded and asked for again. Which days share a request, and what becomes
of days that stay broken, is decided by whoever stores them.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from mixpanel_assets.client.disk import require_room
from mixpanel_assets.client.retries import RetryPolicy
from mixpanel_assets.client.spool import STEM_DIGITS, Spool, in_use, new_file
from mixpanel_assets.client.transport import Transport
from mixpanel_assets.client.verdict import Judge, NotWholeError, RecordVerdict, Verdict
from mixpanel_assets.errors import ConfigError, IncompleteExportError
from mixpanel_assets.rules.days import ranges_of, shown

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 16  # inflates to ten times as much, and memory is to stay small
_FIRST_MS, _LAST_MS = 31_536_000_000, 253_402_300_799_999  # a usable `time`: 1971 to 9999

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


def windows(from_date: date, to_date: date, days_per_request: int) -> list[tuple[date, date]]:
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
    if type(time) is not int or not _FIRST_MS <= time <= _LAST_MS:
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
        name = f"{query.from_date}_{query.to_date}.jsonl" + (".gz" if gzip else "")
        verdict = Verdict(gzip=gzip)
        with new_file(directory, name, stem) as (path, write):
            for _ in judged(response.iter_raw(_CHUNK_BYTES), query, verdict, keep=write):
                on_lines(verdict.lines)
    with _missed(query, verdict.lines):
        received_bytes = path.stat().st_size
    return Spool(
        path=path,
        from_date=query.from_date,
        to_date=query.to_date,
        lines=verdict.lines,
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
            self._mark(path.name[:STEM_DIGITS])
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
            yield from self._in_parts(first, last, broken)
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
        stem = self._mark((self.key or self._own)[:STEM_DIGITS])
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
            return spool.named(self.key) if self.key else spool

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

    def _in_parts(
        self, first: date, last: date, broken: list[IncompleteExportError]
    ) -> Iterator[Spool]:
        try:
            spool = self.download(first, last)
        except IncompleteExportError as error:
            if first == last:
                broken.append(error)
                return
            middle = first + (last - first) // 2
            yield from self._in_parts(first, middle, broken)
            yield from self._in_parts(middle + timedelta(days=1), last, broken)
            return
        yield spool

    def _tell(self, lines: int) -> None:
        self.on_lines(lines)

    def _count(self, requests: int = 1) -> None:
        self.requests += requests


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
