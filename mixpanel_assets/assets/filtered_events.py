"""Assets of some events: a filter has a table of its own, for `events` always holds all."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from mixpanel_assets.assets.events import events_asset
from mixpanel_assets.client import checked_events
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets.warehouse import check_events_asset


def filtered_events_asset(
    name: str,
    *,
    events: Sequence[str] | None = None,
    where: str | None = None,
    description: str = "One row per event that the filter finds; Mixpanel's repeats are removed.",
    settings: Settings | None = None,
) -> dg.AssetsDefinition:
    """Return an asset of some events, with a table of its own; `events` always holds all.

    It promises what `mixpanel/events` promises and has the same columns, partitions and
    metadata. Its days cost export requests of their own, whether `events` holds them or not.

    Args:
        name: Of the asset, and of its table in schema `mixpanel`. A table holds what one filter
            finds: a run with another one is refused and changes nothing.
        events: Only events of these names.
        where: A segmentation expression over event properties, such as
            `properties["country"] == "DE"`; Mixpanel evaluates it.
        description: What one row is; the filter and the cost are added.
        settings: Instead of the MP_* variables.

    Raises:
        ConfigError: There is no filter, or it cannot be asked; or the name is none for a table,
            or a table of the package has it.

    Example:
        >>> orders = filtered_events_asset("orders", events=["Order Completed"])
    """
    known = settings or load_settings()
    day = known.start_date  # the partitions say which days; here, only the filter is looked at
    filters = checked_events(day, day, events, where, None, time_in_ms=True).filters
    check_events_asset(name, filters)
    return events_asset(
        known,
        name,
        events=filters.get("events"),
        where=where,
        description=f"{description} {_told(filters)} Costs one export request for a day; up to 31 "
        "days of a range share one.",
    )


def _told(filters: Mapping[str, Any]) -> str:
    parts = []
    if "events" in filters:
        parts.append(f"named {', '.join(f'`{name}`' for name in filters['events'])}")
    if "where" in filters:
        parts.append(f"where `{filters['where']}`")
    return f"Only events {' and '.join(parts)}."
