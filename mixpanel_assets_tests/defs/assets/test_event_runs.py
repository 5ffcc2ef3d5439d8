"""Runs of `mixpanel/events`: how many a backfill is, what can be configured, what is told."""

from datetime import date, timedelta

import dagster as dg
import pytest

from mixpanel_assets.defs.assets.events import EventsConfig
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.emulator import Fault
from mixpanel_assets.loading.plan import REFETCH_TAG
from mixpanel_assets_tests.defs.assets.conftest import EVENTS

EXPORT = "/api/2.0/export"
DAYS = [date(2024, 1, 1) + timedelta(days=number) for number in range(6)]
RANGE = (str(DAYS[0]), str(DAYS[-1]))
NODE = "mixpanel__events"


@pytest.fixture
def settings(settings):
    return settings.model_copy(update={"days_per_request": 2})


def configured(refetch):
    return {"ops": {NODE: {"config": {"refetch": refetch}}}}


def test_the_launchpad_offers_what_there_is(settings):
    """One of three words or none, with a sentence for each."""
    events = build_definitions(settings=settings).resolve_assets_def(EVENTS)
    field = events.op.config_schema.config_type.fields["refetch"]
    assert not field.is_required
    assert set(field.config_type.inner_type.config_values) == {"all", "missing", "stale"}
    for word in ("all", "missing", "stale"):
        assert f"`{word}`:" in field.description
    assert EventsConfig().refetch is None


def test_another_word_is_refused(materialize, asked):
    """An invalid word in the configuration fails before any request is sent."""
    with pytest.raises(dg.DagsterInvalidConfigError, match="not in enum type Refetch got newest"):
        materialize(EVENTS, *RANGE, config=configured("newest"))
    assert asked() == []


def test_a_retried_step_goes_on_where_it_was(settings, resource, instance, emulator, asked):
    """The second request fails once: the same run sends it again, but not the first."""
    emulator.faults.add(Fault("500-json", path=EXPORT, day=DAYS[2], times=2))
    job = dg.define_asset_job(
        "patient",
        selection=dg.AssetSelection.assets(EVENTS),
        op_retry_policy=dg.RetryPolicy(max_retries=1),
    )
    definitions = dg.Definitions.merge(
        build_definitions(settings=settings, resources={"mixpanel": resource}),
        dg.Definitions(jobs=[job]),
    )
    result = definitions.resolve_job_def("patient").execute_in_process(
        instance=instance,
        tags={
            "dagster/asset_partition_range_start": RANGE[0],
            "dagster/asset_partition_range_end": RANGE[1],
        },
    )
    assert result.success
    first, second, third = (tuple(DAYS[at : at + 2]) for at in (0, 2, 4))
    assert asked() == [first, second, second, second, third]
    records = instance.fetch_materializations(EVENTS, limit=9).records
    rows = {r.partition_key: r.asset_materialization.metadata["rows"].value for r in records}
    truth = emulator.truth
    assert rows == {str(day): truth.count(day) - len(truth.unstorable(day)) for day in DAYS}


@pytest.mark.slow
def test_a_run_says_with_each_request_how_far_it_is(materialize, instance, asked):
    """One line per request: days, rows per second, budget, time left."""
    result = materialize(EVENTS, *RANGE)
    lines = [entry.user_message for entry in instance.all_logs(result.run_id)]
    progress = [line for line in lines if "export requests left this hour" in line]
    assert len(progress) == len(asked()) == 3
    assert progress[1].startswith("2024-01-03..2024-01-04: 4 of 6 days, ")


@pytest.mark.slow
def test_numbers_of_a_partition_can_be_plotted(materialize, instance):
    """They are numbers, and the budget is what was left when the day came."""
    materialize(EVENTS, *RANGE)
    records = instance.fetch_materializations(EVENTS, limit=9).records
    for record in records:
        metadata = record.asset_materialization.metadata
        for name in ("rows", "megabytes", "seconds", "repeats_removed", "budget_left"):
            assert isinstance(metadata[name].value, int | float), name
    left = {r.partition_key: r.asset_materialization.metadata["budget_left"].value for r in records}
    assert left[str(DAYS[0])] == left[str(DAYS[1])] == left[str(DAYS[2])] + 1


@pytest.mark.parametrize(("partitions", "runs"), [(None, [None]), (2, [2]), (1, [1])])
def test_a_backfill_is_one_run_unless_set(settings, partitions, runs):
    """MP_PARTITIONS_PER_RUN cuts a backfill into runs of that number of days."""
    changed = settings.model_copy(update={"partitions_per_run": partitions})
    events = build_definitions(settings=changed).resolve_assets_def(EVENTS)
    assert [events.backfill_policy.max_partitions_per_run] == runs


@pytest.mark.slow
def test_runs_of_a_cut_backfill_store_the_same(settings, materialize, database):
    """Three runs of two days each and one run of six leave the same table."""
    rows = "SELECT * FROM mixpanel.events ORDER BY ALL"
    assert materialize(EVENTS, *RANGE).success
    with database.read() as connection:
        in_one = connection.execute(rows).fetchall()
    for at in (0, 2, 4):
        assert materialize(EVENTS, str(DAYS[at]), str(DAYS[at + 1])).success
    with database.read() as connection:
        assert connection.execute(rows).fetchall() == in_one


def test_a_run_of_the_sensor_asks_for_no_settled_day(materialize, asked):
    """Its tag says so; the configuration of a launch beats it."""
    assert materialize(EVENTS, str(DAYS[1]), str(DAYS[2])).success
    before = len(asked())
    assert materialize(EVENTS, *RANGE, tags={REFETCH_TAG: "stale"}).success
    assert asked()[before:] == [(DAYS[0],), (DAYS[3], DAYS[4]), (DAYS[5],)]
    assert materialize(
        EVENTS, *RANGE, tags={REFETCH_TAG: "stale"}, config=configured("all")
    ).success
    assert len(asked()) - before == 6
