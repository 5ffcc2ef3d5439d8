"""Profiles: `engage` with sessions and pages, its statistics, and cohorts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from mixpanel_assets.emulator.expressions import Evaluate, ExpressionError, Scope, matches
from mixpanel_assets.emulator.inbound import Inbound, Response, json_response
from mixpanel_assets.emulator.profiles import COHORTS, Cohort, Profile
from mixpanel_assets.emulator.state import Session

MOST_WITHOUT_MOMENT = 1000  # more results with `behaviors` need `as_of_timestamp`, as documented
EMPTY_SESSION = "invalid session_id"
Counts = dict[str, dict[str, int]]  # by behavior, then by user


def engage(inbound: Inbound) -> Response:
    """Return one page of profiles."""
    page = inbound.integer("page", 0)
    if page < 0:
        raise inbound.shape.refuse(400, "page must not be negative")
    session_id = inbound.params.get("session_id", "")
    if page and not session_id:
        raise inbound.shape.refuse(400, "session_id is required when page is above 0")
    if session_id:
        session = _known_session(inbound, session_id)
    else:
        matching = () if inbound.faulty("no-profiles") else _results(inbound)
        # `limit` is undocumented; `total` is still the number of all matching profiles.
        results = matching[: inbound.integer("limit", len(matching))]
        session_id = inbound.state.open_session(results, _page_size(inbound), total=len(matching))
        session = inbound.state.sessions[session_id]
    return _page(inbound, session, session_id, page)


def _known_session(inbound: Inbound, session_id: str) -> Session:
    session = inbound.state.session(session_id)
    fault = inbound.faulty("session-expired")
    if session is None or fault:
        # The real body is not known.
        raise inbound.shape.refuse(400, (fault and fault.text) or EMPTY_SESSION)
    return session


def _page_size(inbound: Inbound) -> int:
    settings = inbound.settings
    return max(1, inbound.integer("page_size", settings.page_size, settings.max_page_size))


def _page(inbound: Inbound, session: Session, session_id: str, page: int) -> Response:
    start = _page_to_send(inbound, page) * session.page_size
    results = session.results[start : start + session.page_size]
    total = session.total
    if fault := inbound.faulty("short-page"):
        results = results[: fault.position(len(results))]
    if inbound.faulty("missing-page"):
        results = []
    if total_fault := inbound.faulty("total-changes"):
        total += total_fault.count
    body: dict[str, Any] = {
        "page": page,
        "page_size": session.page_size,
        "session_id": session_id,
        "status": "ok",
        "results": _contents(inbound, results),
    }
    with_total = page == 0 or inbound.settings.total_on_later_pages or total_fault
    if with_total and not inbound.faulty("no-total"):
        body["total"] = len(results) if inbound.settings.total_is_payload else total
    if inbound.settings.numbers_as_text:
        numbers = body.keys() & {"page", "page_size", "total"}
        body |= {name: str(body[name]) for name in numbers}
    if inbound.settings.computed_at:
        body["computed_at"] = inbound.state.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")
    return json_response(body)


def _page_to_send(inbound: Inbound, page: int) -> int:
    if fault := inbound.faulty("other-page"):
        return max(page - 1, 0) if fault.at is None else fault.at
    return page


def _contents(inbound: Inbound, results: Sequence[Profile]) -> list[dict[str, Any]]:
    output_properties = inbound.json("output_properties", list)
    sent_profiles = []
    for profile in results:
        identity = profile["$distinct_id"]
        properties = profile["$properties"]
        if inbound.settings.numeric_ids_as_numbers and identity.isdecimal():
            identity = int(identity)
        if output_properties is not None and properties is not None:
            names = [name for name in output_properties if name in properties]
            properties = {name: properties[name] for name in names}
        sent_profiles.append({"$distinct_id": identity, "$properties": properties})
    return sent_profiles


def _results(inbound: Inbound) -> Sequence[Profile]:
    """Return the profiles that match all filters."""
    inbound.reject("search")
    profiles = _all(inbound)
    if one_id := inbound.params.get("distinct_id"):
        profiles = [profile for profile in profiles if profile["$distinct_id"] == one_id]
    if (distinct_ids := inbound.json("distinct_ids", list)) is not None:
        requested_ids = set(map(str, distinct_ids))
        profiles = [profile for profile in profiles if profile["$distinct_id"] in requested_ids]
    profiles = _cohort_members(inbound, profiles)
    where = inbound.expression("where")
    behaviors = inbound.json("behaviors", list)
    inbound.reject_both("behaviors", "filter_by_cohort")
    if behaviors is not None and where is None:
        raise inbound.shape.refuse(400, "behaviors needs a where that uses them")
    if where is not None:
        seen = _behaviors(inbound, behaviors or [])
        profiles = [profile for profile in profiles if _passes(inbound, where, profile, seen)]
    has_moment = bool(inbound.params.get("as_of_timestamp"))
    if behaviors and len(profiles) > MOST_WITHOUT_MOMENT and not has_moment:
        raise inbound.shape.refuse(400, "request for page in uncached query for params")
    return _sort(inbound, profiles)


def _all(inbound: Inbound) -> Sequence[Profile]:
    """Return the profiles of users, or of a group, that the data view contains."""
    profiles = inbound.state.profiles(inbound.params.get("data_group_id") or None)
    view = inbound.data_view
    if view is None:
        return profiles
    return [profile for profile in profiles if _passes(inbound, view, profile, {})]


def _cohort_members(inbound: Inbound, profiles: Sequence[Profile]) -> Sequence[Profile]:
    cohort_filter = inbound.json("filter_by_cohort", dict)
    if cohort_filter is None:
        return profiles
    # Some clients send the number as text.
    cohort_id = str(cohort_filter.get("id"))
    cohort = next((cohort for cohort in COHORTS if str(cohort.id) == cohort_id), None)
    if cohort is None:
        raise inbound.shape.refuse(400, f"cohort {cohort_id} does not exist")
    members = [profile for profile in profiles if cohort.holds(profile)]
    ids = cohort.without_profile if inbound.flag("include_all_users", default=True) else ()
    return members + [{"$distinct_id": identity, "$properties": {}} for identity in ids]


def _passes(inbound: Inbound, where: Evaluate, profile: Profile, seen: Counts) -> bool:
    properties = profile["$properties"] or {}
    identity = profile["$distinct_id"]
    behaviors = {name: counts.get(identity, 0) for name, counts in seen.items()}
    try:
        return matches(where, Scope(properties, properties, behaviors))
    except ExpressionError as error:
        raise inbound.shape.refuse(400, f"Error in where: {error}") from None


def _behaviors(inbound: Inbound, wanted: list[Any]) -> Counts:
    """Return, by behavior and user, the number of events in the behavior's window."""
    seconds = inbound.integer("as_of_timestamp", 0)
    as_of = datetime.fromtimestamp(seconds, UTC) if seconds else None
    counts: Counts = {}
    for behavior in wanted:
        try:
            days = int(str(behavior["window"]).removesuffix("d"))
            names = {selector["event"] for selector in behavior["event_selectors"]}
            counts[behavior["name"]] = inbound.reports.events_per_user(names, days, as_of)
        except (KeyError, TypeError, ValueError):
            raise inbound.shape.refuse(400, "invalid behaviors") from None
    return counts


def _sort(inbound: Inbound, profiles: Sequence[Profile]) -> Sequence[Profile]:
    key = inbound.expression("sort_key")
    if key is None:
        return profiles

    def rank(profile: Profile) -> str:
        return str(key(Scope(profile["$properties"] or {})))

    return sorted(profiles, key=rank, reverse=inbound.params.get("sort_order") == "descending")


def engage_properties(inbound: Inbound) -> Response:
    """Return the profile properties with their counts and types."""
    properties: dict[str, dict[str, Any]] = {}
    for profile in _all(inbound):
        for name, value in (profile["$properties"] or {}).items():
            entry = properties.setdefault(name, {"count": 0, "type": _type(value)})
            entry["count"] += 1
    return json_response({"results": properties, "status": "ok"})


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list):
        return "list"
    if isinstance(value, dict):
        return "object"
    if isinstance(value, str) and len(value) == 19 and value[10:11] == "T":
        return "datetime"
    return "string"


def engage_stats(inbound: Inbound) -> Response:
    """Return the number of profiles that match `selector`."""
    action = inbound.params.get("action", "count()")
    if action != "count()":
        raise inbound.shape.refuse(400, f"unsupported action: {action}")
    inbound.reject("segment_by_cohorts", "as_of_timestamp")
    where = inbound.expression("selector")
    profiles = _cohort_members(inbound, _all(inbound))
    if where is not None:
        profiles = [profile for profile in profiles if _passes(inbound, where, profile, {})]
    moment = inbound.state.clock.now().isoformat()
    return json_response({"status": "ok", "results": len(profiles), "computed_at": moment})


def cohorts_list(inbound: Inbound) -> Response:
    """Return the saved cohorts as an array without an envelope."""
    profiles = _all(inbound)
    return json_response([_description(inbound, cohort, profiles) for cohort in COHORTS])


def _description(inbound: Inbound, cohort: Cohort, profiles: Sequence[Profile]) -> dict[str, Any]:
    members = sum(1 for profile in profiles if cohort.holds(profile))
    return {
        "count": members + len(cohort.without_profile),
        "is_visible": int(cohort.visible),
        "description": cohort.description,
        "created": cohort.created,
        "project_id": inbound.settings.project_id,
        "id": cohort.id,
        "name": cohort.name,
        "data_group_id": None,
    }


ENGAGE_HANDLERS: dict[str, Callable[[Inbound], Response]] = {
    "engage": engage,
    "engage/properties": engage_properties,
    "engage/stats": engage_stats,
    "cohorts/list": cohorts_list,
}
