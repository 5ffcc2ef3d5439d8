"""Gaps: days that somebody is about to read and that are not wholly stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import duckdb

from mixpanel_assets.errors import MissingDaysError
from mixpanel_assets.rules.days import ranges_of, shown
from mixpanel_assets.warehouse import EVENTS, PROFILES, SCHEMA, Target, day_statuses, qualified

_SAID = {
    "never loaded": "never loaded",
    "not available": "out of the reach of the project's plan",
    "expired": "further back than MP_RETENTION_DAYS",
    "failed": "not loaded because the last attempt failed",
    "partial": "loaded in part",
    "open": "not over when loaded",
}


@dataclass(frozen=True)
class Gaps:
    """Days of a table that lack rows, or may lack some.

    Attributes:
        target: The table.
        days: By what is wrong with them: `never loaded`, or the status of the ledger.
    """

    target: Target
    days: Mapping[str, Sequence[date]]

    @property
    def message(self) -> str:
        """Which days, why, and what to do."""
        said = "; ".join(
            f"{shown(ranges_of(days))} {_SAID[why]}" for why, days in self.days.items()
        )
        name = f"{self.target.schema}.{self.target.table}"
        return (
            f"{name} does not hold every day that is read: {said}. Materialize these partitions "
            f"of `{self.target.schema}/{self.target.table}`, then this one again."
        )

    def error(self) -> MissingDaysError:
        """Return the error for who cannot do without them."""
        every = sorted(day for days in self.days.values() for day in days)
        return MissingDaysError(self.message, table=self.target.table, ranges=ranges_of(every))


def gaps_in(
    connection: duckdb.DuckDBPyConnection, target: Target, days: Sequence[date]
) -> Gaps | None:
    """Return which of some days are not wholly stored, by what the ledger says.

    Args:
        connection: Any connection of the database.
        target: A table that is there.
        days: In order.

    Returns:
        None if each day is complete or empty, or the table is none that a ledger is kept of.
    """
    if not _is_in_ledger(connection, target):
        return None
    statuses = day_statuses(connection, target)
    found: dict[str, list[date]] = {}
    for day in days:
        why = statuses.get(day, "never loaded")
        if why in _SAID:
            found.setdefault(why, []).append(day)
    return Gaps(target, {why: found[why] for why in _SAID if why in found}) if found else None


def _is_in_ledger(connection: duckdb.DuckDBPyConnection, target: Target) -> bool:
    """Tell by its columns: before its first load, the ledger says nothing of a table."""
    if target.schema != SCHEMA:
        return False
    described = connection.execute(f"DESCRIBE {qualified(target.schema, target.table)}")
    columns = {name for name, *_ in described.fetchall()}
    return any(columns == set(table.column_names) for table in (EVENTS, PROFILES))
