"""How `time` is to be read, measured on the rows themselves."""

from datetime import timedelta

import pytest

from mixpanel_assets.warehouse.lines import ShiftedRowsError
from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets_tests.warehouse.conftest import DAY, DAY_MS, START_MS, Warehouse, event

HOUR_MS = 3_600_000
NEXT_DAY = DAY + timedelta(days=1)


def live(day, hours, count=30, **properties):
    """Return events of a day whose `time` is `hours` ahead of the time of their receipt."""
    times = [START_MS + day * DAY_MS + number * 60_000 for number in range(count)]
    return [
        event(
            time=time,
            **{"$mp_api_timestamp_ms": time - round(hours * HOUR_MS) + 4_000, **properties},
        )
        for time in times
    ]


@pytest.fixture
def legacy(tmp_path):
    return Warehouse(tmp_path, ProjectIdentity("1234", "us", "legacy", "US/Pacific"))


def test_a_zone_change_between_packed_days_is_found(legacy):
    """Rows may then have the date of another requested day: such a response is not stored."""
    with pytest.raises(ShiftedRowsError, match="zone changed"):
        legacy.load([*live(0, -8), *live(1, 1)], to_date=NEXT_DAY)
    legacy.load(live(0, -8))
    legacy.load(live(1, 1), from_date=NEXT_DAY)
    assert len(legacy.rows()) == 60


@pytest.mark.parametrize(("late_ms", "is_said"), [(120_000, True), (120_001, False)])
def test_events_agree_to_two_minutes(warehouse, late_ms, is_said):
    """A phone that sends later says nothing about the zone."""
    times = [START_MS + number * 60_000 for number in range(20)]
    sent = [time + 8 * HOUR_MS + late_ms for time in times]
    rows = [
        event(time=t, **{"$mp_api_timestamp_ms": at}) for t, at in zip(times, sent, strict=True)
    ]
    [report] = warehouse.load(rows)
    assert (report.time_warning is not None) is is_said


@pytest.mark.parametrize(("others", "is_said"), [(9, True), (10, False)])
def test_more_than_half_of_the_events_must_agree(warehouse, others, is_said):
    """Half of them may do so by chance."""
    earlier, later = live(0, -16, count=others), live(0, 0, count=others)
    [report] = warehouse.load([*earlier, *live(0, -8, count=20), *later])
    assert (report.time_warning is not None) is is_said


def test_in_true_utc_the_date_of_a_row_is_certain(warehouse):
    """Whatever the offsets of the requested days are, they are stored, with warnings."""
    reports = warehouse.load([*live(0, -8), *live(1, 1)], to_date=NEXT_DAY)
    assert [(report.row_count, "ahead of UTC" in report.time_warning) for report in reports] == [
        (30, True),
        (30, True),
    ]


def test_a_change_of_clocks_is_no_change_of_zone(tmp_path):
    """Summer time moves the offset and the zone with it."""
    spring = Warehouse(tmp_path, ProjectIdentity("1234", "us", "legacy", "US/Pacific"))
    first = DAY + timedelta(days=7)
    rows = [*live(7, -7), *live(8, -7), *live(6, -8)]
    reports = spring.load(
        rows, from_date=first - timedelta(days=1), to_date=NEXT_DAY + 7 * (NEXT_DAY - DAY)
    )
    assert {report.time_warning for report in reports} == {None}


def test_imported_few_and_delayed_events_prove_nothing(warehouse):
    """Only enough live events that agree say anything against the settings."""
    scattered = [row for hours in range(30) for row in live(0, hours / 7, count=1)]
    for rows in (live(0, -8, **{"$import": True}), live(0, -8, count=5), scattered, [event()]):
        [report] = warehouse.load(rows)
        assert report.time_warning is None
    [report] = warehouse.load(live(0, -8))
    assert "MP_TIME_REGIME=legacy" in report.time_warning
