"""A database without a file: the same tables, gone when it is closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from mixpanel_assets.warehouse.database import CATALOG, Database, closed_for_good, set_up_session
from mixpanel_assets.warehouse.lock import Mode


class MemoryDatabase(Database):
    """A database in the memory of this process.

    Nobody else can open it, so nobody waits: reads see what was committed before them, and of two
    writes of the same rows at once the second fails.

    Args:
        spill_folder: Where rows wait that do not fit into `memory_limit`.
        memory_limit: What DuckDB may use, in its own words, such as `1GB`.
    """

    def __init__(self, spill_folder: Path, *, memory_limit: str = "1GB") -> None:
        super().__init__(spill_folder / "memory", memory_limit=memory_limit)
        self._root = duckdb.connect()
        self._configure(self._root, spill_folder)
        self._root.execute(f"ATTACH ':memory:' AS {CATALOG}")

    @property
    def is_missing(self) -> bool:
        """False: it is there as long as this is."""
        return False

    def make_place(self) -> None:
        """Do nothing: no file is made."""

    def _prepare_log(self) -> None:
        """Do nothing: there is no log."""

    def close(self) -> None:
        """Forget everything."""
        self._root.close()

    @contextmanager
    def _attached(self, mode: Mode, *, logged: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        with closed_for_good(self._root.cursor()) as connection:
            set_up_session(connection)
            connection.execute(f"USE {CATALOG}")
            if mode == "read":
                connection.execute("BEGIN TRANSACTION READ ONLY")
            yield connection
