"""How to talk to Mixpanel: no Dagster, no DuckDB."""

from mixpanel_assets.client.api import MixpanelAPIClient as MixpanelAPIClient
from mixpanel_assets.client.credentials import Credentials as Credentials
from mixpanel_assets.client.credentials import checked_project as checked_project
from mixpanel_assets.client.credentials import is_project_secret as is_project_secret
from mixpanel_assets.client.credentials import make_credentials as make_credentials
from mixpanel_assets.client.event_counts import EventCounts as EventCounts
from mixpanel_assets.client.event_counts import count_events as count_events
from mixpanel_assets.client.export import EventExport as EventExport
from mixpanel_assets.client.export import ExportQuery as ExportQuery
from mixpanel_assets.client.export import SecondLooks as SecondLooks
from mixpanel_assets.client.export import checked_exports as checked_exports
from mixpanel_assets.client.ledger import ApiUsage as ApiUsage
from mixpanel_assets.client.ledger import BudgetSettings as BudgetSettings
from mixpanel_assets.client.normalize import normalize_event as normalize_event
from mixpanel_assets.client.normalize import normalize_profile as normalize_profile
from mixpanel_assets.client.profiles import MAX_WORKERS as MAX_WORKERS
from mixpanel_assets.client.profiles import PageOutcome as PageOutcome
from mixpanel_assets.client.profiles import ProfilePageResult as ProfilePageResult
from mixpanel_assets.client.profiles import ProfileQuery as ProfileQuery
from mixpanel_assets.client.profiles import checked_workers as checked_workers
from mixpanel_assets.client.spool import PagePlan as PagePlan
from mixpanel_assets.client.spool import Spool as Spool
from mixpanel_assets.client.streams import STREAMED_DAYS as STREAMED_DAYS
from mixpanel_assets.client.streams import RecordStream as RecordStream
from mixpanel_assets.client.streams import checked_events as checked_events
from mixpanel_assets.client.transport import RetryPolicy as RetryPolicy
