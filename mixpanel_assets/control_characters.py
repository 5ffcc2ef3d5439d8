"""Characters that steer a terminal, or that hide or reorder text: they leave as escapes only.

An event's name may hold any of them, and so may the text of an error. `ESC ]` sets a window's
title, U+202E turns the text behind it around.
"""

from __future__ import annotations

import re

# Unicode's categories Cc, Cf, Cs, Zl and Zp; a test compares them with Python's own tables.
_CONTROL = "\x00-\x1f\x7f-\x9f"
_FORMAT = (
    "\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
)
_SURROGATES = "\ud800-\udfff"
_UNSEEN = re.compile(f"(?![\n\t])[{_CONTROL}{_FORMAT}{_SURROGATES}]")
_STEERING = re.compile(f"(?![\n\t]|\r\n)[{_CONTROL}{_SURROGATES}]")


def visible(text: str) -> str:
    r"""Return text for people: `\x1b`, `\u202e` instead of the character; lines and tabs stay.

    Example:
        >>> visible("Sign\x1b[2J Up")
        'Sign\\x1b[2J Up'
    """
    return text if text.isprintable() else _UNSEEN.sub(_as_python, text)


def without_controls(text: str) -> str:
    r"""Return text for programs, whose ends of lines, tabs and marks of direction stay.

    Example:
        >>> without_controls("Sign\x1b[2J\r\nUp")
        'Sign\\x1b[2J\r\nUp'
    """
    return text if text.isprintable() else _STEERING.sub(_as_python, text)


def escaped_json(text: str) -> str:
    r"""Return JSON text of the same value, with `\u001b` or `\u202e` for such characters.

    Example:
        >>> escaped_json('"\u202e"')
        '"\\u202e"'
    """
    return text if text.isprintable() else _UNSEEN.sub(_as_json, text)


def _as_python(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def _as_json(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
