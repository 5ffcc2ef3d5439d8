"""Accounts: the config file that keeps them, and which credentials hold here."""

from mixpanel_assets.auth.access import ProjectAccess, check_access, project_access
from mixpanel_assets.auth.manager import (
    AccountInfo,
    ConfigManager,
    asked_project,
    resolve_credentials,
)
from mixpanel_assets.auth.resolution import Resolution
from mixpanel_assets.client import Credentials
from mixpanel_assets.errors import AccountExistsError, AccountNotFoundError

__all__ = [
    "AccountExistsError",
    "AccountInfo",
    "AccountNotFoundError",
    "ConfigManager",
    "Credentials",
    "ProjectAccess",
    "Resolution",
    "asked_project",
    "check_access",
    "project_access",
    "resolve_credentials",
]
