"""What users see and click in Dagster's UI, up to a finished backfill."""

import re

import httpx
import pytest
from playwright.sync_api import expect

from mixpanel_assets.warehouse import Database

EVENTS = "/assets/mixpanel/events"
PROFILES = "/assets/mixpanel/profiles"
COVERAGE = "/assets/mixpanel/coverage"
NUMBERS = {"rows", "megabytes", "seconds", "requests", "repeats_removed", "budget_left"}


@pytest.fixture
def emulator_control(demo):
    """An HTTP client of the emulator's control: its truth and its faults."""
    with httpx.Client(base_url=f"{demo.emulator}/emulator", trust_env=False) as http:
        yield http
        http.delete("/faults").raise_for_status()


def test_the_graph_shows_the_assets_and_their_share_of_partitions(page, picture):
    """The assets with their dependencies, and most of a month materialized."""
    page.goto("/asset-groups")
    for name in ("events", "profiles", "coverage", "daily_event_counts"):
        expect(page.get_by_text(name, exact=True).last).to_be_visible()
    expect(page.get_by_text("76% filled")).to_be_visible()
    picture("asset-graph")


def test_an_asset_is_described(page):
    """Description, columns, table and schedule, and no path of this machine."""
    page.goto(EVENTS)
    for text in ("One row per event", "mixpanel.events", "The export day the event belongs to"):
        expect(page.get_by_text(text).first).to_be_visible()
    expect(page.get_by_role("link", name="close_yesterday").first).to_be_visible()
    assert ".duckdb" not in page.inner_text("body")


def test_a_partition_shows_its_numbers_and_its_hours(page, picture, demo):
    """The page has the day's metadata, with the chart as a picture."""
    with Database(demo.database).read() as connection:
        [(day, rows)] = connection.execute(
            "SELECT day, row_count FROM mixpanel._days WHERE table_name = 'events' "
            "ORDER BY day LIMIT 1 OFFSET 9"
        ).fetchall()
    page.set_viewport_size({"width": 1400, "height": 1100})
    page.goto(f"{EVENTS}?view=partitions&partition={day}")
    expect(page.get_by_role("cell", name="budget_left")).to_be_visible()
    expect(page.get_by_role("cell", name=str(rows), exact=True).first).to_be_visible()
    chart = page.get_by_alt_text(re.compile("Most events: .* UTC"))
    expect(chart).to_be_visible()
    assert chart.evaluate("image => image.complete && image.naturalWidth") == 320
    picture("partition")


def test_the_page_of_an_asset_shows_its_chart_in_full(page):
    """The chart ends within its column, and the condition is not a cron."""
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(EVENTS)
    chart = page.get_by_alt_text(re.compile("Most events: .* UTC"))
    expect(chart).to_be_visible()
    cell = chart.locator("xpath=ancestor::td[1]")
    ends = [box["x"] + box["width"] for box in (chart.bounding_box(), cell.bounding_box())]
    assert ends[0] <= ends[1]
    expect(page.get_by_text("daily at 06:00 UTC").first).to_be_visible()


def test_the_asset_of_coverage_shows_a_calendar(page):
    """One click away, because Dagster shows no long Markdown in place; numbers are in place."""
    page.goto(COVERAGE)
    expect(page.get_by_role("cell", name="days_never_loaded")).to_be_visible()
    page.get_by_text("Show markdown", exact=False).first.click()
    calendar = page.get_by_alt_text(re.compile("events: complete .*never loaded"))
    expect(calendar).to_be_visible()
    assert calendar.evaluate("image => image.complete && image.naturalWidth") == 784


LAUNCHPADS = "/locations/mixpanel_assets.cli.demo_location/jobs/{}/playground"


@pytest.mark.parametrize("job", ["ask_report", "backfill_history", "keep_snapshots"])
def test_a_launchpad_opens_without_errors_and_without_resources(page, job):
    """What can be set is on the first lines, and the job can be launched as it is."""
    page.set_viewport_size({"width": 1440, "height": 900})
    page.goto(LAUNCHPADS.format(job))
    expect(page.get_by_text("No errors").first).to_be_visible()
    lines = page.locator(".CodeMirror-line").all_inner_texts()
    assert lines[0] == "ops:"
    assert "resources:" not in lines
    assert len(lines) <= 10


def test_numbers_have_plots(page, picture):
    """Each number of the days has a plot over the partitions."""
    page.set_viewport_size({"width": 1400, "height": 2000})
    page.goto(EVENTS)
    page.get_by_role("button", name="Plots").click()
    for name in NUMBERS:
        expect(page.get_by_text(name, exact=True)).to_be_visible()
    expect(page.locator("canvas").first).to_be_visible()
    page.set_viewport_size({"width": 1400, "height": 900})
    page.get_by_text("budget_left", exact=True).scroll_into_view_if_needed()
    picture("plots")


def test_the_page_of_the_asset_says_which_days_are_missing(page, picture):
    """Its overview counts a failed check, which names the days and the command that loads them."""
    page.goto(EVENTS)
    results = page.get_by_text("Latest check results").locator("..")
    expect(results.get_by_text("1", exact=True).first).to_be_visible()
    page.goto(f"{EVENTS}?view=checks&checkDetail=events_complete")
    expect(page.get_by_text(re.compile(r"are missing: \d of \d+ days from")).first).to_be_visible()
    expect(page.get_by_text(re.compile(r"mp sync --from .* --to")).first).to_be_visible()
    expect(page.get_by_role("cell", name="never loaded", exact=True)).to_be_visible()
    picture("missing-days")


def test_a_backfill_from_the_page_loads_the_missing_days(page, picture, demo, emulator_control):
    """After Materialize, Missing, Launch backfill, no day and no row is missing."""
    page.goto(EVENTS)
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Missing", exact=True).click()
    expect(dialog.get_by_text("7 partitions")).to_be_visible()
    picture("backfill")
    dialog.get_by_role("button", name="Launch backfill").click()
    expect(dialog).to_be_hidden()
    page.goto(f"{EVENTS}?view=partitions")
    expect(page.get_by_text("Materialized (30)")).to_be_visible()
    expect(page.get_by_text("Missing (0)")).to_be_visible()
    page.goto("/runs?view=backfills")
    expect(page.get_by_text(re.compile("^(Success|Completed)$")).first).to_be_visible()
    with Database(demo.database).read() as connection:
        days = connection.execute(
            "SELECT day::VARCHAR, row_count + quarantined FROM mixpanel._days "
            "WHERE table_name = 'events' AND status = 'complete'"
        ).fetchall()
    assert len(days) == 29, "all but today, which is open"
    for day, rows in days:
        truth = emulator_control.get("/truth", params={"from_date": day, "to_date": day}).json()
        assert truth["events"] == rows


def test_a_missing_page_of_profiles_fails_the_check(page, picture, emulator_control):
    """The check fails and names the missing page, the reason, and what to do."""
    fault = {"kind": "500-json", "path": "*/engage", "page": 1, "times": None}
    emulator_control.post("/faults", json=fault).raise_for_status()
    page.goto(PROFILES)
    page.get_by_role("button", name="Materialize").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Latest", exact=True).click()
    dialog.get_by_role("button", name="Launch").click()
    expect(dialog).to_be_hidden()
    page.goto(f"{PROFILES}?view=checks")
    expect(page.get_by_text("1 page could not be fetched: 1.").first).to_be_visible()
    expect(page.get_by_text("Failed").first).to_be_visible()
    picture("failed-check")
    page.goto("/runs")
    page.locator("a[href^='/runs/']").filter(has_text=re.compile("[0-9a-f]{8}")).first.click()
    expect(page.get_by_text(re.compile("Run it again")).first).to_be_visible()
