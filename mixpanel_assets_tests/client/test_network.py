"""Proxies and private certificate authorities, with real sockets and real TLS."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import trustme

from mixpanel_assets.client import MixpanelAPIClient
from mixpanel_assets.errors import ConnectionFailedError
from mixpanel_assets_tests.conftest import IMPATIENT, PLENTY

HOST = "mixpanel.test"


def pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def tunnel(one: socket.socket, other: socket.socket) -> None:
    back = threading.Thread(target=pump, args=(other, one))
    back.start()
    pump(one, other)
    back.join()


@contextmanager
def listening(handle) -> Iterator[int]:
    """Serve each connection in a thread; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                handle(connection)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        server.join()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def proxy(emulator, authority) -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that knows where `mixpanel.test` is: the emulator, behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    asked: list[bytes] = []

    def connect(client: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += client.recv(4096)
        asked.append(request.split(b"\r\n")[0])
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with (
            context.wrap_socket(client, server_side=True) as inside,
            socket.create_connection(("127.0.0.1", emulator.port)) as upstream,
        ):
            tunnel(inside, upstream)

    with listening(connect) as port:
        yield f"http://127.0.0.1:{port}", asked


@pytest.fixture
def client(credentials) -> Iterator[MixpanelAPIClient]:
    with MixpanelAPIClient(
        credentials, api_base_url=f"https://{HOST}", retries=IMPATIENT, budget=PLENTY
    ) as client:
        yield client


def test_a_proxy_and_a_private_authority_work(client, proxy, authority, monkeypatch, tmp_path):
    """HTTPS_PROXY is gone through, SSL_CERT_FILE is trusted, and the answer comes."""
    address, asked = proxy
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("HTTPS_PROXY", address)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    assert client.get("app", "/me")["status"] == "ok"
    assert asked == [f"CONNECT {HOST}:443 HTTP/1.1".encode()]


def test_an_unknown_authority_is_refused_and_named(client, proxy, monkeypatch):
    """A certificate of an unknown authority is refused, and the error says what to set."""
    monkeypatch.setenv("HTTPS_PROXY", proxy[0])
    with pytest.raises(ConnectionFailedError, match="SSL_CERT_FILE"):
        client.get("app", "/me")


def test_a_proxy_that_is_down_is_named(client):
    """The message says which setting to look at."""
    with pytest.raises(ConnectionFailedError, match="HTTPS_PROXY"):
        client.get("app", "/me")


def test_loopback_never_goes_through_a_proxy(credentials, emulator, proxy, monkeypatch):
    """The emulator is on this machine; a proxy would not find it."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy[0])
    with MixpanelAPIClient(credentials, api_base_url=emulator.base_url, budget=PLENTY) as client:
        assert client.get("app", "/me")["status"] == "ok"
    assert proxy[1] == []
