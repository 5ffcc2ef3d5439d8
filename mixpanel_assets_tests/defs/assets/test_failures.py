"""A failed step says what went wrong, what is stored and what to do, without Dagster's frames."""

from typing import Any

import dagster as dg
import pandas as pd
import pytest

from mixpanel_assets import MixpanelResource, live_query_asset
from mixpanel_assets.definitions import build_definitions
from mixpanel_assets.defs.failures import ExplainedFailure, explained_to_dagster
from mixpanel_assets.defs.io_managers import WarehouseIOManager
from mixpanel_assets.defs.ops import PropertyCountsConfig
from mixpanel_assets.emulator import Fault
from mixpanel_assets.errors import MixpanelDataError, ServerError
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.conftest import START
from mixpanel_assets_tests.defs.assets.conftest import EVENTS
from mixpanel_assets_tests.laws import siblings

EXPORT = "/api/2.0/export"
HOLE = START.replace(day=3)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"op_retries": 1, "op_retry_seconds": 0.01, "days_per_request": 2}
    )


@pytest.fixture
def resource(resource: MixpanelResource) -> MixpanelResource:
    return resource.model_copy(update={"max_retries": 0})


def explained(result: dg.ExecuteInProcessResult) -> tuple[str, str]:
    """Return what a failed run says, and what to do, after looks at all places that show it."""
    [failure] = [event for event in result.all_events if event.is_step_failure]
    data = failure.step_failure_data
    described = data.user_failure_data
    shown = {name: value.value for name, value in described.metadata.items()}
    said, advice = shown["description"], shown["what_to_do"]
    assert described.description in (f"{said} {advice}", f"{said}; {advice}")
    assert described.description in data.error.message
    assert "Exceeded" not in data.error.message
    assert (len(data.error.stack), data.error.cause, data.error.context) == (1, None, None)
    return described.description, shown["what_to_do"]


def test_the_last_attempt_says_how_many_days_are_stored(materialize, emulator):
    """As the first did: what is missing and what loads it, a day written as one day."""
    emulator.faults.add(Fault("truncate-whole-body", day=HOLE, times=None))
    said, advice = explained(materialize(EVENTS, "2024-01-02", "2024-01-05"))
    assert said.startswith("1 of 4 days stayed incomplete and were not stored: 2024-01-03. ")
    assert "The other 3 are stored. The first error: export 2024-01-03 is not" in said
    assert advice == (
        "Try again with `mp sync --from 2024-01-03 --to 2024-01-03`, or materialize these "
        "partitions of `mixpanel/events`."
    )


def test_an_outage_in_the_middle_says_what_is_stored(materialize, emulator):
    """On each attempt, also for days that an earlier load stored."""
    emulator.faults.add(Fault("500-json", path=EXPORT, day=HOLE, times=None))
    said, advice = explained(materialize(EVENTS, "2024-01-01", "2024-01-05"))
    assert "export 2024-01-03..2024-01-04 answered 500" in said
    assert "2 of 5 days are stored; missing: 2024-01-03..2024-01-05." in said
    assert advice.endswith("or materialize these partitions of `mixpanel/events`.")
    said, _ = explained(materialize(EVENTS, "2024-01-03"))
    assert "are stored" not in said


def test_a_report_says_which_days_are_stored(settings, resource, instance, emulator):
    """Days that are a request each."""
    counts = live_query_asset(
        "plans",
        query=PropertyCountsConfig(event="Page View", property_name="plan"),
        settings=settings,
    )
    emulator.faults.add(Fault("500-json", path="*/events/properties", skip=2, times=None))
    definitions = dg.Definitions(
        assets=[counts],
        resources={
            "mixpanel": resource,
            "mixpanel_warehouse": WarehouseIOManager(database=str(settings.database)),
        },
    )
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        raise_on_error=False,
        tags={
            "dagster/asset_partition_range_start": "2024-01-01",
            "dagster/asset_partition_range_end": "2024-01-04",
        },
    )
    said, advice = explained(result)
    assert "2 of 4 days are stored; missing: 2024-01-03..2024-01-04." in said
    assert advice.endswith("Materialize these partitions of `mixpanel_queries/plans`.")


def test_files_say_which_days_have_one(settings, resource, instance, emulator):
    """The next run requests the others."""
    emulator.faults.add(Fault("500-json", path=EXPORT, day=HOLE, times=None))
    config = {"from_date": "2024-01-01", "to_date": "2024-01-04", "days_per_request": 2}
    said, advice = explained(run(settings, resource, instance, "stream_events", config))
    assert "2 of 4 days are stored; missing: 2024-01-03..2024-01-04." in said
    assert advice.endswith("Run it again: it requests only days without a file.")


@pytest.mark.parametrize(
    ("job", "config"),
    siblings(
        [
            ("backfill_history", {}),
            ("verify_range", {"from_date": "2024-01-03", "to_date": "2024-01-03"}),
            ("keep_snapshots", {}),
            ("stream_profiles", {}),
            ("ask_report", {"event_counts": {"events": ["Page View"], "from_date": "2024-01-01"}}),
            ("snapshot_profiles", {}),
            ("close_yesterday", {}),
        ],
        keep=3,
    ),
)
def test_every_job_fails_with_its_sentence(settings, instance, job, config):
    """Without credentials: what to set."""
    said, advice = explained(run(settings, MixpanelResource(), instance, job, config))
    assert "missing: MP_USERNAME, MP_SECRET" in said
    assert advice.startswith("Set MP_USERNAME")


def run(
    settings: Settings,
    resource: MixpanelResource,
    instance: dg.DagsterInstance,
    name: str,
    config: dict[str, Any],
) -> dg.ExecuteInProcessResult:
    job = build_definitions(settings=settings, resources={"mixpanel": resource}).resolve_job_def(
        name
    )
    ops = [node.name for node in job.graph.node_defs]
    partition = {"partition_key": "2024-01-03"} if job.partitions_def else {}
    return job.execute_in_process(
        instance=instance,
        raise_on_error=False,
        run_config={"ops": {op: {"config": config} for op in ops}} if config else None,
        **partition,
    )


def test_days_that_differ_are_explained(settings, resource, instance, materialize):
    """The differences are metadata too."""
    assert materialize(EVENTS, "2024-01-01").success
    config = {"from_date": "2024-01-03", "to_date": "2024-01-03"}
    result = run(settings, resource, instance, "verify_range", config)
    said, advice = explained(result)
    assert "2024-01-03 was never loaded" in said
    assert advice == (
        "Load them again with `mp sync --from 2024-01-03 --to 2024-01-03 --refetch all`, or "
        "materialize these partitions of `mixpanel/events`."
    )
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert "differences" in failure.step_failure_data.user_failure_data.metadata


def test_a_named_project_is_loaded_by_its_own_asset(settings, resource, instance, emulator):
    """Not by `mp`, whose default account is another project's."""
    emulator.faults.add(Fault("truncate-whole-body", day=HOLE, times=None))
    definitions = build_definitions(name="shop", account=resource, settings=settings)
    result = definitions.resolve_job_def("shop_close_yesterday").execute_in_process(
        instance=instance, raise_on_error=False, partition_key=HOLE.isoformat()
    )
    _, advice = explained(result)
    assert advice == "Try again with Dagster: materialize these partitions of `shop/events`."


def test_an_input_that_was_never_stored_is_explained(settings, instance):
    """The error names the asset to materialize first."""

    @dg.asset(ins={"events": dg.AssetIn(["mixpanel", "events"])})
    def counts(events: pd.DataFrame) -> None: ...

    events = dg.AssetSpec(["mixpanel", "events"]).with_io_manager_key("warehouse")
    manager = WarehouseIOManager(database=str(settings.database))
    result = dg.materialize(
        [counts, events],
        resources={"warehouse": manager},
        instance=instance,
        raise_on_error=False,
    )
    _, advice = explained(result)
    assert advice.startswith("Materialize `mixpanel/events` first")


def test_a_hook_gets_the_sentence(instance):
    """The exception of the step is the failure, and a test that raises gets it too."""
    told = []

    @dg.failure_hook
    def tell(context: dg.HookContext) -> None:
        told.append(str(context.op_exception))

    @dg.op
    def broken() -> None:
        with explained_to_dagster():
            raise ServerError("Mixpanel is away. Try again later.")

    @dg.job(hooks={tell})
    def job() -> None:
        broken()

    job.execute_in_process(instance=instance, raise_on_error=False)
    assert told == ["Mixpanel is away. Try again later."]
    with pytest.raises(ExplainedFailure, match="away") as caught:
        job.execute_in_process(instance=instance)
    assert caught.value.allow_retries


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("It failed.", ""),
        ("It failed. Set MP_X. Or not.", "Set MP_X. Or not."),
        ("Nothing was changed; run it again.", "run it again."),
        ("It is away; try again later. 2 are stored. Run it again.", "Run it again."),
        ("Settings are wrong. Running it again is no use.", ""),
        ("Set MP_X.", "Set MP_X."),
        ("3 differ. To load them again, run `x`.", "To load them again, run `x`."),
        ("DuckDB refused: no such column\nUse prop().", "Use prop()."),
        ("It does not reach that far back: set MP_X.", "set MP_X."),
        ("It answered 500: Check failed.", ""),
    ],
)
def test_what_to_do_begins_with_the_first_order(message, advice):
    """It is the end of the message, or nothing."""
    assert MixpanelDataError(message).what_to_do == advice
