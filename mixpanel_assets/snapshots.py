"""Which profiles a day's partition holds, and how they come onto disk.

Mixpanel only shows profiles as they are now. Today's partition is a full snapshot
(`scope` is `all`); an older one holds the profiles last seen on that day (`seen_on_day`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

from mixpanel_assets.client import MixpanelAPIClient, PageOutcome, PagePlan, ProfileQuery
from mixpanel_assets.errors import IncompleteExportError

Scope = Literal["all", "seen_on_day"]


@dataclass(frozen=True)
class Snapshot:
    """One day's profiles: what was asked, and the pages the answer comes in."""

    day: date
    scope: Scope
    query: ProfileQuery
    plan: PagePlan


def question_for(day: date, today: date) -> tuple[Scope, ProfileQuery]:
    """Return what a day's partition is to hold, and the query that fetches it."""
    if day >= today:
        return "all", ProfileQuery()
    after = day + timedelta(days=1)
    seen = (
        f'properties["$last_seen"] >= "{day}T00:00:00" '
        f'and properties["$last_seen"] < "{after}T00:00:00"'
    )
    return "seen_on_day", ProfileQuery(where=seen)


def plan_day(client: MixpanelAPIClient, day: date, today: date, directory: Path) -> Snapshot:
    """Fetch page 0 of a day's profiles into `directory` and return the plan for the rest."""
    scope, query = question_for(day, today)
    return Snapshot(day, scope, query, client.plan_profiles(directory, query))


def whole(
    client: MixpanelAPIClient, snapshots: Iterable[Snapshot], outcomes: Iterable[PageOutcome]
) -> list[Snapshot]:
    """Return the snapshots with every page on disk.

    One whose session ended, or whose pages somebody deleted, is taken anew: once, from page 0.

    Raises:
        IncompleteExportError: A page could not be fetched.
    """
    require_every_page(outcome for outcome in outcomes if not outcome.session_ended)
    return [_taken_anew(client, s) if s.plan.missing() else s for s in snapshots]


def require_every_page(outcomes: Iterable[PageOutcome]) -> None:
    """Raise `IncompleteExportError` if a page could not be fetched."""
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        pages = ", ".join(str(outcome.page) for outcome in failed)
        raise IncompleteExportError(
            f"{len(failed)} pages of profiles could not be fetched: {pages}. "
            f"First reason: {failed[0].error} No profiles were stored; run it again.",
            reason="missing pages",
        )


@contextmanager
def discarded_on_failure(root: Path, name: str) -> Iterator[None]:
    """Delete the folders of pages whose names begin with `name` if the block fails."""
    try:
        yield
    except BaseException:
        for directory in root.glob(f"{name}*"):
            shutil.rmtree(directory, ignore_errors=True)
        raise


def _taken_anew(client: MixpanelAPIClient, snapshot: Snapshot) -> Snapshot:
    snapshot.plan.discard()
    plan = client.plan_profiles(snapshot.plan.directory, snapshot.query)
    require_every_page(client.fetch_profile_pages(snapshot.query, plan, plan.missing()))
    return replace(snapshot, plan=plan)
