"""DiscoveryService: what a project holds, requested once."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from mixpanel_assets import (
    DiscoveryService,
    LexiconSchema,
    MixpanelAPIClient,
    SavedCohort,
    Workspace,
)
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import ConfigError, EventNotFoundError, QueryError, similar_names
from mixpanel_assets_tests.conftest import IMPATIENT, PLENTY, START

NOW = datetime(2024, 1, 14, 12, tzinfo=UTC)
RECENT = EmulatorSettings(start=START, events_per_day=250, now=lambda: NOW)


@pytest.fixture(scope="module")
def recent_emulator() -> Iterator[Emulator]:
    """Two weeks that end today."""
    with Emulator(RECENT) as emulator:
        yield emulator


@pytest.fixture
def emulator(recent_emulator: Emulator) -> Iterator[Emulator]:
    """The recent project, in good health before and after."""
    recent_emulator.faults.clear()
    yield recent_emulator
    recent_emulator.faults.clear()


@pytest.fixture
def discovery(credentials, emulator) -> Iterator[DiscoveryService]:
    """A service that remembers nothing yet."""
    with MixpanelAPIClient(
        credentials, api_base_url=emulator.base_url, retries=IMPATIENT, budget=PLENTY
    ) as client:
        yield DiscoveryService(client)


def properties_of(emulator: Emulator, event: str) -> set[str]:
    days = [START + timedelta(days=number) for number in range(14)]
    return {
        name
        for day in days
        for row in emulator.truth.events(day)
        if row["event"] == event
        for name in row["properties"]
    }


def test_names_of_events_are_sorted_and_all_there(discovery, emulator):
    """Those that the project holds."""
    assert discovery.list_events() == sorted(emulator.truth.totals()["by_event"])


def test_names_of_properties_are_all_there(discovery, emulator):
    """More than the 10 that Mixpanel sends unasked, and one that has no count."""
    found = discovery.list_properties("Order Completed")
    assert found == sorted(found)
    held = properties_of(emulator, "Order Completed") - {"time", "distinct_id", "$insert_id"}
    assert set(found) == held | {"$duration_s"}
    assert len(found) > 10


def test_values_are_sorted_text(discovery):
    """The values of a property of an event are sorted, and a limit is respected."""
    assert discovery.list_property_values("plan", "Sign Up") == ["free", "pro", "team"]
    assert len(discovery.list_property_values("plan", "Sign Up", 2)) == 2


def test_values_of_all_events(discovery):
    """Without an event, the values in all events come."""
    assert discovery.list_property_values("plan") == ["b", "free", "pro", "team"]


def test_mixpanel_may_want_an_event_for_values(credentials):
    """Without one it may refuse: its refusal is passed on, with what to do."""
    strict = RECENT.but(properties_without_event="400")
    with (
        Emulator(strict) as emulator,
        MixpanelAPIClient(
            credentials, api_base_url=emulator.base_url, retries=IMPATIENT, budget=PLENTY
        ) as client,
        pytest.raises(QueryError, match=r"event is a required parameter.*`--event`") as refused,
    ):
        DiscoveryService(client).list_property_values("plan")
    assert refused.value.status_code == 400
    assert refused.value.request_url


def test_funnels_and_cohorts_come_by_name(discovery):
    """Numbers, names and sizes."""
    assert [funnel.name for funnel in discovery.list_funnels()] == ["First order", "Purchase"]
    cohorts = discovery.list_cohorts()
    assert [cohort.name for cohort in cohorts] == sorted(cohort.name for cohort in cohorts)
    assert all(isinstance(cohort, SavedCohort) for cohort in cohorts)
    assert {type(cohort.is_visible) for cohort in cohorts} == {bool}


def test_saved_reports_come_by_name(discovery, client):
    """Each report has the id that requests it; a type selects the reports of that type."""
    found = discovery.list_bookmarks()
    assert [report.name for report in found] == sorted(report.name for report in found)
    assert {report.type for report in found} == {"insights", "funnels"}
    insights = discovery.list_bookmarks("insights")
    assert [report for report in found if report.type == "insights"] == insights
    for report in insights:
        assert client.query_saved_report(report.id)["headers"]
    with pytest.raises(ConfigError, match="bookmark_type must be one of"):
        discovery.list_bookmarks("boards")


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_list_of_reports_is_read_in_both_forms(wrapped, credentials):
    """What is missing or null is empty; a type that Mixpanel adds is no error."""
    reports = [
        {"id": 2, "name": None, "type": "launch-analysis"},
        {"id": 1, "name": "b", "type": "flows", "created": None, "params": "{}"},
    ]
    body = {"status": "ok", "results": {"results": reports} if wrapped else reports}
    answer = httpx.MockTransport(lambda request: httpx.Response(200, json=body))
    with MixpanelAPIClient(credentials, transport=answer, budget=PLENTY) as client:
        found = DiscoveryService(client).list_bookmarks()
    assert [(report.id, report.name, report.type, report.created) for report in found] == [
        (2, "", "launch-analysis", ""),
        (1, "b", "flows", ""),
    ]


DAYS = {"from_date": START, "to_date": START + timedelta(days=2)}
NOTHING = [
    lambda ws: ws.segmentation("Sign Pu", **DAYS),
    lambda ws: ws.segmentation("Sign Pu", **DAYS, on="plan"),
    lambda ws: ws.event_counts(["Sign Pu"], **DAYS),
    lambda ws: ws.property_counts("Sign Pu", "plan", **DAYS),
    lambda ws: ws.segmentation_sum("Sign Pu", **DAYS, on="amount"),
    lambda ws: ws.retention(born_event="Sign Pu", return_event="Page View", **DAYS),
    lambda ws: ws.fetch_events("none", **DAYS, events=["Sign Pu"], progress=False),
    lambda ws: ws.fetch_events("none", **DAYS, events=["Sign Pu"], parallel=True, progress=False),
]


@pytest.mark.parametrize("ask", NOTHING)
def test_a_misspelled_event_is_warned_of(ask, credentials, settings, caplog):
    """When nothing came, with the names that look like it; the answer is as it was."""
    with Workspace(credentials=credentials, settings=settings) as ws:
        ask(ws)
    [said] = [one.getMessage() for one in caplog.records if "Nothing was found" in one.message]
    assert "'Sign Pu'" in said
    assert "Sign Up" in said


def test_nothing_is_said_of_a_known_event(credentials, settings, caplog, emulator):
    """No names are requested if data came, and no warning is logged if they are refused."""
    with Workspace(credentials=credentials, settings=settings) as ws:
        ws.segmentation("Sign Up", **DAYS)
        assert not [r for r in emulator.requests[-1:] if r.path.endswith("/events/names")]
        ws.segmentation("Sign Up", **DAYS, where='properties["plan"] == "none such"')
        emulator.faults.add(Fault("403-json", path="/api/query/events/names", times=None))
        ws.clear_discovery_cache()
        ws.segmentation("Sign Pu", **DAYS)
    assert "Nothing was found" not in caplog.text


def test_top_events_compare_today_with_yesterday(discovery, emulator):
    """The most frequent event is first, and every call sends a request."""
    now = emulator.truth.count_by_event(NOW.date())
    before = emulator.truth.count_by_event(NOW.date() - timedelta(days=1))
    found = discovery.list_top_events(limit=2)
    assert [top.count for top in found] == sorted(now.values(), reverse=True)[:2]
    first = found[0]
    assert first.count == now[first.event]
    expected = (now[first.event] - before[first.event]) / before[first.event]
    assert first.percent_change == pytest.approx(expected)
    sent = len(emulator.requests)
    discovery.list_top_events(limit=2)
    assert len(emulator.requests) == sent + 1


def test_the_data_dictionary_is_read(discovery):
    """Types and names, sorted; metadata as far as there are any."""
    found = discovery.list_schemas()
    assert [(schema.entity_type, schema.name) for schema in found] == [
        ("event", "Added To Cart"),
        ("event", "Order Completed"),
        ("profile", "$user"),
    ]
    order = found[1].schema_json
    assert order.description == "A customer paid for the cart."
    assert order.properties["First Order"].type == "boolean"
    assert (order.metadata.source, order.metadata.display_name) == ("api", "Order")
    assert (order.metadata.tags, order.metadata.team_contacts) == (["core"], ["growth"])
    assert (order.metadata.hidden, order.metadata.dropped) == (False, False)
    assert discovery.list_schemas("profile") == [found[2]]
    one = discovery.get_schema("event", "Order Completed")
    assert one == LexiconSchema("event", "Order Completed", order)


ASKED_ONCE = [
    lambda d: d.list_events(),
    lambda d: d.list_properties("Sign Up"),
    lambda d: d.list_property_values("plan", "Sign Up"),
    lambda d: d.list_funnels(),
    lambda d: d.list_cohorts(),
    lambda d: d.list_bookmarks(),
    lambda d: d.list_bookmarks("funnels"),
    lambda d: d.list_schemas(),
    lambda d: d.list_schemas("event"),
    lambda d: d.get_schema("event", "Order Completed"),
]


@pytest.mark.parametrize("ask", ASKED_ONCE)
def test_a_second_call_sends_no_request(ask, discovery, emulator):
    """The result is cached until the cache is cleared."""
    sent = len(emulator.requests)
    first = ask(discovery)
    assert ask(discovery) == first
    assert len(emulator.requests) == sent + 1
    discovery.clear_cache()
    assert ask(discovery) == first
    assert len(emulator.requests) == sent + 2


def test_a_caller_cannot_change_what_is_remembered(discovery):
    """Each call returns a list of its own."""
    discovery.list_events().clear()
    assert discovery.list_events()


def test_a_failure_is_not_remembered(discovery, emulator):
    """After an error the next call sends the request again."""
    emulator.faults.add(Fault("404-json", path="/api/query/funnels/list"))
    with pytest.raises(QueryError):
        discovery.list_funnels()
    assert discovery.list_funnels()


@pytest.mark.parametrize(
    "ask",
    [
        lambda d, event: d.list_properties(event),
        lambda d, event: d.list_property_values("plan", event),
    ],
)
@pytest.mark.parametrize("refused", [False, True])
def test_an_unknown_event_is_named_with_similar_ones(ask, refused, discovery, emulator):
    """Whether Mixpanel answers nothing or refuses."""
    if refused:
        emulator.faults.add(Fault("404-json", path="/api/query/events/properties/*"))
    with pytest.raises(EventNotFoundError) as caught:
        ask(discovery, "order complete")
    assert caught.value.event_name == "order complete"
    assert caught.value.similar_events[0] == "Order Completed"
    assert "Order Completed" in caught.value.message
    assert caught.value.code == "EVENT_NOT_FOUND"


def test_a_refusal_about_a_known_event_stays_one(discovery, emulator):
    """It is not the event that is missing."""
    emulator.faults.add(Fault("404-json", path="/api/query/events/properties/top"))
    with pytest.raises(QueryError):
        discovery.list_properties("Sign Up")


def test_a_known_event_without_such_a_property_has_no_values(discovery):
    """An empty answer about an event that exists is an answer."""
    assert discovery.list_property_values("no such property", "Sign Up") == []


def test_at_most_five_names_are_similar():
    """The most similar first, whatever their case; none when nothing is."""
    known = [f"Order {number}" for number in range(9)]
    assert len(similar_names("order", known)) == 5
    assert similar_names("ORDER 3", known)[0] == "Order 3"
    assert similar_names("xyz", known) == []


def test_wrong_arguments_send_nothing(discovery, emulator):
    """An empty name or an unknown kind."""
    sent = len(emulator.requests)
    for ask in (
        lambda: discovery.list_properties(""),
        lambda: discovery.list_property_values("plan", "Sign Up", 0),
        lambda: discovery.list_schemas("group"),
        lambda: discovery.get_schema("event", ""),
    ):
        with pytest.raises(ConfigError):
            ask()
    assert len(emulator.requests) == sent
