"""doctor: each thing that keeps data away is named, with what to do about it."""

from datetime import UTC, date, datetime, timedelta

import duckdb
import pytest

from mixpanel_assets import Workspace
from mixpanel_assets.client import make_credentials
from mixpanel_assets.emulator import Emulator, EmulatorSettings, Fault
from mixpanel_assets.loading.day_checks import DAY_CHECKS
from mixpanel_assets.loading.doctor import doctor
from mixpanel_assets.settings import Settings
from mixpanel_assets_tests.conftest import START

OF_MIXPANEL = ["credentials", "region", "access", "clock", "zone", "quota"]
ALL = [*OF_MIXPANEL, "database", "days", *DAY_CHECKS, "history", "disk"]
DAY = date(2024, 1, 3)


def found(findings):
    return {finding.what: finding for finding in findings}


def test_a_healthy_project_has_no_complaints(credentials, settings):
    """Everything is looked at and is fine; the copy is described."""
    with Workspace(credentials=credentials, settings=settings) as workspace:
        yesterday = settings.today() - timedelta(days=1)
        workspace.sync_events(yesterday, yesterday)
        findings = found(workspace.doctor())
    assert list(findings) == ALL
    assert {finding.status for finding in findings.values()} == {"ok"}
    assert f"1 days of events, {yesterday}" in findings["database"].detail
    assert findings["credentials"].to_dict()["remedy"] == ""


def test_nothing_is_made_and_no_query_is_spent(credentials, settings, emulator):
    """No file is created and no query is spent."""
    before = len(emulator.requests)
    findings = found(doctor(credentials=credentials, settings=settings))
    assert "does not exist yet" in findings["database"].detail
    assert not settings.database.exists()
    assert {request.path for request in list(emulator.requests)[before:]} == {"/api/app/me"}


def test_missing_credentials_are_named_and_the_rest_is_looked_at(settings):
    """Without an account the database is still read."""
    findings = found(doctor(settings=settings))
    assert findings["credentials"].status == "fail"
    assert "MP_USERNAME" in findings["credentials"].detail
    assert "mp auth add" in findings["credentials"].remedy
    assert str(findings["credentials"]).count("mp auth add") == 1
    assert findings["database"].status == "ok"
    assert "access" not in findings


def test_the_source_of_each_credential_is_told(monkeypatch, settings, emulator):
    """Which variable or account won; never the secret."""
    monkeypatch.setenv("MP_USERNAME", emulator.username)
    monkeypatch.setenv("MP_SECRET", emulator.secret)
    monkeypatch.setenv("MP_PROJECT_ID", str(emulator.project_id))
    findings = doctor(settings=settings)
    assert "secret from MP_SECRET, project_id from MP_PROJECT_ID" in findings[0].detail
    assert "region from default" in findings[0].detail
    assert emulator.secret not in "".join(map(str, findings))


def test_refused_credentials_fail(emulator, settings):
    """Mixpanel's error is in the finding; clock and zone, which depend on access, are left out."""
    wrong = make_credentials(username=emulator.username, secret="wrong", project_id="12345")
    findings = found(doctor(credentials=wrong, settings=settings))
    assert findings["access"].status == "fail"
    assert "does not know" in findings["access"].detail
    assert not {"clock", "zone"} & findings.keys()


@pytest.mark.parametrize(("seconds", "way"), [(300, "ahead of"), (-300, "behind")])
def test_a_clock_that_is_off_is_told(seconds, way, credentials, settings):
    """Both ways, by how much, and what to do."""

    def now():
        return datetime.now(UTC) + timedelta(seconds=seconds)

    clock = found(doctor(credentials=credentials, settings=settings, now=now))["clock"]
    assert clock.status == "warn"
    assert way in clock.detail
    assert "NTP" in clock.remedy


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, "warn"),
        ({"time_zone": "Europe/Berlin"}, "ok"),
        ({"time_zone": "Europe/Stockholm"}, "ok"),
        ({"time_zone": "Asia/Tokyo"}, "warn"),
        ({"time_zone": "Europe/Berlin", "time_regime": "legacy"}, "ok"),
        ({"time_zone": "Asia/Tokyo", "time_regime": "legacy"}, "fail"),
    ],
)
def test_the_zone_is_compared_with_the_projects(changes, status):
    """A legacy project read in another zone would be wrong by hours."""
    with Emulator(EmulatorSettings(start=START, days=1, zone="Europe/Berlin")) as emulator:
        credentials = make_credentials(
            username=emulator.username, secret=emulator.secret, project_id="12345"
        )
        settings = Settings(api_base_url=emulator.base_url, **changes)
        zone = found(doctor(credentials=credentials, settings=settings))["zone"]
    assert zone.status == status
    assert ("MP_TIME_ZONE=Europe/Berlin" in zone.remedy) == (status != "ok")


@pytest.mark.parametrize("zone", ['"Mars/Base"', "null", '""', "7"])
def test_a_zone_that_mixpanel_does_not_tell_is_no_value_to_set(
    zone, credentials, settings, emulator
):
    """The advice never names a zone that does not exist."""
    text = '{"results": {"projects": {"12345": {"name": "Shop", "timezone": %s}}}}'
    emulator.faults.add(Fault("html-200", path="/api/app/me", text=text % zone))
    finding = found(doctor(credentials=credentials, settings=settings))["zone"]
    assert finding.status == "warn"
    assert "unknown" in finding.detail
    assert "MP_TIME_ZONE=UTC" in finding.remedy


def test_a_spent_budget_is_told(credentials, settings):
    """When the next request may be sent is part of it."""
    tight = settings.model_copy(update={"budget_export_per_hour": 1})
    with Workspace(credentials=credentials, settings=tight) as workspace:
        workspace.sync_events(DAY, DAY)
        quota = found(workspace.doctor())["quota"]
    assert quota.status == "warn"
    assert "export 0 of 1" in quota.detail
    assert "mp quota" in quota.remedy


def test_a_database_of_another_project_fails(credentials, settings):
    """Both projects are named."""
    with Workspace(credentials=credentials, settings=settings) as workspace:
        workspace.sync_events(DAY, DAY)
    other = make_credentials(username="a", secret="b", project_id="777")
    database = found(doctor(credentials=other, settings=settings))["database"]
    assert database.status == "fail"
    assert "12345" in database.detail
    assert "777" in database.detail


def test_a_held_database_is_told_and_not_waited_for(credentials, settings):
    """Loads wait by themselves; a look does not."""
    held = settings.model_copy(update={"lock_timeout": 0.1})
    with duckdb.connect(settings.database):
        database = found(doctor(credentials=credentials, settings=held))["database"]
    assert database.status == "warn"


def test_a_file_that_is_no_database_fails(credentials, settings):
    """The file is unchanged."""
    settings.database.write_bytes(b"a picture, perhaps" * 1000)
    findings = found(doctor(credentials=credentials, settings=settings))
    assert findings["database"].status == "fail"


@pytest.mark.slow
def test_days_beyond_the_plan_are_told(tmp_path):
    """The first day that can be had is where MP_START_DATE should be."""
    now = datetime(2024, 1, 14, 12, tzinfo=UTC)
    with Emulator(EmulatorSettings(start=START, history_days=5, now=lambda: now)) as emulator:
        credentials = make_credentials(
            username=emulator.username, secret=emulator.secret, project_id="12345"
        )
        settings = Settings(api_base_url=emulator.base_url, database=tmp_path / "w.duckdb")
        with Workspace(credentials=credentials, settings=settings) as workspace:
            workspace.sync_events(date(2024, 1, 5), date(2024, 1, 12))
            history = found(workspace.doctor())["history"]
    assert history.status == "warn"
    assert "older than the plan reaches" in history.detail
    assert "MP_START_DATE" in history.remedy


def test_an_unreachable_host_fails(credentials, settings):
    """No answer is no access; what needs none is looked at."""
    nowhere = settings.model_copy(update={"api_base_url": "http://127.0.0.1:9", "max_retries": 0})
    findings = found(doctor(credentials=credentials, settings=nowhere))
    assert findings["access"].status == "fail"
    assert "MP_API_BASE_URL" in findings["access"].detail
    assert findings["quota"].status == "ok"
