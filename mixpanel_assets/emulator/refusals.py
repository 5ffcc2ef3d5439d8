"""Refusing responses: credentials, rate limits, server errors and other faults."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping

from mixpanel_assets.emulator.faults import Fault
from mixpanel_assets.emulator.inbound import (
    ErrorShape,
    Refused,
    Response,
    json_response,
    text_response,
)
from mixpanel_assets.emulator.settings import EmulatorSettings
from mixpanel_assets.emulator.state import Refusal

WRONG_REGION = {"status": "error", "error": "Invalid service account credentials"}


def credentials(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """Return user and secret of the Authorization header, with or without Base64."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic" or not value:
        return None
    try:
        text = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        text = value.strip()
    user, _, secret = text.partition(":")
    return user, secret


def authorize(
    settings: EmulatorSettings,
    headers: Mapping[str, str],
    project_id: str | None,
    shape: ErrorShape,
    *,
    needs_project: bool,
) -> None:
    """Refuse wrong credentials, and a service account that does not name its project."""
    sender = credentials(headers)
    if sender == (settings.username, settings.secret):
        _check_project(settings, project_id, shape, needs_project=needs_project)
    elif sender == (settings.project_secret, "") and shape.family != "app":
        if project_id is not None:
            raise shape.refuse(400, "project_id does not go with a project secret")
    else:
        raise Refused(_bad_credentials(settings, shape))


def _check_project(
    settings: EmulatorSettings, project_id: str | None, shape: ErrorShape, *, needs_project: bool
) -> None:
    if project_id is None:
        if needs_project:
            raise shape.refuse(400, "project_id is required with a service account")
    elif not project_id.isdecimal():
        raise shape.refuse(400, "project_id must be an integer")
    elif int(project_id) != settings.project_id:
        text = f"User does not have permission to access project {project_id}"
        raise Refused(json_response({"status": "error", "error": text}, 403))


def _bad_credentials(settings: EmulatorSettings, shape: ErrorShape) -> Response:
    if shape.family == "app" or settings.bad_credentials == "401-json":
        return json_response(WRONG_REGION, 401)
    return shape.response(400, UNKNOWN_SENDER)


def check_region(settings: EmulatorSettings, region: str) -> None:
    """Refuse a request at another region's host."""
    if region != settings.region:
        raise Refused(json_response(WRONG_REGION, 401))


# Texts as observed, with an invented host.
HELP = "For more information, please consult our documentation at https://help.mixpanel.example/"
UNKNOWN_SENDER = "Unable to authenticate request"
USUAL_ERRORS = {
    "402-json": (402, "Your plan does not allow API calls. Upgrade at mixpanel.com/pricing"),
    "403-history": (403, "Date range exceeds 90 days into the past"),
    "403-json": (403, "Forbidden"),
    "error-200": (200, "internal error"),
}
QUERY_ERRORS = {"400-timeout": "Timeout Error.", "404-json": "404-json", "412-json": "412-json"}
EXPORT_BUSY = "too many export requests in progress for this project"
INGESTION_BUSY = "Project exceeded rate limits. Please retry the request with exponential backoff."
UNAVAILABLE = "Service temporarily unavailable"
HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>proxy</body></html>\n"


def rate_limited(
    settings: EmulatorSettings, shape: ErrorShape, refusal: Refusal, *, headers: bool
) -> Response:
    """Return the 429 response for an exceeded limit."""
    if shape.family == "export" and not settings.export_429_text:
        limit_headers = _headers(refusal, 60) if headers and settings.export_429_headers else {}
        return json_response({"error": EXPORT_BUSY}, 429, limit_headers)
    if shape.family == "app":
        return shape.response(429, "Too many requests")
    project = f"project_id: {settings.project_id}"
    text = f"Query rate limit exceeded for {project}. {_reason(refusal)} {HELP}"
    return shape.response(429, text, _headers(refusal, refusal.limit) if headers else {})


def _reason(refusal: Refusal) -> str:
    limit = refusal.limit
    if refusal.trip == "concurrency":
        return (
            "This request exceeded the concurrency limit "
            f"({limit + 1}/{limit} queries running concurrently)."
        )
    unit = "second" if refusal.trip == "second" else "hour"
    return (
        "This request exceeded the rate limit "
        f"({limit + 1}/{limit} queries running in the last {unit})."
    )


def _headers(refusal: Refusal, hourly: int) -> dict[str, str]:
    wait = refusal.retry_after_seconds
    at_once = refusal.limit if refusal.trip == "concurrency" else 5
    hourly = 60 if refusal.trip == "concurrency" else hourly
    left = f'"project";r=0;t={wait}, "project-concurrency";r=3'
    if refusal.trip == "concurrency":
        left = f'"project";r={refusal.remaining}, "project-concurrency";r=0;t={wait}'
    return {
        "RateLimit-Policy": (
            f'"project";q={hourly};w=3600, '
            f'"project-concurrency";q={at_once};qu="concurrent-requests"'
        ),
        "RateLimit": left,
        "Retry-After": str(wait),
    }


def faulty_response(settings: EmulatorSettings, shape: ErrorShape, fault: Fault) -> Response | None:
    """Return the response that replaces the right one under a fault; None: not replaced."""
    kind = fault.kind
    if kind.startswith("429"):
        return _faulty_429(settings, shape, fault)
    if kind[:2] == "50":
        return _server_error(shape, int(kind[:3]), kind[4:], fault.text)
    if kind == "400-auth-text":
        return shape.response(400, UNKNOWN_SENDER)
    if kind in USUAL_ERRORS:
        status, error = USUAL_ERRORS[kind]
        return json_response({"error": fault.text or error}, status)
    if kind in QUERY_ERRORS:
        error = fault.text or QUERY_ERRORS[kind]
        return json_response({"request": shape.request, "error": error}, int(kind[:3]))
    if kind == "401-json":
        return json_response({**WRONG_REGION, **({"error": fault.text} if fault.text else {})}, 401)
    if kind == "html-200":
        return Response(200, (fault.text or "").encode() or HTML, "text/html; charset=utf-8")
    if kind == "empty-200" and shape.family != "export":
        return Response(200, b"")
    return None


def _faulty_429(settings: EmulatorSettings, shape: ErrorShape, fault: Fault) -> Response:
    if shape.family == "ingestion":
        return shape.response(429, fault.text or INGESTION_BUSY)
    wait = math.ceil(3600 if fault.seconds is None else fault.seconds)
    if fault.kind == "429-export-text":
        limit_headers = {"Retry-After": str(wait)} if fault.seconds is not None else {}
        return json_response({"error": fault.text or EXPORT_BUSY}, 429, limit_headers)
    if fault.kind == "429-bare":
        text = f"Query rate limit exceeded for project_id: {settings.project_id} {HELP}"
        return ErrorShape("query", shape.request).response(429, fault.text or text)
    refusal = Refusal("window", 60, wait, 0)
    if fault.kind == "429-concurrency":
        refusal = Refusal("concurrency", 5, math.ceil(fault.seconds or 10), 12)
    return rate_limited(settings, ErrorShape("query", shape.request), refusal, headers=True)


def _server_error(shape: ErrorShape, status: int, form: str, text: str | None) -> Response:
    if form == "json":
        return json_response({"request": shape.request, "error": text or "Internal error"}, status)
    return text_response("" if form == "empty" else text or UNAVAILABLE, status)
