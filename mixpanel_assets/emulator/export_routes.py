"""The raw export: `GET /api/2.0/export`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import date, timedelta

from mixpanel_assets.emulator.expressions import Evaluate, ExpressionError, Scope, matches
from mixpanel_assets.emulator.inbound import Inbound, Response
from mixpanel_assets.emulator.sample import EVENT_NAMES
from mixpanel_assets.emulator.truth import has_time
from mixpanel_assets.emulator.wire import damage

MOST_ROWS = 100_000  # documented maximum of `limit`


def export(inbound: Inbound) -> Response:
    """Stream the events of the requested days, one JSON object per line."""
    days = _days(inbound)
    event_names = _names(inbound)
    where = inbound.expression("where")
    limit = inbound.integer("limit", 0)
    if limit > MOST_ROWS:
        raise inbound.shape.refuse(400, f"limit cannot be over {MOST_ROWS}")
    in_ms = inbound.flag("time_in_ms")
    if (fault := inbound.faulty("missing-days")) and (first_missing := fault.day):
        days = [day for day in days if day < first_missing]
    if inbound.faulty("empty-200"):
        blocks: Iterable[list[bytes]] = ()
    else:
        blocks = inbound.state.export(days, time_in_ms=in_ms)
    if event_names is not None or where is not None:
        if where is not None:
            _check(inbound, where)
        blocks = _filter(inbound, blocks, event_names, where, in_ms)
    if limit:
        blocks = _limit(blocks, limit)
    return Response(
        200, damage(blocks, inbound.fault), inbound.settings.export_content_type, gzip_allowed=True
    )


def _days(inbound: Inbound) -> list[date]:
    days = inbound.range()
    if days[-1] > inbound.state.today():
        raise inbound.shape.refuse(400, "to_date cannot be later than today")
    max_days = inbound.settings.export_max_days
    if max_days is not None and len(days) > max_days:
        raise inbound.shape.refuse(400, f"date range cannot be longer than {max_days} days")
    check_history(inbound, days[0])
    # Days without data need no search.
    return [day for day in days if inbound.state.holds(day)]


def check_history(inbound: Inbound, first: date) -> None:
    """Refuse dates before the history of the plan."""
    max_days = inbound.settings.history_days
    if max_days is not None and first < inbound.state.today() - timedelta(days=max_days):
        raise inbound.shape.refuse(403, f"Date range exceeds {max_days} days into the past")


def _names(inbound: Inbound) -> set[str] | None:
    selector = inbound.params.get("event", "")
    if not selector:
        return None
    try:
        event_names = json.loads(selector)
    except ValueError:
        event_names = None
    if not isinstance(event_names, list) or not all(isinstance(name, str) for name in event_names):
        raise inbound.shape.refuse(400, f"Error in event selectors: invalid string: [{selector}]")
    known = EVENT_NAMES | inbound.state.received.names()
    if inbound.settings.unknown_event == "400" and not set(event_names) <= known:
        raise inbound.shape.refuse(400, f"Error in event selectors: unknown event: [{selector}]")
    return set(event_names)


def _check(inbound: Inbound, where: Evaluate) -> None:
    """Refuse a filter with incompatible types before the status 200 is sent."""
    try:
        where(Scope({}))
    except ExpressionError as error:
        raise inbound.shape.refuse(400, f"Error in where: {error}") from None


def _filter(
    inbound: Inbound,
    blocks: Iterable[list[bytes]],
    event_names: set[str] | None,
    where: Evaluate | None,
    in_ms: bool,
) -> Iterator[list[bytes]]:
    for block in blocks:
        yield [line for line in block if _passes(inbound, line, event_names, where, in_ms)]


def _passes(
    inbound: Inbound, line: bytes, event_names: set[str] | None, where: Evaluate | None, in_ms: bool
) -> bool:
    served_record = json.loads(line)
    if event_names is not None and served_record["event"] not in event_names:
        return False
    if where is None:
        return True
    properties = served_record["properties"]
    if in_ms and has_time(served_record):
        properties["time"] /= 1000
    try:
        identity = properties.get("distinct_id")
        person = inbound.state.person(None if identity is None else str(identity))
        return matches(where, Scope(properties, person, event=served_record["event"]))
    except ExpressionError:
        return False


def _limit(blocks: Iterable[list[bytes]], limit: int) -> Iterator[list[bytes]]:
    for block in blocks:
        yield block[:limit]
        limit -= min(limit, len(block))
        if not limit:
            return
