"""Profiles of groups, profiles that a filter finds, and how long snapshots stay, in real runs."""

import subprocess
import sys
from datetime import timedelta

import dagster as dg
import pytest

from mixpanel_assets import filtered_profiles_asset, group_profiles_asset
from mixpanel_assets.defs.location import build_definitions
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.settings import Settings, load_settings
from mixpanel_assets_tests.defs.assets.conftest import PROFILES

GROUP = "-1405123841946871899"


def stored(database, query):
    with database.read() as connection:
        return connection.execute(query).fetchall()


def materialize(asset, settings, resource):
    definitions = dg.Definitions.merge(
        build_definitions(settings=settings, resources={"mixpanel": resource}),
        dg.Definitions(assets=[asset]),
    )
    return definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        asset_selection=[asset.key], partition_key=settings.today().isoformat()
    )


def test_a_group_has_a_table_of_its_own(settings, resource, emulator, database):
    """User profiles are not touched, and are not current because of it."""
    asset = group_profiles_asset("companies", GROUP, settings=settings)
    assert materialize(asset, settings, resource).success
    rows = stored(database, "SELECT distinct_id FROM mixpanel.companies")
    groups = emulator.truth.profiles(GROUP)
    assert sorted(name for (name,) in rows) == sorted(group["$distinct_id"] for group in groups)
    assert stored(database, "SELECT count(*) FROM mixpanel.profiles_current") == [(0,)]


def test_a_filter_finds_some_profiles(settings, resource, emulator, database):
    """They lie in a table of their own, and the ledger holds the filter."""
    asset = filtered_profiles_asset("pros", where='properties["plan"] == "pro"', settings=settings)
    assert materialize(asset, settings, resource).success
    pros = [
        profile["$distinct_id"]
        for profile in emulator.truth.profiles()
        if (profile["$properties"] or {}).get("plan") == "pro"
    ]
    rows = stored(database, "SELECT distinct_id FROM mixpanel.pros")
    assert sorted(name for (name,) in rows) == sorted(pros)
    [(filters,)] = stored(database, "SELECT filters FROM mixpanel._days WHERE table_name = 'pros'")
    assert "plan" in filters


def test_filters_that_contradict_each_other_are_refused():
    """The filters are refused when the asset is defined."""
    with pytest.raises(ConfigError, match="behaviors or cohort_id"):
        filtered_profiles_asset("some", behaviors=[{"name": "b"}], cohort_id="1", where="x")


def test_declared_groups_are_assets(monkeypatch):
    """MP_GROUPS names a table and the id of a group key; the id may be written as a number."""
    monkeypatch.setenv("MP_GROUPS", '{"companies": -1405123841946871899}')
    assert load_settings().groups == {"companies": GROUP}
    keys = {spec.key for spec in build_definitions().resolve_all_asset_specs()}
    assert dg.AssetKey(["mixpanel", "companies"]) in keys


@pytest.mark.parametrize("groups", ['{"no name": "1"}', '{"companies": "first"}', "companies"])
def test_groups_that_cannot_be_understood_are_named(groups, monkeypatch):
    """The message says which variable is wrong."""
    monkeypatch.setenv("MP_GROUPS", groups)
    with pytest.raises(ConfigError, match="MP_GROUPS"):
        load_settings()


@pytest.mark.slow
def test_a_held_database_is_waited_for_no_longer_than_allowed(settings, resource, emulator):
    """MP_LOCK_TIMEOUT counts before the first request, too; its holder is named."""
    settings = settings.model_copy(update={"lock_timeout": 0.5})
    definitions = build_definitions(settings=settings, resources={"mixpanel": resource})
    job = definitions.resolve_implicit_global_asset_job_def()
    hold = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); input()"
    since = len(emulator.requests)
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(settings.database)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        result = job.execute_in_process(
            asset_selection=[PROFILES],
            partition_key=settings.today().isoformat(),
            raise_on_error=False,
        )
        holder.communicate(b"\n")
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert f"process {holder.pid}" in failure.step_failure_data.user_failure_data.description
    assert len(emulator.requests) == since


def snapshots_of_ten_days(settings, database):
    """Store today's snapshot once more under each of the nine days before, as taken then."""
    with database.write() as connection:
        for table, day, moment in (
            ("profiles", "snapshot_date", "fetched_at"),
            ("_days", "day", "complete_at"),
        ):
            connection.execute(
                f"INSERT INTO mixpanel.{table} SELECT old.* REPLACE ("
                f"old.{day} - ago::INTEGER AS {day}, old.{moment} - to_days(ago::INTEGER) "
                f"AS {moment}) FROM mixpanel.{table} AS old, range(1, 10) AS earlier(ago)"
            )
    return [settings.today() - timedelta(days=days) for days in range(10)]


class TestKeepSnapshots:
    """The job reports by default, and deletes when it is configured to."""

    @pytest.fixture
    def keep(self, materialize, settings, resource, database):
        materialize(PROFILES, settings.today().isoformat())
        self.days = snapshots_of_ten_days(settings, database)
        definitions = build_definitions(settings=settings, resources={"mixpanel": resource})
        job = definitions.resolve_job_def("keep_snapshots")

        def run(**config):
            few = {"daily": 3, "weekly": 0, "monthly": 0, **config}
            return job.execute_in_process(run_config={"ops": {"thin_snapshots": {"config": few}}})

        return run

    def days_stored(self, database):
        return [
            day
            for (day,) in stored(
                database, "SELECT DISTINCT snapshot_date FROM mixpanel.profiles ORDER BY 1 DESC"
            )
        ]

    def test_it_only_tells_by_default(self, keep, database):
        """Nothing goes; the growth is in the metadata."""
        [event] = [e for e in keep().all_node_events if e.is_successful_output]
        metadata = event.event_specific_data.metadata
        assert len(metadata["days_to_delete"].value) == 7
        assert metadata["rows_per_snapshot"].value == 250
        assert self.days_stored(database) == self.days

    def test_it_deletes_when_told_to(self, keep, database):
        """The newest days stay, and the profiles of now are the same."""
        current = "SELECT * FROM mixpanel.profiles_current ORDER BY ALL"
        before = stored(database, current)
        keep(delete=True)
        assert self.days_stored(database) == self.days[:3]
        assert stored(database, current) == before


def test_settings_hold_no_group_by_default():
    """Groups are requested only when they are declared."""
    assert Settings().groups == {}
