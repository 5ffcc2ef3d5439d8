"""Which profiles a day's partition holds, and how they come onto disk.

Mixpanel only shows profiles as they are now. Today's partition is a full snapshot
(`scope` is `all`); older ones hold the profiles last seen on their day (`seen_on_day`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

from mixpanel_assets.client import (
    MAX_WORKERS,
    MixpanelAPIClient,
    PageOutcome,
    PagePlan,
    ProfileQuery,
)
from mixpanel_assets.errors import IncompleteExportError

logger = logging.getLogger(__name__)

Scope = Literal["all", "seen_on_day"]
ScopeChoice = Literal["auto", "all", "seen_on_day"]
OnPage = Callable[[PageOutcome, PagePlan], None]

# A run that failed is repeated soon; whoever asks later wants the profiles of now.
RESUMED_FOR = timedelta(hours=1)


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
) -> list[Question]:
    """Return what to ask so that each day's partition gets the profiles it is to hold.

    Args:
        days: The days wanted; one question fills all the older ones.
        today: The current day, which gets all profiles.
        query: Narrows the profiles; None: everybody.
        scope: `all` or `seen_on_day` for every day, whatever its age.
    """
    query = query or ProfileQuery()
    older, questions = list[date](), list[Question]()
    for day in sorted(days):
        if scope == "all" or (scope == "auto" and day >= today):
            questions.append(Question((day,), "all", query, today))
        else:
            older.append(day)
    if older:
        seen = _seen_between(query, older[0], older[-1])
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
        return Snapshot(question, client.plan_profiles(directory, question.query))
    except BaseException:
        PagePlan(directory, None, 0, 1, datetime.now(UTC)).discard()
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

    A snapshot is begun anew, once, if its session has ended, if somebody deleted its pages, or
    if a second try finds again that its pages are not what page 0 announced.

    Args:
        client: Who is asked.
        snapshot: As it was begun, maybe by another process.
        today: Tells the current day.
        max_workers: Pages asked for at once.
        on_page: Told of each page that was asked for.
    """
    question, root, begun_anew = snapshot.question, snapshot.plan.directory.parent, False
    while True:
        if snapshot.plan.path(0).exists():
            snapshot, useless = _with_missing_pages(client, snapshot, max_workers, on_page)
            if not useless or begun_anew or not question.can_be_asked_again(today()):
                return snapshot
            logger.warning("%s: the snapshot is begun anew.", useless)
            begun_anew = True
        elif not question.can_be_asked_again(today()):
            raise _day_is_over(question)
        snapshot.plan.discard()  # without its page 0 no page is of use
        snapshot = begin(client, question, root)


def _with_missing_pages(
    client: MixpanelAPIClient, snapshot: Snapshot, max_workers: int, on_page: OnPage | None
) -> tuple[Snapshot, str | None]:
    """Return the snapshot with what could be fetched, and why to try no more if it is of no use."""
    plan = snapshot.plan
    with plan.in_use():
        again = plan.is_tried_again()
        outcomes = client.fetch_profile_pages(
            snapshot.question.query,
            plan,
            plan.missing(),
            max_workers=max_workers,
            on_page=on_page and (lambda outcome: on_page(outcome, plan)),
        )
    failed = {outcome.page: outcome.error for outcome in outcomes if outcome.error}
    useless = None
    if any(outcome.session_ended for outcome in outcomes):
        useless = "The session of page 0 has ended"
    elif again and any(outcome.unannounced for outcome in outcomes):
        # The first time it may be the page that is wrong; `total` would be wrong for ever.
        useless = "Pages still hold other numbers of profiles than page 0 announced"
    return replace(snapshot, failed=failed), useless


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


def _seen_between(query: ProfileQuery, first: date, last: date) -> ProfileQuery:
    seen = (
        f'properties["$last_seen"] >= "{first}T00:00:00" '
        f'and properties["$last_seen"] < "{last + timedelta(days=1)}T00:00:00"'
    )
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
