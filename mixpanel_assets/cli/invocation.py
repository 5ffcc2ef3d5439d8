"""One run of `mp`: its global options, its messages on stderr, and how commands are registered."""

from __future__ import annotations

import copy
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
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo

import typer
from typer.core import TyperCommand, TyperGroup
from typer.models import ArgumentInfo

from mixpanel_assets.cli.options import (
    DaysAgo,
    LastOption,
    complete_account,
    complete_table,
    range_of_last,
)
from mixpanel_assets.cli.output import Answer, Format, check_jq, print_answer
from mixpanel_assets.cli.signals import loading, mark_caught
from mixpanel_assets.errors import visible

if TYPE_CHECKING:
    from rich.console import Console

    from mixpanel_assets.client import Credentials
    from mixpanel_assets.errors import MixpanelDataError
    from mixpanel_assets.workspace import Workspace


_Function = TypeVar("_Function", bound=Callable[..., Any])


_INTERRUPTED = "INTERRUPTED"


@dataclass
class Invocation:
    """One run of `mp`.

    Attributes:
        account: The account named by --account; None: the one of the environment.
        quiet: Print no progress, notes, or messages about waiting and retries. Warnings about data
            are still printed.
        verbose: Print the sources of the credentials, and what the library logs.
        in_json: Messages on stderr are JSON, one object per line, because of --format json. An
            error has a `code` and is the last line.
        output: The form of --format; None: not given.
        jq: The program of --jq.
    """

    account: str | None = None
    quiet: bool = False
    verbose: bool = False
    in_json: bool = False
    output: Format | None = None
    jq: str | None = None
    _is_interrupt_shown: bool = False

    def credentials(self, account: str | None = None) -> Credentials:
        """Return the credentials of this run; `account` has priority over --account."""
        from mixpanel_assets.auth import ConfigManager

        resolution = ConfigManager().resolution(account or self.account)
        if self.verbose:
            for name, source in resolution.sources().items():
                self.note(f"{name}: {source}")
        return resolution.credentials()

    def project(self, *, may_be_unknown: bool = False) -> Credentials:
        """Return credentials for a command that sends no request: only the project is real.

        Not even the project is real if it `may_be_unknown`.
        """
        from mixpanel_assets.auth import asked_project
        from mixpanel_assets.client import make_credentials

        project_id, region = asked_project(self.account, must_be_known=not may_be_unknown)
        if not (project_id or may_be_unknown):
            return self.credentials()  # raises: its message names what is missing
        return make_credentials(
            username="nobody",
            secret="no-secret-is-known",  # noqa: S106 - it is never sent
            project_id=project_id or "1",
            region=region or "us",
        )

    def workspace(
        self,
        database: Path | None = None,
        *,
        sends_requests: bool = True,
        max_wait_seconds: float | None = 900.0,
    ) -> Workspace:
        """Return the workspace of those credentials; without requests, no secret is needed.

        A request waits for the budget for `max_wait_seconds` at most; None: without a limit.
        """
        from mixpanel_assets.auth import asked_project
        from mixpanel_assets.settings import load_settings
        from mixpanel_assets.workspace import Workspace

        if sends_requests:
            credentials = self.credentials()
        else:
            project_id, _ = asked_project(self.account, must_be_known=False)
            stored = load_settings().with_values(database=database).database_for(project_id)
            credentials = self.project(may_be_unknown=stored.is_missing)
        return Workspace(
            credentials=credentials,
            path=database,
            workspace_id=_data_view(),
            on_wait=self.note,
            max_wait_seconds=max_wait_seconds,
        )

    def open_stored(self, database: Path | None = None, *, read_only: bool = True) -> Workspace:
        """Return a workspace for stored data, which needs no credentials.

        If a project is named, by an account or a variable, the file must contain that project. The
        default file is that of MP_DATABASE, else of the account. `read_only` also refuses access to
        any other file.
        """
        from mixpanel_assets.auth import asked_project
        from mixpanel_assets.settings import load_settings
        from mixpanel_assets.warehouse import ProjectIdentity
        from mixpanel_assets.workspace import Workspace

        settings = load_settings()
        has_file_name = database is not None or settings.database is not None
        # The file in the home directory is named after the project.
        project_id, region = asked_project(self.account, must_be_known=not has_file_name)
        path = database or settings.database_location(project_id)
        workspace = Workspace.open(path, read_only=read_only, on_wait=self.note)
        workspace.storage.database.confined = read_only
        workspace.storage.asked_for = ProjectIdentity(project_id, region)
        return workspace

    def console(self) -> Console:
        """Return the console for progress bars: stderr, or nothing with --quiet."""
        from rich.console import Console

        return Console(stderr=True, quiet=self.quiet, markup=False, highlight=False, soft_wrap=True)

    def note(self, message: str) -> None:
        """Print a message to stderr unless --quiet is given."""
        if not self.quiet:
            self.say(message)

    def say(self, message: str, level: str = "info") -> None:
        """Print a message to stderr, also with --quiet."""
        if self.in_json:
            message = json.dumps({"level": level, "message": message})
        typer.echo(visible(message), err=True)

    def show(self, error: MixpanelDataError) -> None:
        """Print an error to stderr: as text, or as one JSON object."""
        line = json.dumps(error.to_dict(), default=str)
        if not self.in_json:
            line = f"mp: {error.message}"
            if error.code != _INTERRUPTED:  # the message of an interrupt says all
                line += f" ({error.code}: {error.page})"
        typer.echo(visible(line), err=True)

    def show_interrupt(self, kept: str = "") -> None:
        """Print once that the run was interrupted, and a sentence on what it stored."""
        from mixpanel_assets.errors import MixpanelDataError

        if not self._is_interrupt_shown:
            self._is_interrupt_shown = True
            self.show(MixpanelDataError(f"Interrupted. {kept}".rstrip(), _INTERRUPTED))


def _data_view() -> int | None:
    """Return the number of the data view in MP_WORKSPACE_ID."""
    from mixpanel_assets.errors import ConfigError

    variable = os.environ.get("MP_WORKSPACE_ID", "").strip()
    if not variable:
        return None
    if not (variable.isascii() and variable.isdecimal()):
        raise ConfigError(f"MP_WORKSPACE_ID must be the number of a data view, not {variable!r}.")
    return int(variable)


class _Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        current().say(self.format(record), record.levelname.lower())


# They warn about waiting and retries. All other warnings are about data.
_RETRY_LOGGERS = (
    "mixpanel_assets.client.transport",
    "mixpanel_assets.client.budget",
    "mixpanel_assets.rules.locks",
)
# One for the process: messages of its threads must have the form of the command.
_current: Invocation | None = None


def begin(arguments: Sequence[str] = ()) -> Invocation:
    """Start a run. Of the arguments, only --format is read: errors of parsing have its form."""
    global _current
    _current = Invocation(in_json=_wants_json(arguments))
    _print_logs(logging.WARNING)
    for name in ("mixpanel_assets", *_RETRY_LOGGERS):
        logging.getLogger(name).setLevel(logging.NOTSET)
    return _current


def current() -> Invocation:
    """Return the current run."""
    return _current or begin()


def _wants_json(arguments: Sequence[str]) -> bool:
    form = ""
    for flag, argument in zip(["", *arguments], arguments, strict=False):
        if flag in ("--format", "-f"):
            form = argument
        elif argument.startswith("--format="):
            form = argument.removeprefix("--format=")
        elif argument.startswith("-f") and len(argument) > len("-f"):
            form = argument.removeprefix("-f")
    return form in (Format.JSON, Format.JSONL)


def _print_logs(level: int) -> None:
    logger = logging.getLogger("mixpanel_assets")
    for handler in [one for one in logger.handlers if isinstance(one, _Log)]:
        logger.removeHandler(handler)
    logger.addHandler(_Log(level))


def _set_quiet(value: bool) -> bool:
    if value:
        current().quiet = True
        _silence_retries()
    return value


def _silence_retries() -> None:
    for name in _RETRY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)


def _set_verbose(value: bool) -> bool:
    if value and not current().verbose:
        current().verbose = True
        logging.getLogger("mixpanel_assets").setLevel(logging.DEBUG)
        _print_logs(logging.DEBUG)
    return value


def _set_default(context: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """Store an option in the run, as the default of the command."""
    if value is not None:
        setattr(current(), str(param.name).removeprefix("global_"), value)
    return value


def _own_or_default(context: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """Return the option of the command, else the one before the command, else the default."""
    source = context.get_parameter_source(str(param.name))
    if source is not None and source.name == "COMMANDLINE":
        return value
    option_before_command = getattr(current(), str(param.name))
    return value if option_before_command is None else option_before_command


AccountOption = Annotated[
    str | None,
    typer.Option(
        "--account",
        "-a",
        callback=_set_default,
        autocompletion=complete_account,
        metavar="NAME",
        help="The account to use instead of MP_* variables.",
    ),
]
_QUIET_HELP = "Print only data, warnings about data, and errors."
_VERBOSE_HELP = "Print the sources of credentials, and more."
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", callback=_set_quiet, help=_QUIET_HELP)]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", callback=_set_verbose, help=_VERBOSE_HELP)
]


def _format_option(callback: Callable[..., Any], description: str, **options: Any) -> Any:
    return typer.Option(
        "--format", "-f", callback=callback, metavar="FORM", help=description, **options
    )


_FORMS_HELP = "json, jsonl, table, csv or plain; json and jsonl make stderr JSON too."
FormatOption = Annotated[Format, _format_option(_own_or_default, _FORMS_HELP)]
OptionalFormatOption = Annotated[
    Format | None, _format_option(_own_or_default, _FORMS_HELP, show_default="text for people")
]
JqOption = Annotated[
    str | None,
    typer.Option(
        "--jq",
        callback=_own_or_default,
        metavar="PROGRAM",
        help="A jq program for JSON output, such as '.[].name'.",
    ),
]
FormatBeforeOption = Annotated[
    Format | None, _format_option(_set_default, "Same as --format of the command.")
]
JqBeforeOption = Annotated[
    str | None,
    typer.Option(
        "--jq", callback=_set_default, metavar="PROGRAM", help="Same as --jq of the command."
    ),
]


def _parameter(name: str, default: object, annotation: object) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


_NAMES = {"table": "table", "event": "event", "property_name": "property", "column": "column"}
_ACCOUNT = _parameter("global_account", None, AccountOption)
_LAST = _parameter("global_last", None, LastOption)
_MESSAGES = [
    _parameter("global_quiet", False, QuietOption),
    _parameter("global_verbose", False, VerboseOption),
]
_JQ = _parameter("jq", None, JqOption)
# What a command prints without --format. `nothing`: it takes no --format and prints its own text.
Form = Literal["json", "text", "nothing"]
_FORMS: dict[Form, list[inspect.Parameter]] = {
    "json": [_parameter("output", Format.JSON, FormatOption), _JQ],
    "text": [_parameter("output", None, OptionalFormatOption), _JQ],
    "nothing": [],
}


class _Readable:
    """Help that shows flags without a value, and paragraphs as wide as the terminal."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | {"help": _unwrap(options.get("help"))})

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


def _unwrap(help_text: str | None) -> str | None:
    if help_text is None:
        return None
    # Rich keeps the line ends of the source.
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in help_text.split("\n\n"))


class App(typer.Typer):
    """A group of commands; the group and each command take the global options.

    With `project_days`, days are days of the project's zone, as in Mixpanel's reports. Otherwise
    they are days of exports.
    """

    def __init__(self, *, project_days: bool = False, **options: Any) -> None:
        super().__init__(cls=_Group, **options)
        self._project_days = project_days
        self.callback()(_take_options)

    def command(
        self, name: str | None = None, *, account: bool = True, form: Form = "json", **options: Any
    ) -> Callable[[_Function], _Function]:
        """Register a function as a command, which prints what the function returns.

        Args:
            name: Name of the command; None: the function's name.
            account: Whether the command takes --account.
            form: What the command prints without --format.
            options: Options of Typer's `command`.
        """
        register = super().command(name, cls=_Command, **options)
        global_options = [*_FORMS[form], *([_ACCOUNT] if account else []), *_MESSAGES]

        def add(function: _Function) -> _Function:
            register(_command(function, global_options, self._today))
            return function

        return add

    def add_short(self, group: App, name: str, panel: str) -> None:
        """Register a command of a group in this app too, under the same name."""
        command = next(one for one in group.registered_commands if one.name == name)
        short_command = copy.copy(command)
        short_command.rich_help_panel = panel
        self.registered_commands.append(short_command)

    def _today(self, option_values: Mapping[str, Any]) -> date:
        """Return the current day: of --zone if the command takes it, else of the group's zone."""
        from mixpanel_assets.settings import load_settings

        settings = load_settings()
        if zone := option_values.get("zone"):
            return datetime.now(ZoneInfo(zone)).date()
        has_project_days = self._project_days or "zone" in option_values
        return settings.project_today() if has_project_days else settings.today()


def _take_options(
    account: AccountOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    output: FormatBeforeOption = None,
    jq: JqBeforeOption = None,
) -> None:
    pass


def _command(
    function: Callable[..., object],
    global_options: list[inspect.Parameter],
    today: Callable[[Mapping[str, Any]], date],
) -> Callable[..., None]:
    """Return a function that takes the global options too, and prints the result.

    A command with a range of days also takes --last, and gets dates for days such as `yesterday`. A
    command that requires the name of a table, event, property or column also takes the name as an
    argument.
    """
    own_options = list(inspect.signature(function, eval_str=True).parameters.values())
    names = [option.name for option in own_options]
    arguments = _name_arguments(own_options)
    all_options = [*arguments.values(), *own_options, *global_options]
    if "from_date" in names and "to_date" in names:
        all_options.insert(len(arguments) + names.index("to_date") + 1, _LAST)

    @functools.wraps(function)
    def command(**option_values: Any) -> None:
        try:
            _take_form(option_values)
            _refuse_range_beside_last(option_values)
            _refuse_names_twice(option_values, arguments)
            answer = function(**_with_dates({name: option_values[name] for name in names}, today))
            _print(answer)
        except KeyboardInterrupt:
            mark_caught()
            raise

    parameters = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in all_options]
    typer_command: Any = command  # Typer reads both attributes
    typer_command.__signature__ = inspect.Signature(parameters)
    typer_command.__annotations__ = {option.name: option.annotation for option in parameters}
    return command


def _take_form(option_values: Mapping[str, Any]) -> None:
    invocation = current()
    if "output" not in option_values:
        if invocation.output or invocation.jq:
            raise typer.BadParameter("This command takes neither --format nor --jq.")
        return
    invocation.output, invocation.jq = option_values["output"], option_values["jq"]
    check_jq(invocation.jq, invocation.output or Format.JSON)


def _print(answer: object) -> None:
    if answer is None:
        return
    if not isinstance(answer, Answer):
        answer = Answer(answer)
    print_answer(answer, current().output, current().jq)
    if answer.error is not None:
        raise answer.error


def _name_arguments(options: Sequence[inspect.Parameter]) -> dict[str, inspect.Parameter]:
    """Return an argument for each required option that is a name, in their order."""
    infos = [info for option in options for info in option.annotation.__metadata__]
    if any(isinstance(info, ArgumentInfo) for info in infos):
        return {}
    return {
        f"named_{option.name}": _name_argument(option)
        for option in options
        if option.default is inspect.Parameter.empty and option.name in _NAMES
    }


def _name_argument(option: inspect.Parameter) -> inspect.Parameter:
    """Return an argument that sets the option."""

    def set_option(context: typer.Context, value: Any) -> Any:
        if value:
            context.default_map = {**(context.default_map or {}), option.name: value}
        return value

    kind = list[str] if typing.get_origin(option.annotation.__origin__) is list else str
    shown = _NAMES[option.name]
    info = typer.Argument(
        metavar=shown.upper(),
        is_eager=True,
        callback=set_option,
        autocompletion=complete_table if shown == "table" else None,
        show_default=False,
        help=f"The {shown}; in place of its option.",
    )
    return _parameter(f"named_{option.name}", None, Annotated[kind | None, info])


def _refuse_names_twice(option_values: Mapping[str, Any], arguments: Collection[str]) -> None:
    for name in arguments:
        option = name.removeprefix("named_")
        if option_values[name] and option_values[name] != option_values[option]:
            raise typer.BadParameter(f"The {_NAMES[option]} is given twice.")


def _refuse_range_beside_last(option_values: Mapping[str, Any]) -> None:
    last = option_values.get(_LAST.name)
    if last and (option_values["from_date"], option_values["to_date"]) != range_of_last(last):
        raise typer.BadParameter("--last excludes --from and --to.")


def _with_dates(
    option_values: Mapping[str, Any], today: Callable[[Mapping[str, Any]], date]
) -> dict[str, Any]:
    """Return the options with dates for days like `yesterday`, and --from not after --to."""
    options = dict(option_values)
    if any(isinstance(option, DaysAgo) for option in option_values.values()):
        # Once for all: midnight must not come between two of them.
        current_day = today(option_values)
        for name, option in option_values.items():
            if isinstance(option, DaysAgo):
                options[name] = option.before(current_day)
    from_option, to_option = options.get("from_date"), options.get("to_date")
    if from_option and to_option and from_option > to_option:
        raise typer.BadParameter("--from is after --to; both days are included.")
    return options


@contextmanager
def explain_interrupt(describe: Callable[[], str]) -> Iterator[None]:
    """On an interrupt of the block, print the sentence of `describe` on what is stored."""
    try:
        with loading():
            yield
    except KeyboardInterrupt:
        _silence_retries()  # threads that end would still announce their retries
        current().show_interrupt(describe())
        raise
