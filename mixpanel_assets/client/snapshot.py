"""The pages of a profile snapshot onto disk: page 0 makes the plan, the others come in parallel."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from mixpanel_assets.client.engage import ProfilePage, ProfileQuery, fetch_page, is_profile
from mixpanel_assets.client.page_plan import PagePlan, remove_pages
from mixpanel_assets.client.retries import FAULTS, RetryPolicy
from mixpanel_assets.client.spool import new_file
from mixpanel_assets.client.transport import Transport
from mixpanel_assets.errors import (
    APIError,
    ConfigError,
    IncompleteExportError,
    RateLimitError,
    ServerError,
)

logger = logging.getLogger(__name__)

# Mixpanel lets five query requests of a project run at once.
MAX_WORKERS = 5


@dataclass(frozen=True)
class PageOutcome:
    """What became of one page.

    Attributes:
        page: Its number.
        rows: Profiles on it.
        error: Why it could not be had; None when it lies on disk, whole.
        session_ended: Whether Mixpanel no longer knows the session, so that the other pages
            are of no use either.
        unannounced: Whether it holds another number of profiles than page 0 announced, so that
            one of the two is wrong.
    """

    page: int
    rows: int
    error: str | None = None
    session_ended: bool = False
    unannounced: bool = False


def checked_workers(max_workers: int | None) -> int:
    """Return how many pages to ask for at once; warn if that is fewer than wanted.

    Raises:
        ConfigError: It is less than 1.
    """
    if max_workers is None:
        return MAX_WORKERS
    if max_workers < 1:
        raise ConfigError(f"max_workers must be 1 to {MAX_WORKERS}, not {max_workers}.")
    if max_workers > MAX_WORKERS:
        logger.warning(
            "max_workers=%s is capped at %s: Mixpanel answers no more queries at once.",
            max_workers,
            MAX_WORKERS,
        )
    return min(max_workers, MAX_WORKERS)


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
        remove_pages(directory)  # none of them belongs to the next session
        plan = _planned(transport, query, directory, retries)
    plan.store()
    return plan


class _SessionEndedError(IncompleteExportError):
    """Mixpanel no longer knows the session that page 0 opened a moment ago."""


class _UnannouncedError(IncompleteExportError):
    """A page holds another number of profiles than page 0 announced for it."""


def _planned(
    transport: Transport, query: ProfileQuery, directory: Path, retries: RetryPolicy
) -> PagePlan:
    began_at = datetime.now(UTC)
    page, announced = retries.call(lambda: _first_page(transport, query))
    if not announced and not page.results:  # believed only when a second response says the same
        page, announced = retries.call(lambda: _first_page(transport, query))
    total = max(announced, len(page.results))
    plan = PagePlan(directory, page.session_id, total, page.page_size, began_at)
    _keep(plan, page)
    while plan.total and plan.total % plan.page_size == 0:
        before, page = page, _page_behind(transport, query, plan, retries)
        if not page.results:
            break
        if page.results == before.results:
            raise IncompleteExportError(
                f"profiles page {page.page} repeats the page before it, so nobody can tell where "
                "the snapshot ends. Nothing was stored.",
                reason="a repeated page",
            )
        plan = replace(plan, total=plan.total + len(page.results))
        _keep(plan, page)
    return plan


def _first_page(transport: Transport, query: ProfileQuery) -> tuple[ProfilePage, int]:
    page = fetch_page(transport, query, 0)
    if page.total is None:
        raise IncompleteExportError(
            "profiles page 0 carries no `total`, so nobody can tell when the snapshot is whole. "
            "Nothing was stored.",
            reason="no total",
        )
    return page, page.total


def _page_behind(
    transport: Transport, query: ProfileQuery, plan: PagePlan, retries: RetryPolicy
) -> ProfilePage:
    number = plan.num_pages
    try:
        return retries.call(lambda: fetch_page(transport, query, number, plan.session_id))
    except (RateLimitError, ServerError):
        raise
    except APIError as error:
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

    Returns:
        One outcome per page, in the order of the pages. Once the session has ended, the pages
        that wait are not asked for.

    Raises:
        RateLimitError: The budget stayed spent; no further page is asked for.
        StorageError: The disk takes no more.
    """
    ended = threading.Event()

    def fetch(page: int) -> PageOutcome:
        if ended.is_set():
            return PageOutcome(page, 0, "the session has ended", session_ended=True)
        try:
            return PageOutcome(page, retries.call(lambda: _fetch_one(transport, query, plan, page)))
        except FAULTS as error:
            unannounced = isinstance(error, _UnannouncedError)
            return PageOutcome(page, 0, str(error), unannounced=unannounced)
        except APIError as error:
            if isinstance(error, RateLimitError):
                raise
            # The question is that of page 0, which was answered; only the session is new.
            ended.set()
            return PageOutcome(page, 0, str(error), session_ended=True)

    outcomes = []
    pool = ThreadPoolExecutor(checked_workers(max_workers))
    with pool, _ended_at_once(pool, retries.cancelled, transport):
        for done in as_completed([pool.submit(fetch, page) for page in pages]):
            outcomes.append(done.result())
            if on_page:
                on_page(outcomes[-1])
    return sorted(outcomes, key=lambda outcome: outcome.page)


@contextmanager
def _ended_at_once(
    pool: ThreadPoolExecutor, cancelled: threading.Event, transport: Transport
) -> Iterator[None]:
    """Let nobody wait for a budget or a retry when the block is left by an exception.

    Answers that are on their way are waited for, unless it is an interrupt.
    """
    try:
        yield
    except BaseException as error:
        cancelled.set()
        if isinstance(error, KeyboardInterrupt):
            transport.abandon()
        pool.shutdown(cancel_futures=True)
        cancelled.clear()  # the client can be used again
        raise


def _fetch_one(transport: Transport, query: ProfileQuery, plan: PagePlan, page: int) -> int:
    answer = fetch_page(transport, query, page, plan.session_id)
    _keep(plan, answer)
    return len(answer.results)


def _keep(plan: PagePlan, page: ProfilePage) -> None:
    _require_announced(plan, page)
    _require_profiles(page)
    with new_file(plan.directory, f"{page.page}.part") as (path, write):
        write(_as_lines(page.results))
    path.replace(plan.path(page.page))


def _require_announced(plan: PagePlan, page: ProfilePage) -> None:
    announced, came = plan.announced_rows(page.page), len(page.results)
    if came < announced:
        raise _UnannouncedError(
            f"profiles page {page.page} holds {came:,} profiles, {announced:,} were announced.",
            reason="short page",
            lines=came,
        )
    if came >= plan.page_size > announced:
        raise _UnannouncedError(
            f"profiles page {page.page} is full, though only {announced:,} profiles were announced "
            "for it: more may follow.",
            reason="a full last page",
            lines=came,
        )


def _require_profiles(page: ProfilePage) -> None:
    for number, result in enumerate(page.results):
        if not is_profile(result):
            raise IncompleteExportError(
                f"profiles page {page.page} holds something that is no profile with a "
                f"`$distinct_id`, at place {number}.",
                reason="no profile",
                lines=len(page.results),
            )


def _as_lines(results: Sequence[bytes]) -> bytes:
    # A JSON string holds no raw newline, so any newline inside a result is mere white space.
    return b"".join(result.replace(b"\n", b" ") + b"\n" for result in results)
