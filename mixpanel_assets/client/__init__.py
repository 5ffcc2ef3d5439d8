"""How to talk to Mixpanel: no Dagster, no DuckDB."""

from mixpanel_assets.client.ahead import checked_exports
from mixpanel_assets.client.api import MixpanelAPIClient
from mixpanel_assets.client.credentials import (
    Credentials,
    checked_project,
    is_project_secret,
    make_credentials,
)
from mixpanel_assets.client.empty_days import SecondLooks
from mixpanel_assets.client.engage import ProfileQuery
from mixpanel_assets.client.export import EventExport, ExportQuery
from mixpanel_assets.client.limits import BudgetSettings
from mixpanel_assets.client.normalize import normalize_event, normalize_profile
from mixpanel_assets.client.page_plan import PagePlan
from mixpanel_assets.client.retries import RetryPolicy
from mixpanel_assets.client.snapshot import MAX_WORKERS, PageOutcome, checked_workers
from mixpanel_assets.client.spool import Spool
from mixpanel_assets.client.streams import STREAMED_DAYS, RecordStream, checked_events
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
