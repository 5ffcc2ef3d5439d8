"""Numbers that the Query API computes from the events, repeats removed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal, NamedTuple

from mixpanel_assets.emulator.expressions import UNDEFINED, Evaluate, Scope, matches
from mixpanel_assets.emulator.state import State
from mixpanel_assets.emulator.truth import Record, Truth, has_time, in_seconds

Unit = Literal["minute", "hour", "day", "week", "month"]
Table = dict[str, dict[str, float]]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FORMATS = {"minute": "%Y-%m-%d %H:%M:00", "hour": "%Y-%m-%d %H:00:00"}
STEPS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}


class Seen(NamedTuple):
    """An event in a report: `at` is project time, without a zone."""

    at: datetime
    event: str
    properties: dict[str, Any]
    profile: Callable[[str | None], Mapping[str, Any]]

    @property
    def user(self) -> str | None:
        """The id that people are counted by."""
        identity = self.properties.get("distinct_id")
        return None if identity is None else str(identity)

    @property
    def scope(self) -> Scope:
        """What an expression sees of the event."""
        return Scope(self.properties, self.profile(self.user), event=self.event)


@dataclass(frozen=True)
class Selection:
    """Which events a report is about."""

    days: list[date]
    names: frozenset[str] | None = None
    where: Evaluate | None = None


def bucket(at: datetime, unit: str) -> str:
    """Return the key of the bucket that a moment falls into; the unit `all` is one bucket."""
    if unit == "all":
        return unit
    if unit in FORMATS:
        return at.strftime(FORMATS[unit])
    return first_day(at.date(), unit).isoformat()


def first_day(day: date, unit: str) -> date:
    """Return the first day of the day's week or month, or the day itself."""
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def buckets(days: list[date], unit: str) -> list[str]:
    """Return the keys of all buckets of a range, in order."""
    if unit in STEPS:
        per_day = timedelta(days=1) // STEPS[unit]
        starts = [datetime(day.year, day.month, day.day) for day in days]
        return [
            (start + STEPS[unit] * number).strftime(FORMATS[unit])
            for start in starts
            for number in range(per_day)
        ]
    return list(dict.fromkeys(first_day(day, unit).isoformat() for day in days))


def label(value: Any) -> str:
    """Return a property value as the key of a breakdown."""
    if value is UNDEFINED:
        return "undefined"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def top(table: Table, limit: int) -> Table:
    """Return the largest rows of a table."""
    ranked = sorted(table, key=lambda key: (-sum(table[key].values()), key))
    return {key: table[key] for key in ranked[:limit]}


class Reports:
    """Answers questions about the project's events."""

    def __init__(self, state: State, truth: Truth, view: Evaluate | None = None) -> None:
        self._state = state
        self._truth = truth
        self._view = view

    def seen(self, selection: Selection) -> Iterator[Seen]:
        """Yield the selected events of the days, which are days of the project's zone."""
        if not selection.days:
            return
        wanted = set(selection.days)
        for record in self._records(selection.days):
            event = record["event"]
            if selection.names is not None and event not in selection.names:
                continue
            if not has_time(record):
                continue
            at = self._local(record["properties"]["time"])
            if at.date() not in wanted:
                continue
            found = Seen(at, event, in_seconds(record)["properties"], self._state.person)
            if all(
                filter_ is None or matches(filter_, found.scope)
                for filter_ in (self._view, selection.where)
            ):
                yield found

    def counted(
        self,
        selection: Selection,
        keys: Callable[[Seen], Iterable[str]],
        *,
        unit: str,
        kind: str = "general",
    ) -> Table:
        """Return counts by key and bucket; buckets without events are absent.

        Args:
            selection: The events.
            keys: The rows an event counts for.
            unit: The width of a bucket.
            kind: `general` counts events, `unique` people, `average` events per person.
        """
        events: dict[str, Counter[str]] = defaultdict(Counter)
        people: dict[tuple[str, str], set[str]] = defaultdict(set)
        for found in self.seen(selection):
            where = bucket(found.at, unit)
            for key in keys(found):
                events[key][where] += 1
                if found.user is not None:
                    people[key, where].add(found.user)
        if kind == "general":
            return {key: dict(row) for key, row in events.items()}
        return {
            key: {
                where: len(people[key, where])
                if kind == "unique"
                else count / max(len(people[key, where]), 1)
                for where, count in row.items()
            }
            for key, row in events.items()
        }

    def numbers(self, selection: Selection, on: Evaluate, unit: str) -> dict[str, list[float]]:
        """Return the values of an expression by bucket; what is no number counts as 0."""
        found: dict[str, list[float]] = defaultdict(list)
        for event in self.seen(selection):
            found[bucket(event.at, unit)].append(as_number(on(event.scope)))
        return found

    def events_per_user(
        self, names: set[str], days: int, as_of: datetime | None = None
    ) -> dict[str, int]:
        """Return how many of some events each user had in the days up to a moment, or to now."""
        last = self._state.today() if as_of is None else self._local_time(as_of).date()
        span = [last - timedelta(days=back) for back in range(days)]
        selection = Selection(span, frozenset(names))
        return Counter(
            found.user
            for found in self.seen(selection)
            if found.user is not None and (as_of is None or found.at <= self._local_time(as_of))
        )

    def recent_days(self, count: int) -> list[date]:
        """Return the last days up to today, in the project's zone."""
        today = self.today()
        return [today - timedelta(days=back) for back in range(count - 1, -1, -1)]

    def today(self) -> date:
        """Return the project's own day; reports use its zone in both regimes."""
        return self._state.clock.now().astimezone(self._state.zone).date()

    def _records(self, days: list[date]) -> Iterator[Record]:
        first, last = min(days), max(days)
        if self._state.settings.regime == "utc" and self._state.settings.zone != "UTC":
            # The export is cut by UTC days, the report by those of the zone.
            first, last = first - timedelta(days=1), last + timedelta(days=1)
        last = min(last, self._state.today())
        day = first
        while day <= last:
            if self._state.holds(day):
                yield from self._truth.shared_events(day)
            day += timedelta(days=1)

    def _local(self, milliseconds: int) -> datetime:
        at = EPOCH + timedelta(milliseconds=milliseconds)
        if self._state.settings.regime == "utc" and self._state.settings.zone != "UTC":
            at = at.astimezone(self._state.zone)
        return at.replace(tzinfo=None)

    def _local_time(self, moment: datetime) -> datetime:
        return moment.astimezone(self._state.zone).replace(tzinfo=None)


def as_number(value: Any) -> float:
    """Return a number, or 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return float(value)
