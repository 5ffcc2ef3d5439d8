"""The client's questions to the Query and App APIs: what is sent, what a refusal becomes."""

import json
import subprocess
import sys
from contextlib import suppress

import pytest

from mixpanel_assets.client import BudgetSettings, MixpanelAPIClient, RetryPolicy
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import (
    APIError,
    AuthenticationError,
    ConfigError,
    JQLSyntaxError,
    QueryError,
    RateLimitError,
    ServerError,
)
from mixpanel_assets_tests.conftest import IMPATIENT, PLENTY, START
from mixpanel_assets_tests.laws import siblings

DAYS = ("2024-01-01", "2024-01-03")
ON = 'properties["amount"]'
WHERE = 'properties["mp_country_code"] == "DE"'
SCRIPT = 'function main(){return Events(params).groupBy(["name"], mixpanel.reducer.count())}'
DATES = {"from_date": DAYS[0], "to_date": DAYS[1]}

# The call, the path of its request, and the parameters that are sent.
QUESTIONS = {
    "get_events": (lambda c: c.get_events(), "events/names", {"type": "general", "limit": "5000"}),
    "get_event_properties": (
        lambda c: c.get_event_properties("Sign Up"),
        "events/properties/top",
        {"event": "Sign Up", "limit": "5000"},
    ),
    "get_property_values": (
        lambda c: c.get_property_values("Sign Up", "plan", 7),
        "events/properties/values",
        {"event": "Sign Up", "name": "plan", "limit": "7"},
    ),
    "get_top_events": (
        lambda c: c.get_top_events("unique", 3),
        "events/top",
        {"type": "unique", "limit": "3"},
    ),
    "list_funnels": (lambda c: c.list_funnels(), "funnels/list", {}),
    "list_cohorts": (lambda c: c.list_cohorts(), "cohorts/list", {}),
    "segmentation": (
        lambda c: c.segmentation("Sign Up", *DAYS),
        "segmentation",
        {**DATES, "event": "Sign Up", "unit": "day", "type": "general"},
    ),
    "segmentation on": (
        lambda c: c.segmentation("Sign Up", *DAYS, on='properties["plan"]', unit="week"),
        "segmentation",
        {
            **DATES,
            "event": "Sign Up",
            "unit": "week",
            "type": "general",
            "on": 'properties["plan"]',
            "limit": "10000",
        },
    ),
    "segmentation by minute": (
        lambda c: c.segmentation("Sign Up", *DAYS, unit="minute"),
        "segmentation",
        {**DATES, "event": "Sign Up", "unit": "minute", "type": "general"},
    ),
    "segmentation of people": (
        lambda c: c.segmentation("Sign Up", *DAYS, type="unique"),
        "segmentation",
        {**DATES, "event": "Sign Up", "unit": "day", "type": "unique"},
    ),
    "funnel of an hour": (
        lambda c: c.funnel(7509, *DAYS, where=WHERE, length=90, length_unit="minute"),
        "funnels",
        {
            **DATES,
            "funnel_id": "7509",
            "where": WHERE,
            "length": "90",
            "length_unit": "minute",
        },
    ),
    "retention compounded": (
        lambda c: c.retention(
            "Page View", "Page View", *DAYS, retention_type="compounded", unbounded=True
        ),
        "retention",
        {
            **DATES,
            "retention_type": "compounded",
            "event": "Page View",
            "interval_count": "10",
            "unit": "day",
            "unbounded_retention": "true",
        },
    ),
    "funnel on": (
        lambda c: c.funnel(7509, *DAYS, on="country"),
        "funnels",
        {**DATES, "funnel_id": "7509", "on": 'properties["country"]', "limit": "10000"},
    ),
    "segmentation_sum of a name": (
        lambda c: c.segmentation_sum("Order Completed", *DAYS, "amount"),
        "segmentation/sum",
        {**DATES, "event": "Order Completed", "on": ON, "unit": "day"},
    ),
    "funnel": (
        lambda c: c.funnel(7509, *DAYS, "week"),
        "funnels",
        {**DATES, "funnel_id": "7509", "unit": "week"},
    ),
    "retention": (
        lambda c: c.retention("Sign Up", "Page View", *DAYS, unit="week"),
        "retention",
        {
            **DATES,
            "retention_type": "birth",
            "born_event": "Sign Up",
            "event": "Page View",
            "interval_count": "10",
            "unit": "week",
        },
    ),
    "retention interval": (
        lambda c: c.retention("Sign Up", "Page View", *DAYS, interval=2, interval_count=3),
        "retention",
        {
            **DATES,
            "retention_type": "birth",
            "born_event": "Sign Up",
            "event": "Page View",
            "interval_count": "3",
            "interval": "2",
        },
    ),
    "jql": (
        lambda c: c.jql(SCRIPT, DATES),
        "jql",
        {"script": SCRIPT, "params": json.dumps(DATES)},
    ),
    "event_counts": (
        lambda c: c.event_counts(["Sign Up", "b"], *DAYS, type="unique"),
        "events",
        {**DATES, "event": '["Sign Up", "b"]', "type": "unique", "unit": "day"},
    ),
    "property_counts": (
        lambda c: c.property_counts("Sign Up", "plan", *DAYS, values=["pro"], limit=2),
        "events/properties",
        {
            **DATES,
            "event": "Sign Up",
            "name": "plan",
            "type": "general",
            "unit": "day",
            "values": '["pro"]',
            "limit": "2",
        },
    ),
    "activity_feed": (
        lambda c: c.activity_feed(["user-1"], *DAYS),
        "stream/query",
        {**DATES, "distinct_ids": '["user-1"]'},
    ),
    "query_saved_report": (
        lambda c: c.query_saved_report(100),
        "insights",
        {"bookmark_id": "100"},
    ),
    "saved funnel": (
        lambda c: c.query_saved_report(7509, "funnels", *DAYS),
        "funnels",
        {**DATES, "funnel_id": "7509"},
    ),
    "frequency": (
        lambda c: c.frequency(*DAYS, event="Page View"),
        "retention/addiction",
        {**DATES, "unit": "day", "addiction_unit": "hour", "event": "Page View"},
    ),
    "segmentation_numeric": (
        lambda c: c.segmentation_numeric("Order Completed", *DAYS, ON),
        "segmentation/numeric",
        {**DATES, "event": "Order Completed", "on": ON, "unit": "day", "type": "general"},
    ),
    "segmentation_sum": (
        lambda c: c.segmentation_sum("Order Completed", *DAYS, ON, "hour"),
        "segmentation/sum",
        {**DATES, "event": "Order Completed", "on": ON, "unit": "hour"},
    ),
    "segmentation_average": (
        lambda c: c.segmentation_average("Order Completed", *DAYS, ON, where=f"{ON} > 5"),
        "segmentation/average",
        {**DATES, "event": "Order Completed", "on": ON, "unit": "day", "where": f"{ON} > 5"},
    ),
}
LEXICON = {
    "all": (lambda c: c.get_schemas(), "/schemas"),
    "events": (lambda c: c.get_schemas("event"), "/schemas/event"),
    "one": (lambda c: c.get_schema("event", "Order Completed"), "/schemas/event/Order Completed"),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_is_one_request_with_these_parameters(name, client, emulator):
    """The documented path and parameters, nothing more, and the answer as it came."""
    ask, path, params = QUESTIONS[name]
    before = len(emulator.requests)
    answer = ask(client)
    assert isinstance(answer, list | dict)
    [request] = emulator.requests[before:]
    assert request.path == f"/api/query/{path}"
    assert request.params == {"project_id": str(emulator.project_id), **params}


@pytest.mark.parametrize("name", LEXICON)
def test_the_data_dictionary_is_asked_of_the_project(name, client, emulator):
    """It lies below the project's own path."""
    ask, path = LEXICON[name]
    assert ask(client)
    assert emulator.requests[-1].path == f"/api/app/projects/{emulator.project_id}{path}"


def test_one_definition_comes_wrapped_or_bare(credentials):
    """Documented bare, seen wrapped: the same comes out."""
    found = []
    for wrapped in (True, False):
        with (
            Emulator(EmulatorSettings(days=1, schema_wrapped=wrapped)) as emulator,
            MixpanelAPIClient(
                credentials, api_base_url=emulator.base_url, retries=IMPATIENT, budget=PLENTY
            ) as client,
        ):
            found.append(client.get_schema("event", "Order Completed"))
    assert found[0] == found[1]
    assert found[0]["properties"]["amount"]["type"] == "number"


WRONG = {
    "no day": lambda c: c.segmentation("e", "01.02.2024", DAYS[1]),
    "days in the wrong order": lambda c: c.segmentation("e", DAYS[1], DAYS[0]),
    "no event": lambda c: c.segmentation(" ", *DAYS),
    "an unknown unit": lambda c: c.segmentation("e", *DAYS, unit="year"),
    "an empty filter": lambda c: c.segmentation("e", *DAYS, where=""),
    "a text for a list": lambda c: c.event_counts("e", *DAYS),
    "an empty list": lambda c: c.event_counts([], *DAYS),
    "an unknown type": lambda c: c.event_counts(["e"], *DAYS, type="sum"),
    "no number": lambda c: c.funnel("7509", *DAYS),
    "a limit of 0": lambda c: c.property_counts("e", "p", *DAYS, limit=0),
    "weeks and an interval": lambda c: c.retention("a", "b", *DAYS, interval=2, unit="week"),
    "one day of two": lambda c: c.activity_feed(["u"], from_date=DAYS[0]),
    "hours of months": lambda c: c.frequency(*DAYS, addiction_unit="week"),
    "nothing to sum": lambda c: c.segmentation_sum("e", *DAYS, ""),
    "no script": lambda c: c.jql(""),
    "a funnel without days": lambda c: c.query_saved_report(1, "funnels"),
    "days of a report that has its own": lambda c: c.query_saved_report(1, "insights", *DAYS),
    "flows": lambda c: c.query_saved_report(1, "flows"),
    "an unknown kind of report": lambda c: c.query_saved_report(1, "pie"),
    "an unknown entity": lambda c: c.get_schemas("group"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_argument_costs_no_request(name, client, emulator):
    """It is found before anything is sent."""
    before = len(emulator.requests)
    with pytest.raises(ConfigError):
        WRONG[name](client)
    assert len(emulator.requests) == before


@pytest.mark.parametrize(
    ("kind", "error", "requests"),
    [
        ("400-auth-text", AuthenticationError, 1),
        ("401-json", AuthenticationError, 1),
        ("402-json", APIError, 1),
        ("403-json", AuthenticationError, 1),
        ("404-json", QueryError, 1),
        ("412-json", QueryError, 1),
        ("429-window", RateLimitError, 1),
        ("500-json", ServerError, 3),
        ("503-text", ServerError, 3),
        ("error-200", QueryError, 1),
        ("html-200", ServerError, 3),
    ],
)
def test_refusals_become_the_error_that_says_what_to_do(kind, error, requests, client, emulator):
    """Faults of the server are repeated, everything else is raised at once."""
    emulator.faults.add(Fault(kind, path="/api/query/segmentation", times=None, seconds=3600))
    before = len(emulator.requests)
    with pytest.raises(error) as caught:
        client.segmentation("Sign Up", *DAYS)
    assert type(caught.value) is error
    assert len(emulator.requests) - before == requests
    if kind == "402-json":
        assert caught.value.code == "PLAN_LIMIT"
    if kind == "429-window":
        assert 3590 <= caught.value.retry_after <= 3600


def test_a_passing_fault_is_not_seen(client, emulator):
    """A 429 and a 500, then the answer."""
    emulator.faults.add(Fault("429-window", path="/api/query/segmentation", seconds=0))
    emulator.faults.add(Fault("500-json", path="/api/query/segmentation"))
    answer = client.segmentation("Sign Up", *DAYS)
    assert sum(answer["data"]["values"]["Sign Up"].values()) > 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda c: c.funnel(1, *DAYS),
        lambda c: c.query_saved_report(1),
        lambda c: c.get_schema("event", "a/b?c"),
        lambda c: c.segmentation("Sign Up", *DAYS, where="country"),
    ],
)
def test_what_is_not_there_or_malformed_is_a_query_error(ask, client):
    """400 and 404 of real questions, not of faults."""
    with pytest.raises(QueryError) as caught:
        ask(client)
    assert caught.value.status_code in (400, 404)


def test_every_question_counts_against_the_budget(credentials, emulator, tmp_path):
    """Retries too: after two questions, one of them repeated, the third has no room."""
    budget = BudgetSettings(query_per_hour=3, window_seconds=3600, state_dir=tmp_path)
    patience = RetryPolicy(max_retries=1, first_wait_seconds=0.001, max_wait_seconds=0.01)
    emulator.faults.add(Fault("500-json", path="/api/query/funnels/list"))
    with MixpanelAPIClient(
        credentials, api_base_url=emulator.base_url, retries=patience, budget=budget
    ) as client:
        client.list_funnels()
        client.list_cohorts()
        with pytest.raises(RateLimitError):
            client.list_funnels()
        client.get_schemas()


def test_lexicon_has_a_limit_of_its_own(credentials, emulator, tmp_path):
    """The sixth request within a minute is not sent: Mixpanel allows five, by any path."""
    sent = len(emulator.requests)
    with MixpanelAPIClient(
        credentials,
        api_base_url=emulator.base_url,
        retries=RetryPolicy(max_wait_seconds=0.01),
        budget=BudgetSettings(state_dir=tmp_path),
    ) as client:
        for _ in range(3):
            client.get_schema("event", "Order Completed")
        client.get_schemas()
        client.get("app", f"/projects/{credentials.project_id}/schemas/event")
        with pytest.raises(RateLimitError, match="all 5 lexicon requests of 65 s"):
            client.get_schemas("event")
        client.get("app", "/me")
        client.list_funnels()
    assert {request.status for request in emulator.requests[sent:]} == {200}


def test_an_answer_of_another_shape_is_an_error(client, emulator):
    """A list where an object belongs is not passed on."""
    emulator.faults.add(Fault("html-200", path="/api/query/segmentation", text="[1]"))
    with pytest.raises(ServerError, match="a list, not a dict"):
        client.segmentation("Sign Up", *DAYS)


def test_a_property_called_error_is_no_error(client, emulator):
    """The names of properties are data."""
    text = '{"error": {"count": 3}, "plan": {"count": 4}}'
    emulator.faults.add(Fault("html-200", path="/api/query/events/properties/top", text=text))
    assert list(client.get_event_properties("Sign Up")) == ["error", "plan"]


def test_a_failed_script_says_where(client):
    """The emulator's 412, taken apart."""
    script = "boo('ü')"
    with pytest.raises(JQLSyntaxError) as caught:
        client.jql(script)
    error = caught.value
    assert isinstance(error, QueryError)
    assert (error.code, error.status_code) == ("JQL_SYNTAX_ERROR", 412)
    assert (error.error_type, error.error_message) == ("Error", "cannot run this script")
    assert error.line_info is None
    assert error.stack_trace == "at main"
    assert error.script == script
    assert error.raw_error == "Uncaught exception Error: cannot run this script\n  at main"
    assert error.request_method == "POST"
    assert error.details["script"] == script


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (
            "UncaughtExceptionError: Uncaught exception TypeError: x is not a function\n"
            "  .limit(10);\n   ^\n\nStack trace:\nTypeError: x is not a function\n    at main",
            (
                "TypeError",
                "x is not a function",
                "  .limit(10);\n   ^",
                "Stack trace:\nTypeError: x is not a function\n    at main",
            ),
        ),
        ("SyntaxError: Unexpected token }", ("SyntaxError", "Unexpected token }", None, None)),
        ("script took too long", ("UnknownError", "script took too long", None, None)),
        ("", ("UnknownError", "", None, None)),
    ],
)
def test_a_script_s_error_is_taken_apart(raw, told):
    """Whatever the server says, nothing of it is lost."""
    error = JQLSyntaxError(raw, "code", "/api/query/jql")
    found = (error.error_type, error.error_message, error.line_info, error.stack_trace)
    assert found == told
    assert (error.raw_error, error.script, error.request_url) == (raw, "code", "/api/query/jql")


def test_a_long_error_of_a_script_is_kept(client, emulator):
    """Longer than what is kept of other errors."""
    text = "Uncaught exception Error: x\n" + "line\n" * 400
    emulator.faults.add(Fault("412-json", path="/api/query/jql", text=text))
    with pytest.raises(JQLSyntaxError) as caught:
        client.jql(SCRIPT, DATES)
    assert caught.value.raw_error == text


def test_jql_can_be_gone(credentials):
    """A 404 means that JQL is no longer available, not that the script failed."""
    with (
        Emulator(EmulatorSettings(days=1, jql="404")) as emulator,
        MixpanelAPIClient(
            credentials, api_base_url=emulator.base_url, retries=IMPATIENT, budget=PLENTY
        ) as client,
        pytest.raises(QueryError, match="no longer available") as caught,
    ):
        client.jql(SCRIPT, DATES)
    assert type(caught.value) is QueryError


def test_a_process_is_told_once_that_jql_ends(emulator):
    """Two scripts, one warning."""
    code = f"""
import logging
from mixpanel_assets.client import MixpanelAPIClient, make_credentials
logging.basicConfig(level="WARNING")
who = make_credentials(
    username={emulator.username!r}, secret={emulator.secret!r}, project_id="12345"
)
with MixpanelAPIClient(who, api_base_url={emulator.base_url!r}) as client:
    for _ in range(2):
        client.jql({SCRIPT!r}, {DATES!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("maintenance mode") == 1


def test_jql_counts_what_is_there(client, emulator):
    """The script runs with its parameters."""
    days = {"from_date": str(START), "to_date": str(START)}
    counts = {entry["key"][0]: entry["value"] for entry in client.jql(SCRIPT, days)}
    assert counts == emulator.truth.count_by_event(START)


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("country", 'properties["country"]'),
        ("mp_country_code", 'properties["mp_country_code"]'),
        ("$browser", 'properties["$browser"]'),
        ("Cart Size (# of Items)", 'properties["Cart Size (# of Items)"]'),
        ('a "quoted" name', r'properties["a \"quoted\" name"]'),
        ("back\\slash", r'properties["back\\slash"]'),
        ("größe [cm]", 'properties["größe [cm]"]'),
        ("event", 'properties["event"]'),
        ("user_properties", 'properties["user_properties"]'),
        *(
            (expression, expression)
            for expression in (
                'properties["country"]',
                "properties['country']",
                'properties ["country"]',
                'user["plan"]',
                'event["$time"]',
                'number(properties["amount"])',
                'properties["a"] + properties["b"]',
            )
        ),
    ],
)
@pytest.mark.parametrize(
    "ask",
    siblings(
        [
            lambda c, on: c.segmentation("Order Completed", *DAYS, on=on),
            lambda c, on: c.funnel(7509, *DAYS, on=on),
            lambda c, on: c.segmentation_numeric("Order Completed", *DAYS, on),
            lambda c, on: c.segmentation_sum("Order Completed", *DAYS, on),
            lambda c, on: c.segmentation_average("Order Completed", *DAYS, on),
        ],
        keep=2,
    ),
    ids=["segmentation", "funnel", "numeric", "sum", "average"],
)
def test_a_plain_name_is_a_property(ask, name, sent, client, emulator):
    """Mixpanel takes expressions only; what is one already stays as it is."""
    with suppress(QueryError):  # not every expression is a number, or known to the emulator
        ask(client, name)
    assert emulator.requests[-1].params["on"] == sent


def test_a_plain_name_splits_as_its_expression_does(client):
    """The same segments come."""
    by_name = client.segmentation("Order Completed", *DAYS, on="mp_country_code")
    assert by_name == client.segmentation(
        "Order Completed", *DAYS, on='properties["mp_country_code"]'
    )
    assert len(by_name["data"]["values"]) > 1


def test_compounded_retention_follows_one_event(client, emulator):
    """Two events, or a filter of the first, would be ignored."""
    before = len(emulator.requests)
    for born, where in (("Sign Up", None), ("Page View", WHERE)):
        with pytest.raises(ConfigError, match="follows one event"):
            client.retention(
                born, "Page View", *DAYS, born_where=where, retention_type="compounded"
            )
    assert len(emulator.requests) == before
