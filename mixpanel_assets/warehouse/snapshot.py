"""The snapshot beside a database: a whole copy for readers, which no writer ever holds.

It appears by a rename, so whoever has the one before open keeps it, and a process that dies
half-way leaves the one before in place. A table inside says when it was taken, and of what.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from mixpanel_assets.errors import DatabaseLockedError, DatabaseNotFoundError, StorageError
from mixpanel_assets.warehouse.answers import first_row
from mixpanel_assets.warehouse.database import CATALOG, Database, set_up_session
from mixpanel_assets.warehouse.drafts import draft_of, remove_drafts
from mixpanel_assets.warehouse.faults import translated
from mixpanel_assets.warehouse.lock import Mode, Wait
from mixpanel_assets.warehouse.project import made_at, stored_project
from mixpanel_assets.warehouse.schema import SCHEMA, literal

_AT_ONCE = 1 << 30
_STAMP = f'"{SCHEMA}"._snapshot'


@dataclass(frozen=True)
class Stamp:
    """What a snapshot says of itself.

    Attributes:
        taken_at: When it was taken; aware, UTC.
        version: The version of the database that it is a copy of.
    """

    taken_at: datetime
    version: str

    def is_of_now(self, database: Path) -> bool:
        """Tell whether the database has not changed since."""
        return self.version == version_of(database)

    def is_of_file(self, database: Path) -> bool:
        """Tell whether the file is the one that was copied, changed since or not."""
        return self.version.partition(" ")[0] == version_of(database).partition(" ")[0]

    @property
    def age(self) -> float:
        """Seconds since it was taken."""
        return max(0.0, (datetime.now(UTC) - self.taken_at).total_seconds())


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that is open to read."""

    connection: duckdb.DuckDBPyConnection
    stamp: Stamp


def snapshot_path(database: Path) -> Path:
    """Return where the snapshot of a database lies: `x.duckdb` has `x.snapshot.duckdb`."""
    return database.with_name(f"{database.stem}.snapshot{database.suffix}")


def is_snapshot(path: Path) -> bool:
    """Tell whether a file is a snapshot, by its name and because nobody may write it."""
    return path.stem.endswith(".snapshot") and not path.stat().st_mode & 0o222


def version_of(database: Path) -> str:
    """Return a text that is another one after each commit; the file need not be opened.

    Opening and closing it here would drop the lock that DuckDB holds on it for this process.
    """
    texts = []
    for path in (database, _log_of(database)):
        try:
            found = path.stat()
        except OSError:
            continue
        texts.append(f"{found.st_ino} {found.st_size} {found.st_mtime_ns}")
    return ", ".join(texts)


@contextmanager
def open_snapshot(database: Database) -> Iterator[Snapshot | None]:
    """Yield the snapshot of this very file; None when there is none that can be read."""
    copy = _SnapshotFile(
        snapshot_path(database.path), memory_limit=database.memory_limit, lock_timeout=0
    )
    with ExitStack() as opened:
        snapshot = None
        with suppress(DatabaseNotFoundError, DatabaseLockedError, StorageError, duckdb.Error):
            connection = opened.enter_context(copy.opened("read"))
            snapshot = Snapshot(connection, _stamp_in(connection))
        yield snapshot if snapshot and snapshot.stamp.is_of_file(database.path) else None


class _SnapshotFile(Database):
    """A snapshot needs no lock: it is never changed, only replaced by a rename."""

    @contextmanager
    def _locked(self, mode: Mode, wait: Wait) -> Iterator[None]:
        yield


def take_snapshot(database: Database) -> Stamp:
    """Copy the database and put the copy in the place of the snapshot of before.

    Writers wait while it is copied, readers do not. Only one process at a time may do this.

    Raises:
        DatabaseLockedError: A writer held the file for longer than `lock_timeout`.
        StorageError: The disk is full, the folder cannot be written, or the copy is not whole.
    """
    target = snapshot_path(database.path)
    remove_drafts(target)
    _must_fit(database.path)
    draft = draft_of(target)
    try:
        with database.read():
            stamp = Stamp(datetime.now(UTC), version_of(database.path))
            with translated(target):
                if _log_of(database.path).exists():
                    _copy(_log_of(database.path), _log_of(draft))
                # Last: closing it ends the locks of all of this process's connections to it.
                _copy(database.path, draft)
        with translated(target):
            _put_in_order(draft, stamp)
            _log_of(target).unlink(missing_ok=True)
            draft.replace(target)
            _sync(target.parent)
    finally:
        remove_drafts(target)
    return stamp


def remove_snapshot(database: Path) -> bool:
    """Remove the snapshot; whoever has it open keeps it. Tell whether there was one."""
    target = snapshot_path(database)
    try:
        target.unlink()
    except FileNotFoundError:
        return False
    return True


def same_project(database: duckdb.DuckDBPyConnection, copy: duckdb.DuckDBPyConnection) -> bool:
    """Tell whether two connections show the data of one project, made at one moment."""
    return _origin(database) == _origin(copy)


def _stamp_in(connection: duckdb.DuckDBPyConnection) -> Stamp:
    row = first_row(connection, f"SELECT taken_at, version FROM {CATALOG}.{_STAMP}")
    if row is None:
        raise StorageError("It does not say what it is a copy of.")
    return Stamp(row[0].replace(tzinfo=UTC), row[1])


def _origin(connection: duckdb.DuckDBPyConnection) -> object:
    return stored_project(connection), made_at(connection)


def _must_fit(database: Path) -> None:
    """Refuse to fill the disk, on which loads may be going on."""
    if database.exists() and shutil.disk_usage(database.parent).free < database.stat().st_size:
        raise StorageError(f"The disk has no room for a copy of {database}.")


def _copy(source: Path, target: Path) -> None:
    """Copy a file, sharing its blocks on a file system that can, such as XFS or Btrfs.

    Who may not read the file may not read the copy either.
    """
    with source.open("rb") as old, open(target, "xb", opener=_for_us_alone) as new:
        target.chmod(stat.S_IMODE(source.stat().st_mode) | 0o600)
        try:
            while os.copy_file_range(old.fileno(), new.fileno(), _AT_ONCE):
                pass
        except (AttributeError, OSError):  # not this system, or not these two places
            old.seek(0)
            new.seek(0)
            shutil.copyfileobj(old, new, 1 << 20)


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _put_in_order(draft: Path, stamp: Stamp) -> None:
    """Stamp a copy, and bring what a killed writer left in its log into the file."""
    with closing(duckdb.connect()) as connection:
        set_up_session(connection)
        connection.execute(f"ATTACH {literal(str(draft))} AS {CATALOG}")
        connection.execute(f"USE {CATALOG}")
        connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{SCHEMA}"')
        connection.execute(
            f"CREATE OR REPLACE TABLE {_STAMP} AS SELECT ?::TIMESTAMP AS taken_at, ? AS version",
            [stamp.taken_at.replace(tzinfo=None), stamp.version],
        )
        connection.execute(f"CHECKPOINT {CATALOG}")
    if _log_of(draft).exists():
        raise StorageError(f"The copy {draft} kept a log of its own.")
    draft.chmod(draft.stat().st_mode & ~0o222)  # who opens it to write is told so
    _sync(draft)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}.wal")
