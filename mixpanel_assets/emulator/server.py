"""Starting and stopping the emulator on loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Self

import uvicorn

from mixpanel_assets.emulator.routes import application
from mixpanel_assets.emulator.settings import EmulatorSettings
from mixpanel_assets.emulator.state import LoggedRequest, State
from mixpanel_assets.emulator.truth import Truth
from mixpanel_assets.emulator.wire import Connections

HOST = "127.0.0.1"
START_SECONDS = 20  # a busy machine needs seconds to start a thread
TICK_SECONDS = 0.5


class Emulator:
    """An emulated Mixpanel that serves real HTTP in its own thread.

    Use it as a context manager, or with `start` and `stop`.

    Attributes:
        settings: The project and its behaviour.
        username: Name of the service account.
        secret: Secret of the service account.
        project_id: Number of the project.
        project_token: The token in data that clients send to `/track`, `/engage` and `/groups`.
        truth: The exact contents, to compare a copy with.
        faults: The faults that wait for requests.
        clock: The emulator's clock.
    """

    def __init__(self, settings: EmulatorSettings | None = None, *, port: int = 0) -> None:
        self.settings = settings or EmulatorSettings()
        self.username, self.secret = self.settings.username, self.settings.secret
        self.project_id, self.project_token = self.settings.project_id, self.settings.project_token
        self.state = State(self.settings)
        self.truth = Truth(self.state)
        self.faults, self.clock = self.state.faults, self.state.clock
        self._requested_port = port
        self._socket: socket.socket | None = None
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port of the running emulator."""
        if self._socket is None:
            raise RuntimeError("the emulator has not been started")
        return int(self._socket.getsockname()[1])

    @property
    def base_url(self) -> str:
        """The address of all APIs: `/api/2.0/export`, `/api/query/...`, `/track` ..."""
        return f"http://{HOST}:{self.port}"

    def region_url(self, region: str) -> str:
        """Return the address of a region. The project is in one region only."""
        return f"{self.base_url}/region/{region}"

    @property
    def retention_days(self) -> int | None:
        """The number of days before today that events are kept. Can be set while it runs."""
        return self.state.retention_days

    @retention_days.setter
    def retention_days(self, days: int | None) -> None:
        self.state.retention_days = days

    @property
    def requests(self) -> list[LoggedRequest]:
        """All requests so far."""
        return self.state.requests.entries()

    @property
    def name_limit(self) -> int | None:
        """The number of event names that reports know. Can be set while it runs."""
        return self.state.name_limit

    @name_limit.setter
    def name_limit(self, names: int | None) -> None:
        self.state.name_limit = names

    def forget(self) -> None:
        """Delete data from clients, so that the project is the sample again."""
        self.state.received.clear()
        self.state.updates.clear()

    def start(self) -> Self:
        """Start the server; an `OSError` means that another process uses the port."""
        self._socket = _listen(self._requested_port)
        self._server = _Server(self.state, self.truth, self.base_url)
        self._thread = threading.Thread(
            target=self._server.run_in_thread, args=(self._socket,), name="emulator", daemon=True
        )
        self._thread.start()
        if not self._server.up.wait(START_SECONDS):
            raise RuntimeError("the emulator did not start")
        return self

    def stop(self) -> None:
        """Stop the server, and close all open connections."""
        if self._server is None or self._thread is None or self._socket is None:
            return
        self._server.stop()
        self._thread.join(START_SECONDS)
        self._socket.close()
        self._server = self._thread = self._socket = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()


def _listen(port: int) -> socket.socket:
    # asyncio turns off Nagle's delay only if the protocol is named.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError:
        listener.close()
        raise
    listener.listen(256)
    return listener


class _Server(uvicorn.Server):
    """uvicorn without the delays of its polling at start and stop."""

    def __init__(self, state: State, truth: Truth, base_url: str) -> None:
        self._connections = Connections()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self.up = threading.Event()
        app = application(state, truth, self._connections, base_url, self._sleep)
        super().__init__(
            uvicorn.Config(
                app,
                http=self._connections.protocol(),
                ws="none",
                lifespan="off",
                loop="asyncio",
                log_config=None,
                log_level="critical",
                access_log=False,
                timeout_keep_alive=60,
                server_header=False,
            )
        )

    def run_in_thread(self, listener: socket.socket) -> None:
        """Serve until `stop` is called."""
        asyncio.run(self.serve(sockets=[listener]))

    def stop(self) -> None:
        """End the serving thread soon; thread-safe."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to listen, then let `start` return."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.up.set()

    async def main_loop(self) -> None:
        """Wait for the end. The tick keeps the `Date` header current."""
        await self.on_tick(0)
        while not self._stopping.is_set():
            await self._sleep(TICK_SECONDS)
            await self.on_tick(0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything immediately, without waiting for clients."""
        for server in self.servers:
            server.close()
        self._connections.abort_all()
        for task in list(self.server_state.tasks):
            task.cancel()
        await asyncio.gather(*self.server_state.tasks, return_exceptions=True)
        await asyncio.sleep(0)

    async def _sleep(self, seconds: float) -> None:
        """Wait, at most until the server stops."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
