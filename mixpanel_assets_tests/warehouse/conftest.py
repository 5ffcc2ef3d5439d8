from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mixpanel_assets.client.verdict import IncompleteBodyError, Verdict
from mixpanel_assets.rules.json_text import last_values
from mixpanel_assets.rules.lines import SHORT_LINE_BYTES, ReceivedDays, UnusualLines
from mixpanel_assets.rules.location import LakeLocation, Location
from mixpanel_assets.warehouse import database_at
from mixpanel_assets.warehouse.database import Database
from mixpanel_assets.warehouse.events import append_events, replace_events, stage_days
from mixpanel_assets.warehouse.ledger import DayReport
from mixpanel_assets.warehouse.project import ProjectIdentity, prepare
from mixpanel_assets.warehouse.vanished import Reload

DAY = date(2026, 3, 1)
DAY_MS = 86_400_000
START_MS = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
PROJECT = ProjectIdentity("1234", "eu")
ACCEPT_SMALLER = Reload(accept_smaller=True)


def event(name: str = "Visit", time: Any = START_MS, **properties: Any) -> dict[str, Any]:
    return {"event": name, "properties": {"time": time, **properties}}


def as_line(record: Any) -> bytes:
    if isinstance(record, bytes):
        return record
    return json.dumps(record, ensure_ascii=False).encode()


def names_once(lines: Iterable[bytes]) -> bool:
    return all(last_values(line) is line for line in lines if len(line) <= SHORT_LINE_BYTES)


def unusual(lines: Iterable[bytes]) -> UnusualLines | None:
    """Return what the client knows of the lines when it has received them."""
    verdict = Verdict(gzip=False)
    with suppress(IncompleteBodyError):
        for block in [*verdict.feed(b"\n".join(lines)), *verdict.finish()]:
            list(block)
        return verdict.unusual
    return None


@cache
def _prepared(project: ProjectIdentity) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prepared.duckdb"
        with Database(path).write() as connection:
            prepare(connection, project)
        return path.read_bytes()


@dataclass
class Warehouse:
    """A database in a temporary folder, loaded and read as the IO manager does."""

    folder: Path
    project: ProjectIdentity = PROJECT
    place: Location | None = None

    @property
    def database(self) -> Database:
        return database_at(self.place or self.folder / "mixpanel.duckdb")

    def spool(self, records: Iterable[Any], *, compress: bool = False) -> Path:
        body = b"".join(as_line(record) + b"\n" for record in records)
        path = self.folder / ("spool.jsonl.gz" if compress else "spool.jsonl")
        path.write_bytes(gzip.compress(body) if compress else body)
        return path

    def load(
        self,
        records: Iterable[Any],
        *,
        from_date: date = DAY,
        to_date: date | None = None,
        lines: int | None = None,
        unusual_known: bool = True,
        **options: Any,
    ) -> list[DayReport]:
        records = list(records)
        self._begin()
        received_options = {"received_bytes", "requests", "received_at"}
        spool = self.spool(records, compress=options.pop("compress", False))
        received = ReceivedDays(
            spool,
            from_date,
            to_date or from_date,
            len(records) if lines is None else lines,
            names_once(map(as_line, records)),
            **{"unusual": unusual(map(as_line, records))} if unusual_known else {},
            **{name: options.pop(name) for name in received_options & options.keys()},
        )
        store: Any = append_events if "table" in options else replace_events
        return self.store(received, store, **options)

    def store(
        self,
        received: ReceivedDays,
        store: Any = replace_events,
        *,
        open_days: Collection[date] = (),
        database: Database | None = None,
        **options: Any,
    ) -> list[DayReport]:
        """Stage received days, then store them in a transaction."""
        database = database or self.database
        with (
            database.staging() as memory,
            stage_days(memory, received, project=self.project, open_days=open_days) as staged,
            database.write(memory) as connection,
        ):
            prepare(connection, self.project)
            return store(connection, staged, **options)  # type: ignore[no-any-return]

    def _begin(self) -> None:
        """Begin with a file that is prepared already, which takes most of the time of a load."""
        if isinstance(self.database.location, Path) and self.database.is_missing:
            self.database.path.touch(0o600)
            self.database.path.write_bytes(_prepared(self.project))

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.database.read() as connection:
            return connection.execute(sql, values).fetchall()

    def rows(self) -> list[tuple[Any, ...]]:
        return self.query("FROM events ORDER BY ALL")


@pytest.fixture
def warehouse(tmp_path: Path, place: Location) -> Warehouse:
    return Warehouse(tmp_path, place=place if isinstance(place, LakeLocation) else None)
