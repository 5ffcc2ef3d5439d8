"""What users of `mixpanel_data` know: names, parameters, defaults and fields, as stubs.

The fields of results of reports and stored tables are in `test_results.py`, the parameters of
`DiscoveryService` and `LiveQueryService` in `test_live.py`.
"""

from typing import Any

STUBS = """
class Workspace:
    def __init__(
        self, account=None, project_id=None, region=None, path=None, read_only=False,
        workspace_id=None,
    ): ...
    workspace_id: property
    def set_workspace_id(self, workspace_id): ...
    @classmethod
    def ephemeral(cls, account=None, project_id=None, region=None): ...
    @classmethod
    def memory(cls, account=None, project_id=None, region=None): ...
    @classmethod
    def open(cls, path, *, read_only=True): ...
    def close(self): ...
    @staticmethod
    def test_credentials(account=None): ...
    storage: property
    def events(self): ...
    def properties(self, event): ...
    def property_values(self, property_name, *, event=None, limit=100): ...
    def funnels(self): ...
    def cohorts(self): ...
    def list_bookmarks(self, bookmark_type=None): ...
    def top_events(self, *, type="general", limit=None): ...
    def clear_discovery_cache(self): ...
    def lexicon_schemas(self, *, entity_type=None): ...
    def lexicon_schema(self, entity_type, name): ...
    def fetch_events(
        self, name="events", *, from_date, to_date, events=None, where=None, limit=None,
        progress=True, append=False, batch_size=1000, parallel=False, max_workers=None,
        on_batch_complete=None, chunk_days=7,
    ): ...
    def fetch_profiles(
        self, name="profiles", *, where=None, cohort_id=None, output_properties=None,
        progress=True, append=False, batch_size=1000, distinct_id=None, distinct_ids=None,
        group_id=None, behaviors=None, as_of_timestamp=None, include_all_users=False,
        parallel=False, max_workers=None, on_page_complete=None,
    ): ...
    def stream_events(
        self, *, from_date, to_date, events=None, where=None, limit=None, raw=False
    ): ...
    def stream_profiles(
        self, *, where=None, cohort_id=None, output_properties=None, raw=False,
        distinct_id=None, distinct_ids=None, group_id=None, behaviors=None,
        as_of_timestamp=None, include_all_users=False,
    ): ...
    def sql(self, query): ...
    def sql_scalar(self, query): ...
    def sql_rows(self, query): ...
    def segmentation(self, event, *, from_date, to_date, on=None, unit="day", where=None): ...
    def funnel(self, funnel_id, *, from_date, to_date, unit=None, on=None): ...
    def retention(
        self, *, born_event, return_event, from_date, to_date, born_where=None,
        return_where=None, interval=1, interval_count=10, unit="day",
    ): ...
    def jql(self, script, params=None): ...
    def event_counts(self, events, *, from_date, to_date, type="general", unit="day"): ...
    def property_counts(
        self, event, property_name, *, from_date, to_date, type="general", unit="day",
        values=None, limit=None,
    ): ...
    def activity_feed(self, distinct_ids, *, from_date=None, to_date=None): ...
    def query_saved_report(
        self, bookmark_id, *, bookmark_type="insights", from_date=None, to_date=None
    ): ...
    def frequency(
        self, *, from_date, to_date, unit="day", addiction_unit="hour", event=None, where=None
    ): ...
    def segmentation_numeric(
        self, event, *, from_date, to_date, on, unit="day", where=None, type="general"
    ): ...
    def segmentation_sum(self, event, *, from_date, to_date, on, unit="day", where=None): ...
    def segmentation_average(self, event, *, from_date, to_date, on, unit="day", where=None): ...
    def property_distribution(self, event, property, *, from_date, to_date, limit=20): ...
    def numeric_summary(self, event, property, *, from_date, to_date, percentiles=None): ...
    def daily_counts(self, *, from_date, to_date, events=None): ...
    def engagement_distribution(self, *, from_date, to_date, events=None, buckets=None): ...
    def property_coverage(self, event, properties, *, from_date, to_date): ...
    def info(self): ...
    def tables(self): ...
    def table_schema(self, table): ...
    def schema(self, table): ...
    def sample(self, table, n=10): ...
    def summarize(self, table): ...
    def event_breakdown(self, table): ...
    def property_keys(self, table, event=None): ...
    def column_stats(self, table, column, *, top_n=10): ...
    def drop(self, *names): ...
    def drop_all(self, type=None): ...
    connection: property
    db_path: property
    api: property

class ConfigManager:
    def __init__(self, config_path=None): ...
    config_path: property
    def resolve_credentials(self, account=None): ...
    def list_accounts(self): ...
    def add_account(self, name, username, secret, project_id, region): ...
    def remove_account(self, name): ...
    def set_default(self, name): ...
    def get_account(self, name): ...

class Credentials:
    def auth_header(self): ...

class ResultWithDataFrame:
    df: property
    def to_table_dict(self): ...

class SQLResult:
    def to_dicts(self): ...

class JQLResult:
    raw: property

class SavedReportResult:
    report_type: property

class ParallelFetchResult:
    has_failures: property

class ProfilePageResult:
    num_pages: property

class ParallelProfileResult:
    has_failures: property
"""

# Name -> fields in order; `?` marks one with a default.
FIELDS = {
    "FetchResult": "table rows type duration_seconds date_range fetched_at",
    "BatchProgress": "from_date to_date batch_index total_batches rows success error?",
    "BatchResult": "from_date to_date rows success error?",
    "ParallelFetchResult": (
        "table total_rows successful_batches failed_batches failed_date_ranges duration_seconds "
        "fetched_at"
    ),
    "ProfilePageResult": "profiles session_id page has_more total page_size",
    "ProfileProgress": "page_index total_pages rows success error cumulative_rows",
    "ParallelProfileResult": (
        "table total_rows successful_pages failed_pages failed_page_indices duration_seconds "
        "fetched_at"
    ),
    "AccountInfo": "name username project_id region is_default",
}

WITH_FRAME = [
    "SegmentationResult",
    "FunnelResult",
    "RetentionResult",
    "JQLResult",
    "EventCountsResult",
    "PropertyCountsResult",
    "ActivityFeedResult",
    "SavedReportResult",
    "FrequencyResult",
    "NumericBucketResult",
    "NumericSumResult",
    "NumericAverageResult",
    "SummaryResult",
    "EventBreakdownResult",
    "ColumnStatsResult",
    "PropertyDistributionResult",
    "DailyCountsResult",
    "EngagementDistributionResult",
    "PropertyCoverageResult",
]

SERVICES = [
    "StorageEngine",
    "FetcherService",
    "DiscoveryService",
    "LiveQueryService",
    "MixpanelAPIClient",
    "ParallelProfileFetcherService",
]

# Older names of the same things.
OTHER_NAMES = {
    "ProfileBatchProgress": "ProfileProgress",
    "ParallelProfileFetchResult": "ParallelProfileResult",
}

CHOICES = {
    "TimeUnit": ("day", "week", "month"),
    "HourDayUnit": ("hour", "day"),
    "CountType": ("general", "unique", "average"),
    "TableType": ("events", "profiles"),
    "EntityType": ("event", "profile"),
    "SavedReportType": ("insights", "retention", "funnel", "flows"),
}

_REQUEST: dict[str, Any] = {
    "response_body": "no",
    "request_method": "GET",
    "request_url": "/x",
    "request_params": {"a": 1},
    "request_body": {"b": 2},
}
# Name -> what it is, its code, how it is made, and what it then carries.
ERRORS: dict[str, tuple[str, str, tuple[tuple[Any, ...], dict[str, Any]], dict[str, Any]]] = {
    "MixpanelDataError": ("Exception", "UNKNOWN_ERROR", (("said",), {}), {"details": {}}),
    "APIError": (
        "MixpanelDataError",
        "API_ERROR",
        (("said",), {"status_code": 402, **_REQUEST}),
        {"status_code": 402, **_REQUEST},
    ),
    "ConfigError": (
        "MixpanelDataError",
        "CONFIG_ERROR",
        (("said", {"a": 1}), {}),
        {"details": {"a": 1}},
    ),
    "AccountNotFoundError": (
        "ConfigError",
        "ACCOUNT_NOT_FOUND",
        (("shop", ["a"]), {}),
        {"account_name": "shop", "available_accounts": ["a"]},
    ),
    "AccountExistsError": (
        "ConfigError",
        "ACCOUNT_EXISTS",
        (("shop",), {}),
        {"account_name": "shop"},
    ),
    "AuthenticationError": (
        "APIError",
        "AUTH_FAILED",
        ((), {}),
        {"message": "Authentication failed", "status_code": 401},
    ),
    "RateLimitError": (
        "APIError",
        "RATE_LIMITED",
        ((), {"retry_after": 5}),
        {"message": "Rate limit exceeded", "status_code": 429, "retry_after": 5},
    ),
    "EventNotFoundError": (
        "MixpanelDataError",
        "EVENT_NOT_FOUND",
        (("Sign", ["Sign Up"]), {}),
        {"event_name": "Sign", "similar_events": ["Sign Up"]},
    ),
    "QueryError": (
        "APIError",
        "QUERY_FAILED",
        ((), _REQUEST),
        {"message": "Query execution failed", "status_code": 400, **_REQUEST},
    ),
    "ServerError": (
        "APIError",
        "SERVER_ERROR",
        ((), _REQUEST),
        {"message": "Server error", "status_code": 500, **_REQUEST},
    ),
    "TableExistsError": ("MixpanelDataError", "TABLE_EXISTS", (("t",), {}), {"table_name": "t"}),
    "TableNotFoundError": (
        "MixpanelDataError",
        "TABLE_NOT_FOUND",
        (("t",), {}),
        {"table_name": "t"},
    ),
    "DatabaseLockedError": (
        "MixpanelDataError",
        "DATABASE_LOCKED",
        (("/x.db", 7), {}),
        {"db_path": "/x.db", "holding_pid": 7},
    ),
    "DatabaseNotFoundError": (
        "MixpanelDataError",
        "DATABASE_NOT_FOUND",
        (("/x.db",), {}),
        {"db_path": "/x.db"},
    ),
    "JQLSyntaxError": (
        "QueryError",
        "JQL_SYNTAX_ERROR",
        (("TypeError: bad", "script", "/jql"), {}),
        {
            "error_type": "TypeError",
            "error_message": "bad",
            "line_info": None,
            "stack_trace": None,
            "script": "script",
            "raw_error": "TypeError: bad",
            "status_code": 412,
        },
    ),
    "DateRangeTooLargeError": (
        "MixpanelDataError",
        "DATE_RANGE_TOO_LARGE",
        (("2024-01-01", "2024-12-31", 366), {}),
        {
            "from_date": "2024-01-01",
            "to_date": "2024-12-31",
            "days_requested": 366,
            "max_days": 100,
        },
    ),
}
