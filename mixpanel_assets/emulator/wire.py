"""Sending of responses, complete or damaged: gzip, chunks, late bytes, broken connections.

uvicorn writes only well-formed HTTP. To end a connection inside a chunk, this module
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
from itertools import chain

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mixpanel_assets.emulator.faults import Fault
from mixpanel_assets.emulator.inbound import Response

MARKER = "terminated early"  # the text at the end of observed incomplete exports
JUNK = "5"  # DuckDB's JSON reader accepts a bare number as a record


def damage(blocks: Iterable[list[bytes]], fault: Fault | None) -> Iterator[bytes]:
    """Yield blocks of lines as pieces of a body, with the damage of a fault."""
    if fault is None or fault.kind not in _DAMAGE:
        return map(join_lines, blocks)
    return _DAMAGE[fault.kind](blocks, fault)


def join_lines(lines: list[bytes]) -> bytes:
    """Return lines with line ends."""
    return b"\n".join(lines) + b"\n" if lines else b""


def _before_damage(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[tuple[bytes, bytes]]:
    """Yield the pieces before the damage, each with the next line (or nothing).

    `at` is a number of complete lines; the default is half of the first block.
    """
    left = fault.at
    for block in filter(None, blocks):
        left = fault.position(len(block)) if left is None else left
        if left < len(block):
            yield join_lines(block[:left]), block[left]
            return
        left -= len(block)
        yield join_lines(block), b""


def _own_line(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[bytes]:
    for piece, _ in _before_damage(blocks, fault):
        yield piece
    yield (fault.text or MARKER).encode()


def _mid_record(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[bytes]:
    record = b""
    for piece, following in _before_damage(blocks, fault):
        yield piece
        record = following or piece.splitlines()[-1]
    # Cut before a value, as in observed exports.
    cut = record.find(b'":', len(record) * 2 // 3)
    cut = cut + 2 if cut > 0 else len(record) // 2
    yield record[:cut] + (fault.text or MARKER).encode()


def _whole_body(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[bytes]:
    yield (fault.text or MARKER).encode()


def _error_object(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[bytes]:
    for piece, _ in _before_damage(blocks, fault):
        yield piece
    yield b'{"error":"%b"}\n' % (fault.text or "internal error").encode()


def _missing_rows(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[bytes]:
    """Omit rows, which nothing in the body shows."""
    missing = fault.count
    for block in blocks:
        omitted = min(missing, len(block))
        missing -= omitted
        yield join_lines(block[: len(block) - omitted])


def _junk_line(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[bytes]:
    """Insert a line that is not a record; by default one that lenient JSON readers accept."""
    left = fault.at
    junk_lines = [(JUNK if fault.text is None else fault.text).encode()]
    for block in blocks:
        left = fault.position(len(block)) if left is None else left
        if left <= len(block):
            block = block[:left] + junk_lines + block[left:]
            junk_lines = []
        left -= min(left, len(block))
        yield join_lines(block)


def _cut(blocks: Iterable[list[bytes]], fault: Fault) -> Iterator[bytes]:
    left = fault.at
    for piece in map(join_lines, blocks):
        left = fault.position(len(piece)) if left is None else left
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


GZIP_ABOVE_BYTES = 1400  # documented
PIECE_BYTES = 262_144
GZIP_LEVEL = 1  # tests wait for the compression; the size does not matter
NEVER_SECONDS = 3600.0  # longer than any client waits; tests set `seconds`
SLOW_SECONDS = 5.0
BREAKS = ("cut-chunk", "drop-connection", "reset")


class Connections:
    """The open connections by the client's address."""

    def __init__(self) -> None:
        self._transports: dict[tuple[str, int], Transport] = {}

    def protocol(self) -> type[HttpToolsProtocol]:
        """Return a uvicorn protocol that registers its connections here."""
        transports = self._transports

        class RegisteringProtocol(HttpToolsProtocol):
            def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
                super().connection_made(transport)
                if self.client:
                    transports[self.client] = transport

            def connection_lost(self, exc: Exception | None) -> None:
                if self.client:
                    transports.pop(self.client, None)
                super().connection_lost(exc)

        return RegisteringProtocol

    def of(self, scope: Scope) -> Transport | None:
        """Return the transport of a request; None: the client has disconnected."""
        client = scope.get("client")
        return self._transports.get((client[0], client[1])) if client else None

    def abort_all(self) -> None:
        """Close all connections."""
        for transport in list(self._transports.values()):
            transport.abort()


@dataclass
class Delivery:
    """Sends one response to one client."""

    scope: Scope
    receive: Receive
    send: Send
    transport: Transport | None
    fault: Fault | None
    accepts_gzip: bool
    count: Callable[[int], None]
    sleep: Callable[[float], Awaitable[None]]

    async def run(self, response: Response) -> None:
        """Send the response, damaged or delayed by the fault."""
        fault_kind = self.fault.kind if self.fault else None
        if fault_kind == "timeout":
            await self.sleep(self._seconds(NEVER_SECONDS))
            await self._close()
            return
        if fault_kind == "slow-first-byte":
            await self.sleep(self._seconds(SLOW_SECONDS))
        streamed = not isinstance(response.body, bytes)
        if not streamed and fault_kind not in (*BREAKS, "cut-gzip", "stall-mid-stream"):
            assert isinstance(response.body, bytes)
            await self._start(response, {"content-length": str(len(response.body))})
            await self._piece(response.body, more=False)
            return
        await self._stream(response)

    async def _stream(self, response: Response) -> None:
        parts = [response.body] if isinstance(response.body, bytes) else response.body
        pieces, gzipped = await asyncio.to_thread(
            _encode, iter(parts), gzip=self.accepts_gzip and response.gzip_allowed
        )
        await self._start(response, {"content-encoding": "gzip"} if gzipped else {})
        fault_kind = self.fault.kind if self.fault else None
        fault_at = self.fault.at if self.fault else None
        sent = 0
        async for piece in _read_ahead(pieces):
            if self.transport is None or self.transport.is_closing():
                return
            if fault_kind in (*BREAKS, "cut-gzip", "stall-mid-stream"):
                fault_at = len(piece) // 2 if fault_at is None else fault_at
                if fault_at < sent + len(piece):
                    await self._interrupt(piece, fault_at - sent)
                    return
            await self._piece(piece, more=True)
            sent += len(piece)
        if fault_kind in BREAKS:
            await self._break(b"")
        else:
            await self._piece(b"", more=False)

    async def _interrupt(self, piece: bytes, at: int) -> None:
        """Send part of a piece, then apply the fault."""
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
        """End the connection inside a chunk whose announced length is greater."""
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
        await self._wait_for_disconnect()

    async def _wait_for_disconnect(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def _close(self) -> None:
        if self.transport is not None:
            self.transport.abort()
            await self._wait_for_disconnect()

    def _seconds(self, default: float) -> float:
        seconds = self.fault.seconds if self.fault else None
        return default if seconds is None else seconds

    async def _start(self, response: Response, more: dict[str, str]) -> None:
        headers = {"content-type": response.content_type, **response.headers, **more}
        await self.send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            }
        )

    async def _piece(self, piece: bytes, *, more: bool) -> None:
        if not piece and more:
            return
        # Count first: the client may read the log as soon as the last byte arrives.
        self.count(len(piece))
        await self.send({"type": "http.response.body", "body": piece, "more_body": more})


async def _read_ahead(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield pieces from a thread, which computes the next piece during the current one."""
    pending = asyncio.create_task(asyncio.to_thread(next, pieces, None))
    try:
        while (piece := await pending) is not None:
            pending = asyncio.create_task(asyncio.to_thread(next, pieces, None))
            yield piece
    finally:
        await asyncio.wait({pending})


def _encode(parts: Iterator[bytes], *, gzip: bool) -> tuple[Iterator[bytes], bool]:
    """Return the body's pieces as sent, and whether they are compressed.

    A body of up to 1400 bytes is not compressed.
    """
    first = bytearray()
    while gzip and len(first) <= GZIP_ABOVE_BYTES:
        part = next(parts, None)
        if part is None:
            break
        first += part
    gzipped = len(first) > GZIP_ABOVE_BYTES
    body = chain([bytes(first)] if first else [], parts)
    return _gather(_gzip(body) if gzipped else body), gzipped


def _gzip(parts: Iterator[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)
    for part in parts:
        yield packer.compress(part)
    yield packer.flush()


def _gather(parts: Iterator[bytes]) -> Iterator[bytes]:
    """Join small parts: a chunk and a thread for a few bytes would be slow."""
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
