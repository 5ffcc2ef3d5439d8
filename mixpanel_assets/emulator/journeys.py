"""What people do one thing after another: funnels, retention, frequency, and their routes."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from mixpanel_assets.emulator.call import Answer, Call, days_between, json_answer
from mixpanel_assets.emulator.reports import Seen, Selection, first_day, label

Times = dict[str, list[datetime]]

# Consecutive steps this close together count in either order (Mixpanel's Funnels FAQ).
GRACE = timedelta(seconds=2)


@dataclass(frozen=True)
class Funnel:
    """A saved funnel: what has to happen in this order, and within how many days."""

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


def times_by_user(events: Iterable[Seen]) -> dict[str, Times]:
    """Return, per user and event name, when it happened, in order."""
    found: dict[str, Times] = defaultdict(lambda: defaultdict(list))
    for seen in events:
        if seen.user is not None:
            found[seen.user][seen.event].append(seen.at)
    for times in found.values():
        for moments in times.values():
            moments.sort()
    return found


def completed(
    steps: Sequence[str], times: Times, start: datetime, within: timedelta
) -> list[datetime]:
    """Return when each step was taken, as far as the user came.

    A step may come up to two seconds before the one it follows. An event serves one step only.
    """
    taken = [start]
    used = {steps[0]: bisect_left(times.get(steps[0], []), start) + 1}
    for step in steps[1:]:
        moments = times.get(step, [])
        following = max(bisect_left(moments, taken[-1] - GRACE), used.get(step, 0))
        if following == len(moments) or moments[following] - start > within:
            break
        taken.append(moments[following])
        used[step] = following + 1
    return taken


def funnel_steps(
    steps: Sequence[str], journeys: Sequence[Sequence[datetime]]
) -> list[dict[str, Any]]:
    """Return the steps of a funnel with counts, conversion and seconds."""
    found = []
    counts = [sum(len(taken) > number for taken in journeys) for number in range(len(steps))]
    for number, step in enumerate(steps):
        here = [taken for taken in journeys if len(taken) > number]
        before = counts[number - 1] if number else counts[0]
        found.append(
            {
                "count": counts[number],
                "avg_time": _average(taken[number] - taken[number - 1] for taken in here)
                if number
                else None,
                "avg_time_from_start": _average(taken[number] - taken[0] for taken in here)
                if number
                else None,
                "step_conv_ratio": _ratio(counts[number], before),
                "overall_conv_ratio": _ratio(counts[number], counts[0]),
                "goal": step,
                "event": step,
                "step_label": step,
            }
        )
    return found


def analysis(steps: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return the summary under a funnel's steps."""
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
    # A step taken just before the one it follows took no time.
    seconds = [max(gap.total_seconds(), 0) for gap in gaps]
    return round(sum(seconds) / len(seconds)) if seconds else None


def retention(
    born: Times, back: Times, *, unit: str, width: timedelta, intervals: int, unbounded: bool
) -> dict[str, dict[str, Any]]:
    """Return, per first day, how many people came and how many came back.

    Args:
        born: When each user first did what makes them count, one moment each or several.
        back: When each user did what counts as coming back, in order.
        unit: What the first days are grouped by.
        width: The length of an interval.
        intervals: How many intervals follow the 0th.
        unbounded: Count a user in every interval up to the last return, however late that is.
    """
    cohorts: dict[str, set[tuple[str, datetime]]] = defaultdict(set)
    for user, moments in born.items():
        grouped: dict[str, datetime] = {}
        for moment in moments:
            grouped.setdefault(first_day(moment.date(), unit).isoformat(), moment)
        for start, moment in grouped.items():
            cohorts[start].add((user, moment))
    found = {}
    for start in sorted(cohorts):
        counts = [0] * (intervals + 1)
        for user, moment in cohorts[start]:
            for number in _intervals(moment, back.get(user, []), width, intervals, unbounded):
                counts[number] += 1
        found[start] = {"counts": counts, "first": len(cohorts[start])}
    return found


def _intervals(
    start: datetime, moments: Sequence[datetime], width: timedelta, most: int, unbounded: bool
) -> set[int]:
    later = moments[bisect_right(moments, start) :]
    reached = {(moment - start) // width for moment in later}
    if unbounded and reached:
        return set(range(min(max(reached), most) + 1))
    return {number for number in reached if number <= most}


def frequency(
    events: Iterable[Seen], days: Sequence[date], unit: str, part: str
) -> dict[str, list[int]]:
    """Return, per unit, how many people were active in at least 1, 2, 3 ... of its parts."""
    active: dict[str, dict[str, set[tuple[date, int]]]] = {
        first_day(day, unit).isoformat(): defaultdict(set) for day in days
    }
    for seen in events:
        if seen.user is not None:
            hour = seen.at.hour if part == "hour" else 0
            start = first_day(seen.at.date(), unit).isoformat()
            active[start][seen.user].add((seen.at.date(), hour))
    length = {"day": 1, "week": 7, "month": 31}[unit] * (24 if part == "hour" else 1)
    return {
        start: [sum(len(parts) > least for parts in users.values()) for least in range(length)]
        for start, users in active.items()
    }


SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
MOST_FUNNEL_DAYS = 90
MOST_INTERVAL_DAYS = 90
REPORT_DAYS = 14
REPORTS = {100: None, 101: "mp_country_code"}


def funnels_list(call: Call) -> Answer:
    """Answer the saved funnels."""
    return json_answer([{"funnel_id": funnel.id, "name": funnel.name} for funnel in FUNNELS])


def funnels(call: Call) -> Answer:
    """Answer how far people came, by the day (or week, month) they began."""
    funnel_id = call.integer("funnel_id", 0)
    funnel = next((funnel for funnel in FUNNELS if funnel.id == funnel_id), None)
    if funnel is None:
        raise call.shape.refuse(404, f"funnel {funnel_id} does not exist")
    days = call.range()
    within = _length(call, funnel)
    # A person who began on the last day may finish after it, and one who began in the first
    # seconds may have taken the next step just before.
    reach = days_between(days[0] - timedelta(days=1), days[-1] + timedelta(days=within.days + 1))
    selection = Selection(reach, frozenset(funnel.steps), call.expression("where"))
    events = list(call.reports.seen(selection))
    users = times_by_user(events)
    segments = _segments(call, [seen for seen in events if seen.at.date() >= days[0]])
    dates = _starts(call, days)
    data: dict[str, Any] = {}
    for number, start in enumerate(dates):
        end = dates[number + 1] if number + 1 < len(dates) else days[-1] + timedelta(days=1)
        journeys = {
            user: completed(funnel.steps, times, first, within)
            for user, times in users.items()
            if (first := _first(times.get(funnel.steps[0], []), start, end)) is not None
        }
        steps = funnel_steps(funnel.steps, list(journeys.values()))
        if segments is None:
            data[start.isoformat()] = {"steps": steps, "analysis": analysis(steps)}
            continue
        data[start.isoformat()] = {"$overall": steps} | {
            name: funnel_steps(
                funnel.steps, [taken for user, taken in journeys.items() if user in members]
            )
            for name, members in segments.items()
        }
    return json_answer({"meta": {"dates": [day.isoformat() for day in dates]}, "data": data})


def _length(call: Call, funnel: Funnel) -> timedelta:
    if not call.params.get("length"):
        call.reject("length_unit")
        return timedelta(days=funnel.days)
    unit = call.choice("length_unit", "day", "day", "hour", "minute", "second")
    within = timedelta(seconds=call.integer("length", 1) * SECONDS[unit])
    if within > timedelta(days=MOST_FUNNEL_DAYS):
        raise call.shape.refuse(400, f"length cannot be greater than {MOST_FUNNEL_DAYS} days")
    return within


def _starts(call: Call, days: list[date]) -> list[date]:
    call.reject_both("unit", "interval")
    if call.params.get("unit"):
        unit = call.choice("unit", "day", "day", "week", "month")
        return sorted({max(first_day(day, unit), days[0]) for day in days})
    return days[:: max(1, call.integer("interval", 1))]


def _first(moments: list[datetime], start: date, end: date) -> datetime | None:
    return next((moment for moment in moments if start <= moment.date() < end), None)


def _segments(call: Call, events: list[Any]) -> dict[str, set[str]] | None:
    on = call.expression("on")
    if on is None:
        return None
    members: dict[str, set[str]] = defaultdict(set)
    for seen in events:
        if seen.user is not None:
            members[label(on(seen.scope))].add(seen.user)
    largest = sorted(members, key=lambda name: (-len(members[name]), name))
    return {name: members[name] for name in largest[: call.integer("limit", 255, 10_000)]}


def retention_report(call: Call) -> Answer:
    """Answer how many people came back after each interval."""
    days = call.range()
    kind = call.choice("retention_type", "birth", "birth", "compounded")
    # The documentation does not say what a breakdown looks like.
    call.reject("on")
    call.reject_both("unit", "interval")
    unit = call.choice("unit", "day", "day", "week", "month")
    width = timedelta(days={"day": 1, "week": 7, "month": 30}[unit] * _interval(call))
    intervals = call.integer("interval_count", 1)
    unbounded = call.flag("unbounded_retention")
    last = days[-1] + width * (intervals + 1)
    reach = days_between(days[0], max(last, call.reports.today()) if unbounded else last)
    event = call.params.get("event")
    names = frozenset([event]) if event else None
    back = _moments(call, Selection(reach, names, call.expression("where")))
    if kind == "birth":
        born_event = frozenset([call.need("born_event")])
        chosen = Selection(days, born_event, call.expression("born_where"))
        born = {user: moments[:1] for user, moments in _moments(call, chosen).items()}
    else:
        call.reject("born_where")
        born = _moments(call, Selection(days, names, call.expression("where")))
    found = retention(
        born,
        back,
        unit=unit,
        width=width,
        intervals=intervals,
        unbounded=unbounded,
    )
    return json_answer(found)


def _interval(call: Call) -> int:
    interval = call.integer("interval", 1)
    if not 1 <= interval <= MOST_INTERVAL_DAYS:
        raise call.shape.refuse(400, f"interval must be from 1 to {MOST_INTERVAL_DAYS} days")
    return interval


def _moments(call: Call, selection: Selection) -> dict[str, list[datetime]]:
    found: dict[str, list[datetime]] = defaultdict(list)
    for seen in call.reports.seen(selection):
        if seen.user is not None:
            found[seen.user].append(seen.at)
    return {user: sorted(moments) for user, moments in found.items()}


def addiction(call: Call) -> Answer:
    """Answer in how many hours or days of each period people were active."""
    days = call.range()
    call.reject("on")
    call.need("unit")
    call.need("addiction_unit")
    unit = call.choice("unit", "", "day", "week", "month")
    part = call.choice("addiction_unit", "", "hour", "day")
    event = call.params.get("event")
    names = frozenset([event]) if event else None
    events = call.reports.seen(Selection(days, names, call.expression("where")))
    return json_answer({"data": frequency(events, days, unit, part)})


def insights(call: Call) -> Answer:
    """Answer a saved report: 100 counts two events a day, 101 splits orders by country."""
    call.need("bookmark_id")
    number = call.integer("bookmark_id", 0)
    if number not in REPORTS:
        raise call.shape.refuse(404, f"report {number} does not exist")
    last = call.state.last_day()
    days = days_between(last - timedelta(days=REPORT_DAYS - 1), last)
    split = REPORTS[number]
    series: dict[str, Any] = {}
    for name in ("Order Completed",) if split else ("Page View", "Order Completed"):
        selection = Selection(days, frozenset([name]))
        table = call.reports.counted(selection, lambda found: ["$overall"], unit="day")
        rows = {"$overall": _dated(call, days, table.get("$overall", {}))}
        if split:
            by_value = call.reports.counted(
                selection,
                lambda found: [label(found.properties.get(split))],
                unit="day",
            )
            rows |= {key: _dated(call, days, row) for key, row in by_value.items()}
        series[name] = rows if split else rows["$overall"]
    end = datetime.combine(last, datetime.max.time()).replace(microsecond=999_000)
    return json_answer(
        {
            "computed_at": call.state.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%f+00:00"),
            "date_range": {
                "from_date": _midnight(call, days[0]),
                "to_date": end.replace(tzinfo=call.state.zone).isoformat(timespec="microseconds"),
            },
            "headers": ["$event", split] if split else ["$event"],
            "series": series,
        }
    )


def _dated(call: Call, days: list[date], row: dict[str, float]) -> dict[str, float]:
    return {_midnight(call, day): row.get(day.isoformat(), 0) for day in days}


def _midnight(call: Call, day: date) -> str:
    return datetime(day.year, day.month, day.day, tzinfo=call.state.zone).isoformat()


def stream_query(call: Call) -> Answer:
    """Answer what some users did; the id has two spellings in one answer, as observed."""
    wanted = call.json("distinct_ids", list)
    if wanted is None:
        raise call.shape.refuse(400, "distinct_ids is a required parameter")
    ids = {str(identity) for identity in wanted}
    found: list[dict[str, Any]] = []
    for seen in call.reports.seen(Selection(call.range())):
        if seen.user not in ids:
            continue
        properties = dict(seen.properties)
        identity = properties.pop("distinct_id")
        spelling = "$distinct_id" if len(found) % 2 == 0 else "distinct_id"
        found.append({"event": seen.event, "properties": {**properties, spelling: identity}})
    found.sort(key=lambda entry: entry["properties"]["time"])
    return json_answer({"status": "ok", "results": {"events": found}})


_COUNT_BY_NAME = re.compile(
    r"groupBy\(\s*\[\s*[\"']name[\"']\s*\]\s*,\s*mixpanel\.reducer\.count\(\)\s*\)"
)
_DATE = r"[\"']?{}[\"']?\s*:\s*[\"']?(\d{{4}}-\d\d-\d\d)"


def jql(call: Call) -> Answer:
    """Run the one script that is understood: events counted by name; any other one fails."""
    if call.settings.jql == "404":
        raise call.shape.refuse(404, "JQL is no longer available")
    script, params = call.params.get("script", ""), call.params.get("params", "")
    source = params if re.search(r"Events\(\s*params\s*\)", script) else script
    ends = [re.search(_DATE.format(name), source) for name in ("from_date", "to_date")]
    if call.settings.jql == "412" or not _COUNT_BY_NAME.search(script) or None in ends:
        raise call.shape.refuse(412, "Uncaught exception Error: cannot run this script\n  at main")
    first, last = (date.fromisoformat(end.group(1)) for end in ends if end)
    counts = Counter(seen.event for seen in call.reports.seen(Selection(days_between(first, last))))
    return json_answer([{"key": [name], "value": counts[name]} for name in sorted(counts)])


JOURNEY_HANDLERS: dict[str, Callable[[Call], Answer]] = {
    "funnels": funnels,
    "funnels/list": funnels_list,
    "retention": retention_report,
    "retention/addiction": addiction,
    "insights": insights,
    "stream/query": stream_query,
    "jql": jql,
}
