"""The ledger of the request budget: its limits, the requests spent, and the file that holds them.

The limits are Mixpanel's, minus a margin and a reserve for colleagues. The count is kept in a
file that all processes of a user share, or in this process alone.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from filelock import FileLock, Timeout

from mixpanel_assets.errors import ConfigError, StorageError
from mixpanel_assets.rules.locks import Wait, kernel_holder, locked, log_wait

logger = logging.getLogger(__name__)

Api = Literal["export", "query", "app"]


@dataclass(frozen=True)
class ApiUsage:
    """The request budget of one API family at one moment; times are UTC.

    Attributes:
        api: The API family.
        limit: Requests that may be sent in any window; 0 when there is no limit.
        used: Requests sent in the window that ends now.
        left: Requests left in the window.
        window_seconds: Length of the window.
        next_slot_at: When the next request may be sent; None: now.
        refills_at: When the window is empty if no more requests are sent; None: it is empty.
        blocked_until: Until when a 429 forbids every request; None: no 429 does.
    """

    api: Api
    limit: int
    used: int
    left: int
    window_seconds: float
    next_slot_at: datetime | None = None
    refills_at: datetime | None = None
    blocked_until: datetime | None = None


IN_PROCESS = ":memory:"

# 80 % of the queries that Mixpanel allows in an hour.
MANY_PAGES = 49


@dataclass(frozen=True)
class ApiLimits:
    """The limits of one API family; None means that there is no limit.

    Requests in any window of time, the least time between two, and how many run at once.
    """

    per_window: int | None = None
    window_seconds: float = 3605.0
    spacing_seconds: float | None = None
    at_once: int | None = None


@dataclass(frozen=True)
class BudgetSettings:
    """The part of a project's request budget that this user spends, and the folder of its ledger.

    Attributes:
        state_dir: Folder of the ledgers; None: `~/.mp/state`; `:memory:`: this process alone.
        reserve: Requests per hour of each API that are left for colleagues.
        export_per_hour: Exports per window.
        export_per_second: Exports per second, spread evenly.
        query_per_hour: Queries per window.
        query_at_once: Queries that run at the same time, in all processes together.
        count_pages: Whether profile pages after the first, which Mixpanel does not count, count.
        window_seconds: Length of the window of the hourly limits.
        refusal_wait_seconds: Wait after a 429 without a time; doubles until a request succeeds.
        longest_refusal_seconds: The longest wait after a 429.
        report_seconds: Seconds between two log lines of a wait.
        lock_timeout: Seconds to wait for a process that holds the ledger; None: as long as a
            request may wait for its permit.
    """

    # The margin is two requests below Mixpanel's 60 an hour. The window is 5 s longer than
    # Mixpanel's hour, because requests travel for different times.
    # Exports are spread evenly: two at the end of one second and two at the start of the next
    # would be four within one, and Mixpanel allows three.

    state_dir: str | Path | None = None
    reserve: int = 0
    export_per_hour: int = 58
    export_per_second: float = 2.0
    query_per_hour: int = 58
    query_at_once: int = 5
    count_pages: bool = False
    window_seconds: float = 3605.0
    refusal_wait_seconds: float = 60.0
    longest_refusal_seconds: float = 3600.0
    report_seconds: float = 60.0
    lock_timeout: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.reserve < min(self.export_per_hour, self.query_per_hour):
            raise ConfigError(
                f"A reserve of {self.reserve} requests leaves none of {self.export_per_hour} "
                f"exports and {self.query_per_hour} queries per hour; lower MP_BUDGET_RESERVE."
            )

    def limits(self, api: Api) -> ApiLimits:
        """Return the limits of an API family."""
        if api == "export":
            return ApiLimits(
                per_window=self.export_per_hour - self.reserve,
                window_seconds=self.window_seconds,
                spacing_seconds=1 / self.export_per_second,
            )
        if api == "query":
            return ApiLimits(
                per_window=self.query_per_hour - self.reserve,
                window_seconds=self.window_seconds,
                at_once=self.query_at_once,
            )
        return ApiLimits()

    def warn_of_many_pages(self, pages: int) -> None:
        """Log the cost of a snapshot with this number of pages, if it is high."""
        if pages < MANY_PAGES:
            return
        if self.count_pages:
            cost = (
                f"each of them counts (MP_BUDGET_COUNT_PAGES is on), so they take "
                f"{pages / (self.query_per_hour - self.reserve):.1f} hours of the query budget"
            )
        else:
            cost = "only the first counts against the query budget (MP_BUDGET_COUNT_PAGES is off)"
        logger.warning("The profiles come on %s pages: %s.", f"{pages:,}", cost)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700
_POLL_SECONDS = 0.005  # a process holds the ledger for less time
_BUSY_MILLISECONDS = 5_000
_LOG_EVERY_SECONDS = 60.0

Release = Callable[[], None]


class LedgerStore(Protocol):
    """Opens the ledger's tables, and holds a slot for each running request."""

    def open(self) -> AbstractContextManager[sqlite3.Connection]:
        """Yield a connection that no other process or thread uses at the same time."""

    def slot(self, name: str) -> Release | None:
        """Take a named slot and return its release; None: another request has it."""

    def __str__(self) -> str:
        """Return the location in words."""


class LedgerFile:
    """A SQLite file beside its lock files; waits for it end after `timeout`, or if `cancelled`."""

    def __init__(
        self,
        path: Path,
        *,
        timeout: float | None = None,
        cancelled: threading.Event | None = None,
    ) -> None:
        self.path = path
        self._timeout = timeout
        self._cancelled = cancelled
        self._logged_at = float("-inf")

    def __str__(self) -> str:
        return str(self.path)

    def prepare(self) -> None:
        """Create the folder and the file, readable by their owner only."""
        for folder in reversed([self.path.parent, *self.path.parent.parents]):
            if not folder.exists():
                folder.mkdir(_PRIVATE_FOLDER, exist_ok=True)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, _PRIVATE_FILE))
        with self._locked_ledger() as ledger_db:
            ledger_db.execute("PRAGMA user_version").fetchone()

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that is closed at once; a wait for a permit holds none.

        Raises:
            StorageError: The file can no longer be read or written.
            DatabaseLockedError: Another process held it for too long, or the wait was cancelled.
        """
        try:
            with self._locked_ledger() as ledger_db:
                yield ledger_db
        except (OSError, sqlite3.Error) as error:
            raise StorageError(
                f"The request ledger {self.path} cannot be used: {error}. "
                f"Free the disk, or set MP_STATE_DIR to another folder or to {IN_PROCESS}."
            ) from error

    @contextmanager
    def _locked_ledger(self) -> Iterator[sqlite3.Connection]:
        ledger_lock = FileLock(f"{self.path}.lock", mode=_PRIVATE_FILE)
        lock_wait = Wait(
            f"the request ledger {self.path}",
            self.path,
            self._timeout,
            self._log_wait,
            self._cancelled,
            advice="Wait for it to finish, or set MP_STATE_DIR to another folder.",
        )
        with (
            locked(ledger_lock, lock_wait, poll_seconds=_POLL_SECONDS),
            closing(sqlite3.connect(self.path, timeout=0)) as ledger_db,
        ):
            # Another program may have the file open without our lock.
            lock_wait.until(lambda: _begin_exclusive(ledger_db), lambda: kernel_holder(self.path))
            ledger_db.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
            yield ledger_db

    def _log_wait(self, text: str) -> None:
        """Log the process that holds the ledger, once a minute for all waiting threads."""
        if time.monotonic() - self._logged_at >= _LOG_EVERY_SECONDS:
            self._logged_at = time.monotonic()
            log_wait(text)

    def slot(self, name: str) -> Release | None:
        """Lock the slot's file; it is taken for all processes and threads."""
        slot_file = self.path.with_suffix(f".{name}.lock")
        # The thread that reads the end of the response releases it, which may be another one.
        slot_lock = FileLock(slot_file, mode=_PRIVATE_FILE, thread_local=False)
        try:
            slot_lock.acquire(blocking=False)
        except Timeout:
            return None
        except OSError as error:
            raise StorageError(
                f"{slot_file} cannot be locked: {error.strerror or error}. Move it away, or set "
                f"MP_STATE_DIR to another folder or to {IN_PROCESS}."
            ) from error
        return slot_lock.release


def _begin_exclusive(ledger_db: sqlite3.Connection) -> bool:
    try:
        ledger_db.execute("PRAGMA synchronous = NORMAL")
        ledger_db.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


class LedgerInMemory:
    """A ledger in memory, shared by all threads of this process."""

    _lock = threading.RLock()
    # Of the class, so that all clients of the process share the budget of a project.
    _ledger_dbs: dict[str, sqlite3.Connection] = {}  # noqa: RUF012 - guarded by the lock above
    _slots: dict[str, threading.Lock] = {}  # noqa: RUF012

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return "this process alone"

    @contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """Yield the one connection of this process."""
        with self._lock:
            if self.name not in self._ledger_dbs:
                ledger_db = sqlite3.connect(":memory:", check_same_thread=False)
                atexit.register(ledger_db.close)
                self._ledger_dbs[self.name] = ledger_db
            yield self._ledger_dbs[self.name]

    def slot(self, name: str) -> Release | None:
        """Take the slot; it is taken for all threads."""
        with self._lock:
            request_slot = self._slots.setdefault(f"{self.name}.{name}", threading.Lock())
        return request_slot.release if request_slot.acquire(blocking=False) else None


_warned: set[str] = set()


def find_store(
    settings: BudgetSettings,
    project: str,
    *,
    timeout: float | None = None,
    cancelled: threading.Event | None = None,
) -> LedgerStore:
    """Return the project's ledger file; without one, warn once and count in this process alone.

    A wait for other processes that hold the file ends with `DatabaseLockedError` after `timeout`
    seconds, or when `cancelled` is set.
    """
    ledger_name = re.sub(r"[^0-9A-Za-z.-]+", "_", project)
    if str(settings.state_dir) == IN_PROCESS:
        return LedgerInMemory(ledger_name)
    try:
        ledger_folder = Path(settings.state_dir or "~/.mp/state").expanduser().absolute()
        ledger_file = LedgerFile(
            ledger_folder / f"{ledger_name}.sqlite", timeout=timeout, cancelled=cancelled
        )
        ledger_file.prepare()
    except (OSError, RuntimeError, sqlite3.Error) as error:
        _warn_once(str(settings.state_dir or "~/.mp/state"), error)
        return LedgerInMemory(ledger_name)
    return ledger_file


def _warn_once(ledger_path: str, error: Exception) -> None:
    if ledger_path not in _warned:
        _warned.add(ledger_path)
        logger.warning(
            "Requests to Mixpanel are counted in this process only: %s cannot be used (%s). "
            "Other processes may spend the same budget; set MP_STATE_DIR to a writable folder.",
            ledger_path,
            error,
        )


@dataclass(frozen=True)
class Permit:
    """A request may be sent; `refusals` counts the 429s without a time since the last success."""

    refusals: int = 0


@dataclass(frozen=True)
class Denial:
    """A request may not be sent before `seconds` have passed, for a reason in words."""

    seconds: float
    reason: str


@dataclass(frozen=True)
class SlidingWindow:
    """At most `most` requests, with their times in `table`, in any `milliseconds`."""

    table: str
    most: int
    milliseconds: int
    reason: str

    def wait(self, ledger_db: sqlite3.Connection, now: int) -> int:
        """Return the milliseconds until one more request fits; 0: it fits now."""
        query = f'SELECT item_timestamp FROM "{self.table}" ORDER BY 1 DESC LIMIT 1 OFFSET ?'
        oldest_request = ledger_db.execute(query, (self.most - 1,)).fetchone()
        return max(0, oldest_request[0] + self.milliseconds + 1 - now) if oldest_request else 0


class Ledger:
    """Spends the budget of one API family of one project; the store holds the ledger."""

    def __init__(self, api: Api, settings: BudgetSettings, store: LedgerStore) -> None:
        self.api = api
        self.limits: ApiLimits = settings.limits(api)
        self._windows = tuple(self._sliding_windows())
        self._settings = settings
        self._store = store

    def take(self, *, counted: bool = True) -> Permit | Denial:
        """Spend one request, or return how long that is not possible.

        Requests that Mixpanel does not count (`counted=False`) wait for 429s alone.
        """
        with self._open_ledger() as ledger_db:
            now = _now_ms()
            not_before, refusals = self._read_refusals(ledger_db, now)
            if now < not_before:
                return Denial((not_before - now) / 1000, "Mixpanel answered 429")
            if not counted or not self._windows:
                return Permit(refusals)
            self._delete_old_requests(ledger_db, now)
            # The longest wait, because a request is sent only when it fits into every window.
            longest_window = max(self._windows, key=lambda one: one.wait(ledger_db, now))
            if wait_ms := longest_window.wait(ledger_db, now):
                return Denial(wait_ms / 1000, longest_window.reason)
            ledger_db.execute(f'INSERT INTO "{self.api}" VALUES (?, ?)', (self.api, now))
            return Permit(refusals)

    def refused(self, permit: Permit, retry_after: float | None) -> None:
        """Record a 429: no process sends a request before its time has passed.

        Without `retry_after`, the seconds that Mixpanel named, the wait of the last time doubles.
        """
        longest_refusal = self._settings.longest_refusal_seconds
        with self._open_ledger() as ledger_db:
            now = _now_ms()
            not_before, refusals = self._read_refusals(ledger_db, now)
            if retry_after is None:
                if refusals > permit.refusals:
                    return  # sent before another 429 began the present wait
                retry_after = min(
                    self._settings.refusal_wait_seconds * 2.0 ** min(refusals, 30), longest_refusal
                )
                refusals += 1
            # A 429 with `Retry-After: 0` would otherwise make a busy loop.
            retry_after = max(retry_after, min(1.0, self._settings.refusal_wait_seconds))
            refused_until = now + math.ceil(min(retry_after, longest_refusal) * 1000)
            self._write_refusals(ledger_db, max(refused_until, not_before), refusals)

    def accepted(self, permit: Permit) -> None:
        """Record a success: the next wait after a 429 without a time is short again."""
        if permit.refusals:
            with self._open_ledger() as ledger_db:
                not_before, refusals = self._read_refusals(ledger_db, _now_ms())
                if refusals == permit.refusals:
                    self._write_refusals(ledger_db, not_before, 0)

    def usage(self) -> ApiUsage:
        """Return the requests spent and left at this moment."""
        limit = self.limits.per_window or 0
        window_ms = round(self.limits.window_seconds * 1000)
        with self._open_ledger() as ledger_db:
            now = _now_ms()
            not_before, _ = self._read_refusals(ledger_db, now)
            query = f'SELECT item_timestamp FROM "{self.api}" WHERE item_timestamp >= ? ORDER BY 1'
            request_times = [
                request_time for (request_time,) in ledger_db.execute(query, (now - window_ms,))
            ]
        blocked_until = not_before if now < not_before else 0
        next_slot = (
            request_times[-limit] + window_ms if limit and len(request_times) >= limit else 0
        )
        return ApiUsage(
            api=self.api,
            limit=limit,
            used=len(request_times),
            left=max(0, limit - len(request_times)),
            window_seconds=self.limits.window_seconds,
            next_slot_at=_utc_time(max(next_slot, blocked_until)),
            refills_at=_utc_time(request_times[-1] + window_ms if request_times else 0),
            blocked_until=_utc_time(blocked_until),
        )

    @contextmanager
    def _open_ledger(self) -> Iterator[sqlite3.Connection]:
        with self._store.open() as ledger_db:
            # The table of pyrate-limiter, which earlier versions used: their requests still count,
            # and an earlier version that runs at the same time counts ours.
            ledger_db.execute(
                f'CREATE TABLE IF NOT EXISTS "{self.api}" (name VARCHAR, item_timestamp INTEGER)'
            )
            ledger_db.execute(
                "CREATE TABLE IF NOT EXISTS refusals "
                "(api VARCHAR PRIMARY KEY, not_before INTEGER, count INTEGER)"
            )
            yield ledger_db
            ledger_db.commit()

    def _sliding_windows(self) -> Iterator[SlidingWindow]:
        limits = self.limits
        if limits.per_window is not None:
            reason = (
                f"all {limits.per_window} {self.api} requests of "
                f"{limits.window_seconds:,.0f} s are used"
            )
            window = _milliseconds(limits.window_seconds)
            yield SlidingWindow(self.api, limits.per_window, window, reason)
        if limits.spacing_seconds is not None:
            reason = f"{self.api} requests keep {limits.spacing_seconds} s apart"
            yield SlidingWindow(self.api, 1, _milliseconds(limits.spacing_seconds), reason)

    def _read_refusals(self, ledger_db: sqlite3.Connection, now: int) -> tuple[int, int]:
        query = "SELECT not_before, count FROM refusals WHERE api = ?"
        not_before, count = ledger_db.execute(query, (self.api,)).fetchone() or (0, 0)
        # After a clock was set back, the wait would otherwise last for hours or days.
        return min(not_before, now + round(self._settings.longest_refusal_seconds * 1000)), count

    def _write_refusals(self, ledger_db: sqlite3.Connection, not_before: int, count: int) -> None:
        ledger_db.execute(
            "INSERT OR REPLACE INTO refusals VALUES (?, ?, ?)", (self.api, not_before, count)
        )

    def _delete_old_requests(self, ledger_db: sqlite3.Connection, now: int) -> None:
        # Times in the future were written before the clock was set back: they count as now.
        ledger_db.execute(
            f'UPDATE "{self.api}" SET item_timestamp = ? WHERE item_timestamp > ?', (now, now)
        )
        oldest = now - max(window.milliseconds for window in self._windows)
        ledger_db.execute(f'DELETE FROM "{self.api}" WHERE item_timestamp < ?', (oldest,))


def _now_ms() -> int:
    return math.floor(datetime.now(UTC).timestamp() * 1000)


def _utc_time(milliseconds: int) -> datetime | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None
