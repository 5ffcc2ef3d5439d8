"""The `mp` command as a user starts it: a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixpanel_assets.cli.emulate import environment_of

MP = str(Path(sys.executable).with_name("mp"))


@pytest.fixture
def variables(emulator, tmp_path):
    """The environment that points `mp` at the emulator and at a database of this test's own."""
    return {**environment_of(emulator), "MP_DATABASE": str(tmp_path / "warehouse.duckdb")}


@pytest.fixture
def mp(variables, tmp_path):
    """Run `mp` with arguments; environment variables can be changed by keyword."""

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [MP, *arguments],
            env={**os.environ, **variables, **changes},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
