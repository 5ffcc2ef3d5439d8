"""Profiles in tables beside `profiles`."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from mixpanel_assets.errors import ConfigError, TableExistsError
from mixpanel_assets.warehouse.ledger import Target
from mixpanel_assets.warehouse.profiles import kept_snapshot
from mixpanel_assets.warehouse.schema import PROFILES
from mixpanel_assets.warehouse.tables import check_name, free_table_name
from mixpanel_assets_tests.laws import siblings
from mixpanel_assets_tests.warehouse.conftest import DAY, event
from mixpanel_assets_tests.warehouse.profiles import BAD, profile, seen, store

COMPANIES = Target("companies")
PEOPLE = Target("people", "main")
NEXT = DAY + timedelta(days=1)


def rows(warehouse, table="people"):
    return warehouse.query(f"SELECT distinct_id, properties ->> 'n' FROM {table} ORDER BY ALL")


def metadata(warehouse, table="people"):
    (row,) = warehouse.query("SELECT row_count FROM _metadata WHERE table_name = ?", table)
    return row[0]


def clear(warehouse, table, **options):
    with warehouse.database.write() as connection:
        free_table_name(connection, table, **options)


def test_profiles_of_a_group_get_a_table_of_their_own(warehouse):
    """It has the columns of `profiles`, and the view of people does not see it."""
    report = store(warehouse, [profile("acme")], target=COMPANIES, filters={"group_id": "7"})
    assert report.status == "complete"
    columns = [name for name, *_ in warehouse.query("DESCRIBE mixpanel.companies")]
    assert columns == list(PROFILES.column_names)
    assert warehouse.query("FROM profiles_current") == []
    assert warehouse.query("SELECT table_name, filters FROM mixpanel._days") == [
        ("companies", '{"group_id": "7"}')
    ]


def test_a_full_snapshot_of_a_group_is_kept(warehouse):
    """The filters say what the table is about, so it holds all of that."""
    store(warehouse, [profile("acme")], target=COMPANIES, filters={"group_id": "7"})
    report = store(
        warehouse,
        target=COMPANIES,
        filters={"group_id": "7", "where": "..."},
        scope="seen_on_day",
    )
    assert (report.kept, rows(warehouse, "companies")) == (True, [("acme", None)])


def test_a_part_of_the_people_does_not_replace_everybody(warehouse):
    """A filtered answer for the table of all profiles leaves a full snapshot alone."""
    store(warehouse, [profile("u"), profile("v")])
    filters = {"where": "..."}
    assert store(warehouse, [profile("u")], filters=filters).kept
    store(warehouse, [profile("u")], filters=filters, day=NEXT)
    with warehouse.database.read() as connection:
        assert kept_snapshot(connection, NEXT, "seen_on_day") is None


def test_a_named_table_has_the_documented_columns(warehouse):
    """One row per profile, without a day."""
    store(warehouse, [seen("u", DAY, n=1)], target=PEOPLE)
    assert warehouse.query("FROM people") == [("u", '{"n":1}', datetime(2026, 3, 1, 12))]
    assert metadata(warehouse) == 1


def test_appending_keeps_the_count_of_the_rows(warehouse):
    """Whatever day and filter the answers came with, the days add up to the table."""
    store(warehouse, [profile("u", n=1), profile("v", n=1)], target=PEOPLE, filters={"where": "a"})
    for day, filters, page in (
        (DAY, {"where": "b"}, [profile("v", n=2), profile("w", n=2)]),
        (NEXT, {"where": "a"}, [profile("u", n=3), profile("x", n=3)]),
        (DAY, {"where": "c"}, [profile("x", n=4)]),
    ):
        report = store(warehouse, page, target=PEOPLE, day=day, filters=filters, merge=True)
        assert report.status == "complete"
        assert metadata(warehouse) == len(rows(warehouse))
    assert rows(warehouse) == [("u", "3"), ("v", "2"), ("w", "2"), ("x", "4")]


def test_a_complete_answer_replaces_a_named_table(warehouse):
    """The ledger and quarantine rows of the old rows are deleted too."""
    store(warehouse, [profile("u"), BAD % 1], target=PEOPLE)
    report = store(warehouse, [profile("v")], target=PEOPLE, day=NEXT)
    assert (report.row_count, rows(warehouse)) == (1, [("v", None)])
    assert metadata(warehouse) == 1
    assert warehouse.query("SELECT day FROM mixpanel._days") == [(NEXT,)]
    assert warehouse.query("FROM mixpanel._quarantine") == []


def test_a_partial_answer_is_merged_into_a_named_table(warehouse):
    """No earlier row is deleted."""
    store(warehouse, [profile("u")], target=PEOPLE)
    store(warehouse, [profile("v")], target=PEOPLE, day=NEXT, failed_pages={1: "it broke"})
    assert rows(warehouse) == [("u", None), ("v", None)]
    assert metadata(warehouse) == 2


def test_a_named_table_takes_whole_answers_only(warehouse):
    """It has no days to split by."""
    with pytest.raises(ValueError, match="named table"):
        store(warehouse, [seen("u", DAY)], target=PEOPLE, scope="seen_on_day")


def test_way_is_made_for_a_named_table(warehouse):
    """An existing table is deleted only with `replace`, with its ledger and quarantine rows."""
    store(warehouse, [profile("u"), BAD % 1], target=PEOPLE)
    with pytest.raises(TableExistsError):
        clear(warehouse, "people", replace=False)
    with pytest.raises(TableExistsError):
        clear(warehouse, "People", replace=False)
    clear(warehouse, "people", replace=True)
    assert warehouse.query("FROM mixpanel._days") == []
    assert warehouse.query("FROM mixpanel._quarantine") == []
    store(warehouse, [profile("v")], target=PEOPLE)
    assert rows(warehouse) == [("v", None)]


def test_the_asset_table_is_never_replaced(warehouse):
    """It counts as there once a day is in it."""
    store(warehouse, [profile("u")], target=PEOPLE)
    clear(warehouse, "profiles", replace=False)
    store(warehouse, [profile("u")])
    with pytest.raises(TableExistsError):
        clear(warehouse, "profiles", replace=False)
    with pytest.raises(ConfigError, match="sync_profiles"):
        clear(warehouse, "profiles", replace=True)
    assert rows(warehouse, "profiles") == [("u", None)]


@pytest.mark.parametrize(
    "target",
    siblings(
        [
            Target("events"),
            Target("_days"),
            Target("profiles_current"),
            Target("a b"),
            Target("profiles", "main"),
            Target("Events", "main"),
            Target("_x", "main"),
            Target("_metadata", "main"),
        ],
        keep=3,
    ),
)
def test_names_that_are_taken_are_refused(warehouse, target):
    """No table hides one of ours, and none has a name that needs quotes."""
    with pytest.raises(ConfigError):
        store(warehouse, [profile("u")], target=target)


@pytest.mark.parametrize(
    ("first", "second"),
    [(COMPANIES, Target("companies", "main")), (Target("companies", "main"), COMPANIES)],
)
def test_no_name_is_in_both_schemas(warehouse, first, second):
    """A query without a schema would find only one of them."""
    store(warehouse, [profile("u")], target=first)
    with pytest.raises(ConfigError, match="taken"):
        store(warehouse, [profile("u")], target=second)


def test_a_table_keeps_the_spelling_of_its_name(warehouse):
    """Two spellings would have two ledgers for one table."""
    store(warehouse, [profile("u")], target=PEOPLE)
    with pytest.raises(ConfigError, match="'people'"):
        store(warehouse, [profile("v")], target=Target("People", "main"), merge=True)
    clear(warehouse, "People", replace=True)
    assert warehouse.query("FROM mixpanel._days") == []


def test_a_table_that_somebody_dropped_begins_anew(warehouse):
    """The row count and the quarantined lines of the dropped table do not count for the new one."""
    store(warehouse, [profile("u"), profile("v"), BAD % 1], target=PEOPLE)
    with warehouse.database.write() as connection:
        connection.execute("DROP TABLE people")
    store(warehouse, [profile("w")], target=PEOPLE, day=NEXT, merge=True)
    assert metadata(warehouse) == 1
    assert warehouse.query("FROM mixpanel._quarantine") == []


def test_a_table_of_events_takes_no_profiles(warehouse):
    """Its columns are others."""
    warehouse.load([event()], table="visits")
    with pytest.raises(ConfigError, match="other columns"):
        store(warehouse, [profile("u")], target=Target("visits", "main"), merge=True)


def test_the_name_of_the_other_asset_is_taken():
    """`profiles` is a name for profiles alone."""
    check_name("profiles", PROFILES)
    with pytest.raises(ConfigError):
        check_name("profiles")
    with pytest.raises(ConfigError):
        check_name("events", PROFILES)
