"""The lines of a spool file that did not become rows at once, and what each one is.

A line is rescued (its numbers are kept as text), quarantined (it is whole but cannot be
stored), or it proves that the file is not the export that was asked for.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from gzip import GzipFile
from pathlib import Path
from typing import Any

import duckdb

from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.warehouse.exact import ROW_TYPE, exact_row, whole_number
from mixpanel_assets.warehouse.quarantine import MAX_LINES, Quarantined, why_refused
from mixpanel_assets.warehouse.spool import Window, derived_columns, is_gzip, rows

_BATCH = 5000


class ShiftedRowsError(IncompleteExportError):
    """A legacy project's answer for several days holds rows of other days: ask day by day."""


class Leftovers:
    """Sorts the lines left over by one load; those that can be stored go `into` its table.

    Attributes:
        quarantined: Lines that cannot be stored.
        rescued: How many lines were stored after all.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, spool: Path, window: Window, *, into: str
    ) -> None:
        self._into = into
        self._connection = connection
        self._spool = spool
        self._window = window
        self._outside: Counter[date] = Counter()
        self.quarantined: list[Quarantined] = []
        self.rescued = 0

    def sort(self) -> None:
        """Store what can be stored and collect the rest.

        Raises:
            IncompleteExportError: A line is no event, or rows belong to other days.
            ShiftedRowsError: The latter, in a legacy project asked for several days.
        """
        self._connection.execute(
            "CREATE TEMP TABLE _leftovers AS SELECT row_number() OVER () AS number, "
            f"json::VARCHAR AS line FROM ({rows(self._spool, self._window)}) WHERE NOT stored"
        )
        refused = 0
        for lines in self._batches():
            refused += lines.count(None)
            self._store([row for line in lines if line and (row := self._row(line))])
        self._connection.execute("DROP TABLE _leftovers")
        self._refuse_outside()
        if refused:
            self._find_refused(refused)

    def _batches(self) -> Iterator[list[str | None]]:
        first = 1
        while True:
            found = self._connection.execute(
                "SELECT line FROM _leftovers WHERE number BETWEEN ? AND ?",
                [first, first + _BATCH - 1],
            ).fetchall()
            if not found:
                return
            yield [line for (line,) in found]
            first += _BATCH

    def _row(self, line: str) -> dict[str, Any] | None:
        """Return the row of a line that can be stored; note why for any other."""
        time = self._parse(line)["properties"].get("time")
        time_ms = whole_number(time)
        first, last = self._window.believable_ms
        if time_ms is None:
            self._quarantine(line.encode(), "`time` is missing or no whole number of milliseconds")
        elif not first <= time_ms <= last:
            self._quarantine(line.encode(), "`time` lies before 1971 or years after the asked day")
        elif not self._window.accepts(time_ms):
            self._outside[_date(time_ms)] += 1
        else:
            return exact_row(line, time_ms)
        return None

    def _parse(self, line: str) -> dict[str, Any]:
        try:
            event = json.loads(line, parse_constant=_no_constant)
        except ValueError:
            event = None
        if (
            isinstance(event, dict)
            and isinstance(event.get("event"), str)
            and isinstance(event.get("properties"), dict)
        ):
            return event
        raise self._incomplete("a line is no event", "a line is not a whole event")

    def _quarantine(self, line: bytes, reason: str, day: date | None = None) -> None:
        self.quarantined.append(Quarantined(day or self._window.from_date, line, reason))
        if len(self.quarantined) > MAX_LINES * len(self._window.days):
            raise self._incomplete(
                "too many lines cannot be stored",
                f"over {MAX_LINES} lines a day cannot be stored ({reason})",
            )

    def _store(self, batch: list[dict[str, Any]]) -> None:
        if batch:
            self._connection.execute(
                f"INSERT INTO {self._into} BY NAME SELECT event_name, distinct_id, insert_id, "
                f"properties::JSON AS properties, {derived_columns(self._window)}, time_raw "
                f"FROM (SELECT unnest(?::{ROW_TYPE}[], recursive := true))",
                [batch],
            )
        self.rescued += len(batch)

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

    def _find_refused(self, refused: int) -> None:
        """Find the lines that DuckDB's reader refused; each must be one we can name."""
        found = 0
        for line in _raw_lines(self._spool, self._incomplete):
            if reason := why_refused(line):
                event = self._parse(line.decode("utf-8", "surrogateescape"))
                self._quarantine(line, reason, self._window.day_of(event["properties"].get("time")))
                found += 1
        if found != refused:
            raise self._incomplete(
                "unreadable lines", f"DuckDB could not read {refused} lines, {found} are explained"
            )

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


Complaint = Callable[[str, str], IncompleteExportError]


def _raw_lines(spool: Path, complain: Complaint) -> Iterator[bytes]:
    opened = GzipFile(spool) if is_gzip(spool) else spool.open("rb")
    try:
        with opened as file:
            for line in file:
                yield line.rstrip(b"\r\n")
    except (EOFError, OSError, zlib.error) as error:
        raise complain("damaged file", f"the received file is damaged ({error})") from error


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _date(time_ms: int) -> date:
    return datetime.fromtimestamp(time_ms / 1000, UTC).date()
