"""The asset `mixpanel/profiles` in real runs."""

import json
from datetime import timedelta

from mixpanel_assets.emulator import Fault
from mixpanel_assets_tests.assets.conftest import PROFILES


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


def test_a_page_that_cannot_be_had_fails_the_run_and_changes_nothing(
    materialize, settings, emulator, database
):
    """The snapshot of before stays; the failure names the page."""
    today = settings.today().isoformat()
    materialize(PROFILES, today)
    before = stored(database, "SELECT * FROM mixpanel.profiles ORDER BY ALL")
    emulator.faults.add(Fault("400-auth-text", path="/api/query/engage", times=None))
    assert not materialize(PROFILES, today).success
    assert stored(database, "SELECT * FROM mixpanel.profiles ORDER BY ALL") == before
