"""Raw Event Export: days wanted -> requests -> answers that were found whole.

A broken answer is discarded and asked for again; still broken, its range is halved; one bad
day left is set aside, the other days go on, and the export ends with an error that names it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx

from mixpanel_assets.client.retries import RetryPolicy
from mixpanel_assets.client.spool import Spool, new_file
from mixpanel_assets.client.transport import Transport
from mixpanel_assets.client.verdict import Judge, NotWholeError, Verdict
from mixpanel_assets.errors import ConfigError, IncompleteExportError

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
) -> Iterator[T]:
    """Yield an item for each line of an answer, after `keep` took the bytes it came in.

    Raises:
        IncompleteExportError: The answer is not whole; what was yielded is real, but not all.
    """
    try:
        for data in pieces:
            if keep:
                keep(data)
            yield from judge.feed(data)
        yield from judge.finish()
    except NotWholeError as error:
        raise incomplete(query, str(error), judge.lines) from error


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
    transport: Transport, query: ExportQuery, directory: Path, retries: RetryPolicy
) -> Spool:
    """Put one request's answer on disk, asking again until it is whole.

    Raises:
        IncompleteExportError: Every answer was broken.
        StorageError: The spool directory took no more.
    """
    started = time.monotonic()
    requests = 0

    def attempt() -> Spool:
        nonlocal requests
        requests += 1
        return _download_once(transport, query, directory, requests, started)

    return retries.call(attempt)


def _download_once(
    transport: Transport, query: ExportQuery, directory: Path, requests: int, started: float
) -> Spool:
    with open_export(transport, query) as response:
        gzip = is_gzip(response)
        name = f"{query.from_date}_{query.to_date}.jsonl" + (".gz" if gzip else "")
        verdict = Verdict(gzip=gzip)
        with new_file(directory, name) as (path, write):
            for _ in judged(response.iter_raw(_CHUNK_BYTES), query, verdict, keep=write):
                pass
    return Spool(
        path=path,
        from_date=query.from_date,
        to_date=query.to_date,
        lines=verdict.lines,
        received_bytes=path.stat().st_size,
        json_bytes=verdict.json_bytes,
        requests=requests,
        seconds=time.monotonic() - started,
    )


@dataclass
class EventExport:
    """The events of a range of days, fetched request by request while this is iterated.

    Iterating again fetches again. Each `Spool` that comes out is whole; whoever stores it
    calls its `discard`. After the last one, days that stayed broken raise.

    Attributes:
        open_transport: Makes the connection, closed when the iteration ends.
        query: What is asked.
        directory: Where spool files go.
        days_per_request: How many days share a request.
    """

    open_transport: Callable[[], Transport]
    query: ExportQuery
    directory: Path
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    days_per_request: int = 7

    @property
    def days(self) -> list[date]:
        """Every day asked for, in order."""
        length = (self.query.to_date - self.query.from_date).days + 1
        return [self.query.from_date + timedelta(days=offset) for offset in range(length)]

    def __iter__(self) -> Iterator[Spool]:
        broken: list[IncompleteExportError] = []
        with closing(self.open_transport()) as transport:
            for first, last in windows(
                self.query.from_date, self.query.to_date, self.days_per_request
            ):
                yield from self._fetch(transport, first, last, broken)
        if broken:
            raise _summary(broken, len(self.days))

    def _fetch(
        self, transport: Transport, first: date, last: date, broken: list[IncompleteExportError]
    ) -> Iterator[Spool]:
        query = replace(self.query, from_date=first, to_date=last)
        try:
            spool = download(transport, query, self.directory, self.retries)
        except IncompleteExportError as error:
            if first == last:
                broken.append(error)
                return
            middle = first + (last - first) // 2
            yield from self._fetch(transport, first, middle, broken)
            yield from self._fetch(transport, middle + timedelta(days=1), last, broken)
            return
        yield spool


def _summary(broken: Sequence[IncompleteExportError], days: int) -> IncompleteExportError:
    if len(broken) == 1 and days == 1:
        return broken[0]
    names = ", ".join(str(error.from_date) for error in broken)
    return IncompleteExportError(
        f"{len(broken)} of {days} days stayed broken and were not stored: {names}. "
        f"The others were. First seen: {broken[0].message}",
        from_date=broken[0].from_date,
        to_date=broken[-1].to_date,
        reason=broken[0].reason,
        lines=sum(error.lines for error in broken),
        partial=len(broken) < days,
    )
