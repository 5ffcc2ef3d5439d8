from __future__ import annotations

from datetime import timedelta

import pytest

from mixpanel_assets.warehouse import tables
from mixpanel_assets_tests.warehouse.conftest import DAY, DAY_MS, START_MS, event

NEXT_DAY = DAY + timedelta(days=1)


@pytest.fixture
def connection(warehouse):
    warehouse.load([event("A"), event("B", START_MS + DAY_MS)], to_date=NEXT_DAY)
    with warehouse.database.read() as connection:
        yield connection


def test_the_ledger_is_read_by_day(connection):
    """Only loaded days are there, each with its whole row."""
    rows = tables.day_rows(connection, "events", DAY - timedelta(days=5), DAY)
    assert list(rows) == [DAY]
    assert rows[DAY]["row_count"] == 1
    assert tables.day_rows(connection, "profiles", DAY, DAY) == {}


def test_counts_are_read_by_day_and_event(connection):
    """Both ends of the days are included."""
    counts = tables.event_counts(connection, DAY, NEXT_DAY)
    assert counts == {DAY: {"A": 1}, NEXT_DAY: {"B": 1}}


def test_an_unprepared_file_has_no_ledger(warehouse):
    """Questions about a file without our tables have empty answers."""
    with warehouse.database.write() as connection:
        assert tables.day_rows(connection, "events", DAY, DAY) == {}
        assert tables.event_counts(connection, DAY, DAY) == {}
