"""MixpanelAPIClient: requests of every kind to one project."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast, get_args
from urllib.parse import parse_qsl, urlsplit

from mixpanel_assets.client.budget import Budget
from mixpanel_assets.client.credentials import Credentials
from mixpanel_assets.client.export import AheadExport, EventExport, ExportQuery
from mixpanel_assets.client.ledger import Api, ApiUsage, BudgetSettings
from mixpanel_assets.client.normalize import normalized_profile, parse_record
from mixpanel_assets.client.profiles import (
    MAX_WORKERS,
    PageOutcome,
    ProfilePageResult,
    ProfileQuery,
    fetch_page,
    fetch_pages,
    plan_snapshot,
)
from mixpanel_assets.client.reports import Queries, number_param, optional
from mixpanel_assets.client.responses import json_in
from mixpanel_assets.client.spool import PagePlan
from mixpanel_assets.client.streams import (
    STREAMED_DAYS,
    EventSource,
    ProfileSource,
    RecordStream,
    as_received,
    checked_events,
    normalized,
)
from mixpanel_assets.client.transport import RetryPolicy, Transport, checked_base_url, in_family
from mixpanel_assets.client.verdict import EventVerdict, Verdict
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.rules.days import as_day

if TYPE_CHECKING:
    import httpx

MP_API_BASE_URL = "MP_API_BASE_URL"


class MixpanelAPIClient(Queries):
    """Talks to one Mixpanel project as a service account; a context manager.

    Args:
        credentials: The service account and its project.
        api_base_url: One host for every API; None: Mixpanel's own; by default MP_API_BASE_URL.
        retries: The policy for faults and rate limits.
        budget: The request budget and its ledger; by default a little less than Mixpanel allows,
            counted for all processes of this user.
        transport: Sends requests instead of the network, such as `httpx.MockTransport`.
        workspace_id: The data view of reports; exports always cover the whole project.

    Example:
        >>> with MixpanelAPIClient(credentials) as client:
        ...     me = client.get("app", "/me")
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        api_base_url: str | None = MP_API_BASE_URL,
        retries: RetryPolicy | None = None,
        budget: BudgetSettings | None = None,
        transport: httpx.BaseTransport | None = None,
        workspace_id: int | None = None,
    ) -> None:
        if api_base_url == MP_API_BASE_URL:
            api_base_url = os.environ.get(MP_API_BASE_URL)
        self._http_transport = transport
        self.workspace_id = optional(number_param, "workspace_id", workspace_id)
        self._api_base_url = checked_base_url(api_base_url)
        self.credentials = credentials
        self.retries = retries or RetryPolicy()
        self.budget = Budget(
            budget or BudgetSettings(),
            _budget_name(credentials, api_base_url),
            max_wait_seconds=self.retries.max_wait_seconds,
            cancelled=self.retries.cancelled,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection.

        Example:
            >>> client.close()
        """
        if "_transport" in self.__dict__:  # otherwise this would open a connection to close it
            self._transport.close()
        self.budget.close()

    def of_whole_project(self) -> Self:
        """Return this client without its data view. Both use one connection.

        Example:
            >>> client.of_whole_project().workspace_id
        """
        if self.workspace_id is None:
            return self
        assert self._transport  # opened here, so that closing this client closes it
        client = copy(self)
        client.workspace_id = None
        return client

    def open_transport(self) -> Transport:
        """Return a new connection for a long export; the caller closes it.

        Example:
            >>> client.open_transport().close()
        """
        return Transport(
            self.credentials,
            self.budget,
            api_base_url=self._api_base_url,
            transport=self._http_transport,
        )

    def quota(self) -> list[ApiUsage]:
        """Return the spent part of the request budget for each API family.

        The ledger knows the requests of processes that share it: Mixpanel does not publish the
        count. No request is sent.

        Example:
            >>> [usage.limit for usage in client.quota()]
        """
        return self.budget.usage()

    @cached_property
    def _transport(self) -> Transport:
        return self.open_transport()

    def get(
        self,
        api: Api | str,
        path: str | Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the JSON response to a GET, such as `get("query", "/events/names")`.

        Args:
            api: The API family: `query`, `export` or `app`. Or an endpoint without `path`, such as
                `/events/names` of the Query API or `/api/app/me`.
            path: The path after the family's address.
            params: The query; the project is added.

        Raises:
            APIError: Mixpanel refused the request; see `mixpanel_assets.errors` for the classes.
            ConnectionFailedError: There was no response.

        Example:
            >>> client.get("query", "/events/names", {"type": "general"})
            [...]
        """
        return self._request("GET", *_resolve_address(api, path, params, "params"))

    def post(
        self,
        api: Api | str,
        path: str | Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the JSON response to a POST of form fields.

        Other arguments and errors: see `MixpanelAPIClient.get`.

        Args:
            data: The form.

        Example:
            >>> client.post("query", "/engage")["status"]
            'ok'
        """
        return self._request("POST", *_resolve_address(api, path, data, "data"))

    def event_export(
        self,
        *,
        from_date: date | str,
        to_date: date | str,
        directory: Path,
        events: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        at_once: int | None = None,
    ) -> EventExport:
        """Return an export of days into spool files; no request is sent yet.

        Other arguments: see `MixpanelAPIClient.stream_events`.

        Args:
            directory: The folder of the files.
            limit: The most events of each request; their choice is undefined.
            at_once: The number of windows given to `ahead` that are downloaded at the same time,
                beside the one in use; None: none.

        Example:
            >>> export = client.event_export(from_date=day, to_date=day, directory=folder)
        """
        query = ExportQuery(as_day(from_date), as_day(to_date), events, where, limit)
        if at_once:
            return AheadExport(self.open_transport, query, directory, self.retries, at_once=at_once)
        return EventExport(self.open_transport, query, directory, self.retries)

    def stream_events(
        self,
        *,
        from_date: date | str,
        to_date: date | str,
        events: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        raw: bool = False,
        staged: bool = False,
        confirms: bool = True,
        days_per_request: int = STREAMED_DAYS,
        local_zone: str | None = None,
        spool_directory: Path | None = None,
    ) -> RecordStream[dict[str, Any]]:
        """Return the events of some days, one at a time.

        If the loop ends normally, the days were complete. Memory is constant and no database is
        used. Arguments are checked here; the first request is sent for the first event.

        Args:
            from_date: First day; a date, or text like 2024-01-31.
            to_date: Last day, included.
            events: Only events of these names.
            where: A segmentation expression.
            limit: The most events, 1 to 100,000; their choice is undefined.
            raw: Events exactly as Mixpanel sends them, `time` in seconds. Otherwise a dict of
                `event_name`, `event_time` (aware, UTC; None without a usable `time`),
                `distinct_id`, `insert_id` (made if it is missing) and `properties`.
            staged: Put each response on disk and check it before its first event is delivered, so
                that every failed response can be retried.
            confirms: Request days without events once more, together, before the end.
            days_per_request: The number of days per request.
            local_zone: The project's zone if `time` is its wall clock (projects from before 2023).
            spool_directory: The folder of staged responses; None: the temporary directory.

        Returns:
            An iterator that is a context manager too. Duplicates that Mixpanel sends are kept.

        Raises:
            ConfigError: An argument is wrong.
            IncompleteExportError: From the iterator: a response broke off after its first event;
                `records` events had been delivered.
            AuthenticationError: From the iterator, before the first event.

        Example:
            >>> with client.stream_events(from_date="2024-01-01", to_date="2024-01-01") as events:
            ...     sorted(next(events))
            ['distinct_id', 'event_name', 'event_time', 'insert_id', 'properties']
        """
        source = self._event_source(
            checked_events(from_date, to_date, events, where, limit, time_in_ms=not raw),
            staged=staged,
            confirms=confirms,
            days_per_request=days_per_request,
            spool_directory=spool_directory,
        )
        if raw:
            return RecordStream(
                source.blocks(lambda gzip: EventVerdict(gzip=gzip)), source.query.description
            )
        return RecordStream(normalized(source, local_zone), source.query.description)

    def stream_event_lines(
        self,
        *,
        from_date: date | str,
        to_date: date | str,
        events: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        staged: bool = False,
        confirms: bool = True,
        days_per_request: int = STREAMED_DAYS,
        spool_directory: Path | None = None,
    ) -> RecordStream[bytes]:
        """Return each raw event as the bytes of its line, without the newline.

        Arguments and errors: see `MixpanelAPIClient.stream_events`.

        Example:
            >>> with client.stream_event_lines(from_date=day, to_date=day) as lines:
            ...     next(lines)[:9]
            b'{"event":'
        """
        source = self._event_source(
            checked_events(from_date, to_date, events, where, limit, time_in_ms=False),
            staged=staged,
            confirms=confirms,
            days_per_request=days_per_request,
            spool_directory=spool_directory,
        )
        return RecordStream(
            source.blocks(lambda gzip: Verdict(gzip=gzip)), source.query.description
        )

    def stream_profiles(
        self, query: ProfileQuery | None = None, *, raw: bool = False
    ) -> RecordStream[dict[str, Any]]:
        """Return profiles one at a time, page after page of one session.

        If the loop ends normally, the profiles were complete.

        Args:
            query: The filters, which are checked here; None: all profiles.
            raw: Profiles exactly as Mixpanel sends them. Otherwise a dict of `distinct_id`
                (text), `last_seen` (text as sent, None if it is missing) and `properties`.

        Raises:
            ConfigError: The filters contradict each other.
            IncompleteExportError: From the iterator: a page is missing, or the pages do not add
                up; `records` profiles had been delivered.

        Example:
            >>> for profile in client.stream_profiles(ProfileQuery(cohort_id="1000")):
            ...     profile["distinct_id"], profile["last_seen"]
        """
        convert = as_received if raw else normalized_profile
        return RecordStream(self._profile_source(query).blocks(convert), "profiles")

    def stream_profile_lines(self, query: ProfileQuery | None = None) -> RecordStream[bytes]:
        """Return each raw profile as the received bytes.

        Arguments and errors: see `MixpanelAPIClient.stream_profiles`.

        Example:
            >>> with client.stream_profile_lines() as lines:
            ...     next(lines)[:16]
            b'{"$distinct_id":'
        """
        return RecordStream(self._profile_source(query).blocks(lambda _, line: line), "profiles")

    def export_events(
        self,
        from_date: date | str,
        to_date: date | str,
        *,
        events: Sequence[str] | None = None,
        where: str | None = None,
        limit: int | None = None,
        on_batch: Callable[[int], None] | None = None,
        batch_size: int = 1000,
    ) -> Iterator[dict[str, Any]]:
        """Yield raw events as `stream_events(raw=True)` does, and report their number.

        Other arguments and errors: see `MixpanelAPIClient.stream_events`.

        Args:
            on_batch: Called with the number so far after each `batch_size` events and at the end.
            batch_size: Events between two calls of `on_batch`.

        Example:
            >>> for event in client.export_events("2024-01-01", "2024-01-01", limit=10):
            ...     event["event"], event["properties"]["time"]
        """
        stream = self.stream_events(
            from_date=from_date, to_date=to_date, events=events, where=where, limit=limit, raw=True
        )
        return _report_batches(stream, on_batch, batch_size) if on_batch else stream

    def export_profiles(
        self,
        *,
        where: str | None = None,
        cohort_id: str | None = None,
        output_properties: Sequence[str] | None = None,
        distinct_ids: Sequence[str] | None = None,
        group_id: str | None = None,
        on_batch: Callable[[int], None] | None = None,
        batch_size: int = 1000,
    ) -> Iterator[dict[str, Any]]:
        """Yield raw profiles as `stream_profiles(raw=True)` does, and report their number.

        Other arguments: see `ProfileQuery`.

        Args:
            on_batch: Called with the number so far after each `batch_size` profiles and at the end.
            batch_size: Profiles between two calls of `on_batch`.

        Example:
            >>> for profile in client.export_profiles(cohort_id="1000"):
            ...     profile["$distinct_id"], profile["$properties"]
        """
        query = ProfileQuery(
            where=where,
            cohort_id=cohort_id,
            output_properties=output_properties,
            distinct_ids=distinct_ids,
            group_id=group_id,
        )
        stream = self.stream_profiles(query, raw=True)
        return _report_batches(stream, on_batch, batch_size) if on_batch else stream

    def export_profiles_page(
        self,
        page: int,
        session_id: str | None = None,
        *,
        where: str | None = None,
        cohort_id: str | None = None,
        output_properties: Sequence[str] | None = None,
        distinct_ids: Sequence[str] | None = None,
        group_id: str | None = None,
        behaviors: Sequence[Mapping[str, Any]] | None = None,
        as_of_timestamp: int | None = None,
        include_all_users: bool = False,
    ) -> ProfilePageResult:
        """Return one page of profiles; pages above 0 need the `session_id` of page 0.

        Other arguments: see `ProfileQuery`.

        Args:
            page: Its number, from 0.
            session_id: The session in the response for page 0; needed from page 1 on.

        Raises:
            ConfigError: The filters contradict each other.
            APIError: Mixpanel refused the request.
            ConnectionFailedError: There was no response.

        Example:
            >>> page = client.export_profiles_page(0)
            >>> len(page.profiles), page.total, page.has_more
            (40, 40, False)
        """
        query = ProfileQuery(
            where=where,
            cohort_id=cohort_id,
            output_properties=output_properties,
            distinct_ids=distinct_ids,
            group_id=group_id,
            behaviors=behaviors,
            as_of_timestamp=as_of_timestamp,
            include_all_users=include_all_users,
        )
        received = self.retries.call(lambda: fetch_page(self._transport, query, page, session_id))
        return ProfilePageResult(
            profiles=[parse_record(result) for result in received.results],
            session_id=received.session_id,
            page=page,
            has_more=len(received.results) >= received.page_size,
            total=received.total or 0,
            page_size=received.page_size,
        )

    def plan_profiles(self, directory: Path, query: ProfileQuery) -> PagePlan:
        """Fetch page 0 into `directory`, and store the plan for the other pages there.

        From 49 pages on, 80 % of Mixpanel's 60 queries an hour, their cost is logged.

        Args:
            directory: The folder of the pages.
            query: The filters.

        Returns:
            The plan: the numbers of pages and profiles, and their session.

        Raises:
            APIError: Mixpanel refused the request.

        Example:
            >>> client.plan_profiles(folder, ProfileQuery()).num_pages
            1
        """
        plan = plan_snapshot(self._transport, query, directory, self.retries)
        self.budget.settings.warn_of_many_pages(plan.num_pages)
        return plan

    def fetch_profile_pages(
        self,
        query: ProfileQuery,
        plan: PagePlan,
        pages: Sequence[int],
        *,
        max_workers: int = MAX_WORKERS,
        on_page: Callable[[PageOutcome], None] | None = None,
    ) -> list[PageOutcome]:
        """Put pages on disk, several at once; the outcome of a page says whether it failed.

        Args:
            query: The filters of the plan.
            plan: The result of `plan_profiles`.
            pages: Numbers of the pages, from 0.
            max_workers: The number of pages that are requested at once.
            on_page: Called with the outcome of each page.

        Returns:
            The outcome of each page: its rows or its error.

        Example:
            >>> query = ProfileQuery()
            >>> plan = client.plan_profiles(folder, query)
            >>> client.fetch_profile_pages(query, plan, range(1, plan.num_pages))
            []
        """
        return fetch_pages(
            self._transport,
            query,
            plan,
            pages,
            self.retries,
            max_workers=max_workers,
            on_page=on_page,
        )

    def _request(self, method: str, api: Api, path: str, fields: Mapping[str, Any]) -> Any:
        description = f"{method} {path}"
        if api == "query" and self.workspace_id is not None:
            params = {"workspace_id": self.workspace_id, **(fields.get("params") or {})}
            fields = {**fields, "params": params}

        def send() -> Any:
            with self._transport.open(
                method, api, path, description=description, **fields
            ) as response:
                return json_in(response, description, self.credentials)

        return self.retries.call(send)

    def _event_source(self, query: ExportQuery, **options: Any) -> EventSource:
        return EventSource(query, self._transport, self.open_transport, self.retries, **options)

    def _profile_source(self, query: ProfileQuery | None) -> ProfileSource:
        query = query or ProfileQuery()
        query.check()
        return ProfileSource(query, self._transport, self.retries)


def _report_batches(
    stream: RecordStream[dict[str, Any]], on_batch: Callable[[int], None], batch_size: int
) -> Iterator[dict[str, Any]]:
    with stream:
        for record in stream:
            yield record
            if stream.delivered % batch_size == 0:
                on_batch(stream.delivered)
    if stream.delivered % batch_size:
        on_batch(stream.delivered)


def _resolve_address(
    api: Api | str, path: str | Mapping[str, Any] | None, sent: Mapping[str, Any] | None, name: str
) -> tuple[Api, str, dict[str, Any]]:
    """Return the API family of a request, the path in it, and the fields to send."""
    if isinstance(path, str):
        if api not in get_args(Api):
            raise ConfigError(f"The API must be one of {', '.join(get_args(Api))}, not {api!r}.")
        return cast("Api", api), "/" + path.lstrip("/"), {name: sent}
    if api in get_args(Api):
        raise ConfigError(f"Give a path of the {api} API, such as /events/names.")
    family, endpoint = in_family(api)
    query_params = dict(parse_qsl(urlsplit(api).query))
    fields: dict[str, Any] = {name: path if sent is None else sent}
    if query_params:
        fields["params"] = query_params | dict(fields.get("params") or {})
    return family, endpoint, fields


def _budget_name(credentials: Credentials, api_base_url: str | None) -> str:
    # Another host is another Mixpanel: the emulator must not spend the real project's budget.
    name = f"{credentials.region}-{credentials.project_id}"
    return f"{name}-{urlsplit(api_base_url).netloc}" if api_base_url else name
