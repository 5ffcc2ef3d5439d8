"""`mp sync`: the requested days, or those that keep a database up to date."""

import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets_tests.cli.conftest import MP
from mixpanel_assets_tests.conftest import START
from mixpanel_assets_tests.laws import siblings
from mixpanel_assets_tests.old_data import DATA, FILES

DAY = timedelta(days=1)
TWO = ("--from", "2024-01-03", "--to", "2024-01-04", "--no-profiles")


def days_of(done):
    return [(date.fromisoformat(one["day"]), one["status"]) for one in json.loads(done.stdout)]


def test_alone_it_starts_where_settings_say_and_goes_on_from_there(mp_here, emulator):
    """First from MP_START_DATE; then today, and without Mixpanel's counts the days before, too."""
    start = datetime.now(UTC).date() - 3 * DAY
    command = ("sync", "--no-profiles", "--format", "json")
    first = days_of(mp_here(*command, MP_START_DATE=str(start)))
    assert [day for day, _ in first] == [start + n * DAY for n in range(len(first))]
    *over, (_, status) = first
    assert status == "open"
    assert {status for _, status in over} == {"empty"}
    *earlier, (_, status) = days_of(mp_here(*command, MP_START_DATE=str(start - 9 * DAY)))
    assert status == "open"
    assert len(earlier) < 2  # none, or a day that has ended since
    emulator.faults.add(Fault("402-json", path="/api/query/events*"))
    again = mp_here(*command, MP_START_DATE=str(start - 9 * DAY))
    assert days_of(again)[: len(over)] == over
    assert "again, whatever has changed. Mixpanel's own counts are not available" in again.stderr
    [*_, (day, status)] = days_of(mp_here(*command, MP_SETTLE_DAYS="0"))
    assert (day >= first[-1][0], status) == (True, "open")


def test_days_that_are_settled_are_kept_and_counted(mp_here, emulator):
    """The same command again sends no request; `--refetch all` requests every day."""
    first = mp_here("sync", *TWO)
    asked = len(emulator.requests)
    again = mp_here("sync", *TWO)
    assert (first.code, again.code) == (0, 0)
    assert again.stdout.splitlines()[0] == "2 days kept; --refetch all loads them again"
    assert len(emulator.requests) == asked
    one = mp_here("sync", *TWO[:3], "2024-01-03", "--no-profiles", "--format", "json")
    assert json.loads(one.stdout) == []
    assert "1 day kept; --refetch all loads it again" in one.stderr
    assert mp_here("sync", *TWO, "--refetch", "missing").stdout.startswith("2 days kept")
    done = mp_here("sync", *TWO, "--refetch", "all", "--format", "json")
    assert [day for day, _ in days_of(done)] == [date(2024, 1, 3), date(2024, 1, 4)]


def test_a_day_within_a_range_that_is_missing_is_the_only_one_asked_for(mp_here, emulator):
    """Requests span no day that is kept."""
    hole = date(2024, 1, 3)
    emulator.faults.add(Fault("truncate-whole-body", day=hole, times=None))
    week = ("sync", "--from", "2024-01-01", "--to", "2024-01-07", "--no-profiles")
    assert mp_here(*week, MP_MAX_RETRIES="0").code == 1
    emulator.faults.clear()
    before = len(emulator.requests)
    done = mp_here(*week, "--format", "json")
    assert [day for day, _ in days_of(done)] == [hole]
    assert [request.days for request in emulator.requests[before:]] == [(hole,)]
    assert "6 days kept; --refetch all loads them again" in done.stderr


def test_without_days_refetch_means_every_day_since_the_first_stored(mp_here):
    """The range is that from the first stored day to the current one."""
    first = datetime.now(UTC).date() - 40 * DAY
    command = ("sync", "--no-profiles", "--format", "json")
    days_of(mp_here(*command, "--from", str(first), "--to", str(first)))
    missing = days_of(mp_here(*command, "--refetch", "missing"))
    assert [day for day, _ in missing][:40] == [first + n * DAY for n in range(1, 41)]
    everything = days_of(mp_here(*command, "--refetch", "all"))
    assert [day for day, _ in everything][:41] == [first + n * DAY for n in range(41)]


@pytest.mark.parametrize(
    ("options", "first", "last"),
    siblings(
        [
            (("--last", "3"), 2, 0),
            (("--from", "yesterday", "--to", "Today"), 1, 0),
            (("--from", "yesterday"), 1, 0),
            (("--from", "-4d", "--to", "-2d"), 4, 2),
        ],
        keep=2,
    ),
)
def test_days_can_be_named_by_their_distance_from_today(options, first, last, mp_here):
    """`--last 3` ends with the current day."""
    today = datetime.now(UTC).date()
    done = mp_here("sync", "--no-profiles", "--format", "json", *options)
    wanted = [today - n * DAY for n in range(first, last - 1, -1)]
    assert [day for day, _ in days_of(done)] == wanted
    planned = mp_here("plan", *options, "--refetch", "all", "--jq", ".days")
    assert planned.stdout.strip() == str(len(wanted))


def test_a_range_that_begins_tomorrow_is_refused(mp_here):
    """The error is raised before any request."""
    tomorrow = datetime.now(UTC).date() + DAY
    done = mp_here("sync", "--from", str(tomorrow))
    assert done.code == 3
    assert "after" in done.stderr


def old_cron_ledger(connection, today):
    """Write the ledger of a year as the first version left it when it ran at 7 each morning.

    Each night it read the day before yesterday for the last time, and found today open.
    """
    connection.execute(
        """
        INSERT INTO mixpanel._days BY NAME
        SELECT 'mixpanel' AS schema_name, 'events' AS table_name, 'events' AS type,
               day::DATE AS day,
               if(day::DATE = $today, 'open', 'empty') AS status,
               least(day::DATE + INTERVAL 55 HOUR, $today + INTERVAL 7 HOUR) AS fetched_at,
               0 AS row_count, 0 AS duplicates_removed, 0 AS quarantined, 0 AS shifted_rows,
               1 AS requests, 300 AS bytes, day::VARCHAR AS run_id
        FROM generate_series($today - 364, $today, INTERVAL 1 DAY) AS days(day)
        """,
        {"today": today},
    )


def exported(emulator, before):
    requests = emulator.requests[before:]
    return {day for one in requests if one.path == "/api/2.0/export" for day in one.days}


def test_a_year_that_was_read_too_early_is_named_and_not_read(mp_here, emulator, variables):
    """The first `mp sync` after an upgrade requests the last 31 days at most."""
    path, today = Path(variables["MP_DATABASE"]), datetime.now(UTC).date()
    source = DATA / "schema_1" / f"{FILES[0]}.gz"
    path.write_bytes(gzip.decompress(source.read_bytes()))
    with duckdb.connect(path) as connection:
        connection.execute("DELETE FROM mixpanel._days WHERE schema_name = 'mixpanel'")
        old_cron_ledger(connection, today)
    before = len(emulator.requests)
    first = mp_here("sync", "--no-profiles")
    assert first.code == 0
    assert exported(emulator, before) == {today - n * DAY for n in range(31)}
    oldest, newest = today - 364 * DAY, today - 31 * DAY
    assert "334 days were read less than 5 days after their end" in first.stderr
    assert f"`mp sync --from {oldest} --to {newest}` loads them again" in first.stderr
    before = len(emulator.requests)
    again = mp_here("sync", "--no-profiles")
    assert "334 days" in again.stderr
    assert exported(emulator, before) == {today}  # no other day has received late events


def test_records_tell_what_was_stored(mp_here, emulator):
    """One per day, and one for the profiles; the path is on stderr."""
    done = mp_here("sync", *TWO[:-1], "-f", "csv")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["table"] for row in rows] == ["events", "events", "profiles"]
    day = date(2024, 1, 3)
    held = emulator.truth.count(day) - len(emulator.truth.unstorable(day))
    assert int(rows[0]["row_count"]) == held
    assert "warehouse.duckdb" in done.stderr


def test_the_line_of_a_day_names_lines_in_quarantine(mp_here):
    """Only if there are any: 2024-01-04 has one."""
    clean, odd = mp_here("sync", *TWO).stdout.splitlines()[:2]
    assert "quarantine" not in clean
    assert odd.startswith("2024-01-04")
    assert odd.endswith("  in quarantine 1")


def test_stored_days_are_told_when_others_stay_broken(mp_here, emulator):
    """The records, the error in JSON, and exit code 1."""
    emulator.faults.add(Fault("truncate-whole-body", day=date(2024, 1, 4), times=None))
    done = mp_here("sync", *TWO, "--format", "json", MP_MAX_RETRIES="0", MP_DAYS_PER_REQUEST="1")
    assert done.code == 1
    assert [day for day, _ in days_of(done)] == [date(2024, 1, 3)]
    assert json.loads(done.stderr.splitlines()[-1])["code"] == "INCOMPLETE_EXPORT"


def test_missing_days_are_a_view_for_the_shell_and_readers_of_the_snapshot(
    mp_here, emulator, tmp_path
):
    """The view has the reason of each day and cannot be dropped."""
    emulator.faults.add(Fault("truncate-whole-body", day=date(2024, 1, 4), times=None))
    week = ("--from", "2024-01-03", "--to", "2024-01-05", "--no-profiles")
    assert mp_here("sync", *week, MP_MAX_RETRIES="0").code == 1
    copy = tmp_path / "warehouse.snapshot.duckdb"
    with duckdb.connect(copy, read_only=True) as connection:
        [first, *_] = connection.sql("FROM mixpanel.missing_days").fetchall()
    assert first[:2] == (date(2024, 1, 4), "failed")
    done = mp_here("sql", "SELECT day, why FROM mixpanel.missing_days LIMIT 1", "--format", "csv")
    assert done.stdout.splitlines()[1:] == ["2024-01-04,failed"]
    refused = mp_here("drop", "-t", "missing_days", "--force")
    assert "cannot be dropped" in refused.stderr


def test_profiles_are_taken_although_a_day_of_events_failed(mp_here, emulator):
    """They can be read only today; the error of the events is last, or the first of two."""
    emulator.faults.add(Fault("truncate-whole-body", day=date(2024, 1, 4), times=None))
    done = mp_here("sync", *TWO[:-1], MP_MAX_RETRIES="0")
    assert done.code == 1
    assert "profiles" in done.stdout
    assert "1 of 2 days stayed incomplete" in done.stderr.splitlines()[-1]
    emulator.faults.add(Fault("503-empty", path="*engage*", times=None))
    done = mp_here("sync", *TWO[:-1], "--refetch", "all", MP_MAX_RETRIES="0")
    *_, events, profiles = done.stderr.splitlines()
    assert "1 of 2 days stayed incomplete" in events
    assert "503" in profiles


def test_what_was_stored_before_an_error_is_told(mp_here, emulator):
    """With the days that are missing and the command that loads them, whatever the error."""
    emulator.faults.add(Fault("500-json", day=date(2024, 1, 4), times=None))
    done = mp_here("sync", *TWO, MP_MAX_RETRIES="0", MP_DAYS_PER_REQUEST="1")
    assert "1 of 2 days are stored; missing: 2024-01-04. Try again with " in done.stderr
    assert "`mp sync --from 2024-01-04 --to 2024-01-04`" in done.stderr


@pytest.mark.parametrize("command", [("plan", *TWO[:-1]), ("quota",), ("clean",), ("doctor",)])
def test_other_commands_have_forms_for_programs(command, mp_here):
    """JSON is for jq, and --jq alone means JSON."""
    done = mp_here(*command, "--format", "json")
    assert done.code == 0
    assert json.loads(done.stdout)
    assert mp_here(*command, "--jq", "length").stdout.strip().isdecimal()


def start_mp(variables, tmp_path, *arguments, **more):
    return subprocess.Popen(
        [MP, *arguments],
        env={**os.environ, **variables, **more},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_interrupt_leaves_whole_days_only(tmp_path):
    """Exit code 130, no traceback; each day is stored completely or not at all."""
    with Emulator(EmulatorSettings(start=START, days=14)) as emulator:
        emulator.faults.add(Fault("slow-first-byte", day=date(2024, 1, 2), seconds=600))
        variables = {
            **environment_of(emulator),
            "MP_DATABASE": str(tmp_path / "w.duckdb"),
            "MP_DAYS_PER_REQUEST": "1",
        }
        week = ("--from", "2024-01-01", "--to", "2024-01-07", "--no-profiles")
        process = start_mp(variables, tmp_path, "sync", *week)
        assert process.stdout.readline().startswith("2024-01-01")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
        held = emulator.truth.count(START) - len(emulator.truth.unstorable(START))
    assert process.returncode == 130
    assert errors.splitlines() == [
        "mp: Interrupted. Stored events of 1 complete day, 2024-01-01. Other days are unchanged. "
        "The same command loads what is missing."
    ]
    with duckdb.connect(tmp_path / "w.duckdb", read_only=True) as connection:
        assert connection.execute(
            "SELECT event_date::VARCHAR, count(*) FROM mixpanel.events GROUP BY ALL"
        ).fetchall() == [("2024-01-01", held)]


def test_a_load_waits_for_the_next_hour_of_requests(tmp_path, variables):
    """It says until when, and does not fail as it would after 15 minutes."""
    one_an_hour = {"MP_BUDGET_EXPORT_PER_HOUR": "1", "MP_DAYS_PER_REQUEST": "1"}
    process = start_mp(variables, tmp_path, "sync", *TWO, **one_an_hour)
    assert process.stdout.readline().startswith("2024-01-03")
    said = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert "all 1 export requests" in said
    assert "It goes on in" in said
    assert process.returncode == 130, errors


@pytest.mark.slow
@pytest.mark.parametrize("command", [("sync", *TWO), ("quota",), ("clean",), ("--help",)])
def test_a_closed_pipe_ends_quietly(command, variables, tmp_path):
    """The exit code is 0 and stderr is empty; a load is finished all the same."""
    process = start_mp(variables, tmp_path, *command)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=300) == 0
    assert errors == ""
    if command[0] == "sync":
        with duckdb.connect(tmp_path / "warehouse.duckdb", read_only=True) as connection:
            assert connection.execute(
                "SELECT count(DISTINCT event_date) FROM mixpanel.events"
            ).fetchone() == (2,)


@pytest.mark.parametrize("line", [("sync", "--nonsense"), ("nonsense",), ("quota", "--from")])
def test_wrong_usage_is_one_json_object_when_asked_for(line, mp_here):
    """Wherever --format stands, and however it is written."""
    for form in (("--format", "json"), ("--format=jsonl",), ("-fjson",)):
        done = mp_here(*line, *form) if line[-1] != "--from" else mp_here(*form, *line)
        assert done.code == 3
        assert json.loads(done.stderr)["code"] == "INVALID_ARGUMENTS"
    assert "Usage" in mp_here(*line).stderr


def asked_by(shell, *arguments):
    # Two commands, or the shell makes way for the first one instead of starting it.
    line = [shutil.which(shell), "-c", '"$@"; exit $?', shell, MP, *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("shell", "arguments"),
    siblings(
        [
            ("bash", ("--show-completion",)),
            ("sh", ("--show-completion", "bash")),
            ("sh", ("--show-completion=zsh",)),
        ],
        keep=1,
    ),
)
def test_completion_can_be_shown(shell, arguments):
    """The script is for the shell that calls `mp`, or for the one that is named."""
    done = asked_by(shell, *arguments)
    assert done.returncode == 0, done.stderr
    assert "_MP_COMPLETE" in done.stdout


@pytest.mark.parametrize("shell", [("sh",), ("bash", "zsh"), ("sh", "--quiet")])
@pytest.mark.parametrize("option", ["--show-completion", "--install-completion"])
def test_a_shell_without_completion_is_told_which_have_one(option, shell):
    """In one sentence, as everything else."""
    done = asked_by("bash", option, *shell)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("mp: ")
    assert "bash, zsh, fish" in done.stderr


def test_completion_can_be_installed_for_a_shell_that_is_named(mp_here, tmp_path):
    """The calling shell does not matter."""
    done = mp_here("--install-completion", "zsh", HOME=str(tmp_path))
    assert done.code == 0, done.stderr
    assert "_MP_COMPLETE" in (tmp_path / ".zfunc" / "_mp").read_text()


def test_days_that_mixpanel_has_deleted_are_kept_and_said_to_be(mp_here, emulator):
    """Stored days before MP_RETENTION_DAYS are never requested."""
    mp_here("sync", *TWO)
    before = len(emulator.requests)
    horizon = START + 4 * DAY
    reach = str((datetime.now(UTC).date() - horizon).days)
    days = ("--from", "2024-01-02", "--to", "2024-01-04", "--no-profiles", "--refetch", "all")
    done = mp_here("sync", *days, MP_RETENTION_DAYS=reach)
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "2 days kept; not requested from Mixpanel (MP_RETENTION_DAYS)"
    assert lines[1].split()[:4] == ["2024-01-02", "0", "events", "expired"]
    assert len(emulator.requests) == before
    planned = mp_here("plan", *days[:4], MP_RETENTION_DAYS=reach).stdout
    assert "3 days are not requested (MP_RETENTION_DAYS)" in planned
    assert "2 days that Mixpanel has deleted" in planned


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--accept-smaller",)])
def test_days_that_mixpanel_has_deleted_since_are_kept_and_each_says_why(
    mp_here, emulator, options
):
    """Without MP_RETENTION_DAYS, the rows are kept, also with --accept-smaller."""
    mp_here("sync", *TWO)
    stored = rows_here(mp_here)
    emulator.retention_days = 30
    before = len(emulator.requests)
    done = mp_here("sync", *TWO, "--refetch", "all", *options, MP_RETENTION_DAYS="")
    emulator.retention_days = None
    assert done.code == 0, done.stderr
    assert len(emulator.requests) > before
    assert rows_here(mp_here) == stored
    for day, line in zip(("2024-01-03", "2024-01-04"), done.stdout.splitlines(), strict=False):
        rows = sum(row["event_date"].startswith(day) for row in stored)
        assert line.startswith(f"{day}  {rows:>10,} events  complete")
        assert line.endswith(f"vanished and kept {rows}, as Mixpanel sent no event of this day")
    assert "no events of 2024-01-03..2024-01-04 any more" in done.stderr
    assert ("mp drop-day" if options else "MP_RETENTION_DAYS") in done.stderr


def rows_here(mp_here):
    done = mp_here("sql", "FROM mixpanel.events ORDER BY ALL")
    return json.loads(done.stdout)


@pytest.mark.slow
def test_accept_smaller_loads_the_named_days_and_says_what_it_removes(mp_here, emulator):
    """Without it rows are kept, with it they are removed; both are reported."""
    mp_here("sync", *TWO)
    emulator.faults.add(Fault("delete-rows", day=date(2024, 1, 3), count=9, times=None))
    done = mp_here("sync", *TWO, "--refetch", "all")
    assert done.code == 0
    assert "vanished and kept 9" in done.stdout
    assert "They are kept." in done.stderr
    done = mp_here("sync", *TWO, "--accept-smaller", "--format", "json")
    assert [row["rows_removed"] for row in json.loads(done.stdout)] == [9, 0]
    told = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    before = next(n for n, text in enumerate(told) if "9 stored rows will be removed" in text)
    after = next(n for n, text in enumerate(told) if text.startswith("Removed 9 stored rows"))
    assert before < after
    assert "2024-01-03 (9 rows)" in told[before]
