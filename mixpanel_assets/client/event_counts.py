"""How often Mixpanel's own reports count each event on each day, in few requests."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any
from urllib.parse import quote

from mixpanel_assets.client import answers
from mixpanel_assets.client.api import MixpanelAPIClient
from mixpanel_assets.client.discovery import DiscoveryService
from mixpanel_assets.errors import APIError, CountsUnavailableError, PlanHorizonError, ServerError
from mixpanel_assets.rules.days import DayRange, days_between, describe_days

logger = logging.getLogger(__name__)

# Servers and proxies refuse addresses of more than 8,000 characters.
MOST_NAME_CHARACTERS = 6_000
MOST_DAYS = 366
# Events that reports compute: no export contains them.
_COMPUTED = ("$session_start", "$session_end", "$all_events")
_CUSTOM = "$custom_event:"
_MOST = 2**63  # what the database stores


@dataclass(frozen=True)
class EventCounts:
    """The counts of Mixpanel's reports.

    Attributes:
        counts: Events by day, in the project's time zone, and name; 0 where none is reported.
        names: The names that were requested.
        listed: The names that Mixpanel lists: those of events of the last 31 days.
        hidden: The names that the data dictionary marks as hidden.
        requests: Requests to the Query API.
    """

    counts: dict[tuple[date, str], int]
    names: frozenset[str]
    listed: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    requests: int = 0

    def of(self, day: date, name: str) -> int:
        """Return the count of an event on a day."""
        return self.counts.get((day, name), 0)


def count_events(
    client: MixpanelAPIClient, names: Collection[str], first: date, last: date
) -> EventCounts:
    """Return the counts of events in the whole project, both ends included.

    The names are those given, those that Mixpanel lists, and those of the data dictionary. Costs a
    request for the list, and one for each year and about 200 names. The client's data view does
    not matter.

    Raises:
        CountsUnavailableError: The account, the plan or the budget does not allow the requests.
        ConnectionFailedError: Mixpanel cannot be reached.
    """
    client = client.of_whole_project()
    try:
        discovery = DiscoveryService(client)
        listed = frozenset(discovery.list_events())
        defined, hidden = _dictionary(discovery)
        wanted = sorted(name for name in {*names, *listed, *defined} if _is_counted(name))
        counts: dict[tuple[date, str], int] = {}
        requests = 1
        for some_names in _portions(wanted):
            for from_day, to_day in _spans(first, last):
                response = client.event_counts(some_names, from_day, to_day)
                requests += 1
                counts.update(_counts_in(response, some_names, from_day, to_day))
    except (APIError, PlanHorizonError) as error:
        raise CountsUnavailableError(
            f"Mixpanel's own counts are not available: {error.message}"
        ) from error
    return EventCounts(counts, frozenset(wanted), listed, hidden, requests)


def _counts_in(
    response: Any, names: Sequence[str], first: date, last: date
) -> dict[tuple[date, str], int]:
    """Return the counts of the requested names, without those that are 0.

    Where an answer lacks days, a count of 0 would look like a deletion. The first days may be left
    out, as those that Mixpanel has deleted.

    Raises:
        ServerError: They are not whole numbers, or not of the requested days.
    """
    series = answers.series_in(response, "counts of events", names=names)
    try:
        counts = {
            (date.fromisoformat(day[:10]), name): _whole(count)
            for name in names
            for day, count in series[name].items()
        }
    except (ValueError, OverflowError) as error:
        raise ServerError(
            f"The counts of events are not whole numbers by day: {error}.", status_code=200
        ) from error
    found = sorted({day for day, _ in counts})
    if not found or found[0] < first or found != days_between(found[0], last):
        raise ServerError(
            f"The counts of events from {first} to {last} were requested, and the answer has "
            f"{describe_days(found) if found else 'no day'}.",
            status_code=200,
        )
    return {cell: count for cell, count in counts.items() if count}


def _whole(count: float) -> int:
    number = int(count)
    if number != count or not 0 <= number < _MOST:
        raise ValueError(f"{count} is no number of events")
    return number


def _dictionary(discovery: DiscoveryService) -> tuple[set[str], frozenset[str]]:
    """Return the names of events in the data dictionary, and those that are hidden."""
    try:
        entries = discovery.list_schemas("event")
    except APIError as error:
        # Another API, with access of its own: without it, hidden events are not known as such.
        logger.info("The data dictionary is not available: %s", error.message)
        return set(), frozenset()
    hidden = frozenset(
        entry.name
        for entry in entries
        if (metadata := entry.schema_json.metadata) is not None and metadata.hidden
    )
    return {entry.name for entry in entries}, hidden


def _is_counted(name: str) -> bool:
    return name != "" and name not in _COMPUTED and not name.startswith(_CUSTOM)


def _portions(names: list[str]) -> Iterator[list[str]]:
    """Yield names in portions that fit into the address of a request."""
    portion: list[str] = []
    characters = 0
    for name in names:
        length = len(quote(json.dumps(name) + ", "))
        if portion and characters + length > MOST_NAME_CHARACTERS:
            yield portion
            portion, characters = [], 0
        portion.append(name)
        characters += length
    if portion:
        yield portion


def _spans(first: date, last: date) -> Iterator[DayRange]:
    while first <= last:
        end = min(last, first + timedelta(days=MOST_DAYS - 1))
        yield first, end
        first = end + timedelta(days=1)
