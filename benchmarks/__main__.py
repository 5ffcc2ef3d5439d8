"""`./run bench [name] [options]`: every benchmark, or one of them; `--page` writes a page."""

from __future__ import annotations

import subprocess
import sys

NAMES = (
    *("end_to_end", "load", "serve", "budget", "stream", "pages", "profiles", "backfill"),
    *("parallel_runs", "lake", "memory"),
)


def main() -> int:
    """Run the named benchmark, or all of them one after another."""
    if sys.argv[1:2] == ["--page"]:
        return subprocess.run([sys.executable, "-m", "benchmarks.page", *sys.argv[2:]]).returncode
    names = [sys.argv[1]] if sys.argv[1:2] and sys.argv[1] in NAMES else list(NAMES)
    options = [argument for argument in sys.argv[1:] if argument not in NAMES]
    for name in names:
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options])
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
