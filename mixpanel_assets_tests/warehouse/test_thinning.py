"""Which days of snapshots stay, and that nothing of today's picture goes."""

from __future__ import annotations

import tempfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.errors import ConfigError
from mixpanel_assets.warehouse.ledger import Target
from mixpanel_assets.warehouse.profiles import days_to_keep, thin_snapshots
from mixpanel_assets_tests.laws import examples
from mixpanel_assets_tests.warehouse.conftest import DAY, Warehouse
from mixpanel_assets_tests.warehouse.profiles import BAD, profile, store

FIRST = date(2025, 1, 1)
TODAY = DAY + timedelta(days=60)
ONE = {"daily": 1, "weekly": 0, "monthly": 0}
FAILED = {1: "it broke"}

days = st.sets(st.integers(0, 800).map(lambda offset: FIRST + timedelta(days=offset)))
counts = st.integers(0, 12)
limits = st.fixed_dictionaries({"daily": counts, "weekly": counts, "monthly": counts})


def day(offset):
    return DAY + timedelta(days=offset)


def snapshot(warehouse, offset, *ids, **options):
    at = datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(days=options.pop("read", offset))
    return store(warehouse, [profile(one) for one in ids], day=day(offset), at=at, **options)


def thin(warehouse, today=TODAY, **options):
    with warehouse.database.write() as connection:
        return thin_snapshots(connection, today=today, **(ONE | options))


def stored_days(warehouse):
    return [found for (found,) in warehouse.query("SELECT day FROM mixpanel._days ORDER BY day")]


@given(days, limits)
def test_the_newest_day_stays(found, limit):
    """The newest day is kept with any settings."""
    kept = days_to_keep(found, **limit)
    assert kept <= found
    assert sorted(found)[-1:] == sorted(kept)[-1:]


@given(days, limits)
def test_thinning_twice_is_thinning_once(found, limit):
    """A second thinning with the same settings deletes nothing."""
    kept = days_to_keep(found, **limit)
    assert days_to_keep(kept, **limit) == kept


@given(days, limits, limits)
def test_more_generous_settings_delete_no_more(found, limit, more):
    """Each number only ever adds days."""
    larger = {name: limit[name] + more[name] for name in limit}
    assert days_to_keep(found, **limit) <= days_to_keep(found, **larger)


@given(days, limits)
def test_every_new_week_and_month_has_its_newest_day(found, limit):
    """The days that stay are the newest of their week or month, or among the newest days."""
    kept = days_to_keep(found, **limit)
    weeks = {one.isocalendar()[:2]: one for one in sorted(found)}
    months = {one.replace(day=1): one for one in sorted(found)}
    newest = {
        *sorted(found)[-max(limit["daily"], 1) :],
        *(weeks[week] for week in sorted(weeks)[::-1][: limit["weekly"]]),
        *(months[month] for month in sorted(months)[::-1][: limit["monthly"]]),
    }
    assert kept == newest


def test_weeks_are_iso_weeks():
    """The first days of January can belong to the last week of December."""
    found = [date(2026, 12, 28), date(2027, 1, 3), date(2027, 1, 4)]
    assert days_to_keep(found, daily=0, weekly=2, monthly=0) == {found[1], found[2]}


def test_old_snapshots_go_with_all_that_is_told_of_them(warehouse):
    """Rows, ledger and quarantine; the other days keep theirs."""
    for offset in range(3):
        bad = [BAD % offset]
        page = [profile("u"), profile("v"), *bad]
        at = datetime(2026, 3, 1 + offset, 12, tzinfo=UTC)
        store(warehouse, page, day=day(offset), at=at)
    thinned = thin(warehouse)
    assert (thinned.kept, thinned.deleted) == ((day(2),), (day(0), day(1)))
    assert (thinned.deleted_rows, thinned.remaining_rows, thinned.rows_per_snapshot) == (4, 2, 2)
    assert stored_days(warehouse) == [day(2)]
    assert warehouse.query("SELECT DISTINCT snapshot_date FROM profiles") == [(day(2),)]
    assert warehouse.query("SELECT day FROM mixpanel._quarantine") == [(day(2),)]


@pytest.mark.on_file
def test_a_dry_run_tells_the_same_and_deletes_nothing(warehouse):
    """It needs no more than a reader's connection."""
    for offset in range(3):
        snapshot(warehouse, offset, "u")
    with warehouse.database.read() as connection:
        told = thin_snapshots(connection, today=TODAY, dry_run=True, **ONE)
    assert stored_days(warehouse) == [day(0), day(1), day(2)]
    assert thin(warehouse) == told
    assert told.remaining_bytes > 0


def test_days_of_those_seen_never_go(warehouse):
    """They are no snapshots, and cannot be had again."""
    snapshot(warehouse, 0, "u", scope="seen_on_day")
    snapshot(warehouse, 1, "u")
    snapshot(warehouse, 2, "u", "v")
    thinned = thin(warehouse)
    assert (thinned.deleted, thinned.remaining_rows) == ((day(1),), 2)
    assert stored_days(warehouse) == [day(0), day(2)]


def test_a_partial_snapshot_replaces_no_complete_one(warehouse):
    """The newest snapshot and the newest complete one are both kept."""
    for offset in range(2):
        snapshot(warehouse, offset, "u", "v")
    snapshot(warehouse, 2, "u", failed_pages=FAILED)
    snapshot(warehouse, 3, "v", failed_pages=FAILED)
    assert thin(warehouse).deleted == (day(0),)
    assert stored_days(warehouse) == [day(1), day(2), day(3)]


def test_without_a_complete_snapshot_nothing_goes(warehouse):
    """Every piece may be the only one that holds a profile."""
    for offset in range(3):
        snapshot(warehouse, offset, "u", failed_pages=FAILED)
    assert thin(warehouse).deleted == ()


def test_a_day_that_was_read_last_stays(warehouse):
    """An older day whose snapshot was read last is kept."""
    snapshot(warehouse, 0, "new", read=9)
    snapshot(warehouse, 1, "old")
    snapshot(warehouse, 2, "old")
    assert thin(warehouse).deleted == (day(1),)


def test_the_newest_snapshot_may_be_empty(warehouse):
    """The empty snapshot is kept, because it says that no profile exists any more."""
    snapshot(warehouse, 0, "u")
    snapshot(warehouse, 2, read=2)
    snapshot(warehouse, 3, "v", read=1)
    thin(warehouse)
    assert warehouse.query("FROM profiles_current") == []


def test_tables_of_groups_are_thinned_alone(warehouse):
    """Snapshots of other tables do not count."""
    companies = Target("companies")
    for offset in range(2):
        snapshot(warehouse, offset, "u")
        snapshot(warehouse, offset, "acme", target=companies, filters={"group_id": "1"})
    assert thin(warehouse, target=companies).deleted == (day(0),)
    assert warehouse.query("SELECT count(*) FROM profiles") == [(2,)]
    assert warehouse.query("SELECT count(*) FROM companies") == [(1,)]


def test_wrong_questions_are_refused(warehouse):
    """A table without days, or fewer than no snapshots."""
    snapshot(warehouse, 0, "u")
    with pytest.raises(ValueError, match="no days"):
        thin(warehouse, target=Target("people", "main"))
    with pytest.raises(ConfigError):
        thin(warehouse, daily=-1)


loads = st.lists(
    st.tuples(
        st.integers(0, 20),
        st.sampled_from(["all", "all", "seen_on_day"]),
        st.sets(st.sampled_from("uvwx")),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@examples(4)
@given(loads, limits)
def test_thinning_never_changes_who_is_current(found, limit):
    """The current profiles are the same before and after."""
    warehouse = Warehouse(Path(tempfile.mkdtemp()))
    for read, (offset, scope, ids, whole) in enumerate(found):
        page = [profile(one, **{"$last_seen": f"{day(offset)}T00:00:00"}) for one in sorted(ids)]
        at = datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=read)
        failed = {} if whole else FAILED
        store(warehouse, page, day=day(offset), at=at, scope=scope, failed_pages=failed)
    picture = "FROM profiles_current ORDER BY ALL"
    before = warehouse.query(picture)
    told = thin(warehouse, **limit)
    assert warehouse.query(picture) == before
    assert warehouse.query("SELECT count(*) FROM profiles") == [(told.remaining_rows,)]
    assert thin(warehouse, **limit).deleted == ()
