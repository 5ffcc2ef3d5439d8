"""JSON text taken apart is the same JSON, whatever it holds."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.rules.json_text import (
    MAX_DEPTH,
    depth,
    joined,
    last_values,
    members,
    parse,
    values,
)

texts = st.text(st.characters(codec="utf-8"), max_size=5) | st.sampled_from(['"', "\\", "}", "a"])
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(texts, inner), max_size=4),
    max_leaves=12,
)
spacings = st.sampled_from([("", ""), ("", " "), (" ", " \t\r\n")])


def written(tree, before, after, *, ascii_only=True) -> str:
    """Write a tree as JSON; a list of pairs is an object, in which a name may come twice."""
    if not isinstance(tree, list):
        number = isinstance(tree, float) and tree in (float("inf"), float("-inf"))
        return "1e400" if number else json.dumps(tree, ensure_ascii=ascii_only)
    comma = f"{before},{after}"
    if tree and all(isinstance(item, tuple) for item in tree):
        pairs = [
            f"{json.dumps(name, ensure_ascii=ascii_only)}{before}:{after}"
            f"{written(value, before, after, ascii_only=ascii_only)}"
            for name, value in tree
        ]
        return "{" + comma.join(pairs) + "}"
    return (
        "[" + comma.join(written(item, before, after, ascii_only=ascii_only) for item in tree) + "]"
    )


@given(st.lists(st.tuples(texts, trees), max_size=6), spacings, st.booleans())
def test_an_object_is_its_members(pairs, spacing, ascii_only):
    """Every name comes with the text of its value, in order; of repeated ones, all or the last."""
    inside = [(name, written(value, *spacing, ascii_only=ascii_only)) for name, value in pairs]
    text = written(pairs or {}, *spacing, ascii_only=ascii_only)
    assert list(members(text)) == inside
    assert values(text.encode()) == {name: value.encode() for name, value in inside}


def names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    assert len(found) == len(pairs), f"{pairs} has a name twice"
    return found


def read(text: str, pairs_hook: Any = None) -> Any:
    """Read JSON and keep numbers as they are written."""
    return json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=pairs_hook)


near = st.sampled_from(["a", "b", ':"', '"', '":', "\\", 'a":', "é", "a b", "{", "]"])
crowded = st.recursive(
    scalars | near,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(near, inner), max_size=4),
    max_leaves=20,
)


@given(crowded, spacings, st.booleans())
def test_of_a_name_that_comes_twice_the_last_value_is_left(tree, spacing, ascii_only):
    """On every level, whatever the names hold; all else stays as sent."""
    raw = written(tree, *spacing, ascii_only=ascii_only).encode()
    left = last_values(raw)
    assert read(left.decode(), names_once) == read(raw.decode())
    try:
        read(raw.decode(), names_once)
    except AssertionError:
        assert len(left) < len(raw)
    else:
        assert left is raw


def test_a_character_that_needs_no_escape_gets_none():
    """Not even the control character 127, which JSON allows in a text."""
    assert joined({"a\x7f": b"1"}, ascii_only=True) == b'{"a\x7f":1}'


def test_one_name_may_be_written_in_two_ways():
    assert last_values(rb'{"a":1.50,"\u0061":{"n":1e5 , "n" : 2},"b":3}') == (
        rb'{"\u0061":{"n" : 2},"b":3}'
    )


def test_names_are_looked_for_however_long_or_deep_the_text_is():
    long, deep = b'"%b"' % (b"x" * 2_000_000), b"[" * 5000 + b'{"a":1,"a":2}' + b"]" * 5000
    raw = b'{"a":%b,"n":%b,"a":1}' % (long, deep)
    assert last_values(raw) == b'{"n":%b,"a":1}' % deep.replace(b'"a":1,', b"")


@given(trees, spacings)
def test_parsed_text_is_what_json_makes_of_it(tree, spacing):
    """Of a name that comes twice, the last value counts, on every level."""
    text = written(tree, *spacing)
    assert parse(text) == json.loads(text)


def levels(value) -> int:
    if isinstance(value, dict):
        return 1 + max(map(levels, value.values()), default=0)
    return 1 + max(map(levels, value), default=0) if isinstance(value, list) else 0


@given(trees, spacings)
def test_depth_counts_levels_of_brackets(tree, spacing):
    """Lists and objects, whatever the spaces between them; repeated names count, too."""
    text = written(tree, *spacing)
    assert depth(text) >= levels(json.loads(text))
    assert depth(f"[{text}]") == depth(text) + 1


@given(trees, spacings, st.data())
def test_what_is_no_json_is_refused(tree, spacing, data):
    """A text without one of its characters is read as `json` reads it, or refused as there."""
    text = written([("name", tree), ("other", 1)], *spacing)
    position = data.draw(st.integers(0, len(text) - 1))
    broken = text[:position] + text[position + 1 :]
    try:
        expected = json.loads(broken)
    except ValueError:
        for take in (depth, parse, lambda text: list(members(text))):
            with pytest.raises(ValueError, match=r"\w"):
                take(broken)
    else:
        assert parse(broken) == expected


@pytest.mark.parametrize(
    "text", ["", "{", "[1,]", '{"a":1,}', "[1 2]", "{}{}", "[}", "NaN", "01", '"']
)
def test_depth_refuses_what_is_no_json(text):
    """The slow way is as strict as the fast one."""
    with pytest.raises(ValueError, match=r"\w"):
        depth(text)


def test_nothing_recurses():
    """A hundred thousand levels are read, and what is too deep is text."""
    deep = "[" * 100_000 + "]" * 100_000
    assert depth(deep) == 100_000
    assert list(members(f'{{"a":{deep},"b":1}}')) == [("a", deep), ("b", "1")]
    event = parse(f'{{"event":"e","properties":{{"a":{deep},"b":1}}}}')
    assert event == {"event": "e", "properties": {"a": deep, "b": 1}}
    edge = "[" * (MAX_DEPTH - 2) + "]" * (MAX_DEPTH - 2)
    assert parse(f'{{"properties":{{"a":{edge}}}}}')["properties"]["a"] == json.loads(edge)


def test_integers_of_any_length_are_read():
    """Python reads 4,300 digits; more are the text of them."""
    digits = "1" * 5000
    assert parse(f'{{"a":{digits},"b":7}}') == {"a": digits, "b": 7}
    assert values(f'{{"a":{digits}}}'.encode()) == {"a": digits.encode()}
