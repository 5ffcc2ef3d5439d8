"""Writer processes that replace days of one database at the same time, and what they took."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from mixpanel_assets.rules.lines import ReceivedDays
from mixpanel_assets.rules.location import Location
from mixpanel_assets.warehouse import (
    Database,
    ProjectIdentity,
    database_at,
    prepare,
    repeated,
    replace_events,
    stage_days,
)

PROJECT = ProjectIdentity("1", "us")
_PATIENCE_SECONDS = 900


@dataclass(frozen=True)
class Written:
    """What some writers took: seconds of all and of the longest write, and repeated writes."""

    seconds: float
    longest: float
    repeated: int
    rows: int

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds


def replace_day(database: Database, received: ReceivedDays) -> None:
    """Replace a day as an asset does."""
    with (
        database.staging() as memory,
        stage_days(memory, received, project=PROJECT) as staged,
    ):

        def write() -> None:
            with database.write(memory) as connection:
                prepare(connection, PROJECT)
                replace_events(connection, staged)

        repeated(write)


def write_days(place: Location, jobs: Sequence[Sequence[ReceivedDays]]) -> Written:
    """Let one process for each list replace its days, one after the other."""
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    barrier = context.Barrier(len(jobs))
    processes = [
        context.Process(target=_writer, args=(place, days, results, barrier)) for days in jobs
    ]
    for process in processes:
        process.start()
    try:
        found = [results.get(timeout=_PATIENCE_SECONDS) for _ in processes]
    finally:
        for process in processes:
            process.join(timeout=1)
            process.kill()
            process.join()
    if failed := [said for said in found if isinstance(said, str)]:
        raise RuntimeError("\n".join(failed))
    began, ended, longest, again = zip(*found, strict=True)
    rows = sum(received.lines for days in jobs for received in days)
    return Written(max(ended) - min(began), max(longest), sum(again), rows)


def _writer(place: Location, days: Sequence[ReceivedDays], results: Any, barrier: Barrier) -> None:
    try:
        repeats = _Repeats()
        logging.getLogger("mixpanel_assets.warehouse.database").addHandler(repeats)
        database = database_at(place)
        if len(days):  # the connection is made before the clock starts
            with database.read():
                pass
        barrier.wait()
        began, longest = time.time(), 0.0
        for received in days:
            started = time.time()
            replace_day(database, received)
            longest = max(longest, time.time() - started)
        results.put((began, time.time(), longest, repeats.count))
    except BaseException as error:
        barrier.abort()
        results.put(f"{type(error).__name__}: {error}")
        raise


class _Repeats(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += "Writing it again" in record.getMessage()


def by_day(database: Database) -> dict[date, tuple[Any, ...]]:
    """Return rows and content hash of each day, and what the ledger says of it."""
    with database.read() as connection:
        return {
            day: tuple(facts)
            for day, *facts in connection.execute(
                """
                SELECT event_date, count(*), sum(hash(event_name, time_raw, distinct_id, insert_id,
                    processed_at, event_time, properties::VARCHAR))::VARCHAR,
                    any_value(ledger.rows), any_value(ledger.row_count), any_value(counts.rows)
                FROM mixpanel.events
                LEFT JOIN (SELECT day, count(*) AS rows, sum(row_count) AS row_count
                    FROM mixpanel._days GROUP BY day) AS ledger ON ledger.day = event_date
                LEFT JOIN (SELECT day, sum(row_count) AS rows FROM mixpanel._event_counts
                    GROUP BY day) AS counts ON counts.day = event_date
                GROUP BY event_date
                """
            ).fetchall()
        }


def spools(folder: Path, days: Sequence[date], events: int) -> list[ReceivedDays]:
    """Write a response for each day."""
    from benchmarks.spool import write_spool

    found = []
    for number, day in enumerate(days):
        path = folder / f"{day}.jsonl.gz"
        write_spool(path, events=events, seed=number, day=day)
        found.append(ReceivedDays(path, day, day, events, names_once=True))
    return found
