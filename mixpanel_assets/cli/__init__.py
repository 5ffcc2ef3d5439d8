"""The `mp` command line: parse, call one function of the library, print."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `mp`; the way in for the console script."""
    try:
        from mixpanel_assets.cli.app import run

        run()
    except KeyboardInterrupt:  # before a command began, or after it ended
        sys.exit(130)
