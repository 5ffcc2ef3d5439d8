"""The laws of appending to a named table, on generated events."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.errors import ConfigError
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets_tests.laws import examples
from mixpanel_assets_tests.warehouse.conftest import DAY, DAY_MS, START_MS, Warehouse, event
from mixpanel_assets_tests.warehouse.test_load_laws import DAYS, LAST, LAW, events, fresh

NEXT = DAY + timedelta(days=1)

# Filters of a load; which rows are twins never depends on them.
FILTERS: dict[str, Any] = {
    "A": lambda record: record["event"] == "A",
    "B": lambda record: record["event"] == "B",
    "0": lambda record: record["properties"].get("n") == 0,
    "not 0": lambda record: record["properties"].get("n") != 0,
}
HALVES = [("A", "B"), ("0", "not 0")]


def rows(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    return warehouse.query("SELECT * FROM main.mine ORDER BY ALL")


def append(
    warehouse: Warehouse,
    records: list[dict[str, Any]],
    days: tuple[int, int],
    only: str | None = None,
) -> list[Any]:
    """Append what an export of these days and this filter would answer."""
    first, last = days
    start, end = START_MS + first * DAY_MS, START_MS + (last + 1) * DAY_MS
    answer = [
        record
        for record in records
        if start <= record["properties"]["time"] < end and (only is None or FILTERS[only](record))
    ]
    return warehouse.load(
        answer,
        from_date=DAY + timedelta(days=first),
        to_date=DAY + timedelta(days=last),
        table="mine",
        filters={"where": only} if only else None,
    )


def balanced(warehouse: Warehouse) -> bool:
    """Whether ledger and counts by event say what the table holds."""
    stored = Counter(warehouse.query("SELECT event_time::DATE, event_name FROM main.mine"))
    counted = {
        (day, name): count
        for day, name, count in warehouse.query(
            "SELECT day, event_name, row_count FROM mixpanel._event_counts"
        )
    }
    ledger = warehouse.query("SELECT coalesce(sum(row_count), 0) FROM main._metadata")
    return counted == stored and ledger == [(stored.total(),)]


pieces = st.lists(
    st.tuples(
        st.tuples(st.integers(0, DAYS - 1), st.integers(0, DAYS - 1)).map(sorted).map(tuple),
        st.sampled_from([None, *FILTERS]),
    ),
    max_size=4,
)


@st.composite
def plans(draw: st.DrawFn) -> list[tuple[tuple[int, int], str | None]]:
    """Some pieces twice and crosswise, and among them all that make the whole, in any order."""
    halves = draw(st.sampled_from([(None,), *HALVES]))
    cut = draw(st.integers(0, DAYS - 1))
    parts = [(0, cut), (cut + 1, DAYS - 1)] if cut < DAYS - 1 else [(0, cut)]
    whole = [(days, only) for days in parts for only in halves]
    return draw(st.permutations([*whole, *draw(pieces)]))


@examples(2)
@given(st.lists(events(days=DAYS), max_size=12), plans())
def test_any_way_of_appending_is_one_fetch(records, plan):
    """Days and filters in any split and order, some of them again: the rows of one fetch."""
    once, piecewise = fresh(), fresh()
    append(once, records, (0, DAYS - 1))
    for days, only in plan:
        append(piecewise, records, days, only)
        assert balanced(piecewise)
    assert rows(piecewise) == rows(once)
    assert balanced(once)


@LAW
@given(st.lists(events(days=DAYS), max_size=12))
def test_one_fetch_is_what_the_asset_holds(records):
    """The same rows, ids included, by both ways."""
    warehouse = fresh()
    append(warehouse, records, (0, DAYS - 1))
    warehouse.load(records, to_date=LAST)
    columns = "event_name, event_time, distinct_id, insert_id, properties"
    assert rows(warehouse) == warehouse.query(f"SELECT {columns} FROM events ORDER BY ALL")


@LAW
@given(st.lists(events(days=DAYS), max_size=8), st.lists(events(days=DAYS), max_size=8))
def test_appending_again_changes_nothing(before, records):
    """Neither the rows nor the counts of the ledger change."""
    warehouse = fresh()
    append(warehouse, before, (0, DAYS - 1))
    append(warehouse, records, (0, DAYS - 1))
    ledger = "SELECT day, filters, row_count FROM mixpanel._days ORDER BY ALL"
    once = rows(warehouse), warehouse.query(ledger)
    append(warehouse, records, (0, DAYS - 1))
    assert (rows(warehouse), warehouse.query(ledger)) == once


@pytest.mark.parametrize("order", [1, -1])
def test_the_copy_processed_last_stays(warehouse, order):
    """The order of the copies does not matter."""
    copies = [event(**{"$insert_id": "i", "mp_processing_time_ms": START_MS + n}) for n in (1, 2)]
    for copy in copies[::order]:
        append(warehouse, [copy], (0, 0))
    found = warehouse.query("SELECT properties ->> '$.mp_processing_time_ms' FROM main.mine")
    assert found == [(str(START_MS + 2),)]
    assert balanced(warehouse)


def test_a_row_that_moved_to_a_hot_shard_is_still_the_same(warehouse):
    """Its made id says so, though name and `distinct_id` differ."""
    append(warehouse, [event(distinct_id="u", n=1)], (0, 0))
    moved = {"mp_original_event_name": "Visit", "mp_original_distinct_id": "u"}
    processed = {"mp_processing_time_ms": START_MS}
    append(
        warehouse, [event("$hotshard_events", distinct_id="", n=1, **moved, **processed)], (0, 0)
    )
    assert warehouse.query("SELECT event_name FROM main.mine") == [("$hotshard_events",)]
    assert balanced(warehouse)


def test_ids_that_look_made_do_not_make_two_events_one(warehouse):
    """Events that differ are all kept, even if their `$insert_id` looks like a generated one."""
    sent = {"$insert_id": "00000000-0000-8000-8000-000000000000"}
    append(warehouse, [event("A", **sent)], (0, 0), "A")
    append(warehouse, [event("B", **sent)], (0, 0), "B")
    append(warehouse, [event("B", distinct_id="u", **sent)], (0, 0), "B")
    assert len(rows(warehouse)) == 3


def test_quarantined_lines_are_kept_once(warehouse):
    """Appending a day again does not repeat them."""
    for _ in range(2):
        warehouse.load([*[event(n=n) for n in range(2)], event(time=None)], table="mine")
    assert warehouse.query("SELECT count(*) FROM mixpanel._quarantine") == [(1,)]


LEGACY = ProjectIdentity("1234", "us", "legacy", "America/Los_Angeles")


def test_a_time_that_passed_twice_is_one_event(tmp_path):
    """Two copies can lie an hour apart in UTC; on the wall clock it is one time."""
    legacy = Warehouse(tmp_path, LEGACY)
    wall = datetime(2026, 11, 1, 1, 30)
    ms = int((wall - datetime(1970, 1, 1)) / timedelta(milliseconds=1))
    for processed in (ms + 8 * 3_600_000, ms + 12 * 3_600_000):
        again = event(time=ms, **{"$insert_id": "i", "mp_processing_time_ms": processed})
        legacy.load([again], from_date=wall.date(), table="mine")
    assert legacy.query("SELECT event_time FROM main.mine") == [(datetime(2026, 11, 1, 9, 30),)]


def test_an_hour_that_never_was_is_loud(tmp_path):
    """Two times as sent have become one there, so copies and other events look the same."""
    legacy = Warehouse(tmp_path, LEGACY)
    wall = datetime(2026, 3, 8, 2, 30)
    ms = int((wall - datetime(1970, 1, 1)) / timedelta(milliseconds=1))
    two = [event(time=time, **{"$insert_id": "i"}) for time in (ms, ms + 3_600_000)]
    legacy.load(two, from_date=wall.date(), table="mine")
    before = legacy.query("SELECT * FROM main.mine ORDER BY ALL")
    with pytest.raises(ConfigError, match="skipped"):
        legacy.load(two, from_date=wall.date(), table="mine")
    assert legacy.query("SELECT * FROM main.mine ORDER BY ALL") == before
    assert len(before) == 2


def test_a_cut_answer_is_no_complete_day(warehouse):
    """The ledger says `partial`, beside what whole answers say."""
    warehouse.load([event(n=1)], table="mine", filters={"limit": 1}, is_cut=True)
    warehouse.load([event(n=1), event(n=2)], table="mine")
    found = warehouse.query("SELECT status, filters, row_count FROM mixpanel._days ORDER BY ALL")
    assert found == [("complete", None, 1), ("partial", '{"limit": 1}', 1)]
    assert warehouse.query("SELECT from_date, row_count FROM _metadata") == [(date(2026, 3, 1), 2)]
