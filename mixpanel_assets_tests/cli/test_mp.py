"""`mp`: data on stdout, one clear sentence on stderr, exit codes a script can tell apart."""

import json
import re
import socket
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import duckdb
import pytest

from mixpanel_assets import __version__
from mixpanel_assets.auth import ConfigManager
from mixpanel_assets.emulator import Fault
from mixpanel_assets.warehouse import Database, ProjectIdentity, prepare

WEEK = ("--from", "2024-01-01", "--to", "2024-01-07")
DAY = ("--from", "2024-01-03", "--to", "2024-01-03")


def rows(tmp_path):
    path = tmp_path / "warehouse.duckdb"
    if not path.exists():
        return 0
    with duckdb.connect(path, read_only=True) as connection:
        return connection.execute("SELECT count(*) FROM mixpanel.events").fetchone()[0]


def test_the_version_is_printed(mp):
    """`mp --version` names the version."""
    assert mp("--version").stdout == f"mp {__version__}\n"


def test_sync_loads_days_and_profiles(mp, emulator, tmp_path):
    """A line per day on stdout, and the rows in the file."""
    done = mp("sync", *WEEK)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()][:2] == [
        "2024-01-01",
        "2024-01-02",
    ]
    truth = emulator.truth
    days = [date(2024, 1, day) for day in range(1, 8)]
    assert rows(tmp_path) == sum(truth.count(d) - len(truth.unstorable(d)) for d in days)


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"MP_USERNAME": "", "MP_SECRET": ""}, 1, "missing: MP_USERNAME, MP_SECRET"),
        ({"MP_SECRET": "wrong-77e"}, 2, "Check MP_USERNAME and MP_SECRET"),
        ({"MP_PROJECT_ID": "99999"}, 2, "access to project 99999"),
        ({"MP_REGION": "mars"}, 1, "MP_REGION must be one of us, eu, in"),
        ({"MP_DATABASE": "/proc/nowhere/x.duckdb"}, 1, "/proc/nowhere"),
        ({"MP_START_DATE": "soon"}, 1, "MP_START_DATE"),
        ({"MP_TIME_ZONE": "America"}, 1, "MP_TIME_ZONE"),
        ({"MP_API_BASE_URL": "http://[::1"}, 1, "MP_API_BASE_URL"),
        ({"MP_API_BASE_URL": "http://bob:wrong-77e@127.0.0.1"}, 1, "MP_API_BASE_URL"),
        ({"MP_SECRET": "\udcff\udcfe"}, 1, "MP_SECRET"),
    ],
)
def test_bad_input_ends_in_one_sentence(changes, code, said, mp_here, tmp_path):
    """What is wrong, what to do, the documented exit code, no traceback, nothing stored."""
    done = mp_here("sync", *DAY, **changes)
    assert done.code == code
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert re.search(r" \([A-Z_]+: docs/troubleshooting\.md#[a-z_]+\)\n$", done.stderr)
    assert "wrong-77e" not in done.stderr + done.stdout
    assert not rows(tmp_path)


def test_a_wrong_region_is_refused(mp_here, emulator):
    """The other region's host knows no such account."""
    done = mp_here("sync", *DAY, MP_API_BASE_URL=emulator.region_url("eu"), MP_REGION="eu")
    assert done.code == 2
    assert "MP_REGION" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("sync", "--from", "2024-13-01", "--to", "2024-01-01"),
        ("sync", "--nonsense"),
        ("sync", "--from", "2024-01-02", "--to", "2024-01-01"),
        ("plan", "--from", "2024-01-02", "--to", "2024-01-01"),
        ("nonsense",),
        ("clean", "--older-than", "99999999999"),
        ("emulator", "--port", "99999"),
        ("emulator", "--events-per-day", "-5"),
        ("emulator", "--zone", "Mars/Base"),
    ],
)
def test_wrong_usage_exits_with_3(arguments, mp_here):
    """Invalid arguments and refused credentials have different exit codes. The page is named."""
    done = mp_here(*arguments)
    assert done.code == 3
    assert "(INVALID_ARGUMENTS: docs/troubleshooting.md#invalid_arguments)" in done.stderr


@pytest.mark.parametrize(
    ("day", "said"),
    [
        ("soon", "'soon' is not a day; write it like 2024-01-31, today, yesterday or -7d"),
        ("2024-02-30", "is not a day"),
        ("99999-01-01", "is not a day"),
        ("-d", "is not a day"),
        ("7d", "is not a day"),
        ("tomorrow", "is not a day"),
        ("-99999d", "not between 2000-01-01"),
        ("0001-01-01", "not between 2000-01-01"),
        ("9999-12-31", "not between 2000-01-01"),
    ],
)
def test_what_is_not_a_day_is_told_in_plain_words(day, said, mp_here):
    """The message is the same for every command, and no request is sent."""
    for command in (("sync",), ("plan",), ("fetch", "events"), ("query", "frequency")):
        done = mp_here(*command, "--from", day, "--to", day, "-f", "json")
        assert done.code == 3
        assert said in json.loads(done.stderr)["message"]


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (("--last", "0"), "--last"),
        (("--last", "soon"), "--last"),
        (("--last", "10000"), "--last"),
        (("--last", "3", "--from", "2024-01-01"), "--last excludes --from and --to"),
        (("--last", "3", "--to", "yesterday"), "--last excludes --from and --to"),
        (("--from", "today", "--to", "yesterday"), "--from is after --to"),
    ],
)
def test_what_is_not_a_range_is_told_in_plain_words(days, said, mp_here):
    """Every command that takes days has the same message."""
    for command in (("sync",), ("plan",), ("fetch", "events"), ("query", "frequency")):
        done = mp_here(*command, *days, "-f", "json")
        assert done.code == 3
        assert said in json.loads(done.stderr)["message"]


def test_reports_count_days_in_the_zone_of_the_project(mp_here):
    """`today` of `mp query` is that of MP_TIME_ZONE; exports may have another one."""
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):  # 25 hours apart
        today = datetime.now(ZoneInfo(zone)).date()
        done = mp_here("query", "frequency", "--last", "2", MP_TIME_ZONE=zone)
        assert done.code == 0
        assert json.loads(done.stdout)["to_date"] == str(today)
        assert json.loads(done.stdout)["from_date"] == str(today - timedelta(days=1))


@pytest.mark.parametrize(
    "command",
    [
        ("fetch", "events", "--stdout"),
        ("inspect", "daily"),
        ("query", "event-counts", "-e", "Sign Up"),
        ("query", "activity-feed", "-U", "user-1"),
    ],
)
def test_the_last_days_can_be_asked_of_every_command(command, mp_here):
    """`--last` stands for --from and --to, required or not."""
    assert mp_here("sync", "--last", "2", "--no-profiles").code == 0
    done = mp_here(*command, "--last", "2")
    assert (done.code, done.stderr) == (0, done.stderr)


def test_a_future_day_exits_with_3(mp_here):
    """Mixpanel refuses the question; it is the arguments that are wrong."""
    done = mp_here("sync", "--from", "2999-01-01", "--to", "2999-01-01")
    assert done.code == 3
    assert "to_date cannot be later than today" in done.stderr


def test_a_day_that_stays_broken_exits_with_6(mp_here, emulator, tmp_path):
    """The exit code says that nothing was stored."""
    emulator.faults.add(Fault("truncate-whole-body", day=date(2024, 1, 3), times=None))
    done = mp_here("sync", *DAY, MP_MAX_RETRIES="1")
    assert done.code == 6
    assert "2024-01-03" in done.stderr
    assert not rows(tmp_path)


def test_a_partial_range_exits_with_1(mp_here, emulator, tmp_path):
    """Six days of seven are stored, and the exit code says that one is missing."""
    emulator.faults.add(Fault("truncate-whole-body", day=date(2024, 1, 3), times=None))
    done = mp_here("sync", *WEEK, MP_MAX_RETRIES="1")
    assert done.code == 1
    assert "1 of 7 days" in done.stderr
    assert rows(tmp_path)


def test_events_without_profiles_exit_with_1(mp_here, emulator, tmp_path):
    """The events are stored, so the result is partial."""
    emulator.faults.add(Fault("html-200", path="/api/query/engage", times=None))
    done = mp_here("sync", *WEEK, MP_MAX_RETRIES="0")
    assert done.code == 1
    assert "profiles page 0" in done.stderr
    assert rows(tmp_path)


def test_refused_credentials_on_profiles_exit_with_2(mp_here, emulator):
    """The exit code is 2 although the events of the day were stored."""
    emulator.faults.add(Fault("401-json", path="/api/query/engage", times=None))
    assert mp_here("sync", *DAY).code == 2


@pytest.mark.slow
def test_a_held_database_is_waited_for_and_its_holder_named(mp, tmp_path):
    """With MP_LOCK_TIMEOUT set the wait ends, and the message names the process."""
    import os

    path = tmp_path / "warehouse.duckdb"
    with duckdb.connect(path):
        done = mp("sync", *DAY, MP_LOCK_TIMEOUT="1.5")
    assert done.returncode == 1
    assert str(os.getpid()) in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [["emulator"], ["demo", "--ui"]])
def test_a_taken_port_is_named(mp, command):
    """The emulator and the UI say which port is taken, and how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = mp(*command, "--port", port)
    assert done.returncode == 1
    assert f"Port {port}" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("ui", [(), ("--ui", "--port", "0")])
def test_the_demo_leaves_what_is_not_its_own(mp_here, tmp_path, ui):
    """Another project's file, and a file in the place of the history of runs."""
    other = tmp_path / "other.duckdb"
    with Database(other).write() as connection:
        prepare(connection, ProjectIdentity("777", "eu"))
    before = other.read_bytes()
    done = mp_here("demo", *ui, "--database", str(other))
    assert (done.code, "holds project 777 (eu), but project 12345 (us)" in done.stderr) == (1, True)
    assert other.read_bytes() == before
    (tmp_path / "new.dagster").write_text("mine")
    if ui:
        done = mp_here("demo", *ui, "--database", str(tmp_path / "new.duckdb"))
        assert (done.code, "new.dagster is in the way" in done.stderr) == (1, True)
    assert (tmp_path / "new.dagster").read_text() == "mine"
    assert not (tmp_path / "other.dagster").exists()


def test_the_demo_ends_with_tables_that_equal_the_truth(mp, tmp_path):
    """Every row of the comparison is equal, and the three queries are printed."""
    done = mp("demo", "--database", str(tmp_path / "demo.duckdb"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("equal") == 8
    assert "DIFFERENT" not in done.stdout
    for title in ("Events per day", "Top events", "Revenue per country", "Next commands"):
        assert title in done.stdout


FORMS = [
    ("--format", "csv", "auth", "list"),
    ("-f", "csv", "auth", "list"),
    ("--format=csv", "auth", "list"),
    ("auth", "--format", "csv", "list"),
    ("auth", "list", "--format", "csv"),
    ("--format", "json", "auth", "list", "--format", "csv"),
    ("--format", "json", "auth", "-f", "csv", "list"),
]


@pytest.mark.parametrize("arguments", FORMS, ids=" ".join)
def test_the_form_may_stand_before_the_command(arguments, mp_here):
    """Like other global options; the last one has priority."""
    ConfigManager().add_account("shop", "u", "some-secret", "1", "us")
    listed = mp_here(*arguments)
    assert listed.code == 0, listed.stderr
    assert listed.stdout.startswith("name,username,")
    assert "shop,u," in listed.stdout


def test_a_jq_program_may_stand_before_the_command(mp_here):
    """It is checked as one behind it is."""
    assert mp_here("--jq", "length", "auth", "list").stdout == "0\n"
    assert mp_here("auth", "--jq", "length", "list", "--jq", ".").stdout == "[]\n"
    wrong = mp_here("--format", "csv", "--jq", ".", "auth", "list")
    assert wrong.code == 3
    assert "--jq needs --format json" in wrong.stderr


@pytest.mark.parametrize("given", [("--format", "csv"), ("--jq", ".")])
def test_a_form_of_nothing_is_refused(given, mp_here):
    """A command that prints its own text refuses a form."""
    refused = mp_here(*given, "emulator")
    assert refused.code == 3
    assert "takes neither --format nor --jq" in refused.stderr


@pytest.mark.parametrize("output", ["table", "csv", "plain"])
def test_no_accounts_are_no_empty_line(output, mp_here):
    """A note says that there are no accounts."""
    listed = mp_here("auth", "list", "--format", output)
    assert listed.stdout == ""
    assert "No accounts yet" in listed.stderr


@pytest.mark.parametrize("columns", ["0", " 0", "1", "7", "-1", "wide", ""])
def test_help_is_readable_whatever_width_is_set(columns, mp_here):
    """Some schedulers set a width of 0."""
    helped = mp_here("--help", COLUMNS=columns)
    assert helped.code == 0
    assert "A complete and exact copy of a Mixpanel project in DuckDB." in helped.stdout


def test_help_groups_the_commands(mp_here):
    """The commands that users need first are first."""
    helped = mp_here("--help", COLUMNS="100").stdout
    titles = re.findall(r"^╭─ (.+?) ─+╮$", helped, re.MULTILINE)
    assert titles[1:5] == ["Start", "Load", "Ask", "Upkeep"]
    assert titles[5].startswith("Short for")
    assert len(titles) == 6
