"""Exit codes, by which a shell script can distinguish errors.

0 success · 1 general error, also partial results and a full disk behind the output ·
2 authentication · 3 invalid arguments · 4 not found · 5 rate limited ·
6 an incomplete response, and nothing was stored · 130 interrupted (Ctrl-C) · 143 ended by SIGTERM
"""

from __future__ import annotations

from mixpanel_assets.errors import (
    AccountNotFoundError,
    AuthenticationError,
    DatabaseNotFoundError,
    DateRangeTooLargeError,
    EventNotFoundError,
    IncompleteExportError,
    MissingDaysError,
    MixpanelDataError,
    QueryError,
    RateLimitError,
    TableNotFoundError,
)

GENERAL = 1
INVALID_ARGUMENTS = 3
INTERRUPTED = 130  # Typer's own code; `signals.leave` replaces it by the signal's


class InvalidArgumentsError(MixpanelDataError):
    """The command line is wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "INVALID_ARGUMENTS")


_NOT_FOUND = (
    *(AccountNotFoundError, TableNotFoundError, EventNotFoundError),
    *(DatabaseNotFoundError, MissingDaysError),
)
_ERRORS_BY_CODE: dict[int, tuple[type[MixpanelDataError], ...]] = {
    2: (AuthenticationError,),
    INVALID_ARGUMENTS: (InvalidArgumentsError, DateRangeTooLargeError, QueryError),
    4: _NOT_FOUND,
    5: (RateLimitError,),
}


def exit_code(error: MixpanelDataError) -> int:
    """Return the exit code of an error."""
    if isinstance(error, IncompleteExportError):
        return GENERAL if error.partial else 6
    codes = (code for code, kinds in _ERRORS_BY_CODE.items() if isinstance(error, kinds))
    return next(codes, GENERAL)
