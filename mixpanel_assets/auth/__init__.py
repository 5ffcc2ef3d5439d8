"""Accounts: their config file, and the credentials that are in effect."""

from mixpanel_assets.auth.access import ProjectAccess as ProjectAccess
from mixpanel_assets.auth.access import check_access as check_access
from mixpanel_assets.auth.access import project_access as project_access
from mixpanel_assets.auth.manager import AccountInfo as AccountInfo
from mixpanel_assets.auth.manager import ConfigManager as ConfigManager
from mixpanel_assets.auth.manager import asked_project as asked_project
from mixpanel_assets.auth.manager import resolve_credentials as resolve_credentials
from mixpanel_assets.auth.resolution import Resolution as Resolution
from mixpanel_assets.client import Credentials as Credentials
from mixpanel_assets.errors import AccountExistsError as AccountExistsError
from mixpanel_assets.errors import AccountNotFoundError as AccountNotFoundError
