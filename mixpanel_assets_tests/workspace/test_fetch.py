"""Named tables: whole or not at all, with exactly the documented columns."""

from datetime import date

import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.emulator import Fault
from mixpanel_assets.errors import ConfigError, IncompleteExportError, TableExistsError

FIRST, LAST, DAY = date(2024, 1, 1), date(2024, 1, 10), date(2024, 1, 3)
COLUMNS = ["event_name", "event_time", "distinct_id", "insert_id", "properties"]


@pytest.fixture
def workspace(credentials, settings):
    with Workspace(
        credentials=credentials, settings=settings.model_copy(update={"max_retries": 0})
    ) as workspace:
        yield workspace


def stored_per_day(workspace, table):
    return dict(
        workspace.sql_rows(f"SELECT event_time::DATE AS day, count(*) FROM {table} GROUP BY day")
    )


def test_a_named_table_holds_the_days_of_several_requests(workspace, emulator):
    """Ten days in two requests: each day's rows once, in the documented columns."""
    result = workspace.fetch_events("mine", from_date="2024-01-01", to_date=LAST)
    truth = emulator.truth
    days = [date(2024, 1, day) for day in range(1, 11)]
    expected = {day: truth.count(day) - len(truth.unstorable(day)) for day in days}
    assert stored_per_day(workspace, "main.mine") == expected
    assert result.rows == sum(expected.values())
    assert result.date_range == ("2024-01-01", "2024-01-10")
    columns = [row[0] for row in workspace.sql_rows("DESCRIBE main.mine")]
    assert columns == COLUMNS
    known = workspace.sql_rows("SELECT table_name, from_date, to_date, row_count FROM _metadata")
    assert known == [("mine", FIRST, LAST, result.rows)]


@pytest.mark.slow
def test_it_equals_what_the_asset_table_holds(workspace):
    """The same days by the other way are the same rows."""
    workspace.fetch_events("mine", from_date=FIRST, to_date=DAY)
    workspace.sync_events(FIRST, DAY)
    columns = ", ".join(COLUMNS)
    for one, other in (("main.mine", "mixpanel.events"), ("mixpanel.events", "main.mine")):
        differ = f"SELECT {columns} FROM {one} EXCEPT ALL SELECT {columns} FROM {other}"
        assert workspace.sql_rows(differ) == []


def test_days_without_events_make_an_empty_table(workspace):
    """An empty answer is an answer."""
    assert workspace.fetch_events("none", from_date="2023-01-01", to_date="2023-01-02").rows == 0
    assert workspace.sql_rows("SELECT count(*) FROM main.none") == [(0,)]


def test_a_table_is_not_overwritten_unasked(workspace, emulator):
    """The error is raised before any request is sent."""
    workspace.fetch_events("mine", from_date=DAY, to_date=DAY)
    before = len(emulator.requests)
    with pytest.raises(TableExistsError, match="mine") as caught:
        workspace.fetch_events("mine", from_date=DAY, to_date=DAY)
    assert (caught.value.code, caught.value.table_name) == ("TABLE_EXISTS", "mine")
    assert len(emulator.requests) == before


def test_the_old_table_stays_until_the_new_one_is_whole(workspace, emulator):
    """A day that stays broken changes nothing."""
    workspace.fetch_events("mine", from_date=FIRST, to_date=DAY)
    before = workspace.sql_rows("FROM main.mine ORDER BY ALL")
    ledger = workspace.sql_rows("SELECT * FROM mixpanel._days ORDER BY ALL")
    emulator.faults.add(Fault("truncate-whole-body", day=LAST, times=None))
    with pytest.raises(IncompleteExportError):
        workspace.fetch_events("mine", from_date=DAY, to_date=LAST, replace=True)
    assert workspace.sql_rows("FROM main.mine ORDER BY ALL") == before
    assert workspace.sql_rows("SELECT * FROM mixpanel._days ORDER BY ALL") == ledger
    assert not list(workspace.spool_directory.iterdir())


def test_a_replaced_table_and_its_ledger_are_only_the_new_one(workspace):
    """Neither rows nor ledger rows of the old days are left."""
    workspace.fetch_events("mine", from_date=FIRST, to_date=DAY)
    result = workspace.fetch_events(
        "mine", from_date=LAST, to_date=LAST, events=["Sign Up"], replace=True
    )
    assert stored_per_day(workspace, "main.mine") == {LAST: result.rows}
    found = workspace.sql_rows("SELECT day, filters FROM mixpanel._days")
    assert found == [(LAST, '{"events": ["Sign Up"]}')]


def test_the_default_name_is_the_assets_own_table(workspace):
    """`events` means the same rows everywhere, so it takes whole days and is never replaced."""
    assert workspace.fetch_events(from_date=DAY, to_date=DAY).table == "events"
    assert workspace.sql_rows("SELECT DISTINCT event_date FROM mixpanel.events") == [(DAY,)]
    with pytest.raises(TableExistsError):
        workspace.fetch_events(from_date=DAY, to_date=DAY)
    with pytest.raises(ConfigError, match="sync"):
        workspace.fetch_events(from_date=DAY, to_date=DAY, replace=True)
    with pytest.raises(ConfigError, match="another name"):
        workspace.fetch_events(from_date=DAY, to_date=DAY, events=["Sign Up"])


@pytest.mark.parametrize("name", ["profiles", "_days", "a b", "", 'x"y', "main.x"])
def test_a_name_that_is_taken_or_is_none_is_refused(name, workspace, emulator):
    """The error is raised before any request is sent."""
    before = len(emulator.requests)
    with pytest.raises(ConfigError):
        workspace.fetch_events(name, from_date=DAY, to_date=DAY)
    assert len(emulator.requests) == before


def test_a_result_can_be_written_as_json(workspace):
    """`to_dict` holds the documented fields."""
    said = workspace.fetch_events("mine", from_date=DAY, to_date=DAY).to_dict()
    assert list(said) == [
        "table",
        "rows",
        "type",
        "duration_seconds",
        "date_range",
        "fetched_at",
    ]


def test_a_fetched_table_answers_for_its_days(workspace):
    """Every helper over properties takes its name."""
    days = {"from_date": "2024-01-02", "to_date": "2024-01-04"}
    fetched = workspace.fetch_events("visits", **days, progress=False)
    here = days | {"table": "visits"}
    assert sum(one.count for one in workspace.daily_counts(**here).counts) == fetched.rows
    assert workspace.property_distribution("Sign Up", "plan", **here).total_count > 0
    assert workspace.numeric_summary("Order Completed", "amount", **here).count > 0
    assert workspace.property_coverage("Sign Up", ["plan"], **here).total_events > 0
    assert workspace.engagement_distribution(**here).total_users > 0
