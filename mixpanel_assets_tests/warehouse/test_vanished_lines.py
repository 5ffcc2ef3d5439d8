"""A reload never removes a quarantined line on its own either, and leaves no second copy."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from mixpanel_assets.warehouse.ledger import Target
from mixpanel_assets.warehouse.vanished import Reload, _line_mark
from mixpanel_assets_tests.laws import siblings
from mixpanel_assets_tests.warehouse.conftest import (
    ACCEPT_SMALLER,
    DAY,
    DAY_MS,
    START_MS,
    Warehouse,
    event,
)
from mixpanel_assets_tests.warehouse.test_vanished import bare, must_add_up, sent

NEXT_DAY = DAY + timedelta(days=1)
MANY = [event("Many", START_MS + 60_000, n=number) for number in range(200)]  # 1 % may be bad
MANY_MORE = [event("More", START_MS + 60_000, n=number) for number in range(200)]


def half(number: int | None = None, time: object = START_MS, **properties: object) -> bytes:
    """Return a line with half a surrogate pair, which DuckDB cannot store."""
    insert_id = {} if number is None else {"$insert_id": f"h{number}"}
    record = event("Half", time, text="\ud800", **insert_id, **properties)
    return json.dumps(record).encode()


def lines(warehouse: Warehouse) -> list[bytes]:
    """Return the quarantine, and check that the ledger says how large it is."""
    must_add_up(warehouse)
    counts = "SELECT day, count(*) FROM mixpanel._quarantine GROUP BY day ORDER BY day"
    ledger = "SELECT day, quarantined FROM mixpanel._days WHERE quarantined > 0 ORDER BY day"
    assert warehouse.query(counts) == warehouse.query(ledger)
    return [line for (line,) in warehouse.query("SELECT line FROM mixpanel._quarantine ORDER BY 1")]


def vanished(warehouse: Warehouse) -> list[bytes]:
    found = "SELECT line FROM mixpanel._quarantine WHERE vanished_at IS NOT NULL ORDER BY 1"
    return [line for (line,) in warehouse.query(found)]


@pytest.mark.parametrize(
    "line", siblings([half(1), event(time=None), half(), event(time=0)], keep=2)
)
def test_an_empty_response_keeps_the_quarantine(warehouse, line):
    """The day had something, so it is complete; since when the line is missing is noted."""
    warehouse.load([line])
    before = lines(warehouse)
    for day in (1, 2):
        (report,) = warehouse.load([], received_at=datetime(2026, 4, day))
        assert (report.status, report.row_count, report.quarantined) == ("complete", 0, 1)
    assert lines(warehouse) == before
    since = warehouse.query("SELECT vanished_at FROM mixpanel._quarantine")
    assert since == [(datetime(2026, 4, 1),)]
    warehouse.load([line])
    assert lines(warehouse) == before
    assert vanished(warehouse) == []


@pytest.mark.parametrize("number", [1, None])
def test_a_rewritten_line_takes_the_place_of_the_old_one(warehouse, number):
    """As rows do: by event, time and `$insert_id`, or by number."""
    warehouse.load([*MANY, half(number), half(number, START_MS + 5)])
    rewritten = half(number, distinct_id="w")
    (report,) = warehouse.load([*MANY, rewritten])
    assert report.quarantined == 2
    assert sorted(lines(warehouse)) == sorted([rewritten, half(number, START_MS + 5)])
    assert vanished(warehouse) == [half(number, START_MS + 5)]


def test_of_equal_lines_those_are_kept_that_did_not_come(warehouse):
    """One of two came as it was, the other one vanished."""
    warehouse.load([*MANY, half(x=1), half(x=2)])
    warehouse.load([*MANY, half(x=2)])
    assert lines(warehouse) == [half(x=1), half(x=2)]
    assert vanished(warehouse) == [half(x=1)]


@pytest.mark.parametrize(
    ("line", "row"),
    [
        (half(1), event("Half", text="?", **{"$insert_id": "h1"})),
        (half(), event("Half", text="?")),
        (half(**{"$insert_id": None}), event("Half", text="?")),
        (b'{"event":"a","properties":{"time":%d,"x":"\xff"}}' % START_MS, event("a", x="ÿ")),
    ],
)
def test_a_line_that_became_storable_leaves_the_quarantine(warehouse, line, row):
    """It is the row now."""
    warehouse.load([line])
    (report,) = warehouse.load([row])
    assert (report.row_count, report.quarantined) == (1, 0)
    assert lines(warehouse) == []


def test_for_each_new_row_one_line_leaves_the_quarantine(warehouse):
    """Lines without an id are counted; the other one has vanished, and stays."""
    warehouse.load([*MANY, half(x=1), half(x=2)])
    (report,) = warehouse.load([*MANY, event("Half", text="?", x=1)])
    assert (report.row_count, report.quarantined) == (len(MANY) + 1, 1)
    assert vanished(warehouse) == lines(warehouse)


def test_other_rows_do_not_push_a_line_out(warehouse):
    """Late rows, rows that were there before, and rows of the same time stay apart from it."""
    warehouse.load([*MANY, half(1), half(), bare(), sent(1)])
    (report,) = warehouse.load([*MANY, bare(), sent(1), sent(2), bare(START_MS + 1)])
    assert (report.row_count, report.quarantined) == (len(MANY) + 4, 2)
    assert vanished(warehouse) == lines(warehouse) == sorted([half(1), half()])


def test_accept_smaller_removes_lines_too(warehouse):
    """The day equals the response."""
    warehouse.load([half(1), event()])
    warehouse.load([event()], reload=ACCEPT_SMALLER)
    assert lines(warehouse) == []


def test_lines_of_other_days_and_tables_are_left_as_they_are(warehouse):
    """The response for a day says nothing about them."""
    of_table = {"target": Target("visits"), "filters": {"events": ["Visit"]}}
    warehouse.load([half(1)])
    warehouse.load([half(2, START_MS + DAY_MS)], from_date=NEXT_DAY)
    warehouse.load([half(3)], **of_table)
    (report,) = warehouse.load([])
    assert report.quarantined == 1
    assert vanished(warehouse) == [half(1)]
    assert warehouse.query("SELECT count(*) FROM mixpanel._quarantine") == [(3,)]


def test_a_stored_row_of_the_same_time_is_not_the_line(warehouse):
    """Only a row that is new can be a line that became storable."""
    warehouse.load([bare(), half()])
    warehouse.load([bare()])
    assert vanished(warehouse) == lines(warehouse) == [half()]
    warehouse.load([bare(), event("Half", text="?")])
    assert lines(warehouse) == []


def test_accept_smaller_keeps_lines_of_a_day_that_may_be_deleted(warehouse):
    """As it keeps its rows: only if the response is empty."""
    rule = Reload(accept_smaller=True, deleted_before=NEXT_DAY)
    warehouse.load([half(1)])
    warehouse.load([], reload=rule)
    assert lines(warehouse) == [half(1)]
    warehouse.load([event()], reload=rule)
    assert lines(warehouse) == []


def test_a_line_without_a_time_moves_by_the_days_of_a_request_at_most(warehouse):
    """A request has 31 days at most; the same line further away is another event."""
    moved = [half(days, None) for days in (31, -31)]
    others = [half(days, None) for days in (32, -32)]
    for days, line in zip((31, -31, 32, -32), [*moved, *others], strict=True):
        warehouse.load([line], from_date=DAY + timedelta(days=days))
    warehouse.load([*MANY, *MANY_MORE, *moved, *others])
    warehouse.load([*MANY, *MANY_MORE])
    found = warehouse.query("SELECT line FROM mixpanel._quarantine WHERE day = ?", DAY)
    assert sorted(line for (line,) in found) == sorted(others)


@pytest.mark.parametrize("order", [(DAY, NEXT_DAY), (NEXT_DAY, DAY)])
def test_a_line_without_a_time_moves_with_the_packing_of_days(warehouse, order):
    """It counts for the first day of its request, which may be another one the next time."""
    line = half(1, None)
    of_day = {DAY: [event()], NEXT_DAY: [event(time=START_MS + DAY_MS), line]}
    warehouse.load([*of_day[DAY], *of_day[NEXT_DAY]], to_date=NEXT_DAY)
    for day in order:
        warehouse.load(of_day[day], from_date=day)
    assert lines(warehouse) == [line]
    assert warehouse.query("SELECT day FROM mixpanel._quarantine") == [(NEXT_DAY,)]
    assert vanished(warehouse) == []


@pytest.mark.parametrize("cut", [1, 30])
def test_a_long_line_is_known_by_its_beginning(cut):
    """What is kept of it has the values that tell lines apart, as a complete line has."""
    line = half(7, START_MS, more="a" * 40)
    assert json.loads(line)["properties"]["$insert_id"] == "h7"
    assert _line_mark(line[:-cut]) == _line_mark(line) == ('"Half"', str(START_MS), '"h7"')


def test_names_inside_of_other_values_tell_nothing():
    """Only the event's own values identify a line."""
    names = '"event":"x","time":5,"$insert_id":"x"'
    line = f"""{{"properties":{{"of":{{{names}}},"event":"x","time":{START_MS},"$insert_id":"h7",
        "list":[{{{names}}}]}},"event":"Half"}}"""
    assert _line_mark(line.encode()) == ('"Half"', str(START_MS), '"h7"')


def test_equal_lines_of_two_days_stay_two(warehouse):
    """As long as both days are sent with one."""
    for _ in range(2):
        for number, day in enumerate((DAY, NEXT_DAY)):
            warehouse.load([event(time=0), event(time=START_MS + number * DAY_MS)], from_date=day)
    assert len(lines(warehouse)) == 2
    assert vanished(warehouse) == []
