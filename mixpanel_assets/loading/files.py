"""Events and profiles into files of JSON lines or Parquet; a file appears only when complete."""

from __future__ import annotations

import json
import logging
import os
import re
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from mixpanel_assets.client import (
    STREAMED_DAYS,
    MixpanelAPIClient,
    ProfileQuery,
    RecordStream,
    SecondLooks,
)
from mixpanel_assets.client.export import MOST_BYTES
from mixpanel_assets.client.normalize import parse_record
from mixpanel_assets.client.spool import make_private_folder
from mixpanel_assets.errors import (
    ConfigError,
    IncompleteExportError,
    MixpanelDataError,
    StorageError,
    escaped_json,
)
from mixpanel_assets.rules.days import days_between, describe_range, describe_rest
from mixpanel_assets.settings import Settings

logger = logging.getLogger(__name__)


_encode_record = msgspec.json.Encoder().encode


def as_json(record: Mapping[str, Any]) -> bytes:
    """Return a record as one line of JSON, without the newline; moments in ISO 8601 ending in Z."""
    # Other line ends of Unicode and control characters are escaped, so that every reader sees the
    # same lines and a terminal obeys none of them.
    try:
        line = _encode_record(record)
    except (OverflowError, UnicodeEncodeError, msgspec.MsgspecError):
        # An integer beyond 64 bits or half of a surrogate pair.
        line = json.dumps(record, separators=(",", ":"), default=_moment_text).encode()
    if line.isascii() and b"\x7f" not in line:
        return line
    return escaped_json(line.decode()).encode()


def _moment_text(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


if TYPE_CHECKING:
    import pyarrow as pa

FileFormat = Literal["jsonl", "parquet"]

EVENT_COLUMNS = ("event_name", "event_time", "distinct_id", "insert_id", "properties")
PROFILE_COLUMNS = ("distinct_id", "last_seen", "properties")

# Both bound the memory of a row group: events can be many, or large.
ROWS_PER_GROUP = 50_000
BYTES_PER_GROUP = 1 << 23


@contextmanager
def complete_file(path: Path, *, as_of: float | None = None) -> Iterator[IO[bytes]]:
    """Yield a file that gets its name, or replaces the file of that name, when the block ends.

    Its folder is made if it is missing. If the block raises, no new file is left. `as_of` is the
    file's time of change, in seconds since 1970; None: now.

    Raises:
        StorageError: The disk refused.
    """
    unfinished_file = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished_file.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut can leave an empty file of that name
        if as_of is not None:
            os.utime(unfinished_file, (as_of, as_of))
        unfinished_file.replace(path)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}. A file that was there is kept."
        ) from error
    finally:
        with suppress(OSError):
            unfinished_file.unlink()


class RecordFile(ABC):
    """A file to which records are added one by one, with constant memory.

    Attributes:
        rows: Records so far.
    """

    rows = 0

    @abstractmethod
    def add(self, record: Any) -> None:
        """Add a record; `StorageError`: the format cannot hold a text."""

    @abstractmethod
    def close(self) -> None:
        """Write the rest; the file itself stays open."""


class LineFile(RecordFile):
    """Lines of JSON, given as bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._open_day_file = file

    def add(self, record: bytes) -> None:
        """Add a JSON value as one line."""
        # Between the parts of a JSON value a line's end is a blank like any other.
        self._open_day_file.write(record.replace(b"\n", b" ") + b"\n")
        self.rows += 1

    def close(self) -> None:
        """Write nothing: every line is written already."""


class JsonFile(LineFile):
    """Normalized records as lines of JSON."""

    def add(self, record: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Add a normalized record."""
        super().add(as_json(record))


class ParquetFile(RecordFile):
    """Normalized records in Parquet, in row groups bounded in rows and in bytes.

    `event_time` is a UTC timestamp in milliseconds, `properties` is JSON text, and the other
    columns are always text.
    """

    def __init__(self, file: IO[bytes], columns: Sequence[str]) -> None:
        import pyarrow.parquet as pq

        self._columns = columns
        self._parquet_schema = _parquet_schema(columns)
        self._writer = pq.ParquetWriter(file, self._parquet_schema, compression="zstd")
        self._group: list[tuple[Any, ...]] = []
        self._bytes = 0

    def add(self, record: Mapping[str, Any]) -> None:
        """Add a normalized record."""
        properties = as_json(record["properties"])
        row = {**record, "properties": properties.decode()}
        self._group.append(tuple(row[name] for name in self._columns))
        self._bytes += len(properties)
        self.rows += 1
        if len(self._group) == ROWS_PER_GROUP or self._bytes >= BYTES_PER_GROUP:
            self._write_row_group()

    def close(self) -> None:
        """Write the last row group and the footer."""
        try:
            self._write_row_group()
        finally:
            self._writer.close()

    def _write_row_group(self) -> None:
        if self._group:
            group, self._group, self._bytes = self._group, [], 0
            self._writer.write_batch(_row_group(group, self._parquet_schema))


def check_format(format: FileFormat, *, raw: bool) -> None:
    """Raise `ConfigError` for raw records in Parquet."""
    if raw and format == "parquet":
        raise ConfigError(
            "Raw records have no columns for Parquet: choose the format jsonl, or leave raw out."
        )


@contextmanager
def record_file(
    path: Path,
    columns: Sequence[str],
    format: FileFormat,
    *,
    raw: bool = False,
    as_of: float | None = None,
) -> Iterator[RecordFile]:
    """Yield a file of records, which gets its name when the block ends; see `complete_file`.

    Raw records are bytes, each one JSON value, and are written unchanged; normalized ones have the
    columns as keys.
    """
    check_format(format, raw=raw)
    with complete_file(path, as_of=as_of) as file:
        records: RecordFile
        if raw:
            records = LineFile(file)
        elif format == "jsonl":
            records = JsonFile(file)
        else:
            records = ParquetFile(file, columns)
        try:
            yield records
        finally:
            records.close()


def _parquet_schema(columns: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    moment = pa.timestamp("ms", tz="UTC")
    return pa.schema([(name, moment if name == "event_time" else pa.string()) for name in columns])


def _row_group(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    try:
        columns = [
            pa.array(values, field.type)
            for field, values in zip(schema, zip(*rows, strict=True), strict=True)
        ]
    except UnicodeEncodeError as error:
        raise StorageError(
            "A name or an id holds half of a surrogate pair, which text in Parquet cannot. "
            "Choose the format jsonl."
        ) from error
    return pa.RecordBatch.from_arrays(columns, schema=schema)


_EPOCH = datetime(1970, 1, 1)
_LATEST = 253_402_300_800  # the year 10000, which Python's calendar does not have


class StrayEventError(Exception):
    """An event is of none of the days of its request."""


class _TimeProperty(msgspec.Struct):
    time: Any = None


class _TimedEvent(msgspec.Struct):
    properties: _TimeProperty


_decode_time = msgspec.json.Decoder(_TimedEvent).decode


def distribute(
    events: Iterable[Any], days: Collection[date], file_of: Callable[[date], RecordFile]
) -> None:
    """Add each event to the file of its day; a single day gets all of them.

    Events are normalized, or raw ones as the bytes of their lines, whose `time` is UTC.

    Raises:
        StrayEventError: An event is of none of the days.
    """
    if len(days) == 1:
        [day] = days
        for event in events:
            file_of(day).add(event)
        return
    for event in events:
        event_day = _day_of_line(event) if isinstance(event, bytes) else _day_of_event(event)
        if event_day is None or event_day not in days:
            raise StrayEventError(f"An event is of {event_day or 'no day'}.")
        file_of(event_day).add(event)


def _day_of_event(fetched_event: Mapping[str, Any]) -> date | None:
    moment: datetime | None = fetched_event["event_time"]
    return moment.date() if moment else None


def _day_of_line(line: bytes) -> date | None:
    try:
        seconds = _decode_time(line).properties.time
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        seconds = parse_record(line)["properties"].get("time")
    if type(seconds) is not int or not 0 <= seconds < _LATEST:
        return None
    return (_EPOCH + timedelta(seconds=seconds)).date()


FILTER_FILE = "_question.json"
_DAY_FILE = re.compile(r"\d{4}-\d\d-\d\d\.(jsonl|parquet)")


@dataclass(frozen=True)
class EventFilter:
    """Which events a folder holds, and in which form.

    Attributes:
        events: Only events of these names; None: all.
        where: A segmentation expression.
        raw: As Mixpanel sends them, byte for byte; otherwise normalized.
    """

    events: Sequence[str] | None = None
    where: str | None = None
    raw: bool = False


@dataclass(frozen=True)
class DayFile:
    """The file of one day.

    Attributes:
        day: The export day.
        path: The file.
        bytes: Its size.
        rows: Events in it; None for a file of an earlier run.
        seconds: From the request to the complete file, the same for all days of a request; 0 for
            a file of an earlier run.
    """

    day: date
    path: Path
    bytes: int
    rows: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class EventFolder:
    """A folder of events: a file per day, named by its day, such as `2024-01-03.jsonl`.

    A folder holds the events of one filter, which `_question.json` names. An event is in the file
    of the day of its time; if that day was not requested, in the file of the day whose request
    returned it. A finished day without events gets an empty file once a second response had no
    event of it either; all such days share the second request.

    `days_per_request` neighbouring days share a request; in projects whose `time` is a wall clock,
    each day has its own. Days of a response that stays incomplete, or that has events of other
    days, are requested again one by one.
    """

    directory: Path
    client: MixpanelAPIClient
    settings: Settings
    filter: EventFilter
    format: FileFormat = "jsonl"
    days_per_request: int = STREAMED_DAYS

    def fill(
        self,
        from_date: date,
        to_date: date,
        *,
        overwrite: bool = False,
        on_day: Callable[[DayFile], None] | None = None,
    ) -> list[DayFile]:
        """Write the files of days that have no finished one; return the files of all days.

        A file is finished if its day had ended before its request; today's file is written again
        each time, and with `overwrite` every file. A day that stays incomplete gets no file, and
        the other days continue. `on_day` is called with each file, also of earlier runs.

        Raises:
            ConfigError: The folder holds the events of another filter, raw events have no columns
                for Parquet, or an argument is wrong; nothing was requested.
            IncompleteExportError: Days stayed incomplete; the message names them.
            StorageError: The disk refused.
        """
        self._check_fetch(from_date, to_date)
        days = days_between(from_date, to_date)
        files = {day: file for day in days if not overwrite and (file := self._finished_file(day))}
        broken: dict[date, str] = {}
        empty: set[date] = set()
        windows = self._request_windows([day for day in days if day not in files])
        fetched = (file for window in windows for file in self._fetch_window(window, broken, empty))
        # `_confirm_empty` is lazy: it looks at `empty` when all windows were fetched.
        each_file = chain(list(files.values()), fetched, self._confirm_empty(empty, broken, files))
        try:
            for file in each_file:
                files[file.day] = file
                if on_day:
                    on_day(file)
        except MixpanelDataError as error:
            if files and not overwrite:
                missing = describe_rest(set(days).difference(files), len(days))
                error.add(f"{missing} Run it again: it requests only days without a file.")
            raise
        if broken:
            raise _incomplete(broken, len(files))
        return [files[day] for day in days]

    def _request_windows(self, days: Sequence[date]) -> list[list[date]]:
        """Return which days share a request."""
        # A wall clock does not say which export day an event belongs to.
        most = 1 if self.settings.local_zone else self.days_per_request
        windows: list[list[date]] = []
        for day in days:
            if windows and len(windows[-1]) < most and day - windows[-1][-1] == timedelta(days=1):
                windows[-1].append(day)
            else:
                windows.append([day])
        return windows

    def _fetch_window(
        self, days: list[date], broken: dict[date, str], empty: set[date] | None = None
    ) -> Iterator[DayFile]:
        """Yield the new files of the days; add the others to `broken`, with the reason.

        Finished days without events are added to `empty` instead, if it is given.
        """
        if len(days) > 1:
            try:
                yield from self._fetch_day_files(days, empty)
                return
            except (IncompleteExportError, StrayEventError) as error:
                logger.warning(
                    "%s: %s The days are requested one by one.",
                    describe_range(days[0], days[-1]),
                    error,
                )
        for day in days:
            try:
                yield from self._fetch_day_files([day], empty)
            except IncompleteExportError as error:
                broken[day] = error.reason or error.message

    def _confirm_empty(
        self, empty: Collection[date], broken: dict[date, str], files: Mapping[date, DayFile]
    ) -> Iterator[DayFile]:
        """Yield the files of days without events, by what a second response says of them."""
        if not empty:
            return
        export = self.client.event_export(
            from_date=min(empty),
            to_date=max(empty),
            events=self.filter.events,
            where=self.filter.where,
            directory=self._spool_folder(),
        )
        is_filtered, requested_at = bool(export.query.filters), time.time()
        with export:
            looks = SecondLooks(
                export.find_days,
                weigh=lambda day: files[day].bytes if day in files else 0,
                most_bytes=None if is_filtered else MOST_BYTES,
                by_date=self.settings.local_zone is None,
            )
            for confirmed in looks.confirm(empty):
                yield from self._write_empty_files(confirmed.empty, requested_at)
                for window in self._request_windows(confirmed.doubtful):
                    yield from self._fetch_window(window, broken)

    def _check_fetch(self, from_date: date, to_date: date) -> None:
        if from_date > to_date:
            raise ConfigError(f"from_date {from_date} is after to_date {to_date}.")
        check_format(self.format, raw=self.filter.raw)
        self.client.stream_events(  # checks the arguments; sends no request before it is read
            from_date=from_date, to_date=to_date, events=self.filter.events, where=self.filter.where
        ).close()
        self._claim_folder()

    def _claim_folder(self) -> None:
        """Make sure that every file in the folder holds the events of the same filter."""
        event_names = self.filter.events
        folder_filter = asdict(self.filter) | {
            "events": None if event_names is None else sorted(set(event_names)),
            "project_id": self.client.credentials.project_id,
            "region": self.client.credentials.region,
            "local_zone": self.settings.local_zone,
        }
        filter_path = self.directory / FILTER_FILE
        if filter_path.exists():
            if _filter_of_folder(filter_path) != folder_filter:
                raise ConfigError(
                    f"{self.directory} holds the events of another filter, which {FILTER_FILE} "
                    "names. Choose another directory, or delete that one."
                )
            return
        if any(_DAY_FILE.fullmatch(path.name) for path in self.directory.glob("*")):
            raise ConfigError(
                f"{self.directory} holds files of days, but no {FILTER_FILE} that names their "
                "filter. Choose another directory."
            )
        with complete_file(filter_path) as file:
            file.write(json.dumps(folder_filter, indent=2).encode())

    def _finished_file(self, day: date) -> DayFile | None:
        path = self._day_path(day)
        if not path.exists():
            return None
        file_status = path.stat()
        day_end = datetime(day.year, day.month, day.day) + timedelta(days=1)
        zone = ZoneInfo(self.settings.export_zone)
        if file_status.st_mtime < day_end.replace(tzinfo=zone).timestamp():
            return None
        return DayFile(day, path, file_status.st_size)

    def _fetch_day_files(self, days: list[date], empty: set[date] | None) -> list[DayFile]:
        begin, requested_at = time.monotonic(), time.time()
        with ExitStack() as open_files:
            files: dict[date, RecordFile] = {}

            def file_of(day: date) -> RecordFile:
                if day not in files:
                    files[day] = open_files.enter_context(self._open_day_file(day, requested_at))
                return files[day]

            with self._stream_days(days) as events:
                distribute(events, days, file_of)
        seconds = time.monotonic() - begin
        written = [self._day_file(day, files[day].rows, seconds) for day in days if day in files]
        without = [day for day in days if day not in files]
        if empty is not None:
            today = self.settings.today()
            empty.update(day for day in without if day < today)
            without = [day for day in without if day >= today]
        return written + self._write_empty_files(without, requested_at)

    def _write_empty_files(self, days: Sequence[date], requested_at: float) -> list[DayFile]:
        for day in days:
            with self._open_day_file(day, requested_at):
                pass
        return [self._day_file(day, 0, 0.0) for day in days]

    def _open_day_file(self, day: date, requested_at: float) -> AbstractContextManager[RecordFile]:
        return record_file(
            self._day_path(day), EVENT_COLUMNS, self.format, raw=self.filter.raw, as_of=requested_at
        )

    def _day_file(self, day: date, rows: int, seconds: float) -> DayFile:
        path = self._day_path(day)
        return DayFile(day, path, path.stat().st_size, rows, seconds)

    def _stream_days(self, days: list[date]) -> RecordStream[Any]:
        stream_options: dict[str, Any] = {
            "from_date": days[0],
            "to_date": days[-1],
            "events": self.filter.events,
            "where": self.filter.where,
            "staged": True,  # an incomplete response must not leave a file
            "confirms": False,  # the empty days of all requests are confirmed together
            "days_per_request": len(days),
            "spool_directory": self._spool_folder(),
        }
        if self.filter.raw:
            return self.client.stream_event_lines(**stream_options)
        return self.client.stream_events(**stream_options, local_zone=self.settings.local_zone)

    def _spool_folder(self) -> Path:
        spool = self.settings.spool_path(self.client.credentials.project_id)
        make_private_folder(spool)
        return spool

    def _day_path(self, day: date) -> Path:
        return self.directory / f"{day.isoformat()}.{self.format}"


def _filter_of_folder(file: Path) -> object:
    """Return the filter that a folder's file names; None if another program wrote the file."""
    try:
        return json.loads(file.read_bytes()) if file.is_file() else None
    except (OSError, ValueError):
        return None


def _incomplete(incomplete_days: Mapping[date, str], finished_files: int) -> IncompleteExportError:
    days = "; ".join(f"{day}: {reason.rstrip('.')}" for day, reason in incomplete_days.items())
    return IncompleteExportError(
        f"{len(incomplete_days)} days stayed incomplete and have no new file ({days}). The files "
        f"of the other {finished_files} days are complete; run again for the rest.",
        from_date=min(incomplete_days),
        to_date=max(incomplete_days),
        reason=next(iter(incomplete_days.values())),
        partial=bool(finished_files),
    )


@dataclass(frozen=True)
class SnapshotFile:
    """A file of profiles.

    Attributes:
        path: The file.
        rows: Profiles in it.
        bytes: Its size.
        seconds: From the first request to the complete file.
    """

    path: Path
    rows: int
    bytes: int
    seconds: float


def write_snapshot(
    client: MixpanelAPIClient,
    path: Path,
    query: ProfileQuery | None = None,
    *,
    raw: bool = False,
    format: FileFormat = "jsonl",
    overwrite: bool = False,
) -> SnapshotFile:
    """Write the profiles as they are now to a file, which exists only once it is complete.

    The query None finds all profiles. With `raw`, they are written as Mixpanel sends them, byte for
    byte.

    Raises:
        ConfigError: The file exists and is not to be overwritten, raw profiles have no columns for
            Parquet, or the filters contradict each other; nothing was requested.
        IncompleteExportError: Profiles are missing.
        StorageError: The disk refused.
    """
    if path.exists() and not overwrite:
        raise ConfigError(f"There is a file {path} already. Choose another path, or overwrite it.")
    began = time.monotonic()
    with record_file(path, PROFILE_COLUMNS, format, raw=raw) as file:
        stream: RecordStream[Any] = (
            client.stream_profile_lines(query) if raw else client.stream_profiles(query)
        )
        with stream:
            for profile in stream:
                file.add(profile)
    return SnapshotFile(path, file.rows, path.stat().st_size, time.monotonic() - began)
