"""Sessions on a PostgreSQL server: locations without their passwords, and locks of a session.

The server frees a lock when the session of its holder ends, also when the holder's machine dies.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mixpanel_assets.errors import ConfigError, ConnectionFailedError, StorageError
from mixpanel_assets.rules.locks import Holder, Wait, short_command

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812 - a class

_IS_LOCATION = re.compile(r"postgres(ql)?://")
_SHOWN = ("user", "host", "port", "dbname")
# What is left of a password in the wrong place: `host=db;password=x`, or `user:pa/ss@db` in a URL.
_MISPLACED = re.compile(r"(passw\w*|pwd|secret)\s*=", re.IGNORECASE)
_NAME_BYTES = 63  # of a session; the server cuts longer names

# A connection whose other end is lost is noticed within a minute, not within hours.
_CLIENT = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# The same for the server. A process that stands still must not hold the lock of a transaction.
_SERVER = {
    "tcp_keepalives_idle": "20",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "30s",
    "idle_session_timeout": "0",
}
_SET_UP = """
SELECT set_config(wanted.name, wanted.value, false)
FROM unnest(%s, %s) AS wanted (name, value) JOIN pg_settings USING (name)
"""
# Not the whole wait in one statement: it could not be cancelled, and nothing would be logged.
_LOCK = """
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SET LOCAL lock_timeout = '500ms';
SELECT pg_advisory_xact_lock(%s)
"""
# The sessions that hold a lock, by its number. The server shows its two halves in two columns.
HOLDERS = """
SELECT application_name, pid, client_addr::text,
       to_char(backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')
FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1
  AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (classid::bigint << 32 | objid::bigint) = %s
"""
_POOLER_TRIES = 3


def is_postgres(location: object) -> bool:
    """Return whether a location is that of a PostgreSQL server."""
    return bool(_IS_LOCATION.match(str(location)))


def shows_secret(words: Mapping[str, str]) -> bool:
    """Return whether a part of a location that is shown may hold a password by mistake."""
    # An unquoted `@` or `/` of a password ends in the wrong part.
    return any("@" in words.get(name, "") for name in ("host", "port", "dbname")) or any(
        _MISPLACED.search(value) for name, value in words.items() if name != "password"
    )


def lock_number(*names: str) -> int:
    """Return the number by which the server knows a lock."""
    digest = hashlib.blake2b("\0".join(names).encode(), digest_size=8).digest()
    return int.from_bytes(digest, signed=True)


def machine() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


def process_name() -> str:
    """Return the name under which a server lists this process: machine, process id, command."""
    command = short_command([sys.argv[0] or sys.executable, *sys.argv[1:]])
    name = f"mixpanel_assets {machine()} {os.getpid()} {command}"
    return name.encode("ascii", "replace")[:_NAME_BYTES].decode()


def process_named(name: str, backend: int, address: str | None, since: str) -> Holder:
    """Return the process that a server lists under a name, ours or another program's.

    Args:
        name: As `process_name` returned it, or any other.
        backend: The number of the server's own process.
        address: Of the other program's machine.
        since: When the session began, in UTC.
    """
    words = name.split(maxsplit=3)
    if len(words) == 4 and words[2].isdecimal():
        return Holder(int(words[2]), f"{words[3]} on {words[1]}", since)
    return Holder(backend, f"{name or 'a program'} at {address}, in PostgreSQL", since)


@dataclass(frozen=True)
class PostgresServer:
    """A server, by its location; `str` is the location without secrets.

    Attributes:
        location: Such as `postgresql://user@host:5432/database`. The password comes from it, from
            PGPASSWORD or from the password file of PostgreSQL.
        setting: The variable that holds the location, for messages.
    """

    location: str = field(repr=False)
    setting: str

    def __str__(self) -> str:
        user, host, port, database = (self._given.get(name, "") for name in _SHOWN)
        return (
            f"postgresql://{user}{'@' if user else ''}{host}{':' if port else ''}{port}/{database}"
        )

    @cached_property
    def _given(self) -> dict[str, str]:
        psycopg2 = _driver(self.setting)
        with suppress(psycopg2.ProgrammingError):
            given: dict[str, str] = psycopg2.extensions.parse_dsn(self.location)
            if not shows_secret(given):
                return given
        raise ConfigError(
            f"{self.setting} is not the location of a PostgreSQL server. It must be like "
            "postgresql://user@host:5432/database, and in a password, each of the characters "
            "@ : / ? # % is written as %40 %3A %2F %3F %23 %25."
        ) from None

    def connect(self) -> Connection:
        """Return a new session, each of whose statements is a transaction of its own.

        Raises:
            ConfigError: The location is malformed, a pooler hands it to other clients between two
                transactions, or the driver is not installed.
            ConnectionFailedError: The server does not answer, or refuses this user.
        """
        session = self._connected()
        try:
            with session.cursor() as cursor:
                cursor.execute(_SET_UP, ([*_SERVER], [*_SERVER.values()]))
            if not self._keeps_session(session):
                raise ConfigError(
                    f"{self.setting} leads to {self} through a pooler of transactions, which hands "
                    "a session to other clients, and its locks with it. Name the port of "
                    "PostgreSQL itself, or one of the pooler that pools sessions."
                )
        except BaseException:
            session.close()
            raise
        return session

    def _connected(self) -> Connection:
        psycopg2 = _driver(self.setting)
        usual = {name: value for name, value in _CLIENT.items() if name not in self._given}
        if "PGCONNECT_TIMEOUT" in os.environ:
            usual.pop("connect_timeout", None)
        try:
            session: Connection = psycopg2.connect(
                self.location, **{"application_name": process_name(), **usual}
            )
        except psycopg2.Error as error:
            raise ConnectionFailedError(
                f"PostgreSQL cannot be reached at {self} ({self.setting}): "
                f"{self.without_secrets(error)}. Check that the server runs and accepts this user "
                "from this machine; nothing was sent to Mixpanel meanwhile."
            ) from None
        session.autocommit = True
        return session

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the driver's errors into the library's, without passwords.

        Raises:
            ConnectionFailedError: The session was lost.
            StorageError: The server refused a statement.
        """
        psycopg2 = _driver(self.setting)
        try:
            yield
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            raise ConnectionFailedError(
                f"The session on {self} ({self.setting}) was lost: {self.without_secrets(error)}. "
                "The server may be restarting: try again."
            ) from None
        except psycopg2.Error as error:
            raise StorageError(
                f"{self} ({self.setting}) refused a statement: {self.without_secrets(error)}. "
                "Give this user the right to create a schema there, or name another database."
            ) from None

    def without_secrets(self, error: Exception) -> str:
        """Return the text of an error in one line, without passwords."""
        text = " ".join(str(error).split()).rstrip(".")
        secrets = [self._given.get("password"), os.environ.get("PGPASSWORD")]
        for secret in filter(None, secrets):
            text = text.replace(secret, "[secret]")
        return text

    def _keeps_session(self, session: Connection) -> bool:
        """Return whether the server's process stays the same from one transaction to the next."""
        # A pooler invents the number that the client gets when it connects.
        if (process := _process(session)) == session.get_backend_pid():
            return True
        for _ in range(_POOLER_TRIES):
            with closing(self._connected()) as other, other.cursor() as cursor:
                cursor.execute("BEGIN")
                if _process(other) == process or _process(session) != process:
                    return False
        return True


def _process(session: Connection) -> int:
    with session.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        ((process,),) = cursor.fetchall()
    return int(process)


@contextmanager
def locked_transaction(session: Connection, number: int, wait: Wait) -> Iterator[None]:
    """Hold a lock for one transaction, which is committed at the end of the block.

    Raises:
        DatabaseLockedError: The wait's timeout passed, or it was cancelled.
    """
    from psycopg2.errors import LockNotAvailable

    with session.cursor() as cursor:

        def try_once() -> bool:
            try:
                cursor.execute(_LOCK, (number,))
            except LockNotAvailable:
                cursor.execute("ROLLBACK")
                return False
            return True

        try:
            wait.until(try_once, lambda: lock_holder(session, number), poll_seconds=0.0)
            yield
        except BaseException:
            with suppress(Exception):  # the first error says more
                cursor.execute("ROLLBACK")
            raise
        cursor.execute("COMMIT")


def lock_holder(session: Connection, number: int) -> Holder | None:
    """Return the process that holds a lock, and its machine."""
    with session.cursor() as cursor:
        cursor.execute(HOLDERS, (number,))
        found = cursor.fetchall()
    return process_named(*found[0]) if found else None


def is_open(session: Connection) -> bool:
    """Return whether the server still answers in a session."""
    import psycopg2

    with suppress(psycopg2.Error):
        return _process(session) > 0
    return False


def _driver(setting: str) -> Any:
    try:
        import psycopg2.extensions
    except ImportError:
        raise ConfigError(
            f"{setting} names a PostgreSQL server, whose driver is not installed. Install it with "
            "pip install 'mixpanel-assets[lake]'."
        ) from None
    return psycopg2
