"""Questions about what a project holds: names, values, funnels, cohorts, data dictionary.

Each returns Mixpanel's answer as received; `DiscoveryService` makes results of them. Every one
spends a request of the Query API's budget, save for the data dictionary.

Source: Mixpanel reference, Query API and Lexicon Schemas; read 2026-11.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from mixpanel_assets.client.questions import (
    Asker,
    checked,
    number,
    one_of,
    optional_number,
    text,
)
from mixpanel_assets.results.choices import BookmarkType, CountType, EntityType

# Mixpanel's own defaults are 255 events and 10 properties, and would cut lists off unseen.
MOST_NAMES = 5_000


class Inventory(Asker):
    """What a project holds, as Mixpanel answers it."""

    def get_events(self, limit: int = MOST_NAMES) -> list[str]:
        """Return the names of the events of the last 31 days, the most common first.

        Rare and older events are missing: never decide by it what to export.

        Args:
            limit: At most so many; Mixpanel cuts at 5,000.

        Returns:
            The answer of `/events/names`.

        Raises:
            ConfigError: The limit is no number.
            APIError: Mixpanel refused; see `mixpanel_assets.errors`.

        Example:
            >>> client.get_events()
            ['Page View', 'Product Viewed', ...]
        """
        params = {"type": "general", "limit": number("limit", limit)}
        return self._list("/events/names", params)

    def get_event_properties(self, event: str, limit: int = MOST_NAMES) -> list[str]:
        """Return the names of the properties of an event.

        Args:
            event: The event.
            limit: At most so many.

        Returns:
            The names in the answer of `/events/properties/top`; none for an unknown event.

        Raises:
            ConfigError: An argument is wrong.
            APIError: Mixpanel refused.

        Example:
            >>> client.get_event_properties("Sign Up")
            ['$browser', ...]
        """
        params = {"event": text("event", event), "limit": number("limit", limit)}
        return list(self._object("/events/properties/top", params))

    def get_property_values(
        self, event: str | None, property_name: str, limit: int = 100
    ) -> list[str]:
        """Return the most common values of a property.

        Args:
            event: The event. Mixpanel documents it as required; None leaves it out.
            property_name: The property.
            limit: At most so many.

        Returns:
            The answer of `/events/properties/values`: values as text.

        Raises:
            ConfigError: An argument is wrong.
            QueryError: Mixpanel wants an event.
            APIError: Mixpanel refused.

        Example:
            >>> client.get_property_values("Sign Up", "plan", limit=2)
            ['pro', 'free']
        """
        params = {
            "event": None if event is None else text("event", event),
            "name": text("property_name", property_name),
            "limit": number("limit", limit),
        }
        return self._list("/events/properties/values", params)

    def get_top_events(
        self, type: CountType = "general", limit: int | None = None
    ) -> dict[str, Any]:
        """Return the events of today against yesterday, the most common first.

        Args:
            type: `general` counts events, `unique` people, `average` events per person.
            limit: At most so many; None leaves it to Mixpanel, which sends 100.

        Returns:
            The answer of `/events/top`: `events`, each with `event`, `amount` and
            `percent_change`, and `type`.

        Raises:
            ConfigError: An argument is wrong.
            APIError: Mixpanel refused.

        Example:
            >>> client.get_top_events(limit=1)["events"]
            [{'amount': 24, 'event': 'Page View', 'percent_change': 0.6}]
        """
        params = {
            "type": one_of("type", type, CountType),
            "limit": optional_number("limit", limit),
        }
        return self._object("/events/top", params)

    def list_funnels(self) -> list[dict[str, Any]]:
        """Return the saved funnels.

        Returns:
            The answer of `/funnels/list`: objects with `funnel_id` and `name`.

        Raises:
            APIError: Mixpanel refused.

        Example:
            >>> client.list_funnels()
            [{'funnel_id': 7509, 'name': 'Purchase'}, ...]
        """
        return self._list("/funnels/list", {})

    def list_cohorts(self) -> list[dict[str, Any]]:
        """Return the saved cohorts.

        Returns:
            The answer of `/cohorts/list`: objects with `id`, `name`, `count`, `description`,
            `created` and `is_visible` (0 or 1).

        Raises:
            APIError: Mixpanel refused.

        Example:
            >>> [cohort["name"] for cohort in client.list_cohorts()]
            ['Paying', 'Newsletter', 'Never seen']
        """
        return checked(self.post("query", "/cohorts/list"), list, "POST /cohorts/list")

    def list_bookmarks(self, bookmark_type: BookmarkType | None = None) -> list[dict[str, Any]]:
        """Return the saved reports. Mixpanel documents no such list; its own clients read it.

        Args:
            bookmark_type: Only reports of this type.

        Returns:
            Objects with `id`, `name`, `type` and more. It costs no request of the Query API.

        Raises:
            ConfigError: There is no such type.
            APIError: Mixpanel refused.

        Example:
            >>> client.list_bookmarks("insights")[0]["name"]
            'Views and orders'
        """
        path = f"/projects/{self.credentials.project_id}/bookmarks"
        params = {
            "v": 2,
            "type": bookmark_type and one_of("bookmark_type", bookmark_type, BookmarkType),
        }
        found = checked(self.get("app", path, params), dict, f"GET {path}").get("results")
        if isinstance(found, dict):  # the newer form
            found = found.get("results")
        return checked(found, list, f"GET {path}")

    def get_schemas(self, entity_type: EntityType | None = None) -> list[dict[str, Any]]:
        """Return the entries of the data dictionary.

        Only events with an entry are listed. Mixpanel allows 5 requests a minute.

        Args:
            entity_type: Only `event` or `profile` entries; None: both.

        Returns:
            Objects with `entityType`, `name` and `schemaJson`.

        Raises:
            ConfigError: There is no such entity type.
            APIError: Mixpanel refused.

        Example:
            >>> client.get_schemas("event")[0]["name"]
            'Order Completed'
        """
        path = self._schemas_path()
        if entity_type is not None:
            path += f"/{one_of('entity_type', entity_type, EntityType)}"
        answer = checked(self.get("app", path), dict, f"GET {path}")
        return checked(answer.get("results"), list, f"GET {path}")

    def get_schema(self, entity_type: EntityType, name: str) -> dict[str, Any]:
        """Return one definition of the data dictionary.

        Args:
            entity_type: `event` or `profile`.
            name: Of the event; `$user` for profiles.

        Returns:
            The definition: `description`, `properties` and `metadata`, as far as it has them.

        Raises:
            ConfigError: There is no such entity type.
            QueryError: There is no entry of that name.
            APIError: Mixpanel refused.

        Example:
            >>> client.get_schema("event", "Order Completed")["description"]
            'A customer paid for the cart.'
        """
        kind = one_of("entity_type", entity_type, EntityType)
        path = f"{self._schemas_path()}/{kind}/{quote(text('name', name), safe='')}"
        answer = checked(self.get("app", path), dict, f"GET {path}")
        # Documented bare, seen wrapped.
        return checked(answer.get("results", answer), dict, f"GET {path}")

    def _schemas_path(self) -> str:
        return f"/projects/{self.credentials.project_id}/schemas"

    def _list(self, path: str, params: dict[str, Any]) -> list[Any]:
        return checked(self.get("query", path, params), list, f"GET {path}")

    def _object(self, path: str, params: dict[str, Any]) -> dict[str, Any]:
        return checked(self.get("query", path, params), dict, f"GET {path}")
