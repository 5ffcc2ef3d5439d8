"""Saved questions as daily tables, in real runs."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
import pandas as pd
import pytest

from mixpanel_assets import ConfigError, MixpanelResource, live_query_asset
from mixpanel_assets.defs.io_managers import WarehouseIOManager
from mixpanel_assets.defs.ops import (
    DatedReportConfig,
    EventCountsConfig,
    FunnelConfig,
    PropertyCountsConfig,
    SegmentationAverageConfig,
    SegmentationConfig,
    SegmentationNumericConfig,
    SegmentationSumConfig,
)
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.settings import Settings
from mixpanel_assets.warehouse import Database
from mixpanel_assets_tests.conftest import START, resource_of
from mixpanel_assets_tests.laws import siblings

DAYS = [START + timedelta(days=number) for number in range(5)]
FIRST, LAST = str(DAYS[0]), str(DAYS[-1])
AMOUNT = 'properties["amount"]'
COUNTRY = 'properties["mp_country_code"]'
SIGNUPS = SegmentationConfig(event="Sign Up")
QUESTIONS = {
    "signups": SIGNUPS,
    "by_country": SegmentationConfig(event="Order Completed", on=COUNTRY),
    "counts": EventCountsConfig(events=["Sign Up", "Nope"]),
    "people": EventCountsConfig(events=["Sign Up"], type="unique"),
    "averages": EventCountsConfig(events=["Page View", "Nope"], type="average"),
    "plans": PropertyCountsConfig(event="Sign Up", property_name="plan"),
    "pro": PropertyCountsConfig(event="Sign Up", property_name="plan", values=["pro"]),
    "amounts": SegmentationNumericConfig(event="Order Completed", on=AMOUNT),
    "revenue": SegmentationSumConfig(event="Order Completed", on=AMOUNT),
    "basket": SegmentationAverageConfig(event="Order Completed", on=AMOUNT),
}
EACH_DAY = {"plans", "amounts"}


@pytest.fixture
def run(settings, resource, instance):
    """Materialize a question for a day, or for a range of days, both ends included."""

    def run(
        name: str,
        query: DatedReportConfig,
        first: str,
        last: str | None = None,
        *downstream,
        **other,
    ) -> dg.ExecuteInProcessResult:
        known = other.get("settings", settings)
        asset = live_query_asset(name, query=query, settings=known)
        definitions = dg.Definitions(
            assets=[asset, *downstream],
            resources={
                "mixpanel": other.get("mixpanel", resource),
                "mixpanel_warehouse": WarehouseIOManager(database=str(known.database)),
            },
            executor=dg.in_process_executor,
        )
        days = {"partition_key": first}
        if last:
            days = {
                "tags": {
                    "dagster/asset_partition_range_start": first,
                    "dagster/asset_partition_range_end": last,
                }
            }
        job = definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(instance=instance, raise_on_error=False, **days)

    return run


def rows(database, name):
    with database.read() as connection:
        table = f'SELECT * FROM mixpanel_queries."{name}" ORDER BY ALL'
        return connection.execute(table).fetchall()


def failure_of(result):
    [event] = [e for e in result.all_events if e.is_step_failure]
    return event.step_failure_data.error.message


def asked(emulator, since):
    """Return the days of the queries; each run also requests the project's zone."""
    questions = [r.params for r in emulator.requests[since:] if r.path != "/api/app/me"]
    return [(params["from_date"], params["to_date"]) for params in questions]


def test_a_partition_asks_for_its_day_only(run, emulator, database):
    """One request, one row with the day's count."""
    sent = len(emulator.requests)
    assert run("signups", SIGNUPS, "2024-01-03").success
    assert asked(emulator, sent) == [("2024-01-03", "2024-01-03")]
    day = date(2024, 1, 3)
    assert rows(database, "signups") == [
        (day, "Sign Up", emulator.truth.count_by_event(day)["Sign Up"])
    ]


def test_a_range_is_one_question_split_by_date(run, emulator, database):
    """Five days, one request, the counts of each day."""
    sent = len(emulator.requests)
    assert run("signups", SIGNUPS, FIRST, LAST).success
    assert asked(emulator, sent) == [(FIRST, LAST)]
    assert rows(database, "signups") == [
        (day, "Sign Up", emulator.truth.count_by_event(day)["Sign Up"]) for day in DAYS
    ]


EACH_WAY = ("by_country", "people", "plans", "amounts")  # by one question or by several


@pytest.mark.parametrize(
    "name", siblings(sorted(QUESTIONS, key=lambda name: name not in EACH_WAY), keep=len(EACH_WAY))
)
def test_a_range_equals_its_days_one_by_one(name, run, emulator, database):
    """A range is one request, except where a day's result depends on the other days."""
    sent = len(emulator.requests)
    assert run(name, QUESTIONS[name], FIRST, str(DAYS[1])).success
    assert len(asked(emulator, sent)) == (2 if name in EACH_DAY else 1)
    in_one = rows(database, name)
    assert {row[0] for row in in_one} == set(DAYS[:2])
    for day in DAYS[:2]:
        assert run(name, QUESTIONS[name], str(day)).success
    assert rows(database, name) == in_one


def test_each_partition_tells_its_own_rows(run, instance, database):
    """A materialization per day, each with its count of rows."""
    run("by_country", QUESTIONS["by_country"], FIRST, LAST)
    key = dg.AssetKey(["mixpanel_queries", "by_country"])
    records = instance.fetch_materializations(key, limit=10).records
    told = {r.partition_key: r.asset_materialization.metadata["rows"].value for r in records}
    found = [str(row[0]) for row in rows(database, "by_country")]
    assert told == {str(day): found.count(str(day)) for day in DAYS}


def test_a_downstream_asset_gets_the_slice_of_its_day(run, settings, database):
    """Partition by partition, through the warehouse."""
    seen = {}

    @dg.asset(
        ins={"table": dg.AssetIn(["mixpanel_queries", "signups"])},
        partitions_def=dg.DailyPartitionsDefinition(FIRST),
    )
    def doubled(table: pd.DataFrame) -> None:
        seen["rows"] = list(table.itertuples(index=False, name=None))

    run("signups", SIGNUPS, FIRST, LAST)
    assert run("signups", SIGNUPS, "2024-01-02", None, doubled).success
    [(when, name, count)] = seen["rows"]
    assert (pd.Timestamp(when).date(), name) == (date(2024, 1, 2), "Sign Up")
    assert count == rows(database, "signups")[1][2]


def test_a_table_answers_one_question(run, emulator, database):
    """A changed query is refused before any request is sent; the rows are kept."""
    run("signups", SIGNUPS, FIRST)
    before, sent = rows(database, "signups"), len(emulator.requests)
    other = SegmentationConfig(event="Sign Up", where='properties["plan"] == "it\'s"')
    assert "another query" in failure_of(run("signups", other, "2024-01-02"))
    assert rows(database, "signups") == before
    assert len(emulator.requests) == sent
    assert run("quoted", other, FIRST).success
    assert run("quoted", other, FIRST).success


OLD_QUESTIONS = {
    "signups": '{"event": "Sign Up", "on": null, "report": "segmentation", "unit": "day", '
    '"where": null}',
    "counts": '{"events": ["Sign Up", "Nope"], "report": "event_counts"}',
}


@pytest.mark.parametrize("name", OLD_QUESTIONS)
def test_a_table_from_before_a_parameter_existed_still_answers_its_question(name, run, database):
    """What its question does not name had the default; another value is another question."""
    assert run(name, QUESTIONS[name], FIRST).success
    with database.write() as connection:
        comment = OLD_QUESTIONS[name]
        connection.execute(f"COMMENT ON TABLE mixpanel_queries.{name} IS '{comment}'")
    assert run(name, QUESTIONS[name], "2024-01-02").success
    unique = QUESTIONS[name].model_copy(update={"type": "unique"})
    assert "another query" in failure_of(run(name, unique, "2024-01-03"))
    assert {row[0] for row in rows(database, name)} == set(DAYS[:2])


def test_people_are_counted_where_the_question_says_so(run, emulator, database):
    """The request has `type=unique`, so a user with two events counts once."""
    people = SegmentationConfig(event="Page View", type="unique")
    assert run("viewers", people, FIRST).success
    assert emulator.requests[-1].params["type"] == "unique"
    [(_, _, counted)] = rows(database, "viewers")
    assert 0 < counted < emulator.truth.count_by_event(DAYS[0])["Page View"]


def test_a_refusal_keeps_what_was_there(run, emulator, database):
    """The run fails in one sentence; no row is lost."""
    run("signups", SIGNUPS, FIRST)
    before = rows(database, "signups")
    emulator.faults.add(Fault("404-json", path="/api/query/segmentation", times=None))
    assert "404" in failure_of(run("signups", SIGNUPS, FIRST))
    assert rows(database, "signups") == before


def test_days_before_a_refusal_are_stored_and_recorded(run, emulator, instance, database):
    """The days before the failed request are stored and have their materializations."""
    fault = Fault("404-json", path="/api/query/events/properties", skip=2, times=None)
    emulator.faults.add(fault)
    assert not run("plans", QUESTIONS["plans"], FIRST, LAST).success
    assert {row[0] for row in rows(database, "plans")} == set(DAYS[:2])
    key = dg.AssetKey(["mixpanel_queries", "plans"])
    records = instance.fetch_materializations(key, limit=10).records
    assert {record.partition_key for record in records} == {str(day) for day in DAYS[:2]}


def test_another_project_is_never_mixed_in(run, resource, database, emulator):
    """The file's project is looked at before a request is spent."""
    run("signups", SIGNUPS, FIRST)
    sent = len(emulator.requests)
    other = MixpanelResource(**{**resource.model_dump(), "project_id": "99999"})
    said = failure_of(run("signups", SIGNUPS, FIRST, mixpanel=other))
    assert "12345" in said
    assert len(emulator.requests) == sent


def test_rows_of_other_days_are_refused(run, emulator, database):
    """A response with rows of a day that was not requested is never stored."""
    body = (
        '{"data": {"series": ["2023-01-01"], "values": {"Sign Up": {"2023-01-01": 3}}},'
        ' "legend_size": 1}'
    )
    emulator.faults.add(Fault("html-200", path="/api/query/segmentation", text=body))
    assert "2023-01-01" in failure_of(run("signups", SIGNUPS, FIRST))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (FunnelConfig(funnel_id=7509), "no result per day"),
        (SegmentationConfig(event="e", unit="week"), "the unit must be day"),
        (SegmentationSumConfig(event="e", on="x", unit="hour"), "the unit must be day"),
        (SegmentationConfig(event="e", from_date=FIRST), "partitions are the days"),
    ],
)
def test_a_question_without_daily_answers_is_refused(query, said, settings):
    """The query is refused when the asset is defined, not when it runs."""
    with pytest.raises(ConfigError, match=said):
        live_query_asset("signups", query=query, settings=settings)


def test_the_newest_partition_is_a_day_that_is_over(settings):
    """Today's numbers still grow."""
    asset = live_query_asset("signups", query=SIGNUPS, settings=settings)
    now = datetime(2024, 3, 5, 12, tzinfo=UTC)
    days = asset.partitions_def.get_partition_keys(current_time=now)
    assert (days[0], days[-1]) == ("2024-01-01", "2024-03-04")


ME = "/api/app/me"
ZONELESS = '{"status": "ok", "results": {"projects": {"12345": {"id": 12345, "name": "Shop"%s}}}}'


@pytest.fixture
def run_in_los_angeles(run, tmp_path):
    """Materialize a question about a project in Los Angeles, with MP_TIME_ZONE as given."""
    with Emulator(EmulatorSettings(start=START, days=3, zone="America/Los_Angeles")) as emulator:
        resource = resource_of(emulator, max_retries=0)

        def run_in_zone(zone, *days):
            settings = Settings(database=tmp_path / "warehouse.duckdb", time_zone=zone)
            return run("signups", SIGNUPS, *days, mixpanel=resource, settings=settings)

        yield run_in_zone, emulator


@pytest.mark.parametrize("zone", siblings(["UTC", "Asia/Tokyo", "America/Denver"], keep=1))
def test_another_zone_than_the_projects_is_refused(zone, run_in_los_angeles, tmp_path):
    """Its days would be others; the failure has the value to set, and no query is spent."""
    run, emulator = run_in_los_angeles
    said = failure_of(run(zone, FIRST))
    assert "Set MP_TIME_ZONE=America/Los_Angeles." in said
    assert zone in said
    assert asked(emulator, 0) == []


@pytest.mark.parametrize("zone", siblings(["America/Los_Angeles", "US/Pacific"], keep=1))
def test_a_day_is_the_projects_under_every_name_of_its_zone(zone, run_in_los_angeles, tmp_path):
    """Each event is counted on the day that the project's clocks showed."""
    run, emulator = run_in_los_angeles
    assert run(zone, "2024-01-02").success
    [(_, _, count)] = rows(Database(tmp_path / "warehouse.duckdb"), "signups")
    days = [date(2024, 1, 2), date(2024, 1, 3)]
    moments = [
        datetime.fromtimestamp(row["properties"]["time"], ZoneInfo(zone))
        for day in days
        for row in emulator.truth.events(day)
        if row["event"] == "Sign Up"
    ]
    assert count == sum(moment.date() == days[0] for moment in moments)


@pytest.mark.parametrize(
    ("fault", "said"),
    siblings(
        [
            (Fault("404-json", path=ME, times=None), "404"),
            (Fault("403-json", path=ME, times=None), "403"),
            (Fault("html-200", path=ME, times=None), "not JSON"),
            (Fault("html-200", path=ME, times=None, text=ZONELESS % ""), "names no zone"),
            (
                Fault("html-200", path=ME, times=None, text=ZONELESS % ', "timezone": "Mars/Base"'),
                "names 'Mars/Base'",
            ),
        ],
        keep=2,
    ),
)
def test_a_zone_that_mixpanel_does_not_tell_is_warned_of_once(fault, said, run, emulator, capsys):
    """The path is not documented, so its refusal stops nothing."""
    emulator.faults.add(fault)
    assert run("plans", QUESTIONS["plans"], FIRST, str(DAYS[2])).success
    [warning] = [line for line in capsys.readouterr().err.splitlines() if "MP_TIME_ZONE=" in line]
    assert said in warning
    assert " WARNING " in warning


def test_a_day_that_is_not_over_is_refused(run, emulator, settings):
    """The failure says when the day will be over; the days before it are not requested either."""
    today = settings.project_today()
    sent = len(emulator.requests)
    said = failure_of(run("signups", SIGNUPS, str(today - timedelta(days=1)), str(today)))
    assert f"{today} has not ended in UTC: it ends at {today + timedelta(days=1)} 00:00 UTC" in said
    assert asked(emulator, sent) == []
