"""What Ctrl-C left: said in one line before `mp` ends with 130."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mixpanel_assets.cli.invocation import current, hush
from mixpanel_assets.errors import MixpanelDataError


class LoadInterruptedError(MixpanelDataError):
    """Somebody pressed Ctrl-C while something was loaded."""

    def __init__(self, kept: str) -> None:
        super().__init__(f"Interrupted. {kept}", "INTERRUPTED")


@contextmanager
def told_what_is_kept(kept: Callable[[], str]) -> Iterator[None]:
    """Say what `kept` returns when the block is interrupted, and let the interrupt go on."""
    try:
        yield
    except KeyboardInterrupt:
        hush()  # threads that are ending would say that they ask again
        current().show(LoadInterruptedError(kept()))
        raise
