"""Ctrl-C and SIGTERM: a KeyboardInterrupt at a harmless moment, and the exit code of both.

Python raises KeyboardInterrupt between any two instructions. Inside an import, a lock or the
code of a `with` statement that leaves a lock held for ever; inside a callback, or an import that
DuckDB makes, it is lost. Here it is raised in the package's own code, or where the thread stands
still, as in a wait; and again, until `mp` has seen it.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_ENDING = (signal.SIGINT, signal.SIGTERM)
_OURS = str(Path(__file__).parent.parent) + os.sep
_IMPORTS = "<frozen importlib"
_LOOK_AGAIN_SECONDS = 0.005
_LOST_SECONDS = 0.1
_LONGEST_SECONDS, _LONGEST_IMPORT_SECONDS = 1.0, 10.0
_ONE_KEY_PRESS_SECONDS = 0.5  # the terminal and a parent process may both pass on one Ctrl-C


class _Delivery:
    """Brings signals to the main thread as KeyboardInterrupt.

    Attributes:
        is_seen: Whether `mp` has caught the interrupt, so that it cannot get lost any more.
        is_loading: Whether other threads are at work that may have to be waited for.
    """

    def __init__(self) -> None:
        self.is_seen = self.is_loading = False
        self._first: int | None = None
        self._numbers, wakeup = os.pipe()
        for end in (self._numbers, wakeup):
            os.set_blocking(end, False)
        # Also tells of signals that come while Dagster has put its own handlers in place.
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self._main_thread = _thread.get_ident()
        self._came_at = float("-inf")
        self._wanted_since: float | None = None
        self._place: tuple[int, int] | None = None
        self._is_reminder_out = self._is_reminder = False

    @property
    def first(self) -> int | None:
        """The first signal that came, which decides the exit code."""
        while self._first is None:
            try:
                number = os.read(self._numbers, 1)[0]
            except BlockingIOError:
                break
            self._first = number if number in _ENDING else None
        return self._first

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, or look again in a moment. A signal handler."""
        now = time.monotonic()
        if self._is_reminder:
            self._is_reminder = self._is_reminder_out = False
        elif now - self._came_at < _ONE_KEY_PRESS_SECONDS:
            return
        else:
            self._came_at = self._wanted_since = now
        if self._wanted_since is None:
            if self.is_seen or _is_on_its_way():
                self._remind_in(_LOST_SECONDS, number)
                return
            self._wanted_since = now
        if self._is_harmless(frame, now - self._wanted_since):
            self._wanted_since = self._place = None
            self._remind_in(_LOST_SECONDS, number)
            raise KeyboardInterrupt
        self._remind_in(_LOOK_AGAIN_SECONDS, number)

    def _is_harmless(self, frame: FrameType | None, waited: float) -> bool:
        if frame is None or _is_ours(frame):
            return True
        if self.is_loading and _is_in_an_import(frame):
            return waited > _LONGEST_IMPORT_SECONDS
        before, self._place = self._place, (id(frame), frame.f_lasti)
        return before == self._place or waited > _LONGEST_SECONDS

    def _remind_in(self, seconds: float, number: int) -> None:
        if not (self._is_reminder_out or self.is_seen):
            self._is_reminder_out = True
            # Not threading.Thread: the main thread may hold the locks that its start needs.
            _thread.start_new_thread(self._remind, (seconds, number))

    def _remind(self, seconds: float, number: int) -> None:
        time.sleep(seconds)
        self._is_reminder = True
        signal.pthread_kill(self._main_thread, number)


def _is_ours(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith(_OURS) and file != __file__


def _is_in_an_import(frame: FrameType | None) -> bool:
    """Tell whether the frame runs for an import, by the frames up to our own."""
    while frame and not _is_ours(frame):
        if frame.f_code.co_filename.startswith(_IMPORTS):
            return True
        frame = frame.f_back
    return False


def _is_on_its_way() -> bool:
    """Tell whether the main thread is just leaving its blocks because of an interrupt."""
    error = sys.exc_info()[1]
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


_delivery: _Delivery | None = None


def listen() -> None:
    """Make this process's main thread see both signals as KeyboardInterrupt.

    A signal that is ignored, as after `nohup`, stays ignored.
    """
    global _delivery
    if not hasattr(signal, "pthread_kill"):
        return
    _delivery = _Delivery()
    sys.unraisablehook = _say_unless_interrupted
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _delivery.handle)


def _say_unless_interrupted(told: UnraisableHookArgs) -> None:
    if not issubclass(told.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(told)


def received() -> int | None:
    """Return the signal that ends the process; None when none has come."""
    return _delivery.first if _delivery else None


@contextmanager
def loading() -> Iterator[None]:
    """Let imports end inside the block before they are interrupted, which takes a moment.

    A thread that needs the lock of a broken import would never end.
    """
    if _delivery is None:
        yield
        return
    _delivery.is_loading = True
    try:
        yield
    finally:
        _delivery.is_loading = False


def seen() -> None:
    """Say that the interrupt has been caught where nothing can lose it."""
    if _delivery:
        _delivery.is_seen = True


def leave(code: int) -> NoReturn:
    """End the process at once: with the code that a shell gives to a signal that has come, or this.

    Threads that still wait for a connection are not waited for. Neither is Python's own way out,
    in which Ctrl-C would kill the process although its work is done.
    """
    seen()
    number = received()
    ending = 128 + number if number else code
    for late in _ENDING:
        signal.signal(late, lambda *_: os._exit(ending))
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(ending)
