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
_SPACE = " \t\r\n"
_WHITE = frozenset(_SPACE)
_CLOSERS = {"{": "}", "[": "]"}
_BUILT_BYTES = 1 << 20  # longer JSON is not built, which takes many times its memory
# A text, with the colon if it is a name; or a bracket.
_TOKEN = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"[ \t\r\n]*+(:)?|[{}\[\]]', re.DOTALL)
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
        if levels > MAX_DEPTH - 2 and text.lstrip(_SPACE).startswith("{"):
            return {name: parse(value, levels - 1) for name, value in members(text)}
        return text
    try:
        return _DECODER.decode(text)
    except ValueError:
        return _LENIENT.decode(text)


def may_be_deep(text: str | bytes, levels: int = MAX_DEPTH) -> bool:
    """Return whether there are enough brackets for more than that many levels."""
    if isinstance(text, str):
        return text.count("[") + text.count("{") > levels
    return text.count(b"[") + text.count(b"{") > levels


def depth(text: str) -> int:
    """Return the number of levels of brackets in JSON text; `ValueError` if it is not JSON."""
    end, levels = _walk(text, _skip(text, 0))
    if text[end:].strip(_SPACE):
        raise ValueError(f"more follows the value that ends at character {end}")
    return levels


def members(text: str) -> Iterator[tuple[str, str]]:
    """Yield each name of a JSON object with the text of its value, in order, duplicates included.

    If the text is not a JSON object, it raises `ValueError`, as `items` and `values` do.
    """
    try:
        position = _skip(text, 0)
        if text[position] != "{":
            raise ValueError("it is not an object")
        position = _skip(text, position + 1)
        while text[position] != "}":
            name, start = _name(text, position)
            end = _value_end(text, start)
            yield name, text[start:end]
            position = _skip(text, end)
            if text[position] == ",":
                position = _skip(text, position + 1)
                if text[position] == "}":
                    raise ValueError(f"a name is missing at character {position}")
            elif text[position] != "}":
                raise ValueError(f"a comma is missing at character {position}")
        if text[position + 1 :].strip(_SPACE):
            raise ValueError(f"more follows the object that ends at character {position}")
    except IndexError:
        raise ValueError("the text ends inside an object") from None


def items(text: str) -> list[str]:
    """Return the text of each item of a JSON list."""
    found = []
    try:
        position = _skip(text, 0)
        if text[position] != "[":
            raise ValueError("it is not a list")
        position = _skip(text, position + 1)
        is_last = text[position] == "]"
        while not is_last:
            end = _value_end(text, position)
            found.append(text[position:end])
            position = _skip(text, end)
            is_last = text[position] == "]"
            if not is_last and text[position] != ",":
                raise ValueError(f"a comma is missing at character {position}")
            position = position if is_last else _skip(text, position + 1)
        if text[position + 1 :].strip(_SPACE):
            raise ValueError(f"more follows the list that ends at character {position}")
    except IndexError:
        raise ValueError("the text ends inside a list") from None
    return found


def values(raw: bytes) -> dict[str, bytes]:
    """Return the names of a JSON object in UTF-8 with the texts of their values, in order."""
    try:
        return {name: bytes(text) for name, text in _decode_values(raw).items()}
    except (msgspec.MsgspecError, RecursionError):
        return {name: text.encode() for name, text in members(raw.decode())}


def last_values(raw: bytes) -> bytes:
    """Return JSON with the last value of each name only, on every level.

    Everything else is kept as sent. If no name occurs twice, `raw` itself is returned.
    """
    if not _may_repeat(raw):
        return raw
    cuts = sorted(_replaced(raw))
    kept, position = [], 0
    for start, end in cuts:
        if start >= position:  # else it is inside a part that is cut already
            kept.append(raw[position:start])
            position = end
    return b"".join([*kept, raw[position:]]) if cuts else raw


def _may_repeat(raw: bytes) -> bool:
    """Return whether a name may occur twice in an object; the first test excludes it mostly."""
    ends = [part.rpartition(b'"')[2] for part in raw.split(b'":')[:-1]]  # of the names
    if len(set(ends)) == len(ends) and not (b"\\" in b"".join(ends) or _COLON_APART.search(raw)):
        return False
    if len(raw) > _BUILT_BYTES:
        return True
    try:
        return msgspec.json.encode(msgspec.json.decode(raw)) != raw
    except (msgspec.MsgspecError, OverflowError, UnicodeDecodeError, RecursionError):
        return True


def _replaced(raw: bytes) -> Iterator[tuple[int, int]]:
    """Yield the spans of members that a later member of the same object replaces.

    Each span ends at the beginning of the next member. Nothing recurses.
    """
    open_: list[list[tuple[bytes, int]]] = []  # the names in each container, and their positions
    for token in _TOKEN.finditer(raw):
        if token[2]:
            if open_:
                open_[-1].append((token[1], token.start()))
        elif token[0] in (b"{", b"["):
            open_.append([])
        elif token[0] in (b"}", b"]") and open_:
            names = [_unescaped(name) for name, _ in open_[-1]]
            starts = [start for _, start in open_.pop()]
            last = {name: place for place, name in enumerate(names)}
            for place, name in enumerate(names if len(last) < len(names) else ()):
                if place < last[name]:
                    yield starts[place], starts[place + 1]


def _unescaped(name: bytes) -> str:
    text = name.decode("utf-8", "surrogateescape")
    return _LENIENT.decode(f'"{text}"') if "\\" in text else text


def joined(pairs: Mapping[str, bytes], *, ascii_only: bool) -> bytes:
    """Return the JSON object of names and the texts of their values."""
    named = [_quoted(name, ascii_only) + b":" + text for name, text in pairs.items()]
    return b"{" + b",".join(named) + b"}"


@lru_cache(maxsize=10_000)
def _quoted(name: str, ascii_only: bool) -> bytes:
    return json.dumps(name, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")


def _name(text: str, position: int) -> tuple[str, int]:
    """Return a name and the position of its value."""
    if text[position] != '"':
        raise ValueError(f"a name is missing at character {position}")
    name, position = _LENIENT.raw_decode(text, position)
    position = _skip(text, position)
    if text[position] != ":":
        raise ValueError(f"a colon is missing at character {position}")
    return name, _skip(text, position + 1)


def _value_end(text: str, start: int) -> int:
    try:
        return _DECODER.raw_decode(text, start)[1]
    except (RecursionError, ValueError):
        return _walk(text, start)[0]


def _walk(text: str, position: int) -> tuple[int, int]:
    """Return the end of the value at a position, and its levels; nothing here recurses."""
    open_: list[str] = []
    levels = 0
    try:
        while True:
            if closer := _CLOSERS.get(text[position]):
                open_.append(closer)
                levels = max(levels, len(open_))
                position = _skip(text, position + 1)
                if text[position] != closer:
                    position = _name(text, position)[1] if closer == "}" else position
                    continue
            else:
                _, position = _LENIENT.raw_decode(text, position)
                position = _skip(text, position) if open_ else position
            while open_ and text[position] == open_[-1]:
                open_.pop()
                position = _skip(text, position + 1) if open_ else position + 1
            if not open_:
                return position, levels
            if text[position] != ",":
                raise ValueError(f"a comma is missing at character {position}")
            position = _skip(text, position + 1)
            position = _name(text, position)[1] if open_[-1] == "}" else position
    except IndexError:
        raise ValueError("the text ends inside a value") from None


def _skip(text: str, position: int) -> int:
    while text[position : position + 1] in _WHITE:
        position += 1
    return position


def _integer(digits: str) -> int | str:
    try:
        return int(digits)
    except ValueError:  # Python reads 4,300 digits at most
        return digits


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
_LENIENT = json.JSONDecoder(strict=False, parse_constant=_refuse, parse_int=_integer)
