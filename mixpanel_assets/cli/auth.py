"""`mp auth`: the accounts of the config file."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from mixpanel_assets.cli.exits import InvalidArgumentsError
from mixpanel_assets.cli.invocation import App, FormatOption, JqOption, current
from mixpanel_assets.cli.output import Format, print_record, print_records

app = App(
    name="auth",
    help="Keep accounts in the config file, and see which one holds.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="The account's name in the config file.")]


@app.command("list", account=False)
def list_accounts(output: FormatOption = Format.JSON, jq: JqOption = None) -> None:
    """List the accounts; secrets are never shown.

    Example: mp auth list --format table
    """
    from mixpanel_assets.auth import ConfigManager

    accounts = ConfigManager().list_accounts()
    if not accounts:
        current().note("No accounts yet; `mp auth add NAME` adds one.")
    print_records([one.to_dict() for one in accounts], output, jq)


@app.command("add", account=False)
def add(
    name: Name,
    username: Annotated[
        str | None, typer.Option("--username", "-u", help="Service account; else MP_USERNAME.")
    ] = None,
    project: Annotated[
        str | None, typer.Option("--project", "-p", help="Project number; else MP_PROJECT_ID.")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option("--region", "-r", help="us, eu or in; else MP_REGION.", show_default="us"),
    ] = None,
    default: Annotated[
        bool, typer.Option("--default", "-d", help="Make it the default; the first one is.")
    ] = False,
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Ask for what is not given.")
    ] = False,
    secret_stdin: Annotated[
        bool, typer.Option("--secret-stdin", help="Read the secret from stdin.")
    ] = False,
    output: FormatOption = Format.JSON,
    jq: JqOption = None,
) -> None:
    """Add an account. Its secret comes from stdin, MP_SECRET or a hidden prompt, never a flag.

    Example: mp auth add shop -u name.a1b2c3.mp-service-account -p 12345 -r eu
    """
    from mixpanel_assets.auth import ConfigManager

    may_ask = interactive or (sys.stdin.isatty() and not secret_stdin)
    username = _given(username, "username", may_ask)
    project = _given(project, "project", may_ask, variable="MP_PROJECT_ID")
    region = region or os.environ.get("MP_REGION") or (_region() if interactive else "us")
    secret = _secret(secret_stdin, may_ask)
    manager = ConfigManager()
    manager.add_account(name, username, secret, project, region, default=default)
    account = manager.get_account(name)
    current().note(f"in {manager.config_path}" + ("; the default" if account.is_default else ""))
    if foreign := manager.foreign_to_headless():
        said = "; ".join(f"{other}: {reason}" for other, reason in foreign.items())
        current().note(
            f"mixpanel-headless refuses the whole file because of older accounts ({said}). "
            "`mp auth migrate` rewrites them, and keeps a copy of the file."
        )
    print_record(account.to_dict(), output, jq)


@app.command("remove", account=False)
def remove(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Do not ask.")] = False,
    output: FormatOption = Format.JSON,
    jq: JqOption = None,
) -> None:
    """Remove an account from the config file; prints what it was.

    Example: mp auth remove shop --force
    """
    from mixpanel_assets.auth import ConfigManager

    manager = ConfigManager()
    account = manager.get_account(name)
    if not force:
        if not sys.stdin.isatty():
            raise InvalidArgumentsError("Nobody can be asked here: removing needs --force.")
        typer.confirm(f"Remove account {name!r}, its secret included?", abort=True, err=True)
    manager.remove_account(name)
    if account.is_default:
        current().note("It was the default; choose another one with `mp auth switch NAME`.")
    print_record(account.to_dict(), output, jq)


@app.command("migrate", account=False)
def migrate(output: FormatOption = Format.JSON, jq: JqOption = None) -> None:
    """Rewrite older accounts so that mixpanel-headless reads the file, too; keeps a copy of it.

    Example: mp auth migrate
    """
    from mixpanel_assets.auth import ConfigManager

    manager = ConfigManager()
    names, backup = manager.migrate()
    if backup is None:
        current().note("Nothing to do: every account is in the common form.")
    for name, reason in manager.foreign_to_headless().items():
        current().note(f"mixpanel-headless still refuses the file because of {name!r}: {reason}.")
    print_record({"migrated": names, "backup": backup and str(backup)}, output, jq)


@app.command("switch", account=False)
def switch(name: Name, output: FormatOption = Format.JSON, jq: JqOption = None) -> None:
    """Make an account the default.

    Example: mp auth switch shop
    """
    from mixpanel_assets.auth import ConfigManager

    manager = ConfigManager()
    manager.set_default(name)
    print_record(manager.get_account(name).to_dict(), output, jq)


@app.command("show")
def show(
    name: Annotated[
        str | None, typer.Argument(help="The account; without it, what holds here.")
    ] = None,
    output: FormatOption = Format.JSON,
    jq: JqOption = None,
) -> None:
    """Show an account, or what would be used here; `sources` says where each part comes from.

    Example: mp auth show
    """
    from mixpanel_assets.auth import ConfigManager

    manager = ConfigManager()
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
    print_record({**record, "sources": resolution.sources()}, output, jq)


@app.command("test")
def check(
    name: Annotated[
        str | None, typer.Argument(help="The account; without it, what holds here.")
    ] = None,
    output: FormatOption = Format.JSON,
    jq: JqOption = None,
) -> None:
    """Ask Mixpanel whether it knows the account and lets it read the project.

    Costs no request of the query budget. Warns when MP_TIME_ZONE is not the project's zone.

    Example: mp auth test shop
    """
    from mixpanel_assets.auth import check_access
    from mixpanel_assets.settings import load_settings

    settings = load_settings()
    access = check_access(current().credentials(name), settings)
    if access.is_in(settings.time_zone) is False:
        current().say(access.zone_advice(settings.time_zone), "warning")
    print_record(access.to_dict(), output, jq)


def _given(value: str | None, what: str, may_ask: bool, *, variable: str = "MP_USERNAME") -> str:
    value = value or os.environ.get(variable)
    if value:
        return value
    if not may_ask:
        raise InvalidArgumentsError(f"--{what} is missing; {variable} is not set either.")
    return str(typer.prompt(what.capitalize(), err=True))


def _region() -> str:
    return str(typer.prompt("Region (us, eu, in)", default="us", err=True))


def _secret(from_stdin: bool, may_ask: bool) -> str:
    if from_stdin:
        return _secret_line(sys.stdin.buffer.read())
    if secret := os.environ.get("MP_SECRET"):
        current().note("The secret is taken from MP_SECRET.")
        return secret
    if not may_ask:
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
        raise InvalidArgumentsError("--secret-stdin takes one line of text; stdin has none.")
    return secret
