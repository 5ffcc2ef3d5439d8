"""The `mp` command line: parse, call one function of the library, print."""

from __future__ import annotations


def main() -> None:
    """Run `mp`; the way in for the console script."""
    from mixpanel_assets.cli.app import run

    run()
