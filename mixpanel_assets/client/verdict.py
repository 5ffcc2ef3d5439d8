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
from collections.abc import Callable, Iterable, Iterator
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
_decode_lines = msgspec.json.Decoder().decode_lines
_UNUSUAL = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_BLOCK_BYTES = 1 << 14  # what is decoded at once stays in the processor's cache


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
    """Cuts body bytes at newlines only, however they are chunked, into blocks of a few lines.

    U+2028, U+2029 and U+0085 may stand inside JSON strings, and the byte 0x85 is part of
    common letters, so neither text-mode splitting nor a guessed charset will do.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    def feed(self, body: bytes) -> Iterator[bytes]:
        """Yield the lines that `body` completes, in blocks that end in a newline."""
        start, end = 0, body.rfind(b"\n") + 1
        while start < end:
            stop = body.index(b"\n", min(start + _BLOCK_BYTES, end - 1)) + 1
            yield b"".join([*self._rest, body[start:stop]])
            self._rest = []
            start = stop
        self._rest.append(body[end:])

    def finish(self) -> Iterator[bytes]:
        """Yield the last line as a block, with a newline, when it lacks its own."""
        if rest := b"".join(self._rest):
            yield rest + b"\n"


class Judge(ABC, Generic[T]):
    """Turns the bytes of one answer into items, one for each line, if it is whole so far.

    Items come in blocks, as calls for each of them are what costs. A block is judged at once;
    if it holds anything unusual, line by line.

    Attributes:
        lines: Whole lines seen so far.
        json_bytes: Body bytes seen so far, uncompressed.
    """

    def __init__(self, *, gzip: bool) -> None:
        self.lines = 0
        self.json_bytes = 0
        self._inflater = Inflater(gzip=gzip)
        self._splitter = LineSplitter()

    def feed(self, data: bytes) -> Iterator[Iterable[T]]:
        """Yield blocks with an item for each whole line that the received bytes complete.

        Raises:
            NotWholeError: The answer cannot be whole, here or while the items are drawn; those
                that came out are real.
        """
        body = self._inflater.feed(data)
        self.json_bytes += len(body)
        self._take(body, final=False)
        for block in self._splitter.feed(body):
            yield from self._judged(block)

    def finish(self) -> Iterator[Iterable[T]]:
        """Yield a last line without newline; the answer is whole if nothing is raised."""
        self._inflater.finish()
        self._take(b"", final=True)
        for block in self._splitter.finish():
            yield from self._judged(block)

    def _judged(self, block: bytes) -> Iterator[Iterable[T]]:
        items = self._at_once(block)
        if items is not None:
            yield items
            return
        for line in block[:-1].split(b"\n"):
            item = self._alone(line)
            self.lines += 1
            yield (item,)

    @abstractmethod
    def _at_once(self, block: bytes) -> Iterable[T] | None:
        """Count the lines and return their items, or None if one has to be looked at alone."""

    @abstractmethod
    def _alone(self, line: bytes) -> T:
        """Return the item of a line, or raise `NotWholeError`."""

    def _take(self, body: bytes, *, final: bool) -> None:
        """Look at body bytes before they are lines."""

    def _unusual_event(self, line: bytes) -> dict[str, Any]:
        # msgspec refuses lone surrogates and numbers beyond a double's range; JSON allows them.
        try:
            record = json.loads(line.decode(), parse_constant=_refuse_constant)
        except UnicodeDecodeError as error:
            raise _not_utf8(self.lines) from error
        except (ValueError, RecursionError) as error:
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

    def _at_once(self, block: bytes) -> list[bytes] | None:
        lines = block[:-1].split(b"\n")
        try:
            for line in lines:
                _check_line(line)
        except _UNUSUAL:
            return None
        self.lines += len(lines)
        return lines

    def _alone(self, line: bytes) -> bytes:
        try:
            _check_line(line)
        except _UNUSUAL:
            self._unusual_event(line)
        return line

    def _take(self, body: bytes, *, final: bool) -> None:
        # What msgspec skips it does not decode.
        try:
            self._utf8.decode(body, final)
        except UnicodeDecodeError as error:
            raise _not_utf8(self.lines) from error


class EventVerdict(Judge[dict[str, Any]]):
    """Yields the events as received; each line is parsed once."""

    def _at_once(self, block: bytes) -> list[dict[str, Any]] | None:
        events = _events(block)
        self.lines += len(events or ())
        return events

    def _alone(self, line: bytes) -> dict[str, Any]:
        events = _events(line + b"\n")
        return events[0] if events else self._unusual_event(line)


class RecordVerdict(Judge[T]):
    """Yields what `convert` makes of each event and its line; each line is parsed once."""

    def __init__(self, convert: Callable[[dict[str, Any], bytes], T], *, gzip: bool) -> None:
        super().__init__(gzip=gzip)
        self._convert = convert

    def _at_once(self, block: bytes) -> Iterator[T] | None:
        events = _events(block)
        if events is None:
            return None
        self.lines += len(events)
        return map(self._convert, events, block.split(b"\n"))

    def _alone(self, line: bytes) -> T:
        events = _events(line + b"\n")
        return self._convert(events[0] if events else self._unusual_event(line), line)


def _events(block: bytes) -> list[dict[str, Any]] | None:
    """Return the events of whole lines, or None if any of the lines is no usual event."""
    try:
        events: list[Any] = _decode_lines(block)
        for event in events:
            if type(event["event"]) is not str or type(event["properties"]) is not dict:
                return None
    except (*_UNUSUAL, KeyError, TypeError):
        return None
    # Blank lines are skipped and a value may span lines; then there are more newlines.
    return events if len(events) == block.count(b"\n") else None


def _not_utf8(lines: int) -> NotWholeError:
    return NotWholeError(f"after line {lines}: bytes that are not UTF-8")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
