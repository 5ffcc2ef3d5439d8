"""Events -> a folder with one whole file per day, which the next call goes on with."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from mixpanel_assets.client import MixpanelAPIClient
from mixpanel_assets.errors import ConfigError, IncompleteExportError
from mixpanel_assets.record_files import (
    EVENT_COLUMNS,
    FileFormat,
    whole_file,
    write_lines,
    write_records,
)
from mixpanel_assets.settings import Settings

QUESTION_FILE = "_question.json"
_DAY_FILE = re.compile(r"\d{4}-\d\d-\d\d\.(jsonl|parquet)")


@dataclass(frozen=True)
class EventFilter:
    """Which events a folder holds, and how.

    Attributes:
        events: Only events of these names; None: all.
        where: Only events that fit this expression.
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
        rows: Events in it; None for a file that was there already.
        seconds: From the request to the whole file; 0 for one that was there already.
    """

    day: date
    path: Path
    bytes: int
    rows: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class EventFolder:
    """A folder of events: a file per day, named by its day, such as `2024-01-03.jsonl`.

    A folder holds the answer to one question, which stands in `_question.json`.

    Attributes:
        directory: The folder; made when it is missing.
        client: Who is asked; one export request per day.
        settings: The zone of the days, and where answers lie until they are checked.
        filter: Which events.
        format: `jsonl`, or `parquet` for normalized events.
    """

    directory: Path
    client: MixpanelAPIClient
    settings: Settings
    filter: EventFilter
    format: FileFormat = "jsonl"

    def fill(
        self,
        from_date: date,
        to_date: date,
        *,
        overwrite: bool = False,
        on_day: Callable[[DayFile], None] | None = None,
    ) -> list[DayFile]:
        """Write the files of some days that are not finished yet; return those of all days.

        A file is finished when it was asked for after its day was over; one of today is
        written anew each time. A day that stays broken leaves no file and stops no other.

        Args:
            from_date: First day, included.
            to_date: Last day, included.
            overwrite: Ask for finished days too.
            on_day: Told of each file, those that were there included.

        Raises:
            ConfigError: The folder holds the answer to another question, raw events were to
                become Parquet, or an argument is wrong; nothing was asked.
            IncompleteExportError: Days stayed broken; the message names them.
            StorageError: The disk refused.
        """
        self._check(from_date, to_date)
        files: list[DayFile] = []
        broken: list[tuple[date, str]] = []
        for offset in range((to_date - from_date).days + 1):
            day = from_date + timedelta(days=offset)
            try:
                file = self._finished(day) if not overwrite else None
                files.append(file or self._write(day))
            except IncompleteExportError as error:
                broken.append((day, error.reason or error.message))
                continue
            if on_day:
                on_day(files[-1])
        if broken:
            raise _incomplete(broken, len(files))
        return files

    def _check(self, from_date: date, to_date: date) -> None:
        if from_date > to_date:
            raise ConfigError(f"from_date {from_date} is after to_date {to_date}.")
        if self.filter.raw and self.format == "parquet":
            raise ConfigError(
                "Raw events have no columns for Parquet: choose the format jsonl, or leave raw out."
            )
        self.client.stream_events(  # checks the arguments; nothing is asked until it is read
            from_date=from_date,
            to_date=to_date,
            events=self.filter.events,
            where=self.filter.where,
        ).close()
        self._claim()

    def _claim(self) -> None:
        """Make sure that every file in the folder answers the same question."""
        names = self.filter.events
        question = asdict(self.filter) | {
            "events": None if names is None else sorted(set(names)),
            "project_id": self.client.credentials.project_id,
            "region": self.client.credentials.region,
            "local_zone": self.settings.local_zone,
        }
        told = self.directory / QUESTION_FILE
        if told.exists():
            if json.loads(told.read_text()) != question:
                raise ConfigError(
                    f"{self.directory} holds the answer to another question, which stands in "
                    f"{QUESTION_FILE}. Choose another directory, or delete that one."
                )
            return
        if any(_DAY_FILE.fullmatch(path.name) for path in self.directory.glob("*")):
            raise ConfigError(
                f"{self.directory} holds files of days, but no {QUESTION_FILE} that says what is "
                "in them. Choose another directory."
            )
        with whole_file(told) as file:
            file.write(json.dumps(question, indent=2).encode())

    def _finished(self, day: date) -> DayFile | None:
        path = self._path(day)
        if not path.exists():
            return None
        status = path.stat()
        is_over = datetime(day.year, day.month, day.day) + timedelta(days=1)
        zone = ZoneInfo(self.settings.export_zone)
        if status.st_mtime < is_over.replace(tzinfo=zone).timestamp():
            return None
        return DayFile(day, path, status.st_size)

    def _write(self, day: date) -> DayFile:
        path, begin, asked = self._path(day), time.monotonic(), time.time()
        spool = self.settings.spool_path(self.client.credentials.project_id)
        spool.mkdir(parents=True, exist_ok=True)
        question: dict[str, Any] = {
            "from_date": day,
            "to_date": day,
            "events": self.filter.events,
            "where": self.filter.where,
            "staged": True,
            "spool_directory": spool,
        }
        with whole_file(path, as_of=asked) as file:
            if self.filter.raw:
                with self.client.stream_event_lines(**question) as lines:
                    rows = write_lines(file, lines)
            else:
                zone = self.settings.local_zone
                with self.client.stream_events(**question, local_zone=zone) as records:
                    rows = write_records(file, records, EVENT_COLUMNS, self.format)
        return DayFile(day, path, path.stat().st_size, rows, time.monotonic() - begin)

    def _path(self, day: date) -> Path:
        return self.directory / f"{day.isoformat()}.{self.format}"


def _incomplete(broken: list[tuple[date, str]], finished: int) -> IncompleteExportError:
    days = "; ".join(f"{day}: {reason.rstrip('.')}" for day, reason in broken)
    return IncompleteExportError(
        f"{len(broken)} days stayed broken and have no new file ({days}). The files of the other "
        f"{finished} days are whole; run again for the rest.",
        from_date=broken[0][0],
        to_date=broken[-1][0],
        reason=broken[0][1],
        partial=bool(finished),
    )
