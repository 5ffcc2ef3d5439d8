"""Whether an export answer is whole: judged byte by byte as it passes, before anyone uses it.

An answer is whole when its gzip stream ended and every line, the last one included, is a JSON
object with a text `event` and an object `properties`. A missing final newline alone is no fault.
The server is known to break off after a status of 200, and to close the connection cleanly.

Source: Mixpanel raw export as observed by several clients (`terminated early`), 2026-11.
"""

from __future__ import annotations

import codecs
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

_GZIP = 16 + zlib.MAX_WBITS
_CUT_MARKER = b"terminated early"


class NotWholeError(ValueError):
    """The bytes are not a whole export; the text says what was seen."""


class _Properties(msgspec.Struct):
    """Any JSON object; its members are checked as JSON and skipped."""


class _Line(msgspec.Struct):
    event: str
    properties: _Properties


_check_line = msgspec.json.Decoder(_Line).decode
_decode = msgspec.json.Decoder().decode


class Inflater:
    """Turns the bytes of an answer into the bytes of its body, and knows whether gzip ended."""

    def __init__(self, *, gzip: bool) -> None:
        self._stream = zlib.decompressobj(_GZIP) if gzip else None

    def feed(self, data: bytes) -> bytes:
        """Return the body bytes that `data` completes."""
        if self._stream is None:
            return data
        body = b""
        try:
            while data:
                if self._stream.eof:  # a gzip file may hold several members
                    self._stream = zlib.decompressobj(_GZIP)
                body += self._stream.decompress(data)
                data = self._stream.unused_data
        except zlib.error as error:
            raise NotWholeError("the compressed stream is damaged") from error
        return body

    def finish(self) -> None:
        """Raise `NotWholeError` unless the compressed stream came to its end."""
        if self._stream is not None and not self._stream.eof:
            raise NotWholeError("the compressed stream stops before its end")


class LineSplitter:
    """Cuts body bytes at newlines only, however they are chunked.

    U+2028, U+2029 and U+0085 may stand inside JSON strings, and the byte 0x85 is part of
    common letters, so neither text-mode splitting nor a guessed charset will do.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    def feed(self, body: bytes) -> list[bytes]:
        """Return the lines that `body` completes, without their newlines."""
        lines = body.split(b"\n")
        if len(lines) == 1:
            self._rest.append(body)
            return []
        lines[0] = b"".join([*self._rest, lines[0]])
        self._rest = [lines.pop()]
        return lines

    def finish(self) -> list[bytes]:
        """Return the last line when it lacks its newline."""
        rest = b"".join(self._rest)
        self._rest = []
        return [rest] if rest else []


class Judge(ABC, Generic[T]):
    """Turns the bytes of one answer into items, one for each line, if it is whole so far.

    Attributes:
        lines: Whole lines seen so far.
        json_bytes: Body bytes seen so far, uncompressed.
    """

    def __init__(self, *, gzip: bool) -> None:
        self.lines = 0
        self.json_bytes = 0
        self._inflater = Inflater(gzip=gzip)
        self._splitter = LineSplitter()

    def feed(self, data: bytes) -> Iterator[T]:
        """Return the items of the whole lines that the received bytes complete.

        Raises:
            NotWholeError: The answer cannot be whole, here or while the items are drawn; those
                that came out are real.
        """
        body = self._inflater.feed(data)
        self.json_bytes += len(body)
        self._take(body, final=False)
        return self._judged(self._splitter.feed(body))

    def finish(self) -> Iterator[T]:
        """Return the item of a last line without newline; raises unless the answer is whole."""
        self._inflater.finish()
        self._take(b"", final=True)
        return self._judged(self._splitter.finish())

    @abstractmethod
    def _judged(self, lines: list[bytes]) -> Iterator[T]:
        """Yield an item for each line and count it in `lines`."""

    def _take(self, body: bytes, *, final: bool) -> None:
        """Look at body bytes before they are lines."""

    def _unusual_event(self, line: bytes) -> dict[str, Any]:
        # msgspec refuses lone surrogates and numbers beyond a double's range; JSON allows them.
        try:
            record = json.loads(line.decode(), parse_constant=_refuse_constant)
        except UnicodeDecodeError as error:
            raise _not_utf8(self.lines) from error
        except ValueError as error:
            raise NotWholeError(self._what_is_wrong(line)) from error
        if not isinstance(record, dict) or "event" not in record:
            if isinstance(record, dict) and "error" in record:
                raise NotWholeError(f"line {self.lines + 1} is an error object, not an event")
            raise NotWholeError(f"line {self.lines + 1} is not an event")
        if not isinstance(record["event"], str) or not isinstance(record.get("properties"), dict):
            raise NotWholeError(f"line {self.lines + 1} is not an event with properties")
        return record

    def _what_is_wrong(self, line: bytes) -> str:
        place = f"line {self.lines + 1}"
        if _CUT_MARKER in line:
            return f"{place} ends in `terminated early`"
        if line.lstrip()[:1] == b"<":
            return f"{place} is HTML"
        if not line.strip():
            return f"{place} is blank"
        return f"{place} is cut or is not JSON"


class Verdict(Judge[bytes]):
    """Yields the lines themselves, checked without building their values."""

    def __init__(self, *, gzip: bool) -> None:
        super().__init__(gzip=gzip)
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    def _judged(self, lines: list[bytes]) -> Iterator[bytes]:
        for line in lines:
            try:
                _check_line(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self._unusual_event(line)
            self.lines += 1
            yield line

    def _take(self, body: bytes, *, final: bool) -> None:
        # What msgspec skips it does not decode.
        try:
            self._utf8.decode(body, final)
        except UnicodeDecodeError as error:
            raise _not_utf8(self.lines) from error


class RecordVerdict(Judge[T]):
    """Yields what `convert` makes of each event and its line; each line is parsed once."""

    def __init__(self, convert: Callable[[dict[str, Any], bytes], T], *, gzip: bool) -> None:
        super().__init__(gzip=gzip)
        self._convert = convert

    def _judged(self, lines: list[bytes]) -> Iterator[T]:
        # The loop that every streamed event goes through: calls are what costs here.
        convert = self._convert
        for line in lines:
            try:
                event = _decode(line)
                whole = type(event["event"]) is str and type(event["properties"]) is dict
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
                whole = False
            if not whole:
                event = self._unusual_event(line)
            self.lines += 1
            yield convert(event, line)


def _not_utf8(lines: int) -> NotWholeError:
    return NotWholeError(f"after line {lines}: bytes that are not UTF-8")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
