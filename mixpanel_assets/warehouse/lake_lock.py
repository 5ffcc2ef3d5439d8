"""The lock of a lake: one writer at a time, on whichever machine.

It is an advisory lock of the catalog's PostgreSQL, on a connection of its own, so PostgreSQL frees
it when its holder ends. Writers get it in the order in which they asked.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from mixpanel_assets.errors import ConfigError, StorageError
from mixpanel_assets.rules.location import LakeLocation
from mixpanel_assets.rules.locks import Holder, Wait
from mixpanel_assets.rules.postgres import HOLDERS, lock_number, process_name, process_named

if TYPE_CHECKING:
    from psycopg2 import extensions

_LOCK = lock_number("mixpanel_assets", "lake")  # locks of other programs have another number
_POLL_SECONDS = 0.25
_CONNECT_SECONDS = 10
# A machine that is gone without a word is noticed within half a minute, by both sides.
KEEPALIVE = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # no keepalive is sent while a statement is not acknowledged
}
_NOTICE_DEAD_CLIENTS = """
    SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
    SET idle_session_timeout = 0; SET lock_timeout = 0; SET statement_timeout = 0
"""


class LakeLock:
    """The held lock; `must_be_held` is asked before a commit."""

    def __init__(self, connection: extensions.connection) -> None:
        self._connection = connection

    def must_be_held(self) -> None:
        """Raise `StorageError` if PostgreSQL has ended the lock's connection."""
        import psycopg2

        try:
            # Not by the number that a pooler gave to this connection.
            held = _run(self._connection, f"{HOLDERS} AND pid = pg_backend_pid()", (_LOCK,))
        except psycopg2.Error:
            held = []
        if not held:
            raise StorageError(
                "PostgreSQL ended the connection that held the lock of the lake, so another "
                "process may be writing. Nothing of this load was kept; run it again."
            )


@contextmanager
def lake_lock(location: LakeLocation, wait: Wait) -> Iterator[LakeLock]:
    """Hold the lock of a lake inside the block.

    Raises:
        DatabaseLockedError: The wait's timeout passed.
        ConfigError: The connection leads through a pooler that shares sessions, which would lose
            the lock.
        psycopg2.OperationalError: PostgreSQL cannot be reached.
    """
    connection = connect(location, async_=1)
    try:
        _await(connection, _connect_seconds(location))
        _run(connection, _NOTICE_DEAD_CLIENTS)
        cursor = connection.cursor()
        cursor.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        while not _is_done(connection, min(_POLL_SECONDS, wait.remaining())):
            wait.check(lambda: _holder(location))
        _refuse_shared_session(location, connection)
        yield LakeLock(connection)
    finally:
        connection.close()


def connect(location: LakeLocation, **options: Any) -> extensions.connection:
    """Return a connection to the catalog's PostgreSQL.

    Raises:
        psycopg2.OperationalError: It cannot be reached.
    """
    import psycopg2

    if location.password:
        options["password"] = location.password
    given = {"connect_timeout": _CONNECT_SECONDS, **KEEPALIVE} | _words(location) | options
    given["application_name"] = process_name()
    connected: extensions.connection = psycopg2.connect(**given)
    return connected


def rows(location: LakeLocation, sql: str, values: Any = None) -> list[tuple[Any, ...]]:
    """Return the rows of one statement on the catalog's PostgreSQL.

    Raises:
        psycopg2.Error: It cannot be reached, or refuses the statement.
    """
    connection = connect(location)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def are_one(location: LakeLocation, other: LakeLocation) -> bool:
    """Return whether two locations lead to one database, perhaps in other words.

    Raises:
        psycopg2.Error: One of them cannot be reached.
    """
    # A server and a database have no name of their own that every user may read.
    found, of_other = (
        rows(
            one,
            "SELECT pg_postmaster_start_time()::text, oid FROM pg_database "
            "WHERE datname = current_database()",
        )
        for one in (location, other)
    )
    return found == of_other


def _words(location: LakeLocation) -> dict[str, Any]:
    from psycopg2.extensions import parse_dsn

    words: dict[str, Any] = parse_dsn(location.catalog)
    return words


def _connect_seconds(location: LakeLocation) -> float:
    # libpq keeps this time for connections that are not asynchronous alone; 0: no limit.
    seconds = float(_words(location).get("connect_timeout", _CONNECT_SECONDS))
    return seconds if seconds > 0 else float("inf")


def _holder(location: LakeLocation) -> Holder | None:
    """Return the process that holds the lock, as PostgreSQL lists it."""
    import psycopg2

    with suppress(psycopg2.Error):
        for holder in rows(location, HOLDERS, (_LOCK,)):
            return process_named(*holder)
    return None


def _refuse_shared_session(location: LakeLocation, connection: extensions.connection) -> None:
    """Raise `ConfigError` if another connection gets this one's session of PostgreSQL."""
    [(backend,)] = _run(connection, "SELECT pg_backend_pid()")
    if backend == connection.info.backend_pid:
        return
    # A pooler names other numbers. One that keeps a session for a connection is allowed.
    [(other,)] = rows(location, "SELECT pg_backend_pid()")
    if other == backend:
        raise ConfigError(
            "MP_DATABASE leads to PostgreSQL through a pooler that shares sessions between "
            "transactions, where the lock of the lake would be lost. Name PostgreSQL itself, or a "
            "port of the pooler with `pool_mode = session`."
        )


def _run(connection: extensions.connection, sql: str, values: Any = None) -> list[tuple[Any, ...]]:
    """Return the rows of a statement on an asynchronous connection."""
    cursor = connection.cursor()
    cursor.execute(sql, values)
    _await(connection)
    return cursor.fetchall() if cursor.description else []


def _await(connection: extensions.connection, seconds: float = float("inf")) -> None:
    import psycopg2

    deadline = time.monotonic() + seconds
    while not _is_done(connection, _POLL_SECONDS):
        if time.monotonic() > deadline:
            raise psycopg2.OperationalError("connection to server failed: timeout expired")


def _is_done(connection: extensions.connection, seconds: float) -> bool:
    """Wait for PostgreSQL; return whether it has answered. Ctrl-C ends the wait."""
    from psycopg2.extensions import POLL_OK, POLL_READ

    state = connection.poll()
    if state == POLL_OK:
        return True
    reads, writes = ([connection], []) if state == POLL_READ else ([], [connection])
    select.select(reads, writes, [], seconds)
    return False
