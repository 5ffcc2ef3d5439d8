"""Received lines: the file that holds them, how they are cut out of bytes, which are odd."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path

from mixpanel_assets.rules.json_text import MAX_DEPTH, depth, may_be_deep, parse

MAX_LINE_BYTES = 16 * 2**20
SHORT_LINE_BYTES = 8192  # DuckDB takes 2,048 lines at once, and 30 bytes for each of theirs
HEAD_BYTES = 2**16  # of a longer line that are kept
TOO_LONG = f"it is longer than {MAX_LINE_BYTES >> 20} MiB; only its beginning is kept"
BOM = b"\xef\xbb\xbf"

_PIECE_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 14  # decoded at once: fits into the processor's cache
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# Opening brackets of one kind that a line has at least when it is nested too deep.
_DEEP = (MAX_DEPTH + 1) // 2
_CONTROLS = bytes(range(32))
_CONTROLS_IN_LINES = _CONTROLS.replace(b"\n", b"")
_DIGITS_AS_0 = bytes(b"0"[0] if chr(byte).isdigit() and byte < 128 else 32 for byte in range(256))
_LONG_INTEGER = b"0" * 20
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRICT = json.JSONDecoder(parse_int=str)  # of any number of digits


@dataclass(frozen=True)
class UnusualLines:
    """What is known of the lines that DuckDB does not read as they were sent.

    Attributes:
        unread: The lines that `is_unread` finds, if lines of `SHORT_LINE_BYTES` are read; None:
            there are too many to remember.
        number_lengths: The lengths of the lines with a number that DuckDB may write differently,
            without white space around the lines. Other lines may be as long. None: any length.
    """

    unread: Sequence[bytes | LongLine] | None
    number_lengths: Collection[int] | None


@dataclass(frozen=True)
class ReceivedDays:
    """A file with every event of some days, as Mixpanel sent them.

    Attributes:
        path: Lines of an export with `time_in_ms=true`; gzip or plain, may be empty.
        from_date: First day of the request, included.
        to_date: Last day of the request, included.
        lines: Lines counted while they were received, duplicates included.
        names_once: Whether no object of a short line has a name twice. In other files each line is
            read to the letter, which takes longer.
        unusual: Its unusual lines; None: the load must look for them.
        received_bytes: Size of the file.
        requests: Requests made for it, failed ones included.
        received_at: When its last byte was received; aware.
    """

    path: Path
    from_date: date
    to_date: date
    lines: int
    names_once: bool
    unusual: UnusualLines | None = field(default=None, repr=False, kw_only=True)
    received_bytes: int = 0
    requests: int = 1
    received_at: datetime = field(default_factory=lambda: datetime.now(UTC))


def is_blank(line: bytes) -> bool:
    """Return whether a line has only white space, perhaps after a byte order mark."""
    return not line.removeprefix(BOM).strip()


def why_unstorable(line: bytes) -> str | None:
    """Return the reason that no table can hold a complete line; None: its text is fine."""
    try:
        line_text = line.removeprefix(BOM).decode()
    except UnicodeDecodeError:
        return "its bytes are not UTF-8"
    if may_be_deep(line_text) and _is_deep_line(line_text):
        return f"it is nested more than {MAX_DEPTH} levels deep"
    if len(line.translate(None, _CONTROLS)) < len(line) and _has_raw_controls(line_text):
        return "it holds a control character that is not written as an escape"
    if _SURROGATE.search(line) and _has_half_pairs(line_text):
        return "it holds half of a surrogate pair, which is not a character"
    return None


def are_plain(block: bytes, most: int) -> bool:
    """Return whether lines have plain text and `most` bytes at most; False: it is not certain.

    None of them is unstorable, deeply nested, or begins with a byte order mark.
    """
    if may_be_deep(block, MAX_DEPTH // 2) or BOM in block or _SURROGATE.search(block):
        return False
    if not _are_short(block, most):
        return False
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return len(block.translate(None, _CONTROLS_IN_LINES)) == len(block)


def has_long_integer(block: bytes) -> bool:
    """Return whether 20 digits follow each other, which may be an integer of more than 64 bits."""
    return _LONG_INTEGER in block.translate(_DIGITS_AS_0)


def are_left_in(block: bytes, most: int) -> bool:
    """Return whether `is_left_out` is false for all lines; False: it is not certain."""
    if _are_short(block, 2 * MAX_DEPTH):
        return True
    return _are_short(block, most) and block.count(b"[") < _DEEP and block.count(b"{") < _DEEP


def _are_short(block: bytes, most: int) -> bool:
    """Return whether no line has more than `most` bytes; from newline to newline, not each one."""
    start = 0
    while start < len(block):
        if (start := block.rfind(b"\n", start, start + most + 1) + 1) == 0:
            return False
    return True


def is_left_out(line: bytes, most: int) -> bool:
    """Return whether DuckDB is not to look at a line, without white space around it.

    It has more than `most` bytes, or may be nested too deep.
    """
    if len(line) > most:
        return True
    return len(line) > 2 * MAX_DEPTH and max(line.count(b"["), line.count(b"{")) >= _DEEP


def left_out_sql(line: str, most: int) -> str:
    """Return the SQL of `is_left_out`."""
    deep = " OR ".join(f"{line}::VARCHAR LIKE '{f'%{bracket}' * _DEEP}%'" for bracket in "[{")
    return f"strlen({line}) > {most} OR (strlen({line}) > {2 * MAX_DEPTH} AND ({deep}))"


def is_unread(line: bytes, most: int) -> bool:
    """Return whether DuckDB refuses a complete line, or is not to look at it."""
    if line.startswith(BOM):
        return True
    stripped_line = line.strip()
    return bool(stripped_line) and (is_left_out(stripped_line, most) or bool(why_unstorable(line)))


def _is_deep_line(line_text: str) -> bool:
    try:
        return depth(line_text) > MAX_DEPTH
    except ValueError:  # not JSON, which is another fault
        return False


def _has_raw_controls(line_text: str) -> bool:
    try:
        _STRICT.decode(line_text)
    except ValueError:
        return True
    return False


def _has_half_pairs(line_text: str) -> bool:
    try:
        json.dumps(parse(line_text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except ValueError:
        return False
    return False


class LongLine:
    """A line of more than `MAX_LINE_BYTES`; only its beginning is kept.

    Attributes:
        head: Its first `HEAD_BYTES`.
        length: Bytes of the complete line.
    """

    def __init__(self) -> None:
        self.head = b""
        self.length = 0
        self._hash = hashlib.sha256()
        self._level = 0
        self._in_string = False
        self._backslash = b""  # at the end of the part before
        self._last = b""

    @property
    def sha256(self) -> str:
        """The SHA-256 of the complete line, in hexadecimal digits."""
        return self._hash.hexdigest()

    @property
    def is_whole(self) -> bool:
        """Whether it is an object that closes every string and bracket that it opens."""
        begins = self.head.removeprefix(BOM).lstrip().startswith(b"{")
        return begins and not self._in_string and not self._level and self._last == b"}"

    def add(self, line_part: bytes) -> None:
        """Add the next bytes of the line."""
        self.head += line_part[: HEAD_BYTES - len(self.head)]
        self.length += len(line_part)
        self._hash.update(line_part)
        line_part = _ESCAPE.sub(b"", self._backslash + line_part)
        self._backslash = b"\\" if line_part.endswith(b"\\") else b""
        pieces = line_part.split(b'"')
        outside = b"".join(pieces[1 if self._in_string else 0 :: 2])
        self._in_string ^= len(pieces) % 2 == 0
        self._level += sum(map(outside.count, (b"{", b"["))) - sum(map(outside.count, (b"}", b"]")))
        self._last = outside.rstrip()[-1:] or self._last


class LineSplitter:
    """Splits body bytes at newlines only, however they are chunked, into blocks of a few lines.

    U+2028, U+2029 and U+0085 may occur in JSON strings, and the byte 0x85 is part of common
    letters, so text-mode splitting would be wrong. A line that is too long is a block of its own,
    and memory does not grow with it.
    """

    def __init__(self) -> None:
        self._line_parts: list[bytes] = []
        self._line_bytes = 0
        self._long_line: LongLine | None = None

    def feed(self, body: bytes) -> Iterator[bytes | LongLine]:
        """Yield the lines that a body of `MAX_LINE_BYTES` at most completes, newlines included."""
        line_start, lines_end = 0, body.rfind(b"\n") + 1
        if lines_end and self._line_bytes + (first_newline := body.index(b"\n")) > MAX_LINE_BYTES:
            self._keep_line_part(body[:first_newline])
            yield from self._end_long_line()
            line_start = first_newline + 1
        while line_start < lines_end:
            block_end = body.index(b"\n", min(line_start + _BLOCK_BYTES, lines_end - 1)) + 1
            yield b"".join([*self._line_parts, body[line_start:block_end]])
            self._line_parts, self._line_bytes = [], 0
            line_start = block_end
        self._keep_line_part(body[line_start:])

    def finish(self) -> Iterator[bytes | LongLine]:
        """Yield the last line as a block, with a newline, if it has none."""
        if self._long_line:
            yield from self._end_long_line()
        elif last_line := b"".join(self._line_parts):
            yield last_line + b"\n"

    def _keep_line_part(self, line_part: bytes) -> None:
        self._line_parts.append(line_part)
        self._line_bytes += len(line_part)
        if self._line_bytes > MAX_LINE_BYTES:
            self._long_line = self._long_line or LongLine()
            for line_start in self._line_parts:
                self._long_line.add(line_start)
            self._line_parts = []

    def _end_long_line(self) -> Iterator[LongLine]:
        if self._long_line:
            yield self._long_line
        self._long_line, self._line_parts, self._line_bytes = None, [], 0


def lines_of(
    read: Callable[[int], bytes], is_left_out: Callable[[bytes], bool] = lambda block: False
) -> Iterator[bytes | LongLine]:
    """Yield the lines of a file, given its `read`, without their newlines; long ones in part.

    Blocks of lines for which `is_left_out` is true are left out.
    """
    for block in _line_blocks(read):
        if isinstance(block, LongLine):
            yield block
        elif not is_left_out(block):
            yield from block[:-1].split(b"\n")


def _line_blocks(read: Callable[[int], bytes]) -> Iterator[bytes | LongLine]:
    splitter = LineSplitter()
    while piece := read(_PIECE_BYTES):
        yield from splitter.feed(piece)
    yield from splitter.finish()
