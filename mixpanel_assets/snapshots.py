"""Which profiles a day's partition holds, and how they come onto disk.

Mixpanel only shows profiles as they are now. Today's partition is a full snapshot
(`scope` is `all`); older ones hold the profiles last seen on their day (`seen_on_day`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from mixpanel_assets.client import (
    MAX_WORKERS,
    MixpanelAPIClient,
    PageOutcome,
    PagePlan,
    ProfileQuery,
)
from mixpanel_assets.client.spool import RESUMED_FOR, pages_in_use, remove_pages, require_room
from mixpanel_assets.errors import ConfigError, IncompleteExportError

logger = logging.getLogger(__name__)

Scope = Literal["all", "seen_on_day"]
ScopeChoice = Literal["auto", "all", "seen_on_day"]
OnPage = Callable[[PageOutcome, PagePlan], None]

PAGE_IS_GONE = "its file is gone from the spool folder"


@dataclass(frozen=True)
class Question:
    """What is asked of Mixpanel to fill some days.

    Attributes:
        days: The days it fills, in order; one day if the scope is `all`.
        scope: `all` profiles that the query finds, or those `seen_on_day`.
        query: What is sent.
        asked_on: The day on which it is asked.
    """

    days: tuple[date, ...]
    scope: Scope
    query: ProfileQuery
    asked_on: date

    def can_be_asked_again(self, today: date) -> bool:
        """Tell whether the answer still belongs to the same days: a day that ended is gone."""
        return (
            self.scope == "seen_on_day" or self.days[0] != self.asked_on or today == self.asked_on
        )


@dataclass(frozen=True)
class Snapshot:
    """An answer on its way: the pages that hold it, and why some of them are not on disk."""

    question: Question
    plan: PagePlan
    failed: Mapping[int, str] = field(default_factory=dict)


def questions_for(
    days: Iterable[date],
    today: date,
    query: ProfileQuery | None = None,
    scope: ScopeChoice = "auto",
    *,
    zone: str = "UTC",
) -> list[Question]:
    """Return what to ask so that each day's partition gets the profiles it is to hold.

    Args:
        days: The days wanted; one question fills all the older ones.
        today: The current day, which gets all profiles.
        query: Narrows the profiles; None: everybody.
        scope: `all` or `seen_on_day` for every day, whatever its age.
        zone: Whose days they are; `$last_seen` is UTC.

    Raises:
        ConfigError: A day has not begun, so nothing can be said of it.
    """
    days, query = sorted(days), query or ProfileQuery()
    if days and days[-1] > today:
        raise ConfigError(f"{days[-1]} has not begun, so it has no profiles; today is {today}.")
    older, questions = list[date](), list[Question]()
    for day in days:
        if scope == "all" or (scope == "auto" and day == today):
            questions.append(Question((day,), "all", query, today))
        else:
            older.append(day)
    if older:
        seen = _seen_between(query, older[0], older[-1], ZoneInfo(zone))
        questions.insert(0, Question(tuple(older), "seen_on_day", seen, today))
    return questions


def begin(client: MixpanelAPIClient, question: Question, root: Path) -> Snapshot:
    """Return the snapshot that an earlier try left half-way, or one with page 0 just fetched.

    Args:
        client: Who is asked.
        question: What is asked.
        root: Where folders of pages lie.

    Raises:
        IncompleteExportError: Page 0 did not come whole. Nothing is left behind.
    """
    name = f"profiles-{_digest(client, question)}"
    if plan := _left_behind(root, name):
        present = len(plan.present())
        logger.info("%s of %s pages are on disk from an earlier try", present, plan.num_pages)
        return Snapshot(question, plan)
    directory = root / f"{name}-{uuid.uuid4().hex}"
    try:
        with pages_in_use(directory):
            plan = client.plan_profiles(directory, question.query)
        require_room(root, plan.path(0).stat().st_size * plan.num_pages, "The profiles")
        return Snapshot(question, plan)
    except BaseException:
        remove_pages(directory)
        raise


def completed(
    client: MixpanelAPIClient,
    snapshot: Snapshot,
    today: Callable[[], date],
    *,
    max_workers: int = MAX_WORKERS,
    on_page: OnPage | None = None,
) -> Snapshot:
    """Fetch the pages that are missing on disk; those that stay broken are named in `failed`.

    A snapshot whose session has ended, whose pages somebody deleted, or whose page 0 seems to
    have announced too much, is begun anew, once.

    Args:
        client: Who is asked.
        snapshot: As it was begun, maybe by another process.
        today: Tells the current day.
        max_workers: Pages asked for at once.
        on_page: Told of each page that was asked for, page 0 of a new beginning included.

    Raises:
        IncompleteExportError: Its pages are gone, and so is the day.
    """
    question, root, begun_anew = snapshot.question, snapshot.plan.directory.parent, False
    while True:
        failed, lost = fetch_missing(client, snapshot, max_workers=max_workers, on_page=on_page)
        snapshot = replace(snapshot, failed=failed)
        if not lost or begun_anew:
            return snapshot
        if not question.can_be_asked_again(today()):
            if snapshot.plan.present():
                return snapshot
            raise _day_is_over(question)
        logger.warning("The session of page 0 is of no use any more: the snapshot is begun anew.")
        snapshot.plan.discard()
        snapshot, begun_anew = begin(client, question, root), True
        if on_page:
            tell_present(snapshot, on_page)


def fetch_missing(
    client: MixpanelAPIClient,
    snapshot: Snapshot,
    pages: Iterable[int] | None = None,
    *,
    max_workers: int = MAX_WORKERS,
    on_page: OnPage | None = None,
) -> tuple[dict[int, str], bool]:
    """Fetch pages that are not on disk.

    Args:
        client: Who is asked.
        snapshot: As it was begun, maybe by another process.
        pages: Only these; None: all.
        max_workers: Pages asked for at once.
        on_page: Told of each page that was asked for.

    Returns:
        Why pages did not come, and whether the rest of the snapshot cannot come either: its
        session has ended, pages of it are gone, which no other session can stand in for, or a
        second try at all pages finds again that they are not what page 0 announced.
    """
    plan = snapshot.plan
    wanted = set(range(plan.num_pages) if pages is None else pages)
    with plan.in_use() as is_there:
        missing = wanted.intersection(plan.missing())
        if not is_there:
            return dict.fromkeys(sorted(missing), PAGE_IS_GONE), True
        again = pages is None and plan.is_tried_again()
        outcomes = client.fetch_profile_pages(
            snapshot.question.query,
            plan,
            sorted(missing),
            max_workers=max_workers,
            on_page=on_page and (lambda outcome: on_page(outcome, plan)),
        )
        gone = wanted.intersection(plan.missing())
    failed = {outcome.page: outcome.error for outcome in outcomes if outcome.error}
    gone -= failed.keys()
    lost = (
        bool(gone)
        or any(outcome.session_ended for outcome in outcomes)
        # The first time it may be the page that is wrong; a wrong `total` is wrong for ever.
        or (again and any(outcome.unannounced for outcome in outcomes))
    )
    return failed | dict.fromkeys(sorted(gone), PAGE_IS_GONE), lost


@contextmanager
def in_use(snapshots: Iterable[Snapshot]) -> Iterator[None]:
    """Keep the pages of all snapshots inside the block, while one of them waits or is stored."""
    with ExitStack() as used:
        for snapshot in snapshots:
            used.enter_context(snapshot.plan.in_use())
        yield


def tell_present(snapshot: Snapshot, on_page: OnPage) -> None:
    """Tell of each page that is on disk already."""
    for page in snapshot.plan.present():
        on_page(PageOutcome(page, snapshot.plan.announced_rows(page)), snapshot.plan)


def _left_behind(root: Path, name: str) -> PagePlan | None:
    """Return the youngest plan of a question that nobody uses and that is not too old."""
    found = (PagePlan.stored_in(directory) for directory in root.glob(f"{name}-*"))
    since = datetime.now(UTC) - RESUMED_FOR
    young = [plan for plan in found if plan and plan.began_at >= since]
    by_age = sorted(young, key=lambda plan: plan.began_at, reverse=True)
    return next(filter(None, (plan.taken_over() for plan in by_age)), None)


def _digest(client: MixpanelAPIClient, question: Question) -> str:
    """Return a name for what is asked of whom on which day."""
    asked = [client.budget.project, question.asked_on.isoformat(), question.query.form()]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _seen_between(query: ProfileQuery, first: date, last: date, zone: ZoneInfo) -> ProfileQuery:
    begin, end = (
        datetime.combine(day, time(), zone).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
        for day in (first, last + timedelta(days=1))
    )
    seen = f'properties["$last_seen"] >= "{begin}" and properties["$last_seen"] < "{end}"'
    return replace(query, where=f"({query.where}) and {seen}" if query.where else seen)


def _day_is_over(question: Question) -> IncompleteExportError:
    day = question.days[0]
    return IncompleteExportError(
        f"The pages of the snapshot of {day} are gone, and so is the day: Mixpanel shows profiles "
        f"as they are now. Nothing was stored. Materialize {day} in a new run to get the profiles "
        "last seen on it.",
        from_date=day,
        to_date=day,
        reason="the day is over",
    )
