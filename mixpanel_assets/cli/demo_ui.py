"""`mp demo --ui`: the Dagster UI on an emulated Mixpanel, with three weeks of loaded events.

The run history is in a folder next to the demo's database, so that invented days never count as
loaded in the history of a real project.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import httpx
from rich.console import Console

from mixpanel_assets.cli.demo import (
    FIRST_DAY,
    environment_of,
    materialize,
    port_error,
    require_demo_database,
)
from mixpanel_assets.cli.signals import mark_caught, received_signal
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.settings import load_settings

LOCATION = "mixpanel_assets.cli.demo_location"
PARTITIONS = 30
LEFT_TO_LOAD = 7  # users can try a backfill of the last week
_SHUTDOWN_SECONDS = 15.0  # Dagster ends its code servers within seconds
_SHOP = EmulatorSettings(start=FIRST_DAY, page_size=100, max_page_size=100)
_INSTANCE = """\
concurrency:
  runs:
    max_concurrent_runs: 4
telemetry:
  enabled: false
nux:
  enabled: false
"""


def open_ui(database: Path, port: int, *, is_verbose: bool = False) -> None:
    """Serve the Dagster UI on the emulator's data until interrupted or terminated.

    The run history is in a folder with the name of the database. What Dagster prints goes to
    `ui.log` next to it, unless `is_verbose`.
    """
    console = Console(stderr=True, highlight=False)
    started = time.monotonic()
    _require_port(port)
    with Emulator(_SHOP) as emulator:
        require_demo_database(emulator, database.absolute())
        console.print(f"An emulated Mixpanel runs on {emulator.base_url}")
        _point_at(emulator, database.absolute())
        if not database.exists():
            with console.status("Dagster materializes three weeks of events"):
                _load()
        url = f"http://127.0.0.1:{port}"
        log = None if is_verbose else database.with_suffix(".dagster") / "ui.log"
        with _dagster(port, log) as server:
            _wait_until_ready(server, url, log)
            console.print(
                f"[bold]Dagster's UI is on {url}[/] after {time.monotonic() - started:.0f} s; "
                "Ctrl-C ends it.\n"
                "Start with Catalog > mixpanel/events > Materialize: the last week is missing."
                "\nThe sensor keep_current is on and loads each new day.",
                soft_wrap=True,
            )
            server.wait()


def _require_port(port: int) -> None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise port_error(port, error) from error


def _point_at(emulator: Emulator, database: Path) -> None:
    """Replace the MP_* variables of this process and its children by the demo's settings."""
    history = database.with_suffix(".dagster")
    try:
        history.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError(
            f"{history} is in the way: the run history needs a folder of that name. Move the file, "
            "or choose another database with --database."
        ) from None
    for name in [name for name in os.environ if name.startswith("MP_")]:
        del os.environ[name]
    with suppress(FileExistsError), (history / "dagster.yaml").open("x") as instance:
        instance.write(_INSTANCE)
    first = datetime.now(UTC).date() - timedelta(days=PARTITIONS - 1)
    os.environ |= {
        **environment_of(emulator),
        "MP_RETRY_WAIT_SECONDS": "0.2",  # no need to be gentle with the emulator
        "MP_DATABASE": str(database),
        "MP_START_DATE": first.isoformat(),
        "MP_AUTOMATION": "on",
        "DAGSTER_HOME": str(history),
    }


def _load() -> None:
    settings = load_settings()
    definitions = build_definitions(settings=settings)
    last = settings.today() - timedelta(days=LEFT_TO_LOAD)
    with dg.DagsterInstance.get() as instance:
        materialize(definitions, instance, "events", settings.start_date, last)
        materialize(definitions, instance, "profiles", settings.today())
        materialize(definitions, instance, "coverage")


@contextmanager
def _dagster(port: int, log: Path | None) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a running `dagster dev`. Ctrl-C and SIGTERM end it, and then the block."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell without job control makes its background jobs ignore Ctrl-C, and Dagster then
        # ignores every signal.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command = ["dagster", "dev", "-h", "127.0.0.1", "-p", str(port), "-m", LOCATION]
    with log.open("wb") if log else nullcontext() as output:
        server = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", *command], stdout=output, stderr=output
        )
    try:
        yield server
    except KeyboardInterrupt:
        mark_caught()
        # A terminal sends Ctrl-C to the server too, and a second signal would cut its shutdown.
        has_signal = received_signal() == signal.SIGINT and sys.stdin.isatty()
        with suppress(subprocess.TimeoutExpired):
            server.wait(_SHUTDOWN_SECONDS if has_signal else 0)
        server.terminate()
        server.wait()


def _wait_until_ready(server: subprocess.Popen[bytes], url: str, log: Path | None) -> None:
    with httpx.Client(trust_env=False) as http:
        while server.poll() is None:
            try:
                http.get(f"{url}/server_info").raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.2)
            else:
                return
    printed = "".join(log.read_text(errors="replace").splitlines(True)[-20:]) if log else ""
    raise ConfigError(
        f"Dagster's UI did not start (exit code {server.returncode}). Its last lines"
        f"{f', from {log}:' if log else ' are above.'}\n{printed}"
    )
