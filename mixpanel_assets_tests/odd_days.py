"""A database with five weeks of ordinary days of events, and then a day for each check to fail.

It is filled by real loads; only what no load can leave behind is changed by hand.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from mixpanel_assets.loading.checks import last_day_due
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import ProjectIdentity
from mixpanel_assets_tests.warehouse.conftest import Warehouse

DAY = timedelta(days=1)
ORDINARY = 35
# By the days before the last one.
FAILS = {
    "rows_quarantined": 6,
    "duplicate_share": 5,
    "null_ids": 4,
    "event_times": 3,
    "daily_volume": 2,
    "rows_vanished": 1,
    "property_changes": 0,
}
Lines = list[dict[str, Any]]


def days() -> list[date]:
    """Return the days of the database, the last one that is due as the last."""
    last = last_day_due(Settings(), datetime.now(UTC))
    return [last - number * DAY for number in range(ORDINARY + len(FAILS) - 1, -1, -1)]


def odd_day(check: str) -> date:
    """Return the day that fails a check."""
    return days()[-1] - FAILS[check] * DAY


def ordinary(day: date) -> Lines:
    """Return the lines of a day: 120 visits and 30 orders."""
    midnight = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
    return [
        {
            "event": "Order" if number % 5 == 0 else "Visit",
            "properties": {
                "time": midnight + number * 500_000,
                "distinct_id": f"user {number % 20}",
                "$insert_id": f"{day}-{number}",
                "$mp_api_timestamp_ms": midnight + number * 500_000 + 40,
                "plan": "pro",
                "amount": number,
            },
        }
        for number in range(150)
    ]


def quarantined(lines: Lines) -> Lines:
    """One line has a time that no event can have."""
    odd = {"event": "Visit", "properties": {**lines[1]["properties"], "time": "soon"}}
    return [*lines, odd]


def repeated(lines: Lines) -> Lines:
    """A third of the events is sent twice."""
    return [*lines, *lines[:50]]


def anonymous(lines: Lines) -> Lines:
    """Every tenth event has no `distinct_id`."""
    for line in lines[::10]:
        del line["properties"]["distinct_id"]
    return lines


def few(lines: Lines) -> Lines:
    """There are 40 visits and no order."""
    return [line for line in lines if line["event"] == "Visit"][:40]


def changed(lines: Lines) -> Lines:
    """One property is gone, one is new, one is text now."""
    for line in lines:
        properties = line["properties"]
        del properties["plan"]
        properties |= {"tier": "pro", "amount": str(properties["amount"])}
    return lines


CHANGES: dict[str, Callable[[Lines], Lines]] = {
    "duplicate_share": repeated,
    "null_ids": anonymous,
    "daily_volume": few,
    "property_changes": changed,
}


@cache
def database_bytes() -> bytes:
    """Return the file of the database."""
    lines = {day: ordinary(day) for day in days()}
    for check, change in CHANGES.items():
        lines[odd_day(check)] = change(lines[odd_day(check)])
    with tempfile.TemporaryDirectory() as folder:
        warehouse = Warehouse(Path(folder), ProjectIdentity("12345", "us"))
        every = [line for day in days() for line in lines[day]]
        warehouse.load(every, from_date=days()[0], to_date=days()[-1])
        # By itself, because a line without a time counts for the first day of its request.
        odd = odd_day("rows_quarantined")
        warehouse.load(quarantined(lines[odd]), from_date=odd)
        vanished = odd_day("rows_vanished")
        warehouse.load(lines[vanished][9:], from_date=vanished)
        with warehouse.database.write() as connection:
            connection.execute(
                "UPDATE mixpanel.events SET event_time = event_time + INTERVAL 7 HOURS "
                "WHERE event_date = ? AND event_name = 'Order'",
                [odd_day("event_times")],
            )
        return warehouse.database.path.read_bytes()
