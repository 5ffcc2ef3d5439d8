"""Which days a load keeps, judged by their ledger rows."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.loading.plan import (
    KEEP_NONE,
    MOST_DAYS_READ_AGAIN,
    REFETCH_TAG,
    Keeping,
    Refetch,
)
from mixpanel_assets.settings import Settings

DAY = date(2024, 3, 9)
STALE = Keeping(Refetch.stale)
SETTLED_AT = datetime(2024, 3, 15)


def row(status="complete", fetched_at=SETTLED_AT, run_id="a"):
    return {"day": DAY, "status": status, "fetched_at": fetched_at, "run_id": run_id}


@pytest.mark.parametrize(
    ("status", "is_kept"),
    [
        ("complete", True),
        ("empty", True),
        ("partial", False),
        ("open", False),
        ("not available", False),
    ],
)
def test_only_a_finished_day_is_settled(status, is_kept):
    """However late it was read, a day that lacks something is stale."""
    assert STALE.keeps(row(status, SETTLED_AT + timedelta(days=900))) == is_kept


def test_a_day_settles_so_many_days_after_its_end():
    """The moment itself counts; a second before, late events might still have come."""
    assert STALE.keeps(row())
    assert not STALE.keeps(row(fetched_at=SETTLED_AT - timedelta(seconds=1)))
    assert Keeping(Refetch.stale, settle_days=4).keeps(
        row(fetched_at=SETTLED_AT - timedelta(days=1))
    )


def test_a_day_ends_where_the_project_is():
    """Days of an old project are its zone's; clocks that change in between change nothing."""
    zoned = Keeping(Refetch.stale, zone="US/Pacific")
    assert zoned.settled_at(DAY) == datetime(2024, 3, 15, 8, tzinfo=UTC)


@given(st.sampled_from(["complete", "empty", "not available", "open"]), st.sampled_from("abc"))
def test_what_is_missing_is_judged_by_the_run_alone(status, run_id):
    """Rows that some other run stored are none of this one, whatever day it is."""
    keeping = Keeping(Refetch.missing, frozenset("ab"))
    assert keeping.keeps(row(status, run_id=run_id)) == (run_id in "ab")
    assert not KEEP_NONE.keeps(row(status, run_id=run_id))


@pytest.mark.parametrize("refetch", Refetch)
@pytest.mark.parametrize("status", ["failed", "partial"])
def test_a_day_that_is_not_wholly_stored_is_never_kept(status, refetch):
    """It is loaded again, whichever run tried to load it."""
    assert not Keeping(refetch, frozenset("a")).keeps(row(status))
    assert not Keeping(refetch).keeps(row(status))


def test_without_runs_any_stored_day_is_kept():
    """`missing` outside Dagster."""
    assert Keeping(Refetch.missing).keeps(row(run_id=None))


@given(st.sampled_from(["complete", "empty", "open"]), st.integers(-2, 2))
def test_a_day_that_has_ended_since_is_missing(status, days):
    """Stored while it was not over, it lacks its rest; what was whole stays."""
    keeping = Keeping(Refetch.missing, frozenset("a"), today=DAY + timedelta(days=days))
    assert keeping.keeps(row(status)) == (status != "open" or days <= 0)


@pytest.mark.parametrize("days", [-1, 0, 1])
def test_an_expired_day_is_missing_once_it_is_requested_again(days):
    """A longer MP_RETENTION_DAYS moves the horizon back; without one, every day is requested."""
    keeping = Keeping(Refetch.missing, horizon=DAY + timedelta(days=days))
    assert keeping.keeps(row("expired")) == (days > 0)
    assert not Keeping(Refetch.missing).keeps(row("expired"))


def test_a_day_that_is_not_over_is_kept_if_the_day_is_not_known():
    """The rest of it cannot have been missed then, as within one run."""
    assert Keeping(Refetch.missing).keeps(row("open"))


def test_days_are_kept_by_the_settings():
    """Zone, days to settle and retention are those of the project."""
    settings = Settings(
        time_regime="legacy", time_zone="US/Pacific", settle_days=3, retention_days=90
    )
    keeping = Keeping.of(settings, Refetch.missing, frozenset("a"))
    assert keeping == Keeping(
        Refetch.missing, frozenset("a"), 3, "US/Pacific", settings.today(), settings.horizon()
    )
    assert keeping.horizon == keeping.today - timedelta(days=90)
    assert Keeping.of(Settings(), Refetch.all).run_ids is None


def test_the_reason_for_a_kept_day_is_said():
    """The reason is a clause that follows the days."""
    said = "this run or one that it continues has stored them"
    assert Keeping(Refetch.missing).reason == said
    stale = Keeping(Refetch.stale, settle_days=3)
    assert stale.reason == "they were read 3 days after their end or later"


@pytest.mark.parametrize(
    ("word", "kept"), [("all", []), ("missing", ["early", "late"]), ("stale", ["late"])]
)
def test_the_words_that_users_write_stay(word, kept):
    """Configurations, scripts and tags of runs have them; a month is read again at most."""
    keeping = Keeping(Refetch(word))
    rows = {"early": row(fetched_at=datetime(2024, 3, 10)), "late": row()}
    assert [name for name, ledger_row in rows.items() if keeping.keeps(ledger_row)] == kept
    assert REFETCH_TAG == "mixpanel_assets/refetch"
    assert MOST_DAYS_READ_AGAIN == 31
