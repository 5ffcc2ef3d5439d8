"""Segmentation expressions: values, types and errors."""

from typing import Any

import pytest

from mixpanel_assets.emulator.expressions import UNDEFINED, ExpressionError, Scope, matches, parse

SCOPE = Scope(
    properties={
        "n": 5, "f": 2.5, "s": "abc", "digits": "5", "yes": True, "none": None,
        "list": ["a", "b"], "time": 1_704_067_200, 'odd "name"': 1,
    },
    user={"plan": "pro"},
    behaviors={"b1": 3},
    event="Sign Up",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('properties["n"]', 5),
        ('properties["n"] + 2 * 3', 11),
        ('(properties["n"] + 2) * 3', 21),
        ('-properties["n"] % 3', -2.0),
        ('properties["n"] / 2', 2.5),
        ('properties["n"] / 0', UNDEFINED),
        ('properties["s"] + "d"', "abcd"),
        ('properties["s"] * 2', UNDEFINED),
        ('properties["nope"]', UNDEFINED),
        ("1e3", 1000.0),
        ('user["plan"]', "pro"),
        ('behaviors["b1"] > 0', True),
        ('properties["odd \\"name\\""]', 1),
        ('event["name"]', "Sign Up"),
        ("floor(2.7) + ceil(2.1) + round(2.5)", 8),
        ('number("5.5")', 5.5),
        ('string(properties["n"])', "5"),
        ('boolean(properties["none"])', False),
        ('defined(properties["none"])', True),
        ('defined(properties["nope"])', False),
        ('datetime("2024-01-01T00:00:00")', 1_704_067_200.0),
        ('event["$time"] >= datetime("2024-01-01T00:00:00")', True),
        ('properties["$time"] < datetime(1704067200)', False),
    ],
)
def test_values(text: str, value: Any) -> None:
    """An expression has the documented value."""
    assert parse(text)(SCOPE) == value


@pytest.mark.parametrize(
    "text",
    [
        'properties["n"] == 5',
        'properties["n"] == 5.0',
        'properties["digits"] != 5',
        'number(properties["digits"]) == 5',
        'properties["yes"]',
        'properties["yes"] != 1',
        '"b" in properties["s"]',
        '"b" in properties["list"]',
        'properties["n"] in [1, 5]',
        'properties["s"] not in ["x"]',
        'not properties["nope"]',
        'not (properties["n"] > 5) and properties["s"] >= "abc"',
        'properties["nope"] or true',
        'properties["n"] > 1 and (properties["n"] < 1 or properties["s"] == \'abc\')',
    ],
)
def test_filters_that_match(text: str) -> None:
    """These let the record through."""
    assert matches(parse(text), SCOPE)


@pytest.mark.parametrize(
    "text",
    [
        'properties["digits"] == 5',
        'properties["digits"] > 4',
        'properties["nope"] > 4',
        'properties["n"]',
        'properties["nope"] == 5',
        'properties["nope"] and true',
        '"x" in properties["n"]',
    ],
)
def test_filters_that_do_not_match(text: str) -> None:
    """Different types are unequal and unordered; only a plain true lets a record through."""
    assert not matches(parse(text), SCOPE)


@pytest.mark.parametrize(
    "text",
    [
        "", "country", "properties", "properties[n]", 'properties["n"', "1 +", "(1", "1 2", "a ? b",
        "[1, ", "sum(1)", '"open', 'properties["a"] not 3',
    ],
)  # fmt: skip
def test_nonsense_is_an_error(text: str) -> None:
    """A bare name, a missing bracket or an unknown function is an error, not a filter."""
    with pytest.raises(ExpressionError):
        parse(text)


def test_and_needs_booleans() -> None:
    """A number beside `and` is an error when it is met."""
    with pytest.raises(ExpressionError):
        parse('properties["n"] and true')(SCOPE)
