"""Data views: reports and fetched profiles of one part of a project, and the copy of all of it."""

import pytest

from mixpanel_assets import MixpanelAPIClient, Workspace
from mixpanel_assets.client import ProfileQuery
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.errors import ConfigError
from mixpanel_assets_tests.conftest import PLENTY, START

VIEW = 3001
DAYS = {"from_date": "2024-01-01", "to_date": "2024-01-02"}


@pytest.fixture(scope="module")
def shared_emulator():
    """A project whose data view shows paying users alone."""
    views = {VIEW: 'properties["plan"] == "pro"'}
    with Emulator(EmulatorSettings(start=START, days=3, data_views=views)) as emulator:
        yield emulator


def views_asked(emulator, since):
    return {request.params.get("workspace_id") for request in emulator.requests[since:]}


def test_reports_are_those_of_the_view(credentials, settings, emulator):
    """The view holds until another one, or the whole project, is chosen."""
    with Workspace(credentials=credentials, settings=settings, workspace_id=VIEW) as ws:
        assert ws.workspace_id == VIEW
        part = ws.segmentation("Sign Up", **DAYS).total
        since = len(emulator.requests)
        ws.funnels()
        ws.cohorts()
        ws.frequency(**DAYS)
        ws.event_counts(["Page View"], **DAYS)
        assert views_asked(emulator, since) == {str(VIEW)}
        ws.set_workspace_id(None)
        assert ws.segmentation("Sign Up", **DAYS).total > part > 0


def test_profiles_of_the_view_are_a_part(credentials, settings, emulator):
    """Fetched and streamed alike; every page names the view."""
    with Workspace(credentials=credentials, settings=settings, workspace_id=VIEW) as ws:
        since = len(emulator.requests)
        pros = {profile["distinct_id"] for profile in ws.stream_profiles()}
        assert ws.fetch_profiles("pros", progress=False).rows == len(pros)
        assert views_asked(emulator, since) == {str(VIEW)}
        assert 0 < len(pros) < len(emulator.truth.profiles())
        with pytest.raises(ConfigError, match="holds all profiles"):
            ws.fetch_profiles(progress=False)


def test_the_copy_is_always_whole(credentials, settings, emulator):
    """Neither the assets' tables nor exports know a view."""
    with Workspace(credentials=credentials, settings=settings, workspace_id=VIEW) as ws:
        since = len(emulator.requests)
        assert ws.sync_profiles().row_count == len(emulator.truth.profiles())
        ws.sync_events("2024-01-01", "2024-01-01")
        list(ws.stream_events(from_date="2024-01-01", to_date="2024-01-01"))
        assert views_asked(emulator, since) == {None}


def test_a_view_of_a_client(credentials, emulator):
    """For its reports; a query for profiles names its own."""
    with MixpanelAPIClient(
        credentials, api_base_url=emulator.base_url, budget=PLENTY, workspace_id=VIEW
    ) as client:
        assert len(client.post("/engage")["results"]) < len(emulator.truth.profiles())
        everybody = list(client.stream_profiles())
        pros = list(client.stream_profiles(ProfileQuery(workspace_id=VIEW)))
    assert len(everybody) == len(emulator.truth.profiles()) > len(pros) > 0


@pytest.mark.parametrize("wrong", [0, -1, "3001", 1.5, True])
def test_a_view_is_a_number(wrong, credentials, settings):
    """An invalid view raises ConfigError."""
    with Workspace(credentials=credentials, settings=settings) as ws:
        with pytest.raises(ConfigError, match="workspace_id must be a whole number"):
            ws.set_workspace_id(wrong)
        with pytest.raises(ConfigError, match="workspace_id must be a whole number"):
            MixpanelAPIClient(credentials, workspace_id=wrong)
