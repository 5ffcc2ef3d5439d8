"""A request with checks of its parameters, and the response that a handler returns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from mixpanel_assets.emulator.expressions import Evaluate, ExpressionError, parse
from mixpanel_assets.emulator.faults import Fault
from mixpanel_assets.emulator.reports import Reports
from mixpanel_assets.emulator.settings import EmulatorSettings
from mixpanel_assets.emulator.state import State
from mixpanel_assets.emulator.truth import Truth

# Spelled as in the documentation; newer versions of Python changed some phrases.
PHRASES = {
    400: "Bad Request",
    401: "Unauthorized",
    413: "Request Entity Too Large",
    429: "Too Many Requests",
}


@dataclass(frozen=True)
class Response:
    """An HTTP response. A body other than `bytes` is streamed in chunks."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    gzip_allowed: bool = False


def json_response(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return Response(status, body, headers=headers or {})


def text_response(text: str, status: int = 200) -> Response:
    """Return a response of plain text."""
    return Response(status, text.encode(), "text/plain")


class Refused(Exception):  # noqa: N818 - a response, not an error of the emulator
    """Ends the handling of a request with a response."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


@dataclass(frozen=True)
class ErrorShape:
    """The form of errors in one family of endpoints."""

    family: str
    request: str = ""

    def response(
        self, status: int, text: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Return the error in the family's form."""
        if self.family == "export":
            if status == 400:
                return text_response(text, 400)
            return json_response({"error": text}, status, headers)
        if self.family == "ingestion":
            body = {"code": status, "error": text, "status": PHRASES.get(status, "Error")}
            return json_response(body, status, headers)
        if self.family == "app":
            return json_response({"status": "error", "error": text}, status, headers)
        return json_response({"request": self.request, "error": text}, status, headers)

    def refuse(self, status: int, text: str) -> Refused:
        """Return the exception that ends a request with an error."""
        return Refused(self.response(status, text))


def error_shape(family: str, settings: EmulatorSettings, base_url: str, target: str) -> ErrorShape:
    """Return the error form of a request; `target` is its path with the query."""
    if settings.error_request == "url":
        target = base_url + target
    return ErrorShape(family, target)


MOST_DAYS = 3_700  # ten years: a request from year 1 must not make a list of 700,000 days
FLAGS = {"": None, "true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Inbound:
    """One request. `path` is canonical, and `params` has query and body fields as text."""

    method: str
    path: str
    params: Mapping[str, str]
    path_params: Mapping[str, str]
    shape: ErrorShape
    state: State
    truth: Truth
    fault: Fault | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    address: str = ""

    @property
    def settings(self) -> EmulatorSettings:
        """The project's settings."""
        return self.state.settings

    @property
    def reports(self) -> Reports:
        """Numbers computed from the project's events."""
        return Reports(self.state, self.truth, self.data_view)

    @property
    def data_view(self) -> Evaluate | None:
        """The filter of the data view in `workspace_id`; None without a filter."""
        if not self.params.get("workspace_id"):
            return None
        parameter = self.settings.data_views.get(self.integer("workspace_id", 0))
        return None if parameter is None else parse(parameter)

    def reject(self, *names: str) -> None:
        """Refuse documented parameters that are not supported: the response would be wrong."""
        used = [name for name in names if self.params.get(name)]
        if used:
            raise self.shape.refuse(400, f"not supported by this emulator: {', '.join(used)}")

    def reject_both(self, one: str, other: str) -> None:
        """Refuse two parameters that exclude each other."""
        if self.params.get(one) and self.params.get(other):
            raise self.shape.refuse(400, f"{one} and {other} are mutually exclusive")

    def faulty(self, kind: str) -> Fault | None:
        """Return the request's fault if it is of this kind."""
        return self.fault if self.fault is not None and self.fault.kind == kind else None

    def need(self, name: str) -> str:
        """Return a required parameter."""
        value = self.params.get(name, "")
        if not value:
            raise self.shape.refuse(400, f"{name} is a required parameter")
        return value

    def event_names(self) -> frozenset[str] | None:
        """Return the name in `event`; None without it, which means every event."""
        event = self.params.get("event")
        return frozenset([event]) if event else None

    def day(self, name: str, default: date | None = None) -> date:
        """Return a date parameter."""
        parameter = self.need(name) if default is None else self.params.get(name, "")
        if not parameter and default is not None:
            return default
        try:
            return date.fromisoformat(parameter)
        except ValueError:
            raise self.shape.refuse(400, f"{name} must be yyyy-mm-dd, got {parameter!r}") from None

    def range(self, from_default: date | None = None, to_default: date | None = None) -> list[date]:
        """Return the requested days, both ends included."""
        first, last = self.day("from_date", from_default), self.day("to_date", to_default)
        if first > last:
            raise self.shape.refuse(400, "from_date must not be later than to_date")
        return days_between(first, last)

    def integer(self, name: str, default: int, maximum: int | None = None) -> int:
        """Return a number, at most `most`."""
        digits = self.params.get(name, "")
        if not digits:
            return default
        try:
            number = int(digits)
        except ValueError:
            raise self.shape.refuse(400, f"{name} must be an integer, got {digits!r}") from None
        return number if maximum is None else min(number, maximum)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean parameter."""
        parameter = self.params.get(name, "").lower()
        if parameter not in FLAGS:
            raise self.shape.refuse(400, f"{name} must be true or false, got {parameter!r}")
        return default if FLAGS[parameter] is None else bool(FLAGS[parameter])

    def json(self, name: str, kind: type | tuple[type, ...]) -> Any:
        """Return the JSON value of a parameter, checked by type; None without the parameter."""
        parameter = self.params.get(name, "")
        if not parameter:
            return None
        try:
            value = json.loads(parameter)
        except ValueError:
            value = UNREADABLE
        if not isinstance(value, kind):
            raise self.shape.refuse(400, f"invalid value for {name}: [{parameter}]")
        return value

    def expression(self, name: str) -> Evaluate | None:
        """Return a segmentation expression; None without the parameter."""
        parameter = self.params.get(name, "")
        if not parameter:
            return None
        try:
            return parse(parameter)
        except ExpressionError as error:
            raise self.shape.refuse(400, f"Error in {name}: {error}") from None

    def choice(self, name: str, default: str, *allowed: str) -> str:
        """Return a parameter with one of the allowed values."""
        value = self.params.get(name) or default
        if value not in allowed:
            raise self.shape.refuse(400, f"{name} must be one of {', '.join(allowed)}")
        return value


UNREADABLE = object()


def days_between(first: date, last: date) -> list[date]:
    """Return the days from first to last, both included."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def requested_days(params: Mapping[str, str]) -> tuple[date, ...]:
    """Return the days of a request's range, for the log and for faults; empty without a range."""
    try:
        first = date.fromisoformat(params["from_date"])
        last = date.fromisoformat(params["to_date"])
    except (KeyError, ValueError):
        return ()
    return tuple(days_between(first, min(last, first + timedelta(days=MOST_DAYS))))
