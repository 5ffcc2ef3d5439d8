"""The daily partitions of assets, the days of a run, and the runs that a run continues."""

from collections.abc import Callable, Collection, Mapping
from datetime import date, timedelta
from typing import Any

import dagster as dg

from mixpanel_assets.errors import ConfigError
from mixpanel_assets.rules.days import day_seen_from
from mixpanel_assets.settings import Settings


def daily_partitions(settings: Settings) -> dg.DailyPartitionsDefinition:
    """Return one partition per day from MP_START_DATE up to and including today."""
    return dg.DailyPartitionsDefinition(
        start_date=settings.start_date.isoformat(),
        timezone=settings.export_zone,
        end_offset=1,  # Dagster ends with yesterday by default; today's events are stored as `open`
    )


def days_of(window: dg.TimeWindow) -> tuple[date, date]:
    """Return the first and the last day of a window, both included."""
    # Dagster's window ends before `end`; Mixpanel's `to_date` is included. Without the step
    # back, each run would also fetch the next day.
    return window.start.date(), (window.end - timedelta(microseconds=1)).date()


def range_tags(first: date, last: date) -> dict[str, str]:
    """Return the tags of one run over a range of days, both included."""
    return {
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": last.isoformat(),
    }


def run_group(instance: dg.DagsterInstance, run: dg.DagsterRun) -> frozenset[str]:
    """Return the ids of a run and of all runs that it continues, directly or not."""
    # It continues the runs that it re-executes, back to the last one that succeeded. That one
    # lacks nothing, so its re-execution is to load everything again.
    group, parent_id = {run.run_id}, run.parent_run_id
    while parent_id and parent_id not in group:
        parent = instance.get_run_by_id(parent_id)
        if parent and parent.is_success:
            break
        group.add(parent_id)
        # The root is known even if a run in between was deleted.
        parent_id = parent.parent_run_id if parent else run.root_run_id
    return frozenset(group)


def recorded_partitions(
    instance: dg.DagsterInstance, key: dg.AssetKey, run_ids: Collection[str]
) -> dict[str, Mapping[str, Any]]:
    """Return the metadata of each partition of an asset that the runs materialized."""
    materialized = {dg.DagsterEventType.ASSET_MATERIALIZATION}
    entries = (
        entry
        for run_id in run_ids
        for entry in instance.all_logs(run_id, of_type=materialized)
        if entry.asset_materialization and entry.asset_materialization.asset_key == key
    )
    events = [entry.asset_materialization for entry in sorted(entries, key=lambda e: e.timestamp)]
    return {event.partition: event.metadata for event in events if event and event.partition}


class PartitionRecord:
    """The metadata of the partitions that a step stores.

    Dagster records it when the step ends. The IO manager records it when the step fails.

    Args:
        context: The step's.
        key: The asset.
        shown: Returns the part of the metadata that is recorded.

    Attributes:
        materialized: By partition key; a `Load` hands it to the IO manager.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        key: dg.AssetKey,
        shown: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    ) -> None:
        self.materialized: dict[str, Mapping[str, Any]] = {}
        self._context = context
        self._key = key
        self._shown = shown

    def add(self, day: date, metadata: Mapping[str, Any]) -> None:
        """Add a day that is stored, or replace what was added for it."""
        self.note(day, metadata)
        self.show(day, metadata)

    def note(self, day: date, metadata: Mapping[str, Any]) -> None:
        """Add a day without the context, while an interrupt may be ending the step."""
        self.materialized[day.isoformat()] = self._shown(metadata)

    def show(self, day: date, metadata: Mapping[str, Any]) -> None:
        """Show metadata of a day that this step does not store."""
        self._context.add_asset_metadata(
            self._shown(metadata), asset_key=self._key, partition_key=day.isoformat()
        )


USUAL_DAYS = 30
FIRST_DAY = "First day, included: like 2024-01-31, yesterday, or -7d for seven days ago"
LAST_DAY = "Last day, included; empty: yesterday."


def span(
    from_date: str | None, to_date: str | None, today: date, days: int = USUAL_DAYS
) -> tuple[date, date]:
    """Return the first and the last day, both included.

    Args:
        from_date: A day such as `2024-01-31`, `yesterday` or `-7d`; None: `days` days up to the
            last one, included.
        to_date: None: yesterday.
        today: The current day.
        days: The length of the range if `from_date` is None.

    Raises:
        ConfigError: A text is no day, or the first day is after the last.
    """
    last = day_seen_from(today, to_date or "yesterday")
    first = day_seen_from(today, from_date) if from_date else last - timedelta(days=days - 1)
    if first > last:
        raise ConfigError(f"from_date {first} is after to_date {last}; both are included.")
    return first, last
