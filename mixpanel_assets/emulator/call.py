"""A request as handlers see it, the checks of its parameters, and the response they return."""

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

# As the documentation spells them; Python's own names of some have changed.
PHRASES = {
    400: "Bad Request",
    401: "Unauthorized",
    413: "Request Entity Too Large",
    429: "Too Many Requests",
}


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; a body that is no `bytes` is streamed in chunks."""

    status: int = 200
    body: bytes | Iterable[bytes] = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    gzip_allowed: bool = False


def json_answer(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    """Answer with JSON."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return Answer(status, body, headers=headers or {})


def text_answer(text: str, status: int = 200) -> Answer:
    """Answer with plain text."""
    return Answer(status, text.encode(), "text/plain")


class Refused(Exception):  # noqa: N818 - it carries an answer, it is no error of ours
    """A request ends here, with this answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True)
class ErrorShape:
    """How one family of endpoints words its errors."""

    family: str
    request: str = ""

    def answer(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Return the error in the family's form."""
        if self.family == "export":
            if status == 400:
                return text_answer(text, 400)
            return json_answer({"error": text}, status, headers)
        if self.family == "ingestion":
            body = {"code": status, "error": text, "status": PHRASES.get(status, "Error")}
            return json_answer(body, status, headers)
        if self.family == "app":
            return json_answer({"status": "error", "error": text}, status, headers)
        return json_answer({"request": self.request, "error": text}, status, headers)

    def refuse(self, status: int, text: str) -> Refused:
        """Return the exception that ends a request with an error."""
        return Refused(self.answer(status, text))


def error_shape(family: str, settings: EmulatorSettings, base_url: str, target: str) -> ErrorShape:
    """Return the error form of a request; `target` is its path with the query."""
    if settings.error_request == "url":
        target = base_url + target
    return ErrorShape(family, target)


MOST_DAYS = 3_700
FLAGS = {"": None, "true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True)
class Call:
    """One request: `path` is canonical, `params` holds query and body fields as text."""

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
        """The filter of the data view that `workspace_id` names; None when it has none."""
        if not self.params.get("workspace_id"):
            return None
        text = self.settings.data_views.get(self.integer("workspace_id", 0))
        return None if text is None else parse(text)

    def reject(self, *names: str) -> None:
        """Refuse documented parameters that are not honoured: an answer would be a wrong one."""
        given = [name for name in names if self.params.get(name)]
        if given:
            raise self.shape.refuse(400, f"not supported by this emulator: {', '.join(given)}")

    def reject_both(self, one: str, other: str) -> None:
        """Refuse two parameters that say the same thing in different ways."""
        if self.params.get(one) and self.params.get(other):
            raise self.shape.refuse(400, f"{one} and {other} are mutually exclusive")

    def faulty(self, kind: str) -> bool:
        """Say whether this request is to go wrong in a certain way."""
        return self.fault is not None and self.fault.kind == kind

    def need(self, name: str) -> str:
        """Return a required parameter."""
        value = self.params.get(name, "")
        if not value:
            raise self.shape.refuse(400, f"{name} is a required parameter")
        return value

    def day(self, name: str, default: date | None = None) -> date:
        """Return a date parameter."""
        text = self.need(name) if default is None else self.params.get(name, "")
        if not text and default is not None:
            return default
        try:
            return date.fromisoformat(text)
        except ValueError:
            raise self.shape.refuse(400, f"{name} must be yyyy-mm-dd, got {text!r}") from None

    def range(self, from_default: date | None = None, to_default: date | None = None) -> list[date]:
        """Return the days asked for, ends included."""
        first, last = self.day("from_date", from_default), self.day("to_date", to_default)
        if first > last:
            raise self.shape.refuse(400, "from_date must not be later than to_date")
        return days_between(first, last)

    def integer(self, name: str, default: int, most: int | None = None) -> int:
        """Return a number, cut to the most that is allowed."""
        text = self.params.get(name, "")
        if not text:
            return default
        try:
            number = int(text)
        except ValueError:
            raise self.shape.refuse(400, f"{name} must be an integer, got {text!r}") from None
        return number if most is None else min(number, most)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a boolean parameter."""
        text = self.params.get(name, "").lower()
        if text not in FLAGS:
            raise self.shape.refuse(400, f"{name} must be true or false, got {text!r}")
        return default if FLAGS[text] is None else bool(FLAGS[text])

    def json(self, name: str, kind: type | tuple[type, ...]) -> Any:
        """Return a parameter that holds JSON of a certain type, or None when it is absent."""
        text = self.params.get(name, "")
        if not text:
            return None
        try:
            value = json.loads(text)
        except ValueError:
            value = UNREADABLE
        if not isinstance(value, kind):
            raise self.shape.refuse(400, f"invalid value for {name}: [{text}]")
        return value

    def expression(self, name: str) -> Evaluate | None:
        """Return a segmentation expression, or None when it is absent."""
        text = self.params.get(name, "")
        if not text:
            return None
        try:
            return parse(text)
        except ExpressionError as error:
            raise self.shape.refuse(400, f"Error in {name}: {error}") from None

    def choice(self, name: str, default: str, *allowed: str) -> str:
        """Return a parameter that can only have certain values."""
        value = self.params.get(name) or default
        if value not in allowed:
            raise self.shape.refuse(400, f"{name} must be one of {', '.join(allowed)}")
        return value


UNREADABLE = object()


def days_between(first: date, last: date) -> list[date]:
    """Return the days from first to last, both included."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def days_asked(params: Mapping[str, str]) -> tuple[date, ...]:
    """Return the days a request names, for the log and for faults; none when it names no range."""
    try:
        first = date.fromisoformat(params["from_date"])
        last = date.fromisoformat(params["to_date"])
    except (KeyError, ValueError):
        return ()
    return tuple(days_between(first, min(last, first + timedelta(days=MOST_DAYS))))
