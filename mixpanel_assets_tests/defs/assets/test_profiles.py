"""The asset `mixpanel/profiles` in real runs."""

import json
from datetime import date, timedelta

import dagster as dg
import pytest

from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.loading.profiles import (
    ProfileLoad,
    begin_snapshot,
    complete_snapshot,
    snapshot_requests,
)
from mixpanel_assets_tests.conftest import START
from mixpanel_assets_tests.defs.assets.conftest import PROFILES

ENGAGE = "/api/query/engage"


def stored(database, query):
    with database.read() as connection:
        return connection.execute(query).fetchall()


def test_todays_partition_is_a_full_snapshot(materialize, settings, emulator, database):
    """Every profile is there once, with its properties as sent."""
    today = settings.today()
    assert materialize(PROFILES, today.isoformat()).success
    rows = stored(database, "SELECT distinct_id, properties, snapshot_date FROM mixpanel.profiles")
    sent = {}
    for profile in emulator.truth.profiles():
        properties = dict(profile["$properties"] or {})
        if properties.get("$last_seen"):
            del properties["$last_seen"]
        sent[profile["$distinct_id"]] = properties
    assert {name: json.loads(text) for name, text, _ in rows} == sent
    assert {day for *_, day in rows} == {today}


def test_an_older_partition_holds_who_was_last_seen_that_day(materialize, emulator, database):
    """It is labelled as what it is: `seen_on_day`."""
    seen = [
        profile["$distinct_id"]
        for profile in emulator.truth.profiles()
        if ((profile["$properties"] or {}).get("$last_seen") or "").startswith("2024-01-10")
    ]
    assert materialize(PROFILES, "2024-01-10").success
    rows = stored(database, "SELECT distinct_id FROM mixpanel.profiles")
    assert sorted(name for (name,) in rows) == sorted(seen)
    scope = stored(database, "SELECT scope FROM mixpanel._days WHERE table_name = 'profiles'")
    assert scope == [("seen_on_day",)]


def test_a_snapshot_taken_twice_is_one_snapshot(materialize, settings, database):
    """Rows are replaced, not added."""
    count = "SELECT count(*) FROM mixpanel.profiles"
    today = settings.today().isoformat()
    materialize(PROFILES, today)
    before = stored(database, count)
    assert materialize(PROFILES, today).success
    assert stored(database, count) == before


def full_snapshot_of_yesterday(settings, database):
    """Make today's stored snapshot one that was taken a day ago; return its day."""
    yesterday = settings.today() - timedelta(days=1)
    with database.write() as connection:
        connection.execute("UPDATE mixpanel.profiles SET snapshot_date = ?", [yesterday])
        connection.execute("UPDATE mixpanel._days SET day = ?", [yesterday])
    return yesterday.isoformat()


def test_a_full_snapshot_is_kept_when_its_day_is_over(
    materialize, settings, instance, emulator, database
):
    """It cannot be taken again: no request is sent, no row changes, and the run says so."""
    materialize(PROFILES, settings.today().isoformat())
    day = full_snapshot_of_yesterday(settings, database)
    everything = "SELECT * FROM mixpanel.profiles ORDER BY ALL"
    before, asked = stored(database, everything), len(emulator.requests)
    assert materialize(PROFILES, day).success
    assert stored(database, everything) == before
    assert len(emulator.requests) == asked
    [record] = instance.fetch_materializations(PROFILES, limit=1).records
    metadata = record.asset_materialization.metadata
    assert metadata["kept"].value is True
    assert (metadata["rows"].value, metadata["scope"].value) == (len(before), "all")


def test_a_partial_snapshot_that_is_kept_is_not_called_complete(
    materialize, settings, emulator, database
):
    """The check warns, which stops nothing: the day cannot get better, and the run succeeds."""
    materialize(PROFILES, settings.today().isoformat())
    day = full_snapshot_of_yesterday(settings, database)
    with database.write() as connection:
        connection.execute("UPDATE mixpanel._days SET status = 'partial', failed_pages = [3]")
    result = materialize(PROFILES, day)
    assert result.success
    [check] = result.get_asset_check_evaluations()
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert day in check.description


def test_a_full_snapshot_that_came_meanwhile_is_kept_too(
    materialize, settings, database, resource, tmp_path
):
    """What another run stored after the plan was made counts as well."""
    materialize(PROFILES, settings.today().isoformat())
    day = full_snapshot_of_yesterday(settings, database)
    before = stored(database, "SELECT * FROM mixpanel.profiles ORDER BY ALL")
    [request] = snapshot_requests([date.fromisoformat(day)], settings.today())
    with resource.client() as client:
        snapshot = complete_snapshot(
            client, begin_snapshot(client, request, tmp_path), settings.today
        )
    project = settings.project(resource.credentials)
    load = ProfileLoad(snapshots=[snapshot], project=project)
    load.store(database)
    assert [report.kept for report in load.reports] == [True]
    assert stored(database, "SELECT * FROM mixpanel.profiles ORDER BY ALL") == before


def test_several_older_days_cost_one_question(materialize, emulator, database):
    """They are split by the day of `$last_seen`; days without profiles are stored as empty."""
    asked = len(emulator.requests)
    assert materialize(PROFILES, "2024-01-01", "2024-01-12").success
    assert len(emulator.requests) - asked == 1
    rows = stored(database, "SELECT distinct_id, snapshot_date::VARCHAR FROM mixpanel.profiles")
    seen = {
        profile["$distinct_id"]: ((profile["$properties"] or {}).get("$last_seen") or "")[:10]
        for profile in emulator.truth.profiles()
    }
    wanted = {name: day for name, day in seen.items() if "2024-01-01" <= day <= "2024-01-12"}
    assert dict(rows) == wanted
    days = stored(database, "SELECT count(*) FROM mixpanel._days WHERE table_name = 'profiles'")
    assert days == [(12,)]


def test_the_scope_can_be_forced(materialize, settings, emulator, database):
    """With the scope `all`, an older day stores every profile, and the ledger has the scope."""
    everybody = {"plan_profile_pages": {"config": {"scope": "all"}}}
    config = {"ops": {"mixpanel__profiles": {"ops": everybody}}}
    assert materialize(PROFILES, "2024-01-10", config=config).success
    ledger = "SELECT scope, row_count FROM mixpanel._days WHERE table_name = 'profiles'"
    assert stored(database, ledger) == [("all", len(emulator.truth.profiles()))]


def test_its_metadata_counts_pages_and_profiles(materialize, settings, instance, emulator):
    """Rows, announced total, pages and scope stand on the materialization."""
    today = settings.today().isoformat()
    materialize(PROFILES, today)
    [record] = instance.fetch_materializations(PROFILES, limit=1).records
    metadata = record.asset_materialization.metadata
    assert metadata["rows"].value == metadata["expected_total"].value
    assert metadata["rows"].value == len(emulator.truth.profiles())
    assert metadata["scope"].value == "all"
    assert not {"rows_before", "dagster/partition_row_count"} & metadata.keys()
    assert metadata["pages"].value == 1
    assert metadata["missing_rows"].value == 0
    assert 0 < metadata["seconds"].value < 600
    assert metadata["budget_left"].value < 1000, "requests that the hour has left"


def failures(result):
    return [
        event.event_specific_data.user_failure_data.description
        for event in result.all_node_events
        if event.is_step_failure and event.event_specific_data.user_failure_data
    ]


def day_of(database):
    query = "SELECT status, failed_pages FROM mixpanel._days WHERE table_name = 'profiles'"
    [day] = stored(database, query)
    return day


def page_folders(settings):
    return list(settings.spool_path("12345").glob("profiles-*"))


@pytest.fixture
def small_pages():
    """A project whose profiles come ten a page."""
    with Emulator(EmulatorSettings(start=START, days=3, profiles=245, page_size=10)) as emulator:
        yield emulator


class TestSmallPages:
    """Snapshots that come on many pages."""

    @pytest.fixture
    def emulator(self, small_pages):
        return small_pages

    def test_pages_that_cannot_be_had_leave_a_partial_snapshot(
        self, materialize, settings, emulator, database, instance
    ):
        """Received pages are merged, no row is deleted, and the check names the missing pages."""
        today = settings.today().isoformat()
        materialize(PROFILES, today)
        everybody = "SELECT distinct_id FROM mixpanel.profiles ORDER BY ALL"
        before = stored(database, everybody)
        for page in (3, 7):
            emulator.faults.add(Fault("500-json", path=ENGAGE, page=page, times=None))
        result = materialize(PROFILES, today)
        assert not result.success
        assert "2 pages could not be fetched: 3, 7." in failures(result)[0]
        [failed] = [event for event in result.all_events if event.is_step_failure]
        advice = failed.step_failure_data.user_failure_data.metadata["what_to_do"].value
        assert advice == "Run it again: within the hour it requests only missing pages."
        assert stored(database, everybody) == before
        assert day_of(database) == ("partial", [3, 7])
        [record] = instance.fetch_materializations(PROFILES, limit=1).records
        metadata = record.asset_materialization.metadata
        assert metadata["status"].value == "partial"
        assert [row.data["page"] for row in metadata["failed_pages"].records] == [3, 7]
        assert "page 3 answered 500" in metadata["failed_pages"].records[0].data["reason"]
        [check] = result.get_asset_check_evaluations()
        assert (check.passed, check.check_name) == (False, "profiles_complete")

    def test_the_next_run_fetches_only_the_pages_that_are_missing(
        self, materialize, settings, emulator, database
    ):
        """The pages of a partial snapshot stay on disk until it is complete."""
        today = settings.today().isoformat()
        emulator.faults.add(Fault("500-json", path=ENGAGE, page=3, times=None))
        emulator.faults.add(Fault("500-json", path=ENGAGE, page=7, times=None))
        materialize(PROFILES, today)
        emulator.faults.clear()
        asked = len(emulator.requests)
        assert materialize(PROFILES, today).success
        pages = [request.params.get("page") for request in list(emulator.requests)[asked:]]
        assert sorted(pages) == ["3", "7"]
        assert day_of(database) == ("complete", [])
        count = stored(database, "SELECT count(DISTINCT distinct_id) FROM mixpanel.profiles")
        assert count == [(len(emulator.truth.profiles()),)]
        assert not page_folders(settings)

    def test_page_0_that_cannot_be_had_fails_the_run_and_changes_nothing(
        self, materialize, settings, emulator, database
    ):
        """The snapshot of before stays whole, and no page is left behind."""
        today = settings.today().isoformat()
        materialize(PROFILES, today)
        before = stored(database, "SELECT * FROM mixpanel.profiles ORDER BY ALL")
        emulator.faults.add(Fault("500-json", path=ENGAGE, times=None))
        assert not materialize(PROFILES, today).success
        assert stored(database, "SELECT * FROM mixpanel.profiles ORDER BY ALL") == before
        assert day_of(database) == ("complete", [])
        assert not page_folders(settings)

    @pytest.mark.on_file
    def test_refused_credentials_fail_the_run(self, materialize, settings, emulator, database):
        """No database is created, and the next run succeeds."""
        emulator.faults.add(Fault("401-json", path=ENGAGE, skip=3, times=None))
        result = materialize(PROFILES, settings.today().isoformat())
        assert not result.success
        assert not database.path.exists()
        emulator.faults.clear()
        assert materialize(PROFILES, settings.today().isoformat()).success

    @pytest.mark.slow
    def test_one_op_per_page_stores_the_same(self, materialize, settings, emulator, database):
        """The number of pages per op does not change the rows."""
        config = {"ops": {"plan_profile_pages": {"config": {"pages_per_op": 1}}}}
        result = materialize(
            PROFILES,
            settings.today().isoformat(),
            config={"ops": {"mixpanel__profiles": config}},
        )
        fetched = {
            e.step_key for e in result.all_node_events if "fetch_profile_pages" in e.step_key
        }
        assert result.success
        assert len(fetched) == 24
        count = stored(database, "SELECT count(*) FROM mixpanel.profiles")
        assert count == [(len(emulator.truth.profiles()),)]

    def test_a_session_that_ends_is_begun_anew_once(
        self, materialize, settings, emulator, database
    ):
        """The snapshot is taken from page 0 again and is complete."""
        emulator.faults.add(Fault("session-expired", skip=3, times=2))  # fetching and merging
        config = {"ops": {"plan_profile_pages": {"config": {"max_workers": 1}}}}
        result = materialize(
            PROFILES,
            settings.today().isoformat(),
            config={"ops": {"mixpanel__profiles": config}},
        )
        assert result.success
        count = stored(database, "SELECT count(DISTINCT distinct_id) FROM mixpanel.profiles")
        assert count == [(len(emulator.truth.profiles()),)]
        assert len({r.params.get("session_id") for r in emulator.requests} - {None}) == 2

    def test_a_session_that_ends_again_leaves_a_partial_snapshot(
        self, materialize, settings, emulator, database
    ):
        """Two page 0s are enough; the pages that did not come are named."""
        emulator.faults.add(Fault("session-expired", times=None))
        assert not materialize(PROFILES, settings.today().isoformat()).success
        assert len([r for r in emulator.requests if not r.params.get("page")]) == 2
        status, lost = day_of(database)
        assert (status, lost) == ("partial", list(range(1, 25)))
