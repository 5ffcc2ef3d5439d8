"""Stored events compared with Mixpanel's own counts, day by day and name by name.

It costs two to four requests of the Query API for a year, and no export request. The counts, their
classes and when Mixpanel was asked are kept in `mixpanel._reconciled`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import duckdb

from mixpanel_assets.client import EventCounts, MixpanelAPIClient, count_events
from mixpanel_assets.errors import ConfigError, CountsUnavailableError, DatabaseNotFoundError
from mixpanel_assets.loading.differences import (
    NAME_LIMIT,
    NOT_COUNTED,
    VIRTUAL,
    CellFacts,
    Coverage,
    DayFacts,
    classify,
    names_elsewhere,
    still_exported,
)
from mixpanel_assets.loading.plan import Keeping, Refetch, is_expired
from mixpanel_assets.loading.shifted_calendar import OTHER_CALENDAR, days_of_another_calendar
from mixpanel_assets.results import Result
from mixpanel_assets.rules.days import as_day, counted, days_between
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import (
    CLASSES,
    EVENTS,
    EVERY_EVENT,
    Calendar,
    Class,
    Database,
    Evidence,
    ProjectIdentity,
    Reconciled,
    check_loadable,
    count_by_day,
    day_rows,
    evidence_for,
    hidden_names,
    prepare,
    quarantined_names,
    reconciled_days,
    stored_names,
    stored_project,
    write_reconciled,
)

_DAY = timedelta(days=1)
_STORED = ("complete", "empty")
# A load may bring what these lack.
_LOADABLE = ("pending", "unexplained")

Cell = tuple[date, str]
Ledger = Mapping[date, Mapping[str, Any]]


@dataclass(frozen=True, repr=False)
class Reconciliation(Result):
    """Stored counts beside Mixpanel's own.

    Attributes:
        from_date: First day, in the project's time zone.
        to_date: Last day, included.
        asked_at: When Mixpanel was asked; aware, UTC.
        counts: One for each day and event that is stored or reported, in order.
        unavailable: Why Mixpanel's counts are not known, so that nothing was compared; else None.
        days_to_load: Export days of which one load may bring events that reports count. Each is
            named once for a difference: not again after a load.
        requests: Requests to the Query API.
    """

    from_date: date
    to_date: date
    asked_at: datetime
    counts: tuple[Reconciled, ...] = ()
    unavailable: str | None = None
    days_to_load: tuple[date, ...] = ()
    requests: int = 0

    def of_day(self, day: date) -> Reconciliation:
        """Return what was found for one day."""
        counts = tuple(one for one in self.counts if one.day == day)
        to_load = self.days_to_load if any(one.cls in _LOADABLE for one in counts) else ()
        near = tuple(one for one in to_load if abs(one - day) <= _DAY)
        return replace(self, from_date=day, to_date=day, counts=counts, days_to_load=near)

    @property
    def differences(self) -> list[Reconciled]:
        """The counts that differ."""
        return [one for one in self.counts if one.cls != "equal"]

    @property
    def unexplained(self) -> list[Reconciled]:
        """The differences that nothing explains."""
        return [one for one in self.counts if one.cls == "unexplained"]

    @property
    def is_of_other_calendar(self) -> bool:
        """Whether Mixpanel counts days of another time zone than the settings say."""
        return any((one.reason or "").startswith(OTHER_CALENDAR) for one in self.counts)

    def by_class(self) -> dict[Class, int]:
        """Return the number of days and events of each class that occurs."""
        numbers = Counter(one.cls for one in self.counts)
        return {cls: numbers[cls] for cls in CLASSES if cls in numbers}

    def unexplained_rows(self, day: date | None = None) -> int:
        """Return by how many events unexplained counts differ, of one day or of all."""
        return sum(abs(one.missing) for one in self.unexplained if day in (None, one.day))

    @property
    def message(self) -> str:
        """What was found, in words."""
        if self.unavailable:
            return f"Nothing was compared. {self.unavailable}"
        days = counted(len({one.day for one in self.counts}), "day")
        if not self.differences:
            return f"Every stored count of {days} is the one that Mixpanel reports."
        kinds = ", ".join(
            f"{number:,} {cls}" for cls, number in self.by_class().items() if cls != "equal"
        )
        zone = " Compare MP_TIME_ZONE with the project's time zone."
        return (
            f"{len(self.differences):,} of {len(self.counts):,} counts of {days} differ from "
            f"Mixpanel's own: {kinds}.{zone if self.is_of_other_calendar else ''}"
        )


def reconcile(
    client: MixpanelAPIClient,
    settings: Settings,
    database: Database,
    *,
    from_date: date | str,
    to_date: date | str | None = None,
    name_limit: int = NAME_LIMIT,
    now: datetime | None = None,
) -> Reconciliation:
    """Compare `mixpanel.events` with Mixpanel's own counts, and keep what was found.

    Days are those of the project's calendar. A database that is only read keeps nothing.

    Args:
        client: Sends the requests; its data view does not matter.
        settings: The time zone, and for how long Mixpanel keeps events and takes late ones.
        database: It must exist.
        from_date: First day, included.
        to_date: Last day, included; None: the last one that has ended.
        name_limit: The number of names beyond which Mixpanel does not index an event.
        now: The current time; aware.

    Returns:
        The counts, or why Mixpanel did not report them (`unavailable`).

    Raises:
        ConfigError: A day has not ended, or the file holds another project.
        DatabaseNotFoundError: Nothing is stored yet.
        ConnectionFailedError: Mixpanel cannot be reached.
    """
    first = as_day(from_date)
    now = now or datetime.now(UTC)
    database.must_exist()
    # Before the request: events that arrive in between are then pending, and not unexplained.
    with database.read() as connection:
        check_loadable(connection, settings.project(client.credentials))
        project = stored_project(connection)
        if project is None:
            raise DatabaseNotFoundError(database.place)
        calendar = calendar_of(settings, project)
        ended = calendar.last_ended(now)
        last = ended if to_date is None else as_day(to_date)
        if last > ended:
            raise ConfigError(
                f"{last} has not ended in {calendar.zone}; only finished days can be compared."
            )
        if first > last:
            raise ConfigError(f"from_date {first} is after to_date {last}; both are included.")
        comparison = _Comparison.read(connection, settings, calendar, first, last, now)
    try:
        live = count_events(client, comparison.names | comparison.quarantined, first, last)
    except CountsUnavailableError as error:
        return Reconciliation(first, last, now, unavailable=error.message)
    with database.read() as connection:
        counts = comparison.compare(connection, live, name_limit)
    if not database.read_only:
        with database.write() as connection:
            prepare(connection, None)
            write_reconciled(connection, EVERY_EVENT, counts, first, last)
    to_load = comparison.days_to_load(counts)
    return Reconciliation(first, last, now, tuple(counts), None, tuple(to_load), live.requests)


@dataclass
class _Comparison:
    """What is stored of some days of the calendar, and what was known of them before."""

    settings: Settings
    first: date
    last: date
    now: datetime
    calendar: Calendar
    stored: dict[Cell, int]
    names: set[str]
    quarantined: set[str]
    ledger: Ledger
    before: dict[Cell, Reconciled]
    asked: dict[date, datetime]
    hidden: dict[str, str]
    facts: dict[date, DayFacts]

    @classmethod
    def read(
        cls,
        connection: duckdb.DuckDBPyConnection,
        settings: Settings,
        calendar: Calendar,
        first: date,
        last: date,
        now: datetime,
    ) -> _Comparison:
        """Read what is stored."""
        known = reconciled_days(connection, EVERY_EVENT, first, last)
        comparison = cls(
            settings,
            first,
            last,
            now,
            calendar,
            count_by_day(connection, calendar, first, last),
            stored_names(connection),
            quarantined_names(connection, first, last),
            day_rows(connection, EVENTS.name, first - 2 * _DAY, last + 2 * _DAY),
            {(one.day, one.event): one for one in known},
            {one.day: one.asked_at for one in known},
            hidden_names(connection, EVERY_EVENT),
            {},
        )
        comparison.facts = {day: comparison._facts_of(day) for day in days_between(first, last)}
        return comparison

    def _facts_of(self, day: date) -> DayFacts:
        wanted = list(self.calendar.export_days(day))
        if self.calendar.regime == "legacy":
            # After a change of zone, rows of a date may lie in the day beside it.
            beside = (other for other in (day - _DAY, day + _DAY) if self._has_shifted_rows(other))
            wanted += beside
        rows = [self.ledger.get(one) for one in wanted]
        coverage = self._coverage(wanted, rows)
        loaded = [row["fetched_at"] for row in rows if row and row["fetched_at"]]
        keeping = Keeping(Refetch.stale, None, self.settings.settle_days, self.settings.export_zone)
        return DayFacts(
            coverage,
            min(loaded).replace(tzinfo=UTC) if len(loaded) == len(rows) else None,
            all(row is not None and keeping.is_settled(row) for row in rows),
        )

    def _has_shifted_rows(self, day: date) -> bool:
        row = self.ledger.get(day)
        return bool(row and row["shifted_rows"])

    def _coverage(self, days: Sequence[date], rows: Sequence[Mapping[str, Any] | None]) -> Coverage:
        horizon = self.settings.horizon()
        if all(is_expired(day, horizon) for day in days):
            return "expired"
        statuses = [row["status"] if row else "" for row in rows]
        if all(status in _STORED for status in statuses):
            return "whole"
        if all(status in (*_STORED, "open", "partial") for status in statuses):
            return "open"
        if all(status == "expired" for status in statuses):
            return "expired"
        return "part" if any(status in (*_STORED, "open") for status in statuses) else "none"

    def compare(
        self, connection: duckdb.DuckDBPyConnection, live: EventCounts, name_limit: int
    ) -> list[Reconciled]:
        """Return every count with its class, by day and event name."""
        days = days_between(self.first, self.last)
        cells = sorted(
            {cell for cell, count in live.counts.items() if count and cell[0] in self.facts}
            | self.stored.keys()
        )
        odd = [cell for cell in cells if self._is_odd(cell, live)]
        evidence = evidence_for(connection, self.calendar, odd)
        # An event that the data dictionary hides is not counted for that reason.
        names = _names(odd) - live.hidden
        elsewhere = names_elsewhere(self.stored, live.counts, days, names, self.hidden)
        elsewhere |= dict.fromkeys(self._virtual(cells, live), VIRTUAL)
        elsewhere |= dict.fromkeys(_names(odd) - live.names, NOT_COUNTED)
        beyond = len(live.names | self.names) >= name_limit
        gone = self._days_gone(days, live)
        found = []
        for day, event in cells:
            facts = self._cell(day, event, live.of(day, event), evidence)
            facts = replace(
                facts,
                is_hidden=event in live.hidden,
                is_beyond_names=beyond and event not in live.listed,
                is_day_gone=day in gone,
                elsewhere=elsewhere.get(event),
            )
            found.append(self._reconciled(day, event, facts))
        moved = days_of_another_calendar(connection, self.calendar, found, self._whole_days())
        return [
            replace(one, cls="zone edge", reason=moved[one.day])
            if one.day in moved and one.cls in ("unexplained", "pending")
            else one
            for one in found
        ]

    def _is_odd(self, cell: Cell, live: EventCounts) -> bool:
        return self.stored.get(cell, 0) != live.of(*cell)

    def _cell(self, day: date, event: str, live: int, evidence: Evidence) -> CellFacts:
        cell = (day, event)
        return CellFacts(
            self.stored.get(cell, 0),
            live,
            self.facts[day],
            self._known(day, event),
            evidence.vanished[cell],
            evidence.forwarded[cell],
            evidence.repeats[cell],
            evidence.quarantined[cell],
        )

    def _known(self, day: date, event: str) -> Reconciled | None:
        """Return what was known of a count; of a day that was asked for, each name is known."""
        if (known := self.before.get((day, event))) or day not in self.asked:
            return known
        return Reconciled(day, event, 0, 0, "equal", None, self.asked[day], self.asked[day])

    def _reconciled(self, day: date, event: str, facts: CellFacts) -> Reconciled:
        cls, reason = classify(facts)
        found = Reconciled(
            day,
            event,
            facts.stored,
            facts.live,
            cls,
            reason,
            self.now,
            facts.live_since(self.now),
            facts.live_before,
        )
        if cls == "deleted" and not facts.vanished and still_exported(found, self.now, facts.day):
            said = "reports have not counted them for more than 30 days, but the export has them"
            return replace(found, cls="unexplained", reason=said)
        return found

    def _virtual(self, cells: Sequence[Cell], live: EventCounts) -> set[str]:
        """Return the names that only reports have: a load has looked for them in the export."""
        known = {event for event, reason in self.hidden.items() if reason == VIRTUAL}
        for day, event in cells:
            if (
                event not in self.names | self.quarantined
                and self._cell(day, event, live.of(day, event), Evidence()).was_loaded_since
            ):
                known.add(event)
        return known - self.names

    def _days_gone(self, days: Sequence[date], live: EventCounts) -> set[date]:
        """Return the first days of which reports count nothing, if Mixpanel may have deleted them.

        It deletes from the oldest day on, so no day after one with events is among them.
        """
        counted_days = {day for (day, _), count in live.counts.items() if count}
        deleted_before = self.settings.deleted_before()
        gone = set()
        for day in days:
            if day in counted_days or day >= deleted_before:
                break
            gone.add(day)
        return gone

    def _whole_days(self) -> set[date]:
        return {
            day
            for day, facts in self.facts.items()
            if all(
                self._coverage([one], [self.ledger.get(one)]) == "whole"
                for beside in (day - _DAY, day, day + _DAY)
                for one in self.calendar.export_days(beside)
            )
        }

    def days_to_load(self, counts: Sequence[Reconciled]) -> list[date]:
        """Return the export days of which one load may bring events that reports count."""
        short = [one for one in counts if self._may_be_loaded(one)]
        new_names = {one.event for one in short} - self.names
        # An event that was never stored may be in reports alone: one day is enough to find out.
        newest = {name: max(one.day for one in short if one.event == name) for name in new_names}
        days = {
            day
            for one in short
            if newest.get(one.event, one.day) == one.day
            for day in self._days_of(one.day)
        }
        today, horizon = self.settings.today(), self.settings.horizon()
        return sorted(day for day in days if day < today and not is_expired(day, horizon))

    def _days_of(self, day: date) -> list[date]:
        """Return the export days that may lack events of a day of the calendar."""
        days = self.calendar.export_days(day)
        if self.facts[day].coverage != "open":
            return list(days)
        # The others are stored completely.
        return [one for one in days if self.ledger[one]["status"] not in _STORED]

    def _may_be_loaded(self, one: Reconciled) -> bool:
        facts = self.facts[one.day]
        if facts.loaded_at is None or one.cls not in _LOADABLE:
            return False
        is_short = one.missing > 0 or one.cls == "pending"
        return is_short and facts.loaded_at <= one.live_since


def _names(cells: Sequence[Cell]) -> set[str]:
    return {event for _, event in cells}


def last_ended(settings: Settings, database: Database, now: datetime) -> date:
    """Return the last day that has ended in the project's zone.

    Raises:
        DatabaseNotFoundError: Nothing is stored yet.
    """
    with database.read() as connection:
        project = stored_project(connection)
    if project is None:
        raise DatabaseNotFoundError(database.place)
    return calendar_of(settings, project).last_ended(now)


def calendar_of(settings: Settings, project: ProjectIdentity) -> Calendar:
    """Return the calendar that stored and reported counts are compared on."""
    return Calendar(project.regime, _zone(settings, project))


def _zone(settings: Settings, project: ProjectIdentity) -> str:
    # Without MP_TIME_ZONE, the zone is that of the loads.
    return settings.time_zone if "time_zone" in settings.model_fields_set else project.zone
