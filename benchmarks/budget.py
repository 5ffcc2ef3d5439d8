"""365 one-day exports under a strict limit, compared with the least possible time.

Run it with `python -m benchmarks.budget`. The "hour" is shorter on both sides: the server allows
60 requests in any such window and sends 429 for the 61st. The least possible time follows from
the server's limits: six full windows, then the last five requests.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from mixpanel_assets.client import (
    BudgetSettings,
    MixpanelAPIClient,
    RetryPolicy,
    make_credentials,
)
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Limits

START = date(2024, 1, 1)
REQUESTS = 365
SERVER_PER_HOUR, SERVER_PER_SECOND = 60, 15
CLIENT_PER_SECOND = 10  # two thirds of the server's limit, like 2 of 3 in reality
# In an hour it is 5 s. A short window needs a larger share: requests take the same time.
MARGIN_SECONDS = 0.5


def main() -> None:
    """Run the clients and print a row for each number of processes."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--window", type=float, default=20.0, help="seconds in an hour")
    options.add_argument(
        "--per-hour", type=int, default=58, help="the client's requests in an hour"
    )
    options.add_argument("--processes", type=int, nargs="+", default=[1, 4])
    options.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    arguments, _ = options.parse_known_args()
    if arguments.child:
        export(*arguments.child, window=arguments.window, per_hour=arguments.per_hour)
        return
    full_windows, rest = divmod(REQUESTS - 1, SERVER_PER_HOUR)
    least = full_windows * arguments.window + rest / SERVER_PER_SECOND
    table = Table(title=f"{REQUESTS} exports, {SERVER_PER_HOUR} in any {arguments.window:g} s")
    for heading in ("processes", "seconds", "least possible", "more", "429", "200"):
        table.add_column(heading, justify="right")
    for processes in arguments.processes:
        seconds, statuses = measure(processes, arguments.window, arguments.per_hour)
        table.add_row(
            str(processes),
            f"{seconds:.1f}",
            f"{least:.1f}",
            f"{seconds / least - 1:.1%}",
            str(statuses[429]),
            str(statuses[200]),
        )
    Console().print(table)


def measure(processes: int, window: float, per_hour: int) -> tuple[float, Counter[int]]:
    """Export every day once, distributed over the processes."""
    limits = Limits(
        export_per_hour=SERVER_PER_HOUR, export_per_second=SERVER_PER_SECOND, window_seconds=window
    )
    settings = EmulatorSettings(start=START, days=REQUESTS, events_per_day=20, rate_limits=limits)
    with Emulator(settings) as emulator, tempfile.TemporaryDirectory() as folder:
        account = (emulator.base_url, emulator.username, emulator.secret, folder)
        numbers = ("--window", str(window), "--per-hour", str(per_hour))
        began = time.monotonic()
        command = [sys.executable, "-m", "benchmarks.budget", *numbers, "--child", *account]
        children = [
            subprocess.Popen([*command, str(first), str(processes)]) for first in range(processes)
        ]
        codes = [child.wait() for child in children]
        if any(codes):
            sys.exit("an export failed")
        seconds = time.monotonic() - began
        return seconds, Counter(request.status for request in emulator.requests)


def export(
    base_url: str,
    username: str,
    secret: str,
    folder: str,
    first: str,
    step: str,
    *,
    window: float,
    per_hour: int,
) -> None:
    """Export every `step`th day from the `first`, with one request each."""
    logging.disable(logging.WARNING)  # otherwise every wait is logged
    budget = BudgetSettings(
        state_dir=folder,
        export_per_hour=per_hour,
        export_per_second=CLIENT_PER_SECOND,
        window_seconds=window + MARGIN_SECONDS,
    )
    with MixpanelAPIClient(
        make_credentials(username=username, secret=secret, project_id="12345"),
        api_base_url=base_url,
        retries=RetryPolicy(max_wait_seconds=None),
        budget=budget,
    ) as client:
        for number in range(int(first), REQUESTS, int(step)):
            day = START + timedelta(days=number)
            directory = Path(folder) / f"spool-{first}"
            for spool in client.event_export(from_date=day, to_date=day, directory=directory):
                spool.discard()


if __name__ == "__main__":
    main()
