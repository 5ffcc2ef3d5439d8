"""Ops for your own jobs: events and profiles into files, and reports from Mixpanel."""

from mixpanel_assets.defs.ops.live_queries import ActivityFeedConfig as ActivityFeedConfig
from mixpanel_assets.defs.ops.live_queries import DatedReportConfig as DatedReportConfig
from mixpanel_assets.defs.ops.live_queries import EventCountsConfig as EventCountsConfig
from mixpanel_assets.defs.ops.live_queries import FrequencyConfig as FrequencyConfig
from mixpanel_assets.defs.ops.live_queries import FunnelConfig as FunnelConfig
from mixpanel_assets.defs.ops.live_queries import JQLConfig as JQLConfig
from mixpanel_assets.defs.ops.live_queries import PropertyCountsConfig as PropertyCountsConfig
from mixpanel_assets.defs.ops.live_queries import ReportConfig as ReportConfig
from mixpanel_assets.defs.ops.live_queries import RetentionConfig as RetentionConfig
from mixpanel_assets.defs.ops.live_queries import SavedReportConfig as SavedReportConfig
from mixpanel_assets.defs.ops.live_queries import (
    SegmentationAverageConfig as SegmentationAverageConfig,
)
from mixpanel_assets.defs.ops.live_queries import SegmentationConfig as SegmentationConfig
from mixpanel_assets.defs.ops.live_queries import (
    SegmentationNumericConfig as SegmentationNumericConfig,
)
from mixpanel_assets.defs.ops.live_queries import SegmentationSumConfig as SegmentationSumConfig
from mixpanel_assets.defs.ops.live_queries import activity_feed as activity_feed
from mixpanel_assets.defs.ops.live_queries import ask_report_job as ask_report_job
from mixpanel_assets.defs.ops.live_queries import event_counts as event_counts
from mixpanel_assets.defs.ops.live_queries import frequency as frequency
from mixpanel_assets.defs.ops.live_queries import funnel as funnel
from mixpanel_assets.defs.ops.live_queries import jql as jql
from mixpanel_assets.defs.ops.live_queries import live_query_op as live_query_op
from mixpanel_assets.defs.ops.live_queries import project_today as project_today
from mixpanel_assets.defs.ops.live_queries import property_counts as property_counts
from mixpanel_assets.defs.ops.live_queries import query_saved_report as query_saved_report
from mixpanel_assets.defs.ops.live_queries import retention as retention
from mixpanel_assets.defs.ops.live_queries import segmentation as segmentation
from mixpanel_assets.defs.ops.live_queries import segmentation_average as segmentation_average
from mixpanel_assets.defs.ops.live_queries import segmentation_numeric as segmentation_numeric
from mixpanel_assets.defs.ops.live_queries import segmentation_sum as segmentation_sum
from mixpanel_assets.defs.ops.streaming import EventFilesConfig as EventFilesConfig
from mixpanel_assets.defs.ops.streaming import ProfileFileConfig as ProfileFileConfig
from mixpanel_assets.defs.ops.streaming import stream_events_op as stream_events_op
from mixpanel_assets.defs.ops.streaming import stream_events_to_files as stream_events_to_files
from mixpanel_assets.defs.ops.streaming import stream_profiles_op as stream_profiles_op
from mixpanel_assets.defs.ops.streaming import stream_profiles_to_file as stream_profiles_to_file
from mixpanel_assets.defs.ops.streaming import streaming_jobs as streaming_jobs
