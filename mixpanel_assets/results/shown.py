"""How values look in a notebook: whole when they are short, and cut when nobody would read on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

_ITEMS = 10
_NESTED_ITEMS = 5
_CHARACTERS = 200


def shown(value: Any, *, most: int = _ITEMS) -> str:
    """Return a value as Python writes it, long texts and collections cut.

    Args:
        value: Any value.
        most: Items of a collection; those inside it show half as many.

    Example:
        >>> shown(list(range(1000)))
        '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … 990 more]'
    """
    if type(value) is str and len(value) > _CHARACTERS:
        return f"{value[:_CHARACTERS]!r}… {len(value) - _CHARACTERS:,} more"
    if type(value) is dict:
        pairs = (f"{shown(k)}: {shown(v, most=_NESTED_ITEMS)}" for k, v in value.items())
        return f"{{{_listed(pairs, value, most)}}}"
    if type(value) is list:
        return f"[{_listed(_items(value), value, most)}]"
    if type(value) is tuple:
        return f"({_listed(_items(value), value, most)}{',' if len(value) == 1 else ''})"
    return repr(value)


def _items(values: Iterable[Any]) -> Iterable[str]:
    return (shown(value, most=_NESTED_ITEMS) for value in values)


def _listed(
    texts: Iterable[str], whole: list[Any] | tuple[Any, ...] | Mapping[Any, Any], most: int
) -> str:
    parts = list(islice(texts, most))
    if len(whole) > most:
        parts.append(f"… {len(whole) - most:,} more")
    return ", ".join(parts)
