"""Ctrl-C and SIGTERM: a KeyboardInterrupt at a safe moment, and the exit codes of both.

Python raises KeyboardInterrupt between any two instructions. Inside an import, a lock or the
code of a `with` statement, the interrupt can leave a lock held for ever. Inside a callback, or an
import that DuckDB makes, the interrupt is lost. This module raises it in the package's own code, or
while the thread waits, and repeats it until `mp` has caught it.
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

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PACKAGE = str(Path(__file__).parent.parent) + os.sep
_IMPORTS = "<frozen importlib"
_NEXT_CHECK_SECONDS = 0.005
_LOST_SECONDS = 0.1  # an interrupt that `mp` has not caught by then is raised again
# Code that never reaches a safe moment is interrupted anyway after this time.
_LONGEST_SECONDS, _LONGEST_IMPORT_SECONDS = 1.0, 10.0
# The terminal and a parent process may both send the signal of one Ctrl-C.
_SAME_KEY_PRESS_SECONDS = 0.5


class _Delivery:
    """Raises signals in the main thread as KeyboardInterrupt.

    Attributes:
        is_caught: Whether `mp` has caught the interrupt, so that it cannot be lost any more.
        is_loading: Whether other threads work that the main thread may have to wait for.
    """

    def __init__(self) -> None:
        self.is_caught = self.is_loading = False
        self._first: int | None = None
        self._numbers, wakeup = os.pipe()
        for end in (self._numbers, wakeup):
            os.set_blocking(end, False)
        # The pipe also receives signals that arrive while Dagster's handlers are installed.
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        self._main_thread = _thread.get_ident()
        self._arrived_at = float("-inf")
        self._pending_since: float | None = None
        self._place: tuple[int, int] | None = None
        self._is_reminder_out = self._is_reminder = False

    @property
    def first(self) -> int | None:
        """The first signal; it decides the exit code."""
        while self._first is None:
            try:
                number = os.read(self._numbers, 1)[0]
            except BlockingIOError:
                break
            self._first = number if number in _SIGNALS else None
        return self._first

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raise KeyboardInterrupt, or check again soon. This is a signal handler."""
        now = time.monotonic()
        if self._is_reminder:
            self._is_reminder = self._is_reminder_out = False
        elif now - self._arrived_at < _SAME_KEY_PRESS_SECONDS:
            return
        else:
            self._arrived_at = self._pending_since = now
        if self._pending_since is None:
            if self.is_caught or _is_unwinding():
                self._remind_in(_LOST_SECONDS, number)
                return
            self._pending_since = now
        if self._is_safe(frame, now - self._pending_since):
            self._pending_since = self._place = None
            self._remind_in(_LOST_SECONDS, number)
            raise KeyboardInterrupt
        self._remind_in(_NEXT_CHECK_SECONDS, number)

    def _is_safe(self, frame: FrameType | None, waited: float) -> bool:
        if frame is None or _is_in_package(frame):
            return True
        if self.is_loading and _is_in_an_import(frame):
            return waited > _LONGEST_IMPORT_SECONDS
        before, self._place = self._place, (id(frame), frame.f_lasti)
        return before == self._place or waited > _LONGEST_SECONDS

    def _remind_in(self, seconds: float, number: int) -> None:
        if not (self._is_reminder_out or self.is_caught):
            self._is_reminder_out = True
            # Not threading.Thread: the main thread may hold the locks that its start needs.
            _thread.start_new_thread(self._remind, (seconds, number))

    def _remind(self, seconds: float, number: int) -> None:
        time.sleep(seconds)
        self._is_reminder = True
        signal.pthread_kill(self._main_thread, number)


def _is_in_package(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith(_PACKAGE) and file != __file__


def _is_in_an_import(frame: FrameType | None) -> bool:
    """Return whether the frame runs for an import; checks the frames up to the package's own."""
    while frame and not _is_in_package(frame):
        if frame.f_code.co_filename.startswith(_IMPORTS):
            return True
        frame = frame.f_back
    return False


def _is_unwinding() -> bool:
    """Return whether an interrupt is on its way through the main thread's `finally` blocks."""
    error = sys.exc_info()[1]
    while error and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


_delivery: _Delivery | None = None


def listen() -> None:
    """Make both signals a KeyboardInterrupt in this process's main thread.

    A signal that is already ignored, for example by `nohup`, is still ignored.
    """
    global _delivery
    if not hasattr(signal, "pthread_kill"):
        return
    _delivery = _Delivery()
    sys.unraisablehook = _report_unless_interrupt
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _delivery.handle)


def _report_unless_interrupt(unraisable: UnraisableHookArgs) -> None:
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def received_signal() -> int | None:
    """Return the signal that ends the process; None without a signal."""
    return _delivery.first if _delivery else None


@contextmanager
def loading() -> Iterator[None]:
    """Delay an interrupt of an import inside the block until the import has ended.

    Otherwise another thread could wait for ever for the lock of the interrupted import.
    """
    if _delivery is None:
        yield
        return
    _delivery.is_loading = True
    try:
        yield
    finally:
        _delivery.is_loading = False


def mark_caught() -> None:
    """Stop raising the interrupt: it was caught where it cannot be lost."""
    if _delivery:
        _delivery.is_caught = True


def leave(code: int) -> NoReturn:
    """End the process immediately, with the shell's code for a received signal, else with `code`.

    Threads that wait for a connection are not waited for. Python's own shutdown is skipped: there,
    Ctrl-C would kill the process although its work is done.
    """
    mark_caught()
    number = received_signal()
    ending = 128 + number if number else code
    for late in _SIGNALS:
        signal.signal(late, lambda *_: os._exit(ending))
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(ending)
