"""`mp fetch events` into a table: at once, in parallel, added to, and cut off."""

import csv
import json
from datetime import date, timedelta

import duckdb
import pytest

from mixpanel_assets.emulator import Fault
from mixpanel_assets_tests.conftest import START

WEEK = ("--from", "2024-01-01", "--to", "2024-01-07")
DAYS = [START + timedelta(days=number) for number in range(7)]


def stored(tmp_path, table="mine"):
    with duckdb.connect(tmp_path / "warehouse.duckdb", read_only=True) as connection:
        return connection.execute(f"SELECT count(*) FROM main.{table}").fetchone()[0]


def held(emulator, days=DAYS):
    truth = emulator.truth
    return sum(truth.count(day) - len(truth.unstorable(day)) for day in days)


def test_parallel_requests_are_told_one_by_one(mp_here, emulator, tmp_path):
    """A line for each on stderr, the result on stdout, all rows in the table."""
    done = mp_here("fetch", "events", "mine", *WEEK, "-p", "--workers", "2", "--chunk-days", "2")
    assert done.code == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["total_rows"] == stored(tmp_path) == held(emulator)
    assert (said["successful_batches"], said["has_failures"]) == (4, False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("✓")]
    assert sorted(line[:15] for line in lines) == [f"✓ Batch {n}/4: 20"[:15] for n in range(1, 5)]
    assert any("2024-01-01 to 2024-01-02" in line and line.endswith("rows)") for line in lines)


@pytest.mark.slow
def test_days_that_stay_broken_are_named_and_can_be_added(mp_here, emulator, tmp_path):
    """Exit code 1 for a part; --append brings the rest, and doubles nothing."""
    broken = date(2024, 1, 3)
    emulator.faults.add(Fault("truncate-whole-body", day=broken, times=None))
    fetch = ("fetch", "events", "mine", *WEEK, "--parallel", "--chunk-days", "1", "--no-progress")
    done = mp_here(*fetch, MP_MAX_RETRIES="0")
    assert done.code == 1
    assert json.loads(done.stdout)["failed_date_ranges"] == [["2024-01-03", "2024-01-03"]]
    assert "export 2024-01-03" in done.stderr
    assert "✓" not in done.stderr
    emulator.faults.clear()
    assert mp_here(*fetch, "--append").code == 0
    assert stored(tmp_path) == held(emulator)


def test_nothing_of_what_was_asked_exits_with_6(mp_here, emulator):
    """A fetch without any complete day exits as a load of days does."""
    emulator.faults.add(Fault("truncate-whole-body", path="/api/2.0/export", times=None))
    done = mp_here("fetch", "events", "mine", *WEEK, "--parallel", MP_MAX_RETRIES="0")
    assert done.code == 6


def test_a_limit_cuts_the_table(mp_here, tmp_path):
    """At most this number of events, duplicates included; the record as CSV."""
    done = mp_here("fetch", "events", "mine", *WEEK, "--limit", "50", "--format", "csv")
    assert done.code == 0, done.stderr
    (said,) = csv.DictReader(done.stdout.splitlines())
    assert 40 <= int(said["rows"]) == stored(tmp_path) <= 50
