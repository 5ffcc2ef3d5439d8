"""`mp emulator` and `mp demo`: an emulated Mixpanel, and a week of its data in Dagster.

`mp emulator` must not import Dagster, so the functions of the demo import it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import ExitStack, suppress
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixpanel_assets.cli.invocation import current
from mixpanel_assets.cli.options import day_option, known_zone
from mixpanel_assets.errors import ConfigError, IncompleteExportError

if TYPE_CHECKING:
    import dagster as dg
    from rich.console import Console
    from rich.table import Table

    from mixpanel_assets.defs.resources import MixpanelResource
    from mixpanel_assets.emulator import Emulator
    from mixpanel_assets.settings import Settings
    from mixpanel_assets.workspace import Workspace

FIRST_DAY = date(2024, 1, 1)
DAYS = [FIRST_DAY + timedelta(days=offset) for offset in range(7)]

_VARIABLE = "MP_DEMO_SECRET"  # not MP_SECRET, which may be the user's own
_QUERIES = {
    "Events per day": """
        SELECT event_date AS day, count(*) AS events
        FROM events GROUP BY ALL ORDER BY day""",
    "Top events": """
        SELECT event_name AS event, count(*) AS events
        FROM events GROUP BY ALL ORDER BY events DESC, event LIMIT 6""",
    "Revenue per country": """
        SELECT (properties->>'$.country') || ', ' || (properties->>'$.currency') AS country,
               sum((properties->>'$.amount')::DECIMAL(18, 2)) AS revenue
        FROM events WHERE event_name = 'Order Completed'
        GROUP BY ALL ORDER BY revenue DESC LIMIT 6""",
}


def emulator(
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port on 127.0.0.1; 0 takes any free one.")
    ] = 8765,
    seed: Annotated[int, typer.Option(help="The same seed gives the same data.")] = 7,
    start: Annotated[date, day_option("--start", "First day with data.")] = FIRST_DAY,
    events_per_day: Annotated[int, typer.Option(min=0, help="Average events per day.")] = 500,
    zone: Annotated[
        str, typer.Option("--zone", callback=known_zone, help="The time zone of its project.")
    ] = "UTC",
) -> None:
    """Serve an emulated Mixpanel over HTTP until interrupted, on this machine only.

    Prints the MP_* variables for a client. Events and profiles that Mixpanel's SDKs send to its
    /track, /import, /engage and /groups are kept in memory, and are part of later responses.

    Example: mp emulator --port 8765
    """
    from mixpanel_assets.emulator import Emulator, EmulatorSettings

    settings = EmulatorSettings(seed=seed, start=start, events_per_day=events_per_day, zone=zone)
    with ExitStack() as running:
        try:
            emulator = running.enter_context(Emulator(settings, port=port))
        except OSError as error:
            raise port_error(port, error) from error
        for name, value in environment_of(emulator).items():
            typer.echo(f"export {name}={value}")
        typer.echo(
            f"SDKs send to {emulator.base_url}/track, /import, /engage and /groups, with the "
            f"token {emulator.project_token}.",
            err=True,
        )
        typer.echo("Serving until interrupted (Ctrl-C).", err=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


def port_error(port: int, error: OSError) -> ConfigError:
    """Return the error for a port that another process uses."""
    return ConfigError(
        f"Port {port} cannot be used ({error.strerror}). Choose another with --port."
    )


def environment_of(emulator: Emulator) -> dict[str, str]:
    """Return the MP_* variables of a client of the emulator."""
    zone = emulator.settings.zone
    return {
        "MP_API_BASE_URL": emulator.base_url,
        "MP_USERNAME": emulator.username,
        "MP_SECRET": emulator.secret,
        "MP_PROJECT_ID": str(emulator.project_id),
        "MP_REGION": emulator.settings.region,
        "MP_STATE_DIR": ":memory:",  # keep the demo out of the real request budget
        **({} if zone == "UTC" else {"MP_TIME_ZONE": zone}),
    }


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
    """Load a week of invented data through a real Dagster run and check the counts.

    Needs no account: it uses an emulated Mixpanel on this machine.

    Example: mp demo
    """
    if ui:
        from mixpanel_assets.cli.demo_ui import open_ui

        open_ui(database or Path("data/demo_ui.duckdb"), port, is_verbose=current().verbose)
    else:
        run_demo(database or Path("data/demo.duckdb"))


def run_demo(database: Path) -> None:
    """Load a week, compare it with the emulator, print three queries and the next commands."""
    from rich.console import Console

    from mixpanel_assets.emulator import Emulator, EmulatorSettings
    from mixpanel_assets.workspace import Workspace

    console = Console(highlight=False)
    started = time.monotonic()
    database = database.absolute()
    with Emulator(EmulatorSettings(start=FIRST_DAY, days=14)) as emulator:
        require_demo_database(emulator, database)
        console.print(f"An emulated Mixpanel runs on {emulator.base_url}")
        settings = _settings_for(emulator, database)
        os.environ[_VARIABLE] = emulator.secret  # Dagster shows a resource's plain text
        resource = _resource_for(emulator)
        with console.status("Dagster materializes mixpanel/events and mixpanel/profiles"):
            _materialize(resource, settings)
        with Workspace(credentials=resource.credentials, settings=settings) as workspace:
            is_equal = _print_comparison(console, emulator, workspace, settings.today())
            for title, query in _QUERIES.items():
                _print_result(console, title, query, workspace)
    console.print(f"\nDone in {time.monotonic() - started:.0f} s; the tables are in {database}")
    _print_next(console, database)
    if not is_equal:
        raise IncompleteExportError("The loaded rows differ from the emulator's; see the table.")


def require_demo_database(emulator: Emulator, database: Path) -> None:
    """Raise `ConfigError` if the file contains another project than the demo's."""
    from mixpanel_assets.warehouse import ProjectIdentity, check_whose, database_at

    demo = database_at(database)
    demo.make_place()
    check_whose(demo, ProjectIdentity(str(emulator.project_id), emulator.settings.region))


def _settings_for(emulator: Emulator, database: Path) -> Settings:
    from mixpanel_assets.settings import Settings

    return Settings(
        api_base_url=emulator.base_url,
        database=database,
        start_date=FIRST_DAY,
        time_regime="utc",
        time_zone="UTC",
        state_dir=":memory:",
    )


def _resource_for(emulator: Emulator) -> MixpanelResource:
    import dagster as dg

    from mixpanel_assets.defs.resources import MixpanelResource

    return MixpanelResource(
        username=emulator.username,
        secret=dg.EnvVar(_VARIABLE),
        project_id=str(emulator.project_id),
        region=emulator.settings.region,
        api_base_url=emulator.base_url,
        state_dir=":memory:",
    )


def _materialize(resource: MixpanelResource, settings: Settings) -> None:
    import dagster as dg

    from mixpanel_assets.defs.location import build_definitions

    definitions = build_definitions(settings=settings, resources={"mixpanel": resource})
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(definitions, instance, "events", DAYS[0], DAYS[-1])
        materialize(definitions, instance, "profiles", settings.today())


def materialize(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    name: str,
    first: date | None = None,
    last: date | None = None,
) -> None:
    """Materialize `mixpanel/<name>` for one day, or for a range of days, both included.

    Without a day, the asset has no partitions.
    """
    import dagster as dg

    from mixpanel_assets.defs.partitions import range_tags

    range_of_days = range_tags(first, last or first) if first else {}
    try:
        definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            asset_selection=[dg.AssetKey(["mixpanel", name])],
            instance=instance,
            run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
            tags=range_of_days,
        )
    except dg.DagsterExecutionInterruptedError:  # Dagster has a signal handler of its own
        raise KeyboardInterrupt from None


def _print_comparison(
    console: Console, emulator: Emulator, workspace: Workspace, today: date
) -> bool:
    """Print the loaded counts beside the emulator's, and return whether they are equal."""
    from rich import box
    from rich.table import Table

    table = Table(
        title="\nLoaded counts, and the true counts of the emulator",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for heading in ("rows", "true", "duplicates", "true", "invalid", "true", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    loaded = {
        day: counts
        for day, *counts in workspace.sql_rows(
            "SELECT day, row_count, duplicates_removed, quarantined FROM mixpanel._days "
            "WHERE table_name = 'events'"
        )
    }
    truth = emulator.truth
    is_equal = True
    for day in DAYS:
        unstorable = len(truth.unstorable(day))
        true_counts = [truth.count(day) - unstorable, truth.duplicates(day), unstorable]
        is_equal = is_equal and loaded[day] == true_counts
        _add_pairs(table, f"events {day}", loaded[day], true_counts)
    profiles = workspace.sql_rows(
        f"SELECT count(*) FROM profiles WHERE snapshot_date = DATE '{today}'"
    )
    true_profiles = len(truth.profiles())
    is_equal = is_equal and profiles[0][0] == true_profiles
    _add_pairs(table, f"profiles {today}", [profiles[0][0]], [true_profiles])
    console.print(table)
    return is_equal


def _add_pairs(table: Table, name: str, loaded: list[int], true_counts: list[int]) -> None:
    cells = [f"{number:,}" for pair in zip(loaded, true_counts, strict=True) for number in pair]
    cells += [""] * (6 - len(cells))
    table.add_row(name, *cells, "equal" if loaded == true_counts else "[bold red]DIFFERENT")


def _print_result(console: Console, title: str, query: str, workspace: Workspace) -> None:
    from rich.table import Table

    result_rows = workspace.sql_rows(query)
    largest_number = max((float(number or 0) for _, number in result_rows), default=1) or 1
    table = Table(
        title=f"\n{title}", title_justify="left", show_header=False, box=None, pad_edge=False
    )
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for name, number in result_rows:
        bar = "█" * round(float(number or 0) / largest_number * 30)
        table.add_row(str(name), f"{number:,}", f"[cyan]{bar}")
    console.print(table)


def _print_next(console: Console, database: Path) -> None:
    python, mp = _relative(Path(sys.executable)), _relative(Path(sys.argv[0]))
    python_code = (
        f"import duckdb; duckdb.connect('{_relative(database)}').sql('FROM mixpanel.events').show()"
    )
    console.print(
        "\nNext commands"
        f"\n  a month of it in Dagster's UI:  {mp} demo --ui"
        f'\n  anything in SQL:                {python} -c "{python_code}"'
        "\n  your own project:               export MP_USERNAME=... MP_SECRET=... MP_PROJECT_ID=..."
        f"\n                                  {mp} sync --from 2024-01-01 --to 2024-01-07",
        soft_wrap=True,
    )


def _relative(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
