"""Mixpanel's Query API and data dictionary, with responses as Mixpanel sends them.

One method per endpoint, and the checks of arguments that are made before a request is spent.
`live.py` turns these responses into results.
"""

from __future__ import annotations

import json
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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

_ACCESSOR = re.compile(r"\b(properties|event|user|behaviors)\s*\[")


class Asker(ABC):
    """What a question needs: who asks, and a way to send it."""

    credentials: Credentials

    @abstractmethod
    def get(
        self,
        api: Api | str,
        path: str | Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the JSON answer to a GET."""

    @abstractmethod
    def post(
        self,
        api: Api | str,
        path: str | Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the JSON answer to a POST of form fields."""


def date_range(from_date: date | str, to_date: date | str) -> dict[str, str]:
    """Return the two parameters of a range of days, both included."""
    first, last = as_day(from_date), as_day(to_date)
    if first > last:
        raise ConfigError(f"from_date {first} is after to_date {last}; both are included.")
    return {"from_date": first.isoformat(), "to_date": last.isoformat()}


def text(name: str, value: str) -> str:
    """Return a text that must not be empty."""
    if not (isinstance(value, str) and value.strip()):
        raise ConfigError(f"{name} must be a text, not {value!r}.")
    return value


def optional_text(name: str, value: str | None) -> str | None:
    """Return a text that may be left out, but not be empty."""
    return None if value is None else text(name, value)


def property_in(name: str, value: str) -> str:
    """Return the expression of a property: a plain name such as `$city` is put into one.

    Text that reaches into `properties`, `event`, `user` or `behaviors` is an expression.
    """
    if _ACCESSOR.search(text(name, value)):
        return value
    return f"properties[{json.dumps(value, ensure_ascii=False)}]"


def optional_property_in(name: str, value: str | None) -> str | None:
    """Return the expression of a property, which may be left out."""
    return None if value is None else property_in(name, value)


def texts(name: str, values: Sequence[str]) -> list[str]:
    """Return a list of at least one text."""
    if isinstance(values, str) or not values or not all(isinstance(one, str) for one in values):
        raise ConfigError(f"{name} must be a list of texts, not {values!r}.")
    return list(values)


def one_of(name: str, value: str, choices: Any) -> str:
    """Return a value that a `Literal` allows."""
    if value not in get_args(choices):
        raise ConfigError(f"{name} must be one of {', '.join(get_args(choices))}, not {value!r}.")
    return value


def number(name: str, value: int) -> int:
    """Return a whole number from 1 on."""
    if type(value) is not int or value < 1:
        raise ConfigError(f"{name} must be a whole number from 1 on, not {value!r}.")
    return value


def optional_number(name: str, value: int | None) -> int | None:
    """Return a whole number from 1 on, which may be left out."""
    return None if value is None else number(name, value)


def checked(answer: Any, kind: type[T], asked: str) -> T:
    """Return an answer that must be a list or an object."""
    if not isinstance(answer, kind):
        raise ServerError(
            f"{asked} answered 200 with a {type(answer).__name__} instead of a {kind.__name__}.",
            status_code=200,
        )
    return answer


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


# Mixpanel's own defaults are 60 and 255 segments, and would cut a breakdown off unseen.
MOST_SEGMENTS = 10_000


class Queries(Inventory):
    """Live reports; every method raises `ConfigError` before a wrong question is sent."""

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
        """Return how often an event happened, over time.

        Mixpanel discourages new use of this report since July 2026 (maintenance mode).

        Args:
            event: Its name.
            from_date: First day, included; a date, or text like 2024-01-31.
            to_date: Last day, included.
            on: A property to split by, such as `country`, or an expression, such as
                `properties["country"]`; the 10,000 largest segments come.
            unit: The length of a step in time.
            where: Only events that fit this expression.
            type: `general` counts events, `unique` people, `average` events per person.

        Returns:
            The answer of `/segmentation`: `data` with `series` (dates, in no order) and
            `values` (counts by segment and date).

        Raises:
            ConfigError: An argument is wrong.
            QueryError: Mixpanel refused the question, such as a malformed expression.
            APIError: It refused for another reason; see `mixpanel_assets.errors`.

        Example:
            >>> client.segmentation("Sign Up", "2024-01-01", "2024-01-07")["data"]["values"]
            {'Sign Up': {'2024-01-01': 1, ...}}
        """
        params = {
            "event": text("event", event),
            **date_range(from_date, to_date),
            "on": optional_property_in("on", on),
            "unit": one_of("unit", unit, SegmentUnit),
            "where": optional_text("where", where),
            "type": one_of("type", type, CountType),
            "limit": MOST_SEGMENTS if on else None,
        }
        return self._object("/segmentation", params)

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
        """Return how far people came in a saved funnel, by the date on which they began.

        Mixpanel discourages new use of this report since July 2026 (maintenance mode).

        Args:
            funnel_id: From `list_funnels`.
            from_date: First day on which people began, included.
            to_date: Last such day, included.
            unit: Group the dates; None: by day.
            on: A property or an expression to split by; the 10,000 largest segments come.
            where: Only events that fit this expression.
            length: How long people have for all steps, at most 90 days; None: as the funnel was
                saved.
            length_unit: What `length` counts.

        Returns:
            The answer of `/funnels`: `meta` and `data`, which holds per date the `steps` or,
            when split, the steps of `$overall` and of each segment.

        Raises:
            ConfigError: An argument is wrong.
            QueryError: There is no such funnel, or the expression is malformed.
            APIError: Mixpanel refused for another reason.

        Example:
            >>> client.funnel(7509, "2024-01-01", "2024-01-07")["data"]["2024-01-01"]["steps"]
            [{'count': 12, ..., 'event': 'Page View', ...}, ...]
        """
        params = {
            "funnel_id": number("funnel_id", funnel_id),
            **date_range(from_date, to_date),
            "unit": None if unit is None else one_of("unit", unit, TimeUnit),
            "on": optional_property_in("on", on),
            "where": optional_text("where", where),
            "length": optional_number("length", length),
            "length_unit": one_of("length_unit", length_unit, LengthUnit) if length else None,
            "limit": MOST_SEGMENTS if on else None,
        }
        return self._object("/funnels", params)

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
        """Return how many people came back, by the date of their first `born_event`.

        Args:
            born_event: What makes people part of a cohort.
            return_event: What counts as coming back.
            from_date: First day of the cohorts, included.
            to_date: Last day of the cohorts, included.
            born_where: Only born events that fit this expression.
            return_where: Only return events that fit this expression.
            interval: Days per period, with unit `day`; others take 1 only, because Mixpanel
                takes a unit or an interval.
            interval_count: How many periods to follow people for, after the first.
            unit: The length of a period.
            retention_type: `birth` follows people from their first `born_event`; `compounded`
                from each time that they did the event, so both events are one then.
            unbounded: Whether people count in each period up to the last in which they came back.

        Returns:
            The answer of `/retention`: per date `first`, the size of the cohort, and `counts`.

        Raises:
            ConfigError: An argument is wrong.
            QueryError: Mixpanel refused the question.
            APIError: It refused for another reason.

        Example:
            >>> client.retention("Sign Up", "Order Completed", day, day, interval_count=2)
            {'2024-01-01': {'counts': [1, 0, 0], 'first': 1}}
        """
        one_of("unit", unit, TimeUnit)
        if number("interval", interval) != 1 and unit != "day":
            raise ConfigError(
                f"interval counts days, so {interval} needs unit 'day', not {unit!r}; leave one "
                "of them out."
            )
        one_of("retention_type", retention_type, RetentionType)
        if retention_type == "compounded" and (born_event != return_event or born_where):
            raise ConfigError(
                "Compounded retention follows one event: name it as born_event and return_event, "
                "and leave born_where out."
            )
        of_birth = retention_type == "birth"
        params = {
            **date_range(from_date, to_date),
            "retention_type": retention_type,
            "born_event": text("born_event", born_event) if of_birth else None,
            "event": text("return_event", return_event),
            "born_where": optional_text("born_where", born_where),
            "where": optional_text("return_where", return_where),
            "interval_count": number("interval_count", interval_count),
            "unbounded_retention": "true" if unbounded else None,
            **({"unit": unit} if interval == 1 else {"interval": interval}),
        }
        return self._object("/retention", params)

    def jql(self, script: str, params: Mapping[str, Any] | None = None) -> list[Any]:
        """Run a JQL script.

        Mixpanel discourages new use of JQL since July 2026 (maintenance mode).

        Args:
            script: JavaScript with a function `main`.
            params: What the script sees as `params`.

        Returns:
            The array that the script returned.

        Raises:
            ConfigError: The script is empty.
            JQLSyntaxError: The script failed; it says where.
            QueryError: JQL is not available to this project.
            APIError: Mixpanel refused for another reason.

        Example:
            >>> client.jql(script, {"from_date": "2024-01-01", "to_date": "2024-01-07"})
            [..., {'key': ['Sign Up'], 'value': 7}]
        """
        form = {"script": text("script", script)}
        if params is not None:
            form["params"] = json.dumps(dict(params))
        _tell_that_jql_ends()
        return checked(self.post("query", "/jql", form), list, "POST /jql")

    def event_counts(
        self,
        events: Sequence[str],
        from_date: date | str,
        to_date: date | str,
        type: CountType = "general",
        unit: TimeUnit = "day",
    ) -> dict[str, Any]:
        """Return how often several events happened, over time.

        Args:
            events: Their names.
            from_date: First day, included.
            to_date: Last day, included.
            type: `general` counts events, `unique` people, `average` events per person.
            unit: The length of a step in time.

        Returns:
            The answer of `/events`: `data` with `series` and `values` (counts by event and
            date); what did not happen is absent.

        Raises:
            ConfigError: An argument is wrong.
            QueryError: Mixpanel refused the question.
            APIError: It refused for another reason.

        Example:
            >>> client.event_counts(["Sign Up"], "2024-01-01", "2024-01-07")["data"]["values"]
            {'Sign Up': {'2024-01-01': 1, ...}}
        """
        params = {
            "event": json.dumps(texts("events", events)),
            **date_range(from_date, to_date),
            "type": one_of("type", type, CountType),
            "unit": one_of("unit", unit, TimeUnit),
        }
        return self._object("/events", params)

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
        """Return how often an event happened with each value of a property, over time.

        Args:
            event: Its name.
            property_name: The property.
            from_date: First day, included.
            to_date: Last day, included.
            type: `general` counts events, `unique` people, `average` events per person.
            unit: The length of a step in time.
            values: Only these values.
            limit: At most so many values, the largest; None leaves it to Mixpanel, which
                sends 255.

        Returns:
            The answer of `/events/properties`: `data` with `series` and `values` (counts by
            value and date); what did not happen is absent.

        Raises:
            ConfigError: An argument is wrong.
            QueryError: Mixpanel refused the question.
            APIError: It refused for another reason.

        Example:
            >>> answer = client.property_counts("Sign Up", "plan", "2024-01-01", "2024-01-07")
            >>> answer["data"]["values"]
            {'free': {'2024-01-02': 1, ...}, 'pro': {...}, ...}
        """
        params = {
            "event": text("event", event),
            "name": text("property_name", property_name),
            **date_range(from_date, to_date),
            "type": one_of("type", type, CountType),
            "unit": one_of("unit", unit, TimeUnit),
            "values": None if values is None else json.dumps(texts("values", values)),
            "limit": optional_number("limit", limit),
        }
        return self._object("/events/properties", params)

    def activity_feed(
        self,
        distinct_ids: Sequence[str],
        from_date: date | str | None = None,
        to_date: date | str | None = None,
    ) -> dict[str, Any]:
        """Return what some users did.

        Mixpanel discourages new use of this report since July 2026 (maintenance mode).

        Args:
            distinct_ids: The users.
            from_date: First day, included. Mixpanel documents both as required; None leaves
                them out.
            to_date: Last day, included.

        Returns:
            The answer of `/stream/query`: the events under `results`; the id in their
            properties is called `distinct_id` or `$distinct_id`.

        Raises:
            ConfigError: An argument is wrong, or only one of the days is given.
            QueryError: Mixpanel refused the question.
            APIError: It refused for another reason.

        Example:
            >>> answer = client.activity_feed(["user-40200000"], "2024-01-03", "2024-01-03")
            >>> answer["results"]["events"][0]["event"]
            'Page View'
        """
        ids = json.dumps(texts("distinct_ids", distinct_ids))
        return self._object("/stream/query", {"distinct_ids": ids, **_days(from_date, to_date)})

    def query_saved_report(
        self,
        bookmark_id: int,
        bookmark_type: BookmarkType = "insights",
        from_date: date | str | None = None,
        to_date: date | str | None = None,
    ) -> dict[str, Any]:
        """Return the numbers of a saved report.

        Args:
            bookmark_id: Its number, as in its address.
            bookmark_type: `insights` and `retention` reports have days of their own;
                `funnels` needs the days. For `flows` Mixpanel documents no way to ask.
            from_date: First day, included; for funnels.
            to_date: Last day, included; for funnels.

        Returns:
            The answer of `/insights` (`headers`, `series`, `date_range`, `computed_at`) or of
            `/funnels` (`meta`, `data`).

        Raises:
            ConfigError: An argument is wrong.
            QueryError: There is no such report.
            APIError: Mixpanel refused for another reason.

        Example:
            >>> client.query_saved_report(100)["headers"]
            ['$event']
        """
        one_of("bookmark_type", bookmark_type, BookmarkType)
        if bookmark_type == "flows":
            raise ConfigError("Mixpanel documents no way to ask for a saved flows report.")
        if bookmark_type == "funnels":
            if from_date is None or to_date is None:
                raise ConfigError("A saved funnel needs from_date and to_date.")
            return self.funnel(bookmark_id, from_date, to_date)
        if from_date is not None or to_date is not None:
            raise ConfigError(
                f"Reports of type {bookmark_type} have days of their own; leave from_date and "
                "to_date out."
            )
        params = {"bookmark_id": number("bookmark_id", bookmark_id)}
        return self._object("/insights", params)

    def frequency(
        self,
        from_date: date | str,
        to_date: date | str,
        unit: TimeUnit = "day",
        addiction_unit: HourDayUnit = "hour",
        event: str | None = None,
        where: str | None = None,
    ) -> dict[str, Any]:
        """Return in how many hours or days of each period people were active.

        Args:
            from_date: First day, included.
            to_date: Last day, included.
            unit: The length of a period.
            addiction_unit: What is counted in it.
            event: What counts as active; None: any event.
            where: Only events that fit this expression.

        Returns:
            The answer of `/retention/addiction`: `data`, by date how many people were active
            in at least 1, 2, 3 ... of them.

        Raises:
            ConfigError: An argument is wrong.
            QueryError: Mixpanel refused the question.
            APIError: It refused for another reason.

        Example:
            >>> client.frequency("2024-01-01", "2024-01-01", event="Page View")["data"]
            {'2024-01-01': [12, 1, 0, ...]}
        """
        params = {
            **date_range(from_date, to_date),
            "unit": one_of("unit", unit, TimeUnit),
            "addiction_unit": one_of("addiction_unit", addiction_unit, HourDayUnit),
            "event": optional_text("event", event),
            "where": optional_text("where", where),
        }
        return self._object("/retention/addiction", params)

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
        """Return how often an event happened with a number in each of some ranges, over time.

        Mixpanel discourages new use of this report since July 2026 (maintenance mode).

        Args:
            event: Its name.
            from_date: First day, included.
            to_date: Last day, included.
            on: The property or expression whose number is meant, such as `amount`.
            unit: The length of a step in time.
            where: Only events that fit this expression.
            type: `general` counts events, `unique` people, `average` events per person.

        Returns:
            The answer of `/segmentation/numeric`: `data` with `series` and `values` (counts by
            range, chosen by Mixpanel, and date); what did not happen is absent.

        Raises:
            ConfigError: An argument is wrong.
            QueryError: Mixpanel refused the question.
            APIError: It refused for another reason.

        Example:
            >>> answer = client.segmentation_numeric(
            ...     "Order Completed", "2024-01-01", "2024-01-07", 'properties["amount"]'
            ... )
            >>> answer["data"]["values"]
            {'30 - 40': {'2024-01-01': 1, ...}, ...}
        """
        params = _numeric(event, from_date, to_date, on, unit, where)
        params["type"] = one_of("type", type, CountType)
        return self._object("/segmentation/numeric", params)

    def segmentation_sum(
        self,
        event: str,
        from_date: date | str,
        to_date: date | str,
        on: str,
        unit: HourDayUnit = "day",
        where: str | None = None,
    ) -> dict[str, Any]:
        """Return the sum of a number over an event's occurrences, over time.

        Mixpanel discourages new use of this report since July 2026 (maintenance mode).

        Args:
            event: Its name.
            from_date: First day, included.
            to_date: Last day, included.
            on: The property or expression to sum, such as `amount`.
            unit: The length of a step in time.
            where: Only events that fit this expression.

        Returns:
            The answer of `/segmentation/sum`: `results`, the sum by date, and `computed_at`.

        Raises:
            ConfigError: An argument is wrong.
            QueryError: Mixpanel refused the question.
            APIError: It refused for another reason.

        Example:
            >>> on = 'properties["amount"]'
            >>> client.segmentation_sum("Order Completed", day, day, on)["results"]
            {'2024-01-01': 151.8}
        """
        params = _numeric(event, from_date, to_date, on, unit, where)
        return self._object("/segmentation/sum", params)

    def segmentation_average(
        self,
        event: str,
        from_date: date | str,
        to_date: date | str,
        on: str,
        unit: HourDayUnit = "day",
        where: str | None = None,
    ) -> dict[str, Any]:
        """Return the average of a number over an event's occurrences, over time.

        Mixpanel discourages new use of this report since July 2026 (maintenance mode).

        Args:
            event: Its name.
            from_date: First day, included.
            to_date: Last day, included.
            on: The property or expression to average; what is no number counts as 0.
            unit: The length of a step in time.
            where: Only events that fit this expression.

        Returns:
            The answer of `/segmentation/average`: `results`, the average by date.

        Raises:
            ConfigError: An argument is wrong.
            QueryError: Mixpanel refused the question.
            APIError: It refused for another reason.

        Example:
            >>> on = 'properties["amount"]'
            >>> client.segmentation_average("Order Completed", day, day, on)["results"]
            {'2024-01-01': 50.6}
        """
        params = _numeric(event, from_date, to_date, on, unit, where)
        return self._object("/segmentation/average", params)


def _numeric(
    event: str,
    from_date: date | str,
    to_date: date | str,
    on: str,
    unit: HourDayUnit,
    where: str | None,
) -> dict[str, Any]:
    return {
        "event": text("event", event),
        **date_range(from_date, to_date),
        "on": property_in("on", on),
        "unit": one_of("unit", unit, HourDayUnit),
        "where": optional_text("where", where),
    }


def _days(from_date: date | str | None, to_date: date | str | None) -> dict[str, str]:
    if from_date is None and to_date is None:
        return {}
    if from_date is None or to_date is None:
        raise ConfigError("Give from_date and to_date, or neither.")
    return date_range(from_date, to_date)


@cache
def _tell_that_jql_ends() -> None:
    """Warn once per process."""
    logger.warning(
        "Mixpanel keeps JQL in maintenance mode and discourages new use of it. SQL over the stored "
        "events and saved reports stay."
    )
