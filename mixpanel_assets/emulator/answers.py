"""What a handler gives back: status, headers and body, before the wire has its say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mixpanel_assets.emulator.settings import EmulatorSettings

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
