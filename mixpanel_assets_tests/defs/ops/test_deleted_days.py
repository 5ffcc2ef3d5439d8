"""Old days that Mixpanel has deleted: whatever loads or reads them again, their rows are kept."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.client import Credentials
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.defs.resources import MixpanelResource
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.defs.ops.conftest import failure_of, metadata_of

EXPORT = "/api/2.0/export"
DAYS, KEPT_BY_MIXPANEL = 6, 3
ROWS = "SELECT * FROM mixpanel.events ORDER BY ALL"


@pytest.fixture(scope="module")
def today() -> date:
    """The day on which the tests began, so that midnight does not matter."""
    return datetime.now(UTC).date()


@pytest.fixture
def emulator(today: date) -> Iterator[Emulator]:
    """Six finished days of a small project."""
    noon = datetime(today.year, today.month, today.day, 12, tzinfo=UTC)
    with Emulator(
        EmulatorSettings(
            start=today - timedelta(days=DAYS), days=DAYS, events_per_day=40, now=lambda: noon
        )
    ) as emulator:
        yield emulator


@pytest.fixture
def days(today: date) -> list[date]:
    return [today - timedelta(days=number) for number in range(DAYS, 0, -1)]


@pytest.fixture
def settings(emulator: Emulator, tmp_path: Any, days: list[date]) -> Settings:
    return Settings(
        api_base_url=emulator.base_url, database=tmp_path / "w.duckdb", start_date=days[0]
    )


@pytest.fixture
def stored(
    settings: Settings, credentials: Credentials, emulator: Emulator, days: list[date]
) -> Callable[[], list[Any]]:
    """Load the six days, then let Mixpanel delete three; return what is stored when called."""
    workspace = Workspace(credentials=credentials, settings=settings)
    with workspace:
        workspace.sync_events(days[0], days[-1])

    def rows() -> list[Any]:
        with Workspace(credentials=credentials, settings=settings) as workspace:
            return workspace.sql_rows(ROWS)

    emulator.retention_days = KEPT_BY_MIXPANEL
    return rows


@pytest.fixture
def run(
    settings: Settings, resource: MixpanelResource, instance: dg.DagsterInstance
) -> Callable[..., dg.ExecuteInProcessResult]:
    """Run a job of the code location, with MP_RETENTION_DAYS if it is given."""

    def run(job: str, retention_days: int | None, **how: Any) -> dg.ExecuteInProcessResult:
        known = settings.model_copy(update={"retention_days": retention_days})
        definitions = build_definitions(settings=known, resources={"mixpanel": resource})
        return definitions.resolve_job_def(job).execute_in_process(
            instance=instance, raise_on_error=False, **how
        )

    return run


def requested(emulator: Emulator, before: int) -> set[date]:
    return {day for one in emulator.requests[before:] if one.path == EXPORT for day in one.days}


def day_metadata(result: dg.ExecuteInProcessResult) -> dict[date, dict[str, Any]]:
    return {
        date.fromisoformat(event.partition): {
            name: getattr(value, "value", value)
            for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.partition
    }


def sweep(settings: Settings, today: date) -> dict[str, str]:
    """Return the tags of the run that the schedule starts today."""
    schedule = build_definitions(settings=settings).resolve_schedule_def("deep_sweep")
    tick = datetime(today.year, today.month, today.day, 6, 30, tzinfo=UTC)
    found = schedule(dg.build_schedule_context(scheduled_execution_time=tick))
    assert isinstance(found, dg.RunRequest)
    return dict(found.tags)


def test_a_sweep_keeps_what_mixpanel_has_deleted(run, stored, settings, today, days, emulator):
    """The run succeeds, and each day says how many of its rows Mixpanel has no more."""
    rows, before = stored(), len(emulator.requests)
    result = run("deep_sweep", None, tags=sweep(settings, today))
    assert result.success
    assert stored() == rows
    assert requested(emulator, before) == set(days)
    told = day_metadata(result)
    assert [told[day].get("rows_vanished", 0) == told[day]["rows"] for day in days] == (
        [True] * 3 + [False] * 3
    )


@pytest.mark.slow
def test_refetching_all_requests_no_day_that_mixpanel_has_deleted(
    run, stored, settings, today, days, emulator
):
    """By MP_RETENTION_DAYS: the days stay as they are, and their metadata say so."""
    rows, before = stored(), len(emulator.requests)
    result = run(
        "deep_sweep",
        KEPT_BY_MIXPANEL,
        tags=sweep(settings, today),
        run_config={"ops": {"mixpanel__events": {"config": {"refetch": "all"}}}},
    )
    assert result.success
    assert stored() == rows
    assert requested(emulator, before) == set(days[3:])
    told = day_metadata(result)
    assert [told[day].get("kept", False) for day in days] == [True] * 3 + [False] * 3
    assert [told[day]["status"] for day in days] == ["complete"] * 6


@pytest.mark.slow
def test_a_verification_says_why_deleted_days_differ_or_are_not_compared(
    run, stored, days, emulator
):
    """Without the setting they have rows that Mixpanel has not; with it, they are expired."""
    rows = stored()
    span = {"from_date": str(days[0]), "to_date": str(days[-1])}
    config = {"ops": {"compare_days": {"config": span}}}
    failed = run("verify_range", None, run_config=config)
    assert "3 of 6 days differ" in failure_of(failed)
    assert failure_of(failed).count(" gone; Mixpanel has no event of it)") == 3
    before = len(emulator.requests)
    result = run("verify_range", KEPT_BY_MIXPANEL, run_config=config)
    metadata = metadata_of(result)
    assert (metadata["days"], metadata["days_that_differ"]) == (6, 0)
    statuses = [record.data["status"] for record in metadata["differences"].records]
    assert statuses == ["expired"] * 3 + ["complete"] * 3
    assert requested(emulator, before) == set(days[3:])
    assert stored() == rows
