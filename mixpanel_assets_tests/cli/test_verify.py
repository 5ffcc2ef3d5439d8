"""`mp verify`: stored counts beside Mixpanel's own, or beside a second download."""

import json
from datetime import UTC, datetime
from io import StringIO

import pytest
from rich.console import Console

from mixpanel_assets.cli.verify import _differences
from mixpanel_assets.emulator import Fault
from mixpanel_assets.warehouse import Reconciled
from mixpanel_assets_tests.conftest import START

DAYS = ("--from", "2024-01-03", "--to", "2024-01-04")


def test_it_names_what_differs_and_fails_only_if_that_is_unexplained(mp_here, emulator):
    """With the load that may bring it; as text and as JSON."""
    assert mp_here("sync", *DAYS, "--no-profiles").code == 0
    asked = len(emulator.requests)
    done = mp_here("verify", *DAYS)
    assert done.code == 0
    assert "counts of 2 days differ from Mixpanel's own: 1 quarantined.\n" in done.stdout
    assert not [one for one in emulator.requests[asked:] if one.path.endswith("export")]
    emulator.faults.add(Fault("wrong-count", day=START.replace(day=4), count=2, text="Search"))
    emulator.faults.add(Fault("hidden-event", text="Page View"))
    done = mp_here("verify", *DAYS)
    assert done.code == 0
    assert "1 pending" in done.stdout
    assert "2 hidden" in done.stdout
    assert "A load of 2024-01-04 may bring the missing events: `mp sync --from 2024-01-04" in (
        done.stdout
    )
    assert mp_here("sync", *DAYS, "--refetch", "all", "--no-profiles").code == 0
    done = mp_here("verify", *DAYS, "--format", "json")
    assert done.code == 1
    counts = json.loads(done.stdout)["counts"]
    assert {one["cls"] for one in counts} == {*("equal", "hidden", "quarantined", "unexplained")}
    assert mp_here("verify", *DAYS, "--tolerance", "2").code == 0
    emulator.faults.add(Fault("402-json", path="/api/query/events*"))
    done = mp_here("verify", *DAYS)
    assert done.code == 0
    assert done.stdout.startswith("Nothing was compared. Mixpanel's own counts are not available")


@pytest.mark.parametrize("name", ["[/b]", "[red]x", "a\x1b[2Jb", "a\nb", "x" * 255, "\u202eabc"])
def test_a_name_is_shown_as_it_is(name):
    """It is no markup, does not control the terminal, and is not cut off at 40 columns."""
    now = datetime.now(UTC)
    one = Reconciled(START, name, 1, 2, "unexplained", f"`{name}`", now, now)
    out = StringIO()
    Console(file=out, highlight=False, width=40).print(_differences([one]))
    assert "…" not in out.getvalue()
    assert name.isprintable() <= (name[:5] in out.getvalue())
    assert "\x1b" not in out.getvalue()
    assert "\u202e" not in out.getvalue()


def test_again_downloads_the_days(mp_here, emulator):
    """It names the events that differ."""
    assert mp_here("sync", *DAYS, "--no-profiles").code == 0
    done = mp_here("verify", *DAYS, "--again")
    assert (done.code, done.stdout) == (0, "2 of 2 days equal the download.\n")
    emulator.faults.add(Fault("late-events", day=START.replace(day=4), count=2))
    done = mp_here("verify", *DAYS, "--again")
    assert done.code == 1
    assert "2024-01-04: missing 2, gone 0, changed 0 (Page View)" in done.stdout


def test_lateness_is_a_curve_that_ends_at_all_events(mp_here, emulator):
    """As bars and as JSON; late rows arrive three days after they happened."""
    emulator.faults.add(Fault("late-events", day=START.replace(day=4), count=2))
    assert mp_here("sync", *DAYS, "--no-profiles").code == 0
    done = mp_here("inspect", "lateness", *DAYS)
    assert done.code == 0
    assert "100.00%  " + "█" * 40 in done.stdout.splitlines()[-1]
    result = json.loads(mp_here("inspect", "lateness", *DAYS, "--format", "json").stdout)
    *_, before, last = result["steps"]
    assert last["share"] == 1.0
    assert last["count"] == result["total"]
    assert (last["days"], last["count"] - before["count"]) == (4, 2)
    empty = mp_here("inspect", "lateness", "--from", "2023-01-01", "--to", "2023-01-02")
    assert empty.stdout == "No event is stored for these days.\n"
    wrong = mp_here("inspect", "lateness", "--from", "2024-01-04", "--to", "2024-01-03")
    assert wrong.code == 3
