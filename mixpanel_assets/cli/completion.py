"""`--show-completion` and `--install-completion`: for which shell."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer

from mixpanel_assets.cli.exits import InvalidArgumentsError

SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
_SHOW, _INSTALL = "--show-completion", "--install-completion"


def asked_for(arguments: Sequence[str]) -> bool:
    """Return whether the command line asks for completion, and nothing else."""
    return bool(arguments) and arguments[0].partition("=")[0] in (_SHOW, _INSTALL)


def complete(app: Any, arguments: Sequence[str]) -> None:
    """Print or install the completion of the shell that is named, else of the one that asks.

    Raises:
        InvalidArgumentsError: There is none for that shell.
    """
    option, _, name = arguments[0].partition("=")
    shell = _checked(option, [name] * bool(name) + list(arguments[1:]))
    if option == _INSTALL:
        typers: Any = import_module("typer.completion")
        _, place = typers.install(shell=shell, prog_name="mp")
        typer.echo(f"{place} completes mp in {shell} from the next terminal on.", err=True)
        return
    os.environ["_MP_COMPLETE"] = f"source_{shell}"
    app([], standalone_mode=False, prog_name="mp")


def _checked(option: str, named: Sequence[str]) -> str:
    known = ", ".join(SHELLS)
    if len(named) > 1:
        raise InvalidArgumentsError(f"{option} takes one shell: {known}.")
    shell = named[0] if named else _asking()
    if shell in SHELLS:
        return shell
    found = f"{shell!r}" if shell else "an unknown shell"
    raise InvalidArgumentsError(
        f"Completion is there for {known}, and this is {found}. Name one of them: mp {option} bash"
    )


def _asking() -> str:
    shellingham: Any = import_module("shellingham")  # what Typer asks
    try:
        return str(shellingham.detect_shell()[0])
    except (shellingham.ShellDetectionFailure, RuntimeError):
        return ""
