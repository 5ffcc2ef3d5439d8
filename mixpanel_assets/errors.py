"""The exception tree: each class is something that a caller treats differently.

Messages quote texts of other people's data, so the escaping of control characters is here.
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


def _as_python(character: re.Match[str]) -> str:
    return repr(character[0])[1:-1]


def _as_json(character: re.Match[str]) -> str:
    utf16_bytes = character[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{utf16_bytes[at : at + 2].hex()}" for at in range(0, len(utf16_bytes), 2))


_ORDERS = (
    "Add|Ask|Change|Check|Choose|Close|Compare|Copy|Correct|Create|Delete|Drop|Fetch|Free|Give|"
    "Install|Leave|Load|Look|Make|Materialize|Move|Name|Open|Put|Query|Raise|Re-execute|Remove|"
    "Rename|Repair|Repeat|Request|Restore|Return|Run|Say|Send|Set|Split|Start|Try|Undo|Unset|"
    "Upgrade|Use|Wait|Write"
)
# A remark such as "; try again later" counts if no sentence says more.
_ORDER = [
    re.compile(rf"(?:^|\. +|\n)((?:(?:{_ORDERS})\b|To [^.,]+, ).*)", re.DOTALL),
    re.compile(rf"[;:] ((?:{_ORDERS.lower()})\b.*)", re.DOTALL),
]
MOST_SIMILAR = 5
_SIMILAR_FROM = 0.5


class MixpanelDataError(Exception):
    """Base of everything this package raises on purpose.

    Attributes:
        code: A stable word for programs, such as `AUTH_FAILED`.
        message: The sentence for people.
    """

    code: str = "UNKNOWN_ERROR"
    _fields: tuple[str, ...] = ()  # attributes that are details as well

    def __init__(
        self, message: str, code: str | None = None, details: Mapping[str, Any] | None = None
    ) -> None:
        self.message = visible(message)
        super().__init__(self.message)
        self.code = code or self.code
        self._details = dict(details or {})

    @property
    def page(self) -> str:
        """The section of the documentation about the code."""
        return f"docs/troubleshooting.md#{self.code.lower()}"

    @property
    def what_to_do(self) -> str:
        """The end of the message, from the first sentence that says what to do; may be empty."""
        found = (pattern.search(self.message) for pattern in _ORDER)
        return next((match[1] for match in found if match), "")

    @property
    def what_went_wrong(self) -> str:
        """The message without `what_to_do`; the message itself if it says nothing else."""
        return self.message.removesuffix(self.what_to_do).rstrip(" ;:\n") or self.message

    def add(self, sentence: str) -> None:
        """Add to the end of the message.

        Args:
            sentence: What to add, with its full stop.
        """
        self.message = f"{self.message} {visible(sentence)}"
        self.args = (self.message,)

    # Computed, so that a field that is set later, such as `partial`, is in it.
    @property
    def details(self) -> dict[str, Any]:
        """The values that the message was made of, ready for JSON."""
        named = {name: _json_ready(getattr(self, name)) for name in self._fields}
        return {**self._details, **named}

    def to_dict(self) -> dict[str, Any]:
        """Return code, message and details, ready for JSON."""
        return {"code": self.code, "message": self.message, "details": self.details}


def _json_ready(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    return list(map(_json_ready, value)) if isinstance(value, list | tuple) else value


class ConfigError(MixpanelDataError):
    """Settings are missing, wrong or contradict what is stored."""

    code = "CONFIG_ERROR"

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, details=details)


class PlanHorizonError(ConfigError):
    """Mixpanel refused days that lie further back than the project's plan reaches.

    `days` is how many days back the plan reaches, according to Mixpanel.
    """

    _fields = ("days",)

    def __init__(self, message: str, *, days: int) -> None:
        super().__init__(message)
        self.days = days


class DateRangeTooLargeError(ConfigError):
    """A fetch has more days than it may have.

    Nothing raises it today, because any range is split into requests. Programs may catch it.
    """

    code = "DATE_RANGE_TOO_LARGE"
    _fields = ("from_date", "to_date", "days_requested", "max_days")

    def __init__(
        self, from_date: str, to_date: str, days_requested: int, max_days: int = 100
    ) -> None:
        super().__init__(
            f"{from_date}..{to_date} are {days_requested} days, and a fetch that is stored as a "
            f"whole holds {max_days} at most. Fetch them with `parallel=True`, or in pieces with "
            "`append=True`."
        )
        self.from_date = from_date
        self.to_date = to_date
        self.days_requested = days_requested
        self.max_days = max_days


class AccountNotFoundError(ConfigError):
    """The config file has no account of that name."""

    code = "ACCOUNT_NOT_FOUND"
    _fields = ("account_name", "available_accounts")

    def __init__(self, account_name: str, available_accounts: list[str] | None = None) -> None:
        known = ", ".join(available_accounts or ()) or "none"
        super().__init__(
            f"There is no account {account_name!r} in the config file; it has: {known}. "
            "Choose one of them, or add it with `mp auth add`."
        )
        self.account_name = account_name
        self.available_accounts = available_accounts or []


class AccountExistsError(ConfigError):
    """The config file has an account of that name."""

    code = "ACCOUNT_EXISTS"
    _fields = ("account_name",)

    def __init__(self, account_name: str) -> None:
        super().__init__(
            f"There is an account {account_name!r} already. Choose another name, or remove it "
            "first with `mp auth remove`."
        )
        self.account_name = account_name


class APIError(MixpanelDataError):
    """Mixpanel answered with a status of 400 or more."""

    code = "API_ERROR"
    _fields: tuple[str, ...] = (
        *("status_code", "response_body"),
        *("request_method", "request_url", "request_params", "request_body"),
    )

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
        code: str | None = None,
    ) -> None:
        super().__init__(message, code)
        self.status_code = status_code
        self.response_body = response_body
        self.request_method = request_method
        self.request_url = request_url
        self.request_params = request_params
        self.request_body = request_body


class AuthenticationError(APIError):
    """Mixpanel refused the credentials, or they have no access to the project."""

    code = "AUTH_FAILED"

    def __init__(
        self, message: str = "Authentication failed", *, status_code: int = 401, **request: Any
    ) -> None:
        super().__init__(message, status_code=status_code, **request)


class QueryError(APIError):
    """Mixpanel or DuckDB refused the question; a retry cannot help."""

    code = "QUERY_FAILED"

    def __init__(
        self, message: str = "Query execution failed", *, status_code: int = 400, **request: Any
    ) -> None:
        super().__init__(message, status_code=status_code, **request)

    @classmethod
    def of_sql(cls, said: str, instead: str = "") -> Self:
        """Return the error of a statement that DuckDB refused.

        Args:
            said: DuckDB's words.
            instead: What to do, if that is known.

        Example:
            >>> str(QueryError.of_sql("Parser Error"))
            'DuckDB refused the statement: Parser Error'
        """
        error = cls("\n".join(filter(None, [f"DuckDB refused the statement: {said}", instead])))
        error._fields, error._details = (), {"said": said}  # there was no request
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

    code = "JQL_SYNTAX_ERROR"
    _fields = (
        *QueryError._fields,
        *("error_type", "error_message", "line_info", "stack_trace", "script", "raw_error"),
    )

    def __init__(
        self,
        raw_error: str,
        script: str | None = None,
        request_path: str | None = None,
        **request: Any,
    ) -> None:
        stack = _JQL_STACK.search(raw_error)
        text = raw_error[: stack.start()] if stack else raw_error
        named = _JQL_UNCAUGHT.search(text) or _JQL_ERROR.match(text)
        error_type = named[1] if named else "UnknownError"
        error_message = named[2].strip() if named else " ".join(text.split())
        request = {"response_body": raw_error, "request_url": request_path} | request
        super().__init__(
            f"The JQL script failed: {error_type}: {error_message}",
            **{"status_code": 412, **request},
        )
        self.error_type = error_type
        self.error_message = error_message
        self.line_info = (text[named.end() :].strip("\n") or None) if named else None
        self.stack_trace = raw_error[stack.start() :].strip() if stack else None
        self.script = script
        self.raw_error = raw_error


class RateLimitError(APIError):
    """The request budget is spent. `retry_after` is in seconds, None when the server gave none."""

    code = "RATE_LIMITED"
    _fields = (*APIError._fields, "retry_after")

    def __init__(
        self,
        message: str = "Rate limit exceeded",
        *,
        retry_after: int | None = None,
        status_code: int = 429,
        **request: Any,
    ) -> None:
        super().__init__(message, status_code=status_code, **request)
        self.retry_after = retry_after


class ServerError(APIError):
    """Mixpanel failed on its side, and failed again in every retry."""

    code = "SERVER_ERROR"

    def __init__(
        self, message: str = "Server error", *, status_code: int = 500, **request: Any
    ) -> None:
        super().__init__(message, status_code=status_code, **request)


class ConnectionFailedError(MixpanelDataError):
    """No response: the host is unreachable, the connection broke, or it timed out."""

    code = "HTTP_ERROR"

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, details=details)


class IncompleteExportError(MixpanelDataError):
    """A response with status 200 does not hold all the days that were requested.

    Nothing of the incomplete response was stored. `partial` says whether other days of the same
    call were. `records` is the number of records that a live stream had already delivered.
    """

    code = "INCOMPLETE_EXPORT"
    _fields = ("from_date", "to_date", "reason", "lines", "records", "partial")

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
        super().__init__(message)
        self.from_date = from_date
        self.to_date = to_date
        self.reason = reason
        self.lines = lines
        self.records = records
        self.partial = partial


class CountsUnavailableError(MixpanelDataError):
    """Mixpanel does not report counts of events to this account, or not of these days."""

    code = "COUNTS_UNAVAILABLE"


class EventNotFoundError(MixpanelDataError):
    """Mixpanel, or a table, has no event of that name; `similar_events` are at most five it has."""

    code = "EVENT_NOT_FOUND"
    _fields = ("event_name", "similar_events")

    def __init__(
        self, event_name: str, similar_events: list[str] | None = None, *, table: str | None = None
    ) -> None:
        hint = f" Similar ones: {', '.join(similar_events)}." if similar_events else ""
        if table is None:
            sentence = f"Mixpanel lists no event {event_name!r} in the last 31 days."
        else:
            sentence = f"The table {table!r} holds no event {event_name!r}."
        super().__init__(sentence + hint)
        self.event_name = event_name
        self.similar_events = similar_events or []


def similar_names(name: str, known: Sequence[str]) -> list[str]:
    """Return at most five of the known names that look like one, the most similar first."""
    folded = {other.casefold() for other in known}
    near = difflib.get_close_matches(name.casefold(), folded, MOST_SIMILAR, _SIMILAR_FROM)
    similar = [other for like in near for other in known if other.casefold() == like]
    return similar[:MOST_SIMILAR]


class TableExistsError(MixpanelDataError):
    """A table of that name exists already, and the caller did not ask to replace it."""

    code = "TABLE_EXISTS"
    _fields = ("table_name",)

    def __init__(self, table_name: str, *, is_asset: bool = False) -> None:
        if is_asset:
            message = (
                f"{table_name!r} is the asset's own table and holds days already; it is never "
                "replaced. Add days to it (`append=True`, `--append`, or `mp sync`), or choose "
                "another name."
            )
        else:
            message = (
                f"There is a table {table_name!r} in this database already. Choose another name, "
                "add to it (`append=True`, `--append`), or replace it (`replace=True`, "
                "`--replace`)."
            )
        super().__init__(message)
        self.table_name = table_name


class TableNotFoundError(MixpanelDataError):
    """No table of that name is in the database; `available` lists the tables, if they are known."""

    code = "TABLE_NOT_FOUND"
    _fields = ("table_name", "available")

    def __init__(self, table_name: str, available: Sequence[str] | None = None) -> None:
        others = "" if available is None else f"; it has: {', '.join(available) or 'none'}"
        super().__init__(f"There is no table {table_name!r} in this database{others}.")
        self.table_name = table_name
        self.available = list(available or ())


class MissingDaysError(MixpanelDataError):
    """A question covers days that have never been loaded.

    Attributes:
        table: The table that lacks them.
        ranges: First and last day of each gap, both included, in order.
    """

    code = "MISSING_DAYS"
    _fields = ("table", "ranges")

    def __init__(
        self, message: str, *, table: str, ranges: Sequence[tuple[date, date]] = ()
    ) -> None:
        super().__init__(message)
        self.table = table
        self.ranges = list(ranges)


class DatabaseLockedError(MixpanelDataError):
    """Another process holds the database for longer than MP_LOCK_TIMEOUT allows."""

    code = "DATABASE_LOCKED"
    _fields = ("db_path", "holding_pid")

    def __init__(self, db_path: str, holding_pid: int | None = None, message: str = "") -> None:
        holder = f"process {holding_pid}" if holding_pid else "another process"
        super().__init__(message or f"The database {db_path} is held by {holder}.")
        self.db_path = db_path
        self.holding_pid = holding_pid


class DatabaseNotFoundError(MixpanelDataError):
    """A database that should be read does not exist."""

    code = "DATABASE_NOT_FOUND"
    _fields = ("db_path",)

    def __init__(self, db_path: str, near: Sequence[str] = ()) -> None:
        advice = (
            "Load something first with `mp sync` or `mp fetch`, or set MP_DATABASE to the file "
            "that holds it."
        )
        if near:
            advice = (
                f"Databases near it: {', '.join(near)}. Set MP_DATABASE or `--database` to the one "
                "to read, or load something first with `mp sync` or `mp fetch`."
            )
        super().__init__(f"There is no database at {db_path}. {advice}")
        self.db_path = db_path


class StorageError(MixpanelDataError):
    """The file cannot be written or read: full disk, no permission, or made by a newer version."""

    code = "STORAGE_ERROR"

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, details=details)


class WriteConflictError(StorageError):
    """Another program changed the same table of a lake in between; the write can be repeated."""

    code = "WRITE_CONFLICT"
