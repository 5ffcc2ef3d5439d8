"""`mp plan` shows the cost of a load before it starts; `mp clean` frees disk space."""

import json
import os
import time
from datetime import date

from mixpanel_assets.emulator import Fault

WEEK = ("--from", "2024-01-01", "--to", "2024-01-07")


def figures(done):
    assert done.code == 0, done.stderr
    return {line[:10].strip(): line[10:].strip() for line in done.stdout.splitlines()}


def test_a_plan_of_an_unknown_project_says_what_is_known(mp_here, emulator, tmp_path):
    """It prints at least requests and waiting time, sends no request and creates no file."""
    before = len(emulator.requests)
    said = figures(mp_here("plan", "--from", "2022-01-01", "--to", "2024-01-07"))
    assert said["days"] == "737"
    assert said["requests"].startswith("26 or more")
    assert "no wait" in said["time"]
    assert "unknown" in said["rows"]
    assert "MB" in said["free disk"]
    assert len(emulator.requests) == before
    assert not (tmp_path / "warehouse.duckdb").exists()


def test_a_plan_of_a_known_project_gives_figures(mp_here):
    """The plan estimates rows, bytes and requests of the next load from the loaded days."""
    mp_here("sync", *WEEK, "--no-profiles")
    said = figures(mp_here("plan", "--from", "2024-01-01", "--to", "2024-01-14"))
    assert said["requests"] == "1, one more if days have no events"
    assert figures(mp_here("plan", *WEEK, "--refetch", "all"))["requests"] == "1"
    assert said["rows"].startswith("about ")
    assert "MB" in said["download"]


def test_a_plan_tells_the_waiting_time(mp_here):
    """At one day per request, 200 days are more than the budget of three hours."""
    said = figures(
        mp_here(
            *("plan", "--from", "2023-01-01", "--to", "2023-07-19"),
            MP_DAYS_PER_REQUEST="1",
            MP_BUDGET_EXPORT_PER_HOUR="58",
        )
    )
    assert said["requests"].startswith("200")
    assert said["time"].startswith("about 3:00:00")


def test_clean_deletes_what_failed_loads_left(mp_here, emulator, tmp_path):
    """The response of a failed day is kept for a week; then `mp clean` deletes and reports it."""
    emulator.faults.add(Fault("foreign-rows", day=date(2024, 1, 3)))
    failed = mp_here("sync", "--from", "2024-01-03", "--to", "2024-01-03", "--no-profiles")
    assert failed.code == 6
    [kept] = (tmp_path / "spool").iterdir()
    assert str(kept) in failed.stderr
    assert mp_here("clean", "--all").stdout == "deleted 0 (0.0 MB), kept 1\n"
    os.utime(kept, (time.time() - 7200,) * 2)
    assert mp_here("clean").stdout == "deleted 0 (0.0 MB), kept 1\n"
    assert mp_here("clean", "--all").stdout.endswith("MB), kept 0\n")
    assert not list((tmp_path / "spool").iterdir())


NO_CREDENTIALS = {"MP_USERNAME": "", "MP_SECRET": ""}


def test_a_plan_needs_no_secret(mp_here, emulator):
    """No request is sent, so only the project is needed."""
    before = len(emulator.requests)
    done = mp_here(
        "plan", "--from", "2024-01-01", "--to", "2024-12-31", "-f", "json", **NO_CREDENTIALS
    )
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["days"] == 366
    assert len(emulator.requests) == before


def test_a_plan_needs_no_project(mp_here):
    """Unless there is a database, whose project then has to be named."""
    nothing = {**NO_CREDENTIALS, "MP_PROJECT_ID": ""}
    done = mp_here("plan", "--from", "2023-01-01", "--to", "2024-12-31", **nothing)
    assert done.code == 0, done.stderr
    assert "731" in done.stdout
    assert mp_here("sync", "--from", "2024-01-01", "--to", "2024-01-01").code == 0
    refused = mp_here("plan", "--from", "2023-01-01", "--to", "2024-12-31", **nothing)
    assert refused.code == 1
    assert "MP_PROJECT_ID" in refused.stderr
