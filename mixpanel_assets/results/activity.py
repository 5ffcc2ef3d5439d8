"""What some users did."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mixpanel_assets.results.base import Result, ResultWithDataFrame
from mixpanel_assets.results.table import Table

HEADS = ("event", "time", "distinct_id")
_SHOWN_ELSEWHERE = ("time", "distinct_id", "$distinct_id")


@dataclass(frozen=True, repr=False)
class UserEvent(Result):
    """One thing that a user did.

    Attributes:
        event: Its name.
        time: When; Mixpanel's seconds read as UTC. Projects from before 2023 send the wall
            clock of their zone.
        properties: Everything that Mixpanel sent of it, as received.
    """

    event: str
    time: datetime
    properties: dict[str, Any] = field(default_factory=dict)

    @property
    def distinct_id(self) -> str | None:
        """Whose event it is; Mixpanel spells the name in two ways."""
        found = self.properties.get("distinct_id", self.properties.get("$distinct_id"))
        return None if found is None else str(found)


@dataclass(frozen=True, repr=False)
class ActivityFeedResult(ResultWithDataFrame):
    """What some users did, in order of time.

    The frame has a column per property after `event`, `time` and `distinct_id`; a property
    with one of these names is called `properties.event`.

    Attributes:
        distinct_ids: The users.
        from_date: First day, included, as text.
        to_date: Last day, included.
        events: In order of time.
    """

    distinct_ids: list[str]
    from_date: str | None
    to_date: str | None
    events: list[UserEvent] = field(default_factory=list)

    def _table(self) -> Table:
        names = list(
            dict.fromkeys(
                name
                for entry in self.events
                for name in entry.properties
                if name not in _SHOWN_ELSEWHERE
            )
        )
        columns = [f"properties.{name}" if name in HEADS else name for name in names]
        return Table(
            [*HEADS, *columns],
            [
                [
                    *(entry.event, entry.time, entry.distinct_id),
                    *(entry.properties.get(name) for name in names),
                ]
                for entry in self.events
            ],
        )
