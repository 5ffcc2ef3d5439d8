"""What reports count otherwise than the export sends it, each for a reason that Mixpanel has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import date
from typing import Any

from mixpanel_assets.emulator.changes import late_times
from mixpanel_assets.emulator.state import State
from mixpanel_assets.emulator.truth import Record, Truth

FORWARDED = "$mp_is_forwarded"


class Lies:
    """The differences between reports and the export, as they are now.

    Reports leave out hidden events (unless the settings say that they are counted by name), names
    beyond the limit of names, deleted events that the export still sends, forwarded events, and
    repeats of an `$insert_id` on one day with another `time`.
    """

    def __init__(self, state: State, truth: Truth) -> None:
        self._state = state
        self._faults = state.faults.lies()
        hidden = [fault.text for fault in self._faults if fault.kind == "hidden-event"]
        self.hidden = frozenset(name for name in hidden if name is not None)
        self._deleted = Counter[tuple[date | None, str | None]]()
        for fault in self._faults:
            if fault.kind == "deleted-events":
                self._deleted[fault.day, fault.text] += fault.count
        self._repeats: set[tuple[Any, ...]] = set()
        self._known = _most_common(truth, state.name_limit)

    def lists(self, name: str) -> bool:
        """Return whether lists of names contain a name."""
        return name not in self.hidden and (self._known is None or name in self._known)

    def counts(self, record: Record, day: date) -> bool:
        """Return whether reports count an event of a day; called once for each event."""
        name, properties = record["event"], record["properties"]
        if name in self.hidden and not self._state.settings.hidden_events_counted:
            return False
        if self._known is not None and name not in self._known:
            return False
        if properties.get(FORWARDED) is True:
            return False
        for key in ((day, name), (day, None)):
            if self._deleted[key] > 0:
                self._deleted[key] -= 1
                return False
        return not self._is_repeat(record, day)

    def _is_repeat(self, record: Record, day: date) -> bool:
        properties = record["properties"]
        insert_id = properties.get("$insert_id")
        if not (isinstance(insert_id, str) and insert_id.startswith("repeat-")):
            return False
        key = (record["event"], str(properties.get("distinct_id")), insert_id, day)
        if key in self._repeats:
            return True
        self._repeats.add(key)
        return False

    def additions(self, days: Iterable[date]) -> Iterator[tuple[str, date, int]]:
        """Yield names, days and numbers of events that reports count in addition."""
        wanted = set(days)
        for fault in self._faults:
            if fault.kind == "wrong-count" and fault.day in wanted:
                yield fault.text or "Page View", fault.day, fault.count
        for fault in self._state.faults.unreleased():
            assert fault.day is not None
            for at_ms in late_times(self._state.shop, fault.day, fault.count):
                if (day := self._state.report_time(at_ms).date()) in wanted:
                    yield fault.text or "Page View", day, 1

    def names_of(self, name: str) -> list[str]:
        """Return the names under which reports count an event: its own, or those it is part of."""
        settings = self._state.settings
        custom = [one for one, members in settings.custom_events.items() if name in members]
        return [settings.merged_events.get(name, name), *custom]

    def names_in(self, names: Iterable[str]) -> frozenset[str]:
        """Return the names of the events that are counted under some names."""
        settings, found = self._state.settings, set(names)
        for name in list(found):
            found.update(settings.custom_events.get(name, ()))
            found.update(old for old, new in settings.merged_events.items() if new == name)
        return frozenset(found)


def _most_common(truth: Truth, limit: int | None) -> frozenset[str] | None:
    if limit is None:
        return None
    counts = Counter[str]()
    for day in truth.days():
        counts.update(truth.count_by_event(day))
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return frozenset(ranked[:limit])
