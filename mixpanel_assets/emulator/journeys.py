"""Reports on sequences of events: funnels, retention, frequency, and their routes."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from mixpanel_assets.emulator.inbound import Inbound, Response, days_between, json_response
from mixpanel_assets.emulator.reports import ReportEvent, Selection, first_day, label

Times = dict[str, list[datetime]]

# Consecutive steps this close together count in either order (Mixpanel's Funnels FAQ).
GRACE = timedelta(seconds=2)


@dataclass(frozen=True)
class Funnel:
    """A saved funnel: events in this order, within a number of days."""

    id: int
    name: str
    steps: tuple[str, ...]
    days: int


FUNNELS = (
    Funnel(
        7509, "Purchase", ("Page View", "Product Viewed", "Added To Cart", "Order Completed"), 7
    ),
    Funnel(9070, "First order", ("Sign Up", "Order Completed"), 14),
)


def times_by_user(events: Iterable[ReportEvent]) -> dict[str, Times]:
    """Return the sorted times of events, by user and event name."""
    users: dict[str, Times] = defaultdict(lambda: defaultdict(list))
    for event in events:
        if event.user is not None:
            users[event.user][event.event].append(event.at)
    for times in users.values():
        for moments in times.values():
            moments.sort()
    return users


def complete_steps(
    steps: Sequence[str], times: Times, start: datetime, within: timedelta
) -> list[datetime]:
    """Return the times of the steps that a user completed.

    A step may be up to two seconds before the previous one. An event counts for one step only.
    """
    reached = [start]
    used = {steps[0]: bisect_left(times.get(steps[0], []), start) + 1}
    for step in steps[1:]:
        moments = times.get(step, [])
        following = max(bisect_left(moments, reached[-1] - GRACE), used.get(step, 0))
        if following == len(moments) or moments[following] - start > within:
            break
        reached.append(moments[following])
        used[step] = following + 1
    return reached


def funnel_steps(
    steps: Sequence[str], journeys: Sequence[Sequence[datetime]]
) -> list[dict[str, Any]]:
    """Return the steps of a funnel with counts, conversion and seconds."""
    rows = []
    counts = [sum(len(times) > number for times in journeys) for number in range(len(steps))]
    for number, step in enumerate(steps):
        later = [times for times in journeys if len(times) > number > 0]
        before = counts[number - 1] if number else counts[0]
        rows.append(
            {
                "count": counts[number],
                # The first step has no time, nor has a step without people.
                "avg_time": _average(times[number] - times[number - 1] for times in later),
                "avg_time_from_start": _average(times[number] - times[0] for times in later),
                "step_conv_ratio": _ratio(counts[number], before),
                "overall_conv_ratio": _ratio(counts[number], counts[0]),
                "goal": step,
                "event": step,
                "step_label": step,
            }
        )
    return rows


def analysis(steps: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the summary of a funnel's steps."""
    ratios = [step["step_conv_ratio"] for step in steps]
    worst = min(range(1, len(steps)), key=lambda number: ratios[number]) if len(steps) > 1 else 0
    return {
        "completion": steps[-1]["count"],
        "starting_amount": steps[0]["count"],
        "steps": len(steps),
        "worst": worst,
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _average(gaps: Iterable[timedelta]) -> int | None:
    # A step just before the previous one took no time.
    seconds = [max(gap.total_seconds(), 0) for gap in gaps]
    return round(sum(seconds) / len(seconds)) if seconds else None


def retention(
    born: Times, back: Times, *, unit: str, width: timedelta, intervals: int, unbounded: bool
) -> dict[str, dict[str, Any]]:
    """Return, by first day (or week, month), the number of people and of those who returned.

    `born` are the first events of each user, one or several; `back` are the returns, sorted.
    `unbounded` counts a user in every interval up to the last return.
    """
    cohorts: dict[str, set[tuple[str, datetime]]] = defaultdict(set)
    for user, moments in born.items():
        grouped: dict[str, datetime] = {}
        for moment in moments:
            grouped.setdefault(first_day(moment.date(), unit).isoformat(), moment)
        for start, moment in grouped.items():
            cohorts[start].add((user, moment))
    rows = {}
    for start in sorted(cohorts):
        counts = [0] * (intervals + 1)
        for user, moment in cohorts[start]:
            for number in _intervals(moment, back.get(user, []), width, intervals, unbounded):
                counts[number] += 1
        rows[start] = {"counts": counts, "first": len(cohorts[start])}
    return rows


def _intervals(
    start: datetime, moments: Sequence[datetime], width: timedelta, most: int, unbounded: bool
) -> set[int]:
    later = moments[bisect_right(moments, start) :]
    reached = {(moment - start) // width for moment in later}
    if unbounded and reached:
        return set(range(min(max(reached), most) + 1))
    return {number for number in reached if number <= most}


def frequency(
    events: Iterable[ReportEvent], days: Sequence[date], unit: str, part: str
) -> dict[str, list[int]]:
    """Return, by unit, the number of people active in at least 1, 2, 3 ... of its parts."""
    active: dict[str, dict[str, set[tuple[date, int]]]] = {
        first_day(day, unit).isoformat(): defaultdict(set) for day in days
    }
    for event in events:
        if event.user is not None:
            hour = event.at.hour if part == "hour" else 0
            start = first_day(event.at.date(), unit).isoformat()
            active[start][event.user].add((event.at.date(), hour))
    length = {"day": 1, "week": 7, "month": 31}[unit] * (24 if part == "hour" else 1)
    return {
        start: [sum(len(parts) > least for parts in users.values()) for least in range(length)]
        for start, users in active.items()
    }


SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
MOST_FUNNEL_DAYS = 90  # documented maximum of `length`
MOST_INTERVAL_DAYS = 90
REPORT_DAYS = 14  # the invented saved reports show two weeks
REPORTS = {100: None, 101: "mp_country_code"}


def funnels_list(inbound: Inbound) -> Response:
    """Return the saved funnels."""
    return json_response([{"funnel_id": funnel.id, "name": funnel.name} for funnel in FUNNELS])


def funnels(inbound: Inbound) -> Response:
    """Return the people at each step, by the day (or week, month) of their first step."""
    funnel_id = inbound.integer("funnel_id", 0)
    funnel = next((funnel for funnel in FUNNELS if funnel.id == funnel_id), None)
    if funnel is None:
        raise inbound.shape.refuse(404, f"funnel {funnel_id} does not exist")
    days = inbound.range()
    within = _length(inbound, funnel)
    # A person who started on the last day can finish later. After a start in the first seconds of
    # the range, the next step can be just before it.
    reach = days_between(days[0] - timedelta(days=1), days[-1] + timedelta(days=within.days + 1))
    selection = Selection(reach, frozenset(funnel.steps), inbound.expression("where"))
    events = list(inbound.reports.events(selection))
    users = times_by_user(events)
    segments = _segments(inbound, [event for event in events if event.at.date() >= days[0]])
    dates = _starts(inbound, days)
    data: dict[str, Any] = {}
    for number, start in enumerate(dates):
        end = dates[number + 1] if number + 1 < len(dates) else days[-1] + timedelta(days=1)
        journeys = {
            user: complete_steps(funnel.steps, times, first, within)
            for user, times in users.items()
            if (first := _first(times.get(funnel.steps[0], []), start, end)) is not None
        }
        steps = funnel_steps(funnel.steps, list(journeys.values()))
        if segments is None:
            data[start.isoformat()] = {"steps": steps, "analysis": analysis(steps)}
            continue
        data[start.isoformat()] = {"$overall": steps} | {
            name: funnel_steps(
                funnel.steps, [times for user, times in journeys.items() if user in members]
            )
            for name, members in segments.items()
        }
    return json_response({"meta": {"dates": [day.isoformat() for day in dates]}, "data": data})


def _length(inbound: Inbound, funnel: Funnel) -> timedelta:
    if not inbound.params.get("length"):
        inbound.reject("length_unit")
        return timedelta(days=funnel.days)
    unit = inbound.choice("length_unit", "day", "day", "hour", "minute", "second")
    within = timedelta(seconds=inbound.integer("length", 1) * SECONDS[unit])
    if within > timedelta(days=MOST_FUNNEL_DAYS):
        raise inbound.shape.refuse(400, f"length cannot be greater than {MOST_FUNNEL_DAYS} days")
    return within


def _starts(inbound: Inbound, days: list[date]) -> list[date]:
    inbound.reject_both("unit", "interval")
    if inbound.params.get("unit"):
        unit = inbound.choice("unit", "day", "day", "week", "month")
        return sorted({max(first_day(day, unit), days[0]) for day in days})
    return days[:: max(1, inbound.integer("interval", 1))]


def _first(moments: list[datetime], start: date, end: date) -> datetime | None:
    return next((moment for moment in moments if start <= moment.date() < end), None)


def _segments(inbound: Inbound, events: list[Any]) -> dict[str, set[str]] | None:
    on = inbound.expression("on")
    if on is None:
        return None
    members: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if event.user is not None:
            members[label(on(event.scope))].add(event.user)
    largest = sorted(members, key=lambda name: (-len(members[name]), name))
    return {name: members[name] for name in largest[: inbound.integer("limit", 255, 10_000)]}


def retention_report(inbound: Inbound) -> Response:
    """Return the number of people who returned in each interval."""
    days = inbound.range()
    kind = inbound.choice("retention_type", "birth", "birth", "compounded")
    # The form of a breakdown is not documented.
    inbound.reject("on")
    inbound.reject_both("unit", "interval")
    unit = inbound.choice("unit", "day", "day", "week", "month")
    width = timedelta(days={"day": 1, "week": 7, "month": 30}[unit] * _interval(inbound))
    intervals = inbound.integer("interval_count", 1)
    unbounded = inbound.flag("unbounded_retention")
    last = days[-1] + width * (intervals + 1)
    reach = days_between(days[0], max(last, inbound.reports.today()) if unbounded else last)
    names = inbound.event_names()
    back = _moments(inbound, Selection(reach, names, inbound.expression("where")))
    if kind == "birth":
        born_event = frozenset([inbound.need("born_event")])
        chosen = Selection(days, born_event, inbound.expression("born_where"))
        born = {user: moments[:1] for user, moments in _moments(inbound, chosen).items()}
    else:
        inbound.reject("born_where")
        born = _moments(inbound, Selection(days, names, inbound.expression("where")))
    rows = retention(born, back, unit=unit, width=width, intervals=intervals, unbounded=unbounded)
    return json_response(rows)


def _interval(inbound: Inbound) -> int:
    interval = inbound.integer("interval", 1)
    if not 1 <= interval <= MOST_INTERVAL_DAYS:
        raise inbound.shape.refuse(400, f"interval must be from 1 to {MOST_INTERVAL_DAYS} days")
    return interval


def _moments(inbound: Inbound, selection: Selection) -> dict[str, list[datetime]]:
    users: dict[str, list[datetime]] = defaultdict(list)
    for event in inbound.reports.events(selection):
        if event.user is not None:
            users[event.user].append(event.at)
    return {user: sorted(moments) for user, moments in users.items()}


def addiction(inbound: Inbound) -> Response:
    """Return the people by their number of active hours or days in each period."""
    days = inbound.range()
    inbound.reject("on")
    inbound.need("unit")
    inbound.need("addiction_unit")
    unit = inbound.choice("unit", "", "day", "week", "month")
    part = inbound.choice("addiction_unit", "", "hour", "day")
    selection = Selection(days, inbound.event_names(), inbound.expression("where"))
    events = inbound.reports.events(selection)
    return json_response({"data": frequency(events, days, unit, part)})


def insights(inbound: Inbound) -> Response:
    """Return a saved report: 100 counts two events a day, 101 splits orders by country."""
    inbound.need("bookmark_id")
    number = inbound.integer("bookmark_id", 0)
    if number not in REPORTS:
        raise inbound.shape.refuse(404, f"report {number} does not exist")
    last = inbound.state.last_day()
    days = days_between(last - timedelta(days=REPORT_DAYS - 1), last)
    split = REPORTS[number]
    series: dict[str, Any] = {}
    for name in ("Order Completed",) if split else ("Page View", "Order Completed"):
        selection = Selection(days, frozenset([name]))
        table = inbound.reports.count(selection, lambda event: ["$overall"], unit="day")
        rows = {"$overall": _by_midnight(inbound, days, table.get("$overall", {}))}
        if split:
            by_value = inbound.reports.count(
                selection, lambda event: [label(event.properties.get(split))], unit="day"
            )
            rows |= {key: _by_midnight(inbound, days, row) for key, row in by_value.items()}
        series[name] = rows if split else rows["$overall"]
    end = datetime.combine(last, time(23, 59, 59, 999_000), inbound.state.zone)
    return json_response(
        {
            "computed_at": inbound.state.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%f+00:00"),
            "date_range": {
                "from_date": _midnight(inbound, days[0]),
                "to_date": end.isoformat(timespec="microseconds"),
            },
            "headers": ["$event", split] if split else ["$event"],
            "series": series,
        }
    )


def _by_midnight(inbound: Inbound, days: list[date], row: dict[str, float]) -> dict[str, float]:
    return {_midnight(inbound, day): row.get(day.isoformat(), 0) for day in days}


def _midnight(inbound: Inbound, day: date) -> str:
    return datetime(day.year, day.month, day.day, tzinfo=inbound.state.zone).isoformat()


def stream_query(inbound: Inbound) -> Response:
    """Return the events of some users. As observed, one response has two spellings of the id."""
    wanted = inbound.json("distinct_ids", list)
    if wanted is None:
        raise inbound.shape.refuse(400, "distinct_ids is a required parameter")
    ids = {str(identity) for identity in wanted}
    entries: list[dict[str, Any]] = []
    for event in inbound.reports.events(Selection(inbound.range())):
        if event.user not in ids:
            continue
        properties = dict(event.properties)
        identity = properties.pop("distinct_id")
        spelling = "$distinct_id" if len(entries) % 2 == 0 else "distinct_id"
        entries.append({"event": event.event, "properties": {**properties, spelling: identity}})
    entries.sort(key=lambda entry: entry["properties"]["time"])
    return json_response({"status": "ok", "results": {"events": entries}})


_COUNT_BY_NAME = re.compile(
    r"groupBy\(\s*\[\s*[\"']name[\"']\s*\]\s*,\s*mixpanel\.reducer\.count\(\)\s*\)"
)
SCRIPT_ERROR = "Uncaught exception Error: cannot run this script\n  at main"
_DATE = r"[\"']?{}[\"']?\s*:\s*[\"']?(\d{{4}}-\d\d-\d\d)"


def jql(inbound: Inbound) -> Response:
    """Run the one supported script, which counts events by name. Any other script fails."""
    if inbound.settings.jql == "404":
        raise inbound.shape.refuse(404, "JQL is no longer available")
    script, params = inbound.params.get("script", ""), inbound.params.get("params", "")
    jql_source = params if re.search(r"Events\(\s*params\s*\)", script) else script
    ends = [re.search(_DATE.format(name), jql_source) for name in ("from_date", "to_date")]
    if inbound.settings.jql == "412" or not _COUNT_BY_NAME.search(script) or None in ends:
        raise inbound.shape.refuse(412, SCRIPT_ERROR)
    first, last = (date.fromisoformat(end.group(1)) for end in ends if end)
    selection = Selection(days_between(first, last))
    counts = Counter(event.event for event in inbound.reports.events(selection))
    return json_response([{"key": [name], "value": counts[name]} for name in sorted(counts)])


JOURNEY_HANDLERS: dict[str, Callable[[Inbound], Response]] = {
    "funnels": funnels,
    "funnels/list": funnels_list,
    "retention": retention_report,
    "retention/addiction": addiction,
    "insights": insights,
    "stream/query": stream_query,
    "jql": jql,
}
