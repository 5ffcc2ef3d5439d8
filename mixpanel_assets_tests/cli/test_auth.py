"""`mp auth`: accounts in a private file, and a secret that appears nowhere else."""

import csv
import io
import json
import os
import pty
import subprocess
import tomllib

import pytest

from mixpanel_assets.emulator import Fault
from mixpanel_assets_tests.cli.conftest import MP, Ran

SECRET = "planted-8c1f"
NAME = "name.a1b2c3.mp-service-account"
ADD = ("auth", "add", "shop", "-u", NAME, "-p", "12345", "-r", "eu")


@pytest.fixture
def variables(tmp_path, emulator):
    """Variables without credentials; the config file is this test's own."""
    return {
        "MP_API_BASE_URL": emulator.base_url,
        "MP_CONFIG_PATH": str(tmp_path / "config.toml"),
        "MP_STATE_DIR": ":memory:",
    }


@pytest.fixture
def environment(variables):
    """The same for processes."""
    return {**os.environ, **variables}


@pytest.fixture
def mp(mp_here, tmp_path):
    """Run `mp` without a terminal; the secret may be in the file and nowhere else."""

    def run(*arguments: str, stdin: str = "", **changes: str) -> Ran:
        done = mp_here(*arguments, stdin=stdin, **changes)
        assert SECRET not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        for path in tmp_path.rglob("*"):
            if path.is_file() and not path.name.startswith("config.toml"):
                assert SECRET.encode() not in path.read_bytes()
        return done

    return run


@pytest.fixture
def accounts(mp, emulator):
    """Two accounts: `shop`, which Mixpanel knows, is the default; `blog` it does not know."""
    given = ("-u", emulator.username, "-p", str(emulator.project_id), "--secret-stdin")
    assert mp("auth", "add", "shop", *given, stdin=emulator.secret).code == 0
    assert (
        mp("auth", "add", "blog", "-u", NAME, "-p", "222", "-r", "eu", MP_SECRET=SECRET).code == 0
    )


def test_the_first_account_is_stored_and_shown(mp, tmp_path):
    """The account is on stdout without its secret, a note on stderr, the secret in the file."""
    done = mp(*ADD, "--secret-stdin", stdin=f"{SECRET}\n")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout) == {
        "name": "shop",
        "username": NAME,
        "project_id": "12345",
        "region": "eu",
        "is_default": True,
        "type": "service_account",
    }
    assert "config.toml" in done.stderr
    stored = tomllib.loads((tmp_path / "config.toml").read_text())
    assert stored["accounts"]["shop"]["secret"] == SECRET


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "said"),
    [
        (ADD, "", 3, "MP_SECRET"),
        ((*ADD, "--secret-stdin"), "", 3, "one line"),
        ((*ADD, "--secret-stdin"), f"{SECRET}\nmore\n", 3, "one line"),
        ((*ADD[:5], "--secret-stdin"), SECRET, 3, "--project"),
        ((*ADD, "-r", "mars", "--secret-stdin"), SECRET, 1, "us, eu, in"),
        ((*ADD, "-p", "shop", "--secret-stdin"), SECRET, 1, "number"),
        ((*ADD, "--secret", "x"), "", 3, "No such option"),
    ],
)
def test_what_is_missing_or_wrong_is_named(arguments, stdin, code, said, mp, tmp_path):
    """The exit code tells usage from values; nothing is stored."""
    done = mp(*arguments, stdin=stdin)
    assert done.code == code
    assert said in done.stderr
    assert not done.stdout
    assert not (tmp_path / "config.toml").exists()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("add", "shop", "-u", NAME, "-p", "1", "--secret-stdin"), 1),
        (("show", "nope"), 4),
        (("test", "nope"), 4),
        (("switch", "nope"), 4),
        (("remove", "nope", "--force"), 4),
        (("remove", "shop"), 3),
        (("list", "--jq", "["), 3),
        (("list", "--format", "csv", "--jq", "."), 3),
        (("test", "blog"), 2),
    ],
)
def test_errors_have_their_exit_code_and_change_nothing(arguments, code, mp, accounts, tmp_path):
    """One sentence on stderr, or one object with --format json; stdout is empty."""
    before = (tmp_path / "config.toml").read_bytes()
    done = mp("auth", *arguments, stdin=SECRET)
    assert done.code == code
    assert done.stderr.startswith("mp: ")
    assert done.stderr.count("\n") == 1
    assert not done.stdout
    if "csv" not in arguments:
        done = mp("auth", *arguments, "--format", "json", stdin=SECRET)
        assert done.code == code
        assert json.loads(done.stderr).keys() == {"code", "message", "details"}
    assert (tmp_path / "config.toml").read_bytes() == before


def test_a_list_in_every_form(mp, accounts):
    """The same accounts as JSON, JSON Lines, CSV, plain text and a table."""
    listed = json.loads(mp("auth", "list").stdout)
    assert [one["name"] for one in listed] == ["shop", "blog"]

    def said(form):
        return mp("auth", "list", "-f", form).stdout

    assert [json.loads(line) for line in said("jsonl").splitlines()] == listed
    assert [one["name"] for one in csv.DictReader(io.StringIO(said("csv")))] == ["shop", "blog"]
    assert [line.split("\t")[0] for line in said("plain").splitlines()] == ["shop", "blog"]
    assert listed[0]["username"] in said("table")
    assert mp("auth", "list", "--jq", ".[].name").stdout == '"shop"\n"blog"\n'
    assert mp("auth", "list", "-f", "jsonl", "--jq", ".region").stdout == '"us"\n"eu"\n'


def test_an_empty_list_is_an_empty_array(mp):
    """An empty list is printed, too."""
    assert json.loads(mp("auth", "list").stdout) == []
    assert mp("auth", "list", "-f", "plain").stdout == ""


def test_switching_and_removing(mp, accounts):
    """The default moves; after its removal there is none, and that is said."""
    assert json.loads(mp("auth", "switch", "blog").stdout)["is_default"]
    done = mp("auth", "remove", "blog", "--force")
    assert json.loads(done.stdout)["name"] == "blog"
    assert "mp auth switch" in done.stderr
    done = mp("auth", "show")
    assert done.code == 1
    assert "there are: shop" in done.stderr


def test_show_says_what_holds_here_and_why(mp, accounts):
    """Without a name: what would be used, and the source of each part."""
    assert json.loads(mp("auth", "show").stdout)["name"] == "shop"
    shown = json.loads(mp("auth", "show", MP_ACCOUNT="blog", MP_REGION="in").stdout)
    assert (shown["name"], shown["region"], shown["is_default"]) == ("blog", "in", False)
    assert shown["sources"]["secret"] == "account 'blog'"
    assert shown["sources"]["region"] == "MP_REGION"


def test_a_known_account_is_tested(mp, accounts, emulator):
    """Mixpanel names the project; the query budget is not touched."""
    before = len(emulator.requests)
    tested = json.loads(mp("auth", "test", "shop").stdout)
    assert tested["project_id"] == str(emulator.project_id)
    assert tested["project_name"] == "Invented coffee shop"
    assert [asked.path for asked in list(emulator.requests)[before:]] == ["/api/app/me"]


def test_another_zone_than_the_projects_is_warned_of(mp, accounts):
    """The warning has the value to set; stdout is unchanged."""
    told = mp("auth", "test", "shop")
    assert not told.stderr
    done = mp("auth", "test", "shop", MP_TIME_ZONE="US/Pacific")
    assert done.code == 0
    assert done.stdout == told.stdout
    assert "MP_TIME_ZONE is US/Pacific" in done.stderr
    assert "Set MP_TIME_ZONE=UTC." in done.stderr


def test_another_project_and_another_region_are_told_apart(mp, accounts, emulator):
    """No access names the projects there are; an unknown account names the region."""
    done = mp("auth", "test", MP_PROJECT_ID="99")
    assert done.code == 2
    assert f"it may read: {emulator.project_id}" in done.stderr
    done = mp("auth", "test", MP_API_BASE_URL=emulator.region_url("eu"), MP_REGION="eu")
    assert done.code == 2
    assert "lives in region eu" in done.stderr


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [("403-json", 2, "403"), ("html-200", 1, "not JSON"), ("500-json", 1, "try again later")],
)
def test_an_answer_that_says_nothing_about_the_account(fault, code, said, mp, accounts, emulator):
    """A refusal, a proxy's page and a failing server are not reported as wrong credentials."""
    emulator.faults.add(Fault(fault, path="/api/app/me", times=None))
    done = mp("auth", "test", MP_MAX_RETRIES="0")
    assert done.code == code
    assert said in done.stderr
    assert "does not know" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("-a", "blog", "auth", "show"),
        ("auth", "-a", "blog", "show"),
        ("auth", "show", "--account", "blog"),
        ("-a", "shop", "auth", "show", "-a", "blog"),
    ],
)
def test_the_account_is_named_before_or_behind_the_command(arguments, mp, accounts):
    """The last one holds, and beats the environment."""
    shown = json.loads(mp(*arguments, MP_USERNAME="x", MP_ACCOUNT="shop").stdout)
    assert shown["name"] == "blog"


def test_quiet_and_verbose_change_stderr_alone(mp, accounts):
    """-q prints nothing to stderr, -v the sources of the credentials."""
    done = mp("-v", "auth", "test", "shop")
    assert "secret: account 'shop'" in done.stderr
    assert mp("auth", "test", "shop").stdout == done.stdout
    done = mp("auth", "remove", "shop", "--force", "-q")
    assert done.code == 0
    assert not done.stderr


def test_every_command_that_asks_takes_an_account(mp, accounts):
    """`sync`, `plan`, `quota`, `clean` and `fetch` use the named account, whatever is set."""
    day = ("--from", "2024-01-03", "--to", "2024-01-03")
    wrong = {"MP_USERNAME": NAME, "MP_SECRET": SECRET, "MP_PROJECT_ID": "9"}
    for command in (
        ("sync", *day, "--no-profiles"),
        ("plan", *day),
        ("quota",),
        ("clean",),
        ("fetch", "events", *day, "--stdout", "--raw"),
    ):
        done = mp(*command, "-a", "shop", **wrong)
        assert done.code == 0, done.stderr
    assert mp("sync", *day, "-a", "nope", **wrong).code == 4


def test_a_prompt_does_not_show_the_secret(environment, tmp_path):
    """On a terminal, `mp` asks for the secret without an echo."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [MP, *ADD],
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        start_new_session=True,
    ) as running:
        os.close(theirs)
        shown = b""
        while b"Secret: " not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, f"{SECRET}\n".encode())
        while True:
            try:
                piece = os.read(ours, 1000)
            except OSError:  # the other side has closed
                break
            if not piece:
                break
            shown += piece
        assert running.wait(300) == 0
    os.close(ours)
    assert SECRET.encode() not in shown
    stored = tomllib.loads((tmp_path / "config.toml").read_text())
    assert stored["accounts"]["shop"]["secret"] == SECRET


def test_an_older_account_is_named_and_rewritten(mp, tmp_path):
    """`mp auth migrate` does it and keeps a copy; before, a note names the client that refuses."""
    config = tmp_path / "config.toml"
    config.write_text('[accounts.old]\nusername = "u"\nsecret = "s"\nproject_id = "1"\n')
    config.chmod(0o600)
    done = mp(*ADD, "--secret-stdin", stdin=f"{SECRET}\n")
    assert "old: it has no `type`" in done.stderr
    done = mp("auth", "migrate")
    assert json.loads(done.stdout) == {
        "migrated": ["old"],
        "backup": str(config.with_name("config.toml.backup-1")),
    }
    assert "Nothing to do" in mp("auth", "migrate").stderr


def test_a_list_without_accounts_says_so(mp):
    """An empty table prints nothing."""
    done = mp("auth", "list", "-f", "table")
    assert "No accounts yet" in done.stderr
