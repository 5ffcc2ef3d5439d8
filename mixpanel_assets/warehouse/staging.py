"""The rows of a spool file in a temporary table, where they are checked before they count."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from mixpanel_assets.errors import IncompleteExportError
from mixpanel_assets.warehouse.leftovers import Leftovers
from mixpanel_assets.warehouse.quarantine import Quarantined
from mixpanel_assets.warehouse.schema import EVENTS, quoted
from mixpanel_assets.warehouse.spool import Window, is_empty, rows

STAGED = "temp._staged"


@contextmanager
def staged(
    connection: duckdb.DuckDBPyConnection, spool: Path, window: Window, lines: int
) -> Iterator[list[Quarantined]]:
    """Fill `STAGED` from the spool for the length of the block; yield what cannot be stored.

    Every one of the `lines` is then a row or in quarantine.

    Raises:
        IncompleteExportError: The file is not the export of these days, or not whole.
    """
    columns = ", ".join(f"{quoted(column.name)} {column.type}" for column in EVENTS.columns)
    connection.execute(f"CREATE TEMP TABLE _staged ({columns})")
    found, quarantined = _fill(connection, spool, window, lines)
    if found != lines:
        raise _incomplete(
            window,
            f"was received with {lines} lines, but {spool.name} holds {found}",
            "line count differs",
        )
    yield quarantined
    connection.execute(f"DROP TABLE {STAGED}")


def _fill(
    connection: duckdb.DuckDBPyConnection, spool: Path, window: Window, lines: int
) -> tuple[int, list[Quarantined]]:
    if is_empty(spool):
        return 0, []
    inserted = _insert(connection, spool, window)
    if inserted >= lines:
        return inserted, []
    left = Leftovers(connection, spool, window, into=STAGED)
    left.sort()
    return inserted + left.rescued + len(left.quarantined), left.quarantined


def _insert(connection: duckdb.DuckDBPyConnection, spool: Path, window: Window) -> int:
    try:
        inserted = connection.execute(
            f"INSERT INTO {STAGED} BY NAME "
            f"SELECT * EXCLUDE (json, stored) FROM ({rows(spool, window)}) WHERE stored"
        ).fetchone()
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        if str(spool) not in str(error):
            raise
        raise _incomplete(window, f"cannot be read from {spool.name}", "unreadable file") from error
    return int(inserted[0]) if inserted else 0


def _incomplete(window: Window, said: str, reason: str) -> IncompleteExportError:
    return IncompleteExportError(
        f"The export {window.from_date}..{window.to_date} {said}. Nothing was changed; fetch "
        "these days again.",
        from_date=window.from_date,
        to_date=window.to_date,
        reason=reason,
    )
