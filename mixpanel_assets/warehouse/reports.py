"""What a load did, day by day: values that travel to logs, metadata and results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

Status = Literal["complete", "partial", "empty", "open", "not available", "expired", "failed"]
Scope = Literal["all", "seen_on_day"]


@dataclass(frozen=True)
class DayReport:
    """One asked day after its load.

    Attributes:
        day: The export day.
        status: `complete`, `empty` (Mixpanel sent nothing), `open` (the day is not over), or
            `not available` (it lies before the plan's horizon; what was stored stays), or
            `expired` (Mixpanel has deleted it, by MP_RETENTION_DAYS).
        row_count: Rows now stored.
        rows_before: Rows stored before; None when the day had never been loaded.
        rows_vanished: Stored rows that the response lacked; they are kept, and part of
            `row_count`.
        newly_vanished: Those of them that the response before this one still had.
        rows_removed: Stored rows that the response lacked and that were removed, because the
            caller accepts smaller days.
        lines_removed: Lines of the quarantine that were removed likewise.
        corrected: Other days as they are now that rows moved from them to the days of the
            request (legacy regime, after a change of zone); on the first day of the request.
        duplicates_removed: Repeats that Mixpanel sent and the load dropped.
        quarantined: Lines kept in `_quarantine`.
        shifted_rows: Legacy rows whose own date is another one.
        time_warning: What contradicts the project's time settings in the day's events, if anything.
        requests: Requests made; those for several days count on the first of them.
        bytes: The day's share of the bytes received, by rows; the shares add up exactly.
        event_counts: Rows by event name.
        hour_counts: Rows by hour of `event_time`, 24 values, UTC.
    """

    day: date
    status: Status
    row_count: int = 0
    rows_before: int | None = None
    rows_vanished: int = 0
    newly_vanished: int = 0
    rows_removed: int = 0
    lines_removed: int = 0
    corrected: tuple[DayReport, ...] = field(default=(), repr=False)
    duplicates_removed: int = 0
    quarantined: int = 0
    shifted_rows: int = 0
    time_warning: str | None = None
    requests: int = 0
    bytes: int = 0
    event_counts: dict[str, int] = field(default_factory=dict, repr=False)
    hour_counts: tuple[int, ...] = field(default=(0,) * 24, repr=False)

    @property
    def look(self) -> tuple[int, int]:
        """What the response had: rows of the day, and how many stored rows it lacked."""
        lacking = self.rows_vanished + self.rows_removed + self.lines_removed
        return self.row_count - self.rows_vanished, lacking

    @property
    def is_only_here(self) -> bool:
        """Whether the response had none of the rows that are stored."""
        return 0 < self.row_count == self.rows_vanished

    @property
    def needs_second_look(self) -> bool:
        """Whether a single response may not say this: it lacks rows that the last one had."""
        lacking = self.newly_vanished + self.rows_removed + self.lines_removed
        return lacking > 0 or self.row_count < (self.rows_before or 0)


@dataclass(frozen=True)
class ProfileReport:
    """One snapshot day after its load, or as a load left it.

    `expected_total`, `failed_pages`, `missing_rows` and `elsewhere` are those of the whole
    answer, the same on each of its days.

    Attributes:
        snapshot_date: The day the rows are kept under.
        status: `complete`, `partial` (part of the answer did not come; rows were merged in), or
            `empty`.
        scope: `all` profiles, or only those `seen_on_day`.
        row_count: Rows now stored for the day; in a named table those that no other day
            accounts for.
        received: Profiles that arrived for the day, repeats included.
        rows_before: Rows stored before; None when the day had never been loaded.
        duplicates_removed: Profiles that came on more than one page; the last page won.
        expected_total: What Mixpanel announced; None when it announced nothing.
        failed_pages: Numbers of the pages that did not come, and why.
        missing_rows: By how many profiles the answer fell short of `expected_total`.
        elsewhere: Profiles that came and were not stored: none of the asked days is the one they
            were last seen on, or that day is kept.
        quarantined: Lines kept in `_quarantine`; those of several days count on the first.
        kept: Whether nothing was stored, because the day holds a full snapshot already.
    """

    snapshot_date: date
    status: Status
    scope: Scope
    row_count: int
    received: int
    rows_before: int | None
    duplicates_removed: int
    expected_total: int | None
    failed_pages: Mapping[int, str] = field(default_factory=dict)
    missing_rows: int = 0
    elsewhere: int = 0
    quarantined: int = 0
    kept: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether everything came that the day was to hold."""
        return self.status != "partial"
