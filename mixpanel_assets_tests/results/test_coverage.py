"""The calendar of stored days: each day in its place, and drawn as what it is."""

import re
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import get_args
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.results import CoverageResult, CoverageStatus, CoveredDay
from mixpanel_assets.results.coverage import LOOKS, MOST_WEEKS, calendar_of
from mixpanel_assets_tests.laws import examples

STATUSES = get_args(CoverageStatus)


def days_from(first: date, statuses: list[CoverageStatus], table: str = "events"):
    """Return consecutive days with these statuses."""
    return tuple(
        CoveredDay(table, first + timedelta(days=number), status, 10, datetime(2026, 1, 1, 9, 5))
        for number, status in enumerate(statuses)
    )


def squares(image: str) -> Counter[str]:
    """Return the number of squares of each color, those of the legend included."""
    found: Counter[str] = Counter()
    for path in ElementTree.fromstring(image).iter("{http://www.w3.org/2000/svg}path"):
        for length in re.findall(r"h(\d+)", path.get("d")):
            found[path.get("stroke")] += 1 + int(length) // 14
    return found


@examples(25)
@given(
    st.dates(date(2009, 1, 1), date(2040, 1, 1)),
    st.integers(1, 900),
    st.sampled_from([1, 5, 40, MOST_WEEKS]),
)
def test_each_day_has_one_place(first, number, most_weeks):
    """By week and weekday, in order, with no more weeks than there is room for."""
    days = days_from(first, ["complete"] * number)
    parts = calendar_of(days, most_weeks)
    assert sorted((one for part in parts for one in part.days.values()), key=lambda d: d.day) == [
        *days
    ]
    for part in parts:
        assert part.number <= most_weeks
        assert {weekday for _, weekday in part.days} <= set(range(7))
        assert all(one.day.weekday() == weekday for (_, weekday), one in part.days.items())
        by_place = sorted(part.days.items())
        assert [one.day for _, one in by_place] == sorted(one.day for _, one in by_place)
        weeks = [week for week, _ in part.months]
        assert all(after - before >= 4 for before, after in pairwise(weeks))


def test_a_year_that_begins_in_any_month_is_one_part():
    """January then has the number of its year, and the weeks of the year are not left empty."""
    [part] = calendar_of(days_from(date(2025, 11, 28), ["complete"] * 365))
    assert part.number == 53
    assert part.year == 2025
    assert [name for _, name in part.months][:3] == ["Dec", "'26", "Feb"]
    first, second = calendar_of(days_from(date(2025, 11, 28), ["complete"] * 390))
    assert (first.year, second.year) == (2025, 2026)
    assert min(week for week, _ in first.days) == 47


@examples(25)
@given(st.lists(st.sampled_from(STATUSES), min_size=1, max_size=500))
def test_the_image_has_a_square_for_each_day(statuses):
    """In the color of its status, and one more in the legend; no two statuses share a color."""
    result = CoverageResult(days_from(date(2024, 1, 1), statuses))
    drawn = squares(result.svg(details=False))
    assert drawn == {LOOKS[status].color: days + 1 for status, days in Counter(statuses).items()}
    assert len({look.color for look in LOOKS.values()}) == len(LOOKS) == len(STATUSES)
    assert len({look.symbol for look in LOOKS.values()}) == len(STATUSES)


def test_each_day_is_told_under_the_pointer():
    """In the image as a file; what Dagster keeps with each run is a tenth of it."""
    fetched_at = datetime(2026, 1, 1, 9, 5, tzinfo=UTC)
    result = CoverageResult(
        (
            CoveredDay("events", date(2024, 1, 1), "complete", 1234, fetched_at),
            CoveredDay("events", date(2024, 1, 2), "never loaded", 0, None),
        )
    )
    titles = re.findall("<title>(.*?)</title>", result.svg())
    assert titles == [
        "2024-01-01: complete, 1,234 rows, 2026-01-01 09:05 UTC",
        "2024-01-02: never loaded, 0 rows",
    ]
    year = CoverageResult(days_from(date(2024, 1, 1), ["complete"] * 366))
    assert len(year.svg(details=False)) < 2_000 < len(year.svg()) / 10


def test_tables_have_a_calendar_each():
    """Below their names; a page lists their ranges of days too."""
    events = days_from(date(2024, 1, 1), ["complete", "complete", "failed"])
    others = days_from(date(2024, 1, 1), ["open"], table="a<b>")
    result = CoverageResult((*others, *events))
    assert result.counts == {"a<b>": {"open": 1}, "events": {"complete": 2, "failed": 1}}
    assert ">a&lt;b&gt;</text>" in result.svg()
    page = result.html("Days <of> shop")
    assert "Days &lt;of&gt; shop" in page
    assert "<td>2024-01-01</td><td>2024-01-02</td><td>2</td><td>complete</td><td>20</td>" in page
    assert "<b>" not in page
    assert result._repr_html_() == result.svg()


def test_nothing_is_drawn_of_no_day():
    """An image without a day is an image."""
    assert squares(CoverageResult(()).svg()) == {}
    assert CoverageResult(()).counts == {}
