"""Spoiled export bodies: what a server that gives up half way leaves behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mixpanel_assets.emulator.faults import Fault

MARKER = "terminated early"
JUNK = "5"


def spoiled(blocks: Iterable[list[bytes]], fault: Fault | None) -> Iterator[bytes]:
    """Turn blocks of lines into pieces of a body, with the damage a fault asks for."""
    kind = fault.kind if fault else None
    if fault is None or kind not in _DAMAGE:
        yield from map(joined, blocks)
        return
    yield from _DAMAGE[kind](blocks, fault)


def joined(lines: list[bytes]) -> bytes:
    """Return lines with their ends."""
    return b"\n".join(lines) + b"\n" if lines else b""


def _kept_lines(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pieces before the damage, each with the line that follows it (or nothing).

    `at` is a number of complete lines; by default half of the first block is kept.
    """
    left = fault.position
    for block in blocks:
        if not block:
            continue
        if left is None:
            left = len(block) // 2
        if left < len(block):
            yield joined(block[:left]), block[left]
            return
        left -= len(block)
        yield joined(block), b""


def _own_line(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[bytes]:
    for piece, _ in _kept_lines(blocks, fault):
        yield piece
    yield (fault.text or MARKER).encode()


def _mid_record(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[bytes]:
    record = b""
    for piece, following in _kept_lines(blocks, fault):
        yield piece
        record = following or piece.splitlines()[-1]
    # Cut where a value should begin, as in the observed exports.
    cut = record.find(b'":', len(record) * 2 // 3)
    cut = cut + 2 if cut > 0 else len(record) // 2
    yield record[:cut] + (fault.text or MARKER).encode()


def _whole_body(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[bytes]:
    yield (fault.text or MARKER).encode()


def _error_object(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[bytes]:
    for piece, _ in _kept_lines(blocks, fault):
        yield piece
    yield b'{"error":"%b"}\n' % (fault.text or "internal error").encode()


def _missing_rows(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[bytes]:
    """Leave rows out of the first block; nothing in the body shows it."""
    missing = fault.count
    for block in blocks:
        gone = min(missing, len(block))
        missing -= gone
        yield joined(block[: len(block) - gone])


def _junk_line(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[bytes]:
    """Put in a line that is no record, by default one that lenient JSON readers take."""
    left = fault.position
    junk = (JUNK if fault.text is None else fault.text).encode()
    done = False
    for block in blocks:
        lines = list(block)
        left = len(lines) // 2 if left is None else left
        if not done and left <= len(lines):
            lines.insert(left, junk)
            done = True
        left -= min(left, len(block))
        yield joined(lines)


def _cut(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[bytes]:
    left = fault.position
    for piece in map(joined, blocks):
        if left is None:
            left = len(piece) // 2
        yield piece[:left]
        left -= min(left, len(piece))
        if not left:
            return


_DAMAGE = {
    "truncate-own-line": _own_line,
    "truncate-mid-record": _mid_record,
    "truncate-whole-body": _whole_body,
    "error-object-in-stream": _error_object,
    "missing-rows": _missing_rows,
    "junk-line": _junk_line,
    "cut-body": _cut,
}
