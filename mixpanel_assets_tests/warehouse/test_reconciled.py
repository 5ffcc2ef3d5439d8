"""The table of stored counts beside Mixpanel's own."""

from dataclasses import replace
from datetime import UTC, date, datetime

from mixpanel_assets.warehouse import (
    EVERY_EVENT,
    Database,
    ProjectIdentity,
    Reconciled,
    drop_day,
    prepare,
    reconciled_days,
    worst_class,
    write_reconciled,
)

DAY, NEXT = date(2024, 1, 1), date(2024, 1, 2)
NOON = datetime(2024, 1, 9, 12, tzinfo=UTC)
VISIT = Reconciled(DAY, "Visit", 10, 10, "equal", None, NOON, NOON)
LATE = Reconciled(DAY, "Order 'x'", 3, 5, "pending", "it rose", NOON, NOON, live_before=3)
OF_NEXT = replace(VISIT, day=NEXT, cls="deleted", live=8)


def test_counts_are_replaced_by_day_and_deleted_with_it(tmp_path):
    """What is known of other days is kept; of a day without counts, nothing is."""
    database = Database(tmp_path / "one.duckdb")
    with database.write() as connection:
        prepare(connection, ProjectIdentity("1", "us"))
        write_reconciled(connection, EVERY_EVENT, [VISIT, LATE, OF_NEXT], DAY, NEXT)
        write_reconciled(connection, EVERY_EVENT, [replace(LATE, stored=5, cls="equal")], DAY, DAY)
    with database.read() as connection:
        found = reconciled_days(connection, EVERY_EVENT, DAY, NEXT)
        assert found == [replace(LATE, stored=5, cls="equal"), OF_NEXT]
        assert reconciled_days(connection, EVERY_EVENT, DAY, DAY) == found[:1]
    with database.write() as connection:
        drop_day(connection, EVERY_EVENT, NEXT)
        assert reconciled_days(connection, EVERY_EVENT, DAY, NEXT) == found[:1]
        write_reconciled(connection, EVERY_EVENT, [], DAY, NEXT)
        assert reconciled_days(connection, EVERY_EVENT, DAY, NEXT) == []


def test_the_class_of_a_day_is_the_most_serious_one():
    """Without any event there is none."""
    assert worst_class([VISIT, LATE, OF_NEXT]) == "deleted"
    assert worst_class([VISIT]) == "equal"
    assert worst_class([]) is None
