"""The wire: which path means what, and what every request goes through before its handler."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mixpanel_assets.emulator.app_routes import APP_HANDLERS, old_annotation_list
from mixpanel_assets.emulator.call import Answer, Call, Refused, days_asked, error_shape
from mixpanel_assets.emulator.control_routes import control_routes
from mixpanel_assets.emulator.engage_routes import (
    cohorts_list,
    engage,
    engage_properties,
    engage_stats,
)
from mixpanel_assets.emulator.export_routes import export
from mixpanel_assets.emulator.faults import EXPORT_PATH, canonical
from mixpanel_assets.emulator.ingest_routes import INGEST_HANDLERS
from mixpanel_assets.emulator.query_routes import QUERY_HANDLERS
from mixpanel_assets.emulator.refusals import (
    authorize,
    check_region,
    faulty_answer,
    header_of,
    rate_limited,
)
from mixpanel_assets.emulator.state import LoggedRequest, State
from mixpanel_assets.emulator.truth import Truth
from mixpanel_assets.emulator.wire import Connections, Delivery

logger = logging.getLogger(__name__)

ASKED_PATH = "emulator.asked_path"

Family = Literal["export", "query", "app", "ingestion"]
Handler = Callable[[Call], Answer]

PROFILE_HANDLERS: dict[str, Handler] = {
    "engage": engage,
    "engage/properties": engage_properties,
    "engage/stats": engage_stats,
    "cohorts/list": cohorts_list,
}


def application(
    state: State,
    truth: Truth,
    connections: Connections,
    base_url: str,
    sleep: Callable[[float], Awaitable[None]],
) -> ASGIApp:
    """Return the whole pretend Mixpanel as one ASGI application."""

    def endpoint(handler: Handler, family: Family) -> Endpoint:
        return Endpoint(handler, family, state, truth, connections, base_url, sleep)

    routes: list[BaseRoute] = [Route(EXPORT_PATH, endpoint(export, "export"))]
    for name, handler in {**PROFILE_HANDLERS, **QUERY_HANDLERS}.items():
        paths = (f"/api/query/{name}", f"/api/2.0/{name}")
        routes += [Route(path, endpoint(handler, "query")) for path in paths]
    routes.append(Route("/api/2.0/annotations", endpoint(old_annotation_list, "query")))
    routes += [
        Route(path, endpoint(handler, "app"), methods=["GET"])
        for path, handler in APP_HANDLERS.items()
    ]
    routes += [
        Route(path, endpoint(handler, "ingestion")) for path, handler in INGEST_HANDLERS.items()
    ]
    others: dict[str, Family] = {"query": "query", "2.0": "query", "app": "app"}
    for root, family in others.items():
        routes.append(Route(f"/api/{root}/{{rest:path}}", endpoint(unknown, family)))
    return WithoutTrailingSlash(
        Starlette(
            routes=[
                *control_routes(state, truth),
                Mount("/region/{region}", routes=routes),
                *routes,
            ]
        )
    )


@dataclass(frozen=True)
class WithoutTrailingSlash:
    """Drops one trailing slash of a path: clients in production send it, and are answered."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; part of ASGI."""
        path = scope.get("path", "")
        # A slash that is part of a name arrives as %2F.
        if len(path) > 1 and scope.get("raw_path", b"").endswith(b"/"):
            scope = {**scope, "path": path[:-1], ASKED_PATH: path}
        await self.app(scope, receive, send)


def unknown(call: Call) -> Answer:
    """Answer a path that nothing is known about."""
    if call.shape.family == "app":
        return call.shape.answer(404, "Not found")
    return call.shape.answer(400, "Invalid API endpoint")


@dataclass(frozen=True)
class Endpoint:
    """One path: authentication, faults, limits, handler, delivery, in this order."""

    handler: Handler
    family: Family
    state: State
    truth: Truth
    connections: Connections
    base_url: str
    sleep: Callable[[float], Awaitable[None]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; part of ASGI."""
        request = Request(scope, receive)
        body = await request.body()
        is_read = self.family != "ingestion"
        params = parameters(request, body) if is_read else sent_parameters(request, body)
        path = own_path(request)
        budget: list[str] = []
        settings = self.state.settings
        started = self.state.clock.now()
        call = Call(
            method=request.method,
            path=canonical(path.removesuffix("/")),
            params=params,
            path_params=request.path_params,
            shape=error_shape(self.family, settings, self.base_url, _target(request, path)),
            state=self.state,
            truth=self.truth,
            body=body,
            headers=request.headers,
            address=request.client.host if request.client else "",
        )
        try:
            try:
                call = self._admit(call, request, budget)
                if settings.latency_seconds:
                    await self.sleep(settings.latency_seconds)
                answer = await run_in_threadpool(self._answer, call)
            except _Instead as instead:
                call, answer = instead.call, instead.answer
            except Refused as refused:
                answer = refused.answer
            number = self.state.requests.add(
                LoggedRequest(
                    method=request.method,
                    path=path,
                    # What clients send is found in the data, and would fill the log.
                    params={
                        name: text for name, text in params.items() if is_read or name != "data"
                    },
                    status=answer.status,
                    started=started,
                    bytes_sent=0,
                    days=days_asked(params),
                    fault=call.fault.kind if call.fault else None,
                )
            )
            await Delivery(
                scope=scope,
                receive=receive,
                send=send,
                transport=self.connections.of(scope),
                fault=call.fault,
                accepts_gzip="gzip" in request.headers.get("accept-encoding", ""),
                count=lambda size: self.state.requests.sent(number, size),
                sleep=self.sleep,
            ).run(answer)
        finally:
            for family in budget:
                self.state.budgets.leave(family)

    def _admit(self, call: Call, request: Request, budget: list[str]) -> Call:
        """Check who asks, draw the fault and spend the budget; `budget` names what was spent."""
        settings = self.state.settings
        check_region(settings, request.path_params.get("region", settings.region))
        project_id = call.params.get("project_id")
        if self.family == "app":
            project_id = request.path_params.get("project_id")
        # Ingestion knows the project by what is sent; `/import` looks at credentials itself.
        if self.family != "ingestion":
            authorize(
                settings,
                header_of(request.headers),
                project_id,
                call.shape,
                needs_project=self.family != "app",
            )
        page = call.params.get("page", "")
        fault = self.state.faults.take(
            call.path, days_asked(call.params), int(page) if page.isdecimal() else 0
        )
        call = replace(call, fault=fault)
        instead = faulty_answer(settings, call.shape, fault) if fault else None
        # Neither a refusal nor a plan that forbids the call counts as a request.
        if instead is None or instead.status not in (401, 402, 429):
            self._spend(call, budget)
        if instead is not None:
            raise _Instead(instead, call)
        return call

    def _spend(self, call: Call, budget: list[str]) -> None:
        limits = self.state.settings.rate_limits
        family: str = self.family
        if family == "ingestion":
            return
        if family == "app":
            if "/schemas" not in call.path:
                return
            family = "schemas"
        counted = call.path != "/api/query/annotations" and not (
            call.path == "/api/query/engage"
            and call.params.get("session_id")
            and not (limits and limits.count_engage_pages)
        )
        refusal = self.state.budgets.enter(family, limits, counted=counted)
        if refusal is not None:
            headers = limits.headers if limits else True
            raise Refused(rate_limited(self.state.settings, call.shape, refusal, headers=headers))
        budget.append(family)

    def _answer(self, call: Call) -> Answer:
        try:
            if self.family == "query":
                call.integer("workspace_id", 0)
            answer = self.handler(call)
        except Refused:
            raise
        except Exception:
            # uvicorn is told to be quiet, and a bug of ours must not look like a 500 of theirs.
            logger.exception("the emulator failed on %s", call.path)
            raise
        if call.faulty("cut-json") and isinstance(answer.body, bytes):
            at = call.fault.position if call.fault else None
            cut = answer.body[: len(answer.body) // 2 if at is None else at]
            return replace(answer, body=cut)
        return answer


class _Instead(Refused):
    """A fault's answer; keeps the call, so that the log can name the fault."""

    def __init__(self, answer: Answer, call: Call) -> None:
        super().__init__(answer)
        self.call = call


def own_path(request: Request) -> str:
    """Return the path without the region's part."""
    path: str = request.scope.get(ASKED_PATH, request.scope["path"])
    region = request.path_params.get("region")
    return path.removeprefix(f"/region/{region}") if region else path


def _target(request: Request, path: str) -> str:
    query = request.url.query
    return f"{path}?{query}" if query else path


def parameters(request: Request, body: bytes) -> Mapping[str, str]:
    """Return query, form and JSON fields as text; the body wins, as on the real service."""
    params = dict(request.query_params)
    content_type = request.headers.get("content-type", "")
    if "json" in content_type:
        params |= _json_fields(body)
    elif body:
        params |= dict(_form_fields(body))
    return params


def sent_parameters(request: Request, body: bytes) -> Mapping[str, str]:
    """Return query and form fields of what a client sends; JSON and gzip have none."""
    headers = request.headers
    is_form = "json" not in headers.get("content-type", "") and "content-encoding" not in headers
    return dict(request.query_params) | (_form_fields(body) if is_form else {})


def _json_fields(body: bytes) -> dict[str, str]:
    try:
        fields = json.loads(body)
    except ValueError:
        return {}
    if not isinstance(fields, dict):
        return {}
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in fields.items()
        if value is not None
    }


def _form_fields(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True))
    except UnicodeDecodeError:
        return {}
