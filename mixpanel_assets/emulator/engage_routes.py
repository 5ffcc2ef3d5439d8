"""Profiles: `engage` with sessions and pages, its statistics, and cohorts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from mixpanel_assets.emulator.call import Call, Response, json_response
from mixpanel_assets.emulator.expressions import Evaluate, ExpressionError, Scope, matches
from mixpanel_assets.emulator.profiles import COHORTS, Cohort, Profile
from mixpanel_assets.emulator.state import Session

MOST_WITHOUT_MOMENT = 1000  # more results with `behaviors` need `as_of_timestamp`, as documented
EMPTY_SESSION = "invalid session_id"


def engage(call: Call) -> Response:
    """Return one page of profiles."""
    page = call.integer("page", 0)
    if page < 0:
        raise call.shape.refuse(400, "page must not be negative")
    session_id = call.params.get("session_id", "")
    if page and not session_id:
        raise call.shape.refuse(400, "session_id is required when page is above 0")
    if session_id:
        session = _known_session(call, session_id)
    else:
        matching = () if call.faulty("no-profiles") else _results(call)
        # `limit` is undocumented; `total` is still the number of all matching profiles.
        results = matching[: call.integer("limit", len(matching))]
        session_id = call.state.open_session(results, _page_size(call), total=len(matching))
        session = call.state.sessions[session_id]
    return _page(call, session, session_id, page)


def _known_session(call: Call, session_id: str) -> Session:
    session = call.state.session(session_id)
    fault = call.faulty("session-expired")
    if session is None or fault:
        # The real body is not known.
        raise call.shape.refuse(400, (fault and fault.text) or EMPTY_SESSION)
    return session


def _page_size(call: Call) -> int:
    settings = call.settings
    return max(1, call.integer("page_size", settings.page_size, settings.max_page_size))


def _page(call: Call, session: Session, session_id: str, page: int) -> Response:
    start = _page_to_send(call, page) * session.page_size
    results = session.results[start : start + session.page_size]
    total = session.total
    if fault := call.faulty("short-page"):
        results = results[: fault.position(len(results))]
    if call.faulty("missing-page"):
        results = []
    if total_fault := call.faulty("total-changes"):
        total += total_fault.count
    body: dict[str, Any] = {
        "page": page,
        "page_size": session.page_size,
        "session_id": session_id,
        "status": "ok",
        "results": _contents(call, results),
    }
    with_total = page == 0 or call.settings.total_on_later_pages or total_fault
    if with_total and not call.faulty("no-total"):
        body["total"] = len(results) if call.settings.total_is_payload else total
    if call.settings.numbers_as_text:
        numbers = body.keys() & {"page", "page_size", "total"}
        body |= {name: str(body[name]) for name in numbers}
    if call.settings.computed_at:
        body["computed_at"] = call.state.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")
    return json_response(body)


def _page_to_send(call: Call, page: int) -> int:
    if fault := call.faulty("other-page"):
        return max(page - 1, 0) if fault.at is None else fault.at
    return page


def _contents(call: Call, results: Sequence[Profile]) -> list[dict[str, Any]]:
    wanted = call.json("output_properties", list)
    shown = []
    for profile in results:
        identity = profile["$distinct_id"]
        properties = profile["$properties"]
        if call.settings.numeric_ids_as_numbers and identity.isdecimal():
            identity = int(identity)
        if wanted is not None and properties is not None:
            properties = {name: properties[name] for name in wanted if name in properties}
        shown.append({"$distinct_id": identity, "$properties": properties})
    return shown


def _results(call: Call) -> Sequence[Profile]:
    """Return the profiles that match all filters."""
    call.reject("search")
    profiles = _all(call)
    if call.params.get("distinct_id"):
        wanted = {call.params["distinct_id"]}
        profiles = [profile for profile in profiles if profile["$distinct_id"] in wanted]
    if (several := call.json("distinct_ids", list)) is not None:
        wanted = {str(identity) for identity in several}
        profiles = [profile for profile in profiles if profile["$distinct_id"] in wanted]
    profiles = _cohort_members(call, profiles)
    where = call.expression("where")
    behaviors = call.json("behaviors", list)
    call.reject_both("behaviors", "filter_by_cohort")
    if behaviors is not None and where is None:
        raise call.shape.refuse(400, "behaviors needs a where that uses them")
    if where is not None:
        seen = _behaviors(call, behaviors or [])
        profiles = [profile for profile in profiles if _passes(call, where, profile, seen)]
    if behaviors and len(profiles) > MOST_WITHOUT_MOMENT and not call.params.get("as_of_timestamp"):
        raise call.shape.refuse(400, "request for page in uncached query for params")
    return _sort(call, profiles)


def _all(call: Call) -> Sequence[Profile]:
    """Return the profiles of users, or of a group, that the data view contains."""
    profiles = call.state.profiles(call.params.get("data_group_id") or None)
    view = call.data_view
    if view is None:
        return profiles
    return [profile for profile in profiles if _passes(call, view, profile, {})]


def _cohort_members(call: Call, profiles: Sequence[Profile]) -> Sequence[Profile]:
    chosen = call.json("filter_by_cohort", dict)
    if chosen is None:
        return profiles
    # Some clients send the number as text.
    wanted = str(chosen.get("id"))
    cohort = next((cohort for cohort in COHORTS if str(cohort.id) == wanted), None)
    if cohort is None:
        raise call.shape.refuse(400, f"cohort {wanted} does not exist")
    members = [profile for profile in profiles if cohort.holds(profile)]
    if call.flag("include_all_users", default=True):
        members += [
            {"$distinct_id": identity, "$properties": {}} for identity in cohort.without_profile
        ]
    return members


def _passes(call: Call, where: Evaluate, profile: Profile, seen: dict[str, dict[str, int]]) -> bool:
    properties = profile["$properties"] or {}
    identity = profile["$distinct_id"]
    behaviors = {name: counts.get(identity, 0) for name, counts in seen.items()}
    try:
        return matches(where, Scope(properties, properties, behaviors))
    except ExpressionError as error:
        raise call.shape.refuse(400, f"Error in where: {error}") from None


def _behaviors(call: Call, wanted: list[Any]) -> dict[str, dict[str, int]]:
    """Return, by behavior and user, the number of events in the behavior's window."""
    seconds = call.integer("as_of_timestamp", 0)
    as_of = datetime.fromtimestamp(seconds, UTC) if seconds else None
    counts: dict[str, dict[str, int]] = {}
    for behavior in wanted:
        try:
            days = int(str(behavior["window"]).removesuffix("d"))
            names = {selector["event"] for selector in behavior["event_selectors"]}
            counts[behavior["name"]] = call.reports.events_per_user(names, days, as_of)
        except (KeyError, TypeError, ValueError):
            raise call.shape.refuse(400, "invalid behaviors") from None
    return counts


def _sort(call: Call, profiles: Sequence[Profile]) -> Sequence[Profile]:
    key = call.expression("sort_key")
    if key is None:
        return profiles

    def rank(profile: Profile) -> str:
        return str(key(Scope(profile["$properties"] or {})))

    return sorted(profiles, key=rank, reverse=call.params.get("sort_order") == "descending")


def engage_properties(call: Call) -> Response:
    """Return the profile properties with their counts and types."""
    properties: dict[str, dict[str, Any]] = {}
    for profile in _all(call):
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


def engage_stats(call: Call) -> Response:
    """Return the number of profiles that match `selector`."""
    action = call.params.get("action", "count()")
    if action != "count()":
        raise call.shape.refuse(400, f"unsupported action: {action}")
    call.reject("segment_by_cohorts", "as_of_timestamp")
    where = call.expression("selector")
    profiles = _cohort_members(call, _all(call))
    if where is not None:
        profiles = [profile for profile in profiles if _passes(call, where, profile, {})]
    moment = call.state.clock.now().isoformat()
    return json_response({"status": "ok", "results": len(profiles), "computed_at": moment})


def cohorts_list(call: Call) -> Response:
    """Return the saved cohorts as an array without an envelope."""
    profiles = _all(call)
    return json_response([_description(call, cohort, profiles) for cohort in COHORTS])


def _description(call: Call, cohort: Cohort, profiles: Sequence[Profile]) -> dict[str, Any]:
    members = sum(1 for profile in profiles if cohort.holds(profile))
    return {
        "count": members + len(cohort.without_profile),
        "is_visible": int(cohort.visible),
        "description": cohort.description,
        "created": cohort.created,
        "project_id": call.settings.project_id,
        "id": cohort.id,
        "name": cohort.name,
        "data_group_id": None,
    }
