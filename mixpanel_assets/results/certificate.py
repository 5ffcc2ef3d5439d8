"""The certificate of a day: what was received and stored of it, and how the numbers add up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from mixpanel_assets.results.base import Result

NOT_ASKED = "not asked"
NOT_KNOWN = "not known"

# What each number means, in the order in which they are printed.
MEANINGS: Mapping[str, str] = {
    "status": "of the day: complete, empty, open (loaded before its end) or partial",
    "fetched_at": "when the last byte of the response was received, UTC",
    "run_id": "the run that loaded it",
    "written_by": "the version of mixpanel-assets that loaded it",
    "request_from": "first day of the request that the response answers",
    "request_to": "last day of the request, included",
    "requests": "requests made for the response, failed ones included",
    "verdict": "complete: status 200, the transfer and its gzip stream ended, and each line is an "
    "event; empty twice: a second response had no line of the day either",
    "response_lines": "lines of all days of the response, counted while it was received; the load "
    "stops unless it reads the same number from the disk",
    "response_bytes": "size of the response as received",
    "lines": "lines of the response that belong to the day",
    "rows_received": "of these lines: stored as rows",
    "duplicates": "of these lines: repeated another one, and were removed",
    "quarantined": "of these lines: cannot be stored, and are in mixpanel._quarantine as bytes",
    "rows_kept": "older rows that the response lacked; no load removes a row on its own",
    "rows_moved": "rows that the response of another day had since (projects from before 2023)",
    "rows_stored": "rows of the day, by the ledger mixpanel._days",
    "rows_counted": "rows of the day in the table, counted now",
    "lines_stored": "lines of the day in quarantine, by the ledger; kept older ones included",
    "lines_counted": "lines of the day in quarantine, counted now",
    "digest": "hash of the received rows without duplicates, in any order; equal digests of two "
    "responses mean equal content",
    "live_stored": "events stored for that day of the project's time zone, when Mixpanel was asked",
    "live_count": "events that Mixpanel itself counted for it",
    "live_class": "why the two differ, of the event that differs most seriously",
    "live_asked_at": "when Mixpanel was asked, UTC",
    "last_error": "why a later attempt to load the day failed; the rows are those from before",
}


@dataclass(frozen=True, repr=False)
class Sum(Result):
    """Numbers of a certificate that must add up.

    Attributes:
        text: The sum in words and numbers.
        holds: Whether it does; None: a number is not known.
    """

    text: str
    holds: bool | None


@dataclass(frozen=True, repr=False)
class Certificate(Result):
    """What was received and stored of one day of events; `MEANINGS` explains each number.

    None stands for what is not known, because an earlier version loaded the day, and for what does
    not exist: an empty day has no response of its own, and Mixpanel may not have been asked.

    Attributes:
        table: The table in schema `mixpanel`.
        day: The export day.
        project_id: The project of the database.
        region: Where Mixpanel keeps it.
        sums: The sums of these numbers.
        unknown: Names of the numbers that an earlier version did not store.
    """

    table: str
    day: date
    project_id: str
    region: str
    status: str
    fetched_at: datetime | None
    run_id: str | None
    written_by: str | None
    request_from: date | None
    request_to: date | None
    requests: int | None
    verdict: str
    response_lines: int | None
    response_bytes: int | None
    lines: int | None
    rows_received: int | None
    duplicates: int | None
    quarantined: int | None
    rows_kept: int
    rows_moved: int | None
    rows_stored: int
    rows_counted: int
    lines_stored: int
    lines_counted: int
    digest: str | None
    live_stored: int | None
    live_count: int | None
    live_class: str
    live_asked_at: datetime | None
    last_error: str | None
    sums: tuple[Sum, ...]
    unknown: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether no sum is wrong."""
        return all(one.holds is not False for one in self.sums)
