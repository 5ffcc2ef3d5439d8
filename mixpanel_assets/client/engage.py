"""Engage: the profiles of a project, page by page.

Page 0 opens a session that pins the result; every other page names that session and repeats
all other parameters. Without the session each page would be computed anew, with gaps and repeats.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from mixpanel_assets.client.credentials import Credentials
from mixpanel_assets.client.responses import disguised_error, parsed
from mixpanel_assets.client.transport import Transport
from mixpanel_assets.errors import ConfigError, IncompleteExportError
from mixpanel_assets.rules.json_text import items, members
from mixpanel_assets.rules.json_text import parsed as parsed_json

_USUAL_PAGE_SIZE = 1000


@dataclass(frozen=True)
class ProfileQuery:
    """Which profiles are asked for; without arguments, all of them.

    Attributes:
        where: A segmentation expression over profile properties.
        cohort_id: Only members of this cohort.
        output_properties: Only these properties of each profile.
        distinct_id: Only this profile.
        distinct_ids: Only these profiles.
        group_id: Profiles of this group key instead of user profiles.
        behaviors: Behaviour filters, as the Engage API takes them.
        as_of_timestamp: Epoch seconds that `behaviors` are computed for.
        include_all_users: With a cohort, also list members that have no profile.
        workspace_id: Only profiles that this data view shows.
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
        for wrong, said in (
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
            if wrong:
                raise ConfigError(said)

    @property
    def filters(self) -> dict[str, Any]:
        """What narrows the profiles, by attribute; empty when all of them are asked for."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}

    def form(self) -> dict[str, str]:
        """Return the form fields that every page repeats."""
        fields: dict[str, Any] = {
            "where": self.where,
            "output_properties": _json(self.output_properties),
            "distinct_id": self.distinct_id,
            "distinct_ids": _json(self.distinct_ids),
            "data_group_id": self.group_id,
            "behaviors": _json(self.behaviors),
            "as_of_timestamp": self.as_of_timestamp,
            "workspace_id": self.workspace_id,
        }
        if self.cohort_id is not None:
            fields["filter_by_cohort"] = json.dumps({"id": int(self.cohort_id)})
            fields["include_all_users"] = json.dumps(self.include_all_users)
        return {name: str(value) for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class ProfilePage:
    """One page as Mixpanel sent it.

    Attributes:
        page: Its number, from 0.
        session_id: Names the pinned result; the same for every page of a snapshot.
        page_size: How many profiles a full page holds.
        total: Profiles in the whole result; only page 0 is sure to carry it.
        results: One JSON object per profile, the bytes exactly as received.
    """

    page: int
    session_id: str | None
    page_size: int
    total: int | None
    results: tuple[bytes, ...]

    @property
    def num_pages(self) -> int:
        """Pages of the whole result, this one included, as far as `total` tells."""
        return max(1, math.ceil((self.total or 0) / self.page_size))


class _Envelope(msgspec.Struct):
    """An answer; its numbers also come as text from some proxies."""

    results: list[msgspec.Raw]
    page: int | float | str | None = None
    page_size: int | float | str | None = None
    session_id: str | int | None = None
    total: int | float | str | None = None

    def number(self, name: str) -> int | None:
        """Return a field as a number, None when it is null or missing.

        Raises:
            ValueError: It is no number of pages or profiles; the text names it.
        """
        value = getattr(self, name)
        if value is None:
            return None
        if found := _WHOLE_NUMBER.fullmatch(str(value)):
            return int(found[1])
        raise ValueError(f"its `{name}` is {str(value)[:40]!r}, not a number from 0")


class _Profile(msgspec.Struct):
    distinct_id: msgspec.Raw = msgspec.field(name="$distinct_id")
    properties: dict[str, msgspec.Raw] | None = msgspec.field(name="$properties", default=None)


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_profile = msgspec.json.Decoder(_Profile).decode
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
    """Return one page of profiles, asked for once.

    Raises:
        IncompleteExportError: The body is not a whole page, or it is another one.
    """
    asked = f"profiles page {page}"
    form = query.form()
    if page:
        form |= {"page": str(page), "session_id": session_id or ""}
    # Mixpanel counts the page that opens a session, and not those that name it.
    free = bool(page and session_id)
    view = {"workspace_id": form.pop("workspace_id", None)}  # documented beside the project
    with transport.open(
        "POST", "query", "/engage", asked=asked, params=view, data=form, free=free
    ) as response:
        body = response.read()
    try:
        answer = _page_in(body, page)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _not_a_page(asked, body, error, transport.credentials) from None
    _require_asked(answer, asked, page, session_id)
    return answer


def _page_in(body: bytes, page: int) -> ProfilePage:
    """Return the page in a body; `page` is its number if it does not say.

    Raises:
        MsgspecError: It is no JSON, or a field has another type.
        ValueError: It is no JSON, or a number is none.
    """
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
    """Return what a body says of its page, and its results; the errors are those of `_page_in`."""
    try:
        return _decode_envelope(body)
    except msgspec.ValidationError:
        raise
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # JSON that msgspec refuses: half a surrogate pair, a raw control character, depth
    fields = dict(members(body.decode("utf-8", "surrogateescape")))
    told = {name: parsed_json(text) for name, text in fields.items() if name != "results"}
    if "results" in fields:
        found = items(fields["results"])
        told["results"] = [msgspec.Raw(one.encode("utf-8", "surrogateescape")) for one in found]
    return msgspec.convert(told, _Envelope)


def is_profile(result: bytes) -> bool:
    """Tell whether a result is a profile: an object with a `$distinct_id`.

    Its `$properties` are an object, null or missing.
    """
    try:
        profile = _decode_profile(result)
        return bytes(profile.distinct_id) != b"null"
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        fields = dict(members(result.decode("utf-8", "surrogateescape")))
    except ValueError:
        return False
    has_properties = fields.get("$properties", "null").startswith(("{", "null"))
    return fields.get("$distinct_id", "null") != "null" and has_properties


def _require_asked(answer: ProfilePage, asked: str, page: int, session_id: str | None) -> None:
    """Raise `IncompleteExportError` if the answer says that it is another page."""
    if answer.page != page:
        reason = f"the answer says it is page {answer.page}"
    elif page and answer.session_id not in (None, session_id):
        reason = "the answer names another session"
    else:
        return
    raise IncompleteExportError(f"{asked}: {reason}. Nothing of it was stored.", reason=reason)


def _json(value: object) -> str | None:
    return None if value is None else json.dumps(value)


def _not_a_page(
    asked: str, body: bytes, error: Exception, credentials: Credentials
) -> IncompleteExportError:
    said = disguised_error(parsed(body), credentials)
    reason = f"the answer is an error: {said}" if said else f"the answer {_what_is_odd(error)}"
    return IncompleteExportError(f"{asked}: {reason}. Nothing of it was stored.", reason=reason)


def _what_is_odd(error: Exception) -> str:
    """Say which field is wrong, by its type: the value may be data of users."""
    if found := _WRONG_TYPE.search(str(error)):
        expected, came, field = found.groups()
        of_field = f"its `{field}` is" if field else "it is"
        # Numbers that are sent as text are read, but a number is what it should be.
        wanted = "text" if field == "session_id" else _kind(expected.split(" | ")[0])
        return f"is no page: {of_field} {_kind(came)}, not {wanted}"
    if "missing required field" in str(error):
        return "is no page: it has no `results`"
    if str(error).startswith("its `"):
        return f"is no page: {error}"
    return "is not a whole page of JSON"


def _kind(json_type: str) -> str:
    return _KINDS.get(json_type, json_type)
