"""The exception tree: each class is something that a caller treats differently.

Texts of other people's data end up in messages, so the escaping of control characters is here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Self

# Unicode's categories Cc, Cf, Cs, Zl and Zp; a test compares them with Python's own tables.
_CONTROL = "\x00-\x1f\x7f-\x9f"
_FORMAT = (
    "\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
)
_SURROGATES = "\ud800-\udfff"
_UNSEEN = re.compile(f"(?![\n\t])[{_CONTROL}{_FORMAT}{_SURROGATES}]")
_STEERING = re.compile(f"(?![\n\t]|\r\n)[{_CONTROL}{_SURROGATES}]")


def visible(text: str) -> str:
    r"""Return text for people: `\x1b`, `\u202e` instead of the character; lines and tabs stay.

    Example:
        >>> visible("Sign\x1b[2J Up")
        'Sign\\x1b[2J Up'
    """
    return text if text.isprintable() else _UNSEEN.sub(_as_python, text)


def without_controls(text: str) -> str:
    r"""Return text for programs, whose ends of lines, tabs and marks of direction stay.

    Example:
        >>> without_controls("Sign\x1b[2J\r\nUp")
        'Sign\\x1b[2J\r\nUp'
    """
    return text if text.isprintable() else _STEERING.sub(_as_python, text)


def escaped_json(text: str) -> str:
    r"""Return JSON text of the same value, with `\u001b` or `\u202e` for such characters.

    Example:
        >>> escaped_json('"\u202e"')
        '"\\u202e"'
    """
    return text if text.isprintable() else _UNSEEN.sub(_as_json, text)


def _as_python(found: re.Match[str]) -> str:
    return repr(found[0])[1:-1]


def _as_json(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


MOST_SIMILAR = 5
_SIMILAR_FROM = 0.5


class MixpanelDataError(Exception):
    """Base of everything this package raises on purpose."""

    def __init__(
        self,
        message: str,
        code: str = "UNKNOWN_ERROR",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self._message = visible(message)
        super().__init__(self._message)
        self._code = code
        self._details = dict(details or {})

    @property
    def code(self) -> str:
        """A stable word for programs, such as `AUTH_FAILED`."""
        return self._code

    @property
    def message(self) -> str:
        """The sentence for people."""
        return self._message

    @property
    def details(self) -> dict[str, Any]:
        """What the message was made of."""
        return self._details

    def to_dict(self) -> dict[str, Any]:
        """Return code, message and details, ready for JSON."""
        return {"code": self.code, "message": self.message, "details": self.details}


class ConfigError(MixpanelDataError):
    """Settings are missing, wrong or contradict what is stored."""

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, "CONFIG_ERROR", details)


class PlanHorizonError(ConfigError):
    """Mixpanel refused days that lie further back than the project's plan reaches.

    `days` is how many days back the plan reaches, as Mixpanel said it.
    """

    def __init__(self, message: str, *, days: int) -> None:
        super().__init__(message, {"days": days})
        self.days = days


class DateRangeTooLargeError(ConfigError):
    """More days than a fetch may have; programs may catch it, though any range is packed today."""

    def __init__(
        self, from_date: str, to_date: str, days_requested: int, max_days: int = 100
    ) -> None:
        super().__init__(
            f"{from_date}..{to_date} are {days_requested} days, and a fetch that is stored as a "
            f"whole holds {max_days} at most. Fetch them with `parallel=True`, or in pieces with "
            "`append=True`.",
            {
                "from_date": from_date,
                "to_date": to_date,
                "days_requested": days_requested,
                "max_days": max_days,
            },
        )
        self._code = "DATE_RANGE_TOO_LARGE"
        self.from_date = from_date
        self.to_date = to_date
        self.days_requested = days_requested
        self.max_days = max_days


class AccountNotFoundError(ConfigError):
    """The config file has no account of that name."""

    def __init__(self, account_name: str, available_accounts: list[str] | None = None) -> None:
        self.account_name = account_name
        self.available_accounts = available_accounts or []
        known = ", ".join(self.available_accounts) or "none"
        super().__init__(
            f"There is no account {account_name!r} in the config file; it has: {known}. "
            "Choose one of them, or add it with `mp auth add`.",
            {"account_name": account_name, "available_accounts": self.available_accounts},
        )
        self._code = "ACCOUNT_NOT_FOUND"


class AccountExistsError(ConfigError):
    """The config file has an account of that name."""

    def __init__(self, account_name: str) -> None:
        self.account_name = account_name
        super().__init__(
            f"There is an account {account_name!r} already. Choose another name, or remove it "
            "first with `mp auth remove`.",
            {"account_name": account_name},
        )
        self._code = "ACCOUNT_EXISTS"


class APIError(MixpanelDataError):
    """Mixpanel answered with a status of 400 or more."""

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        response_body: str | dict[str, Any] | None = None,
        request_method: str | None = None,
        request_url: str | None = None,
        request_params: dict[str, Any] | None = None,
        request_body: dict[str, Any] | None = None,
        code: str = "API_ERROR",
    ) -> None:
        super().__init__(
            message,
            code,
            {
                "status_code": status_code,
                "response_body": response_body,
                "request_method": request_method,
                "request_url": request_url,
                "request_params": request_params,
                "request_body": request_body,
            },
        )
        self.status_code = status_code
        self.response_body = response_body
        self.request_method = request_method
        self.request_url = request_url
        self.request_params = request_params
        self.request_body = request_body


class AuthenticationError(APIError):
    """Mixpanel refused the credentials, or they have no access to the project."""

    def __init__(
        self, message: str = "Authentication failed", *, status_code: int = 401, **request: Any
    ) -> None:
        super().__init__(message, status_code=status_code, code="AUTH_FAILED", **request)


class QueryError(APIError):
    """Mixpanel or DuckDB refused the question; asking again will not help."""

    def __init__(
        self, message: str = "Query execution failed", *, status_code: int = 400, **request: Any
    ) -> None:
        super().__init__(message, status_code=status_code, code="QUERY_FAILED", **request)

    @classmethod
    def of_sql(cls, said: str, instead: str = "") -> Self:
        """Return the error of a statement that DuckDB refused with these words.

        Args:
            said: DuckDB's words.
            instead: What to do, if that is known.

        Example:
            >>> str(QueryError.of_sql("Parser Error"))
            'DuckDB refused the statement: Parser Error'
        """
        error = cls("\n".join(filter(None, [f"DuckDB refused the statement: {said}", instead])))
        error._details = {"said": said}
        return error


_JQL_UNCAUGHT = re.compile(r"Uncaught exception\s+(\w+): ([^\n]*)")
_JQL_ERROR = re.compile(r"\s*(\w+): ([^\n]*)")
_JQL_STACK = re.compile(r"^(?:stack trace:\s*|\s+at )", re.IGNORECASE | re.MULTILINE)


class JQLSyntaxError(QueryError):
    """A JQL script failed, before it ran or while it did.

    Attributes:
        error_type: Such as `TypeError`; `UnknownError` when Mixpanel does not say.
        error_message: What went wrong, in one line.
        line_info: The lines of the script that Mixpanel shows; None when it shows none.
        stack_trace: None when there is none.
        script: The script.
        raw_error: All that Mixpanel said.
    """

    def __init__(
        self,
        raw_error: str,
        script: str | None = None,
        request_path: str | None = None,
        **request: Any,
    ) -> None:
        self.raw_error = raw_error
        self.script = script
        stack = _JQL_STACK.search(raw_error)
        told = raw_error[: stack.start()] if stack else raw_error
        self.stack_trace = raw_error[stack.start() :].strip() if stack else None
        found = _JQL_UNCAUGHT.search(told) or _JQL_ERROR.match(told)
        self.error_type = found.group(1) if found else "UnknownError"
        self.error_message = found.group(2).strip() if found else " ".join(told.split())
        self.line_info = (told[found.end() :].strip("\n") or None) if found else None
        request = {"response_body": raw_error, "request_url": request_path} | request
        super().__init__(
            f"The JQL script failed: {self.error_type}: {self.error_message}",
            **{"status_code": 412, **request},
        )
        self._code = "JQL_SYNTAX_ERROR"
        self.details.update(
            error_type=self.error_type,
            error_message=self.error_message,
            line_info=self.line_info,
            stack_trace=self.stack_trace,
            script=script,
            raw_error=raw_error,
        )


class RateLimitError(APIError):
    """The request budget is spent. `retry_after` is in seconds, None when the server gave none."""

    def __init__(
        self,
        message: str = "Rate limit exceeded",
        *,
        retry_after: int | None = None,
        status_code: int = 429,
        **request: Any,
    ) -> None:
        super().__init__(message, status_code=status_code, code="RATE_LIMITED", **request)
        self.retry_after = retry_after
        self.details["retry_after"] = retry_after


class ServerError(APIError):
    """Mixpanel failed on its side, and went on failing when asked again."""

    def __init__(
        self, message: str = "Server error", *, status_code: int = 500, **request: Any
    ) -> None:
        super().__init__(message, status_code=status_code, code="SERVER_ERROR", **request)


class ConnectionFailedError(MixpanelDataError):
    """No answer came: the host is unreachable, the connection broke, or it timed out."""

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, "HTTP_ERROR", details)


class IncompleteExportError(MixpanelDataError):
    """The answer had status 200 but is not, whole, the days that were asked for.

    Nothing of the broken answer was stored; `partial` says that other days of the same call
    were. `records` counts what a live stream had already delivered.
    """

    def __init__(
        self,
        message: str,
        *,
        from_date: date | None = None,
        to_date: date | None = None,
        reason: str = "",
        lines: int = 0,
        records: int = 0,
        partial: bool = False,
    ) -> None:
        super().__init__(
            message,
            "INCOMPLETE_EXPORT",
            {
                "from_date": from_date.isoformat() if from_date else None,
                "to_date": to_date.isoformat() if to_date else None,
                "reason": reason,
                "lines": lines,
                "records": records,
                "partial": partial,
            },
        )
        self.from_date = from_date
        self.to_date = to_date
        self.reason = reason
        self.lines = lines
        self.records = records
        self.partial = partial


class EventNotFoundError(MixpanelDataError):
    """Mixpanel, or a table, has no event of that name; `similar_events` are at most five it has."""

    def __init__(
        self,
        event_name: str,
        similar_events: list[str] | None = None,
        *,
        table: str | None = None,
    ) -> None:
        self.event_name = event_name
        self.similar_events = similar_events or []
        hint = f" Similar ones: {', '.join(self.similar_events)}." if self.similar_events else ""
        if table is None:
            said = f"Mixpanel lists no event {event_name!r} in the last 31 days."
        else:
            said = f"The table {table!r} holds no event {event_name!r}."
        super().__init__(
            said + hint,
            "EVENT_NOT_FOUND",
            {"event_name": event_name, "similar_events": self.similar_events},
        )


def similar_names(name: str, known: Sequence[str]) -> list[str]:
    """Return at most five of the known names that look like one, the most similar first."""
    folded = {other.casefold() for other in known}
    near = difflib.get_close_matches(name.casefold(), folded, MOST_SIMILAR, _SIMILAR_FROM)
    found = [other for like in near for other in known if other.casefold() == like]
    return found[:MOST_SIMILAR]


class TableExistsError(MixpanelDataError):
    """A table of that name is there already, and nobody said that it may be replaced."""

    def __init__(self, table_name: str, *, is_asset: bool = False) -> None:
        if is_asset:
            said = (
                f"{table_name!r} is the asset's own table and holds days already; it is never "
                "replaced. Add days to it (`append=True`, `--append`, or `mp sync`), or choose "
                "another name."
            )
        else:
            said = (
                f"There is a table {table_name!r} in this database already. Choose another name, "
                "add to it (`append=True`, `--append`), or replace it (`replace=True`, "
                "`--replace`)."
            )
        super().__init__(
            said,
            "TABLE_EXISTS",
            {"table_name": table_name},
        )
        self.table_name = table_name


class TableNotFoundError(MixpanelDataError):
    """No table of that name is in the database; `available` are those that a look found."""

    def __init__(self, table_name: str, available: Sequence[str] | None = None) -> None:
        there = "" if available is None else f"; it has: {', '.join(available) or 'none'}"
        super().__init__(
            f"There is no table {table_name!r} in this database{there}.",
            "TABLE_NOT_FOUND",
            {"table_name": table_name, "available": list(available or ())},
        )
        self.table_name = table_name
        self.available = list(available or ())


class MissingDaysError(MixpanelDataError):
    """Days that were asked about have never been loaded.

    Attributes:
        table: The table that lacks them.
        ranges: First and last day of each gap, both included, in order.
    """

    def __init__(
        self, message: str, *, table: str, ranges: Sequence[tuple[date, date]] = ()
    ) -> None:
        self.table = table
        self.ranges = list(ranges)
        texts = [[first.isoformat(), last.isoformat()] for first, last in self.ranges]
        super().__init__(message, "MISSING_DAYS", {"table": table, "ranges": texts})


class DatabaseLockedError(MixpanelDataError):
    """Another process holds the database for longer than MP_LOCK_TIMEOUT allows."""

    def __init__(self, db_path: str, holding_pid: int | None = None, message: str = "") -> None:
        holder = f"process {holding_pid}" if holding_pid else "another process"
        super().__init__(
            message or f"The database {db_path} is held by {holder}.",
            "DATABASE_LOCKED",
            {"db_path": db_path, "holding_pid": holding_pid},
        )
        self.db_path = db_path
        self.holding_pid = holding_pid


class DatabaseNotFoundError(MixpanelDataError):
    """A database that should be read does not exist."""

    def __init__(self, db_path: str) -> None:
        super().__init__(
            f"There is no database at {db_path}. Load something first with `mp sync` or "
            "`mp fetch`, or set MP_DATABASE to the file that holds it.",
            "DATABASE_NOT_FOUND",
            {"db_path": db_path},
        )
        self.db_path = db_path


class StorageError(MixpanelDataError):
    """The file cannot be written or read: full disk, no permission, or made by a newer version."""

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, "STORAGE_ERROR", details)
