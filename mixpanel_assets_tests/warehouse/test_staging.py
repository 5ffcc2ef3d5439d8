"""Staged rows: which of equal ones are kept, what ids they get, and what their times say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import pytest

from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.rules.lines import ReceivedDays
from mixpanel_assets.rules.made_ids import made_id
from mixpanel_assets.warehouse.database import Database
from mixpanel_assets.warehouse.events import stage_days
from mixpanel_assets.warehouse.lines import ShiftedRowsError, Window
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.schema import EVENTS, Column
from mixpanel_assets.warehouse.staging import (
    _insert_staged_rows,
    contradiction,
    fill_insert_ids,
    measure_offsets,
    refuse_zone_change,
    remove_duplicates,
    staging_table,
)
from mixpanel_assets_tests.warehouse.conftest import DAY, DAY_MS, START_MS, Warehouse, event

HOUR_MS = 3_600_000
UTC_PROJECT = ProjectIdentity("1234", "us")
LEGACY = ProjectIdentity("1234", "us", "legacy", "America/New_York")


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


def stage(connection: duckdb.DuckDBPyConnection, *rows: dict[str, Any], name: str = "rows") -> str:
    """Create a table of staged rows; return its name."""
    columns = ", ".join(f"{column.name} {column.type}" for column in EVENTS.columns)
    connection.execute(f"CREATE TABLE {name} ({columns}, is_made BOOLEAN)")
    for row in rows:
        values = {"event_name": "A", "event_date": DAY, "time_raw": START_MS, "properties": {}}
        values |= row
        values["properties"] = json.dumps(values["properties"])
        marks = ", ".join(f"${column}" for column in values)
        names = ", ".join(values)
        connection.execute(f"INSERT INTO {name} ({names}) VALUES ({marks})", values)
    return name


def test_one_connection_stages_one_table_after_another(connection):
    """Nothing is left of the first one."""
    for name in ("first", "second"):
        twice = {"insert_id": "i"}
        table = stage(connection, twice, twice, {}, {}, name=name)
        assert remove_duplicates(connection, table) == {DAY: 1}
        fill_insert_ids(connection, table)
        ids = connection.execute(f"SELECT insert_id, is_made FROM {table}").fetchall()
        made = [made_id("A", START_MS, None, {}, twin=twin) for twin in (0, 1)]
        assert sorted(ids) == sorted([("i", None), *((one, True) for one in made)])
    left = "SELECT function_name FROM duckdb_functions() WHERE function_name LIKE 'mixpanel%'"
    assert connection.execute(left).fetchall() == []
    left = "SELECT table_name FROM duckdb_tables() WHERE temporary"
    assert connection.execute(left).fetchall() == []


def test_of_equal_events_the_first_processed_one_has_the_first_number(connection):
    """Those without such a time come last, in the order of their content."""
    processed = [None, datetime(2026, 3, 3), None, datetime(2026, 3, 2)]
    for order in (processed, processed[::-1]):
        connection.execute("DROP TABLE IF EXISTS rows")
        table = stage(connection, *({"processed_at": moment} for moment in order))
        fill_insert_ids(connection, table)
        found = connection.execute("SELECT insert_id, processed_at FROM rows").fetchall()
        numbers = {made_id("A", START_MS, None, {}, twin=twin): twin for twin in range(4)}
        assert sorted((numbers[one], moment) for one, moment in found) == [
            (0, datetime(2026, 3, 2)),
            (1, datetime(2026, 3, 3)),
            (2, None),
            (3, None),
        ]


def live(hours: float, *, day: int = 0, size: int = 0, **others: Any) -> dict[str, Any]:
    """Return a row whose `time` is some hours ahead; its properties have `size` bytes."""
    time = START_MS + day * DAY_MS
    properties = {"$mp_api_timestamp_ms": time - round(hours * HOUR_MS), **others, "a": ""}
    properties["a"] = "a" * (size - len(json.dumps(properties)))
    return {"event_date": DAY + timedelta(days=day), "time_raw": time, "properties": properties}


@pytest.mark.parametrize(("size", "offsets"), [(1 << 16, {DAY: -480}), ((1 << 16) + 1, {})])
def test_the_time_of_large_events_is_not_measured(connection, size, offsets):
    """DuckDB takes 30 times the memory to read a value of their properties."""
    table = stage(connection, *[live(-8, size=size)] * 20)
    assert measure_offsets(connection, table, 20, Window(DAY, DAY, UTC_PROJECT)) == offsets


@pytest.mark.parametrize(("is_import", "offsets"), [(False, {DAY: -480}), (True, {})])
def test_the_time_of_imported_events_is_not_measured(connection, is_import, offsets):
    """They were sent long after they happened."""
    table = stage(connection, *[live(-8, **{"$import": is_import})] * 20)
    assert measure_offsets(connection, table, 20, Window(DAY, DAY, UTC_PROJECT)) == offsets


def test_all_rows_of_many_small_days_are_measured(connection):
    """A sample of each day has 500 rows."""
    table = stage(connection, *[live(day, day=day) for day in range(10) for _ in range(25)])
    window = Window(DAY, DAY + timedelta(days=9), UTC_PROJECT)
    assert measure_offsets(connection, table, 250, window) == {
        DAY + timedelta(days=day): 60 * day for day in range(10)
    }


def test_a_zone_change_is_refused_with_the_first_days(connection):
    """Five of them, with the minutes by which their times differ from the project's zone."""
    window = Window(DAY, DAY + timedelta(days=9), LEGACY)
    offsets = {DAY + timedelta(days=day): 60 * day - 300 for day in range(6)}
    with pytest.raises(ShiftedRowsError) as caught:
        refuse_zone_change(window, offsets)
    days = (
        "2026-03-01 (+0 min), 2026-03-02 (+60 min), 2026-03-03 (+120 min), "
        "2026-03-04 (+180 min), 2026-03-05 (+240 min)"
    )
    assert (
        f"cannot be stored: the project's zone changed on the way; `time` differs from "
        f"America/New_York by: {days}. Nothing was changed."
    ) in str(caught.value)
    with pytest.raises(
        ShiftedRowsError, match=r"by: 2026-03-01 \(\+0 min\), 2026-03-02 \(\+60 min"
    ):
        refuse_zone_change(window, dict(list(offsets.items())[:2]))
    refuse_zone_change(window, dict.fromkeys(offsets, -120))
    refuse_zone_change(window, {})
    refuse_zone_change(Window(DAY, window.to_date, UTC_PROJECT), offsets)


@pytest.mark.parametrize(
    ("project", "minutes", "said"),
    [
        (UTC_PROJECT, None, None),
        (UTC_PROJECT, 0, None),
        (
            UTC_PROJECT,
            -300,
            "`time` of 2026-03-01 runs -300 minutes ahead of UTC, so this project seems to be "
            "one from before 2023: set MP_TIME_REGIME=legacy and MP_TIME_ZONE to its zone.",
        ),
        (LEGACY, None, None),
        (LEGACY, -300, None),
        (
            LEGACY,
            0,
            "`time` of 2026-03-01 is true UTC, not the wall clock of America/New_York: set "
            "MP_TIME_REGIME=utc, or MP_TIME_ZONE to the project's zone.",
        ),
        (
            LEGACY,
            60,
            "`time` of 2026-03-01 runs +60 minutes ahead of UTC, which is not America/New_York: "
            "set MP_TIME_ZONE to the project's zone, unless it was another one on that day.",
        ),
    ],
)
def test_what_the_times_of_a_day_say_about_the_settings(project, minutes, said):
    """The zone and the regime that would fit."""
    assert contradiction(project, DAY, minutes) == said


@pytest.mark.parametrize("minutes", [-300, -240])
def test_both_offsets_of_a_day_of_a_clock_change_fit(minutes):
    """In New York, clocks go forward on this day."""
    assert contradiction(LEGACY, date(2026, 3, 8), minutes) is None
    assert contradiction(LEGACY, date(2026, 3, 7), minutes) is None or minutes == -240
    assert contradiction(LEGACY, date(2026, 3, 9), minutes) is None or minutes == -300


def test_a_staging_connection_reads_times_as_utc(connection):
    """Whatever the zone of the machine is."""
    connection.execute("SET GLOBAL TimeZone = 'America/New_York'")
    with staging_table(connection, EVENTS.columns) as (staging, _, _):
        zone = staging.execute("SELECT current_setting('TimeZone')").fetchall()
    assert zone == [("UTC",)]


def test_a_file_that_is_gone_is_to_be_fetched_again(tmp_path):
    """It was deleted between the download and the load."""
    warehouse = Warehouse(tmp_path)
    received = ReceivedDays(tmp_path / "nowhere.jsonl", DAY, DAY, 1, names_once=True)
    with pytest.raises(IncompleteExportError, match=r"is gone: .*nowhere.jsonl was deleted"):
        warehouse.store(received)


def test_another_fault_of_duckdb_is_not_taken_for_a_damaged_file(connection, tmp_path):
    """A full disk, for instance: to fetch the days again would not help."""
    spool = Warehouse(tmp_path).spool([event()])
    received = ReceivedDays(spool, DAY, DAY, 1, names_once=True)
    fault = Column("fault", "BOOLEAN DEFAULT error('the disk is full')", "")
    odd = (Column("is_odd", "BOOLEAN", ""), Column("odd_line", "VARCHAR", ""))
    with (
        staging_table(connection, [*EVENTS.columns, *odd, fault]) as (staging, table, _),
        pytest.raises(duckdb.InvalidInputException, match="the disk is full"),
    ):
        _insert_staged_rows(staging, table, received, Window(DAY, DAY, UTC_PROJECT))


@pytest.mark.parametrize(
    ("lines", "size", "memory_limit"), [(33, 1_050_000, "900MB"), (1_000, 8_000, "60MB")]
)
def test_what_needs_much_memory_is_staged_with_one_thread(tmp_path, lines, size, memory_limit):
    """Large lines, and lines of which DuckDB cannot read as many at once as it would."""
    database = Database(tmp_path / "mixpanel.duckdb", memory_limit=memory_limit)
    spool = Warehouse(tmp_path).spool(event(n=number, a="a" * size) for number in range(lines))
    received = ReceivedDays(spool, DAY, DAY, lines, names_once=True)
    with database.staging() as memory:
        memory.execute("SET threads = 3")
        with stage_days(memory, received, project=UTC_PROJECT) as staged:
            threads = memory.execute("SELECT current_setting('threads')").fetchall()
            assert (staged.reports[0].row_count, threads) == (lines, [(1,)])
