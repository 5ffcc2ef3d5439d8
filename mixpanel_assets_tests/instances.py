"""DuckDB instances that are used again: to start one takes longer than most statements of a test.

What counts is unchanged: each connection is its own, and closing it closes its files.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import Any

import duckdb

_MOST = 8

Start = partial[duckdb.DuckDBPyConnection]


class Instances:
    """Connections as `duckdb.connect()` makes them, in instances that were left clean."""

    def __init__(self, **config: Any) -> None:
        self._start: Start = partial(duckdb.connect, config=config)
        self._config = config
        self._idle: list[duckdb.DuckDBPyConnection] = []
        self._lost: list[duckdb.DuckDBPyConnection] = []
        os.register_at_fork(after_in_child=self._lose)

    def connect(self, *arguments: Any, **options: Any) -> Any:
        """Do what `duckdb.connect` does."""
        if arguments or options:
            return self._start(*arguments, **options)
        try:
            root = self._idle.pop()
        except IndexError:
            root = self._start()
        return Connection(root, self)

    def take_back(self, root: duckdb.DuckDBPyConnection) -> None:
        """Keep an instance if it has no other connection and is again as it was at its start."""
        try:
            # A cursor that is still open holds the files, as it would without us.
            [(others,)] = root.execute("SELECT count - 1 FROM duckdb_connection_count()").fetchall()
            if others or len(self._idle) >= _MOST:
                root.close()
                return
            files = root.execute(
                "SELECT database_name FROM duckdb_databases() "
                "WHERE NOT internal AND database_name <> 'memory'"
            ).fetchall()
            for (name,) in files:
                root.execute(f'DETACH "{name}"')
            root.execute("SET temp_directory = ''")  # refused after use, or without outside access
            root.execute("RESET memory_limit")
            root.execute("RESET preserve_insertion_order")
            for name, value in self._config.items():
                root.execute(f"SET {name} = {value}")
        except BaseException as error:
            root.close()
            if not isinstance(error, duckdb.Error):
                raise
            return
        self._idle.append(root)

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop().close()

    def _lose(self) -> None:
        """In a fork, leave alone what is the parent's."""
        self._lost += self._idle
        self._idle.clear()


class Connection:
    """A connection of its own in such an instance."""

    def __init__(self, root: duckdb.DuckDBPyConnection, instances: Instances) -> None:
        self._root: duckdb.DuckDBPyConnection | None = root
        self._instances = instances
        self._connection = root.cursor()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def close(self) -> None:
        """Close it, and let the instance be used again."""
        self._connection.close()
        if root := self._root:
            self._root = None
            self._instances.take_back(root)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        """Close it for good: tests, which alone open one like this, make tables in it."""
        self._connection.close()
        if root := self._root:
            self._root = None
            root.close()

    def __del__(self) -> None:
        with suppress(duckdb.Error, AttributeError):
            self.__exit__()
