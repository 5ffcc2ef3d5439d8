"""Profiles of a project, page by page: one page as values, all pages of a snapshot onto disk.

Page 0 makes the plan. The other pages are downloaded in parallel and checked against it.
`DistinctIds` counts different ids in little memory.
"""

from __future__ import annotations

import json
import logging
import math
import re
import threading
import uuid
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from mixpanel_assets.client.budget import checked_at_once
from mixpanel_assets.client.credentials import Credentials
from mixpanel_assets.client.responses import disguised_error, parse_body
from mixpanel_assets.client.spool import PagePlan, new_file, remove_pages
from mixpanel_assets.client.transport import FAULTS, RetryPolicy, Transport
from mixpanel_assets.errors import (
    APIError,
    ConfigError,
    IncompleteExportError,
    RateLimitError,
    ServerError,
)
from mixpanel_assets.rules.json_text import items, members, parse

logger = logging.getLogger(__name__)


_FIRST_SLOTS = 1 << 10


class DistinctIds:
    """A set of ids that keeps only their hashes, in one flat array.

    Two different ids share one of 2^64 hashes once in 4 million sets of 3 million ids.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._slots = array("q", bytes(8 * _FIRST_SLOTS))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, distinct_id: str) -> bool:
        return bool(self._slots[self._slot(_id_hash(distinct_id))])

    def add(self, distinct_id: str) -> None:
        """Add an id."""
        slot = self._slot(key := _id_hash(distinct_id))
        if self._slots[slot]:
            return
        self._slots[slot] = key
        self._count += 1
        if self._count * 3 > len(self._slots) * 2:
            self._grow()

    def _slot(self, key: int) -> int:
        """Return the slot of a hash, or the free slot for it."""
        slots, mask = self._slots, len(self._slots) - 1
        slot = key & mask
        while slots[slot] not in (0, key):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        before, self._slots = self._slots, array("q", bytes(16 * len(self._slots)))
        for key in before:
            if key:
                self._slots[self._slot(key)] = key


def _id_hash(distinct_id: str) -> int:
    return hash(distinct_id) or 1  # 0 is a free slot


_USUAL_PAGE_SIZE = 1000  # for a response without `page_size`; Mixpanel documents no size


@dataclass(frozen=True)
class ProfileQuery:
    """The filters of a request for profiles; without arguments, all profiles.

    Attributes:
        where: A segmentation expression over profile properties.
        cohort_id: Only members of this cohort.
        output_properties: Only these properties of each profile.
        distinct_id: Only this profile.
        distinct_ids: Only these profiles.
        group_id: Profiles of this group key instead of user profiles.
        behaviors: Behaviour filters, in the form of the Engage API.
        as_of_timestamp: Epoch seconds; `behaviors` are computed for this moment.
        include_all_users: With a cohort, also list members without a profile.
        workspace_id: Only profiles in this data view.
    """

    where: str | None = None
    cohort_id: str | None = None
    output_properties: Sequence[str] | None = None
    distinct_ids: Sequence[str] | None = None
    group_id: str | None = None
    behaviors: Sequence[Mapping[str, Any]] | None = None
    as_of_timestamp: int | None = None
    include_all_users: bool = False
    distinct_id: str | None = None
    workspace_id: int | None = None

    def check(self) -> None:
        """Raise `ConfigError` if the filters contradict each other or cannot be sent."""
        for is_contradictory, message in (
            (
                self.distinct_id is not None and self.distinct_ids is not None,
                "Give distinct_id or distinct_ids, not both.",
            ),
            (
                self.behaviors is not None and self.cohort_id is not None,
                "Give behaviors or cohort_id, not both.",
            ),
            (
                self.behaviors is not None and not self.where,
                'behaviors need a where that names them, such as (behaviors["b1"] > 0).',
            ),
            (
                self.include_all_users and self.cohort_id is None,
                "include_all_users needs a cohort_id.",
            ),
            (
                isinstance(self.distinct_ids, str) or isinstance(self.output_properties, str),
                "distinct_ids and output_properties are lists of names, not a text.",
            ),
            (
                self.cohort_id is not None and not str(self.cohort_id).isdecimal(),
                f"cohort_id must be a cohort's number, not {self.cohort_id!r}.",
            ),
        ):
            if is_contradictory:
                raise ConfigError(message)

    @property
    def filters(self) -> dict[str, Any]:
        """The filters in use, by attribute; empty for all profiles."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}

    def form(self) -> dict[str, str]:
        """Return the form fields that every page repeats."""
        fields: dict[str, Any] = {
            "where": self.where,
            "output_properties": _json_field(self.output_properties),
            "distinct_id": self.distinct_id,
            "distinct_ids": _json_field(self.distinct_ids),
            "data_group_id": self.group_id,
            "behaviors": _json_field(self.behaviors),
            "as_of_timestamp": self.as_of_timestamp,
            "workspace_id": self.workspace_id,
        }
        if self.cohort_id is not None:
            fields["filter_by_cohort"] = json.dumps({"id": int(self.cohort_id)})
            fields["include_all_users"] = json.dumps(self.include_all_users)
        return {name: str(value) for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class ProfilePage:
    """One page exactly as Mixpanel sent it.

    Attributes:
        page: Its number, from 0.
        session_id: Names the pinned result; the same for every page of a snapshot.
        page_size: How many profiles a full page holds.
        total: Profiles in the whole result; only page 0 always has it.
        results: One JSON object per profile, the bytes exactly as received.
    """

    page: int
    session_id: str | None
    page_size: int
    total: int | None
    results: tuple[bytes, ...]

    @property
    def num_pages(self) -> int:
        """The number of pages of the whole result, according to `total`; at least 1."""
        return math.ceil((self.total or 1) / self.page_size)


@dataclass(frozen=True)
class ProfilePageResult:
    """One page of profiles.

    Attributes:
        profiles: The raw profiles, as Mixpanel sent them.
        session_id: Names the snapshot; requests for its next pages need it.
        page: Number of this page, from 0.
        has_more: Whether there is a next page.
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
        """Pages of the whole result, according to `total`; at least 1."""
        return max(1, -(-self.total // self.page_size))


class _Envelope(msgspec.Struct):
    """A response; some proxies turn its numbers into text."""

    results: list[msgspec.Raw]
    page: int | float | str | None = None
    page_size: int | float | str | None = None
    session_id: str | int | None = None
    total: int | float | str | None = None

    def number(self, name: str) -> int | None:
        """Return a field as a number, None when it is null or missing; else raise `ValueError`."""
        value = getattr(self, name)
        if value is None:
            return None
        if whole_number := _WHOLE_NUMBER.fullmatch(str(value)):
            return int(whole_number[1])
        raise ValueError(f"its `{name}` is {str(value)[:40]!r}, not a number from 0")


class _Profile(msgspec.Struct):
    distinct_id: msgspec.Raw = msgspec.field(name="$distinct_id")
    properties: dict[str, msgspec.Raw] | None = msgspec.field(name="$properties", default=None)


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_profile = msgspec.json.Decoder(_Profile).decode
# Some proxies turn numbers into text; 7.0 is accepted as 7.
_WHOLE_NUMBER = re.compile(r"([0-9]{1,12})(\.0+)?")
_WRONG_TYPE = re.compile(r"Expected `(.+)`, got `(.+?)`(?: - at `\$\.(\w+)`)?")
_KINDS = {
    "array": "a list",
    "bool": "true or false",
    "float": "a number",
    "int": "a number",
    "object": "an object",
    "str": "text",
}


def fetch_page(
    transport: Transport, query: ProfileQuery, page: int, session_id: str | None = None
) -> ProfilePage:
    """Return one page of profiles; without retries.

    Raises:
        IncompleteExportError: The body is not a complete page, or it is another page.
    """
    description = f"profiles page {page}"
    form = query.form()
    if page:
        form |= {"page": str(page), "session_id": session_id or ""}
    # Mixpanel counts the request that opens a session, but none of the later pages.
    free = bool(page and session_id)
    view = {"workspace_id": form.pop("workspace_id", None)}  # documented beside the project
    with transport.open(
        "POST", "query", "/engage", description=description, params=view, data=form, free=free
    ) as response:
        body = response.read()
    try:
        received = _page_in(body, page)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _not_a_page(description, body, error, transport.credentials) from None
    _require_page(received, description, page, session_id)
    return received


def _page_in(body: bytes, page: int) -> ProfilePage:
    """Return the page in a body; `page` is its number if the body has none."""
    envelope = _envelope(body)
    number, page_size = envelope.number("page"), envelope.number("page_size")
    session_id = envelope.session_id
    return ProfilePage(
        page=page if number is None else number,
        session_id=None if session_id is None else str(session_id),
        page_size=_USUAL_PAGE_SIZE if page_size is None else max(1, page_size),
        total=envelope.number("total"),
        results=tuple(map(bytes, envelope.results)),
    )


def _envelope(body: bytes) -> _Envelope:
    """Return the fields and results in a body."""
    try:
        return _decode_envelope(body)
    except msgspec.ValidationError:
        raise
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # JSON that msgspec refuses: half a surrogate pair, a raw control character, depth
    fields = dict(members(body.decode("utf-8", "surrogateescape")))
    values = {name: parse(text) for name, text in fields.items() if name != "results"}
    if "results" in fields:
        results = items(fields["results"])
        values["results"] = [msgspec.Raw(one.encode("utf-8", "surrogateescape")) for one in results]
    return msgspec.convert(values, _Envelope)


def is_profile(result: bytes) -> bool:
    """Return whether a result is a profile: an object with a `$distinct_id`.

    Its `$properties` are an object, null or missing.
    """
    try:
        profile = _decode_profile(result)
        return bytes(profile.distinct_id) != b"null"
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        profile_fields = dict(members(result.decode("utf-8", "surrogateescape")))
    except ValueError:
        return False
    has_properties = profile_fields.get("$properties", "null").startswith(("{", "null"))
    return profile_fields.get("$distinct_id", "null") != "null" and has_properties


def _require_page(
    received: ProfilePage, description: str, page: int, session_id: str | None
) -> None:
    """Raise `IncompleteExportError` if the response is another page."""
    if received.page != page:
        reason = f"the response says it is page {received.page}"
    elif page and received.session_id not in (None, session_id):
        reason = "the response names another session"
    else:
        return
    raise IncompleteExportError(
        f"{description}: {reason}. Nothing of it was stored.", reason=reason
    )


def _json_field(value: object) -> str | None:
    return None if value is None else json.dumps(value)


def _not_a_page(
    description: str, body: bytes, error: Exception, credentials: Credentials
) -> IncompleteExportError:
    said = disguised_error(parse_body(body), credentials)
    reason = f"the response is an error: {said}" if said else f"the response {_page_fault(error)}"
    return IncompleteExportError(
        f"{description}: {reason}. Nothing of it was stored.", reason=reason
    )


def _page_fault(error: Exception) -> str:
    """Return the wrong field and its type; the value may be data of users, so it is left out."""
    if found := _WRONG_TYPE.search(str(error)):
        expected, came, field = found.groups()
        of_field = f"its `{field}` is" if field else "it is"
        # Numbers that are sent as text are read, but a number is what it should be.
        wanted = "text" if field == "session_id" else _json_kind(expected.split(" | ")[0])
        return f"is not a page: {of_field} {_json_kind(came)}, not {wanted}"
    if "missing required field" in str(error):
        return "is not a page: it has no `results`"
    if str(error).startswith("its `"):
        return f"is not a page: {error}"
    return "is not a complete page of JSON"


def _json_kind(json_type: str) -> str:
    return _KINDS.get(json_type, json_type)


def fetch_first_page(
    transport: Transport, query: ProfileQuery, retries: RetryPolicy
) -> ProfilePage:
    """Return page 0, checked; an empty one only if a second response is empty too."""

    def fetch() -> ProfilePage:
        page = fetch_page(transport, query, 0)
        if page.total is None:
            raise IncompleteExportError(
                "profiles page 0 carries no `total`, so the end of the snapshot is not known.",
                reason="no total",
            )
        return checked_page(page, page.total, page.page_size)

    page = retries.call(fetch)
    # An empty project is rare, and a response without profiles may be a fault.
    return page if page.total or page.results else retries.call(fetch)


def checked_page(page: ProfilePage, total: int, page_size: int) -> ProfilePage:
    """Return a page that holds at least the announced profiles, or raise an error."""
    announced, rows = min(page_size, total - page.page * page_size), len(page.results)
    if rows < announced:
        raise UnannouncedError(
            f"profiles page {page.page} holds {rows:,} profiles, {announced:,} were announced.",
            reason=f"page {page.page} is shorter than announced",
            lines=rows,
        )
    for place, result in enumerate(page.results):
        if not is_profile(result):
            raise IncompleteExportError(
                f"profiles page {page.page} holds something at place {place} that is not a "
                "profile with a `$distinct_id`.",
                reason=f"page {page.page} holds something that is not a profile",
                lines=rows,
            )
    return page


class SessionEndedError(IncompleteExportError):
    """Mixpanel no longer knows the session that page 0 opened."""


class UnannouncedError(IncompleteExportError):
    """A page holds another number of profiles than page 0 announced for it."""


@contextmanager
def session_of_page_0(number: int) -> Iterator[None]:
    """Take a refusal of a later page for the end of its session: page 0 had the same filters."""
    try:
        yield
    except (RateLimitError, ServerError):
        raise
    except APIError as error:
        raise SessionEndedError(
            f"profiles page {number}: the session of page 0 has ended ({error.message}). "
            "Run it again from the beginning.",
            reason="the session ended",
        ) from error


# Mixpanel allows five query requests of a project at the same time.
MAX_WORKERS = 5


@dataclass(frozen=True)
class PageOutcome:
    """The result of the download of one page.

    Attributes:
        page: Its number.
        rows: Profiles on it.
        error: The reason for its failure; None: it is complete and on disk.
        session_ended: Whether Mixpanel no longer knows the session, so that no other page of it
            can be downloaded.
        unannounced: Whether it holds another number of profiles than page 0 announced, so that
            one of the two pages is wrong.
    """

    page: int
    rows: int
    error: str | None = None
    session_ended: bool = False
    unannounced: bool = False


def checked_workers(max_workers: int | None) -> int:
    """Return the number of pages to request at once, as `checked_at_once` does."""
    return checked_at_once(max_workers, MAX_WORKERS, MAX_WORKERS, "queries")


def plan_snapshot(
    transport: Transport, query: ProfileQuery, directory: Path, retries: RetryPolicy
) -> PagePlan:
    """Fetch page 0 and return the plan for the others.

    If the last announced page is full, the pages after it are fetched too, until one is not full:
    `total` may count the profiles of page 0 alone.
    """
    try:
        plan = _make_plan(transport, query, directory, retries)
    except SessionEndedError:
        remove_pages(directory)  # they belong to the session that has ended
        plan = _make_plan(transport, query, directory, retries)
    plan.store()
    return plan


def _make_plan(
    transport: Transport, query: ProfileQuery, directory: Path, retries: RetryPolicy
) -> PagePlan:
    began_at = datetime.now(UTC)
    page = fetch_first_page(transport, query, retries)
    total = max(page.total or 0, len(page.results))
    plan = PagePlan(directory, page.session_id, total, page.page_size, began_at)
    _store_page(plan, page)
    while plan.total and plan.total % plan.page_size == 0:
        page_before, page_number = page, plan.num_pages
        with session_of_page_0(page_number):
            page = retries.call(partial(fetch_page, transport, query, page_number, plan.session_id))
        if not page.results:
            break
        if page.results == page_before.results:
            raise IncompleteExportError(
                f"profiles page {page.page} repeats the page before it, so the end of the "
                "snapshot is not known. Nothing was stored.",
                reason="a repeated page",
            )
        plan = replace(plan, total=plan.total + len(page.results))
        _store_page(plan, page)
    return plan


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
    """Put pages on disk, several at once, and return their outcomes in the order of the pages.

    Once the session has ended, the other pages are not requested. `RateLimitError` and
    `StorageError` end the download.
    """
    session_ended_event = threading.Event()

    def fetch_and_store(page: int) -> int:
        received = fetch_page(transport, query, page, plan.session_id)
        _store_page(plan, received)
        return len(received.results)

    def fetch(page: int) -> PageOutcome:
        if session_ended_event.is_set():
            return PageOutcome(page, 0, "the session has ended", session_ended=True)
        try:
            return PageOutcome(page, retries.call(lambda: fetch_and_store(page)))
        except FAULTS as error:
            unannounced = isinstance(error, UnannouncedError)
            return PageOutcome(page, 0, str(error), unannounced=unannounced)
        except APIError as error:
            if isinstance(error, RateLimitError):
                raise
            # Page 0 had the same filters and was accepted, so the session must have ended.
            session_ended_event.set()
            return PageOutcome(page, 0, str(error), session_ended=True)

    outcomes = []
    pool = ThreadPoolExecutor(checked_workers(max_workers))
    with pool, _page_downloads_ended(pool, retries.cancelled, transport):
        for page_download in as_completed([pool.submit(fetch, page) for page in pages]):
            outcomes.append(page_download.result())
            if on_page:
                on_page(outcomes[-1])
    return sorted(outcomes, key=lambda outcome: outcome.page)


@contextmanager
def _page_downloads_ended(
    pool: ThreadPoolExecutor, cancelled: threading.Event, transport: Transport
) -> Iterator[None]:
    """End the threads' waits for the budget and for retries if the block raises an exception.

    Responses on their way are still received, except after an interrupt.
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


def _store_page(plan: PagePlan, page: ProfilePage) -> None:
    _require_announced(plan, page)
    with new_file(plan.directory, f"{uuid.uuid4().hex}-{page.page}.part") as (path, write):
        write(_page_lines(page.results))
    path.replace(plan.path(page.page))


def _require_announced(plan: PagePlan, page: ProfilePage) -> None:
    checked_page(page, plan.total, plan.page_size)
    announced, rows = plan.announced_rows(page.page), len(page.results)
    if rows >= plan.page_size > announced:
        raise UnannouncedError(
            f"profiles page {page.page} is full, though only {announced:,} profiles were announced "
            "for it: more may follow.",
            reason="a full last page",
            lines=rows,
        )


def _page_lines(results: Sequence[bytes]) -> bytes:
    # A JSON string has no raw newline, so every newline in a result is white space.
    return b"".join(result.replace(b"\n", b" ") + b"\n" for result in results)
