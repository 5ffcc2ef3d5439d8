"""A program that uses the public API passes a strict type checker."""

import subprocess
import sys
from pathlib import Path

import mixpanel_assets

PACKAGE = Path(mixpanel_assets.__file__).parent
CONSUMER = Path(__file__).parent / "data" / "consumer.py"


def checked(path):
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(path)],
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
    done = checked(CONSUMER)
    assert done.returncode == 0, done.stdout + done.stderr
    refused = checked(wrong).stdout
    assert [f"wrong.py:{line}: error" in refused for line in (4, 5, 6)] == [True] * 3
