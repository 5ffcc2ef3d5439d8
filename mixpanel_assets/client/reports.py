"""Mixpanel's Query API and data dictionary, with responses as Mixpanel sends them.

One method per endpoint, and the checks of arguments that are made before a request is spent.
`live.py` turns these responses into results.
"""

from __future__ import annotations

import json
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import cache
from typing import Any, TypeVar, get_args
from urllib.parse import quote

from mixpanel_assets.client.credentials import Credentials
from mixpanel_assets.client.ledger import Api
from mixpanel_assets.errors import ConfigError, ServerError
from mixpanel_assets.results.choices import (
    BookmarkType,
    CountType,
    EntityType,
    HourDayUnit,
    LengthUnit,
    RetentionType,
    SegmentUnit,
    TimeUnit,
)
from mixpanel_assets.rules.days import as_day

logger = logging.getLogger(__name__)


T = TypeVar("T")
P = TypeVar("P")

_ACCESSOR = re.compile(r"\b(properties|event|user|behaviors)\s*\[")


class Requester(ABC):
    """What a request needs: credentials, and a way to send it."""

    credentials: Credentials

    @abstractmethod
    def get(
        self,
        api: Api | str,
        path: str | Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the JSON response to a GET."""

    @abstractmethod
    def post(
        self,
        api: Api | str,
        path: str | Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the JSON response to a POST of form fields."""


def date_params(from_date: date | str, to_date: date | str) -> dict[str, str]:
    """Return the two parameters of a range of days, both included."""
    from_day, to_day = as_day(from_date), as_day(to_date)
    if from_day > to_day:
        raise ConfigError(f"from_date {from_day} is after to_date {to_day}; both are included.")
    return {"from_date": from_day.isoformat(), "to_date": to_day.isoformat()}


def text_param(name: str, value: str) -> str:
    """Return a request parameter that must be a text, and not empty."""
    if not (isinstance(value, str) and value.strip()):
        raise ConfigError(f"{name} must be a text, not {value!r}.")
    return value


def property_param(name: str, value: str) -> str:
    """Return the expression of a property; a plain name such as `$city` becomes one.

    Text with an access such as `properties[...]`, `event[...]` or `user[...]` is an expression.
    """
    if _ACCESSOR.search(text_param(name, value)):
        return value
    return f"properties[{json.dumps(value, ensure_ascii=False)}]"


def list_param(name: str, values: Sequence[str]) -> str:
    """Return a list of at least one text, as JSON."""
    if isinstance(values, str) or not values or not all(isinstance(one, str) for one in values):
        raise ConfigError(f"{name} must be a list of texts, not {values!r}.")
    return json.dumps(list(values))


def choice_param(name: str, value: str, choices: Any) -> str:
    """Return a request parameter that a `Literal` allows."""
    if value not in get_args(choices):
        raise ConfigError(f"{name} must be one of {', '.join(get_args(choices))}, not {value!r}.")
    return value


def number_param(name: str, value: int) -> int:
    """Return a request parameter that must be a whole number from 1 on."""
    if type(value) is not int or value < 1:
        raise ConfigError(f"{name} must be a whole number from 1 on, not {value!r}.")
    return value


def optional(check: Callable[[str, T], P], name: str, value: T | None) -> P | None:
    """Return a request parameter as checked; None: it is left out of the request."""
    return None if value is None else check(name, value)


def checked_response(response: Any, kind: type[T], description: str) -> T:
    """Return a response that must be a list or an object."""
    if not isinstance(response, kind):
        raise ServerError(
            f"{description} answered 200 with a {type(response).__name__}, not a {kind.__name__}.",
            status_code=200,
        )
    return response


# Mixpanel's own defaults are 255 events and 10 properties, which would cut lists silently.
MOST_NAMES = 5_000


class Inventory(Requester):
    """What a project holds, as Mixpanel sends it; a refusal by Mixpanel is an `APIError`."""

    def get_events(self, limit: int = MOST_NAMES) -> list[str]:
        """Return the names of the events of the last 31 days, the most common first.

        Rare and older events are missing, so do not use it to decide what to export.

        Args:
            limit: The most names to return; Mixpanel sends at most 5,000.

        Returns:
            The response of `/events/names`.

        Example:
            >>> client.get_events()
            ['Page View', 'Product Viewed', ...]
        """
        params = {"type": "general", "limit": number_param("limit", limit)}
        return self._get_list("/events/names", params)

    def get_event_properties(self, event: str, limit: int = MOST_NAMES) -> list[str]:
        """Return the names of the properties of an event.

        Args:
            event: The event.
            limit: The most to return.

        Returns:
            The names in the response of `/events/properties/top`; none for an unknown event.

        Example:
            >>> client.get_event_properties("Sign Up")
            ['$browser', ...]
        """
        params = {"event": text_param("event", event), "limit": number_param("limit", limit)}
        return list(self._get_object("/events/properties/top", params))

    def get_property_values(
        self, event: str | None, property_name: str, limit: int = 100
    ) -> list[str]:
        """Return the most common values of a property.

        Args:
            event: The event. Mixpanel documents it as required; None leaves it out.
            property_name: The property.
            limit: The most to return.

        Returns:
            The response of `/events/properties/values`: values as text.

        Example:
            >>> client.get_property_values("Sign Up", "plan", limit=2)
            ['pro', 'free']
        """
        params = {
            "event": optional(text_param, "event", event),
            "name": text_param("property_name", property_name),
            "limit": number_param("limit", limit),
        }
        return self._get_list("/events/properties/values", params)

    def get_top_events(
        self, type: CountType = "general", limit: int | None = None
    ) -> dict[str, Any]:
        """Return the response of `/events/top`.

        `events` has objects with `event`, `amount` and `percent_change`. Arguments and errors: see
        `DiscoveryService.list_top_events`.

        Example:
            >>> client.get_top_events(limit=1)["events"]
            [{'amount': 24, 'event': 'Page View', 'percent_change': 0.6}]
        """
        params = {
            "type": choice_param("type", type, CountType),
            "limit": optional(number_param, "limit", limit),
        }
        return self._get_object("/events/top", params)

    def list_funnels(self) -> list[dict[str, Any]]:
        """Return the response of `/funnels/list`: objects with `funnel_id` and `name`.

        Example:
            >>> client.list_funnels()
            [{'funnel_id': 7509, 'name': 'Purchase'}, ...]
        """
        return self._get_list("/funnels/list", {})

    def list_cohorts(self) -> list[dict[str, Any]]:
        """Return the response of `/cohorts/list`.

        Its objects have `id`, `name`, `count`, `description`, `created` and `is_visible` (0 or 1).

        Example:
            >>> [cohort["name"] for cohort in client.list_cohorts()]
            ['Paying', 'Newsletter', 'Never seen']
        """
        return checked_response(self.post("query", "/cohorts/list"), list, "POST /cohorts/list")

    def list_bookmarks(self, bookmark_type: BookmarkType | None = None) -> list[dict[str, Any]]:
        """Return the saved reports: objects with `id`, `name`, `type` and more.

        It costs no request of the Query API. Arguments and errors: see
        `DiscoveryService.list_bookmarks`.

        Example:
            >>> client.list_bookmarks("insights")[0]["name"]
            'Views and orders'
        """
        path = f"/projects/{self.credentials.project_id}/bookmarks"
        params = {
            "v": 2,
            "type": bookmark_type and choice_param("bookmark_type", bookmark_type, BookmarkType),
        }
        response = checked_response(self.get("app", path, params), dict, f"GET {path}")
        reports = response.get("results")
        if isinstance(reports, dict):  # the newer form
            reports = reports.get("results")
        return checked_response(reports, list, f"GET {path}")

    def get_schemas(self, entity_type: EntityType | None = None) -> list[dict[str, Any]]:
        """Return objects with `entityType`, `name` and `schemaJson`.

        Arguments and errors: see `DiscoveryService.list_schemas`.

        Example:
            >>> client.get_schemas("event")[0]["name"]
            'Order Completed'
        """
        path = self._schemas_path()
        if entity_type is not None:
            path += f"/{choice_param('entity_type', entity_type, EntityType)}"
        response = checked_response(self.get("app", path), dict, f"GET {path}")
        return checked_response(response.get("results"), list, f"GET {path}")

    def get_schema(self, entity_type: EntityType, name: str) -> dict[str, Any]:
        """Return one definition: `description`, `properties` and `metadata`, or some of them.

        Arguments and errors: see `DiscoveryService.get_schema`.

        Example:
            >>> client.get_schema("event", "Order Completed")["description"]
            'A customer paid for the cart.'
        """
        kind = choice_param("entity_type", entity_type, EntityType)
        path = f"{self._schemas_path()}/{kind}/{quote(text_param('name', name), safe='')}"
        response = checked_response(self.get("app", path), dict, f"GET {path}")
        # Documented bare, seen wrapped.
        return checked_response(response.get("results", response), dict, f"GET {path}")

    def _schemas_path(self) -> str:
        return f"/projects/{self.credentials.project_id}/schemas"

    def _get_list(self, path: str, params: dict[str, Any]) -> list[Any]:
        return checked_response(self.get("query", path, params), list, f"GET {path}")

    def _get_object(self, path: str, params: dict[str, Any]) -> dict[str, Any]:
        return checked_response(self.get("query", path, params), dict, f"GET {path}")


# Mixpanel's own defaults are 60 and 255 segments, which would cut a breakdown silently.
MOST_SEGMENTS = 10_000


class Queries(Inventory):
    """Live reports; a wrong argument is a `ConfigError` before a request is sent."""

    def segmentation(
        self,
        event: str,
        from_date: date | str,
        to_date: date | str,
        on: str | None = None,
        unit: SegmentUnit = "day",
        where: str | None = None,
        type: CountType = "general",
    ) -> dict[str, Any]:
        """Return the response of `/segmentation`.

        `data` has `series` (dates, in no order) and `values` (counts by segment and date).
        Arguments and errors: see `LiveQueryService.segmentation`.

        Example:
            >>> client.segmentation("Sign Up", "2024-01-01", "2024-01-07")["data"]["values"]
            {'Sign Up': {'2024-01-01': 1, ...}}
        """
        params = {
            "event": text_param("event", event),
            **date_params(from_date, to_date),
            "on": optional(property_param, "on", on),
            "unit": choice_param("unit", unit, SegmentUnit),
            "where": optional(text_param, "where", where),
            "type": choice_param("type", type, CountType),
            "limit": MOST_SEGMENTS if on else None,
        }
        return self._get_object("/segmentation", params)

    def funnel(
        self,
        funnel_id: int,
        from_date: date | str,
        to_date: date | str,
        unit: TimeUnit | None = None,
        on: str | None = None,
        where: str | None = None,
        length: int | None = None,
        length_unit: LengthUnit = "day",
    ) -> dict[str, Any]:
        """Return the response of `/funnels`: `meta` and `data`.

        `data` has for each date the `steps` or, with `on`, the steps of `$overall` and of each
        segment. Arguments and errors: see `LiveQueryService.funnel`.

        Example:
            >>> client.funnel(7509, "2024-01-01", "2024-01-07")["data"]["2024-01-01"]["steps"]
            [{'count': 12, ..., 'event': 'Page View', ...}, ...]
        """
        params = {
            "funnel_id": number_param("funnel_id", funnel_id),
            **date_params(from_date, to_date),
            "unit": None if unit is None else choice_param("unit", unit, TimeUnit),
            "on": optional(property_param, "on", on),
            "where": optional(text_param, "where", where),
            "length": optional(number_param, "length", length),
            "length_unit": choice_param("length_unit", length_unit, LengthUnit) if length else None,
            "limit": MOST_SEGMENTS if on else None,
        }
        return self._get_object("/funnels", params)

    def retention(
        self,
        born_event: str,
        return_event: str,
        from_date: date | str,
        to_date: date | str,
        born_where: str | None = None,
        return_where: str | None = None,
        interval: int = 1,
        interval_count: int = 10,
        unit: TimeUnit = "day",
        retention_type: RetentionType = "birth",
        unbounded: bool = False,
    ) -> dict[str, Any]:
        """Return the response of `/retention`: by date `first`, the cohort's size, and `counts`.

        Arguments and errors: see `LiveQueryService.retention`.

        Example:
            >>> client.retention("Sign Up", "Order Completed", day, day, interval_count=2)
            {'2024-01-01': {'counts': [1, 0, 0], 'first': 1}}
        """
        choice_param("unit", unit, TimeUnit)
        if number_param("interval", interval) != 1 and unit != "day":
            raise ConfigError(
                f"interval counts days, so {interval} needs unit 'day', not {unit!r}; leave one "
                "of them out."
            )
        choice_param("retention_type", retention_type, RetentionType)
        if retention_type == "compounded" and (born_event != return_event or born_where):
            raise ConfigError(
                "Compounded retention follows one event: name it as born_event and return_event, "
                "and leave born_where out."
            )
        of_birth = retention_type == "birth"
        params = {
            **date_params(from_date, to_date),
            "retention_type": retention_type,
            "born_event": text_param("born_event", born_event) if of_birth else None,
            "event": text_param("return_event", return_event),
            "born_where": optional(text_param, "born_where", born_where),
            "where": optional(text_param, "return_where", return_where),
            "interval_count": number_param("interval_count", interval_count),
            "unbounded_retention": "true" if unbounded else None,
            **({"unit": unit} if interval == 1 else {"interval": interval}),
        }
        return self._get_object("/retention", params)

    def jql(self, script: str, params: Mapping[str, Any] | None = None) -> list[Any]:
        """Return the array that the script returned.

        Arguments and errors: see `LiveQueryService.jql`.

        Example:
            >>> client.jql(script, {"from_date": "2024-01-01", "to_date": "2024-01-07"})
            [..., {'key': ['Sign Up'], 'value': 7}]
        """
        form = {"script": text_param("script", script)}
        if params is not None:
            form["params"] = json.dumps(dict(params))
        _warn_that_jql_ends()
        return checked_response(self.post("query", "/jql", form), list, "POST /jql")

    def event_counts(
        self,
        events: Sequence[str],
        from_date: date | str,
        to_date: date | str,
        type: CountType = "general",
        unit: TimeUnit = "day",
    ) -> dict[str, Any]:
        """Return the response of `/events`.

        `data` has `series` and `values` (counts by event and date); counts of 0 may be missing.
        Arguments and errors: see `LiveQueryService.event_counts`.

        Example:
            >>> client.event_counts(["Sign Up"], "2024-01-01", "2024-01-07")["data"]["values"]
            {'Sign Up': {'2024-01-01': 1, ...}}
        """
        params = {
            "event": list_param("events", events),
            **date_params(from_date, to_date),
            "type": choice_param("type", type, CountType),
            "unit": choice_param("unit", unit, TimeUnit),
        }
        return self._get_object("/events", params)

    def property_counts(
        self,
        event: str,
        property_name: str,
        from_date: date | str,
        to_date: date | str,
        type: CountType = "general",
        unit: TimeUnit = "day",
        values: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> dict[str, Any]:
        """Return the response of `/events/properties`.

        `data` has `series` and `values` (counts by value and date); counts of 0 may be missing.
        Arguments and errors: see `LiveQueryService.property_counts`.

        Example:
            >>> response = client.property_counts("Sign Up", "plan", "2024-01-01", "2024-01-07")
            >>> response["data"]["values"]
            {'free': {'2024-01-02': 1, ...}, 'pro': {...}, ...}
        """
        params = {
            "event": text_param("event", event),
            "name": text_param("property_name", property_name),
            **date_params(from_date, to_date),
            "type": choice_param("type", type, CountType),
            "unit": choice_param("unit", unit, TimeUnit),
            "values": optional(list_param, "values", values),
            "limit": optional(number_param, "limit", limit),
        }
        return self._get_object("/events/properties", params)

    def activity_feed(
        self,
        distinct_ids: Sequence[str],
        from_date: date | str | None = None,
        to_date: date | str | None = None,
    ) -> dict[str, Any]:
        """Return the response of `/stream/query`.

        The events are in `results`; the id in their properties is called `distinct_id` or
        `$distinct_id`. Without days none are sent, though Mixpanel documents them as required.
        Arguments and errors: see `LiveQueryService.activity_feed`.

        Example:
            >>> response = client.activity_feed(["user-40200000"], "2024-01-03", "2024-01-03")
            >>> response["results"]["events"][0]["event"]
            'Page View'
        """
        ids = list_param("distinct_ids", distinct_ids)
        return self._get_object(
            "/stream/query", {"distinct_ids": ids, **_optional_dates(from_date, to_date)}
        )

    def query_saved_report(
        self,
        bookmark_id: int,
        bookmark_type: BookmarkType = "insights",
        from_date: date | str | None = None,
        to_date: date | str | None = None,
    ) -> dict[str, Any]:
        """Return the response of `/insights` or, for a funnel, of `/funnels`.

        The former has `headers`, `series`, `date_range` and `computed_at`, the latter `meta` and
        `data`. Arguments and errors: see `LiveQueryService.query_saved_report`.

        Example:
            >>> client.query_saved_report(100)["headers"]
            ['$event']
        """
        choice_param("bookmark_type", bookmark_type, BookmarkType)
        if bookmark_type == "flows":
            raise ConfigError("Mixpanel documents no request for a saved flows report.")
        if bookmark_type == "funnels":
            if from_date is None or to_date is None:
                raise ConfigError("A saved funnel needs from_date and to_date.")
            return self.funnel(bookmark_id, from_date, to_date)
        if from_date is not None or to_date is not None:
            raise ConfigError(
                f"Reports of type {bookmark_type} have days of their own; leave from_date and "
                "to_date out."
            )
        params = {"bookmark_id": number_param("bookmark_id", bookmark_id)}
        return self._get_object("/insights", params)

    def frequency(
        self,
        from_date: date | str,
        to_date: date | str,
        unit: TimeUnit = "day",
        addiction_unit: HourDayUnit = "hour",
        event: str | None = None,
        where: str | None = None,
    ) -> dict[str, Any]:
        """Return the response of `/retention/addiction`.

        `data` has for each date the number of people that were active in at least 1, 2, 3 ... of
        its hours or days. Arguments and errors: see `LiveQueryService.frequency`.

        Example:
            >>> client.frequency("2024-01-01", "2024-01-01", event="Page View")["data"]
            {'2024-01-01': [12, 1, 0, ...]}
        """
        params = {
            **date_params(from_date, to_date),
            "unit": choice_param("unit", unit, TimeUnit),
            "addiction_unit": choice_param("addiction_unit", addiction_unit, HourDayUnit),
            "event": optional(text_param, "event", event),
            "where": optional(text_param, "where", where),
        }
        return self._get_object("/retention/addiction", params)

    def segmentation_numeric(
        self,
        event: str,
        from_date: date | str,
        to_date: date | str,
        on: str,
        unit: HourDayUnit = "day",
        where: str | None = None,
        type: CountType = "general",
    ) -> dict[str, Any]:
        """Return the response of `/segmentation/numeric`.

        `data` has `series` and `values` (counts by range and date); counts of 0 may be missing.
        Arguments and errors: see `LiveQueryService.segmentation_numeric`.

        Example:
            >>> response = client.segmentation_numeric(
            ...     "Order Completed", "2024-01-01", "2024-01-07", 'properties["amount"]'
            ... )
            >>> response["data"]["values"]
            {'30 - 40': {'2024-01-01': 1, ...}, ...}
        """
        params = _numeric_params(event, from_date, to_date, on, unit, where)
        params["type"] = choice_param("type", type, CountType)
        return self._get_object("/segmentation/numeric", params)

    def segmentation_sum(
        self,
        event: str,
        from_date: date | str,
        to_date: date | str,
        on: str,
        unit: HourDayUnit = "day",
        where: str | None = None,
    ) -> dict[str, Any]:
        """Return the response of `/segmentation/sum`: `results` has the sum by date.

        Arguments and errors: see `LiveQueryService.segmentation_sum`.

        Example:
            >>> on = 'properties["amount"]'
            >>> client.segmentation_sum("Order Completed", day, day, on)["results"]
            {'2024-01-01': 151.8}
        """
        params = _numeric_params(event, from_date, to_date, on, unit, where)
        return self._get_object("/segmentation/sum", params)

    def segmentation_average(
        self,
        event: str,
        from_date: date | str,
        to_date: date | str,
        on: str,
        unit: HourDayUnit = "day",
        where: str | None = None,
    ) -> dict[str, Any]:
        """Return the response of `/segmentation/average`: `results` has the average by date.

        Arguments and errors: see `LiveQueryService.segmentation_average`.

        Example:
            >>> on = 'properties["amount"]'
            >>> client.segmentation_average("Order Completed", day, day, on)["results"]
            {'2024-01-01': 50.6}
        """
        params = _numeric_params(event, from_date, to_date, on, unit, where)
        return self._get_object("/segmentation/average", params)


def _numeric_params(
    event: str,
    from_date: date | str,
    to_date: date | str,
    on: str,
    unit: HourDayUnit,
    where: str | None,
) -> dict[str, Any]:
    return {
        "event": text_param("event", event),
        **date_params(from_date, to_date),
        "on": property_param("on", on),
        "unit": choice_param("unit", unit, HourDayUnit),
        "where": optional(text_param, "where", where),
    }


def _optional_dates(from_date: date | str | None, to_date: date | str | None) -> dict[str, str]:
    if from_date is None and to_date is None:
        return {}
    if from_date is None or to_date is None:
        raise ConfigError("Give from_date and to_date, or neither.")
    return date_params(from_date, to_date)


@cache
def _warn_that_jql_ends() -> None:
    """Warn once per process."""
    logger.warning(
        "Mixpanel keeps JQL in maintenance mode and discourages new use of it. SQL over the stored "
        "events and saved reports stay."
    )
