"""A complete and exact copy of a Mixpanel project in DuckDB, as Dagster assets.

Public names load on first use, so `import mixpanel_assets` costs nothing and `Workspace`
pulls in no Dagster.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixpanel_assets.accounts import AccountInfo, ConfigManager
    from mixpanel_assets.assets.profiles import filtered_profiles_asset, group_profiles_asset
    from mixpanel_assets.client import (
        Credentials,
        MixpanelAPIClient,
        ProfilePageResult,
        RecordStream,
    )
    from mixpanel_assets.definitions import build_definitions
    from mixpanel_assets.errors import (
        AccountExistsError,
        AccountNotFoundError,
        APIError,
        AuthenticationError,
        ConfigError,
        ConnectionFailedError,
        DatabaseLockedError,
        DatabaseNotFoundError,
        IncompleteExportError,
        MixpanelDataError,
        PlanHorizonError,
        QueryError,
        RateLimitError,
        ServerError,
        StorageError,
        TableExistsError,
        TableNotFoundError,
    )
    from mixpanel_assets.fetch_results import (
        FetchResult,
        ParallelProfileFetchResult,
        ParallelProfileResult,
        ProfileBatchProgress,
        ProfileProgress,
    )
    from mixpanel_assets.io_managers import WarehouseIOManager
    from mixpanel_assets.planning import Plan
    from mixpanel_assets.profile_fetcher import ParallelProfileFetcherService
    from mixpanel_assets.resources import MixpanelResource
    from mixpanel_assets.workspace import Workspace

__version__ = "0.1.0"

__all__ = [
    "APIError",
    "AccountExistsError",
    "AccountInfo",
    "AccountNotFoundError",
    "AuthenticationError",
    "ConfigError",
    "ConfigManager",
    "ConnectionFailedError",
    "Credentials",
    "DatabaseLockedError",
    "DatabaseNotFoundError",
    "FetchResult",
    "IncompleteExportError",
    "MixpanelAPIClient",
    "MixpanelDataError",
    "MixpanelResource",
    "ParallelProfileFetchResult",
    "ParallelProfileFetcherService",
    "ParallelProfileResult",
    "Plan",
    "PlanHorizonError",
    "ProfileBatchProgress",
    "ProfilePageResult",
    "ProfileProgress",
    "QueryError",
    "RateLimitError",
    "RecordStream",
    "ServerError",
    "StorageError",
    "TableExistsError",
    "TableNotFoundError",
    "WarehouseIOManager",
    "Workspace",
    "build_definitions",
    "filtered_profiles_asset",
    "group_profiles_asset",
]

_HOMES = {
    "AccountInfo": "accounts",
    "ConfigManager": "accounts",
    "Credentials": "client",
    "FetchResult": "fetch_results",
    "MixpanelAPIClient": "client",
    "MixpanelResource": "resources",
    "ParallelProfileFetchResult": "fetch_results",
    "ParallelProfileFetcherService": "profile_fetcher",
    "ParallelProfileResult": "fetch_results",
    "Plan": "planning",
    "ProfileBatchProgress": "fetch_results",
    "ProfilePageResult": "client",
    "ProfileProgress": "fetch_results",
    "RecordStream": "client",
    "WarehouseIOManager": "io_managers",
    "Workspace": "workspace",
    "build_definitions": "definitions",
    "filtered_profiles_asset": "assets.profiles",
    "group_profiles_asset": "assets.profiles",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
