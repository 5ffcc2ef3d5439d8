"""Counts of the Query API: segmentation and events."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import date
from math import floor, log10
from typing import Any

from mixpanel_assets.emulator.call import Call, Response, json_response
from mixpanel_assets.emulator.export_routes import check_history
from mixpanel_assets.emulator.expressions import Evaluate, is_number
from mixpanel_assets.emulator.journeys import JOURNEY_HANDLERS
from mixpanel_assets.emulator.reports import ReportEvent, Selection, Table, buckets, label, top

KINDS = ("general", "unique", "average")
RECENT_DAYS = 31  # `events/names` and property lists look back 31 days
OWN_FIELDS = ("time", "distinct_id", "$insert_id")
WITHOUT_COUNT = "$duration_s"  # computed at query time, so it has no count in the response
VALUE_BUCKETS = 10


def _selection(call: Call, *names: str) -> Selection:
    days = call.range()
    check_history(call, days[0])
    return Selection(days, frozenset(names), call.expression("where"))


def _unit(call: Call, *allowed: str) -> str:
    return call.choice("unit", "day", *allowed)


def _kind(call: Call, unit: str) -> str:
    kind = call.choice("type", "general", *KINDS)
    if kind == "unique" and unit in ("minute", "hour"):
        raise call.shape.refuse(400, f"unique counts by {unit} do not exist")
    return kind


def _reorder(series: list[str]) -> list[str]:
    """Return dates out of order, as the official API does: clients have to sort."""
    return series[len(series) // 2 :] + series[: len(series) // 2]


def _table(call: Call, values: Table, series: list[str]) -> Response:
    if call.choice("format", "json", "json", "csv") == "csv":
        return _csv(values, series)
    data = {"series": _reorder(series), "values": values}
    return json_response({"data": data, "legend_size": len(values)})


def _csv(values: Table, series: list[str]) -> Response:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["date", *values])
    for where in series:
        writer.writerow([where, *(row.get(where, 0) for row in values.values())])
    return Response(200, text.getvalue().encode(), "text/csv")


def segmentation(call: Call) -> Response:
    """Return counts of one event by date, and by a property when `on` is given."""
    name = call.need("event")
    # The documentation allows it in place of `unit`, but the names of such buckets are not known.
    call.reject("interval")
    weeks = ("week",) if call.settings.segmentation_weeks else ()
    unit = _unit(call, "minute", "hour", "day", *weeks, "month")
    kind = _kind(call, unit)
    selection = _selection(call, name)
    on = call.expression("on")
    series = buckets(selection.days, unit)
    values = call.reports.count(selection, _keys(on, name), unit=unit, kind=kind)
    if on is None:
        # Without a breakdown, the response has the event even if its counts are 0.
        row = values.get(name, {})
        values = {name: {where: row.get(where, 0) for where in series}}
    else:
        values = top(values, call.integer("limit", 60, 10_000))
    return _table(call, values, series)


def _keys(on: Evaluate | None, name: str) -> Callable[[ReportEvent], list[str]]:
    if on is None:
        return lambda event: [name]
    return lambda event: _labels(on(event.scope))


def _labels(value: Any) -> list[str]:
    """Return the keys of a value; each member of a list is a key."""
    return [label(item) for item in value] if isinstance(value, list) else [label(value)]


def _numeric_on(call: Call) -> Evaluate:
    call.need("on")
    on = call.expression("on")
    assert on is not None
    return on


def segmentation_numeric(call: Call) -> Response:
    """Return counts by ranges of a number, without empty ranges and dates."""
    name, on = call.need("event"), _numeric_on(call)
    unit = _unit(call, "hour", "day")
    kind = call.choice("type", "general", *KINDS)
    selection = _selection(call, name)
    values_of_on = [on(event.scope) for event in call.reports.events(selection)]
    low, width = _scale([value for value in values_of_on if is_number(value)])

    def keys(event: ReportEvent) -> list[str]:
        value = on(event.scope)
        if not is_number(value):
            return []
        start = low + floor((value - low) / width) * width
        return [f"{start:,} - {start + width:,}"]

    values = call.reports.count(selection, keys, unit=unit, kind=kind)
    return _table(call, values, buckets(selection.days, unit))


def _scale(numbers: list[float]) -> tuple[int, int]:
    """Return the start of the ranges and their width, which is a power of ten."""
    if not numbers:
        return 0, 1
    spread = max(max(numbers) - min(numbers), 1)
    width = int(max(1, 10 ** floor(log10(spread / VALUE_BUCKETS) + 0.5)))
    return floor(min(numbers) / width) * width, width


def segmentation_sum(call: Call) -> Response:
    """Return the sum of a number by date."""
    return _numbers(call, sum)


def segmentation_average(call: Call) -> Response:
    """Return the average of a number by date. Other values count as 0."""
    return _numbers(call, lambda values: sum(values) / len(values) if values else 0.0)


def _numbers(call: Call, combine: Callable[[list[float]], float]) -> Response:
    name, on = call.need("event"), _numeric_on(call)
    unit = _unit(call, "hour", "day")
    selection = _selection(call, name)
    numbers = call.reports.numbers(selection, on, unit)
    results = {
        where: float(combine(numbers.get(where, []))) for where in buckets(selection.days, unit)
    }
    moment = call.state.clock.now().isoformat()
    return json_response({"status": "ok", "computed_at": moment, "results": results})


def events(call: Call) -> Response:
    """Return counts of several events by date, without dates that have no events."""
    names = call.json("event", list)
    if names is None:
        raise call.shape.refuse(400, "event is a required parameter")
    unit = _unit(call, "minute", "hour", "day", "week", "month")
    kind = _kind(call, unit)
    days = _days(call, unit)
    values = call.reports.count(
        Selection(days, frozenset(names)), lambda event: [event.event], unit=unit, kind=kind
    )
    return _table(call, values, buckets(days, unit))


def _days(call: Call, unit: str) -> list[date]:
    """Return the days of `interval` units up to today, or of the requested range."""
    call.reject_both("interval", "from_date")
    call.reject_both("interval", "to_date")
    if call.params.get("interval"):
        width = {"week": 7, "month": 30}.get(unit, 1)
        count = call.integer("interval", 1)
        if unit in ("minute", "hour"):
            count = count // (1440 if unit == "minute" else 24) + 1
        return call.reports.recent_days(max(1, count * width))
    days = call.range()
    check_history(call, days[0])
    return days


def events_top(call: Call) -> Response:
    """Return today's counts, and their change since yesterday."""
    kind = call.choice("type", "general", *KINDS)
    yesterday, today = call.reports.recent_days(2)
    table = call.reports.count(
        Selection([yesterday, today]), lambda event: [event.event], unit="day", kind=kind
    )
    amounts = {name: row.get(today.isoformat(), 0) for name, row in table.items()}
    rows = []
    for name in sorted(amounts, key=lambda name: (-amounts[name], name)):
        before = table[name].get(yesterday.isoformat(), 0)
        change = (amounts[name] - before) / before if before else 1.0
        rows.append({"amount": int(amounts[name]), "event": name, "percent_change": change})
    return json_response({"events": rows[: call.integer("limit", 100)], "type": kind})


def events_names(call: Call) -> Response:
    """Return the names of the most common events of the last 31 days."""
    kind = call.choice("type", "general", *KINDS)
    days = call.reports.recent_days(RECENT_DAYS)
    if call.params.get("from_date") or call.params.get("to_date"):
        days = call.range(to_default=call.reports.today())
        if days[0].year < 2000:
            raise call.shape.refuse(400, "bad year")
        check_history(call, days[0])
    table = call.reports.count(Selection(days), lambda event: [event.event], unit="all", kind=kind)
    return json_response(list(top(table, call.integer("limit", 255, 5000))))


def events_properties(call: Call) -> Response:
    """Return counts of one event by the values of one property."""
    event, name = call.need("event"), call.need("name")
    wanted = call.json("values", list)
    unit = _unit(call, "minute", "hour", "day", "week", "month")
    kind = _kind(call, unit)
    days = _days(call, unit)

    def keys(found: ReportEvent) -> list[str]:
        if name not in found.properties:
            return []
        labels = _labels(found.properties[name])
        return [text for text in labels if wanted is None or text in wanted]

    selection = Selection(days, frozenset([event]), call.expression("where"))
    values = call.reports.count(selection, keys, unit=unit, kind=kind)
    return _table(call, top(values, call.integer("limit", 255)), buckets(days, unit))


def _one_or_all(call: Call) -> frozenset[str] | None:
    """Return the requested event. Without one, clients in production get all events."""
    if call.settings.properties_without_event == "400":
        call.need("event")
    return call.event_names()


def events_properties_top(call: Call) -> Response:
    """Return the most common properties. A property computed at query time has no count."""
    counts: Counter[str] = Counter()
    selection = Selection(call.reports.recent_days(RECENT_DAYS), _one_or_all(call))
    for event in call.reports.events(selection):
        counts.update(name for name in event.properties if name not in OWN_FIELDS)
    limit = call.integer("limit", 10)
    properties: dict[str, dict[str, int]] = {
        name: {"count": count} for name, count in counts.most_common(max(limit - 1, 0))
    }
    if counts and limit > 0:
        properties[WITHOUT_COUNT] = {}
    return json_response(properties)


def events_properties_values(call: Call) -> Response:
    """Return the most common values of one property, as text."""
    name = call.need("name")
    counts: dict[str, int] = defaultdict(int)
    selection = Selection(call.reports.recent_days(RECENT_DAYS), _one_or_all(call))
    for event in call.reports.events(selection):
        if name in event.properties:
            for text in _labels(event.properties[name]):
                counts[text] += 1
    ranked = sorted(counts, key=lambda text: (-counts[text], text))
    return json_response(ranked[: call.integer("limit", 255)])


QUERY_HANDLERS: dict[str, Callable[[Call], Response]] = {
    "segmentation": segmentation,
    "segmentation/numeric": segmentation_numeric,
    "segmentation/sum": segmentation_sum,
    "segmentation/average": segmentation_average,
    "events": events,
    "events/top": events_top,
    "events/names": events_names,
    "events/properties": events_properties,
    "events/properties/top": events_properties_top,
    "events/properties/values": events_properties_values,
    **JOURNEY_HANDLERS,
}
