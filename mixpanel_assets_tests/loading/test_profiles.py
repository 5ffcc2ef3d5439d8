"""Snapshots that are begun, lost and taken up again: no two sessions are ever mixed."""

import shutil
from datetime import date, timedelta

import pytest

from mixpanel_assets.client import MixpanelAPIClient, ProfileQuery, make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.errors import ConfigError
from mixpanel_assets.loading.profiles import begin, completed, fetch_missing, questions_for
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
def question(settings):
    [question] = questions_for([settings.today()], settings.today(), ProfileQuery())
    return question


@pytest.mark.parametrize("scope", ["auto", "all", "seen_on_day"])
def test_a_day_that_has_not_begun_has_no_snapshot(scope):
    """Profiles of now under a later day would be mislabelled."""
    today = date(2024, 3, 1)
    with pytest.raises(ConfigError, match="2024-03-02 has not begun"):
        questions_for([today + timedelta(days=1), today], today, scope=scope)


def taken_by_another_run(client, snapshot, root):
    begin(client, snapshot.question, root)


def deleted(client, snapshot, root):
    shutil.rmtree(snapshot.plan.directory)


def deleted_but_for_a_page(client, snapshot, root):
    fetch_missing(client, snapshot, [4])
    snapshot.plan.path(0).unlink()


@pytest.mark.parametrize("lose", [taken_by_another_run, deleted, deleted_but_for_a_page])
def test_a_snapshot_that_is_gone_is_begun_anew_as_a_whole(
    lose, client, question, settings, emulator, root
):
    """Page 0 of a new session never stands before pages of the old one."""
    snapshot = begin(client, question, root)
    lose(client, snapshot, root)
    failed, lost = fetch_missing(client, snapshot, range(5, 9))
    assert lost
    assert sorted(failed) == [5, 6, 7, 8]
    whole = completed(client, snapshot, settings.today)
    assert whole.failed == {}
    assert whole.plan.missing() == []
    assert not snapshot.plan.present()
    assert [folder for folder in root.iterdir() if folder != whole.plan.directory] == []


def test_a_snapshot_begun_anew_tells_every_page(client, question, settings, emulator, root):
    """Page 0, which came with the new plan, included."""
    snapshot = begin(client, question, root)
    emulator.faults.add(Fault("session-expired", path=ENGAGE, page=9))
    told = []
    whole = completed(
        client, snapshot, settings.today, on_page=lambda outcome, plan: told.append((plan, outcome))
    )
    of_the_new = [outcome for plan, outcome in told if plan == whole.plan]
    assert sorted(outcome.page for outcome in of_the_new) == list(range(10))
    assert sum(outcome.rows for outcome in of_the_new) == whole.plan.total


def test_what_refuses_page_0_leaves_no_folder(client, question, emulator, root):
    """Nothing of the snapshot has come."""
    emulator.faults.add(Fault("no-total", path=ENGAGE, times=None))
    with pytest.raises(Exception, match="no `total`"):
        begin(client, question, root)
    assert not list(root.glob("*"))
