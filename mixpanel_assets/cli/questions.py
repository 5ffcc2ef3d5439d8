"""Commands that ask one question of the library and print its answer."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from mixpanel_assets.cli.invocation import App, FormatOption, JqOption
from mixpanel_assets.cli.output import Format, print_answer

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
