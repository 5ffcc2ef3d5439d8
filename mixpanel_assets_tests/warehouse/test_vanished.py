"""A reload adds and rewrites rows; it never removes one on its own."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import pytest

from mixpanel_assets.errors import ConfigError
from mixpanel_assets.warehouse.ledger import Target
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.slices import replace_slice
from mixpanel_assets.warehouse.vanished import Reload
from mixpanel_assets_tests.laws import siblings
from mixpanel_assets_tests.warehouse.conftest import (
    ACCEPT_SMALLER,
    DAY,
    DAY_MS,
    START_MS,
    Warehouse,
    event,
)

NEXT_DAY = DAY + timedelta(days=1)
LEGACY = ProjectIdentity("1234", "us", "legacy", "America/Los_Angeles")
# UUIDs of version 8, as made ids are; here they are sent.
SENT_8 = ["00000000-0000-8000-8000-00000000000a", "00000000-0000-8000-8000-00000000000b"]


def sent(number: int, time: int = START_MS, **properties: Any) -> dict[str, Any]:
    """Return an event with an `$insert_id` of its own."""
    return event("Sent", time, **{"distinct_id": "u", "$insert_id": f"i{number}", **properties})


def bare(time: int = START_MS, **properties: Any) -> dict[str, Any]:
    """Return an event without `$insert_id`."""
    return event("Bare", time, **{"distinct_id": "u", **properties})


def stored(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    """Return the rows by what tells events apart here, and check what is said of them."""
    must_add_up(warehouse)
    return warehouse.query(
        "SELECT event_date, event_name, time_raw, insert_id, distinct_id, properties FROM events "
        "ORDER BY ALL"
    )


def ids(warehouse: Warehouse) -> list[str]:
    return [row[3] for row in stored(warehouse)]


def must_add_up(warehouse: Warehouse) -> None:
    """Check that ledger, counts and the list of vanished rows say what the table holds."""
    rows = "SELECT event_date AS day, count(*) AS rows FROM events GROUP BY ALL"
    days = f"SELECT day, row_count, coalesce(rows, 0) FROM mixpanel._days LEFT JOIN ({rows}) "
    assert warehouse.query(f"{days} USING (day) WHERE row_count <> coalesce(rows, 0)") == []
    counts = "SELECT day, event_name, row_count FROM mixpanel._event_counts ORDER BY ALL"
    assert warehouse.query(counts) == warehouse.query(
        "SELECT event_date, event_name, count(*) FROM events GROUP BY ALL ORDER BY ALL"
    )
    listed = "SELECT day, count(*) AS listed FROM mixpanel._vanished GROUP BY ALL"
    assert (
        warehouse.query(
            f"SELECT day, rows_vanished, listed FROM mixpanel._days FULL JOIN ({listed}) USING "
            "(day) WHERE rows_vanished IS DISTINCT FROM coalesce(listed, 0) "
            "OR (vanished_at IS NULL) <> (rows_vanished = 0)"
        )
        == []
    )
    assert (
        warehouse.query(
            "SELECT day FROM mixpanel._vanished ANTI JOIN "
            "(SELECT event_date AS day, event_name, time_raw, insert_id FROM events) "
            "USING (day, event_name, time_raw, insert_id)"
        )
        == []
    )
    received, stored = "(certificate ->> 'rows')::BIGINT", "row_count - rows_vanished"
    moved = "(certificate ->> 'rows_moved')::BIGINT"
    wrong = f"SELECT day FROM mixpanel._days WHERE {received} - {moved} <> {stored}"
    assert warehouse.query(wrong) == []


def test_150_rows_vanish_while_50_late_ones_arrive(warehouse):
    """One response can do both; both numbers are right, in report, ledger and list."""
    warehouse.load([sent(number) for number in range(300)], open_days=[])
    (report,) = warehouse.load([sent(number) for number in range(150, 350)])
    assert (report.rows_before, report.row_count, report.rows_vanished) == (300, 350, 150)
    assert (report.newly_vanished, report.look) == (150, (200, 150))
    assert len(stored(warehouse)) == 350
    listed = warehouse.query("SELECT insert_id FROM mixpanel._vanished ORDER BY ALL")
    assert listed == sorted((f"i{number}",) for number in range(150))
    assert sum(report.hour_counts) == sum(report.event_counts.values()) == 350


def test_a_day_whose_response_is_empty_is_complete_and_keeps_everything(warehouse):
    """Mixpanel deletes old events and then answers 200 without lines; the copy stays."""
    warehouse.load([sent(1), bare(), event(time=START_MS + DAY_MS)], to_date=NEXT_DAY)
    before = stored(warehouse)
    reports = warehouse.load([], to_date=NEXT_DAY)
    assert [(r.status, r.row_count, r.rows_vanished) for r in reports] == [
        ("complete", 2, 2),
        ("complete", 1, 1),
    ]
    assert stored(warehouse) == before


def test_rows_that_come_back_have_not_vanished(warehouse):
    """The list and the numbers follow each response; when a row vanished first is remembered."""
    warehouse.load([sent(1), sent(2), sent(3)])
    warehouse.load([sent(1)], received_at=datetime(2026, 4, 1))
    (report,) = warehouse.load([sent(1), sent(2)], received_at=datetime(2026, 4, 2))
    assert (report.rows_vanished, report.newly_vanished) == (1, 0)
    assert ids(warehouse) == ["i1", "i2", "i3"]
    listed = warehouse.query("SELECT insert_id, vanished_at::DATE FROM mixpanel._vanished")
    assert listed == [("i3", date(2026, 4, 1))]
    (report,) = warehouse.load([sent(1), sent(2), sent(3)])
    assert report.rows_vanished == 0
    assert ids(warehouse) == ["i1", "i2", "i3"]


REWRITTEN = {
    "merged": {"distinct_id": "w", "$distinct_id_before_identity": "u"},
    "merged without a trace": {"distinct_id": "w"},
    "processed again": {"mp_processing_time_ms": START_MS + 9},
    "a property more": {"plan": "pro"},
}


@pytest.mark.parametrize("make", [lambda **p: sent(1, **p), bare])
@pytest.mark.parametrize("changes", siblings(REWRITTEN.values(), keep=2), ids=list(REWRITTEN))
def test_what_mixpanel_rewrites_leaves_no_second_row(warehouse, make, changes):
    """The new version takes the place of the old one, with and without `$insert_id`."""
    warehouse.load([make()])
    (report,) = warehouse.load([make(**changes)])
    assert (report.row_count, report.rows_vanished) == (1, 0)
    [(*_, distinct_id, _)] = stored(warehouse)
    assert distinct_id == changes.get("distinct_id", "u")


@pytest.mark.parametrize("make", [lambda **p: sent(1, **p), bare])
@pytest.mark.parametrize("turn", [1, -1])
def test_a_move_to_or_from_a_hot_shard_leaves_no_second_row(warehouse, make, turn):
    """Mixpanel renames such an event and takes its `distinct_id` away."""
    plain = make()
    hot = make(
        distinct_id="", mp_original_event_name=plain["event"], mp_original_distinct_id="u", new=1
    )
    hot["event"] = "$hotshard_events"
    for record in [plain, hot][::turn]:
        (report,) = warehouse.load([record])
    assert (report.row_count, report.rows_vanished) == (1, 0)
    assert [row[1] for row in stored(warehouse)] == [[hot, plain][turn == -1]["event"]]


def test_a_hot_event_that_vanishes_is_kept(warehouse):
    """Only the same event under its other name takes its place."""
    hot = event("$hotshard_events", mp_original_event_name="A", **{"$insert_id": "i"})
    warehouse.load([hot])
    (report,) = warehouse.load([event("B", **{"$insert_id": "i"}), event("A")])
    assert (report.row_count, report.rows_vanished) == (3, 1)


def test_only_events_of_a_hot_shard_have_another_name(warehouse):
    """Any event can have a property of that name."""
    hot = event("$hotshard_events", mp_original_event_name="A", **{"$insert_id": "i"})
    warehouse.load([hot, bare(mp_original_event_name="A")])
    (report,) = warehouse.load([bare(mp_original_event_name="A", plan="pro")])
    assert (report.row_count, report.rows_vanished) == (2, 1)


def test_rows_without_an_id_are_counted(warehouse):
    """Of three equal events, one comes back rewritten: two are kept, and no id is there twice."""
    warehouse.load([bare()] * 3)
    (report,) = warehouse.load([bare(plan="pro")])
    assert (report.row_count, report.rows_vanished) == (3, 2)
    assert len(set(ids(warehouse))) == 3
    (report,) = warehouse.load([bare(plan="pro"), bare()])
    assert (report.row_count, report.rows_vanished, report.newly_vanished) == (3, 1, 0)
    assert len(set(ids(warehouse))) == 3


def test_of_rows_without_an_id_the_vanished_one_stays(warehouse):
    """An event that vanished before is not taken for one that is rewritten now."""
    warehouse.load([bare(n=1), bare(n=2)])
    warehouse.load([bare(n=2)])
    (report,) = warehouse.load([bare(n=3)])
    assert report.newly_vanished == 0
    assert [row[-1] for row in stored(warehouse)] == ['{"n":1}', '{"n":3}']


def test_events_of_another_time_or_name_are_others(warehouse):
    """An `$insert_id` alone identifies no event, as senders reuse them."""
    warehouse.load([sent(1), bare()])
    others = [sent(1, START_MS + 1), event("Other", **{"$insert_id": "i1"}), bare(START_MS + 1)]
    (report,) = warehouse.load(others)
    assert (report.row_count, report.rows_vanished) == (5, 2)


def test_a_sent_id_that_looks_made_is_compared_as_sent(warehouse):
    """Another sent id at the same moment is another event."""
    one, other = ({"$insert_id": sent_id} for sent_id in SENT_8)
    warehouse.load([event(**one)])
    (report,) = warehouse.load([event(**other)])
    assert (report.row_count, report.rows_vanished) == (2, 1)
    assert ids(warehouse) == SENT_8


def test_days_of_one_request_are_judged_each_for_itself(warehouse):
    """A day that lacks rows does not make up for one that got some."""
    second = START_MS + DAY_MS
    warehouse.load([sent(1), bare(), sent(2, second), bare(second)], to_date=NEXT_DAY)
    reports = warehouse.load([sent(1), bare(), bare(), sent(3)], to_date=NEXT_DAY)
    assert [(r.row_count, r.rows_vanished) for r in reports] == [(4, 0), (2, 2)]
    stored(warehouse)


def test_tables_of_a_filter_keep_their_rows_and_those_of_others(warehouse):
    """What vanishes from one table says nothing of another one."""
    of_table = {"target": Target("visits"), "filters": {"events": ["Visit"]}}
    warehouse.load([sent(1)])
    warehouse.load([sent(1), sent(2)], **of_table)
    (report,) = warehouse.load([sent(2)], **of_table)
    assert (report.row_count, report.rows_vanished) == (2, 1)
    warehouse.load([sent(1)])
    assert warehouse.query("SELECT table_name, insert_id FROM mixpanel._vanished") == [
        ("visits", "i1")
    ]
    assert warehouse.query("SELECT count(*) FROM mixpanel.visits") == [(2,)]


def test_each_table_has_its_own_time_at_which_a_row_vanished(warehouse):
    """A row of another table with the same key does not make it an earlier one."""
    of_table = {"target": Target("visits"), "filters": {"events": ["Sent"]}}
    warehouse.load([sent(1), sent(2)], **of_table)
    warehouse.load([sent(1), sent(2)])
    warehouse.load([sent(2)], received_at=datetime(2026, 4, 1), **of_table)
    (report,) = warehouse.load([sent(2)], received_at=datetime(2026, 4, 2))
    assert (report.rows_vanished, report.newly_vanished) == (1, 1)
    assert warehouse.query(
        "SELECT table_name, insert_id, vanished_at::DATE FROM mixpanel._vanished ORDER BY ALL"
    ) == [("events", "i1", date(2026, 4, 2)), ("visits", "i1", date(2026, 4, 1))]


def test_rows_vanish_from_a_database_that_is_held_open(warehouse):
    """All loads use one connection then, so none finds what another has left."""
    database = warehouse.database
    warehouse.load([sent(1), sent(2), bare()])
    database.hold()
    for _ in range(2):
        warehouse.load([sent(1)], database=database)
    database.release()
    assert len(stored(warehouse)) == 3


def test_accept_smaller_makes_the_day_equal_the_response(warehouse):
    """Rows that vanished now or earlier go; the report says how many."""
    warehouse.load([sent(1), sent(2), bare(), bare()])
    warehouse.load([sent(2), bare(), bare()])
    (report,) = warehouse.load([sent(2), bare(n=1)], reload=ACCEPT_SMALLER)
    assert (report.row_count, report.rows_vanished, report.rows_removed) == (2, 0, 2)
    assert [row[-1] for row in stored(warehouse)] == ['{"n":1}', "{}"]


@pytest.mark.parametrize(("limit", "left"), [(DAY, 0), (NEXT_DAY, 2)])
def test_accept_smaller_never_empties_an_old_day(warehouse, limit, left):
    """Nothing at all for a day before the limit may mean that Mixpanel deleted it for its age."""
    warehouse.load([sent(1), bare()])
    rule = Reload(accept_smaller=True, deleted_before=limit)
    (report,) = warehouse.load([], reload=rule)
    assert (report.row_count, report.rows_vanished, report.rows_removed) == (left, left, 2 - left)
    (report,) = warehouse.load([bare()], reload=rule)
    assert report.row_count == 1


@pytest.mark.parametrize(
    ("accept_smaller", "is_empty", "limit", "keeps"),
    [
        (False, False, DAY, True),
        (True, True, NEXT_DAY, True),
        (True, True, DAY, False),
        (True, False, NEXT_DAY, False),
    ],
)
def test_rows_are_removed_only_from_days_that_mixpanel_still_has(
    accept_smaller, is_empty, limit, keeps
):
    """A day with a response was not deleted there because of its age."""
    rule = Reload(accept_smaller=accept_smaller, deleted_before=limit)
    assert rule.keeps(DAY, is_empty=is_empty) is keeps


@pytest.mark.parametrize("table", ["visits", "Visits"])
def test_a_slice_of_another_asset_takes_no_place_of_loaded_rows(warehouse, table):
    """Not even one with the same columns, which would remove the days of its partition."""
    warehouse.load([sent(1)], target=Target("visits"), filters={"events": ["Sent"]})
    with warehouse.database.write() as connection:
        rows = connection.sql("FROM mixpanel.visits LIMIT 0").to_arrow_table()
        connection.register("slice", rows)
        with pytest.raises(ConfigError, match="was loaded from Mixpanel"):
            replace_slice(connection, "slice", table=table, schema="mixpanel")
    assert warehouse.query("SELECT count(*) FROM mixpanel.visits") == [(1,)]


# A change of zone: what one day's export held comes with that of a neighbour.


@pytest.fixture
def legacy(tmp_path):
    return Warehouse(tmp_path, LEGACY)


def load_days(legacy, days: dict[date, list[dict]], read=()) -> None:
    """Load days one by one in the given order, as one load does."""
    for number, (day, records) in enumerate(days.items()):
        order = list(days)
        rule = Reload(read=[*read, *order[:number]], to_read=order[number + 1 :])
        legacy.load(records, from_date=day, reload=rule)


EDGE = START_MS + DAY_MS - 1  # on the last moment of DAY, also by a clock that is ahead
MOVING = [
    [sent(1, EDGE)],
    [bare(EDGE)],
    [bare(EDGE), bare(EDGE)],
    [sent(1, EDGE), bare(EDGE), bare(EDGE, n=1)],
]


# Of the moving rows, the orders in which days are read, and the ways, each at least once.
TURNS = [(MOVING[3], 1, 1), (MOVING[3], -1, -1), (MOVING[0], -1, 1), (MOVING[2], 1, -1)]
ALL_TURNS = [(moving, turn, way) for moving in MOVING for turn in (1, -1) for way in (1, -1)]


@pytest.mark.parametrize(
    ("moving", "turn", "way"),
    siblings([*TURNS, *(one for one in ALL_TURNS if one not in TURNS)], keep=1),
)
def test_rows_that_a_zone_change_moves_are_moved(legacy, moving, turn, way):
    """Whichever day is read first, and whichever way they go: no copy stays, none is lost."""
    here, there = [DAY, NEXT_DAY][::way]
    load_days(legacy, {here: [*moving, sent(8)], there: [sent(9, START_MS + DAY_MS)]})
    before = [row[1:] for row in stored(legacy)]
    rewritten = [event(**{**one["properties"], "x": 1, "name": one["event"]}) for one in moving]
    after = {here: [sent(8)], there: [sent(9, START_MS + DAY_MS), *rewritten]}
    load_days(legacy, dict(list(after.items())[::turn]))
    assert len(stored(legacy)) == len(before)
    assert [row[0] for row in stored(legacy) if row[2] == EDGE] == [there] * len(moving)
    assert legacy.query("SELECT sum(rows_vanished) FROM mixpanel._days") == [(0,)]


@pytest.mark.slow
@pytest.mark.parametrize("moving", siblings(MOVING[::-1], keep=1))
@pytest.mark.parametrize("turn", [1, -1])
def test_a_move_survives_a_kill_between_the_days(legacy, moving, turn):
    """Each day's transaction leaves every event there once; the resumed run ends the move."""
    load_days(legacy, {DAY: [*moving, sent(8)], NEXT_DAY: []})
    after = list({DAY: [sent(8)], NEXT_DAY: moving}.items())[::turn]
    (first, records), (second, others) = after
    legacy.load(records, from_date=first, reload=Reload(to_read=[second]))
    assert len(stored(legacy)) == len(moving) + 1
    legacy.load(others, from_date=second, reload=Reload(read=[first]))
    assert len(stored(legacy)) == len(moving) + 1
    assert legacy.query("SELECT sum(rows_vanished) FROM mixpanel._days") == [(0,)]


def test_a_row_with_an_id_moves_from_a_day_that_is_not_read(legacy):
    """Its `$insert_id` identifies the event; without one, the rows may be two events."""
    rows = [sent(1, EDGE - 2), sent(2, EDGE - 1), sent(3, EDGE), bare(EDGE)]
    load_days(legacy, {DAY: rows})
    load_days(legacy, {NEXT_DAY: rows})
    assert [(row[0], row[1]) for row in stored(legacy)] == [
        (DAY, "Bare"),
        (NEXT_DAY, "Bare"),
        *[(NEXT_DAY, "Sent")] * 3,
    ]


def test_what_vanished_from_another_table_moves_nothing(legacy):
    """Its list says nothing about the rows of this one."""
    load_days(legacy, {DAY: [bare(EDGE), sent(1)]})
    of_table = {"target": Target("bare"), "filters": {"events": ["Bare"]}}
    legacy.load([bare(EDGE)], **of_table)
    legacy.load([], **of_table)
    load_days(legacy, {NEXT_DAY: [bare(EDGE)]})
    days = legacy.query("SELECT event_date FROM events ORDER BY ALL")
    assert days == [(DAY,), (DAY,), (NEXT_DAY,)]


def test_for_each_row_that_arrives_one_moves(legacy):
    """Rows without a sent id are counted: the other one has vanished, and stays."""
    load_days(legacy, {DAY: [bare(EDGE, n=1), bare(EDGE, n=2)]})
    load_days(legacy, {NEXT_DAY: [bare(EDGE, n=3)], DAY: []})
    assert [row[0] for row in stored(legacy)] == [DAY, NEXT_DAY]


def test_rows_that_vanish_from_a_legacy_day_are_kept(legacy):
    """They are looked for in the days around it, not in the day itself."""
    load_days(legacy, {DAY: [sent(1), sent(2), bare(), bare(), event("Other")]})
    before = stored(legacy)
    load_days(legacy, {DAY: [sent(1), bare()]})
    assert stored(legacy) == before
    assert legacy.query("SELECT rows_vanished FROM mixpanel._days") == [(3,)]


def test_rows_vanish_while_the_next_day_has_rows_of_the_same_hours(legacy):
    """As many rows around the day as vanish from it do not hide those."""
    load_days(legacy, {DAY: [sent(1, EDGE), sent(2)], NEXT_DAY: [sent(3, EDGE - 5)]})
    load_days(legacy, {DAY: [sent(1, EDGE)]})
    assert sorted(ids(legacy)) == ["i1", "i2", "i3"]
    assert legacy.query("SELECT day, rows_vanished FROM mixpanel._days ORDER BY 1") == [
        (DAY, 1),
        (NEXT_DAY, 0),
    ]


def test_kept_rows_of_another_date_are_counted(legacy):
    """They were counted the same way when they arrived."""
    load_days(legacy, {DAY: [sent(1), sent(2, START_MS + DAY_MS + 3_600_000), sent(3)]})
    (report,) = legacy.load([sent(1)])
    assert (report.row_count, report.shifted_rows, report.event_counts) == (3, 1, {"Sent": 3})
    assert report.hour_counts == (0,) * 8 + (2, 1) + (0,) * 14


@pytest.mark.parametrize("way", [1, -1])
def test_a_row_moves_by_two_days_at_most(legacy, way):
    """Zones differ by 26 hours at most."""
    records = [sent(days, START_MS + way * (days - 1) * DAY_MS) for days in (2, 3)]
    for days, record in zip((2, 3), records, strict=True):
        load_days(legacy, {DAY + timedelta(days=way * days): [record]})
    load_days(legacy, {DAY: records})
    found = sorted((row[3], row[0]) for row in stored(legacy))
    assert found == [("i2", DAY), *sorted([("i3", DAY), ("i3", DAY + timedelta(days=way * 3))])]


def test_a_row_that_vanished_before_moves_first(legacy):
    """The other one may still be in the response for its own day."""
    load_days(legacy, {NEXT_DAY: [bare(EDGE, n=1), bare(EDGE, n=2)]})
    load_days(legacy, {NEXT_DAY: [bare(EDGE, n=2)]})
    legacy.load([bare(EDGE, n=3)], reload=Reload(to_read=[NEXT_DAY]))
    found = [(row[0], row[-1]) for row in stored(legacy)]
    assert found == [(DAY, '{"n":3}'), (NEXT_DAY, '{"n":2}')]


def test_rows_without_an_id_move_if_they_vanished_from_their_day(legacy):
    """The response for that day was read before and has them no longer."""
    load_days(legacy, {NEXT_DAY: [bare(EDGE), bare(EDGE), sent(1)]})
    load_days(legacy, {NEXT_DAY: [sent(1)], DAY: [bare(EDGE, n=2), bare(EDGE, n=3)]})
    days = [(row[0], row[1]) for row in stored(legacy)]
    assert days == [(DAY, "Bare"), (DAY, "Bare"), (NEXT_DAY, "Sent")]


def test_a_row_that_was_rewritten_moves_no_other(legacy):
    """It takes the place of the old one of its own day."""
    load_days(legacy, {DAY: [bare(EDGE, n=1)], NEXT_DAY: [bare(EDGE, n=2)]})
    legacy.load([bare(EDGE, n=3)], reload=Reload(to_read=[NEXT_DAY]))
    found = [(row[0], row[-1]) for row in stored(legacy)]
    assert found == [(DAY, '{"n":3}'), (NEXT_DAY, '{"n":2}')]


def test_all_rows_of_a_key_move(legacy):
    """Two users sent the same `$insert_id`."""
    rows = [sent(1, EDGE, distinct_id=who) for who in ("a", "b")]
    load_days(legacy, {DAY: [*rows, sent(8)]})
    load_days(legacy, {DAY: [sent(8)]})
    load_days(legacy, {NEXT_DAY: rows})
    found = [(row[0], row[3], row[4]) for row in stored(legacy)]
    assert found == [(DAY, "i8", "u"), (NEXT_DAY, "i1", "a"), (NEXT_DAY, "i1", "b")]


def test_what_moves_leaves_the_other_vanished_rows_in_the_list(legacy):
    """They vanished as before."""
    load_days(legacy, {DAY: [sent(1, EDGE), sent(2, EDGE - 1)]})
    load_days(legacy, {DAY: []})
    load_days(legacy, {NEXT_DAY: [sent(1, EDGE)]})
    assert [(row[0], row[3]) for row in stored(legacy)] == [(DAY, "i2"), (NEXT_DAY, "i1")]
    assert legacy.query("SELECT day, insert_id FROM mixpanel._vanished") == [(DAY, "i2")]


def test_equal_rows_of_two_days_stay_two(legacy):
    """An event that both exports contain belongs to both days."""
    for _ in range(2):
        load_days(legacy, {DAY: [bare(EDGE)], NEXT_DAY: [bare(EDGE)]})
    load_days(legacy, {DAY: [bare(EDGE)], NEXT_DAY: [bare(EDGE), bare(EDGE)]})
    assert [row[0] for row in stored(legacy)] == [DAY, NEXT_DAY, NEXT_DAY]


def test_a_moved_row_that_was_misjudged_comes_back(legacy):
    """The reading of its own day decides."""
    load_days(legacy, {NEXT_DAY: [bare(EDGE)]})
    load_days(legacy, {DAY: [bare(EDGE)], NEXT_DAY: [bare(EDGE)]})
    assert [row[0] for row in stored(legacy)] == [DAY, NEXT_DAY]


def test_a_day_that_all_rows_leave_is_empty(legacy):
    """Its ledger row says so."""
    load_days(legacy, {DAY: [sent(1, EDGE)]})
    load_days(legacy, {NEXT_DAY: [sent(1, EDGE)], DAY: []})
    statuses = legacy.query("SELECT day, status, shifted_rows FROM mixpanel._days ORDER BY day")
    assert statuses == [(DAY, "empty", 0), (NEXT_DAY, "complete", 1)]


def test_in_utc_no_row_ever_moves(warehouse):
    """A row's time says which day it belongs to."""
    warehouse.load([sent(1, EDGE)], to_date=NEXT_DAY)
    warehouse.load([sent(1, EDGE + 1)], from_date=NEXT_DAY, reload=Reload(to_read=[DAY]))
    assert len(stored(warehouse)) == 2
