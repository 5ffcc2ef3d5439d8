"""What this package promises to its users, as text: names, arguments, variables, tables, codes.

`python -m mixpanel_assets_tests.public_api` writes the snapshot that a test compares with. The
commands of `mp` have a snapshot of their own, `cli/commands.txt`.
"""

import inspect
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import mixpanel_assets
from mixpanel_assets.errors import MixpanelDataError
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse.schema import MACROS, TABLES, VIEWS

SNAPSHOT = Path(__file__).with_suffix(".txt")
PACKAGE = "mixpanel_assets"


def lines() -> Iterator[str]:
    """Yield one line for each promise, in an order that does not change."""
    for name in mixpanel_assets.__all__:
        yield from _described(name, getattr(mixpanel_assets, name))
    for name, field in Settings.model_fields.items():
        yield f"MP_{name.upper()} = {_text(field.default)}"
    for table in TABLES:
        columns = ", ".join(f"{column.name} {column.type}" for column in table.columns)
        yield f"table mixpanel.{table.name}: {columns}"
    yield from (f"view mixpanel.{name}" for name in sorted(VIEWS))
    yield from (f"macro mixpanel.{name}(properties, name)" for name in sorted(MACROS))


def _described(name: str, one: Any) -> Iterator[str]:
    if not inspect.isclass(one):
        yield f"{name}{_signature(one)}"
        return
    bases = ", ".join(base.__name__ for base in one.__bases__ if base is not object)
    code = f", code {one.code}" if issubclass(one, MixpanelDataError) else ""
    yield f"class {name}({bases}){code}"
    fields = getattr(one, "__dataclass_fields__", None) or getattr(one, "model_fields", {})
    for field in fields:
        if not field.startswith("_"):
            yield f"{name}.{field}"
    for member in sorted(dir(one)):
        found = inspect.getattr_static(one, member)
        is_private = member.startswith("_") and member != "__init__"
        if member in fields or is_private or _is_inherited(one, member):
            continue
        if isinstance(found, property | cached_property):
            yield from [f"{name}.{member} (property)"] if _is_ours(found) else []
        elif isinstance(found, classmethod | staticmethod):
            yield from [f"{name}.{member}{_signature(found.__func__)}"] if _is_ours(found) else []
        elif inspect.isfunction(found) and _is_ours(found) and _is_written(found):
            yield f"{name}.{member}{_signature(found)}"


def _is_inherited(kind: type, member: str) -> bool:
    """Return whether the member is of another public class, where it has its line."""
    home = next(base for base in kind.__mro__ if member in vars(base))
    return home is not kind and home.__name__ in mixpanel_assets.__all__


def _is_ours(member: Any) -> bool:
    function = getattr(member, "fget", None) or getattr(member, "func", None) or member
    function = getattr(function, "__func__", function)
    return str(getattr(function, "__module__", "")).startswith(PACKAGE)


def _is_written(function: Any) -> bool:
    """Return whether a function is in a file: a dataclass generates its own."""
    return not function.__code__.co_filename.startswith("<")


def _signature(function: Any) -> str:
    """Return names, defaults and kinds; annotations may get wider."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty, default=_default(parameter))
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    return str(inspect.Signature(parameters))


class _Text(str):
    """A default as it is shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _default(parameter: inspect.Parameter) -> Any:
    default = parameter.default
    return default if default is inspect.Parameter.empty else _Text(_text(default))


def _text(default: Any) -> str:
    """Return a default as text that is the same on each machine."""
    simple = default is None or isinstance(default, str | int | float | bool | tuple | frozenset)
    return repr(default) if simple else f"<{type(default).__name__}>"


def snapshot() -> str:
    """Return all lines."""
    return "\n".join(lines()) + "\n"


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot())
