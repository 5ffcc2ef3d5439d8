"""The request budget that the settings ask for."""

from __future__ import annotations

from mixpanel_assets.client import BudgetSettings
from mixpanel_assets.settings import Settings


def budget_settings(settings: Settings) -> BudgetSettings:
    """Return how much of the project's request budget is ours.

    Raises:
        ConfigError: The reserve leaves nothing.
    """
    return BudgetSettings(
        state_dir=settings.state_dir,
        reserve=settings.budget_reserve,
        export_per_hour=settings.budget_export_per_hour,
        export_per_second=settings.budget_export_per_second,
        query_per_hour=settings.budget_query_per_hour,
        count_pages=settings.budget_count_pages,
        window_seconds=settings.budget_window_seconds,
        lock_timeout=settings.lock_timeout,
    )
