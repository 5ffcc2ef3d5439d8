"""Sending responses, complete or damaged: gzip, chunks, late bytes and broken connections.

uvicorn writes well-formed HTTP only. For a connection that ends inside a chunk, this module
keeps each connection's transport and writes the last bytes itself.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import zlib
from asyncio import Transport
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mixpanel_assets.emulator.call import Answer
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


GZIP_ABOVE_BYTES = 1400
PIECE_BYTES = 262_144
GZIP_LEVEL = 1
NEVER_SECONDS = 3600.0
SLOW_SECONDS = 5.0
BREAKS = ("cut-chunk", "drop-connection", "reset")


class Connections:
    """The open connections, found by the client's address."""

    def __init__(self) -> None:
        self._transports: dict[tuple[str, int], Transport] = {}

    def protocol(self) -> type[HttpToolsProtocol]:
        """Return the uvicorn protocol that reports its connections here."""
        transports = self._transports

        class ReportingProtocol(HttpToolsProtocol):
            def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                if self.client:
                    transports[self.client] = transport

            def connection_lost(self, exc: Exception | None) -> None:
                if self.client:
                    transports.pop(self.client, None)
                super().connection_lost(exc)

        return ReportingProtocol

    def of(self, scope: Scope) -> Transport | None:
        """Return the transport of a request, or None when the client has gone."""
        client = scope.get("client")
        return self._transports.get((client[0], client[1])) if client else None

    def abort_all(self) -> None:
        """Close every connection at once."""
        for transport in list(self._transports.values()):
            transport.abort()


@dataclass
class Delivery:
    """One answer on its way to one client."""

    scope: Scope
    receive: Receive
    send: Send
    transport: Transport | None
    fault: Fault | None
    accepts_gzip: bool
    count: Callable[[int], None]
    sleep: Callable[[float], Awaitable[None]]

    async def run(self, answer: Answer) -> None:
        """Send the answer the way the fault wants it."""
        kind = self.fault.kind if self.fault else None
        if kind == "timeout":
            await self.sleep(self._seconds(NEVER_SECONDS))
            await self._close()
            return
        if kind == "slow-first-byte":
            await self.sleep(self._seconds(SLOW_SECONDS))
        streamed = not isinstance(answer.body, bytes)
        if not streamed and kind not in (*BREAKS, "cut-gzip", "stall-mid-stream"):
            assert isinstance(answer.body, bytes)
            await self._start(answer, {"content-length": str(len(answer.body))})
            await self._piece(answer.body, more=False)
            return
        await self._stream(answer)

    async def _stream(self, answer: Answer) -> None:
        parts = [answer.body] if isinstance(answer.body, bytes) else answer.body
        pieces, gzipped = await asyncio.to_thread(
            _encoded, iter(parts), gzip=self.accepts_gzip and answer.gzip_allowed
        )
        await self._start(answer, {"content-encoding": "gzip"} if gzipped else {})
        kind = self.fault.kind if self.fault else None
        stop = self.fault.position if self.fault else None
        sent = 0
        async for piece in _ahead(pieces):
            if self.transport is None or self.transport.is_closing():
                return
            if kind in (*BREAKS, "cut-gzip", "stall-mid-stream"):
                stop = len(piece) // 2 if stop is None else stop
                if stop < sent + len(piece):
                    await self._interrupted(piece, stop - sent)
                    return
            await self._piece(piece, more=True)
            sent += len(piece)
        if kind in BREAKS:
            await self._break(b"")
        else:
            await self._piece(b"", more=False)

    async def _interrupted(self, piece: bytes, at: int) -> None:
        """Send part of a piece, then do what the fault is there for."""
        assert self.fault is not None
        if self.fault.kind in BREAKS:
            await self._break(piece[:at])
            return
        await self._piece(piece[:at], more=True)
        if self.fault.kind == "stall-mid-stream":
            await self.sleep(self._seconds(NEVER_SECONDS))
            await self._close()
        else:
            await self._piece(b"", more=False)

    async def _break(self, piece: bytes) -> None:
        """End the connection inside a chunk that was announced longer than what comes."""
        assert self.fault is not None
        transport = self.transport
        if transport is None:
            return
        self.count(len(piece))
        transport.write(b"%x\r\n" % (len(piece) + 16) + piece)
        if self.fault.kind == "reset":
            while transport.get_write_buffer_size() and not transport.is_closing():
                await asyncio.sleep(0.001)
            raw = transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()
        await self._until_gone()

    async def _until_gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _close(self) -> None:
        if self.transport is not None:
            self.transport.abort()
            await self._until_gone()

    def _seconds(self, default: float) -> float:
        seconds = self.fault.seconds if self.fault else None
        return default if seconds is None else seconds

    async def _start(self, answer: Answer, more: dict[str, str]) -> None:
        headers = {"content-type": answer.content_type, **answer.headers, **more}
        await self.send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            }
        )

    async def _piece(self, piece: bytes, *, more: bool) -> None:
        if not piece and more:
            return
        # Counted first: the client may look at the log the moment the last byte arrives.
        self.count(len(piece))
        await self.send({"type": "http.response.body", "body": piece, "more_body": more})


async def _ahead(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield pieces made in a thread, the next one while the last one is sent."""
    pending = asyncio.create_task(asyncio.to_thread(next, pieces, None))
    try:
        while (piece := await pending) is not None:
            pending = asyncio.create_task(asyncio.to_thread(next, pieces, None))
            yield piece
    finally:
        await asyncio.wait({pending})


def _encoded(parts: Iterator[bytes], *, gzip: bool) -> tuple[Iterator[bytes], bool]:
    """Return the body's pieces as sent, and whether they are compressed.

    A body of up to 1400 bytes stays as it is, so the first bytes decide.
    """
    first = bytearray()
    while gzip and len(first) <= GZIP_ABOVE_BYTES:
        part = next(parts, None)
        if part is None:
            break
        first += part
    gzipped = len(first) > GZIP_ABOVE_BYTES
    whole = _chained(bytes(first), parts)
    return _gathered(_gzipped(whole) if gzipped else whole), gzipped


def _chained(first: bytes, rest: Iterable[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _gzipped(parts: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)
    for part in parts:
        yield packer.compress(part)
    yield packer.flush()


def _gathered(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Join small parts, so that neither chunks nor threads are wasted on a few bytes."""
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= PIECE_BYTES:
            yield b"".join(waiting)
            waiting.clear()
            size = 0
    if size:
        yield b"".join(waiting)
