"""One HTTP request: its host, credentials, timeouts and retries.

`RETRY_CLASSES` is the complete rule of retries.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import socket
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import httpx
import tenacity

from mixpanel_assets import __version__
from mixpanel_assets.client.budget import Budget
from mixpanel_assets.client.credentials import Credentials, Region
from mixpanel_assets.client.ledger import Api, Limited
from mixpanel_assets.client.responses import error_from, refuse_encoding
from mixpanel_assets.errors import (
    APIError,
    AuthenticationError,
    ConfigError,
    ConnectionFailedError,
    IncompleteExportError,
    MixpanelDataError,
    PlanHorizonError,
    QueryError,
    RateLimitError,
    ServerError,
)

logger = logging.getLogger(__name__)


T = TypeVar("T")

Treatment = Literal["retried", "waited for", "not retried"]


@dataclass(frozen=True)
class RetryClass:
    """One kind of response, its error, and its treatment.

    Attributes:
        response: The response, or the failure of the network.
        error: The error that is raised after the last try.
        treatment: `retried` up to `max_retries` times, with growing, jittered waits; `waited for`
            as long as Mixpanel demands, which does not count as a retry; or `not retried`.
    """

    response: str
    error: type[MixpanelDataError]
    treatment: Treatment


RETRY_CLASSES: tuple[RetryClass, ...] = (
    RetryClass("5xx, and 400 with the text `Timeout Error`", ServerError, "retried"),
    RetryClass(
        "no connection, a lost connection, or no response", ConnectionFailedError, "retried"
    ),
    RetryClass("200 with an incomplete or invalid body", IncompleteExportError, "retried"),
    RetryClass("429", RateLimitError, "waited for"),
    RetryClass(
        "401, 403, and 400 that refuses the credentials", AuthenticationError, "not retried"
    ),
    RetryClass("402: the plan does not include the API", APIError, "not retried"),
    RetryClass(
        "`Date range exceeds N days`: older than the plan allows", PlanHorizonError, "not retried"
    ),
    RetryClass("any other 4xx, such as a malformed filter", QueryError, "not retried"),
    RetryClass("200 with an error instead of a result", QueryError, "not retried"),
)

FAULTS = tuple(row.error for row in RETRY_CLASSES if row.treatment == "retried")
_LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class RetryPolicy:
    """The number of retries of a client, and their waits.

    Attributes:
        max_retries: Retries after the first try. A 429 needs none.
        max_wait_seconds: The longest wait of a request for its budget and after 429s; None: no
            limit.
        first_wait_seconds: Mean wait before the first retry; it doubles, up to 60 seconds.
        cancelled: When it is set, every wait ends and no retry follows.
    """

    max_retries: int = 4
    max_wait_seconds: float | None = 900.0
    first_wait_seconds: float = 2.0
    cancelled: threading.Event = field(default_factory=threading.Event, compare=False, repr=False)

    def call(self, send: Callable[[], T]) -> T:
        """Call `send` until it returns without a fault, or raise the last error."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(FAULTS),
            wait=tenacity.wait_random_exponential(
                multiplier=self.first_wait_seconds, max=_LONGEST_WAIT_SECONDS
            ),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self.max_retries + 1),
                tenacity.stop_when_event_set(self.cancelled),
            ),
            before_sleep=self._log_wait,
            sleep=tenacity.sleep_using_event(self.cancelled),
            reraise=True,
        )
        return retrying(send)

    def _log_wait(self, state: tenacity.RetryCallState) -> None:
        if self.cancelled.is_set():
            return
        fault = state.outcome.exception() if state.outcome else None
        seconds = state.next_action.sleep if state.next_action else 0.0
        logger.warning("%s Retrying in %.0f s.", fault, seconds)


_PATHS: Mapping[Api, str] = {"export": "/api/2.0", "query": "/api/query", "app": "/api/app"}
_IN_LEXICON = re.compile(r"/projects/[^/]+/schemas\b")
_SUBDOMAINS: Mapping[Region, str] = {"us": "", "eu": "eu", "in": "in"}

# Idle limits, not totals. A large export is silent for minutes before its first byte; the
# server itself gives up after 488 s on the Query API and 120 s on the App API.
_IDLE_SECONDS: Mapping[Api, float] = {"export": 300.0, "query": 500.0, "app": 130.0}
_CONNECT_SECONDS = 20.0
USER_AGENT = f"mixpanel-assets/{__version__} httpx/{httpx.__version__}"
_CONNECTED = ("connection.connect_tcp.complete", "connection.start_tls.complete")


def base_url(api: Api, region: Region, override: str | None = None) -> str:
    """Return the address of an API; paths are appended to it.

    Mixpanel refuses a wrong region and does not redirect. `override` is one host for every API, as
    in MP_API_BASE_URL.
    """
    if override:
        return override.rstrip("/") + _PATHS[api]
    subdomain = _SUBDOMAINS[region]
    if api == "export":
        host = f"data-{subdomain}.mixpanel.com" if subdomain else "data.mixpanel.com"
    else:
        host = f"{subdomain}.mixpanel.com" if subdomain else "mixpanel.com"
    return f"https://{host}{_PATHS[api]}"


def in_family(endpoint: str) -> tuple[Api, str]:
    """Return the API family and the path in it of an address, or of a path like `/events/names`."""
    path = "/" + httpx.URL(endpoint).path.lstrip("/")
    api: Api = "app" if path.startswith(_PATHS["app"] + "/") else "query"
    for prefix in _PATHS.values():
        path = path.removeprefix(prefix)
    return ("export", path) if path == "/export" else (api, path)


class Transport:
    """Sends single requests as a service account, each one when the budget has room for it.

    It does not retry faults; see `RetryPolicy`.
    """

    def __init__(
        self,
        credentials: Credentials,
        budget: Budget,
        *,
        api_base_url: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.credentials = credentials
        self._budget = budget
        self._override = checked_base_url(api_base_url)
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        is_local_host = _is_loopback(self._override)
        try:
            self._http = httpx.Client(
                headers={
                    "Authorization": credentials.auth_header(),
                    # The verdict reads gzip alone; httpx offers more encodings by default.
                    "Accept-Encoding": "gzip",
                    "User-Agent": USER_AGENT,
                },
                transport=transport,
                # A proxy of the environment cannot reach a server on this machine.
                trust_env=not is_local_host and transport is None,
                # Loading certificates takes a while, and plain HTTP on this machine needs none.
                verify=not (is_local_host and httpx.URL(self._override or "").scheme == "http"),
                # Mixpanel runs at most a hundred requests of a project at the same time.
                limits=httpx.Limits(max_connections=100, max_keepalive_connections=10),
            )
            return
        except httpx.InvalidURL:
            reason = "a value is not an address"  # httpx quotes it, with its password
        except (ImportError, ValueError, OSError) as error:
            reason = credentials.redact(str(error))
        # Raised here, because the exception above may quote a password too.
        raise ConfigError(
            f"The network settings cannot be used ({reason}). Check {_network_variables()} (SOCKS "
            "needs the package httpx[socks]; in NO_PROXY, IPv6 addresses and ranges cannot be "
            "written)."
        )

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def abandon(self) -> None:
        """Break every connection, so that no thread waits for a response any longer.

        Their requests end with `ConnectionFailedError`. While the client is cancelled, new
        connections break too.
        """
        for connection in list(self._connections):
            _break_connection(connection)

    def _trace_connection(self, event: str, info: Mapping[str, Any]) -> None:
        if event in _CONNECTED:
            self._connections.add(info["return_value"])
            if self._budget.cancelled.is_set():
                _break_connection(info["return_value"])

    def url(self, api: Api, path: str) -> str:
        """Return the full address of a path such as `/export`."""
        return base_url(api, self.credentials.region, self._override) + path

    @contextmanager
    def open(
        self,
        method: str,
        api: Api,
        path: str,
        *,
        description: str,
        params: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        free: bool = False,
    ) -> Iterator[httpx.Response]:
        """Send a request and yield its response, whose body is not read yet.

        After a 429 it waits and sends again, within the budget's `max_wait_seconds`. Parameters
        that are None are left out. `free`: Mixpanel does not count this kind of request.

        Raises:
            APIError: The status is not 200; the subclass says what it means.
            RateLimitError: The budget is spent for longer than `max_wait_seconds`.
            ConnectionFailedError: No response, or the connection broke or stalled during it.
        """
        limited: Limited = "lexicon" if api == "app" and _IN_LEXICON.match(path) else api
        permits = self._budget.permits(limited, description, free=free)
        request = self._http.build_request(
            method,
            self.url(api, path),
            params=self._with_project(api, params),
            data=data,
            timeout=httpx.Timeout(_IDLE_SECONDS[api], connect=_CONNECT_SECONDS),
            extensions={"trace": self._trace_connection},
        )
        try:
            while True:
                with permits.permit() as permit, self._send(request) as response:
                    error = self._error_in(response, description)
                    if isinstance(error, RateLimitError):
                        permits.refused(permit, error)
                        continue
                    permits.accepted(permit)
                    if error:
                        raise error
                    yield response
                    return
        except httpx.HTTPError as error:
            self.credentials.redact_error(error)
            raise ConnectionFailedError(self._failure(error, description, api, path)) from error

    @contextmanager
    def _send(self, request: httpx.Request) -> Iterator[httpx.Response]:
        response = self._http.send(request, stream=True)
        try:
            yield response
        finally:
            response.close()

    def _error_in(self, response: httpx.Response, description: str) -> MixpanelDataError | None:
        if response.status_code == httpx.codes.OK:
            refuse_encoding(response, description, self.credentials)
            return None
        response.read()
        return error_from(response, description, self.credentials)

    def _with_project(self, api: Api, params: Mapping[str, Any] | None) -> dict[str, Any]:
        sent_params = {name: value for name, value in (params or {}).items() if value is not None}
        if api == "app":
            return sent_params
        return {"project_id": self.credentials.project_id, **sent_params}

    def _failure(self, error: httpx.HTTPError, description: str, api: Api, path: str) -> str:
        host = httpx.URL(self.url(api, path)).netloc.decode()
        fault = str(error) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in fault:
            return (
                f"{description}: the certificate of {host} has an unknown signer ({fault}). If a "
                "company proxy signs it, set SSL_CERT_FILE to its authority's file."
            )
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
            return (
                f"{description}: {host} cannot be reached ({fault}). "
                "Check the network, the proxy (HTTPS_PROXY) and MP_API_BASE_URL."
            )
        if isinstance(error, httpx.TimeoutException):
            idle = f"{_IDLE_SECONDS[api]:.0f} s"
            return f"{description}: {host} sent nothing for {idle}. Try again later."
        return f"{description}: the connection to {host} broke ({fault}). Try again."


def _network_variables() -> str:
    """Return the names of the network variables that are set; of all of them if none is."""
    proxy_names = [f"{name}_PROXY" for name in ("HTTPS", "HTTP", "ALL", "NO")] + ["SSL_CERT_FILE"]
    set_names = [
        name for name in proxy_names if os.environ.get(name) or os.environ.get(name.lower())
    ]
    return ", ".join(set_names or proxy_names)


def _break_connection(connection: Any) -> None:
    with suppress(OSError):
        connection.get_extra_info("socket").shutdown(socket.SHUT_RDWR)


def checked_base_url(api_base_url: str | None) -> str | None:
    """Return the one host for every API; None: Mixpanel's own hosts.

    `ConfigError`: it is not an address that may receive a secret.
    """
    if not api_base_url:
        return None
    try:
        url = httpx.URL(api_base_url)
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigError(f"MP_API_BASE_URL is not an address ({error}).") from error
    if url.userinfo:
        raise ConfigError(
            "MP_API_BASE_URL holds a name or password. Leave them out; "
            "MP_USERNAME and MP_SECRET name the account."
        )
    for url_part, part in ((url.query, "a query string"), (url.fragment, "a fragment")):
        if url_part:
            raise ConfigError(
                f"MP_API_BASE_URL holds {part}. Leave it out; paths are appended to the address."
            )
    if url.port is not None and not 1 <= url.port <= 65535:
        raise ConfigError(f"MP_API_BASE_URL has port {url.port}; ports are 1 to 65535.")
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(
            f"MP_API_BASE_URL must look like http://127.0.0.1:8765, not {api_base_url!r}."
        )
    if url.scheme == "http" and not _is_loopback(api_base_url):
        raise ConfigError(
            f"MP_API_BASE_URL is {api_base_url!r}: without https the secret would travel in the "
            "open. Use https, or a loopback address."
        )
    return api_base_url


def _is_loopback(url: str | None) -> bool:
    if not url:
        return False
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
