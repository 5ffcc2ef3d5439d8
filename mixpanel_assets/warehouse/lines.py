"""Which received lines become rows, and which are quarantined or refused.

DuckDB reads the received file itself. The few odd lines that it cannot read as they were sent are
read here: stored to the letter, quarantined, or skipped as blank. So are all lines of a file in
which an object has a name twice, of which DuckDB would read the first value.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from gzip import GzipFile
from heapq import heappush, heappushpop
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.rules.days import EARLIEST_MS, days_between, describe_range
from mixpanel_assets.rules.json_text import LONG_NUMBER, joined, last_values, members, parse, values
from mixpanel_assets.rules.lines import (
    BOM,
    MAX_LINE_BYTES,
    SHORT_LINE_BYTES,
    TOO_LONG,
    LongLine,
    ReceivedDays,
    are_plain,
    is_blank,
    is_unread,
    left_out_sql,
    lines_of,
    why_unstorable,
)
from mixpanel_assets.rules.zones import moment_sql
from mixpanel_assets.warehouse.memory import ROWS_AT_ONCE, Spread
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.quarantine import MAX_LINES, Refusals
from mixpanel_assets.warehouse.schema import LAST_MS, literal

ROW_TYPE = (
    "STRUCT(event_name VARCHAR, distinct_id VARCHAR, insert_id VARCHAR, properties BLOB, "
    "processed_ms BIGINT, time_raw BIGINT)"
)


@dataclass(frozen=True)
class SentEvent:
    """The parts of an event line as JSON text; of a property that came twice, the last one."""

    name: bytes
    properties: dict[str, bytes]
    ascii_only: bool

    @classmethod
    def of(cls, line: bytes) -> SentEvent:
        """Take a line apart; raise `ValueError` if it is not an event."""
        event_json = values(last_values(line))
        event_name, properties = event_json.get("event", b""), event_json.get("properties", b"")
        if not event_name.startswith(b'"') or not properties.startswith(b"{"):
            raise ValueError("a text `event` or an object `properties` is missing")
        return cls(event_name, values(properties), line.isascii())

    @property
    def time_ms(self) -> int | None:
        """`time`, if it is a whole number."""
        return self._whole_property("time")

    def row(self, time_ms: int) -> dict[str, Any]:
        """Return the row of the event, with the keys of `ROW_TYPE`.

        An id that was not sent as text, such as a number, is its JSON text as sent.
        """
        properties = self.properties
        others = {name: value for name, value in properties.items() if name not in REMOVED_KEYS}
        return {
            "event_name": text_of(self.name),
            "distinct_id": text_of(properties.get("distinct_id")),
            "insert_id": text_of(properties.get("$insert_id")) or None,
            "properties": joined(others, ascii_only=self.ascii_only),
            "processed_ms": self._whole_property("mp_processing_time_ms"),
            "time_raw": time_ms,
        }

    def _whole_property(self, name: str) -> int | None:
        return whole_number(parse(self.properties.get(name, b"null").decode()))


def whole_number(value: Any) -> int | None:
    """Return a JSON number that is whole and not negative, of 15 digits at most."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value < 10**15 else None


def text_of(value: bytes | None) -> str | None:
    """Return a JSON value as plain text: a string unquoted, null as None, a number's digits."""
    if value is None or value == b"null":
        return None
    json_text = value.decode()
    return str(parse(json_text)) if json_text.startswith('"') else json_text


REMOVED_KEYS = ("time", "distinct_id", "$insert_id")
_LATEST_ROW_AFTER = timedelta(days=2 * 366)
_SHIFT_DAYS = timedelta(days=2)  # zones differ by up to 26 hours, so a change moves rows no further
_GZIP_MAGIC = b"\x1f\x8b"

# Merging with nulls removes exactly these names; every other value, nulls included, is kept.
_WITHOUT_COLUMNS = '{"time":null,"distinct_id":null,"$insert_id":null}'

_COLUMN_PATHS = (
    "['$.event', '$.properties.time', '$.properties.distinct_id', '$.properties.$insert_id', "
    "'$.properties.mp_processing_time_ms', '$.properties']"
)

# An id that DuckDB may write differently than it was sent: -0, fractions, exponents, nested ones.
_UNSURE_ID_COLUMN = r"^(0$|-?[0-9]+[.eE]|[{\[])"

# Whether DuckDB writes the line's numbers as sent, if its text of the properties is not simply in
# the line because spaces or escapes differ.
_SAME_NUMBERS = f"""
    NOT regexp_matches(coalesce(field[3]::VARCHAR, ''), '{_UNSURE_ID_COLUMN}')
    AND NOT regexp_matches(coalesce(field[4]::VARCHAR, ''), '{_UNSURE_ID_COLUMN}')
    AND CASE WHEN regexp_matches(json::VARCHAR, '{LONG_NUMBER.pattern}')
             THEN regexp_extract_all(json::VARCHAR, '{LONG_NUMBER.pattern}')
                = regexp_extract_all(field[6]::VARCHAR, '{LONG_NUMBER.pattern}')
             ELSE true END
"""

# Bytes that were removed from the properties.
_REMOVED_BYTES = " + ".join(
    f"coalesce(strlen(field[{place}]::VARCHAR) + {len(name) + 4}, 0)"
    for place, name in enumerate(REMOVED_KEYS, start=2)
)
_PROPERTIES_BYTES = f"strlen(properties) + {_REMOVED_BYTES} - (properties = '{{}}')::INT"


@dataclass(frozen=True)
class Window:
    """The requested days, both ends included, and how their times are read."""

    from_date: date
    to_date: date
    project: ProjectIdentity

    @property
    def days(self) -> list[date]:
        """Every requested day, in order."""
        return days_between(self.from_date, self.to_date)

    @property
    def ends(self) -> dict[str, date]:
        """The first and last day as the parameters of SQL, `$from_date` and `$to_date`."""
        return {"from_date": self.from_date, "to_date": self.to_date}

    @property
    def keeps_shifted_rows(self) -> bool:
        """Whether rows of other dates belong to the one requested day (legacy regime)."""
        return self.project.regime == "legacy" and self.from_date == self.to_date

    @property
    def days_of_rows(self) -> tuple[date, date]:
        """The first and last date that a `time` of these days can have."""
        return self.from_date - _SHIFT_DAYS, self.to_date + _SHIFT_DAYS

    @property
    def believable_row_ms(self) -> tuple[int, int]:
        """The first and last `time` that can be a real one: 1971 to two years past the days."""
        return EARLIEST_MS, _day_start_ms(self.to_date + _LATEST_ROW_AFTER)

    def stores_row_at(self, time_ms: int) -> bool:
        """Return whether a row with this `time` belongs to the requested days."""
        first_ms, last_ms = self.stored_row_ms
        return first_ms <= time_ms <= last_ms

    def day_of(self, time: object) -> date:
        """Return the requested day of a `time`; the first one if it is on none."""
        if isinstance(time, int) and not self.keeps_shifted_rows and self.stores_row_at(time):
            return _row_date(time)
        return self.from_date

    def incomplete(
        self, problem: str, reason: str, error: type[IncompleteExportError] = IncompleteExportError
    ) -> IncompleteExportError:
        """Return the error of a received file that cannot be stored."""
        return error(
            f"The export {describe_range(self.from_date, self.to_date)} {problem}",
            from_date=self.from_date,
            to_date=self.to_date,
            reason=reason,
        )

    @property
    def stored_row_ms(self) -> tuple[int, int]:
        """The first and last `time` of rows that are stored for the requested days."""
        around = _SHIFT_DAYS if self.keeps_shifted_rows else timedelta()
        return (
            _day_start_ms(self.from_date - around),
            _day_start_ms(self.to_date + around + timedelta(days=1)) - 1,
        )


def is_gzip(spool: Path) -> bool:
    """Return whether a file is compressed, by its first bytes."""
    with spool.open("rb") as file:
        return file.read(2) == _GZIP_MAGIC


def lines(spool: Path) -> str:
    """Return the SQL table of the file's lines: `json` as received, NULL if DuckDB refused it."""
    compression = "gzip" if is_gzip(spool) else "uncompressed"
    return (
        f"read_json_objects([{literal(str(spool))}], format = 'newline_delimited', "
        f"compression = '{compression}', maximum_object_size = {MAX_LINE_BYTES}, "
        "ignore_errors = true)"
    )


def rows(
    spool: Path,
    window: Window,
    most: int = SHORT_LINE_BYTES,
    number_lengths: Collection[int] | None = None,
) -> str:
    """Return the SQL query of every line: the columns of a row, `is_odd` and `odd_line`.

    `is_odd` is true for a line that does not become a row as it is. Its text is `odd_line`; NULL if
    DuckDB refused the line, or is not to look at it (`is_left_out`).

    Args:
        spool: The file.
        window: The requested days.
        most: The longest lines that DuckDB looks at.
        number_lengths: See `UnusualLines`.
    """
    first_ms, last_ms = window.stored_row_ms
    # The `time` of an odd line may be beyond every timestamp.
    return f"""
        SELECT event ->> '$' AS event_name, distinct_id, insert_id, properties, is_odd, odd_line,
               {derived_columns(window)}, time_raw
        FROM (
            SELECT * REPLACE (CASE WHEN NOT is_odd THEN time_raw END AS time_raw),
                   CASE WHEN is_odd THEN json::VARCHAR END AS odd_line
            FROM (
                SELECT *, (event LIKE '"%' AND time_raw BETWEEN {first_ms} AND {last_ms} AND exact)
                    IS DISTINCT FROM true AS is_odd
                FROM ({_columns_sql(spool, most, number_lengths)})
            )
        )
    """


def derived_columns(window: Window) -> str:
    """Return the SQL of the columns that follow from `time_raw` and `processed_ms`."""
    event_time = "make_timestamp_ms(time_raw)"
    event_date = f"{event_time}::DATE"
    if window.keeps_shifted_rows:
        event_date = f"DATE '{window.from_date}'"
    if window.project.regime == "legacy":
        event_time = moment_sql(window.project.zone, *window.days_of_rows)
    return (
        f"{event_time} AS event_time, {event_date} AS event_date, "
        f"CASE WHEN processed_ms BETWEEN 0 AND {LAST_MS} THEN make_timestamp_ms(processed_ms) END "
        "AS processed_at"
    )


def processed_ms(value: str) -> str:
    """Return the SQL that reads `mp_processing_time_ms` as `processed_at` does; else NULL."""
    number = _whole_number_sql(f"({value})")
    return f"CASE WHEN {number} BETWEEN 0 AND {LAST_MS} THEN {number} END"


def _columns_sql(spool: Path, most: int, number_lengths: Collection[int] | None) -> str:
    """Return the SQL of every fixed value. One extraction, as each one parses the line again."""
    return f"""
        SELECT json, field[1]::VARCHAR AS event, {_whole_number_sql("field[2]")} AS time_raw,
               field[3] ->> '$' AS distinct_id, nullif(field[4] ->> '$', '') AS insert_id,
               {_whole_number_sql("field[5]")} AS processed_ms, properties,
               {_is_exact_sql(number_lengths)} AS exact
        FROM (SELECT json, field, json_merge_patch(field[6], '{_WITHOUT_COLUMNS}') AS properties
              FROM (SELECT json, json_extract(json, {_COLUMN_PATHS}) AS field
                    FROM (SELECT CASE WHEN NOT ({left_out_sql("json", most)}) THEN json END AS json
                          FROM {lines(spool)})))
    """


def _is_exact_sql(number_lengths: Collection[int] | None) -> str:
    """Return the SQL that is true if DuckDB wrote the properties' numbers as they were sent.

    Mostly the line does not have one of the `number_lengths`, and its ids are texts. Else DuckDB's
    text of the properties is often simply in the line, and nothing is beside that and the event.
    Elsewhere numbers are compared.
    """
    same_length = f"strlen(field[6]::VARCHAR) = {_PROPERTIES_BYTES}"
    in_line = f"""
        contains(json::VARCHAR, field[6]::VARCHAR)
        AND strlen(json) = strlen(field[1]::VARCHAR) + 24 + {_PROPERTIES_BYTES}
    """
    compared = f"CASE WHEN {in_line} THEN true ELSE {same_length} AND {_SAME_NUMBERS} END"
    if number_lengths is None:
        return compared
    lengths = ", ".join(map(str, sorted({*number_lengths, -1})))
    in_doubt = (
        f"strlen(json) IN ({lengths}) OR NOT {_is_text('field[3]')} OR NOT {_is_text('field[4]')}"
    )
    return f"CASE WHEN {in_doubt} THEN {compared} ELSE {same_length} END"


def _is_text(value: str) -> str:
    """Return the SQL that is true if a JSON value is a text, null or missing."""
    return f"""coalesce({value}::VARCHAR LIKE '"%', true)"""


def _whole_number_sql(value: str) -> str:
    """Return the SQL of a whole JSON number; NULL for a text, a fraction or a boolean."""
    text = f"{value}::VARCHAR"
    may_be_fraction = f"contains({text}, '.') OR contains({text}, 'e-')"  # it casts 1e-7 to 0
    return (
        f"CASE WHEN NOT ({may_be_fraction}) OR ends_with({text}, '.0') "
        f"THEN try_cast({text} AS BIGINT) END"
    )


def _day_start_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


_MOST_BATCH_ROWS = 1000
_MOST_BATCH_BYTES = 2 << 20


class ShiftedRowsError(IncompleteExportError):
    """A legacy project's response for several days has rows of other days: request each alone."""


class OddLines:
    """Sorts the lines left over by one load; those that can be stored go `into` its table.

    Attributes:
        rescued: How many lines were stored after all.
        largest: Bytes of the largest rows, as many as DuckDB handles at once.
    """

    def __init__(
        self,
        connection: Connection,
        received: ReceivedDays,
        window: Window,
        *,
        into: str,
        refusals: Refusals,
    ) -> None:
        self._connection = connection
        self._spool = received.path
        self._unread = received.unusual.unread if received.unusual else None
        self._window = window
        self._into = into
        self._refusals = refusals
        self._spread = Spread(connection, into, "event_name")
        self._batch_rows: list[dict[str, Any]] = []
        self._batch_bytes = 0
        self._rows_outside: Counter[date] = Counter()
        self.rescued = 0
        self.largest: list[int] = []

    def sort(self, most: int | None) -> None:
        """Store what can be stored and collect the rest.

        Args:
            most: The longest lines that DuckDB looked at; None: it looked at none.

        Raises:
            IncompleteExportError: A line is not an event, or rows belong to other days.
            ShiftedRowsError: The latter, in a legacy project with several requested days.
        """
        if most is None:
            self._store_unread_lines(None)
        elif refused := self._store_odd_rows():
            self._store_unread_lines(most, refused)
        self._insert_batch()
        self._spread.finish()
        self._refuse_rows_outside()

    def _store_odd_rows(self) -> int:
        """Store odd lines that DuckDB read; return the number of those that it did not read."""
        refused = 0
        with self._connection.cursor() as reader:
            odd_rows = reader.execute(f"SELECT odd_line FROM {self._into} WHERE is_odd")
            while lines := odd_rows.fetchmany(_MOST_BATCH_ROWS):
                for (line,) in lines:
                    if line is None:
                        refused += 1
                    else:
                        self._store_line(line.encode())
        return refused

    def _store_unread_lines(self, most: int | None, refused_lines: int | None = None) -> None:
        """Store the lines that DuckDB did not read, which must be as many as it refused."""
        stored_lines = 0
        for line in self._unread_lines(most, refused_lines):
            stored_lines += 1
            if isinstance(line, LongLine):
                self._refuse(line, TOO_LONG)
            elif is_blank(line):
                continue  # DuckDB counts it if it has a byte order mark
            elif reason := why_unstorable(line):
                self._refuse(line, reason)
            else:
                self._store_line(line.removeprefix(BOM).strip())
        if refused_lines not in (None, stored_lines):
            raise self._no_event()

    def _unread_lines(
        self, most: int | None, refused_lines: int | None
    ) -> Iterator[bytes | LongLine]:
        if most is None:
            yield from self._spool_lines()
        elif most == SHORT_LINE_BYTES and self._unread and len(self._unread) == refused_lines:
            yield from self._unread
        else:
            for line in self._spool_lines(lambda block: are_plain(block, most)):
                if isinstance(line, LongLine) or is_unread(line, most):
                    yield line

    def _store_line(self, line: bytes) -> None:
        """Store or quarantine a line, or count it as one of another day."""
        try:
            event = SentEvent.of(line)
        except ValueError as error:
            raise self._no_event() from error
        time_ms = event.time_ms
        earliest_row_ms, latest_row_ms = self._window.believable_row_ms
        if time_ms is None:
            self._quarantine(line, "`time` is missing or not a whole number of milliseconds")
        elif not earliest_row_ms <= time_ms <= latest_row_ms:
            self._quarantine(line, "`time` lies before 1971 or years after the requested day")
        elif not self._window.stores_row_at(time_ms):
            self._rows_outside[_row_date(time_ms)] += 1
        else:
            self._batch_rows.append(event.row(time_ms))
            self._note_row_size(len(line))
            if len(self._batch_rows) >= _MOST_BATCH_ROWS or self._batch_bytes >= _MOST_BATCH_BYTES:
                self._insert_batch()

    def _note_row_size(self, size: int) -> None:
        self._batch_bytes += size
        keep = heappush if len(self.largest) < ROWS_AT_ONCE else heappushpop
        keep(self.largest, size)

    def _insert_batch(self) -> None:
        if self._batch_rows:
            self._connection.execute(
                f"INSERT INTO {self._into} BY NAME SELECT event_name, distinct_id, insert_id, "
                f"decode(properties)::JSON AS properties, {derived_columns(self._window)}, "
                f"time_raw FROM (SELECT unnest(?::{ROW_TYPE}[], recursive := true))",
                [self._batch_rows],
            )
            self._spread.add(self._batch_bytes)
        self.rescued += len(self._batch_rows)
        self._batch_rows, self._batch_bytes = [], 0

    def _refuse(self, line: bytes | LongLine, reason: str) -> None:
        """Quarantine a complete line that no table can hold."""
        day = self._window.from_date
        if isinstance(line, LongLine):
            if not line.is_whole:
                raise self._no_event()
        else:
            try:
                day = self._window.day_of(_quarantined_time(line))
            except (KeyError, ValueError) as error:
                raise self._no_event() from error
        self._quarantine(line, reason, day)

    def _quarantine(self, line: bytes | LongLine, reason: str, day: date | None = None) -> None:
        self._refusals.add(day or self._window.from_date, line, reason)
        if len(self._refusals) > MAX_LINES * len(self._window.days):
            raise self._unstored(
                "too many lines cannot be stored",
                f"over {MAX_LINES} lines a day cannot be stored ({reason})",
            )

    def _refuse_rows_outside(self) -> None:
        if not self._rows_outside:
            return
        days = ", ".join(
            f"{day} ({count})" for day, count in sorted(self._rows_outside.items())[:5]
        )
        outside = f"{self._rows_outside.total()} rows belong to other days: {days}"
        if self._window.keeps_shifted_rows:
            raise self._unstored("rows of other days", f"{outside}, which no zone change explains")
        if self._window.project.regime == "legacy":
            raise self._unstored("rows of other days", outside, ShiftedRowsError)
        raise self._unstored(
            "rows of other days",
            f"{outside}. If this project was created before 2023, set MP_TIME_REGIME=legacy",
        )

    def _no_event(self) -> IncompleteExportError:
        """Return the error that names the first line that is not an event."""
        for number, line in enumerate(self._spool_lines(), start=1):
            if not (line.is_whole if isinstance(line, LongLine) else _is_event(line)):
                problem = f"line {number:,} is not a complete event"
                return self._unstored("a line is not an event", problem)
        return self._unstored("unreadable lines", "DuckDB could not read some of its lines")

    def _spool_lines(
        self, is_left_out: Callable[[bytes], bool] = lambda block: False
    ) -> Iterator[bytes | LongLine]:
        """Yield each line as it was received, without its newline; long ones in part."""
        spool = GzipFile(self._spool) if is_gzip(self._spool) else self._spool.open("rb")
        try:
            with spool as file:
                yield from lines_of(file.read, is_left_out)
        except (EOFError, OSError, zlib.error) as error:
            problem = f"the received file is damaged ({error})"
            raise self._unstored("damaged file", problem) from error

    def _unstored(
        self, reason: str, problem: str, error: type[IncompleteExportError] = IncompleteExportError
    ) -> IncompleteExportError:
        problem = f"cannot be stored: {problem}. Nothing was changed."
        return self._window.incomplete(problem, reason, error)


def _is_event(line: bytes) -> bool:
    """Return whether a line is an event or blank."""
    if is_blank(line):
        return True
    try:
        if why_unstorable(line):
            _quarantined_time(line)
        else:
            SentEvent.of(line.removeprefix(BOM).strip())
    except (KeyError, ValueError):
        return False
    return True


def _quarantined_time(line: bytes) -> int | None:
    """Return the `time` of a line that no table can hold, if it is a whole number."""
    line_text = line.removeprefix(BOM).decode("utf-8", "surrogateescape")
    properties = dict(members(dict(members(line_text))["properties"]))
    return whole_number(parse(properties.get("time", "null")))


def _row_date(time_ms: int) -> date:
    return datetime.fromtimestamp(time_ms / 1000, UTC).date()
