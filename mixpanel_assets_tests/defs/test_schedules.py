"""What each schedule requests, whatever the moment; no run is started here."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from dagster._utils.schedules import cron_string_iterator
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets import MixpanelResource, live_query_asset, live_query_schedule
from mixpanel_assets.defs.io_managers import WarehouseIOManager
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.defs.names import THE_ONLY_PROJECT
from mixpanel_assets.defs.ops import SegmentationConfig
from mixpanel_assets.defs.partitions import daily_partitions
from mixpanel_assets.defs.schedules import schedules
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.laws import examples, siblings

ZONES = (
    "UTC",
    "US/Pacific",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Asia/Kolkata",
)
SIGN_UPS = live_query_asset("sign_ups", query=SegmentationConfig(event="Sign Up"))
NAMES = ("close_yesterday", "snapshot_profiles", "deep_sweep")
MOMENTS = st.datetimes(datetime(2024, 1, 20), datetime(2027, 1, 1), timezones=st.just(UTC))
PROJECTS = st.builds(
    lambda regime, zone, hour: Settings(time_regime=regime, time_zone=zone, close_hour=hour),
    st.sampled_from(["utc", "legacy"]),
    st.sampled_from(ZONES),
    st.integers(1, 23),
)


def schedule_named(name: str, settings: Settings) -> dg.ScheduleDefinition:
    keys = [THE_ONLY_PROJECT.asset_key("events")], [THE_ONLY_PROJECT.asset_key("profiles")]
    found = schedules(settings, THE_ONLY_PROJECT, *keys)
    return next(schedule for schedule in found if schedule.name == name)


def asked(name: str, settings: Settings, moment: datetime) -> dg.RunRequest:
    """Return the one request of a tick."""
    context = dg.build_schedule_context(scheduled_execution_time=moment)
    request = schedule_named(name, settings)(context)
    assert isinstance(request, dg.RunRequest)
    return request


def next_tick(name: str, settings: Settings, moment: datetime) -> datetime:
    schedule = schedule_named(name, settings)
    return next(
        cron_string_iterator(
            moment.timestamp(), schedule.cron_schedule, schedule.execution_timezone
        )
    )


def days_asked(request: dg.RunRequest) -> list[date]:
    first = request.partition_key or request.tags["dagster/asset_partition_range_start"]
    last = request.partition_key or request.tags["dagster/asset_partition_range_end"]
    return [date.fromisoformat(day) for day in (first, last)]


def end_of(day: date, settings: Settings) -> datetime:
    return datetime.combine(
        day + timedelta(days=1), datetime.min.time(), ZoneInfo(settings.export_zone)
    ).astimezone(UTC)


@pytest.mark.parametrize("name", ["close_yesterday", "deep_sweep"])
@examples(30)
@given(PROJECTS, MOMENTS)
def test_days_of_events_are_over_when_they_are_asked_for(name, settings, moment):
    """By the hours of MP_CLOSE_HOUR, less one in the night that clocks go forward."""
    tick = next_tick(name, settings, moment)
    _, last = days_asked(asked(name, settings, tick))
    passed = tick.astimezone(UTC) - end_of(last, settings)
    assert passed >= timedelta(hours=settings.close_hour - 1)
    assert passed < timedelta(hours=settings.close_hour + 3), "the newest day that is over"


@examples(30)
@given(PROJECTS, MOMENTS)
def test_a_snapshot_is_taken_of_the_day_that_is(settings, moment):
    """Profiles are kept under the day on which they are read."""
    tick = next_tick("snapshot_profiles", settings, moment)
    [day, _] = days_asked(asked("snapshot_profiles", settings, tick))
    assert day == tick.astimezone(ZoneInfo(settings.export_zone)).date()


@pytest.mark.parametrize("name", NAMES)
@examples(30)
@given(settings=PROJECTS, moment=MOMENTS)
def test_every_day_asked_for_is_a_partition(name, settings, moment):
    """In the partitions' own zone and spelling."""
    tick = next_tick(name, settings, moment)
    partitions = daily_partitions(settings).get_partition_keys(tick)
    first, last = days_asked(asked(name, settings, tick))
    assert {str(first), str(last)} <= set(partitions)


@pytest.mark.parametrize("zone", siblings(ZONES, keep=2))
def test_a_year_of_ticks_asks_for_every_day_once(zone):
    """Every day is requested exactly once, also where clocks change."""
    settings = Settings(time_regime="legacy", time_zone=zone)
    schedule = schedule_named("close_yesterday", settings)
    ticks = cron_string_iterator(
        datetime(2025, 1, 1, tzinfo=UTC).timestamp(),
        schedule.cron_schedule,
        schedule.execution_timezone,
    )
    requests = [asked("close_yesterday", settings, next(ticks)) for _ in range(366)]
    days = [days_asked(request)[0] for request in requests]
    assert days == [days[0] + timedelta(days=number) for number in range(366)]
    assert len({request.run_key for request in requests}) == 366


@pytest.mark.parametrize("name", NAMES)
@examples(30)
@given(settings=PROJECTS, moment=MOMENTS)
def test_a_tick_that_comes_twice_starts_one_run(name, settings, moment):
    """Whatever the zone that its time is told in: the run key is the same."""
    tick = next_tick(name, settings, moment)
    told = [asked(name, settings, tick.astimezone(ZoneInfo(zone))) for zone in ZONES]
    assert len({request.run_key for request in told}) == 1


def test_a_sweep_reads_the_last_finished_days_in_one_run():
    """Ten of them, unless MP_SWEEP_DAYS says otherwise."""
    monday = datetime(2024, 3, 4, 6, 30, tzinfo=UTC)
    request = asked("deep_sweep", Settings(), monday)
    assert days_asked(request) == [date(2024, 2, 23), date(2024, 3, 3)]
    request = asked("deep_sweep", Settings(sweep_days=3), monday)
    assert days_asked(request) == [date(2024, 3, 1), date(2024, 3, 3)]


def test_nothing_is_asked_before_the_first_partition():
    """A sweep begins there; before it, ticks are skipped."""
    settings = Settings(start_date=date(2024, 3, 1))
    tick = datetime(2024, 3, 1, 7, tzinfo=UTC)
    for name in ("close_yesterday", "deep_sweep"):
        found = schedule_named(name, settings)(
            dg.build_schedule_context(scheduled_execution_time=tick)
        )
        assert isinstance(found, dg.SkipReason)
        assert "MP_START_DATE" in found.skip_message
    first = days_asked(asked("deep_sweep", settings, tick + timedelta(days=2)))
    assert first == [date(2024, 3, 1), date(2024, 3, 2)]


@pytest.mark.parametrize("name", NAMES)
def test_schedules_are_off_and_tell_what_they_cost(name):
    """Every schedule is off by default, and its description mentions the requests that it costs."""
    settings = Settings(close_hour=4, time_regime="legacy", time_zone="Asia/Kolkata")
    schedule = build_definitions(settings=settings).resolve_schedule_def(name)
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    assert schedule.execution_timezone == "Asia/Kolkata"
    assert "04:" in schedule.description
    assert "request" in schedule.description


@pytest.mark.parametrize(
    ("settings", "cost"),
    [
        (Settings(sweep_days=10), "1 to 10 export requests"),
        (Settings(sweep_days=10, days_per_request=4), "3 export requests"),
        (Settings(sweep_days=10, days_per_request=10), "1 export request a week"),
    ],
)
def test_a_sweep_tells_its_cost_by_the_settings(settings, cost):
    """MP_DAYS_PER_REQUEST fixes it."""
    assert cost in schedule_named("deep_sweep", settings).description


@pytest.mark.parametrize("name", NAMES)
def test_dagster_can_run_what_a_tick_asks_for(name):
    """The request fits the job's partitions."""
    definitions = build_definitions()
    context = dg.build_schedule_context(
        scheduled_execution_time=datetime(2024, 3, 4, 7, tzinfo=UTC),
        repository_def=definitions.get_repository_def(),
    )
    [request] = definitions.resolve_schedule_def(name).evaluate_tick(context).run_requests
    assert days_asked(request)


@examples(30)
@given(settings=PROJECTS, moment=MOMENTS)
def test_answers_are_asked_for_once_their_day_is_over_in_utc_and_in_the_project(settings, moment):
    """Whatever the zone: both midnights have passed, and no day is left out."""
    schedule = live_query_schedule(SIGN_UPS, settings=settings)
    ticks = cron_string_iterator(
        moment.timestamp(), schedule.cron_schedule, schedule.execution_timezone
    )
    days = []
    for _ in range(2):
        tick = next(ticks)
        request = schedule(dg.build_schedule_context(scheduled_execution_time=tick))
        days.append(date.fromisoformat(request.partition_key))
        for zone in ("UTC", settings.time_zone):
            assert tick.astimezone(ZoneInfo(zone)).date() > days[-1]
    assert days[1] == days[0] + timedelta(days=1)


def test_a_schedule_of_answers_loads_with_its_assets():
    """It brings its job, which selects the assets alone."""
    schedule = live_query_schedule(SIGN_UPS, name="sign_ups_daily")
    definitions = dg.Definitions(
        assets=[SIGN_UPS],
        schedules=[schedule],
        resources={
            "mixpanel": MixpanelResource(),
            "mixpanel_warehouse": WarehouseIOManager(database="x"),
        },
    )
    job = definitions.resolve_job_def("sign_ups_daily")
    assert job.asset_layer.executable_asset_keys == {SIGN_UPS.key}
    tick = datetime(2023, 12, 1, 7, tzinfo=UTC)
    skipped = schedule(dg.build_schedule_context(scheduled_execution_time=tick))
    assert "MP_START_DATE" in skipped.skip_message
