"""Which credentials hold: arguments, the environment, or an account of the config file.

An account named in the call beats the environment. Otherwise the order is environment,
MP_ACCOUNT, default account; a region or project id of the environment alone overrides the
account's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from mixpanel_assets.client import Credentials, checked_project, make_credentials
from mixpanel_assets.errors import AccountNotFoundError, ConfigError

_USABLE = "service_account"
FIELDS = ("username", "secret", "project_id", "region")
Accounts = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Found:
    """A value and where it came from; the value is in no printed form."""

    value: str = field(repr=False)
    source: str
    name: str


@dataclass(frozen=True)
class Resolution:
    """What was found for each field of the credentials.

    Attributes:
        account: The account that was looked at; None when none was.
        found: By field; a field without a value is not there.
        names: What each field is called where its value would have to be set.
        hidden: The account that would hold if no credential stood in the environment.
    """

    account: str | None
    found: Mapping[str, Found]
    names: Mapping[str, str]
    hidden: str | None = None

    def credentials(self) -> Credentials:
        """Return checked credentials.

        Raises:
            ConfigError: Something is missing or malformed; the message names it.
        """
        values = {name: found.value for name, found in self.found.items()}
        if self.hidden and not all(values.get(name) for name in FIELDS):
            hiding = " and ".join(
                _variable(name)
                for name in ("username", "secret")
                if name in self.found and self.found[name].source == _variable(name)
            )
            missing = ", ".join(_variable(name) for name in FIELDS if not values.get(name))
            raise ConfigError(
                f"{hiding} is set, so the account {self.hidden!r} is not used; missing: {missing}. "
                f"Unset {hiding}, or name the account (`-a {self.hidden}`; in Python `account=`).",
                {"variables": hiding, "account": self.hidden},
            )
        return make_credentials(**{**dict.fromkeys(FIELDS, ""), **values}, names=self.names)

    def project(self) -> tuple[str, str]:
        """Return the project's number and its region; each is empty if nothing names it.

        The region that holds where none is set, holds for a project alone.

        Raises:
            ConfigError: One of them is malformed.
        """
        named = {
            name: self.found[name].value for name in ("project_id", "region") if name in self.found
        }
        project_id, region = checked_project(
            named.get("project_id", ""), named.get("region", ""), self.names
        )
        is_set = project_id or self.sources()["region"] != "default"
        return project_id, region if is_set else ""

    def sources(self) -> dict[str, str]:
        """Return for each field which source won: `argument`, a variable, an account.

        `default` for a region that nobody set, `missing` for anything else that nobody set.
        """
        return {
            name: self.found[name].source if name in self.found else "missing" for name in FIELDS
        }


def resolve(
    *,
    account: str | None,
    arguments: Mapping[str, str | None],
    accounts: Callable[[], Accounts],
    default: Callable[[], str | None],
) -> Resolution:
    """Return what holds for each field.

    Args:
        account: Named in the call.
        arguments: Given in the call, by field.
        accounts: Reads the config file; not called when the environment says it all.
        default: Reads the name of the default account.

    Raises:
        AccountNotFoundError: The account is not in the config file.
        ConfigError: There are accounts and none is chosen.
    """
    given = {name: value for name, value in arguments.items() if value}
    variables = _variables() if account is None else {}
    if variables.get("username") or variables.get("secret"):
        return replace(
            _first(None, given, variables, {}), hidden=_hidden(variables, accounts, default)
        )
    if account is None:
        account = os.environ.get("MP_ACCOUNT") or default()
    known = accounts()
    if account is None:
        if known:
            raise ConfigError(
                f"No account is the default; there are: {', '.join(sorted(known))}. "
                "Choose one with `mp auth switch NAME`, --account or MP_ACCOUNT.",
                {"available_accounts": sorted(known)},
            )
        return _first(None, given, variables, {})
    if account not in known:
        raise AccountNotFoundError(account, sorted(known))
    if (kind := known[account].get("type", _USABLE)) != _USABLE:
        raise ConfigError(
            f"The account {account!r} is of type {kind}, which mixpanel_assets cannot use: a "
            "server has no browser to log in with. Add a service account with `mp auth add`.",
            {"account": account, "type": kind},
        )
    return _first(account, given, variables, known[account])


def of_variables() -> Resolution:
    """Return what the environment alone says."""
    return _first(None, {}, _variables(), {})


def _hidden(
    variables: Mapping[str, str],
    accounts: Callable[[], Accounts],
    default: Callable[[], str | None],
) -> str | None:
    """Return the account that incomplete variables hide; a file that cannot be read hides none."""
    if all(variables[name] for name in FIELDS if name != "region"):
        return None
    with suppress(ConfigError):
        name = os.environ.get("MP_ACCOUNT") or default()
        return name if name in accounts() else None
    return None


def _first(
    account: str | None,
    arguments: Mapping[str, str],
    variables: Mapping[str, str],
    entry: Mapping[str, str],
) -> Resolution:
    found = {}
    for name in FIELDS:
        of_account = f"{name} of account {account!r}"
        for values, source, called in (
            (arguments, "argument", name),
            (variables, _variable(name), _variable(name)),
            (entry, f"account {account!r}", of_account),
            ({"region": "us"}, "default", _variable(name)),
        ):
            if value := values.get(name):
                found[name] = Found(value, source, called)
                break
    names = {
        name: _variable(name) if account is None else f"{name} of account {account!r}"
        for name in FIELDS
    }
    return Resolution(account, found, {**names, **{n: f.name for n, f in found.items()}})


def _variables() -> dict[str, str]:
    return {name: os.environ.get(_variable(name), "") for name in FIELDS}


def _variable(name: str) -> str:
    return f"MP_{name.upper()}"
