"""Packing days into requests: laws of the plan, and what it says beforehand."""

from datetime import date, timedelta
from itertools import pairwise
from statistics import median

from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.loading.plan import (
    MAX_DAYS,
    TARGET_BYTES,
    Estimates,
    RequestBudget,
    RequestPlan,
    is_expired,
)
from mixpanel_assets.rules.days import days_between

FIRST = date(2023, 1, 1)
MB = 1_000_000

lengths = st.integers(1, 400)
sizes = st.integers(0, 2 * TARGET_BYTES)
known = st.dictionaries(st.integers(-60, 460), sizes, max_size=60).map(
    lambda offsets: {FIRST + timedelta(days=offset): size for offset, size in offsets.items()}
)


def calendar(length):
    return days_between(FIRST, FIRST + timedelta(days=length - 1))


def requests_of(days, weights, **given):
    return list(RequestPlan(days, weights, **given))


def lengths_of(windows):
    return [(last - first).days + 1 for first, last in windows]


def weighed(length, megabytes):
    return dict.fromkeys(calendar(length), megabytes * MB)


@given(lengths, known, st.none() | st.integers(1, MAX_DAYS))
def test_requests_tile_the_calendar(length, weights, fixed):
    """Every day is in exactly one request, in order, whatever is known."""
    days = calendar(length)
    windows = requests_of(days, weights, fixed=fixed)
    assert [day for first, last in windows for day in days_between(first, last)] == days


@given(lengths, known)
def test_no_request_has_more_than_a_month(length, weights):
    """31 days is the most, however little they weigh."""
    assert max(lengths_of(requests_of(calendar(length), weights))) <= MAX_DAYS


@given(lengths, known)
def test_no_request_outweighs_the_target_unless_it_is_one_day(length, weights):
    """What the days are believed to weigh fits; only a heavy day alone may not."""
    estimates = Estimates(weights)
    for first, last in requests_of(calendar(length), weights):
        days = days_between(first, last)
        assert first == last or (estimates.total(days) or 0) <= TARGET_BYTES
        assert first == last or sum(weights.get(day, 0) for day in days) <= TARGET_BYTES


@given(st.lists(sizes, min_size=1, max_size=80))
def test_requests_come_near_the_target(numbers):
    """Where every day is known, a request ends only because one more day would not fit."""
    days_known = calendar(len(numbers))
    weights = dict(zip(days_known, numbers, strict=True))
    windows = requests_of(days_known, weights)
    for (first, last), (following, _) in pairwise(windows):
        days = days_between(first, last)
        full = sum(weights[day] for day in [*days, following]) > TARGET_BYTES
        assert full or len(days) == MAX_DAYS


def test_a_request_holds_200_mb_and_no_byte_more():
    """The target itself still fits; a day without events adds nothing to it."""
    half, days = 100_000_000, calendar(3)
    assert lengths_of(requests_of(days, dict(zip(days, (half, 0, half), strict=True)))) == [3]
    assert lengths_of(requests_of(days, dict(zip(days, (half, 0, half + 1), strict=True)))) == [
        2,
        1,
    ]


@given(lengths, known, st.integers(1, MAX_DAYS))
def test_a_fixed_number_of_days_is_kept(length, weights, fixed):
    """MP_DAYS_PER_REQUEST beats every weight; only the last request may be shorter."""
    *full, rest = lengths_of(requests_of(calendar(length), weights, fixed=fixed))
    assert set(full) <= {fixed}
    assert rest <= fixed


def test_an_unknown_project_starts_with_one_day():
    """An unknown project is requested in small steps: a day, six days, then months."""
    assert lengths_of(requests_of(calendar(100), {})) == [1, 6, 31, 31, 31]


def test_what_is_learnt_on_the_way_counts():
    """Days that turn out heavy make the following requests smaller."""
    plan = RequestPlan(calendar(20), {})
    seen = []
    for first, last in plan:
        seen.append((last - first).days + 1)
        for day in days_between(first, last):
            plan.learn(day, 50 * MB)
    assert seen == [1, 4, 4, 4, 4, 3]


def test_a_day_weighs_what_its_neighbours_weigh():
    """The median of the seven nearest days; a single odd day does not tilt it."""
    weights = {**weighed(10, 20), FIRST: 900 * MB}
    assert Estimates(weights).of(FIRST + timedelta(days=12)) == 20 * MB
    assert Estimates(weights).of(FIRST) == 900 * MB
    assert Estimates({}).of(FIRST) is None


@given(
    st.dictionaries(st.integers(0, 24), st.integers(0, 9)), st.lists(st.integers(0, 29), max_size=3)
)
def test_an_estimate_is_the_median_of_the_seven_nearest_days(numbers, learnt):
    """Of two days that are equally near, the earlier one counts; what was forgotten does not."""
    weights = {FIRST + timedelta(days=place): number for place, number in numbers.items()}
    estimates = Estimates({FIRST + timedelta(days=60): 5, FIRST: 9} | weights)
    estimates.forget(FIRST + timedelta(days=60))
    estimates.forget(FIRST + timedelta(days=61))  # was never known
    known = {FIRST: 9} | weights
    for place in learnt:
        known[FIRST + timedelta(days=place)] = 7
        estimates.learn(FIRST + timedelta(days=place), 7)
    for day in calendar(30):
        nearest = sorted(known, key=lambda other: (abs(other - day), other))[:7]
        expected = round(median(known[other] for other in nearest))
        assert estimates.of(day) == known.get(day, expected)


def test_eight_known_days_are_one_too_many_for_an_estimate():
    """The farthest would tilt the median."""
    numbers = [10, 10, 10, 10, 20, 20, 20, 20]
    estimates = Estimates(dict(zip(calendar(8), numbers, strict=True)))
    assert estimates.of(FIRST + timedelta(days=8)) == 20
    assert estimates.of(FIRST - timedelta(days=1)) == 10


def test_the_size_of_a_request_is_the_sum_of_its_days():
    """While no day is known, it is taken for a full request."""
    plan = RequestPlan(calendar(3), weighed(2, 20))
    assert plan.estimated_bytes(FIRST, FIRST + timedelta(days=2)) == 60 * MB
    assert RequestPlan(calendar(3), {}).estimated_bytes(FIRST, FIRST) == TARGET_BYTES


def test_days_without_events_weigh_nothing():
    """They are known; without a known day, there is no total."""
    assert Estimates({FIRST: 0, FIRST + timedelta(days=1): 5}).total(calendar(2)) == 5
    assert Estimates({}).total(calendar(3)) is None


def test_a_day_has_expired_before_the_horizon():
    """The horizon itself is requested, and without one every day."""
    before, after = FIRST - timedelta(days=1), FIRST + timedelta(days=1)
    assert [is_expired(day, FIRST) for day in (before, FIRST, after)] == [True, False, False]
    assert not is_expired(date.min, None)


@given(st.dates(), st.integers(0, 40), st.data())
def test_known_days_are_near_on_both_sides(day, distance, data):
    """Exactly the known days within the distance are returned."""
    here = day.toordinal()
    ordinals = st.integers(max(1, here - 50), min(date.max.toordinal(), here + 50))
    days = sorted(map(date.fromordinal, data.draw(st.sets(ordinals))))
    near = Estimates(dict.fromkeys(days, 1)).known_near(day, distance)
    assert near == [other for other in days if abs(other - day).days <= distance]


def test_a_day_at_the_distance_is_near_and_the_next_one_is_not():
    """On both sides alike."""
    days = calendar(20)
    assert Estimates(dict.fromkeys(days, 1)).known_near(days[10], 3) == days[7:14]


def test_days_known_long_ago_are_no_licence():
    """A project that weighed nothing years ago is unknown again today."""
    later = [day + timedelta(days=700) for day in calendar(40)]
    assert lengths_of(requests_of(later, weighed(30, 0)))[:2] == [1, 6]


def test_sizes_that_were_wrong_are_forgotten_in_the_next_plan():
    """Days that are requested again are planned as days of unknown size."""
    days = calendar(20)
    plan = RequestPlan(days, weighed(20, 300))
    assert lengths_of(plan) == [1] * 20
    assert lengths_of(plan.again(days)) == [1, 6, 13]
    assert plan.again(days[:1]).days == days[:1]


def test_a_gap_between_days_ends_a_request():
    """A request never spans a day that is not in the plan."""
    days = [*calendar(3), FIRST + timedelta(days=9)]
    assert lengths_of(requests_of(days, weighed(12, 1))) == [3, 1]
    assert lengths_of(requests_of(days, weighed(12, 1), fixed=31)) == [3, 1]


def test_the_waiting_time_follows_from_the_budget():
    """58 requests are sent at once, the next 58 an hour later; what is spent counts."""
    budget = RequestBudget(limit=58, window_seconds=3605)
    assert [budget.seconds_for(n) for n in (1, 58, 59, 116, 117)] == [0, 0, 3605, 3605, 7210]
    assert RequestBudget(limit=58, window_seconds=3605, used=58).seconds_for(1) == 3605
    assert RequestBudget(limit=58, window_seconds=3605, used=60).left == 0


def test_days_at_the_ends_of_the_calendar_are_planned_too():
    """The first and the last day of the calendar are planned without an overflow."""
    for day in (date.min, date.max):
        assert requests_of([day], {}) == [(day, day)]
        assert requests_of([day], {day: 5, FIRST: 7}) == [(day, day)]


def test_requests_to_come_are_those_of_the_days_left():
    """Counted from any day on, with what is known then; gaps end a request here too."""
    days = [*calendar(20), FIRST + timedelta(days=40)]
    plan = RequestPlan(days, {}, fixed=7)
    assert [plan.requests_after(day) for day in (FIRST, days[6], days[19], days[20])] == [
        4,
        3,
        1,
        0,
    ]
