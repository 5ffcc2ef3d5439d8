"""AheadExport: several export requests at once, so that storing one waits for no other.

Answers come into use in the order of their days. At most `at_once` of them are on their way
or wait on the disk, so neither memory nor disk grows with the range.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from types import TracebackType
from typing import Self

from mixpanel_assets.client.export import EventExport
from mixpanel_assets.client.spool import Spool
from mixpanel_assets.errors import ConfigError, StorageError

logger = logging.getLogger(__name__)

# Mixpanel lets a hundred exports of a project run at once.
MAX_EXPORTS = 100
EXPORTS_AT_ONCE = 10

Window = tuple[date, date]


def checked_exports(max_workers: int | None) -> int:
    """Return how many exports to run at once; warn if that is fewer than wanted.

    Raises:
        ConfigError: It is less than 1.
    """
    if max_workers is None:
        return EXPORTS_AT_ONCE
    if type(max_workers) is not int or max_workers < 1:
        raise ConfigError(f"max_workers must be a number from 1 on, not {max_workers!r}.")
    if max_workers > MAX_EXPORTS:
        logger.warning(
            "max_workers=%s is capped at %s: Mixpanel runs no more exports at once.",
            max_workers,
            MAX_EXPORTS,
        )
    return min(max_workers, MAX_EXPORTS)


class _LeftError(Exception):
    """Nobody waits for the answer any more."""


@dataclass
class AheadExport(EventExport):
    """An export that downloads the windows given to `ahead` before their turn.

    Attributes:
        at_once: How many of them at most, the one in use included.
    """

    at_once: int = EXPORTS_AT_ONCE
    _pool: ThreadPoolExecutor | None = None
    _started: dict[Window, Future[Spool]] = field(default_factory=dict)
    _left: bool = False

    def __enter__(self) -> Self:
        self._left = False
        self._pool = ThreadPoolExecutor(self.at_once)
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left = True
        for window in list(self._started):
            self._drop(window)
        self.retries.cancelled.set()  # nobody is to wait for a budget or a retry
        if isinstance(error, KeyboardInterrupt) and self._transport:
            self._transport.abandon()  # nor for an answer
        try:
            if self._pool:
                self._pool.shutdown()
        finally:
            self.retries.cancelled.clear()  # the client can be used again
            super().__exit__(kind, error, trace)

    def ahead(self, windows: Iterable[Window]) -> Iterator[Window]:
        """Yield windows of days in order, with the next ones on their way."""
        left = iter(windows)
        coming: deque[Window] = deque()
        following = next(left, None)
        while coming or following:
            while following and len(coming) < self.at_once and self._start(following, len(coming)):
                coming.append(following)
                following = next(left, None)
            window = coming.popleft()
            yield window
            self._drop(window)

    def download(self, from_date: date, to_date: date) -> Spool:
        """Return the answer that was asked for ahead, or ask now."""
        started = self._started.pop((from_date, to_date), None)
        return started.result() if started else super().download(from_date, to_date)

    def _start(self, window: Window, beside: int) -> bool:
        """Ask for a window; False if the disk has no room until others are stored."""
        if self._pool is None:
            raise RuntimeError("an export downloads inside its `with` block only")
        try:
            self.require_room(*window, beside=beside)
        except StorageError:
            if beside:
                return False
            raise
        self._started[window] = self._pool.submit(self._ask, *window)
        return True

    def _tell(self, lines: int) -> None:
        if self._left:
            raise _LeftError
        super()._tell(lines)

    def _drop(self, window: Window) -> None:
        """Forget an answer that nobody took."""
        started = self._started.pop(window, None)
        if started and not started.cancel():
            started.add_done_callback(_discard)


def _discard(done: Future[Spool]) -> None:
    if not done.cancelled() and done.exception() is None:
        done.result().discard()
