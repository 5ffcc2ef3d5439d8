"""Programs in processes of their own, which hold a database for as long as a test needs them to."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

HOLD_FOREIGN = """
    import duckdb
    connection = duckdb.connect(sys.argv[1])
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def in_another_process(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a program that says `held`, and kill it when the block ends; `sys` is imported."""
    code = "import sys\n" + textwrap.dedent(program)
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()
