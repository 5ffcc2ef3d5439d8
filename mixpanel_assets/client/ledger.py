"""The ledger of the request budget: its limits, the requests spent, and where they are counted.

The limits are Mixpanel's, minus a margin and a reserve for colleagues. The count is kept in a
file that all processes of a user share, in a PostgreSQL server that machines share, or in this
process alone. The statements are the same everywhere; only the clock and the locks differ.
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
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from filelock import FileLock, Timeout

from mixpanel_assets.errors import ConfigError, ConnectionFailedError, StorageError
from mixpanel_assets.rules.locks import Wait, kernel_holder, locked, log_wait
from mixpanel_assets.rules.postgres import (
    PostgresServer,
    is_open,
    is_postgres,
    lock_number,
    locked_transaction,
)

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812 - a class
    from psycopg2.extensions import cursor as Cursor  # noqa: N812

logger = logging.getLogger(__name__)

Api = Literal["export", "query", "app"]
# Lexicon belongs to the App API and has a limit of its own.
Limited = Literal[Api, "lexicon"]
HOURLY: tuple[Limited, ...] = ("export", "query")


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

    api: Limited
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
    """The part of a project's request budget that this user spends, and where it is counted.

    Attributes:
        state_dir: Folder of the ledgers, or the location of a PostgreSQL server for processes of
            several machines; None: `~/.mp/state`; `:memory:`: this process alone.
        reserve: Requests per hour of each API that are left for colleagues.
        export_per_hour: Exports per window.
        export_per_second: Exports per second, spread evenly.
        query_per_hour: Queries per window.
        query_at_once: Queries that run at the same time, in all processes together.
        lexicon_per_minute: Requests to Lexicon per minute.
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

    state_dir: str | Path | None = field(default=None, repr=False)  # it can hold a password
    reserve: int = 0
    export_per_hour: int = 58
    export_per_second: float = 2.0
    query_per_hour: int = 58
    query_at_once: int = 5
    lexicon_per_minute: int = 5
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

    def limits(self, api: Limited) -> ApiLimits:
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
        if api == "lexicon":
            return ApiLimits(per_window=self.lexicon_per_minute, window_seconds=65.0)
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


class LedgerDb(Protocol):
    """Runs the ledger's statements, which SQLite and PostgreSQL understand."""

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Any:
        """Run a statement with a `?` for each value, and return a cursor of its rows."""


# The tables of pyrate-limiter, which earlier versions used: their requests still count, and an
# earlier version that runs at the same time counts ours.
_CREATE_REQUESTS = 'CREATE TABLE IF NOT EXISTS "{api}" (name VARCHAR, item_timestamp BIGINT)'
_CREATE_REFUSALS = (
    "CREATE TABLE IF NOT EXISTS refusals (api VARCHAR PRIMARY KEY, not_before BIGINT, count BIGINT)"
)


def _create_tables(ledger_db: LedgerDb) -> None:
    for api in get_args(Limited):
        ledger_db.execute(_CREATE_REQUESTS.format(api=api))
    ledger_db.execute(_CREATE_REFUSALS)


class LedgerStore(Protocol):
    """Opens the ledger's tables, and holds a slot for each running request."""

    def open(self) -> AbstractContextManager[LedgerDb]:
        """Yield the tables, which no other process or thread uses at the same time.

        What the block writes is committed at its end, unless it raises.
        """

    def now_ms(self, ledger_db: LedgerDb) -> int:
        """Return the time by the clock that all users of the ledger share, in milliseconds."""

    def slot(self, *names: str) -> Release | None:
        """Take one of these slots and return its release; None: other requests have them."""

    def close(self) -> None:
        """Close what was kept open for the next request."""

    def __str__(self) -> str:
        """Return the location in words."""


class _LedgerHere(ABC):
    """A ledger of this machine alone: by its clock, and with nothing that is kept open."""

    def now_ms(self, ledger_db: LedgerDb) -> int:
        """Return the time of this machine."""
        return _now_ms()

    def close(self) -> None:  # noqa: B027 - complete as it is
        """Do nothing: nothing is kept open for the next request."""

    def slot(self, *names: str) -> Release | None:
        """Take one of these slots; it is taken for all users of the ledger."""
        return next(filter(None, map(self._take_slot, names)), None)

    @abstractmethod
    def _take_slot(self, name: str) -> Release | None:
        """Take a slot and return its release; None: another request has it."""


class LedgerFile(_LedgerHere):
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
            with self._locked_ledger() as ledger_db, ledger_db:
                _create_tables(ledger_db)
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

    def _take_slot(self, name: str) -> Release | None:
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


class LedgerInMemory(_LedgerHere):
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
                _create_tables(ledger_db)
            with self._ledger_dbs[self.name] as ledger_db:
                yield ledger_db

    def _take_slot(self, name: str) -> Release | None:
        with self._lock:
            request_slot = self._slots.setdefault(f"{self.name}.{name}", threading.Lock())
        return request_slot.release if request_slot.acquire(blocking=False) else None


_CLOCK = "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
# In one statement, for it is repeated while all slots are taken.
_FREE_SLOT = "SELECT number FROM unnest(?) AS number WHERE pg_try_advisory_lock(number) LIMIT 1"
_MOST_SPARE = 8  # sessions: the slots of all requests at once, and the ledger


class LedgerOnServer:
    """A schema on a PostgreSQL server, with the server's clock and locks.

    Clocks and time zones of the machines do not matter. The server frees the slot of a process
    when its session ends, also because its machine died.
    """

    def __init__(
        self,
        server: PostgresServer,
        name: str,
        *,
        timeout: float | None = None,
        cancelled: threading.Event | None = None,
    ) -> None:
        self.server = server
        self.schema = "mixpanel_" + re.sub(r"[^0-9a-z]+", "_", name.lower())
        self._timeout = timeout
        self._cancelled = cancelled
        self._spare: list[Connection] = []

    def __str__(self) -> str:
        return f"{self.server}, schema {self.schema}"

    @contextmanager
    def open(self) -> Iterator[LedgerDb]:
        """Yield the tables inside one transaction; a wait for a permit holds none.

        Raises:
            ConnectionFailedError: The server does not answer.
            StorageError: This user lacks a right, or the server refuses a statement.
            DatabaseLockedError: Another process held the ledger for too long, or the wait was
                cancelled.
        """
        ledger_wait = Wait(
            f"the request ledger {self}",
            str(self),
            self._timeout,
            log_wait,
            self._cancelled,
            advice="Wait for that process, or end it.",
        )
        with (
            self._session() as session,
            locked_transaction(session, lock_number(self.schema), ledger_wait),
            session.cursor() as cursor,
        ):
            ledger_db = _OnServer(cursor)
            self._create_schema(ledger_db)
            yield ledger_db

    def _create_schema(self, ledger_db: LedgerDb) -> None:
        # `IF NOT EXISTS` needs the right to create also where there is nothing to create.
        ledger_db.execute(f'SET LOCAL search_path = "{self.schema}"')
        ((is_there,),) = ledger_db.execute("SELECT to_regclass('refusals') IS NOT NULL")
        if not is_there:
            ((has_schema,),) = ledger_db.execute(
                "SELECT to_regnamespace(?) IS NOT NULL", (self.schema,)
            )
            if not has_schema:
                ledger_db.execute(f'CREATE SCHEMA "{self.schema}"')
            _create_tables(ledger_db)

    def now_ms(self, ledger_db: LedgerDb) -> int:
        """Return the time of the server, whatever the zone of the session."""
        ((now,),) = ledger_db.execute(_CLOCK)
        return int(now)

    def slot(self, *names: str) -> Release | None:
        """Lock a slot in a session of its own; it is taken for all machines."""
        numbers = [lock_number(self.schema, name) for name in names]
        with ExitStack() as stack:
            session = stack.enter_context(self._session())
            with session.cursor() as cursor:
                if not _OnServer(cursor).execute(_FREE_SLOT, (numbers,)).fetchall():
                    return None
            held = stack.pop_all()

        def release() -> None:
            # A session that was lost meanwhile has freed the slot already.
            with suppress(ConnectionFailedError), held, session.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock_all()")

        return release

    def close(self) -> None:
        """End the sessions that no request uses."""
        while self._spare:
            self._spare.pop().close()

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        """Lend a session of the server, which is kept for the next request unless it fails."""
        session = self._spare_session() or self.server.connect()
        try:
            with self.server.explained():
                yield session
        except BaseException:
            session.close()
            raise
        if len(self._spare) < _MOST_SPARE:
            self._spare.append(session)
        else:
            session.close()

    def _spare_session(self) -> Connection | None:
        with suppress(IndexError):
            while True:
                session = self._spare.pop()
                if is_open(session):  # servers are restarted, and firewalls end quiet sessions
                    return session
                session.close()
        return None


class _OnServer:
    """Runs the ledger's statements on PostgreSQL, which has other marks for values."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor

    def execute(self, sql: str, values: Sequence[Any] = (), /) -> Cursor:
        """Run a statement with a `?` for each value, and return a cursor of its rows."""
        self._cursor.execute(sql.replace("?", "%s"), tuple(values))
        return self._cursor


_warned: set[str] = set()


def find_store(
    settings: BudgetSettings,
    project: str,
    *,
    timeout: float | None = None,
    cancelled: threading.Event | None = None,
) -> LedgerStore:
    """Return the project's ledger; without a usable file, warn once and count in this process.

    A server that cannot be used raises an error when the ledger is opened: other machines would
    spend the same budget. A wait for other processes ends with `DatabaseLockedError` after
    `timeout` seconds, or when `cancelled` is set.

    Raises:
        ConfigError: The location is neither a folder nor that of a PostgreSQL server.
    """
    ledger_name = re.sub(r"[^0-9A-Za-z.-]+", "_", project)
    if str(settings.state_dir) == IN_PROCESS:
        return LedgerInMemory(ledger_name)
    if is_postgres(settings.state_dir):
        server = PostgresServer(str(settings.state_dir), "MP_STATE_DIR")
        return LedgerOnServer(server, ledger_name, timeout=timeout, cancelled=cancelled)
    if scheme := re.match(r"([\w+.-]+)://", str(settings.state_dir)):
        raise ConfigError(
            f"MP_STATE_DIR cannot be a location that begins with {scheme[0]}. It is a folder, "
            f"{IN_PROCESS}, or a PostgreSQL server such as postgresql://user@host:5432/database."
        )
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

    def wait(self, ledger_db: LedgerDb, now: int) -> int:
        """Return the milliseconds until one more request fits; 0: it fits now."""
        query = f'SELECT item_timestamp FROM "{self.table}" ORDER BY 1 DESC LIMIT 1 OFFSET ?'
        oldest_request = ledger_db.execute(query, (self.most - 1,)).fetchone()
        return max(0, oldest_request[0] + self.milliseconds + 1 - now) if oldest_request else 0


class Ledger:
    """Spends the budget of one API family of one project; the store holds the ledger."""

    def __init__(self, api: Limited, settings: BudgetSettings, store: LedgerStore) -> None:
        self.api = api
        self.limits: ApiLimits = settings.limits(api)
        self._windows = tuple(self._sliding_windows())
        self._settings = settings
        self._store = store

    def take(self, *, counted: bool = True) -> Permit | Denial:
        """Spend one request, or return how long that is not possible.

        Requests that Mixpanel does not count (`counted=False`) wait for 429s alone.
        """
        with self._store.open() as ledger_db:
            now = self._store.now_ms(ledger_db)
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
        with self._store.open() as ledger_db:
            now = self._store.now_ms(ledger_db)
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
            with self._store.open() as ledger_db:
                now = self._store.now_ms(ledger_db)
                not_before, refusals = self._read_refusals(ledger_db, now)
                if refusals == permit.refusals:
                    self._write_refusals(ledger_db, not_before, 0)

    def usage(self) -> ApiUsage:
        """Return the requests spent and left at this moment."""
        limit = self.limits.per_window or 0
        window_ms = round(self.limits.window_seconds * 1000)
        with self._store.open() as ledger_db:
            now = self._store.now_ms(ledger_db)
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

    def _read_refusals(self, ledger_db: LedgerDb, now: int) -> tuple[int, int]:
        query = "SELECT not_before, count FROM refusals WHERE api = ?"
        not_before, count = ledger_db.execute(query, (self.api,)).fetchone() or (0, 0)
        # After a clock was set back, the wait would otherwise last for hours or days.
        return min(not_before, now + round(self._settings.longest_refusal_seconds * 1000)), count

    def _write_refusals(self, ledger_db: LedgerDb, not_before: int, count: int) -> None:
        ledger_db.execute(
            "INSERT INTO refusals VALUES (?, ?, ?) ON CONFLICT (api) DO UPDATE "
            "SET not_before = excluded.not_before, count = excluded.count",
            (self.api, not_before, count),
        )

    def _delete_old_requests(self, ledger_db: LedgerDb, now: int) -> None:
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
