"""Range runs that end half-way, and what their re-execution requests."""

import os
import signal
import tempfile
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import duckdb
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets_tests.forked_runs import EVENTS, ForkedRuns, execute
from mixpanel_assets_tests.laws import examples

EXPORT = "/api/2.0/export"
FIRST = date(2024, 1, 1)
PER_REQUEST = 3
DAYS = [FIRST + timedelta(days=number) for number in range(9)]
RANGE = (str(DAYS[0]), str(DAYS[-1]))
YEAR = [FIRST + timedelta(days=number) for number in range(365)]
STEPS = 4000  # about as many as a run of the nine days takes


@pytest.fixture(scope="module")
def emulator():
    with Emulator(EmulatorSettings(events_per_day=6, odd_content=False)) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def home():
    """A folder in memory where there is such a thing: Dagster commits four times an event."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        home = Path(folder)
        (home / "dagster.yaml").write_text(yaml.safe_dump({"telemetry": {"enabled": False}}))
        yield home


@pytest.fixture(scope="module")
def variables(emulator, home):
    return {
        **environment_of(emulator),
        "DAGSTER_HOME": str(home),
        "HOME": str(home),
        "MP_DATABASE": str(home / "w.duckdb"),
        "MP_DAYS_PER_REQUEST": str(PER_REQUEST),
        "MP_MAX_RETRIES": "0",
        "MP_OP_RETRIES": "0",
        "MP_BUDGET_EXPORT_PER_HOUR": "100000",
        "MP_BUDGET_EXPORT_PER_SECOND": "1000",
    }


@pytest.fixture(scope="module")
def runs(variables, home):
    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = ForkedRuns(variables, instance)
        yield runs
        runs.close()


class RunsHere:
    """Runs in this process: what ends by itself needs none of its own."""

    def __init__(self, instance):
        self.instance = instance

    def run(self, first, last, **options):
        return 0 if execute(self.instance, first, last, **options).success else 1

    def last_run(self):
        [run] = self.instance.get_runs(limit=1)
        return run


@pytest.fixture
def runs_here(variables, instance, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return RunsHere(instance)


def begin_without_a_database(home):
    for name in ("w.duckdb", "w.snapshot.duckdb"):
        (home / name).unlink(missing_ok=True)


@pytest.fixture
def asked(emulator, home):
    """Begin without a database, and return the windows that were requested since then."""
    begin_without_a_database(home)
    emulator.faults.clear()
    before = len(emulator.requests)
    yield lambda: [e.days for e in emulator.requests[before:] if e.path == EXPORT]
    emulator.faults.clear()


def windows(days):
    return [tuple(days[at : at + PER_REQUEST]) for at in range(0, len(days), PER_REQUEST)]


def stored(home):
    if not (home / "w.duckdb").exists():
        return {}
    query = (
        "SELECT day, row_count, run_id FROM mixpanel._days WHERE status <> 'failed' ORDER BY day"
    )
    with duckdb.connect(home / "w.duckdb", read_only=True) as connection:
        if not connection.execute("FROM duckdb_tables() WHERE table_name = '_days'").fetchall():
            return {}
        rows = connection.execute(query).fetchall()
        counts = "SELECT event_date, count(*) FROM mixpanel.events GROUP BY ALL"
        counted = dict(connection.execute(counts).fetchall())
    assert {day: rows for day, rows, _ in rows if rows} == counted
    return {day: run_id for day, _, run_id in rows}


def truth(emulator, days):
    return {str(day): emulator.truth.count(day) for day in days}


def recorded(runs, group):
    """Return the row counts that the runs have recorded of the partitions, newest last."""
    found = {}
    for run_id in group:
        for entry in runs.instance.all_logs(
            run_id, of_type={dg.DagsterEventType.ASSET_MATERIALIZATION}
        ):
            event = entry.asset_materialization
            assert event.asset_key == EVENTS
            found[event.partition] = event.metadata["rows"].value
    return found


def kill_while_waiting(runs, emulator, day, first, last, **options):
    """Kill a run with SIGKILL while the answer for a day does not come."""
    emulator.faults.add(Fault("timeout", path=EXPORT, day=day))
    pid = runs.start(first, last, **options)
    until = time.monotonic() + 300
    while emulator.faults.waiting():
        assert time.monotonic() < until, "the day was not asked for"
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    assert runs.ended() == -signal.SIGKILL
    return runs.last_run()


interruptions = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([signal.SIGKILL, signal.SIGINT]), st.integers(1, STEPS)),
        st.tuples(st.just("fault"), st.integers(0, len(windows(DAYS)) - 1)),
    ),
    max_size=2,
)


@pytest.mark.slow
@given(interruptions)
@example([("fault", 2), (signal.SIGKILL, 1500)])
@example([(signal.SIGINT, 2500)])
@examples(1)
def test_wherever_runs_end_each_interruption_costs_one_request_at_most(
    runs, emulator, home, interrupted
):
    """Any failures, cancels and kills in a row: then the truth is stored and recorded."""
    begin_without_a_database(home)
    since, group, code = len(emulator.requests), [], None
    for kind, at in [*interrupted, (0, 0)]:
        if kind == "fault":
            emulator.faults.add(Fault("500-json", path=EXPORT, skip=at))
            code = runs.run(*RANGE, parent=group[-1] if group else None)
        else:
            code = runs.run(*RANGE, parent=group[-1] if group else None, signal=kind, at=at)
        emulator.faults.clear()
        group.append(runs.last_run().run_id)
        days = set(map(str, stored(home)))
        assert set(recorded(runs, group)) <= days
        if kind not in (0, signal.SIGKILL):
            assert set(recorded(runs, group)) == days
        # A run that is killed after its last step has nothing left that Dagster could go on with.
        if code == 0 or set(recorded(runs, group)) == set(map(str, DAYS)):
            break
    assert code == 0 or kind
    asked = Counter(e.days for e in emulator.requests[since:] if e.path == EXPORT)
    assert set(asked) == set(windows(DAYS))
    assert asked.total() <= len(windows(DAYS)) + len(group) - 1
    assert set(stored(home).values()) <= set(group)
    assert recorded(runs, group) == truth(emulator, DAYS)


@pytest.mark.slow
def test_a_year_killed_half_way_goes_on_where_it_was(runs, emulator, home, asked):
    """Only the interrupted request is sent again; then every day of the year is recorded."""
    year = str(YEAR[0]), str(YEAR[-1])
    run = kill_while_waiting(runs, emulator, YEAR[182], *year)
    kept = len(stored(home))
    assert kept in (177, 180)  # the answer before the last one may lie there, not yet stored
    assert recorded(runs, [run.run_id]) == {}
    assert runs.run(*year, parent=run.run_id) == 0
    again = runs.last_run()
    assert set(stored(home).values()) == {run.run_id, again.run_id}
    twice = [window for window, times in Counter(asked()).items() if times > 1]
    assert twice == [tuple(YEAR[180:183])]
    assert set(asked()) == set(windows(YEAR))
    assert recorded(runs, [again.run_id]) == truth(emulator, YEAR)
    told = [entry.user_message for entry in runs.instance.all_logs(again.run_id)]
    line = f"{kept} days are kept: this run or one"
    assert sum(line in one for one in told) == 1


def test_what_a_kill_swallowed_is_recorded_even_if_the_next_run_fails(runs, emulator, home, asked):
    """Killed at the second request, failed at the third: six days are recorded, three are not."""
    killed = kill_while_waiting(runs, emulator, DAYS[4], *RANGE)
    assert recorded(runs, [killed.run_id]) == {}
    emulator.faults.add(Fault("500-json", path=EXPORT, day=DAYS[7]))
    assert runs.run(*RANGE, parent=killed.run_id) == 1
    failed = runs.last_run()
    assert recorded(runs, [failed.run_id]) == truth(emulator, DAYS[:6])
    assert list(stored(home)) == DAYS[:6]

    # `refetch: all` beats what a re-execution does by itself.
    before = len(asked())
    assert runs.run(*RANGE, parent=failed.run_id, refetch="all") == 0
    assert asked()[before:] == windows(DAYS)


def test_days_that_stayed_broken_are_asked_again(runs_here, emulator, home, asked):
    """One bad day of nine: the re-executed run requests that day alone."""
    emulator.faults.add(Fault("truncate-own-line", path=EXPORT, day=DAYS[4], times=None))
    assert runs_here.run(*RANGE) == 1
    failed = runs_here.last_run()
    assert set(recorded(runs_here, [failed.run_id])) == set(truth(emulator, DAYS)) - {str(DAYS[4])}
    emulator.faults.clear()
    before = len(asked())
    assert runs_here.run(*RANGE, parent=failed.run_id) == 0
    assert asked()[before:] == [(DAYS[4],)]
    assert recorded(runs_here, [runs_here.last_run().run_id]) == truth(emulator, DAYS)


def test_a_day_that_has_ended_since_is_asked_again(runs_here, emulator, home, asked):
    """Stored before midnight by a run that failed: re-executed, it is fetched whole."""
    emulator.faults.add(Fault("500-json", path=EXPORT, day=DAYS[7]))
    assert runs_here.run(*RANGE) == 1
    failed = runs_here.last_run()
    with duckdb.connect(home / "w.duckdb") as connection:
        connection.execute("UPDATE mixpanel._days SET status = 'open' WHERE day = ?", [DAYS[5]])
    before = len(asked())
    assert runs_here.run(*RANGE, parent=failed.run_id) == 0
    assert asked()[before:] == [tuple(DAYS[5:8]), (DAYS[8],)]


@pytest.mark.slow  # several runs of Dagster
def test_a_new_launch_and_a_run_that_succeeded_are_done_again(runs, emulator, home, asked):
    """A range that is launched again is requested again, whatever is stored.

    Nothing is missing of a run that succeeded, so a re-execution of it fetches everything again;
    attempts go on. What an earlier launch stored does not count as done.
    """
    assert runs.run(*RANGE) == 0
    assert runs.run(*RANGE) == 0
    assert Counter(asked()) == Counter(windows(DAYS) * 2)
    succeeded = runs.last_run()
    before = len(asked())
    emulator.faults.add(Fault("500-json", path=EXPORT, day=DAYS[4]))
    assert runs.run(*RANGE, parent=succeeded.run_id) == 1
    failed = runs.last_run()
    assert succeeded.run_id in stored(home).values()
    assert runs.run(*RANGE, parent=failed.run_id) == 0
    again = runs.last_run()
    assert set(stored(home).values()) == {failed.run_id, again.run_id}
    first, failing, later = (Counter(asked()[before:])[window] for window in windows(DAYS))
    assert (first, failing) == (1, 2)
    assert later in (1, 2)  # one more if it was on its way when the failure arrived

    killed = kill_while_waiting(runs, emulator, DAYS[0], *RANGE)
    assert runs.run(*RANGE, parent=killed.run_id) == 0
    assert not {failed.run_id, again.run_id} & set(stored(home).values())


def test_stale_days_alone_are_fetched(runs_here, emulator, home, asked):
    """Kept: days read five days after their end. Fetched: all others, never loaded ones too."""
    assert runs_here.run(str(DAYS[0]), str(DAYS[5])) == 0
    with duckdb.connect(home / "w.duckdb") as connection:
        connection.execute("UPDATE mixpanel._days SET fetched_at = day + INTERVAL 6 DAY")
        connection.execute(
            "UPDATE mixpanel._days SET fetched_at = fetched_at - INTERVAL 1 SECOND WHERE day = ?",
            [DAYS[1]],
        )
    before = len(asked())
    assert runs_here.run(str(DAYS[0]), str(DAYS[7]), refetch="stale") == 0
    assert asked()[before:] == [(DAYS[1],), (DAYS[6], DAYS[7])]
    assert recorded(runs_here, [runs_here.last_run().run_id]) == truth(emulator, DAYS[:8])
