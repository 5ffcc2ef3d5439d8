"""Records -> a file that is there only when it is whole: lines of JSON, or Parquet."""

from __future__ import annotations

import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from mixpanel_assets.errors import ConfigError, StorageError
from mixpanel_assets.json_lines import as_json

if TYPE_CHECKING:
    import pyarrow as pa

FileFormat = Literal["jsonl", "parquet"]

EVENT_COLUMNS = ("event_name", "event_time", "distinct_id", "insert_id", "properties")
PROFILE_COLUMNS = ("distinct_id", "last_seen", "properties")

ROWS_PER_GROUP = 50_000
BYTES_PER_GROUP = 1 << 23


@contextmanager
def whole_file(path: Path, *, as_of: float | None = None) -> Iterator[IO[bytes]]:
    """Yield a file that gets its name when the block ends; when it raises, nothing is there.

    A file of that name is replaced at that moment, not before.

    Args:
        path: Its folder is made when it is missing.
        as_of: The time that the file shows as its last change, in seconds since 1970; None: now.

    Raises:
        StorageError: The disk refused.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if as_of is not None:
            os.utime(part, (as_of, as_of))
        part.replace(path)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written: {error.strerror or error}. What was there before stays."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


class RecordFile(ABC):
    """A file that records are added to, one by one, with constant memory.

    Attributes:
        rows: Records so far.
    """

    rows = 0

    @abstractmethod
    def add(self, record: Any) -> None:
        """Add a record.

        Raises:
            StorageError: A text is none that the format can hold.
        """

    @abstractmethod
    def close(self) -> None:
        """Write what is not written yet; the file itself stays open."""


class LineFile(RecordFile):
    """Lines of JSON, given as bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def add(self, record: bytes) -> None:
        """Add a JSON value as one line."""
        # Between the parts of a JSON value a line's end is a blank like any other.
        self._file.write(record.replace(b"\n", b" ") + b"\n")
        self.rows += 1

    def close(self) -> None:
        """Leave nothing to be written: every line is already."""


class JsonFile(LineFile):
    """Normalized records as lines of JSON."""

    def add(self, record: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Add a normalized record."""
        super().add(as_json(record))


class ParquetFile(RecordFile):
    """Normalized records in Parquet, in row groups bounded in rows and in bytes.

    `event_time` is a UTC timestamp in milliseconds, `properties` is JSON text, and the other
    columns are text, whatever the records hold.
    """

    def __init__(self, file: IO[bytes], columns: Sequence[str]) -> None:
        import pyarrow.parquet as pq

        self._columns = columns
        self._schema = _schema(columns)
        self._writer = pq.ParquetWriter(file, self._schema, compression="zstd")
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
            self._write()

    def close(self) -> None:
        """Write the last row group and the footer."""
        try:
            self._write()
        finally:
            self._writer.close()

    def _write(self) -> None:
        if self._group:
            group, self._group, self._bytes = self._group, [], 0
            self._writer.write_batch(_batch(group, self._schema))


def check_format(format: FileFormat, *, raw: bool) -> None:
    """Refuse Parquet for raw records.

    Raises:
        ConfigError: They have no columns.
    """
    if raw and format == "parquet":
        raise ConfigError(
            "Raw records have no columns for Parquet: choose the format jsonl, or leave raw out."
        )


@contextmanager
def whole_record_file(
    path: Path,
    columns: Sequence[str],
    format: FileFormat,
    *,
    raw: bool = False,
    as_of: float | None = None,
) -> Iterator[RecordFile]:
    """Yield a file to add records to, which gets its name when the block ends.

    Args:
        path: See `whole_file`.
        columns: The keys of normalized records.
        format: `jsonl` or `parquet`.
        raw: Records are bytes, each one JSON value; they become lines as they are.
        as_of: See `whole_file`.

    Raises:
        ConfigError: Raw records have no columns for Parquet.
        StorageError: The disk refused.
    """
    check_format(format, raw=raw)
    with whole_file(path, as_of=as_of) as file:
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


def _schema(columns: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    moment = pa.timestamp("ms", tz="UTC")
    return pa.schema([(name, moment if name == "event_time" else pa.string()) for name in columns])


def _batch(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
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
