"""`mp coverage` and `mp certificate`: for people, and as rows for programs."""

import csv
import json
import re
from datetime import date, datetime, timedelta
from pathlib import Path

import pytest

from mixpanel_assets.warehouse import Database, ProjectIdentity, prepare

FIRST = date(2024, 1, 1)  # a Monday
STATUSES = ["complete"] * 9 + ["failed", "partial", "empty", "complete", "open"]
OPTIONS = ("--from", "2024-01-01", "--to", "2024-01-15")


@pytest.fixture
def stored(variables):
    """A ledger of two weeks, loaded a month later."""
    fetched_at = datetime(2024, 2, 1)
    rows = [
        ["mixpanel", "events", "events", FIRST + timedelta(days=number), status, 7, fetched_at]
        for number, status in enumerate(STATUSES)
    ]
    rows[9][5:] = 0, None  # failed
    rows[11][5] = 0  # empty
    with Database(Path(variables["MP_DATABASE"])).write() as connection:
        prepare(connection, ProjectIdentity("12345", "us"))
        connection.executemany(
            "INSERT INTO mixpanel._days (schema_name, table_name, type, day, status, row_count, "
            "fetched_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows,
        )


def test_the_calendar_has_a_column_for_each_week(stored, mp_here):
    """With a symbol for each day; the legend says what it means and how many days there are."""
    ran = mp_here("coverage", *OPTIONS)
    assert ran.code == 0
    assert ran.stdout.splitlines()[:14] == [
        "events: 2024-01-01 to 2024-01-15",
        "2024 Jan",
        "Mon  ##.",
        "     ## ",
        "     #! ",
        "Thu  #/ ",
        "     #0 ",
        "     ## ",
        "Sun  #> ",
        "     #     10 complete: stored completely",
        "     >      1 open: stored before its end",
        "     0      1 empty: Mixpanel sent nothing, which a second response confirmed",
        "     /      1 partial: stored in part",
        "     !      1 failed: not stored, because the last attempt failed",
    ]
    assert "\x1b" not in ran.stdout


@pytest.mark.parametrize(("columns", "width"), [("20", 1), ("80", 1), ("140", 2)])
def test_a_terminal_has_colors_and_the_same_symbols(stored, mp_here, columns, width):
    """Squares are as wide as high where a year of them fits; no line is wider than the terminal."""
    ran = mp_here(
        "coverage", "--from", "2024-01-01", "--to", "2024-12-30", COLUMNS=columns, FORCE_COLOR="1"
    )
    assert "\x1b[" in ran.stdout
    plain = re.sub(r"\x1b\[[0-9;]*m", "", ran.stdout)
    calendar = plain.partition("     #")[0].splitlines()
    assert all(len(line.rstrip()) <= max(int(columns), 33) for line in calendar)
    monday = calendar[2].removeprefix("Mon  ")
    assert monday[::width].startswith("##....")
    without = mp_here(
        "coverage",
        "--from",
        "2024-01-01",
        "--to",
        "2024-12-30",
        COLUMNS=columns,
        FORCE_COLOR="1",
        NO_COLOR="1",
    )
    assert re.sub(r"\x1b\[[0-9;]*m", "", without.stdout) == plain
    assert not re.search(r"\x1b\[[0-9;]*[34][0-9]", without.stdout)


def test_programs_get_a_row_for_each_day(stored, mp_here):
    """As in the other commands; --last counts from the current day."""
    days = json.loads(mp_here("coverage", *OPTIONS, "--format", "json").stdout)["days"]
    assert [day["status"] for day in days] == [*STATUSES, "never loaded"]
    rows = list(csv.DictReader(mp_here("coverage", *OPTIONS, "-f", "csv").stdout.splitlines()))
    assert rows[8]["fetched_at"] == "2024-02-01T00:00:00+00:00"
    assert rows[9] == {
        "table": "events",
        "day": "2024-01-10",
        "status": "failed",
        "row_count": "0",
        "fetched_at": "",
    }
    last = mp_here("coverage", "--last", "3", "--jq", ".days[].status").stdout.splitlines()
    assert set(last) == {'"never loaded"'}


def test_the_picture_is_written_to_files(stored, mp_here, tmp_path):
    """As an image, and as a page that also lists the days."""
    ran = mp_here("coverage", *OPTIONS, "--svg", "days.svg", "--html", "days.html")
    assert ran.code == 0
    assert "Wrote days.svg." in ran.stderr
    assert (tmp_path / "days.svg").read_text().startswith("<svg")
    page = (tmp_path / "days.html").read_text()
    assert page.startswith("<!doctype html>")
    assert (tmp_path / "days.svg").read_text() in page
    refused = mp_here("coverage", *OPTIONS, "--svg", "nowhere/days.svg")
    assert (refused.code, refused.stdout) == (1, "")
    assert "nowhere/days.svg cannot be written: No such file or directory" in refused.stderr


def test_what_is_not_there_is_named(stored, mp_here, variables):
    """A table that no asset has, and a database that was not loaded yet."""
    unknown = mp_here("coverage", "--table", "visits")
    assert unknown.code == 4
    assert "visits" in unknown.stderr
    assert mp_here("coverage", "--database", "other.duckdb").code == 4
    with Database(Path(variables["MP_DATABASE"])).write() as connection:
        connection.execute("DELETE FROM mixpanel._days")
    assert mp_here("coverage").stdout == "No day is stored yet.\n"


@pytest.fixture
def loaded(workspace):
    """Three days in one response."""
    workspace.sync_events("2024-01-01", "2024-01-03")
    return workspace.certificate("2024-01-02")


def test_a_certificate_cuts_nothing_off_in_a_narrow_terminal(loaded, mp_here):
    """Long values go on in the next line."""
    out = mp_here("certificate", "2024-01-02", COLUMNS="40").stdout
    assert "…" not in out
    lines = out.splitlines()
    [begin] = [line.index(line.split()[1]) for line in lines if line.startswith("status ")]
    assert loaded.digest in "".join(f"{line[begin:]} ".split(" ")[0] for line in lines)


def test_a_certificate_says_what_each_number_means(loaded, mp_here):
    """And how the numbers add up; --format json has the same numbers."""
    ran = mp_here("certificate", "2024-01-02", COLUMNS="120")
    assert ran.code == 0
    first, *lines = ran.stdout.splitlines()
    assert first == "Certificate of 2024-01-02, table mixpanel.events, project 12345 (us)"
    assert any(
        re.fullmatch(
            rf"lines +{loaded.lines:,} +lines of the response that belong to the day *", one
        )
        for one in lines
    )
    sums = [one for one in lines if one.startswith("holds: ")]
    assert len(sums) == 5
    assert sums[0] == (
        f"holds: {loaded.lines:,} lines = {loaded.rows_received:,} rows + {loaded.duplicates} "
        f"duplicates + {loaded.quarantined} quarantined"
    )
    assert json.loads(mp_here("certificate", "2024-01-02", "-f", "json").stdout) == loaded.to_dict()


def test_a_wrong_sum_is_an_error(loaded, mp_here, workspace):
    """What does not add up is said, and the exit code is 1."""
    with workspace.storage.write() as connection:
        connection.execute("DELETE FROM mixpanel.events WHERE event_date = '2024-01-02'")
    ran = mp_here("certificate", "2024-01-02")
    assert ran.code == 1
    assert f"WRONG: 0 rows in the table now = {loaded.rows_stored:,} stored" in ran.stdout
    never = mp_here("certificate", "2024-01-09")
    assert (never.code, never.stdout) == (4, "")
    assert "2024-01-09 of mixpanel.events was never loaded" in never.stderr


def test_a_day_of_an_earlier_version_says_what_is_not_known(loaded, mp_here, workspace):
    """Numbers that were not stored are printed as not known instead of guessed."""
    with workspace.storage.write() as connection:
        connection.execute("UPDATE mixpanel._days SET certificate = NULL")
    ran = mp_here("certificate", "2024-01-02", COLUMNS="120")
    assert ran.code == 0
    assert re.search(r"^lines +not known", ran.stdout, re.MULTILINE)
    assert "not known: not known lines = not known rows" in ran.stdout
    assert ran.stdout.endswith(
        "What is not known was not stored by the earlier version that loaded the day.\n"
    )
