"""The commands of `mp`, and its completion. Each loads its libraries when it runs.

So `mp --help` loads neither Dagster, pandas, DuckDB nor httpx.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from mixpanel_assets import __version__
from mixpanel_assets.cli import auth, fetch, inspect, query, stored
from mixpanel_assets.cli.exits import GENERAL, INTERRUPTED, InvalidArgumentsError, exit_code
from mixpanel_assets.cli.invocation import (
    AccountOption,
    App,
    FormatBeforeOption,
    Invocation,
    JqBeforeOption,
    JqOption,
    OptionalFormatOption,
    QuietOption,
    VerboseOption,
    begin,
)
from mixpanel_assets.cli.options import (
    DatabaseOption,
    OptionalFromOption,
    OptionalToOption,
    RefetchOption,
    day_option,
    known_zone,
    optional_days,
)
from mixpanel_assets.errors import MixpanelDataError, StorageError, visible

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


_LEAST_WIDTH = 20
_START, _LOAD, _ASK, _UPKEEP = "Start", "Load", "Ask", "Upkeep"
_SHORT = "Short for `mp query` and `mp inspect`"
_PANELS = (_START, _LOAD, _ASK, _UPKEEP, _SHORT)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Typer brings its own copy of click, or uses the one that is installed.
_ClickError: Any = typer.BadParameter.__mro__[2]

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

for _name, _command in {
    "sql": query.sql,
    "segmentation": query.segmentation,
    "funnel": query.funnel,
    "retention": query.retention,
    "jql": query.jql,
    "events": inspect.events,
    "properties": inspect.properties,
    "values": inspect.values,
    "info": stored.info,
    "tables": stored.tables,
    "schema": stored.schema,
    "drop": stored.drop,
    "drop-day": stored.drop_day,
}.items():
    _panel = {"sql": _ASK, "drop": _UPKEEP, "drop-day": _UPKEEP}.get(_name, _SHORT)
    app.command(_name, rich_help_panel=_panel)(_command)


def run(arguments: Sequence[str] | None = None) -> None:
    """Run a command line and end the process with its exit code.

    Args:
        arguments: What follows `mp`; None: what the process was started with.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    _prepare_output()
    invocation = begin(arguments)
    code = _exit_code_of(arguments, invocation)
    if code == INTERRUPTED:
        invocation.show_interrupt()
    sys.exit(code)


def _prepare_output() -> None:
    """Write UTF-8 into files and pipes, whatever the locale.

    A terminal gets escapes for characters that it does not know. A width in which nothing can be
    read, such as the 0 that some schedulers set, is none.
    """
    width = os.environ.get("COLUMNS", "").strip()
    if width.isdecimal() and int(width) < _LEAST_WIDTH:
        del os.environ["COLUMNS"]
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding = None if sys.stdout.isatty() else "utf-8"
        sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")


def _exit_code_of(arguments: Sequence[str], invocation: Invocation) -> int:
    code = 0
    try:
        if asked_for(arguments):
            complete(app, arguments)
        else:
            # Typer's own way out would end wrong usage with 2.
            code = app(arguments, standalone_mode=False) or 0
        sys.stdout.flush()
        return code
    except MixpanelDataError as error:
        invocation.show(error)
        return exit_code(error)
    except _ClickError as error:
        return _show_usage(error, invocation)
    except typer.Abort:
        invocation.note("Aborted.")
        return 1
    except SystemExit as ended:
        # Typer and Rich would end a closed pipe with 1.
        if isinstance(ended.__context__, BrokenPipeError):
            return 0
        raise
    except BrokenPipeError:
        return code
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        invocation.show(StorageError(f"The output could not be written: {error.strerror}."))
        return GENERAL
    finally:
        _flush()


def _show_usage(error: Any, invocation: Invocation) -> int:
    wrong = InvalidArgumentsError(error.format_message())
    if invocation.in_json:
        invocation.show(wrong)
    else:
        from typer.rich_utils import rich_format_error

        error.message = visible(error.message)
        rich_format_error(error)
    return exit_code(wrong)


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        # Python flushes stdout once more when it ends, and would complain then.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_version(wanted: bool) -> None:
    if wanted:
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


@app.command(rich_help_panel=_LOAD)
def sync(
    from_date: OptionalFromOption = None,
    to_date: OptionalToOption = None,
    refetch: RefetchOption = None,
    accept_smaller: Annotated[
        bool,
        typer.Option(
            "--accept-smaller",
            help="Remove stored rows that Mixpanel does not send any more, instead of keeping "
            "them; loads every day that is named.",
        ),
    ] = False,
    database: DatabaseOption = None,
    profiles: Annotated[bool, typer.Option(help="Take a snapshot of all profiles too.")] = True,
    output: OptionalFormatOption = None,
    jq: JqOption = None,
) -> None:
    """Load days of events, and today's profiles, as the Dagster assets do.

    Without days it keeps the database current. It loads today and each day since the first stored
    one (MP_START_DATE when there is none) that is missing, failed, had not ended when it was
    loaded, or was read less than MP_SETTLE_DAYS after its end. Other days are not asked for. Days
    that were read too early more than 31 days ago are named, not loaded.

    --from alone means until today. Interrupted, the same command goes on where it ended.

    Credentials come from --account, else MP_USERNAME, MP_SECRET, MP_PROJECT_ID and MP_REGION,
    else MP_ACCOUNT or the default account of the config file (`mp auth`).

    Example: mp sync --from 2024-01-01 --to 2024-01-07
    """
    from mixpanel_assets.cli.sync import sync_days

    if to_date and not from_date:
        raise typer.BadParameter("--to needs --from.")
    sync_days(
        **optional_days(from_date, to_date),
        refetch=refetch,
        accept_smaller=accept_smaller,
        database=database,
        profiles=profiles,
        output=output,
        jq=jq,
    )


@app.command(rich_help_panel=_UPKEEP)
def quota(output: OptionalFormatOption = None, jq: JqOption = None) -> None:
    """Show what is spent and left of the request budget; asks nothing of Mixpanel.

    Requests of colleagues and other programs are not known here. MP_BUDGET_RESERVE leaves
    them some.

    Example: mp quota
    """
    from mixpanel_assets.cli.upkeep import print_quota

    print_quota(output, jq)


@app.command(rich_help_panel=_LOAD)
def plan(
    from_date: OptionalFromOption = None,
    to_date: OptionalToOption = None,
    refetch: RefetchOption = None,
    database: DatabaseOption = None,
    output: OptionalFormatOption = None,
    jq: JqOption = None,
) -> None:
    """Say what `mp sync` with the same options will take; asks nothing of Mixpanel.

    Example: mp plan --from 2023-01-01 --to 2024-12-31
    """
    from mixpanel_assets.cli.upkeep import print_plan

    if to_date and not from_date:
        raise typer.BadParameter("--to needs --from.")
    asked = optional_days(from_date, to_date)
    print_plan(**asked, refetch=refetch, database=database, output=output, jq=jq)


@app.command(rich_help_panel=_UPKEEP)
def clean(
    older_than: Annotated[
        int, typer.Option(min=0, max=36_500, help="Days that what a failed load received is kept.")
    ] = 7,
    everything: Annotated[
        bool, typer.Option("--all", help="All but the last hour, and what is in use.")
    ] = False,
    database: DatabaseOption = None,
    output: OptionalFormatOption = None,
    jq: JqOption = None,
) -> None:
    """Delete received answers that failed loads left on the disk; the database stays as it is.

    Example: mp clean --all
    """
    from mixpanel_assets.cli.upkeep import clean_spool

    clean_spool(0 if everything else older_than, database, output, jq)


@app.command(rich_help_panel=_START)
def doctor(
    database: DatabaseOption = None,
    output: OptionalFormatOption = None,
    jq: JqOption = None,
) -> None:
    """Check credentials, access, clocks, budget and database; exits with 1 if something fails.

    Costs no request of the query budget, and changes nothing.

    Example: mp doctor
    """
    from mixpanel_assets.cli.upkeep import print_findings

    print_findings(database, output, jq)


@app.command(account=False, rich_help_panel=_START)
def demo(
    ui: Annotated[
        bool, typer.Option(help="Open the Dagster UI on a month of data instead.")
    ] = False,
    database: Annotated[
        Path | None,
        typer.Option(help="The DuckDB file; default: data/demo.duckdb or data/demo_ui.duckdb."),
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the UI on 127.0.0.1.")] = 3000,
) -> None:
    """Load a week of invented data through a real Dagster run and compare it with the truth.

    Needs no account: a pretend Mixpanel runs on this machine while the demo does.

    Example: mp demo
    """
    if ui:
        from mixpanel_assets.cli.demo_ui import open_ui

        open_ui(database or Path("data/demo_ui.duckdb"), port)
    else:
        from mixpanel_assets.cli.demo import run_demo

        run_demo(database or Path("data/demo.duckdb"))


@app.command(account=False, rich_help_panel=_START)
def emulator(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port on 127.0.0.1; 0 takes any free one.")
    ] = 8765,
    seed: Annotated[int, typer.Option(help="Same seed, same data.")] = 7,
    start: Annotated[date, day_option("--start", "First day that holds data.")] = date(2024, 1, 1),
    events_per_day: Annotated[int, typer.Option(min=0, help="Events per day, about.")] = 500,
    zone: Annotated[
        str, typer.Option("--zone", callback=known_zone, help="The zone of its project.")
    ] = "UTC",
) -> None:
    """Serve a pretend Mixpanel over HTTP until interrupted, on this machine only.

    Prints the MP_* variables that point a client at it. What Mixpanel's SDKs send to its /track,
    /import, /engage and /groups is held in memory, and is in every answer from then on.

    Example: mp emulator --port 8765
    """
    from mixpanel_assets.cli.emulate import serve_emulator

    serve_emulator(port=port, seed=seed, start=start, events_per_day=events_per_day, zone=zone)


# Help shows the groups in the order in which their first commands come.
app.registered_commands.sort(key=lambda one: _PANELS.index(str(one.rich_help_panel)))
