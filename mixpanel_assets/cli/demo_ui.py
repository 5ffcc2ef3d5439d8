"""`mp demo --ui`: Dagster's UI on a pretend Mixpanel, with three weeks of events in place.

Its history lies next to its database, so that invented days never count as loaded in the
history of a real project.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import httpx
from rich.console import Console

from mixpanel_assets.cli.demo import FIRST_DAY, materialize, must_be_free
from mixpanel_assets.cli.emulate import environment_of
from mixpanel_assets.cli.signals import received, seen
from mixpanel_assets.definitions import build_definitions
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.settings import load_settings

LOCATION = "mixpanel_assets.cli.demo_location"
PARTITIONS = 30
LEFT_TO_LOAD = 7
_PATIENCE_SECONDS = 15.0
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


def open_ui(database: Path, port: int) -> None:
    """Open the Dagster UI on the emulator's data, until interrupted or terminated.

    Args:
        database: The DuckDB file; the runs' history is in a folder of the same name.
        port: Of 127.0.0.1.

    Raises:
        ConfigError: The port is taken, or files of others are in the way.
    """
    console = Console(stderr=True, highlight=False)
    started = time.monotonic()
    _refuse_taken(port)
    with Emulator(_SHOP) as emulator:
        must_be_free(emulator, database.absolute())
        console.print(f"A pretend Mixpanel answers on {emulator.base_url}")
        _point_at(emulator, database.absolute())
        if not database.exists():
            with console.status("Dagster materializes three weeks of events"):
                _load()
        url = f"http://127.0.0.1:{port}"
        with _dagster(port) as server:
            _wait_until_ready(server, url)
            console.print(
                f"[bold]Dagster's UI is on {url}[/] after {time.monotonic() - started:.0f} s; "
                "Ctrl-C ends it.\n"
                "A first click: Catalog > mixpanel/events > Materialize; the last week is missing."
                "\nThe sensor keep_current is on, so days to come are loaded by themselves.",
                soft_wrap=True,
            )
            server.wait()


def _refuse_taken(port: int) -> None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise ConfigError(
            f"Port {port} cannot be used ({error.strerror}). Choose another with --port."
        ) from error


def _point_at(emulator: Emulator, database: Path) -> None:
    """Let this process and its children see the demo's settings, and nobody's own."""
    history = database.with_suffix(".dagster")
    try:
        history.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ConfigError(
            f"{history} is in the way: the history of runs would be in a folder of that name. Move "
            "it away, or name another file with --database."
        ) from None
    for name in [name for name in os.environ if name.startswith("MP_")]:
        del os.environ[name]
    with suppress(FileExistsError), (history / "dagster.yaml").open("x") as instance:
        instance.write(_INSTANCE)
    first = datetime.now(UTC).date() - timedelta(days=PARTITIONS - 1)
    os.environ |= {
        **environment_of(emulator),
        "MP_RETRY_WAIT_SECONDS": "0.2",  # nobody's server needs a rest
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


@contextmanager
def _dagster(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a running `dagster dev`; Ctrl-C and SIGTERM end it and leave the block."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell without job control starts its background jobs with Ctrl-C ignored, and Dagster
        # then ignores every signal.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command = ["dagster", "dev", "-h", "127.0.0.1", "-p", str(port), "-m", LOCATION]
    server = subprocess.Popen([sys.executable, "-m", *command])  # noqa: S603
    try:
        yield server
    except KeyboardInterrupt:
        seen()
        # On a terminal, Ctrl-C has reached it, too, and a second signal would hurry it.
        has_reached_it = received() == signal.SIGINT and sys.stdin.isatty()
        with suppress(subprocess.TimeoutExpired):
            server.wait(_PATIENCE_SECONDS if has_reached_it else 0)
        server.terminate()
        server.wait()


def _wait_until_ready(server: subprocess.Popen[bytes], url: str) -> None:
    with httpx.Client(trust_env=False) as http:
        while server.poll() is None:
            try:
                http.get(f"{url}/server_info").raise_for_status()
            except httpx.HTTPError:
                time.sleep(0.2)
            else:
                return
