"""MixpanelAPIClient: one method per question a caller asks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from mixpanel_assets.client.budget import Budget
from mixpanel_assets.client.credentials import Credentials
from mixpanel_assets.client.engage import ProfileQuery, fetch_page
from mixpanel_assets.client.export import (
    EventExport,
    ExportQuery,
    checked_lines,
    is_gzip,
    open_export,
)
from mixpanel_assets.client.limits import BudgetSettings
from mixpanel_assets.client.records import parse_record
from mixpanel_assets.client.responses import json_in
from mixpanel_assets.client.retries import RetryPolicy
from mixpanel_assets.client.snapshot import (
    MAX_WORKERS,
    PageOutcome,
    PagePlan,
    fetch_pages,
    plan_snapshot,
)
from mixpanel_assets.client.transport import Transport
from mixpanel_assets.client.types import Api, ApiUsage, ProfilePageResult
from mixpanel_assets.client.verdict import Verdict
from mixpanel_assets.errors import ConfigError, ConnectionFailedError, IncompleteExportError


class MixpanelAPIClient:
    """Talks to one Mixpanel project as a service account; a context manager.

    Args:
        credentials: Who asks, and which project.
        api_base_url: One host for every API, as in MP_API_BASE_URL; None for Mixpanel's own.
        retries: How patient to be with faults and rate limits.
        budget: How many requests may be sent, and where they are counted; by default a little
            less than Mixpanel allows, counted for all processes of this user.

    Example:
        >>> with MixpanelAPIClient(credentials) as client:
        ...     me = client.get("app", "/me")
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        api_base_url: str | None = None,
        retries: RetryPolicy | None = None,
        budget: BudgetSettings | None = None,
    ) -> None:
        self.credentials = credentials
        self.retries = retries or RetryPolicy()
        self.budget = Budget(
            budget or BudgetSettings(),
            _budget_name(credentials, api_base_url),
            max_wait_seconds=self.retries.max_wait_seconds,
            cancelled=self.retries.cancelled,
        )
        self._api_base_url = api_base_url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        if "_transport" in self.__dict__:
            self._transport.close()

    def open_transport(self) -> Transport:
        """Return a connection of its own for a long export; the caller closes it."""
        return Transport(self.credentials, self.budget, api_base_url=self._api_base_url)

    def quota(self) -> list[ApiUsage]:
        """Return what this user's processes have spent of the request budget, per API family.

        Nothing is asked of Mixpanel, which does not tell; requests of others are not known.
        """
        return self.budget.usage()

    @cached_property
    def _transport(self) -> Transport:
        return self.open_transport()

    def get(self, api: Api, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON answer to a GET, such as `get("query", "/events/names")`.

        Raises:
            APIError: Mixpanel refused; see `mixpanel_assets.errors` for what each class means.
            ConnectionFailedError: No answer came.
        """
        return self._ask("GET", api, path, params=params)

    def post(self, api: Api, path: str, data: Mapping[str, Any] | None = None) -> Any:
        """Return the JSON answer to a POST of form fields. Raises as `get` does."""
        return self._ask("POST", api, path, data=data)

    def event_export(
        self,
        *,
        from_date: date,
        to_date: date,
        directory: Path,
        events: Sequence[str] | None = None,
        where: str | None = None,
    ) -> EventExport:
        """Return a lazy export of whole days into spool files; nothing is asked yet."""
        return EventExport(
            open_transport=self.open_transport,
            query=ExportQuery(from_date, to_date, events, where),
            directory=directory,
            retries=self.retries,
        )

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
        """Yield every raw event of the days as it arrives; `time` in seconds, nothing changed.

        Memory stays constant. Faults before the first event are repeated unseen. After it
        they raise, because repeating would deliver events twice.

        Args:
            from_date: First day, included.
            to_date: Last day, included.
            events: Only events of these names.
            where: A segmentation expression.
            limit: At most so many events.
            on_batch: Told the number of events so far, every `batch_size` events and at the end.
            batch_size: Events per call of `on_batch`.

        Yields:
            Events as Mixpanel sends them; the export is not deduplicated, an event can repeat.

        Raises:
            IncompleteExportError: The stream broke; `records` events had been delivered.
        """
        query = ExportQuery(_day(from_date), _day(to_date), events, where, limit)
        delivered = 0
        for line in self._live_lines(query):
            yield parse_record(line)
            delivered += 1
            if on_batch and delivered % batch_size == 0:
                on_batch(delivered)
        if on_batch and delivered % batch_size:
            on_batch(delivered)

    def export_profiles(
        self,
        *,
        where: str | None = None,
        cohort_id: str | None = None,
        output_properties: Sequence[str] | None = None,
        distinct_ids: Sequence[str] | None = None,
        group_id: str | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield every profile, page after page of one session, as Mixpanel sends them.

        Raises:
            IncompleteExportError: A page was broken, or the pages do not add up to `total`.
        """
        filters: dict[str, Any] = {
            "where": where,
            "cohort_id": cohort_id,
            "output_properties": output_properties,
            "distinct_ids": distinct_ids,
            "group_id": group_id,
        }
        delivered = 0
        page = first = self.export_profiles_page(0, **filters)
        while True:
            yield from page.profiles
            delivered += len(page.profiles)
            if on_batch:
                on_batch(delivered)
            if not page.has_more:
                break
            page = self.export_profiles_page(page.page + 1, first.session_id, **filters)
        if delivered < first.total:
            raise IncompleteExportError(
                f"profiles: {delivered:,} came, page 0 announced {first.total:,}.",
                reason="fewer profiles than announced",
                lines=delivered,
                records=delivered,
            )

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
        """Return one page of profiles; pages above 0 need the `session_id` of page 0."""
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
        answer = self.retries.call(lambda: fetch_page(self._transport, query, page, session_id))
        return ProfilePageResult(
            profiles=[parse_record(result) for result in answer.results],
            session_id=answer.session_id,
            page=page,
            has_more=len(answer.results) >= answer.page_size,
            total=answer.total or 0,
            page_size=answer.page_size,
        )

    def plan_profiles(self, directory: Path, query: ProfileQuery) -> PagePlan:
        """Fetch page 0 into `directory` and return the plan for the other pages."""
        return plan_snapshot(self._transport, query, directory, self.retries)

    def fetch_profile_pages(
        self,
        query: ProfileQuery,
        plan: PagePlan,
        pages: Sequence[int],
        *,
        max_workers: int = MAX_WORKERS,
        on_page: Callable[[PageOutcome], None] | None = None,
    ) -> list[PageOutcome]:
        """Put pages on disk, up to `max_workers` at once; a page that fails is an outcome."""
        return fetch_pages(
            self._transport,
            query,
            plan,
            pages,
            self.retries,
            max_workers=max_workers,
            on_page=on_page,
        )

    def _ask(self, method: str, api: Api, path: str, **fields: Any) -> Any:
        asked = f"{method} {path}"

        def ask() -> Any:
            with self._transport.open(method, api, path, asked=asked, **fields) as response:
                return json_in(response, asked)

        return self.retries.call(ask)

    def _live_lines(self, query: ExportQuery) -> Iterator[bytes]:
        delivered = 0
        try:
            with ExitStack() as answer:
                for line in self.retries.call(lambda: self._first_line_on(query, answer)):
                    yield line
                    delivered += 1
        except (IncompleteExportError, ConnectionFailedError) as error:
            raise IncompleteExportError(
                f"{error.message} {delivered:,} events had been delivered.",
                from_date=query.from_date,
                to_date=query.to_date,
                reason=getattr(error, "reason", "") or "the connection broke",
                lines=delivered,
                records=delivered,
            ) from error

    def _first_line_on(self, query: ExportQuery, answer: ExitStack) -> Iterator[bytes]:
        """Return the lines of an answer that got as far as its first one."""
        with ExitStack() as attempt:
            response = attempt.enter_context(open_export(self._transport, query, time_in_ms=False))
            lines = checked_lines(response, query, Verdict(gzip=is_gzip(response)))
            first = list(itertools.islice(lines, 1))
            answer.push(attempt.pop_all())
        return itertools.chain(first, lines)


def _day(value: date | str) -> date:
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(value)
    except ValueError:
        raise ConfigError(f"{value!r} is not a day; write it like 2024-01-31.") from None


def _budget_name(credentials: Credentials, api_base_url: str | None) -> str:
    # Another host is another Mixpanel: the emulator must not spend the real project's budget.
    name = f"{credentials.region}-{credentials.project_id}"
    return f"{name}-{urlsplit(api_base_url).netloc}" if api_base_url else name
