"""The DuckDB side alone: one file, its tables, and the transactions that replace days.

Nothing here knows HTTP or Dagster. `Database` opens and locks, `prepare` makes and
guards the tables, `replace_events`, `append_events` and `replace_profiles` load, `tables` reads.
"""

from mixpanel_assets.warehouse.append import append_events
from mixpanel_assets.warehouse.database import Database
from mixpanel_assets.warehouse.destination import (
    check_name,
    check_table,
    make_way,
    named_events,
    refuse_our_names,
    target_of,
)
from mixpanel_assets.warehouse.ledger import Target
from mixpanel_assets.warehouse.leftovers import ShiftedRowsError
from mixpanel_assets.warehouse.load import mark_unavailable, replace_events
from mixpanel_assets.warehouse.profile_pages import ProfilePage
from mixpanel_assets.warehouse.profiles import kept_snapshot, replace_profiles
from mixpanel_assets.warehouse.project import ProjectIdentity, must_match, prepare, stored_project
from mixpanel_assets.warehouse.reports import DayReport, ProfileReport, Scope
from mixpanel_assets.warehouse.retention import Thinned, thin_snapshots
from mixpanel_assets.warehouse.schema import EVENTS, PROFILES, Column, Table, qualified, quoted
from mixpanel_assets.warehouse.slices import insert_slice
from mixpanel_assets.warehouse.tables import EventSizes, event_sizes, table_exists

__all__ = [
    "EVENTS",
    "PROFILES",
    "Column",
    "Database",
    "DayReport",
    "EventSizes",
    "ProfilePage",
    "ProfileReport",
    "ProjectIdentity",
    "Scope",
    "ShiftedRowsError",
    "Table",
    "Target",
    "Thinned",
    "append_events",
    "check_name",
    "check_table",
    "event_sizes",
    "insert_slice",
    "kept_snapshot",
    "make_way",
    "mark_unavailable",
    "must_match",
    "named_events",
    "prepare",
    "qualified",
    "quoted",
    "refuse_our_names",
    "replace_events",
    "replace_profiles",
    "stored_project",
    "table_exists",
    "target_of",
    "thin_snapshots",
]
