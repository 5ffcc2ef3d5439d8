"""`mp query`: the numbers of Mixpanel's reports, as the library returns them."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from mixpanel_assets.emulator import Fault
from mixpanel_assets_tests.conftest import START

WEEK = ("--from", "2024-01-01", "--to", "2024-01-07")
SPAN = {"from_date": "2024-01-01", "to_date": "2024-01-07"}
DAYS = [START + timedelta(days=number) for number in range(7)]
COUNTRY = 'properties["mp_country_code"]'
AMOUNT = 'properties["amount"]'
SCRIPT = 'function main(){return Events(params).groupBy(["name"], mixpanel.reducer.count())}'


REPORTS = {
    "segmentation": (
        ("-e", "Sign Up", *WEEK),
        lambda ws: ws.segmentation("Sign Up", **SPAN),
    ),
    "segmentation split": (
        ("-e", "Order Completed", *WEEK, "-o", COUNTRY, "-u", "week", "-w", f"{AMOUNT} > 20"),
        lambda ws: ws.segmentation(
            "Order Completed", **SPAN, on=COUNTRY, unit="week", where=f"{AMOUNT} > 20"
        ),
    ),
    "retention": (
        ("-b", "Sign Up", "-r", "Page View", *WEEK, "-n", "3", "-i", "2"),
        lambda ws: ws.retention("Sign Up", "Page View", **SPAN, interval=2, interval_count=3),
    ),
    "event-counts": (
        ("-e", "Sign Up,Page View", "-e", "Order Completed", *WEEK, "-t", "unique"),
        lambda ws: ws.event_counts(
            ["Sign Up", "Page View", "Order Completed"], **SPAN, type="unique"
        ),
    ),
    "property-counts": (
        ("-e", "Sign Up", "-p", "mp_country_code", *WEEK),
        lambda ws: ws.property_counts("Sign Up", "mp_country_code", **SPAN, limit=10),
    ),
    "frequency": (
        (*WEEK, "-e", "Page View", "--addiction-unit", "day", "-u", "week"),
        lambda ws: ws.frequency(**SPAN, event="Page View", addiction_unit="day", unit="week"),
    ),
    "segmentation-numeric": (
        ("-e", "Order Completed", "-o", AMOUNT, *WEEK),
        lambda ws: ws.segmentation_numeric("Order Completed", **SPAN, on=AMOUNT),
    ),
    "segmentation-sum": (
        ("-e", "Order Completed", "-o", AMOUNT, *WEEK),
        lambda ws: ws.segmentation_sum("Order Completed", **SPAN, on=AMOUNT),
    ),
    "segmentation-average": (
        ("-e", "Order Completed", "-o", AMOUNT, *WEEK),
        lambda ws: ws.segmentation_average("Order Completed", **SPAN, on=AMOUNT),
    ),
}
COMPUTED_AT = "computed_at"


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_prints_what_the_library_returns(report, mp_here, workspace):
    """JSON is the result's own; CSV its rows."""
    arguments, ask = REPORTS[report]
    command = ("query", report.split()[0], *arguments)
    expected = ask(workspace)
    printed = json.loads(mp_here(*command).stdout)
    assert {**printed, COMPUTED_AT: ""} == {**expected.to_dict(), COMPUTED_AT: ""}
    lines = mp_here(*command, "--format", "csv").stdout.splitlines()
    assert len(lines) == 1 + len(expected.to_table_dict())
    assert lines[0].split(",") == list(expected.to_table_dict()[0])


def test_segmentation_counts_what_the_project_holds(mp_here, emulator):
    """Each day has the number of events that there are."""
    done = mp_here("segmentation", "-e", "Sign Up", *WEEK, "--jq", '.series["Sign Up"]')
    held = {str(day): emulator.truth.count_by_event(day)["Sign Up"] for day in DAYS}
    assert json.loads(done.stdout) == held


def test_a_funnel_is_asked_by_its_number(mp_here, workspace):
    """The numbers are those of `mp inspect funnels`."""
    number = json.loads(mp_here("inspect", "funnels", "--jq", ".[0].funnel_id").stdout)
    printed = json.loads(mp_here("query", "funnel", str(number), *WEEK).stdout)
    assert printed == workspace.funnel(number, **SPAN).to_dict()
    assert printed["steps"][0]["count"]


@pytest.mark.parametrize("way", ["option", "file"])
def test_a_script_comes_from_the_command_line_or_a_file(way, mp_here, workspace, tmp_path):
    """Its parameters are texts."""
    params = ("-P", "from_date=2024-01-01", "-P", "to_date=2024-01-07")
    path = tmp_path / "report.js"
    path.write_text(SCRIPT)
    given = ("--script", SCRIPT) if way == "option" else (str(path),)
    printed = json.loads(mp_here("jql", *given, *params).stdout)
    assert printed == workspace.jql(SCRIPT, SPAN).to_dict()


def test_a_script_that_fails_exits_with_3(mp_here):
    """The question is wrong."""
    done = mp_here("query", "jql", "-c", "function main(){ throw new Error('no') }")
    assert done.code == 3
    assert "script" in done.stderr


def test_an_activity_feed_shows_what_users_did(mp_here, workspace, emulator):
    """A JSON array can contain any id; the days are the requested ones."""
    users = sorted(
        {
            row["properties"]["distinct_id"]
            for row in emulator.truth.events(DAYS[0])
            if isinstance(row["properties"].get("distinct_id"), str)
        }
    )[:2]
    printed = json.loads(mp_here("query", "activity-feed", "-U", json.dumps(users), *WEEK).stdout)
    assert printed == workspace.activity_feed(users, **SPAN).to_dict()
    assert printed["events"]


def test_a_saved_report_is_asked_by_its_number(mp_here, workspace):
    """Its numbers have Mixpanel's nesting."""
    printed = json.loads(mp_here("query", "saved-report", "100").stdout)
    assert {**printed, COMPUTED_AT: ""} == {
        **workspace.query_saved_report(100).to_dict(),
        COMPUTED_AT: "",
    }


def test_a_refusal_for_an_hour_exits_with_5(mp_here, emulator):
    """The command does not wait that long; its exit code says to try again later."""
    emulator.faults.add(Fault("429-window", path="/api/query/segmentation"))
    done = mp_here("segmentation", "-e", "Sign Up", *WEEK)
    assert done.code == 5


@pytest.mark.parametrize("command", [("segmentation",), ("query", "segmentation")])
def test_last_means_days_of_the_projects_zone_in_either_spelling(command, mp_here, emulator):
    """A report has days of the project; here the zone has another day than UTC."""
    now = datetime.now(UTC)
    zone = timezone(timedelta(hours=14 if now.hour >= 12 else -12))
    name = "Etc/GMT-14" if now.hour >= 12 else "Etc/GMT+12"
    assert mp_here(*command, "-e", "Sign Up", "--last", "1", MP_TIME_ZONE=name).code == 0
    *_, report = (one for one in emulator.requests if one.path.endswith("/segmentation"))
    assert report.params["to_date"] == f"{now.astimezone(zone):%Y-%m-%d}"


def test_a_data_view_is_named_by_a_variable(mp_here, emulator):
    """For reports and streams of profiles; it must be a number."""
    days = ("--from", "2024-01-01", "--to", "2024-01-02")
    assert mp_here("segmentation", "-e", "Sign Up", *days, MP_WORKSPACE_ID="3001").code == 0
    assert emulator.requests[-1].params["workspace_id"] == "3001"
    wrong = mp_here("segmentation", "-e", "Sign Up", *days, MP_WORKSPACE_ID="mine")
    assert wrong.code != 0
    assert "MP_WORKSPACE_ID must be the number of a data view, not 'mine'" in wrong.stderr


def test_reports_take_what_mixpanel_documents(mp_here, emulator):
    """People, hours, lengths and kinds of retention."""
    days = ("--from", "2024-01-01", "--to", "2024-01-02")
    assert mp_here("segmentation", "-e", "Sign Up", *days, "-u", "hour").code == 0
    assert mp_here("segmentation", "-e", "Sign Up", *days, "-t", "unique").code == 0
    assert emulator.requests[-1].params["type"] == "unique"
    assert mp_here("query", "funnel", "7509", *days, "--length", "2", "-w", "true").code == 0
    kinds = ("-b", "Page View", "-r", "Page View", "-t", "compounded", "--unbounded")
    assert mp_here("retention", *kinds, *days).code == 0
    assert emulator.requests[-1].params["unbounded_retention"] == "true"
