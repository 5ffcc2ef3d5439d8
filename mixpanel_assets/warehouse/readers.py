"""A database for those who only read: nobody who writes keeps them waiting, nor they a writer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import duckdb

from mixpanel_assets.errors import DatabaseLockedError
from mixpanel_assets.warehouse.database import Database
from mixpanel_assets.warehouse.lock import Mode
from mixpanel_assets.warehouse.publisher import Publisher, SnapshotChoice
from mixpanel_assets.warehouse.snapshot import open_snapshot
from mixpanel_assets.warehouse.stamp import Stamp

_BRIEFLY_SECONDS = 0.5  # most writes are over by then, and the file is newer

logger = logging.getLogger(__name__)


class ReadersDatabase(Database):
    """A DuckDB file that is read, whoever writes to it.

    Each read takes the snapshot if it is as new as the file; else the file, if it is free or soon
    will be; else the snapshot, and says how old it is. While there is none, it waits for the file.

    Args:
        path: The file.
        memory_limit: What DuckDB may use, in its own words, such as `1GB`.
        lock_timeout: Seconds to wait for a writer while there is no snapshot; None: without end.
        on_wait: Gets a sentence when a wait begins, and when what is read is older than the file.
        choice: Whether a snapshot is kept; see `Publisher`.
    """

    def __init__(
        self,
        path: Path,
        *,
        memory_limit: str = "1GB",
        lock_timeout: float | None = None,
        on_wait: Callable[[str], None] | None = None,
        choice: SnapshotChoice = "auto",
    ) -> None:
        super().__init__(
            path,
            memory_limit=memory_limit,
            lock_timeout=lock_timeout,
            on_wait=on_wait,
            read_only=True,
        )
        self._choice = choice

    def hold(self) -> duckdb.DuckDBPyConnection:
        """Open what a read would, and keep it open.

        A snapshot is taken first, if the file is free and newer, because whoever wants to write
        waits as long as the file itself is held.

        Raises:
            DatabaseNotFoundError: There is no file.
            StorageError: It cannot be read.
        """
        if self._held is None:
            Publisher(self, self._choice, logger.debug, patience_seconds=0).renew()
        return super().hold()

    @contextmanager
    def _attached(self, mode: Mode, *, logged: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        self.must_exist()
        with ExitStack() as opened:
            yield self._newest(opened)

    def _newest(self, opened: ExitStack) -> duckdb.DuckDBPyConnection:
        snapshot = opened.enter_context(open_snapshot(self))
        self.snapshot_age = None
        if snapshot and snapshot.stamp.is_of_now(self.path):
            return snapshot.connection
        if snapshot is None:
            return opened.enter_context(super()._attached("read"))
        with suppress(DatabaseLockedError):
            briefly = Database(
                self.path,
                memory_limit=self.memory_limit,
                lock_timeout=_BRIEFLY_SECONDS,
                read_only=True,
            )
            return opened.enter_context(briefly.opened("read"))
        self.snapshot_age = snapshot.stamp.age
        self._tell(snapshot.stamp)
        return snapshot.connection

    def _tell(self, stamp: Stamp) -> None:
        said = (
            f"{self.path} is being written to. Read instead: its snapshot of "
            f"{stamp.taken_at:%Y-%m-%d %H:%M:%S} UTC, {stamp.age:.0f} s old."
        )
        logger.info(said)
        if self.on_wait:
            self.on_wait(said)
