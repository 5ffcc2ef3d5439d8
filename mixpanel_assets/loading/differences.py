"""Why a stored and a reported count of events differ: one class, and the evidence for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from mixpanel_assets.rules.days import counted
from mixpanel_assets.warehouse import Class, Reconciled

# Mixpanel deletes at once from its reports, and within 30 days from the export.
DELETION_DAYS = 30
# Beyond this number of names, Mixpanel does not index an event.
NAME_LIMIT = 5_000

Found = tuple[Class, str | None]
Coverage = Literal["whole", "part", "open", "expired", "none"]
_EQUAL: Found = ("equal", None)
# Reports may count fewer of the stored rows for these reasons, and the number may still rise.
_PARTLY_COUNTED = ("forwarded", "repeats", "deleted", "quarantined")


@dataclass(frozen=True)
class DayFacts:
    """What the ledger says of the export days that hold a day of the calendar.

    Attributes:
        coverage: Whether all of them are stored, some (`part`), or none; `open`: one was loaded
            before it had ended; `expired`: Mixpanel has deleted them.
        loaded_at: When the first of them was loaded for the last time; None if one never was.
        was_settled: Whether all were loaded when Mixpanel took no more events for them.
    """

    coverage: Coverage
    loaded_at: datetime | None = None
    was_settled: bool = False


@dataclass(frozen=True)
class CellFacts:
    """What is known of an event on a day.

    Attributes:
        stored: Stored rows.
        live: Events in Mixpanel's reports.
        day: What is known of the day.
        before: What was known when Mixpanel was asked before.
        vanished: Stored rows that the export does not send any more.
        forwarded: Rows that Mixpanel forwarded from another region.
        repeats: Rows that share user, `$insert_id` and day with another one, but not the time.
        quarantined: Lines in the quarantine.
        is_hidden: Whether the data dictionary hides the event.
        is_beyond_names: Whether Mixpanel has reached its limit of names and does not list this one.
        is_day_gone: Whether reports count no event at all of the day, although it is old enough to
            have been deleted.
        elsewhere: Why only reports have it, or under another name; None if neither is known.
    """

    stored: int
    live: int
    day: DayFacts
    before: Reconciled | None = None
    vanished: int = 0
    forwarded: int = 0
    repeats: int = 0
    quarantined: int = 0
    is_hidden: bool = False
    is_beyond_names: bool = False
    is_day_gone: bool = False
    elsewhere: str | None = None

    @property
    def live_before(self) -> int | None:
        """The number that reports had before this one; None if there was none."""
        if self.before is None:
            return None
        return self.before.live if self.before.live != self.live else self.before.live_before

    def live_since(self, now: datetime) -> datetime:
        """Return when reports had this number for the first time."""
        same = self.before is not None and self.before.live == self.live
        return self.before.live_since if self.before and same else now

    @property
    def was_loaded_since(self) -> bool:
        """Whether a load came after reports had this number: it brought what the export has."""
        if self.before is None or self.before.live != self.live or self.day.loaded_at is None:
            return False
        return self.day.loaded_at > self.before.live_since

    @property
    def has_risen(self) -> bool:
        """Whether reports had a smaller number after the load."""
        before, loaded_at = self.before, self.day.loaded_at
        if before is None or loaded_at is None:
            return False
        return before.live < self.live and before.asked_at > loaded_at

    @property
    def was_unexplained(self) -> bool:
        """Whether events that reports count were missing before, without a reason."""
        before = self.before
        return before is not None and before.cls == "unexplained" and before.missing > 0


def classify(cell: CellFacts) -> Found:
    """Return the class of a count and the evidence for it, by what is known of the cell alone."""
    before = cell.before
    if before and before.stored == cell.stored and not cell.was_loaded_since:
        if before.live == cell.live and before.cls == "pending":
            return before.cls, before.reason
        if cell.has_risen and before.cls in _PARTLY_COUNTED:
            return "pending", f"the reported number has risen by {cell.live - before.live:,}"
    if cell.stored == cell.live:
        return _EQUAL
    if cell.day.coverage == "none":
        return "not loaded", "the day is not stored"
    if cell.elsewhere is not None:
        return "hidden", cell.elsewhere
    return _shortage(cell) if cell.stored < cell.live else _surplus(cell)


def _surplus(cell: CellFacts) -> Found:
    """Return why reports count fewer events than are stored."""
    if cell.day.coverage == "expired" or cell.is_day_gone:
        return "expired", "Mixpanel has deleted the day, which is as old as its retention"
    if cell.is_hidden:
        return "hidden", "the data dictionary hides the event from reports"
    if cell.stored - cell.live <= cell.vanished:
        rows = counted(cell.vanished, "stored row")
        return "deleted", f"the export does not send {rows} any more"
    gap = cell.stored - cell.vanished - cell.live
    uncounted = cell.forwarded + cell.repeats
    if gap <= cell.repeats and gap != cell.forwarded:
        return "repeats", f"{counted(cell.repeats, 'row')} repeat an `$insert_id` of the day"
    if gap <= uncounted:
        return "forwarded", f"{counted(cell.forwarded, 'row')} came from another region"
    if cell.before and gap - uncounted <= _deleted_since(cell, cell.before):
        return "deleted", f"reports counted {cell.live_before or cell.live:,} events before"
    if cell.is_beyond_names and cell.live == 0:
        return "name limit", "Mixpanel has more names than it lists, and does not list this one"
    return "unexplained", "reports count fewer events than are stored"


def _deleted_since(cell: CellFacts, before: Reconciled) -> int:
    """Return how many events have left the reports, as far as earlier numbers show it."""
    if before.cls in ("unexplained", "zone edge", "not loaded"):
        return 0
    earlier = max(before.stored - before.live, 0) if before.cls == "deleted" else 0
    return earlier + max(before.live - cell.live, 0)


def _shortage(cell: CellFacts) -> Found:
    """Return why reports count more events than are stored."""
    missing = cell.live - cell.stored
    if cell.day.coverage == "expired":
        return "not loaded", "the day is further back than MP_RETENTION_DAYS"
    if cell.day.coverage == "part":
        return "zone edge", "only one of the export days that hold the day is stored"
    if missing <= cell.quarantined:
        return "quarantined", f"{counted(cell.quarantined, 'line')} cannot be stored"
    if cell.day.coverage == "open":
        return "pending", "the day was loaded before it had ended"
    if cell.was_loaded_since:
        return "unexplained", "a load since then has not brought the events"
    if cell.has_risen and cell.was_unexplained:
        return "unexplained", "events were missing before the reported number rose"
    if cell.has_risen:
        return "pending", "the reported number has risen since the load"
    if not cell.day.was_settled:
        return "pending", "the day was loaded while Mixpanel still took late events for it"
    return "unexplained", "reports count more events than are stored"


def still_exported(found: Reconciled, now: datetime, day: DayFacts) -> bool:
    """Return whether deleted events should have left the export, and a load has still had them."""
    due = found.live_since + timedelta(days=DELETION_DAYS)
    return now >= due and day.loaded_at is not None and day.loaded_at >= due


Counts = Mapping[tuple[date, str], int]


def names_elsewhere(
    stored: Counts,
    live: Counts,
    days: Sequence[date],
    names: Collection[str],
    known: Mapping[str, str],
) -> dict[str, str]:
    """Return events that reports count under another name, and those names, with the reason.

    An event without any count belongs to another one that has as many events more on each day.

    Args:
        stored: Stored rows by day and name.
        live: Reported events by day and name.
        days: The compared days.
        names: The names with differences.
        known: Events that were found hidden before, with the reason. One day is enough for them;
            others need two days on which both differ.
    """
    found: dict[str, str] = {}
    uncounted: dict[tuple[int, ...], list[str]] = {}
    for name in sorted(names):
        rows = tuple(stored.get((day, name), 0) for day in days)
        if any(rows) and not any(live.get((day, name), 0) for day in days):
            uncounted.setdefault(rows, []).append(name)
    for name in sorted(names):
        more = tuple(live.get((day, name), 0) - stored.get((day, name), 0) for day in days)
        for other in uncounted.get(more, ()):
            counted_as = f"reports count the event as `{name}`"
            if sum(map(bool, more)) > 1 or known.get(other) == counted_as:
                found[other] = counted_as
                found[name] = f"reports count `{other}` as this event"
    return found


NOT_COUNTED = "reports do not count the event under its name, which is one that they use otherwise"
VIRTUAL = "only Mixpanel's reports have the event: a custom or a merged one"
