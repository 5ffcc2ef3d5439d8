"""The `mp` command line: parse, call one function of the library, print."""

from __future__ import annotations

from typing import NoReturn

from mixpanel_assets.cli.signals import leave, listen, received_signal


def main() -> NoReturn:
    """Run `mp`; the entry point of the console script."""
    listen()
    code: object = 130
    try:
        from mixpanel_assets.cli.app import run

        run()
    except SystemExit as ended:
        code = ended.code
    except BaseException as error:
        if not (received_signal() or isinstance(error, KeyboardInterrupt)):
            raise
    leave(code if isinstance(code, int) else 0)
