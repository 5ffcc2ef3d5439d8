"""Daily partitions, and the days that a run asks for."""

from __future__ import annotations

from datetime import date, timedelta

import dagster as dg

from mixpanel_assets.settings import Settings


def daily_partitions(settings: Settings) -> dg.DailyPartitionsDefinition:
    """Return one partition per day from MP_START_DATE up to and including today."""
    return dg.DailyPartitionsDefinition(
        start_date=settings.start_date.isoformat(),
        timezone=settings.export_zone,
        end_offset=1,
    )


def days_of(window: dg.TimeWindow) -> tuple[date, date]:
    """Return the first and the last day of a window, both included.

    Dagster's window ends before `end`; Mixpanel's `to_date` is included. Without the step
    back, each run would also fetch the next day.
    """
    return window.start.date(), (window.end - timedelta(microseconds=1)).date()
