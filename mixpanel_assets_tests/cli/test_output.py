"""Records in the forms of --format: complete, and without control of the terminal."""

import csv
import io
import json
import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mixpanel_assets.cli.exits import InvalidArgumentsError
from mixpanel_assets.cli.output import Answer, Format, Width, fitting, print_answer
from mixpanel_assets_tests.laws import examples

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(
    LEAVES | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
RECORDS = st.lists(st.dictionaries(st.text(min_size=1), VALUES, min_size=1), max_size=4)
WITH_OUTPUT = examples(25)


def printed(capsys, records, output, **more):
    print_answer(Answer(records), output, **more)
    return capsys.readouterr().out


@given(records=RECORDS)
@WITH_OUTPUT
def test_json_forms_give_back_the_records(capsys, records):
    """Reading what was printed gives what was given."""
    assert json.loads(printed(capsys, records, Format.JSON)) == records
    lines = printed(capsys, records, Format.JSONL).split("\n")[:-1]
    assert [json.loads(line) for line in lines] == records


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)


@given(records=st.lists(st.fixed_dictionaries({"a": TEXTS, "b": TEXTS}), min_size=1))
@WITH_OUTPUT
def test_csv_gives_back_texts(capsys, records):
    """Commas, quotes and line separators survive."""
    text = printed(capsys, records, Format.CSV)
    assert list(csv.DictReader(io.StringIO(text, newline=""))) == records


@given(name=st.text())
@WITH_OUTPUT
def test_plain_text_and_tables_hold_one_line_a_record(capsys, name):
    """No value can end a line, begin a cell or send an escape sequence."""
    line = printed(capsys, [{"name": name, "n": 1}], Format.PLAIN)
    assert line.count("\n") == 1
    assert line.count("\t") == 1
    assert line.replace("\t", "").replace("\n", "").isprintable()
    assert "\x1b" not in printed(capsys, [{"name": name}], Format.TABLE)


def test_a_table_in_a_pipe_is_not_cut(capsys):
    """A long value is printed in full."""
    assert "x" * 500 in printed(capsys, [{"a": "x" * 500, "b": "[red]"}], Format.TABLE)
    assert "[red]" in printed(capsys, [{"b": "[red]"}], Format.TABLE)


WIDE = [
    {
        "event_name": "Order Completed and much more of a name",
        "event_time": datetime(2024, 1, 2, 3, 4, 5, 678000),
        "time_raw": 1704164645678,
        "properties": {"$browser": "Chrome", "plan": "pro", "country": "DE"},
        "first_seen": "2024-01-02T03:04:05.678000+00:00",
        "amount": Decimal("12345678.90"),
    }
]
RIGID = {
    "2024-01-02T03:04:05.678000",
    "1704164645678",
    "12345678.90",
    "2024-01-02T03:04:05.678000+00:00",
}


@pytest.mark.parametrize("width", [30, 60, 80, 100, 120, 160, 200])
def test_a_table_on_a_terminal_cuts_no_number_and_no_time(width, capsys, monkeypatch):
    """Text is cut; columns that find no room are named below."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed(capsys, WIDE, Format.TABLE))
    table, _, below = text.partition("more column")
    lines = table.splitlines()
    assert all(cell_len(line) <= width for line in lines)
    assert lines[0].startswith("┏")
    row = next(line for line in lines if line.startswith("│"))
    shown = [cell.strip() for cell in row.split("│")[1:-1]]
    assert {cell for cell in shown if cell[0].isdigit()} <= RIGID
    names = list(WIDE[0])
    assert all(name in below for name in names[len(shown) :])
    assert bool(below) == (len(shown) < len(names))


@pytest.mark.parametrize("width", [60, 80])
def test_names_of_narrow_columns_are_folded_not_cut(width, capsys, monkeypatch):
    """A name of several words has a line for each where its numbers are short."""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    names = ["api", "limit", "used", "left", "window_seconds", "next_slot_at", "blocked_until"]
    table = re.sub(r"\x1b\[[0-9;]*m", "", printed(capsys, [dict.fromkeys(names, 58)], Format.TABLE))
    header = [line.split("┃")[1:-1] for line in table.splitlines() if line.startswith("┃")]
    whole = ["".join(cell.strip() for cell in cells) for cells in zip(*header, strict=True)]
    assert whole == names


def test_columns_grow_evenly_into_the_room_there_is():
    """None beyond its content; the first is shown in any case."""
    widths = [Width(40, 12), Width(10, 10), Width(30, 12)]
    assert fitting(widths, None) == [40, 10, 30]
    assert fitting(widths, 200) == [40, 10, 30]
    assert fitting(widths, 44) == [12, 10, 12]
    assert fitting(widths, 54) == [17, 10, 17]
    assert fitting(widths, 30) == [13, 10]
    assert fitting(widths, 10) == [6]
    assert fitting([], 80) == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (datetime(2024, 1, 2, 3, tzinfo=timezone(timedelta(hours=1))), "2024-01-02T02:00:00Z"),
        (datetime(2024, 1, 2, 3, tzinfo=UTC), "2024-01-02T03:00:00Z"),
        (datetime(2024, 1, 2, 3), "2024-01-02T03:00:00"),
        (date(2024, 1, 2), "2024-01-02"),
        (Decimal("1.5"), 1.5),
        (Decimal("0.12345678901234567890"), "0.12345678901234567890"),
        (float("nan"), None),
        (2**70, 2**70),
        ((1, "a"), [1, "a"]),
        ("\ud800", "\ud800"),
    ],
)
def test_values_in_json(value, shown, capsys):
    """Times in ISO 8601, exact numbers, null for NaN."""
    print_answer(Answer({"value": value}))
    assert json.loads(capsys.readouterr().out) == {"value": shown}


def test_columns_are_all_keys(capsys):
    """A key that only a later record has is not lost; what is absent is empty."""
    text = printed(capsys, [{"a": 1}, {"b": None, "c": {"d": [1]}}], Format.CSV)
    assert text.splitlines() == ["a,b,c", "1,,", ',,"{""d"": [1]}"']


def test_a_jq_program_sees_the_array_or_each_record(capsys):
    """Its results are JSON, one after the other."""
    records = [{"a": "ü"}, {"a": 2}]
    assert printed(capsys, records, Format.JSON, jq="map(.a)[]") == '"ü"\n2\n'
    assert printed(capsys, records, Format.JSONL, jq="{b: .a}") == '{"b": "ü"}\n{"b": 2}\n'
    with pytest.raises(InvalidArgumentsError, match="--jq"):
        print_answer(Answer(records), Format.JSON, jq=".a")
    with pytest.raises(InvalidArgumentsError, match="table"):
        print_answer(Answer(records), Format.TABLE, jq=".")
