"""The raw export: `GET /api/2.0/export`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import date, timedelta

from mixpanel_assets.emulator.call import Call, Response
from mixpanel_assets.emulator.expressions import Evaluate, ExpressionError, Scope, matches
from mixpanel_assets.emulator.sample import EVENT_NAMES
from mixpanel_assets.emulator.truth import has_time
from mixpanel_assets.emulator.wire import damage

MOST_ROWS = 100_000  # documented maximum of `limit`


def export(call: Call) -> Response:
    """Stream the events of the requested days, one JSON object per line."""
    days = _days(call)
    names = _names(call)
    where = call.expression("where")
    limit = call.integer("limit", 0)
    if limit > MOST_ROWS:
        raise call.shape.refuse(400, f"limit cannot be over {MOST_ROWS}")
    in_ms = call.flag("time_in_ms")
    if (fault := call.faulty("missing-days")) and (first_missing := fault.day):
        days = [day for day in days if day < first_missing]
    if call.faulty("empty-200"):
        blocks: Iterable[list[bytes]] = ()
    else:
        blocks = call.state.export(days, time_in_ms=in_ms)
    if names is not None or where is not None:
        if where is not None:
            _check(call, where)
        blocks = _filter(call, blocks, names, where, in_ms)
    if limit:
        blocks = _limit(blocks, limit)
    return Response(
        200,
        damage(blocks, call.fault),
        call.settings.export_content_type,
        gzip_allowed=True,
    )


def _days(call: Call) -> list[date]:
    days = call.range()
    if days[-1] > call.state.today():
        raise call.shape.refuse(400, "to_date cannot be later than today")
    most = call.settings.export_max_days
    if most is not None and len(days) > most:
        raise call.shape.refuse(400, f"date range cannot be longer than {most} days")
    check_history(call, days[0])
    # Days without data need no search.
    return [day for day in days if call.state.holds(day)]


def check_history(call: Call, first: date) -> None:
    """Refuse dates before the history of the plan."""
    most = call.settings.history_days
    if most is not None and first < call.state.today() - timedelta(days=most):
        raise call.shape.refuse(403, f"Date range exceeds {most} days into the past")


def _names(call: Call) -> set[str] | None:
    text = call.params.get("event", "")
    if not text:
        return None
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise call.shape.refuse(400, f"Error in event selectors: invalid string: [{text}]")
    known = EVENT_NAMES | call.state.received.names()
    if call.settings.unknown_event == "400" and not set(names) <= known:
        raise call.shape.refuse(400, f"Error in event selectors: unknown event: [{text}]")
    return set(names)


def _check(call: Call, where: Evaluate) -> None:
    """Refuse a filter with incompatible types before the status 200 is sent."""
    try:
        where(Scope({}))
    except ExpressionError as error:
        raise call.shape.refuse(400, f"Error in where: {error}") from None


def _filter(
    call: Call,
    blocks: Iterable[list[bytes]],
    names: set[str] | None,
    where: Evaluate | None,
    in_ms: bool,
) -> Iterator[list[bytes]]:
    for block in blocks:
        yield [line for line in block if _passes(call, line, names, where, in_ms)]


def _passes(
    call: Call, line: bytes, names: set[str] | None, where: Evaluate | None, in_ms: bool
) -> bool:
    record = json.loads(line)
    if names is not None and record["event"] not in names:
        return False
    if where is None:
        return True
    properties = record["properties"]
    if in_ms and has_time(record):
        properties["time"] /= 1000
    try:
        identity = properties.get("distinct_id")
        person = call.state.person(None if identity is None else str(identity))
        return matches(where, Scope(properties, person, event=record["event"]))
    except ExpressionError:
        return False


def _limit(blocks: Iterable[list[bytes]], limit: int) -> Iterator[list[bytes]]:
    for block in blocks:
        yield block[:limit]
        limit -= min(limit, len(block))
        if not limit:
            return
