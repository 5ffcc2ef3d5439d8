"""The commands of `mp`, how a command line is run, and shell completion.

Commands import heavy libraries when they run, so that `mp --help` is quick. It loads neither
Dagster, pandas, DuckDB nor httpx.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer

from mixpanel_assets import __version__
from mixpanel_assets.cli import auth, coverage, demo, fetch, inspect, query, sync, upkeep, verify
from mixpanel_assets.cli.exits import GENERAL, INTERRUPTED, InvalidArgumentsError, exit_code
from mixpanel_assets.cli.invocation import (
    AccountOption,
    App,
    FormatBeforeOption,
    Invocation,
    JqBeforeOption,
    QuietOption,
    VerboseOption,
    begin,
)
from mixpanel_assets.errors import MixpanelDataError, StorageError, visible

try:
    from typer._click.exceptions import ClickException
except ImportError:  # older versions of Typer use the installed click
    from click.exceptions import ClickException  # type: ignore[assignment]

SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
_SHOW, _INSTALL = "--show-completion", "--install-completion"


def is_completion(arguments: Sequence[str]) -> bool:
    """Return whether the command line is a request for shell completion."""
    return bool(arguments) and arguments[0].partition("=")[0] in (_SHOW, _INSTALL)


def complete(app: Any, arguments: Sequence[str]) -> None:
    """Print or install the completion of the named shell, or of the shell that started `mp`."""
    option, _, name = arguments[0].partition("=")
    shell = _checked_shell(option, [name] * bool(name) + list(arguments[1:]))
    if option == _INSTALL:
        typers: Any = import_module("typer.completion")
        _, path = typers.install(shell=shell, prog_name="mp")
        typer.echo(f"{path} completes mp in new terminals of {shell}.", err=True)
        return
    os.environ["_MP_COMPLETE"] = f"source_{shell}"
    app([], standalone_mode=False, prog_name="mp")


def _checked_shell(option: str, names: Sequence[str]) -> str:
    known = ", ".join(SHELLS)
    if len(names) > 1:
        raise InvalidArgumentsError(f"{option} takes one shell: {known}.")
    shell = names[0] if names else _current_shell()
    if shell in SHELLS:
        return shell
    name = f"{shell!r}" if shell else "an unknown shell"
    raise InvalidArgumentsError(
        f"Completion is available for {known}, and this is {name}. Name a shell: mp {option} bash"
    )


def _current_shell() -> str:
    shellingham: Any = import_module("shellingham")  # a dependency of Typer
    try:
        return str(shellingham.detect_shell()[0])
    except (shellingham.ShellDetectionFailure, RuntimeError):
        return ""


_LEAST_WIDTH = 20  # fewer columns hold no word of help
_START, _LOAD, _ASK, _UPKEEP = "Start", "Load", "Ask", "Upkeep"
_SHORT = "Short for `mp query` and `mp inspect`"
_PANELS = (_START, _LOAD, _ASK, _UPKEEP, _SHORT)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

app = App(
    name="mp",
    help="A complete and exact copy of a Mixpanel project in DuckDB.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)

app.add_typer(auth.app, rich_help_panel=_START)
app.add_typer(fetch.app, rich_help_panel=_LOAD)
app.add_typer(query.app, rich_help_panel=_ASK)
app.add_typer(inspect.app, rich_help_panel=_ASK)

app.command("doctor", form="text", rich_help_panel=_START)(upkeep.doctor)
app.command("demo", form="nothing", account=False, rich_help_panel=_START)(demo.demo)
app.command("emulator", form="nothing", account=False, rich_help_panel=_START)(demo.emulator)
app.command("sync", form="text", rich_help_panel=_LOAD)(sync.sync)
app.command("plan", form="text", rich_help_panel=_LOAD)(upkeep.plan)
app.command("coverage", form="text", rich_help_panel=_UPKEEP)(coverage.coverage)
app.command("verify", form="text", rich_help_panel=_UPKEEP)(verify.verify)
app.command("certificate", form="text", rich_help_panel=_UPKEEP)(coverage.certificate)
app.command("quota", form="text", rich_help_panel=_UPKEEP)(upkeep.quota)
app.command("clean", form="text", rich_help_panel=_UPKEEP)(upkeep.clean)
app.command("migrate", form="text", rich_help_panel=_UPKEEP)(upkeep.migrate)
app.command("tidy", form="text", rich_help_panel=_UPKEEP)(upkeep.tidy)

for _group, _names, _panel in (
    (query.app, ("sql",), _ASK),
    (query.app, ("segmentation", "funnel", "retention", "jql"), _SHORT),
    (inspect.app, ("events", "properties", "values", "info", "tables", "schema"), _SHORT),
    (inspect.app, ("drop", "drop-day"), _UPKEEP),
):
    for _name in _names:
        app.add_short(_group, _name, _panel)

# Help shows the groups in the order of their first commands.
app.registered_commands.sort(key=lambda one: _PANELS.index(str(one.rich_help_panel)))


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the words after `mp`, by default the process's own, and exit with the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _prepare_output()
    invocation = begin(arguments)
    code = _exit_code_of(arguments, invocation)
    if code == INTERRUPTED:
        invocation.show_interrupt()
    sys.exit(code)


def _prepare_output() -> None:
    # Some schedulers set a width of 0, in which no help can be read.
    width = os.environ.get("COLUMNS", "").strip()
    if width.isdecimal() and int(width) < _LEAST_WIDTH:
        del os.environ["COLUMNS"]
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Files and pipes get UTF-8 in every locale. A terminal gets its own encoding, and escapes
        # for characters that it does not have.
        encoding = None if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")


def _exit_code_of(arguments: Sequence[str], invocation: Invocation) -> int:
    code = 0
    try:
        if is_completion(arguments):
            complete(app, arguments)
        else:
            # Standalone, Typer would end with 2 after wrong usage.
            code = _command()(arguments, standalone_mode=False) or 0
        sys.stdout.flush()
        return code
    except MixpanelDataError as error:
        invocation.show(error)
        return exit_code(error)
    except ClickException as error:
        return _show_usage(error, invocation)
    except typer.Abort:
        invocation.note("Aborted.")
        return 1
    except SystemExit as ended:
        # Typer and Rich end with 1 when a pipe is closed.
        if isinstance(ended.__context__, BrokenPipeError):
            return 0
        raise
    except BrokenPipeError:
        return code
    except OSError as error:
        if error.errno not in _DISK_FULL:
            raise
        invocation.show(StorageError(f"The output could not be written: {error.strerror}."))
        return GENERAL
    finally:
        _flush()


@cache
def _command() -> Any:
    # Typer would build all commands again for each command line of a process.
    return typer.main.get_command(app)


def _show_usage(error: Any, invocation: Invocation) -> int:
    usage = InvalidArgumentsError(error.format_message())
    if invocation.in_json:
        invocation.show(usage)
    else:
        from typer.rich_utils import rich_format_error

        error.message = visible(error.message)
        rich_format_error(error)
        typer.echo(f"({usage.code}: {usage.page})", err=True)
    return exit_code(usage)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            fetch.close_stdout()


def _print_version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"mp {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    account: AccountOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    output: FormatBeforeOption = None,
    jq: JqBeforeOption = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass
