"""Records -> a file that is there only when it is whole: lines of JSON, or Parquet."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from mixpanel_assets.errors import StorageError
from mixpanel_assets.json_lines import as_json

if TYPE_CHECKING:
    import pyarrow as pa

FileFormat = Literal["jsonl", "parquet"]

EVENT_COLUMNS = ("event_name", "event_time", "distinct_id", "insert_id", "properties")
PROFILE_COLUMNS = ("distinct_id", "last_seen", "properties")

_ROWS_PER_GROUP = 50_000
_BYTES_PER_GROUP = 1 << 25


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
        part.unlink(missing_ok=True)


def write_lines(file: IO[bytes], lines: Iterable[bytes]) -> int:
    """Write lines, each of which is one JSON value; return how many."""
    count = 0
    for line in lines:
        # Between the parts of a JSON value a line's end is a blank like any other.
        file.write(line.replace(b"\n", b" ") + b"\n")
        count += 1
    return count


def write_records(
    file: IO[bytes],
    records: Iterable[dict[str, Any]],
    columns: Sequence[str],
    format: FileFormat,
) -> int:
    """Write normalized records with constant memory; return how many.

    Args:
        file: Open for writing bytes.
        records: With these columns as keys.
        columns: Their names. In Parquet, `event_time` is a UTC timestamp in milliseconds,
            `properties` is JSON text and the others are text, whatever the records hold.
        format: `jsonl` or `parquet`.

    Raises:
        StorageError: A text is none that Parquet can hold.
    """
    if format == "jsonl":
        return write_lines(file, map(as_json, records))
    import pyarrow.parquet as pq

    schema, count = _schema(columns), 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in _groups(records, columns):
            writer.write_batch(_batch(rows, schema))
            count += len(rows)
    return count


def _schema(columns: Sequence[str]) -> pa.Schema:
    import pyarrow as pa

    moment = pa.timestamp("ms", tz="UTC")
    return pa.schema([(name, moment if name == "event_time" else pa.string()) for name in columns])


def _groups(
    records: Iterable[dict[str, Any]], columns: Sequence[str]
) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the rows of one row group after another, bounded in rows and in bytes."""
    rows: list[tuple[Any, ...]] = []
    size = 0
    for record in records:
        properties = as_json(record["properties"])
        size += len(properties)
        row = record | {"properties": properties.decode()}
        rows.append(tuple(row[name] for name in columns))
        if len(rows) == _ROWS_PER_GROUP or size >= _BYTES_PER_GROUP:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


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
