"""Freshness policies, and the conditions that MP_AUTOMATION turns on."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from mixpanel_assets.definitions import build_definitions
from mixpanel_assets.settings import Settings

EVENTS = dg.AssetKey(["mixpanel", "events"])
PROFILES = dg.AssetKey(["mixpanel", "profiles"])


def on(zone: str = "UTC", **changes: object) -> Settings:
    return Settings(automation=True, time_regime="legacy", time_zone=zone, **changes)


def requested(
    settings: Settings, moments: list[datetime], *, key: dg.AssetKey = EVENTS
) -> Iterator[tuple[str, str]]:
    """Yield the local time and the partition of each request, looking at these moments."""
    definitions, cursor = build_definitions(settings=settings), None
    with dg.DagsterInstance.ephemeral() as instance:
        for moment in moments:
            seen = dg.evaluate_automation_conditions(
                definitions, instance, cursor=cursor, evaluation_time=moment
            )
            cursor = seen.cursor
            local = moment.astimezone(ZoneInfo(settings.export_zone))
            for partition in seen.get_requested_partitions(key):
                yield f"{local:%m-%d %H:%M}", str(partition)


def each(hours: float, since: datetime, count: int) -> list[datetime]:
    return [since + number * timedelta(hours=hours) for number in range(count)]


@pytest.mark.parametrize("day", ["2024-03-09", "2024-11-02"])
def test_yesterday_is_asked_for_once_at_the_hour(day):
    """Also on the days on which clocks change; never the day that is not over."""
    noon = datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=ZoneInfo("US/Pacific"))
    moments = each(1, noon.astimezone(UTC), 60)
    days = [(noon + timedelta(days=number)).date() for number in range(3)]
    assert list(requested(on("US/Pacific"), moments)) == [
        (f"{days[1]:%m-%d} 06:00", str(days[0])),
        (f"{days[2]:%m-%d} 06:00", str(days[1])),
    ]


def test_a_snapshot_is_asked_for_on_its_own_day():
    """A quarter of an hour later, of the day that is."""
    moments = each(0.25, datetime(2024, 3, 1, 5, tzinfo=UTC), 16)
    assert list(requested(on(), moments, key=PROFILES)) == [("03-01 06:15", "2024-03-01")]


def test_a_daemon_that_slept_asks_when_it_wakes():
    """The newest day that is over is asked for, however late."""
    slept = [datetime(2024, 3, 1, 20, tzinfo=UTC), datetime(2024, 3, 2, 15, tzinfo=UTC)]
    assert list(requested(on(), slept)) == [("03-02 15:00", "2024-03-01")]


def test_an_hour_of_ones_own():
    """MP_CLOSE_HOUR moves it."""
    moments = each(1, datetime(2024, 3, 1, 20, tzinfo=UTC), 24)
    assert list(requested(on(close_hour=9), moments)) == [("03-02 09:00", "2024-03-01")]


def test_conditions_are_off_unless_asked_for(monkeypatch):
    """MP_AUTOMATION=on attaches them, with a sensor that looks at them."""
    quiet = build_definitions()
    assert not any(spec.automation_condition for spec in quiet.resolve_all_asset_specs())
    assert not quiet.get_repository_def().sensor_defs
    monkeypatch.setenv("MP_AUTOMATION", "on")
    busy = build_definitions()
    assert all(spec.automation_condition for spec in busy.resolve_all_asset_specs())
    [sensor] = busy.get_repository_def().sensor_defs
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert "request" in sensor.description


@pytest.mark.parametrize("key", [EVENTS, PROFILES])
def test_a_day_that_is_not_in_by_four_hours_later_is_told(key):
    """In the partitions' zone."""
    definitions = build_definitions(settings=on("US/Pacific", close_hour=22))
    policy = definitions.resolve_assets_def(key).get_asset_spec(key).freshness_policy
    assert (policy.deadline_cron, policy.timezone) == ("0 2 * * *", "US/Pacific")
    assert policy.lower_bound_delta == timedelta(hours=4)
