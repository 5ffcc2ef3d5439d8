"""`mp` in a process of its own for each command line, forked from one that has imported it.

What a test sees is a process: arguments, environment, folder, bytes in and out, exit code. Only
the imports are not repeated; the tests that start `mp` themselves show that it does them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SECONDS = 120  # what runs longer is killed
STREAMS = ("stdin", "stdout", "stderr")
SERVER = """
import gc, json, os, signal, sys
import httpx, rich.progress, rich.table
import mixpanel_assets.accounts, mixpanel_assets.cli.app, mixpanel_assets.client
from mixpanel_assets.cli import main

# They start threads, which a fork does not get; its end then waits for them for ever.
assert not {"duckdb", "numpy", "pyarrow"} & sys.modules.keys()

def become(asked):
    signal.alarm(asked["seconds"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    for number, (path, flags) in enumerate(zip(
        asked["streams"], (os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_APPEND)
    )):
        os.dup2(os.open(path, flags), number)
    sys.stdin = open(0)
    sys.argv = ["mp", *asked["arguments"]]

gc.freeze()
for line in sys.stdin:
    if not (child := os.fork()):
        become(json.loads(line))
        sys.exit(main())
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class ForkedMp:
    """Runs command lines of `mp`; a context manager."""

    def __enter__(self) -> ForkedMp:
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()

    def run(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        input: str | None = None,
        text: bool = True,
    ) -> subprocess.CompletedProcess[Any]:
        """Return how a command line ended, its outputs as text or as bytes."""
        with tempfile.TemporaryDirectory(prefix="mp-") as name:
            stdin, stdout, stderr = (Path(name, stream) for stream in STREAMS)
            stdin.write_text(input or "")
            for file in (stdout, stderr):
                file.touch()
            asked = {
                "arguments": list(arguments),
                "environment": dict(env),
                "folder": str(cwd),
                "seconds": SECONDS,
                "streams": [str(stdin), str(stdout), str(stderr)],
            }
            self._server.stdin.write(f"{json.dumps(asked)}\n")
            self._server.stdin.flush()
            code = int(self._server.stdout.readline())
            said = [file.read_bytes() for file in (stdout, stderr)]
        out, err = (one.decode() if text else one for one in said)
        return subprocess.CompletedProcess(["mp", *arguments], code, out, err)
