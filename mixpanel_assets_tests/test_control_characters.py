"""What steers a terminal, or hides or reorders text, is shown as an escape."""

import json
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.errors import MixpanelDataError, escaped_json, visible, without_controls
from mixpanel_assets.loading.doctor import Finding
from mixpanel_assets.loading.files import as_json
from mixpanel_assets.rules.locks import Holder
from mixpanel_assets_tests.laws import examples

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
ALL = [chr(code) for code in range(sys.maxunicode + 1)]


def test_the_characters_are_those_of_unicode():
    """Controls, formats, halves of pairs and separators; nothing that can be seen."""
    escaped = {one for one in ALL if visible(one) != one}
    expected = {one for one in ALL if unicodedata.category(one) in HIDDEN} - {"\n", "\t"}
    # What a newer Unicode than this Python's calls a format is escaped too.
    unknown = {one for one in escaped - expected if unicodedata.category(one) == "Cn"}
    assert escaped - unknown == expected


@given(value=st.recursive(st.text() | st.integers(), st.lists))
@examples(50)
def test_escaped_json_is_equal_json(value):
    """The same value comes out, and none of the characters stands in it."""
    text = escaped_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert [one for one in text if unicodedata.category(one) in HIDDEN] == []


@given(text=st.text())
@examples(50)
def test_text_for_people_holds_none_of_them(text):
    """But for newlines and tabs, which a message of several lines needs."""
    shown = visible(text)
    assert {one for one in shown if unicodedata.category(one) in HIDDEN} <= {"\n", "\t"}
    shown = without_controls(text).replace("\r\n", "\n")
    assert {one for one in shown if unicodedata.category(one) in ("Cc", "Cs")} <= {"\n", "\t"}


ODD = "Sign\x1b]0;x\x07\x00\x7f\x9b31m\u202eUp\u2066\u200b\u2028"


def test_an_error_is_safe_to_print():
    """Wherever its message goes: a terminal, a traceback, a log, Dagster's events."""
    error = MixpanelDataError(f"no event {ODD}\nsecond line")
    assert str(error) == error.message
    assert error.message == (
        r"no event Sign\x1b]0;x\x07\x00\x7f\x9b31m\u202eUp\u2066\u200b\u2028" + "\nsecond line"
    )


def test_what_others_wrote_is_safe_to_print():
    """A project's name in a finding, the command of a process that holds a database."""
    for text in (str(Finding("ok", "access", ODD, ODD)), str(Holder(1, ODD, ODD))):
        assert "Up" in text
        assert [one for one in text if unicodedata.category(one) in HIDDEN] == []


@pytest.mark.parametrize("name", [ODD, "caf\xe9 \x7f", "日本\x9b", "a\u2029b", "\ud800", 2**70])
def test_a_line_of_json_is_safe_to_print(name):
    """Equal JSON, in which nothing steers a terminal or ends a line."""
    line = as_json({"event_name": name, "properties": {str(name): [name]}}).decode()
    assert json.loads(line)["event_name"] == name
    assert [one for one in line if unicodedata.category(one) in HIDDEN] == []
