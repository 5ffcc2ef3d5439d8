"""A server that answers as a test wants."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@pytest.fixture
def odd_server() -> Iterator["OddServer"]:
    """A server that gives every request one answer, headers and body included."""
    with OddServer() as server:
        yield server


class OddServer:
    """A server that answers with a given status, headers, and the bytes of a body."""

    def __enter__(self) -> "OddServer":
        self.status, self.headers, self.body = 200, dict[str, str](), b""
        self.user_agents = set[str]()
        odd = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                odd.user_agents.add(self.headers["User-Agent"])
                self.send_response(odd.status)
                for name, value in odd.headers.items():
                    self.send_header(name, value)
                if odd.status not in (204, 304):
                    self.send_header("Content-Length", str(len(odd.body)))
                self.end_headers()
                if odd.status not in (204, 304):
                    self.wfile.write(odd.body)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answers(self, status: int, body: bytes | str = b"", **headers: str) -> None:
        self.status, self.body = status, body.encode() if isinstance(body, str) else body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"
