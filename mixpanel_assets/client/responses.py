"""The meaning of a response's status and text: no error, or one exception of the tree.

Mixpanel has no single error format, so a body is read as JSON if it is JSON, and as text
otherwise. Only its first 500 characters are kept.

Source: Mixpanel API behaviour as collected in its reference and by other clients, 2026-11.
"""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qs

import httpx
import msgspec

from mixpanel_assets.client.credentials import Credentials
from mixpanel_assets.errors import (
    APIError,
    AuthenticationError,
    ConnectionFailedError,
    JQLSyntaxError,
    MixpanelDataError,
    PlanHorizonError,
    QueryError,
    RateLimitError,
    ServerError,
)

_KEPT_OF_A_RESPONSE = 500  # an HTML page of a proxy would fill the log
_KEPT_OF_A_SCRIPT_ERROR = 10_000
_RESULT_KEYS = {"results", "data", "series", "events"}
_BAD_CREDENTIALS = re.compile(
    r"unable to authenticate|invalid (service account )?credentials", re.IGNORECASE
)
_PLAN_HORIZON = re.compile(r"date range exceeds (\d+) days", re.IGNORECASE)
_SERVER_TIMEOUT = re.compile(r"timeout error", re.IGNORECASE)
_HTML = re.compile(r"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>([^<]{1,100})", re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
NOT_JSON = object()
_CHECK_ACCOUNT = (
    "Check MP_USERNAME and MP_SECRET or the account (`mp auth show` says which holds), "
    "that MP_REGION or the account's region is the project's, "
    "and that the service account has access to project {project_id}."
)


def error_from(
    response: httpx.Response, description: str, credentials: Credentials
) -> MixpanelDataError:
    """Return the exception for a response with another status than 200, which has been read."""
    status = response.status_code
    if response.is_redirect:
        return ConnectionFailedError(
            f"{description} was redirected ({status}), which Mixpanel never does. "
            "Check the proxy, a captive portal, and MP_API_BASE_URL."
        )
    if status < 400:
        # The message leaves the body out: it may be a part of the requested data.
        return ServerError(
            f"{description} answered {status}, which is not a complete response. Mixpanel always "
            "answers 200; check the proxy and MP_API_BASE_URL, then try again.",
            status_code=status,
        )
    response_text = credentials.redact(response.text.strip())[:_KEPT_OF_A_RESPONSE]
    reason = credentials.redact(_error_text(response_text)).rstrip(".")
    message = f"{description} answered {status}" + (
        f": {reason}" if reason else " without a reason"
    )
    request: dict[str, Any] = {
        "status_code": status,
        "response_body": response_text,
        "request_method": response.request.method,
        "request_url": str(response.request.url.copy_with(query=None)),
        "request_params": dict(response.request.url.params),
    }
    if horizon := _PLAN_HORIZON.search(reason):
        return PlanHorizonError(
            f"{message}. The project's plan does not reach that far back: "
            "set MP_START_DATE to a later day.",
            days=int(horizon.group(1)),
        )
    if remedy := _remedy_for_proxies(response, response_text):
        kind = ServerError if status >= 500 else QueryError
        return kind(f"{message}. {remedy}", **request)
    if status in (401, 403) or (status == 400 and _BAD_CREDENTIALS.search(reason)):
        remedy = _CHECK_ACCOUNT.format(project_id=credentials.project_id)
        return AuthenticationError(f"{message}. {remedy}", **request)
    if status == 402:
        return APIError(
            f"{message}. The plan of project {credentials.project_id} has no access to this API; "
            "raw event export may still be open.",
            code="PLAN_LIMIT",
            **request,
        )
    if status == 429:
        seconds = _retry_after(response)
        wait_request = f". Mixpanel asks to wait {seconds:,} s" if seconds else ""
        return RateLimitError(f"{message}{wait_request}.", retry_after=seconds, **request)
    if status >= 500 or (status == 400 and _SERVER_TIMEOUT.search(reason)):
        return ServerError(f"{message}. Mixpanel failed on its side; try again later.", **request)
    if status == 412 and response.request.url.path.endswith("/jql"):
        return _jql_error(response, credentials, request)
    return QueryError(f"{message}. Change the request; a retry cannot help.", **request)


def _remedy_for_proxies(response: httpx.Response, response_text: str) -> str | None:
    """Return what to do if the refusal is not about the request's content; None if it is."""
    status = response.status_code
    if status == 407:
        return "Put the user name and password of the proxy into HTTPS_PROXY."
    if status in (413, 414, 431):
        return "The request is too long: use a shorter filter or fewer event names."
    if _HTML.match(response_text):
        return (
            "Mixpanel's API answers in JSON or text, so this is another server: check "
            "MP_API_BASE_URL, the proxy and the firewall."
        )
    return None


def refuse_encoding(response: httpx.Response, description: str, credentials: Credentials) -> None:
    """Raise `APIError` if the body has another encoding than the requested one."""
    encoding = response.headers.get("Content-Encoding", "").strip()
    if encoding.lower() not in ("", "identity", "gzip"):
        encoding = credentials.redact(encoding)[:40]
        raise APIError(
            f"{description} answered with `Content-Encoding: {encoding}`, but only gzip was "
            "requested. A proxy on the way compresses responses; let it pass them on as they are.",
            status_code=response.status_code,
            code="UNKNOWN_ENCODING",
        )


def _jql_error(
    response: httpx.Response, credentials: Credentials, request: dict[str, Any]
) -> JQLSyntaxError:
    response_text = credentials.redact(response.text.strip())
    form = parse_qs(response.request.content.decode())
    return JQLSyntaxError(
        credentials.redact(_error_text(response_text))[:_KEPT_OF_A_SCRIPT_ERROR],
        script=form.get("script", [None])[0],
        **request,
    )


def json_in(response: httpx.Response, description: str, credentials: Credentials) -> Any:
    """Return the JSON of a response with status 200.

    Raises:
        ServerError: The body is not JSON, such as a proxy's HTML.
        QueryError: The body is an error in disguise.
    """
    body_json = parse_body(response.read())
    if body_json is NOT_JSON:
        raise ServerError(
            f"{description} answered 200 with something that is not JSON.", status_code=200
        )
    if reason := disguised_error(body_json, credentials):
        raise QueryError(f"{description} answered 200 with an error: {reason}", status_code=200)
    return body_json


def parse_body(response_body: bytes) -> Any:
    """Return the JSON in a body, or `NOT_JSON`: Python's exception would quote the body."""
    try:
        return json.loads(response_body)
    except (ValueError, RecursionError):
        return NOT_JSON


def disguised_error(body_json: object, credentials: Credentials) -> str | None:
    """Return the text of an error with status 200, without secrets; None: it is not an error."""
    if (
        not isinstance(body_json, dict)
        or "error" not in body_json
        or _RESULT_KEYS & body_json.keys()
    ):
        return None
    reason = body_json["error"]
    if isinstance(reason, dict) and "count" in reason:
        return None  # the counts of an event's property that is called `error`
    return " ".join(credentials.redact(str(reason)).split())[:_KEPT_OF_A_RESPONSE]


def _error_text(response_body: str) -> str:
    if _HTML.match(response_body):
        html_title = _TITLE.search(response_body)
        return "an HTML page" + (f" ({' '.join(html_title[1].split())!r})" if html_title else "")
    try:
        body_json = msgspec.json.decode(response_body)
    except (msgspec.DecodeError, ValueError):
        return " ".join(response_body.split())
    if isinstance(body_json, dict):
        return str(body_json.get("error") or body_json.get("message") or response_body)
    return str(body_json)


def _retry_after(response: httpx.Response) -> int | None:
    """Return the wait that Mixpanel demands, in seconds; None: the header is missing or odd."""
    retry_after = response.headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(retry_after):
        return math.ceil(float(retry_after)) or None  # a retry at once would be an endless loop
    with suppress(ValueError, TypeError):
        retry_at = parsedate_to_datetime(retry_after)
        seconds = (retry_at - datetime.now(retry_at.tzinfo)).total_seconds()
        return max(1, math.ceil(seconds))
    return None
