"""What a project holds: names, values, funnels, cohorts, lexicon; each is requested once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mixpanel_assets.client.answers import (
    bookmarks_in,
    definition_in,
    funnels_in,
    saved_cohorts_in,
    schemas_in,
    top_events_in,
)
from mixpanel_assets.client.api import MixpanelAPIClient
from mixpanel_assets.client.reports import MOST_NAMES
from mixpanel_assets.errors import (
    EventNotFoundError,
    MixpanelDataError,
    QueryError,
    similar_names,
)
from mixpanel_assets.results import BookmarkInfo, FunnelInfo, LexiconSchema, SavedCohort, TopEvent
from mixpanel_assets.results.choices import BookmarkType, CountType, EntityType

logger = logging.getLogger(__name__)

T = TypeVar("T")


class DiscoveryService:
    """What a project holds; each list is requested once and kept until `clear_cache`.

    A wrong argument is a `ConfigError` before a request is sent, and a refusal by Mixpanel an
    `APIError`; see `mixpanel_assets.errors`.

    Args:
        client: Sends the requests.

    Example:
        >>> discovery = DiscoveryService(client)
        >>> discovery.list_properties("Sign Up")
        ['$browser', ..., 'method', ..., 'plan', ...]
    """

    def __init__(self, client: MixpanelAPIClient) -> None:
        self._client = client
        self._remembered_lists: dict[tuple[Any, ...], list[Any]] = {}

    def list_events(self) -> list[str]:
        """Return the names of the events of the last 31 days, at most 5,000, sorted.

        Rare and older events are missing, so do not use it to decide what to export.

        Example:
            >>> discovery.list_events()
            [..., 'Page View', 'Product Viewed', 'Search', 'Sign Up']
        """
        return self._request(("events",), lambda: _sort_names(self._client.get_events(), "events"))

    def list_properties(self, event: str) -> list[str]:
        """Return the names of an event's properties, at most 5,000, sorted.

        Args:
            event: The event.

        Raises:
            EventNotFoundError: Mixpanel lists no such event; it carries similar ones.

        Example:
            >>> discovery.list_properties("Sign Up")
            ['$browser', ..., 'method', ..., 'plan', ...]
        """

        def request() -> list[str]:
            return _sort_names(self._client.get_event_properties(event), f"properties of {event!r}")

        return self._request(("properties", event), lambda: self._for_event(event, request))

    def list_property_values(
        self, property_name: str, event: str | None = None, limit: int = 100
    ) -> list[str]:
        """Return the most common values of a property as text, sorted.

        Args:
            property_name: The property.
            event: Only values of this event. Mixpanel documents it as required and may
                refuse the request without it.
            limit: The most values to return.

        Raises:
            EventNotFoundError: Mixpanel lists no such event; it carries similar ones.
            QueryError: Mixpanel wants an event.

        Example:
            >>> discovery.list_property_values("plan", "Sign Up")
            ['free', 'pro', 'team']
        """

        def request() -> list[str]:
            return sorted(map(str, self._client.get_property_values(event, property_name, limit)))

        def request_without_event() -> list[str]:
            try:
                return request()
            except QueryError as error:
                message = (
                    f"{error.message} Name the event whose values are meant (`event=`, `--event`)."
                )
                raise QueryError(message, **error.details) from error

        key = ("values", property_name, event, limit)
        return self._request(
            key, request_without_event if event is None else lambda: self._for_event(event, request)
        )

    def list_funnels(self) -> list[FunnelInfo]:
        """Return numbers and names of the saved funnels, in order of name.

        Example:
            >>> discovery.list_funnels()
            [..., FunnelInfo(funnel_id=7509, name='Purchase')]
        """
        return self._request(("funnels",), lambda: funnels_in(self._client.list_funnels()))

    def list_cohorts(self) -> list[SavedCohort]:
        """Return numbers, names and sizes of the saved cohorts, in order of name.

        Example:
            >>> [cohort.name for cohort in discovery.list_cohorts()]
            ['Never seen', 'Newsletter', 'Paying']
        """
        return self._request(("cohorts",), lambda: saved_cohorts_in(self._client.list_cohorts()))

    def list_bookmarks(self, bookmark_type: BookmarkType | None = None) -> list[BookmarkInfo]:
        """Return the saved reports, by name, with the numbers that `query_saved_report` takes.

        Mixpanel documents no such list; its own clients read it.

        Args:
            bookmark_type: Only reports of this type.

        Example:
            >>> [(report.id, report.name) for report in discovery.list_bookmarks("insights")]
            [(101, 'Orders by country'), (100, 'Views and orders')]
        """
        return self._request(
            ("bookmarks", bookmark_type),
            lambda: bookmarks_in(self._client.list_bookmarks(bookmark_type)),
        )

    def list_top_events(
        self, type: CountType = "general", limit: int | None = None
    ) -> list[TopEvent]:
        """Return the events of today against yesterday, the most common first.

        Nothing is remembered: each call sends a request.

        Args:
            type: `general` counts events, `unique` people, `average` events per person.
            limit: The most events to return; None leaves it to Mixpanel, which sends 100.

        Example:
            >>> discovery.list_top_events(limit=1)
            [TopEvent(event='Page View', count=24, percent_change=0.6)]
        """
        return top_events_in(self._client.get_top_events(type, limit))

    def list_schemas(self, entity_type: EntityType | None = None) -> list[LexiconSchema]:
        """Return the data dictionary, by type and name.

        Events without an entry are not listed.

        Args:
            entity_type: Only `event` or `profile` entries; None: both.

        Example:
            >>> [schema.name for schema in discovery.list_schemas("event")]
            ['Added To Cart', 'Order Completed']
        """
        key = ("schemas", entity_type)
        return self._request(key, lambda: schemas_in(self._client.get_schemas(entity_type)))

    def get_schema(self, entity_type: EntityType, name: str) -> LexiconSchema:
        """Return one entry of the data dictionary.

        Args:
            entity_type: `event` or `profile`.
            name: Of the event; `$user` for profiles.

        Raises:
            QueryError: There is no entry of that name.

        Example:
            >>> discovery.get_schema("event", "Order Completed").schema_json.description
            'A customer paid for the cart.'
        """

        def request() -> list[LexiconSchema]:
            definition = definition_in(self._client.get_schema(entity_type, name))
            return [LexiconSchema(entity_type, name, definition)]

        return self._request(("schema", entity_type, name), request)[0]

    def tell_of_unknown(self, events: Sequence[str]) -> list[str]:
        """Warn of events that have no counts and that Mixpanel does not list.

        The list covers the last 31 days, so an older event may exist all the same. If the list
        cannot be read, there is no warning.

        Args:
            events: The names in the request.

        Returns:
            The names in the warning.

        Example:
            >>> discovery.tell_of_unknown(["Sign Up", "Sign Pu"])
            ['Sign Pu']
        """
        try:
            known_events = self.list_events()
        except MixpanelDataError as error:
            # The caller has its result already, which is worth more than a warning.
            logger.debug("The names of events are not known: %s", error)
            return []
        unknown = [event for event in events if event not in known_events] if known_events else []
        for event in unknown:
            unlisted = EventNotFoundError(event, similar_names(event, known_events))
            logger.warning("Nothing was found. %s", unlisted)
        return unknown

    def clear_cache(self) -> None:
        """Forget every list: the next call sends a request.

        Example:
            >>> discovery.clear_cache()
        """
        self._remembered_lists.clear()

    def _request(self, key: tuple[Any, ...], request: Callable[[], list[T]]) -> list[T]:
        if key not in self._remembered_lists:
            self._remembered_lists[key] = request()
        return list(self._remembered_lists[key])  # a copy, which the caller may change

    def _for_event(self, event: str, request: Callable[[], list[str]]) -> list[str]:
        # For an unknown event Mixpanel sends an empty list or a refusal; only the list of names
        # says that the event does not exist.
        try:
            names = request()
        except QueryError as error:
            self._require_event(event, error)
            raise
        if not names:
            self._require_event(event)
        return names

    def _require_event(self, event: str, cause: Exception | None = None) -> None:
        known_events = self.list_events()
        if event not in known_events:
            raise EventNotFoundError(event, similar_names(event, known_events)) from cause


def _sort_names(names: Sequence[str] | dict[str, Any], kind: str) -> list[str]:
    if len(names) >= MOST_NAMES:
        logger.warning("Mixpanel lists only %s %s; there may be more.", f"{len(names):,}", kind)
    return sorted(map(str, names))
