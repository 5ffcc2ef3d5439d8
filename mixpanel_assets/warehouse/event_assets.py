"""Asset tables of events: `events` holds everything, each other one what a single filter finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb

from mixpanel_assets.errors import ConfigError
from mixpanel_assets.warehouse import ledger
from mixpanel_assets.warehouse.destination import check_name, make_table, refuse_our_names
from mixpanel_assets.warehouse.ledger import Load, Target
from mixpanel_assets.warehouse.schema import EVENTS, Table

EVERY_EVENT = Target(EVENTS.name)


def events_asset_table(
    connection: duckdb.DuckDBPyConnection, target: Target, filters: Mapping[str, Any] | None
) -> Table:
    """Return the definition of a table of events, and make it if it is not there.

    Raises:
        ConfigError: The name is no name for a table, or taken; a filter is given for `events`
            or none for another table; or the table holds what another filter finds.
    """
    check_events_asset(target.table, filters)
    if target == EVERY_EVENT:
        return EVENTS
    definition = Table(target.table, EVENTS.grain, EVENTS.columns)
    make_table(connection, definition)
    _refuse_other_filters(connection, Load(target, "events", filters=filters))
    return definition


def check_events_asset(table: str, filters: Mapping[str, Any] | None) -> None:
    """Refuse a name that no asset table of the events that a filter finds may have.

    Raises:
        ConfigError: It is not letters, digits and underscores, or a table of ours has it; or
            there is no filter, and it is not `events`.
    """
    check_name(table)
    if table != EVENTS.name and not filters:
        raise ConfigError(
            "Say which events or where; the table `events` holds every event.", {"table": table}
        )
    if filters:
        refuse_our_names(EVENTS.schema, table)


def _refuse_other_filters(connection: duckdb.DuckDBPyConnection, load: Load) -> None:
    others = ledger.filters_of(connection, load.target) - {load.filters_text}
    if others:
        there = " and ".join(sorted(other or "no filter" for other in others))
        raise ConfigError(
            f"The table {load.target.schema}.{load.target.table} holds what another filter "
            f"finds: {there}. Asked for was {load.filters_text}. Give this one another name, or "
            f"empty the table to start it anew (`mp drop {load.target.table}`).",
            {"table": load.target.table, "filters": load.filters_text},
        )
