from mixpanel_assets.auth import (
    AccountInfo as AccountInfo,
    ConfigManager as ConfigManager,
)
from mixpanel_assets.client import (
    Credentials as Credentials,
    MixpanelAPIClient as MixpanelAPIClient,
    ProfilePageResult as ProfilePageResult,
    RecordStream as RecordStream,
    normalize_event as normalize_event,
    normalize_profile as normalize_profile,
)
from mixpanel_assets.client.discovery import (
    DiscoveryService as DiscoveryService,
)
from mixpanel_assets.client.live import (
    LiveQueryService as LiveQueryService,
)
from mixpanel_assets.defs.assets.events import (
    FilteredEvents as FilteredEvents,
    events_asset as events_asset,
    filtered_events_asset as filtered_events_asset,
)
from mixpanel_assets.defs.assets.profiles import (
    FilteredProfiles as FilteredProfiles,
    filtered_profiles_asset as filtered_profiles_asset,
    group_profiles_asset as group_profiles_asset,
    profiles_asset as profiles_asset,
)
from mixpanel_assets.defs.assets.queries import (
    LiveQuery as LiveQuery,
    live_query_asset as live_query_asset,
)
from mixpanel_assets.defs.component import (
    MixpanelComponent as MixpanelComponent,
    MixpanelCredentials as MixpanelCredentials,
)
from mixpanel_assets.defs.io_managers import (
    WarehouseIOManager as WarehouseIOManager,
)
from mixpanel_assets.defs.location import (
    build_definitions as build_definitions,
)
from mixpanel_assets.defs.names import (
    AssetHooks as AssetHooks,
    AssetKind as AssetKind,
    MixpanelTranslator as MixpanelTranslator,
    Names as Names,
)
from mixpanel_assets.defs.resources import (
    MixpanelResource as MixpanelResource,
)
from mixpanel_assets.defs.schedules import (
    live_query_schedule as live_query_schedule,
)
from mixpanel_assets.errors import (
    AccountExistsError as AccountExistsError,
    AccountNotFoundError as AccountNotFoundError,
    APIError as APIError,
    AuthenticationError as AuthenticationError,
    ConfigError as ConfigError,
    ConnectionFailedError as ConnectionFailedError,
    CountsUnavailableError as CountsUnavailableError,
    DatabaseLockedError as DatabaseLockedError,
    DatabaseNotFoundError as DatabaseNotFoundError,
    DateRangeTooLargeError as DateRangeTooLargeError,
    EventNotFoundError as EventNotFoundError,
    IncompleteExportError as IncompleteExportError,
    JQLSyntaxError as JQLSyntaxError,
    MissingDaysError as MissingDaysError,
    MixpanelDataError as MixpanelDataError,
    PlanHorizonError as PlanHorizonError,
    QueryError as QueryError,
    RateLimitError as RateLimitError,
    ServerError as ServerError,
    StorageError as StorageError,
    TableExistsError as TableExistsError,
    TableNotFoundError as TableNotFoundError,
    WriteConflictError as WriteConflictError,
)
from mixpanel_assets.loading.day_checks import (
    CheckThresholds as CheckThresholds,
)
from mixpanel_assets.loading.fetcher import (
    FetcherService as FetcherService,
)
from mixpanel_assets.loading.plan import (
    Plan as Plan,
)
from mixpanel_assets.loading.profiles import (
    ParallelProfileFetcherService as ParallelProfileFetcherService,
)
from mixpanel_assets.loading.results import (
    BatchProgress as BatchProgress,
    BatchResult as BatchResult,
    FetchResult as FetchResult,
    ParallelFetchResult as ParallelFetchResult,
    ParallelProfileFetchResult as ParallelProfileFetchResult,
    ParallelProfileResult as ParallelProfileResult,
    ProfileBatchProgress as ProfileBatchProgress,
    ProfileProgress as ProfileProgress,
)
from mixpanel_assets.results import (
    ActivityFeedResult as ActivityFeedResult,
    BookmarkInfo as BookmarkInfo,
    CohortInfo as CohortInfo,
    Certificate as Certificate,
    ColumnInfo as ColumnInfo,
    ColumnStatsResult as ColumnStatsResult,
    ColumnSummary as ColumnSummary,
    CoverageResult as CoverageResult,
    CoveredDay as CoveredDay,
    DailyCount as DailyCount,
    DailyCountsResult as DailyCountsResult,
    LatenessResult as LatenessResult,
    LatenessStep as LatenessStep,
    EngagementBucket as EngagementBucket,
    EngagementDistributionResult as EngagementDistributionResult,
    EventBreakdownResult as EventBreakdownResult,
    EventCountsResult as EventCountsResult,
    EventStats as EventStats,
    FrequencyResult as FrequencyResult,
    FunnelInfo as FunnelInfo,
    FunnelResult as FunnelResult,
    FunnelStep as FunnelStep,
    JQLResult as JQLResult,
    LexiconDefinition as LexiconDefinition,
    LexiconMetadata as LexiconMetadata,
    LexiconProperty as LexiconProperty,
    LexiconSchema as LexiconSchema,
    NumericAverageResult as NumericAverageResult,
    NumericBucketResult as NumericBucketResult,
    NumericPropertySummaryResult as NumericPropertySummaryResult,
    NumericSumResult as NumericSumResult,
    PropertyCountsResult as PropertyCountsResult,
    PropertyCoverage as PropertyCoverage,
    PropertyCoverageResult as PropertyCoverageResult,
    PropertyDistributionResult as PropertyDistributionResult,
    PropertyValueCount as PropertyValueCount,
    ResultWithDataFrame as ResultWithDataFrame,
    RetentionResult as RetentionResult,
    SavedCohort as SavedCohort,
    SavedReportResult as SavedReportResult,
    SegmentationResult as SegmentationResult,
    SQLResult as SQLResult,
    Sum as Sum,
    SummaryResult as SummaryResult,
    TableInfo as TableInfo,
    TableMetadata as TableMetadata,
    TableSchema as TableSchema,
    TopEvent as TopEvent,
    UserEvent as UserEvent,
    WorkspaceInfo as WorkspaceInfo,
)
from mixpanel_assets.settings import (
    Settings as Settings,
)
from mixpanel_assets.warehouse.engine import (
    StorageEngine as StorageEngine,
)
from mixpanel_assets.workspace import (
    Workspace as Workspace,
)

__version__: str
