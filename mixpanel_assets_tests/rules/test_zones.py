"""What clocks show, and when: SQL and Python say the same in every zone, near every change."""

from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.rules.zones import moment_of, moment_sql, periods, wall_clock_sql
from mixpanel_assets_tests.laws import examples

EPOCH = datetime(1970, 1, 1)
FIRST, LAST = date(1971, 1, 1), date(2037, 12, 31)
# Every amount by which clocks went back since 1971, a skipped day, an offset in seconds, and the
# zones for which DuckDB's own data is another.
ODD = [
    *("Antarctica/Troll", "Antarctica/Casey", "Antarctica/Vostok", "Australia/Lord_Howe"),
    *("Pacific/Apia", "Africa/Monrovia", "Africa/Casablanca", "Asia/Gaza", "America/Los_Angeles"),
    *("America/Tijuana", "Europe/Chisinau", "Europe/Tiraspol", "EET", "WET", "UTC"),
]
ZONES = st.sampled_from(ODD) | st.sampled_from(sorted(available_timezones() - {"localtime"}))


@cache
def changes(zone: str) -> list[datetime]:
    found = periods(zone, FIRST, LAST)[1:]
    return [period.begins for period in found] or [datetime(2024, 1, 1)]


@st.composite
def moments(draw):
    """A zone and a naive moment within two days of one of its changes, often within an hour."""
    zone = draw(ZONES)
    change = draw(st.sampled_from(changes(zone))).replace(tzinfo=None)
    hours = draw(st.sampled_from([1, 9, 48]))
    away = draw(st.integers(-hours * 3_600_000, hours * 3_600_000))
    near = draw(st.sampled_from([-60, -30, 0, 30, 60, None]))
    return zone, change + (
        timedelta(minutes=near) if near is not None else timedelta(milliseconds=away)
    )


def ms(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def answer(connection, sql: str, **columns):
    row = ", ".join(f"${name} AS {name}" for name in columns)
    return connection.execute(f"SELECT {sql} FROM (SELECT {row})", columns).fetchone()[0]


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as connection:
        yield connection


@examples(60)
@given(moments(), st.none() | st.integers(-30 * 3600, 30 * 3600) | st.just(-(10**12)))
def test_sql_and_python_read_a_wall_clock_alike(connection, case, processed_after):
    """A law: whatever the zone, the time and the moment of processing."""
    zone, wall = case
    processed = None if processed_after is None else ms(wall) + processed_after * 1000
    sql = moment_sql(zone, wall.date(), wall.date())
    columns = {"time_raw": ms(wall), "processed_ms": processed}
    found = answer(connection, sql.replace("processed_ms", "processed_ms::BIGINT"), **columns)
    assert found.replace(tzinfo=UTC) == moment_of(wall, ZoneInfo(zone), processed)


@examples(60)
@given(moments())
def test_sql_and_python_show_a_moment_alike(connection, case):
    """A law: the way back, from a moment to what clocks showed."""
    zone, moment = case
    sql = wall_clock_sql("moment::TIMESTAMP", zone, moment.date(), moment.date())
    local = moment.replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
    assert answer(connection, sql, moment=moment) == local.replace(tzinfo=None)


@examples(60)
@given(moments(), st.booleans())
def test_what_clocks_showed_is_read_back(case, at_once):
    """A law: an event that is processed at once is read at its moment, also if shown twice."""
    zone, moment = case
    happened = moment.replace(tzinfo=UTC)
    wall = happened.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    read = moment_of(wall, ZoneInfo(zone), ms(moment) if at_once else None)
    assert read == happened or (not at_once and read > happened)


@pytest.mark.parametrize("number", [int, float])
def test_a_processing_time_with_a_fraction_of_zero_is_a_whole_number(number):
    """JSON has one kind of number: the SQL reads both, too."""
    first = datetime(2026, 10, 24, 23, 30)
    wall = datetime(2026, 10, 25, 1, 30)
    read = moment_of(wall, ZoneInfo("Antarctica/Troll"), number(ms(first) + 900))
    assert read == first.replace(tzinfo=UTC)
