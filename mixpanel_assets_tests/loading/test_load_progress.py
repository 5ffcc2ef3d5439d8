"""What a run says of how far it is."""

from datetime import date

import pytest

from mixpanel_assets.loading.plan import LoadProgress, RequestBudget


def progress(**changes):
    given = {
        "from_date": date(2024, 3, 1),
        "to_date": date(2024, 3, 31),
        "request_days": 31,
        "days_done": 91,
        "days": 366,
        "rows": 1_234_000,
        "seconds": 100.0,
        "requests_to_come": 9,
        "budget": RequestBudget(58, 3605.0, used=4),
    }
    return LoadProgress(**{**given, **changes})


def test_a_line_says_all_there_is_to_know():
    """Days, rows, pace, budget and time left."""
    assert str(progress()) == (
        "2024-03-01..2024-03-31: 91 of 366 days, 1,234,000 events at 12,340/s, "
        "54 export requests left this hour, about 5 min to go"
    )


def test_one_day_is_one_day():
    """The line names one day instead of a range, and no budget without one."""
    line = str(progress(to_date=date(2024, 3, 1), days=91, budget=None))
    assert line == "2024-03-01: 91 of 91 days, 1,234,000 events at 12,340/s, about 0 s to go"


def test_before_any_time_has_passed_there_is_no_pace():
    """The first line may come within the clock's own grain."""
    assert progress(seconds=0.0).rows_per_second == 0
    assert progress(seconds=0.0, budget=None).seconds_left == 0


@pytest.mark.parametrize(("requests", "said"), [(54, "5 min"), (55, "60 min"), (58 * 3, "3.0 h")])
def test_a_spent_budget_is_time_to_wait(requests, said):
    """Time left is at least the wait for the hour in which the last request has room."""
    assert str(progress(requests_to_come=requests)).endswith(f"about {said} to go")


@pytest.mark.parametrize(("days_done", "said"), [(0, "10.2 h"), (1, "10.1 h"), (2, "5.1 h")])
def test_the_first_day_sets_the_pace(days_done, said):
    """Before it has arrived, the time so far is taken for that of one day."""
    assert str(progress(days_done=days_done, budget=None)).endswith(f"about {said} to go")


@pytest.mark.parametrize(
    ("seconds", "said"), [(119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h")]
)
def test_from_two_on_the_larger_unit_is_said(seconds, said):
    """A single minute or hour would be too coarse."""
    half = progress(days_done=1, days=2, seconds=seconds, budget=None)
    assert str(half).endswith(f"about {said} to go")
