"""Splits JSON text into its parts without a change, at any depth of nesting.

If an object has a name twice, the last value counts, as in the parsers of Python and JavaScript.
That rule holds for tables, streams, files and made ids, on every level.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec

# Python's parsers recurse, and share their limit of 1,000 levels with the calls around them.
MAX_DEPTH = 500

_decode_values = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
# A number such as 21.90 is kept as its text, so that encoding it gives the same bytes.
FLOATS_AS_TEXT = msgspec.Raw
_MOST_TEXTS = 10_000
# Numbers that DuckDB may write differently: 16 digits and more, or a three-digit exponent.
LONG_NUMBER = re.compile(r"[0-9.]{16,}|[0-9][eE][-+]?[0-9]{3}")
_build = msgspec.json.Decoder(float_hook=FLOATS_AS_TEXT).decode
encode = msgspec.json.Encoder().encode
_JSON_SPACE = " \t\r\n"
_JSON_SPACES = frozenset(_JSON_SPACE)
_CLOSING_BRACKETS = {"{": "}", "[": "]"}
_BUILT_JSON_BYTES = 1 << 20  # longer JSON is not built, which takes many times its memory
# A text, with the colon if it is a name; or a bracket.
_JSON_TOKEN = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"[ \t\r\n]*+(:)?|[{}\[\]]', re.DOTALL)
_COLON_APART = re.compile(rb'"[ \t\r\n]+:')


def parse(text: str, levels: int = MAX_DEPTH) -> Any:
    """Return the value of JSON text; a part that is nested too deep stays text.

    Control characters in strings are accepted. An integer of more digits than Python reads is
    the text of its digits.

    Args:
        text: JSON; half surrogate pairs are kept.
        levels: The levels of brackets that become Python objects. A value with more levels in an
            object, or in an object inside one, stays text.

    Raises:
        ValueError: It is not JSON.
    """
    if may_be_deep(text, levels) and depth(text) > levels:
        if levels > MAX_DEPTH - 2 and text.lstrip(_JSON_SPACE).startswith("{"):
            return {name: parse(value, levels - 1) for name, value in members(text)}
        return text
    try:
        return _STRICT_JSON.decode(text)
    except ValueError:
        return _LENIENT_JSON.decode(text)


def may_be_deep(text: str | bytes, levels: int = MAX_DEPTH) -> bool:
    """Return whether there are enough brackets for more than that many levels."""
    if isinstance(text, str):
        return text.count("[") + text.count("{") > levels
    return text.count(b"[") + text.count(b"{") > levels


def depth(text: str) -> int:
    """Return the number of levels of brackets in JSON text; `ValueError` if it is not JSON."""
    end, levels = _end_and_levels(text, _after_space(text, 0))
    if text[end:].strip(_JSON_SPACE):
        raise ValueError(f"more follows the value that ends at character {end}")
    return levels


def members(text: str) -> Iterator[tuple[str, str]]:
    """Yield each name of a JSON object with the text of its value, in order, duplicates included.

    If the text is not a JSON object, it raises `ValueError`, as `items` and `values` do.
    """
    try:
        position = _after_space(text, 0)
        if text[position] != "{":
            raise ValueError("it is not an object")
        position = _after_space(text, position + 1)
        while text[position] != "}":
            name, start = _json_name_at(text, position)
            end = _value_end(text, start)
            yield name, text[start:end]
            position = _after_space(text, end)
            if text[position] == ",":
                position = _after_space(text, position + 1)
                if text[position] == "}":
                    raise ValueError(f"a name is missing at character {position}")
            elif text[position] != "}":
                raise ValueError(f"a comma is missing at character {position}")
        if text[position + 1 :].strip(_JSON_SPACE):
            raise ValueError(f"more follows the object that ends at character {position}")
    except IndexError:
        raise ValueError("the text ends inside an object") from None


def items(text: str) -> list[str]:
    """Return the text of each item of a JSON list."""
    item_texts = []
    try:
        position = _after_space(text, 0)
        if text[position] != "[":
            raise ValueError("it is not a list")
        position = _after_space(text, position + 1)
        is_last = text[position] == "]"
        while not is_last:
            end = _value_end(text, position)
            item_texts.append(text[position:end])
            position = _after_space(text, end)
            is_last = text[position] == "]"
            if not is_last and text[position] != ",":
                raise ValueError(f"a comma is missing at character {position}")
            position = position if is_last else _after_space(text, position + 1)
        if text[position + 1 :].strip(_JSON_SPACE):
            raise ValueError(f"more follows the list that ends at character {position}")
    except IndexError:
        raise ValueError("the text ends inside a list") from None
    return item_texts


def values(raw_json: bytes) -> dict[str, bytes]:
    """Return the names of a JSON object in UTF-8 with the texts of their values, in order."""
    try:
        return {name: bytes(text) for name, text in _decode_values(raw_json).items()}
    except (msgspec.MsgspecError, RecursionError):
        return {name: text.encode() for name, text in members(raw_json.decode())}


class NumberTexts(dict[str, msgspec.Raw]):
    """Fractions as the decoder finds them, each with its text; `__getitem__` is its `float_hook`.

    Attributes:
        may_differ: Whether DuckDB may write one of them with another value. Set it to False first.
    """

    def __init__(self) -> None:
        self.may_differ = False

    def __missing__(self, text: str) -> msgspec.Raw:
        raw = FLOATS_AS_TEXT(text)
        if LONG_NUMBER.search(text) and not _is_shortest(text):
            self.may_differ = True
        elif len(self) < _MOST_TEXTS:  # most events have one of a few prices
            self[text] = raw
        return raw


def _is_shortest(text: str) -> bool:
    """Return whether a fraction is written as DuckDB writes it."""
    return "e" not in text.lower() and repr(float(text)) == text


def build_plain(raw_json: bytes) -> Any:
    """Return the value of JSON that `encode` writes with the same bytes; None of other JSON.

    No object of it has a name twice, and its text can be stored.
    """
    try:
        built = _build(raw_json)
        return built if encode(built) == raw_json else None
    except (msgspec.MsgspecError, OverflowError, UnicodeDecodeError, RecursionError):
        return None


def last_values(raw_json: bytes) -> bytes:
    """Return JSON with the last value of each name only, on every level.

    Everything else is kept as sent. If no name occurs twice, `raw` itself is returned.
    """
    if not _may_repeat_names(raw_json):
        return raw_json
    replaced = sorted(_replaced_members(raw_json))
    kept_json, position = [], 0
    for start, end in replaced:
        if start >= position:  # else it is inside a part that is cut already
            kept_json.append(raw_json[position:start])
            position = end
    return b"".join([*kept_json, raw_json[position:]]) if replaced else raw_json


def _may_repeat_names(raw: bytes) -> bool:
    """Return whether a name may occur twice in an object; the first test excludes it mostly."""
    ends = [part.rpartition(b'"')[2] for part in raw.split(b'":')[:-1]]  # of the names
    if len(set(ends)) == len(ends) and not (b"\\" in b"".join(ends) or _COLON_APART.search(raw)):
        return False
    return len(raw) > _BUILT_JSON_BYTES or build_plain(raw) is None


def _replaced_members(raw_json: bytes) -> Iterator[tuple[int, int]]:
    """Yield the spans of members that a later member of the same object replaces.

    Each span ends at the beginning of the next member. Nothing recurses.
    """
    # The names in each container, and their positions.
    open_brackets: list[list[tuple[bytes, int]]] = []
    for token in _JSON_TOKEN.finditer(raw_json):
        if token[2]:
            if open_brackets:
                open_brackets[-1].append((token[1], token.start()))
        elif token[0] in (b"{", b"["):
            open_brackets.append([])
        elif token[0] in (b"}", b"]") and open_brackets:
            names = [_unescaped_name(name) for name, _ in open_brackets[-1]]
            name_starts = [start for _, start in open_brackets.pop()]
            last_places = {name: place for place, name in enumerate(names)}
            for place, name in enumerate(names if len(last_places) < len(names) else ()):
                if place < last_places[name]:
                    yield name_starts[place], name_starts[place + 1]


def _unescaped_name(name: bytes) -> str:
    name_text = name.decode("utf-8", "surrogateescape")
    return _LENIENT_JSON.decode(f'"{name_text}"') if "\\" in name_text else name_text


def joined(pairs: Mapping[str, bytes], *, ascii_only: bool) -> bytes:
    """Return the JSON object of names and the texts of their values."""
    json_members = [_json_name(name, ascii_only) + b":" + text for name, text in pairs.items()]
    return b"{" + b",".join(json_members) + b"}"


@lru_cache(maxsize=10_000)
def _json_name(name: str, ascii_only: bool) -> bytes:
    escapes = ascii_only and not name.isascii()  # Python would escape the character 127, too
    return json.dumps(name, ensure_ascii=escapes).encode("utf-8", "surrogatepass")


def _json_name_at(text: str, position: int) -> tuple[str, int]:
    """Return a name and the position of its value."""
    if text[position] != '"':
        raise ValueError(f"a name is missing at character {position}")
    name, position = _LENIENT_JSON.raw_decode(text, position)
    position = _after_space(text, position)
    if text[position] != ":":
        raise ValueError(f"a colon is missing at character {position}")
    return name, _after_space(text, position + 1)


def _value_end(text: str, start: int) -> int:
    try:
        return _STRICT_JSON.raw_decode(text, start)[1]
    except (RecursionError, ValueError):
        return _end_and_levels(text, start)[0]


def _end_and_levels(text: str, position: int) -> tuple[int, int]:
    """Return the end of the value at a position, and its levels; nothing here recurses."""
    open_brackets: list[str] = []
    levels = 0
    try:
        while True:
            if closer := _CLOSING_BRACKETS.get(text[position]):
                open_brackets.append(closer)
                levels = max(levels, len(open_brackets))
                position = _after_space(text, position + 1)
                if text[position] != closer:
                    position = _json_name_at(text, position)[1] if closer == "}" else position
                    continue
            else:
                _, position = _LENIENT_JSON.raw_decode(text, position)
                position = _after_space(text, position) if open_brackets else position
            while open_brackets and text[position] == open_brackets[-1]:
                open_brackets.pop()
                position = _after_space(text, position + 1) if open_brackets else position + 1
            if not open_brackets:
                return position, levels
            if text[position] != ",":
                raise ValueError(f"a comma is missing at character {position}")
            position = _after_space(text, position + 1)
            position = _json_name_at(text, position)[1] if open_brackets[-1] == "}" else position
    except IndexError:
        raise ValueError("the text ends inside a value") from None


def _after_space(text: str, position: int) -> int:
    while text[position : position + 1] in _JSON_SPACES:
        position += 1
    return position


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:  # Python reads 4,300 digits at most
        return digits


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_STRICT_JSON = json.JSONDecoder(parse_constant=_refuse)
_LENIENT_JSON = json.JSONDecoder(strict=False, parse_constant=_refuse, parse_int=_integer)
