"""`mp auth`: the accounts in the config file."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from mixpanel_assets.cli.exits import InvalidArgumentsError
from mixpanel_assets.cli.invocation import App, current
from mixpanel_assets.cli.options import ForceOption, confirm

if TYPE_CHECKING:
    from mixpanel_assets.auth import ConfigManager

app = App(
    name="auth",
    help="Manage the accounts in the config file, and show which one is used.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="The account's name in the config file.")]
OptionalName = Annotated[
    str | None, typer.Argument(help="The account; default: the one that is used here.")
]


@app.command("list", account=False)
def list_accounts() -> object:
    """List the accounts. Secrets are never shown.

    Example: mp auth list --format table
    """
    accounts = _config_file().list_accounts()
    if not accounts:
        current().note("No accounts yet; `mp auth add NAME` adds one.")
    return accounts


@app.command("add", account=False)
def add(
    name: Name,
    username: Annotated[
        str | None, typer.Option("--username", "-u", help="Service account; default: MP_USERNAME.")
    ] = None,
    project: Annotated[
        str | None, typer.Option("--project", "-p", help="Project number; default: MP_PROJECT_ID.")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option("--region", "-r", help="us, eu or in; default: MP_REGION.", show_default="us"),
    ] = None,
    default: Annotated[
        bool,
        typer.Option("--default", "-d", help="Make it the default account, as the first one is."),
    ] = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Ask for missing values.")
    ] = False,
    secret_stdin: Annotated[
        bool, typer.Option("--secret-stdin", help="Read the secret from stdin.")
    ] = False,
) -> object:
    """Add an account. Its secret comes from stdin, MP_SECRET or a hidden prompt, never a flag.

    Example: mp auth add shop -u name.a1b2c3.mp-service-account -p 12345 -r eu
    """
    can_prompt = interactive or (sys.stdin.isatty() and not secret_stdin)
    username = _value(username, "username", can_prompt)
    project = _value(project, "project", can_prompt, variable="MP_PROJECT_ID")
    region = region or os.environ.get("MP_REGION") or (_ask_region() if interactive else "us")
    secret = _secret(secret_stdin, can_prompt)
    manager = _config_file()
    manager.add_account(name, username, secret, project, region, default=default)
    account = manager.get_account(name)
    current().note(f"in {manager.config_path}" + (", default" if account.is_default else ""))
    if foreign_accounts := manager.foreign_to_headless():
        reasons = "; ".join(f"{other}: {reason}" for other, reason in foreign_accounts.items())
        current().note(
            f"mixpanel-headless refuses the file because of older accounts ({reasons}). "
            "`mp auth migrate` rewrites them, and keeps a copy of the file."
        )
    return account


@app.command("remove", account=False)
def remove(name: Name, force: ForceOption = False) -> object:
    """Remove an account from the config file, and print it.

    Example: mp auth remove shop --force
    """
    manager = _config_file()
    account = manager.get_account(name)
    confirm(force, f"Remove account {name!r}, its secret included?")
    manager.remove_account(name)
    if account.is_default:
        current().note("It was the default. Choose another one with `mp auth switch NAME`.")
    return account


@app.command("migrate", account=False)
def migrate() -> object:
    """Rewrite older accounts so that mixpanel-headless reads the file too. Keeps a copy of it.

    Example: mp auth migrate
    """
    manager = _config_file()
    names, backup = manager.migrate()
    if backup is None:
        current().note("Nothing to do: every account has the current form.")
    for name, reason in manager.foreign_to_headless().items():
        current().note(f"mixpanel-headless still refuses the file because of {name!r}: {reason}.")
    return {"migrated": names, "backup": backup and str(backup)}


@app.command("switch", account=False)
def switch(name: Name) -> object:
    """Make an account the default.

    Example: mp auth switch shop
    """
    manager = _config_file()
    manager.set_default(name)
    return manager.get_account(name)


@app.command("show")
def show(name: OptionalName = None) -> object:
    """Show an account; `sources` names the origin of each value.

    Example: mp auth show
    """
    manager = _config_file()
    resolution = manager.resolution(name or current().account)
    record: dict[str, object]
    if name or current().account:
        record = manager.get_account(str(resolution.account)).to_dict()
    else:
        credentials = resolution.credentials()
        record = {
            "name": resolution.account,
            "username": credentials.username,
            "project_id": credentials.project_id,
            "region": credentials.region,
            "is_default": resolution.account is not None
            and manager.get_account(resolution.account).is_default,
        }
    return {**record, "sources": resolution.sources()}


@app.command("test")
def check(name: OptionalName = None) -> object:
    """Check that Mixpanel knows the account and that the account can read the project.

    Costs no request of the query budget. Warns if MP_TIME_ZONE is not the project's time zone.

    Example: mp auth test shop
    """
    from mixpanel_assets.auth import check_access
    from mixpanel_assets.settings import load_settings

    settings = load_settings()
    access = check_access(current().credentials(name), settings)
    if access.is_in(settings.time_zone) is False:
        current().say(access.zone_advice(settings.time_zone), "warning")
    return access.to_dict()


def _config_file() -> ConfigManager:
    from mixpanel_assets.auth import ConfigManager

    return ConfigManager()


def _value(value: str | None, what: str, can_prompt: bool, *, variable: str = "MP_USERNAME") -> str:
    value = value or os.environ.get(variable)
    if value:
        return value
    if not can_prompt:
        raise InvalidArgumentsError(f"--{what} is missing, and {variable} is not set.")
    return str(typer.prompt(what.capitalize(), err=True))


def _ask_region() -> str:
    return str(typer.prompt("Region (us, eu, in)", default="us", err=True))


def _secret(from_stdin: bool, can_prompt: bool) -> str:
    if from_stdin:
        return _secret_line(sys.stdin.buffer.read())
    if secret := os.environ.get("MP_SECRET"):
        current().note("The secret is taken from MP_SECRET.")
        return secret
    if not can_prompt:
        raise InvalidArgumentsError(
            "The secret is missing: set MP_SECRET, or give it on stdin with --secret-stdin."
        )
    return str(typer.prompt("Secret", hide_input=True, err=True))


def _secret_line(content: bytes) -> str:
    try:
        secret = content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        secret = ""
    if not secret.strip() or not secret.strip().isprintable():
        raise InvalidArgumentsError("--secret-stdin needs one line of text on stdin.")
    return secret
