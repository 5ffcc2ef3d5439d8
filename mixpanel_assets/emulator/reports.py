"""Numbers that the Query API computes from the events, repeats removed."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

from mixpanel_assets.emulator.state import State
from mixpanel_assets.emulator.truth import Truth


class Reports:
    """Answers questions about the project's events."""

    def __init__(self, state: State, truth: Truth) -> None:
        self._state = state
        self._truth = truth

    def events_per_user(self, names: set[str], days: int) -> dict[str, int]:
        """Return how many of some events each user had in the last days."""
        last = self._state.today()
        counts: Counter[str] = Counter()
        for back in range(days):
            for record in self._truth.iter_events(last - timedelta(days=back)):
                identity = record["properties"].get("distinct_id")
                if record["event"] in names and identity is not None:
                    counts[str(identity)] += 1
        return counts
