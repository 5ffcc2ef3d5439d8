"""Counts of the Query API, computed from the events without duplicates."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from mixpanel_assets.emulator.expressions import UNDEFINED, Evaluate, Scope, is_number, matches
from mixpanel_assets.emulator.lies import Lies
from mixpanel_assets.emulator.state import State
from mixpanel_assets.emulator.truth import Record, Truth, has_time, in_seconds

Table = dict[str, dict[str, float]]

FORMATS = {"minute": "%Y-%m-%d %H:%M:00", "hour": "%Y-%m-%d %H:00:00"}
STEPS = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}


class ReportEvent(NamedTuple):
    """An event in a report. `at` is project time, without a zone."""

    at: datetime
    event: str
    properties: dict[str, Any]
    profile: Callable[[str | None], Mapping[str, Any]]

    @property
    def user(self) -> str | None:
        """The id of the person; None without one."""
        identity = self.properties.get("distinct_id")
        return None if identity is None else str(identity)

    @property
    def scope(self) -> Scope:
        """The values that an expression can use."""
        return Scope(self.properties, self.profile(self.user), event=self.event)


@dataclass(frozen=True)
class Selection:
    """The events of a report."""

    days: list[date]
    names: frozenset[str] | None = None
    where: Evaluate | None = None


def bucket(at: datetime, unit: str) -> str:
    """Return the key of the bucket of a time. The unit `all` has one bucket."""
    if unit == "all":
        return unit
    if unit in FORMATS:
        return at.strftime(FORMATS[unit])
    return first_day(at.date(), unit).isoformat()


def first_day(day: date, unit: str) -> date:
    """Return the first day of the week or month, or the day itself."""
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def buckets(days: list[date], unit: str) -> list[str]:
    """Return the keys of all buckets of a range, sorted."""
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
    """Computes counts of the project's events."""

    def __init__(self, state: State, truth: Truth, data_view: Evaluate | None = None) -> None:
        self._state = state
        self._truth = truth
        self._view = data_view

    def events(self, selection: Selection) -> Iterator[ReportEvent]:
        """Yield the selected events. Days are those of the project's zone."""
        if not selection.days:
            return
        days, lies = set(selection.days), Lies(self._state, self._truth)
        for record in self._records(selection.days):
            name = record["event"]
            if selection.names is not None and name not in selection.names:
                continue
            if not has_time(record):
                continue
            at = self._state.report_time(record["properties"]["time"])
            if at.date() not in days or not lies.counts(record, at.date()):
                continue
            event = ReportEvent(at, name, in_seconds(record)["properties"], self._state.person)
            filters = [one for one in (self._view, selection.where) if one is not None]
            if all(matches(condition, event.scope) for condition in filters):
                yield event

    def count(
        self,
        selection: Selection,
        keys: Callable[[ReportEvent], Iterable[str]],
        *,
        unit: str,
        kind: str = "general",
    ) -> Table:
        """Return counts by key and bucket, without empty buckets.

        The kind `general` counts events, `unique` people; `average` is events per person.
        """
        events: dict[str, Counter[str]] = defaultdict(Counter)
        people: dict[tuple[str, str], set[str]] = defaultdict(set)
        for event in self.events(selection):
            bucket_key = bucket(event.at, unit)
            for key in keys(event):
                events[key][bucket_key] += 1
                if event.user is not None:
                    people[key, bucket_key].add(event.user)
        if kind == "general":
            return {key: dict(row) for key, row in events.items()}
        return {
            key: {
                bucket_key: len(people[key, bucket_key])
                if kind == "unique"
                else count / max(len(people[key, bucket_key]), 1)
                for bucket_key, count in row.items()
            }
            for key, row in events.items()
        }

    @property
    def lies(self) -> Lies:
        """What reports count otherwise than the export sends it."""
        return Lies(self._state, self._truth)

    def numbers(self, selection: Selection, on: Evaluate, unit: str) -> dict[str, list[float]]:
        """Return the values of an expression by bucket. A value that is not a number is 0."""
        values: dict[str, list[float]] = defaultdict(list)
        for event in self.events(selection):
            value = on(event.scope)
            values[bucket(event.at, unit)].append(float(value) if is_number(value) else 0.0)
        return values

    def events_per_user(
        self, names: set[str], days: int, as_of: datetime | None = None
    ) -> dict[str, int]:
        """Return the number of events by user in the days up to a time, by default now."""
        last = self._state.today() if as_of is None else self._local_time(as_of).date()
        span = [last - timedelta(days=back) for back in range(days)]
        selection = Selection(span, frozenset(names))
        return Counter(
            event.user
            for event in self.events(selection)
            if event.user is not None and (as_of is None or event.at <= self._local_time(as_of))
        )

    def recent_days(self, count: int) -> list[date]:
        """Return the last days up to today, in the project's zone."""
        today = self.today()
        return [today - timedelta(days=back) for back in range(count - 1, -1, -1)]

    def today(self) -> date:
        """Return the project's current day; reports use its zone in both regimes."""
        return self._state.clock.now().astimezone(self._state.zone).date()

    def _records(self, days: list[date]) -> Iterator[Record]:
        first, last = min(days), max(days)
        if self._state.settings.regime == "utc" and self._state.settings.zone != "UTC":
            # The export has UTC days, and the report has days of the zone.
            first, last = first - timedelta(days=1), last + timedelta(days=1)
        last = min(last, self._state.today())
        day = first
        while day <= last:
            if self._state.holds(day):
                yield from self._truth.shared_events(day)
            day += timedelta(days=1)

    def _local_time(self, moment: datetime) -> datetime:
        return moment.astimezone(self._state.zone).replace(tzinfo=None)
