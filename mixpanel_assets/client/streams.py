"""Streams: one record at a time, complete or an error; no database and constant memory.

Failed responses are retried until the first record of a request is delivered. After it, an
incomplete response raises, because a retry would deliver records twice. A staged stream puts each
response on disk and checks it first, so that every failed response can be retried.

Days without events are requested once more, together, before a stream ends. Events that they have
then are delivered last.
"""

from __future__ import annotations

import itertools
import json
import logging
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from mixpanel_assets.client.export import (
    MOST_BYTES,
    EventExport,
    ExportQuery,
    SecondLooks,
    find_days,
    incomplete,
    is_gzip,
    judge_lines,
    open_export,
    windows,
)
from mixpanel_assets.client.normalize import EventNormalizer, parse_record
from mixpanel_assets.client.profiles import (
    DistinctIds,
    ProfilePage,
    ProfileQuery,
    checked_page,
    fetch_first_page,
    fetch_page,
    session_of_page_0,
)
from mixpanel_assets.client.spool import Spool
from mixpanel_assets.client.transport import RetryPolicy, Transport
from mixpanel_assets.client.verdict import IncompleteBodyError, Judge, RecordVerdict
from mixpanel_assets.errors import (
    ConfigError,
    ConnectionFailedError,
    IncompleteExportError,
    MixpanelDataError,
    ServerError,
)
from mixpanel_assets.rules.days import as_day, days_between, describe_range, ranges_of
from mixpanel_assets.rules.lines import MAX_LINE_BYTES

logger = logging.getLogger(__name__)

T = TypeVar("T")
Convert = Callable[[dict[str, Any], bytes], T]
Blocks = Generator[Iterable[T], None, None]

MOST_EVENTS = 100_000
STREAMED_DAYS = 7
_CHUNK_BYTES = 1 << 16


class RecordStream(Iterator[T], Generic[T]):
    """An iterator over records, and a context manager.

    Leaving it early, by `with`, by `close` or by dropping it, closes the connection and deletes
    its files.

    Example:
        >>> with workspace.stream_events(from_date="2024-01-01", to_date="2024-01-31") as events:
        ...     first = next(events)
    """

    def __init__(self, blocks: Blocks[T], description: str) -> None:
        """Deliver the records in `blocks`, which has not begun; `description` is for messages."""
        self._description = description
        self._delivered = _Count()
        self._records = _count_records(blocks, description, self._delivered)

    def __repr__(self) -> str:
        return f"<RecordStream of {self._description}: {self.delivered:,} delivered so far>"

    @property
    def delivered(self) -> int:
        """The number of records delivered so far."""
        return self._delivered.records

    def __iter__(self) -> Iterator[T]:
        return self._records

    def __next__(self) -> T:
        return next(self._records)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """End the stream, close its connection and delete its files."""
        self._records.close()


@dataclass
class _Count:
    """Not a field of the stream: a cycle would keep a dropped stream, and its connection, alive."""

    records: int = 0


def _count_records(blocks: Blocks[T], description: str, count: _Count) -> Generator[T, None, None]:
    # The one Python loop that every streamed record goes through.
    try:
        with closing(blocks):
            for block in blocks:
                for record in block:
                    count.records += 1
                    yield record
    except (IncompleteExportError, ConnectionFailedError, ServerError) as error:
        if not count.records:
            raise
        raise _stream_broke_error(error, description, count.records) from error


@dataclass(frozen=True)
class EventSource:
    """The source of a stream of events.

    Attributes:
        query: The days and filters.
        transport: The connection for live responses.
        open_transport: Makes the connections for staged responses.
        spool_directory: The folder of staged responses; None: the temporary directory.
        staged: Whether a response is put on disk and checked first.
        confirms: Whether days without events are requested once more before the end.
    """

    query: ExportQuery
    transport: Transport
    open_transport: Callable[[], Transport]
    retries: RetryPolicy
    days_per_request: int
    spool_directory: Path | None = None
    staged: bool = False
    confirms: bool = True

    def blocks(self, judge: Callable[[bool], Judge[T]]) -> Blocks[T]:
        """Yield the items of each response's lines.

        `judge` returns the judge of one response, called with whether its bytes are gzip.

        Raises:
            IncompleteExportError: A response is incomplete; or, at the end, a line was too long.
        """
        limit = self.query.limit
        received = _ReceivedDays()
        omitted_lines: list[IncompleteExportError] = []
        # `_doubtful_requests` is lazy: it begins when all other responses are recorded.
        for query in itertools.chain(self._export_requests(), self._doubtful_requests(received)):
            judges: list[Judge[T]] = []
            with closing(self._blocks_of(replace(query, limit=limit), judge, judges)) as blocks:
                if limit is None:
                    yield from blocks
                else:
                    for record in itertools.islice(itertools.chain.from_iterable(blocks), limit):
                        yield (record,)
                        limit -= 1
                    if not limit:
                        return
            omitted_lines += filter(None, [_warn_of_odd_lines(query, judged) for judged in judges])
            received.add(query, judges)
        if omitted_lines:  # only now, so that all other records are delivered
            raise omitted_lines[0]

    def _export_requests(self) -> Iterator[ExportQuery]:
        return self._requests_for([(self.query.from_date, self.query.to_date)])

    def _requests_for(self, spans: Iterable[tuple[date, date]]) -> Iterator[ExportQuery]:
        for span in spans:
            for first, last in windows(*span, self.days_per_request):
                yield replace(self.query, from_date=first, to_date=last)

    def _doubtful_requests(self, received: _ReceivedDays) -> Iterator[ExportQuery]:
        """Yield the requests for days that had no events at first and may have some after all."""
        looks = SecondLooks(
            self._find_days,
            weigh=received.weigh,
            most_bytes=None if self.query.filters else MOST_BYTES,
        )
        for confirmed in looks.confirm(received.finished_without_events() if self.confirms else ()):
            yield from self._requests_for(ranges_of(confirmed.doubtful))

    def _find_days(self, first: date, last: date, most_bytes: int | None) -> set[date] | None:
        query = replace(self.query, from_date=first, to_date=last, limit=None, time_in_ms=True)
        return find_days(self.transport, query, self.retries, most_bytes=most_bytes)

    def _blocks_of(
        self, query: ExportQuery, judge: Callable[[bool], Judge[T]], judges: list[Judge[T]]
    ) -> Blocks[T]:
        """Yield blocks of a response; the judges of its parts are added to `judges`."""
        if not self.staged:
            with ExitStack() as opened:
                yield from self.retries.call(lambda: self._receive(query, judge, judges, opened))
            return
        for spool in self._staged_spools(query):
            try:
                judges.append(judge(spool.path.suffix == ".gz"))
                yield from judge_lines(_spool_pieces(spool.path), query, judges[-1])
            finally:
                spool.discard()

    def _receive(
        self,
        query: ExportQuery,
        judge: Callable[[bool], Judge[T]],
        judges: list[Judge[T]],
        opened: ExitStack,
    ) -> Iterator[Iterable[T]]:
        """Return the blocks of a response, once its first block has arrived."""
        with ExitStack() as attempt:
            response = attempt.enter_context(open_export(self.transport, query))
            judges[:] = [judge(is_gzip(response))]
            blocks = judge_lines(response.iter_raw(), query, judges[0])
            first = list(itertools.islice(blocks, 1))
            opened.push(attempt.pop_all())
        return itertools.chain(first, blocks)

    def _staged_spools(self, query: ExportQuery) -> Iterator[Spool]:
        with _spool_folder(self.spool_directory) as directory:
            yield from EventExport(self.open_transport, query, directory, self.retries)


class _ReceivedDays:
    """The sizes of the responses of a stream, by day, and the days without events."""

    def __init__(self) -> None:
        self._bytes: dict[date, int] = {}
        self._empty: list[date] = []

    def add(self, query: ExportQuery, judges: Sequence[Judge[Any]]) -> None:
        """Record a response, which arrived in one or more parts."""
        days = days_between(query.from_date, query.to_date)
        json_bytes = sum(judge.json_bytes for judge in judges) // len(days)
        self._bytes.update(dict.fromkeys(days, json_bytes))
        if not any(judge.lines for judge in judges):
            self._empty.extend(days)

    def weigh(self, day: date) -> int:
        """Return the JSON bytes of a day, estimated from its response."""
        return self._bytes.get(day, 0)

    def finished_without_events(self) -> list[date]:
        """Return the days without events that are over; the others still receive events."""
        today = datetime.now(UTC).date()
        return [day for day in self._empty if day < today]


def normalized(source: EventSource, local_zone: str | None) -> Blocks[dict[str, Any]]:
    """Yield normalized events; warn once, at the end, of events without a usable `time`."""
    normalizer = EventNormalizer(local_zone)

    def judge(gzip: bool) -> RecordVerdict[dict[str, Any]]:
        normalizer.begin_days()
        return RecordVerdict(normalizer.convert, gzip=gzip)

    try:
        yield from source.blocks(judge)
    finally:
        if normalizer.timeless:
            logger.warning(
                "%s: %s events carry no usable `time`; their event_time is None.",
                source.query.description,
                f"{normalizer.timeless:,}",
            )


def as_received(event: dict[str, Any], line: bytes) -> dict[str, Any]:
    """Return the event unchanged."""
    return event


@dataclass(frozen=True)
class ProfileSource:
    """The source of a stream of profiles: the pages of one session, in order."""

    query: ProfileQuery
    transport: Transport
    retries: RetryPolicy

    def blocks(self, convert: Convert[T]) -> Blocks[T]:
        """Yield the records of each page that `convert` makes of its profiles and their text.

        A page is checked before its first profile is delivered, so failed responses are retried.

        Raises:
            IncompleteExportError: A page is missing, or the pages do not add up to `total`.
        """
        for page in self._pages():
            yield itertools.starmap(convert, page)

    def _pages(self) -> Iterator[list[tuple[dict[str, Any], bytes]]]:
        distinct_ids = DistinctIds()
        first = page = fetch_first_page(self.transport, self.query, self.retries)
        announced_profiles = max(first.total or 0, len(first.results))
        received_profiles = len(first.results)
        yield _add_ids(_profiles_of_page(first), distinct_ids)
        while len(page.results) >= first.page_size:
            page = self._next_page(first, page.page + 1, distinct_ids)
            received_profiles += len(page.results)
            if page.page >= first.num_pages:  # `total` may count the profiles of page 0 alone
                announced_profiles += len(page.results)
            yield _add_ids(_profiles_of_page(page), distinct_ids)
        if len(distinct_ids) < announced_profiles:
            raise _not_all(announced_profiles, received_profiles, len(distinct_ids), page.page + 1)

    def _next_page(self, first: ProfilePage, number: int, ids: DistinctIds) -> ProfilePage:
        def fetch() -> ProfilePage:
            page = fetch_page(self.transport, self.query, number, first.session_id)
            return _page_with_news(checked_page(page, first.total or 0, first.page_size), ids)

        with session_of_page_0(number):
            return self.retries.call(fetch)


def _page_with_news(page: ProfilePage, ids: DistinctIds) -> ProfilePage:
    """Return a page, unless it only repeats pages before it: its own profiles are missing then."""
    if page.results and all(_id_of(profile) in ids for profile, _ in _profiles_of_page(page)):
        reason = f"page {page.page} repeats profiles of the pages before it and holds no others"
        raise IncompleteExportError(f"profiles {reason}.", reason=reason, lines=len(page.results))
    return page


def _add_ids(
    profiles: list[tuple[dict[str, Any], bytes]], ids: DistinctIds
) -> list[tuple[dict[str, Any], bytes]]:
    for profile, _ in profiles:
        ids.add(_id_of(profile))
    return profiles


def _id_of(profile: Mapping[str, Any]) -> str:
    distinct_id = profile["$distinct_id"]
    return distinct_id if isinstance(distinct_id, str) else json.dumps(distinct_id)


def _not_all(announced: int, received: int, different: int, pages: int) -> IncompleteExportError:
    reason = (
        f"{pages:,} pages brought {received:,} profiles, of which {different:,} are different "
        f"ones, but {announced:,} were announced"
    )
    return IncompleteExportError(f"profiles: {reason}. Start again.", reason=reason, lines=received)


def checked_events(
    from_date: date | str,
    to_date: date | str,
    events: Sequence[str] | None,
    where: str | None,
    limit: int | None,
    *,
    time_in_ms: bool,
) -> ExportQuery:
    """Return the query of a stream; `ConfigError` names a wrong argument."""
    if events is not None and (
        isinstance(events, str) or not events or not all(isinstance(name, str) for name in events)
    ):
        raise ConfigError(
            f"events must be a list of event names, not {events!r}; leave it out for every event."
        )
    if where is not None and not (isinstance(where, str) and where.strip()):
        raise ConfigError(
            'where must be an expression such as properties["plan"] == "pro"; '
            "leave it out for every event."
        )
    if limit is not None and (type(limit) is not int or not 1 <= limit <= MOST_EVENTS):
        raise ConfigError(f"limit must be a number from 1 to {MOST_EVENTS:,}, not {limit!r}.")
    return ExportQuery(
        as_day(from_date), as_day(to_date), events, where, limit, time_in_ms=time_in_ms
    )


def _stream_broke_error(
    error: MixpanelDataError, description: str, delivered: int
) -> IncompleteExportError:
    first, last = getattr(error, "from_date", None), getattr(error, "to_date", None)
    reason = getattr(error, "reason", "") or error.message.rstrip(".")
    request = f"export {describe_range(first, last)}" if first and last else description
    return IncompleteExportError(
        f"{request} broke off: {reason}. {delivered:,} records had been delivered; they are real, "
        "but not all.",
        from_date=first,
        to_date=last,
        reason=reason,
        lines=delivered,
        records=delivered,
        partial=True,
    )


def _warn_of_odd_lines(query: ExportQuery, judge: Judge[T]) -> IncompleteExportError | None:
    """Warn of delivered lines that no table can hold; return the error for omitted lines."""
    for reason, count in judge.odd_lines.items():
        logger.warning(
            "%s: %s of the delivered lines would be in a table's quarantine: %s.",
            query.description,
            f"{count:,}",
            reason,
        )
    if not judge.long_lines:
        return None
    lines, most = len(judge.long_lines), MAX_LINE_BYTES >> 20
    first = judge.long_lines[0]
    which = first if lines == 1 else f"{lines:,} lines, the first of which is {first}"
    return incomplete(
        query,
        f"a stream delivers no line longer than {most} MiB, and {which} was left out. Load "
        "the day into a table, which keeps the beginning of such a line in its quarantine",
        judge.lines - lines,
    )


def _profiles_of_page(page: ProfilePage) -> list[tuple[dict[str, Any], bytes]]:
    return [(parse_record(profile), profile) for profile in page.results]


def _spool_pieces(spool_path: Path) -> Iterator[bytes]:
    try:
        with spool_path.open("rb") as spool_file:
            while piece := spool_file.read(_CHUNK_BYTES):
                yield piece
    except FileNotFoundError as error:
        raise IncompleteBodyError("its file was deleted from the spool folder") from error


@contextmanager
def _spool_folder(spool_directory: Path | None) -> Iterator[Path]:
    if spool_directory is not None:
        yield spool_directory
        return
    with tempfile.TemporaryDirectory(prefix="mixpanel-assets-") as temporary_folder:
        yield Path(temporary_folder)
