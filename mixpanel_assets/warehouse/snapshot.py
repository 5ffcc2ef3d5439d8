"""The snapshot beside a database: a whole copy for readers, which no writer ever holds.

It appears by a rename, so whoever has the one before open keeps it, and a process that dies
half-way leaves the one before in place. Its stamp says when it was taken, and of what; a file
without one, and the snapshot of another database, are never replaced or removed.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from mixpanel_assets.errors import DatabaseLockedError, DatabaseNotFoundError, StorageError
from mixpanel_assets.rules.locks import Wait
from mixpanel_assets.warehouse.database import CATALOG, Database, closed_for_good, set_up_session
from mixpanel_assets.warehouse.drafts import draft_of, remove_drafts
from mixpanel_assets.warehouse.faults import translated
from mixpanel_assets.warehouse.file_modes import follow
from mixpanel_assets.warehouse.lock import Mode
from mixpanel_assets.warehouse.schema import SCHEMA, STAMP, literal
from mixpanel_assets.warehouse.stamp import (
    Origin,
    Stamp,
    log_of,
    snapshot_path,
    stamp_of,
    version_of,
)

_AT_ONCE = 1 << 30


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that is open to read."""

    connection: duckdb.DuckDBPyConnection
    stamp: Stamp


def is_snapshot(path: Path) -> bool:
    """Return whether a file is a snapshot, by its name and because it cannot be written."""
    return path.stem.endswith(".snapshot") and not path.stat().st_mode & 0o222


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
            stamp = Stamp.read(connection)
            snapshot = Snapshot(connection, stamp) if stamp else None
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
        StorageError: The disk is full, the folder cannot be written, the copy is not whole, or
            another file has the snapshot's name.
    """
    target = snapshot_path(database.path)
    remove_drafts(target)
    _must_fit(database.path)
    draft = draft_of(target)
    try:
        with database.read() as connection:
            stamp = Stamp(datetime.now(UTC), version_of(database.path), Origin.of(connection))
            if said := what_is_in_the_way(database.path, stamp.origin):
                raise StorageError(said, {"db_path": str(target)})
            with translated(target):
                if log_of(database.path).exists():
                    _copy(log_of(database.path), log_of(draft), database.path)
                # Last: closing it ends the locks of all of this process's connections to it.
                _copy(database.path, draft, database.path)
        with translated(target):
            _put_in_order(draft, stamp)
            log_of(target).unlink(missing_ok=True)
            draft.replace(target)
            _sync(target.parent)
    finally:
        remove_drafts(target)
    return stamp


def remove_snapshot(database: Path) -> bool:
    """Remove the snapshot; a reader that has it open keeps it. Return whether there was one."""
    target = snapshot_path(database)
    if stamp_of(target) is None:
        return False
    target.unlink(missing_ok=True)
    return True


def what_is_in_the_way(database: Path, origin: Origin | None = None) -> str | None:
    """Return, in a sentence, why no snapshot can be kept: its name is taken; None if it is not.

    Args:
        database: The database.
        origin: What the database says of itself; None: the snapshot of another one is accepted.
    """
    target = snapshot_path(database)
    stamp = stamp_of(target)
    if stamp and (origin is None or stamp.origin.may_be(origin)):
        return None
    for file in (target, log_of(target)):
        if os.path.lexists(file):
            what = f"the snapshot of {stamp.origin}" if stamp else f"no snapshot of {database}"
            return (
                f"No snapshot for readers is kept, and they wait for loads: {file} is {what}, so "
                "it is left alone. Move it away, or set MP_SNAPSHOT=off."
            )
    return None


def move_aside(database: Path, stamp: Stamp) -> Path:
    """Rename the snapshot of another database, which may be its last copy; return its new path.

    Raises:
        StorageError: It cannot be renamed.
    """
    target = snapshot_path(database)
    name = f"{target.stem}.{stamp.taken_at:%Y-%m-%dT%H-%M-%S}-{uuid.uuid4().hex[:8]}{target.suffix}"
    with translated(target):
        return target.rename(target.with_name(name))


def _must_fit(database: Path) -> None:
    """Refuse to fill the disk, on which loads may be going on."""
    if database.exists() and shutil.disk_usage(database.parent).free < database.stat().st_size:
        raise StorageError(f"The disk has no room for a copy of {database}.")


def _copy(source: Path, target: Path, database: Path) -> None:
    """Copy a file, sharing its blocks on a file system that can, such as XFS or Btrfs.

    The copy is open to those to whom the database is.
    """
    with source.open("rb") as old, open(target, "xb", opener=_for_us_alone) as new:
        follow(new.fileno(), database)
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
    with closed_for_good(duckdb.connect()) as connection:
        set_up_session(connection)
        connection.execute(f"ATTACH {literal(str(draft))} AS {CATALOG} (TYPE duckdb)")
        connection.execute(f"USE {CATALOG}")
        connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{SCHEMA}"')
        connection.execute(
            f"CREATE OR REPLACE TABLE {STAMP} AS SELECT ?::TIMESTAMP AS taken_at, ? AS version",
            [stamp.taken_at.replace(tzinfo=None), stamp.version],
        )
        connection.execute(f"CHECKPOINT {CATALOG}")
    if log_of(draft).exists():
        raise StorageError(f"The copy {draft} kept a log of its own.")
    draft.chmod(draft.stat().st_mode & ~0o222)  # who opens it to write is told so
    _sync(draft)


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
