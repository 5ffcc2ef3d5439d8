"""What a fetch tells while it runs and when it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from mixpanel_assets.errors import StorageError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class FetchResult:
    """What a fetch stored.

    Attributes:
        table: Its name.
        rows: Rows of it that this fetch brought, each event once; of an append, events that were
            there already are among them.
        type: What a row is.
        duration_seconds: From the first request to the commit.
        date_range: First and last day as text, both included; None for profiles.
        fetched_at: When it was stored; UTC.
    """

    table: str
    rows: int
    type: Literal["events", "profiles"]
    duration_seconds: float
    date_range: tuple[str, str] | None
    fetched_at: datetime
    _read: Callable[[], pd.DataFrame] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def df(self) -> pd.DataFrame:
        """The rows of the table, read when this is first asked for, and kept.

        Of the assets' tables, the rows of the days that were fetched.

        Raises:
            TableNotFoundError: It was dropped since.
            StorageError: The result was made without a database.
        """
        if self._read is None:
            raise StorageError(f"This result knows no database that holds {self.table!r}.")
        return self._read()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        known = asdict(replace(self, _read=None))
        known.pop("_read")
        return {**known, "fetched_at": self.fetched_at.isoformat()}


@dataclass(frozen=True)
class BatchProgress:
    """How far a fetch of events is.

    A parallel fetch tells of each request once it is settled. A sequential one tells of events
    as they arrive, and once more when a request is done; the numbers of all calls add up.

    Attributes:
        from_date: First day of the request, included.
        to_date: Last day of the request, included.
        batch_index: Its number, from 0.
        total_batches: How many requests there are.
        rows: Events that arrived since the last call, repeats that Mixpanel sent included.
        success: Whether all days of the request are whole, as far as they have come.
        error: Why not.
    """

    from_date: str
    to_date: str
    batch_index: int
    total_batches: int
    rows: int
    success: bool
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class BatchResult:
    """What became of one request of a parallel fetch.

    Attributes:
        from_date: First day, included.
        to_date: Last day, included.
        rows: Events that arrived whole, repeats that Mixpanel sent included.
        success: Whether all of its days came.
        error: Why not.
    """

    from_date: str
    to_date: str
    rows: int
    success: bool
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ParallelFetchResult:
    """What a parallel fetch of events stored.

    Attributes:
        table: Its name.
        total_rows: Rows of it that this fetch brought, each event once.
        successful_batches: Requests of which every day is stored.
        failed_batches: Requests with days that are not.
        failed_date_ranges: Those days: first and last, both included, in order.
        duration_seconds: From the first request to the last commit.
        fetched_at: When that was; UTC.
    """

    table: str
    total_rows: int
    successful_batches: int
    failed_batches: int
    failed_date_ranges: tuple[tuple[str, str], ...]
    duration_seconds: float
    fetched_at: datetime

    @property
    def has_failures(self) -> bool:
        """Whether days are missing; fetch them again with `append`."""
        return bool(self.failed_batches)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `has_failures`, ready for JSON."""
        return {
            "table": self.table,
            "total_rows": self.total_rows,
            "successful_batches": self.successful_batches,
            "failed_batches": self.failed_batches,
            "failed_date_ranges": [list(days) for days in self.failed_date_ranges],
            "has_failures": self.has_failures,
            "duration_seconds": self.duration_seconds,
            "fetched_at": self.fetched_at.isoformat(),
        }


@dataclass(frozen=True)
class ProfileProgress:
    """One page of a snapshot is settled.

    Attributes:
        page_index: Its number, from 0.
        total_pages: How many pages the snapshot has, as far as is known.
        rows: Profiles on this page; 0 if it failed.
        success: Whether it is on disk, whole.
        error: Why not.
        cumulative_rows: Profiles on all pages that are on disk, this one included.
    """

    page_index: int
    total_pages: int | None
    rows: int
    success: bool
    error: str | None
    cumulative_rows: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ParallelProfileResult:
    """What a parallel fetch of profiles stored.

    Attributes:
        table: Its name.
        total_rows: Rows that are stored of this snapshot.
        successful_pages: Pages that came whole.
        failed_pages: Pages that stayed broken.
        failed_page_indices: Their numbers, in order.
        duration_seconds: From the first request to the commit.
        fetched_at: When it was stored; UTC.
        expected_total: Profiles that page 0 announced.
        missing_rows: How many different profiles came short of that.
    """

    table: str
    total_rows: int
    successful_pages: int
    failed_pages: int
    failed_page_indices: tuple[int, ...]
    duration_seconds: float
    fetched_at: datetime
    expected_total: int
    missing_rows: int

    @property
    def has_failures(self) -> bool:
        """Whether the snapshot is not whole: what came was merged in, nothing was deleted."""
        return bool(self.failed_pages or self.missing_rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and `has_failures`, ready for JSON."""
        return {
            **asdict(self),
            "failed_page_indices": list(self.failed_page_indices),
            "has_failures": self.has_failures,
            "fetched_at": self.fetched_at.isoformat(),
        }


# The names that earlier documents gave to the same things.
ProfileBatchProgress = ProfileProgress
ParallelProfileFetchResult = ParallelProfileResult
