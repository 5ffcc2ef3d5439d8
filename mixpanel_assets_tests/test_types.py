"""A program that uses the public API passes a strict type checker."""

import subprocess
import sys
from pathlib import Path

import mixpanel_assets

PACKAGE = Path(mixpanel_assets.__file__).parent
CONSUMER = Path(__file__).parent / "data" / "consumer.py"


def checked(*paths):
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *map(str, paths)],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_program_of_public_names_is_fully_typed(tmp_path):
    """Also what a workspace hands on to its services; and a wrong use is seen."""
    assert (PACKAGE / "py.typed").exists()
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from mixpanel_assets import Workspace\n\n"
        "def wrong(ws: Workspace) -> None:\n"
        "    ws.segmentation('Sign Up', from_date='2024-01-01')\n"
        "    ws.sample('visits', n='many')\n"
        "    ws.tables().nothing\n"
    )
    done = checked(CONSUMER, wrong)
    errors = [line for line in done.stdout.splitlines() if ": error" in line]
    assert [line.split(": error")[0].rpartition("/")[2] for line in errors] == [
        f"wrong.py:{number}" for number in (4, 5, 6)
    ], done.stdout + done.stderr
