"""Whether the response of an export is complete: checked byte by byte while it arrives.

It is complete if its gzip stream has ended and every line, also the last one, is a JSON object
with a text `event` and an object `properties`. A missing final newline alone is not a fault, and
blank lines are skipped. The content of a line may be odd (`rules.lines`) as long as it closes
every bracket and string that it opens; a truncated line does not.
Mixpanel may truncate a response after a status of 200 and close the connection cleanly.

Source: Mixpanel raw export as observed by several clients (`terminated early`), 2026-11.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import msgspec
from zlib_ng import zlib_ng

from mixpanel_assets.rules.json_text import MAX_DEPTH, NumberTexts, last_values, may_be_deep, parse
from mixpanel_assets.rules.lines import (
    BOM,
    SHORT_LINE_BYTES,
    LineSplitter,
    LongLine,
    UnusualLines,
    are_left_in,
    has_long_integer,
    is_blank,
    is_unread,
    why_unstorable,
)

T = TypeVar("T")

_GZIP = 16 + zlib_ng.MAX_WBITS
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
_decode_line = msgspec.json.Decoder().decode
_refuse_long_integers = msgspec.msgpack.Encoder().encode  # `OverflowError` beyond 64 bits
_encode_lines = msgspec.json.Encoder().encode_lines
_UNUSUAL = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_BUILT_BYTES = 1 << 16  # a larger block has a long line
_MOST_UNREAD_BYTES = 4 << 20  # such lines are rare; of many, the load reads the file again
_MOST_LENGTHS = 100  # more would be lengths of most lines
# Of a body: a few compressed bytes may inflate to a thousand times as many, and a small piece is
# still in the processor's cache when it is parsed.
_PIECE_BYTES = 1 << 16


class Inflater:
    """Inflates the bytes of a response, and knows whether its gzip stream has ended."""

    def __init__(self, *, gzip: bool) -> None:
        self._stream = zlib_ng.decompressobj(_GZIP) if gzip else None

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
                    self._stream = zlib_ng.decompressobj(_GZIP)
                inflated = self._stream.decompress(received_bytes, _PIECE_BYTES)
                yield inflated
                if self._stream.eof:
                    received_bytes, inflated = self._stream.unused_data, b""
                else:
                    received_bytes = self._stream.unconsumed_tail
        except zlib_ng.error as error:  # type: ignore[misc] # its stub calls the class an instance
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
        for line in _lines_of(block):
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
        self._unusual = _Unusual()
        self._numbers = NumberTexts()
        to_text = self._numbers.__getitem__
        self._build_lines = msgspec.json.Decoder(_Event, float_hook=to_text).decode_lines
        self._build_line = msgspec.json.Decoder(_Event, float_hook=to_text).decode

    @property
    def unusual(self) -> UnusualLines:
        """The lines so far that DuckDB does not read as they were sent."""
        return self._unusual.lines()

    def _judge_lines_together(self, block: bytes) -> list[bytes] | None:
        self._numbers.may_differ = False
        try:
            # Equal bytes: one event a line, and no name was lost.
            is_short = len(block) <= _BUILT_BYTES
            if not (is_short and _encode_lines(self._build_lines(block)) == block):
                self._check_lines(block)
        except (*_UNUSUAL, OverflowError):  # of an integer that has more than 64 bits
            return None
        may_differ = self._unusual.lengths_are_few and (
            self._numbers.may_differ or has_long_integer(block)
        )
        # Checked lines are UTF-8 without half pairs or raw control characters; only long or deep
        # ones are unread.
        lines = _lines_of(block)
        if may_differ or not are_left_in(block, SHORT_LINE_BYTES):
            for line in lines:
                self._note_if_unusual(line)
        self.lines += len(lines)
        return lines

    def _judge_line(self, line: bytes) -> bytes:
        try:
            self._check_lines(line + b"\n")
        except _UNUSUAL:
            self._unusual_event(line)
            self._check_names_once([line])
        self._note_if_unusual(line)
        return line

    def _judge_long_line(self, line: LongLine) -> None:
        super()._judge_long_line(line)
        self._unusual.add_unread(line)

    def _note_if_unusual(self, line: bytes) -> None:
        if is_unread(line, SHORT_LINE_BYTES):
            self._unusual.add_unread(line)
        elif self._unusual.lengths_are_few and self._may_change_numbers(line):
            self._unusual.add_length(len(line.strip()))

    def _may_change_numbers(self, line: bytes) -> bool:
        """Return whether DuckDB may write a number of a short line differently."""
        self._numbers.may_differ = False
        try:
            _refuse_long_integers(self._build_line(line))
        except (*_UNUSUAL, OverflowError):
            return True
        return self._numbers.may_differ

    def _check_lines(self, block: bytes) -> None:
        """Check lines without building their values."""
        if not block.isascii():
            block.decode()  # what msgspec skips it does not decode
        lines = _lines_of(block)
        for line in lines:
            _check_line(line)
        self._check_names_once(lines)

    def _check_names_once(self, lines: Iterable[bytes]) -> None:
        self.names_once = self.names_once and all(
            last_values(line) is line for line in lines if len(line.strip()) <= SHORT_LINE_BYTES
        )


class _Unusual:
    """Collects the unusual lines of a response, unless they are too many."""

    def __init__(self) -> None:
        self._unread: list[bytes | LongLine] | None = []
        self._unread_bytes = 0
        self._lengths = set[int]()

    def lines(self) -> UnusualLines:
        """Return what was collected."""
        return UnusualLines(
            None if self._unread is None else tuple(self._unread),
            frozenset(self._lengths) if self.lengths_are_few else None,
        )

    @property
    def lengths_are_few(self) -> bool:
        """Whether it is still worth while to add a length."""
        return len(self._lengths) <= _MOST_LENGTHS

    def add_unread(self, line: bytes | LongLine) -> None:
        """Keep a line, unless there are too many bytes."""
        self._unread_bytes += sys.getsizeof(line if isinstance(line, bytes) else line.head)
        if self._unread_bytes > _MOST_UNREAD_BYTES:
            self._unread = None
        if self._unread is not None:
            self._unread.append(line)

    def add_length(self, length: int) -> None:
        """Keep the length of a line."""
        self._lengths.add(length)


class EventVerdict(Judge[dict[str, Any]]):
    """Yields the events as received; each line is parsed once."""

    def _judge_lines_together(self, block: bytes) -> list[dict[str, Any]] | None:
        events = _decode_events(_lines_of(block))
        self.lines += len(events or ())
        return events

    def _judge_line(self, line: bytes) -> dict[str, Any]:
        events = _decode_events([line])
        return events[0] if events else self._unusual_event(line)


class RecordVerdict(Judge[T]):
    """Yields the result of `convert` for each event and its line; each line is parsed once."""

    def __init__(self, convert: Callable[[dict[str, Any], bytes], T], *, gzip: bool) -> None:
        super().__init__(gzip=gzip)
        self._convert = convert

    def _judge_lines_together(self, block: bytes) -> Iterator[T] | None:
        lines = _lines_of(block)
        events = _decode_events(lines)
        if events is None:
            return None
        self.lines += len(events)
        return map(self._convert, events, lines)

    def _judge_line(self, line: bytes) -> T:
        events = _decode_events([line])
        return self._convert(events[0] if events else self._unusual_event(line), line)


def _lines_of(block: bytes) -> list[bytes]:
    return block[:-1].split(b"\n")


def _decode_events(lines: list[bytes]) -> list[dict[str, Any]] | None:
    """Return the events of complete lines; None: one of the lines is unusual."""
    # A shorter line cannot close as many brackets as a deep one opens.
    if max(map(len, lines)) > 2 * MAX_DEPTH and any(map(may_be_deep, lines)):
        return None
    try:
        events: list[Any] = list(map(_decode_line, lines))
        for event in events:
            if type(event["event"]) is not str or type(event["properties"]) is not dict:
                return None
    except (*_UNUSUAL, KeyError, TypeError):
        return None
    return events
