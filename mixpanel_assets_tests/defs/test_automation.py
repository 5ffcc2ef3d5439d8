"""Freshness, and the conditions that MP_AUTOMATION turns on."""

import sys
import warnings
from collections.abc import Collection, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import duckdb
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_shared.serdes import serialize_value

from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.defs.schedules import yesterday_at
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.dagster_server import (
    ROOT,
    Dagster,
    environment_for,
    served,
    wait_for,
)
from mixpanel_assets_tests.laws import siblings

EVENTS = dg.AssetKey(["mixpanel", "events"])
PROFILES = dg.AssetKey(["mixpanel", "profiles"])
DAY = timedelta(days=1)
LOCATION = """
import dagster as dg

from mixpanel_assets.defs.assets.events import events_asset
from mixpanel_assets.defs.schedules import days_due_at
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.loading.plan import REFETCH_TAG
from mixpanel_assets.settings import load_settings

condition = days_due_at({cron!r}, {zone!r}, 1)
events = events_asset(load_settings()).map_asset_specs(
    lambda spec: spec.replace_attributes(automation_condition=condition)
)
sensor = dg.AutomationConditionSensorDefinition(
    "keep_current",
    target=[events],
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=1,
    run_tags={{REFETCH_TAG: "stale"}},
)
defs = dg.Definitions(
    assets=[events],
    sensors=[sensor],
    resources=build_definitions().resources,
    executor=dg.in_process_executor,
)
"""


def on(zone: str = "UTC", **changes: object) -> Settings:
    return Settings(automation=True, time_regime="legacy", time_zone=zone, **changes)


def requested(
    settings: Settings,
    moments: list[datetime],
    *,
    key: dg.AssetKey = EVENTS,
    stored: Collection[str] = (),
    failing: Collection[str] = (),
) -> Iterator[tuple[str, str]]:
    """Yield the local time and the partition of each request, looking at these moments.

    Args:
        settings: Of the project.
        moments: When the conditions are looked at.
        key: The asset.
        stored: Partitions that are stored before the first look.
        failing: Partitions that fail when they are requested; others are stored at once.
    """
    definitions, cursor = build_definitions(settings=settings), None
    with dg.DagsterInstance.ephemeral() as instance:
        store(instance, key, stored)
        for moment in moments:
            seen = dg.evaluate_automation_conditions(
                definitions, instance, cursor=cursor, evaluation_time=moment
            )
            cursor = seen.cursor
            local = moment.astimezone(ZoneInfo(settings.export_zone))
            partitions = sorted(map(str, seen.get_requested_partitions(key)))
            for partition in partitions:
                yield f"{local:%m-%d %H:%M}", partition
            store(instance, key, [one for one in partitions if one not in failing])


def store(instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Collection[str]) -> None:
    for partition in partitions:
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))


def each(hours: float, since: datetime, count: int) -> list[datetime]:
    return [since + number * timedelta(hours=hours) for number in range(count)]


def days(first: int, last: int) -> list[str]:
    """Name days of March 2024, both ends included."""
    return [f"2024-03-{day:02d}" for day in range(first, last + 1)]


def looks(first: int, last: int) -> list[datetime]:
    """Return an hour before, at and after the hour of each of these days of March 2024."""
    return [
        datetime(2024, 3, day, hour, tzinfo=UTC)
        for day in range(first, last + 1)
        for hour in (5, 6, 7)
    ]


@pytest.mark.parametrize("day", siblings(["2024-03-09", "2024-11-02"], keep=1))
def test_yesterday_is_asked_for_once_at_the_hour(day):
    """Also on the days on which clocks change; never the day that is not over."""
    days = [date.fromisoformat(day) + number * DAY for number in range(3)]
    moments = [
        datetime.combine(one, time(hour), ZoneInfo("US/Pacific")).astimezone(UTC)
        for one in days
        for hour in (0, 4, 5, 6, 7, 23)
    ]
    settings = on("US/Pacific", start_date=days[0], settle_days=0)
    assert list(requested(settings, moments)) == [
        (f"{days[1]:%m-%d} 06:00", str(days[0])),
        (f"{days[2]:%m-%d} 06:00", str(days[1])),
    ]


@pytest.mark.parametrize("day", siblings(["2024-03-10", "2024-11-03"], keep=1))
def test_a_day_is_asked_for_until_its_late_events_are_in(day):
    """For the last time at the first hour after it has settled, whatever the clocks do."""
    zone = ZoneInfo("US/Pacific")
    first = date.fromisoformat(day) - DAY
    moments = [
        datetime.combine(first + number * DAY, time(hour), zone).astimezone(UTC)
        for number in range(1, 6)
        for hour in (5, 6, 7)
    ]
    settings = on("US/Pacific", start_date=first, settle_days=2)
    asked = [when for when, partition in requested(settings, moments) if partition == str(first)]
    assert asked == [f"{first + number * DAY:%m-%d} 06:00" for number in (1, 2, 3)]


def test_a_failed_day_is_asked_for_once_at_each_hour():
    """However many days have come after it; a day that is stored and settled is not."""
    settings = on(settle_days=0, start_date=date(2024, 3, 1))
    found = list(requested(settings, looks(5, 7), stored=days(1, 2), failing=days(3, 3)))
    assert found == [
        ("03-05 06:00", "2024-03-03"),
        ("03-05 06:00", "2024-03-04"),
        ("03-06 06:00", "2024-03-03"),
        ("03-06 06:00", "2024-03-05"),
        ("03-07 06:00", "2024-03-03"),
        ("03-07 06:00", "2024-03-06"),
    ]


def test_what_is_missing_is_filled_a_month_back():
    """What lies further back was perhaps left out; the first partition is long ago."""
    [*found] = requested(on(settle_days=0), looks(31, 31), stored=days(5, 30))
    assert found == [("03-31 06:00", day) for day in [*days(1, 4), "2024-03-30"]]


def test_days_that_were_read_too_early_are_asked_for_when_the_daemon_wakes():
    """Each was stored before it had settled, or never; then only those that have not settled."""
    settings = on(settle_days=3, start_date=date(2024, 3, 1))
    found = list(requested(settings, [*looks(3, 4), *looks(20, 20)], stored=days(1, 2)))
    assert [day for when, day in found if when == "03-20 05:00"] == days(1, 19)
    assert {day for when, day in found if when > "03-20 05:00"} <= set(days(17, 19))


def test_a_snapshot_is_asked_for_on_its_own_day():
    """A quarter of an hour later, of the day that is."""
    moments = each(0.25, datetime(2024, 3, 1, 5, tzinfo=UTC), 16)
    assert list(requested(on(), moments, key=PROFILES)) == [("03-01 06:15", "2024-03-01")]


def test_a_daemon_that_slept_asks_when_it_wakes():
    """The newest day that is over is requested, however late."""
    slept = [datetime(2024, 3, 1, 20, tzinfo=UTC), datetime(2024, 3, 2, 15, tzinfo=UTC)]
    here = on(start_date=date(2024, 3, 1))
    assert list(requested(here, slept)) == [("03-02 15:00", "2024-03-01")]


def test_an_hour_of_ones_own():
    """MP_CLOSE_HOUR changes the hour of the request."""
    moments = each(1, datetime(2024, 3, 1, 20, tzinfo=UTC), 24)
    here = on(close_hour=9, start_date=date(2024, 3, 1))
    assert list(requested(here, moments)) == [("03-02 09:00", "2024-03-01")]


@pytest.mark.slow
def test_the_check_of_missing_days_runs_once_a_day_at_the_deadline():
    """The sensor does it instead of the schedule, without partitions; no other check."""
    settings = on("US/Pacific", start_date=date(2024, 3, 8))
    definitions, cursor, seen = build_definitions(settings=settings), None, []
    with dg.DagsterInstance.ephemeral() as instance:
        for moment in each(1, datetime(2024, 3, 9, 8, tzinfo=UTC), 48):
            result = dg.evaluate_automation_conditions(
                definitions, instance, cursor=cursor, evaluation_time=moment
            )
            cursor = result.cursor
            local = moment.astimezone(ZoneInfo("US/Pacific"))
            seen += [
                (f"{local:%m-%d %H}", one.key.name)
                for one in result.results
                if isinstance(one.key, dg.AssetCheckKey) and one.true_subset.size
            ]
    assert seen == [("03-09 10", "events_complete"), ("03-10 10", "events_complete")]


@pytest.mark.parametrize("zone", ["UTC", "US/Pacific"])
def test_a_condition_reads_as_a_time_of_day(zone):
    """The asset's page shows the label, which has no cron."""
    definitions = build_definitions(settings=on(zone, close_hour=4))
    labels = {
        spec.key.path[-1]: spec.automation_condition.get_label()
        for spec in definitions.resolve_all_asset_specs()
    }
    assert labels == {
        "events": f"incomplete days, daily at 04:00 {zone}",
        "profiles": f"today, daily at 04:15 {zone}",
        "coverage": f"daily at 08:00 {zone}",
    }
    assert yesterday_at("0 6 * * *", zone).get_label() == f"yesterday, daily at 06:00 {zone}"
    assert yesterday_at("0 6 * * 1", zone).get_label() == f"yesterday, at 0 6 * * 1 {zone}"


def test_conditions_are_off_unless_asked_for(monkeypatch):
    """MP_AUTOMATION=on attaches them, with a sensor that looks at them."""
    quiet = build_definitions()
    assert not any(spec.automation_condition for spec in quiet.resolve_all_asset_specs())
    assert [one.name for one in quiet.get_repository_def().sensor_defs] == ["late_events"]
    monkeypatch.setenv("MP_AUTOMATION", "on")
    busy = build_definitions()
    assert all(spec.automation_condition for spec in busy.resolve_all_asset_specs())
    sensor = busy.get_repository_def().get_sensor_def("keep_current")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert "request" in sensor.description


def test_a_snapshot_that_is_not_in_by_four_hours_later_is_told():
    """The four hours are counted in the partitions' zone."""
    definitions = build_definitions(settings=on("US/Pacific", close_hour=22))
    policy = definitions.resolve_assets_def(PROFILES).get_asset_spec(PROFILES).freshness_policy
    assert (policy.deadline_cron, policy.timezone) == ("0 2 * * *", "US/Pacific")
    assert policy.lower_bound_delta == timedelta(hours=4)


def test_events_are_fresh_by_their_days_and_not_by_the_last_load():
    """A backfill of last year satisfies a policy; the check of each day runs by a schedule."""
    definitions = build_definitions(settings=on("US/Pacific", close_hour=22))
    assert definitions.resolve_assets_def(EVENTS).get_asset_spec(EVENTS).freshness_policy is None
    schedule = definitions.resolve_schedule_def("check_events")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 2 * * *", "US/Pacific")
    job = definitions.resolve_job_def("check_events")
    checks = job.asset_layer.asset_graph.asset_check_keys
    assert checks == {dg.AssetCheckKey(EVENTS, "events_complete")}


def minutes_to_come() -> str:
    """The cron of the next minute that a daemon can be up for, and of one for slow machines."""
    soon = datetime.now(UTC) + timedelta(seconds=90)
    return f"{soon.minute},{(soon.minute + 3) % 60} * * * *"


def events_of(day: date, emulator: Emulator) -> list[tuple[Any, ...]]:
    records = emulator.truth.events(day, time_in_ms=True)
    properties = [(record["event"], record["properties"]) for record in records]
    return sorted((name, of["time"], of["distinct_id"]) for name, of in properties)


def stored(dagster: Dagster) -> list[tuple[Any, ...]]:
    query = "SELECT event_date, event_name, time_raw, distinct_id FROM mixpanel.events ORDER BY ALL"
    with duckdb.connect(dagster.database, read_only=True) as connection:
        return connection.execute(query).fetchall()


def wait_for_looks(dagster: Dagster, count: int) -> None:
    """Wait until the sensor has looked this number of times more."""
    for _ in range(count):
        last = dagster.sensor("keep_current")["tick"]

        def newer(last: Any = last) -> bool | None:
            tick = dagster.sensor("keep_current")["tick"]
            return True if tick["endTimestamp"] and tick != last else None

        wait_for(newer, pause=0.5)


@pytest.mark.slow
def test_a_daemon_loads_what_is_missing_once(tmp_path):
    """With a sensor that runs: at the minute one run, and none at the looks that follow."""
    # The zone of the two whose midnight is not near: during this test, yesterday is one day.
    zone = "UTC" if 1 <= datetime.now(UTC).hour < 20 else "Asia/Tokyo"
    yesterday = datetime.now(ZoneInfo(zone)).date() - DAY
    shop = EmulatorSettings(
        start=yesterday - 2 * DAY, events_per_day=50, odd_content=False, regime="legacy", zone=zone
    )
    (tmp_path / "dagster.yaml").write_text((ROOT / "dagster.yaml").read_text())
    location = tmp_path / "location.py"
    location.write_text(LOCATION.format(cron=minutes_to_come(), zone=zone))
    database = tmp_path / "w.duckdb"
    command = [sys.executable, "-m", "dagster", "dev", "-f", str(location)]
    with Emulator(shop) as emulator:
        environment = environment_for(
            emulator,
            DAGSTER_HOME=str(tmp_path),
            MP_DATABASE=str(database),
            MP_START_DATE=str(yesterday - 2 * DAY),
            MP_TIME_REGIME="legacy",
            MP_TIME_ZONE=zone,
        )
        with served(command, tmp_path, environment, database) as dagster:
            assert dagster.sensor("keep_current")["status"] == "RUNNING"
            wait_for(lambda: dagster.runs() or None, seconds=300, pause=1)
            wait_for_looks(dagster, 1)
            [run] = dagster.runs()
            assert dagster.ended(run["runId"])["status"] == "SUCCESS"
            wait_for_looks(dagster, 3)
            assert [known["runId"] for known in dagster.runs()] == [run["runId"]]
            days = [yesterday - 2 * DAY, yesterday - DAY, yesterday]
            tags = {tag["key"]: tag["value"] for tag in run["tags"]}
            assert tags["dagster/asset_partition_range_start"] == str(days[0])
            assert tags["dagster/asset_partition_range_end"] == str(days[-1])
            assert tags["mixpanel_assets/refetch"] == "stale"
            assert [day for request in emulator.requests for day in request.days] == days
            assert stored(dagster) == [
                (day, *event) for day in days for event in events_of(day, emulator)
            ]


@pytest.mark.parametrize("automation", [False, True])
def test_a_server_can_load_the_location(automation, tmp_path):
    """Dagster sends every definition to its webserver and daemon as text."""
    settings = Settings(database=tmp_path / "w.duckdb", automation=automation)
    repository = build_definitions(settings=settings).get_repository_def()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Dagster's own, of its schedules
        assert serialize_value(RepositorySnap.from_def(repository))
