"""Run `benchmarks.profile_client` against an emulator in this process.

The client has its own process, so that its peak memory does not include the emulator's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets.emulator import Emulator


@dataclass(frozen=True)
class Figure:
    """One run; `began` and `ended` are epoch seconds, as in the emulator's log."""

    profiles: int
    began: float
    ended: float
    cpu_seconds: float
    peak_bytes: int

    @property
    def seconds(self) -> float:
        """Wall time without the start of Python."""
        return self.ended - self.began


def run(emulator: Emulator, way: str, *arguments: str, python: str = sys.executable) -> Figure:
    """Return the figures of one way, in its own database and home."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, "-m", "benchmarks.profile_client", way, *arguments],
            env={
                **os.environ,
                **environment_of(emulator),
                "HOME": folder,
                "MP_DATABASE": str(Path(folder) / "warehouse.duckdb"),
            },
            capture_output=True,
            text=True,
        )
    if done.returncode:
        sys.exit(done.stderr)
    return Figure(**json.loads(done.stdout.splitlines()[-1]))


def page_times(emulator: Emulator) -> list[datetime]:
    """Return the times of the requests of profile pages, sorted."""
    requests = [request for request in emulator.requests if request.path.endswith("/engage")]
    return sorted(request.started for request in requests)
