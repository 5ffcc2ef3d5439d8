"""How to talk to Mixpanel: no Dagster, no DuckDB."""

from mixpanel_assets.client.api import MixpanelAPIClient
from mixpanel_assets.client.credentials import (
    Credentials,
    checked_project,
    is_project_secret,
    make_credentials,
)
from mixpanel_assets.client.export import EventExport, ExportQuery, SecondLooks, checked_exports
from mixpanel_assets.client.ledger import BudgetSettings
from mixpanel_assets.client.normalize import normalize_event, normalize_profile
from mixpanel_assets.client.profiles import MAX_WORKERS, PageOutcome, ProfileQuery, checked_workers
from mixpanel_assets.client.spool import PagePlan, Spool
from mixpanel_assets.client.streams import STREAMED_DAYS, RecordStream, checked_events
from mixpanel_assets.client.transport import RetryPolicy
from mixpanel_assets.client.types import ApiUsage, ProfilePageResult

__all__ = [
    "MAX_WORKERS",
    "STREAMED_DAYS",
    "ApiUsage",
    "BudgetSettings",
    "Credentials",
    "EventExport",
    "ExportQuery",
    "MixpanelAPIClient",
    "PageOutcome",
    "PagePlan",
    "ProfilePageResult",
    "ProfileQuery",
    "RecordStream",
    "RetryPolicy",
    "SecondLooks",
    "Spool",
    "checked_events",
    "checked_exports",
    "checked_project",
    "checked_workers",
    "is_project_secret",
    "make_credentials",
    "normalize_event",
    "normalize_profile",
]
