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
    """Tells what a project holds; an answer is remembered until `clear_cache`.

    Args:
        client: Who asks Mixpanel.

    Example:
        >>> discovery = DiscoveryService(client)
        >>> discovery.list_properties("Sign Up")
        ['$browser', ..., 'method', ..., 'plan', ...]
    """

    def __init__(self, client: MixpanelAPIClient) -> None:
        self._client = client
        self._remembered: dict[tuple[Any, ...], list[Any]] = {}

    def list_events(self) -> list[str]:
        """Return the names of the events of the last 31 days, at most 5,000, sorted.

        Rare and older events are missing: never decide by it what to export.

        Returns:
            The names.

        Raises:
            APIError: Mixpanel refused; see `mixpanel_assets.errors`.

        Example:
            >>> discovery.list_events()
            [..., 'Page View', 'Product Viewed', 'Search', 'Sign Up']
        """
        return self._once(("events",), lambda: _sorted(self._client.get_events(), "events"))

    def list_properties(self, event: str) -> list[str]:
        """Return the names of an event's properties, at most 5,000, sorted.

        Args:
            event: The event.

        Returns:
            The names.

        Raises:
            EventNotFoundError: Mixpanel lists no such event; it carries similar ones.
            APIError: Mixpanel refused.

        Example:
            >>> discovery.list_properties("Sign Up")
            ['$browser', ..., 'method', ..., 'plan', ...]
        """

        def ask() -> list[str]:
            return _sorted(self._client.get_event_properties(event), f"properties of {event!r}")

        return self._once(("properties", event), lambda: self._of_event(event, ask))

    def list_property_values(
        self, property_name: str, event: str | None = None, limit: int = 100
    ) -> list[str]:
        """Return the most common values of a property, sorted.

        Args:
            property_name: The property.
            event: Only values of this event. Mixpanel documents it as required; without, it
                may refuse, and the error then says so.
            limit: At most so many values.

        Returns:
            The values as text.

        Raises:
            EventNotFoundError: Mixpanel lists no such event; it carries similar ones.
            QueryError: Mixpanel wants an event.
            APIError: It refused for another reason.

        Example:
            >>> discovery.list_property_values("plan", "Sign Up")
            ['free', 'pro', 'team']
        """

        def ask() -> list[str]:
            return sorted(map(str, self._client.get_property_values(event, property_name, limit)))

        def ask_without_event() -> list[str]:
            try:
                return ask()
            except QueryError as error:
                said = (
                    f"{error.message} Name the event whose values are meant (`event=`, `--event`)."
                )
                raise QueryError(said, **error.details) from error

        key = ("values", property_name, event, limit)
        return self._once(
            key, ask_without_event if event is None else lambda: self._of_event(event, ask)
        )

    def list_funnels(self) -> list[FunnelInfo]:
        """Return the saved funnels, by name.

        Returns:
            Their numbers and names.

        Raises:
            APIError: Mixpanel refused.

        Example:
            >>> discovery.list_funnels()
            [..., FunnelInfo(funnel_id=7509, name='Purchase')]
        """
        return self._once(("funnels",), lambda: funnels_in(self._client.list_funnels()))

    def list_cohorts(self) -> list[SavedCohort]:
        """Return the saved cohorts, by name.

        Returns:
            Their numbers, names and sizes.

        Raises:
            APIError: Mixpanel refused.

        Example:
            >>> [cohort.name for cohort in discovery.list_cohorts()]
            ['Never seen', 'Newsletter', 'Paying']
        """
        return self._once(("cohorts",), lambda: saved_cohorts_in(self._client.list_cohorts()))

    def list_bookmarks(self, bookmark_type: BookmarkType | None = None) -> list[BookmarkInfo]:
        """Return the saved reports, by name, with the numbers that `query_saved_report` takes.

        Mixpanel documents no such list; its own clients read it.

        Args:
            bookmark_type: Only reports of this type.

        Returns:
            Their numbers, names and types.

        Raises:
            ConfigError: There is no such type.
            APIError: Mixpanel refused.

        Example:
            >>> [(report.id, report.name) for report in discovery.list_bookmarks("insights")]
            [(101, 'Orders by country'), (100, 'Views and orders')]
        """
        return self._once(
            ("bookmarks", bookmark_type),
            lambda: bookmarks_in(self._client.list_bookmarks(bookmark_type)),
        )

    def list_top_events(
        self, type: CountType = "general", limit: int | None = None
    ) -> list[TopEvent]:
        """Return the events of today against yesterday, the most common first; asked each time.

        Args:
            type: `general` counts events, `unique` people, `average` events per person.
            limit: At most so many; None leaves it to Mixpanel, which sends 100.

        Returns:
            Names, counts and changes.

        Raises:
            ConfigError: An argument is wrong.
            APIError: Mixpanel refused.

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

        Returns:
            The entries.

        Raises:
            ConfigError: There is no such entity type.
            APIError: Mixpanel refused; it allows 5 requests a minute.

        Example:
            >>> [schema.name for schema in discovery.list_schemas("event")]
            ['Added To Cart', 'Order Completed']
        """
        key = ("schemas", entity_type)
        return self._once(key, lambda: schemas_in(self._client.get_schemas(entity_type)))

    def get_schema(self, entity_type: EntityType, name: str) -> LexiconSchema:
        """Return one entry of the data dictionary.

        Args:
            entity_type: `event` or `profile`.
            name: Of the event; `$user` for profiles.

        Returns:
            The entry.

        Raises:
            ConfigError: There is no such entity type.
            QueryError: There is no entry of that name.
            APIError: Mixpanel refused.

        Example:
            >>> discovery.get_schema("event", "Order Completed").schema_json.description
            'A customer paid for the cart.'
        """

        def ask() -> list[LexiconSchema]:
            found = definition_in(self._client.get_schema(entity_type, name))
            return [LexiconSchema(entity_type, name, found)]

        return self._once(("schema", entity_type, name), ask)[0]

    def tell_of_unknown(self, events: Sequence[str]) -> list[str]:
        """Warn of events of which nothing came and which Mixpanel does not list.

        The list is of the last 31 days, so an older event may be there all the same. Without a
        list nothing is said.

        Args:
            events: The names that were asked for.

        Returns:
            Those that were warned of.

        Example:
            >>> discovery.tell_of_unknown(["Sign Up", "Sign Pu"])
            ['Sign Pu']
        """
        try:
            known = self.list_events()
        except MixpanelDataError as error:
            # The answer is there, and worth more than this.
            logger.debug("The names of events are not known: %s", error)
            return []
        unknown = [event for event in events if event not in known] if known else []
        for event in unknown:
            unlisted = EventNotFoundError(event, similar_names(event, known))
            logger.warning("Nothing was found. %s", unlisted)
        return unknown

    def clear_cache(self) -> None:
        """Forget every answer: the next call asks Mixpanel again.

        Example:
            >>> discovery.clear_cache()
        """
        self._remembered.clear()

    def _once(self, key: tuple[Any, ...], ask: Callable[[], list[T]]) -> list[T]:
        if key not in self._remembered:
            self._remembered[key] = ask()
        return list(self._remembered[key])

    def _of_event(self, event: str, ask: Callable[[], list[str]]) -> list[str]:
        """Return what is said of an event, or raise if there is no such event."""
        # An unknown event has been given nothing, and may be refused: only the list of names tells.
        try:
            found = ask()
        except QueryError as error:
            self._require(event, error)
            raise
        if not found:
            self._require(event)
        return found

    def _require(self, event: str, cause: Exception | None = None) -> None:
        known = self.list_events()
        if event not in known:
            raise EventNotFoundError(event, similar_names(event, known)) from cause


def _sorted(names: Sequence[str] | dict[str, Any], what: str) -> list[str]:
    if len(names) >= MOST_NAMES:
        logger.warning("Mixpanel lists only %s %s; there may be more.", f"{len(names):,}", what)
    return sorted(map(str, names))
