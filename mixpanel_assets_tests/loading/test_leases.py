"""Machines that share a state load each day one at a time; a late one cannot commit."""

import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from mixpanel_assets.errors import ConfigError, DatabaseLockedError
from mixpanel_assets.loading.events import EventLoad, LoadListener
from mixpanel_assets.loading.leases import DayLeases
from mixpanel_assets.warehouse import database_at

FIRST, LAST = date(2024, 1, 2), date(2024, 1, 3)


@pytest.fixture
def shared(settings, postgres):
    return settings.model_copy(update={"state_dir": postgres.url})


@pytest.fixture
def machine(shared, credentials):
    """Make the client of one more machine."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(shared.client(credentials))


@pytest.fixture
def leases(postgres):
    """Return rows of the table of leases."""

    def rows(sql):
        [(schema,)] = postgres.run("SELECT nspname FROM pg_namespace WHERE nspname ~ '^mixpanel_'")
        return postgres.run(sql.replace("leases", f'"{schema}".leases'))

    return rows


def load(client, settings, run_id, listener=None, first=FIRST, last=LAST):
    return EventLoad(
        client, settings, from_date=first, to_date=last, run_id=run_id, listener=listener
    )


def days_in(settings):
    with database_at(settings.database).read() as connection:
        return connection.execute(
            "SELECT day, status, row_count, run_id FROM mixpanel._days ORDER BY day"
        ).fetchall()


def test_a_second_live_owner_of_a_day_is_refused_before_it_requests_anything(
    machine, shared, asked
):
    """The message names the run and its machine; other days and databases are free."""
    database = database_at(shared.database)
    with DayLeases(machine(), database_at(shared.database), "events", "r1").held([LAST]):
        with pytest.raises(DatabaseLockedError, match=r"2024-01-03 of events .*by run r1 on \S+"):
            load(machine(), shared, "r2").store(database)
        assert asked() == []
        elsewhere = database_at(Path("elsewhere"))
        for free in ((database, "orders"), (elsewhere, "events")):
            with DayLeases(machine(), *free, "r2").held([LAST]):
                pass
        load(machine(), shared, "r2", last=FIRST).store(database)
    load(machine(), shared, "r3").store(database)
    assert [run for *_, run in days_in(shared)] == ["r3", "r3"]


def test_a_lake_has_one_owner_in_whichever_words_it_is_written(machine, lake):
    """Another name of the host, and another order."""
    words = " ".join(reversed(lake.catalog.replace("127.0.0.1", "localhost").split()))
    same = database_at(replace(lake, catalog=f"{words} connect_timeout=9", data_path=""))
    other = DayLeases(machine(), same, "events", "r2")
    with (
        DayLeases(machine(), database_at(lake), "events", "r1").held([LAST]),
        pytest.raises(DatabaseLockedError, match="run r1"),
        other.held([LAST]),
    ):
        pass


class Late(LoadListener):
    """Stands still for two minutes while the first response arrives, as the server sees it."""

    def __init__(self, leases, meanwhile=lambda: None):
        self.leases, self.meanwhile = leases, meanwhile

    def request_arriving(self, first, last, events):
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            self.leases("UPDATE leases SET renewed_at = renewed_at - 120001")
            meanwhile()


@pytest.mark.parametrize("end", ["while the other loads", "after the other has ended"])
def test_a_late_owner_is_refused_in_its_commit(end, machine, shared, leases):
    """What the new owner has stored stays as it is, and the late one says so."""
    database = database_at(shared.database)
    with ExitStack() as other:

        def take_over():
            if end == "while the other loads":
                leases_of_other = DayLeases(machine(), database_at(shared.database), "events", "r2")
                other.enter_context(leases_of_other.held([FIRST, LAST]))
            else:
                load(machine(), shared, "r2").store(database)

        with pytest.raises(DatabaseLockedError, match="was not stored: this process did not ans"):
            load(machine(), shared, "r1", Late(leases, take_over)).store(database)
    stored = days_in(shared)
    assert [run for *_, run in stored] == ([] if end == "while the other loads" else ["r2", "r2"])


def test_a_late_owner_whose_days_no_other_load_took_commits(machine, shared, leases):
    """Nothing is lost by that, and its requests were not for nothing."""
    load(machine(), shared, "r1", Late(leases)).store(database_at(shared.database))
    assert [status for _, status, *_ in days_in(shared)] == ["complete", "complete"]


def test_leases_end_also_if_the_clock_of_the_server_was_set_back(machine, shared, leases):
    """A dead owner's time in the future would keep others out until the clock is there again."""
    dead = DayLeases(machine(), database_at(shared.database), "events", "r1", renew_seconds=3600)
    other = DayLeases(machine(), database_at(shared.database), "events", "r2")
    with dead.held([FIRST]):
        leases("UPDATE leases SET renewed_at = renewed_at + 86400000")
        with pytest.raises(DatabaseLockedError, match="answered 0 s ago"), other.held([FIRST]):
            pass
        leases("UPDATE leases SET renewed_at = renewed_at - 120001")
        with other.held([FIRST]):
            pass


def test_leases_are_renewed_while_a_load_runs_and_given_back_however_it_ends(
    machine, shared, leases
):
    """By the clock of the server; a load that fails does not keep others out for two minutes."""

    def failing(*_):
        raise ConfigError("stop")

    held = DayLeases(machine(), database_at(Path("here")), "events", "r1", renew_seconds=0.02)
    with held.held([FIRST, LAST]):
        [(before, days)] = leases("SELECT min(renewed_at), count(*) FROM leases")
        deadline = time.monotonic() + 60
        while leases("SELECT min(renewed_at) FROM leases") == [(before,)]:
            assert time.monotonic() < deadline
        assert days == 2
    assert leases("SELECT * FROM leases") == []
    with pytest.raises(ConfigError, match="stop"):
        load(machine(), shared, "r1", Late(leases, failing)).store(database_at(shared.database))
    assert leases("SELECT * FROM leases") == []
