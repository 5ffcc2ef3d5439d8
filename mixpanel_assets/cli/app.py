"""The commands of `mp`. Each loads what it needs when it runs, so that `--help` is instant."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from mixpanel_assets import __version__
from mixpanel_assets.cli import auth, fetch
from mixpanel_assets.cli.exits import INVALID_ARGUMENTS, exit_code
from mixpanel_assets.cli.invocation import AccountOption, App, QuietOption, VerboseOption, begin
from mixpanel_assets.errors import MixpanelDataError

_TYPER_USAGE_ERROR = 2

app = App(
    name="mp",
    help="A complete and exact copy of a Mixpanel project in DuckDB.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)

app.add_typer(auth.app)
app.add_typer(fetch.app)


def run() -> None:
    """Parse the command line, run it, and end the process with its exit code."""
    invocation = begin()
    try:
        app()
    except MixpanelDataError as error:
        invocation.show(error)
        sys.exit(exit_code(error))
    except SystemExit as ended:
        # Typer says 2 for wrong usage; here 2 means that credentials were refused.
        sys.exit(INVALID_ARGUMENTS if ended.code == _TYPER_USAGE_ERROR else ended.code)


def _require_order(from_date: datetime, to_date: datetime) -> None:
    if from_date > to_date:
        raise typer.BadParameter("--from is after --to; both days are included.")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mp {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    account: AccountOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def sync(
    from_date: Annotated[
        datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day, included.")
    ],
    to_date: Annotated[
        datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, included.")
    ],
    database: Annotated[
        Path | None, typer.Option(help="The DuckDB file; default as MP_DATABASE says.")
    ] = None,
    profiles: Annotated[bool, typer.Option(help="Take a snapshot of all profiles too.")] = True,
) -> None:
    """Load days of events, and today's profiles, as the Dagster assets do.

    Credentials come from --account, else MP_USERNAME, MP_SECRET, MP_PROJECT_ID and MP_REGION,
    else MP_ACCOUNT or the default account of the config file (`mp auth`).

    Example: mp sync --from 2024-01-01 --to 2024-01-07
    """
    from mixpanel_assets.cli.sync import sync_days

    _require_order(from_date, to_date)
    sync_days(from_date.date(), to_date.date(), database, profiles=profiles)


@app.command()
def quota() -> None:
    """Show what is spent and left of the request budget; asks nothing of Mixpanel.

    Requests of colleagues and other programs are not known here. MP_BUDGET_RESERVE leaves
    them some.

    Example: mp quota
    """
    from mixpanel_assets.cli.quota import print_quota

    print_quota()


@app.command()
def plan(
    from_date: Annotated[
        datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="First day, included.")
    ],
    to_date: Annotated[
        datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day, included.")
    ],
    database: Annotated[
        Path | None, typer.Option(help="The DuckDB file; default as MP_DATABASE says.")
    ] = None,
) -> None:
    """Say what loading days of events will take; asks nothing of Mixpanel.

    Example: mp plan --from 2023-01-01 --to 2024-12-31
    """
    from mixpanel_assets.cli.plan import print_plan

    _require_order(from_date, to_date)
    print_plan(from_date.date(), to_date.date(), database)


@app.command()
def clean(
    older_than: Annotated[
        int, typer.Option(min=0, help="Days that what a failed load received is kept.")
    ] = 7,
    everything: Annotated[
        bool, typer.Option("--all", help="All but the last hour, which may be in use.")
    ] = False,
    database: Annotated[
        Path | None, typer.Option(help="The DuckDB file; default as MP_DATABASE says.")
    ] = None,
) -> None:
    """Delete received answers that failed loads left on the disk; the database stays as it is.

    Example: mp clean --all
    """
    from mixpanel_assets.cli.clean import clean_spool

    clean_spool(0 if everything else older_than, database)


@app.command(account=False)
def demo(
    ui: Annotated[bool, typer.Option(help="Open the Dagster UI on the data instead.")] = False,
    database: Annotated[
        Path | None, typer.Option(help="The DuckDB file to fill; default: data/demo.duckdb.")
    ] = None,
) -> None:
    """Load a week of invented data through a real Dagster run and compare it with the truth.

    Needs no account: a pretend Mixpanel runs on this machine while the demo does.

    Example: mp demo
    """
    from mixpanel_assets.cli import demo as show

    path = database or Path("data/demo.duckdb")
    if ui:
        show.open_ui(path)
    else:
        show.run_demo(path)


@app.command(account=False)
def emulator(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes any free one.")] = 8765,
    seed: Annotated[int, typer.Option(help="Same seed, same data.")] = 7,
    start: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="First day that holds data.")
    ] = datetime(2024, 1, 1),
    events_per_day: Annotated[int, typer.Option(help="Events per day, about.")] = 500,
) -> None:
    """Serve a pretend Mixpanel over HTTP until interrupted, on this machine only.

    Prints the MP_* variables that point a client at it.

    Example: mp emulator --port 8765
    """
    from mixpanel_assets.cli.emulate import serve_emulator

    serve_emulator(port=port, seed=seed, start=start.date(), events_per_day=events_per_day)
