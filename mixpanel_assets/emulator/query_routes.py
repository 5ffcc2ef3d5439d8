"""Counts of the Query API: segmentation and events."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable
from datetime import date
from math import floor, log10
from typing import Any

from mixpanel_assets.emulator.export_routes import check_history
from mixpanel_assets.emulator.expressions import Evaluate, is_number
from mixpanel_assets.emulator.inbound import Inbound, Response, json_response
from mixpanel_assets.emulator.journeys import JOURNEY_HANDLERS
from mixpanel_assets.emulator.reports import ReportEvent, Selection, Table, buckets, label, top

KINDS = ("general", "unique", "average")
RECENT_DAYS = 31  # `events/names` and property lists look back 31 days
OWN_FIELDS = ("time", "distinct_id", "$insert_id")
WITHOUT_COUNT = "$duration_s"  # computed at query time, so it has no count in the response
VALUE_BUCKETS = 10


def _selection(inbound: Inbound, *names: str) -> Selection:
    days = inbound.range()
    check_history(inbound, days[0])
    return Selection(days, frozenset(names), inbound.expression("where"))


def _unit(inbound: Inbound, *allowed: str) -> str:
    return inbound.choice("unit", "day", *allowed)


def _kind(inbound: Inbound, unit: str) -> str:
    kind = inbound.choice("type", "general", *KINDS)
    if kind == "unique" and unit in ("minute", "hour"):
        raise inbound.shape.refuse(400, f"unique counts by {unit} do not exist")
    return kind


def _reorder(series: list[str]) -> list[str]:
    """Return dates out of order, as the official API does: clients have to sort."""
    return series[len(series) // 2 :] + series[: len(series) // 2]


def _table(inbound: Inbound, values: Table, series: list[str]) -> Response:
    if inbound.choice("format", "json", "json", "csv") == "csv":
        return _csv(values, series)
    data = {"series": _reorder(series), "values": values}
    return json_response({"data": data, "legend_size": len(values)})


def _csv(values: Table, series: list[str]) -> Response:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["date", *values])
    for bucket_key in series:
        writer.writerow([bucket_key, *(row.get(bucket_key, 0) for row in values.values())])
    return Response(200, text.getvalue().encode(), "text/csv")


def segmentation(inbound: Inbound) -> Response:
    """Return counts of one event by date, and by a property when `on` is given."""
    name = inbound.need("event")
    # The documentation allows it in place of `unit`, but the names of such buckets are not known.
    inbound.reject("interval")
    weeks = ("week",) if inbound.settings.segmentation_weeks else ()
    unit = _unit(inbound, "minute", "hour", "day", *weeks, "month")
    kind = _kind(inbound, unit)
    selection = _selection(inbound, name)
    on = inbound.expression("on")
    series = buckets(selection.days, unit)
    values = inbound.reports.count(selection, _keys(on, name), unit=unit, kind=kind)
    if on is None:
        # Without a breakdown, the response has the event even if its counts are 0.
        row = values.get(name, {})
        values = {name: {bucket_key: row.get(bucket_key, 0) for bucket_key in series}}
    else:
        values = top(values, inbound.integer("limit", 60, 10_000))
    return _table(inbound, values, series)


def _keys(on: Evaluate | None, name: str) -> Callable[[ReportEvent], list[str]]:
    if on is None:
        return lambda event: [name]
    return lambda event: _labels(on(event.scope))


def _event_name(event: ReportEvent) -> list[str]:
    return [event.event]


def _labels(value: Any) -> list[str]:
    """Return the keys of a value; each member of a list is a key."""
    return [label(item) for item in value] if isinstance(value, list) else [label(value)]


def _numeric_on(inbound: Inbound) -> Evaluate:
    inbound.need("on")
    on = inbound.expression("on")
    assert on is not None
    return on


def segmentation_numeric(inbound: Inbound) -> Response:
    """Return counts by ranges of a number, without empty ranges and dates."""
    name, on = inbound.need("event"), _numeric_on(inbound)
    unit = _unit(inbound, "hour", "day")
    kind = inbound.choice("type", "general", *KINDS)
    selection = _selection(inbound, name)
    values_of_on = [on(event.scope) for event in inbound.reports.events(selection)]
    low, width = _scale([value for value in values_of_on if is_number(value)])

    def keys(event: ReportEvent) -> list[str]:
        value = on(event.scope)
        if not is_number(value):
            return []
        start = low + floor((value - low) / width) * width
        return [f"{start:,} - {start + width:,}"]

    values = inbound.reports.count(selection, keys, unit=unit, kind=kind)
    return _table(inbound, values, buckets(selection.days, unit))


def _scale(numbers: list[float]) -> tuple[int, int]:
    """Return the start of the ranges and their width, which is a power of ten."""
    if not numbers:
        return 0, 1
    spread = max(max(numbers) - min(numbers), 1)
    width = int(max(1, 10 ** floor(log10(spread / VALUE_BUCKETS) + 0.5)))
    return floor(min(numbers) / width) * width, width


def segmentation_sum(inbound: Inbound) -> Response:
    """Return the sum of a number by date."""
    return _numbers(inbound, sum)


def segmentation_average(inbound: Inbound) -> Response:
    """Return the average of a number by date. Other values count as 0."""
    return _numbers(inbound, lambda values: sum(values) / len(values) if values else 0.0)


def _numbers(inbound: Inbound, combine: Callable[[list[float]], float]) -> Response:
    name, on = inbound.need("event"), _numeric_on(inbound)
    unit = _unit(inbound, "hour", "day")
    selection = _selection(inbound, name)
    numbers = inbound.reports.numbers(selection, on, unit)
    keys = buckets(selection.days, unit)
    results = {bucket_key: float(combine(numbers.get(bucket_key, []))) for bucket_key in keys}
    moment = inbound.state.clock.now().isoformat()
    return json_response({"status": "ok", "computed_at": moment, "results": results})


def events(inbound: Inbound) -> Response:
    """Return counts of several events by date, without dates that have no events."""
    names = inbound.json("event", list)
    if names is None:
        raise inbound.shape.refuse(400, "event is a required parameter")
    unit = _unit(inbound, "minute", "hour", "day", "week", "month")
    kind = _kind(inbound, unit)
    days = _days(inbound, unit)
    lies = inbound.reports.lies

    def keys(event: ReportEvent) -> list[str]:
        return [name for name in lies.names_of(event.event) if name in names]

    selection = Selection(days, lies.names_in(names))
    values = inbound.reports.count(selection, keys, unit=unit, kind=kind)
    if unit == "day" and kind == "general":
        for name, day, count in lies.additions(days):
            if name in names:
                row = values.setdefault(name, {})
                row[day.isoformat()] = max(row.get(day.isoformat(), 0) + count, 0)
    return _table(inbound, values, buckets(days, unit))


def _days(inbound: Inbound, unit: str) -> list[date]:
    """Return the days of `interval` units up to today, or of the requested range."""
    inbound.reject_both("interval", "from_date")
    inbound.reject_both("interval", "to_date")
    if inbound.params.get("interval"):
        width = {"week": 7, "month": 30}.get(unit, 1)
        count = inbound.integer("interval", 1)
        if unit in ("minute", "hour"):
            count = count // (1440 if unit == "minute" else 24) + 1
        return inbound.reports.recent_days(max(1, count * width))
    days = inbound.range()
    check_history(inbound, days[0])
    return days


def events_top(inbound: Inbound) -> Response:
    """Return today's counts, and their change since yesterday."""
    kind = inbound.choice("type", "general", *KINDS)
    yesterday, today = inbound.reports.recent_days(2)
    both_days = Selection([yesterday, today])
    table = inbound.reports.count(both_days, _event_name, unit="day", kind=kind)
    amounts = {name: row.get(today.isoformat(), 0) for name, row in table.items()}
    rows = []
    for name in sorted(amounts, key=lambda name: (-amounts[name], name)):
        count_yesterday = table[name].get(yesterday.isoformat(), 0)
        change = (amounts[name] - count_yesterday) / count_yesterday if count_yesterday else 1.0
        rows.append({"amount": int(amounts[name]), "event": name, "percent_change": change})
    return json_response({"events": rows[: inbound.integer("limit", 100)], "type": kind})


def events_names(inbound: Inbound) -> Response:
    """Return the names of the most common events of the last 31 days."""
    kind = inbound.choice("type", "general", *KINDS)
    days = inbound.reports.recent_days(RECENT_DAYS)
    if inbound.params.get("from_date") or inbound.params.get("to_date"):
        days = inbound.range(to_default=inbound.reports.today())
        if days[0].year < 2000:
            raise inbound.shape.refuse(400, "bad year")
        check_history(inbound, days[0])
    lies = inbound.reports.lies
    table = inbound.reports.count(
        Selection(days), lambda event: lies.names_of(event.event), unit="all", kind=kind
    )
    names = [name for name in top(table, len(table)) if lies.lists(name)]
    return json_response(names[: inbound.integer("limit", 255, 5000)])


def events_properties(inbound: Inbound) -> Response:
    """Return counts of one event by the values of one property."""
    event, name = inbound.need("event"), inbound.need("name")
    wanted = inbound.json("values", list)
    unit = _unit(inbound, "minute", "hour", "day", "week", "month")
    kind = _kind(inbound, unit)
    days = _days(inbound, unit)

    def keys(report_event: ReportEvent) -> list[str]:
        if name not in report_event.properties:
            return []
        labels = _labels(report_event.properties[name])
        return [text for text in labels if wanted is None or text in wanted]

    selection = Selection(days, frozenset([event]), inbound.expression("where"))
    values = inbound.reports.count(selection, keys, unit=unit, kind=kind)
    return _table(inbound, top(values, inbound.integer("limit", 255)), buckets(days, unit))


def _one_or_all(inbound: Inbound) -> frozenset[str] | None:
    """Return the requested event. Without one, clients in production get all events."""
    if inbound.settings.properties_without_event == "400":
        inbound.need("event")
    return inbound.event_names()


def events_properties_top(inbound: Inbound) -> Response:
    """Return the most common properties. A property computed at query time has no count."""
    counts: Counter[str] = Counter()
    selection = Selection(inbound.reports.recent_days(RECENT_DAYS), _one_or_all(inbound))
    for event in inbound.reports.events(selection):
        counts.update(name for name in event.properties if name not in OWN_FIELDS)
    limit = inbound.integer("limit", 10)
    common = counts.most_common(max(limit - 1, 0))
    properties: dict[str, dict[str, int]] = {name: {"count": count} for name, count in common}
    if counts and limit > 0:
        properties[WITHOUT_COUNT] = {}
    return json_response(properties)


def events_properties_values(inbound: Inbound) -> Response:
    """Return the most common values of one property, as text."""
    name = inbound.need("name")
    counts: Counter[str] = Counter()
    selection = Selection(inbound.reports.recent_days(RECENT_DAYS), _one_or_all(inbound))
    for event in inbound.reports.events(selection):
        if name in event.properties:
            counts.update(_labels(event.properties[name]))
    ranked = sorted(counts, key=lambda label: (-counts[label], label))
    return json_response(ranked[: inbound.integer("limit", 255)])


QUERY_HANDLERS: dict[str, Callable[[Inbound], Response]] = {
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
