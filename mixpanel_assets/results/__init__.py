"""What questions return: frozen values that turn into JSON, pandas and Arrow.

Importing them loads neither pandas nor pyarrow; building a frame does.
"""

from mixpanel_assets.results.activity import ActivityFeedResult, UserEvent
from mixpanel_assets.results.base import Result, ResultWithDataFrame
from mixpanel_assets.results.counts import (
    EventCountsResult,
    NumericAverageResult,
    NumericBucketResult,
    NumericSumResult,
    PropertyCountsResult,
    SegmentationResult,
)
from mixpanel_assets.results.journeys import (
    CohortInfo,
    FrequencyResult,
    FunnelResult,
    FunnelStep,
    RetentionResult,
)
from mixpanel_assets.results.jql import JQLResult
from mixpanel_assets.results.lexicon import (
    LexiconDefinition,
    LexiconMetadata,
    LexiconProperty,
    LexiconSchema,
)
from mixpanel_assets.results.saved import (
    BookmarkInfo,
    FunnelInfo,
    SavedCohort,
    SavedReportResult,
    TopEvent,
)
from mixpanel_assets.results.stored import (
    DailyCount,
    DailyCountsResult,
    EngagementBucket,
    EngagementDistributionResult,
    EventBreakdownResult,
    EventStats,
    NumericPropertySummaryResult,
    PropertyCoverage,
    PropertyCoverageResult,
    PropertyDistributionResult,
    PropertyValueCount,
)
from mixpanel_assets.results.tables import (
    ColumnInfo,
    ColumnStatsResult,
    ColumnSummary,
    SQLResult,
    SummaryResult,
    TableInfo,
    TableMetadata,
    TableSchema,
    WorkspaceInfo,
)

__all__ = [
    "ActivityFeedResult",
    "BookmarkInfo",
    "CohortInfo",
    "ColumnInfo",
    "ColumnStatsResult",
    "ColumnSummary",
    "DailyCount",
    "DailyCountsResult",
    "EngagementBucket",
    "EngagementDistributionResult",
    "EventBreakdownResult",
    "EventCountsResult",
    "EventStats",
    "FrequencyResult",
    "FunnelInfo",
    "FunnelResult",
    "FunnelStep",
    "JQLResult",
    "LexiconDefinition",
    "LexiconMetadata",
    "LexiconProperty",
    "LexiconSchema",
    "NumericAverageResult",
    "NumericBucketResult",
    "NumericPropertySummaryResult",
    "NumericSumResult",
    "PropertyCountsResult",
    "PropertyCoverage",
    "PropertyCoverageResult",
    "PropertyDistributionResult",
    "PropertyValueCount",
    "Result",
    "ResultWithDataFrame",
    "RetentionResult",
    "SQLResult",
    "SavedCohort",
    "SavedReportResult",
    "SegmentationResult",
    "SummaryResult",
    "TableInfo",
    "TableMetadata",
    "TableSchema",
    "TopEvent",
    "UserEvent",
    "WorkspaceInfo",
]
