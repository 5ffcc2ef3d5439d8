"""A profile snapshot on disk: a stored page plan, and one file per page next to it.

Page files hold one profile per line, exactly as Mixpanel sent it. A page that is on disk is
never asked for again, so whoever comes back to a plan fetches only what is missing.
"""

from __future__ import annotations

import json
import math
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mixpanel_assets.client.engage import ProfilePage, ProfileQuery, fetch_page
from mixpanel_assets.client.retries import FAULTS, RetryPolicy
from mixpanel_assets.client.spool import new_file
from mixpanel_assets.client.transport import Transport
from mixpanel_assets.errors import IncompleteExportError, QueryError

# Mixpanel lets five query requests of a project run at once.
MAX_WORKERS = 5


@dataclass(frozen=True)
class PagePlan:
    """What page 0 announced, and the full pages behind its last one showed.

    Attributes:
        directory: Where the page files lie.
        session_id: Pins the result; None when one page is all there is.
        total: Profiles in the whole result.
        page_size: Profiles in a full page.
    """

    directory: Path
    session_id: str | None
    total: int
    page_size: int

    @property
    def num_pages(self) -> int:
        """How many pages the snapshot has; page 0 always exists."""
        return max(1, math.ceil(self.total / self.page_size))

    def path(self, page: int) -> Path:
        """Return where a page's file lies or will lie."""
        return self.directory / f"page-{page:06d}.jsonl"

    def announced_rows(self, page: int) -> int:
        """Return how many profiles a page must hold."""
        return min(self.page_size, self.total - page * self.page_size)

    def discard(self) -> None:
        """Delete every file of the snapshot; its content is stored elsewhere, or unwanted."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def missing(self) -> list[int]:
        """Return the numbers of the pages that are not on disk."""
        return [page for page in range(self.num_pages) if not self.path(page).exists()]


@dataclass(frozen=True)
class PageOutcome:
    """What became of one page.

    Attributes:
        page: Its number.
        rows: Profiles on it.
        error: Why it could not be had; None when it lies on disk, whole.
        session_ended: Whether Mixpanel no longer knows the session, so that the other pages
            are of no use either.
    """

    page: int
    rows: int
    error: str | None = None
    session_ended: bool = False


def plan_snapshot(
    transport: Transport, query: ProfileQuery, directory: Path, retries: RetryPolicy
) -> PagePlan:
    """Fetch page 0 and return the plan for the others.

    If the last page that was announced is full, the pages behind it are fetched too, until one
    is not: `total` may count the profiles of page 0 alone.

    Raises:
        IncompleteExportError: Page 0 did not say how many profiles there are.
    """
    try:
        plan = _planned(transport, query, directory, retries)
    except _SessionEndedError:
        shutil.rmtree(directory, ignore_errors=True)  # no page of it belongs to the next session
        plan = _planned(transport, query, directory, retries)
    stored = {name: str(value) for name, value in asdict(plan).items()}
    (directory / "plan.json").write_text(json.dumps(stored))
    return plan


class _SessionEndedError(IncompleteExportError):
    """Mixpanel no longer knows the session that page 0 opened a moment ago."""


def _planned(
    transport: Transport, query: ProfileQuery, directory: Path, retries: RetryPolicy
) -> PagePlan:
    page = retries.call(lambda: fetch_page(transport, query, 0))
    if page.total is None:
        raise IncompleteExportError(
            "profiles page 0 carries no `total`, so nobody can tell when the snapshot is whole. "
            "Nothing was stored.",
            reason="no total",
        )
    plan = PagePlan(directory, page.session_id, max(page.total, len(page.results)), page.page_size)
    _keep(plan, page)
    while plan.total and plan.total % plan.page_size == 0:
        page = _page_behind(transport, query, plan, retries)
        if not page.results:
            break
        plan = replace(plan, total=plan.total + len(page.results))
        _keep(plan, page)
    return plan


def _page_behind(
    transport: Transport, query: ProfileQuery, plan: PagePlan, retries: RetryPolicy
) -> ProfilePage:
    number = plan.num_pages
    try:
        return retries.call(lambda: fetch_page(transport, query, number, plan.session_id))
    except QueryError as error:
        raise _SessionEndedError(
            f"profiles page {number}: the session of page 0 has ended ({error.message}) "
            "No profiles were stored; run it again.",
            reason="the session ended",
        ) from error


def fetch_pages(
    transport: Transport,
    query: ProfileQuery,
    plan: PagePlan,
    pages: Iterable[int],
    retries: RetryPolicy,
    *,
    max_workers: int = MAX_WORKERS,
    on_page: Callable[[PageOutcome], None] | None = None,
) -> list[PageOutcome]:
    """Put pages on disk, several at once; a page that stays broken is an outcome.

    Raises:
        MixpanelDataError: An answer that no repeating can heal, such as refused credentials,
            or a disk that takes no more; no further page is asked for.
    """

    def fetch(page: int) -> PageOutcome:
        try:
            return PageOutcome(page, retries.call(lambda: _fetch_one(transport, query, plan, page)))
        except FAULTS as error:
            return PageOutcome(page, 0, str(error))
        except QueryError as error:
            # The question is that of page 0, which was answered; only the session is new.
            return PageOutcome(page, 0, str(error), session_ended=True)

    outcomes = []
    pool = ThreadPoolExecutor(min(max_workers, MAX_WORKERS))
    with pool, _ended_at_once(pool, retries.cancelled):
        for outcome in pool.map(fetch, pages):
            outcomes.append(outcome)
            if on_page:
                on_page(outcome)
    return outcomes


@contextmanager
def _ended_at_once(pool: ThreadPoolExecutor, cancelled: threading.Event) -> Iterator[None]:
    """Let nobody wait for a budget or a retry when the block is left by an exception."""
    try:
        yield
    except BaseException:
        cancelled.set()
        pool.shutdown(cancel_futures=True)
        cancelled.clear()  # the client can be used again
        raise


def fetched_at_utc(path: Path) -> datetime:
    """Return when a page was read; naive, UTC."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).replace(tzinfo=None)


def _fetch_one(transport: Transport, query: ProfileQuery, plan: PagePlan, page: int) -> int:
    answer = fetch_page(transport, query, page, plan.session_id)
    _keep(plan, answer)
    return len(answer.results)


def _keep(plan: PagePlan, page: ProfilePage) -> None:
    announced = plan.announced_rows(page.page)
    if len(page.results) < announced:
        raise IncompleteExportError(
            f"profiles page {page.page} holds {len(page.results):,} profiles, "
            f"{announced:,} were announced.",
            reason="short page",
            lines=len(page.results),
        )
    if len(page.results) >= plan.page_size > announced:
        raise IncompleteExportError(
            f"profiles page {page.page} is full, though only {announced:,} profiles were announced "
            "for it: more may follow.",
            reason="a full last page",
            lines=len(page.results),
        )
    with new_file(plan.directory, f"{page.page}.part") as (path, write):
        write(_as_lines(page.results))
    path.replace(plan.path(page.page))


def _as_lines(results: Sequence[bytes]) -> bytes:
    # A JSON string holds no raw newline, so any newline inside a result is mere white space.
    return b"".join(result.replace(b"\n", b" ") + b"\n" for result in results)
