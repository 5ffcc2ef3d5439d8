"""DroppedDay: one day of events that is removed at the user's word, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import duckdb

from mixpanel_assets.currency import is_due
from mixpanel_assets.errors import ConfigError, MissingDaysError
from mixpanel_assets.results import Result
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    EVENTS,
    EVERY_EVENT,
    SCHEMA,
    day_rows,
    drop_day,
    find_table,
    known_tables,
)


@dataclass(frozen=True, repr=False)
class DroppedDay(Result):
    """A day that was removed from a table of events, or would be.

    Attributes:
        table: The table, in schema `mixpanel`.
        day: The export day.
        row_count: Its rows.
        quarantined: Its lines in `mixpanel._quarantine`.
        is_loaded_again: Whether `mp sync` without days will load it again.
    """

    table: str
    day: date
    row_count: int
    quarantined: int
    is_loaded_again: bool

    @property
    def message(self) -> str:
        """What is removed and what `mp sync` does about it, in words."""
        lines = f" and {self.quarantined:,} quarantined lines" if self.quarantined else ""
        if self.table != EVENTS.name:
            again = f"Materialize this partition of `{SCHEMA}/{self.table}` to load it again."
        elif self.is_loaded_again:
            again = "`mp sync` without days loads it again; Mixpanel may send other events then."
        else:
            again = (
                "`mp sync` without days does not load it again; "
                f"`mp sync --from {self.day} --to {self.day}` does."
            )
        return f"{self.day} of {self.table}: {self.row_count:,} rows{lines}. {again}"


def dropped_day(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    day: date,
    *,
    table: str,
    dry_run: bool,
) -> DroppedDay:
    """Remove a day of an asset's table of events with all that is known of it.

    Args:
        connection: Inside a transaction; `dry_run` needs none.
        settings: What `mp sync` goes by.
        day: The export day.
        table: The table.
        dry_run: Only tell what would be removed.

    Raises:
        MissingDaysError: Nothing is known of the day.
        TableNotFoundError: There is no such table.
        ConfigError: It is not an asset's table of events.
    """
    target = find_table(connection, table)
    known = {one.target for one in known_tables(connection) if one.type == "events"}
    if target != EVERY_EVENT and (target.schema != SCHEMA or target not in known):
        raise ConfigError(
            f"{table!r} is not an asset's table of events. Days are only removed from those; "
            "`mp drop` removes other tables as a whole.",
            {"table": table},
        )
    ledger = day_rows(connection, target.table, date.min, date.max)
    row = ledger.pop(day, None)
    if row is None:
        raise MissingDaysError(
            f"Nothing is stored for {day} in {target.schema}.{target.table}.",
            table=target.table,
            ranges=[(day, day)],
        )
    again = target == EVERY_EVENT and is_due(ledger, settings, day)
    if dry_run:
        return DroppedDay(target.table, day, row["row_count"], row["quarantined"] or 0, again)
    rows, lines = drop_day(connection, target, day)
    return DroppedDay(target.table, day, rows, lines, again)
