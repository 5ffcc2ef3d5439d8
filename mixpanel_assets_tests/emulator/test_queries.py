"""The Query API: its numbers are those of the events."""

import json
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from mixpanel_assets.emulator import Emulator
from mixpanel_assets.emulator.journeys import complete_steps

from .conftest import START, Opened

DAYS = [START + timedelta(days=number) for number in range(14)]
RANGE = {"from_date": str(DAYS[0]), "to_date": str(DAYS[-1])}


def ask(http: httpx.Client, path: str, **params: object) -> Any:
    answer = http.get(f"/api/query/{path}", params={**http.params, **params})  # type: ignore[dict-item]
    assert answer.status_code == 200, answer.text
    return answer.json()


def rows_of(emulator: Emulator, event: str) -> list[dict[str, Any]]:
    return [
        {**row["properties"], "day": str(day)}
        for day in DAYS
        for row in emulator.truth.events(day)
        if row["event"] == event
    ]


@pytest.mark.parametrize("path", ["query", "2.0"])
def test_segmentation_counts_events(emulator: Emulator, http: httpx.Client, path: str) -> None:
    """Every event's count on every day is the number of its events without duplicates."""
    for event in ("Order Completed", "Page View", "Heartbeat"):
        params = {**http.params, **RANGE, "event": event}
        answer = http.get(f"/api/{path}/segmentation", params=params).json()
        expected = {str(day): emulator.truth.count_by_event(day).get(event, 0) for day in DAYS}
        assert answer["data"]["values"] == {event: expected}
        assert answer["legend_size"] == 1


def test_series_are_not_sorted(http: httpx.Client) -> None:
    """All dates are present, but not in order, as in the official examples."""
    series = ask(http, "segmentation", **RANGE, event="Sign Up")["data"]["series"]
    assert sorted(series) == [str(day) for day in DAYS] != series


def test_segmentation_by_property(emulator: Emulator, http: httpx.Client) -> None:
    """With `on`, the keys are property values, and their sum is the total."""
    on = 'properties["country"]'
    values = ask(http, "segmentation", **RANGE, event="Order Completed", on=on)["data"]["values"]
    orders = rows_of(emulator, "Order Completed")
    assert set(values) == {own["country"] for own in orders}
    assert sum(sum(row.values()) for row in values.values()) == len(orders)
    few = ask(http, "segmentation", **RANGE, event="Order Completed", on=on, limit=2)
    assert few["legend_size"] == 2


def test_unique_counts_people_and_average_divides(emulator: Emulator, http: httpx.Client) -> None:
    """`unique` counts each person once a day, `average` is events per person."""
    people: dict[str, set[str]] = defaultdict(set)
    rows = rows_of(emulator, "Page View")
    for own in rows:
        if own.get("distinct_id") is not None:
            people[own["day"]].add(str(own["distinct_id"]))
    params = {**RANGE, "event": "Page View"}
    unique = ask(http, "segmentation", **params, type="unique")["data"]["values"]["Page View"]
    assert unique == {day: len(ids) for day, ids in people.items()}
    average = ask(http, "segmentation", **params, type="average")["data"]["values"]["Page View"]
    assert average[str(START)] == pytest.approx(
        sum(own["day"] == str(START) for own in rows) / unique[str(START)]
    )


def test_hours_and_months(emulator: Emulator, http: httpx.Client) -> None:
    """Smaller and larger units hold the same events."""
    total = len(rows_of(emulator, "Page View"))
    for unit, series in (("hour", 14 * 24), ("month", 1), ("week", 2)):
        data = ask(http, "segmentation", **RANGE, event="Page View", unit=unit)["data"]
        assert len(data["series"]) == series
        assert sum(data["values"]["Page View"].values()) == total


def test_sum_average_and_ranges_of_a_number(emulator: Emulator, http: httpx.Client) -> None:
    """Sums and averages are those of the orders; ranges hold each order once and leave gaps."""
    amounts: dict[str, list[float]] = defaultdict(list)
    for own in rows_of(emulator, "Order Completed"):
        amounts[own["day"]].append(own["amount"])
    params = {**RANGE, "event": "Order Completed", "on": 'properties["amount"]'}
    sums = ask(http, "segmentation/sum", **params)["results"]
    averages = ask(http, "segmentation/average", **params)["results"]
    for day, values in amounts.items():
        assert sums[day] == pytest.approx(sum(values))
        assert averages[day] == pytest.approx(sum(values) / len(values))
    ranges = ask(http, "segmentation/numeric", **params)["data"]["values"]
    assert sum(sum(row.values()) for row in ranges.values()) == sum(map(len, amounts.values()))
    assert all(" - " in name for name in ranges)
    assert min(len(row) for row in ranges.values()) < 14


def test_csv_is_available(http: httpx.Client) -> None:
    """`format=csv` is a table with a date column."""
    params = {**http.params, **RANGE, "event": "Sign Up", "format": "csv"}
    answer = http.get("/api/query/segmentation", params=params)
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text.splitlines()[0] == "date,Sign Up"
    assert len(answer.text.splitlines()) == 15


def test_events_counts_several_names(emulator: Emulator, http: httpx.Client) -> None:
    """Counts by name; days without the event are absent; `interval` ends today."""
    names = json.dumps(["Sign Up", "Nope"])
    values = ask(http, "events", **RANGE, event=names, type="general", unit="day")["data"]["values"]
    assert set(values) == {"Sign Up"}
    assert sum(values["Sign Up"].values()) == len(rows_of(emulator, "Sign Up"))
    data = ask(http, "events", event=names, type="general", unit="day", interval=3)["data"]
    assert set(data["series"]) == {"2024-01-13", "2024-01-14", "2024-01-15"}
    assert set(data["values"]["Sign Up"]) == {"2024-01-13", "2024-01-14"}


def test_top_events_compare_with_yesterday(opened: Callable[..., Opened]) -> None:
    """Today's amounts, largest first, with the change since yesterday."""
    emulator, http = opened(days=None)
    answer = ask(http, "events/top", type="general", limit=3)
    amounts = [entry["amount"] for entry in answer["events"]]
    assert amounts == sorted(amounts, reverse=True)
    first = answer["events"][0]
    now = emulator.truth.count_by_event(START + timedelta(days=14))[first["event"]]
    before = emulator.truth.count_by_event(START + timedelta(days=13))[first["event"]]
    assert first["amount"] == now
    assert first["percent_change"] == pytest.approx((now - before) / before)


def test_names_reach_back_31_days(emulator: Emulator, http: httpx.Client) -> None:
    """Names of recent events, the commonest first; long ago there were others."""
    names = ask(http, "events/names", type="general")
    assert set(names) == set(emulator.truth.totals()["by_event"])
    assert names[0] in ("Page View", "Product Viewed")
    assert len(ask(http, "events/names", type="general", limit=2)) == 2
    emulator.clock.advance(60 * 86_400)
    assert ask(http, "events/names", type="general") == []


def test_a_year_before_2000_is_a_bad_year(http: httpx.Client) -> None:
    """An absurd `from_date` is refused with the observed words."""
    params = {**http.params, "type": "general", "from_date": "1999-01-01"}
    answer = http.get("/api/query/events/names", params=params)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad year")


def test_properties_of_events(emulator: Emulator, http: httpx.Client) -> None:
    """Counts by value, the commonest properties (one without a count), and values."""
    common = {"event": "Sign Up", "name": "plan"}
    plans = [own["plan"] for own in rows_of(emulator, "Sign Up")]
    table = ask(http, "events/properties", **RANGE, **common, type="general", unit="day")
    counts = {name: sum(row.values()) for name, row in table["data"]["values"].items()}
    assert counts == {name: plans.count(name) for name in set(plans)}
    only = ask(http, "events/properties", **RANGE, **common, type="general", values='["pro"]')
    assert set(only["data"]["values"]) == {"pro"}
    top = ask(http, "events/properties/top", event="Sign Up")
    assert len(top) == 10
    assert top["$duration_s"] == {}
    assert set(ask(http, "events/properties/values", **common)) == set(plans)


def test_funnels_narrow(emulator: Emulator, http: httpx.Client) -> None:
    """Each step has at most as many people as the one before, and the first has them all."""
    listed = ask(http, "funnels/list")
    assert listed[0] == {"funnel_id": 7509, "name": "Purchase"}
    answer = ask(http, "funnels", **RANGE, funnel_id=7509)
    assert answer["meta"]["dates"] == [str(day) for day in DAYS]
    for day in DAYS:
        entry = answer["data"][str(day)]
        counts = [step["count"] for step in entry["steps"]]
        assert counts == sorted(counts, reverse=True)
        assert entry["analysis"]["starting_amount"] == counts[0]
        assert entry["analysis"]["completion"] == counts[-1]
    started = {
        own["distinct_id"]
        for own in rows_of(emulator, "Page View")
        if own["day"] == str(START) and own.get("distinct_id") is not None
    }
    assert answer["data"][str(START)]["steps"][0]["count"] == len(started)
    assert answer["data"][str(START)]["steps"][0]["avg_time"] is None


STEPS = ("Page View", "Product Viewed", "Added To Cart", "Order Completed")


def reached(moments: dict[str, list[int]], start: int, grace: int) -> int:
    """Return how many steps a person took within 7 days, a step being up to `grace` ms early."""
    last = start
    for number, step in enumerate(STEPS[1:], 1):
        fitting = [at for at in moments.get(step, []) if at >= last - grace]
        if not fitting or min(fitting) > start + 7 * 86_400_000:
            return number
        last = min(fitting)
    return len(STEPS)


def test_steps_within_two_seconds_count_in_either_order(
    emulator: Emulator, http: httpx.Client
) -> None:
    """A step may be up to two seconds before the previous one; the sample has such people."""
    people: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for day in DAYS:
        for row in emulator.truth.events(day, time_in_ms=True):
            if row["properties"].get("distinct_id") is not None:
                person = people[str(row["properties"]["distinct_id"])]
                person[row["event"]].append(row["properties"]["time"])
    answer = ask(http, "funnels", **RANGE, funnel_id=7509)["data"]
    orders = {2_000: 0, -1: 0}
    for day in DAYS:
        begin = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
        steps = []
        for moments in people.values():
            first = [at for at in moments["Page View"] if begin <= at < begin + 86_400_000]
            if first:
                steps.append(reached(moments, min(first), 2_000))
                for grace in orders:
                    orders[grace] += reached(moments, min(first), grace)
        counts = [sum(taken > number for taken in steps) for number in range(4)]
        assert [step["count"] for step in answer[str(day)]["steps"]] == counts
        assert all(
            step["avg_time"] is None or step["avg_time"] >= 0 for step in answer[str(day)]["steps"]
        )
    assert orders[2_000] > orders[-1] + 5


@pytest.mark.parametrize(
    ("steps", "times", "taken"),
    [
        ("AB", {"A": [10.0], "B": [9.0]}, [10.0, 9.0]),
        ("AB", {"A": [10.0], "B": [8.0]}, [10.0, 8.0]),
        ("AB", {"A": [10.0], "B": [7.999]}, [10.0]),
        ("ABC", {"A": [10.0], "B": [9.0], "C": [7.5]}, [10.0, 9.0, 7.5]),
        ("AA", {"A": [10.0]}, [10.0]),
        ("AA", {"A": [10.0, 10.0]}, [10.0, 10.0]),
        ("ABA", {"A": [10.0], "B": [11.0]}, [10.0, 11.0]),
        ("ABA", {"A": [10.0, 12.0], "B": [11.0]}, [10.0, 11.0, 12.0]),
    ],
)
def test_the_grace_of_funnels(
    steps: str, times: dict[str, list[float]], taken: list[float]
) -> None:
    """Two seconds count, two and a millisecond do not, and an event serves one step only."""
    begin = datetime(2024, 1, 1)
    moments = {
        name: [begin + timedelta(seconds=second) for second in found]
        for name, found in times.items()
    }
    found = complete_steps(steps, moments, moments["A"][0], timedelta(days=1))
    assert found == [begin + timedelta(seconds=second) for second in taken]


def test_funnels_by_property_and_interval(http: httpx.Client) -> None:
    """With `on`, each date holds `$overall` and the segments; `unit` widens the dates."""
    on = 'properties["mp_country_code"]'
    answer = ask(http, "funnels", **RANGE, funnel_id=9070, unit="week", on=on, limit=3)
    assert answer["meta"]["dates"] == ["2024-01-01", "2024-01-08"]
    for entry in answer["data"].values():
        assert "$overall" in entry
        assert len(entry) <= 4
    wide = ask(http, "funnels", **RANGE, funnel_id=9070, interval=7, length=1, length_unit="hour")
    assert len(wide["data"]) == 2


def test_retention_counts_returns(emulator: Emulator, http: httpx.Client) -> None:
    """`first` is the number of sign-ups of the day; unbounded counts never grow again."""
    params = {**RANGE, "born_event": "Sign Up", "interval_count": 5}
    answer = ask(http, "retention", **params)
    for day in DAYS:
        expected = emulator.truth.count_by_event(day)["Sign Up"]
        assert answer[str(day)]["first"] == expected
        assert len(answer[str(day)]["counts"]) == 6
        assert max(answer[str(day)]["counts"]) <= expected
    for entry in ask(http, "retention", **params, unbounded_retention="true").values():
        assert entry["counts"] == sorted(entry["counts"], reverse=True)
    compounded = ask(http, "retention", **RANGE, retention_type="compounded", unit="week")
    assert set(compounded) == {"2024-01-01", "2024-01-08"}


def test_unbounded_retention_looks_at_any_day_after(emulator: Emulator, http: httpx.Client) -> None:
    """Day N of unbounded retention counts people who returned on day N or later."""
    times: dict[str, list[int]] = defaultdict(list)
    born: dict[str, int] = {}
    for day in DAYS:
        for row in emulator.truth.events(day, time_in_ms=True):
            own = row["properties"]
            if own.get("distinct_id") is None or not isinstance(own.get("time"), int):
                continue
            times[str(own["distinct_id"])].append(own["time"])
            if row["event"] == "Sign Up":
                born[str(own["distinct_id"])] = own["time"]
    dates = {"from_date": str(DAYS[0]), "to_date": str(DAYS[1])}
    params = {**dates, "born_event": "Sign Up", "interval_count": 2}
    answer = ask(http, "retention", **params, unbounded_retention="true")
    later = 0
    for day in DAYS[:2]:
        begin = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)
        cohort = [who for who, at in born.items() if begin <= at < begin + 86_400_000]
        waits = [max([at - born[who] for at in times[who]]) // 86_400_000 for who in cohort]
        back = [max([at - born[who] for at in times[who]]) > 0 for who in cohort]
        counts = [
            sum(came and wait >= number for came, wait in zip(back, waits, strict=True))
            for number in range(3)
        ]
        assert answer[str(day)]["counts"] == counts
        later += sum(wait > 2 for wait in waits)
    assert later > 0


def test_frequency_falls(http: httpx.Client) -> None:
    """Element i counts people active in more than i parts, so it never grows."""
    by_hour = ask(http, "retention/addiction", **RANGE, unit="day", addiction_unit="hour")["data"]
    assert set(by_hour) == {str(day) for day in DAYS}
    by_day = ask(http, "retention/addiction", **RANGE, unit="week", addiction_unit="day")["data"]
    assert {len(counts) for counts in by_hour.values()} == {24}
    assert {len(counts) for counts in by_day.values()} == {7}
    for counts in (*by_hour.values(), *by_day.values()):
        assert counts == sorted(counts, reverse=True)
        assert counts[0] > 0


def test_saved_reports(emulator: Emulator, http: httpx.Client) -> None:
    """One report is flat, the other is split by country; headers name the levels."""
    flat = ask(http, "insights", bookmark_id=100)
    assert flat["headers"] == ["$event"]
    orders = flat["series"]["Order Completed"]
    assert (
        orders["2024-01-01T00:00:00+00:00"]
        == emulator.truth.count_by_event(START)["Order Completed"]
    )
    nested = ask(http, "insights", bookmark_id=101)
    assert nested["headers"] == ["$event", "mp_country_code"]
    assert nested["series"]["Order Completed"]["$overall"] == orders


def test_activity_of_users(emulator: Emulator, http: httpx.Client) -> None:
    """All events of some users are sorted by time, with their id under either name."""
    answer = ask(http, "stream/query", **RANGE, distinct_ids='["user-9005","user-9010"]')
    found = [entry["properties"] for entry in answer["results"]["events"]]
    rows = [row for day in DAYS for row in emulator.truth.events(day)]
    ids = [row["properties"].get("distinct_id") for row in rows]
    assert len(found) == ids.count("user-9005") + ids.count("user-9010")
    assert {"distinct_id" in own for own in found} == {True, False}
    assert [own["time"] for own in found] == sorted(own["time"] for own in found)


def test_jql_runs_one_script_or_none(opened: Callable[..., Opened]) -> None:
    """Counting by name works; other scripts are 412, and JQL can be gone altogether."""
    emulator, http = opened()
    script = 'function main(){return Events(params).groupBy(["name"], mixpanel.reducer.count())}'
    params = json.dumps({"from_date": str(START), "to_date": str(START)})
    answer = http.post("/api/query/jql", data={"script": script, "params": params})
    counts = {entry["key"][0]: entry["value"] for entry in answer.json()}
    assert counts == emulator.truth.count_by_event(START)
    assert http.post("/api/query/jql", data={"script": "boo"}).status_code == 412
    for variant in ("404", "412"):
        _, http = opened(jql=variant)
        refused = http.post("/api/query/jql", data={"script": script, "params": params})
        assert refused.status_code == int(variant)
        assert refused.json()["request"].startswith("/api/query/jql?project_id=")


def test_reports_use_the_zone_of_the_project(opened: Callable[..., Opened]) -> None:
    """Report days are local in both regimes, export days only in the legacy one."""
    zone = "America/Los_Angeles"
    emulator, http = opened(zone=zone)
    days = DAYS[2:5]
    local = [
        str(
            datetime.fromtimestamp(row["properties"]["time"], UTC).astimezone(ZoneInfo(zone)).date()
        )
        for day in DAYS
        for row in emulator.truth.events(day)
        if row["event"] == "Page View"
    ]
    dates = {"from_date": str(days[0]), "to_date": str(days[-1])}
    values = ask(http, "segmentation", **dates, event="Page View")["data"]["values"]["Page View"]
    assert values == {str(day): local.count(str(day)) for day in days}
    legacy, http = opened(zone=zone, regime="legacy")
    values = ask(http, "segmentation", **dates, event="Page View")["data"]["values"]["Page View"]
    assert values == {str(day): legacy.truth.count_by_event(day)["Page View"] for day in days}


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("segmentation", {}),
        ("segmentation", {**RANGE, "event": "Sign Up", "unit": "year"}),
        ("segmentation/sum", {**RANGE, "event": "Sign Up"}),
        ("segmentation", {**RANGE, "event": "Sign Up", "on": "country"}),
        ("events", RANGE),
        ("retention", {**RANGE, "born_event": "Sign Up", "unit": "day", "interval": "2"}),
        ("retention", RANGE),
        ("retention/addiction", RANGE),
        ("insights", {}),
        ("stream/query", RANGE),
        ("nothing/here", {}),
    ],
)
def test_wrong_questions_are_400(http: httpx.Client, path: str, params: dict[str, str]) -> None:
    """The error names the request and what is wrong."""
    answer = http.get(f"/api/query/{path}", params={**http.params, **params})
    assert answer.status_code == 400
    assert answer.json()["request"].startswith(f"/api/query/{path}?project_id=")
    assert answer.json()["error"]


def test_unknown_reports_are_404(opened: Callable[..., Opened]) -> None:
    """A funnel or report that does not exist is 404; `request` can be a complete URL."""
    emulator, http = opened(error_request="url")
    for path, params in (("funnels", {**RANGE, "funnel_id": 1}), ("insights", {"bookmark_id": 1})):
        answer = http.get(f"/api/query/{path}", params={**http.params, **params})
        assert answer.status_code == 404
        assert answer.json()["request"].startswith(f"{emulator.base_url}/api/query/{path}?")
