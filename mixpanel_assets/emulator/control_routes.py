"""`/emulator/...`: control of the emulator from another process, without credentials.

A web page must not control it. A browser sends the page's `Origin` with a POST, and the page's own
name as `Host` if that name resolves to this machine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date, datetime
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mixpanel_assets.emulator.faults import Fault
from mixpanel_assets.emulator.state import State
from mixpanel_assets.emulator.truth import Truth

Handler = Callable[[Request], Awaitable[Response]]
_THIS_MACHINE = ("127.0.0.1", "localhost", "[::1]")


def control_routes(state: State, truth: Truth) -> list[Route]:
    """Return the routes of the control."""
    control = _Control(state, truth)
    return [
        Route("/emulator/truth", _local_only(control.truth), methods=["GET"]),
        Route("/emulator/faults", _local_only(control.faults), methods=["GET", "POST", "DELETE"]),
        Route("/emulator/requests", _local_only(control.requests), methods=["GET", "DELETE"]),
        Route("/emulator/clock", _local_only(control.clock), methods=["GET", "POST"]),
        Route("/emulator/retention", _local_only(control.retention), methods=["GET", "POST"]),
        Route("/emulator/names", _local_only(control.names), methods=["GET", "POST"]),
    ]


def _local_only(handler: Handler) -> Handler:
    """Refuse requests that a browser sends for a web page, and those with invalid values."""

    async def guarded(request: Request) -> Response:
        _, port = request.scope["server"]
        names = {f"{host}:{port}" for host in _THIS_MACHINE}
        origins = {f"http://{name}" for name in names}
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if host.lower() in names and (origin is None or origin.lower() in origins):
            try:
                return await handler(request)
            except (ValueError, TypeError, AttributeError, KeyError) as invalid:
                return JSONResponse({"error": str(invalid)}, 400)
        error = (
            "The emulator is controlled by programs on this machine only, at "
            f"http://127.0.0.1:{port}: the Host or Origin header of this request names another "
            "address."
        )
        return JSONResponse({"error": error}, 403)

    return guarded


class _Control:
    def __init__(self, state: State, truth: Truth) -> None:
        self._state = state
        self._truth = truth

    async def truth(self, request: Request) -> Response:
        """Return the totals of a range of days; by default of all days."""
        ends = [
            date.fromisoformat(day) if (day := request.query_params.get(name)) else None
            for name in ("from_date", "to_date")
        ]
        return JSONResponse(await run_in_threadpool(self._truth.totals, *ends))

    async def faults(self, request: Request) -> Response:
        """List, add or remove faults."""
        if request.method == "DELETE":
            self._state.faults.clear()
        elif request.method == "POST":
            body = await request.json()
            faults = body if isinstance(body, list) else [body]
            self._state.faults.add(*map(Fault.from_json, faults))
        waiting = [
            {**vars(fault), "day": fault.day and fault.day.isoformat()}
            for fault in self._state.faults.waiting()
        ]
        return JSONResponse(waiting)

    async def requests(self, request: Request) -> Response:
        """List the log, or clear it."""
        if request.method == "DELETE":
            self._state.requests.clear()
        return JSONResponse(
            [
                {
                    **vars(entry),
                    "params": dict(entry.params),
                    "started": entry.started.isoformat(),
                    "days": [day.isoformat() for day in entry.days],
                }
                for entry in self._state.requests.entries()
            ]
        )

    async def clock(self, request: Request) -> Response:
        """Return, stop (`now`), advance (`advance_seconds`) or restart (`reset`) the clock."""
        clock = self._state.clock
        if request.method == "POST":
            body: dict[str, Any] = await request.json()
            if body.get("reset"):
                clock.reset()
            if "now" in body:
                clock.set(datetime.fromisoformat(body["now"]))
            if "advance_seconds" in body:
                clock.advance(float(body["advance_seconds"]))
        return JSONResponse({"now": clock.now().isoformat()})

    async def retention(self, request: Request) -> Response:
        """Return or set the number of days (`days`) that events are kept; null: for ever."""
        if request.method == "POST":
            self._state.retention_days = _number_or_null(await request.json(), "days")
        return JSONResponse({"days": self._state.retention_days})

    async def names(self, request: Request) -> Response:
        """Return or set the number of event names that reports know (`limit`); null: all."""
        if request.method == "POST":
            self._state.name_limit = _number_or_null(await request.json(), "limit")
        return JSONResponse({"limit": self._state.name_limit})


def _number_or_null(body: dict[str, Any], name: str) -> int | None:
    number = body[name]
    if number is not None and (type(number) is not int or number < 0):
        raise ValueError(f"{name} must be a number from 0, or null")
    return number
