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


_CODES: tuple[tuple[type[MixpanelDataError], int], ...] = (
    (AccountNotFoundError, 4),
    (AuthenticationError, 2),
    (InvalidArgumentsError, INVALID_ARGUMENTS),
    (DateRangeTooLargeError, INVALID_ARGUMENTS),
    (QueryError, INVALID_ARGUMENTS),
    (TableNotFoundError, 4),
    (EventNotFoundError, 4),
    (DatabaseNotFoundError, 4),
    (MissingDaysError, 4),
    (RateLimitError, 5),
)


def exit_code(error: MixpanelDataError) -> int:
    """Return the exit code of an error."""
    if isinstance(error, IncompleteExportError):
        return GENERAL if error.partial else 6
    return next((code for kind, code in _CODES if isinstance(error, kind)), GENERAL)
