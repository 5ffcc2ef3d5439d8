"""Live reports as ops: results that go on as values, and what they tell Dagster."""

import inspect
import json
import pickle
from datetime import UTC, date, datetime, timedelta

import dagster as dg
import pytest

from mixpanel_assets import ConfigError, LiveQueryService, SegmentationResult
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.defs.metadata import MOST_ROWS
from mixpanel_assets.defs.ops import SegmentationConfig, project_today, segmentation
from mixpanel_assets.defs.ops.live_queries import REPORTS
from mixpanel_assets.defs.partitions import span
from mixpanel_assets.emulator import Fault
from mixpanel_assets_tests.conftest import START
from mixpanel_assets_tests.defs.ops.conftest import failure_of, metadata_of, output_of
from mixpanel_assets_tests.laws import siblings

DAYS = [START + timedelta(days=number) for number in range(5)]
SPAN = {"from_date": str(DAYS[0]), "to_date": str(DAYS[-1])}
AMOUNT = 'properties["amount"]'
COUNTRY = 'properties["mp_country_code"]'
SCRIPT = 'function main(){return Events(params).groupBy(["name"], mixpanel.reducer.count())}'

# The configuration of each report, and the numbers that it reports to Dagster.
ASKED = {
    "segmentation": ({"event": "Sign Up", **SPAN}, {"total", "segments"}),
    "funnel": ({"funnel_id": 7509, **SPAN}, {"began", "finished", "conversion_rate"}),
    "retention": (
        {"born_event": "Sign Up", "return_event": "Page View", **SPAN},
        {"people"},
    ),
    "jql": ({"script": SCRIPT, "params": SPAN}, set()),
    "event_counts": ({"events": ["Sign Up", "Page View"], **SPAN}, {"total", "series"}),
    "property_counts": (
        {"event": "Sign Up", "property_name": "plan", **SPAN},
        {"total", "series"},
    ),
    "frequency": (SPAN, set()),
    "segmentation_numeric": (
        {"event": "Order Completed", "on": AMOUNT, **SPAN},
        {"ranges"},
    ),
    "segmentation_sum": ({"event": "Order Completed", "on": AMOUNT, **SPAN}, {"total"}),
    "segmentation_average": ({"event": "Order Completed", "on": AMOUNT, **SPAN}, {"latest"}),
    "query_saved_report": ({"bookmark_id": 100}, set()),
    "activity_feed": ({"distinct_ids": ["user-1"], **SPAN}, {"events", "users"}),
}


@pytest.fixture
def ask(run):
    """Run the job `ask_report` for one kind of report."""

    def ask(report, /, **config):
        return run("ask_report", **{report: config})

    return ask


def test_every_report_is_a_kind_of_the_job(definitions):
    """Each report has a test below, and its name is the key of the configuration."""
    kinds = definitions.resolve_job_def("ask_report").graph.node_defs[0].config_schema
    assert kinds.config_type.fields.keys() == ASKED.keys()
    assert {question.report for question in REPORTS} == ASKED.keys()


@pytest.mark.parametrize("report", siblings(ASKED, keep=4))
def test_a_job_returns_what_the_report_says(report, ask, client):
    """The op's value equals the service's answer, survives a pickle, and has its frame."""
    config, numbers = ASKED[report]
    result = ask(report, **config)
    assert result.success
    value = output_of(result)
    expected = getattr(LiveQueryService(client), report)(**config)
    same = {"computed_at": None}
    assert value.to_dict() | same == expected.to_dict() | same
    assert pickle.loads(pickle.dumps(value)).df.equals(value.df)
    metadata = metadata_of(result)
    assert metadata["rows"] == len(value.df)
    assert numbers <= metadata.keys()
    assert all(isinstance(metadata[name], int | float) for name in numbers)
    rows = [record.data for record in metadata["first_rows"].records]
    assert len(rows) == min(MOST_ROWS, len(value.df))
    assert all(list(row) == list(value.df.columns) for row in rows)


@pytest.mark.parametrize(
    ("report", "config", "sent"),
    siblings(
        [
            (
                "segmentation",
                {"type": "unique", "unit": "week"},
                {"type": "unique", "unit": "week"},
            ),
            ("segmentation", {"unit": "minute"}, {"unit": "minute"}),
            (
                "funnel",
                {"where": COUNTRY, "length": 12, "length_unit": "hour"},
                {"where": COUNTRY, "length": "12", "length_unit": "hour"},
            ),
            ("retention", {"unbounded": True}, {"unbounded_retention": "true"}),
            (
                "retention",
                {"return_event": "Sign Up", "retention_type": "compounded"},
                {"retention_type": "compounded"},
            ),
        ],
        keep=2,
    ),
)
def test_every_parameter_of_a_report_reaches_mixpanel(report, config, sent, ask, emulator):
    """What the library and the shell take, the launchpad takes."""
    before = len(emulator.requests)
    assert ask(report, **ASKED[report][0] | config).success
    [params] = [
        request.params
        for request in emulator.requests[before:]
        if request.path.startswith("/api/query/") and "from_date" in request.params
    ]
    assert sent.items() <= params.items()


@pytest.mark.parametrize("question", REPORTS, ids=lambda question: question.report)
def test_a_question_takes_all_that_its_report_takes(question):
    """No parameter of the library is missing in the launchpad."""
    taken = inspect.signature(getattr(LiveQueryService, question.report)).parameters
    assert question.model_fields.keys() == taken.keys() - {"self"}


@pytest.mark.parametrize(
    "report", siblings(sorted(ASKED.keys() - {"activity_feed"}, reverse=True), keep=4)
)
def test_a_chart_stands_in_the_metadata(report, ask):
    """Bars that Markdown shows as they are."""
    chart = metadata_of(ask(report, **ASKED[report][0]))["chart"]
    assert chart.startswith("```text\n")
    assert chart.endswith("\n```")
    assert "█" in chart


def test_the_total_is_the_project_s(ask, emulator, instance):
    """Numbers that Dagster plots equal what happened."""
    result = ask("segmentation", **ASKED["segmentation"][0])
    tags = instance.get_run_by_id(result.run_id).tags
    assert tags["mixpanel/project"] == str(emulator.project_id)
    assert tags["mixpanel/requests"] == "1"
    total = sum(emulator.truth.count_by_event(day)["Sign Up"] for day in DAYS)
    assert metadata_of(result)["total"] == total


def test_people_are_not_added_up_over_days(ask):
    """Unique people of several days have no total."""
    result = ask("event_counts", events=["Sign Up"], type="unique", **SPAN)
    assert "total" not in metadata_of(result)


def test_without_days_the_last_thirty_that_are_over_are_meant(ask, emulator):
    """Up to yesterday, in the project's zone."""
    before = datetime.now(UTC).date()
    value = output_of(ask("segmentation", event="Sign Up"))
    after = datetime.now(UTC).date()
    sent = emulator.requests[-1].params
    assert sent["to_date"] in {str(day - timedelta(days=1)) for day in (before, after)}
    assert (value.from_date, value.to_date) == (sent["from_date"], sent["to_date"])


def test_a_span_of_thirty_days_includes_both_ends():
    """Of two days, the one that is missing follows from the other or from today."""
    today = START + timedelta(days=40)
    first, last = span(None, None, today)
    assert (last - first).days == 29
    assert last == today - timedelta(days=1)
    assert span(None, "2024-01-30", today) == (START, START + timedelta(days=29))
    assert span("2024-01-03", None, today) == (DAYS[2], last)
    assert span("-7d", "yesterday", today) == (today - timedelta(days=7), last)


def test_a_saved_funnel_takes_days_and_other_reports_do_not(ask):
    """Days that would be ignored are refused."""
    assert ask("query_saved_report", bookmark_id=7509, bookmark_type="funnels").success
    refused = ask("query_saved_report", bookmark_id=100, **SPAN)
    assert "days of their own" in failure_of(refused)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("404-json", "404"), ("400-auth-text", "Check MP_USERNAME"), ("402-json", "402")],
)
def test_a_refusal_is_one_sentence_that_no_retry_repeats(kind, said, ask, emulator):
    """The failure says what Mixpanel said."""
    emulator.faults.add(Fault(kind, path="*", times=None))
    result = ask("segmentation", event="Sign Up", **SPAN)
    assert said in failure_of(result)
    [event] = [e for e in result.all_events if e.is_step_failure]
    assert event.step_failure_data.user_failure_data


def test_results_go_on_to_other_ops(resource, instance):
    """A user's own job runs a report and computes with the typed result."""

    @dg.op
    def most(result: SegmentationResult) -> str:
        return str(result.df.sort_values("count").iloc[-1]["segment"])

    @dg.job(resource_defs={"mixpanel": resource})
    def job():
        most(segmentation())

    config = SegmentationConfig(event="Sign Up", on=COUNTRY, **SPAN)
    result = job.execute_in_process(
        instance=instance, run_config=dg.RunConfig(ops={"segmentation": config})
    )
    found = result.output_for_node("segmentation").series
    best = max(found, key=lambda name: max(found[name].values()))
    assert result.output_for_node("most") == best


def test_every_job_says_what_it_costs(definitions):
    """The launchpad shows it before anything is spent."""
    for job in definitions.resolve_all_job_defs():
        if job.name.startswith(("ask_", "stream_")):
            assert "Costs" in job.description
            assert "request" in job.description


@pytest.mark.parametrize("report", siblings(["jql", "segmentation", "query_saved_report"], keep=1))
def test_another_zone_than_the_projects_is_refused(report, settings, resource, instance, emulator):
    """The failure of every report has the value to set, and no query is spent."""
    elsewhere = settings.model_copy(update={"time_zone": "America/Los_Angeles"})
    job = build_definitions(settings=elsewhere, resources={"mixpanel": resource})
    sent = len(emulator.requests)
    result = job.resolve_job_def("ask_report").execute_in_process(
        instance=instance,
        raise_on_error=False,
        run_config={"ops": {"report": {"config": {report: ASKED[report][0]}}}},
    )
    assert "Set MP_TIME_ZONE=UTC." in failure_of(result)
    assert {request.path for request in emulator.requests[sent:]} == {"/api/app/me"}


def test_the_job_opens_with_a_report_of_the_last_seven_days(definitions, instance, emulator):
    """It can be started as it is; its days are those before today."""
    job = definitions.resolve_job_def("ask_report")
    result = job.execute_in_process(instance=instance)
    assert result.success
    last = datetime.now(UTC).date() - timedelta(days=1)
    sent = emulator.requests[-1].params
    assert json.loads(sent["event"]) == ["Sign Up"]
    days = [date.fromisoformat(sent[name]) for name in ("from_date", "to_date")]
    assert (days[1] - days[0]).days == 6
    assert last - days[1] <= timedelta(days=1)


@pytest.mark.parametrize("text", siblings(["-0d", "Yesterdays", "-7", "7d", "-99999d"], keep=2))
def test_a_text_that_is_no_past_day_is_refused(text, ask, emulator):
    """Nothing is requested but the zone."""
    sent = len(emulator.requests)
    result = ask("segmentation", event="Sign Up", from_date="2024-01-01", to_date=text)
    assert not result.success
    assert {request.path for request in emulator.requests[sent:]} <= {"/api/app/me"}


@pytest.mark.parametrize("ahead", siblings([0, 400, 1], keep=1))
def test_a_day_that_is_not_over_is_refused(ahead, ask, settings, emulator):
    """The failure says when it will be over."""
    day = settings.project_today() + timedelta(days=ahead)
    sent = len(emulator.requests)
    said = failure_of(ask("segmentation", event="Sign Up", to_date=str(day)))
    assert f"{day} has not ended in UTC: it ends at {day + timedelta(days=1)} 00:00 UTC" in said
    assert {request.path for request in emulator.requests[sent:]} == {"/api/app/me"}


def test_project_today_compares_the_zone(settings, client, emulator, monkeypatch):
    """With a client, or with the credentials of the environment."""
    assert project_today(settings, client=client) == settings.project_today()
    elsewhere = settings.model_copy(update={"time_zone": "Asia/Tokyo"})
    with pytest.raises(ConfigError, match="Set MP_TIME_ZONE=UTC"):
        project_today(elsewhere, client=client)
    monkeypatch.setenv("MP_USERNAME", emulator.username)
    monkeypatch.setenv("MP_SECRET", emulator.secret)
    monkeypatch.setenv("MP_PROJECT_ID", str(emulator.project_id))
    with pytest.raises(ConfigError, match="Set MP_TIME_ZONE=UTC"):
        project_today(elsewhere)
