"""Saved reports, and the lists of what is saved in a project."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mixpanel_assets.literals import SavedReportType
from mixpanel_assets.results.base import Result, ResultWithDataFrame
from mixpanel_assets.results.table import Table

OVERALL = "$overall"


@dataclass(frozen=True, repr=False)
class SavedReportResult(ResultWithDataFrame):
    """The numbers of a saved report.

    The frame of an insights report has one row per date and event (`date`, `event`, `count`),
    and before `count` a column for each property that it is split by, where `$overall` is the
    sum of a split; do not add both. Any other report stands in one cell, `series`.

    Attributes:
        bookmark_id: The report.
        computed_at: When Mixpanel computed it, as it says; empty when it does not.
        from_date: Begin, included, as Mixpanel says: a day, or a moment with its offset.
        to_date: End, included.
        headers: What the levels of `series` are.
        series: The numbers as received.
    """

    bookmark_id: int
    computed_at: str
    from_date: str
    to_date: str
    headers: list[str] = field(default_factory=list)
    series: dict[str, Any] = field(default_factory=dict)

    @property
    def report_type(self) -> SavedReportType:
        """The kind of report, as its headers tell."""
        told = " ".join(self.headers).lower()
        kinds: tuple[SavedReportType, ...] = ("retention", "funnel", "flows")
        return next((kind for kind in kinds if f"${kind}" in told), "insights")

    def _table(self) -> Table:
        if self.report_type != "insights":
            return Table(("series",), [(self.series,)])
        found = sorted(_leaves(self.series, ()), key=lambda leaf: leaf[1])
        depth = max((len(path) for path, _, _ in found), default=1)
        splits = [
            self.headers[level] if level < len(self.headers) else f"segment_{level}"
            for level in range(1, depth)
        ]
        return Table(
            ("date", "event", *splits, "count"),
            [(when, *path, *[OVERALL] * (depth - len(path)), count) for path, when, count in found],
        )


def _leaves(series: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[Any, str, Any]]:
    for name, below in series.items():
        if isinstance(below, dict):
            yield from _leaves(below, (*path, name))
        else:
            yield path or (OVERALL,), name, below


@dataclass(frozen=True, repr=False)
class FunnelInfo(Result):
    """A saved funnel.

    Attributes:
        funnel_id: What `funnel` takes.
        name: Its name.
    """

    funnel_id: int
    name: str


@dataclass(frozen=True, repr=False)
class SavedCohort(Result):
    """A saved cohort.

    Attributes:
        id: Its number.
        name: Its name.
        count: How many users it has.
        description: May be empty.
        created: When, as Mixpanel writes it: `2024-01-31 12:00:00`.
        is_visible: Whether it is shown.
    """

    id: int
    name: str
    count: int
    description: str
    created: str
    is_visible: bool


@dataclass(frozen=True, repr=False)
class BookmarkInfo(Result):
    """A saved report.

    Attributes:
        id: What `query_saved_report` takes.
        name: Its name.
        type: `insights`, `funnels`, `retention` or `flows`, or a word that Mixpanel added since.
        project_id: The project; 0 when Mixpanel does not say it.
        created: When, as Mixpanel writes it; empty when it does not.
        modified: When it was last changed, likewise.
        workspace_id: The data view that it belongs to.
        dashboard_id: The board that it is on.
        description: None without one.
        creator_id: The user who made it.
        creator_name: That user's name.
    """

    id: int
    name: str
    type: str
    project_id: int
    created: str
    modified: str
    workspace_id: int | None = None
    dashboard_id: int | None = None
    description: str | None = None
    creator_id: int | None = None
    creator_name: str | None = None


@dataclass(frozen=True, repr=False)
class TopEvent(Result):
    """An event of today.

    Attributes:
        event: Its name.
        count: How often it happened today, by the way of counting asked for.
        percent_change: Against yesterday: 0.5 is half as much again, -0.5 is half.
    """

    event: str
    count: int | float
    percent_change: float
