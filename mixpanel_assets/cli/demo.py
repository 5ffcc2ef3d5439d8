"""`mp demo`: a week of invented data through a real Dagster run, beside the truth."""

from __future__ import annotations

import os
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
from rich import box
from rich.console import Console
from rich.table import Table

from mixpanel_assets.definitions import build_definitions
from mixpanel_assets.defs.resources import MixpanelResource
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import Database, ProjectIdentity, check_whose
from mixpanel_assets.workspace import Workspace

FIRST_DAY = date(2024, 1, 1)
DAYS = [FIRST_DAY + timedelta(days=offset) for offset in range(7)]

_VARIABLE = "MP_DEMO_SECRET"
_QUESTIONS = {
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


def run_demo(database: Path) -> None:
    """Load, compare, ask three questions, say what to type next.

    Raises:
        IncompleteExportError: What was loaded is not what the emulator holds.
    """
    console = Console(highlight=False)
    started = time.monotonic()
    database = database.absolute()
    with Emulator(EmulatorSettings(start=FIRST_DAY, days=14)) as emulator:
        must_be_free(emulator, database)
        console.print(f"A pretend Mixpanel answers on {emulator.base_url}")
        settings = _settings_for(emulator, database)
        os.environ[_VARIABLE] = emulator.secret  # Dagster shows a resource's plain text
        with console.status("Dagster materializes mixpanel/events and mixpanel/profiles"):
            _materialize(emulator, settings)
        with Workspace(
            credentials=_resource_for(emulator).credentials, settings=settings
        ) as workspace:
            equal = _print_comparison(console, emulator, workspace, settings.today())
            for title, query in _QUESTIONS.items():
                _print_answer(console, title, query, workspace)
    console.print(f"\nDone in {time.monotonic() - started:.0f} s; the tables are in {database}")
    _print_next(console, database)
    if not equal:
        raise IncompleteExportError("What was loaded differs from the truth; see the table above.")


def must_be_free(emulator: Emulator, database: Path) -> None:
    """See that the demo's rows may go into a file, which need not be there.

    Raises:
        ConfigError: It holds a project that is not the demo's.
        StorageError: It is no database, or its place cannot be written.
    """
    place = Database(database)
    place.make_place()
    check_whose(place, ProjectIdentity(str(emulator.project_id), emulator.settings.region))


def _settings_for(emulator: Emulator, database: Path) -> Settings:
    return Settings(
        api_base_url=emulator.base_url,
        database=database,
        start_date=FIRST_DAY,
        time_regime="utc",
        time_zone="UTC",
        state_dir=":memory:",
    )


def _resource_for(emulator: Emulator) -> MixpanelResource:
    return MixpanelResource(
        username=emulator.username,
        secret=dg.EnvVar(_VARIABLE),
        project_id=str(emulator.project_id),
        region=emulator.settings.region,
        api_base_url=emulator.base_url,
        state_dir=":memory:",
    )


def _materialize(emulator: Emulator, settings: Settings) -> None:
    definitions = build_definitions(
        settings=settings, resources={"mixpanel": _resource_for(emulator)}
    )
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(definitions, instance, "events", DAYS[0], DAYS[-1])
        materialize(definitions, instance, "profiles", settings.today())


def materialize(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    name: str,
    first: date,
    last: date | None = None,
) -> None:
    """Materialize `mixpanel/<name>` for a day, or for a range of days, both ends included."""
    range_of_days = {
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": (last or first).isoformat(),
    }
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
    table = Table(
        title="\nLoaded, beside what the emulator says is true",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for heading in ("rows", "true", "repeats", "true", "unstorable", "true", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    loaded = {
        day: counts
        for day, *counts in workspace.sql_rows(
            "SELECT day, row_count, duplicates_removed, quarantined FROM mixpanel._days "
            "WHERE table_name = 'events'"
        )
    }
    truth = emulator.truth
    equal = True
    for day in DAYS:
        held = len(truth.unstorable(day))
        true = [truth.count(day) - held, truth.duplicates(day), held]
        equal = equal and loaded[day] == true
        _add_pairs(table, f"events {day}", loaded[day], true)
    profiles = workspace.sql_rows(
        f"SELECT count(*) FROM profiles WHERE snapshot_date = DATE '{today}'"
    )
    true_profiles = len(truth.profiles())
    equal = equal and profiles[0][0] == true_profiles
    _add_pairs(table, f"profiles {today}", [profiles[0][0]], [true_profiles])
    console.print(table)
    return equal


def _add_pairs(table: Table, name: str, loaded: list[int], true: list[int]) -> None:
    cells = [f"{number:,}" for pair in zip(loaded, true, strict=True) for number in pair]
    cells += [""] * (6 - len(cells))
    table.add_row(name, *cells, "equal" if loaded == true else "[bold red]DIFFERENT")


def _print_answer(console: Console, title: str, query: str, workspace: Workspace) -> None:
    rows = workspace.sql_rows(query)
    most = max((float(number or 0) for _, number in rows), default=1) or 1
    table = Table(
        title=f"\n{title}", title_justify="left", show_header=False, box=None, pad_edge=False
    )
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_column(justify="left")
    for name, number in rows:
        bar = "█" * round(float(number or 0) / most * 30)
        table.add_row(str(name), f"{number:,}", f"[cyan]{bar}")
    console.print(table)


def _print_next(console: Console, database: Path) -> None:
    python, mp = _shown(Path(sys.executable)), _shown(Path(sys.argv[0]))
    ask = f"import duckdb; duckdb.connect('{_shown(database)}').sql('FROM mixpanel.events').show()"
    console.print(
        "\nWhat to type next"
        f"\n  a month of it in Dagster's UI:  {mp} demo --ui"
        f'\n  anything in SQL:                {python} -c "{ask}"'
        "\n  your own project:               export MP_USERNAME=... MP_SECRET=... MP_PROJECT_ID=..."
        f"\n                                  {mp} sync --from 2024-01-01 --to 2024-01-07",
        soft_wrap=True,
    )


def _shown(path: Path) -> str:
    """Return a path as one would type it in this folder."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
