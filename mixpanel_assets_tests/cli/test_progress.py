"""Progress of a load in a log or a pipe: a line every ten seconds, never on stdout."""

import io
import json
import logging
import re
import threading
import time
from datetime import date

import pytest
from rich.console import Console

from mixpanel_assets import BatchProgress, ProfileProgress
from mixpanel_assets.cli.invocation import begin
from mixpanel_assets.cli.progress import Lines
from mixpanel_assets.emulator import Fault
from mixpanel_assets.loading.results import day_bar
from mixpanel_assets.warehouse import DayReport
from mixpanel_assets_tests.laws import siblings

EXPORT, ENGAGE = "/api/2.0/export", "/api/query/engage"
DAYS = ("--from", "2024-01-03", "--to", "2024-01-04")
SLOW = {"seconds": 2.1}  # longer than what goes by without a word


class Clock:
    """Stands still until it is moved."""

    seconds = 100.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def said():
    return []


@pytest.fixture
def lines(clock, said):
    return Lines(said.append, clock)


def batch(number, rows):
    return BatchProgress("2024-01-01", "2024-01-07", number, 3, rows, success=True)


def page(number, rows, *, error=None, before=0):
    return ProfileProgress(number, 12, rows, error is None, error, before + rows)


def test_short_loads_say_nothing_and_long_ones_a_line_now_and_then(lines, clock, said):
    """After two seconds, then every ten; what came in between is counted."""
    for seconds in (0, 1.9, 2, 5, 11.9, 12, 12.1):
        clock.seconds = 100 + seconds
        lines.batch(batch(0, 1000))
    assert said == [
        "3,000 events so far; at 2024-01-01 to 2024-01-07, 1 of 3",
        "6,000 events so far; at 2024-01-01 to 2024-01-07, 1 of 3",
    ]


def test_lost_pages_are_not_done_and_a_snapshot_may_begin_anew(lines, clock, said):
    """Page 0 opens each snapshot."""
    clock.seconds += 2
    lines.page(page(0, 10))
    lines.page(page(1, 10, before=10))
    lines.page(page(2, 0, error="lost", before=20))
    clock.seconds += 10
    lines.page(page(3, 10, before=20))
    clock.seconds += 10
    lines.page(page(0, 10))
    assert said == [
        "1 of 12 pages, 10 profiles so far",
        "3 of 12 pages, 30 profiles so far",
        "1 of 12 pages, 10 profiles so far",
    ]


def test_days_are_counted_with_their_events(lines, clock, said):
    """Relative to the number of requested days."""
    lines.day(DayReport(date(2024, 1, 1), "complete", 500), 31)
    clock.seconds += 2
    lines.day(DayReport(date(2024, 1, 2), "complete", 700), 31)
    assert said == ["2 of 31 days, 1,200 events stored so far"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "path", "line"),
    siblings(
        [
            (("fetch", "events", "mine", *DAYS), EXPORT, "events so far; at 2024-01-03"),
            (("sync", *DAYS), ENGAGE, "1 of 1 pages, "),
            (("fetch", "profiles", "people"), ENGAGE, "1 of 1 pages, "),
            (("sync", *DAYS, "--no-profiles", "--format", "csv"), EXPORT, "1 of 2 days, "),
        ],
        keep=1,
    ),
)
def test_a_load_that_takes_long_is_heard_of(command, path, line, mp_here, emulator):
    """On stderr, except with --quiet; stdout has only the result."""
    emulator.faults.add(Fault("slow-first-byte", path=path, **SLOW))
    done = mp_here(*command)
    assert done.code == 0, done.stderr
    assert line in done.stderr
    assert line not in done.stdout


@pytest.mark.slow
def test_quiet_loads_say_nothing_however_long_they_take(mp_here, emulator):
    """Nothing is printed on stderr either."""
    emulator.faults.add(Fault("slow-first-byte", path=EXPORT, **SLOW))
    done = mp_here("-q", "fetch", "events", "mine", *DAYS)
    assert (done.code, done.stderr) == (0, "")


def test_lines_for_a_program_are_json(mp_here, emulator):
    """Progress, notes and warnings are objects of one line each."""
    emulator.faults.add(Fault("slow-first-byte", path=ENGAGE, **SLOW))
    emulator.faults.add(Fault("500-json", path=EXPORT))
    done = mp_here("sync", *DAYS, "--format", "json")
    assert done.code == 0, done.stderr
    assert len(json.loads(done.stdout)) == 3
    told = [json.loads(line) for line in done.stderr.splitlines()]
    [warning] = [one["message"] for one in told if one["level"] == "warning"]
    notes = [one["message"] for one in told if one["level"] == "info"]
    assert len(notes) == len(told) - 1
    assert "Retrying" in warning
    assert any("pages" in note for note in notes)  # on a slow machine, days have notes too
    assert notes[-1].startswith("in ")


def test_what_a_thread_logs_is_json_too(capsys):
    """Downloads run in threads of their own."""
    begin(["sync", "--format", "json"])
    warn = logging.getLogger("mixpanel_assets.client.transport").warning
    thread = threading.Thread(target=warn, args=("Asking again",))
    thread.start()
    thread.join()
    said = json.loads(capsys.readouterr().err)
    assert said == {"level": "warning", "message": "Asking again"}


def test_an_error_is_one_object_whatever_was_said_before(mp_here, emulator):
    """The last line, and the only one with a code."""
    emulator.faults.add(Fault("500-json", path=EXPORT, times=None))
    done = mp_here("fetch", "events", "mine", *DAYS, "-f", "json", MP_MAX_RETRIES="2")
    assert done.code == 1
    *before, error = [json.loads(line) for line in done.stderr.splitlines()]
    assert [sorted(one) for one in before] == [["level", "message"]] * 2
    assert sorted(error) == ["code", "details", "message"]
    quiet = mp_here("-q", "fetch", "events", "mine", *DAYS, "-f", "json", MP_MAX_RETRIES="2")
    assert json.loads(quiet.stderr) == error


@pytest.mark.parametrize("width", [80, 120])
def test_a_bar_of_days_says_what_came_and_what_is_on_its_way(width):
    """Days, events, megabytes, pace, time left; with room, the days of the current request."""
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, no_color=True)
    with day_bar(16, console) as bar:
        bar.arrived(date(2024, 1, 1), date(2024, 1, 4), 0)
        bar.kept()
        bar.stored(10_009, 1_000_000)
        time.sleep(0.1)  # a pace of fewer digits
        bar.stored(2_000, 250_000)
        bar.arrived(date(2024, 1, 5), date(2024, 1, 8), 12_345)
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue()).splitlines()
    last = next(line for line in reversed(drawn) if "days" in line)
    assert "3/16 days, 12,009 events, 1.2 MB, " in last
    coming = r", 2024-01-05\.\.01-08: 12,345" if width == 120 else ""
    assert re.search(rf"[\d,]+/s{coming}, 0:\d\d:\d\d left", last)
    assert len(last.rstrip()) <= width


def test_a_load_tells_which_days_are_on_their_way(workspace):
    """From their request on, with the number of received events."""
    told = []
    workspace.sync_events(
        "2024-01-03", "2024-01-04", on_arrival=lambda *arrival: told.append(arrival)
    )
    days = (date(2024, 1, 3), date(2024, 1, 4))
    assert {(first, last) for first, last, _ in told} <= {days, (days[0],) * 2, (days[1],) * 2}
    assert told[0][2] == 0
    assert max(events for _, _, events in told) > 0
