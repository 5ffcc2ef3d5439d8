"""A complete and exact copy of a Mixpanel project in DuckDB, as Dagster assets.

The public names are listed once, in `__init__.pyi`, which type checkers read as it is. A name is
imported on first use, so `import mixpanel_assets` costs nothing and `Workspace` needs no Dagster.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

__version__ = "0.1.0"


@cache
def _homes() -> dict[str, str]:
    """Return the module of each public name, as the stub imports them."""
    # Imported here, because a program that imports a module by its own path needs no list.
    import ast
    from pathlib import Path

    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    return {
        name.name: str(statement.module)
        for statement in stub.body
        if isinstance(statement, ast.ImportFrom)
        for name in statement.names
    }


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(_homes())
    if name.startswith("_") or name not in _homes():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_homes()[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_homes(), "__all__"])
