"""The DuckDB side alone: one file, its tables, and the transactions that replace days.

Nothing here knows HTTP or Dagster. `Database` opens and locks, `prepare` makes and
guards the tables, `replace_events`, `append_events` and `replace_profiles` load, `tables` reads.
"""

from mixpanel_assets.warehouse.comparison import DayDifference as DayDifference
from mixpanel_assets.warehouse.comparison import compare_events as compare_events
from mixpanel_assets.warehouse.comparison import expired_days as expired_days
from mixpanel_assets.warehouse.database import Database as Database
from mixpanel_assets.warehouse.database import check_before_load as check_before_load
from mixpanel_assets.warehouse.database import check_readable as check_readable
from mixpanel_assets.warehouse.database import check_whose as check_whose
from mixpanel_assets.warehouse.events import EVERY_EVENT as EVERY_EVENT
from mixpanel_assets.warehouse.events import append_events as append_events
from mixpanel_assets.warehouse.events import check_events_asset as check_events_asset
from mixpanel_assets.warehouse.events import events_asset_table as events_asset_table
from mixpanel_assets.warehouse.events import mark_days as mark_days
from mixpanel_assets.warehouse.events import mark_empty_days as mark_empty_days
from mixpanel_assets.warehouse.events import mark_failed as mark_failed
from mixpanel_assets.warehouse.events import replace_events as replace_events
from mixpanel_assets.warehouse.faults import user_sql as user_sql
from mixpanel_assets.warehouse.ledger import DayReport as DayReport
from mixpanel_assets.warehouse.ledger import ProfileReport as ProfileReport
from mixpanel_assets.warehouse.ledger import Scope as Scope
from mixpanel_assets.warehouse.ledger import Status as Status
from mixpanel_assets.warehouse.ledger import Target as Target
from mixpanel_assets.warehouse.ledger import day_statuses as day_statuses
from mixpanel_assets.warehouse.ledger import forget_expired as forget_expired
from mixpanel_assets.warehouse.lines import ShiftedRowsError as ShiftedRowsError
from mixpanel_assets.warehouse.profile_pages import PageFile as PageFile
from mixpanel_assets.warehouse.profiles import Thinned as Thinned
from mixpanel_assets.warehouse.profiles import is_partial as is_partial
from mixpanel_assets.warehouse.profiles import kept_snapshot as kept_snapshot
from mixpanel_assets.warehouse.profiles import replace_profiles as replace_profiles
from mixpanel_assets.warehouse.profiles import thin_snapshots as thin_snapshots
from mixpanel_assets.warehouse.project import ProjectIdentity as ProjectIdentity
from mixpanel_assets.warehouse.project import check_loadable as check_loadable
from mixpanel_assets.warehouse.project import copy_path as copy_path
from mixpanel_assets.warehouse.project import prepare as prepare
from mixpanel_assets.warehouse.project import stored_project as stored_project
from mixpanel_assets.warehouse.readers_copy import Publisher as Publisher
from mixpanel_assets.warehouse.readers_copy import database_at as database_at
from mixpanel_assets.warehouse.schema import EVENTS as EVENTS
from mixpanel_assets.warehouse.schema import PROFILES as PROFILES
from mixpanel_assets.warehouse.schema import SCHEMA as SCHEMA
from mixpanel_assets.warehouse.schema import Column as Column
from mixpanel_assets.warehouse.schema import qualified as qualified
from mixpanel_assets.warehouse.schema import quoted as quoted
from mixpanel_assets.warehouse.slices import Partition as Partition
from mixpanel_assets.warehouse.slices import replace_slice as replace_slice
from mixpanel_assets.warehouse.tables import EventSizes as EventSizes
from mixpanel_assets.warehouse.tables import check_name as check_name
from mixpanel_assets.warehouse.tables import check_table as check_table
from mixpanel_assets.warehouse.tables import day_reports as day_reports
from mixpanel_assets.warehouse.tables import day_rows as day_rows
from mixpanel_assets.warehouse.tables import drop_day as drop_day
from mixpanel_assets.warehouse.tables import event_sizes as event_sizes
from mixpanel_assets.warehouse.tables import find_table as find_table
from mixpanel_assets.warehouse.tables import free_table_name as free_table_name
from mixpanel_assets.warehouse.tables import known_tables as known_tables
from mixpanel_assets.warehouse.tables import named_events as named_events
from mixpanel_assets.warehouse.tables import only_here as only_here
from mixpanel_assets.warehouse.tables import refuse_our_names as refuse_our_names
from mixpanel_assets.warehouse.tables import table_exists as table_exists
from mixpanel_assets.warehouse.tables import target_of as target_of
from mixpanel_assets.warehouse.vanished import Reload as Reload
