"""Names, values and errors never control the terminal."""

import csv
import io
import json
import sys
import unicodedata
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mixpanel_assets.cli.app import run as run_mp
from mixpanel_assets.cli.output import Format
from mixpanel_assets.emulator import Fault
from mixpanel_assets_tests.laws import siblings

ODD = "Sign\x1b]0;x\x07\x00\x7f\x9b31m\u202eUp\u2066\u200b\u2028"
DAY = ("--from", "2024-01-03", "--to", "2024-01-03")
AS_SQL = "'Sign' || chr(27) || ']0;x' || chr(7) || chr(127) || chr(155) || '31m' || chr(8238)"
STATEMENT = f'SELECT {AS_SQL} AS "Na\x1b[2J\u202eme", 1 AS n'


def steering(text: str) -> list[str]:
    """Return what must not stand in text for a terminal."""
    hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return [one for one in set(text) - {*"\n\t"} if unicodedata.category(one) in hidden]


def an_event(name: str) -> str:
    moment = int(datetime(2024, 1, 3, 12, tzinfo=UTC).timestamp() * 1000)
    properties = {"time": moment, "distinct_id": name, "$insert_id": "odd-1", name: name}
    return json.dumps({"event": name, "properties": properties}, ensure_ascii=False)


@pytest.mark.parametrize(
    "kind", siblings(["error-200", "500-text", "400-timeout", "401-json", "404-json"], keep=2)
)
def test_the_text_of_an_error_cannot_steer_a_terminal(kind, mp_here, emulator):
    """No control character of it is printed: in text, in JSON, with -v, or by doctor."""
    emulator.faults.add(Fault(kind, path="*", times=None, text=ODD))
    for command in (
        ("-v", "sync", *DAY),
        ("query", "segmentation", "-e", "Sign Up", *DAY, "--format", "json"),
        ("inspect", "events"),
        ("fetch", "profiles", "--stdout", "--raw"),
        ("doctor",),
        ("auth", "test"),
    ):
        ran = mp_here(*command, MP_MAX_RETRIES="1")
        assert ran.code
        assert steering(ran.stdout + ran.stderr) == []


def test_names_of_events_cannot_steer_a_terminal(mp_here, emulator):
    """Loaded, streamed, queried, as a column's name, in every form; the values are equal."""
    emulator.faults.add(Fault("junk-line", day=None, times=None, text=an_event(ODD)))
    streamed = mp_here("fetch", "events", *DAY, "--stdout")
    assert steering(streamed.stdout + streamed.stderr) == []
    events = [json.loads(line) for line in streamed.stdout.split("\n")[:-1]]
    assert ODD in {event["event_name"] for event in events}
    assert mp_here("-v", "sync", *DAY, "--no-profiles").code == 0
    assert mp_here("fetch", "events", "odd", *DAY, "-e", ODD).code == 0
    for form in Format:
        for command in (
            ("inspect", "breakdown", "-t", "events"),
            ("inspect", "keys", "-t", "events"),
            ("inspect", "sample", "-t", "odd", "-n", "9"),
            ("query", "sql", STATEMENT),
        ):
            ran = mp_here(*command, "--format", form)
            assert ran.code == 0, ran.stderr
            found = steering(ran.stdout + ran.stderr)
            if form is Format.CSV:
                found = [one for one in found if unicodedata.category(one) == "Cc"]
            assert found == [], (form, command)
    breakdown = mp_here("inspect", "breakdown", "-t", "events")
    assert ODD in {event["event_name"] for event in json.loads(breakdown.stdout)["events"]}
    raw = mp_here("fetch", "events", *DAY, "--stdout", "--raw")
    assert an_event(ODD) in raw.stdout


def test_what_was_typed_or_refused_is_shown_as_it_is_not(mp_here):
    """Wrong usage, tables that are not there, statements that DuckDB refuses."""
    for command in (
        ("sync", "--from", ODD),
        (f"sy{ODD}nc",),
        ("inspect", "schema", "-t", ODD),
        ("query", "sql", f"SELECT '{ODD}'::INTEGER"),
        ("query", "sql", f'SELECT * FROM "{ODD}"'),
        ("fetch", "events", ODD, *DAY, "--events", ODD),
        ("--account", ODD, "auth", "show"),
    ):
        ran = mp_here(*[part.replace("\x00", "") for part in command])
        assert ran.code
        assert steering(ran.stdout + ran.stderr) == []


class Screen(io.TextIOWrapper):
    """A terminal, or something else, whose bytes can be looked at."""

    def __init__(self, encoding: str, *, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    @property
    def shown(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()


@pytest.fixture
def on_screen(mp_here, monkeypatch):
    """Run a command line with that output."""

    def run(screen, *arguments: str, code: int = 0):
        with monkeypatch.context() as here:
            here.setattr(sys, "stdout", screen)
            with pytest.raises(SystemExit) as ended:
                run_mp(arguments)
            assert (ended.value.code or 0) == code
        return screen

    return run


@pytest.fixture
def stored(mp_here, variables, monkeypatch):
    """Store a day in a database, and set the variables that name it."""
    assert mp_here("sync", *DAY, "--no-profiles").code == 0
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_csv_on_a_terminal_shows_marks_of_direction_too(stored, on_screen):
    """A file keeps them, for they belong to a name; controls are escapes in both."""
    sql = ("query", "sql", "SELECT chr(8238) || 'a' || chr(27) || chr(13) || chr(10) AS a", "-f")
    shown = on_screen(Screen("utf-8", terminal=True), *sql, "csv").shown.decode()
    assert shown == 'a\n"\\u202ea\\x1b\\r\n"\n'
    kept = on_screen(Screen("utf-8", terminal=False), *sql, "csv").shown.decode()
    assert list(csv.reader(io.StringIO(kept, newline=""))) == [["a"], ["\u202ea\\x1b\r\n"]]


OTHERS = [(form, encoding) for encoding in ("ascii", "cp1252") for form in Format]


@pytest.mark.parametrize(
    ("form", "encoding"),
    siblings([*((form, "latin-1") for form in Format), *OTHERS], keep=len(Format) + 1),
)
def test_any_locale_will_do(form, encoding, stored, on_screen):
    """Files and pipes are UTF-8; a terminal shows escapes for what it does not know."""
    sql = ("query", "sql", "SELECT 'żółć 日本' AS \"näme\"", "-f", form)
    assert "żółć 日本" in on_screen(Screen(encoding, terminal=False), *sql).shown.decode()
    shown = on_screen(Screen(encoding, terminal=True), *sql).shown.decode(encoding)
    assert "\\u65e5\\u672c" in shown


def test_a_full_disk_behind_the_output_is_told_in_one_sentence(stored, on_screen, capsys):
    """Whether it is noticed while it is written, or at the end."""
    for command in (
        ("query", "sql", "SELECT 1 AS a"),
        ("query", "sql", "SELECT unnest(range(100000)) AS a", "-f", "csv"),
        ("fetch", "events", *DAY, "--stdout"),
        ("fetch", "events", *DAY, "--stdout", "--staged"),
        ("quota",),
    ):
        with suppress(OSError), Path("/dev/full").open("w") as full:
            capsys.readouterr()
            on_screen(full, *command, code=1)
            said = capsys.readouterr().err
            assert "The output could not be written: No space left on device." in said
            assert "Traceback" not in said
