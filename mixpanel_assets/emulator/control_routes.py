"""`/emulator/...`: what a test in another process needs; no credentials.

A web page must not get at it: a browser sends the page's `Origin` with what it posts, and the
page's own name as `Host` when that name was pointed at this machine.
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
    """Return the routes."""
    control = _Control(state, truth)
    return [
        Route("/emulator/truth", _for_this_machine(control.truth), methods=["GET"]),
        Route(
            "/emulator/faults", _for_this_machine(control.faults), methods=["GET", "POST", "DELETE"]
        ),
        Route("/emulator/requests", _for_this_machine(control.requests), methods=["GET", "DELETE"]),
        Route("/emulator/clock", _for_this_machine(control.clock), methods=["GET", "POST"]),
        Route("/emulator/retention", _for_this_machine(control.retention), methods=["GET", "POST"]),
    ]


def _for_this_machine(handler: Handler) -> Handler:
    """Refuse requests that a web page of elsewhere has made a browser send."""

    async def guarded(request: Request) -> Response:
        _, port = request.scope["server"]
        names = {f"{host}:{port}" for host in _THIS_MACHINE}
        origins = {f"http://{name}" for name in names}
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if host.lower() in names and (origin is None or origin.lower() in origins):
            return await handler(request)
        refused = (
            "The emulator is controlled by programs on this machine only, at "
            f"http://127.0.0.1:{port}: Host or Origin is another one."
        )
        return JSONResponse({"error": refused}, 403)

    return guarded


class _Control:
    def __init__(self, state: State, truth: Truth) -> None:
        self._state = state
        self._truth = truth

    async def truth(self, request: Request) -> Response:
        """Totals of a range of days; all days by default."""
        try:
            ends = [
                date.fromisoformat(text) if (text := request.query_params.get(name)) else None
                for name in ("from_date", "to_date")
            ]
        except ValueError as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(await run_in_threadpool(self._truth.totals, *ends))

    async def faults(self, request: Request) -> Response:
        """List, add or clear faults."""
        if request.method == "DELETE":
            self._state.faults.clear()
        elif request.method == "POST":
            try:
                wanted = await request.json()
                entries = wanted if isinstance(wanted, list) else [wanted]
                self._state.faults.add(*map(Fault.from_json, entries))
            except (ValueError, TypeError, AttributeError) as error:
                return JSONResponse({"error": str(error)}, 400)
        waiting = [
            {
                "kind": fault.kind,
                "path": fault.path,
                "day": fault.day and fault.day.isoformat(),
                "times": fault.times,
                "at": fault.position,
            }
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
                    "method": entry.method,
                    "path": entry.path,
                    "params": dict(entry.params),
                    "status": entry.status,
                    "started": entry.started.isoformat(),
                    "bytes_sent": entry.bytes_sent,
                    "days": [day.isoformat() for day in entry.days],
                    "fault": entry.fault,
                }
                for entry in self._state.requests.entries()
            ]
        )

    async def clock(self, request: Request) -> Response:
        """Tell, stop (`now`), advance (`advance_seconds`) or free (`reset`) the clock."""
        clock = self._state.clock
        if request.method == "POST":
            try:
                wanted: dict[str, Any] = await request.json()
                if wanted.get("reset"):
                    clock.reset()
                if "now" in wanted:
                    clock.set(datetime.fromisoformat(wanted["now"]))
                if "advance_seconds" in wanted:
                    clock.advance(float(wanted["advance_seconds"]))
            except (ValueError, TypeError, AttributeError) as error:
                return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"now": clock.now().isoformat()})

    async def retention(self, request: Request) -> Response:
        """Tell or set (`days`, null for ever) how many days back events are kept."""
        if request.method == "POST":
            try:
                days = (await request.json())["days"]
                if days is not None and (type(days) is not int or days < 0):
                    raise ValueError("days must be a number from 0 on, or null")
            except (ValueError, TypeError, KeyError) as error:
                return JSONResponse({"error": str(error)}, 400)
            self._state.retention_days = days
        return JSONResponse({"days": self._state.retention_days})
