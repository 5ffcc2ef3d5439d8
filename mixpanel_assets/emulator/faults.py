"""The kinds of faults, and the list of faults that wait for a matching request."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, get_args

# The body of an export is wrong, although the status is 200 and the transfer ends cleanly.
BodyKind = Literal[
    "truncate-own-line",
    "truncate-mid-record",
    "truncate-whole-body",
    "error-object-in-stream",
    "missing-rows",
    "missing-days",
    "junk-line",
    "cut-body",
]
# The bytes on the wire break HTTP or gzip, or arrive late.
WireKind = Literal[
    "cut-gzip",
    "cut-chunk",
    "drop-connection",
    "reset",
    "stall-mid-stream",
    "slow-first-byte",
    "timeout",
]
# Another response replaces the right one.
SuccessKind = Literal["empty-200", "html-200", "error-200"]
AccessKind = Literal["400-auth-text", "401-json", "402-json", "403-history", "403-json"]
QueryKind = Literal["400-timeout", "404-json", "412-json"]
BusyKind = Literal["429-window", "429-concurrency", "429-bare", "429-export-text"]
ServerKind = Literal["500-json", "500-text", "500-empty", "502-json", "502-text", "502-empty"]
OutageKind = Literal["503-json", "503-text", "503-empty", "504-empty"]
ResponseKind = Literal[SuccessKind, AccessKind, QueryKind, BusyKind, ServerKind, OutageKind]
# The data change from now on, and so does the truth.
WorldKind = Literal[
    "late-events",
    "restamp",
    "delete-rows",
    "lag",
    "odd-content",
    "foreign-rows",
    "timeless-rows",
    "surrogate-rows",
    "forwarded-rows",
    "repeated-rows",
    "late-release",
]
# Reports count other events than the export sends, from now on.
ReportKind = Literal["hidden-event", "deleted-events", "wrong-count"]
ProfileKind = Literal[
    "session-expired",
    "no-profiles",
    "no-total",
    "total-changes",
    "short-page",
    "missing-page",
    "other-page",
    "cut-json",
]
Kind = BodyKind | WireKind | ResponseKind | WorldKind | ReportKind | ProfileKind

BODY_KINDS: Final = frozenset(get_args(BodyKind))
WIRE_KINDS: Final = frozenset(get_args(WireKind))
RESPONSE_KINDS: Final = frozenset(get_args(ResponseKind))
WORLD_KINDS: Final = frozenset(get_args(WorldKind))
REPORT_KINDS: Final = frozenset(get_args(ReportKind))
PROFILE_KINDS: Final = frozenset(get_args(ProfileKind))
KINDS: Final = BODY_KINDS | WIRE_KINDS | RESPONSE_KINDS | WORLD_KINDS | REPORT_KINDS | PROFILE_KINDS
_NEEDS_A_DAY = (WORLD_KINDS - {"lag"}) | {"deleted-events", "wrong-count"}

EXPORT_PATH = "/api/2.0/export"


@dataclass(frozen=True)
class Fault:
    """One fault, and the requests that it affects.

    Attributes:
        kind: What goes wrong.
        path: Only this path. `*` matches anything, and `/api/2.0/x` equals `/api/query/x`. None:
            the export for faults of a streamed body, else any path.
        day: Only requests of this day. Required for faults that change the data of a day.
            `missing-days` leaves out this day and the later ones.
        times: The number of affected requests; None: all. A change of data is permanent.
        at: The position: bytes of the body (`cut-body`, `cut-gzip`, `cut-chunk`, ...), complete
            rows before a truncation, or profiles on a page. None: about the middle. For
            `other-page`, the page whose profiles are sent; None: the previous page.
        skip: The number of matching requests that are not affected first. Reports count the rows
            of `late-release` from the beginning.
        page: Only this page of profiles.
        count: The number of affected rows or profiles; of a `wrong-count` what is added.
        seconds: Length of a delay; minimum age of a row under `lag`; `Retry-After`; how late
            `late-events` arrive.
        text: Replaces the usual text; the line that `junk-line` inserts; the name of the event in
            faults of reports, late, forwarded and repeated rows.
    """

    kind: Kind
    path: str | None = None
    day: date | None = None
    times: int | None = 1
    at: int | None = None
    skip: int = 0
    page: int | None = None
    count: int = 5
    seconds: float | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no such fault: {self.kind!r}; known: {', '.join(sorted(KINDS))}")
        if self.kind in _NEEDS_A_DAY and self.day is None:
            raise ValueError(f"{self.kind} needs a day")
        if self.kind == "hidden-event" and self.text is None:
            raise ValueError("hidden-event needs the name of the event in text")

    def matches(self, path: str, days: Sequence[date], page: int | None) -> bool:
        """Return whether the fault affects a request."""
        fault_path = self.path or (EXPORT_PATH if self.kind in BODY_KINDS else None)
        if self.kind in PROFILE_KINDS - {"cut-json"} and fault_path is None:
            fault_path = "/api/query/engage"
        if fault_path is not None and not fnmatchcase(path, canonical(fault_path)):
            return False
        if self.kind == "session-expired" and not page:
            return False
        if self.day is not None and self.day not in days:
            return False
        return self.page is None or self.page == page

    def position(self, length: int) -> int:
        """Return `at`; by default the middle of that many bytes, rows or profiles."""
        return length // 2 if self.at is None else self.at

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Fault:
        """Build a fault from a JSON object with the attribute names as keys."""
        known = {field.name for field in fields(cls)}
        if unknown := value.keys() - known:
            raise ValueError(f"unknown keys: {', '.join(sorted(unknown))}")
        day = value.get("day")
        return cls(**{**value, "day": date.fromisoformat(day) if day else None})


def canonical(path: str) -> str:
    """Return the current name of a path of the Query API, which has an older alias."""
    if path.startswith("/api/2.0/") and path != EXPORT_PATH:
        return "/api/query/" + path.removeprefix("/api/2.0/")
    return path


class Faults:
    """The faults that wait. A request takes the first one that matches it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[tuple[Fault, int]] = []
        self._seen: dict[int, int] = {}
        self._next = 0
        self.version = 0

    def add(self, *faults: Fault) -> None:
        """Add faults after those that already wait."""
        with self._lock:
            for fault in faults:
                self._waiting.append((fault, self._next))
                self._seen[self._next] = 0
                self._next += 1
            self.version += 1

    def clear(self) -> None:
        """Remove all faults, and undo their changes of data."""
        with self._lock:
            self._waiting.clear()
            self._seen.clear()
            self.version += 1

    def waiting(self) -> list[Fault]:
        """Return the faults that have not been used up."""
        with self._lock:
            return [fault for fault, _ in self._waiting]

    def take(self, path: str, days: Sequence[date] = (), page: int | None = None) -> Fault | None:
        """Return the fault for a request, and count the request; None without a fault."""
        with self._lock:
            for fault, key in self._waiting:
                is_lasting = fault.kind in WORLD_KINDS | REPORT_KINDS
                if is_lasting or not fault.matches(path, days, page):
                    continue
                self._seen[key] += 1
                if self._seen[key] <= fault.skip:
                    continue
                if fault.times is not None and self._seen[key] >= fault.skip + fault.times:
                    self._waiting.remove((fault, key))
                return fault
        return None

    def count_export(self, days: Sequence[date]) -> None:
        """Count a request of days, so that changes with `skip` take effect."""
        with self._lock:
            for fault, key in self._waiting:
                has_skip = fault.kind in WORLD_KINDS and fault.skip
                if has_skip and fault.matches(EXPORT_PATH, days, None):
                    self._seen[key] += 1
                    if self._seen[key] == fault.skip:
                        self.version += 1

    def lies(self) -> list[Fault]:
        """Return the faults of reports."""
        with self._lock:
            return [fault for fault, _ in self._waiting if fault.kind in REPORT_KINDS]

    def unreleased(self) -> list[Fault]:
        """Return the rows that reports count and that the export does not send yet."""
        with self._lock:
            return [
                fault
                for fault, key in self._waiting
                if fault.kind == "late-release" and self._seen[key] < fault.skip
            ]

    def changes(self, day: date) -> list[Fault]:
        """Return the changes that apply to a day now."""
        with self._lock:
            return [
                fault
                for fault, key in self._waiting
                if fault.kind in WORLD_KINDS
                and fault.day in (None, day)
                and self._seen[key] >= fault.skip
            ]
