"""The rate of event streams, and their memory for few and for many events.

`python -m benchmarks.stream --events 1000000`. The emulator is slower than a client, so its
responses are recorded first and then replayed from disk, the same ones for every client. Each way
runs in its own process. `--headless-python PATH` also measures `mixpanel-headless`, with the
interpreter of its environment.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import httpx
from rich.table import Table

from benchmarks import stream_client
from benchmarks.show import show
from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.emulator import Emulator, EmulatorSettings

FEW = 10_000
OURS = (("live raw", "raw"), ("live normalized", "normalized"), ("staged raw", "staged"))
LINES = ("live lines", "lines")
CLIENT = str(Path(stream_client.__file__))


@dataclass(frozen=True)
class Figure:
    """One run of a client."""

    events: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds


def main() -> None:
    """Run each way with few and with many events and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--headless-python", help="an interpreter with mixpanel-headless")
    options = parser.parse_args()
    ways = [(name, sys.executable, "ours", way) for name, way in (*OURS, LINES)]
    if options.headless_python:
        ways += [
            (f"headless {way}", options.headless_python, "headless", way)
            for way in ("raw", "normalized")
        ]
    few, many = measure(FEW, ways), measure(options.events, ways)
    show(report(few, many))
    for way in ("raw", "normalized"):
        if (theirs := many.get(f"headless {way}")) is not None:
            factor = many[f"live {way}"].rate / theirs.rate
            show(f"live {way}: {factor:.1f} times the rate of mixpanel-headless")


def measure(events: int, ways: list[tuple[str, str, str, str]]) -> dict[str, Figure]:
    """Return the figures of each way for a day with this number of events."""
    settings = EmulatorSettings(
        start=date.fromisoformat(stream_client.DAY), days=1, exact_events=events
    )
    with tempfile.TemporaryDirectory() as folder:
        with Emulator(settings) as emulator:
            variables = environment_of(emulator)
            days = (stream_client.DAY, stream_client.DAY)
            responses = {ms: record(emulator, ms, *days, Path(folder)) for ms in (None, "true")}
        with replay(responses) as base_url:
            variables = {
                **os.environ,
                **variables,
                "MP_API_BASE_URL": base_url,
                "HOME": folder,
                "MP_DATABASE": f"{folder}/warehouse.duckdb",
            }
            return {
                name: run(python, [client, way, *days], variables)
                for name, python, client, way in ways
            }


def record(
    emulator: Emulator, time_in_ms: str | None, from_date: str, to_date: str, folder: Path
) -> Path:
    """Return a file with the emulator's compressed response."""
    path = folder / f"{time_in_ms}.gz"
    params = {
        "project_id": str(emulator.project_id),
        "from_date": from_date,
        "to_date": to_date,
        **({"time_in_ms": time_in_ms} if time_in_ms else {}),
    }
    with (
        httpx.stream(
            "GET",
            f"{emulator.base_url}/api/2.0/export",
            params=params,
            auth=(emulator.username, emulator.secret),
            headers={"Accept-Encoding": "gzip"},
            timeout=900,
            trust_env=False,
        ) as response,
        path.open("wb") as file,
    ):
        for piece in response.iter_raw():
            file.write(piece)
    return path


@contextmanager
def replay(responses: Mapping[str | None, Path]) -> Iterator[str]:
    """Serve exports from the files, and yield the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            params = parse_qs(urlsplit(self.path).query)
            path = responses[params.get("time_in_ms", [None])[0]]
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            with path.open("rb") as file:
                shutil.copyfileobj(file, self.wfile, 1 << 18)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


def run(python: str, arguments: list[str], variables: dict[str, str]) -> Figure:
    done = subprocess.run(
        [python, CLIENT, *arguments], env=variables, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(done.stderr)
    return Figure(**json.loads(done.stdout.splitlines()[-1]))


def report(few: dict[str, Figure], many: dict[str, Figure]) -> Table:
    events = next(iter(many.values())).events
    table = Table(title=f"{FEW:,} and {events:,} events")
    for heading in ("way", "seconds", "CPU s", "events/s", "MB few", "MB many", "growth"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, figure in many.items():
        small = few[name].peak_bytes
        table.add_row(
            name,
            f"{figure.seconds:.2f}",
            f"{figure.cpu_seconds:.2f}",
            f"{figure.rate:,.0f}",
            f"{small / 1e6:.1f}",
            f"{figure.peak_bytes / 1e6:.1f}",
            f"{figure.peak_bytes / small - 1:+.1%}",
        )
    return table


if __name__ == "__main__":
    main()
