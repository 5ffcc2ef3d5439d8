"""What Ctrl-C or SIGTERM left: said in one line before `mp` ends with 130 or 143."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mixpanel_assets.cli.invocation import current, hush
from mixpanel_assets.cli.signals import loading


@contextmanager
def told_what_is_kept(kept: Callable[[], str]) -> Iterator[None]:
    """Say what `kept` returns when the block is interrupted, and let the interrupt go on."""
    try:
        with loading():
            yield
    except KeyboardInterrupt:
        hush()  # threads that are ending would say that they ask again
        current().show_interrupt(kept())
        raise
