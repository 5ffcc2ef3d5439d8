"""Responses that a failed load did not store are not requested again."""

import os
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest

from mixpanel_assets.loading.events import EventLoad, LoadListener
from mixpanel_assets.loading.plan import Keeping, Refetch
from mixpanel_assets.warehouse import Database, day_rows
from mixpanel_assets_tests.laws import siblings

FIRST, LAST = date(2024, 1, 1), date(2024, 1, 9)
WINDOWS = [(FIRST + timedelta(days=at), FIRST + timedelta(days=at + 2)) for at in (0, 3, 6)]
RUNS = frozenset({"first", "second"})


@pytest.fixture
def database(settings):
    return Database(settings.database)


@pytest.fixture
def spool(settings):
    return settings.spool_path("12345")


@pytest.fixture
def load(client, settings, database):
    """Load the nine days, three per request, as the second of two runs or as the first."""

    def run(run_id, refetch=Refetch.missing, days=(FIRST, LAST), **changes):
        fixed = settings.model_copy(update={"days_per_request": 3})
        keeping = Keeping(refetch, RUNS if run_id == "second" else frozenset({run_id}))
        EventLoad(
            client,
            fixed,
            from_date=days[0],
            to_date=days[1],
            run_id=run_id,
            keeping=keeping,
            **changes,
        ).store(database)

    return run


@pytest.fixture
def broken(load, spool):
    """The first run: it ends after the first answer is stored and the second is there."""

    class Interruption(LoadListener):
        def request_stored(self, progress):
            while not any(WINDOWS[1][0].isoformat() in name for name in names(spool)):
                pass
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load("first", listener=Interruption())
    [left] = names(spool)
    return spool / left


@pytest.fixture
def asked(emulator, broken):
    before = len(emulator.requests)
    return lambda: Counter((one.days[0], one.days[-1]) for one in emulator.requests[before:])


def names(spool):
    """Whole answers under a name that can be found, not those on their way."""
    known = {path.name for path in spool.glob("*.jsonl*")}
    return sorted(known)


def stored(database):
    with database.read() as connection:
        return {
            day: (row["row_count"], row["run_id"])
            for day, row in day_rows(connection, "events", FIRST, LAST).items()
        }


def test_a_whole_answer_is_stored_by_the_run_that_goes_on(load, broken, asked, database, emulator):
    """Without a request; the ledger says when it was received, and that this run stored it."""
    received = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)
    os.utime(broken, (received.timestamp(), received.timestamp()))
    load("second")
    assert asked() == {WINDOWS[2]: 1}
    assert {day: rows for day, (rows, _) in stored(database).items()} == {
        day: emulator.truth.count(day) - len(emulator.truth.unstorable(day))
        for day in stored(database)
    }
    with database.read() as connection:
        row = day_rows(connection, "events", *WINDOWS[1])[WINDOWS[1][0]]
    assert (row["run_id"], row["fetched_at"]) == (
        "second",
        received.replace(tzinfo=None),
    )
    assert not broken.exists()


@pytest.mark.slow
def test_a_damaged_answer_is_asked_for_again(load, broken, asked, database):
    """A response on disk is checked before it is used, as a received one is."""
    broken.write_bytes(broken.read_bytes()[:-30])
    load("second")
    assert asked() == {WINDOWS[1]: 1, WINDOWS[2]: 1}
    assert len(stored(database)) == 9


@pytest.mark.parametrize(("ended", "requests"), siblings([(0, 1), (1, 2), (2, 1)], keep=1))
def test_an_answer_from_before_the_end_of_its_days_is_asked_for_again(
    ended, requests, load, broken, asked
):
    """More events may have come since then; the day in the project's zone is not considered.

    The last request confirms that finished days have no events; of the first pair, today is open.
    """
    last = datetime.now(UTC).date() - timedelta(days=ended)
    days = (last - timedelta(days=1), last)
    broken.with_name(f"{broken.name[:32]}-{days[0]}_{days[1]}.jsonl").write_bytes(b"")
    load("second", days=days)
    assert asked()[days] == requests


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run_id", "refetch"), siblings([("other", "missing"), ("second", "all")], keep=1)
)
def test_answers_of_others_are_left_alone(run_id, refetch, load, broken, asked):
    """Neither another launch nor one that fetches everything takes them."""
    load(run_id, Refetch(refetch))
    assert set(asked()) == set(WINDOWS)
    assert broken.exists()


@pytest.mark.slow
def test_an_answer_whose_days_are_stored_is_deleted(load, broken, asked, database):
    """Its run was killed after the commit and before the deletion."""
    content = broken.read_bytes()
    load("second")
    broken.write_bytes(content)
    before = stored(database)
    load("second")
    assert asked() == {WINDOWS[2]: 1}
    assert stored(database) == before
    assert not broken.exists()
