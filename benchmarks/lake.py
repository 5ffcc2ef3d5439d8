"""Compare a file with a lake on disk and on S3: one large day, small days, queries and writers.

A year of `--year` events in a lake on disk shows whether memory stays and how queries grow.
PostgreSQL (which flushes each commit to the disk) and the object store run on the same machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

from rich.table import Table

from benchmarks.show import show
from benchmarks.stream_client import peak_bytes
from mixpanel_assets.rules.lines import ReceivedDays
from mixpanel_assets.rules.location import LakeLocation, Location
from mixpanel_assets.warehouse import database_at, stored_bytes
from mixpanel_assets.warehouse.lake import close_lakes
from mixpanel_assets_tests import servers
from mixpanel_assets_tests.lake_writers import by_day, replace_day, spools, write_days

FIRST = date(2026, 3, 1)
PARTS = ("compared", "written", "year")
PLACES = ("file", "lake on disk", "lake on S3")
QUERIES = {
    "month count": "SELECT count(*) FROM mixpanel.events "
    "WHERE event_date BETWEEN '2026-03-01' AND '2026-03-31'",
    "property sum": "SELECT mixpanel.prop(properties, '$city') AS city, "
    "sum(length(properties)), count(*) FROM mixpanel.events GROUP BY city",
}

QUERIES_OF_YEAR = {
    "one day": "SELECT event_name, count(*) FROM mixpanel.events "
    "WHERE event_date = '2026-06-30' GROUP BY event_name",
    "one month": QUERIES["month count"],
    "one property": QUERIES["property sum"],
}


@contextmanager
def places(folder: Path) -> Iterator[dict[str, Location]]:
    """Yield an empty database of each kind."""
    with servers.Run() as run:
        postgres = servers.postgres_of(run.folder, durable=True)
        s3 = servers.s3_of(run.folder)
        os.environ |= {**postgres.environment, **s3.environment}
        with postgres.new_database() as on_disk, postgres.new_database() as on_s3:
            yield {
                "file": folder / "benchmark.duckdb",
                "lake on disk": LakeLocation(on_disk.dsn, f"{folder}/lake/"),
                "lake on S3": LakeLocation(on_s3.dsn, f"s3://{on_s3.dbname.replace('_', '-')}/"),
            }
            close_lakes()


def load_day(place: Location, received: ReceivedDays, runs: int) -> list[float]:
    """Return the seconds of some loads of one day."""
    found = []
    for _ in range(runs):
        began = time.perf_counter()
        replace_day(database_at(place), received)
        found.append(time.perf_counter() - began)
    return found


def query(place: Location, sql: str, runs: int = 5) -> float:
    """Return the best time of a query, in seconds."""
    best = float("inf")
    with database_at(place, read_only=True).read() as connection:
        for _ in range(runs):
            began = time.perf_counter()
            connection.execute(sql).fetchall()
            best = min(best, time.perf_counter() - began)
    return best


def size(place: Location) -> int:
    """Return the bytes that are stored."""
    with database_at(place, read_only=True).read() as connection:
        return stored_bytes(connection, place)


def beside(value: float, of_file: float) -> str:
    """Return a value and its ratio to that of the file. A file of few rows may not have grown."""
    return f"{value:,.3f} ({value / of_file:.1f}x)" if of_file else f"{value:,.3f}"


def compared(folder: Path, events: int, small: int) -> None:
    """Print each place beside the file: a large day, small days, queries, and whether all agree."""
    [large] = spools(folder, [FIRST - timedelta(days=1)], events)
    days = spools(folder, [FIRST + timedelta(days=n) for n in range(32)], small)
    table = Table(title=f"One day of {events:,} events, then 32 days of {small:,}")
    headings = ("", "first s", "again s", "32 days s", "MB of 32 days", *QUERIES, "equal")
    for heading in headings:
        table.add_column(heading, justify="right")
    with places(folder) as found:
        wanted, best = None, {}
        for name in PLACES:
            place = found[name]
            first, *again = load_day(place, large, 3)
            before = size(place)
            took = sum(load_day(place, one, 1)[0] for one in days)
            figures = {
                "first": first,
                "again": min(again),
                "days": took,
                "bytes": (size(place) - before) / 1e6,
                **{title: query(place, sql) for title, sql in QUERIES.items()},
            }
            best = best or figures
            facts = by_day(database_at(place))
            wanted = wanted or facts
            cells = [beside(value, best[key]) for key, value in figures.items()]
            table.add_row(name, *cells, "yes" if facts == wanted else "NO")
    show(table)


def written(folder: Path, small: int) -> None:
    """Print what one writer and eight take: 32 days, each twice, and the same 4 days."""
    days = spools(folder, [FIRST + timedelta(days=n) for n in range(32)], small)
    table = Table(title=f"64 writes of {small:,} events")
    for heading in ("", "writers", "days", "s", "rows/s", "longest s", "repeated", "equal"):
        table.add_column(heading, justify="right")
    jobs = {
        (1, 32): [[*days, *days]],
        (8, 32): [[*days[n::8], *days[n::8]] for n in range(8)],
        (8, 4): [days[:4] * 2] * 8,
    }
    wanted = None
    for (writers, number), lists in jobs.items():
        for name in PLACES[1:]:
            with places(folder) as found:
                replace_day(database_at(found[name]), days[0])  # makes the tables
                took = write_days(found[name], lists)
                facts = by_day(database_at(found[name]))
            wanted = wanted or facts
            equal = all(facts[day] == wanted[day] for day in facts)
            table.add_row(
                *(name, str(writers), str(number), f"{took.seconds:.1f}"),
                *(f"{took.rows_per_second:,.0f}", f"{took.longest:.1f}", str(took.repeated)),
                "yes" if equal and len(facts) == number else "NO",
            )
    show(table)


def year(folder: Path, events: int) -> None:
    """Print what 365 days take in a lake on disk: seconds and peak memory by part of the year."""
    days = [date(2026, 1, 1) + timedelta(days=n) for n in range(365)]
    table = Table(title=f"A year of {events:,} events in a lake on disk")
    for heading in ("days", "load s", "rows/s", "peak MB", *(f"{x} s" for x in QUERIES_OF_YEAR)):
        table.add_column(heading, justify="right")
    took, rows = 0.0, 0
    with places(folder) as found:
        place = found["lake on disk"]
        for number, day in enumerate(days, 1):
            [received] = spools(folder, [day], events // 365)
            took += sum(load_day(place, received, 1))
            rows += received.lines
            received.path.unlink()
            if number in (1, 30, 182, 365):
                peak = peak_bytes() / 1e6
                queries = (f"{query(place, sql, 3):.3f}" for sql in QUERIES_OF_YEAR.values())
                table.add_row(
                    str(number), f"{took:.1f}", f"{rows / took:,.0f}", f"{peak:,.0f}", *queries
                )
    show(table)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=500_000, help="of the large day")
    parser.add_argument("--small", type=int, default=20_000, help="of each small day")
    parser.add_argument(
        "--year", type=int, default=365_000, help="events of the year, at least 365"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-lake-", dir="/tmp"))
    try:
        if "compared" in options.only:
            compared(folder, options.events, options.small)
        if "written" in options.only:
            written(folder, options.small)
        if "year" in options.only:
            year(folder, options.year)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
