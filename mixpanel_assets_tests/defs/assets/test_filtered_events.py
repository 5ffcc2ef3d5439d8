"""Assets of some events, each with a table of its own, in real runs."""

import json
from datetime import date

import dagster as dg
import pytest

from mixpanel_assets import Workspace, filtered_events_asset, filtered_profiles_asset
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.emulator import Fault
from mixpanel_assets.errors import ConfigError, MissingDaysError
from mixpanel_assets.warehouse.stored_queries import StoredQueries
from mixpanel_assets_tests.defs.assets.conftest import EVENTS
from mixpanel_assets_tests.laws import siblings

DAY = date(2024, 1, 3)
NAMES = ["Order Completed", "Page View"]
WHERE = 'properties["country"] == "DE"'
ROWS = "SELECT * FROM mixpanel.some ORDER BY ALL"
PROMISES = "day, type, status, row_count, duplicates_removed, quarantined, filters"


def stored(database, query=ROWS):
    with database.read() as connection:
        return connection.execute(query).fetchall()


def failure_of(result):
    [event] = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data.error.message


@pytest.fixture
def some(settings):
    """Make the asset `mixpanel/some` with a filter."""

    def make(name="some", **filters):
        return filtered_events_asset(name, settings=settings, **filters)

    return make


@pytest.fixture
def run(settings, resource, instance):
    """Run an asset beside those of the package, for a day or a range of days."""

    def run(asset, first, last=None):
        definitions = dg.Definitions.merge(
            build_definitions(
                settings=settings, resources={"mixpanel": resource}, checks=False, jobs=False
            ),
            dg.Definitions(assets=[] if asset.key == EVENTS else [asset]),
        )
        days = {"partition_key": first}
        if last:
            ends = {"start": first, "end": last}
            tags = {f"dagster/asset_partition_range_{end}": day for end, day in ends.items()}
            days = {"tags": tags}
        return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            asset_selection=[asset.key], instance=instance, raise_on_error=False, **days
        )

    return run


@pytest.mark.parametrize(
    ("filters", "condition"),
    siblings(
        [
            ({"events": NAMES}, "event_name IN ('Order Completed', 'Page View')"),
            ({"where": WHERE}, "(properties->>'country') = 'DE'"),
            (
                {"events": NAMES[:1], "where": WHERE},
                "event_name = 'Order Completed' AND (properties->>'country') = 'DE'",
            ),
        ],
        keep=1,
    ),
    ids=["events", "where", "both"],
)
def test_the_table_holds_exactly_the_rows_that_the_filter_finds(
    filters, condition, some, run, materialize, database
):
    """Row by row, made ids and columns included, it equals that part of `events`."""
    assert run(some(**filters), "2024-01-01", "2024-01-07").success
    assert materialize(EVENTS, "2024-01-01", "2024-01-07").success
    part = stored(database, f"SELECT * FROM mixpanel.events WHERE {condition} ORDER BY ALL")
    assert stored(database) == part != []
    assert len(stored(database, "FROM mixpanel.events")) > len(part)


@pytest.mark.slow
def test_the_other_tables_are_not_touched(some, run, materialize, database):
    """Loading `events` and a part of them again leaves each what it was."""
    materialize(EVENTS, "2024-01-03")
    events = stored(database, "SELECT * FROM mixpanel.events ORDER BY ALL")
    assert run(some(events=NAMES), "2024-01-03").success
    part = stored(database)
    assert run(some("others", events=["Search"]), "2024-01-03").success
    materialize(EVENTS, "2024-01-03")
    assert stored(database, "SELECT * FROM mixpanel.events ORDER BY ALL") == events
    assert stored(database) == part


def test_each_day_has_its_ledger_row_with_the_filter(some, run, database, emulator):
    """Status, repeats, run and filter; counts by event add up to the rows."""
    result = run(some(events=NAMES, where=WHERE), "2024-01-01", "2024-01-03")
    days = stored(database, "SELECT * FROM mixpanel._days WHERE table_name = 'some' ORDER BY day")
    told = stored(database, f"SELECT {PROMISES} FROM mixpanel._days ORDER BY day")
    assert [row[0] for row in told] == [date(2024, 1, day) for day in (1, 2, 3)]
    assert {(row[1], row[2]) for row in told} == {("events", "complete")}
    assert {row[6] for row in told} == {json.dumps({"events": NAMES, "where": WHERE})}
    assert len(days) == 3
    assert stored(database, "SELECT DISTINCT run_id FROM mixpanel._days") == [(result.run_id,)]
    counts = "SELECT day, event_name, row_count FROM mixpanel._event_counts ORDER BY ALL"
    by_hand = "SELECT event_date, event_name, count(*) FROM mixpanel.some GROUP BY ALL ORDER BY ALL"
    assert stored(database, counts) == stored(database, by_hand) != []


def test_repeats_and_unstorable_lines_are_dealt_with(some, run, database, emulator):
    """What Mixpanel repeats is stored once; what no database can hold is in quarantine."""
    day = date(2024, 1, 4)  # one of its lines holds half a surrogate pair
    every = sorted(emulator.truth.count_by_event(day))
    assert run(some(events=every), "2024-01-04").success
    [(removed, quarantined)] = stored(
        database, "SELECT duplicates_removed, quarantined FROM mixpanel._days"
    )
    assert (removed, quarantined) == (emulator.truth.duplicates(day), 1)
    [(table, line)] = stored(database, "SELECT table_name, line FROM mixpanel._quarantine")
    assert (table, b"half a pair" in line) == ("some", True)


def test_each_partition_reports_its_own_numbers(some, run, database, instance):
    """As `mixpanel/events` does; a range costs few requests."""
    asset = some(events=NAMES)
    assert run(asset, "2024-01-01", "2024-01-07").success
    records = instance.fetch_materializations(asset.key, limit=10).records
    counts = dict(stored(database, "SELECT day, row_count FROM mixpanel._days"))
    for record in records:
        metadata = record.asset_materialization.metadata
        assert metadata["rows"].value == counts[date.fromisoformat(record.partition_key)]
        assert {"repeats_removed", "megabytes", "seconds", "events", "events_per_hour"} <= set(
            metadata
        )
    assert len(records) == 7
    told = [record.asset_materialization.metadata for record in records]
    assert sum(one["requests"].value for one in told if "requests" in one) == 2


def test_a_day_that_stays_broken_keeps_what_it_held(some, run, emulator, database, instance):
    """The run fails and names it; the other days are stored and recorded."""
    asset = some(events=NAMES)
    assert run(asset, "2024-01-03").success
    before = stored(database)
    emulator.faults.add(Fault("truncate-own-line", day=DAY, times=None))
    result = run(asset, "2024-01-01", "2024-01-05")
    assert not result.success
    assert "2024-01-03" in failure_of(result)
    assert [row for row in stored(database) if row[5] == DAY] == before
    keys = {r.partition_key for r in instance.fetch_materializations(asset.key, limit=9).records}
    assert keys == {f"2024-01-0{day}" for day in range(1, 6)}


def test_rows_that_vanished_are_asked_for_again_and_kept(some, run, emulator, database):
    """As in `events`: two responses lack them, the table keeps them."""
    asset = some(events=NAMES)
    run(asset, "2024-01-03")
    [(before,)] = stored(database, "SELECT row_count FROM mixpanel._days")
    emulator.faults.add(Fault("delete-rows", day=DAY, count=9))
    sent = len(emulator.requests)
    assert run(asset, "2024-01-03").success
    [(after, vanished)] = stored(database, "SELECT row_count, rows_vanished FROM mixpanel._days")
    assert after == before
    assert vanished > 0
    assert len(emulator.requests) - sent == 2


def test_a_day_of_which_the_filter_finds_nothing_is_empty(some, run, database):
    """The table is there, with the columns of events and no row."""
    assert run(some(events=["Never Sent"]), "2024-01-03").success
    assert stored(database) == []
    assert stored(database, "SELECT status, row_count FROM mixpanel._days") == [("empty", 0)]
    columns = "SELECT column_name, column_type FROM (DESCRIBE mixpanel.{})"
    assert stored(database, columns.format("some")) == stored(database, columns.format("events"))


def test_a_day_before_the_plans_horizon_is_not_available(some, run, emulator, database):
    """The run succeeds, and the ledger row speaks of this table and filter."""
    text = "Date range exceeds 1 days into the past"
    emulator.faults.add(Fault("403-history", day=date(2024, 1, 1), times=None, text=text))
    assert run(some(events=NAMES), "2024-01-01", "2024-01-02").success
    assert stored(
        database, "SELECT table_name, status, filters FROM mixpanel._days ORDER BY day"
    ) == [
        ("some", status, json.dumps({"events": NAMES})) for status in ("not available", "complete")
    ]


@pytest.mark.parametrize(
    ("first", "then"),
    siblings(
        [
            ({"events": NAMES}, {"events": NAMES[:1]}),
            ({"events": NAMES}, {"where": WHERE}),
            ({"where": WHERE}, {"where": WHERE.replace("DE", "SE")}),
        ],
        keep=1,
    ),
)
def test_a_table_of_another_filter_is_refused(first, then, some, run, database, emulator):
    """The message names both filters; no request is sent and no row changes."""
    assert run(some(**first), "2024-01-03").success
    before, ledger = stored(database), stored(database, "FROM mixpanel._days")
    sent = len(emulator.requests)
    result = run(some(**then), "2024-01-04")
    assert not result.success
    for filters in (first, then):
        assert json.dumps(filters) in failure_of(result)
    assert len(emulator.requests) == sent
    assert (stored(database), stored(database, "FROM mixpanel._days")) == (before, ledger)


def test_the_same_filter_in_another_order_is_the_same(some, run, database):
    """The order of names and their repeats say nothing."""
    assert run(some(events=NAMES), "2024-01-03").success
    before = stored(database)
    assert run(some(events=[*reversed(NAMES), *NAMES]), "2024-01-03").success
    assert stored(database) == before


def test_a_dropped_table_may_be_filled_with_another_filter(
    some, run, database, credentials, settings
):
    """`drop` forgets the filter with the rows."""
    assert run(some(events=NAMES), "2024-01-03").success
    with Workspace(credentials=credentials, settings=settings) as workspace:
        workspace.drop("some")
    assert run(some(events=["Search"]), "2024-01-03").success
    assert set(stored(database, "SELECT event_name FROM mixpanel.some")) == {("Search",)}


@pytest.mark.parametrize(
    ("name", "filters", "said"),
    [
        ("events", {"events": NAMES}, "taken"),
        ("Profiles", {"events": NAMES}, "taken"),
        ("profiles_current", {"events": NAMES}, "taken"),
        ("_days", {"events": NAMES}, "not a name for a table"),
        ("two words", {"events": NAMES}, "not a name for a table"),
        ("some", {}, "events or where"),
        ("some", {"events": []}, "list of event names"),
        ("some", {"events": "Page View"}, "list of event names"),
        ("some", {"where": " "}, "where must be an expression"),
    ],
)
def test_what_makes_no_asset_is_refused_at_once(name, filters, said, some):
    """Before Dagster loads it, in one sentence."""
    with pytest.raises(ConfigError, match=said):
        some(name, **filters)


def test_a_name_that_another_table_has_is_refused(some, run, settings, credentials, database):
    """A named table or one of profiles is never mixed with it."""
    with Workspace(credentials=credentials, settings=settings) as workspace:
        workspace.fetch_events("mine", from_date="2024-01-03", to_date="2024-01-03")
    result = run(some("mine", events=NAMES), "2024-01-03")
    assert "'mine' is taken" in failure_of(result)
    people = filtered_profiles_asset(
        "people", where='properties["plan"] == "pro"', settings=settings
    )
    assert run(people, settings.today().isoformat()).success
    result = run(some("people", events=NAMES), "2024-01-03")
    assert "has other columns" in failure_of(result)
    assert stored(database, "SELECT DISTINCT table_name FROM mixpanel._days ORDER BY 1") == [
        ("mine",),
        ("people",),
    ]


def test_it_looks_like_events_in_dagster(some, settings):
    """Group, kinds, partitions and policy are those of events; the description has the filter."""
    asset = some(events=NAMES, where=WHERE)
    events = build_definitions(settings=settings).resolve_assets_def(EVENTS)
    spec, model = asset.get_asset_spec(asset.key), events.get_asset_spec(EVENTS)
    assert asset.key == dg.AssetKey(["mixpanel", "some"])
    shared = {name: value for name, value in model.metadata.items() if "joins" not in name}
    assert spec.metadata == {**shared, "dagster/table_name": "mixpanel.some"}
    for attribute in ("group_name", "kinds", "partitions_def"):
        assert getattr(spec, attribute) == getattr(model, attribute)
    assert asset.backfill_policy == events.backfill_policy
    for told in (*NAMES, WHERE, "export request"):
        assert told in spec.description


def test_stored_queries_answer_from_it(some, run, database):
    """By the day of the export, and with the remedy that fits the table."""
    run(some(events=NAMES), "2024-01-03")
    with database.read() as connection:
        stored = StoredQueries(connection, table="some")
        counts = stored.daily_counts(from_date="2024-01-03", to_date="2024-01-03", events=NAMES)
        with pytest.raises(MissingDaysError, match="mixpanel/some"):
            stored.daily_counts(from_date="2024-01-02", to_date="2024-01-03", events=NAMES)
    assert sum(count.count for count in counts.counts) > 0
