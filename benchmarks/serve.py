"""The rates at which the emulator sends one large day and the client receives it.

Both run on this machine at the same time, so the rates are lower bounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import date
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from mixpanel_assets.client import BudgetSettings, MixpanelAPIClient, make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings

DAY = date(2024, 1, 1)


def main() -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    arguments = parser.parse_args()
    table = Table("response", "seconds", "MB of JSON", "MB/s", title=f"{arguments.events:,} events")
    with Emulator(EmulatorSettings(start=DAY, days=1, exact_events=arguments.events)) as emulator:
        for name, encoding in (("plain", "identity"), ("gzip", "gzip")):
            seconds, size = read(emulator, encoding)
            add(table, f"read, {name}", seconds, size)
        seconds, size = receive(emulator)
        add(table, "received and checked", seconds, size)
    Console().print(table)


def add(table: Table, name: str, seconds: float, size: int) -> None:
    megabytes = size / 1e6
    table.add_row(name, f"{seconds:.2f}", f"{megabytes:,.0f}", f"{megabytes / seconds:,.0f}")


def read(emulator: Emulator, encoding: str) -> tuple[float, int]:
    """Return seconds and JSON bytes of a response that is read and discarded."""
    started = time.perf_counter()
    with httpx.stream(
        "GET",
        f"{emulator.base_url}/api/2.0/export",
        params={"project_id": emulator.project_id, "from_date": str(DAY), "to_date": str(DAY)},
        auth=(emulator.username, emulator.secret),
        headers={"Accept-Encoding": encoding},
        timeout=300,
        trust_env=False,
    ) as response:
        response.raise_for_status()
        size = sum(len(chunk) for chunk in response.iter_bytes(1 << 20))
    return time.perf_counter() - started, size


def receive(emulator: Emulator) -> tuple[float, int]:
    """Return seconds and JSON bytes of a response that is checked and stored on disk."""
    credentials = make_credentials(
        username=emulator.username, secret=emulator.secret, project_id=str(emulator.project_id)
    )
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        MixpanelAPIClient(
            credentials,
            api_base_url=emulator.base_url,
            budget=BudgetSettings(state_dir=":memory:"),
        ) as client,
    ):
        [spool] = client.event_export(from_date=DAY, to_date=DAY, directory=Path(folder))
        return time.perf_counter() - started, spool.json_bytes


if __name__ == "__main__":
    main()
