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

SECONDS = 300  # what runs longer is killed
STREAMS = ("stdin", "stdout", "stderr")
SERVER = """
import gc, json, os, signal, sys
import httpx, rich.progress, rich.table
import mixpanel_assets.auth, mixpanel_assets.cli.app, mixpanel_assets.client
from mixpanel_assets.cli import main

# They start threads, which a fork does not get; at its end it would wait for them and never exit.
assert not {"duckdb", "numpy", "pyarrow"} & sys.modules.keys()

def interrupt_at(number, call):
    # As if it came from outside: at the n-th call of ours within a load.
    package = os.path.dirname(mixpanel_assets.__file__) + os.sep
    calls = None

    def count(frame, kind, argument):
        nonlocal calls
        code = frame.f_code
        if kind != "call" or not code.co_filename.startswith(package):
            return
        if calls is None and code.co_qualname == "EventLoad.store":
            calls = 0
        if calls is not None:
            calls += 1
            if calls == call:
                sys.setprofile(None)
                os.kill(os.getpid(), number)

    sys.setprofile(count)

def become(asked):
    signal.alarm(asked["seconds"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored here
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    for number, (path, flags) in enumerate(zip(
        asked["streams"], (os.O_RDONLY, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_APPEND)
    )):
        os.dup2(os.open(path, flags), number)
    sys.stdin = open(0)
    sys.argv = ["mp", *asked["arguments"]]
    if asked["interrupt"]:
        interrupt_at(*asked["interrupt"])

mixpanel_assets.cli.app._command()  # builds all commands once
gc.freeze()
for line in sys.stdin:
    if not (child := os.fork()):
        become(json.loads(line))
        main()
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
        interrupt: tuple[int, int] | None = None,
    ) -> subprocess.CompletedProcess[Any]:
        """Return how a command line ended, its outputs as text or as bytes.

        Args:
            arguments: What follows `mp`.
            env: Its environment.
            cwd: Its folder.
            input: Its stdin.
            text: Whether the outputs are text.
            interrupt: A signal, and the number of the call of ours in a load at which it comes.
        """
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
                "interrupt": interrupt,
            }
            self._server.stdin.write(f"{json.dumps(asked)}\n")
            self._server.stdin.flush()
            code = int(self._server.stdout.readline())
            said = [file.read_bytes() for file in (stdout, stderr)]
        out, err = (one.decode() if text else one for one in said)
        return subprocess.CompletedProcess(["mp", *arguments], code, out, err)
