"""One run of `mp`: its global options, how errors and interrupts show, how answers are printed."""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from zoneinfo import ZoneInfo

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import ArgumentInfo

from mixpanel_assets.cli.options import (
    DaysAgo,
    LastOption,
    known_accounts,
    known_tables,
    range_of_last,
)
from mixpanel_assets.cli.output import Format, check_jq, print_answer
from mixpanel_assets.cli.signals import loading, seen
from mixpanel_assets.errors import visible

if TYPE_CHECKING:
    from rich.console import Console

    from mixpanel_assets.client import Credentials
    from mixpanel_assets.errors import MixpanelDataError
    from mixpanel_assets.workspace import Workspace


_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass
class Invocation:
    """One run of `mp`.

    Attributes:
        account: The account named with --account; None: as the environment says.
        quiet: No progress, no notes, no word of waiting and asking again; warnings about data stay.
        verbose: Say where credentials come from, and what the library logs.
        in_json: Whatever goes to stderr is JSON, an object a line, because --format json was asked
            for. That of an error has a `code` and is the last.
        output: The form that --format before the command asks for.
        jq: The program that --jq before the command names.
    """

    account: str | None = None
    quiet: bool = False
    verbose: bool = False
    in_json: bool = False
    output: Format | None = None
    jq: str | None = None
    _is_interrupt_shown: bool = False

    def credentials(self, account: str | None = None) -> Credentials:
        """Return the credentials that hold for this run; `account` beats --account.

        Raises:
            ConfigError: They are not complete, or malformed.
            AccountNotFoundError: There is no such account.
        """
        from mixpanel_assets.auth import ConfigManager

        resolution = ConfigManager().resolution(account or self.account)
        if self.verbose:
            for name, source in resolution.sources().items():
                self.note(f"{name}: {source}")
        return resolution.credentials()

    def project(self, *, may_be_unknown: bool = False) -> Credentials:
        """Return credentials for a command that asks Mixpanel nothing: only the project counts.

        User and secret are made up.

        Args:
            may_be_unknown: Whether the project is made up, too.

        Raises:
            ConfigError: A value is malformed, or there are accounts and none is chosen.
            AccountNotFoundError: There is no such account.
        """
        from mixpanel_assets.auth import asked_project
        from mixpanel_assets.client import make_credentials

        project_id, region = asked_project(self.account, must_be_known=not may_be_unknown)
        if not (project_id or may_be_unknown):
            return self.credentials()  # which says what is missing
        return make_credentials(
            username="nobody",
            secret="no-secret-is-known",  # noqa: S106 - it is sent nowhere
            project_id=project_id or "1",
            region=region or "us",
        )

    def workspace(self, database: Path | None = None, *, asks: bool = True) -> Workspace:
        """Return the workspace of those credentials; say whom a write waits for.

        Args:
            database: The DuckDB file; None: as MP_DATABASE says.
            asks: Whether Mixpanel will be asked, which takes a secret.
        """
        from mixpanel_assets.auth import asked_project
        from mixpanel_assets.settings import load_settings
        from mixpanel_assets.workspace import Workspace

        if asks:
            credentials = self.credentials()
        else:
            project_id, _ = asked_project(self.account, must_be_known=False)
            place = database or load_settings().database_path(project_id)
            credentials = self.project(may_be_unknown=not place.exists())
        return Workspace(
            credentials=credentials,
            path=database,
            workspace_id=_data_view(),
            on_wait=self.note,
        )

    def stored(self, database: Path | None = None, *, read_only: bool = True) -> Workspace:
        """Return the workspace of what is stored, which needs no credentials.

        The file must hold the project that a load would ask, as far as one is named.

        Args:
            database: The DuckDB file; None: as MP_DATABASE says, else that of the account.
            read_only: Refuse every change, and to read or write any other file.

        Raises:
            DatabaseNotFoundError: There is no such file.
            ConfigError: MP_DATABASE is not set, and the config file cannot be used.
        """
        from mixpanel_assets.auth import asked_project
        from mixpanel_assets.settings import load_settings
        from mixpanel_assets.warehouse import ProjectIdentity
        from mixpanel_assets.workspace import Workspace

        settings = load_settings()
        is_named = database is not None or settings.database is not None
        # The file in the home directory is named after the project.
        project_id, region = asked_project(self.account, must_be_known=not is_named)
        path = database or settings.database_path(project_id)
        workspace = Workspace.open(path, read_only=read_only, on_wait=self.note)
        workspace.storage.database.confined = read_only
        workspace.storage.asked_for = ProjectIdentity(project_id, region)
        return workspace

    def console(self) -> Console:
        """Return where bars are drawn: stderr, or nowhere with --quiet."""
        from rich.console import Console

        return Console(stderr=True, quiet=self.quiet, markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Say something that is not data."""
        if not self.quiet:
            self.say(text)

    def say(self, text: str, level: str = "info") -> None:
        """Print a line to stderr, also with --quiet."""
        if self.in_json:
            text = json.dumps({"level": level, "message": text})
        typer.echo(visible(text), err=True)

    def show(self, error: MixpanelDataError) -> None:
        """Print an error to stderr: one sentence, or one JSON object."""
        text = json.dumps(error.to_dict(), default=str) if self.in_json else f"mp: {error.message}"
        typer.echo(visible(text), err=True)

    def show_interrupt(self, kept: str = "") -> None:
        """Say once that the run was interrupted, and what is kept of it."""
        from mixpanel_assets.errors import MixpanelDataError

        if not self._is_interrupt_shown:
            self._is_interrupt_shown = True
            self.show(MixpanelDataError(f"Interrupted. {kept}".rstrip(), "INTERRUPTED"))


def _data_view() -> int | None:
    """Return the data view that MP_WORKSPACE_ID names.

    Raises:
        ConfigError: It is no number.
    """
    from mixpanel_assets.errors import ConfigError

    named = os.environ.get("MP_WORKSPACE_ID", "").strip()
    if not named:
        return None
    if not (named.isascii() and named.isdecimal()):
        raise ConfigError(f"MP_WORKSPACE_ID must be the number of a data view, not {named!r}.")
    return int(named)


class _Log(logging.Handler):
    """Says what the library logs."""

    def emit(self, record: logging.LogRecord) -> None:
        current().say(self.format(record), record.levelname.lower())


# What they warn of has been dealt with already; other warnings are about data.
_PATIENCE = (
    "mixpanel_assets.client.transport",
    "mixpanel_assets.client.budget",
    "mixpanel_assets.rules.locks",
)
_current: Invocation | None = None  # of the process, whose threads speak like the command


def begin(arguments: Sequence[str] = ()) -> Invocation:
    """Start a run.

    Args:
        arguments: Looked at for --format alone: in which form to say that they are wrong.
    """
    global _current
    _current = Invocation(in_json=_json_asked_for(arguments))
    _listen(logging.WARNING)
    for name in ("mixpanel_assets", *_PATIENCE):
        logging.getLogger(name).setLevel(logging.NOTSET)
    return _current


def current() -> Invocation:
    """Return the run that is going on."""
    return _current or begin()


def _json_asked_for(arguments: Sequence[str]) -> bool:
    wanted = ""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before in ("--format", "-f"):
            wanted = argument
        elif argument.startswith("--format="):
            wanted = argument.removeprefix("--format=")
        elif argument.startswith("-f") and len(argument) > len("-f"):
            wanted = argument.removeprefix("-f")
    return wanted in (Format.JSON, Format.JSONL)


def _listen(level: int) -> None:
    """Say what the library logs from a level on."""
    logger = logging.getLogger("mixpanel_assets")
    for handler in [one for one in logger.handlers if isinstance(one, _Log)]:
        logger.removeHandler(handler)
    logger.addHandler(_Log(level))


def _named(value: str | None) -> str | None:
    if value is not None:
        current().account = value
    return value


def _quiet(value: bool) -> bool:
    if value:
        current().quiet = True
        hush()
    return value


def hush() -> None:
    """Say no more of waiting and asking again."""
    for name in _PATIENCE:
        logging.getLogger(name).setLevel(logging.ERROR)


def _verbose(value: bool) -> bool:
    if value and not current().verbose:
        current().verbose = True
        logging.getLogger("mixpanel_assets").setLevel(logging.DEBUG)
        _listen(logging.DEBUG)
    return value


def _kept(context: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """Keep an option that stands before the command, for the command that follows."""
    if value is not None:
        setattr(current(), str(param.name), value)
    return value


def _own_or_kept(context: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """Return what the command was given, else what stands before it, else the default."""
    source = context.get_parameter_source(str(param.name))
    if source is not None and source.name == "COMMANDLINE":
        return value
    kept = getattr(current(), str(param.name))
    return value if kept is None else kept


AccountOption = Annotated[
    str | None,
    typer.Option(
        "--account",
        "-a",
        callback=_named,
        autocompletion=known_accounts,
        metavar="NAME",
        help="The account to use, whatever MP_* variables say.",
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", callback=_quiet, help="Nothing but data, warnings about it, and errors."
    ),
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", callback=_verbose, help="Say where credentials come from, and more."
    ),
]
FormatOption = Annotated[
    Format,
    typer.Option(
        "--format",
        "-f",
        callback=_own_or_kept,
        metavar="FORM",
        help="json, jsonl, table, csv or plain; stderr is JSON too for the first two.",
    ),
]
OptionalFormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        "-f",
        callback=_own_or_kept,
        metavar="FORM",
        show_default="text for people",
        help="json, jsonl, table, csv or plain; stderr is JSON too for the first two.",
    ),
]
JqOption = Annotated[
    str | None,
    typer.Option(
        "--jq",
        callback=_own_or_kept,
        metavar="PROGRAM",
        help="A jq program for JSON output, such as '.[].name'.",
    ),
]
FormatBeforeOption = Annotated[
    Format | None,
    typer.Option(
        "--format", "-f", callback=_kept, metavar="FORM", help="As --format of the command."
    ),
]
JqBeforeOption = Annotated[
    str | None,
    typer.Option("--jq", callback=_kept, metavar="PROGRAM", help="As --jq of the command."),
]

_NAMES = {"table": "table", "event": "event", "property_name": "property", "column": "column"}
_ACCOUNT = inspect.Parameter(
    "global_account", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=AccountOption
)
_LAST = inspect.Parameter(
    "global_last", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=LastOption
)
_LOUDNESS = [
    inspect.Parameter(
        "global_quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=QuietOption
    ),
    inspect.Parameter(
        "global_verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=VerboseOption
    ),
]


class _Readable:
    """Help in which flags take no value, and paragraphs are as wide as the terminal."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given | {"help": _unwrapped(given.get("help"))})

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""  # Typer would show <bool>
        return params


class _Command(_Readable, TyperCommand):
    pass


class _Group(_Readable, TyperGroup):
    pass


def _unwrapped(text: str | None) -> str | None:
    """Return a line for each paragraph, because Rich keeps the line ends of the source."""
    if text is None:
        return None
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in text.split("\n\n"))


class App(typer.Typer):
    """A group of commands that all take the options of the whole run, as the group does.

    Args:
        project_days: Whether days are days of the project's zone, as in Mixpanel's reports, and
            not of exports.
        given: As Typer's own.
    """

    def __init__(self, *, project_days: bool = False, **given: Any) -> None:
        super().__init__(cls=_Group, **given)
        self._project_days = project_days
        self.callback()(_take_options)

    def command(
        self, name: str | None = None, *, account: bool = True, **given: Any
    ) -> Callable[[_Function], _Function]:
        """Register a command.

        Args:
            name: As it is typed; None: the function's name.
            account: Whether it asks as an account, and so takes --account.
            given: As Typer's own `command`.
        """
        register = super().command(name, cls=_Command, **given)
        more = [_ACCOUNT, *_LOUDNESS] if account else _LOUDNESS

        def add(function: _Function) -> _Function:
            register(_with_options(function, more, self._today))
            return function

        return add

    def _today(self, given: Mapping[str, Any]) -> date:
        """Return the current day: of --zone where a command takes it, else as the group says."""
        from mixpanel_assets.settings import load_settings

        settings = load_settings()
        if zone := given.get("zone"):
            return datetime.now(ZoneInfo(zone)).date()
        is_projects = self._project_days or "zone" in given
        return settings.project_today() if is_projects else settings.today()


def _take_options(
    account: AccountOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    output: FormatBeforeOption = None,
    jq: JqBeforeOption = None,
) -> None:
    pass


def _with_options(
    function: _Function, more: list[inspect.Parameter], today: Callable[[Mapping[str, Any]], date]
) -> Callable[..., Any]:
    """Return a function that takes `more` too, and lets their callbacks do the work.

    One that takes a range of days takes --last, and gets dates whatever way a day was named. One
    that needs the name of a table, event, property or column takes it as an argument too.
    """
    own = list(inspect.signature(function, eval_str=True).parameters.values())
    names = [parameter.name for parameter in own]
    named = _names_of(own)
    added = {_LAST.name, *named, *(parameter.name for parameter in more)}
    if "from_date" in names and "to_date" in names:
        own.insert(names.index("to_date") + 1, _LAST)

    @functools.wraps(function)
    def command(**given: Any) -> Any:
        if "output" not in given and (current().output or current().jq):
            raise typer.BadParameter("This command takes neither --format nor --jq.")
        check_jq(given.get("jq"), given.get("output") or Format.JSON)
        _refuse_range_beside_last(given)
        _refuse_names_twice(given, named)
        asked = {name: value for name, value in given.items() if name not in added}
        try:
            return function(**_with_dates(asked, today))
        except KeyboardInterrupt:
            seen()
            raise

    shown = [*named.values(), *own, *more]
    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in shown]
    told: Any = command  # Typer reads both
    told.__signature__ = inspect.Signature(parameters)
    told.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _names_of(own: Sequence[inspect.Parameter]) -> dict[str, inspect.Parameter]:
    """Return an argument for each option that is a name and must be given, in their order."""
    if any(isinstance(told, ArgumentInfo) for one in own for told in one.annotation.__metadata__):
        return {}
    needed = [one for one in own if one.default is inspect.Parameter.empty and one.name in _NAMES]
    return {f"named_{one.name}": _name_argument(one) for one in needed}


def _name_argument(option: inspect.Parameter) -> inspect.Parameter:
    """Return an argument that stands for an option."""

    def stand(context: typer.Context, value: Any) -> Any:
        if value:
            context.default_map = {**(context.default_map or {}), option.name: value}
        return value

    kind = list[str] if typing.get_origin(option.annotation.__origin__) is list else str
    shown = _NAMES[option.name]
    told = typer.Argument(
        metavar=shown.upper(),
        is_eager=True,
        callback=stand,
        autocompletion=known_tables if shown == "table" else None,
        show_default=False,
        help=f"The {shown}; in place of its option.",
    )
    return inspect.Parameter(
        f"named_{option.name}",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[kind | None, told],
    )


def _refuse_names_twice(given: Mapping[str, Any], named: Collection[str]) -> None:
    for name in named:
        option = name.removeprefix("named_")
        if given[name] and given[name] != given[option]:
            raise typer.BadParameter(f"The {_NAMES[option]} is given twice.")


def _refuse_range_beside_last(given: Mapping[str, Any]) -> None:
    last = given.get(_LAST.name)
    if last and (given["from_date"], given["to_date"]) != range_of_last(last):
        raise typer.BadParameter("--last excludes --from and --to.")


def _with_dates(
    given: Mapping[str, Any], today: Callable[[Mapping[str, Any]], date]
) -> dict[str, Any]:
    """Return arguments with the dates of the days that were named by their distance from today."""
    if not any(isinstance(value, DaysAgo) for value in given.values()):
        return dict(given)
    current_day = today(given)
    return {
        name: value.before(current_day) if isinstance(value, DaysAgo) else value
        for name, value in given.items()
    }


@contextmanager
def told_what_is_kept(kept: Callable[[], str]) -> Iterator[None]:
    """Say what `kept` returns when the block is interrupted, and let the interrupt go on."""
    try:
        with loading():
            yield
    except KeyboardInterrupt:
        hush()  # threads that are ending would say that they ask again
        current().show_interrupt(kept())
        raise


Question = Callable[..., object]

_FORM = [
    inspect.Parameter(
        "output", inspect.Parameter.KEYWORD_ONLY, default=Format.JSON, annotation=FormatOption
    ),
    inspect.Parameter("jq", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=JqOption),
]


class Questions(App):
    """A group of commands whose functions return what is to be printed."""

    def question(
        self, name: str, *, column: str = "value", **given: Any
    ) -> Callable[[Question], Question]:
        """Register a function as a command with --format and --jq.

        Args:
            name: As it is typed.
            column: What a list of values is called where columns have names.
            given: As Typer's own `command`.

        Returns:
            A decorator; what it returns prints, and can be registered under another name too.
        """
        register = self.command(name, **given)
        return lambda function: register(answered(function, column))


def answered(function: Question, column: str) -> Question:
    """Return a function that takes --format and --jq too, and prints instead of returning."""
    own = inspect.signature(function, eval_str=True).parameters.values()

    @functools.wraps(function)
    def command(*, output: Format, jq: str | None, **given: Any) -> None:
        print_answer(function(**given), output, jq, column=column)

    parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in [*own, *_FORM]]
    told: Any = command
    told.__signature__ = inspect.Signature(parameters)
    return command
