"""ConfigManager: the accounts of a config file, and the credentials that hold here."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from mixpanel_assets.accounts.file import ConfigFile
from mixpanel_assets.accounts.resolution import FIELDS, Resolution, resolve
from mixpanel_assets.client import Credentials, is_project_secret, make_credentials
from mixpanel_assets.errors import AccountExistsError, AccountNotFoundError, ConfigError


@dataclass(frozen=True)
class AccountInfo:
    """An account of the config file, without its secret."""

    name: str
    username: str
    project_id: str
    region: str
    is_default: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


class ConfigManager:
    """Reads and changes a config file; several processes may do so at once.

    Args:
        config_path: The file; None for MP_CONFIG_PATH or `~/.mp/config.toml`. It need not
            exist: the first account makes it, readable by its owner only.

    Example:
        >>> accounts = ConfigManager()
        >>> accounts.add_account("shop", "name.a1.mp-service-account", secret, "12345", "eu")
        >>> accounts.resolve_credentials("shop").project_id
        '12345'
    """

    def __init__(self, config_path: str | Path | None = None) -> None:
        path = config_path or os.environ.get("MP_CONFIG_PATH") or "~/.mp/config.toml"
        self._file = ConfigFile(Path(path).expanduser())

    @property
    def config_path(self) -> Path:
        """Where the config file is, or will be."""
        return self._file.path

    def resolve_credentials(
        self,
        account: str | None = None,
        *,
        project_id: str | None = None,
        region: str | None = None,
    ) -> Credentials:
        """Return the credentials that hold here.

        Args:
            account: Beats the environment. None: the environment, else the account that
                MP_ACCOUNT names, else the default account.
            project_id: Instead of the account's or the environment's.
            region: Instead of the account's or the environment's.

        Raises:
            ConfigError: Something is missing or malformed, or others may read the file; the
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
        """Return which source won for each field, such as `{"secret": "MP_SECRET", ...}`.

        Values are `argument`, a variable's name, `account 'shop'`, `default` (of the region) or
        `missing`; never what the field holds. Raises as `resolve_credentials`, except that
        incomplete credentials are explained too.

        Args:
            account: As for `resolve_credentials`.
            project_id: Instead of the account's or the environment's.
            region: Instead of the account's or the environment's.

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
    ) -> Resolution:
        """Return what `resolve_credentials` would use and where it comes from.

        Args:
            account: As for `resolve_credentials`.
            project_id: Instead of the account's or the environment's.
            region: Instead of the account's or the environment's.

        Example:
            >>> accounts.resolution("market").sources()["username"]
            "account 'market'"
        """
        return resolve(
            account=account,
            arguments={"project_id": project_id, "region": region},
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
            name: The account's.

        Raises:
            AccountNotFoundError: The file has none of that name.

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
            default: Make it the default in any case.

        Raises:
            AccountExistsError: The file has one of that name.
            ConfigError: Something is missing or malformed.
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
            "username": checked.username,
            "secret": checked.secret.get_secret_value(),
            "project_id": checked.project_id,
            "region": checked.region,
        }

        def add(config: MutableMapping[str, Any]) -> None:
            known = self._accounts(config)
            if name in known:
                raise AccountExistsError(name)
            if default or not known:
                config["default"] = name
            config.setdefault("accounts", {})[name] = dict(entry)

        self._file.change(add)

    def remove_account(self, name: str) -> None:
        """Remove an account. After the default account's end there is none until one is set.

        Args:
            name: The account's.

        Raises:
            AccountNotFoundError: The file has none of that name.
            StorageError: The file cannot be written.

        Example:
            >>> accounts.remove_account("outlet")
        """
        self.get_account(name)

        def remove(config: MutableMapping[str, Any]) -> None:
            config.get("accounts", {}).pop(name, None)
            if config.get("default") == name:
                del config["default"]

        self._file.change(remove, removes=name)

    def set_default(self, name: str) -> None:
        """Make an account the default.

        Args:
            name: The account's.

        Raises:
            AccountNotFoundError: The file has none of that name.
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
            config["default"] = name

        self._file.change(switch)

    def _accounts(self, config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        accounts = config.get("accounts", {})
        if not isinstance(accounts, Mapping):
            raise ConfigError(f"{self.config_path}: `accounts` must be a table.")
        for name, entry in accounts.items():
            if not isinstance(entry, Mapping):
                raise ConfigError(f"{self.config_path}: account {name!r} must be a table.")
        return {
            name: {field: str(entry[field]) for field in FIELDS if field in entry}
            for name, entry in accounts.items()
        }

    def _default(self, config: Mapping[str, Any]) -> str | None:
        default = config.get("default")
        if default is not None and not isinstance(default, str):
            raise ConfigError(f"{self.config_path}: `default` must be an account's name.")
        return default or None


def resolve_credentials(
    account: str | None = None, *, project_id: str | None = None, region: str | None = None
) -> Credentials:
    """Return the credentials that hold here, as `ConfigManager.resolve_credentials` does."""
    return ConfigManager().resolve_credentials(account, project_id=project_id, region=region)


def _info(name: str, entry: Mapping[str, str], default: str | None) -> AccountInfo:
    username = entry.get("username", "")
    return AccountInfo(
        name=name,
        # A project secret stands where other accounts have their name.
        username="[secret]" if is_project_secret(username) else username,
        project_id=entry.get("project_id", ""),
        region=entry.get("region") or "us",
        is_default=name == default,
    )
