"""Results of queries: frozen values that convert to JSON, pandas and Arrow.

An import loads neither pandas nor pyarrow; a frame does.
"""

from mixpanel_assets.results.base import Result as Result
from mixpanel_assets.results.base import ResultWithDataFrame as ResultWithDataFrame
from mixpanel_assets.results.certificate import Certificate as Certificate
from mixpanel_assets.results.certificate import Sum as Sum
from mixpanel_assets.results.coverage import CoverageResult as CoverageResult
from mixpanel_assets.results.coverage import CoverageStatus as CoverageStatus
from mixpanel_assets.results.coverage import CoveredDay as CoveredDay
from mixpanel_assets.results.live import ActivityFeedResult as ActivityFeedResult
from mixpanel_assets.results.live import BookmarkInfo as BookmarkInfo
from mixpanel_assets.results.live import CohortInfo as CohortInfo
from mixpanel_assets.results.live import EventCountsResult as EventCountsResult
from mixpanel_assets.results.live import FrequencyResult as FrequencyResult
from mixpanel_assets.results.live import FunnelInfo as FunnelInfo
from mixpanel_assets.results.live import FunnelResult as FunnelResult
from mixpanel_assets.results.live import FunnelStep as FunnelStep
from mixpanel_assets.results.live import JQLResult as JQLResult
from mixpanel_assets.results.live import LexiconDefinition as LexiconDefinition
from mixpanel_assets.results.live import LexiconMetadata as LexiconMetadata
from mixpanel_assets.results.live import LexiconProperty as LexiconProperty
from mixpanel_assets.results.live import LexiconSchema as LexiconSchema
from mixpanel_assets.results.live import NumericAverageResult as NumericAverageResult
from mixpanel_assets.results.live import NumericBucketResult as NumericBucketResult
from mixpanel_assets.results.live import NumericSumResult as NumericSumResult
from mixpanel_assets.results.live import PropertyCountsResult as PropertyCountsResult
from mixpanel_assets.results.live import RetentionResult as RetentionResult
from mixpanel_assets.results.live import SavedCohort as SavedCohort
from mixpanel_assets.results.live import SavedReportResult as SavedReportResult
from mixpanel_assets.results.live import SegmentationResult as SegmentationResult
from mixpanel_assets.results.live import TopEvent as TopEvent
from mixpanel_assets.results.live import UserEvent as UserEvent
from mixpanel_assets.results.stored import ColumnInfo as ColumnInfo
from mixpanel_assets.results.stored import ColumnStatsResult as ColumnStatsResult
from mixpanel_assets.results.stored import ColumnSummary as ColumnSummary
from mixpanel_assets.results.stored import DailyCount as DailyCount
from mixpanel_assets.results.stored import DailyCountsResult as DailyCountsResult
from mixpanel_assets.results.stored import EngagementBucket as EngagementBucket
from mixpanel_assets.results.stored import (
    EngagementDistributionResult as EngagementDistributionResult,
)
from mixpanel_assets.results.stored import EventBreakdownResult as EventBreakdownResult
from mixpanel_assets.results.stored import EventStats as EventStats
from mixpanel_assets.results.stored import LatenessResult as LatenessResult
from mixpanel_assets.results.stored import LatenessStep as LatenessStep
from mixpanel_assets.results.stored import (
    NumericPropertySummaryResult as NumericPropertySummaryResult,
)
from mixpanel_assets.results.stored import PropertyCoverage as PropertyCoverage
from mixpanel_assets.results.stored import PropertyCoverageResult as PropertyCoverageResult
from mixpanel_assets.results.stored import PropertyDistributionResult as PropertyDistributionResult
from mixpanel_assets.results.stored import PropertyValueCount as PropertyValueCount
from mixpanel_assets.results.stored import SQLResult as SQLResult
from mixpanel_assets.results.stored import SummaryResult as SummaryResult
from mixpanel_assets.results.stored import TableInfo as TableInfo
from mixpanel_assets.results.stored import TableMetadata as TableMetadata
from mixpanel_assets.results.stored import TableSchema as TableSchema
from mixpanel_assets.results.stored import WorkspaceInfo as WorkspaceInfo
