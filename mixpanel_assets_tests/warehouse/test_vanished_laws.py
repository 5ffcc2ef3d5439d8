"""The law of reloads: whatever Mixpanel changes between two reads, nothing is lost or doubled.

A small Mixpanel of its own changes events between loads: identities merge, properties are
rewritten, events come late, vanish and come back, and a zone change moves them to a neighbouring
day. An independent count says what the table must hold then.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.warehouse.project import ProjectIdentity
from mixpanel_assets.warehouse.vanished import Reload
from mixpanel_assets_tests.laws import examples
from mixpanel_assets_tests.warehouse.conftest import DAY, DAY_MS, START_MS, Warehouse
from mixpanel_assets_tests.warehouse.test_vanished import must_add_up

DAYS = [DAY + timedelta(days=number) for number in range(3)]
REGIMES = {
    "utc": ProjectIdentity("1234", "us"),
    "legacy": ProjectIdentity("1234", "us", "legacy", "America/Los_Angeles"),
}
# Each day has three moments with events; a zone change moves the first or the last ones.
MOMENTS = {-1: 0, 0: DAY_MS // 2, 1: DAY_MS - 1}

Group = tuple[str, int]


@dataclass
class Event:
    """An event as Mixpanel holds it."""

    name: str
    time: int
    edge: int
    day: int
    insert_id: str | None
    distinct_id: str = "u"
    before: str | None = None
    version: int = 0
    is_deleted: bool = False
    copies: int = 1

    @property
    def group(self) -> Group:
        return self.name, self.time

    @property
    def record(self) -> dict[str, Any]:
        sent = {
            "time": self.time,
            "distinct_id": self.distinct_id,
            "$insert_id": self.insert_id,
            "$distinct_id_before_identity": self.before,
            "version": self.version,
        }
        kept = {name: value for name, value in sent.items() if value is not None}
        return {"event": self.name, "properties": kept}


@dataclass
class Mixpanel:
    """What is sent for a day, and the changes that are made to it."""

    events: list[Event] = field(default_factory=list)
    shift: int = 0

    def sent(self, day: int) -> list[Event]:
        return [e for e in self.events if not e.is_deleted and self._day(e) == day]

    def _day(self, event: Event) -> int:
        moved = event.day + self.shift if event.edge == self.shift else event.day
        return moved if 0 <= moved < len(DAYS) else event.day

    def late(self, day: int, edge: int, name: str, with_id: bool) -> None:
        time = START_MS + day * DAY_MS + MOMENTS[edge]
        insert_id = f"i{len(self.events)}" if with_id else None
        self.events.append(Event(name, time, edge, day, insert_id))

    def change(self, kind: str, number: int) -> None:
        if not self.events:
            return
        event = self.events[number % len(self.events)]
        if kind == "merge" and event.before is None:
            event.before, event.distinct_id = event.distinct_id, "merged"
        elif kind == "merge without a trace":
            event.distinct_id, event.before = f"user-{event.distinct_id}", event.before
        elif kind == "rewrite":
            event.version += 1
        elif kind == "delete":
            event.is_deleted = True
        elif kind == "come back":
            event.is_deleted = False
        elif kind == "repeat" and event.insert_id:
            event.copies += 1
        elif kind == "twin" and not event.insert_id:
            twin = Event(event.name, event.time, event.edge, event.day, None)
            self.events.append(twin)


@dataclass
class Expected:
    """How many rows each event, or group of events without an id, must have."""

    sent: set[tuple[str, int, str]] = field(default_factory=set)
    made: Counter[Group] = field(default_factory=Counter)

    def read(self, events: list[Event]) -> None:
        self.sent |= {(*event.group, event.insert_id) for event in events if event.insert_id}
        for group, count in Counter(e.group for e in events if not e.insert_id).items():
            self.made[group] = max(self.made[group], count)

    @property
    def rows(self) -> int:
        return len(self.sent) + self.made.total()


def lines_of(events: list[Event], chance: Any) -> list[bytes]:
    lines = [json.dumps(event.record).encode() for event in events for _ in range(event.copies)]
    chance.shuffle(lines)
    return lines


def check(warehouse: Warehouse, mixpanel: Mixpanel, expected: Expected, read: list[int]) -> None:
    must_add_up(warehouse)
    rows = warehouse.query(
        "SELECT event_date, event_name, time_raw, insert_id, distinct_id, "
        "(properties ->> '$.version')::INTEGER FROM events"
    )
    is_sent = {row[1:4] for row in rows} & expected.sent
    assert Counter(row[1:4] for row in rows if row[1:4] in is_sent) == Counter(expected.sent)
    made = [row for row in rows if row[1:4] not in is_sent]
    assert Counter(row[1:3] for row in made) == +expected.made
    assert len({(row[0], row[3]) for row in made}) == len(made)
    came = Counter(
        (DAYS[day], *event.group, event.distinct_id, event.version)
        for day in read
        for event in mixpanel.sent(day)
    )
    assert came <= Counter((*row[:3], *row[4:]) for row in rows)


changes = st.tuples(
    st.sampled_from(
        [
            *("merge", "merge without a trace", "rewrite", "delete"),
            *("come back", "repeat", "twin"),
        ]
    ),
    st.integers(0, 30),
)
arrivals = st.tuples(
    st.integers(0, len(DAYS) - 1),
    st.sampled_from(list(MOMENTS)),
    st.sampled_from("AB"),
    st.booleans(),
)
rounds = st.lists(
    st.tuples(
        st.lists(arrivals, max_size=3),
        st.lists(changes, max_size=4),
        st.sampled_from([-1, 0, 1]),
        st.permutations(range(len(DAYS))),
        st.integers(0, len(DAYS)),
    ),
    min_size=2,
    max_size=4,
)


@pytest.mark.parametrize("regime", REGIMES)
@examples(2)
@given(st.lists(arrivals, min_size=3, max_size=8), rounds, st.randoms(use_true_random=False))
def test_every_event_that_was_ever_sent_is_there_once(regime, first, rounds, chance):
    """In its newest version, after each day that is read, in whatever order and however packed."""
    warehouse = Warehouse(Path(tempfile.mkdtemp()), REGIMES[regime])
    mixpanel, expected = Mixpanel(), Expected()
    for arrival in first:
        mixpanel.late(*arrival)
    for late, changed, shift, order, killed_after in rounds:
        for arrival in late:
            mixpanel.late(*arrival)
        for change in changed:
            mixpanel.change(*change)
        if regime == "utc":
            load_at_once(warehouse, mixpanel, expected, chance)
            continue
        mixpanel.shift = shift
        for number, day in enumerate(order):
            reload = Reload(
                read=[DAYS[other] for other in order[:number]],
                to_read=[DAYS[other] for other in order[number + 1 :]],
            )
            expected.read(mixpanel.sent(day))
            records = lines_of(mixpanel.sent(day), chance)
            warehouse.load(records, from_date=DAYS[day], reload=reload)
            if number + 1 == killed_after or number + 1 == len(order):
                check(warehouse, mixpanel, expected, list(order[: number + 1]))
        vanished = warehouse.query("SELECT sum(rows_vanished) FROM mixpanel._days")
        present = sum(len(mixpanel.sent(day)) for day in range(len(DAYS)))
        assert vanished == [(expected.rows - present,)]


def load_at_once(warehouse: Warehouse, mixpanel: Mixpanel, expected: Expected, chance: Any) -> None:
    everything = [event for day in range(len(DAYS)) for event in mixpanel.sent(day)]
    expected.read(everything)
    reports = warehouse.load(lines_of(everything, chance), to_date=DAYS[-1])
    check(warehouse, mixpanel, expected, list(range(len(DAYS))))
    for report in reports:
        of_day = [e for e in everything if date.fromordinal(DAY.toordinal() + e.day) == report.day]
        assert report.look == (len(of_day), report.rows_vanished)
    assert sum(report.row_count for report in reports) == expected.rows
