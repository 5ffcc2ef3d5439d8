"""The table `_reconciled`: stored counts beside Mixpanel's own, and why they differ.

`loading.reconciliation` asks Mixpanel and finds the classes; here they are kept and read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal, get_args

from duckdb import DuckDBPyConnection as Connection

from mixpanel_assets.results import Result
from mixpanel_assets.warehouse.ledger import OF_TABLE, Target
from mixpanel_assets.warehouse.schema import RECONCILED
from mixpanel_assets.warehouse.tables import table_exists

Class = Literal[
    "equal",
    "repeats",
    "pending",
    "hidden",
    "forwarded",
    "deleted",
    "expired",
    "quarantined",
    "name limit",
    "zone edge",
    "not loaded",
    "unexplained",
]
CLASSES: tuple[Class, ...] = get_args(Class)


@dataclass(frozen=True, repr=False)
class Reconciled(Result):
    """The stored and the live count of one event on one day.

    Attributes:
        day: The day in the project's time zone.
        event: The name of the event.
        stored: Rows stored when Mixpanel was asked.
        live: Events that Mixpanel reported.
        cls: Why they differ; `equal` if they do not.
        reason: The evidence for that, in words; None if equal.
        asked_at: When Mixpanel was last asked; aware, UTC.
        live_since: When Mixpanel reported this number for the first time, without another one
            since; aware, UTC.
        live_before: The number that Mixpanel reported before that; None if there was none.
    """

    day: date
    event: str
    stored: int
    live: int
    cls: Class
    reason: str | None
    asked_at: datetime
    live_since: datetime
    live_before: int | None = None

    @property
    def missing(self) -> int:
        """Events that Mixpanel counts and the table lacks; negative if the table has more."""
        return self.live - self.stored


def write_reconciled(
    connection: Connection,
    target: Target,
    reconciled: Iterable[Reconciled],
    first: date,
    last: date,
) -> None:
    """Replace what is known of days, both ends included, in the caller's transaction.

    Of a day without any count, nothing is known then.
    """
    found = list(reconciled)
    values: dict[str, Any] = target.names | {"first": first, "last": last}
    connection.execute(
        f"DELETE FROM {RECONCILED.quoted} WHERE {OF_TABLE} AND day BETWEEN $first AND $last",
        values,
    )
    if not found:
        return
    # Columns, because 100,000 rows as structs take 20 times as long.
    columns = ", ".join(f'unnest(${name}::{kind}[]) AS "{name}"' for name, kind in _KINDS.items())
    rows = [_row(one) for one in found]
    connection.execute(
        f"INSERT INTO {RECONCILED.quoted} BY NAME "
        f"SELECT $schema AS schema_name, $table AS table_name, {columns}",
        target.names | {name: [row[name] for row in rows] for name in _KINDS},
    )


_KINDS = {
    column.name: column.type for column in RECONCILED.columns if not column.name.endswith("_name")
} | {"event_name": "VARCHAR"}


def _row(one: Reconciled) -> Mapping[str, Any]:
    return {
        "day": one.day,
        "event_name": one.event,
        "stored": one.stored,
        "live": one.live,
        "class": one.cls,
        "reason": one.reason,
        "asked_at": _naive(one.asked_at),
        "live_since": _naive(one.live_since),
        "live_before": one.live_before,
    }


def reconciled_days(
    connection: Connection, target: Target, first: date, last: date
) -> list[Reconciled]:
    """Return what is known of days, both ends included, by day and event name.

    A file of an earlier version knows nothing. What is known of a day that was loaded since it was
    asked for (`fetched_at` in the ledger) describes the rows before that load.
    """
    if not table_exists(connection, RECONCILED.name):
        return []
    rows = connection.execute(
        'SELECT day, event_name, stored, live, "class", reason, asked_at, live_since, '
        f"live_before FROM {RECONCILED.quoted} WHERE {OF_TABLE} "
        "AND day BETWEEN $first AND $last ORDER BY day, event_name",
        target.names | {"first": first, "last": last},
    ).fetchall()
    return [
        Reconciled(
            day,
            event,
            stored,
            live,
            cls,
            reason,
            asked_at.replace(tzinfo=UTC),
            live_since.replace(tzinfo=UTC),
            live_before,
        )
        for day, event, stored, live, cls, reason, asked_at, live_since, live_before in rows
    ]


def hidden_names(connection: Connection, target: Target) -> dict[str, str]:
    """Return each event that was ever found hidden, of whatever day, with the last evidence."""
    if not table_exists(connection, RECONCILED.name):
        return {}
    rows = connection.execute(
        f"SELECT event_name, arg_max(reason, asked_at) FROM {RECONCILED.quoted} "
        f"WHERE {OF_TABLE} AND \"class\" = 'hidden' AND reason IS NOT NULL GROUP BY ALL",
        target.names,
    ).fetchall()
    return dict(rows)


def worst_class(found: Sequence[Reconciled]) -> Class | None:
    """Return the class of a day: the most serious one of its events; None without any."""
    return max((one.cls for one in found), key=CLASSES.index, default=None)


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
