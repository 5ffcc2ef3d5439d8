"""Profiles last seen on some days: one answer, split by date."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mixpanel_assets.warehouse import ProjectIdentity
from mixpanel_assets_tests.warehouse.conftest import DAY, Warehouse
from mixpanel_assets_tests.warehouse.profiles import BAD, profile, seen, store, store_days

NEXT = DAY + timedelta(days=1)
LAST = DAY + timedelta(days=2)
DAYS = [DAY, NEXT, LAST]


def load(warehouse, *pages, days=DAYS, **options):
    return store_days(warehouse, *pages, days=days, scope="seen_on_day", **options)


def stored(warehouse):
    return warehouse.query("SELECT snapshot_date, distinct_id FROM profiles ORDER BY ALL")


def test_each_day_gets_the_profiles_last_seen_on_it(warehouse):
    """A day without any is empty, and has its ledger row too."""
    reports = load(warehouse, [seen("u", DAY), seen("v", LAST), seen("w", LAST)], expected_total=3)
    assert [(r.snapshot_date, r.status, r.row_count) for r in reports] == [
        (DAY, "complete", 1),
        (NEXT, "empty", 0),
        (LAST, "complete", 2),
    ]
    assert stored(warehouse) == [(DAY, "u"), (LAST, "v"), (LAST, "w")]
    found = warehouse.query("SELECT day, status, scope FROM mixpanel._days ORDER BY day")
    assert found == [
        (DAY, "complete", "seen_on_day"),
        (NEXT, "empty", "seen_on_day"),
        (LAST, "complete", "seen_on_day"),
    ]


def test_profiles_of_other_days_are_counted_and_not_stored(warehouse):
    """They were seen again between the filter and the read; the answer is whole all the same."""
    moved = [seen("v", LAST + timedelta(days=1)), profile("w")]
    reports = load(warehouse, [seen("u", DAY), *moved], expected_total=3)
    assert [(r.elsewhere, r.missing_rows, r.is_complete) for r in reports] == [(2, 0, True)] * 3
    assert stored(warehouse) == [(DAY, "u")]


def test_the_later_of_two_days_wins(warehouse):
    """A profile that two pages show on two days is stored once."""
    reports = load(warehouse, [seen("u", DAY)], [seen("u", NEXT)])
    assert [(r.received, r.duplicates_removed) for r in reports] == [(1, 1), (1, 0), (0, 0)]
    assert stored(warehouse) == [(NEXT, "u")]


def test_a_partial_answer_is_merged_into_every_day(warehouse):
    """The missing profiles may belong to any of the days."""
    load(warehouse, [seen("u", DAY), seen("v", NEXT)])
    reports = load(warehouse, [seen("w", DAY)], expected_total=2)
    assert [(r.status, r.row_count) for r in reports] == [
        ("partial", 2),
        ("partial", 1),
        ("partial", 0),
    ]
    assert stored(warehouse) == [(DAY, "u"), (DAY, "w"), (NEXT, "v")]


def test_a_profile_that_was_seen_again_since_stays_under_the_day(warehouse):
    """A later response no longer has these profiles, so the stored rows are kept."""
    load(warehouse, [seen("u", DAY), seen("v", NEXT)])
    reports = load(warehouse, [seen("u", LAST)], expected_total=1)
    assert [(r.status, r.rows_before, r.row_count) for r in reports] == [
        ("complete", 1, 1),
        ("complete", 1, 1),
        ("complete", 0, 1),
    ]
    assert stored(warehouse) == [(DAY, "u"), (NEXT, "v"), (LAST, "u")]


def test_a_later_answer_can_be_told_to_replace_the_days(warehouse):
    """With `overwrite`, the stored days are replaced, as full snapshots are."""
    load(warehouse, [seen("u", DAY), seen("v", NEXT)])
    load(warehouse, [seen("u", LAST)], overwrite=True)
    assert stored(warehouse) == [(LAST, "u")]


def test_days_of_a_legacy_project_are_days_of_its_zone(tmp_path):
    """`$last_seen` is UTC: half past four on the 2nd is the evening of the 1st in New York."""
    project = ProjectIdentity("1234", "us", regime="legacy", zone="America/New_York")
    warehouse = Warehouse(tmp_path, project)
    late = profile("late", **{"$last_seen": f"{NEXT}T04:30:00"})
    load(warehouse, [late, profile("next", **{"$last_seen": f"{NEXT}T05:30:00"})])
    assert stored(warehouse) == [(DAY, "late"), (NEXT, "next")]


def test_a_full_snapshot_among_the_days_is_kept(warehouse):
    """Its report says so, and the rows that would have gone there are counted."""
    store(warehouse, [profile("everybody"), BAD % 1], day=NEXT)
    reports = load(warehouse, [seen("u", DAY), seen("v", NEXT)], expected_total=2)
    assert [(r.kept, r.elsewhere) for r in reports] == [(False, 1), (True, 0), (False, 1)]
    assert stored(warehouse) == [(DAY, "u"), (NEXT, "everybody")]
    assert warehouse.query("SELECT day FROM mixpanel._quarantine") == [(NEXT,)]


def test_days_that_are_all_kept_need_no_page(warehouse):
    """A full snapshot that is kept needs no download."""
    store(warehouse, [profile("everybody")])
    (report,) = load(warehouse, days=[DAY])
    assert (report.kept, report.row_count) == (True, 1)


def test_a_full_snapshot_is_replaced_when_asked(warehouse):
    """The ledger then says that the day is not a full snapshot."""
    store(warehouse, [profile("everybody")])
    (report,) = load(warehouse, [seen("u", DAY)], days=[DAY], overwrite=True)
    assert (report.kept, report.scope) == (False, "seen_on_day")
    assert stored(warehouse) == [(DAY, "u")]
    assert warehouse.query("SELECT complete_at FROM mixpanel._days") == [(None,)]


def test_what_is_merged_into_a_full_snapshot_leaves_it_full(warehouse):
    """Its profiles are kept, and the scope is still `all`."""
    store(warehouse, [profile("everybody")])
    (report,) = load(
        warehouse, [seen("u", DAY)], days=[DAY], overwrite=True, failed_pages={1: "it broke"}
    )
    assert (report.scope, report.status, report.row_count) == ("all", "partial", 2)


def test_lines_in_quarantine_count_on_the_first_day(warehouse):
    """A quarantined line is stored with the first day, whatever day it was seen on."""
    reports = load(warehouse, [BAD % 1, seen("u", LAST)], expected_total=2)
    assert [r.quarantined for r in reports] == [1, 0, 0]
    assert warehouse.query("SELECT day FROM mixpanel._quarantine") == [(DAY,)]


@pytest.mark.parametrize(
    ("days", "scope"), [([], "all"), ([DAY, NEXT], "all"), ([DAY] * 2, "seen_on_day")]
)
def test_days_must_fit_the_scope(warehouse, days, scope):
    """A full snapshot has one day, and no day may be requested twice."""
    with pytest.raises(ValueError, match="day"):
        store_days(warehouse, [profile("u")], days=days, scope=scope)


def test_a_line_that_cannot_be_stored_counts_for_the_first_day_that_is_written(warehouse):
    """A full snapshot of the first requested day is kept, its quarantine too."""
    next_day = DAY + timedelta(days=1)
    store(warehouse, [profile("u"), BAD % 1], day=DAY)
    lines = [seen("v", next_day), seen("w", DAY), BAD % 2]
    kept, written = store_days(warehouse, lines, days=[DAY, next_day], scope="seen_on_day")
    assert (kept.kept, written.kept, written.quarantined, written.elsewhere) == (True, False, 1, 1)
    found = warehouse.query("SELECT day, count(*) FROM mixpanel._quarantine GROUP BY ALL")
    assert sorted(found) == [(DAY, 1), (next_day, 1)]
    assert warehouse.query("SELECT distinct_id FROM profiles ORDER BY 1") == [("u",), ("v",)]
