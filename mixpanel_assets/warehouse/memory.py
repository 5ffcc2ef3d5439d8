"""How much memory DuckDB may use for a while."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import duckdb

from mixpanel_assets.warehouse.answers import first_row

_SIZE = re.compile(r"([\d.]+)\s*([kmgt]?)(i?)(?:b|bytes?)", re.IGNORECASE)
_POWERS = "kmgt"


@contextmanager
def at_most(connection: duckdb.DuckDBPyConnection, limit: str) -> Iterator[None]:
    """Let DuckDB use no more than `limit` inside the block, and never more than before.

    What does not fit goes to its temporary directory.
    """
    found = first_row(connection, "SELECT current_setting('memory_limit')")
    before = in_bytes(found[0]) if found else 0
    if before <= in_bytes(limit):
        yield
        return
    with suppress(duckdb.OutOfMemoryException):  # more is in use already, and stays
        connection.execute("SET memory_limit = ?", [limit])
    try:
        yield
    finally:
        # DuckDB tells it cut off after a digit, so that a little would be lost each time.
        connection.execute("SET memory_limit = ?", [f"{int(before) + 1024}B"])


def in_bytes(size: str) -> float:
    """Return a size in DuckDB's words, such as `953.6 MiB`, in bytes.

    Raises:
        ValueError: It is no size.
    """
    found = _SIZE.fullmatch(size.strip())
    if found is None:
        raise ValueError(f"{size!r} is no size")
    number, prefix, binary = found.groups()
    power = _POWERS.index(prefix.lower()) + 1 if prefix else 0
    base = 1024.0 if binary else 1000.0
    return float(number) * float(base**power)
