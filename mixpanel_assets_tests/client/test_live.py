"""LiveQueryService: numbers that equal what the project holds, and the signatures users know."""

import inspect
import json
import logging
from collections import Counter
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets import DiscoveryService, LiveQueryService
from mixpanel_assets.client import answers
from mixpanel_assets.client.reports import Queries
from mixpanel_assets.emulator import Fault
from mixpanel_assets.errors import (
    APIError,
    AuthenticationError,
    ConfigError,
    JQLSyntaxError,
    QueryError,
    ServerError,
)
from mixpanel_assets_tests.conftest import START

DAYS = [START + timedelta(days=number) for number in range(5)]
FIRST, LAST = str(DAYS[0]), str(DAYS[-1])
SPAN = {"from_date": FIRST, "to_date": LAST}
COUNTRY = 'properties["mp_country_code"]'
AMOUNT = 'properties["amount"]'
SCRIPT = 'function main(){return Events(params).groupBy(["name"], mixpanel.reducer.count())}'

SIGNATURES = {
    LiveQueryService: {
        "segmentation": "event from_date to_date on=None unit='day' where=None type='general'",
        "funnel": (
            "funnel_id from_date to_date unit=None on=None where=None length=None length_unit='day'"
        ),
        "retention": (
            "born_event return_event from_date to_date born_where=None return_where=None "
            "interval=1 interval_count=10 unit='day' retention_type='birth' unbounded=False"
        ),
        "jql": "script params=None",
        "event_counts": "events from_date to_date type='general' unit='day'",
        "property_counts": (
            "event property_name from_date to_date type='general' unit='day' values=None limit=None"
        ),
        "activity_feed": "distinct_ids from_date=None to_date=None",
        "query_saved_report": ("bookmark_id bookmark_type='insights' from_date=None to_date=None"),
        "frequency": ("from_date to_date unit='day' addiction_unit='hour' event=None where=None"),
        "segmentation_numeric": ("event from_date to_date on unit='day' where=None type='general'"),
        "segmentation_sum": "event from_date to_date on unit='day' where=None",
        "segmentation_average": "event from_date to_date on unit='day' where=None",
    },
    DiscoveryService: {
        "list_events": "",
        "list_properties": "event",
        "list_property_values": "property_name event=None limit=100",
        "list_funnels": "",
        "list_cohorts": "",
        "list_bookmarks": "bookmark_type=None",
        "tell_of_unknown": "events",
        "list_top_events": "type='general' limit=None",
        "list_schemas": "entity_type=None",
        "get_schema": "entity_type name",
        "clear_cache": "",
    },
}


@pytest.fixture
def live(client):
    return LiveQueryService(client)


def rows_of(emulator, event, days=DAYS):
    """Return day and properties of the events that the project holds."""
    return [
        (str(day), row["properties"])
        for day in days
        for row in emulator.truth.events(day)
        if row["event"] == event
    ]


def daily(emulator, event):
    return {str(day): emulator.truth.count_by_event(day).get(event, 0) for day in DAYS}


@pytest.mark.parametrize("service", SIGNATURES)
def test_methods_have_the_parameters_that_users_know(service):
    """Names, order and defaults; by position or by name."""
    found = {}
    for name, method in inspect.getmembers(service, inspect.isfunction):
        if name.startswith("_"):
            continue
        _, *parameters = inspect.signature(method).parameters.values()
        assert {parameter.kind for parameter in parameters} <= {
            inspect.Parameter.POSITIONAL_OR_KEYWORD
        }
        found[name] = " ".join(
            parameter.name
            if parameter.default is inspect.Parameter.empty
            else f"{parameter.name}={parameter.default!r}"
            for parameter in parameters
        )
    assert found == SIGNATURES[service]


def test_the_client_asks_with_the_same_parameters():
    """What a report takes, the client's question takes."""
    for name in SIGNATURES[LiveQueryService]:
        asked = inspect.signature(getattr(Queries, name)).parameters
        offered = inspect.signature(getattr(LiveQueryService, name)).parameters
        assert asked == offered


def test_segmentation_counts_the_events_of_each_day(live, emulator):
    """In order of date, whatever the order they came in; the total is their sum."""
    result = live.segmentation("Sign Up", FIRST, LAST)
    assert result.series == {"Sign Up": daily(emulator, "Sign Up")}
    assert list(result.series["Sign Up"]) == [str(day) for day in DAYS]
    assert result.total == sum(daily(emulator, "Sign Up").values())
    assert (result.event, result.unit, result.segment_property) == ("Sign Up", "day", None)
    assert (result.from_date, result.to_date) == (FIRST, LAST)
    assert result.df["count"].sum() == result.total


def test_segments_are_filled_with_zeros(live, emulator):
    """Each segment has every date, and together they are the whole."""
    result = live.segmentation("Order Completed", on=COUNTRY, **SPAN)
    rows = rows_of(emulator, "Order Completed")
    held = Counter((own["mp_country_code"], day) for day, own in rows)
    countries = {country for country, _ in held}
    assert result.series == {
        country: {str(day): held[country, str(day)] for day in DAYS} for country in countries
    }
    assert 0 in {count for row in result.series.values() for count in row.values()}
    assert result.total == len(rows)
    assert len(result.df) == len(countries) * len(DAYS)


def test_an_event_that_never_happened_is_all_zeros(live):
    """It is a row of zeros, not an error."""
    assert live.segmentation("Nope", **SPAN).series == {"Nope": {str(day): 0 for day in DAYS}}
    assert live.segmentation("Nope", on=COUNTRY, **SPAN).series == {}


def test_dates_may_be_dates(live, emulator):
    """A date is as good as its text."""
    result = live.segmentation("Sign Up", DAYS[0], DAYS[0])
    assert (result.from_date, result.to_date) == (FIRST, FIRST)
    assert result.total == emulator.truth.count_by_event(DAYS[0])["Sign Up"]


def test_a_filter_narrows(live, emulator):
    """Only what fits the expression is counted."""
    rows = rows_of(emulator, "Order Completed")
    fit = [own for _, own in rows if own["mp_country_code"] == "FR"]
    assert live.segmentation("Order Completed", where=f'{COUNTRY} == "FR"', **SPAN).total == len(
        fit
    )


def test_event_counts_have_a_row_for_each_name(live, emulator):
    """Names of events that never happened have zeros; the order is that of the argument."""
    names = ["Sign Up", "Nope", "Page View"]
    result = live.event_counts(names, FIRST, LAST)
    assert result.events == names
    assert list(result.series) == names
    assert result.series == {name: daily(emulator, name) for name in names}


def test_averages_leave_out_dates_without_anybody(live, emulator):
    """A date without users has no average; every other date has the events per user."""
    result = live.event_counts(["Nope", "Page View"], FIRST, LAST, type="average")
    assert result.series["Nope"] == {}
    people = live.event_counts(["Page View"], FIRST, LAST, type="unique").series["Page View"]
    for day, count in daily(emulator, "Page View").items():
        assert result.series["Page View"][day] == pytest.approx(count / people[day])


def test_property_counts_split_by_value(live, emulator):
    """Each value has every date; a value that never happened has zeros."""
    rows = rows_of(emulator, "Sign Up")
    held = Counter((own["plan"], day) for day, own in rows)
    result = live.property_counts("Sign Up", "plan", FIRST, LAST)
    assert result.series == {
        plan: {str(day): held[plan, str(day)] for day in DAYS} for plan in {p for p, _ in held}
    }
    some = live.property_counts("Sign Up", "plan", FIRST, LAST, values=["pro", "none"])
    assert some.series["pro"] == result.series["pro"]
    assert set(some.series["none"].values()) == {0}
    assert len(live.property_counts("Sign Up", "plan", FIRST, LAST, limit=1).series) == 1


def test_a_list_that_may_be_cut_is_told(live, emulator, caplog):
    """As many values as Mixpanel sends unasked: there may be more."""
    values = {f"v{number}": {FIRST: 1} for number in range(255)}
    answer = json.dumps({"data": {"series": [FIRST], "values": values}})
    emulator.faults.add(Fault("html-200", path="/api/query/events/properties", text=answer))
    with caplog.at_level(logging.WARNING):
        live.property_counts("Sign Up", "plan", FIRST, LAST)
    assert "255 values; there may be more" in caplog.text


def test_funnels_add_up_their_dates(live, client):
    """Steps narrow; each rate is the part of the step before."""
    result = live.funnel(7509, FIRST, LAST)
    raw = client.funnel(7509, FIRST, LAST)["data"]
    assert (result.funnel_id, result.funnel_name) == (7509, "Purchase")
    counts = [sum(raw[day]["steps"][number]["count"] for day in raw) for number in range(4)]
    assert [step.count for step in result.steps] == counts
    assert [step.event for step in result.steps][::3] == ["Page View", "Order Completed"]
    assert result.steps[0].conversion_rate == 1.0
    assert result.steps[2].conversion_rate == counts[2] / counts[1]
    assert result.conversion_rate == counts[3] / counts[0]
    assert result.segments == {}


def test_funnels_keep_their_segments(live):
    """`$overall` covers all users, is not a segment, and equals the steps without a split."""
    whole = live.funnel(7509, FIRST, LAST)
    result = live.funnel(7509, FIRST, LAST, on=COUNTRY)
    assert result.steps == whole.steps
    assert result.conversion_rate == whole.conversion_rate
    assert "$overall" not in result.segments
    assert {len(steps) for steps in result.segments.values()} == {4}
    started = [steps[0].count for steps in result.segments.values()]
    assert started == sorted(started, reverse=True)
    assert sum(started) >= whole.steps[0].count


def test_the_names_of_funnels_are_asked_once(live, emulator):
    """The second funnel spends one request."""
    live.funnel(7509, FIRST, LAST)
    sent = len(emulator.requests)
    assert live.funnel(9070, FIRST, LAST).funnel_name == "First order"
    assert len(emulator.requests) == sent + 1


def test_numbers_of_a_funnel_do_not_depend_on_its_name(live, emulator, caplog):
    """When the list of names fails, the numbers come and the log says why the name does not."""
    emulator.faults.add(Fault("403-json", path="/api/query/funnels/list", times=None))
    result = live.funnel(7509, FIRST, LAST)
    assert (result.funnel_name, len(result.steps)) == ("", 4)
    assert "name of funnel 7509" in caplog.text


def test_retention_is_the_part_that_came_back(live, client, emulator):
    """Sizes are the sign-ups of the day; parts are counts by size."""
    result = live.retention("Sign Up", "Page View", FIRST, LAST, interval_count=3)
    raw = client.retention("Sign Up", "Page View", FIRST, LAST, interval_count=3)
    assert [cohort.date for cohort in result.cohorts] == sorted(raw)
    assert {cohort.date: cohort.size for cohort in result.cohorts} == daily(emulator, "Sign Up")
    for cohort in result.cohorts:
        assert [part * cohort.size for part in cohort.retention] == pytest.approx(
            raw[cohort.date]["counts"]
        )
    assert list(result.df.columns)[-1] == "period_3"


def test_frequency_is_as_received_in_order(live, client):
    """24 hours a day; the event may be any."""
    result = live.frequency(FIRST, LAST)
    assert result.data == client.frequency(FIRST, LAST)["data"]
    assert list(result.data) == [str(day) for day in DAYS]
    assert list(result.df.columns) == ["date", *(f"period_{number}" for number in range(1, 25))]
    assert result.event is None


def test_sums_averages_and_ranges_of_a_number(live, emulator):
    """Of the orders that the project holds."""
    amounts = [(day, own["amount"]) for day, own in rows_of(emulator, "Order Completed")]
    by_day = {str(day): [amount for when, amount in amounts if when == str(day)] for day in DAYS}
    sums = live.segmentation_sum("Order Completed", FIRST, LAST, AMOUNT)
    assert sums.results == pytest.approx({day: sum(found) for day, found in by_day.items()})
    assert list(sums.results) == sorted(by_day)
    assert sums.computed_at
    averages = live.segmentation_average("Order Completed", FIRST, LAST, AMOUNT)
    expected = {day: sum(found) / len(found) for day, found in by_day.items()}
    assert averages.results == pytest.approx(expected)
    ranges = live.segmentation_numeric("Order Completed", FIRST, LAST, AMOUNT)
    assert sum(sum(row.values()) for row in ranges.series.values()) == len(amounts)
    assert {tuple(row) for row in ranges.series.values()} == {tuple(sorted(by_day))}
    begins = [float(label.split(" - ")[0].replace(",", "")) for label in ranges.series]
    assert begins == sorted(begins)
    assert ranges.property_expr == AMOUNT


def test_the_activity_of_users_is_whole_and_exact(live, emulator):
    """Every event of theirs, in order of time, with its properties as they are."""
    ids = ["user-9005", "user-9010"]
    result = live.activity_feed(ids, FIRST, LAST)
    held = [
        row
        for day in DAYS
        for row in emulator.truth.events(day)
        if row["properties"].get("distinct_id") in ids
    ]
    assert len(result.events) == len(held) > 0
    times = [entry.time for entry in result.events]
    assert times == sorted(times)
    assert {entry.distinct_id for entry in result.events} <= set(ids)

    def known(properties):
        same = {name: value for name, value in properties.items() if name != "$distinct_id"}
        same["distinct_id"] = properties.get("distinct_id", properties.get("$distinct_id"))
        return json.dumps(same, sort_keys=True)

    found = sorted((entry.event, known(entry.properties)) for entry in result.events)
    assert found == sorted((row["event"], known(row["properties"])) for row in held)
    first = result.events[0]
    assert first.time == datetime.fromtimestamp(first.properties["time"], UTC)
    assert list(result.df.columns)[:3] == ["event", "time", "distinct_id"]


def test_a_feed_without_days_ends_today(live, emulator):
    """30 days up to today, or around the day that was given; the result names them."""
    result = live.activity_feed(["user-1"], to_date=LAST)
    assert (result.from_date, result.to_date) == ("2023-12-06", LAST)
    open_end = live.activity_feed(["user-1"])
    sent = emulator.requests[-1].params
    assert (sent["from_date"], sent["to_date"]) == (open_end.from_date, open_end.to_date)
    span = date.fromisoformat(open_end.to_date) - date.fromisoformat(open_end.from_date)
    assert span == timedelta(days=30)


def test_saved_reports_keep_what_mixpanel_nests(live, client):
    """A flat report is a table of dates and events; a split one has a column more."""
    flat = live.query_saved_report(100)
    raw = client.query_saved_report(100)
    assert (flat.series, flat.headers) == (raw["series"], ["$event"])
    assert flat.report_type == "insights"
    assert flat.from_date == raw["date_range"]["from_date"]
    assert flat.computed_at
    assert list(flat.df.columns) == ["date", "event", "count"]
    split = live.query_saved_report(101)
    assert list(split.df.columns) == ["date", "event", "mp_country_code", "count"]
    frame = split.df.groupby(split.df["mp_country_code"] == "$overall")["count"].sum()
    assert frame[True] == frame[False]
    funnel = live.query_saved_report(7509, "funnels", FIRST, LAST)
    assert funnel.report_type == "funnel"
    assert (funnel.from_date, funnel.to_date) == (FIRST, LAST)
    assert list(funnel.series) == [str(day) for day in DAYS]


def test_a_script_s_groups_become_columns(live, emulator):
    """Counts by name, as the project holds them."""
    result = live.jql(SCRIPT, {"from_date": FIRST, "to_date": FIRST})
    frame = result.df
    assert dict(zip(frame["key_0"], frame["value"], strict=True)) == emulator.truth.count_by_event(
        START
    )
    with pytest.raises(JQLSyntaxError):
        live.jql("boo")


CALLS = {
    "segmentation": lambda s: s.segmentation("e", FIRST, LAST),
    "funnels": lambda s: s.funnel(7509, FIRST, LAST),
    "retention": lambda s: s.retention("a", "b", FIRST, LAST),
    "events": lambda s: s.event_counts(["e"], FIRST, LAST),
    "events/properties": lambda s: s.property_counts("e", "p", FIRST, LAST),
    "stream/query": lambda s: s.activity_feed(["u"], FIRST, LAST),
    "insights": lambda s: s.query_saved_report(100),
    "retention/addiction": lambda s: s.frequency(FIRST, LAST),
    "segmentation/numeric": lambda s: s.segmentation_numeric("e", FIRST, LAST, AMOUNT),
    "segmentation/sum": lambda s: s.segmentation_sum("e", FIRST, LAST, AMOUNT),
    "segmentation/average": lambda s: s.segmentation_average("e", FIRST, LAST, AMOUNT),
    "jql": lambda s: s.jql("x"),
}


@pytest.mark.parametrize("path", CALLS)
@pytest.mark.parametrize(
    ("kind", "error"),
    [("500-json", ServerError), ("402-json", APIError), ("404-json", QueryError)],
)
def test_every_report_passes_refusals_on(path, kind, error, live, emulator):
    """Never a result with nothing in it."""
    emulator.faults.add(Fault(kind, path=f"/api/query/{path}", times=None))
    with pytest.raises(error):
        CALLS[path](live)


@pytest.mark.parametrize("path", CALLS)
def test_an_answer_of_another_shape_is_no_result(path, live, emulator):
    """A body that is JSON, but not this report, is an error that says so."""
    body = '{"data": [1], "results": 5, "series": 3, "2024-01-01": {}}'
    emulator.faults.add(Fault("html-200", path=f"/api/query/{path}", text=body))
    with pytest.raises(ServerError, match="answered 200"):
        CALLS[path](live)


def test_refused_credentials_are_no_empty_report(live, emulator):
    """400 with the words of a refusal."""
    emulator.faults.add(Fault("400-auth-text", path="*"))
    with pytest.raises(AuthenticationError):
        live.segmentation("Sign Up", FIRST, LAST)


def test_wrong_days_send_nothing(live, emulator):
    """Days are checked before a request is spent."""
    sent = len(emulator.requests)
    for call in (
        lambda: live.segmentation("e", "2024-1", LAST),
        lambda: live.funnel(7509, LAST, FIRST),
        lambda: live.activity_feed(["u"], "yesterday"),
        lambda: live.frequency(FIRST, None),
    ):
        with pytest.raises(ConfigError):
            call()
    assert len(emulator.requests) == sent


def test_an_event_without_a_moment_is_not_given_one():
    """No 1970 for a time that is missing or absurd."""
    for time in ({}, {"time": "x"}, {"time": True}, {"time": 10**18}, {"time": -1}):
        answer = {"results": {"events": [{"event": "e", "properties": time}]}}
        with pytest.raises(ServerError, match="no moment"):
            answers.activity_in(answer)


def test_a_frequency_report_may_lack_its_wrapper():
    """One of the documented examples does."""
    assert answers.frequency_in({"2024-01-02": [2], "2024-01-01": [3]}) == {
        "2024-01-01": [3],
        "2024-01-02": [2],
    }


def test_segments_that_skip_dates_are_still_added_up():
    """A segment is absent on dates without users; `$overall` may be absent altogether."""
    answer = {
        "data": {
            "2024-01-01": {"FR": [{"count": 4, "event": "A"}, {"count": 1, "event": "B"}]},
            "2024-01-02": {
                "FR": [{"count": 2, "event": "A"}, {"count": 0, "event": "B"}],
                "DE": [{"count": 9, "event": "A"}, {"count": 3, "event": "B"}],
            },
        }
    }
    steps, segments = answers.split_funnel_in(answer)
    assert [step.count for step in steps] == [15, 4]
    assert {name: [step.count for step in found] for name, found in segments.items()} == {
        "DE": [9, 3],
        "FR": [6, 1],
    }
    assert list(segments) == ["DE", "FR"]


@given(
    st.dictionaries(
        st.text(max_size=3),
        st.dictionaries(st.dates().map(str), st.integers(0, 2**60), max_size=4),
        max_size=4,
    ),
    st.lists(st.dates().map(str), max_size=4),
)
def test_filling_keeps_every_count(values, series):
    """Sorted dates, the same for all names; the counts are the given ones and zeros."""
    found = answers.series_in({"data": {"values": values, "series": series}}, "counts")
    assert found.keys() == values.keys()
    for name, row in found.items():
        assert list(row) == sorted(row)
        assert set(row) >= set(series)
        assert {when: count for when, count in row.items() if count} == {
            when: count for when, count in values[name].items() if count
        }
    assert len({tuple(row) for row in found.values()}) <= 1


THREE_DAYS = ("2024-01-03", "2024-01-05")


def test_people_are_not_events(live):
    """Per hour or day, and an average has no zeros."""
    events = live.segmentation("Page View", *THREE_DAYS)
    people = live.segmentation("Page View", *THREE_DAYS, type="unique")
    hours = live.segmentation("Page View", *THREE_DAYS, unit="hour")
    average = live.segmentation("Page View", *THREE_DAYS, type="average")
    assert people.type == "unique"
    assert 0 < people.total < events.total == hours.total
    assert len(hours.series["Page View"]) > len(events.series["Page View"])
    assert all(count >= 1 for count in average.series["Page View"].values())


def test_a_funnel_takes_a_filter_and_a_length(live):
    """Fewer people come through in a minute, and fewer begin in one country."""
    saved = live.funnel(7509, *THREE_DAYS)
    hurried = live.funnel(7509, *THREE_DAYS, length=1, length_unit="minute")
    assert hurried.steps[0].count == saved.steps[0].count
    assert hurried.steps[-1].count < saved.steps[-1].count
    germans = live.funnel(7509, *THREE_DAYS, where='properties["mp_country_code"] == "DE"')
    assert 0 < germans.steps[0].count < saved.steps[0].count


def test_unbounded_retention_does_not_fall_below_bounded(live):
    """A user that returns later counts in each period before."""
    asked = ("Page View", "Page View", *THREE_DAYS)
    for kind in ("birth", "compounded"):
        bounded = live.retention(*asked, retention_type=kind).cohorts[0]
        unbounded = live.retention(*asked, retention_type=kind, unbounded=True).cohorts[0]
        assert all(
            more >= less for more, less in zip(unbounded.retention, bounded.retention, strict=True)
        )
        assert unbounded.retention != bounded.retention
