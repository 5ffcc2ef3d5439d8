"""What a workspace leaves on the disk, however its process ends."""

import os
import subprocess
import sys

import pytest

from mixpanel_assets.cli.demo import environment_of
from mixpanel_assets_tests.laws import siblings

TEMPORARY = """
import os
from mixpanel_assets import Workspace
with Workspace.{kind}() as ws:
    ws.fetch_events("mine", from_date="2024-01-03", to_date="2024-01-03", progress=False)
    assert ws.sql_scalar("SELECT count(*) FROM mine")
    {end}
"""
STREAM = """
import os
from mixpanel_assets import Workspace
ws = Workspace()
stream = ws.stream_events(from_date="2024-01-03", to_date="2024-01-03")
next(stream)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def files_after(emulator, tmp_path_factory):
    """Run a program in folders of its own, and return how it ended and what it left."""
    folder = tmp_path_factory.mktemp("own")
    places = {"TMPDIR": folder / "tmp", "HOME": folder / "home"}
    places["TMPDIR"].mkdir()
    places["HOME"].mkdir()
    variables = {**environment_of(emulator), **{name: str(place) for name, place in places.items()}}
    variables["MP_STATE_DIR"] = str(folder / "state")

    def run(program):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **variables},
            cwd=folder,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        found = (path for path in folder.rglob("*") if path.is_file())
        return done.returncode, {path.relative_to(folder).parts[0] for path in found}

    return run


ENDS = [
    ("ephemeral", "os.kill(os.getpid(), 15)", -15),
    ("memory", "1 / 0", 1),
    ("ephemeral", "pass", 0),
    ("memory", "pass", 0),
    ("ephemeral", "1 / 0", 1),
    ("memory", "os.kill(os.getpid(), 15)", -15),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "end", "code"), siblings(ENDS, keep=2))
def test_a_temporary_workspace_leaves_its_requests_alone(kind, end, code, files_after):
    """They were spent; no rows and no answers stay."""
    assert files_after(TEMPORARY.format(kind=kind, end=end)) == (code, {"state"})


@pytest.mark.slow
def test_what_a_killed_one_leaves_goes_with_the_next(files_after):
    """Nothing can be done while SIGKILL does its work."""
    killed = TEMPORARY.format(kind="ephemeral", end="os.kill(os.getpid(), 9)")
    assert files_after(killed) == (-9, {"state", "tmp"})
    assert files_after(TEMPORARY.format(kind="ephemeral", end="pass")) == (0, {"state"})


@pytest.mark.slow
def test_a_stream_that_is_killed_leaves_no_file(files_after):
    """Its records were never on the disk."""
    assert files_after(STREAM) == (-9, {"state"})
