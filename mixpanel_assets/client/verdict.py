"""Whether the response of an export is complete: checked byte by byte while it arrives.

It is complete if its gzip stream has ended and every line, also the last one, is a JSON object
with a text `event` and an object `properties`. A missing final newline alone is not a fault, and
blank lines are skipped. The content of a line may be odd (`rules.lines`) as long as it closes
every bracket and string that it opens; a truncated line does not.
Mixpanel may truncate a response after a status of 200 and close the connection cleanly.

Source: Mixpanel raw export as observed by several clients (`terminated early`), 2026-11.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import msgspec

from mixpanel_assets.rules.json_text import FLOATS_AS_TEXT, last_values, may_be_deep, parse
from mixpanel_assets.rules.lines import (
    BOM,
    SHORT_LINE_BYTES,
    LineSplitter,
    LongLine,
    is_blank,
    why_unstorable,
)

T = TypeVar("T")

_GZIP = 16 + zlib.MAX_WBITS
_CUT_MARKER = b"terminated early"


class IncompleteBodyError(ValueError):
    """The bytes are not a complete export; the text gives the reason."""


class _Properties(msgspec.Struct):
    """Any JSON object; its members are checked as JSON and skipped."""


class _Line(msgspec.Struct):
    event: str
    properties: _Properties


class _Event(msgspec.Struct, gc=False):
    event: str
    properties: dict[str, Any]


_check_line = msgspec.json.Decoder(_Line).decode
_decode_lines = msgspec.json.Decoder().decode_lines
_build_lines = msgspec.json.Decoder(_Event, float_hook=FLOATS_AS_TEXT).decode_lines
_encode_lines = msgspec.json.Encoder().encode_lines
_UNUSUAL = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_BUILT_BYTES = 1 << 16  # a larger block has a long line
_PIECE_BYTES = 1 << 20  # of a body; a few compressed bytes may inflate to a thousand times as many


class Inflater:
    """Inflates the bytes of a response, and knows whether its gzip stream has ended."""

    def __init__(self, *, gzip: bool) -> None:
        self._stream = zlib.decompressobj(_GZIP) if gzip else None

    def feed(self, received_bytes: bytes) -> Iterator[bytes]:
        """Yield the body bytes that `received_bytes` completes, in pieces of bounded size."""
        if self._stream is None:
            for start in range(0, len(received_bytes), _PIECE_BYTES):
                yield received_bytes[start : start + _PIECE_BYTES]
            return
        inflated = b""
        try:
            while received_bytes or inflated:
                if self._stream.eof:  # a gzip file may hold several members
                    self._stream = zlib.decompressobj(_GZIP)
                inflated = self._stream.decompress(received_bytes, _PIECE_BYTES)
                yield inflated
                if self._stream.eof:
                    received_bytes, inflated = self._stream.unused_data, b""
                else:
                    received_bytes = self._stream.unconsumed_tail
        except zlib.error as error:
            raise IncompleteBodyError("the compressed stream is damaged") from error

    def finish(self) -> None:
        """Raise `IncompleteBodyError` unless the compressed stream has ended."""
        if self._stream is not None and not self._stream.eof:
            raise IncompleteBodyError("the compressed stream stops before its end")


class Judge(ABC, Generic[T]):
    """Turns the bytes of one response into items, one for each line.

    Items are yielded in blocks, because a call for each item would be slow. A block is checked as
    one; if it holds anything unusual, line by line.

    Attributes:
        lines: The number of complete lines so far, without blank ones.
        blank_lines: The number of blank lines, which are skipped.
        long_lines: The places of lines longer than `MAX_LINE_BYTES`, which are not yielded.
        odd_lines: The number of other lines that no table can hold, by reason.
        json_bytes: Body bytes so far, uncompressed.
    """

    def __init__(self, *, gzip: bool) -> None:
        self.lines = 0
        self.blank_lines = 0
        self.long_lines = list[str]()
        self.odd_lines = Counter[str]()
        self.json_bytes = 0
        self._inflater = Inflater(gzip=gzip)
        self._splitter = LineSplitter()

    def feed(self, received_bytes: bytes) -> Iterator[Iterable[T]]:
        """Yield blocks with an item for each line that the received bytes complete.

        Raises:
            IncompleteBodyError: The response cannot be complete. It may be raised while the items
                of a block are drawn; the items before are valid.
        """
        for inflated in self._inflater.feed(received_bytes):
            self.json_bytes += len(inflated)
            for block in self._splitter.feed(inflated):
                yield from self._judge_block(block)

    def finish(self) -> Iterator[Iterable[T]]:
        """Yield a last line without newline; without an error, the response is complete."""
        self._inflater.finish()
        for block in self._splitter.finish():
            yield from self._judge_block(block)

    def _judge_block(self, block: bytes | LongLine) -> Iterator[Iterable[T]]:
        if isinstance(block, LongLine):
            self._judge_long_line(block)
            return
        items = self._judge_lines_together(block)
        if items is not None:
            yield items
            return
        for line in block[:-1].split(b"\n"):
            if is_blank(line):
                self.blank_lines += 1
                continue
            item = self._judge_line(line)
            self.lines += 1
            yield (item,)

    @abstractmethod
    def _judge_lines_together(self, block: bytes) -> Iterable[T] | None:
        """Count the lines and return their items; None: one of them must be checked alone."""

    @abstractmethod
    def _judge_line(self, line: bytes) -> T:
        """Return the item of a line, or raise `IncompleteBodyError`."""

    def _judge_long_line(self, line: LongLine) -> None:
        if not line.is_whole:
            raise IncompleteBodyError(self._why_incomplete(line.head))
        self.long_lines.append(self._line_place)
        self.lines += 1

    def _unusual_event(self, line: bytes) -> dict[str, Any]:
        # msgspec refuses lone surrogates and numbers beyond a double's range; JSON allows them.
        try:
            event = parse(line.removeprefix(BOM).decode("utf-8", "surrogateescape"))
        except ValueError as error:
            raise IncompleteBodyError(self._why_incomplete(line)) from error
        if not isinstance(event, dict) or "event" not in event:
            if isinstance(event, dict) and "error" in event:
                raise IncompleteBodyError(f"{self._line_place} is an error object, not an event")
            raise IncompleteBodyError(f"{self._line_place} is not an event")
        if not isinstance(event["event"], str) or not isinstance(event.get("properties"), dict):
            raise IncompleteBodyError(f"{self._line_place} is not an event with properties")
        if reason := why_unstorable(line):
            self.odd_lines[reason] += 1
        return event

    @property
    def _line_place(self) -> str:
        """The present line, by its number in the response."""
        return f"line {self.lines + self.blank_lines + 1:,}"

    def _why_incomplete(self, line: bytes) -> str:
        if _CUT_MARKER in line:
            return f"{self._line_place} ends in `terminated early`"
        if line.lstrip()[:1] == b"<":
            return f"{self._line_place} is HTML"
        return f"{self._line_place} is cut or is not JSON"


class Verdict(Judge[bytes]):
    """Yields the lines themselves.

    Attributes:
        names_once: Whether no object of a line of up to `SHORT_LINE_BYTES` has a name twice.
    """

    def __init__(self, *, gzip: bool) -> None:
        super().__init__(gzip=gzip)
        self.names_once = True

    def _judge_lines_together(self, block: bytes) -> Iterator[bytes] | None:
        try:
            # Equal bytes: one event a line, and no name was lost.
            if len(block) > _BUILT_BYTES or _encode_lines(_build_lines(block)) != block:
                self._check_lines(block)
        except (*_UNUSUAL, OverflowError):  # of an integer that has more than 64 bits
            return None
        self.lines += block.count(b"\n")
        return _lines_of(block)

    def _judge_line(self, line: bytes) -> bytes:
        try:
            self._check_lines(line + b"\n")
        except _UNUSUAL:
            self._unusual_event(line)
            self._check_names_once([line])
        return line

    def _check_lines(self, block: bytes) -> None:
        """Check lines without building their values."""
        if not block.isascii():
            block.decode()  # what msgspec skips it does not decode
        for line in _lines_of(block):
            _check_line(line)
        self._check_names_once(_lines_of(block))

    def _check_names_once(self, lines: Iterable[bytes]) -> None:
        self.names_once = self.names_once and all(
            last_values(line) is line for line in lines if len(line.strip()) <= SHORT_LINE_BYTES
        )


class EventVerdict(Judge[dict[str, Any]]):
    """Yields the events as received; each line is parsed once."""

    def _judge_lines_together(self, block: bytes) -> list[dict[str, Any]] | None:
        events = _decode_events(block) if _are_json_objects(block) else None
        self.lines += len(events or ())
        return events

    def _judge_line(self, line: bytes) -> dict[str, Any]:
        events = _decode_events(line + b"\n")
        return events[0] if events else self._unusual_event(line)


class RecordVerdict(Judge[T]):
    """Yields the result of `convert` for each event and its line; each line is parsed once."""

    def __init__(self, convert: Callable[[dict[str, Any], bytes], T], *, gzip: bool) -> None:
        super().__init__(gzip=gzip)
        self._convert = convert

    def _judge_lines_together(self, block: bytes) -> Iterator[T] | None:
        events = _decode_events(block) if _are_json_objects(block) else None
        if events is None:
            return None
        self.lines += len(events)
        return map(self._convert, events, block.split(b"\n"))

    def _judge_line(self, line: bytes) -> T:
        events = _decode_events(line + b"\n")
        return self._convert(events[0] if events else self._unusual_event(line), line)


def _lines_of(block: bytes) -> Iterator[bytes]:
    yield from block[:-1].split(b"\n")


def _are_json_objects(block: bytes) -> bool:
    # No JSON value goes on from a line that ends in } to one that begins with {. So no blank line
    # and no value of several lines can make up for two events in one line.
    lines = block.count(b"\n")
    begins = block.startswith(b"{") + block.count(b"\n{")
    return begins == lines == block.count(b"}\n")


def _decode_events(block: bytes) -> list[dict[str, Any]] | None:
    """Return the events of complete lines; None: one of the lines is unusual."""
    if may_be_deep(block) and any(map(may_be_deep, block.split(b"\n"))):
        return None
    try:
        events: list[Any] = _decode_lines(block)
        for event in events:
            if type(event["event"]) is not str or type(event["properties"]) is not dict:
                return None
    except (*_UNUSUAL, KeyError, TypeError):
        return None
    # The decoder skips blank lines and accepts a value of several lines.
    return events if len(events) == block.count(b"\n") else None
