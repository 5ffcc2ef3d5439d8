"""Segmentation expressions of `where` and `on`: parsed to a function of one record.

Types follow the documentation. `==` between different types is false. Ordering of different types
and arithmetic on anything but numbers are undefined. `not` of undefined is true.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final


class ExpressionError(ValueError):
    """The text is not an expression, or combines incompatible types."""


class _Undefined:
    def __repr__(self) -> str:
        return "undefined"

    def __bool__(self) -> bool:
        return False


UNDEFINED: Final = _Undefined()


@dataclass(frozen=True)
class Scope:
    """The values that an expression can use."""

    properties: Mapping[str, Any]
    user: Mapping[str, Any] = field(default_factory=dict)
    behaviors: Mapping[str, Any] = field(default_factory=dict)
    event: str | None = None


Evaluate = Callable[[Scope], Any]

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>\d+\.\d*(?:[eE][+-]?\d+)?|\.\d+|\d+(?:[eE][+-]?\d+)?)
    | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<word>[A-Za-z_][A-Za-z_0-9]*)
    | (?P<symbol>==|!=|>=|<=|[-+*/%<>()\[\],])
    )""",
    re.VERBOSE | re.DOTALL,
)


def parse(text: str) -> Evaluate:
    """Return an expression as a function of a record."""
    parser = _Parser(_tokens(text))
    evaluate = parser.expression()
    kind, token = parser.peek()
    if kind != "end":
        raise ExpressionError(f"unexpected {token!r} in expression")
    return evaluate


def matches(evaluate: Evaluate, scope: Scope) -> bool:
    """Return whether a record matches a filter: the value must be true."""
    return evaluate(scope) is True


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"unexpected {text[at : at + 10]!r} in expression")
        kind = match.lastgroup or ""
        tokens.append((kind, match.group(kind)))
        at = match.end()
    return tokens


class _Parser:
    """A recursive descent parser; `expression` has the operator that binds least."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens = tokens
        self.at = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self, *texts: str) -> str | None:
        kind, text = self.peek()
        if kind in ("word", "symbol") and text in texts:
            self.at += 1
            return text
        return None

    def expect(self, text: str) -> None:
        if self.take(text) is None:
            raise ExpressionError(f"expected {text!r}, got {self.peek()[1] or 'the end'!r}")

    def expression(self) -> Evaluate:
        left = self.conjunction()
        while self.take("or"):
            left = _or(left, self.conjunction())
        return left

    def conjunction(self) -> Evaluate:
        left = self.negation()
        while self.take("and"):
            left = _and(left, self.negation())
        return left

    def negation(self) -> Evaluate:
        if self.take("not"):
            return _not(self.negation())
        return self.comparison()

    def comparison(self) -> Evaluate:
        left = self.sum()
        while True:
            operator = self.take("==", "!=", ">", ">=", "<", "<=", "in")
            if operator is None and self.peek() == ("word", "not"):
                self.at += 1
                self.expect("in")
                operator = "not in"
            if operator is None:
                return left
            left = _binary(_compare, operator, left, self.sum())

    def sum(self) -> Evaluate:
        left = self.product()
        while operator := self.take("+", "-"):
            left = _binary(_calculate, operator, left, self.product())
        return left

    def product(self) -> Evaluate:
        left = self.unary()
        while operator := self.take("*", "/", "%"):
            left = _binary(_calculate, operator, left, self.unary())
        return left

    def unary(self) -> Evaluate:
        if self.take("-"):
            operand = self.unary()
            return lambda scope: _calculate("-", 0, operand(scope))
        return self.atom()

    def atom(self) -> Evaluate:
        kind, text = self.peek()
        self.at += 1
        if kind == "number":
            number = float(text) if re.search(r"[.eE]", text) else int(text)
            return lambda scope: number
        if kind == "string":
            string = _unquoted(text)
            return lambda scope: string
        if text == "(":
            inner = self.expression()
            self.expect(")")
            return inner
        if text == "[":
            return self.list()
        if kind == "word":
            return self.name(text)
        raise ExpressionError(f"unexpected {text or 'end'!r} in expression")

    def list(self) -> Evaluate:
        items: list[Evaluate] = []
        while not self.take("]"):
            if items:
                self.expect(",")
            items.append(self.expression())
        return lambda scope: [item(scope) for item in items]

    def name(self, word: str) -> Evaluate:
        if word in ("true", "false"):
            return lambda scope: word == "true"
        if word in ("null", "undefined"):
            return lambda scope: None if word == "null" else UNDEFINED
        if word in ("properties", "event", "user", "behaviors"):
            self.expect("[")
            kind, text = self.peek()
            if kind != "string":
                raise ExpressionError(f"{word}[...] needs a name in quotes")
            self.at += 1
            self.expect("]")
            return _lookup(word, _unquoted(text))
        if word in _FUNCTIONS:
            self.expect("(")
            argument = self.expression()
            self.expect(")")
            function = _FUNCTIONS[word]
            return lambda scope: function(argument(scope))
        raise ExpressionError(f"{word!r} is not defined; a property is properties[{word!r}]")


def _unquoted(string: str) -> str:
    return re.sub(r"\\(.)", r"\1", string[1:-1], flags=re.DOTALL)


def _lookup(place: str, name: str) -> Evaluate:
    def value(scope: Scope) -> Any:
        if place == "user":
            return scope.user.get(name, UNDEFINED)
        if place == "behaviors":
            return scope.behaviors.get(name, UNDEFINED)
        if place == "event" and name in ("name", "$name", "$event_name"):
            return scope.event
        if name == "$time" and "$time" not in scope.properties:
            return scope.properties.get("time", UNDEFINED)
        return scope.properties.get(name, UNDEFINED)

    return value


def _truth(value: Any) -> bool:
    if value is UNDEFINED or value is None:
        return False
    if isinstance(value, bool):
        return value
    raise ExpressionError("and, or and not need true or false")


def _and(left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda scope: _truth(left(scope)) and _truth(right(scope))


def _or(left: Evaluate, right: Evaluate) -> Evaluate:
    return lambda scope: _truth(left(scope)) or _truth(right(scope))


def _not(operand: Evaluate) -> Evaluate:
    return lambda scope: not _truth(operand(scope))


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same_type(left: Any, right: Any) -> bool:
    return (is_number(left) and is_number(right)) or type(left) is type(right)


def _binary(
    compute: Callable[[str, Any, Any], Any], operator: str, left: Evaluate, right: Evaluate
) -> Evaluate:
    return lambda scope: compute(operator, left(scope), right(scope))


def _compare(operator: str, left: Any, right: Any) -> Any:
    if operator in ("in", "not in"):
        is_in = _contains(left, right)
        return is_in if is_in is UNDEFINED else is_in is (operator == "in")
    if operator in ("==", "!="):
        equal = _same_type(left, right) and left == right
        return equal is (operator == "==")
    if not _same_type(left, right) or not (is_number(left) or isinstance(left, str)):
        return UNDEFINED
    if operator[0] == ">":
        return left > right or (operator == ">=" and left == right)
    return left < right or (operator == "<=" and left == right)


def _contains(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        return left in right
    if isinstance(right, list):
        return any(_same_type(left, item) and left == item for item in right)
    return UNDEFINED


def _calculate(operator: str, left: Any, right: Any) -> Any:
    if operator == "+" and isinstance(left, str) and isinstance(right, str):
        return left + right
    if not (is_number(left) and is_number(right)):
        return UNDEFINED
    if operator in "/%" and right == 0:
        return UNDEFINED
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    return left / right if operator == "/" else math.fmod(left, right)


def _rounding(function: Callable[[float], int]) -> Callable[[Any], Any]:
    return lambda value: function(value) if is_number(value) else UNDEFINED


def _to_number(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if is_number(value):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return UNDEFINED


def _to_string(value: Any) -> Any:
    if value is UNDEFINED or value is None:
        return UNDEFINED
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _to_seconds(value: Any) -> Any:
    """Return a date as a number of seconds, so that it compares with `$time`."""
    if is_number(value):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return UNDEFINED
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "floor": _rounding(math.floor),
    "ceil": _rounding(math.ceil),
    "round": _rounding(lambda value: math.floor(value + 0.5)),
    "boolean": bool,
    "number": _to_number,
    "string": _to_string,
    "defined": lambda value: value is not UNDEFINED,
    "datetime": _to_seconds,
}
