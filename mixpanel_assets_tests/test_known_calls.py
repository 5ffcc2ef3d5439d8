"""What users of `mixpanel_data` type, literally: it works here as it did there."""

from datetime import UTC, datetime

import httpx
import pandas as pd
import pytest

from mixpanel_assets import (
    DiscoveryService,
    FetcherService,
    LiveQueryService,
    MixpanelAPIClient,
    ParallelProfileFetcherService,
    StorageEngine,
    Workspace,
)
from mixpanel_assets.auth import ConfigManager
from mixpanel_assets.emulator import Emulator, EmulatorSettings
from mixpanel_assets.errors import ConfigError, StorageError, TableNotFoundError
from mixpanel_assets.loading.results import FetchResult
from mixpanel_assets_tests.conftest import START

DAYS = {"from_date": "2024-01-02", "to_date": "2024-01-04"}


@pytest.fixture(scope="module")
def two_weeks_ago():
    """A project whose events are recent enough for Mixpanel's lists of names."""
    clock = datetime(2024, 1, 15, tzinfo=UTC)
    with Emulator(EmulatorSettings(start=START, days=14, now=lambda: clock)) as emulator:
        yield emulator


@pytest.fixture
def emulator(two_weeks_ago):
    two_weeks_ago.faults.clear()
    return two_weeks_ago


@pytest.fixture
def ws(credentials, settings):
    with Workspace(credentials=credentials, settings=settings) as workspace:
        yield workspace


@pytest.fixture
def of_the_emulator(monkeypatch, emulator):
    """The environment that points at the emulator."""
    monkeypatch.setenv("MP_API_BASE_URL", emulator.base_url)


def test_values_of_a_property(ws):
    """The event may stand first, and the number of values third."""
    known = ws.property_values("plan", event="Sign Up")
    assert known == ["free", "pro", "team"]
    assert ws.property_values("Sign Up", "plan") == known
    assert ws.property_values("Sign Up", "plan", 5) == known
    assert ws.property_values("Sign Up", prop="plan") == known
    assert ws.property_values(event="Sign Up", prop="plan", limit=5) == known
    assert len(ws.property_values("Sign Up", "plan", 2)) == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), {}),
        ((), {"limit": 3}),
        (("Sign Up", "plan"), {"prop": "plan"}),
        (("Sign Up", "plan"), {"event": "Sign Up"}),
        (("plan",), {"event": "Sign Up", "prop": "plan"}),
    ],
)
def test_values_of_no_property_or_of_two(arguments, named, ws, emulator):
    """The error is raised before any request is sent."""
    before = len(emulator.requests)
    with pytest.raises(ConfigError, match="Give the property once"):
        ws.property_values(*arguments, **named)
    assert len(emulator.requests) == before


def test_a_fresh_workspace_has_no_tables(ws):
    """`tables` and `info` do not create the file of a new workspace."""
    assert ws.tables() == []
    info = ws.info()
    assert (info.tables, info.size_mb, info.created_at) == ([], 0.0, None)
    assert info.project_id == ws.credentials.project_id
    assert info.path == ws.db_path
    assert not ws.db_path.exists()
    with Workspace.memory(credentials=ws.credentials, settings=ws.settings) as passing:
        assert passing.tables() == []
        assert passing.info().tables == []


def test_the_account_of_a_workspace_is_the_default_one(settings, monkeypatch):
    """A named account comes first; credentials from the environment have no account."""
    accounts = ConfigManager()
    accounts.add_account("shop", "user", "secret-of-shop", "1", "us")
    accounts.add_account("market", "user", "secret-of-market", "2", "eu")
    assert Workspace(settings=settings).info().account == "shop"
    assert Workspace("market", settings=settings).info().account == "market"
    monkeypatch.setenv("MP_ACCOUNT", "market")
    assert Workspace(settings=settings).info().account == "market"
    for name in ("MP_USERNAME", "MP_SECRET", "MP_PROJECT_ID"):
        monkeypatch.setenv(name, "12345678")
    assert Workspace(settings=settings).info().account is None


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("/events/names", "/api/query/events/names"),
        ("events/names", "/api/query/events/names"),
        ("/events/names?limit=3", "/api/query/events/names"),
        ("/api/query/events/names", "/api/query/events/names"),
        ("/api/2.0/events/names", "/api/query/events/names"),
        ("https://mixpanel.com/api/2.0/events/names", "/api/query/events/names"),
        ("/api/app/me", "/api/app/me"),
        ("https://eu.mixpanel.com/api/app/me", "/api/app/me"),
    ],
)
def test_an_endpoint_alone_is_asked(endpoint, path, client, emulator):
    """Its API is known by its path; the host is always the project's own."""
    client.get(endpoint)
    assert emulator.requests[-1].path == path
    if "?" in endpoint:
        assert emulator.requests[-1].params["limit"] == "3"


def test_an_endpoint_takes_parameters(client, emulator):
    """By position or by name; a form is sent by POST."""
    assert client.get("/events/names", {"limit": 2}) == client.get(
        "/events/names", params={"limit": 2}
    )
    assert client.get("query", "/events/names", {"limit": 2}) == client.get(
        "query", "events/names", params={"limit": 2}
    )
    assert client.post("/cohorts/list")[0]["id"]
    assert len(client.post("/engage", {"page_size": 2})["results"]) == 2
    assert len(client.post("/engage", data={"page_size": 3})["results"]) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("query",), "such as /events/names"), (("data", "/export"), "export, query, app")],
)
def test_half_an_address_is_refused(arguments, said, client):
    """The message says what is missing."""
    with pytest.raises(ConfigError, match=said):
        client.get(*arguments)


def test_a_bare_client_obeys_the_environment(of_the_emulator, credentials):
    """As a workspace does; None says that it is not to."""
    with MixpanelAPIClient(credentials) as client:
        assert "Sign Up" in client.get_events()
    assert (
        MixpanelAPIClient(credentials, api_base_url=None)
        .open_transport()
        .url("query", "/engage")
        .startswith("https://mixpanel.com/")
    )


def test_a_client_takes_a_transport(credentials):
    """Requests go through it, with all that they carry, and nowhere else."""
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=["Sign Up"])

    with MixpanelAPIClient(credentials, transport=httpx.MockTransport(answer)) as client:
        assert client.get_events() == ["Sign Up"]
    assert seen[0].url.host == "mixpanel.com"
    assert seen[0].headers["Authorization"].startswith("Basic ")


def test_the_properties_of_an_event_are_names(client, ws):
    """A list of text."""
    names = client.get_event_properties("Sign Up")
    assert isinstance(names, list)
    assert sorted(names) == ws.properties("Sign Up")


def test_a_storage_without_a_path(tmp_path, monkeypatch):
    """It lies in memory; statements answer as DuckDB's own do."""
    monkeypatch.chdir(tmp_path)
    with StorageEngine() as storage:
        assert storage.path is None
        assert storage.list_tables() == []
        assert storage.execute("SELECT 42 AS a, 'x' AS b").fetchall() == [(42, "x")]
        assert storage.execute("SELECT 42 AS a").fetchone() == (42,)
        frame = storage.execute("SELECT 42 AS a").df()
        assert isinstance(frame, pd.DataFrame)
        assert frame.to_dict("records") == [{"a": 42}]
        storage.execute("CREATE TABLE main.mine AS SELECT 1 AS n")
        assert storage.execute_scalar("SELECT n FROM mine") == 1
    assert not [path for path in tmp_path.iterdir() if path.name != "home"]


def test_services_are_made_of_a_client_and_a_storage(client, of_the_emulator):
    """The MP_* variables say the rest."""
    with StorageEngine() as storage:
        fetched = FetcherService(client, storage).fetch_events("visits", **DAYS)
        assert fetched.rows == storage.execute_scalar("SELECT count(*) FROM visits") > 0
        people = ParallelProfileFetcherService(client, storage).fetch_profiles("people")
        assert people.total_rows == storage.execute_scalar("SELECT count(*) FROM people") == 250
    assert "Sign Up" in DiscoveryService(client).list_events()
    assert LiveQueryService(client).segmentation("Sign Up", **DAYS).total > 0


def test_a_fetch_result_reads_its_table(ws):
    """The table is read at the first access, and only once."""
    fetched = ws.fetch_events("visits", **DAYS, progress=False)
    assert len(fetched.df) == fetched.rows
    assert fetched.df is fetched.df
    assert list(fetched.df)[:2] == ["event_name", "event_time"]
    people = ws.fetch_profiles("people", progress=False)
    assert len(people.df) == people.rows
    assert set(people.to_dict()) == {
        "table", "rows", "type", "duration_seconds", "date_range", "fetched_at"
    }  # fmt: skip


def test_a_fetch_result_of_the_assets_table_reads_its_days(ws):
    """The frame has the fetched days only."""
    ws.sync_events("2024-01-01", "2024-01-01")
    fetched = ws.fetch_events(**DAYS, append=True, progress=False)
    assert len(fetched.df) == fetched.rows < ws.sql_scalar("SELECT count(*) FROM mixpanel.events")
    people = ws.fetch_profiles(append=True, progress=False)
    assert len(people.df) == people.rows


def test_a_fetch_result_without_a_table(ws):
    """It says so, whether it was dropped or there was none."""
    fetched = ws.fetch_events("visits", **DAYS, progress=False)
    ws.drop("visits")
    with pytest.raises(TableNotFoundError):
        fetched.df  # noqa: B018
    alone = FetchResult("visits", 1, "events", 0.1, None, datetime.now(UTC))
    with pytest.raises(StorageError, match="knows no database"):
        alone.df  # noqa: B018
