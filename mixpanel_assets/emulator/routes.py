"""The paths with their handlers, and the steps of every request before its handler."""

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
from mixpanel_assets.emulator.control_routes import control_routes
from mixpanel_assets.emulator.engage_routes import ENGAGE_HANDLERS
from mixpanel_assets.emulator.export_routes import export
from mixpanel_assets.emulator.faults import EXPORT_PATH, canonical
from mixpanel_assets.emulator.inbound import Inbound, Refused, Response, error_shape, requested_days
from mixpanel_assets.emulator.ingest_routes import INGEST_HANDLERS
from mixpanel_assets.emulator.query_routes import QUERY_HANDLERS
from mixpanel_assets.emulator.refusals import authorize, check_region, faulty_response, rate_limited
from mixpanel_assets.emulator.state import LoggedRequest, State
from mixpanel_assets.emulator.truth import Truth
from mixpanel_assets.emulator.wire import Connections, Delivery

logger = logging.getLogger(__name__)

SENT_PATH = "emulator.sent_path"

Family = Literal["export", "query", "app", "ingestion"]
Handler = Callable[[Inbound], Response]


def application(
    state: State,
    truth: Truth,
    connections: Connections,
    base_url: str,
    sleep: Callable[[float], Awaitable[None]],
) -> ASGIApp:
    """Return the emulated Mixpanel as one ASGI application."""

    def endpoint(handler: Handler, family: Family) -> Endpoint:
        return Endpoint(handler, family, state, truth, connections, base_url, sleep)

    routes: list[BaseRoute] = [Route(EXPORT_PATH, endpoint(export, "export"))]
    for name, handler in {**ENGAGE_HANDLERS, **QUERY_HANDLERS}.items():
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
    """Removes one trailing slash of a path, which clients in production send."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; part of ASGI."""
        path = scope.get("path", "")
        # A slash inside a name arrives as %2F.
        if len(path) > 1 and scope.get("raw_path", b"").endswith(b"/"):
            scope = {**scope, "path": path[:-1], SENT_PATH: path}
        await self.app(scope, receive, send)


def unknown(inbound: Inbound) -> Response:
    """Return the error for an unknown path."""
    if inbound.shape.family == "app":
        return inbound.shape.response(404, "Not found")
    return inbound.shape.response(400, "Invalid API endpoint")


@dataclass(frozen=True)
class Endpoint:
    """One path: authentication, faults, limits, handler and delivery, in this order."""

    handler: Handler
    family: Family
    state: State
    truth: Truth
    connections: Connections
    base_url: str
    sleep: Callable[[float], Awaitable[None]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; part of ASGI."""
        request = Request(scope, receive)
        body = await request.body()
        is_ingestion = self.family == "ingestion"
        params = ingestion_parameters(request, body) if is_ingestion else parameters(request, body)
        path = own_path(request)
        budget: list[str] = []
        settings = self.state.settings
        started = self.state.clock.now()
        inbound = Inbound(
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
                inbound = self._admit(inbound, request, budget)
                if settings.latency_seconds:
                    await self.sleep(settings.latency_seconds)
                response = await run_in_threadpool(self._response, inbound)
            except _Replaced as replaced:
                inbound, response = replaced.inbound, replaced.response
            except Refused as refused:
                response = refused.response
            number = self.state.requests.add(
                LoggedRequest(
                    method=request.method,
                    path=path,
                    # Sent data would fill the log, and are stored already.
                    params={
                        name: text
                        for name, text in params.items()
                        if not is_ingestion or name != "data"
                    },
                    status=response.status,
                    started=started,
                    bytes_sent=0,
                    days=requested_days(params),
                    fault=inbound.fault.kind if inbound.fault else None,
                )
            )
            await Delivery(
                scope=scope,
                receive=receive,
                send=send,
                transport=self.connections.of(scope),
                fault=inbound.fault,
                accepts_gzip="gzip" in request.headers.get("accept-encoding", ""),
                count=lambda size: self.state.requests.add_bytes(number, size),
                sleep=self.sleep,
            ).run(response)
        finally:
            for family in budget:
                self.state.budgets.leave(family)

    def _admit(self, inbound: Inbound, request: Request, budget: list[str]) -> Inbound:
        """Check credentials, take a fault, spend the budget; `budget` receives the families."""
        settings = self.state.settings
        check_region(settings, request.path_params.get("region", settings.region))
        project_id = inbound.params.get("project_id")
        if self.family == "app":
            project_id = request.path_params.get("project_id")
        # In ingestion, the data name the project; `/import` checks credentials itself.
        if self.family != "ingestion":
            authorize(
                settings,
                request.headers,
                project_id,
                inbound.shape,
                needs_project=self.family != "app",
            )
        page = inbound.params.get("page", "")
        fault = self.state.faults.take(
            inbound.path, requested_days(inbound.params), int(page) if page.isdecimal() else 0
        )
        inbound = replace(inbound, fault=fault)
        replacement = faulty_response(settings, inbound.shape, fault) if fault else None
        # A refused request does not count, and neither does one that the plan forbids.
        if replacement is None or replacement.status not in (401, 402, 429):
            self._spend(inbound, budget)
        if replacement is not None:
            raise _Replaced(replacement, inbound)
        return inbound

    def _spend(self, inbound: Inbound, budget: list[str]) -> None:
        limits = self.state.settings.rate_limits
        family: str = self.family
        if family == "ingestion":
            return
        if family == "app":
            if "/schemas" not in inbound.path:
                return
            family = "schemas"
        counted = inbound.path != "/api/query/annotations" and not (
            inbound.path == "/api/query/engage"
            and inbound.params.get("session_id")
            and not (limits and limits.count_engage_pages)
        )
        refusal = self.state.budgets.enter(family, limits, counted=counted)
        if refusal is not None:
            headers = limits.headers if limits else True
            settings = self.state.settings
            raise Refused(rate_limited(settings, inbound.shape, refusal, headers=headers))
        budget.append(family)

    def _response(self, inbound: Inbound) -> Response:
        try:
            if self.family == "query":
                inbound.integer("workspace_id", 0)
            response = self.handler(inbound)
        except Refused:
            raise
        except Exception:
            # uvicorn logs nothing, and a bug here must not look like a 500 of Mixpanel.
            logger.exception("the emulator failed on %s", inbound.path)
            raise
        if (fault := inbound.faulty("cut-json")) and isinstance(response.body, bytes):
            return replace(response, body=response.body[: fault.position(len(response.body))])
        return response


class _Replaced(Refused):
    """The response of a fault, with its request, so that the log can name the fault."""

    def __init__(self, response: Response, inbound: Inbound) -> None:
        super().__init__(response)
        self.inbound = inbound


def own_path(request: Request) -> str:
    """Return the path without the region."""
    path: str = request.scope.get(SENT_PATH, request.scope["path"])
    region = request.path_params.get("region")
    return path.removeprefix(f"/region/{region}") if region else path


def _target(request: Request, path: str) -> str:
    query = request.url.query
    return f"{path}?{query}" if query else path


def parameters(request: Request, body: bytes) -> Mapping[str, str]:
    """Return query, form and JSON fields as text. The body has priority, as in the real service."""
    params = dict(request.query_params)
    content_type = request.headers.get("content-type", "")
    if "json" in content_type:
        params |= _json_fields(body)
    elif body:
        params |= dict(_form_fields(body))
    return params


def ingestion_parameters(request: Request, body: bytes) -> Mapping[str, str]:
    """Return query and form fields of sent data. JSON and gzip bodies have none."""
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
