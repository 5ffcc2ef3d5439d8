"""Snapshots that are begun, lost and taken up again: no two sessions are ever mixed."""

import shutil
from datetime import date, timedelta

import pytest

from mixpanel_assets.client import MixpanelAPIClient, ProfileQuery, make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.loading.profiles import (
    begin_snapshot,
    complete_snapshot,
    fetch_missing,
    snapshot_requests,
)
from mixpanel_assets_tests.conftest import IMPATIENT, PLENTY

ENGAGE = "/api/query/engage"


@pytest.fixture
def emulator():
    with Emulator(EmulatorSettings(days=3, profiles=95, page_size=10)) as emulator:
        yield emulator


@pytest.fixture
def client(emulator):
    credentials = make_credentials(
        username=emulator.username, secret=emulator.secret, project_id=str(emulator.project_id)
    )
    with MixpanelAPIClient(
        credentials, api_base_url=emulator.base_url, retries=IMPATIENT, budget=PLENTY
    ) as client:
        yield client


@pytest.fixture
def root(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def snapshot_request(settings):
    [snapshot_request] = snapshot_requests([settings.today()], settings.today(), ProfileQuery())
    return snapshot_request


@pytest.mark.parametrize("scope", ["auto", "all", "seen_on_day"])
def test_a_day_that_has_not_begun_has_no_snapshot(scope):
    """Profiles of now under a later day would be mislabelled."""
    today = date(2024, 3, 1)
    with pytest.raises(ConfigError, match="2024-03-02 has not begun"):
        snapshot_requests([today + timedelta(days=1), today], today, scope=scope)


def taken_by_another_run(client, snapshot, root):
    begin_snapshot(client, snapshot.request, root)


def deleted(client, snapshot, root):
    shutil.rmtree(snapshot.plan.directory)


def deleted_but_for_a_page(client, snapshot, root):
    fetch_missing(client, snapshot, [4])
    snapshot.plan.path(0).unlink()


@pytest.mark.parametrize("lose", [taken_by_another_run, deleted, deleted_but_for_a_page])
def test_a_snapshot_that_is_gone_is_begun_anew_as_a_whole(
    lose, client, snapshot_request, settings, emulator, root
):
    """Page 0 of a new session never stands before pages of the old one."""
    snapshot = begin_snapshot(client, snapshot_request, root)
    lose(client, snapshot, root)
    failed, lost = fetch_missing(client, snapshot, range(5, 9))
    assert lost
    assert sorted(failed) == [5, 6, 7, 8]
    complete = complete_snapshot(client, snapshot, settings.today)
    assert complete.failed == {}
    assert complete.plan.missing() == []
    assert not snapshot.plan.present()
    assert [folder for folder in root.iterdir() if folder != complete.plan.directory] == []


def test_a_snapshot_begun_anew_tells_every_page(client, snapshot_request, settings, emulator, root):
    """Page 0, which came with the new plan, included."""
    snapshot = begin_snapshot(client, snapshot_request, root)
    emulator.faults.add(Fault("session-expired", path=ENGAGE, page=9))
    told = []
    complete = complete_snapshot(
        client, snapshot, settings.today, on_page=lambda outcome, plan: told.append((plan, outcome))
    )
    of_the_new = [outcome for plan, outcome in told if plan == complete.plan]
    assert sorted(outcome.page for outcome in of_the_new) == list(range(10))
    assert sum(outcome.rows for outcome in of_the_new) == complete.plan.total


def test_what_refuses_page_0_leaves_no_folder(client, snapshot_request, emulator, root):
    """A page 0 without `total` raises an error and leaves no folder."""
    emulator.faults.add(Fault("no-total", path=ENGAGE, times=None))
    with pytest.raises(Exception, match="no `total`"):
        begin_snapshot(client, snapshot_request, root)
    assert not list(root.glob("*"))
