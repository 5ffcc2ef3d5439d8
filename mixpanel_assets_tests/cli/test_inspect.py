"""`mp inspect`: what a project holds, in every form."""

import csv
import json
from datetime import UTC, datetime

import pytest

from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets_tests.conftest import START

NOW = datetime(2024, 1, 14, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def recent_emulator():
    """Two weeks that end today: names are listed for a month only."""
    with Emulator(EmulatorSettings(start=START, events_per_day=100, now=lambda: NOW)) as emulator:
        yield emulator


@pytest.fixture
def emulator(recent_emulator):
    return recent_emulator


def in_json(answer):
    if isinstance(answer, list):
        return [in_json(one) for one in answer]
    return answer.to_dict() if hasattr(answer, "to_dict") else answer


@pytest.mark.parametrize(
    ("command", "ask"),
    [
        (("inspect", "events"), lambda ws: ws.events()),
        (("events",), lambda ws: ws.events()),
        (("inspect", "properties", "-e", "Sign Up"), lambda ws: ws.properties("Sign Up")),
        (
            ("inspect", "values", "-p", "mp_country_code", "-e", "Sign Up", "-l", "3"),
            lambda ws: ws.property_values("mp_country_code", event="Sign Up", limit=3),
        ),
        (("inspect", "funnels"), lambda ws: ws.funnels()),
        (("inspect", "cohorts"), lambda ws: ws.cohorts()),
        (("inspect", "reports"), lambda ws: ws.list_bookmarks()),
        (("inspect", "bookmarks", "-t", "funnels"), lambda ws: ws.list_bookmarks("funnels")),
        (("inspect", "top-events"), lambda ws: ws.top_events(limit=10)),
        (("inspect", "lexicon-schemas"), lambda ws: ws.lexicon_schemas()),
        (
            ("inspect", "lexicon-schema", "-t", "event", "-n", "Order Completed"),
            lambda ws: ws.lexicon_schema("event", "Order Completed"),
        ),
    ],
)
def test_a_command_prints_what_the_library_returns(command, ask, mp_here, workspace):
    """Names, values and entries, in the library's order."""
    done = mp_here(*command)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout) == in_json(ask(workspace))


def test_names_are_lines_in_plain_text(mp_here, workspace):
    """One a line, and nothing around them; CSV has a heading."""
    names = workspace.events()
    assert mp_here("events", "-f", "plain").stdout.splitlines() == names
    rows = csv.reader(mp_here("events", "-f", "csv").stdout.splitlines())
    assert list(rows) == [["event"], *([name] for name in names)]
    lines = mp_here("events", "-f", "jsonl").stdout.splitlines()
    assert [json.loads(line) for line in lines] == names


def test_an_unknown_event_exits_with_4_and_names_similar_ones(mp_here):
    """A missing event and a wrong argument have different exit codes."""
    done = mp_here("properties", "-e", "Sign Upp", "--format", "json")
    assert done.code == 4
    error = json.loads(done.stderr)
    assert error["code"] == "EVENT_NOT_FOUND"
    assert "Sign Up" in error["details"]["similar_events"]


def test_columns_have_names_without_rows_too(mp_here, emulator):
    """A script that reads CSV finds its heading."""
    days = ("--from", "2023-01-01", "--to", "2023-01-02")
    printed = mp_here("query", "segmentation", "-e", "Nobody", "-o", "1", *days, "-f", "csv")
    assert printed.stdout == "date,segment,count\n"
