"""Values that the client hands to its callers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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

    profiles: list[dict[str, Any]]
    session_id: str | None
    page: int
    has_more: bool
    total: int
    page_size: int

    @property
    def num_pages(self) -> int:
        """Pages of the whole result, as far as `total` tells; at least 1."""
        return max(1, -(-self.total // self.page_size))
