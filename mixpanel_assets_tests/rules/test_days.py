"""Days wherever they are taken: a date or text of the form 2024-01-31; anything else is refused."""

import inspect
import re
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mixpanel_assets
from mixpanel_assets import Workspace
from mixpanel_assets.defs.partitions import span
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.loading.verification import verify_days
from mixpanel_assets.rules.days import (
    as_day,
    days_between,
    describe_days,
    halves,
    how_to_load,
    ranges_of,
)

DAY = date(2024, 1, 3)
NO_DAYS = [
    datetime(2024, 1, 3),
    datetime(2024, 1, 3, tzinfo=UTC),
    pd.Timestamp("2024-01-03"),
    "2024-01-03T00:00:00",
    "2024-02-30",
    "20240103",
    "yesterday",
    "",
    20240103,
    1.5,
    b"2024-01-03",
    "1999-12-31",
    date(1, 1, 1),
    date.max,
]
CALLS = {
    "sync_events": lambda ws, day: ws.sync_events(day, DAY),
    "sync_events days": lambda ws, day: ws.sync_events(days=[DAY, day]),
    "sync_profiles": lambda ws, day: ws.sync_profiles(day),
    "plan": lambda ws, day: ws.plan(DAY, day),
    "verify_days": lambda ws, day: verify_days(
        ws.api, ws.settings, ws.storage.database, from_date=day, to_date=DAY
    ),
    "stream_events": lambda ws, day: next(ws.stream_events(from_date=day, to_date=DAY)),
    "stream_event_lines": lambda ws, day: next(ws.stream_event_lines(from_date=DAY, to_date=day)),
    "fetch_events": lambda ws, day: ws.fetch_events("mine", from_date=DAY, to_date=day),
    "daily_counts": lambda ws, day: ws.daily_counts(from_date=day, to_date=DAY),
    "segmentation": lambda ws, day: ws.segmentation("Sign Up", day, DAY),
    "activity_feed": lambda ws, day: ws.activity_feed(["user-1"], DAY, day),
    "api": lambda ws, day: ws.api.segmentation("Sign Up", from_date=day, to_date=DAY),
    "event_export": lambda ws, day: ws.api.event_export(
        from_date=day, to_date=DAY, directory=ws.spool_directory
    ),
    "span": lambda ws, day: (
        span(day, str(DAY), DAY)
        if isinstance(day, str) and day not in ("", "yesterday")
        else as_day(day)
    ),
}


@pytest.fixture
def workspace(credentials, settings):
    with Workspace(credentials=credentials, settings=settings) as workspace:
        yield workspace


@pytest.mark.parametrize("name", CALLS)
def test_what_is_not_a_day_is_refused_in_one_sentence(name, workspace, emulator):
    """It is refused before any request is sent; a datetime too, whose zone would decide the day."""
    if name == "daily_counts":
        workspace.sync_events(DAY, DAY)
    before = len(emulator.requests)
    for value in NO_DAYS:
        with pytest.raises(ConfigError, match=r"is not a day\. Use|is not between 2000-01-01"):
            CALLS[name](workspace, value)
    assert len(emulator.requests) == before


@pytest.mark.parametrize("name", CALLS)
def test_text_is_taken_for_a_day(name, workspace):
    """What the calls return is tested where they are."""
    if name in ("daily_counts", "verify_days"):
        workspace.sync_events("2024-01-03", "2024-01-03")
    CALLS[name](workspace, str(DAY))


def functions():
    for name in mixpanel_assets.__all__:
        kind = getattr(mixpanel_assets, name)
        members = {name: kind} if inspect.isfunction(kind) else vars(kind)
        for one in members.values():
            function = inspect.unwrap(one) if callable(one) else one
            if inspect.isfunction(function) and not function.__name__.startswith("_"):
                yield function.__qualname__, function


@pytest.mark.parametrize(("name", "function"), sorted(dict(functions()).items()))
def test_every_public_function_that_takes_a_date_takes_text(name, function):
    """Each parameter for a date is annotated for text too."""
    for parameter in inspect.signature(function).parameters.values():
        annotation = re.sub(r"Callable\[.*\]", "", str(parameter.annotation))
        assert ("date" in annotation) <= ("str" in annotation), parameter


@given(st.sets(st.dates(date(2024, 1, 1), date(2024, 3, 1))))
def test_ranges_are_the_days(days):
    """Each day is in one of them, and neighbours are in the same."""
    ranges = ranges_of(days)
    assert {day for span in ranges for day in days_between(*span)} == days
    assert all(
        before[1].toordinal() + 1 < after[0].toordinal() for before, after in pairwise(ranges)
    )


@given(st.dates(date(2024, 1, 1), date(2024, 3, 1)), st.integers(2, 60))
def test_halves_are_the_range(first, size):
    """No day is in both halves or in none, and neither half is empty."""
    last = first + timedelta(days=size - 1)
    earlier, later = (days_between(*half) for half in halves(first, last))
    assert earlier + later == days_between(first, last)
    assert len(earlier) - len(later) in (0, 1)


def test_many_ranges_are_shown_in_part():
    """The first five, and how many more there are."""
    days = [date(2024, 1, day) for day in range(1, 29, 2)]
    assert describe_days(days).endswith("2024-01-09 and 9 more ranges")
    assert describe_days(days[:1]) == "2024-01-01"
    assert how_to_load(days, "events").count("`mp sync") == 5
    assert "--refetch all" in how_to_load(days[:1], "events", again=True)
    assert "mp sync" not in how_to_load(days, "some")
