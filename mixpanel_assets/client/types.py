"""Values that the client hands to its callers."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Api = Literal["export", "query", "app"]


@dataclass(frozen=True)
class ApiUsage:
    """The request budget of one API family at one moment; times are UTC.

    Attributes:
        api: The API family.
        limit: Requests that we may send in any window; 0 when there is no limit.
        used: Requests that we have sent in the window that ends now.
        left: Requests of the window that are not spent.
        window_seconds: Length of the window.
        next_slot_at: When the next request may be sent; None: now.
        refills_at: When the window is empty if nothing more is sent; None: it is.
        blocked_until: Until when a 429 forbids every request; None: nothing does.
    """

    api: Api
    limit: int
    used: int
    left: int
    window_seconds: float
    next_slot_at: datetime | None = None
    refills_at: datetime | None = None
    blocked_until: datetime | None = None


@dataclass(frozen=True)
class ProfilePageResult:
    """One page of profiles.

    Attributes:
        profiles: The raw profiles, as Mixpanel sent them.
        session_id: Needed to ask for the next pages of the same snapshot.
        page: Number of this page, from 0.
        has_more: Whether a next page is to be asked for.
        total: Profiles in the whole result; 0 when this page does not say, as pages above 0 may.
        page_size: Profiles in a full page.
    """

    profiles: list[dict[str, Any]] = field(repr=False)
    session_id: str | None
    page: int
    has_more: bool
    total: int
    page_size: int

    @property
    def num_pages(self) -> int:
        """Pages of the whole result, as far as `total` tells; at least 1."""
        return max(1, -(-self.total // self.page_size))
