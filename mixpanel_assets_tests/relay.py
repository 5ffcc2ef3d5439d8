"""An HTTP server in front of another one, which fails in the middle of a write on demand."""

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

WRITES = ("PUT", "POST", "DELETE")
CODES = {403: "AccessDenied", 500: "InternalError", 503: "SlowDown"}
OF_ONE_CONNECTION = ("transfer-encoding", "connection", "content-length")


class Relay:
    """Passes requests on to a server until it breaks.

    Attributes:
        endpoint: Its address.
        on_write: Called before a write is passed on.
        is_broken: Whether a write has met the fault.
    """

    def __init__(self, host: str, port: int) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(host, port))
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.on_write: Callable[[], object] = lambda: None
        self.is_broken = False
        self._fault: str | int | None = None
        self._passed = 0

    def break_down(self, fault: str | int, *, after_writes: int = 0) -> None:
        """Fail all writes but the first ones.

        Args:
            fault: A status of the response; `cut`, connections end before a response; `lost`, the
                same after the write was passed on; `gone`, connections for reads end too.
            after_writes: The number of writes that still succeed.
        """
        self._fault, self._passed = fault, after_writes

    def recover(self) -> None:
        """Pass all requests on again."""
        self._fault, self.is_broken = None, False

    def _fault_for(self, method: str) -> str | int | None:
        if method not in WRITES:
            return "gone" if self.is_broken and self._fault == "gone" else None
        self.on_write()
        if self._fault is None:
            return None
        self._passed -= 1
        self.is_broken = self.is_broken or self._passed < 0
        return self._fault if self.is_broken else None

    def _handler(self, host: str, port: int) -> type[BaseHTTPRequestHandler]:
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version: ClassVar[str] = "HTTP/1.1"

            def answer(self) -> None:
                fault = relay._fault_for(self.command)
                if fault in ("cut", "gone"):
                    self.hang_up()
                    return
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if isinstance(fault, int):
                    text = f"<Error><Code>{CODES[fault]}</Code></Error>".encode()
                    self.send(fault, {"Content-Type": "application/xml"}, text, len(text))
                    return
                server = http.client.HTTPConnection(host, port)
                try:
                    server.request(self.command, self.path, body, dict(self.headers))
                    response = server.getresponse()
                    data = response.read()
                finally:
                    server.close()
                if fault == "lost":
                    self.hang_up()
                    return
                kept = {
                    k: v for k, v in response.getheaders() if k.lower() not in OF_ONE_CONNECTION
                }
                # The response to HEAD has the length of a body that is not sent.
                length = int(response.getheader("Content-Length") or len(data))
                self.send(response.status, kept, data, length)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the base class calls it

            def hang_up(self) -> None:
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True

            def send(self, status: int, headers: dict[str, str], body: bytes, length: int) -> None:
                self.send_response_only(status)
                for name, value in {**headers, "Content-Length": str(length)}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def handle(self) -> None:
                try:
                    super().handle()
                except ConnectionError:
                    self.close_connection = True

            def log_message(self, *arguments: Any) -> None:
                pass

        return Handler


@contextmanager
def relayed(host: str, port: int) -> Iterator[Relay]:
    """Yield a relay to a server."""
    relay = Relay(host, port)
    thread = threading.Thread(target=relay.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield relay
    finally:
        relay.server.shutdown()
        relay.server.server_close()
        thread.join()
