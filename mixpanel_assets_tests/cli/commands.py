"""Every command of `mp`, as data: names, arguments, options, what is required and the defaults.

`python -m mixpanel_assets_tests.cli.commands` writes the snapshot that a test compares with.
"""

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from mixpanel_assets.cli.app import app

SNAPSHOT = Path(__file__).with_name("commands.txt")
EVERYWHERE = {"global_account", "global_quiet", "global_verbose", "help"}


def commands() -> Iterator[tuple[list[Any], str]]:
    """Yield each command with the groups around it, and its full name."""
    yield from _below([typer.main.get_command(app)], "mp")


def _below(chain: list[Any], name: str) -> Iterator[tuple[list[Any], str]]:
    for word, command in chain[-1].commands.items():
        if hasattr(command, "commands"):
            yield from _below([*chain, command], f"{name} {word}")
        else:
            yield [*chain, command], f"{name} {word}"


def described(command: Any) -> str:
    """Return arguments and options of a command in one line."""
    return " ".join(
        _described(parameter) for parameter in command.params if parameter.name not in EVERYWHERE
    )


def _described(parameter: Any) -> str:
    default = shown_default(parameter)
    if parameter.param_type_name == "argument":
        return f"<{parameter.name}>" if parameter.required else f"[{parameter.name}]{default}"
    names = "/".join([*parameter.opts, *parameter.secondary_opts])
    if parameter.is_flag:
        return names
    many = "…" if parameter.multiple else ""
    return f"{names}={'*' if parameter.required else ''}{many}{default}"


def shown_default(parameter: Any) -> str:
    """Return the default in parentheses, as help shows it; empty without any."""
    told = parameter.show_default
    default = told if isinstance(told, str) else parameter.default
    if default is None or default == [] or callable(default):
        return ""
    return f"({getattr(default, 'value', default)})"


def snapshot() -> str:
    """Return the help of `mp` and of its groups, and the description of every command."""
    groups = (
        name
        for name, one in typer.main.get_command(app).commands.items()
        if hasattr(one, "commands")
    )
    helps = "\n".join(help_text(*words) for words in [(), *((name,) for name in groups)])
    lines = [f"{name} | {described(chain[-1])}".rstrip(" |") for chain, name in commands()]
    return f"{helps}\n{os.linesep.join(lines)}\n"


def help_text(*group: str) -> str:
    """Return what `mp --help`, or `mp GROUP --help`, prints into a pipe of 100 columns."""
    surely = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-c", "from mixpanel_assets.cli import main; main()", *group, "--help"],
        env={**os.environ, **surely},
        capture_output=True,
        text=True,
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()).replace(" -c ", " mp ")


def example(command: Any) -> str:
    """Return the example in a command's help."""
    text = inspect.cleandoc(command.help or "")
    _, _, shown = text.partition("Example: ")
    return " ".join(shown.split())


if __name__ == "__main__":
    SNAPSHOT.write_text(snapshot())
