"""Credentials and accounts, under the name that users of `mixpanel_data` know."""

from mixpanel_assets.accounts import AccountInfo, ConfigManager
from mixpanel_assets.client import Credentials
from mixpanel_assets.errors import AccountExistsError, AccountNotFoundError

__all__ = [
    "AccountExistsError",
    "AccountInfo",
    "AccountNotFoundError",
    "ConfigManager",
    "Credentials",
]
