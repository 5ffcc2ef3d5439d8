"""AheadExport: the next answers come while one is stored, so that neither waits for the other.

Answers come into use in the order of their days. At most `at_once` of them are on their way,
and one more than that is on the disk, so neither memory nor disk grows with the range.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
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


class _HeldError(Exception):
    """An earlier answer failed: what waited behind it was not asked for."""


@dataclass
class _Started:
    """An answer on its way, and how many requests it has taken so far."""

    answer: Future[Spool]
    requests: list[None]


@dataclass
class AheadExport(EventExport):
    """An export that downloads the windows given to `ahead` before their turn.

    After a failure nothing more is asked for until its turn has come and the load goes on.

    Attributes:
        at_once: How many of them are on their way at the same time; the one in use is beside
            them.
    """

    at_once: int = EXPORTS_AT_ONCE
    _pool: ThreadPoolExecutor | None = None
    _started: dict[Window, _Started] = field(default_factory=dict)
    _failed: set[Window] = field(default_factory=set)
    _left: bool = False

    def __enter__(self) -> Self:
        self._left = False
        self._failed.clear()
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
            self._drop(window, whole=self.key is None)
        self.retries.cancelled.set()  # nobody is to wait for a budget or a retry
        if error and self._transport:
            self._transport.abandon()  # nor for an answer
        try:
            if self._pool:
                self._pool.shutdown()
        finally:
            self.retries.cancelled.clear()  # the client can be used again
            super().__exit__(kind, error, trace)

    def ahead(
        self, windows: Iterable[Window], wanted: Callable[[Window], bool] = lambda window: True
    ) -> Iterator[Window]:
        """Yield windows of days in order, with the next ones on their way.

        Args:
            windows: The windows.
            wanted: Whether an answer will be of use, by what is known when its turn comes.
        """
        left = iter(windows)
        coming: deque[Window] = deque()
        following = next(left, None)
        while coming or following:
            while (
                following
                and len(coming) <= self.at_once
                and (not wanted(following) or self._start(following, len(coming)))
            ):
                coming.append(following)
                following = next(left, None)
            window = coming.popleft()
            yield window
            self._drop(window)
            if window in self._failed:
                self._failed.remove(window)
                self._go_on(coming)

    def download(self, from_date: date, to_date: date) -> Spool:
        """Return the answer that was asked for ahead, or ask now."""
        if started := self._started.pop((from_date, to_date), None):
            try:
                return started.answer.result()
            except _HeldError:
                pass
            finally:
                self._count(len(started.requests))
        return super().download(from_date, to_date)

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
        sent: list[None] = []
        answer = self._pool.submit(self._ask_in_turn, window, sent, first=not beside)
        self._started[window] = _Started(answer, sent)
        return True

    def _go_on(self, coming: Iterable[Window]) -> None:
        """Ask for what a failure had held back."""
        for beside, window in enumerate(coming):
            started = self._started.get(window)
            if started and started.answer.done() and _was_held(started.answer):
                self._drop(window)
                self._start(window, beside)

    def _ask_in_turn(self, window: Window, sent: list[None], *, first: bool) -> Spool:
        if self._failed and not first:
            raise _HeldError
        try:
            return self._ask(*window, on_request=lambda: sent.append(None))
        except BaseException:
            self._failed.add(window)
            raise

    def _tell(self, lines: int) -> None:
        if self._left:
            raise _LeftError
        super()._tell(lines)

    def _drop(self, window: Window, *, whole: bool = True) -> None:
        """Forget an answer that nobody took, also a whole one if it is of no use later."""
        started = self._started.pop(window, None)
        if started is None:
            return
        self._count(len(started.requests))
        if not started.answer.cancel() and whole:
            started.answer.add_done_callback(_discard)


def _was_held(done: Future[Spool]) -> bool:
    return isinstance(done.exception(), _HeldError)


def _discard(done: Future[Spool]) -> None:
    if not done.cancelled() and done.exception() is None:
        done.result().discard()
