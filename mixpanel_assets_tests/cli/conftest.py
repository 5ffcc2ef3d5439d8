"""The `mp` command: as a user starts it, in a process of its own, and faster in this one."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.cli.app import run as run_mp
from mixpanel_assets.cli.demo import environment_of

MP = str(Path(sys.executable).with_name("mp"))


def heed_signals() -> None:
    """For `preexec_fn`: a shell may have started the tests with Ctrl-C ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture
def variables(emulator, tmp_path):
    """The environment that points `mp` at the emulator and at a database of this test's own."""
    return {**environment_of(emulator), "MP_DATABASE": str(tmp_path / "warehouse.duckdb")}


@pytest.fixture
def mp(variables, forked_mp, tmp_path):
    """Run `mp` with arguments; environment variables can be changed by keyword."""

    def run(
        *arguments: str, stdin: str | None = None, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **variables, **changes}
        return forked_mp.run(arguments, env=env, cwd=tmp_path, input=stdin)

    return run


@pytest.fixture
def workspace(credentials, settings):
    """The same data through the library."""
    with Workspace(credentials=credentials, settings=settings) as workspace:
        yield workspace


@dataclass
class Ran:
    """How a command line ended."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def mp_here(variables, monkeypatch, tmp_path, capsys):
    """Run a command line in this process; environment variables can be changed by keyword."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str = "", **changes: str) -> Ran:
        capsys.readouterr()
        with monkeypatch.context() as here:
            here.setattr("sys.stdin", TextIOWrapper(BytesIO(stdin.encode())))
            # One process runs them all, and no test is to spend another one's requests.
            own = {"MP_STATE_DIR": str(tmp_path / "state")}
            for name, value in {**variables, **own, **changes}.items():
                here.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                run_mp(arguments)
        return Ran(int(ended.value.code or 0), *capsys.readouterr())

    return run
