"""ConfigManager: the accounts of a config file, and the credentials that are in effect."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from mixpanel_assets.auth.file import ConfigFile
from mixpanel_assets.auth.resolution import FIELDS, Resolution, resolve, without_accounts
from mixpanel_assets.client import Credentials, is_project_secret, make_credentials
from mixpanel_assets.errors import AccountExistsError, AccountNotFoundError, ConfigError
from mixpanel_assets.results import Result

SERVICE_ACCOUNT = "service_account"

# The names that mixpanel-headless accepts; one other name makes it refuse the whole file.
_COMMON_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_COMMON_KEYS = frozenset({"type", "region", "default_project", "username", "secret"})


@dataclass(frozen=True, repr=False)
class AccountInfo(Result):
    """An account of the config file, without its secret.

    Attributes:
        name: Its name.
        username: The service account's name; empty for other types.
        project_id: Its project; empty without one.
        region: us, eu or in.
        is_default: Whether it is used if no other account is named.
        type: `service_account`. Other types, such as `oauth_browser` of mixpanel-headless, are
            listed but cannot be used here.
    """

    name: str
    username: str
    project_id: str
    region: str
    is_default: bool
    type: str = SERVICE_ACCOUNT


class ConfigManager:
    """Reads and changes a config file; several processes may do so at the same time.

    Args:
        config_path: The file; None: MP_CONFIG_PATH or `~/.mp/config.toml`. The first account
            creates it, readable by its owner only.

    Example:
        >>> accounts = ConfigManager()
        >>> accounts.add_account("shop", "name.a1.mp-service-account", secret, "12345", "eu")
        >>> accounts.resolve_credentials("shop").project_id
        '12345'
    """

    def __init__(self, config_path: str | Path | None = None) -> None:
        path = Path(config_path or os.environ.get("MP_CONFIG_PATH") or "~/.mp/config.toml")
        # A user of a container may have no home directory, and then no config file either.
        with suppress(RuntimeError):
            path = path.expanduser()
        self._file = ConfigFile(path)

    @property
    def config_path(self) -> Path:
        """The path of the config file, which need not exist yet."""
        return self._file.path

    def resolve_credentials(
        self,
        account: str | None = None,
        *,
        project_id: str | None = None,
        region: str | None = None,
    ) -> Credentials:
        """Return the credentials that are in effect.

        Args:
            account: Takes precedence over the environment. None: the environment, else the
                account in MP_ACCOUNT, else the default account.
            project_id: Takes precedence over the account and the environment.
            region: Takes precedence over the account and the environment.

        Raises:
            ConfigError: A value is missing or malformed, or other users may read the file; the
                message names it.
            AccountNotFoundError: The account is not in the file.

        Example:
            >>> accounts.resolve_credentials("market").region
            'eu'
        """
        return self.resolution(account, project_id=project_id, region=region).credentials()

    def explain(
        self,
        account: str | None = None,
        *,
        project_id: str | None = None,
        region: str | None = None,
    ) -> dict[str, str]:
        """Return the source of each field, such as `{"secret": "MP_SECRET", ...}`.

        Sources are `argument`, a variable's name, `account 'shop'`, `default` (of the region) or
        `missing`. Incomplete credentials are explained too. Arguments and errors: see
        `ConfigManager.resolve_credentials`.

        Example:
            >>> accounts.explain("market", project_id="678")["project_id"]
            'argument'
        """
        return self.resolution(account, project_id=project_id, region=region).sources()

    def resolution(
        self,
        account: str | None = None,
        *,
        project_id: str | None = None,
        region: str | None = None,
        username: str | None = None,
        secret: str | None = None,
    ) -> Resolution:
        """Return the values for the credentials, with their sources.

        Args:
            account: See `ConfigManager.resolve_credentials`, also for the errors.
            project_id: Takes precedence over the account and the environment.
            region: Takes precedence over the account and the environment.
            username: With this or a secret, no account is used: what is missing comes from the
                environment.
            secret: See `username`.

        Example:
            >>> accounts.resolution("market").sources()["username"]
            "account 'market'"
        """
        return resolve(
            account=account,
            arguments={
                "username": username,
                "secret": secret,
                "project_id": project_id,
                "region": region,
            },
            accounts=lambda: self._accounts(self._file.read()),
            default=lambda: self._default(self._file.read()),
        )

    def list_accounts(self) -> list[AccountInfo]:
        """Return all accounts, in the order of the file.

        Example:
            >>> [account.name for account in accounts.list_accounts()]
            ['market', 'outlet']
        """
        config = self._file.read()
        default = self._default(config)
        return [_info(name, entry, default) for name, entry in self._accounts(config).items()]

    def get_account(self, name: str) -> AccountInfo:
        """Return one account.

        Args:
            name: Its name.

        Raises:
            AccountNotFoundError: The file has no account of that name.

        Example:
            >>> accounts.get_account("market").is_default
            True
        """
        for account in (listed := self.list_accounts()):
            if account.name == name:
                return account
        raise AccountNotFoundError(name, sorted(account.name for account in listed))

    def add_account(
        self,
        name: str,
        username: str,
        secret: str | SecretStr,
        project_id: str,
        region: str = "us",
        *,
        default: bool = False,
    ) -> None:
        """Add an account; the first one becomes the default.

        Args:
            name: Any printable text, without spaces at its ends.
            username: The service account's name.
            secret: Its secret.
            project_id: The project's number.
            region: `us`, `eu` or `in`.
            default: Make it the default, also if there are others.

        Raises:
            AccountExistsError: The file has an account of that name.
            ConfigError: A value is missing or malformed.
            StorageError: The file cannot be written.

        Example:
            >>> accounts.add_account("attic", "name.a1.mp-service-account", secret, "12345")
        """
        if not name or not name.isprintable() or name != name.strip():
            raise ConfigError(
                "An account's name must be printable text without spaces at its ends, such as shop."
            )
        plain = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
        names = {field: f"{field} of account {name!r}" for field in FIELDS}
        checked = make_credentials(
            username=username, secret=plain, project_id=project_id, region=region, names=names
        )
        entry = {
            "type": SERVICE_ACCOUNT,
            "region": checked.region,
            "default_project": checked.project_id,
            "username": checked.username,
            "secret": checked.secret.get_secret_value(),
        }

        def add(config: MutableMapping[str, Any]) -> None:
            known = self._accounts(config)
            if name in known:
                raise AccountExistsError(name)
            config.setdefault("accounts", {})[name] = dict(entry)
            if default or not known:
                _make_default(config, name)

        self._file.change(add)

    def remove_account(self, name: str) -> None:
        """Remove an account. Without the default account there is no default until one is set.

        Args:
            name: Its name.

        Raises:
            AccountNotFoundError: The file has no account of that name.
            StorageError: The file cannot be written.

        Example:
            >>> accounts.remove_account("outlet")
        """
        self.get_account(name)

        def remove(config: MutableMapping[str, Any]) -> None:
            config.get("accounts", {}).pop(name, None)
            if config.get("default") == name:
                del config["default"]
            if config.get("active", {}).get("account") == name:
                del config["active"]["account"]

        self._file.change(remove, removes=name)

    def set_default(self, name: str) -> None:
        """Make an account the default.

        Args:
            name: Its name.

        Raises:
            AccountNotFoundError: The file has no account of that name.
            StorageError: The file cannot be written.

        Example:
            >>> accounts.set_default("outlet")
            >>> accounts.get_account("outlet").is_default
            True
        """

        def switch(config: MutableMapping[str, Any]) -> None:
            known = self._accounts(config)
            if name not in known:
                raise AccountNotFoundError(name, sorted(known))
            _make_default(config, name)

        self._file.change(switch)

    def foreign_to_headless(self) -> dict[str, str]:
        """Return the reasons of mixpanel-headless to refuse the file, by account.

        Both packages keep their accounts in `~/.mp/config.toml`. mixpanel-headless reads accounts
        of `add_account`, but one older account makes it refuse the whole file.

        Example:
            >>> accounts.foreign_to_headless()
            {}
        """
        entries = self._file.read().get("accounts", {})
        reasons = {name: _why_foreign(name, entry) for name, entry in entries.items()}
        return {name: reason for name, reason in reasons.items() if reason}

    def migrate(self) -> tuple[list[str], Path | None]:
        """Rewrite every service account in a form that mixpanel-headless reads too.

        Returns:
            The rewritten accounts, and the copy of the former file; no copy is made without a
            change.

        Raises:
            StorageError: The file or its copy cannot be written.

        Example:
            >>> accounts.migrate()
            ([], None)
        """
        config = self._file.read()
        self._accounts(config)
        names = [name for name, entry in config.get("accounts", {}).items() if _is_old(entry)]
        if not names and "default" not in config:
            return [], None
        backup = self._file.back_up()

        def rewrite(config: MutableMapping[str, Any]) -> None:
            for name in names:
                entry = config["accounts"][name]
                entry["type"] = SERVICE_ACCOUNT
                entry.setdefault("region", "us")
                if "project_id" in entry:
                    project = entry.pop("project_id")
                    entry.setdefault("default_project", str(project))
            if default := config.pop("default", None):
                _make_default(config, default)

        self._file.change(rewrite)
        return names, backup

    def _accounts(self, config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        accounts = config.get("accounts", {})
        if not isinstance(accounts, Mapping):
            raise ConfigError(f"{self.config_path}: `accounts` must be a table.")
        for name, entry in accounts.items():
            if not isinstance(entry, Mapping):
                raise ConfigError(f"{self.config_path}: account {name!r} must be a table.")
        return {name: _fields(entry) for name, entry in accounts.items()}

    def _default(self, config: Mapping[str, Any]) -> str | None:
        active = config.get("active", {})
        if not isinstance(active, Mapping):
            raise ConfigError(f"{self.config_path}: `active` must be a table.")
        for key, default in (
            ("default", config.get("default")),
            ("account", active.get("account")),
        ):
            if default is not None and not isinstance(default, str):
                raise ConfigError(f"{self.config_path}: `{key}` must be an account's name.")
            if default:
                return default
        return None


def _fields(entry: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of an account, whose keys have an older and a newer spelling."""
    known = {"project_id": entry.get("default_project"), "type": SERVICE_ACCOUNT, **entry}
    return {field: str(known[field]) for field in (*FIELDS, "type") if known.get(field) is not None}


def _make_default(config: MutableMapping[str, Any], name: str) -> None:
    config.setdefault("active", {})["account"] = name
    if "default" in config:  # the older spelling, which takes precedence
        config["default"] = name


def _is_old(entry: Mapping[str, Any]) -> bool:
    return entry.get("type", SERVICE_ACCOUNT) == SERVICE_ACCOUNT and (
        not {"type", "region"} <= entry.keys() or "project_id" in entry
    )


def _why_foreign(name: str, entry: Mapping[str, Any]) -> str | None:
    if "type" not in entry:
        return "it has no `type`"
    if entry["type"] != SERVICE_ACCOUNT:
        return None
    if others := sorted(entry.keys() - _COMMON_KEYS):
        return f"it has the key {others[0]!r}"
    if missing := sorted(_COMMON_KEYS - {"default_project"} - entry.keys()):
        return f"it has no {missing[0]!r}"
    if not re.fullmatch(r"\d+", str(entry.get("default_project", "0"))):
        return "its `default_project` is not a number"
    if not _COMMON_NAME.fullmatch(name):
        return "its name is not made of letters, digits, - and _"
    return None


def resolve_credentials(
    account: str | None = None, *, project_id: str | None = None, region: str | None = None
) -> Credentials:
    """Return the credentials in effect; see `ConfigManager.resolve_credentials`."""
    return ConfigManager().resolve_credentials(account, project_id=project_id, region=region)


def asked_project(
    account: str | None = None,
    *,
    must_be_known: bool = False,
    arguments: Mapping[str, str] | None = None,
) -> tuple[str, str]:
    """Return the number and region of the project of a load; see `Resolution.project`.

    Args:
        account: An account of the config file; None: the environment decides.
        must_be_known: Raise the errors of the config file.
        arguments: Fields of the credentials; see `ConfigManager.resolution`.

    Raises:
        ConfigError: The account does not exist, or a value is malformed.
    """
    try:
        return ConfigManager().resolution(account, **arguments or {}).project()
    except ConfigError:
        if account is not None or must_be_known:
            raise
        return without_accounts(arguments or {}).project()


def _info(name: str, entry: Mapping[str, str], default: str | None) -> AccountInfo:
    username = entry.get("username", "")
    return AccountInfo(
        name=name,
        # Accounts with a project secret have it in place of a user name.
        username="[secret]" if is_project_secret(username) else username,
        project_id=entry.get("project_id", ""),
        region=entry.get("region") or "us",
        is_default=name == default,
        type=entry["type"],
    )
