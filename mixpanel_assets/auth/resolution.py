"""The credentials in effect: arguments, the environment, or an account of the config file.

An account named in the call takes precedence over the environment. Otherwise the order is:
environment, MP_ACCOUNT, default account. A region or project id of the environment alone takes
precedence over the account's.
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
_OWN = ("username", "secret")
Accounts = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class Found:
    """A value and its source; no printed form shows the value."""

    value: str = field(repr=False)
    source: str
    name: str


@dataclass(frozen=True)
class Resolution:
    """The values for the fields of the credentials, with their sources.

    Attributes:
        account: The account that was read; None: no account was.
        found: The values by field; fields without a value are left out.
        names: The name of each field at the place where it is set.
        hidden: The account that incomplete arguments or variables keep from being used.
    """

    account: str | None
    found: Mapping[str, Found]
    names: Mapping[str, str]
    hidden: str | None = None

    def credentials(self) -> Credentials:
        """Return checked credentials.

        Raises:
            ConfigError: A value is missing or malformed; the message names it.
        """
        values = {name: found.value for name, found in self.found.items()}
        if self.hidden:
            hiding = " and ".join(self.names[name] for name in _OWN if name in values)
            missing = ", ".join(self.names[name] for name in FIELDS if name not in values)
            raise ConfigError(
                f"{hiding} is set, so the account {self.hidden!r} is not used; missing: {missing}. "
                f"Unset {hiding}, or name the account (`-a {self.hidden}`; in Python and Dagster "
                "`account=`).",
                {"variables": hiding, "account": self.hidden},
            )
        return make_credentials(**{**dict.fromkeys(FIELDS, ""), **values}, names=self.names)

    def project(self) -> tuple[str, str]:
        """Return the project's number and its region; each is empty if it is not set.

        The default region counts only together with a project.

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
        """Return the source of each field: `argument`, a variable or an account.

        A region that is not set has the source `default`, another field `missing`.
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
    """Return the value in effect for each field.

    Args:
        account: The account named in the call.
        arguments: The fields given in the call.
        accounts: Reads the config file; not called if the environment has all values.
        default: Reads the name of the default account.

    Raises:
        AccountNotFoundError: The account is not in the config file.
        ConfigError: There are accounts, but none is the default; or an account is named beside a
            user name or a secret.
    """
    given = {name: value for name, value in arguments.items() if value}
    if account is not None and (own := [name for name in _OWN if name in given]):
        raise ConfigError(
            f"The account {account!r} has a user name and a secret of its own, but "
            f"{' and '.join(own)} is set too. Leave out one of them.",
            {"account": account},
        )
    variables = _variables() if account is None else {}
    if any(values.get(name) for values in (given, variables) for name in _OWN):
        resolution = _first(None, given, variables, {})
        is_complete = resolution.found.keys() == set(FIELDS)
        hidden = None if is_complete else _usual_account(accounts, default)
        return replace(resolution, hidden=hidden)
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


def without_accounts(arguments: Mapping[str, str | None]) -> Resolution:
    """Return the values of arguments and of the environment alone."""
    given = {name: value for name, value in arguments.items() if value}
    return _first(None, given, _variables(), {})


def _usual_account(
    accounts: Callable[[], Accounts], default: Callable[[], str | None]
) -> str | None:
    """Return the account of MP_ACCOUNT or the default; None if the file cannot be read."""
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
