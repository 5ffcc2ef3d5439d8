"""Credentials: where they come from.

The environment, else the account that MP_ACCOUNT names, else the default account of the
config file (`~/.mp/config.toml`, or MP_CONFIG_PATH). Region and project of the environment
override those of an account.
"""

from __future__ import annotations

import os
import stat
import tomllib
from pathlib import Path
from typing import Any

from mixpanel_assets.client import Credentials, make_credentials
from mixpanel_assets.errors import AccountNotFoundError, ConfigError

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def resolve_credentials() -> Credentials:
    """Return the credentials that hold here.

    Raises:
        ConfigError: Something is missing or malformed, or others may read the config file; the
            message names it.
        AccountNotFoundError: MP_ACCOUNT names no account of the config file.
    """
    given = {
        name: os.environ.get(f"MP_{name.upper()}", "")
        for name in ("username", "secret", "project_id", "region")
    }
    if not given["username"] and not given["secret"]:
        account = _account(read_config(config_path()), os.environ.get("MP_ACCOUNT"))
        given = {name: value or account.get(name, "") for name, value in given.items()}
    return make_credentials(**{**given, "region": given["region"] or "us"})


def config_path() -> Path:
    """Return where the config file is."""
    return Path(os.environ.get("MP_CONFIG_PATH") or "~/.mp/config.toml").expanduser()


def read_config(path: Path) -> dict[str, Any]:
    """Return the content of a config file; empty when there is none.

    Raises:
        ConfigError: Others may read it, or it is no TOML.
    """
    try:
        if os.name == "posix" and path.stat().st_mode & _OTHERS:
            raise ConfigError(
                f"{path} holds secrets and others may read it. Repair it with: chmod 600 {path}"
            )
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # The parser's message may quote the line, and the line may be the secret.
        raise ConfigError(f"{path} is no valid TOML. Look for a missing quote.") from error


def _account(config: dict[str, Any], name: str | None) -> dict[str, str]:
    accounts = config.get("accounts", {})
    name = name or config.get("default")
    if name is None:
        return {}
    if name not in accounts:
        raise AccountNotFoundError(name, sorted(accounts))
    return {key: str(value) for key, value in accounts[name].items()}
