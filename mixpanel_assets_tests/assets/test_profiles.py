"""The asset `mixpanel/profiles` in real runs."""

import json
from datetime import timedelta

import pytest

from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets_tests.assets.conftest import PROFILES
from mixpanel_assets_tests.conftest import START

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
    """It cannot be taken again: nothing is asked, nothing changes, and the run says so."""
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


def test_a_full_snapshot_that_came_meanwhile_is_kept_too(
    materialize, settings, database, monkeypatch
):
    """What another run stored after the plan was made counts as well."""
    materialize(PROFILES, settings.today().isoformat())
    day = full_snapshot_of_yesterday(settings, database)
    before = stored(database, "SELECT * FROM mixpanel.profiles ORDER BY ALL")
    monkeypatch.setattr("mixpanel_assets.assets.profiles.kept_day", lambda *_: None)
    assert materialize(PROFILES, day).success
    assert stored(database, "SELECT * FROM mixpanel.profiles ORDER BY ALL") == before


def test_its_metadata_counts_pages_and_profiles(materialize, settings, instance, emulator):
    """Rows, announced total, pages and scope stand on the materialization."""
    today = settings.today().isoformat()
    materialize(PROFILES, today)
    [record] = instance.fetch_materializations(PROFILES, limit=1).records
    metadata = record.asset_materialization.metadata
    assert metadata["rows"].value == metadata["expected_total"].value
    assert metadata["rows"].value == len(emulator.truth.profiles())
    assert metadata["scope"].value == "all"


def failures(result):
    return [
        event.event_specific_data.user_failure_data.description
        for event in result.all_node_events
        if event.is_step_failure and event.event_specific_data.user_failure_data
    ]


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

    def test_a_page_that_cannot_be_had_fails_the_run_and_changes_nothing(
        self, materialize, settings, emulator, database
    ):
        """The snapshot of before stays; the failure names the page; no page is left behind."""
        today = settings.today().isoformat()
        materialize(PROFILES, today)
        before = stored(database, "SELECT * FROM mixpanel.profiles ORDER BY ALL")
        emulator.faults.add(Fault("500-json", path=ENGAGE, page=1, times=None))
        result = materialize(PROFILES, today)
        assert not result.success
        assert "could not be fetched: 1." in failures(result)[0]
        assert stored(database, "SELECT * FROM mixpanel.profiles ORDER BY ALL") == before
        assert not page_folders(settings)

    @pytest.mark.parametrize("page", [None, 1])
    def test_refused_credentials_fail_the_run_and_leave_no_page(
        self, page, materialize, settings, emulator
    ):
        """Whether page 0 meets them or a later one of any day."""
        emulator.faults.add(Fault("401-json", path=ENGAGE, page=page, skip=2, times=None))
        assert not materialize(PROFILES, "2024-01-01", "2024-01-03").success
        assert not page_folders(settings)

    def test_a_session_that_ends_is_begun_anew_once(
        self, materialize, settings, emulator, database
    ):
        """The snapshot is taken from page 0 again and is whole."""
        emulator.faults.add(Fault("session-expired", skip=3))
        assert materialize(PROFILES, settings.today().isoformat()).success
        count = stored(database, "SELECT count(DISTINCT distinct_id) FROM mixpanel.profiles")
        assert count == [(len(emulator.truth.profiles()),)]
        assert len({r.params.get("session_id") for r in emulator.requests} - {None}) == 2

    def test_a_session_that_ends_again_fails_the_run(self, materialize, settings, emulator):
        """Two page 0s are enough."""
        emulator.faults.add(Fault("session-expired", times=None))
        assert not materialize(PROFILES, settings.today().isoformat()).success
        assert len([r for r in emulator.requests if not r.params.get("page")]) == 2
        assert not page_folders(settings)
