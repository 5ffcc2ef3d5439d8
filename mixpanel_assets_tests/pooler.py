"""A pooler in front of PostgreSQL: it hands its few sessions to clients, by transaction or not."""

import itertools
import os
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

NOT_ENCRYPTED = (80877103, 80877104)  # what a client requests before it logs in: TLS, Kerberos
PARAMETERS = ("server_version", "client_encoding", "standard_conforming_strings", "DateStyle")


def received(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (part := client.recv(size - len(data))):
            raise ConnectionError
        data += part
    return data


def message(client: socket.socket) -> tuple[bytes, bytes]:
    kind, size = struct.unpack("!cI", received(client, 5))
    return kind, received(client, size - 4)


def packed(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


@contextmanager
def pooled(connect: Callable[[], Any], *, by_transaction: bool) -> Iterator[int]:
    """Yield the port of a pooler whose sessions `connect` opens; it lets every client in."""
    sessions: list[Any] = []
    sockets: list[socket.socket] = []
    free: list[socket.socket] = []
    invented = itertools.count(1_000_000)

    def take() -> socket.socket:
        try:
            return free.pop()
        except IndexError:
            sessions.append(connect())
            sockets.append(socket.socket(fileno=os.dup(sessions[-1].fileno())))
            sockets[-1].setblocking(True)
            return sockets[-1]

    class Client(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            held: list[socket.socket] = []
            try:
                self.log_in()
                while (asked := message(self.request))[0] != b"X":
                    if not held:
                        held.append(take())
                    held[0].sendall(packed(*asked))
                    answers = [message(held[0])]
                    while answers[-1][0] != b"Z":
                        answers.append(message(held[0]))
                    if by_transaction and answers[-1][1] == b"I":
                        free.append(held.pop())
                    self.request.sendall(b"".join(packed(*one) for one in answers))
            except ConnectionError:
                pass
            finally:
                free.extend(held)

        def log_in(self) -> None:
            while True:
                (size,) = struct.unpack("!I", received(self.request, 4))
                (wanted,) = struct.unpack("!I", received(self.request, size - 4)[:4])
                if wanted not in NOT_ENCRYPTED:
                    break
                self.request.sendall(b"N")
            self.request.sendall(packed(b"R", struct.pack("!I", 0)))
            for name in PARAMETERS:
                value = sessions[0].get_parameter_status(name)
                self.request.sendall(packed(b"S", f"{name}\0{value}\0".encode()))
            self.request.sendall(packed(b"K", struct.pack("!II", next(invented), 7)))
            self.request.sendall(packed(b"Z", b"I"))

    free.append(take())
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Client) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            for opened in (*sockets, *sessions):
                opened.close()
