"""The servers that tests start: real, shared by a run, and ended with it."""

import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import psycopg2
import pytest

from mixpanel_assets_tests.servers import HOST, PATIENCE_SECONDS, S3, Postgres

KILLED = """
import os, signal, sys
from mixpanel_assets_tests.servers import Run, postgres_of

run = Run()
postgres_of(run.folder).run("CREATE DATABASE used")
print(run.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_test_has_an_empty_database_of_its_own(postgres: Postgres, postgres_server: Postgres):
    """Tables of a test are in a database that other tests do not see."""
    postgres.run("CREATE TABLE numbers AS SELECT 1 AS a")
    assert postgres.run("SELECT a FROM numbers") == [(1,)]
    with postgres_server.new_database() as other:
        assert other.run("SELECT to_regclass('numbers')") == [(None,)]
    gone = postgres_server.run("SELECT 1 FROM pg_database WHERE datname = %s", [other.dbname])
    assert gone == []


def test_postgresql_checks_passwords(postgres: Postgres):
    """A test of secrets cannot pass with a wrong password."""
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(postgres.dsn, password="wrong")
    with closing(psycopg2.connect(postgres.url)) as connection:
        assert connection.info.dbname == postgres.dbname


def test_servers_end_when_the_test_run_is_killed():
    """SIGKILL of the tests leaves neither a server behind nor a file."""
    killed = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = Path(killed.stdout.strip())
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (folder.exists() or _processes(folder)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not folder.exists()
    assert not _processes(folder)


def _processes(folder: Path) -> list[list[str]]:
    found = (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))
    return [command for command in found if any(str(folder) in word for word in command)]


def test_s3_wants_a_key(s3: S3):
    """The object store answers on this machine alone, and refuses a request without a key."""
    assert s3.host == HOST
    assert httpx.get(f"{s3.endpoint}/", trust_env=False).status_code == 403
