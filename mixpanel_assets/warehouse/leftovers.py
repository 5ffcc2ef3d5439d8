"""The lines of a spool file that did not become rows at once, and what each one is.

A line is rescued (it is kept as it was sent), quarantined (it is whole but cannot be stored),
or it proves that the file is not the export that was asked for. Lines are taken in batches of
some megabytes, however many and however long they are.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from gzip import GzipFile
from heapq import heappush, heappushpop
from pathlib import Path
from typing import Any

import duckdb

from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.rules.json_text import members, parsed
from mixpanel_assets.rules.lines import (
    BOM,
    TOO_LONG,
    LongLine,
    is_blank,
    lines_of,
    why_unstorable,
)
from mixpanel_assets.warehouse.exact import ROW_TYPE, SentEvent, whole_number
from mixpanel_assets.warehouse.memory import ROWS_AT_ONCE, Spread
from mixpanel_assets.warehouse.quarantine import MAX_LINES, Refusals
from mixpanel_assets.warehouse.spool import Window, derived_columns, is_gzip, is_left_out, rows

_BATCH_ROWS = 1000
_BATCH_BYTES = 2 << 20


class ShiftedRowsError(IncompleteExportError):
    """A legacy project's answer for several days holds rows of other days: ask day by day."""


class Leftovers:
    """Sorts the lines left over by one load; those that can be stored go `into` its table.

    Args:
        connection: The connection that may change the table.
        spool: The received file.
        window: The asked days.
        into: The table; its qualified name.
        refusals: Takes the lines that cannot be stored.

    Attributes:
        rescued: How many lines were stored after all.
        largest: Bytes of the largest rows, as many as DuckDB handles at once.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        spool: Path,
        window: Window,
        *,
        into: str,
        refusals: Refusals,
    ) -> None:
        self._connection = connection
        self._spool = spool
        self._window = window
        self._into = into
        self._refusals = refusals
        self._spread = Spread(connection, into, "event_name")
        self._batch: list[dict[str, Any]] = []
        self._batch_bytes = 0
        self._outside: Counter[date] = Counter()
        self.rescued = 0
        self.largest: list[int] = []

    def sort(self, most: int | None) -> None:
        """Store what can be stored and collect the rest.

        Args:
            most: The longest lines that DuckDB looked at; None: it looked at none.

        Raises:
            IncompleteExportError: A line is no event, or rows belong to other days.
            ShiftedRowsError: The latter, in a legacy project asked for several days.
        """
        if most is None:
            self._take_lines(None)
        elif refused := self._take_what_was_read(most):
            self._take_lines(most, refused)
        self._store()
        self._spread.finish()
        self._refuse_outside()

    def _take_what_was_read(self, most: int) -> int:
        """Take the lines that DuckDB read and did not store; return how many it did not read."""
        refused = 0
        with self._connection.cursor() as reader:
            found = reader.execute(
                f"SELECT json::VARCHAR FROM ({rows(self._spool, self._window, most)}) "
                "WHERE NOT stored"
            )
            while lines := found.fetchmany(_BATCH_ROWS):
                for (line,) in lines:
                    if line is None:
                        refused += 1
                    else:
                        self._take(line.encode())
        return refused

    def _take_lines(self, most: int | None, refused: int | None = None) -> None:
        """Take the lines that DuckDB did not read, which must be as many as it told."""
        taken = 0
        for line in self._lines():
            if isinstance(line, LongLine):
                taken += 1
                self._refuse(line, TOO_LONG)
                continue
            text = line.removeprefix(BOM).strip()
            if not text:
                taken += line.startswith(BOM)  # which DuckDB takes for a line
                continue
            reason = why_unstorable(line)
            if most is None or reason or line.startswith(BOM) or is_left_out(text, most):
                taken += 1
                if reason:
                    self._refuse(line, reason)
                else:
                    self._take(text)
        if refused not in (None, taken):
            raise self._no_event()

    def _take(self, line: bytes) -> None:
        """Store a line, or note why it is not stored."""
        try:
            event = SentEvent.of(line)
        except ValueError as error:
            raise self._no_event() from error
        time_ms = event.time_ms
        first, last = self._window.believable_ms
        if time_ms is None:
            self._quarantine(line, "`time` is missing or no whole number of milliseconds")
        elif not first <= time_ms <= last:
            self._quarantine(line, "`time` lies before 1971 or years after the asked day")
        elif not self._window.accepts(time_ms):
            self._outside[_date(time_ms)] += 1
        else:
            self._batch.append(event.row(time_ms))
            self._note_size(len(line))
            if len(self._batch) >= _BATCH_ROWS or self._batch_bytes >= _BATCH_BYTES:
                self._store()

    def _note_size(self, size: int) -> None:
        self._batch_bytes += size
        keep = heappush if len(self.largest) < ROWS_AT_ONCE else heappushpop
        keep(self.largest, size)

    def _store(self) -> None:
        if self._batch:
            self._connection.execute(
                f"INSERT INTO {self._into} BY NAME SELECT event_name, distinct_id, insert_id, "
                f"decode(properties)::JSON AS properties, {derived_columns(self._window)}, "
                f"time_raw FROM (SELECT unnest(?::{ROW_TYPE}[], recursive := true))",
                [self._batch],
            )
            self._spread.add(self._batch_bytes)
        self.rescued += len(self._batch)
        self._batch, self._batch_bytes = [], 0

    def _refuse(self, line: bytes | LongLine, reason: str) -> None:
        """Quarantine a line that no table can hold, if it is whole."""
        day = self._window.from_date
        if isinstance(line, LongLine):
            if not line.is_whole:
                raise self._no_event()
        else:
            try:
                day = self._window.day_of(_time_of(line))
            except (KeyError, ValueError) as error:
                raise self._no_event() from error
        self._quarantine(line, reason, day)

    def _quarantine(self, line: bytes | LongLine, reason: str, day: date | None = None) -> None:
        self._refusals.add(day or self._window.from_date, line, reason)
        if len(self._refusals) > MAX_LINES * len(self._window.days):
            raise self._incomplete(
                "too many lines cannot be stored",
                f"over {MAX_LINES} lines a day cannot be stored ({reason})",
            )

    def _refuse_outside(self) -> None:
        if not self._outside:
            return
        days = ", ".join(f"{day} ({count})" for day, count in sorted(self._outside.items())[:5])
        said = f"{self._outside.total()} rows belong to other days: {days}"
        if self._window.keeps_shifted:
            raise self._incomplete("rows of other days", f"{said}, which no zone change explains")
        if self._window.project.regime == "legacy":
            raise self._incomplete("rows of other days", said, ShiftedRowsError)
        raise self._incomplete(
            "rows of other days",
            f"{said}. If this project was created before 2023, set MP_TIME_REGIME=legacy",
        )

    def _no_event(self) -> IncompleteExportError:
        """Return the error that names the first line that is no event."""
        for number, line in enumerate(self._lines(), start=1):
            if not (line.is_whole if isinstance(line, LongLine) else _is_event(line)):
                said = f"line {number:,} is not a whole event"
                return self._incomplete("a line is no event", said)
        return self._incomplete("unreadable lines", "DuckDB could not read some of its lines")

    def _lines(self) -> Iterator[bytes | LongLine]:
        """Yield every line as it was received, without its newline; long ones in part."""
        opened = GzipFile(self._spool) if is_gzip(self._spool) else self._spool.open("rb")
        try:
            with opened as file:
                yield from lines_of(file.read)
        except (EOFError, OSError, zlib.error) as error:
            said = f"the received file is damaged ({error})"
            raise self._incomplete("damaged file", said) from error

    def _incomplete(
        self,
        reason: str,
        said: str,
        error: type[IncompleteExportError] = IncompleteExportError,
    ) -> IncompleteExportError:
        window = self._window
        return error(
            f"The export {window.from_date}..{window.to_date} cannot be stored: {said}. "
            "Nothing was changed.",
            from_date=window.from_date,
            to_date=window.to_date,
            reason=reason,
        )


def _is_event(line: bytes) -> bool:
    """Tell whether a line is an event, or blank."""
    if is_blank(line):
        return True
    try:
        if why_unstorable(line):
            _time_of(line)
        else:
            SentEvent.of(line.removeprefix(BOM).strip())
    except (KeyError, ValueError):
        return False
    return True


def _time_of(line: bytes) -> int | None:
    """Return the `time` of a line that no table can hold, if it is a whole number."""
    text = line.removeprefix(BOM).decode("utf-8", "surrogateescape")
    properties = dict(members(dict(members(text))["properties"]))
    return whole_number(parsed(properties.get("time", "null")))


def _date(time_ms: int) -> date:
    return datetime.fromtimestamp(time_ms / 1000, UTC).date()
