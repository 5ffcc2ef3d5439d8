"""Accounts: the config file that keeps them, and which credentials hold here."""

from mixpanel_assets.accounts.access import ProjectAccess, check_access, project_access
from mixpanel_assets.accounts.manager import (
    AccountInfo,
    ConfigManager,
    asked_project,
    resolve_credentials,
)
from mixpanel_assets.accounts.resolution import Resolution

__all__ = [
    "AccountInfo",
    "ConfigManager",
    "ProjectAccess",
    "Resolution",
    "asked_project",
    "check_access",
    "project_access",
    "resolve_credentials",
]
