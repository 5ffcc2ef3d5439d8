"""The DuckDB side alone: one file, its tables, and the transactions that replace days.

Nothing here knows HTTP or Dagster. `Database` opens and locks, `prepare` makes and
guards the tables, `replace_events`, `append_events` and `replace_profiles` load, `tables` reads.
"""

from mixpanel_assets.warehouse.access import check_before_load, check_readable, check_whose
from mixpanel_assets.warehouse.append import append_events, mark_empty_days
from mixpanel_assets.warehouse.catalog import (
    KnownTable,
    drop_day,
    drop_tables,
    find_table,
    known_tables,
)
from mixpanel_assets.warehouse.comparison import DayDifference, compare_events, expired_days
from mixpanel_assets.warehouse.database import Database, transaction
from mixpanel_assets.warehouse.destination import (
    check_name,
    check_table,
    make_way,
    named_events,
    refuse_our_names,
    target_of,
)
from mixpanel_assets.warehouse.event_assets import (
    EVERY_EVENT,
    check_events_asset,
    events_asset_table,
)
from mixpanel_assets.warehouse.exact_values import exact_rows
from mixpanel_assets.warehouse.faults import asked
from mixpanel_assets.warehouse.in_memory import MemoryDatabase
from mixpanel_assets.warehouse.ledger import Target, day_statuses, forget_expired
from mixpanel_assets.warehouse.leftovers import ShiftedRowsError
from mixpanel_assets.warehouse.load import mark_days, mark_failed, replace_events
from mixpanel_assets.warehouse.profile_pages import ProfilePage
from mixpanel_assets.warehouse.profile_tables import is_partial
from mixpanel_assets.warehouse.profiles import kept_snapshot, replace_profiles
from mixpanel_assets.warehouse.project import (
    ProjectIdentity,
    check_loadable,
    made_at,
    prepare,
    stored_project,
)
from mixpanel_assets.warehouse.publisher import Publisher, SnapshotChoice
from mixpanel_assets.warehouse.readers import ReadersDatabase
from mixpanel_assets.warehouse.record_tables import make_events_table, make_profiles_table
from mixpanel_assets.warehouse.records import EventLines, profile_line, write_lines
from mixpanel_assets.warehouse.reports import DayReport, ProfileReport, Scope, Status
from mixpanel_assets.warehouse.retention import Thinned, thin_snapshots
from mixpanel_assets.warehouse.schema import (
    EVENTS,
    PROFILES,
    SCHEMA,
    Column,
    Table,
    create_all,
    literal,
    qualified,
    quoted,
)
from mixpanel_assets.warehouse.slices import Partition, replace_slice
from mixpanel_assets.warehouse.stamp import snapshot_path
from mixpanel_assets.warehouse.tables import (
    EventSizes,
    day_reports,
    day_rows,
    event_sizes,
    only_here,
    table_exists,
)
from mixpanel_assets.warehouse.vanished import KEEP_ALL, Reload

__all__ = [
    "EVENTS",
    "EVERY_EVENT",
    "KEEP_ALL",
    "PROFILES",
    "SCHEMA",
    "Column",
    "Database",
    "DayDifference",
    "DayReport",
    "EventLines",
    "EventSizes",
    "KnownTable",
    "MemoryDatabase",
    "Partition",
    "ProfilePage",
    "ProfileReport",
    "ProjectIdentity",
    "Publisher",
    "ReadersDatabase",
    "Reload",
    "Scope",
    "ShiftedRowsError",
    "SnapshotChoice",
    "Status",
    "Table",
    "Target",
    "Thinned",
    "append_events",
    "asked",
    "check_before_load",
    "check_events_asset",
    "check_loadable",
    "check_name",
    "check_readable",
    "check_table",
    "check_whose",
    "compare_events",
    "create_all",
    "day_reports",
    "day_rows",
    "day_statuses",
    "drop_day",
    "drop_tables",
    "event_sizes",
    "events_asset_table",
    "exact_rows",
    "expired_days",
    "find_table",
    "forget_expired",
    "is_partial",
    "kept_snapshot",
    "known_tables",
    "literal",
    "made_at",
    "make_events_table",
    "make_profiles_table",
    "make_way",
    "mark_days",
    "mark_empty_days",
    "mark_failed",
    "named_events",
    "only_here",
    "prepare",
    "profile_line",
    "qualified",
    "quoted",
    "refuse_our_names",
    "replace_events",
    "replace_profiles",
    "replace_slice",
    "snapshot_path",
    "stored_project",
    "table_exists",
    "target_of",
    "thin_snapshots",
    "transaction",
    "write_lines",
]
